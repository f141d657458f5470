"""Predictions and gold to item statistics and metrics. Needs no model and no GPU."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from xstilts.errors import DataError
from xstilts.evaluate.predict import load, save
from xstilts.families.base import Example, FamilyCode
from xstilts.tasks.task import Task

NAMES = ("item", "cluster", "parallel_id")
"""Columns of items that name things; all others are statistics that can be summed."""


def score(
    code: FamilyCode, task: Task, examples: Sequence[Example], predictions: Mapping[str, Any], language: str
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Item statistics, one row an example, and metrics in percent; a missing prediction counts as wrong.

    Raises:
        DataError: none of the predictions is of one of the examples: they are of other data.
    """
    if predictions and not any(example.item in predictions for example in examples):
        problem = f"the predictions for {task.name} in {language} are of none of its {len(examples)} items"
        raise DataError(problem, "plan the job again: data and predictions do not belong together")
    items = code.items(task, examples, predictions, language)
    metrics = code.score(task, sums(items))
    return items, {name: float(value) for name, value in metrics.items()}


def sums(items: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Column sums of the statistics, and "items", their number; exact, so the order of items is nothing."""
    columns = [name for name in items[0] if name not in NAMES] if items else []
    totals = {name: math.fsum(row[name] for row in items) for name in columns}
    return {**totals, "items": float(len(items))}


def write_items(path: Path, items: Sequence[Mapping[str, Any]]) -> None:
    """Writes `item, cluster, parallel_id` (strings) and the statistics (int64, or float64 for shares).

    Raises:
        StoreError: the file cannot be written.
    """
    names = list(items[0]) if items else list(NAMES)
    columns = {name: [row[name] for row in items] for name in names}
    table = {name: pa.array(column, _kind(name, column)) for name, column in columns.items()}
    save(pa.table(table), path)


def read_items(path: Path) -> list[dict[str, Any]]:
    """The rows that `write_items` wrote.

    Raises:
        DataError: no such file, or it is damaged.
    """
    return load(path)


def _kind(name: str, column: Sequence[Any]) -> pa.DataType:
    if name in NAMES:
        return pa.string()
    return pa.float64() if any(isinstance(value, float) for value in column) else pa.int64()
