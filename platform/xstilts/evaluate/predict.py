"""Predictions of one task in one language: made once by a model, kept as a table, scored when wanted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from xstilts.errors import DataError, StoreError
from xstilts.families import batching
from xstilts.families.base import Example, FamilyCode, Feature, Length, Prediction
from xstilts.tasks.task import Task

Progress = Callable[[int, int], None]
"""Called with features done and features in all, once a batch."""


def predict(
    model: nn.Module,
    code: FamilyCode,
    task: Task,
    examples: Sequence[Example],
    tokenizer: Any,
    length: Length,
    batch: int,
    device: torch.device | str,
    precision: str,
    progress: Progress | None = None,
    features: Sequence[Feature] | None = None,
) -> list[Prediction]:
    """One prediction an example, in order; the model is left in the mode it was in.

    `batch` features at a time, on `device`, in `precision` ("fp32" or "bf16"); works for every family.
    `features` are what `code.encode` makes of the examples, for callers that keep them.
    """
    encoded = code.encode(task, examples, tokenizer, length, False) if features is None else features

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, len(encoded))

    pad = tokenizer.pad_token_id
    outputs = batching.outputs_of(model, code, encoded, pad, batch, device, precision, tell)
    return code.decode(task, examples, encoded, outputs)


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Writes `item, prediction, score`; `prediction` is a string, or a list of strings for tags and ranks.

    Raises:
        StoreError: the file cannot be written.
    """
    listed = any(not isinstance(made.prediction, str) for made in predictions)
    kind = pa.list_(pa.string()) if listed else pa.string()
    values = [list(made.prediction) if listed else made.prediction for made in predictions]
    table = pa.table(
        {
            "item": pa.array([made.item for made in predictions], pa.string()),
            "prediction": pa.array(values, kind),
            "score": pa.array([float(made.score) for made in predictions], pa.float64()),
        }
    )
    save(table, path)


def read_predictions(path: Path) -> dict[str, Any]:
    """Item -> prediction, as `write_predictions` wrote them.

    Raises:
        DataError: no such file, or it is damaged.
    """
    rows = load(path)
    return {row["item"]: row["prediction"] for row in rows}


def read_scored(path: Path) -> dict[str, tuple[Any, float]]:
    """Item -> prediction and score, as `write_predictions` wrote them.

    Raises:
        DataError: no such file, or it is damaged.
    """
    return {row["item"]: (row["prediction"], row["score"]) for row in load(path)}


def by_item(predictions: Sequence[Prediction]) -> Mapping[str, Any]:
    """What `score` wants, without the way over a file."""
    return {made.item: made.prediction for made in predictions}


def save(table: pa.Table, path: Path) -> None:
    """Writes a table; the name appears only when the file is whole.

    Raises:
        StoreError: the disk is full or the folder is not writable.
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, part)
        part.replace(path)
    except OSError as problem:
        with contextlib.suppress(OSError):
            part.unlink()
        remedy = "make room on the disk or make the folder writable"
        raise StoreError(f"{path} cannot be written ({problem.strerror or problem})", remedy) from problem


def load(path: Path) -> list[dict[str, Any]]:
    """The rows of a table that `save` wrote.

    Raises:
        DataError: no such file, or it is damaged.
    """
    try:
        rows: list[dict[str, Any]] = pq.read_table(path, partitioning=None).to_pylist()
    except (pa.ArrowException, OSError) as problem:
        problem_ = f"{path} cannot be read ({str(problem).splitlines()[0]})"
        raise DataError(problem_, "move its step's folder out of the store and run again") from problem
    return rows
