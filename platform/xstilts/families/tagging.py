"""One tag a word (UD POS, PAN-X NER): the first sub-word of each word is labelled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from xstilts.errors import DataError, JobFileError
from xstilts.families import batching, chunks, columns, heads, subwords
from xstilts.families.base import Batch, Example, FamilyCode, Feature, Length, Prediction
from xstilts.tasks import metrics
from xstilts.tasks.task import FAMILY_VERSION, Family, Task

IGNORED = -100
"""Target of positions that no label belongs to; torch's cross-entropy leaves it out."""


class Tagging:
    """Columns: words, tags (lists of one length). Prediction: a tag a word; score: their mean probability."""

    VERSION: int = FAMILY_VERSION[Family.TAGGING]
    metrics: tuple[str, ...] = ("bio_f1", "chunk_f1", "token_accuracy", "precision", "recall")

    def examples(self, task: Task, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """See `FamilyCode`."""
        found = []
        for number, (row, name) in enumerate(zip(rows, columns.identities(task, rows), strict=True)):
            path = task.columns["words"]
            words = columns.column(task, row, number, path)
            tags = columns.column(task, row, number, task.columns["tags"])
            if not isinstance(words, list | tuple) or (tags is not None and len(tags) != len(words)):
                raise DataError(
                    f"row {number} of {task.name} does not have one tag a word: {words!r}, {tags!r}",
                    "pull the data again or mend `columns` of the task",
                )
            words = tuple(columns.checked_text(task, word, number, path) for word in words)
            gold = None if tags is None else [columns.label_index(task, tag, number) for tag in tags]
            gold = None if gold is None or None in gold else gold
            found.append(Example(name.item, {"words": words}, gold, name.cluster, name.parallel_id))
        return found

    def encode(
        self, task: Task, examples: Sequence[Example], tokenizer: Any, length: Length, training: bool
    ) -> list[Feature]:
        """See `FamilyCode`. A sentence over the limit becomes several features, cut between words."""
        frame = subwords.Frame.of(tokenizer, pair=False)
        room = length.max_length - frame.size
        if room < 1:
            raise JobFileError(
                f"a length of {length.max_length} leaves no sub-word for a sentence",
                f"set max_length to {frame.size + 1} or more",
            )
        split = subwords.words(tokenizer, [list(example.inputs["words"]) for example in examples])
        found = []
        for number, (example, words) in enumerate(zip(examples, split, strict=True)):
            gold = columns.require_gold(task, example, "train on") if training else None
            for first, part in _parts(words, room):
                ids = [one for word in part for one in word]
                sequence, types = frame.around(ids)
                places = _places(part, len(frame.before))
                keep = subwords.types_kept((types,))
                target = None
                if gold is None:
                    keep.update(first=first, places=places)
                else:
                    target = _target(places, gold[first:], len(sequence))
                found.append(Feature(number, (sequence,), target, keep))
        return found

    def collate(self, features: Sequence[Feature], pad_id: int) -> Batch:
        """See `FamilyCode`; target (n, length), -100 where no word begins."""
        batch = batching.padded(features, pad_id)
        if features[0].target is not None:
            batch["target"] = batching.filled([feature.target for feature in features], IGNORED)
        return batch

    def head(self, task: Task, width: int, dropout: float) -> nn.Module:
        """One linear layer at every position."""
        return heads.LinearHead(width, len(task.labels), dropout)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits (n, length, labels)."""
        logits: Tensor = heads.head_of(model)(heads.encoded(model, batch).last_hidden_state)
        return logits

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy summed over words, and their number."""
        logits, target = self.forward(model, batch).float().flatten(0, 1), batch["target"].flatten()
        total = functional.cross_entropy(logits, target, ignore_index=IGNORED, reduction="sum")
        return total, (target != IGNORED).sum().float()

    def decode(
        self, task: Task, examples: Sequence[Example], features: Sequence[Feature], outputs: Sequence[Tensor]
    ) -> list[Prediction]:
        """The likeliest tag of every word, the parts of a long sentence rejoined."""
        tags: list[dict[int, str]] = [{} for _ in examples]
        trust = [0.0] * len(examples)
        for feature, logits in zip(features, outputs, strict=True):
            shares = logits[list(feature.keep["places"])].double().softmax(-1).numpy()
            for place, best in enumerate(shares.argmax(-1)):
                tags[feature.example][feature.keep["first"] + place] = task.labels[int(best)]
                trust[feature.example] += float(shares[place, best])
        return [
            Prediction(
                example.item,
                [tags[number][word] for word in range(len(example.inputs["words"]))],
                trust[number] / max(1, len(tags[number])),
            )
            for number, example in enumerate(examples)
        ]

    def items(
        self, task: Task, examples: Sequence[Example], predictions: Mapping[str, Any], language: str
    ) -> list[dict[str, Any]]:
        """Columns correct and n (words); tp, n_pred, n_gold where the task's metric counts chunks.

        Raises:
            DataError: a prediction has another number of tags than its sentence has words.
        """
        found = []
        for example in examples:
            wanted = [task.labels[one] for one in columns.require_gold(task, example, "score")]
            said = predictions.get(example.item)
            if said is not None and len(said) != len(wanted):
                raise DataError(
                    f"the prediction for row {example.item} of {task.name} has {len(said)} tags for "
                    f"{len(wanted)} words",
                    "it was made from other data: predict again",
                )
            said = None if said is None else [str(tag) for tag in said]
            found.append({**columns.item_row(example), **chunks.compare(task.metric, said, wanted)})
        return found

    def score(self, task: Task, sums: Mapping[str, Any]) -> dict[str, Any]:
        """See `tasks.metrics`."""
        return metrics.from_sums(task.metric, sums)


def _parts(words: Sequence[tuple[int, ...]], room: int) -> Iterator[tuple[int, list[tuple[int, ...]]]]:
    """(number of the first word, words) of parts of at most `room` sub-words, filled from the left.

    A single word of more sub-words than that is cut to `room`: only its first is labelled anyway.
    """
    first, part, size = 0, list[tuple[int, ...]](), 0
    for number, word in enumerate(words):
        own = word[:room]
        if part and size + len(own) > room:
            yield first, part
            first, part, size = number, [], 0
        part.append(own)
        size += len(own)
    if part:
        yield first, part


def _places(part: Sequence[tuple[int, ...]], begin: int) -> tuple[int, ...]:
    """Position of each word's first sub-word in the sequence."""
    found = []
    for word in part:
        found.append(begin)
        begin += len(word)
    return tuple(found)


def _target(places: Sequence[int], gold: Sequence[int], size: int) -> tuple[int, ...]:
    """Labels at `places` of a sequence of `size` positions, -100 elsewhere."""
    target = [IGNORED] * size
    for place, label in zip(places, gold, strict=False):
        target[place] = label
    return tuple(target)


CODE: FamilyCode = Tagging()
