"""A job run in this process on a data folder of made-up or real rows, and what it left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
import pyarrow.parquet as pq
import pytest
import yaml
from small_job import records

from made_mirror import ENCODER
from xstilts import api
from xstilts.execute.runner import Result
from xstilts.tasks import metrics, registry

SETTINGS = {"learning_rate": 2.0e-3, "epochs": 2, "effective_batch": 8, "max_length": 48, "doc_stride": 16}
JOB: dict[str, Any] = {
    "name": "made_up",
    "model": {"name": ENCODER},
    "seeds": [1],
    "train": {"intermediate": SETTINGS, "target": SETTINGS},
    "evaluate": {"split": "test", "selection": {"first": 6}, "retrieval": {"layer": -1}},
    "execution": {"backend": "inline", "device": "cpu"},
}


@dataclass(frozen=True)
class Done:
    """A job that ran."""

    job: api.Job
    result: Result
    frame: pandas.DataFrame
    records: dict[str, dict[str, Any]]
    """Key -> record."""

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The records of the steps of one kind."""
        return [record for record in self.records.values() if record["kind"] == kind]

    def file(self, record: dict[str, Any], name: str) -> Path:
        """Where an output lies."""
        return Path(self.job.store.location, "steps", record["key"], record["outputs"][name]["path"])


def write(folder: Path, **changed: Any) -> Path:
    """The job file of JOB with some words changed."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "made_up.yaml"
    path.write_text(yaml.safe_dump({**JOB, **changed}))
    return path


def run(folder: Path, data: Path, **changed: Any) -> Done:
    """Runs JOB with some words changed, on a store in `folder`; steps that fail raise what they failed of."""
    job = api.open_job(write(folder, **changed), str(folder / "store"), str(data))
    result, _ = api.run(job, live=False)
    for failure in result.failed:
        raise AssertionError(f"{failure.label}: {failure.text}") from failure.error
    return Done(job, result, api.results(job), records(folder / "store"))


def check_scores(done: Done, name: str, languages: set[str], items: int) -> None:
    """In each of these languages and no other: every metric of the task, so many items, and item statistics
    that give the same numbers when they are summed again."""
    task = registry.task(name)
    frame = done.frame[done.frame.target == name]
    assert set(frame.language) == languages and "missing" not in set(frame.status)
    keys = set(frame.key)
    for language, scored in frame.groupby("language"):
        for _, row in scored.groupby("intermediate"):
            assert list(row.metric) == list(metrics.METRICS[task.metric]), language
            assert set(row.n) == {items}, language
            assert row.value.between(0, 100).all()
    for record in done.of("score"):
        if record["key"] not in keys:
            continue
        predicted = done.records[record["inputs"]["predictions"]]
        for language in languages:
            assert pq.read_metadata(done.file(predicted, f"predictions/{language}")).num_rows <= items
            table = pq.read_table(done.file(record, f"items/{language}"))
            columns = metrics.COLUMNS[task.metric]
            assert {"item", "cluster", "parallel_id", *columns} <= set(table.column_names)
            assert len(set(table.column("item").to_pylist())) == items
            sums = {column: sum(table.column(column).to_pylist()) for column in columns}
            again = metrics.from_sums(task.metric, {**sums, "items": items})
            own = frame[(frame.language == language) & (frame.key == record["key"])]
            assert dict(zip(own.metric, own.value, strict=True)) == pytest.approx(again)


def losses(done: Done, record: dict[str, Any]) -> list[float]:
    """The training losses that a train step reported, in order."""
    lines = done.file(record, "history").read_text().splitlines()
    found = [json.loads(line)["metrics"].get("loss") for line in lines]
    return [loss for loss in found if loss is not None]
