"""How well a regression foretells languages that it has not seen: R2 out of sample, against task means.

Each language (or family) in turn is left out, slopes and task means are fitted on the others by least
squares, and what was left out is predicted. R2 is 1 - its squared error over that of the task means of the
others; below zero means that the predictors do worse than knowing nothing of the language.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import pandas

from xstilts.report import intervals
from xstilts.report.clusters import Floats
from xstilts.report.intervals import Interval

RESAMPLES = 2_000


@dataclass(frozen=True, slots=True)
class Foretold:
    """R2 of predictions for what was left out."""

    r2: float
    interval: Interval
    """By redrawing what was left out, as wholes, with what was predicted for it; the fits stay as they are,
    so that it is too narrow where languages are few."""
    left_out: int
    """How many times something was."""


def leave_out(
    table: pandas.DataFrame, response: str, fixed: Sequence[str], task: str, unit: str, seed: int = 0
) -> Foretold | None:
    """`table`: one row a (task, language); `unit`: the column whose values are left out one at a time.
    None where no more than two can be, or a task is lost with each."""
    errors: list[tuple[float, float]] = []
    for value in dict.fromkeys(table[unit]):
        out = table[unit] == value
        kept, tested = table[~out], table[out]
        tested = tested[tested[task].isin(set(kept[task]))]
        if len(tested):
            errors.append(_errors(kept, tested, response, fixed, task))
    if len(errors) < 3:
        return None
    squared = numpy.array(errors)
    draws = numpy.random.default_rng(seed).integers(len(squared), size=(RESAMPLES, len(squared)))
    sums = squared[draws].sum(axis=1)
    again: Floats = 1.0 - sums[:, 0] / numpy.maximum(sums[:, 1], 1e-12)
    whole = squared.sum(axis=0)
    return Foretold(float(1.0 - whole[0] / whole[1]), intervals.percentile(again), len(errors))


def _errors(
    kept: pandas.DataFrame, tested: pandas.DataFrame, response: str, fixed: Sequence[str], task: str
) -> tuple[float, float]:
    """Squared errors of the regression and of the task means."""
    tasks = list(dict.fromkeys(kept[task]))
    fixed = [name for name in fixed if kept[name].nunique() > 1]  # of one family only, genus says nothing
    slopes = numpy.linalg.lstsq(_design(kept, fixed, task, tasks), kept[response].to_numpy(), rcond=None)[0]
    means = kept.groupby(task)[response].mean()
    actual = tested[response].to_numpy()
    by_rule = actual - _design(tested, fixed, task, tasks) @ slopes
    by_mean = actual - tested[task].map(means).to_numpy()
    return float((by_rule**2).sum()), float((by_mean**2).sum())


def _design(table: pandas.DataFrame, fixed: Sequence[str], task: str, tasks: Sequence[str]) -> Floats:
    dummies = [(table[task] == name).to_numpy(dtype=float) for name in tasks]
    return numpy.column_stack([*dummies, *(table[name].to_numpy(dtype=float) for name in fixed)])
