"""The averages of a suite by row of the job: tasks, groups and overall, whole or marked incomplete.

A task is the mean over its languages (English included where it has it), a group and the overall score are
plain means over tasks (google-research/xtreme, evaluate.py). Scores of a language are means over seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas

from xstilts.tasks import registry, suites


@dataclass(frozen=True, slots=True)
class Average:
    """A mean, in percent, and whether all that it is to be over was there."""

    value: float | None
    """Over what there is; None where there is nothing."""
    complete: bool

    def __str__(self) -> str:
        if self.value is None:
            return "\u2013"
        return f"{self.value:.1f}" + ("" if self.complete else "*")


@dataclass(frozen=True, slots=True)
class Standing:
    """One row of the job on the whole suite."""

    intermediate: str
    overall: Average
    groups: dict[str, Average]
    tasks: dict[str, Average]
    """In the suite's order, variants last; variants are in no other average."""
    missing: tuple[str, ...]
    """ "task: languages" for each task that lacks some, or some seed of them."""


def standings(plan: Mapping[str, Any], table: pandas.DataFrame) -> tuple[Standing, ...]:
    """One a row of the job, in its order; () for a job that names no suite. `table`: the job's frame."""
    name = plan["experiment"].get("suite")
    if not name:
        return ()
    suite = suites.suite(name)
    rows = dict.fromkeys(cell["intermediate"] for cell in plan["cells"])
    seeds = {cell["seed"] for cell in plan["cells"]}
    return tuple(_standing(suite, row, table[table.intermediate == row], len(seeds)) for row in rows)


def _standing(suite: suites.Suite, row: str, table: pandas.DataFrame, seeds: int) -> Standing:
    tasks: dict[str, Average] = {}
    missing = []
    for name in (*suite.tasks, *suite.also):
        task = registry.task(name)
        languages = suite.tasks[task.variant_of or name]
        scored = table[(table.target == name) & (table.metric == task.metric)]
        found = scored.groupby("language").value.agg(["mean", "count"])
        there = [code for code in languages if code in found.index]
        lacking = [code for code in languages if code not in there or found.loc[code, "count"] < seeds]
        value = float(found.loc[there, "mean"].mean()) if there else None
        tasks[name] = Average(value, not lacking)
        if lacking:
            missing.append(f"{name}: {' '.join(lacking)}")
    groups = {name: _mean([tasks[one] for one in members]) for name, members in suite.groups.items()}
    overall = _mean([tasks[name] for name in suite.tasks])
    return Standing(row, overall, groups, tasks, tuple(missing))


def _mean(averages: Sequence[Average]) -> Average:
    values = [one.value for one in averages if one.value is not None]
    value = sum(values) / len(values) if values else None
    return Average(value, all(one.complete for one in averages))
