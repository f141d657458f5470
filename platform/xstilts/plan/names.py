"""Whether the tasks, languages and suites that a job names exist and are used as they may be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError

from xstilts.errors import JobFileError, UnknownName
from xstilts.plan.settle import trained_on
from xstilts.spec import explain
from xstilts.spec.experiment import Experiment, RowSpec, SearchSpec, TrainSettings, Values
from xstilts.tasks import registry

Path = tuple[str | int, ...]


def check(experiment: Experiment) -> None:
    """Refuses a settled job whose words name nothing, or name it twice.

    Raises:
        UnknownName, JobFileError: with `where` pointing into the job file.
    """
    _once(experiment)
    for row, where in _rows(experiment):
        _check_row(row, where)
    for index, name in enumerate(experiment.targets):
        _check_role(name, "target", ("targets", index))
    spoken = {code for name in experiment.targets for code in registry.task(name).languages}
    for index, code in enumerate(experiment.languages):
        if spoken and code not in spoken:
            raise UnknownName.among(
                "language of these targets", code, spoken, "xstilts tasks", ("languages", index)
            )
    if experiment.search is not None:
        _check_search(experiment.search, experiment)
    for phase, settings, named in (
        ("intermediate", experiment.train.intermediate, trained_on(experiment)),
        ("target", experiment.train.target, experiment.targets),
    ):
        for name in settings.tasks:
            if name not in named:
                raise UnknownName.among(
                    f"{phase} task of this job", name, named, "xstilts tasks", ("train", phase, "tasks", name)
                )


def _check_search(search: SearchSpec, experiment: Experiment) -> None:
    """What is searched are settings of training, among values they can have, on seeds of its own."""
    for index, name in enumerate(search.targets):
        if name not in experiment.targets:
            known = experiment.targets
            raise UnknownName.among("target", name, known, "xstilts tasks", ("search", "targets", index))
    if search.seed in experiment.seeds:
        raise JobFileError(
            f"search.seed {search.seed} is among `seeds`, so a final run would be chosen by its own score",
            "give the search a seed that no final run has",
            ("search", "seed"),
        )
    for name, values in search.space.items():
        _check_values(name, values)


def _check_values(name: str, values: Values) -> None:
    where: Path = ("search", "space", name)
    if name in ("learning_rate", "epochs"):
        raise JobFileError(f"{name} is searched as search.{name}", "write it there", where)
    known = [each for each in TrainSettings.model_fields if each != "select"]
    if name not in known:
        raise UnknownName.among("setting of training", name, known, where=where)
    if values.choices:
        for index, value in enumerate(values.choices):
            _check_value(name, value, (*where, index))
        return
    if isinstance(TrainSettings.model_fields[name].default, str):
        raise JobFileError(f"{name} has no values between others", "list the choices", where)
    for end, value in (("low", values.low), ("high", values.high)):
        _check_value(name, value, (*where, end))


def _check_value(name: str, value: Any, where: Path) -> None:
    """Refuses a value that the setting cannot have."""
    try:
        TrainSettings.model_validate({name: value})
    except ValidationError as error:
        said = explain.complaints(error, {(name,)})[0]
        raise JobFileError(f"search.space: {said.problem}", said.remedy, where) from None


def _once(experiment: Experiment) -> None:
    labels = [row.label for row in experiment.intermediate]
    for word, names in (("intermediate", labels), ("targets", experiment.targets)):
        if len(set(names)) < len(names):
            raise JobFileError(f"{word} names a task twice", "name each once, or give rows a `name`", (word,))
    if len(set(experiment.seeds)) < len(experiment.seeds):
        raise JobFileError("seeds holds a number twice", "a seed run once more is no new run", ("seeds",))


def _rows(experiment: Experiment) -> Iterator[tuple[RowSpec, Path]]:
    for index, row in enumerate(experiment.intermediate):
        yield row, ("intermediate", index)


def _check_row(row: RowSpec, where: Path) -> None:
    """The tasks of a row may be trained on, and a mixture has one that can be chosen by."""
    for name in row.tasks:
        _check_role(name, "intermediate", where)
    if row.task == "mlm" or row.translated == "mlm":
        remedy = "write it beside another task: {mix: [squad_v1, mlm]}"
        raise JobFileError("mlm alone is no row: no checkpoint could be chosen", remedy, where)
    if row.translated and row.translator is None and registry.task(row.translated).translations is None:
        found = [task.name for task in registry.all_tasks() if task.translations is not None]
        raise JobFileError(
            f"nobody publishes translations of {row.translated}",
            f"name a `translator`, or choose among {' '.join(found)}",
            where,
        )


def _check_role(name: str, role: str, where: Path) -> None:
    if role == "intermediate" and name in registry.RESERVED:
        return
    known = {task.name: task for task in registry.all_tasks()}
    if name not in known:
        fitting = [task.name for task in known.values() if role in task.roles]
        fitting += registry.RESERVED if role == "intermediate" else ()
        raise UnknownName.among(f"{role} task", name, fitting, "xstilts tasks", where)
    if role not in known[name].roles:
        fit = " ".join(task.name for task in known.values() if role in task.roles)
        raise JobFileError(f"{name} is no {role} task", f"choose among {fit}", where)
