"""A job on data that are made up: every split and encoder asked for is there, with a made-up checksum."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from xstilts.errors import DataError
from xstilts.plan.expand import Missing, expand
from xstilts.plan.graph import Plan
from xstilts.plan.step import EncoderRef
from xstilts.spec.experiment import Experiment, ModelSpec
from xstilts.tasks.task import Rows, Split

JOB: dict[str, Any] = {
    "name": "job",
    "model": {"name": "made/encoder"},
    "intermediate": ["none", "squad_v1", "mnli"],
    "targets": ["udpos", "xnli", "xquad", "tatoeba"],
    "languages": ["en", "de"],
    "seeds": [1, 2],
    "train": {"target": {"learning_rate": 3e-6}},
}


class Made:
    """Sources whose data have a made-up checksum; `absent` holds configs of which there are none."""

    def __init__(self, sha256: str = "aa", absent: Collection[str] = ()) -> None:
        self.sha256, self.absent = sha256, absent

    def rows(self, split: Split, language: str) -> Rows:
        if split.config in self.absent:
            raise DataError(f"there is no {split.config}", "pull it")
        return Rows(
            path=split.path,
            config=split.config,
            split=split.split,
            language=language,
            sha256=(self.sha256,),
            keep=split.keep,
            without=split.without,
            reader=split.reader,
            holdout=split.holdout,
            more=tuple(self.rows(each, language) for each in split.more),
        )

    def count(self, split: Split) -> int | None:
        return 7

    def languages(self, path: str) -> tuple[str, ...]:
        return ("de", "en")

    def encoder(self, model: ModelSpec) -> EncoderRef:
        return EncoderRef(name=model.name, weights={"model.safetensors": "bb"})


def plan(
    sha256: str = "aa",
    chosen: dict[str, dict[str, Any]] | None = None,
    absent: Collection[str] = (),
    failed: Missing | None = None,
    **changed: Any,
) -> Plan:
    """The plan of JOB with some words changed."""
    return expand(Experiment.model_validate(JOB | changed), Made(sha256, absent), chosen, failed)


def labels(made: Plan, kind: str) -> list[str]:
    """Labels of the steps of one kind."""
    return [planned.label for planned in made if planned.kind == kind]
