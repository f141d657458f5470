"""Every task by name, and which rows a task is trained and chosen on.

A package adds tasks by an entry point of group `xstilts.tasks` that names a module which calls `register`.
"""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import Literal

from xstilts.errors import UnknownName, XstiltsError
from xstilts.frozen import Frozen
from xstilts.tasks.metrics import METRICS
from xstilts.tasks.task import Family, Holdout, Split, Task
from xstilts.tasks.world_languages import SOURCE

GROUP = "xstilts.tasks"
RESERVED = ("none", "untrained")
"""Rows of the table that are no task: no phase 2, and neither phase 1 nor 2."""

COLUMNS: dict[Family, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Family.CLASSIFICATION: (("text", "label"), ("pair",)),
    Family.MULTIPLE_CHOICE: (("first", "choices", "label"), ("second",)),
    Family.SPAN_QA: (("id", "question", "context", "answers"), ()),
    Family.TAGGING: (("words", "tags"), ()),
    Family.RETRIEVAL: (("query", "document"), ()),
    Family.MASKED_LM: (("text",), ()),
}
"""The words of each family for its columns: needed, optional; `item` and `cluster` are optional in all."""

_tasks: dict[str, Task] = {}


class Fitting(Frozen):
    """What one task is trained on in the source language, and what its checkpoint is chosen on."""

    task: Task
    """Whose columns and labels the rows have: the task itself, or the one it `trains_on`."""
    language: str
    """The source language: English, or the world's own source."""
    train: Split
    selection: Split | None


def register(task: Task) -> Task:
    """Adds `task` and returns it.

    Raises:
        ValueError: the definition cannot work: a column missing or misspelt, an unknown metric, a taken name.
    """
    problem = _problem(task)
    if problem:
        raise ValueError(f"task {task.name!r}: {problem}")
    _tasks[task.name] = task
    return task


def task(name: str, where: tuple[str | int, ...] = ()) -> Task:
    """The task called `name`; `where` is the field of the job file that named it.

    Raises:
        UnknownName: no such task; names the nearest.
    """
    if name not in _tasks:
        _load_plugins()
    if name not in _tasks:
        raise UnknownName.among("task", name, _tasks, "xstilts tasks", where)
    return _tasks[name]


def all_tasks() -> tuple[Task, ...]:
    """Every task, in the order of registration: intermediate ones, targets, the world's, plugins'."""
    _load_plugins()
    return tuple(_tasks.values())


def fitting(task_: Task, reporting: Literal["dev", "test"]) -> Fitting | None:
    """Where `task_` trains and selects when `reporting` is the split that scores are given on; None: nowhere.

    Selection shares no row with anything reported. Where a task selects on the very rows that are reported
    (PAN-X and UD POS select on English dev, so their dev scores would be chosen on themselves), a part of
    the training rows is held out instead, and training leaves it out.
    """
    base = task(task_.trains_on) if task_.trains_on else task_
    if base.train is None:
        return None
    language = SOURCE if base.train.path == "world" else "en"
    code = base.code(language)
    train = base.train.at(code)
    selection = task_.selection or base.selection
    selection = selection and selection.at(code)
    reported = task_.dev if reporting == "dev" else task_.test
    if selection is None or reported is None or not _same_rows(task_, selection, reported):
        return Fitting(task=base, language=language, train=train, selection=selection)
    kept, held = (Holdout(part="train", by=_unit(base)), Holdout(part="select", by=_unit(base)))
    return Fitting(
        task=base,
        language=language,
        train=train.model_copy(update={"holdout": kept}),
        selection=train.model_copy(update={"holdout": held}),
    )


def _same_rows(task_: Task, selection: Split, reported: Split) -> bool:
    return any(reported.at(task_.code(language)).place() == selection.place() for language in task_.languages)


def _unit(task_: Task) -> str:
    """The column that holds a row's unit of resampling, else its text: duplicates stay on one side."""
    names = ("cluster", "words", "context", "first", "text", "query")
    return next(task_.columns[name].partition("/")[0] for name in names if name in task_.columns)


def _problem(task_: Task) -> str | None:
    needed, optional = COLUMNS[task_.family]
    missing = [name for name in needed if name not in task_.columns]
    unknown = sorted(set(task_.columns) - {*needed, *optional, "item", "cluster"})
    if task_.name in RESERVED or task_.name in _tasks:
        return "the name is taken"
    if missing or unknown:
        return f"columns missing {missing}, unknown {unknown} for {task_.family.value}"
    if task_.family is not Family.MASKED_LM and task_.metric not in METRICS:
        return f"no metric {task_.metric!r}; there are {sorted(METRICS)}"
    if task_.family in (Family.CLASSIFICATION, Family.MULTIPLE_CHOICE, Family.TAGGING) and not task_.labels:
        return "labels are missing"
    if "target" in task_.roles and task_.dev is None and task_.test is None:
        return "a target needs dev or test rows"
    return None


@cache
def _load_plugins() -> None:
    for entry in metadata.entry_points(group=GROUP):
        try:
            entry.load()
        except Exception as problem:  # a plugin may raise anything; the user must learn which one it was
            cause = f"the task plugin {entry.name!r} ({entry.value}) does not load"
            remedy = f"mend or uninstall the package that provides it ({problem!r})"
            raise XstiltsError(cause, remedy) from problem
