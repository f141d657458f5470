"""What a task is: data only. The code that trains and scores it belongs to its family (`families/`)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field

from xstilts.frozen import Frozen, Json, aside, late
from xstilts.tasks.kinds import FAMILY_VERSION, Family

__all__ = ["FAMILY_VERSION", "Family", "Holdout", "Keep", "Rows", "Split", "Task"]


class Holdout(Frozen):
    """One of two parts of a split. Rows with equal `by` fall on the same side, whatever their number."""

    part: Literal["train", "select"]
    by: str
    """The column whose value, hashed, decides."""
    share: float = Field(default=0.05, gt=0, lt=1)
    """Of the distinct values, the expected part held out for selection (1,000 of PAN-X's 20,000 rows)."""


class Keep(Frozen):
    """Which rows of a published split belong to it; given before anything else is taken from them."""

    column: str
    prefix: str | None = None
    """Only rows whose value begins so: TyDiQA has all languages in one split, the language in the id."""
    drop: tuple[str | int, ...] = ()
    """No rows with one of these values: SNLI's -1, where annotators did not agree."""


class Split(Frozen):
    """Where rows of one split are published: `{code}` in it is the language's code there."""

    path: str
    """Hub id, or "world" for generated rows."""
    split: str
    config: str = "default"
    holdout: Holdout | None = None
    """Only this part of the published rows."""
    keep: Keep | None = None
    without: str = ""
    """As in Rows: "xquad"."""
    reader: str = ""
    """As in Rows."""
    files: tuple[str, ...] = ()
    """Original files below the data folder, in the order that `reader` takes them, where the hub serves no
    rows: "files/bucc2018/{code}-en.dev.gold"; a glob pattern stands for all that match, by name. Packed
    files (.gz) are found under the plain name."""
    owner: str = ""
    """Where the owner of `files` publishes them."""
    more: tuple[Split, ...] = ()
    """Splits with the same columns whose rows follow these (ANLI+ is five data sets)."""

    def at(self, code: str) -> Split:
        """This split with the language's own code filled in."""

        def filled(text: str) -> str:
            return text.replace("{code}", code)

        keep = self.keep
        if keep is not None and keep.prefix is not None:
            keep = keep.model_copy(update={"prefix": filled(keep.prefix)})
        changes = {
            "config": filled(self.config),
            "split": filled(self.split),
            "files": tuple(filled(name) for name in self.files),
            "keep": keep,
            "more": tuple(each.at(code) for each in self.more),
        }
        return self.model_copy(update=changes)

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
    holdout: Holdout | None = late(None)
    """Only this part of the split; taken after `keep` and `without`, before `first`."""
    keep: Keep | None = late(None)
    without: str = late("")
    """Without rows that a list shipped with the package names (`tasks/reserved.py`): reported elsewhere."""
    reader: str = late("")
    """Who makes rows of the files (`families/originals.py`); "" for parquet as the hub serves it."""
    files: tuple[str, ...] = aside(())
    """Where original files lie below the data folder, one for each of `sha256`; () for hub data."""
    more: tuple[Rows, ...] = late(())
    """Rows that follow these, with the same columns."""
    made_by: str = late("")
    """Key of the step that made the rows (`translate`); path, config and split are then the original's."""


class Task(Frozen):
    """One task, as published. A new one is one registry entry."""

    name: str
    family: Annotated[Family | str, Field(union_mode="left_to_right")]
    """The kind of task (`tasks.kinds`)."""
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
    """Training rows in the source language. None: nothing is trained, or `stages` says where."""
    selection: Split | None = None
    """Source-language rows for choosing epochs and checkpoints; none of them is ever reported."""
    dev: Split | None = None
    """What is published as validation. A task with one labelled split has it as dev and as test."""
    test: Split | None = None
    no_dev: tuple[str, ...] = ()
    """Languages for which no dev rows were ever published."""
    by_name: tuple[str, ...] = ()
    """Languages that a job reports only where it names them."""
    elsewhere: dict[str, Split] = {}
    """Languages whose reported rows are of another data set with the same columns (XCOPA's English is COPA's
    dev), whatever split is reported."""
    stages: tuple[str, ...] = ()
    """Names of the tasks that phase 3 trains on, one after another, each with a fresh head; () for the task's
    own `train`. XNLI: MNLI; XCOPA: SocialIQA, then COPA. The last one's head predicts."""
    candidates: Split | None = None
    """Documents that every query is compared with, for families that search; all languages together."""
    translations: Split | None = None
    """Machine translations of `train`, by language."""
    open_labels: bool = False
    """The labels are those met in the training and selection rows, sorted; `labels` is then ()."""
    variant_of: str = ""
    """The task of a suite that this one reports under another protocol; no gain is defined for a variant."""
    parallel: bool = False
    """Whether item i is a translation of item i in every language, so that resampling is joint."""
    chance: float | None = None
    """Percent that guessing gets, where it is known by construction."""
    size: str = ""
    """How many rows are published, for people; a data folder may hold fewer."""
    source: str
    """Paper and place of the data, for people."""
    licence: str

    def code(self, language: str) -> str:
        """What the data set calls the language."""
        return self.codes.get(language, language)

    def place(self, split: Literal["dev", "test"], language: str) -> Split | None:
        """Where the rows of one language are that scores are given on; None when there is no such split."""
        found = self.elsewhere.get(language) or (self.dev if split == "dev" else self.test)
        return None if found is None else found.at(self.code(language))

    def reported(self, split: Literal["dev", "test"], asked: Collection[str] = ()) -> tuple[str, ...]:
        """The languages that have rows of this split, among those that are asked for; () for all but
        `by_name`. None when the task has no such split."""
        if (self.dev if split == "dev" else self.test) is None:
            return ()
        there = (name for name in self.languages if split == "test" or name not in self.no_dev)
        return tuple(name for name in there if (name in asked if asked else name not in self.by_name))

    def core(self) -> dict[str, Json]:
        """The fields that decide a result; a corrected licence or a new language re-buys nothing."""
        kept = ("name", "family", "metric", "columns", "labels")
        every = self.to_identity()
        return {name: every[name] for name in kept} | {"version": FAMILY_VERSION[self.family]}
