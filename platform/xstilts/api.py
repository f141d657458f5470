"""Everything the command line can do, for notebooks and scripts.

from xstilts import api
job = api.open_job("jobs/quickstart.yaml")
api.run(job)
api.results(job)          # a pandas data frame, one row a score
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from xstilts.errors import DataError, ModelError, StoreError, XstiltsError
from xstilts.execute.site import Site, is_bucket, open_store
from xstilts.execute.sources import LocalSources
from xstilts.execute.state import Survey, chosen_values, survey
from xstilts.families import snapshot
from xstilts.plan.expand import Missing, expand
from xstilts.plan.graph import Plan
from xstilts.record.artifacts import ArtifactStore, job_file, plan_file, report_file
from xstilts.spec.load import JobFile, load
from xstilts.tasks import suites

if TYPE_CHECKING:
    import pandas

    from xstilts.execute.backends import Backend, Event, Listener
    from xstilts.execute.runner import Failure, Observer, Result
    from xstilts.execute.submission import Submission
    from xstilts.plan.graph import Planned
    from xstilts.report.render import Report

DEFAULT_STORE = "xstilts-store"
"""Beside where the command is run, so that a user sees where things lie."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Job:
    """A job file, with the store and the data it is to be run on."""

    file: JobFile
    store: ArtifactStore
    data: Path | None
    overrides: dict[str, Any] = field(default_factory=dict)
    """Of `execution`, by field: what the command line says goes before the job file."""

    @property
    def site(self) -> Site:
        """What workers are told."""
        execution = self.file.experiment.execution.model_copy(update=self.overrides)
        return Site(self.store.location, str(self.data) if self.data else None, execution)


def open_job(path: Path | str, store: str | None = None, data: str | None = None, **execution: Any) -> Job:
    """Reads a job file; `store` and `data` default to XSTILTS_STORE and XSTILTS_DATA.

    Without either, the store is ./xstilts-store and the data its `mirror` folder, where there is one.

    Raises:
        JobFileError: with file, line and nearest name. StoreError: the store cannot be used.
    """
    file = load(path)
    location = store or os.environ.get("XSTILTS_STORE") or DEFAULT_STORE
    opened = open_store(location)
    named = data or os.environ.get("XSTILTS_DATA")
    mirror = None if is_bucket(opened.location) else Path(opened.location) / "mirror"
    beside = mirror if mirror is not None and mirror.is_dir() else None
    return Job(file, opened, Path(named).expanduser().absolute() if named else beside, execution)


def plan(job: Job, failed: Missing | None = None) -> Plan:
    """What the job asks for, with what its searches have chosen so far and without the languages that
    `failed`. Needs no ML library."""
    sources = LocalSources(job.file.experiment, job.data)

    def made() -> Plan:
        plan = expand(job.file.experiment, sources, None, failed)
        while chosen := chosen_values(plan, job.store):
            again = expand(job.file.experiment, sources, chosen, failed)
            if again.steps.keys() == plan.steps.keys():
                break
            plan = again
        return plan

    return _located(job, made)


def look(job: Job, explain: bool = True) -> Survey:
    """The plan beside the store: what is recorded, what is to run and why."""
    return survey(plan(job), job.store, explain)


