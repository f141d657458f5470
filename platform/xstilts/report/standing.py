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
    """A mean, in percent, and what must be said of it."""

    value: float | None
    """Over what there is; None where there is nothing."""
    complete: bool
    """Whether all that it is to be over was there."""
    noted: bool = False
    """Whether a run behind it collapsed, or was chosen on target-language rows."""

    def __str__(self) -> str:
        if self.value is None:
            return "\u2013"
        return f"{self.value:.1f}" + ("" if self.complete else "*") + ("\u2020" if self.noted else "")


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
    notes: tuple[str, ...]
    """ "task: 2 seeds collapsed", "task: chosen on target dev"."""


def standings(plan: Mapping[str, Any], table: pandas.DataFrame) -> tuple[Standing, ...]:
    """One a row of the job, in its order; () for a job that names no suite. `table`: the job's frame."""
    asked = plan["experiment"]
    if not asked.get("suite"):
        return ()
    suite = suites.suite(asked["suite"])
    split = asked.get("evaluate", {}).get("split", "test")
    rows = dict.fromkeys(cell["intermediate"] for cell in plan["cells"])
    seeds = len({cell["seed"] for cell in plan["cells"]})
    return tuple(_standing(suite, row, table[table.intermediate == row], seeds, split) for row in rows)


def _standing(suite: suites.Suite, row: str, table: pandas.DataFrame, seeds: int, split: str) -> Standing:
    tasks: dict[str, Average] = {}
    missing: list[str] = []
    notes: list[str] = []
    for name in (*suite.tasks, *suite.also):
        task = registry.task(name)
        # Four languages of UD POS have no dev rows at all: an average over dev is whole without them.
        published = task.reported("dev" if split == "dev" else "test")
        languages = [code for code in suite.tasks[task.variant_of or name] if code in published]
        scored = table[(table.target == name) & (table.metric == task.metric)]
        found = scored.groupby("language").value.agg(["mean", "count"])
        there = [code for code in languages if code in found.index]
        lacking = [code for code in languages if code not in there or found.loc[code, "count"] < seeds]
        value = float(found.loc[there, "mean"].mean()) if there else None
        said = _notes(name, scored)
        tasks[name] = Average(value, not lacking, bool(said))
        notes += said
        missing += [f"{name}: {' '.join(lacking)}"] if lacking else []
    groups = {name: _mean([tasks[one] for one in members]) for name, members in suite.groups.items()}
    overall = _mean([tasks[name] for name in suite.tasks])
    return Standing(row, overall, groups, tasks, tuple(missing), tuple(notes))


def _notes(name: str, scored: pandas.DataFrame) -> list[str]:
    collapsed = scored[scored.status == "collapsed"].seed.nunique()
    said = [f"{name}: {collapsed} seeds collapsed"] if collapsed else []
    return said + ([f"{name}: chosen on target dev"] if "target_dev" in set(scored.selection) else [])


def _mean(averages: Sequence[Average]) -> Average:
    values = [one.value for one in averages if one.value is not None]
    value = sum(values) / len(values) if values else None
    complete = all(one.complete for one in averages)
    return Average(value, complete, any(one.noted for one in averages))
