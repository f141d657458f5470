"""What is wrong with a job file's words, said in people's terms: the path, the value, what belongs there."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from xstilts.spec.experiment import Experiment

Path = tuple[str | int, ...]

PATTERNS = {
    "^[0-9a-f]{40}$": "a full commit, 40 hexadecimal digits",
    r"^[a-z0-9][a-z0-9_-]{0,63}$": "at most 64 of a-z, 0-9, '-' and '_', beginning with a letter or digit",
}
"""Every pattern that a field of a job file has, in words; a test keeps it whole."""

_TEXT = "text, in quotes when it looks like a number"
_WHOLE = "a whole number"
_LIST = "a list, such as [a, b]"
_EXPECTED = {
    "string_type": _TEXT,
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": _LIST,
    "too_short": "a list with at least one item",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "literal_error": "one of {expected}",
}
"""Kind of pydantic error -> what belongs there; the names in braces are in the error's context."""


class Complaint(NamedTuple):
    """One problem, where it is, and what to do about it."""

    where: Path
    problem: str
    remedy: str


def complaints(error: ValidationError, written: set[Path]) -> list[Complaint]:
    """Every problem once, in the order of the model's fields.

    `written` holds the paths that the file has. A wrong setting that tasks inherit is reported by the
    model for each of them; only the place where it was written counts. A misspelt key that was required is
    one problem, not two.
    """
    found = error.errors(include_url=False)
    misspelt = [_unknown(e["loc"]) for e in found if e["type"] == "extra_forbidden"]
    meant = {(c.where[:-1], c.remedy) for c in misspelt}
    told = []
    for each in found:
        at: Path = each["loc"]
        if each["type"] == "extra_forbidden":
            continue
        if each["type"] == "missing":
            if at[:-1] in written | {()} and (at[:-1], _did_you_mean(str(at[-1]))) not in meant:
                told.append(Complaint(at, f"{dotted(at)} is missing", f"add `{at[-1]}: ...`"))
        elif at in written or not at:
            told.append(_wrong(at, each["type"], each["input"], each.get("ctx", {})))
    if not misspelt and not told:  # a short form, such as `selection: target_dev`, whose field is not written
        told = [_wrong(e["loc"], e["type"], e["input"], e.get("ctx", {})) for e in found]
    return misspelt + told


def dotted(path: Path) -> str:
    """`path` as people write it: train.target.epochs, seeds[2]."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


def allowed(path: Path) -> tuple[str, ...]:
    """The keys that the section at `path` may have; () where it is no section of fixed keys."""
    kind: Any = Experiment
    for part in path:
        if _is_section(kind):
            field = kind.model_fields.get(str(part))
            kind = _inner(field.annotation) if field else None
        elif typing.get_origin(kind) is dict:
            kind = _inner(typing.get_args(kind)[1])
        elif typing.get_origin(kind) is tuple and isinstance(part, int):
            kind = _inner(typing.get_args(kind)[0])
        else:
            return ()
    return tuple(kind.model_fields) if _is_section(kind) else ()


def sections(path: Path = (), kind: Any = Experiment) -> Iterator[tuple[Path, type[BaseModel]]]:
    """Every section of a job file; keys of dicts of sections are written `<task>`, items of lists `<row>`."""
    yield path, kind
    for name, field in kind.model_fields.items():
        inner = _inner(field.annotation)
        if typing.get_origin(inner) in (dict, tuple) and _is_section(_last(inner)):
            step = "<task>" if typing.get_origin(inner) is dict else "<row>"
            yield from sections((*path, name, step), _last(inner))
        elif _is_section(inner):
            yield from sections((*path, name), inner)


def _unknown(path: Path) -> Complaint:
    """A key that its section does not have: the nearest that it has, else the sections that have it."""
    key, known = str(path[-1]), allowed(path[:-1])
    place = f"in {dotted(path[:-1])}" if len(path) > 1 else "at the top level"
    problem = f"no key {key!r} {place}"
    near = difflib.get_close_matches(key, known, n=1)
    if near:
        return Complaint(path, problem, _did_you_mean(near[0]))
    homes = [
        dotted(at)
        for at, kind in sections()
        if at and not {"<task>", "<row>"} & set(at) and key in kind.model_fields
    ]
    if homes:
        return Complaint(path, problem, f"it belongs in {' or '.join(homes)}")
    return Complaint(path, problem, f"the keys there are {', '.join(known)}" if known else "remove it")


def _did_you_mean(name: str) -> str:
    return f"did you mean {name!r}?"


def _wrong(path: Path, kind: str, value: Any, context: dict[str, Any]) -> Complaint:
    """A value of the wrong kind or out of range, or a section that contradicts itself."""
    name = dotted(path)
    if kind == "value_error":
        subject = name or "the job"
        return Complaint(path, f"{subject} contradicts itself", str(context.get("error", "")))
    if value is None:
        return Complaint(
            path, f"{name} is empty", f"write {_expected(path, kind, context)}, or leave the key out"
        )
    remedy = f"write {_expected(path, kind, context)}"
    if kind == "literal_error" and isinstance(value, str):
        choices = [choice.strip("'") for choice in context["expected"].replace(" or ", ", ").split(", ")]
        near = difflib.get_close_matches(value, choices, n=1)
        remedy = f"{_did_you_mean(near[0])} {remedy}" if near else remedy
    return Complaint(path, f"{name} is {_shown(value)}", remedy)


def _expected(path: Path, kind: str, context: dict[str, Any]) -> str:
    if kind == "string_pattern_mismatch":
        return PATTERNS.get(context["pattern"], f"text that matches {context['pattern']}")
    if kind in _EXPECTED:
        return _EXPECTED[kind].format(**context)
    keys = allowed(path)
    if keys:
        plain = "a task, or " if path[:-1] == ("intermediate",) else ""
        return f"{plain}a section with keys among {', '.join(keys)}"
    return (
        f"a section with a key for each {'setting' if path[-1:] == ('space',) else 'task'}"
        if kind == "dict_type"
        else "a value of the kind the field takes"
    )


def _shown(value: Any) -> str:
    """`value` in one short line."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _inner(annotation: Any) -> Any:
    """The annotation without `| None` and Annotated."""
    while True:
        origin = typing.get_origin(annotation)
        if origin is typing.Annotated:
            annotation = typing.get_args(annotation)[0]
        elif origin in (typing.Union, types.UnionType):
            annotation = next(arg for arg in typing.get_args(annotation) if arg is not type(None))
        else:
            return annotation


def _last(kind: Any) -> Any:
    """What a dict or a list holds."""
    return _inner(typing.get_args(kind)[1 if typing.get_origin(kind) is dict else 0])


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
