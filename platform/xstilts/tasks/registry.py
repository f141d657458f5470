"""Every task by name, and which rows a task is trained and chosen on.

A package adds tasks by an entry point of group `xstilts.tasks` that names a module which calls `register`,
and `kinds.register` first for a task of a new kind.
"""

from __future__ import annotations

from functools import cache
from importlib import metadata
from typing import Literal

from xstilts.errors import UnknownName, XstiltsError
from xstilts.frozen import Frozen
from xstilts.tasks import kinds
from xstilts.tasks.metrics import METRICS
from xstilts.tasks.task import Family, Holdout, Split, Task
from xstilts.tasks.world_languages import SOURCE

GROUP = "xstilts.tasks"
RESERVED = ("none", "untrained")
"""Rows of the table that are no task: no phase 2, and neither phase 1 nor 2."""

_tasks: dict[str, Task] = {}


class Fitting(Frozen):
    """What one task is trained on in the source language, and what its checkpoint is chosen on."""

    task: Task
    """Whose columns and labels the rows have: the task itself, or one of its `stages`."""
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


def fittings(task_: Task, reporting: Literal["dev", "test"]) -> tuple[Fitting, ...]:
    """Where `task_` is trained and chosen, stage by stage, when scores are given on `reporting`; () for an
    encoder used as it is.

    Selection shares no row with anything reported. Where a stage selects on the very rows that are reported
    (PAN-X and UD POS select on English dev, so their dev scores would be chosen on themselves), a part of
    the training rows is held out instead, and training leaves it out. (Published duplicates stay: of PAN-X's
    952 held-out English sentences 10 are also dev sentences, of UD POS's 1,040 five.)
    """
    stages = tuple(task(name) for name in task_.stages) or ((task_,) if task_.train else ())
    return tuple(_fitting(stage, task_, reporting) for stage in stages)


def _fitting(base: Task, task_: Task, reporting: Literal["dev", "test"]) -> Fitting:
    if base.train is None:
        raise ValueError(f"{task_.name} is to train on {base.name}, which has no training rows")
    language = SOURCE if base.train.path == "world" else "en"
    code = base.code(language)
    train = base.train.at(code)
    selection = base.selection and base.selection.at(code)
    if selection is None or not _same_rows(task_, selection, reporting):
        return Fitting(task=base, language=language, train=train, selection=selection)
    kept, held = (Holdout(part="train", by=_unit(base)), Holdout(part="select", by=_unit(base)))
    return Fitting(
        task=base,
        language=language,
        train=train.model_copy(update={"holdout": kept}),
        selection=train.model_copy(update={"holdout": held}),
    )


def _same_rows(task_: Task, selection: Split, reporting: Literal["dev", "test"]) -> bool:
    """Whether rows that would be chosen on are reported, in any language. A held-out part of a published
    split is no row of another split."""
    reported = (task_.place(reporting, language) for language in task_.languages)
    return any(place is not None and place.place() == selection.place() for place in reported)


def _unit(task_: Task) -> str:
    """The column that holds a row's unit of resampling, else its text: duplicates stay on one side."""
    names = ("cluster", "words", "context", "first", "text", "query")
    return next(task_.columns[name].partition("/")[0] for name in names if name in task_.columns)


def _problem(task_: Task) -> str | None:
    kind = kinds.of(task_.family)
    missing = [name for name in kind.needed if name not in task_.columns]
    unknown = sorted(set(task_.columns) - {*kind.needed, *kind.optional, "item", "cluster"})
    if task_.name in RESERVED or task_.name in _tasks:
        return "the name is taken"
    if missing or unknown:
        return f"columns missing {missing}, unknown {unknown} for {task_.family}"
    if task_.family is not Family.MASKED_LM and task_.metric not in METRICS:
        return f"no metric {task_.metric!r}; there are {sorted(METRICS)}"
    if kind.labelled and bool(task_.labels) == task_.open_labels:
        return "labels are missing, or given although they are open"
    if bool(task_.stages or task_.train) == (kind.as_it_is and not task_.variant_of):
        return "it trains on nothing, or is used as it is and names training rows"
    if "target" in task_.roles and task_.open_labels:
        return "a target's labels must be named"
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
