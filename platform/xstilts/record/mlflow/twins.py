"""Merging two runs that stand for the same thing. May be repeated, and done by several at once."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Protocol

PARENT = "mlflow.parentRunId"
"""Tag that makes a run a nested one."""


class Known(Protocol):
    """What merging needs to know of a run."""

    id: str
    tags: dict[str, str]
    params: set[str]


def merge(client: Any, stays: Known, goes: Known) -> None:
    """Copies what only `goes` has to `stays`, hangs its nested runs there, and deletes it.

    Points with the same step, value and time become one, so that a second merge changes nothing. Whoever
    writes to the deleted run is refused, looks again, and finds the one that stays.
    """
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import MlflowException

    left = client.get_run(goes.id)
    there = client.get_run(stays.id)
    for metric in left.data.metrics:
        has = {point.step for point in client.get_metric_history(stays.id, metric)}
        points = [
            Metric(metric, point.value, point.timestamp, point.step)
            for point in client.get_metric_history(goes.id, metric)
            if point.step not in has
        ]
        client.log_batch(stays.id, metrics=points)
    params = [Param(key, value) for key, value in left.data.params.items() if key not in there.data.params]
    tags = [RunTag(key, value) for key, value in left.data.tags.items() if key not in there.data.tags]
    client.log_batch(stays.id, params=params, tags=tags)
    asked = f"tags.`{PARENT}` = '{goes.id}'"
    for nested in client.search_runs([left.info.experiment_id], asked, max_results=50_000):
        client.set_tag(nested.info.run_id, PARENT, stays.id)
    with suppress(MlflowException):
        # Somebody else was quicker.
        client.delete_run(goes.id)
