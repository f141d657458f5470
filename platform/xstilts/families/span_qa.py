"""Questions whose answer is a span of a passage (SQuAD, XQuAD, TyDiQA-GoldP), read in overlapping windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from xstilts.errors import DataError, JobFileError
from xstilts.families import answers, batching, columns, heads, subwords
from xstilts.families.base import Batch, Example, FamilyCode, Feature, Length, Prediction
from xstilts.tasks import metrics
from xstilts.tasks.task import FAMILY_VERSION, Family, Task

Ids = tuple[int, ...]

QUESTION = 64
"""Sub-words of a question that are read (run_squad's max_query_length, as in XTREME and jiant)."""
LONGEST = 30
"""Sub-words of the longest answer (run_squad's max_answer_length)."""
N_BEST = 20
"""Spans that share the probability mass of a prediction's score (run_squad's n_best_size)."""


class SpanQA:
    """Columns: id by `item`, question, context, answers (struct of the lists text and answer_start).

    Prediction: the answer's text, cut from the passage; score: its probability among the 20 best spans.
    A task whose labels are ("answerable", "unanswerable") (SQuAD v2) may be answered with "".
    """

    VERSION: int = FAMILY_VERSION[Family.SPAN_QA]
    metrics: tuple[str, ...] = ("squad", "exact_match", "f1")

    def examples(self, task: Task, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """See `FamilyCode`; the published `id` is the item."""
        named = task
        if "id" in task.columns and "item" not in task.columns:
            named = task.model_copy(update={"columns": {**task.columns, "item": task.columns["id"]}})
        return [
            Example(
                item=name.item,
                inputs={word: columns.text(task, row, number, word) for word in ("question", "context")},
                gold=_gold(task, row, number),
                cluster=name.cluster,
                parallel_id=name.parallel_id,
            )
            for number, (row, name) in enumerate(zip(rows, columns.identities(named, rows), strict=True))
        ]

    def encode(
        self, task: Task, examples: Sequence[Example], tokenizer: Any, length: Length, training: bool
    ) -> list[Feature]:
        """See `FamilyCode`. A window begins every `doc_stride` sub-words, but at least every half window,
        so that answers at a border are whole in the next; at 384/128, as published, nothing changes.
        """
        frame = subwords.Frame.of(tokenizer, pair=True)
        room = length.max_length - frame.size
        if room < 8:
            raise JobFileError(
                f"a length of {length.max_length} leaves {max(room, 0)} sub-words for question and passage",
                f"set max_length to {frame.size + 8} or more",
            )
        questions = _encodings(tokenizer, [example.inputs["question"] for example in examples])
        passages = _encodings(tokenizer, [example.inputs["context"] for example in examples])
        found: list[Feature] = []
        for number, example in enumerate(examples):
            question = questions[example.inputs["question"]][0][: min(QUESTION, room // 2)]
            ids, offsets = passages[example.inputs["context"]]
            span = _answer_span(task, example, offsets) if training else None
            size = room - len(question)
            begin = len(frame.before) + len(question) + len(frame.between)
            for first in _window_starts(len(ids), size, min(length.doc_stride, max(1, size // 2))):
                own = ids[first : first + size]
                sequence, types = frame.around(question, own)
                keep = subwords.types_kept((types,))
                if not training:  # offsets of 88,000 training windows would take gigabytes
                    keep.update(offsets=offsets, first=first, begin=begin, count=len(own))
                target = _in_window(span, first, len(own), begin) if training else None
                found.append(Feature(number, (sequence,), target, keep))
        return found

    def collate(self, features: Sequence[Feature], pad_id: int) -> Batch:
        """See `FamilyCode`; target (n, 2): first and last position of the answer, 0 and 0 where it is not."""
        batch = batching.padded(features, pad_id)
        if features[0].target is not None:
            batch["target"] = torch.tensor([feature.target for feature in features])
        return batch

    def head(self, task: Task, width: int, dropout: float) -> nn.Module:
        """One linear layer to two logits a position, without dropout, as in BERT's SQuAD head."""
        return heads.LinearHead(width, 2, 0.0)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits (n, length, 2) of being the first and the last sub-word of the answer."""
        logits: Tensor = heads.head_of(model)(heads.encoded(model, batch).last_hidden_state)
        return logits

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Mean of the cross-entropies of both ends summed over windows, and the number of windows."""
        logits = self.forward(model, batch).float()
        logits = logits.masked_fill(batch["attention_mask"][:, :, None] == 0, float("-inf"))
        ends = functional.cross_entropy(logits, batch["target"], reduction="sum")
        return ends / 2, torch.tensor(float(len(logits)), device=logits.device)

    def decode(
        self, task: Task, examples: Sequence[Example], features: Sequence[Feature], outputs: Sequence[Tensor]
    ) -> list[Prediction]:
        """The best span of all windows; "" where the task allows it and <s> scores higher."""
        spans: list[list[tuple[float, str]]] = [[] for _ in examples]
        null = [float("inf")] * len(examples)
        for feature, logits in zip(features, outputs, strict=True):
            own = logits.numpy().astype(np.float64)
            null[feature.example] = min(null[feature.example], float(own[0].sum()))
            begin, count = feature.keep["begin"], feature.keep["count"]
            context = examples[feature.example].inputs["context"]
            offsets = feature.keep["offsets"][feature.keep["first"] : feature.keep["first"] + count]
            for score, first, last in best_spans(own[begin : begin + count]):
                words = context[offsets[first][0] : offsets[last][1]].strip()
                if words:
                    spans[feature.example].append((score, words))
        allowed = answers.may_be_null(task)
        return [
            _best(example.item, found, nothing if allowed else None)
            for example, found, nothing in zip(examples, spans, null, strict=True)
        ]

    def items(
        self, task: Task, examples: Sequence[Example], predictions: Mapping[str, Any], language: str
    ) -> list[dict[str, Any]]:
        """Columns em and f1, each 0..1, the better of the gold answers."""
        found = []
        for example in examples:
            golds = [gold["text"] for gold in columns.require_gold(task, example, "score")]
            exact, f1 = answers.compare(task, predictions.get(example.item), golds, language)
            found.append({**columns.item_row(example), "em": exact, "f1": f1})
        return found

    def score(self, task: Task, sums: Mapping[str, Any]) -> dict[str, Any]:
        """See `tasks.metrics`."""
        return metrics.from_sums(task.metric, sums)


def best_spans(logits: np.ndarray[Any, Any]) -> list[tuple[float, int, int]]:
    """The 20 best spans of at most 30 sub-words, best first, of logits (sub-words, 2): (score, first, last).

    All spans are compared, where run_squad pairs the 20 best starts with the 20 best ends, which may miss the
    best span or hold none (5 of 300 random windows differ). Of equals the earliest, then the shortest.
    """
    if not len(logits):
        return []
    ends = np.concatenate([logits[:, 1], np.full(LONGEST - 1, -np.inf)])
    sums = (logits[:, :1] + np.lib.stride_tricks.sliding_window_view(ends, LONGEST)).ravel()
    keep = min(N_BEST, int(np.isfinite(sums).sum()))
    least = np.partition(sums, -keep)[-keep]
    near = np.flatnonzero(sums >= least)
    near = near[np.argsort(-sums[near], kind="stable")][:keep]
    return [(float(sums[one]), int(one) // LONGEST, int(one) // LONGEST + int(one) % LONGEST) for one in near]


def _best(item: str, spans: list[tuple[float, str]], null: float | None) -> Prediction:
    """The best of `spans`, or "" where `null` (the score of no answer) is allowed and higher."""
    ranked = sorted(spans, key=lambda span: -span[0])[:N_BEST]
    if null is not None:
        ranked = sorted([*ranked, (null, "")], key=lambda span: -span[0])
    if not ranked:  # a passage of nothing but spaces
        return Prediction(item, "", 0.0)
    scores = np.array([score for score, _ in ranked])
    return Prediction(item, ranked[0][1], float(1.0 / np.exp(scores - scores[0]).sum()))


def _gold(task: Task, row: Mapping[str, Any], number: int) -> list[dict[str, Any]] | None:
    """Gold answers as [{"text", "start"}]; [] where there is none, None where they are withheld."""
    if "answers" not in task.columns:
        return None
    path = task.columns["answers"]
    if columns.column(task, row, number, path) is None:
        return None
    texts = columns.column(task, row, number, f"{path}.text")
    starts = columns.column(task, row, number, f"{path}.answer_start")
    return [{"text": text, "start": start} for text, start in zip(texts, starts, strict=True)]


def _encodings(tokenizer: Any, texts: Sequence[str]) -> dict[str, tuple[Ids, np.ndarray[Any, Any]]]:
    """Each distinct text to its ids and character offsets (sub-words, 2), without special tokens.

    Distinct: a passage of SQuAD serves five questions.
    """
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        return {}
    encoded = tokenizer(distinct, add_special_tokens=False, verbose=False).encodings
    return {
        text: (tuple(one.ids), np.array(one.offsets, dtype=np.int64).reshape(-1, 2))
        for text, one in zip(distinct, encoded, strict=True)
    }


def _window_starts(count: int, size: int, step: int) -> range:
    """First sub-words of the windows of `size` that cover `count`, each `step` after the one before."""
    return range(0, max(count - size, 0) + step, step) if count > size else range(1)


def _answer_span(task: Task, example: Example, offsets: np.ndarray[Any, Any]) -> tuple[int, int] | None:
    """First and last sub-word of the first gold answer; None where there is none.

    Raises:
        DataError: the answer is not where the data say, or is missing and the task has one everywhere.
    """
    golds = columns.require_gold(task, example, "train on")
    if not golds:
        if answers.may_be_null(task):
            return None
        raise DataError(f"row {example.item} of {task.name} has no answer", "use rows that have one")
    text, start = golds[0]["text"], golds[0]["start"]
    if example.inputs["context"][start : start + len(text)] != text:
        raise DataError(
            f"row {example.item} of {task.name} says that {text!r} is at character {start}, and it is not",
            "pull the data again, or correct `answer_start`",
        )
    inside = np.flatnonzero((offsets[:, 1] > start) & (offsets[:, 0] < start + len(text)))
    return (int(inside[0]), int(inside[-1])) if len(inside) else None


def _in_window(span: tuple[int, int] | None, first: int, count: int, begin: int) -> tuple[int, int]:
    """The answer's positions in a window's sequence; (0, 0), which is <s>, where it is not whole in it."""
    if span is None or span[0] < first or span[1] >= first + count:
        return 0, 0
    return span[0] - first + begin, span[1] - first + begin


CODE: FamilyCode = SpanQA()
