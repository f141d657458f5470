"""The studies by name, their options as words, and running one: an answer, or why there is none.

A study is a module here with `QUESTION`, `answer(gains, **options)` and `published()`, the same on published
tables. It may have `options(plans)`, what plans say that gains do not, and `ITEMS`, whether it reads item
statistics; an option `measures` is given those of the jobs' probe steps, an option `paired` what the module's
`read` finds in each plan.
"""

from __future__ import annotations

import importlib
import inspect
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pandas

from xstilts.errors import UnknownName, XstiltsError
from xstilts.record.artifacts import ArtifactStore
from xstilts.report import frame, measures
from xstilts.report.studies.answer import Answer, TooLittle, refusal
from xstilts.report.studies.gains import Gains, item_draws, of_frame
from xstilts.tasks import languages

STUDIES = (
    *("persistence", "data_scaling", "model_scaling", "similarity", "hierarchy"),
    *("select", "consistency"),
)
MODULES = {"select": "ranking"}
"""Study -> its module, where that is not called the same: `select` is a module of Python's own."""
LEAST = {"draws": 100, "permutations": 100, "seed": 0, "intermediate_cost": 0}
"""Fewer resamples give no interval, fewer permutations no p of 0.01; what is trained already is free."""
POSITIVE = ("margin", "target_cost")
FROM_JOBS = ("nested",)
"""What plans alone can say, though it is a plain word."""
CODES = ("new_languages",)
"""Lists of languages."""


def of_plans(
    name: str, stored: Sequence[tuple[Mapping[str, Any], ArtifactStore]], words: Sequence[str] = ()
) -> Answer:
    """The study of jobs, by their stored plans; `words` as for `options`.

    Raises:
        UnknownName: no such study or option.
        StoreError: a record or what it names is damaged.
        XstiltsError: the data cannot be studied as they are.
    """
    module, chosen = _module(name), options(name, words)
    tables, draws, measured, commits, paired = [], {}, [], set(), []
    reads_items = getattr(module, "ITEMS", False)
    wants_measures = "measures" in inspect.signature(module.answer).parameters
    with tempfile.TemporaryDirectory(prefix="xstilts-study-") as scratch:
        for plan, store in stored:
            known = frame.records(plan, store)
            tables.append(frame.frame(plan, store, known))
            commits.update(frame.provenance(known).get("commit", []))
            if reads_items:
                runs = frame.items(plan, store, Path(scratch), known)
                draws.update(item_draws(plan, tables[-1], runs))
            if wants_measures:
                measured.append(measures.averaged(measures.measures(plan, store, Path(scratch), known)))
            if hasattr(module, "read"):
                paired += module.read(plan, store, Path(scratch), known)
    found = of_frame(pandas.concat(tables, ignore_index=True), ", ".join(sorted(commits)) or "-", draws)
    told = module.options([plan for plan, _ in stored]) if hasattr(module, "options") else {}
    if measured:
        told["measures"] = pandas.concat(measured, ignore_index=True)
    if hasattr(module, "read"):
        told["paired"] = paired
    return run(name, found, told | chosen)


def published(name: str) -> Answer:
    """The study of published tables, or why they cannot answer.

    Raises:
        UnknownName: no such study.
    """
    module = _module(name)
    try:
        answered: Answer = module.published()
    except TooLittle as why:
        return refusal(name, module.QUESTION, why, "published tables")
    return answered


def run(name: str, gains: Gains, options: Mapping[str, Any] | None = None) -> Answer:
    """The study's answer; where there are too few data, one that is refused and says what is missing.

    Raises:
        UnknownName: no such study or option.
        XstiltsError: the data cannot be studied as they are, such as several models at once.
    """
    module = _module(name)
    try:
        answered: Answer = module.answer(gains, **(options or {}))
    except TooLittle as why:
        return refusal(name, module.QUESTION, why, gains.caption())
    return answered


def options(name: str, words: Sequence[str]) -> dict[str, Any]:
    """Values of words such as "margin=0.5" or "new_tasks=xcopa,lareqa", by the study's own types.

    Raises:
        UnknownName: the study has no such option; names the nearest.
        XstiltsError: a word has no "=", or a value is not of the option's type, or out of its range.
    """
    answer = _module(name).answer
    hints = get_type_hints(answer)
    known = [option for option in inspect.signature(answer).parameters if option != "gains"]
    found: dict[str, Any] = {}
    for word in words:
        option, equals, text = word.partition("=")
        if not equals:
            raise XstiltsError(f"{word!r} sets nothing", "write OPTION=VALUE")
        option = option.replace("-", "_")
        if option not in known:
            raise UnknownName.among(f"option of {name}", option, known, f"options are {', '.join(known)}")
        found[option] = _value(option, text, hints[option])
        _in_range(option, found[option])
    return found


def _module(name: str) -> Any:
    named = name.replace("-", "_")
    if named not in STUDIES:
        raise UnknownName.among("study", name, STUDIES, "xstilts study --help")
    return importlib.import_module(f"xstilts.report.studies.{MODULES.get(named, named)}")


def _value(option: str, text: str, hint: Any) -> Any:
    if option in FROM_JOBS:
        raise XstiltsError(f"{option} is not set by hand", "it comes from the jobs")
    kinds = [kind for kind in (get_args(hint) or (hint,)) if kind is not type(None)]
    origin = get_origin(hint)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return tuple(part for part in text.split(",") if part)
    if bool in kinds:
        return text.lower() in ("1", "true", "yes", "on")
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(text)
            except ValueError as problem:
                remedy = f"give a {'whole number' if kind is int else 'number'}"
                raise XstiltsError(f"{option} is no {text!r}", remedy) from problem
    if str not in kinds:
        raise XstiltsError(f"{option} is not set by hand", "it comes from the jobs")
    return text


def _in_range(option: str, value: Any) -> None:
    """Raises where a number cannot be what the option is for, or a language is not one."""
    least = LEAST.get(option)
    if least is not None and value < least:
        raise XstiltsError(f"{option} is {value}", f"give {least} or more")
    if isinstance(value, float) and not math.isfinite(value):
        raise XstiltsError(f"{option} is {value:g}", "give a finite number")
    if option in POSITIVE and not value > 0:
        raise XstiltsError(f"{option} is {value:g}", "give a number above zero")
    codes: Sequence[str] = value if option in CODES else ()
    if option == "by" and "=" in value:
        parts = [part.partition("=") for part in value.replace(",", " ").split()]
        if not all(equals and spoken for _, equals, spoken in parts):
            raise XstiltsError(f"a group of {option}={value} has no languages", "near=w1+w2 far=w3+w4")
        codes = [code for _, _, spoken in parts for code in spoken.split("+")]
    for code in codes:
        languages.of(code)
