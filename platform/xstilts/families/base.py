"""What every family of tasks provides, and the values that pass between its parts.

    rows -> examples -> features -> batches -> outputs -> predictions -> item statistics -> metrics

A family is one object with no state; `families.code_of(task.family)` finds it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from xstilts.tasks.task import Task

Batch = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a task in its family's own words."""

    item: str
    """Published id, else the row's number in the published split."""
    inputs: Mapping[str, Any]
    """classification: text, pair | multiple choice: first, second, choices | span QA: question, context |
    tagging: words | retrieval: query (source language), document (target language) | bitext mining: text,
    side | dual encoder: query, document, context | masked LM: text."""
    gold: Any = None
    """classification, multiple choice: index | span QA: list of {"text", "start"} (start in code points) |
    tagging: list of label indices | retrieval: the item of the right document | bitext mining, dual encoder:
    tuple of right items | None where unlabelled."""
    cluster: str = ""
    """Unit of resampling (article, premise, ...); the item itself where rows are independent."""
    parallel_id: str = ""
    """The same in every language for translations of one item; "" where items are not parallel."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One encoded sequence (or, for multiple choice, one sequence a choice)."""

    example: int
    """Index into the examples it was made from; a long example makes several features."""
    input_ids: tuple[tuple[int, ...], ...]
    """One tuple of sub-word ids a sequence; a single one but for multiple choice."""
    target: Any = None
    """What the loss compares with, None when predicting."""
    keep: Mapping[str, Any] = field(default_factory=dict)
    """What decoding needs: offsets, word indices, side."""

    @property
    def length(self) -> int:
        """Longest sequence, in sub-words: what padding costs."""
        return max(len(ids) for ids in self.input_ids)


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one item; never gold."""

    item: str
    prediction: Any
    """label | list of tags, one a word | text | ranked ids."""
    score: float
    """The model's own confidence (probability, span score, cosine)."""


@dataclass(frozen=True, slots=True)
class Length:
    """How long sequences may be, in sub-words, special tokens included."""

    max_length: int = 128
    doc_stride: int = 128


class FamilyCode(Protocol):
    """The code of one family. Everything is deterministic; nothing reads the clock, files or globals."""

    VERSION: int
    """Bumped when the same input would give another result: it is part of every key made with it."""

    metrics: tuple[str, ...]
    """Metrics that `score` returns, the first being the headline when a task names none."""

    # Optional: `whole_batches: bool = True` says that the loss compares the members of a batch with each
    # other, so that a batch is never split (`train.mixture.whole`).

    def examples(self, task: Task, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """Published rows in the family's words.

        Raises:
            DataError: a column is missing or a label is outside `task.labels`; says the row and the value.
        """
        ...

    def encode(
        self, task: Task, examples: Sequence[Example], tokenizer: Any, length: Length, training: bool
    ) -> list[Feature]:
        """Sub-words; with `training`, features carry targets (examples without gold raise DataError)."""
        ...

    def collate(self, features: Sequence[Feature], pad_id: int) -> Batch:
        """Padded to the longest: input_ids and attention_mask (n, length) int64; for multiple choice
        (n * choices, length); `target` where features have one."""
        ...

    def head(self, task: Task, width: int, dropout: float) -> nn.Module | None:
        """A fresh head on an encoder of `width`, initialised from torch's current generator; None: none."""
        ...

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Raw outputs, first dimension = features: logits (n, labels) | (n, choices) | (n, length, 2) |
        (n, length, labels) | pooled vectors (n, width)."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum of the losses and the number of things summed over (a float tensor), both differentiable
        scalars where that applies, so that k micro-batches can be divided by their common total."""
        ...

    def decode(
        self, task: Task, examples: Sequence[Example], features: Sequence[Feature], outputs: Sequence[Tensor]
    ) -> list[Prediction]:
        """One prediction an example, in order; `outputs[i]` is feature i's, padding removed, on the CPU.
        Bitext mining has none for what it does not pair."""
        ...

    def items(
        self, task: Task, examples: Sequence[Example], predictions: Mapping[str, Any], language: str
    ) -> list[dict[str, Any]]:
        """One row an example: item, cluster, parallel_id and sufficient statistics (correct | em, f1 |
        tp, n_pred, n_gold, correct, n | ...). A missing prediction counts as wrong."""
        ...

    def score(self, task: Task, sums: Mapping[str, Any]) -> dict[str, Any]:
        """Metrics in percent from column sums of `items` (plus "items", their number). Values may be numpy
        arrays of equal shape (one entry a bootstrap resample); then so are the results."""
        ...


@torch.no_grad()
def initialise(module: nn.Module, deviation: float = 0.02) -> nn.Module:
    """Normal weights and zero biases, as BERT's heads are initialised; returns `module`."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            part.weight.normal_(0.0, deviation)
            if part.bias is not None:
                part.bias.zero_()
    return module
