"""A job file with the store and the data that it is run on."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xstilts.errors import StoreError
from xstilts.execute.site import Site, is_bucket, open_store, reading_store
from xstilts.families import snapshot
from xstilts.record.artifacts import ArtifactStore, job_file
from xstilts.spec.load import JobFile, load, parse

DEFAULT_STORE = "xstilts-store"
"""Beside where the command is run, so that a user sees where things lie."""


@dataclass(frozen=True)
class Job:
    """A job file, with the store and the data it is to be run on."""

    file: JobFile
    store: ArtifactStore
    data: Path | None
    """On this machine; of data in a bucket, the manifest alone."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Of `execution`, by field: what the command line says goes before the job file."""
    remote: str = ""
    """s3://... of data that lie in a bucket."""

    @property
    def site(self) -> Site:
        """What workers are told."""
        execution = self.file.experiment.execution.model_copy(update=self.overrides)
        return Site(self.store.location, self.remote or (str(self.data) if self.data else None), execution)


def open_job(
    path: Path | str, store: str | None = None, data: str | None = None, write: bool = True, **execution: Any
) -> Job:
    """Reads a job file; `store` and `data` default to XSTILTS_STORE and XSTILTS_DATA.

    Without either, the store is ./xstilts-store and the data its `mirror` folder, where there is one.
    Without `write`, a store that can only be read will do.

    Raises:
        JobFileError: with file, line and nearest name. StoreError: the store cannot be used.
    """
    file = load(path)
    location = store or os.environ.get("XSTILTS_STORE") or DEFAULT_STORE
    opened = open_store(location) if write else reading_store(location)
    return Job(file, opened, **_data(opened, data or os.environ.get("XSTILTS_DATA")), overrides=execution)


def open_stored(name: str, store: str, data: str | None = None) -> Job:
    """A job by its name, from the store that it was submitted with.

    Raises:
        StoreError: no such job was ever asked for there.
    """
    opened = open_store(store)
    text = opened.read(job_file(name))
    if text is None:
        raise StoreError(f"{opened.location} has no job {name!r}", "submit it: xstilts submit JOB")
    file = parse(text.decode(), Path(f"{opened.location}/{job_file(name)}"))
    return Job(file, opened, **_data(opened, data))


def _data(store: ArtifactStore, named: str | None) -> dict[str, Any]:
    """`Job.data` and `Job.remote`: what is named, else the store's own mirror, where there is one."""
    if named and not is_bucket(named):
        return {"data": Path(named).expanduser().absolute()}
    if named or is_bucket(store.location):
        from xstilts.execute.nearby import manifest_folder

        location = named or f"{store.location}/mirror"
        if named or store.exists("mirror/manifest.json"):
            return {"data": manifest_folder(location), "remote": location}
        return {"data": None}
    beside = Path(store.location) / "mirror"
    return {"data": beside if beside.is_dir() else None}


def unlike(job: Job) -> list[str]:
    """A note for each row whose checkpoint has another shape than the job's model, where both are here."""
    experiment = job.file.experiment
    model = experiment.model and snapshot.find(experiment.model.name, job.data)
    notes = []
    for row in experiment.intermediate:
        folder = row.checkpoint and snapshot.find(row.checkpoint.name, job.data)
        different = snapshot.unlike(folder, model) if folder and model else {}
        if different:
            told = ", ".join(f"{name} {one} and not {other}" for name, (one, other) in different.items())
            notes.append(f"the checkpoint of row {row.label} is not of the job's model ({told})")
    return notes
