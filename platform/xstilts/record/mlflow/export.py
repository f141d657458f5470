"""Makes the runs of a job again from the store alone: `xstilts export mlflow JOB`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xstilts.errors import StoreError
from xstilts.record.artifacts import ArtifactStore, StepPaths, report_file
from xstilts.record.mlflow.hidden import address
from xstilts.record.mlflow.links import write_links
from xstilts.record.mlflow.models import attach_model
from xstilts.record.mlflow.runs import Point, Run, Runs
from xstilts.record.mlflow.telling import brief, write_record_cell
from xstilts.record.mlflow.words import (
    CURVED,
    all_step_words,
    final,
    job_store_words,
    job_words,
    milliseconds,
    outcome_words,
    params_of,
    store_words,
)
from xstilts.record.schema import StepRecord, read_record


def rebuild(
    plan: dict[str, Any],
    store: ArtifactStore,
    tracking_uri: str,
    artifact_root: str | None,
    models: bool = False,
) -> int:
    """Brings the job's experiment up to what the store knows; the number of runs under its parent.

    Runs, points and values that are there are left alone, so it can be repeated, and run while a job runs.
    With `models`, the run of each training has its encoder as `mlflow.transformers` loads one; see `models`.

    Raises:
        StoreError: MLflow does not answer or refuses, or a record is damaged.
    """
    job = str(plan["job"])
    records = {step["label"]: _record(store, step) for step in plan["steps"]}
    try:
        runs = Runs(tracking_uri, artifact_root, job)
        runs.settle()
        tags, params = job_words(plan)
        tags |= job_store_words(store.location, job, tags["digest"])
        created = milliseconds(str(plan.get("created", "")))
        parent = runs.parent(tags["digest"], tags, created)
        runs.tag(parent, tags)
        runs.params(parent, params)
        count = _steps(runs, parent, plan, records, store)
        if models:
            for record in records.values():
                if record is not None:
                    attach_model(runs, record, store, served=artifact_root is None)
        count += _cells(runs, parent, plan, records, store)
        _reports(runs, parent, store, job)
        if all(records.values()):
            ends = (milliseconds(record.finished) for record in records.values() if record)
            runs.end(parent, "FINISHED", max(ends, default=created))
        write_links(store, job, tags["digest"], address(tracking_uri), runs, {})
    except StoreError:
        raise
    except Exception as problem:
        remedy = "start it or set MLFLOW_TRACKING_URI, then run this again; the store has everything"
        text = f"MLflow at {address(tracking_uri)} did not take the runs ({brief(problem)})"
        # Without `from`: the problem's own words may have a password in them, and a traceback prints them.
        raise StoreError(text, remedy) from None
    return count


def history(store: ArtifactStore, record: StepRecord) -> list[Point]:
    """The curves of a training step, from its history.jsonl; a torn last line is left out."""
    output = record.outputs.get("history")
    data = store.read(f"{StepPaths(record.key).root}/{output.path}") if output else None
    points: list[Point] = []
    for line in (data or b"").splitlines():
        try:
            entry = json.loads(line)
            at, step = milliseconds(entry.get("time")), int(entry["step"])
            points += [(str(metric), float(value), step, at) for metric, value in entry["metrics"].items()]
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return points


def _steps(
    runs: Runs,
    parent: Run,
    plan: Mapping[str, Any],
    records: Mapping[str, StepRecord | None],
    store: ArtifactStore,
) -> int:
    """The runs of all trainings that are recorded; how many."""
    count = 0
    for label, (name, tags) in all_step_words(plan).items():
        record = records[label]
        if record is not None and record.kind in CURVED:
            if not runs.stands_in(record.key, parent):
                _step(runs, parent, record, name, tags, store)
            count += 1
    return count


def _step(
    runs: Runs, parent: Run, record: StepRecord, name: str, tags: Mapping[str, str], store: ArtifactStore
) -> None:
    """The run of one training step: its settings, curves, and final values."""
    finished = milliseconds(record.finished)
    spent = record.seconds.load + record.seconds.compute + record.seconds.save
    words = {**tags, **store_words(store.location, record.key), **outcome_words(record, store.location)}
    run = runs.step(record.key, name, parent, words, finished - int(spent * 1000))
    runs.params(run, params_of(record.identity))
    runs.missing_points(run, history(store, record))
    runs.metrics(run, final(record), finished)
    runs.end(run, "FINISHED", finished)


def _cells(
    runs: Runs,
    parent: Run,
    plan: Mapping[str, Any],
    records: Mapping[str, StepRecord | None],
    store: ArtifactStore,
) -> int:
    """The runs of all cells whose score is recorded; how many."""
    count = 0
    for cell in plan["cells"]:
        scored = records.get(cell["score"])
        if scored is not None:
            write_record_cell(runs, parent, cell, scored, store_words(store.location, scored.key))
            count += 1
    return count


def _reports(runs: Runs, parent: Run, store: ArtifactStore, job: str) -> None:
    """Attaches the rendered reports of the job."""
    prefix = report_file(job, "")
    with tempfile.TemporaryDirectory() as scratch:
        for name in store.list(prefix):
            folder = Path("report", name.removeprefix(prefix)).parent.as_posix()
            runs.attach(parent, store.local(name, Path(scratch)), folder)


def _record(store: ArtifactStore, step: Mapping[str, Any]) -> StepRecord | None:
    """The record of a planned step; a step that awaits a search has no key yet."""
    return read_record(store, step["key"]) if step.get("key") else None
