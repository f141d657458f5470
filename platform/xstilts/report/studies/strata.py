"""Strata of tasks and languages, their cells, and contrasts of what is new with what is old."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
import pandas
from numpy.typing import NDArray

from xstilts.report.clusters import Floats
from xstilts.report.studies.crossed import Estimate, Redrawn
from xstilts.tasks import suites

DROPPED, OLD, NEW, TASKS = STRATA = ("dropped tasks", "old languages", "new languages", "new tasks")
LEAST_LANGUAGES = 3
"""A task needs in every stratum in which it is compared: with fewer, a language is the stratum."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """New against old, in points."""

    name: str
    new: Estimate
    old: Estimate
    difference: Estimate
    p: float
    """That the new gain is lower by the margin or more."""
    tasks: tuple[str, ...]

    def bound(self) -> float:
        """The lower one-sided bound of 97.5 %."""
        return self.difference.interval.low


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Mean gains over intermediate tasks by (stratum, target), language and seed."""

    names: tuple[tuple[str, str], ...]
    """(stratum, target) of each cell."""
    languages: tuple[str, ...]
    seeds: tuple[int, ...]
    values: Floats
    """(cells, languages, seeds); NaN where a cell has no such language."""
    fresh: NDArray[numpy.bool_]
    """(languages,): whether only the new suite has it."""

    def spoken(self, cell: int) -> tuple[str, ...]:
        """Languages of a cell."""
        there = ~numpy.isnan(self.values[cell]).all(axis=1)
        return tuple(code for code, here in zip(self.languages, there, strict=True) if here)


def cells_of(table: pandas.DataFrame, rows: Sequence[str]) -> Cells:
    """Cells of the gains with a column `stratum`; seeds that any row lacks in a cell are missing there."""
    chosen = table[table.intermediate.isin(rows)]
    mean = chosen.groupby(["stratum", "target", "language", "seed"]).gain.agg(["mean", "count"])
    mean = mean["mean"][mean["count"] == len(rows)]
    wide = mean.unstack("seed")
    order = {stratum: at for at, stratum in enumerate(STRATA)}
    names = sorted(set(zip(wide.index.get_level_values(0), wide.index.get_level_values(1), strict=True)),
                   key=lambda name: (order[name[0]], name[1]))  # fmt: skip
    spoken = tuple(sorted(set(wide.index.get_level_values("language"))))
    seeds = tuple(sorted(wide.columns))
    values = numpy.full((len(names), len(spoken), len(seeds)), numpy.nan)
    at = {name: i for i, name in enumerate(names)}
    place = {code: i for i, code in enumerate(spoken)}
    index = list(wide.index)
    where = [at[stratum, target] for stratum, target, _ in index]
    values[where, [place[code] for _, _, code in index]] = wide[list(seeds)].to_numpy()
    ancient = {code for stratum, _, code in index if stratum in (DROPPED, OLD)}
    fresh = numpy.array([code not in ancient for code in spoken])
    return Cells(tuple(names), spoken, seeds, values, fresh)


def contrasts(cells: Cells, again: Redrawn, margin: float) -> tuple[Contrast, ...]:
    """Those of the two contrasts that the cells with LEAST_LANGUAGES languages allow."""
    wide = [name for i, name in enumerate(cells.names) if len(cells.spoken(i)) >= LEAST_LANGUAGES]
    both = [target for stratum, target in wide if stratum == NEW and (OLD, target) in wide]
    fresh = [target for stratum, target in wide if stratum == TASKS]
    every = [name for name in wide if name[0] in (DROPPED, OLD)]
    found = []
    if both:
        sides = ([(NEW, target) for target in both], [(OLD, target) for target in both])
        found.append(_contrast("new languages of the same tasks", cells, again, *sides, margin))
    if fresh and every:
        sides = ([(TASKS, target) for target in fresh], every)
        found.append(_contrast("new tasks against old ones", cells, again, *sides, margin))
    return tuple(found)


def _contrast(
    name: str,
    cells: Cells,
    again: Redrawn,
    new: Sequence[tuple[str, str]],
    old: Sequence[tuple[str, str]],
    margin: float,
) -> Contrast:
    ups, downs = _mean_of(cells, new), _mean_of(cells, old)
    difference = again.contrast(ups - downs)
    tasks = tuple(dict.fromkeys(target for _, target in new))
    return Contrast(
        name, again.contrast(ups), again.contrast(downs), difference, difference.below(-margin), tasks
    )


def _mean_of(cells: Cells, names: Sequence[tuple[str, str]]) -> Floats:
    return numpy.array([(name in names) / len(names) for name in cells.names])


def each(cells: Cells) -> NDArray[numpy.int64]:
    """A number for each language: every one is drawn alone."""
    return numpy.arange(len(cells.languages))


def drawn_apart(cells: Cells) -> NDArray[numpy.int64]:
    """The stratum of each language, old or new; all one where either has too few to be redrawn alone."""
    few = min(int(cells.fresh.sum()), int((~cells.fresh).sum())) < LEAST_LANGUAGES
    return numpy.zeros(len(cells.fresh), dtype=numpy.int64) if few else cells.fresh.astype(numpy.int64)


def genera(cells: Cells, table: pandas.DataFrame) -> NDArray[numpy.int64]:
    """A number for each language's genus; a language without one is its own."""
    genus = dict(zip(table.language, table.genus, strict=True))
    named = [genus[code] or f"({code})" for code in cells.languages]
    return numpy.asarray(pandas.factorize(pandas.Series(named))[0], dtype=numpy.int64)


def by_suites(table: pandas.DataFrame, old: str, new: str) -> pandas.Series:
    """The stratum of each row; "" for what neither suite reports."""
    before, after = suites.suite(old).tasks, suites.suite(new).tasks

    def place(target: str, code: str) -> str:
        if target in before and code in before[target]:
            return OLD if target in after else DROPPED
        if target in after and code in after[target]:
            return NEW if target in before else TASKS
        return ""

    return _placed(table, place)


def by_words(
    table: pandas.DataFrame, new_tasks: Sequence[str], new_languages: Sequence[str], dropped: Sequence[str]
) -> pandas.Series:
    """The same where no suite says it: a task is shared, and a language old, unless it is named."""

    def place(target: str, code: str) -> str:
        if target in new_tasks:
            return TASKS
        if code in new_languages:
            return NEW
        return DROPPED if target in dropped else OLD

    return _placed(table, place)


def _placed(table: pandas.DataFrame, place: Callable[[str, str], str]) -> pandas.Series:
    pairs = zip(table.target, table.language, strict=True)
    return pandas.Series([place(target, code) for target, code in pairs], index=table.index, dtype=object)