def plan_words(job: Job, surveyed: Survey) -> dict[str, Any]:
    """The plan as stored: what `plan --json` prints, and what a report needs beside it."""
    return surveyed.to_json() | {
        "experiment": surveyed.plan.experiment,
        "model": surveyed.plan.model,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def run(job: Job, observers: Sequence[Observer] = (), live: bool = True) -> tuple[Result, list[str]]:
    """Runs what is missing. Returns what it came to, and notes for people.

    Raises:
        XstiltsError: the job cannot be planned or the store not written; steps that fail are in the result.
    """
    from xstilts.execute.runner import Runner

    first = look(job, explain=False)
    ahead = [planned.step for planned in first.to_run if planned.step is not None]
    damaged = LocalSources(job.file.experiment, job.data).check(ahead)
    watching, notes = [_PlanFile(job), *observers], _unlike(job)
    view = _live_view(job, first.plan) if live and first.to_run else None
    if view is not None:
        from xstilts.execute.live import LiveRuns

        watching.append(LiveRuns(view, job.store))
    status = "FAILED"
    try:
        runner = Runner(job.store, lambda failed: plan(job, failed), _starter(job.site), watching)
        runner.failed_languages.update(damaged)
        result = runner.run()
        status = "FINISHED" if result.complete else "KILLED" if result.interrupted else "FAILED"
    finally:
        if view is not None:
            view.job_ended(status)
            notes += view.close()
    failed = tuple(_placed(job, failure) for failure in result.failed)
    return replace(result, failed=failed), notes


def report(job: Job, out: Path | None = None, live: bool = True) -> Report:
    """Writes the report of the job as far as it is done; with `live`, attaches it to the job's run in MLflow.

    Raises:
        XstiltsError: the job was never run on this store.
    """
    from xstilts.report.render import write

    words = stored_plan(job)
    name, bucket = job.file.experiment.name, is_bucket(job.store.location)
    folder = out or (Path(f"{name}-report") if bucket else Path(job.store.location) / report_file(name, ""))
    made = write(words, job.store, folder)
    if bucket and out is None:
        for file in made.files:
            job.store.upload(file, report_file(name, file.name))
    tracking = _tracking(job) if live else None
    if tracking is not None and _has_runs(job):
        from xstilts.record.mlflow import LiveView

        view = LiveView(*tracking, words["job"], words["digest"])
        for file in made.files:
            view.artifact(file, "report")
        view.close()
    return made


def results(job: Job) -> pandas.DataFrame:
    """One row a score: job suite model intermediate target language ... value n seed key ... status."""
    from xstilts.report.frame import frame

    return frame(stored_plan(job), job.store)


def export_mlflow(job: Job) -> int:
    """Rebuilds the job's runs in MLflow from the store; how many there are. Twice makes no second ones."""
    from xstilts.record.mlflow import rebuild

    tracking = _tracking(job)
    if tracking is None:
        raise StoreError("there is no MLflow to export to", "set MLFLOW_TRACKING_URI")
    return rebuild(stored_plan(job), job.store, *tracking)


def export_xtreme(
    job: Job,
    to: Path,
    suite: str | None = None,
    intermediate: str | None = None,
    seed: int | None = None,
    labels: Path | None = None,
) -> Submission:
    """Writes the predictions of one row and seed as XTREME (or XTREME-R) wants them; `labels`, a folder for
    the right answers in the same shape.

    Raises:
        XstiltsError: the job has several rows or seeds and none is named, or a file cannot be written.
    """
    from xstilts.execute.submission import parts_of, write_submission

    chosen = suites.suite(suite or job.file.experiment.suite or "xtreme")
    parts = parts_of(plan(job), job.store, intermediate, seed)
    return write_submission(parts, job.store, job.data, to, chosen, labels)


def stored_plan(job: Job) -> dict[str, Any]:
    """The plan as it was when the job was last run here; found by the job's words where its data are gone."""
    name = job.file.experiment.name
    try:
        data = job.store.read(plan_file(name, plan(job).digest))
    except (DataError, ModelError):
        data = _plan_of_words(job)
    if data is None:
        raise XstiltsError(
            f"{name} was never run on {job.store.location} as {job.file.path} is now",
            f"xstilts run {job.file.path}",
        )
    words: dict[str, Any] = json.loads(data)
    return words


def _plan_of_words(job: Job) -> bytes | None:
    """The newest stored plan that was made from just this job file."""
    asked = job.file.experiment.model_dump(mode="json")
    found = [
        job.store.read(name)
        for name in job.store.list(plan_file(job.file.experiment.name, "")[: -len(".json")])
    ]
    plans = [(json.loads(data), data) for data in found if data is not None]
    alike = [(words["created"], data) for words, data in plans if words["experiment"] == asked]
    return max(alike)[1] if alike else None


class _PlanFile:
    """An observer that keeps the plan in the store up to date: a search that has chosen decides keys."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def planned(self, survey: Survey) -> None:
        """Writes what was asked, as planned now."""
        store, name = self._job.store, survey.plan.job
        store.put(job_file(name), self._job.file.text.encode())
        words = plan_words(self._job, survey)
        store.put(plan_file(name, survey.plan.digest), json.dumps(words, indent=1).encode())

    def event(self, event: Event, planned: Planned) -> None:
        """Steps change no plan."""


def _unlike(job: Job) -> list[str]:
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


def _placed(job: Job, failure: Failure) -> Failure:
    """A failure whose cause stands in the job file says where."""
    if not isinstance(failure.error, XstiltsError) or not failure.error.where:
        return failure
    error = job.file.error_at(failure.error)
    return replace(failure, text=str(error), error=error)


def _starter(site: Site) -> Callable[[Listener], Backend]:
    def start(listen: Listener) -> Backend:
        if site.execution.backend == "inline" or site.execution.engine == "inline":
            from xstilts.execute.backends import InlineBackend

            return InlineBackend(site, listen)
        from xstilts.execute.ray_backend import RayBackend

        return RayBackend(site, listen)

    return start


def _live_view(job: Job, planned: Plan) -> Any:
    tracking = _tracking(job)
    if tracking is None:
        return None
    from xstilts.record.mlflow import LiveView

    return LiveView(*tracking, planned.job, planned.digest)


def _tracking(job: Job) -> tuple[str, str | None] | None:
    from xstilts.record.mlflow import where

    return where(job.store.location)


def _has_runs(job: Job) -> bool:
    """Whether MLflow has been written to: a job that ran without it gets no database for its report alone."""
    location = job.store.location
    here = not is_bucket(location) and (Path(location) / "mlflow.db").is_file()
    return "MLFLOW_TRACKING_URI" in os.environ or here


def _located(job: Job, act: Callable[[], Value]) -> Value:
    """What `act` gives; its errors say file and line."""
    try:
        return act()
    except XstiltsError as problem:
        raise job.file.error_at(problem) from problem
