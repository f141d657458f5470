"""A finished job that never ran: plan, records and item statistics with gains that are known.

Two targets that have clusters and parallel items (xnli), tags (panx) and one that trains nothing (tatoeba).
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy
import pyarrow
import pytest
from pyarrow import parquet

from xstilts import api
from xstilts.api import answers
from xstilts.record.artifacts import StepPaths
from xstilts.record.local import LocalStore
from xstilts.record.schema import Output, Score, StepRecord
from xstilts.tasks import metrics, registry

Gains = Mapping[tuple[str, str], float]


@dataclass
class MadeUpJob:
    """What to make; `make` writes it and gives the plan."""

    intermediates: Sequence[str] = ("none", "untrained", "mnli", "squad_v1")
    targets: Sequence[str] = ("xnli", "panx", "tatoeba")
    languages: Sequence[str] = ("en", "de", "ru", "sw")
    seeds: Sequence[int] = (1, 2, 3)
    items: int = 240
    gains: Gains = field(default_factory=dict)
    """(row, target) -> what it truly adds to the chance of being right, 0..1."""
    seed_noise: float = 0.0
    """Standard deviation over seeds of a run's chance of being right."""
    collapsed: Sequence[str] = ()
    """Labels of train steps that collapsed."""
    unfinished: Sequence[str] = ()
    """Labels of score steps that have no record."""
    dropped: Sequence[tuple[str, str]] = ()
    """(score label, language) that the record lacks."""
    planted: str = ""
    question: str = "Does an English intermediate task help?"
    world: int = 0

    def make(self, store: LocalStore) -> dict[str, Any]:
        """Writes every record; the plan as it would be stored."""
        steps: dict[str, dict[str, Any]] = {}
        cells = []
        for row in self.intermediates:
            for target in self.targets:
                for seed in self.seeds:
                    cells.append(self._cell(row, target, seed, steps))
        for step in steps.values():
            if step["label"] not in self.unfinished:
                self._record(step, store)
        wanted = ("key", "label", "kind", "state", "awaits", "inputs", "why")
        return {
            "job": "made_up",
            "digest": "0123456789abcdef",
            "steps": [{name: step[name] for name in wanted} for step in steps.values()],
            "cells": cells,
            "totals": {},
            "experiment": {
                "name": "made_up",
                "question": self.question,
                "planted": self.planted,
                "train": {"target": {"fraction": 0.5, "tasks": {"panx": {"fraction": 0.25}}}},
                "evaluate": {"split": "test", "selection": {"keep": "best"}},
            },
            "model": "made-up",
            "created": "2026-01-01T00:00:00+00:00",
        }

    def _cell(self, row: str, target: str, seed: int, steps: dict[str, dict[str, Any]]) -> dict[str, Any]:
        before = None
        if row not in ("none", "untrained"):
            before = self._step(steps, "train", f"train-{row}-s{seed}", {})
        after = f"-after-{row}-s{seed}" if before else ("-untrained" if row == "untrained" else "")
        train = None
        if target != "tatoeba":
            start = {"encoder": before} if before else {}
            train = self._step(steps, "train", f"train-{target}-s{seed}{after}", start)
        name = f"{target}-s{seed}{after}" if row != "none" or train else target
        model = train or before
        predict = self._step(steps, "predict", f"predict-{name}", {"model": model} if model else {})
        score = self._step(steps, "score", f"score-{name}", {"predictions": predict})
        steps[score].update(row=row, target=target, seed=seed)
        return {
            "intermediate": row,
            "target": target,
            "seed": seed,
            "train": train,
            "predict": predict,
            "score": score,
        }

    def _step(self, steps: dict[str, dict[str, Any]], kind: str, label: str, inputs: dict[str, str]) -> str:
        words = {"key": f"{label}--{'0' * 16}", "label": label, "kind": kind, "inputs": inputs}
        steps.setdefault(label, {**words, "state": "recorded", "awaits": [], "why": []})
        return label

    def _record(self, step: Mapping[str, Any], store: LocalStore) -> None:
        outputs: dict[str, Output] = {}
        scores: list[Score] = []
        if step["kind"] == "score":
            for language in self._languages(step["target"]):
                if (step["label"], language) not in self.dropped:
                    table = self.table(step["row"], step["target"], step["seed"], language)
                    outputs[f"items/{language}"] = _write(store, step["key"], language, table)
                    scores += _scores(step["target"], language, table)
        fraction = {"settings": {"fraction": 0.5}} if step["label"].startswith("train-xnli") else {}
        record = StepRecord(
            key=step["key"],
            kind=step["kind"],
            version=1,
            identity=fraction,
            outputs=outputs,
            scores=tuple(scores),
            flags=("collapsed",) if step["label"] in self.collapsed else (),
            provenance={"commit": "abc1234", "python": "3.11.4"},
            attempt="a1",
            finished="2026-01-01T00:00:00+00:00",
        )
        store.create(StepPaths(step["key"]).record, record.to_json())

    def _languages(self, target: str) -> list[str]:
        return [code for code in self.languages if code in registry.task(target).languages]

    def table(self, row: str, target: str, seed: int, language: str) -> dict[str, Any]:
        """Item statistics: chance of being right falls by language, and gains are as asked for."""
        frozen = target == "tatoeba" and row == "none"
        of_run = [0 if frozen else seed, _number(row), _number(target)]
        spread = numpy.random.default_rng([self.world, 7, *of_run])
        right = 0.75 - 0.1 * self.languages.index(language) + self.gains.get((row, target), 0.0)
        right += self.seed_noise * float(spread.standard_normal())
        right = 0.2 if row == "untrained" else right
        shared = numpy.random.default_rng([self.world, 1, _number(target)])
        item = numpy.arange(self.items)
        cluster = item // 3
        hard = 0.15 * shared.standard_normal(self.items)[cluster]
        luck = numpy.random.default_rng([self.world, 2, _number(target), self.languages.index(language)])
        draw = 0.7 * luck.random(self.items) + 0.3 * spread.random(self.items)
        correct = (_rank(draw) < numpy.clip(right + hard, 0, 1)).astype(int)
        parallel = registry.task(target).parallel
        names = {
            "item": [str(number) for number in item],
            "cluster": [f"{language}:{number}" if parallel else str(number) for number in cluster],
            "parallel_id": [str(number) if parallel else "" for number in item],
        }
        if target == "panx":
            gold = 1 + item % 3
            words = {"correct": 5 * correct, "n": 0 * item + 6}
            return {**names, "tp": correct * gold, "n_pred": gold, "n_gold": gold, **words}
        return {**names, "correct": correct}


