"""What each run got right, item by item, on test sets whose items are translations of each other.

Items are lined up by `parallel_id`, and only those that every language has are kept. Read are targets that
are trained in one of their languages, and whose items are right or wrong as wholes: labels and choices by
label, answers by exact match. Tags and ranked lists are not. XCOPA is not read because its English is another
data set, MLQA because each question is asked in some of its languages only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy
import pandas
from numpy.typing import NDArray
from pyarrow import ArrowException, parquet

from xstilts.errors import StoreError
from xstilts.record.artifacts import ArtifactStore, StepPaths
from xstilts.record.schema import StepRecord
from xstilts.report import frame
from xstilts.report.frame import Items, Records
from xstilts.report.transfer import BASE, REFERENCE, source_language
from xstilts.tasks import registry
from xstilts.tasks.task import Family, Task

RIGHT = {"accuracy": "correct", "squad": "em", "mlqa": "em", "f1": "em"}
"""A target's metric -> the item statistic that is 1 where the item is right."""
LABELLED = (Family.CLASSIFICATION, Family.MULTIPLE_CHOICE)

Runs = Mapping[tuple[str, int], Mapping[str, Items]]


@dataclass(frozen=True, slots=True, eq=False)
class Paired:
    """One target of one job. Axes: rows, seeds, languages (the source language first), items."""

    job: str
    model: str
    target: str
    rows: tuple[str, ...]
    """`none` is the first."""
    seeds: tuple[int, ...]
    languages: tuple[str, ...]
    right: NDArray[numpy.bool_]
    """(rows, seeds, languages, items)."""
    present: NDArray[numpy.bool_]
    """(rows, seeds): whether there is such a run; `right` is False all over where there is none."""
    clusters: NDArray[numpy.int64]
    """(items,): of the source language, numbered from 0."""
    labels: NDArray[numpy.int16] | None = None
    """As `right`: the number of the predicted label, -1 for none; None where no labels are predicted, or were
    not kept."""
    left_out: int = 0
    """Items of the source language that another language lacks."""

    @property
    def source(self) -> str:
        """The language that the target is trained in."""
        return self.languages[0]

    def speaking(self, languages: Sequence[str]) -> Paired:
        """The same in the source language and these."""
        at = [i for i, code in enumerate(self.languages) if i == 0 or code in languages]
        return replace(
            self,
            languages=tuple(self.languages[i] for i in at),
            right=self.right[:, :, at],
            labels=None if self.labels is None else self.labels[:, :, at],
        )

    def only(self, rows: Sequence[str]) -> Paired:
        """The same of these rows."""
        at = [i for i, row in enumerate(self.rows) if row in rows]
        return replace(
            self,
            rows=tuple(self.rows[i] for i in at),
            right=self.right[at],
            present=self.present[at],
            labels=None if self.labels is None else self.labels[at],
        )


def read(plan: Mapping[str, Any], store: ArtifactStore, scratch: Path, known: Records) -> list[Paired]:
    """Every target of a plan that can be paired and has a run of `none`.

    Raises:
        StoreError: a file that a record names is gone or unreadable, or runs were scored on other items.
    """
    cells = [cell for cell in plan["cells"] if _pairable(registry.task(cell["target"]))]
    runs = frame.items({**plan, "cells": cells}, store, scratch, known)
    predicted = {
        (cell["intermediate"], cell["target"], cell["seed"]): known.get(cell.get("predict") or "")
        for cell in cells
    }
    found = []
    for target in dict.fromkeys(cell["target"] for cell in cells):
        own = {(row, seed): by for (row, name, seed), by in runs.items() if name == target and by}
        if any(row == BASE for row, _ in own):
            records = {run: predicted[run[0], target, run[1]] for run in own}
            made = _paired(plan, registry.task(target), own, records, store, scratch)
            found += [] if made is None else [made]
    return found


def _pairable(task: Task) -> bool:
    return (
        task.parallel
        and not task.variant_of
        and task.metric in RIGHT
        and source_language(task) in task.languages
    )


def _paired(
    plan: Mapping[str, Any],
    task: Task,
    runs: Runs,
    records: Mapping[tuple[str, int], StepRecord | None],
    store: ArtifactStore,
    scratch: Path,
) -> Paired | None:
    """None where the source language or all others are missing."""
    source = source_language(task)
    spoken = [code for code in task.languages if all(code in run for run in runs.values())]
    spoken = [code for code in spoken if code not in task.elsewhere]
    if source not in spoken or len(spoken) == 1:
        return None
    spoken.sort(key=lambda code: code != source)
    rows = (BASE, *dict.fromkeys(row for row, _ in runs if row not in (BASE, REFERENCE)))
    seeds = tuple(sorted({seed for _, seed in runs}))
    first = next(iter(runs.values()))
    ids = [pandas.Index(first[code].parallel_id) for code in spoken]
    common = reduce(lambda kept, other: kept[kept.isin(other)], ids)
    shape = (len(rows), len(seeds), len(spoken), len(common))
    right, present = numpy.zeros(shape, dtype=bool), numpy.zeros(shape[:2], dtype=bool)
    labels: NDArray[numpy.int16] | None = None
    if task.family in LABELLED and task.labels:
        labels = numpy.full(shape, -1, dtype=numpy.int16)
    for i, j in numpy.ndindex(*shape[:2]):
        run = runs.get((rows[i], seeds[j]), {})
        present[i, j] = bool(run)
        for k, code in enumerate(spoken if run else ()):
            at = _places(run[code], common, task.name, code)
            right[i, j, k] = run[code].columns[RIGHT[task.metric]][at] == 1
            said = None if labels is None else _predictions(records[rows[i], seeds[j]], code, store, scratch)
            if labels is None or said is None:
                labels = None
                continue
            said = said.reindex(run[code].item[at])
            labels[i, j, k] = pandas.Index(task.labels).get_indexer(said)
    clusters = first[source].cluster[_places(first[source], common, task.name, source)]
    numbers = pandas.factorize(clusters)[0].astype(numpy.int64)
    lacking = len(ids[0]) - len(common)
    return Paired(
        plan["job"], plan["model"], task.name, rows, seeds, tuple(spoken), right, present, numbers, labels,
        lacking,
    )  # fmt: skip


def _places(items: Items, common: pandas.Index, target: str, language: str) -> NDArray[numpy.int64]:
    """Where the common items are among `items`."""
    index = pandas.Index(items.parallel_id)
    at = index.get_indexer(common) if index.is_unique else numpy.array([-1])
    if (at < 0).any():
        raise StoreError(
            f"runs on {target} were scored on different {language} items, or on one twice",
            "pairs need the same items: score again with one set of data",
        )
    return numpy.asarray(at, dtype=numpy.int64)


def _predictions(
    record: StepRecord | None, language: str, store: ArtifactStore, scratch: Path
) -> pandas.Series | None:
    """Item -> prediction; None where no record has them."""
    output = record.outputs.get(f"predictions/{language}") if record else None
    if record is None or output is None:
        return None
    root = StepPaths(record.key).root
    try:
        table = parquet.read_table(
            store.local(f"{root}/{output.path}", scratch), columns=["item", "prediction"]
        )
    except (ArrowException, OSError, KeyError) as problem:
        remedy = f"move {root} out of {store.location} and run again ({problem})"
        raise StoreError(f"predictions of {record.key} cannot be read", remedy) from problem
    return pandas.Series(table.column("prediction").to_pylist(), index=table.column("item").to_pylist())
