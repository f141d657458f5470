"""MLflow databases for tests: made once a session (4 s of migrations), then copied."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from xstilts.record.artifacts import ArtifactStore, StepPaths, report_file
from xstilts.record.mlflow import where
from xstilts.record.mlflow.runs import Runs
from xstilts.record.schema import Output, Score, Seconds, StepRecord


@cache
def _empty() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="xstilts-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Runs(f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts"), "first")
    return folder / "mlflow.db"


def database(folder: Path) -> tuple[str, str]:
    """Tracking URI and artifact root of a store in `folder`, with a database of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(_empty(), folder / "mlflow.db")
    found = where(str(folder))
    assert found is not None and found[1] is not None
    return found[0], found[1]


def runs_of(uri: str, job: str) -> dict[str, Any]:
    """Runs of a job by their name; fails when two have the same."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(job)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=2000)
    names = [run.info.run_name for run in found]
    assert len(set(names)) == len(names), sorted(names)
    return dict(zip(names, found, strict=True))


def curve(uri: str, run: Any, metric: str) -> list[tuple[int, float]]:
    """Steps and values of a metric."""
    from mlflow.tracking import MlflowClient

    history = MlflowClient(uri).get_metric_history(run.info.run_id, metric)
    return [(point.step, point.value) for point in history]


def planned(store: ArtifactStore, job: str, trainings: int = 1, points: int = 1500) -> dict[str, Any]:
    """A plan of trainings and a score for each, recorded, with curves and a report; and one that awaits."""
    steps: list[dict[str, Any]] = []
    cells = []
    for number in range(1, trainings + 1):
        target = "xnli" if number == 1 else f"xnli{number}"
        _record(store, number, points)
        steps += [
            {"key": f"t--{number}", "label": f"train {target}", "kind": "train", "inputs": {}},
            {
                "key": f"p--{number}",
                "label": f"predict {target}",
                "kind": "predict",
                "inputs": {"model": f"train {target}"},
            },
            {
                "key": f"s--{number}",
                "label": f"score {target}",
                "kind": "score",
                "inputs": {"predictions": f"predict {target}"},
            },
        ]
        words = {"train": f"train {target}", "predict": f"predict {target}", "score": f"score {target}"}
        cells.append({"intermediate": "none", "target": target, "seed": 1, **words})
    steps.append({"key": None, "label": "train later", "kind": "train", "inputs": {}})
    store.put(report_file(job, "report.html"), b"<html>")
    created = "2027-01-15T07:00:00+00:00"
    plan = {"job": job, "digest": "d1", "steps": steps, "cells": cells, "totals": {}, "created": created}
    return {**plan, "experiment": {"seeds": [1], "model": {"name": "mini"}}, "model": "mini"}


def _record(store: ArtifactStore, number: int, points: int) -> None:
    """A training with a curve, and its scores."""
    train, score = StepPaths(f"t--{number}"), StepPaths(f"s--{number}")
    lines = [
        json.dumps({"step": step, "time": 1_800_000_000.0 + step, "metrics": {"loss": 1.0 / step}})
        for step in range(1, points + 1)
    ]
    # A driver that was killed leaves half a line.
    store.put(train.run("a1", "history.jsonl"), ("\n".join(lines) + '\n{"step": 15').encode())
    history = Output(path="runs/a1/history.jsonl", bytes=1, sha256="0")
    common: dict[str, Any] = {"version": 1, "attempt": "a1", "finished": "2027-01-15T08:00:00+00:00"}
    trained = StepRecord(
        key=f"t--{number}",
        kind="train",
        identity={"settings": {"epochs": 3, "learning_rate": 1e-5}, "seed": 1},
        outputs={"history": history},
        result={"final_loss": 0.25, "kept": "last"},
        seconds=Seconds(compute=60),
        flags=("collapsed",),
        **common,
    )
    scores = (Score(task="xnli", language="de", split="test", metric="accuracy", value=61.5, n=10),)
    scored = StepRecord(key=f"s--{number}", kind="score", identity={}, scores=scores, **common)
    store.put(train.record, trained.to_json())
    store.put(score.record, scored.to_json())
