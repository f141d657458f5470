"""Writes the benchmarks' files: a submission from predictions, or labels from the gold of examples."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xstilts.errors import DataError, StoreError
from xstilts.evaluate.official import layout
from xstilts.tasks import registry
from xstilts.tasks.task import Task

if TYPE_CHECKING:
    from xstilts.families.base import Example

Said = Callable[["Example"], Any]
"""What stands in the file for an example, in a prediction's words: label, tags, text, ids; None: nothing."""


def write_predictions(
    task: str, language: str, examples: Sequence[Example], predictions: Mapping[str, Any], root: Path
) -> Path:
    """Writes one language of a submission and returns the file.

    `examples` are all rows of the split, in published order; `predictions` maps their items to what was
    predicted, as `evaluate.predict` keeps it. Questions and pairs may lack one; all else may not.

    Raises:
        DataError: an example without a prediction, or with one of another length than its sentence.
        StoreError: the file cannot be written.
        UnknownName: no such task.
    """
    return _write(registry.task(task), language, examples, root, lambda one: predictions.get(one.item))


def write_labels(task: str, language: str, examples: Sequence[Example], root: Path) -> Path:
    """Writes the labels of one language, from the examples' gold, and returns the file.

    Raises:
        DataError: an example without gold.
        StoreError: the file cannot be written.
        UnknownName: no such task.
    """
    found = registry.task(task)
    form = layout.LAYOUTS[layout.folder(found)].form
    if form == "answers":
        path = layout.place(root, layout.folder(found), language)
        _save(path, _json({"version": "1.1", "data": _squad(found, examples)}))
        return path
    return _write(found, language, examples, root, lambda one: _gold(found, form, one))


def _write(task: Task, language: str, examples: Sequence[Example], root: Path, said: Said) -> Path:
    name = layout.folder(task)
    how = layout.LAYOUTS[name]
    path = layout.place(root, name, language)
    if how.form in ("answers", "ranked"):
        _save(path, _json(dict(_entries(how.form, examples, said))))
    else:
        lines = _LINES[how.form](task, examples, said)
        _save(path, "".join(f"{line}\n" for line in lines))
    return path


def _labels(task: Task, examples: Sequence[Example], said: Said) -> Iterator[str]:
    words = layout.LAYOUTS[layout.folder(task)].words
    for example in examples:
        yield words[_index(task, example, said(example))]


def _choices(task: Task, examples: Sequence[Example], said: Said) -> Iterator[str]:
    for example in examples:
        yield json.dumps({"label": _index(task, example, said(example))})


def _tags(task: Task, examples: Sequence[Example], said: Said) -> Iterator[str]:
    """A blank line ends a sentence; after the last one, which needs none, only where it has no word."""
    for number, example in enumerate(examples):
        tags, words = _there(task, example, said(example)), example.inputs["words"]
        if len(tags) != len(words):
            problem = f"row {example.item} of {task.name} has {len(tags)} tags for {len(words)} words"
            raise DataError(problem, "they were made from other data: predict again")
        yield from map(str, tags)
        if number + 1 < len(examples) or not tags:
            yield ""


def _rows(task: Task, examples: Sequence[Example], said: Said) -> Iterator[str]:
    """English lines are sorted as XTREME's preparation sorts them: stripped, by code points, equal ones in
    published order. Foreign sentences keep their published rows."""
    row = {example.item: number for number, example in enumerate(examples)}
    for example in sorted(examples, key=lambda one: str(one.inputs["query"]).strip()):
        ranked = _there(task, example, said(example))
        if not len(ranked) or str(ranked[0]) not in row:
            problem = f"row {example.item} of {task.name} is matched with no row of its split"
            raise DataError(problem, "it was predicted from other data: predict again")
        yield str(row[str(ranked[0])])


def _pairs(task: Task, examples: Sequence[Example], said: Said) -> Iterator[str]:
    for example in examples:
        for other in _listed(said(example)):
            yield f"{example.item}\t{other}"


_LINES: dict[str, Callable[[Task, Sequence[Example], Said], Iterator[str]]] = {
    "labels": _labels,
    "choices": _choices,
    "tags": _tags,
    "rows": _rows,
    "pairs": _pairs,
}


def _entries(form: layout.Form, examples: Sequence[Example], said: Said) -> Iterator[tuple[str, Any]]:
    """One entry a question that has a prediction."""
    for example in examples:
        value = said(example)
        if value is not None:
            yield example.item, str(value) if form == "answers" else _listed(value)[: layout.RANKS]


def _gold(task: Task, form: layout.Form, example: Example) -> Any:
    """An example's gold in the words of a prediction."""
    if form == "pairs":
        return example.gold  # only the foreign side of a pair has one, and not every sentence has a pair
    gold = _there(task, example, example.gold)
    if form in ("labels", "choices"):
        return task.labels[gold]
    if form == "tags":
        return [task.labels[one] for one in gold]
    return _listed(gold)


def _squad(task: Task, examples: Sequence[Example]) -> list[dict[str, Any]]:
    """SQuAD's `data`: questions that follow each other on one passage share a paragraph."""
    paragraphs: list[dict[str, Any]] = []
    for example in examples:
        context = example.inputs["context"]
        if not paragraphs or paragraphs[-1]["context"] != context:
            paragraphs.append({"context": context, "qas": []})
        gold = _there(task, example, example.gold)
        answers = [{"text": one["text"], "answer_start": one["start"]} for one in gold]
        question = {"id": example.item, "question": example.inputs["question"], "answers": answers}
        paragraphs[-1]["qas"].append(question)
    return [{"title": "", "paragraphs": paragraphs}]


def _index(task: Task, example: Example, label: Any) -> int:
    if _there(task, example, label) not in task.labels:
        problem = f"row {example.item} of {task.name} has the label {label!r}, which the task does not have"
        raise DataError(problem, "it was made for another task: predict again")
    return task.labels.index(label)


def _there(task: Task, example: Example, value: Any) -> Any:
    """`value`, known to be there."""
    if value is None:
        problem = f"row {example.item} of {task.name} has none, and its file has a place for every row"
        raise DataError(
            f"a prediction or a label is missing: {problem}", "predict again, or use labelled rows"
        )
    return value


def _listed(value: Any) -> list[str]:
    """One id, several or none, as a list."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else [str(one) for one in value]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1) + "\n"


def _save(path: Path, text: str) -> None:
    """Writes a file; the name appears only when it is whole."""
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8", newline="\n")
        part.replace(path)
    except OSError as problem:
        with contextlib.suppress(OSError):
            part.unlink()
        remedy = "make room on the disk or make the folder writable"
        raise StoreError(f"{path} cannot be written ({problem.strerror or problem})", remedy) from problem
