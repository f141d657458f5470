"""Strata of tasks and languages, their cells, and contrasts of what is new with what is old."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy
import pandas
from numpy.typing import NDArray

from xstilts.errors import UnknownName, XstiltsError
from xstilts.report.clusters import Floats
from xstilts.report.studies.crossed import Estimate, Redrawn
from xstilts.tasks import suites

DROPPED, OLD, NEW, TASKS = STRATA = ("dropped tasks", "old languages", "new languages", "new tasks")
LEAST_LANGUAGES, LEAST_SEEDS = 3, 3
"""A task needs in every stratum in which it is compared: with fewer languages, a language is the stratum;
with one seed, the luck of that run is taken for none, and a bound of 97.5 % erred in 12 % of frames."""


@dataclass(frozen=True, slots=True)
class Contrast:
    """New against old, in points."""

    name: str
    new: Estimate
    old: Estimate
    difference: Estimate
    p: float
    """One-sided, of a difference as high as this or higher where the new gain is lower by just the margin."""
    tasks: tuple[str, ...]

    def p_lower(self, margin: float) -> float:
        """One-sided, of a difference as low as this or lower where the new gain is lower by just `margin`."""
        return 1 - self.difference.below(-margin)

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

    def runs(self, cell: int) -> int:
        """Seeds of a cell."""
        return int((~numpy.isnan(self.values[cell]).all(axis=0)).sum())


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
    """Those of the two contrasts that cells with LEAST_LANGUAGES languages and LEAST_SEEDS seeds allow."""
    wide = [
        name
        for i, name in enumerate(cells.names)
        if len(cells.spoken(i)) >= LEAST_LANGUAGES and cells.runs(i) >= LEAST_SEEDS
    ]
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
    """The same where no suite says it: a task is shared, and a language old, unless it is named.

    Raises:
        UnknownName: a name that is no task or language of these gains; names the nearest.
        XstiltsError: a name that is given twice.
    """
    _of_gains("task", table.target, {"new_tasks": new_tasks, "dropped": dropped})
    _of_gains("language", table.language, {"new_languages": new_languages})

    def place(target: str, code: str) -> str:
        if target in new_tasks:
            return TASKS
        if code in new_languages:
            return NEW
        return DROPPED if target in dropped else OLD

    return _placed(table, place)


def _of_gains(kind: str, there: pandas.Series, named: Mapping[str, Sequence[str]]) -> None:
    """Raises where an option names what has no gain, or what it or another option has named."""
    known, seen = list(dict.fromkeys(there)), dict[str, str]()
    for option, names in named.items():
        for name in names:
            if name not in known:
                raise UnknownName.among(f"{kind} with zero-shot gains", name, known)
            if name in seen:
                where = option if seen[name] == option else f"{seen[name]} and {option}"
                raise XstiltsError(f"{where} names {name!r} twice", f"name each {kind} once")
            seen[name] = option


def _placed(table: pandas.DataFrame, place: Callable[[str, str], str]) -> pandas.Series:
    pairs = zip(table.target, table.language, strict=True)
    return pandas.Series([place(target, code) for target, code in pairs], index=table.index, dtype=object)
