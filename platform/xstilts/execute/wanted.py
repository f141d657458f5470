"""What is asked for by the name of a suite, a task or a job file; and whether a data folder has it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from xstilts.errors import DataError, UnknownName, XstiltsError
from xstilts.families import snapshot
from xstilts.plan import needs
from xstilts.plan.needs import Needs
from xstilts.spec.experiment import ModelSpec
from xstilts.spec.load import load
from xstilts.tasks import registry, suites
from xstilts.tasks.manifest import Entry, Manifest
from xstilts.tasks.task import Split

Languages = Callable[[str], tuple[str, ...]]
"""Data set of raw text -> its configs."""


@dataclass
class Tally:
    """How far a pull or a check is."""

    doing: str = ""
    done: int = 0
    of: int = 0
    bytes: int = 0
    of_bytes: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that is needed and is not there, or cannot be had."""

    what: str
    error: XstiltsError


def wanted(what: str, languages: Languages, translations: bool = False) -> Needs:
    """What the suite, task or job file `what` reads; `translations`: of a suite, machine-translated rows too.

    Raises:
        UnknownName: it is none of the three. JobFileError: with file and line.
    """
    if what.endswith((".yaml", ".yml")) or Path(what).is_file():
        file = load(what)
        try:
            return needs.of_job(file.experiment, languages)
        except XstiltsError as problem:
            raise file.error_at(problem) from problem
    known: dict[str, tuple[str, ...]] = {task.name: (task.name,) for task in registry.all_tasks()}
    known |= {suite.name: (*suite.tasks, *suite.also) for suite in suites.all_suites()}
    if what not in known:
        raise UnknownName.among("suite, task or job file", what, known, "xstilts tasks")
    return Needs(needs.of_tasks(map(registry.task, known[what]), translations=translations))


def missing(wanted_: Needs, found: Manifest) -> list[Failure]:
    """What is needed and a data folder does not hold."""
    lacking: dict[str, XstiltsError] = {}
    for split in wanted_.splits:
        for part in [split.model_copy(update={"files": (name,)}) for name in split.files] or [split]:
            try:
                found.files(part)
            except DataError as problem:
                if part.files:
                    lacking[part.files[0]] = unserved(part, str(found.folder))
                else:
                    lacking[named(part)] = problem
    for model in wanted_.models:
        if not own(model) and snapshot.find(model.name, found.folder) is None:
            cause = f"{found.folder} holds no model {model.name}"
            lacking[named(model)] = DataError(cause, "run `xstilts data pull JOB`")
    return [Failure(what, error) for what, error in lacking.items()]


def unserved(split: Split, location: str) -> DataError:
    """Original files that a user has to bring; one sentence for all of a data set."""
    where = f"get them from {split.owner}, " if split.owner else ""
    return DataError(
        f"original files of {split.path} are needed and the hub does not serve them",
        f"{where}put each below {location} under its name, or that name with .gz, "
        "and run `xstilts data pull` for them again",
    )


def verify(
    found: Manifest, parallel: int = 4, listen: Callable[[Tally], None] = lambda tally: None
) -> list[str]:
    """Reads every file that the manifest lists: one sentence for each that is missing or differs."""

    def problem(entry: Entry) -> str | None:
        return next(Manifest(found.folder, [entry]).problems(), None)

    tally = Tally("reading", of=len(found.entries), of_bytes=sum(entry.bytes for entry in found.entries))
    said = []
    with ThreadPoolExecutor(parallel) as pool:
        for entry, told in zip(found.entries, pool.map(problem, found.entries), strict=True):
            said += [told] if told else []
            tally.done, tally.bytes, tally.failed = tally.done + 1, tally.bytes + entry.bytes, len(said)
            listen(tally)
    return said


def named(need: Split | ModelSpec) -> str:
    """What people call it."""
    if isinstance(need, ModelSpec):
        return f"model {need.name}"
    return f"{need.path}, config {need.config}, split {need.split}"


def repository(need: Split | ModelSpec) -> str:
    """Its hub id."""
    return need.name if isinstance(need, ModelSpec) else need.path


def own(model: ModelSpec) -> bool:
    """Whether it is a folder of the user's, which is read where it lies."""
    found = snapshot.find(model.name, None)
    return found is not None and found == Path(model.name)
