"""Code per kind of task: encoding, head, loss, decoding and item statistics. A new kind is one module."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from xstilts.tasks import kinds

if TYPE_CHECKING:
    from xstilts.families.base import FamilyCode


def code_of(family: str) -> FamilyCode:
    """The one object that serves a kind of task; its module is imported on first use.

    Raises:
        ValueError: there is no such kind.
    """
    kind = kinds.of(family)
    code: FamilyCode = importlib.import_module(kind.module or f"{__name__}.{kind.name}").CODE
    return code
