"""The way from the store to MLflow: jobs/<name>/mlflow.json, which says which run shows which step.

Written by drivers only. Nothing reads it to decide anything: runs are found by their tags.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from xstilts.errors import StoreError
from xstilts.record.artifacts import ArtifactStore


class Found(Protocol):
    """What the links need of `Runs`."""

    @property
    def experiment(self) -> str:
        """Id of the job's experiment."""
        ...

    @property
    def ids(self) -> dict[str, str]:
        """Key -> run id."""
        ...


def mlflow_file(name: str) -> str:
    """Where the runs of a job are in MLflow."""
    return f"jobs/{name}/mlflow.json"


def write_links(
    store: ArtifactStore, job: str, digest: str, tracking: str, runs: Found, before: dict[str, Any]
) -> dict[str, Any]:
    """Writes where runs are, unless that is `before`; what is written now. `tracking` has no password.

    Raises:
        StoreError: the store does not take it.
    """
    ids = runs.ids
    # Keys of a job's own runs and of its cells' are the job's name and more; no key of a step has an @.
    parents = {key: run for key, run in ids.items() if key == job or key.startswith(f"{job}@")}
    words = {
        "tracking": tracking,
        "experiment": runs.experiment,
        "parent": parents.get(f"{job}@{digest}"),
        "runs": {key: run for key, run in sorted(ids.items()) if key not in parents},
        "cells": {
            key.partition("/")[2]: run
            for key, run in sorted(parents.items())
            if key.startswith(f"{job}@{digest}/")
        },
    }
    if words != before:
        store.put(mlflow_file(job), json.dumps(words, indent=1, ensure_ascii=False).encode())
    return words


def read_links(store: ArtifactStore, job: str) -> dict[str, Any] | None:
    """What `write_links` wrote; None when the job was never shown in MLflow.

    Raises:
        StoreError: there is something else.
    """
    data = store.read(mlflow_file(job))
    if data is None:
        return None
    try:
        words = json.loads(data)
    except ValueError as problem:
        remedy = f"`xstilts export mlflow` writes it anew ({problem})"
        raise StoreError(f"{mlflow_file(job)} in {store.location} is damaged", remedy) from problem
    return dict(words)
