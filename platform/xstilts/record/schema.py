"""The record of a finished step: the contract that reports, dashboards and other tools read."""

from __future__ import annotations

import json
from typing import Literal

from xstilts.errors import StoreError
from xstilts.frozen import Frozen, Json
from xstilts.record.artifacts import ArtifactStore, StepPaths

SCHEMA = 1


class Output(Frozen):
    """One file of the winning attempt; `path` is relative to the step's folder."""

    path: str
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
    key: str
    kind: Literal["pretrain", "translate", "train", "search", "predict", "score"]
    version: int
    identity: dict[str, Json]
    inputs: dict[str, str] = {}
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
    attempt: str
    finished: str
    """UTC, ISO 8601."""

    def to_json(self) -> bytes:
        """As stored; the field is named `schema` there, a name pydantic keeps for itself."""
        words = self.model_dump(mode="json")
        words = {"schema": words.pop("schema_version"), **words}
        return json.dumps(words, indent=1, ensure_ascii=False).encode()

    @classmethod
    def from_json(cls, data: bytes) -> StepRecord:
        """Reads what `to_json` wrote."""
        words = json.loads(data)
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
    except (ValueError, KeyError, TypeError) as problem:
        remedy = f"move {StepPaths(key).root} out of {store.location} and run again ({problem})"
        raise StoreError(f"the record of {key} is damaged", remedy) from problem
