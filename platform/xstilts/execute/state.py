"""What is done, what can be done now, what stands in the way: decisions as values, action is elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from xstilts.frozen import Json
from xstilts.plan.graph import Plan, Planned
from xstilts.record.artifacts import ArtifactStore, StepPaths
from xstilts.record.schema import StepRecord, read_record

ASKING = 16
"""Questions to a store at once: a bucket takes some 25 ms for each, and the paper's grid has 820 steps."""


class Cause(StrEnum):
    """Why an attempt ended without a record; the kinds that are treated differently."""

    LOST_WORKER = "lost worker"
    INTERRUPTED = "interrupted"
    FIXABLE = "fixable"
    """Bad input, a loss that is not finite: another try would end the same way."""
    BUG = "bug"


@dataclass(frozen=True, slots=True)
class Again:
    """How often to try once more."""

    lost_workers: int = 2

    def allows(self, cause: Cause, seen: int) -> bool:
        """Whether to try again after `seen` failures of this cause."""
        return cause is Cause.LOST_WORKER and seen <= self.lost_workers


@dataclass(frozen=True, slots=True)
class Survey:
    """The state of a plan's steps in a store."""

    plan: Plan
    recorded: frozenset[str]
    """Labels of steps that are done."""
    why: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Label -> why it is to run although something like it may be recorded."""

    def state(self, planned: Planned) -> str:
        """recorded | to_run | awaits."""
        if planned.label in self.recorded:
            return "recorded"
        return "awaits" if planned.step is None else "to_run"

    @property
    def to_run(self) -> list[Planned]:
        """Steps whose result is missing, those included that await a search."""
        return [planned for planned in self.plan if planned.label not in self.recorded]

    def ready(self, busy: frozenset[str]) -> Iterator[Planned]:
        """Steps that can start now; longest chains first, since the plan lists them in that order."""
        for planned in self.to_run:
            if planned.step is None or planned.label in busy:
                continue
            if all(label in self.recorded for label in planned.inputs.values()):
                yield planned

    def to_json(self) -> dict[str, Any]:
        """`xstilts plan --json`, and with what else a report needs the plan file in the store."""
        plan = self.plan
        states = [self.state(planned) for planned in plan]
        shared = sum(
            count - 1 for label, count in plan.uses.items() if plan.steps[label].kind == "train" and count > 1
        )
        return {
            "job": plan.job,
            "digest": plan.digest,
            "steps": [
                {
                    "key": planned.key,
                    "label": planned.label,
                    "kind": planned.kind,
                    "state": state,
                    "awaits": list(planned.awaits),
                    "inputs": dict(planned.inputs),
                    "why": list(self.why.get(planned.label, ())),
                }
                for planned, state in zip(plan, states, strict=True)
            ],
            "cells": [asdict(cell) for cell in plan.cells],
            "missing": [
                {"target": target, "language": language, "why": why}
                for (target, language), why in plan.missing.items()
            ],
            "totals": {
                "steps": len(states),
                **{word: states.count(word) for word in ("recorded", "to_run", "awaits")},
                "trainings_saved_by_sharing": shared,
            },
        }


def survey(plan: Plan, store: ArtifactStore, explain: bool = False) -> Survey:
    """Which of the plan's steps are recorded; with `explain`, why the others are new."""
    keyed = {planned.label: StepPaths(planned.key).record for planned in plan if planned.key is not None}
    with ThreadPoolExecutor(ASKING) as pool:
        there = pool.map(store.exists, keyed.values())
        recorded = frozenset(label for label, is_there in zip(keyed, there, strict=True) if is_there)
    why = _whys(plan, store, recorded) if explain else {}
    return Survey(plan, recorded, why)


def chosen_values(plan: Plan, store: ArtifactStore) -> dict[str, dict[str, Any]]:
    """Key of each finished search of the plan -> the values it chose."""
    found: dict[str, dict[str, Any]] = {}
    for planned in plan:
        if planned.kind == "search" and planned.key is not None:
            record = read_record(store, planned.key)
            if record is not None and isinstance(record.result.get("chosen"), dict):
                found[planned.key] = dict(record.result["chosen"])  # type: ignore[arg-type]
    return found


def _whys(plan: Plan, store: ArtifactStore, recorded: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """For every step to run: what differs from the recorded step most like it."""
    done = _recorded_like(store)
    whys: dict[str, tuple[str, ...]] = {}
    for planned in plan:
        if planned.label in recorded:
            continue
        if planned.step is None:
            whys[planned.label] = (f"its settings await {' '.join(planned.awaits)}",)
            continue
        like = done.get(_alike(planned.label), [])
        whys[planned.label] = _why(
            planned, [record for key in like[:8] if (record := read_record(store, key))]
        )
    return whys


def _recorded_like(store: ArtifactStore) -> dict[str, list[str]]:
    """Recorded keys by what their labels share: kind, task and seed, without the digits of settings."""
    done: dict[str, list[str]] = {}
    for name in store.list("steps/"):
        if name.endswith("/record.json"):
            key = name.split("/")[1]
            done.setdefault(_alike(key.rpartition("--")[0]), []).append(key)
    return done


def _alike(label: str) -> str:
    words = label.split("-")
    return "-".join(
        word for word in words if not (len(word) == 4 and all(c in "0123456789abcdef" for c in word))
    )


def _why(planned: Planned, like: list[StepRecord]) -> tuple[str, ...]:
    assert planned.step is not None
    if not like:
        return ("never run",)
    own = planned.step.body.to_identity()
    inputs = {f"from.{role}": key for role, key in planned.step.inputs.items()}
    options = [
        _differences(record.identity, own)
        + _differences({f"from.{role}": key for role, key in record.inputs.items()}, inputs)
        for record in like
    ]
    best = min(options, key=len)
    return tuple(best) or ("a VERSION was bumped",)


def _differences(old: Json | dict[str, Any], new: Json | dict[str, Any], at: str = "") -> list[str]:
    """Dotted path: old -> new, for every leaf that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[str] = []
        for name in sorted(old.keys() | new.keys()):
            found += _differences(old.get(name), new.get(name), f"{at}.{name}".lstrip("."))
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            line
            for i, pair in enumerate(zip(old, new, strict=True))
            for line in _differences(*pair, f"{at}[{i}]")
        ]
    return [] if old == new else [f"{at}: {_short(old)} -> {_short(new)}"]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:18]}…{text[-18:]}"
