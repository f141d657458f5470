"""Parallel sentences found by their vectors (Tatoeba): no head and no training, the encoder as it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from xstilts.errors import JobFileError
from xstilts.families import batching, columns, pooling, subwords
from xstilts.families.base import Batch, Example, FamilyCode, Feature, Length, Prediction
from xstilts.families.nearest import Nearest
from xstilts.tasks import metrics
from xstilts.tasks.task import FAMILY_VERSION, Family, Task

RANKS = 10
"""Documents that a prediction lists."""
BLOCK = 16_384
"""Documents compared at a time."""


class Retrieval:
    """Columns: query (source language), document (target language), translations of each other in one row.

    Every document of the split is a candidate. Prediction: the ten nearest items, nearest first; score: the
    cosine of the first. `model.layer` says which hidden states are pooled (None: the last); `model.centre`,
    whether each side's mean is subtracted first (done in `batching.outputs_of`, which sees all vectors).
    """

    VERSION: int = FAMILY_VERSION[Family.RETRIEVAL]
    metrics: tuple[str, ...] = ("accuracy",)

    def examples(self, task: Task, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """See `FamilyCode`; gold is the example's own item."""
        return [
            Example(
                item=name.item,
                inputs={word: columns.text(task, row, number, word) for word in ("query", "document")},
                gold=name.item,
                cluster=name.cluster,
                parallel_id=name.parallel_id,
            )
            for number, (row, name) in enumerate(zip(rows, columns.identities(task, rows), strict=True))
        ]

    def encode(
        self, task: Task, examples: Sequence[Example], tokenizer: Any, length: Length, training: bool
    ) -> list[Feature]:
        """See `FamilyCode`; two features an example, told apart by keep["side"]."""
        if training:
            raise self._untrainable(task)
        found = []
        for side in ("query", "document"):
            texts = [example.inputs[side] for example in examples]
            encoded = subwords.encode_texts(tokenizer, texts, None, length.max_length)
            found += [
                Feature(number, (ids,), None, {"side": side}) for number, (ids, _) in enumerate(encoded)
            ]
        return found

    def collate(self, features: Sequence[Feature], pad_id: int) -> Batch:
        """See `FamilyCode`."""
        return batching.padded(features, pad_id)

    def head(self, task: Task, width: int, dropout: float) -> None:
        """None: the encoder is used as it is."""
        return

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Vectors (n, width): mean of one layer over all attended positions, <s> and </s> included.

        Raises:
            ModelError: the encoder has no layer `model.layer`.
        """
        return pooling.mean_of_layer(model, batch)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Retrieval has none: a task of this family is never trained.

        Raises:
            JobFileError: always.
        """
        raise self._untrainable(None)

    def decode(
        self, task: Task, examples: Sequence[Example], features: Sequence[Feature], outputs: Sequence[Tensor]
    ) -> list[Prediction]:
        """The nearest documents of each query by cosine, exactly; of equals the lowest row."""
        if not examples:
            return []
        queries, documents = (_vectors(examples, features, outputs, side) for side in ("query", "document"))
        search = Nearest(pooling.unit(queries), RANKS)
        for begin in range(0, len(examples), BLOCK):
            search.add(pooling.unit(documents[begin : begin + BLOCK]), begin)
        order, cosines = search.result()
        return [
            Prediction(example.item, [examples[row].item for row in ranked], float(best))
            for example, ranked, best in zip(examples, order, cosines[:, 0], strict=True)
        ]

    def items(
        self, task: Task, examples: Sequence[Example], predictions: Mapping[str, Any], language: str
    ) -> list[dict[str, Any]]:
        """Column correct: 1 where the nearest document is the right one."""
        found = []
        for example in examples:
            ranked = predictions.get(example.item)
            right = ranked is not None and len(ranked) > 0 and str(ranked[0]) == example.gold
            found.append({**columns.item_row(example), "correct": int(right)})
        return found

    def score(self, task: Task, sums: Mapping[str, Any]) -> dict[str, Any]:
        """See `tasks.metrics`."""
        return metrics.from_sums(task.metric, sums)

    @staticmethod
    def _untrainable(task: Task | None) -> JobFileError:
        name = "retrieval" if task is None else task.name
        return JobFileError(
            f"{name} has nothing to train: it uses the encoder as it is",
            "name it among the targets, not among the intermediate tasks",
        )


def _vectors(
    examples: Sequence[Example], features: Sequence[Feature], outputs: Sequence[Tensor], side: str
) -> list[Tensor]:
    """Outputs of one side, by example."""
    own = {
        feature.example: output
        for feature, output in zip(features, outputs, strict=True)
        if feature.keep["side"] == side
    }
    return [own[number] for number in range(len(examples))]


CODE: FamilyCode = Retrieval()
