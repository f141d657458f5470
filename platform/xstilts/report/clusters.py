"""From item statistics to sums by unit of resampling, lined up over rows, seeds and languages.

A unit is a `cluster` (article, premise, sentence). Where items are translations of each other, a unit is
the same thing in every language: an item's unit is the cluster that its `parallel_id` has in the first
language which has it, so that premises in six languages are one premise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy
import pandas
from numpy.typing import NDArray

from xstilts.errors import StoreError
from xstilts.report.frame import Items

Floats = NDArray[numpy.float64]
Runs = Mapping[tuple[str, int], Mapping[str, Items]]
"""(row, seed) -> language -> items, of one target."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One language of one target: everything that resampling needs."""

    sums: Floats
    """(units, rows, seeds, columns); zero where a run has no such unit."""
    present: NDArray[numpy.bool_]
    """(rows, seeds): whether that run was scored in this language."""


def gather(
    runs: Runs,
    columns: Sequence[str],
    rows: Sequence[str],
    seeds: Sequence[int],
    languages: Sequence[str],
    joint: bool,
) -> dict[str, Sample]:
    """Sums of `columns` (and of "items", last) by unit; with `joint` every language has the same units.

    Languages without any run are left out.

    Raises:
        StoreError: two runs of one language were scored on different items, or lack a column.
    """
    spoken = [language for language in languages if any(language in run for run in runs.values())]
    units = {language: _units(runs, language) for language in spoken}
    if joint:
        units = _shared_units(runs, spoken, units)
    return {language: _sample(runs, columns, rows, seeds, language, units[language]) for language in spoken}


@dataclass(frozen=True, slots=True)
class _Units:
    """Of one language: which unit each item belongs to."""

    of_item: pandas.Series
    """Item -> number of its unit."""
    count: int


def _some(runs: Runs, language: str) -> Items:
    return next(run[language] for run in runs.values() if language in run)


def _units(runs: Runs, language: str) -> _Units:
    first = _some(runs, language)
    known = set(first.item)
    for (row, seed), run in runs.items():
        if language not in run:
            continue
        own = run[language].item
        if len(own) != len(first.item) or set(own) != known:
            raise StoreError(
                f"row {row}, seed {seed} was scored on other {language} items than the rest",
                "pairs need the same items: score again with one set of data",
            )
    numbers, names = pandas.factorize(first.cluster)
    return _Units(pandas.Series(numbers, index=first.item), len(names))


def _shared_units(runs: Runs, spoken: Sequence[str], alone: Mapping[str, _Units]) -> dict[str, _Units]:
    """One numbering of units for all languages, found through `parallel_id` (else through `cluster`)."""
    of_parallel: dict[str, str] = {}
    named = {}
    for language in spoken:
        items = _some(runs, language)
        units = [
            of_parallel.setdefault(parallel, str(cluster)) if parallel else str(cluster)
            for parallel, cluster in zip(items.parallel_id.tolist(), items.cluster.tolist(), strict=True)
        ]
        named[language] = pandas.Series(units, index=alone[language].of_item.index)
    everything = pandas.Index(_unique(unit for series in named.values() for unit in series))
    return {
        language: _Units(pandas.Series(everything.get_indexer(series), index=series.index), len(everything))
        for language, series in named.items()
    }


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _sample(
    runs: Runs,
    columns: Sequence[str],
    rows: Sequence[str],
    seeds: Sequence[int],
    language: str,
    units: _Units,
) -> Sample:
    sums = numpy.zeros((units.count, len(rows), len(seeds), len(columns) + 1))
    present = numpy.zeros((len(rows), len(seeds)), dtype=bool)
    for i, row in enumerate(rows):
        for j, seed in enumerate(seeds):
            items = runs.get((row, seed), {}).get(language)
            if items is None:
                continue
            present[i, j] = True
            where = units.of_item.reindex(items.item).to_numpy()
            for k, column in enumerate(columns):
                if column not in items.columns:
                    raise StoreError(
                        f"item statistics of row {row}, seed {seed}, {language} have no column {column!r}",
                        "they come from another version: score again",
                    )
                sums[:, i, j, k] = numpy.bincount(where, weights=items.columns[column], minlength=units.count)
            sums[:, i, j, -1] = numpy.bincount(where, minlength=units.count)
    return Sample(sums, present)
