"""One job of a store, watched: its state and its table. Nothing that cannot change is asked for twice."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xstilts.dashboards.kept import Kept
from xstilts.errors import StoreError, UnknownName
from xstilts.execute.ledger import told
from xstilts.execute.site import is_bucket
from xstilts.execute.state import ASKING, restated
from xstilts.record.artifacts import ArtifactStore, plan_file
from xstilts.record.fetched import DamagedObject
from xstilts.record.mlflow import hidden, read_links
from xstilts.record.schema import StepRecord, read_record
from xstilts.report import frame, intervals
from xstilts.report.transfer import Cell, Transfer, assembled, transfer

STATE_SECONDS = 3.0
TABLE_SECONDS = 5.0
TABLE_SHARE = 0.1
"""Of one core: while a job runs, its new scores set off the bootstrap of their target again."""

TRUST_SECONDS = 300.0
"""How long a recorded step is taken for recorded: `store gc` and `store verify --repair` may undo it."""

_PLAN = {"job", "digest", "steps", "cells", "experiment", "model"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A job to show."""

    name: str
    digest: str = ""
    """Of its plan; "" for the one that was driven last."""
    planned: Mapping[str, Any] | None = None
    """The plan as it is now, shown until the store has one."""


@dataclass(frozen=True, slots=True)
class State:
    """What the store says of a job."""

    plan: Mapping[str, Any]
    status: Mapping[str, Any]
    """As `execute.ledger.status` has it."""
    records: Mapping[str, StepRecord]
    """By label."""
    links: Mapping[str, Any]
    """As `record.mlflow.read_links` has it."""
    problems: tuple[str, ...]
    """What could not be understood, and is left out."""


@dataclass(frozen=True, slots=True)
class Table:
    """The transfer table as far as the job is."""

    result: Transfer
    links: Mapping[str, Any]
    problems: tuple[str, ...]
    scored: int
    cells: int
    """Of the plan; `scored` of them have a score."""


def check_there(store: ArtifactStore) -> None:
    """Refuses a folder that is gone, which otherwise looks like a store with nothing in it.

    Raises:
        StoreError: it is.
    """
    if not is_bucket(store.location) and not Path(store.location).is_dir():
        problem = f"there is no store at {store.location}"
        raise StoreError(problem, "run a job on it first, or name another --store")


