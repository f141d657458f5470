"""Outputs of a finished step that were removed to make room, and how such a step is made again.

    steps/<key>/dropped.json            what `store gc` removed, when, and by which version
    steps/<key>/dropped-<time>.json     the record that this was of, set aside when the step is made again

The record stays, so that tables and reports do not change. A step whose dropped outputs are an input of one
that is still to run counts as to run itself (`remade`), and so, in turn, may its own inputs.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from xstilts.errors import StoreError
from xstilts.frozen import Frozen
from xstilts.record.artifacts import ArtifactStore, StepPaths
from xstilts.record.fetched import DamagedObject
from xstilts.record.schema import Part, StepRecord, read_record


class Removal(Frozen):
    """Files of one sort that went at one time."""

    what: str
    """losing attempts | checkpoints | leases | models."""
    files: int
    bytes: int
    when: str
    """UTC, ISO 8601."""
    version: str
    """Of xstilts."""


class Dropped(Frozen):
    """What was removed of a recorded step."""

    attempt: Part
    """That of the record it is about; of a later one of the same step nothing was removed."""
    outputs: tuple[str, ...] = ()
    """Names in the record whose files are gone."""
    removed: tuple[Removal, ...] = ()

    def to_json(self) -> bytes:
        """As stored."""
        return json.dumps(self.model_dump(mode="json"), indent=1).encode()

    @classmethod
    def parse(cls, data: bytes, record: StepRecord) -> Dropped | None:
        """Reads what `to_json` wrote; None when it is about another record of the step.

        Raises:
            ValueError: of what else.
        """
        found = cls.model_validate_json(data)
        return found if found.attempt == record.attempt else None


def read_dropped(store: ArtifactStore, record: StepRecord) -> Dropped | None:
    """What was removed of the step that `record` is of, be it only checkpoints; None when nothing was.

    Raises:
        StoreError: what says so cannot be understood.
    """
    name = StepPaths(record.key).dropped
    data = store.read(name)
    if data is None:
        return None
    try:
        return Dropped.parse(data, record)
    except ValueError as problem:
        remedy = "remove it, then run `xstilts store verify`, which says what is missing"
        raise StoreError(f"{name} in {store.location} is damaged", remedy) from problem


def dropped(store: ArtifactStore, key: str) -> Dropped | None:
    """What was removed of the outputs of a recorded step; None when it has all of them, or no record."""
    if not store.exists(StepPaths(key).dropped):
        return None
    record = read_record(store, key)
    found = None if record is None else read_dropped(store, record)
    return found if found is not None and found.outputs else None


def is_whole(store: ArtifactStore, key: str) -> bool:
    """Whether a step is recorded and has all that its record names."""
    return store.exists(StepPaths(key).record) and dropped(store, key) is None


def check_kept(store: ArtifactStore, record: StepRecord, prefix: str = "") -> None:
    """Refuses a record whose outputs that start with `prefix` were dropped; asked before they are read.

    Raises:
        StoreError: they were; it says when, and how to have them again.
    """
    found = read_dropped(store, record)
    if found is None or not any(name.startswith(prefix) for name in found.outputs):
        return
    when = max((each.when for each in found.removed if each.what == "models"), default="some time ago")
    problem = f"outputs of {record.key} were dropped by store gc ({when})"
    raise StoreError(problem, "run the job again with `xstilts run JOB`: it makes them again first")


def remade(
    inputs: Sequence[tuple[str, Collection[str]]],
    recorded: Collection[str],
    was_dropped: Callable[[str], bool],
) -> set[str]:
    """Recorded steps of a plan that are to run once more, since steps to run need what was dropped of them.

    `inputs` is (step, steps it starts from), inputs before what needs them, as a plan lists them; steps are
    named by label or by key, throughout. `was_dropped` is asked of needed steps only.
    """
    again: set[str] = set()
    for step, needed in reversed(inputs):
        if step in recorded and step not in again:
            continue
        again |= {each for each in needed if each in recorded and each not in again and was_dropped(each)}
    return again


def stored_inputs(plan: Mapping[str, object]) -> list[tuple[str, list[str]]]:
    """(step, steps it starts from) of a plan as stored, for `remade`: by key, by label where a step has none.

    Raises:
        ValueError: it is no plan.
    """
    try:
        steps = [dict(step) for step in plan["steps"]]  # type: ignore[attr-defined]
        named = {str(step["label"]): str(step["key"] or step["label"]) for step in steps}
        return [
            (named[step["label"]], [named[str(label)] for label in dict(step["inputs"]).values()])
            for step in steps
        ]
    except (KeyError, TypeError, AttributeError) as problem:
        raise ValueError("it is no plan") from problem


def set_aside(store: ArtifactStore, key: str, why: str) -> str:
    """Makes a recorded step unrecorded, so that it is made again; the name its record has now.

    Only for whoever holds the step's lease. Ended half-way, it has set nothing aside or can be repeated.
    """
    paths = StepPaths(key)
    try:
        data = store.read(paths.record)
    except DamagedObject as problem:
        data = json.dumps({"lost": problem.problem}).encode()
    name = paths.aside(why, f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(2)}")
    if data is not None:
        store.put(name, data)
    store.delete(paths.record)
    store.delete(paths.dropped)
    return name
