"""The job in MLflow: where that is, and rebuilding it."""

from __future__ import annotations

import os
from pathlib import Path

from xstilts.api.planning import stored_plan
from xstilts.errors import StoreError
from xstilts.execute.jobs import Job
from xstilts.execute.site import is_bucket


def export_mlflow(job: Job, models: bool = False) -> int:
    """Rebuilds the job's runs in MLflow from the store; how many there are. Twice makes no second ones. With
    `models`, kept encoders can be loaded by `mlflow.transformers.load_model("runs:/RUN/model")`."""
    from xstilts.record.mlflow import rebuild

    server = tracking(job)
    if server is None:
        raise StoreError("there is no MLflow to export to", "set MLFLOW_TRACKING_URI")
    return rebuild(stored_plan(job), job.store, *server, models=models)


def tracking(job: Job) -> tuple[str, str | None] | None:
    """Where MLflow is, and where it is to keep files; None where there is none."""
    from xstilts.record.mlflow import where

    return where(job.store.location)


def has_runs(job: Job) -> bool:
    """Whether MLflow has been written to: a job that ran without it gets no database for its report alone."""
    location = job.store.location
    here = not is_bucket(location) and (Path(location) / "mlflow.db").is_file()
    return "MLFLOW_TRACKING_URI" in os.environ or here
