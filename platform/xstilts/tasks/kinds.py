"""Kinds of task ("families"): the words each has for columns, and the module that holds its code.

A package adds a kind with `register`, from the module that its entry point of group `xstilts.tasks` names.
"""

from __future__ import annotations

from enum import StrEnum

from xstilts.frozen import Frozen


class Family(StrEnum):
    """The kinds that come with the package; each has one module of code in `families/`."""

    CLASSIFICATION = "classification"
    MULTIPLE_CHOICE = "multiple_choice"
    SPAN_QA = "span_qa"
    TAGGING = "tagging"
    RETRIEVAL = "retrieval"
    BITEXT_MINING = "bitext_mining"
    DUAL_ENCODER = "dual_encoder"
    MASKED_LM = "masked_lm"


class Kind(Frozen):
    """What is known of a kind without loading its code."""

    name: str
    needed: tuple[str, ...]
    """Its words for columns that every task must have."""
    optional: tuple[str, ...] = ()
    """Beside `item` and `cluster`, which are optional in all."""
    labelled: bool = False
    """Whether its tasks have a set of labels."""
    as_it_is: bool = False
    """Whether it uses an encoder as it is, without a head and without training."""
    version: int = 1
    """Bumped by hand when its code would give another result from the same input: part of every key."""
    module: str = ""
    """Where its `CODE` is; "" for the module of its name in `xstilts.families`."""


FAMILY_VERSION: dict[str, int] = {}
"""Kind -> version."""
_kinds: dict[str, Kind] = {}


def register(kind: Kind) -> Kind:
    """Adds `kind` and returns it.

    Raises:
        ValueError: the name is taken.
    """
    if kind.name in _kinds:
        raise ValueError(f"the kind {kind.name!r} is taken")
    _kinds[kind.name] = kind
    FAMILY_VERSION[kind.name] = kind.version
    return kind


def of(name: str) -> Kind:
    """The kind called `name`.

    Raises:
        ValueError: there is none; names those there are.
    """
    if name not in _kinds:
        raise ValueError(f"no kind of task named {name!r}; there are {', '.join(_kinds)}")
    return _kinds[name]


for _kind in (
    Kind(name=Family.CLASSIFICATION, needed=("text", "label"), optional=("pair",), labelled=True),
    Kind(
        name=Family.MULTIPLE_CHOICE, needed=("first", "choices", "label"), optional=("second",), labelled=True
    ),
    Kind(name=Family.SPAN_QA, needed=("id", "question", "context", "answers")),
    Kind(name=Family.TAGGING, needed=("words", "tags"), labelled=True),
    Kind(name=Family.RETRIEVAL, needed=("query", "document"), as_it_is=True),
    Kind(name=Family.BITEXT_MINING, needed=("item", "text", "side", "gold"), as_it_is=True),
    Kind(name=Family.DUAL_ENCODER, needed=("query", "document"), optional=("context", "targets")),
    Kind(name=Family.MASKED_LM, needed=("text",)),
):
    register(_kind)
