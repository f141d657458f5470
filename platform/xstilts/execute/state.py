"""What is done, what can be done now, what stands in the way: decisions as values, action is elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

from xstilts.frozen import Json
from xstilts.plan.graph import Plan, Planned
from xstilts.plan.step import SearchBody
from xstilts.record.artifacts import ArtifactStore, StepPaths
from xstilts.record.dropped import dropped, remade
from xstilts.record.schema import StepRecord, read_record
from xstilts.spec.experiment import ExecutionSpec

ASKING = 16
"""Questions to a store at once: a bucket takes some 25 ms for each, and the paper's grid has 820 steps."""


class Cause(StrEnum):
    """Why an attempt ended without a record; the kinds that are treated differently."""

    PREEMPTED = "preempted"
    """Its node was taken away, as was announced, or before the step began."""
    LOST_WORKER = "lost worker"
    HUNG = "no sign of life"
    DEVICE_MEMORY = "device out of memory"
    HOST_MEMORY = "host out of memory"
    ELSEWHERE = "done elsewhere"
    """Another driver's worker has the step, or took it over."""
    INTERRUPTED = "interrupted"
    FIXABLE = "fixable"
    """Bad input, a loss that is not finite: another try would end the same way."""
    BUG = "bug"


@dataclass(frozen=True, slots=True)
class Again:
    """How often to try once more, by cause."""

    lost_workers: int = 3
    hung: int = 1
    host_memory: int = 1

    def allows(self, cause: Cause, seen: int, per_device_batch: int) -> bool:
        """Whether to try again after `seen` failures of this cause, the last with `per_device_batch`."""
        match cause:
            case Cause.PREEMPTED | Cause.ELSEWHERE:
                return True  # nobody's fault: costs what was done since the last checkpoint, or nothing
            case Cause.DEVICE_MEMORY:
                return per_device_batch > 1
            case Cause.LOST_WORKER:
                return seen <= self.lost_workers
            case Cause.HUNG:
                return seen <= self.hung
            case Cause.HOST_MEMORY:
                return seen <= self.host_memory
            case _:
                return False


def given_up(text: str, tries: int) -> str:
    """Why a step is not tried again, in words."""
    return f"{text}; given up after {tries} {'try' if tries == 1 else 'tries'}"


def engine_of(
    planned: Planned, plan: Plan, execution: ExecutionSpec, on_cluster: bool
) -> Literal["warm", "ray_train"]:
    """Which engine runs a step. A Ray Train run costs 15 s before its first step, which thousands of short
    target trainings must not pay: `auto` gives it what is long or has several processes. Of a search: which
    engine runs its trials."""
    if planned.kind not in ("pretrain", "train", "search") or execution.engine in ("warm", "inline"):
        return "warm"
    if execution.engine == "ray_train" or execution.ranks > 1:
        return "ray_train"
    stood_on = any(
        other.kind in ("train", "search") and planned.label in other.inputs.values() for other in plan
    )
    long = planned.kind == "pretrain" or stood_on
    return "ray_train" if on_cluster and long and planned.kind != "search" else "warm"


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
            (count - 1) * _trainings(plan.steps[label]) for label, count in plan.uses.items() if count
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
            "probed": [asdict(each) for each in plan.probed],
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
    starts = [(planned.label, list(planned.inputs.values())) for planned in plan]
    again = remade(starts, recorded, lambda label: _is_dropped(store, plan.steps[label]))
    why = _whys(plan, store, recorded - again) if explain else {}
    why |= {label: ("its outputs were dropped by `xstilts store gc`",) for label in again if explain}
    return Survey(plan, recorded - again, why)


def restated(words: Mapping[str, Any], store: ArtifactStore, settled: Collection[str] = ()) -> dict[str, Any]:
    """A plan as stored, with the states that its steps have in `store` now: needs neither job file nor data.

    Of `settled`, labels, it is known that they are recorded; the store is not asked.
    """
    steps = [dict(step) for step in words["steps"]]
    asked = {step["label"]: step["key"] for step in steps if step["key"] and step["label"] not in settled}
    with ThreadPoolExecutor(ASKING) as pool:
        there = pool.map(store.exists, (StepPaths(key).record for key in asked.values()))
        recorded = {label for label, is_there in zip(asked, there, strict=True) if is_there}
    recorded |= {step["label"] for step in steps if step["key"] and step["label"] in settled}
    starts = [(step["label"], list(step["inputs"].values())) for step in steps]
    keys = {step["label"]: step["key"] for step in steps}
    recorded -= remade(starts, recorded, lambda label: dropped(store, keys[label]) is not None)
    for step in steps:
        unknown = "awaits" if step["key"] is None else "to_run"
        step["state"] = "recorded" if step["label"] in recorded else unknown
    states = [step["state"] for step in steps]
    counts = {word: states.count(word) for word in ("recorded", "to_run", "awaits")}
    totals = {**words.get("totals", {}), "steps": len(steps), **counts}
    return {**words, "steps": steps, "totals": totals}


def _trainings(planned: Planned) -> int:
    """How many a step stands for."""
    if planned.step is not None and isinstance(planned.step.body, SearchBody):
        return planned.step.body.trials
    return 1 if planned.kind == "train" else 0


def _is_dropped(store: ArtifactStore, planned: Planned) -> bool:
    return planned.key is not None and dropped(store, planned.key) is not None


def chosen_values(
    plan: Plan, store: ArtifactStore, known: dict[str, dict[str, Any]] | None = None
) -> dict[str, dict[str, Any]]:
    """Key of each finished search of the plan -> the values it chose. What was read goes into `known` and is
    not read again: a record never changes, and a driver plans anew after each search."""
    known = {} if known is None else known
    keys = [planned.key for planned in plan if planned.kind == "search" and planned.key is not None]
    with ThreadPoolExecutor(ASKING) as pool:
        records = pool.map(lambda key: read_record(store, key), [key for key in keys if key not in known])
        for record in records:
            if record is not None and isinstance(record.result.get("chosen"), dict):
                known[record.key] = dict(record.result["chosen"])  # type: ignore[arg-type]
    return {key: known[key] for key in keys if key in known}


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
