"""Published rows in a family's words: columns, labels, ids, clusters; every complaint names row and value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any, NamedTuple

from xstilts.errors import DataError
from xstilts.families.base import Example
from xstilts.tasks.task import Task

Row = Mapping[str, Any]


class Identity(NamedTuple):
    """What `Example` keeps of a row besides its content."""

    item: str
    cluster: str
    parallel_id: str


def column(task: Task, row: Row, number: int, path: str) -> Any:
    """The value at `path`, where a dot enters a struct ("choices.text").

    Raises:
        DataError: the row has no such column.
    """
    value: Any = row
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            remedy = f"it has {', '.join(sorted(row))}; pull the data again or mend `columns` of the task"
            raise DataError(f"row {number} of {task.name} has no column {path!r}", remedy)
        value = value[part]
    return value


def text(task: Task, row: Row, number: int, word: str) -> str:
    """The text that the family calls `word`: a column, or a sentence made of several, as in
    "{premise} What was the {question}?".

    Raises:
        DataError: a column is missing or no text.
    """
    path = task.columns[word]
    if "{" not in path:
        return checked_text(task, column(task, row, number, path), number, path)
    found = ""
    for before, name, *_ in Formatter().parse(path):
        own = "" if name is None else checked_text(task, column(task, row, number, name), number, name)
        found += before + own
    return found


def checked_text(task: Task, value: Any, number: int, name: str) -> str:
    """`value`, known to be text.

    Raises:
        DataError: it is not.
    """
    if not isinstance(value, str):
        raise DataError(
            f"row {number} of {task.name} has {value!r} in {name!r} where text belongs",
            "pull the data again or mend `columns` of the task",
        )
    return value


def label_index(task: Task, value: Any, number: int, size: int | None = None) -> int | None:
    """Index of a label among `task.labels` (or among `size` choices); None where the row is unlabelled.

    The hub writes -1, "" or null for labels that are withheld or that annotators did not agree on.

    Raises:
        DataError: a label outside the set.
    """
    if value is None or value in (-1, ""):
        return None
    if isinstance(value, str) and value in task.labels:
        return task.labels.index(value)
    count = len(task.labels) if size is None else size
    if isinstance(value, int) and 0 <= value < count:
        return int(value)
    known = ", ".join(task.labels) if task.labels else f"0 to {count - 1}"
    raise DataError(
        f"row {number} of {task.name} has the label {value!r}, outside the set",
        f"the labels are {known}; pull the data again or mend `labels` of the task",
    )


def identities(task: Task, rows: Sequence[Row]) -> list[Identity]:
    """Item, cluster and parallel id of each row.

    A cluster is named by the number of the first row that holds its value, not by the value: so clusters of
    translated rows agree across languages and can be resampled jointly. "context/5" as the column means that
    five neighbouring distinct values are one cluster: XQuAD has five paragraphs an article and no titles.

    Raises:
        DataError: two rows share one published id.
    """
    found: list[Identity] = []
    seen: dict[str, int] = {}
    name, _, block = task.columns.get("cluster", "").partition("/")
    leaders: dict[str, int] = {}
    begins: list[int] = []
    for number, row in enumerate(rows):
        item = str(column(task, row, number, task.columns["item"])) if "item" in task.columns else str(number)
        if item in seen:
            raise DataError(
                f"rows {seen[item]} and {number} of {task.name} share the id {item!r}",
                "pull the data again, or leave `item` out of the task's columns to number the rows",
            )
        seen[item] = number
        cluster = item
        if name:
            place = leaders.setdefault(str(column(task, row, number, name)), len(leaders)) // int(block or 1)
            if place == len(begins):
                begins.append(number)
            cluster = str(begins[place])
        found.append(Identity(item, cluster, item if task.parallel else ""))
    return found


def require_gold(task: Task, example: Example, purpose: str) -> Any:
    """`example.gold`, known to be there; `purpose` is "train on" or "score".

    Raises:
        DataError: the row is unlabelled.
    """
    if example.gold is None:
        raise DataError(
            f"row {example.item} of {task.name} has no gold label to {purpose}",
            "use a split whose labels are published",
        )
    return example.gold


def item_row(example: Example) -> dict[str, Any]:
    """The columns that every family's item statistics begin with."""
    return {"item": example.item, "cluster": example.cluster, "parallel_id": example.parallel_id}
