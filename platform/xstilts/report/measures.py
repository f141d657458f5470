"""The measures of a job's probe steps as a tidy table, from its stored plan and the records of its steps.

alignment   cka, cka_debiased (0..1), retrieval (percent), vocabulary (0..1): of the encoder of a row, in a
            language; `target` is ""
fit         logme (nats a row), few_shot_<k> (percent): of the encoder of a row, for a target; `language` ""
similarity  text_embedding, task_embedding (cosine): of an intermediate task and a target; `language` ""

    table = measures(plan, store, scratch)
    averaged(table)          # one value for all layers: what studies take
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import pandas
from pyarrow import ArrowException, parquet

from xstilts.errors import StoreError
from xstilts.record.artifacts import ArtifactStore, StepPaths
from xstilts.record.schema import StepRecord, read_record
from xstilts.report.frame import Records

CELL = ["model", "intermediate", "target", "language", "measure"]
COLUMNS = [*CELL, "layer", "value", "n", "seed", "key"]
"""`layer`: 0 is the embeddings, missing where a measure has none; `n`: sentences, words or examples, of the
smaller side where two tasks are compared; `seed`: missing where one step serves all seeds of the job; `key`:
of the probe step, two with a space between where a measure compares two."""

SIMILAR = {"text": "text_embedding", "gradients": "task_embedding"}
"""What vectors are compared of -> the measure."""

Vectors = dict[int, Any]
"""Layer -> vector."""


def measures(
    plan: Mapping[str, Any], store: ArtifactStore, scratch: Path, known: Records | None = None
) -> pandas.DataFrame:
    """One row a measure, with exactly COLUMNS; without rows for a job that has no `probe`, and without those
    of steps that are not done.

    Raises:
        StoreError: a record is damaged, or a file that it names is gone or unreadable.
    """
    found = _Found(plan, store, scratch, {} if known is None else known)
    rows = [*found.told("alignment"), *found.told("fit")]
    rows += [row for what in SIMILAR for row in found.compared(what)]
    table = pandas.DataFrame(rows, columns=COLUMNS)
    return table.astype({"layer": "Int64", "value": "float64", "n": "Int64", "seed": "Int64"})


def averaged(table: pandas.DataFrame, layer: int | None = None) -> pandas.DataFrame:
    """CELL, seed and value: one row a cell and seed, the mean over layers; with `layer`, of that one.

    Measures without layers stay, and those of the last layer alone.
    """
    kept = table
    if layer is not None:
        several = table.groupby(CELL).layer.transform("nunique") > 1
        kept = table[~several | (table.layer == layer)]
    return kept.groupby([*CELL, "seed"], as_index=False, sort=False, dropna=False).value.mean()


class _Found:
    """What the probe steps of a plan left; every file is read once."""

    def __init__(self, plan: Mapping[str, Any], store: ArtifactStore, scratch: Path, known: Records) -> None:
        self._store, self._scratch, self._known = store, scratch, known
        self._model = plan["model"]
        self._keys = {step["label"]: step["key"] for step in plan["steps"] if step["key"]}
        self._probed = plan.get("probed", ())
        self._records: dict[str, StepRecord | None] = {}
        self._vectors: dict[str, Vectors] = {}
        self._counts: dict[str, int] = {}

    def told(self, what: str) -> list[dict[str, Any]]:
        """Rows of measures that the steps themselves wrote."""
        rows = []
        for (row, target, label), seeds in self._edges(what).items():
            record = self._record(label)
            if record is None:
                continue
            for one in self._read(record, "measures"):
                language = one["language"] if what == "alignment" else ""
                words = {name: one[name] for name in ("measure", "layer", "value", "n")}
                rows.append(self._row(row, target, language, seeds, record.key) | words)
        return rows

    def compared(self, what: str) -> list[dict[str, Any]]:
        """Cosines between every intermediate task and every target, layer by layer."""
        rows, targets = [], self._sides(what, "target")
        pairs: dict[tuple[str, str, tuple[str, ...]], list[int]] = {}
        for (row, seed), labels in self._sides(what, "intermediate").items():
            for (target, other), more in targets.items():
                if seed == other:
                    pairs.setdefault((row, target, (*labels, *more)), []).append(seed)
        for (row, target, labels), seeds in pairs.items():
            records = [self._record(label) for label in labels]
            if any(record is None for record in records):
                continue
            *own, theirs = [record for record in records if record is not None]
            one, two = _mean([self._embedding(record) for record in own]), self._embedding(theirs)
            key = " ".join(dict.fromkeys(record.key for record in (*own, theirs)))
            n = min(self._counts[record.key] for record in (*own, theirs))
            for layer in sorted(one.keys() & two.keys()):
                value = _cosine(one[layer], two[layer])
                words = {"measure": SIMILAR[what], "layer": layer, "value": value, "n": n}
                rows.append(self._row(row, target, "", seeds, key) | words)
        return rows

    def _edges(self, what: str) -> dict[tuple[str, str, str], list[int]]:
        """Row, target and step -> its seeds."""
        found: dict[tuple[str, str, str], list[int]] = {}
        for each in self._probed:
            if each["what"] == what:
                found.setdefault((each["intermediate"], each["target"], each["step"]), []).append(
                    each["seed"]
                )
        return found

    def _sides(self, what: str, side: str) -> dict[tuple[str, int], tuple[str, ...]]:
        """Name and seed -> its steps: several for a mixture, whose embedding is the mean of its tasks'."""
        found: dict[tuple[str, int], tuple[str, ...]] = {}
        for each in self._probed:
            if each["what"] == what and each[side]:
                at = (each[side], each["seed"])
                found[at] = (*found.get(at, ()), each["step"])
        return found

    def _row(self, row: str, target: str, language: str, seeds: Sequence[int], key: str) -> dict[str, Any]:
        return {
            "model": self._model,
            "intermediate": row,
            "target": target,
            "language": language,
            "seed": seeds[0] if len(seeds) == 1 else None,
            "key": key,
        }

    def _record(self, label: str) -> StepRecord | None:
        if label in self._known:
            return self._known[label]
        if label not in self._records:
            key = self._keys.get(label)
            self._records[label] = None if key is None else read_record(self._store, key)
        return self._records[label]

    def _embedding(self, record: StepRecord) -> Vectors:
        if record.key not in self._vectors:
            rows = self._read(record, "embedding")
            self._vectors[record.key] = {row["layer"]: numpy.asarray(row["vector"]) for row in rows}
            self._counts[record.key] = min(row["n"] for row in rows)
        return self._vectors[record.key]

    def _read(self, record: StepRecord, name: str) -> list[dict[str, Any]]:
        root = StepPaths(record.key).root
        try:
            path = self._store.local(f"{root}/{record.outputs[name].path}", self._scratch)
            rows: list[dict[str, Any]] = parquet.read_table(path).to_pylist()
        except (ArrowException, OSError, KeyError) as problem:
            remedy = f"move {root} out of {self._store.location} and run again ({problem})"
            raise StoreError(f"the measures of {record.key} cannot be read", remedy) from problem
        return rows


def _mean(several: Sequence[Vectors]) -> Vectors:
    layers = set.intersection(*(set(one) for one in several))
    return {layer: numpy.mean([one[layer] for one in several], axis=0) for layer in layers}


def _cosine(one: Iterable[float], two: Iterable[float]) -> float:
    """NaN where a vector is 0."""
    first, second = numpy.asarray(one), numpy.asarray(two)
    lengths = float(numpy.linalg.norm(first) * numpy.linalg.norm(second))
    return float(first @ second) / lengths if lengths > 0 else float("nan")
