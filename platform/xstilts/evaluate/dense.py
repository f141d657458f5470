"""Queries of several languages against one stream of candidates, encoded once and never held all together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from xstilts.errors import DataError
from xstilts.evaluate.predict import Progress
from xstilts.families import batching
from xstilts.families.base import Example, FamilyCode, Length, Prediction
from xstilts.families.dual_encoder import RANKS
from xstilts.families.nearest import Nearest
from xstilts.tasks.task import Task

BLOCK = 8192
"""Candidates encoded before they are compared and forgotten: 32 MB of vectors of 1,024."""


def search(
    model: nn.Module,
    code: FamilyCode,
    task: Task,
    queries: Mapping[str, Sequence[Example]],
    candidates: Iterable[Example],
    tokenizer: Any,
    length: Length,
    batch: int,
    device: torch.device | str,
    precision: str,
    progress: Progress | None = None,
) -> dict[str, list[Prediction]]:
    """For each language, one prediction a query, in order: the items of the twenty nearest of all candidates,
    nearest first; score: the product of the first. Of equally near ones the earlier.

    `queries`: language -> reported examples. `candidates`: all languages together, gone through once, so that
    a generator will do; the vectors of `BLOCK` of them are held at a time, besides those of the queries and
    the candidates' items. `batch` texts are encoded at a time, on `device`, in `precision`; the search runs
    there too. `progress` is told how many texts are encoded, and of how many (of a generator: those so far).

    Raises:
        DataError: two candidates share an item, or there are none.
    """
    asked = [example for examples in queries.values() for example in examples]
    total = len(asked) + len(candidates) if isinstance(candidates, Sized) else 0
    done = 0

    def vectors(examples: Sequence[Example]) -> Tensor:
        nonlocal done
        features = code.encode(task, examples, tokenizer, length, False)
        if len(features) != len(examples):
            raise ValueError(
                f"{len(features)} texts of {len(examples)} examples: each needs exactly one side"
            )

        def tell(count: int) -> None:
            if progress is not None:
                progress(done + count, total or done + len(examples))

        pad = tokenizer.pad_token_id
        made = batching.outputs_of(model, code, features, pad, batch, device, precision, tell)
        done += len(features)
        return torch.stack(made)

    if not asked:
        return {language: [] for language in queries}
    nearest = Nearest(vectors(asked), RANKS, device)
    items: dict[str, None] = {}  # an ordered set: a million strings, and each at most once
    following = iter(candidates)
    while block := list(islice(following, BLOCK)):
        before = len(items)
        items.update(dict.fromkeys(example.item for example in block))
        _distinct(task, block, len(items) - before)
        nearest.add(vectors(block), before)
    if not items:
        raise DataError(f"there are no candidates for {task.name}", "pull the data again")
    return _by_language(queries, list(items), nearest)


def _distinct(task: Task, block: Sequence[Example], new: int) -> None:
    if new < len(block):
        problem = f"{len(block) - new} of {len(block)} candidates of {task.name} share the item of another"
        raise DataError(problem, "pull the data again, or mend `columns` of the task")


def _by_language(
    queries: Mapping[str, Sequence[Example]], items: Sequence[str], nearest: Nearest
) -> dict[str, list[Prediction]]:
    """The search's result, cut into languages again."""
    rows, products = nearest.result()
    found: dict[str, list[Prediction]] = {}
    begin = 0
    for language, examples in queries.items():
        found[language] = [
            Prediction(example.item, [items[row] for row in rows[place]], float(products[place, 0]))
            for place, example in enumerate(examples, begin)
        ]
        begin += len(examples)
    return found
