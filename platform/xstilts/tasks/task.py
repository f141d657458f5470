"""What a task is: data only. The code that trains and scores it belongs to its family (`families/`)."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import Field

from xstilts.frozen import Frozen, Json, late


class Family(StrEnum):
    """Kinds of task; each has one module of code in `families/`."""

    CLASSIFICATION = "classification"
    MULTIPLE_CHOICE = "multiple_choice"
    SPAN_QA = "span_qa"
    TAGGING = "tagging"
    RETRIEVAL = "retrieval"
    MASKED_LM = "masked_lm"


FAMILY_VERSION: dict[Family, int] = dict.fromkeys(Family, 1)
"""Bumped by hand when a family's code would give another result from the same input: part of every key."""


class Holdout(Frozen):
    """One of two parts of a split. Rows with equal `by` fall on the same side, whatever their number."""

    part: Literal["train", "select"]
    by: str
    """The column whose value, hashed, decides."""
    share: float = Field(default=0.05, gt=0, lt=1)
    """Of the distinct values, the expected part held out for selection (1,000 of PAN-X's 20,000 rows)."""


class Split(Frozen):
    """Where rows of one split are published: `{code}` in `config` or `split` is the language's code there."""

    path: str
    """Hub id, or "world" for generated rows."""
    split: str
    config: str = "default"
    holdout: Holdout | None = None
    """Only this part of the published rows."""
    exclude_contexts_of: str | None = None
    """As in Rows: "google/xtreme/XQuAD.en/validation"."""

    def at(self, code: str) -> Split:
        """This split with the language's own code filled in."""
        config, split = (part.replace("{code}", code) for part in (self.config, self.split))
        return self.model_copy(update={"config": config, "split": split})

    def place(self) -> tuple[str, str, str]:
        """Hub id, config and split: the published rows, whichever part of them is meant."""
        return self.path, self.config, self.split


class Rows(Frozen):
    """Rows whose bytes are known: the identity of data. Two files of one hub id are two things."""

    path: str
    config: str
    split: str
    language: str
    sha256: tuple[str, ...] = ()
    """One for each file, from the manifest that `xstilts data pull` writes; () for generated rows."""
    world: dict[str, Json] | None = None
    """Generated rows: the generator's version, seed and knobs (`tasks/world.py`)."""
    first: int | None = None
    """Only the first so many rows of the split, in published order (None: all)."""
    exclude_contexts_of: str | None = None
    """Without the rows whose `context` occurs in this split, `<hub id>/<config>/<split>`, compared with white
    space collapsed; `sha256` then holds that file's sum too, last."""
    holdout: Holdout | None = late(None)
    """Only this part of the split; taken after the exclusion and before `first`."""


class Task(Frozen):
    """One task, as published. A new one is one registry entry."""

    name: str
    family: Family
    roles: tuple[Literal["intermediate", "target"], ...]
    metric: str
    """The headline metric; one of those that the family computes."""
    languages: tuple[str, ...]
    columns: dict[str, str]
    """The family's word for a field -> the published column; a dot enters a struct ("choices.text")."""
    labels: tuple[str, ...] = ()
    """In the hub's order: an integer in the data is an index into it, a string one of its members."""
    codes: dict[str, str] = {}
    """Language -> what `{code}` becomes; languages not named use their own code."""
    train: Split | None = None
    """Training rows in the source language. None: nothing is trained, or `trains_on` says where."""
    selection: Split | None = None
    """Source-language rows for choosing epochs and checkpoints; none of them is ever reported."""
    dev: Split | None = None
    """What is published as validation. A task with one labelled split has it as dev and as test."""
    test: Split | None = None
    no_dev: tuple[str, ...] = ()
    """Languages for which no dev rows were ever published."""
    trains_on: str | None = None
    """Name of the task whose training rows serve this one (XNLI trains on MNLI, XQuAD on SQuAD v1.1)."""
    parallel: bool = False
    """Whether item i is a translation of item i in every language, so that resampling is joint."""
    chance: float | None = None
    """Percent that guessing gets, where it is known by construction."""
    source: str
    """Paper and place of the data, for people."""
    licence: str

    def code(self, language: str) -> str:
        """What the data set calls the language."""
        return self.codes.get(language, language)

    def reported(self, split: Literal["dev", "test"]) -> tuple[str, ...]:
        """The languages that have rows of this split; () when the task has no such split."""
        if (self.dev if split == "dev" else self.test) is None:
            return ()
        return tuple(name for name in self.languages if split == "test" or name not in self.no_dev)

    def core(self) -> dict[str, Json]:
        """The fields that decide a result; a corrected licence or a new language re-buys nothing."""
        kept = ("name", "family", "metric", "columns", "labels")
        every = self.to_identity()
        return {name: every[name] for name in kept} | {"version": FAMILY_VERSION[self.family]}
