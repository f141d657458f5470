"""Makes the runs of a job again from the store alone: `xstilts export mlflow JOB`."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from xstilts.errors import StoreError
from xstilts.record.artifacts import ArtifactStore, StepPaths, report_file
from xstilts.record.mlflow.live import write_cell
from xstilts.record.mlflow.runs import Point, Run, Runs
from xstilts.record.mlflow.words import CURVED, cell_words, job_words, metrics_of, params_of, step_words
from xstilts.record.schema import StepRecord, read_record


def rebuild(plan: dict[str, Any], store: ArtifactStore, tracking_uri: str, artifact_root: str | None) -> int:
    """Brings the job's experiment up to what the store knows; the number of runs under its parent.

    Runs, points and values that are there are left alone, so it can be repeated, and run while a job runs.

    Raises:
        StoreError: MLflow does not answer or refuses, or a record is damaged.
    """
    job = str(plan["job"])
    records = {step["label"]: _record(store, step) for step in plan["steps"]}
    try:
        runs = Runs(tracking_uri, artifact_root, job)
        tags, params = job_words(plan)
        created = _milliseconds(str(plan.get("created", "")))
        parent = runs.parent(tags["digest"], tags, created)
        runs.params(parent, params)
        count = 0
        for label, record in records.items():
            if record is not None and record.kind in CURVED:
                if not runs.stands_in(record.key, parent):
                    _step(runs, parent, plan, label, record, store)
                count += 1
        for cell in plan["cells"]:
            scored = records.get(cell["score"])
            if scored is not None:
                name, words = cell_words(cell)
                metrics, finished = metrics_of(scored.scores), _milliseconds(scored.finished)
                write_cell(runs, parent, name, words, metrics, finished)
                count += 1
        _reports(runs, parent, store, job)
        if all(records.values()):
            ends = (_milliseconds(record.finished) for record in records.values() if record)
            runs.end(parent, "FINISHED", max(ends, default=created))
    except StoreError:
        raise
    except Exception as problem:
        remedy = "start it or set MLFLOW_TRACKING_URI, then run this again; the store has everything"
        reason = (str(problem).strip() or type(problem).__name__).splitlines()[0][:200]
        raise StoreError(f"MLflow at {tracking_uri} did not take the runs ({reason})", remedy) from problem
    return count


def history(store: ArtifactStore, record: StepRecord) -> list[Point]:
    """The curves of a training step, from its history.jsonl; a torn last line is left out."""
    output = record.outputs.get("history")
    data = store.read(f"{StepPaths(record.key).root}/{output.path}") if output else None
    points: list[Point] = []
    for line in (data or b"").splitlines():
        try:
            entry = json.loads(line)
            at, step = _milliseconds(entry.get("time")), int(entry["step"])
            points += [(str(metric), float(value), step, at) for metric, value in entry["metrics"].items()]
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return points


def _step(
    runs: Runs, parent: Run, plan: Mapping[str, Any], label: str, record: StepRecord, store: ArtifactStore
) -> None:
    """The run of one training step: its settings, curves, and final values."""
    name, tags = step_words(plan, label)
    finished = _milliseconds(record.finished)
    spent = record.seconds.load + record.seconds.compute + record.seconds.save
    run = runs.step(record.key, name, parent, tags, finished - int(spent * 1000))
    runs.params(run, params_of(record.identity))
    runs.missing_points(run, history(store, record))
    runs.metrics(run, final(record), finished)
    runs.tag(run, {"flags": ",".join(record.flags)} if record.flags else {})
    runs.end(run, "FINISHED", finished)


def final(record: StepRecord) -> dict[str, float]:
    """The numbers of a record that belong to the whole step."""
    spent = {f"seconds/{part}": value for part, value in record.seconds.model_dump().items()}
    chosen = {
        f"final/{name}": float(value)
        for name, value in record.result.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return {**spent, **chosen}


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


def _milliseconds(time: str | float | None) -> int:
    """Milliseconds since 1970 of an ISO 8601 time, or of seconds since 1970; 0 for none."""
    if not time:
        return 0
    seconds = datetime.fromisoformat(time).timestamp() if isinstance(time, str) else float(time)
    return int(seconds * 1000)
