"""What steps start from: encoders, examples and encoded features, kept warm in the process that uses them.

A job of many short steps reads and tokenises the same rows again and again; a worker that lives through
them keeps the last few. The caches are content-addressed, so nothing stale can be met.
"""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from xstilts.errors import ModelError
from xstilts.execute.steps import Work
from xstilts.families import code_of, reading, snapshot
from xstilts.families.base import Example, Feature, Length
from xstilts.frozen import digest
from xstilts.plan.step import EncoderRef
from xstilts.tasks.task import Family, Rows, Task

Value = TypeVar("Value")


class Kept:
    """The last lists made, by a key that says all that they depend on, as long as their members are few."""

    def __init__(self, most: int) -> None:
        """`most`: members of all lists together; the newest list is kept whatever its length."""
        self._most = most
        self._values: OrderedDict[Hashable, Sequence[Any]] = OrderedDict()
        self._members = 0

    def get(self, key: Hashable, make: Callable[[], list[Value]]) -> list[Value]:
        """The list under `key`, made now if it is not there."""
        if key not in self._values:
            made = make()
            self._values[key] = made
            self._members += len(made)
            while self._members > self._most and len(self._values) > 1:
                _, oldest = self._values.popitem(last=False)
                self._members -= len(oldest)
        self._values.move_to_end(key)
        value: list[Value] = self._values[key]  # type: ignore[assignment]
        return value


# A feature of 100 sub-words takes 2.3 KB, so these are 0.9 GB: as much as MNLI's training set.
_examples = Kept(400_000)
_features = Kept(400_000)


Made = Mapping[str, Path]
"""Role of the step that made rows -> the file; its path has the step's key in it."""


def examples(task: Task, rows: Rows, data: Path | None, made: Made | None = None) -> list[Example]:
    """The rows of one split in the words of the task's family. Checks the bytes against the manifest."""
    key = (digest(rows), digest(task.core()), task.parallel, _made_key(made))
    return _examples.get(key, lambda: code_of(task.family).examples(task, reading.read(rows, data, made)))


def features(
    task: Task,
    rows: Rows,
    tokenizer: Any,
    length: Length,
    training: bool,
    data: Path | None,
    made: Made | None = None,
) -> list[Feature]:
    """Encoded examples; the tokenizer counts by its bytes."""
    key = (digest(rows), digest(task.core()), tokenizer_digest(tokenizer), length, training, _made_key(made))
    code = code_of(task.family)
    return _features.get(
        key, lambda: code.encode(task, examples(task, rows, data, made), tokenizer, length, training)
    )


def settled(task: Task, rows: Sequence[Rows], data: Path | None) -> Task:
    """`task` with its labels: those met in `rows`, sorted, where they are open."""
    if not task.open_labels:
        return task
    listed = task.family is Family.TAGGING
    name = task.columns["tags" if listed else "label"]
    found = (row[name] for each in rows for row in reading.read(each, data))
    met = {str(label) for value in found for label in (value if listed else [value])}
    return task.model_copy(update={"labels": tuple(sorted(met))})


def _made_key(made: Made | None) -> tuple[str, ...]:
    return tuple(str(path) for _, path in sorted((made or {}).items()))


def tokenizer_digest(tokenizer: Any) -> str:
    """Of the whole tokenizer, its vocabulary and rules included."""
    known: str | None = getattr(tokenizer, "_xstilts_digest", None)
    if known is None:
        known = digest(tokenizer.backend_tokenizer.to_str())
        tokenizer._xstilts_digest = known
    return known


def model_folder(work: Work, role: str, reference: EncoderRef | None) -> Path:
    """A local folder with config, weights and tokenizer: of the step that `role` names, else published."""
    if role in work.step.inputs:
        return work.input_files(role, "model/")["config.json"].parent
    if reference is None:
        raise ModelError(
            f"{work.step.label} starts from nothing", "this is a fault of the plan; please report it"
        )
    return published_folder(reference, work.site.data_root)


def published_folder(reference: EncoderRef, data: Path | None) -> Path:
    """Where a published encoder lies: a folder of the user's, the mirror, or the hub's cache.

    Raises:
        ModelError: it is nowhere, or its bytes are not those that were planned.
    """
    folder = snapshot.find(reference.name, data)
    if folder is not None:
        return _verified(folder, tuple(sorted(reference.weights.items())))
    if reference.revision is not None:
        return snapshot.hub(reference.name, reference.revision)
    raise ModelError(
        f"no encoder named {reference.name!r} here",
        "give a folder, a mirror that holds it (--data), or the hub commit as `revision`",
    )


@functools.lru_cache(maxsize=8)
def _verified(folder: Path, expected: tuple[tuple[str, str], ...]) -> Path:
    found = snapshot.weights(folder)
    for name, checksum in expected:
        if found.get(name) != checksum:
            raise ModelError(
                f"{folder / name} is not the file that was planned", "pull the model again, or plan again"
            )
    return folder