def _rank(values: Any) -> Any:
    """The same order, evenly spread over 0..1."""
    return numpy.argsort(numpy.argsort(values)) / len(values)


def _number(name: str) -> int:
    return zlib.crc32(name.encode())


def _write(store: LocalStore, key: str, language: str, table: Mapping[str, Any]) -> Output:
    buffer = io.BytesIO()
    parquet.write_table(pyarrow.table({name: list(values) for name, values in table.items()}), buffer)
    path = f"runs/a1/items/{language}.parquet"
    store.put(f"{StepPaths(key).root}/{path}", buffer.getvalue())
    return Output(path=path, bytes=len(buffer.getvalue()), sha256="0" * 64)


def _scores(target: str, language: str, table: Mapping[str, Any]) -> list[Score]:
    sums = {name: float(numpy.sum(values)) for name, values in table.items() if not isinstance(values, list)}
    found = metrics.from_sums(registry.task(target).metric, {**sums, "items": len(table["item"])})
    return [
        Score(task=target, language=language, split="test", metric=name, value=value, n=len(table["item"]))
        for name, value in found.items()
    ]


class QuickStore(LocalStore):
    """Writes without flushing to the disk: a made-up job is 90 files, and a flush is 10 ms."""

    def put(self, name: str, data: bytes) -> None:
        """Writes `name`, replacing what was there."""
        path = Path(self.location) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def create(self, name: str, data: bytes) -> bool:
        """Writes `name`; nothing else writes in these tests."""
        self.put(name, data)
        return True


def made(folder: Path, **words: Any) -> tuple[dict[str, Any], LocalStore]:
    """A made-up job in a store under `folder`."""
    store = QuickStore(folder / "store")
    return MadeUpJob(**words).make(store), store


def opens(monkeypatch: pytest.MonkeyPatch, plan: dict[str, Any], store: LocalStore) -> None:
    """The commands find this plan and store, whatever job file they are given."""
    job = SimpleNamespace(store=store)
    monkeypatch.setattr(api, "open_job", lambda *_: job)
    monkeypatch.setattr(answers, "stored_plan", lambda _: plan)