@dataclass
class Watched:
    """One job. `state` and `table` may be looked at from any thread; each is made by one at a time."""

    store: ArtifactStore
    asked: Asked
    resamples: int = intervals.RESAMPLES
    state: Kept[State] = field(init=False)
    table: Kept[Table] = field(init=False)
    _plans: tuple[tuple[str, ...], str, float] = ((), "", 0.0)
    """Names of stored plans when they were last compared, the newest of them, when that was."""
    _records: dict[str, StepRecord] = field(default_factory=dict)
    """By key."""
    _ended: dict[str, list[Any]] = field(default_factory=dict)
    """Key of a recorded step -> its failed attempts."""
    _trusted: float = 0.0
    _made: dict[str, tuple[tuple[Any, ...], tuple[Cell, ...], str]] = field(default_factory=dict)
    """Target -> what its cells were made of, the cells, and what is wrong with them."""

    def __post_init__(self) -> None:
        self.state = Kept(self._look, STATE_SECONDS)
        self.table = Kept(self._tabulate, TABLE_SECONDS, TABLE_SHARE)

    def _look(self) -> State:
        if self.asked.planned is None or self._plans[0]:
            check_there(self.store)  # else the job's first run makes it
        plan = self._plan()
        if time.monotonic() - self._trusted > TRUST_SECONDS:
            self._ended, self._trusted = {}, time.monotonic()
        keys = {step["label"]: step["key"] for step in plan["steps"] if step["key"]}
        words = restated(plan, self.store, {label for label, key in keys.items() if key in self._ended})
        known = {label: self._ended[key] for label, key in keys.items() if key in self._ended}
        status = told(words, self.store, known=known)
        recorded = {step["label"]: step for step in status["steps"] if step["state"] == "recorded"}
        self._ended = {step["key"]: step["attempts"] for step in recorded.values()}
        records, problems = self._read({label: keys[label] for label in recorded})
        try:
            links = read_links(self.store, self.asked.name) or {}
        except StoreError as problem:
            links, problems = {}, [*problems, hidden(str(problem))]
        return State(plan, status, records, links, tuple(problems))

    def _plan(self) -> Mapping[str, Any]:
        """The stored plan that is shown, as it is now: a search that has chosen changes it."""
        prefix = plan_file(self.asked.name, "")[: -len(".json")]
        names = tuple(self.store.list(prefix))
        if self.asked.digest:
            wanted = plan_file(self.asked.name, self.asked.digest)
            names = tuple(name for name in names if name == wanted)
        if not names:
            if self.asked.planned is not None:
                return self.asked.planned
            problem = f"{self.store.location} has no plan of {self.asked.name}"
            raise StoreError(problem, "it has not begun yet, or was run on another store")
        before, newest, when = self._plans
        if names != before or time.monotonic() - when > TRUST_SECONDS:
            created = {name: str(self._words(name).get("created", "")) for name in names}
            newest = max(names, key=lambda name: created[name])
            self._plans = (names, newest, time.monotonic())
        return self._words(newest)

    def _words(self, name: str) -> dict[str, Any]:
        try:
            words = json.loads(self.store.read(name) or b"")
        except ValueError as problem:
            raise _damaged(self.store, name) from problem
        if not isinstance(words, dict) or not words.keys() >= _PLAN or words["job"] != self.asked.name:
            raise _damaged(self.store, name)
        return words

    def _read(self, keys: Mapping[str, str]) -> tuple[dict[str, StepRecord], list[str]]:
        """The records of these labels, and what is wrong with those that are none."""
        new = [key for key in dict.fromkeys(keys.values()) if key not in self._records]
        with ThreadPoolExecutor(ASKING) as pool:
            found = list(pool.map(self._record, new))
        problems = [each for each in found if isinstance(each, str)]
        self._records |= {each.key: each for each in found if isinstance(each, StepRecord)}
        there = set(keys.values())
        self._records = {key: record for key, record in self._records.items() if key in there}
        records = {label: self._records[key] for label, key in keys.items() if key in self._records}
        return records, problems

    def _record(self, key: str) -> StepRecord | str | None:
        """A record, or what is wrong with it.

        Raises:
            StoreError: the store is away, which is nothing that is wrong with a record.
        """
        try:
            return read_record(self.store, key)
        except StoreError as problem:
            if isinstance(problem, DamagedObject) or isinstance(problem.__cause__, ValueError):
                return hidden(str(problem))
            raise

    def _tabulate(self) -> Table:
        seen = self.state.look(wait=600)
        if seen.value is None:
            raise StoreError(seen.problem or "the store has not answered yet", "the page asks again")
        state, plan = seen.value, seen.value.plan
        rows = frame.frame(plan, self.store, state.records)
        cells: list[Cell] = []
        problems = list(state.problems)
        for target in dict.fromkeys(cell["target"] for cell in plan["cells"]):
            made, problem = self._target(target, state, rows)
            cells += made
            problems += [problem] if problem else []
        scored = sum(cell["score"] in state.records for cell in plan["cells"])
        result = assembled(plan, cells, state.records, self.resamples)
        return Table(result, state.links, tuple(problems), scored, len(plan["cells"]))

    def _target(self, target: str, state: State, rows: Any) -> tuple[Sequence[Cell], str]:
        """The cells of one target, made anew only where a score has come or gone since; what is wrong."""
        mine = [cell for cell in state.plan["cells"] if cell["target"] == target]
        scores = [(cell["score"], state.records.get(cell["score"])) for cell in mine]
        of = (state.plan["digest"], tuple((label, each and each.attempt) for label, each in scores))
        if target not in self._made or self._made[target][0] != of:
            self._made[target] = (of, *self._cells({**state.plan, "cells": mine}, state.records, rows))
        return self._made[target][1:]

    def _cells(
        self, plan: Mapping[str, Any], records: frame.Records, rows: Any
    ) -> tuple[tuple[Cell, ...], str]:
        try:
            try:
                made = transfer(plan, self.store, rows, records, self.resamples, families=True)
                return made.cells, ""
            except StoreError as problem:
                # Item statistics that are damaged or gone: the scores are in the records all the same.
                bare = {label: each.model_copy(update={"outputs": {}}) for label, each in records.items()}
                made = transfer(plan, self.store, rows, bare, self.resamples, families=True)
                return made.cells, hidden(f"shown without intervals over items, {problem}")
        except UnknownName as problem:
            return (), hidden(f"left out, {problem}")


def _damaged(store: ArtifactStore, name: str) -> StoreError:
    return StoreError(f"{name} in {store.location} is damaged", "run the job again: it writes its plan anew")
