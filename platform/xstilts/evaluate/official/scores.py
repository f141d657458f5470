"""From what is compared to scores: the metrics that jobs use, and the averages of a suite.

The statistics of an item and the metrics made of their sums are those of `families` and `tasks.metrics`, so
that a job and its exported files agree to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xstilts.evaluate.official import layout
from xstilts.evaluate.official.checking import Unit
from xstilts.families import answers, chunks
from xstilts.tasks import metrics
from xstilts.tasks.suites import Suite
from xstilts.tasks.task import Task

Scores = dict[str, float]
"""Metric -> percent."""

NAMES = {"bio_f1": "f1", "chunk_f1": "f1", "set_f1": "f1"}
"""What the evaluators call a metric that is called otherwise here."""
HEADLINES = {
    "labels": ("accuracy",), "rows": ("accuracy",), "choices": ("accuracy",), "tags": ("f1",),
    "pairs": ("f1",), "answers": ("exact_match", "f1"), "ranked": ("map@20",),
}  # fmt: skip
"""Form of a task -> the metrics whose mean is its score."""


def of_language(task: Task, language: str, units: Iterable[Unit]) -> Scores:
    """Metrics of one language, named as the official evaluators name them."""
    items = [_statistics(task, language, gold, said) for gold, said in units]
    sums = {name: math.fsum(item[name] for item in items) for name in items[0]}
    made = metrics.from_sums(task.metric, {**sums, "items": float(len(items))})
    means = ("squad", "mlqa")  # of exact match and F1: a task's score is made of both means over languages
    return {NAMES.get(name, name): float(value) for name, value in made.items() if name not in means}


def of_task(name: str, languages: Mapping[str, Scores]) -> float:
    """A task's score: the mean over its languages of its headline, or of both where there are two."""
    headlines = HEADLINES[layout.LAYOUTS[name].form]
    return mean([mean([scores[metric] for scores in languages.values()]) for metric in headlines])


def of_suite(suite: Suite, tasks: Mapping[str, float | None]) -> tuple[dict[str, float | None], float | None]:
    """Groups and overall: plain means over tasks, None where one of them has no score."""
    groups = {name: _whole([tasks[task] for task in members]) for name, members in suite.groups.items()}
    return groups, _whole([tasks[task] for task in suite.tasks])


def mean(values: Sequence[float]) -> float:
    """The plain mean, added in order as the official evaluators add."""
    return sum(values) / len(values)


def _whole(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return mean(there) if len(there) == len(values) else None


def _statistics(task: Task, language: str, gold: Any, said: Any) -> dict[str, float]:
    """Sufficient statistics of one item, as the task's family makes them."""
    if task.metric == "accuracy":
        return {"correct": int(said == gold)}
    if task.metric in chunks.READINGS:
        return dict(chunks.compare(task.metric, said, gold))
    if task.metric == "set_f1":
        return {"tp": len(gold & said), "n_pred": len(said), "n_gold": len(gold)}
    if task.metric == "map@20":
        return {"ap": metrics.average_precision(said or (), gold)}
    exact, f1 = answers.compare(task, said, gold, language)
    return {"em": exact, "f1": f1}
