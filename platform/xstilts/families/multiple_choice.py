"""One right answer among a few (CommonsenseQA, HellaSwag, COPA): every choice is encoded and scored alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xstilts.errors import DataError
from xstilts.families import batching, columns, heads, subwords
from xstilts.families.base import Batch, Example, FamilyCode, Feature, Length, Prediction
from xstilts.tasks import metrics
from xstilts.tasks.task import FAMILY_VERSION, Family, Task


class MultipleChoice:
    """Columns: first, second (optional), choices (one list column, or columns joined by commas), label.

    A choice is read as the pair (first, second + choice). Prediction: the label of the choice, or its number
    as text where the task names no labels; score: its probability among the choices.
    """

    VERSION: int = FAMILY_VERSION[Family.MULTIPLE_CHOICE]
    metrics: tuple[str, ...] = ("accuracy",)

    def examples(self, task: Task, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """See `FamilyCode`; rows may differ in how many choices they have."""
        found = []
        for number, (row, name) in enumerate(zip(rows, columns.identities(task, rows), strict=True)):
            words: list[str] = [word for word in ("first", "second") if word in task.columns]
            choices = _choices(task, row, number)
            label = columns.column(task, row, number, task.columns["label"])
            gold = columns.label_index(task, label, number, size=len(choices))
            if gold is not None and gold >= len(choices):
                raise DataError(
                    f"row {number} of {task.name} has the label {label!r} and only {len(choices)} choices",
                    "pull the data again or mend `columns` of the task",
                )
            inputs: dict[str, Any] = {word: columns.text(task, row, number, word) for word in words}
            found.append(
                Example(name.item, {**inputs, "choices": choices}, gold, name.cluster, name.parallel_id)
            )
        return found

    def encode(
        self, task: Task, examples: Sequence[Example], tokenizer: Any, length: Length, training: bool
    ) -> list[Feature]:
        """See `FamilyCode`; one sequence a choice, the longer part cut first (most often the context)."""
        firsts: list[str] = []
        seconds: list[str] = []
        for example in examples:
            before = f"{example.inputs['second']} " if "second" in example.inputs else ""
            firsts.extend([example.inputs["first"]] * len(example.inputs["choices"]))
            seconds.extend(before + choice for choice in example.inputs["choices"])
        encoded = iter(subwords.encode_texts(tokenizer, firsts, seconds, length.max_length))
        found = []
        for number, example in enumerate(examples):
            own = [next(encoded) for _ in example.inputs["choices"]]
            found.append(
                Feature(
                    example=number,
                    input_ids=tuple(ids for ids, _ in own),
                    target=columns.require_gold(task, example, "train on") if training else None,
                    keep=subwords.types_kept([types for _, types in own]),
                )
            )
        return found

    def collate(self, features: Sequence[Feature], pad_id: int) -> Batch:
        """input_ids (n * choices, length), choice_mask (n, choices) bool, target (n,).

        A feature with fewer choices than others gets its first sequence's first token as a filler, which
        `choice_mask` rules out: a sequence with nothing to attend to would give NaN.
        """
        most = max(len(feature.input_ids) for feature in features)
        full = [_with_choices(feature, most) for feature in features]
        batch = batching.padded(full, pad_id)
        counts = torch.tensor([len(feature.input_ids) for feature in features])
        batch["choice_mask"] = torch.arange(most)[None, :] < counts[:, None]
        if features[0].target is not None:
            batch["target"] = torch.tensor([feature.target for feature in features])
        return batch

    def head(self, task: Task, width: int, dropout: float) -> nn.Module:
        """One logit from the first token."""
        return heads.LinearHead(width, 1, dropout)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits (n, choices), -inf where there is no such choice."""
        mask = batch["choice_mask"]
        logits: Tensor = heads.head_of(model)(heads.encoded(model, batch).last_hidden_state[:, 0])
        return logits.view(mask.shape).masked_fill(~mask, float("-inf"))

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy over the choices summed over examples, and their number."""
        logits = self.forward(model, batch).float()
        total = functional.cross_entropy(logits, batch["target"], reduction="sum")
        return total, torch.tensor(float(len(logits)), device=logits.device)

    def decode(
        self, task: Task, examples: Sequence[Example], features: Sequence[Feature], outputs: Sequence[Tensor]
    ) -> list[Prediction]:
        """The likeliest choice of each example, the first of equals."""
        found = []
        for feature, logits in zip(features, outputs, strict=True):
            shares = logits.double().softmax(-1).numpy()
            best = int(shares.argmax())
            found.append(Prediction(examples[feature.example].item, _name(task, best), float(shares[best])))
        return found

    def items(
        self, task: Task, examples: Sequence[Example], predictions: Mapping[str, Any], language: str
    ) -> list[dict[str, Any]]:
        """Column correct: 1 where the choice is the gold one."""
        return [
            {
                **columns.item_row(example),
                "correct": int(
                    predictions.get(example.item) == _name(task, columns.require_gold(task, example, "score"))
                ),
            }
            for example in examples
        ]

    def score(self, task: Task, sums: Mapping[str, Any]) -> dict[str, Any]:
        """See `tasks.metrics`."""
        return metrics.from_sums(task.metric, sums)


def _choices(task: Task, row: Mapping[str, Any], number: int) -> tuple[str, ...]:
    """The choices of a row, from one list column or from several columns."""
    path = task.columns["choices"]
    if "," in path:
        values = [columns.column(task, row, number, part.strip()) for part in path.split(",")]
    else:
        values = columns.column(task, row, number, path)
    if not isinstance(values, list | tuple) or not values:
        raise DataError(
            f"row {number} of {task.name} has {values!r} in {path!r} where a list of choices belongs",
            "pull the data again or mend `columns` of the task",
        )
    return tuple(columns.checked_text(task, value, number, path) for value in values)


def _with_choices(feature: Feature, most: int) -> Feature:
    """`feature` with `most` sequences, fillers of one token at the end."""
    missing = most - len(feature.input_ids)
    if not missing:
        return feature
    keep = dict(feature.keep)
    if "types" in keep:
        keep["types"] = (*keep["types"], *((0,),) * missing)
    filler = (feature.input_ids[0][:1],) * missing
    return Feature(feature.example, (*feature.input_ids, *filler), feature.target, keep)


def _name(task: Task, choice: int) -> str:
    """What a prediction calls a choice."""
    return task.labels[choice] if choice < len(task.labels) else str(choice)


CODE: FamilyCode = MultipleChoice()
