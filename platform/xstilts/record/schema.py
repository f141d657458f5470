"""The record of a finished step: the contract that reports, dashboards and other tools read."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import AfterValidator

from xstilts.errors import StoreError
from xstilts.frozen import Frozen, Json
from xstilts.record.artifacts import ArtifactStore, StepPaths, is_name

SCHEMA = 1


def _inside(path: str) -> str:
    """A record may come from anybody who can write to the store: what it names stays in its step's folder."""
    if not is_name(path):
        raise ValueError(f"{path!r} is no path within a step's folder")
    return path


def _part(name: str) -> str:
    if not is_name(name) or "/" in name:
        raise ValueError(f"{name!r} is no name of a step or an attempt")
    return name


Part = Annotated[str, AfterValidator(_part)]
"""A key or an attempt: one part of a name in the store."""


class Output(Frozen):
    """One file of the winning attempt; `path` is relative to the step's folder and never leaves it."""

    path: Annotated[str, AfterValidator(_inside)]
    bytes: int
    sha256: str


class Score(Frozen):
    """One metric of one language; percent."""

    task: str
    language: str
    split: str
    metric: str
    value: float
    n: int
    """Items it is over."""


class Seconds(Frozen):
    """Where the time went."""

    wait: float = 0.0
    load: float = 0.0
    compute: float = 0.0
    save: float = 0.0


class StepRecord(Frozen):
    """Everything that is known of a finished step. No role, row, job or suite: those are edges of plans."""

    schema_version: int = SCHEMA
    key: Part
    kind: Literal["pretrain", "translate", "train", "search", "probe", "predict", "score"]
    version: int
    identity: dict[str, Json]
    inputs: dict[str, Part] = {}
    """Role -> key."""
    outputs: dict[str, Output] = {}
    scores: tuple[Score, ...] = ()
    selection: dict[str, Json] | None = None
    """Training: split and rows it was chosen on, metric, best value, step and epoch kept."""
    result: dict[str, Json] = {}
    """search: the chosen values and the trial table; train: steps, final loss, examples seen."""
    layout: dict[str, Json] = {}
    """device, workers, per_device_batch, threads, dtype."""
    seconds: Seconds = Seconds()
    cost: dict[str, Json] = {}
    flags: tuple[str, ...] = ()
    """"collapsed": finite loss, source-language dev near the majority class."""
    provenance: dict[str, Json] = {}
    attempt: Part
    finished: str
    """UTC, ISO 8601."""

    def to_json(self) -> bytes:
        """As stored; the field is named `schema` there, a name pydantic keeps for itself."""
        words = self.model_dump(mode="json")
        words = {"schema": words.pop("schema_version"), **words}
        return json.dumps(words, indent=1, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, data: bytes) -> StepRecord:
        """Reads what `to_json` wrote.

        Raises:
            ValueError: of what else, pydantic's own included.
        """
        words = json.loads(data)
        if not isinstance(words, dict) or "schema" not in words:
            raise ValueError("it is no record")
        words["schema_version"] = words.pop("schema")
        return cls.model_validate(words)


def read_record(store: ArtifactStore, key: str) -> StepRecord | None:
    """The record of `key`, or None when the step is not done.

    Raises:
        StoreError: there is one and it cannot be understood.
    """
    data = store.read(StepPaths(key).record)
    if data is None:
        return None
    try:
        return StepRecord.from_json(data)
    except ValueError as problem:
        remedy = f"move {StepPaths(key).root} out of {store.location} and run again ({problem})"
        raise StoreError(f"the record of {key} is damaged", remedy) from problem
