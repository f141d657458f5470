"""Code per kind of task: encoding, head, loss, decoding and item statistics. A new kind is one module."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from xstilts.tasks.task import Family

if TYPE_CHECKING:
    from xstilts.families.base import FamilyCode


def code_of(family: Family) -> FamilyCode:
    """The one object that serves `family`; its module is imported on first use, named as the family is.

    Raises:
        ValueError: `family` is none of `Family`.
    """
    code: FamilyCode = importlib.import_module(f"{__name__}.{Family(family).value}").CODE
    return code
