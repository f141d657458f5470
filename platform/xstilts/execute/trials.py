"""The trials of a search: what each came to, kept in the store one by one, so that a killed search goes on.

    steps/<key of the search>/trials/0003.json    created once, when the trial has ended or is to end early

Which trials run, and which are pruned, follows from what is written here and from the search's description.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from xstilts.errors import StoreError
from xstilts.frozen import Json
from xstilts.record.artifacts import ArtifactStore, StepPaths
from xstilts.record.schema import StepRecord, read_record

Rungs = tuple[tuple[float, float], ...]
"""(share of the optimiser steps, dev score there), in order."""

ASKING = 16


@dataclass(frozen=True, slots=True)
class Trial:
    """One point of the space and what came of it."""

    number: int
    values: Mapping[str, Any]
    """Setting of training -> what it was here."""
    key: str
    """Of the train step; only a finished trial has a record under it."""
    state: Literal["finished", "pruned", "failed"]
    """failed: training that went wrong, such as a loss that is not finite."""
    value: float | None = None
    """Source-language dev score of the weights kept, percent; None unless finished."""
    rungs: Rungs = ()
    steps: int = 0
    """Optimiser steps done."""
    seconds: float = 0.0
    """Of training and what belongs to it, attempts that were lost left out."""
    curve: Rungs = ()
    """Of a trial that has no record: loss at shares of its steps."""
    why: str = ""
    found: bool = False
    """Whether something else than this search ran it. Such a trial has rungs only if a search that prunes
    made it, so what a search prunes may depend on what it finds; its table says which those are."""

    def to_json(self) -> dict[str, Json]:
        """A row of the trial table."""
        return {
            "number": self.number,
            **self.values,
            "value": self.value,
            "key": self.key,
            "state": self.state,
            "rungs": [list(each) for each in self.rungs],
            "steps": self.steps,
            "seconds": self.seconds,
            **({"curve": [list(each) for each in self.curve]} if self.curve else {}),
            **({"why": self.why} if self.why else {}),
            **({"found": True} if self.found else {}),
        }

    @classmethod
    def from_json(cls, words: Mapping[str, Any], searched: Sequence[str]) -> Trial:
        """Reads what `to_json` wrote; `searched` names the settings.

        Raises:
            KeyError, TypeError, ValueError: it is no such thing.
        """
        state = words["state"]
        if state not in ("finished", "pruned", "failed"):
            raise ValueError(f"no trial is {state!r}")
        return cls(
            number=int(words["number"]),
            values={name: words[name] for name in searched},
            key=str(words["key"]),
            state=state,
            value=None if words["value"] is None else float(words["value"]),
            rungs=_pairs(words["rungs"]),
            steps=int(words["steps"]),
            seconds=float(words["seconds"]),
            curve=_pairs(words.get("curve", ())),
            why=str(words.get("why", "")),
            found=bool(words.get("found", False)),
        )

    @classmethod
    def of_record(cls, number: int, values: Mapping[str, Any], record: StepRecord, rungs: Rungs) -> Trial:
        """A trial whose step is recorded; `rungs` as they were heard, where this search ran it."""
        kept = (record.selection or {}).get("kept")
        value = float(kept) if isinstance(kept, int | float) and math.isfinite(kept) else None
        steps, seconds = record.result.get("steps"), record.cost.get("seconds")
        told = record.result.get("rungs")
        return cls(
            number=number,
            values=values,
            key=record.key,
            state="finished",
            value=value,
            rungs=_pairs(told) if isinstance(told, list) and told else rungs,
            steps=steps if isinstance(steps, int) else 0,
            seconds=float(seconds) if isinstance(seconds, int | float) else 0.0,
        )


@dataclass(frozen=True, slots=True)
class Journal:
    """The trials of one search in the store."""

    store: ArtifactStore
    search: str
    """Its key."""
    searched: tuple[str, ...]
    """Names of the settings."""

    def write(self, trial: Trial) -> Trial:
        """Keeps what a trial came to, and returns what stands there: the first word said of it is the last.

        Raises:
            StoreError: the store refuses.
        """
        self.store.create(self._name(trial.number), json.dumps(trial.to_json()).encode())
        return self.read(trial.number) or trial

    def read(self, number: int) -> Trial | None:
        """What a trial came to; None while that is open.

        Raises:
            StoreError: it cannot be understood.
        """
        data = self.store.read(self._name(number))
        if data is None:
            return None
        try:
            return Trial.from_json(json.loads(data), self.searched)
        except (ValueError, KeyError, TypeError) as problem:
            name, place = self._name(number), self.store.location
            raise StoreError(
                f"{name} in {place} is damaged", f"delete it and run again ({problem!r})"
            ) from problem

    def read_all(self, count: int) -> dict[int, Trial]:
        """Number -> trial, of the first `count` as far as they have ended."""
        with ThreadPoolExecutor(ASKING) as pool:
            found = pool.map(self.read, range(count))
        return {trial.number: trial for trial in found if trial is not None}

    def _name(self, number: int) -> str:
        return f"{StepPaths(self.search).root}/trials/{number:04d}.json"


def attempt_mark(search: str) -> str:
    """What the attempts of a search's trials end with, so that it can tell its own."""
    return f"-{search[-6:]}"


def clean(store: ArtifactStore, trial: Trial, search: str) -> None:
    """Removes what this search's attempts at a trial without a record left: nobody will go on from there.

    Why a failed trial failed stays.
    """
    if read_record(store, trial.key) is not None:
        return
    paths, mark = StepPaths(trial.key), attempt_mark(search)
    for name in list(store.list(paths.runs)):
        if name.removeprefix(paths.runs).partition("/")[0].endswith(mark):
            store.delete(name)
    if trial.state == "pruned":
        for name in list(store.list(paths.attempts)):
            if name.removesuffix(".json").endswith(mark):
                store.delete(name)


def best_of(trials: Sequence[Trial]) -> Trial | None:
    """The finished trial with the highest value, the earliest of equals; None when none has one."""
    scored = [trial for trial in trials if trial.state == "finished" and trial.value is not None]
    return max(scored, key=lambda trial: (trial.value or 0.0, -trial.number), default=None)


def _pairs(words: Any) -> Rungs:
    return tuple((float(share), float(value)) for share, value in words)
