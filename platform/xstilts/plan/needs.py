"""What a job or a group of tasks reads, as values: the published splits and the models. Asks nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from xstilts.frozen import Frozen, Json
from xstilts.plan.expand import expand
from xstilts.plan.step import EncoderRef
from xstilts.spec.experiment import Experiment, ModelSpec
from xstilts.tasks import registry
from xstilts.tasks.task import Rows, Split, Task

BOTH: tuple[Literal["dev", "test"], ...] = ("dev", "test")


@dataclass(frozen=True, slots=True)
class Needs:
    """What must be in a data folder."""

    splits: tuple[Split, ...]
    """Each published split once, whichever part of its rows is read; none of the generated world."""
    models: tuple[ModelSpec, ...] = ()


def of_tasks(
    tasks: Iterable[Task],
    reporting: Iterable[Literal["dev", "test"]] = BOTH,
    translations: bool = False,
) -> tuple[Split, ...]:
    """The splits that `tasks` are trained, chosen and scored on, in every language that they are reported in.

    With `translations` also the machine-translated training rows, in the languages of the task they are for.
    """
    found: list[Split] = []
    for task in tasks:
        for split in reporting:
            fittings = registry.fittings(task, split)
            for fitting in fittings:
                found += [fitting.train, *([fitting.selection] if fitting.selection else [])]
            places = (task.place(split, language) for language in task.reported(split))
            found += [place for place in places if place is not None]
            learnt = [fitting.task for fitting in fittings] if translations else []
            found += [each for trained in learnt for each in _translated(trained, task)]
        if task.candidates is not None:
            found.append(task.candidates)
    return _published(found)


def of_job(experiment: Experiment, languages: Callable[[str], tuple[str, ...]]) -> Needs:
    """What planning the job asks for, and every model that its words name.

    `languages` gives the configs of a data set of raw text, for jobs that read all of them.

    Raises:
        UnknownName, JobFileError: with `where` pointing into the job file.
    """
    asked = _Asked(languages)
    expand(experiment, asked)
    return Needs(_published(asked.splits), tuple(dict.fromkeys(_models(experiment))))


@dataclass
class _Asked:
    """Sources that have everything, and note what they are asked for."""

    languages: Callable[[str], tuple[str, ...]]
    splits: list[Split] = field(default_factory=list)

    def rows(self, split: Split, language: str) -> Rows:
        self.splits.append(split)
        world: dict[str, Json] | None = {} if split.path == "world" else None
        return Rows(path=split.path, config=split.config, split=split.split, language=language, world=world)

    def count(self, split: Split) -> int | None:
        return None

    def encoder(self, model: ModelSpec) -> EncoderRef:
        return EncoderRef(name=model.name, revision=model.revision or "0" * 40)


def _translated(trained: Task, target: Task) -> list[Split]:
    if trained.translations is None:
        return []
    return [trained.translations.at(trained.code(language)) for language in target.languages]


def _published(splits: Iterable[Split]) -> tuple[Split, ...]:
    """Each published split once, in the order of `splits`: without what is chosen of its rows."""
    found: dict[Split, None] = {}
    for split in splits:
        for each in (split, *split.more):
            kept = {name: getattr(each, name) for name in ("path", "config", "split", "files", "owner")}
            if each.path != "world":
                found[Split(**kept)] = None
    return tuple(found)


def _models(value: Any) -> Iterator[ModelSpec]:
    """Every model named anywhere in a description."""
    if isinstance(value, ModelSpec):
        yield ModelSpec(name=value.name, revision=value.revision)  # a translator says more
    elif isinstance(value, Frozen):
        yield from _models(tuple(getattr(value, name) for name in type(value).model_fields))
    elif isinstance(value, dict):
        yield from _models(tuple(value.values()))
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _models(each)
