"""Sentences and sentence pairs, one label each (NLI, paraphrase): a head on the first token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xstilts.families import batching, columns, heads, subwords
from xstilts.families.base import Batch, Example, FamilyCode, Feature, Length, Prediction
from xstilts.tasks import metrics
from xstilts.tasks.task import FAMILY_VERSION, Family, Task


class Classification:
    """Columns: text, pair (optional), label. Prediction: the label; score: its probability."""

    VERSION: int = FAMILY_VERSION[Family.CLASSIFICATION]
    metrics: tuple[str, ...] = ("accuracy",)

    def examples(self, task: Task, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """See `FamilyCode`."""
        names = columns.identities(task, rows)
        words = [word for word in ("text", "pair") if word in task.columns]
        return [
            Example(
                item=name.item,
                inputs={word: columns.text(task, row, number, word) for word in words},
                gold=columns.label_index(
                    task, columns.column(task, row, number, task.columns["label"]), number
                ),
                cluster=name.cluster,
                parallel_id=name.parallel_id,
            )
            for number, (row, name) in enumerate(zip(rows, names, strict=True))
        ]

    def encode(
        self, task: Task, examples: Sequence[Example], tokenizer: Any, length: Length, training: bool
    ) -> list[Feature]:
        """See `FamilyCode`; pairs over the limit lose the end of the longer member first."""
        texts = [example.inputs["text"] for example in examples]
        pairs = [example.inputs["pair"] for example in examples] if "pair" in task.columns else None
        encoded = subwords.encode_texts(tokenizer, texts, pairs, length.max_length)
        return [
            Feature(
                example=number,
                input_ids=(ids,),
                target=columns.require_gold(task, example, "train on") if training else None,
                keep=subwords.types_kept((types,)),
            )
            for number, (example, (ids, types)) in enumerate(zip(examples, encoded, strict=True))
        ]

    def collate(self, features: Sequence[Feature], pad_id: int) -> Batch:
        """See `FamilyCode`; target (n,)."""
        batch = batching.padded(features, pad_id)
        if features[0].target is not None:
            batch["target"] = torch.tensor([feature.target for feature in features])
        return batch

    def head(self, task: Task, width: int, dropout: float) -> nn.Module:
        """XLM-R's classifier."""
        return heads.SentenceHead(width, len(task.labels), dropout)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits (n, labels)."""
        logits: Tensor = heads.head_of(model)(heads.encoded(model, batch).last_hidden_state[:, 0])
        return logits

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy summed over examples, and their number."""
        logits = self.forward(model, batch).float()
        total = functional.cross_entropy(logits, batch["target"], reduction="sum")
        return total, torch.tensor(float(len(logits)), device=logits.device)

    def decode(
        self, task: Task, examples: Sequence[Example], features: Sequence[Feature], outputs: Sequence[Tensor]
    ) -> list[Prediction]:
        """The likeliest label of each example, the first of equals."""
        found = []
        for feature, logits in zip(features, outputs, strict=True):
            shares = logits.double().softmax(-1).numpy()
            best = int(shares.argmax())
            found.append(Prediction(examples[feature.example].item, task.labels[best], float(shares[best])))
        return found

    def items(
        self, task: Task, examples: Sequence[Example], predictions: Mapping[str, Any], language: str
    ) -> list[dict[str, Any]]:
        """Column correct: 1 where the label is the gold one."""
        return [
            {
                **columns.item_row(example),
                "correct": int(
                    predictions.get(example.item) == task.labels[columns.require_gold(task, example, "score")]
                ),
            }
            for example in examples
        ]

    def score(self, task: Task, sums: Mapping[str, Any]) -> dict[str, Any]:
        """See `tasks.metrics`."""
        return metrics.from_sums(task.metric, sums)


CODE: FamilyCode = Classification()
