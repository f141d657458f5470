"""The immutable base of every description, and the one canonical form that identities are made of."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Union  # noqa: F401  (Union is named in Json)

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo
from typing_extensions import TypeAliasType

# Not `type Json = ...`: that is syntax of Python 3.12, and 3.11 is supported.
Json = TypeAliasType("Json", "Union[None, bool, int, float, str, list[Json], dict[str, Json]]")


class Frozen(BaseModel):
    """Immutable, refuses a misspelt field, and has no NaN or infinity (they have no canonical form)."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_identity(self) -> dict[str, Json]:
        """The fields that decide a result, as plain JSON; those made by `late` count only when set."""
        kept = {
            name: getattr(self, name)
            for name, field in type(self).model_fields.items()
            if not (_marked(field, "late") and getattr(self, name) == field.default)
            and not _marked(field, "aside")
        }
        return {name: plain(value) for name, value in kept.items()}


def late(default: Any) -> Any:
    """A field added after results were recorded: at its default it leaves every existing key as it was."""
    return Field(default=default, json_schema_extra={"late": True})


def aside(default: Any = ...) -> Any:
    """A field that says where something is found, not what it is: never part of identity."""
    return Field(default, json_schema_extra={"aside": True})


def _marked(field: FieldInfo, mark: str) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get(mark))


def plain(value: Any) -> Json:
    """`value` as JSON with one form per meaning: sets sorted, tuples as lists, descriptions by identity.

    Raises:
        TypeError: for a value with no canonical form (an object, NaN is refused by `digest`).
    """
    if isinstance(value, Frozen):
        return value.to_identity()
    if value is None or isinstance(value, bool | int | float | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=json.dumps)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} has no canonical form: {value!r}")


def canonical(value: Any) -> str:
    """Sorted, compact JSON; a float that is a whole number is written as one, so 1.0 and 1 agree."""
    return json.dumps(_whole(plain(value)), sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """SHA-256 of the canonical form, first 16 hex digits (64 bits: a clash needs some 4 billion steps)."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:16]


def stream(seed: int, purpose: str) -> int:
    """An independent 63-bit seed for one purpose (head, order, dropout, ...) of one run's seed.

    One seed gives one head and one order in every row of the table, so that gains are paired.
    """
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:8], "big") >> 1


def _whole(value: Json) -> Json:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {key: _whole(item) for key, item in value.items()}
    return value
