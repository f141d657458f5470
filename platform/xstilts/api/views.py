"""Watching a job: dashboards, and its runs in MLflow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xstilts.api.planning import plan, plan_words, stored_plan
from xstilts.errors import StoreError
from xstilts.execute.jobs import Job
from xstilts.execute.site import is_bucket
from xstilts.execute.state import Survey

if TYPE_CHECKING:
    from xstilts.dashboards.server import Dashboard


def export_mlflow(job: Job, models: bool = False) -> int:
    """Rebuilds the job's runs in MLflow from the store; how many there are. Twice makes no second ones. With
    `models`, kept encoders can be loaded by `mlflow.transformers.load_model("runs:/RUN/model")`."""
    from xstilts.record.mlflow import rebuild

    server = tracking(job)
    if server is None:
        raise StoreError("there is no MLflow to export to", "set MLFLOW_TRACKING_URI")
    return rebuild(stored_plan(job), job.store, *server, models=models)


def dashboard(
    jobs: Sequence[str | Path] = (),
    store: str | None = None,
    data: str | None = None,
    port: int = 0,
    mlflow: str = "",
) -> Dashboard:
    """Pages on this machine's loopback that show how far jobs are, and their tables: `serve_forever()` it.

    `jobs` are job files, or names of jobs that the store has; without any, all of those. `mlflow`: where a
    browser finds the runs of a store in a folder (`xstilts ui`). Nothing is written.

    Raises:
        XstiltsError: a job file cannot be read or planned, there is no store, or the port is taken.
    """
    from xstilts.dashboards.opening import opened

    def planned(job: Job) -> dict[str, Any]:
        return plan_words(job, Survey(plan(job), frozenset()))

    return opened(jobs, store, data, port, mlflow, planned)


def tracking(job: Job) -> tuple[str, str | None] | None:
    """Where MLflow is, and where it is to keep files; None where there is none."""
    from xstilts.record.mlflow import where

    return where(job.store.location)


def has_runs(job: Job) -> bool:
    """Whether MLflow has been written to: a job that ran without it gets no database for its report alone."""
    location = job.store.location
    here = not is_bucket(location) and (Path(location) / "mlflow.db").is_file()
    return "MLFLOW_TRACKING_URI" in os.environ or here
