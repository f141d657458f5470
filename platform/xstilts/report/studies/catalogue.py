"""The studies by name, their options as words, and running one: an answer, or why there is none.

A study is a module here with `QUESTION`, `answer(gains, **options)` and `published()`, the same on published
tables. It may have `options(plans)`, what plans say that gains do not, and `ITEMS`, whether it reads item
statistics; an option `measures` is given those of the jobs' probe steps, the mean over layers, `layers` the
same layer by layer, and `paired` what the module's `read` finds in each plan. Options that words can
set, with their values, are facts of every answer.
"""

from __future__ import annotations

import importlib
import inspect
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pandas

from xstilts.errors import UnknownName, XstiltsError
from xstilts.record.artifacts import ArtifactStore
from xstilts.report import frame, measures
from xstilts.report.studies.answer import Answer, TooLittle, missing, refusal
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
PLAIN = (int, float, str, bool)
"""What a word can give."""


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
    tables, draws, measured, every, paired = [], {}, [], [], []
    reads_items = getattr(module, "ITEMS", False)
    asked = inspect.signature(module.answer).parameters
    with tempfile.TemporaryDirectory(prefix="xstilts-study-") as scratch:
        for plan, store in stored:
            known = frame.records(plan, store)
            tables.append(frame.frame(plan, store, known))
            every.append(known)
            if reads_items:
                runs = frame.items(plan, store, Path(scratch), known)
                draws.update(item_draws(plan, tables[-1], runs))
            if "measures" in asked:
                measured.append(measures.measures(plan, store, Path(scratch), known))
            if hasattr(module, "read"):
                paired += module.read(plan, store, Path(scratch), known)
    found = of_frame(pandas.concat(tables, ignore_index=True), frame.commit(every), draws)
    told = module.options([plan for plan, _ in stored]) if hasattr(module, "options") else {}
    if measured:
        told["measures"] = pandas.concat(map(measures.averaged, measured), ignore_index=True)
        if "layers" in asked:
            told["layers"] = pandas.concat(measured, ignore_index=True)
    if hasattr(module, "read"):
        told["paired"] = paired
    return run(name, found, told | chosen)


def published(name: str, words: Sequence[str] = ()) -> Answer:
    """The study of published tables, or why they cannot answer; `words` as for `options`.

    Raises:
        UnknownName: no such study or option.
        XstiltsError: an option that is of jobs alone, or of a value that it cannot have.
    """
    module, chosen = _module(name), options(name, words)
    taken = _settable(module.published)
    for option in chosen:
        if option not in taken:
            remedy = f"set only {', '.join(taken)}" if taken else "leave --set out"
            raise XstiltsError(f"published tables have no option {option}", remedy)
    try:
        answered: Answer = module.published(**chosen)
    except TooLittle as why:
        answered = refusal(name, module.QUESTION, why, "published tables")
    return _recorded(answered, taken | chosen)


def run(name: str, gains: Gains, options: Mapping[str, Any] | None = None) -> Answer:
    """The study's answer; where there are too few data, one that is refused and says what is missing.

    Raises:
        UnknownName: no such study or option.
        XstiltsError: the data cannot be studied as they are, such as several models at once.
    """
    module, given = _module(name), options or {}
    try:
        answered: Answer = module.answer(gains, **given)
    except TooLittle as why:
        answered = refusal(name, module.QUESTION, why.unfinished(gains.unscored), gains.caption())
    except UnknownName as why:
        if not gains.unscored:
            raise
        # A task or language of the jobs that is not scored yet is in no gain.
        remedy = f"{why.remedy}, or finish the jobs: {missing(gains.unscored)} (`xstilts run JOB`)"
        raise UnknownName(why.problem, remedy, why.where) from None
    taken = _settable(module.answer)
    return _recorded(answered, taken | {option: given[option] for option in given if option in taken})


def options(name: str, words: Sequence[str]) -> dict[str, Any]:
    """Values of words such as "margin=0.5" or "new_tasks=xcopa,lareqa", by the study's own types.

    Raises:
        UnknownName: the study has no such option; names the nearest.
        XstiltsError: a word has no "=", or a value is not of the option's type, or out of its range.
    """
    answer = _module(name).answer
    hints, taken, every = get_type_hints(answer), _settable(answer), inspect.signature(answer).parameters
    found: dict[str, Any] = {}
    for word in words:
        option, equals, text = word.partition("=")
        if not equals:
            raise XstiltsError(f"{word!r} sets nothing", "write OPTION=VALUE")
        option = option.replace("-", "_")
        if option not in taken and option in every:
            raise XstiltsError(f"{option} is not set by hand", "it comes from the jobs")
        if option not in taken:
            raise UnknownName.among(f"option of {name}", option, taken)
        found[option] = _value(option, text, hints[option])
        _in_range(option, found[option])
    return found


def defaults(name: str) -> str:
    """The options of a study with what they are where no word sets them, such as "margin=1 new_tasks=", and
    those that published tables can be asked with.

    Raises:
        UnknownName: no such study.
    """
    module = _module(name)
    of_print = ", ".join(_settable(module.published))
    shown = [f"{option}={_text(value)}" for option, value in _settable(module.answer).items()]
    return " ".join(shown) + (f" (with --published: {of_print})" if of_print else "")


def _text(value: Any) -> str:
    """A value as a word gives it."""
    if isinstance(value, float):
        return f"{value:g}"
    return ",".join(value) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)


def _settable(function: Callable[..., Any]) -> dict[str, Any]:
    """The options of an `answer` or `published` that words can set -> what they are by default."""
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters.items()
    return {
        option: parameter.default
        for option, parameter in parameters
        if option not in FROM_JOBS and (_is_list(hints[option]) or set(_kinds(hints[option])) & set(PLAIN))
    }


def _is_list(hint: Any) -> bool:
    """Whether it is a sequence of words."""
    origin = get_origin(hint)
    return isinstance(origin, type) and issubclass(origin, Sequence) and get_args(hint) == (str,)


def _kinds(hint: Any) -> list[Any]:
    """The types of a union but None's, or the one type that it is."""
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return [kind for kind in parts if kind is not type(None)]


def _recorded(answered: Answer, chosen: Mapping[str, Any]) -> Answer:
    """With the values of all options among its facts, so that study.json says how to have it again."""
    plain = {
        option: list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        for option, value in chosen.items()
    }
    return replace(answered, facts={**answered.facts, "options": plain})


def _module(name: str) -> Any:
    named = name.replace("-", "_")
    if named not in STUDIES:
        raise UnknownName.among("study", name, STUDIES, "xstilts study --help")
    return importlib.import_module(f"xstilts.report.studies.{MODULES.get(named, named)}")


def _value(option: str, text: str, hint: Any) -> Any:
    kinds = _kinds(hint)
    if _is_list(hint):
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
        if not all(group and equals and spoken for group, equals, spoken in parts):
            what = f"a group of {option}={value} has no name or no languages"
            raise XstiltsError(what, "write it as near=w1+w2 far=w3+w4")
        codes = [code for _, _, spoken in parts for code in spoken.split("+")]
    for code in codes:
        languages.of(code)
