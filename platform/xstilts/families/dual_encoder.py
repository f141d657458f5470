"""Dual encoders (LAReQA, Mewsli-X): one encoder for queries and documents, trained against its own batch.

As XTREME-R trains them: the first token through a pooler (dense, tanh), scaled to length 1; products times a
learned scale that begins at 100; cross entropy of each query's own document among the batch's. Two things
differ. Negatives come from the whole effective batch and not from what fits one GPU at a time (4 of 16 for
LAReQA), so that the result does not depend on the machine. And a document that the batch has twice is no
negative of itself: Mewsli-X trains on 167,719 mentions of 101,193 entities.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xstilts.errors import DataError
from xstilts.families import batching, columns, heads, pooling, subwords
from xstilts.families.base import Batch, Example, FamilyCode, Feature, Length, Prediction, initialise
from xstilts.families.nearest import Nearest
from xstilts.tasks import metrics
from xstilts.tasks.task import FAMILY_VERSION, Family, Task

RANKS = metrics.RANKS
"""Documents that a prediction lists."""
SCALE = 100.0
"""Where the learned scale begins."""
QUERY_SHARE = (3, 11)
"""A query's part of `Length.max_length` where documents have a context: 96 of XTREME-R's 352 for LAReQA."""
DOCUMENT = "document_"
"""What the document's tensors in a training batch begin with."""


class DualHead(nn.Module):
    """(n, width) first-token vectors -> (n, width) vectors of length 1, and the scale of their products."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.tensor(SCALE))
        initialise(self)

    def forward(self, first: Tensor) -> Tensor:
        """Unit vectors (n, width), float32 under autocast too."""
        pooled: Tensor = functional.normalize(torch.tanh(self.dense(first)).float(), dim=1)
        return pooled


class DualEncoder:
    """Columns, by kind of row: training rows have query and document; reported rows item, query and targets
    (items of right candidates); candidates item and document. `context`, where the task names it, is read
    with the document as the second of a pair.

    Prediction: the items of the twenty nearest documents, nearest first; score: the product of the first.
    Reported rows are compared with candidates by `evaluate.dense`; `decode` compares training rows with one
    another's documents, so that a checkpoint can be chosen.
    """

    VERSION: int = FAMILY_VERSION[Family.DUAL_ENCODER]
    metrics: tuple[str, ...] = ("map@20",)
    whole_batches: bool = True
    """A batch's loss is no sum over its examples: it must not be split into micro-batches."""

    def examples(self, task: Task, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """See `FamilyCode`; gold is a tuple of candidates' items, None for candidates. A training row's is
        the item of the first row with the same document."""
        kind = _kind(task, rows)
        named = {word: path for word, path in task.columns.items() if kind == "reported" or word != "cluster"}
        if rows and named.get("item", "").partition(".")[0] not in rows[0]:
            named.pop("item", None)
        names = columns.identities(task.model_copy(update={"columns": named}), rows)
        sides = list(_SIDES[kind])
        sides += ["context"] if "document" in sides and "context" in task.columns else []
        owners: dict[tuple[str, ...], str] = {}
        found = []
        for number, (row, name) in enumerate(zip(rows, names, strict=True)):
            inputs = {side: columns.text(task, row, number, side) for side in sides}
            gold: tuple[str, ...] | None = None
            if kind == "reported":
                gold = _targets(task, row, number)
            elif kind == "training":
                gold = (owners.setdefault(_document(inputs), name.item),)
            found.append(Example(name.item, inputs, gold, name.cluster, name.parallel_id))
        return found

    def encode(
        self, task: Task, examples: Sequence[Example], tokenizer: Any, length: Length, training: bool
    ) -> list[Feature]:
        """See `FamilyCode`. Training: one feature an example, its query and its document, the target being a
        number that equal documents share. Else one feature a side, keep["side"]; equal documents once.

        Lengths: with a context, max_length is for both sides together, 3/11 of it the query's (352: 96 and
        256); without, each side may have it (64 and 64).
        """
        longest = _lengths(task, length)
        if training:
            return _trained(task, examples, tokenizer, longest)
        found = []
        asking = [number for number, example in enumerate(examples) if "query" in example.inputs]
        texts = [examples[number].inputs["query"] for number in asking]
        encoded = subwords.encode_texts(tokenizer, texts, None, longest[0])
        for number, (ids, kinds) in zip(asking, encoded, strict=True):
            found.append(Feature(number, (ids,), None, {"side": "query", **subwords.types_kept((kinds,))}))
        first: dict[tuple[str, ...], int] = {}
        for number, example in enumerate(examples):
            if "document" in example.inputs:
                # Candidates are told apart by item; two with one text are two candidates.
                own = (example.item,) if example.gold is None else _document(example.inputs)
                first.setdefault(own, number)
        places = list(first.values())
        encoded = _encoded_documents(tokenizer, [examples[place] for place in places], longest[1])
        for number, (ids, kinds) in zip(places, encoded, strict=True):
            found.append(Feature(number, (ids,), None, {"side": "document", **subwords.types_kept((kinds,))}))
        return found

    def collate(self, features: Sequence[Feature], pad_id: int) -> Batch:
        """input_ids, attention_mask (n, length); training features add document_input_ids and so on, padded
        on their own, and target (n,)."""
        if features[0].target is None:
            return batching.padded(features, pad_id)
        batch = batching.padded([_part(feature, 0) for feature in features], pad_id)
        documents = batching.padded([_part(feature, 1) for feature in features], pad_id)
        batch.update({DOCUMENT + name: tensor for name, tensor in documents.items()})
        batch["target"] = torch.tensor([feature.target for feature in features], dtype=torch.int64)
        return batch

    def head(self, task: Task, width: int, dropout: float) -> nn.Module:
        """See `FamilyCode`; a pooler has no dropout."""
        return DualHead(width)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Unit vectors (n, width) of `input_ids`; of a training batch, those of its queries."""
        vectors: Tensor = heads.head_of(model)(heads.encoded(model, batch).last_hidden_state[:, 0])
        return vectors

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """See `FamilyCode`: each query's own document among those of the batch, equal ones left out."""
        own = {
            name.removeprefix(DOCUMENT): tensor for name, tensor in batch.items() if name.startswith(DOCUMENT)
        }
        queries, documents = self.forward(model, batch), self.forward(model, own)
        with torch.autocast(queries.device.type, enabled=False):  # bf16 times 100 would be off by 0.4
            products = queries @ documents.T * heads.head_of(model).scale
            target = batch["target"]
            same = (target[:, None] == target[None, :]).fill_diagonal_(False)
            products = products.masked_fill(same, -torch.inf)
            labels = torch.arange(len(target), device=products.device)
            total = functional.cross_entropy(products, labels, reduction="sum")
        return total, torch.tensor(float(len(target)), device=total.device)

    def decode(
        self, task: Task, examples: Sequence[Example], features: Sequence[Feature], outputs: Sequence[Tensor]
    ) -> list[Prediction]:
        """Queries of training rows among the documents of the same rows; of equals the lowest row.

        Raises:
            DataError: the examples have no documents: reported rows are compared by `evaluate.dense`.
        """
        sides = {side: _places(features, side) for side in ("query", "document")}
        if not sides["query"]:
            return []
        if not sides["document"]:
            problem = f"the queries of {task.name} came without the documents to compare them with"
            raise DataError(problem, "this is a fault of the step; please report it")
        items = [examples[features[place].example].item for place in sides["document"]]
        search = Nearest(pooling.unit([outputs[place] for place in sides["query"]]), RANKS)
        search.add(pooling.unit([outputs[place] for place in sides["document"]]), 0)
        rows, products = search.result()
        return [
            Prediction(examples[features[place].example].item, [items[row] for row in ranked], float(best))
            for place, ranked, best in zip(sides["query"], rows, products[:, 0], strict=True)
        ]

    def items(
        self, task: Task, examples: Sequence[Example], predictions: Mapping[str, Any], language: str
    ) -> list[dict[str, Any]]:
        """Column ap: average precision of the first twenty; its divisor is the number of targets or twenty,
        whichever is less. An item that is listed twice counts where it is first."""
        found = []
        for example in examples:
            targets = set(columns.require_gold(task, example, "score"))
            ranked = predictions.get(example.item)
            ranked = [] if ranked is None else [str(one) for one in ranked]
            found.append({**columns.item_row(example), "ap": metrics.average_precision(ranked, targets)})
        return found

    def score(self, task: Task, sums: Mapping[str, Any]) -> dict[str, Any]:
        """See `tasks.metrics`."""
        return metrics.from_sums(task.metric, sums)


_SIDES: dict[str, tuple[str, ...]] = {
    "training": ("query", "document"),
    "reported": ("query",),
    "candidate": ("document",),
}


def _kind(task: Task, rows: Sequence[Mapping[str, Any]]) -> str:
    """What the rows are, by the columns that the first has.

    Raises:
        DataError: they are of no kind.
    """
    if not rows:
        return "training"
    here = {word for word, path in task.columns.items() if path.partition(".")[0] in rows[0]}
    if {"query", "targets"} <= here:
        return "reported"
    if {"query", "document"} <= here:
        return "training"
    if {"item", "document"} <= here:
        return "candidate"
    problem = f"rows of {task.name} have {', '.join(sorted(rows[0]))}"
    remedy = (
        "training rows need query and document, reported ones query and targets, candidates item and document"
    )
    raise DataError(problem, remedy)


def _targets(task: Task, row: Mapping[str, Any], number: int) -> tuple[str, ...]:
    value = columns.column(task, row, number, task.columns["targets"])
    if isinstance(value, str) or not isinstance(value, Sequence):
        problem = f"row {number} of {task.name} has {value!r} where a list of targets belongs"
        raise DataError(problem, "pull the data again or mend `columns` of the task")
    return tuple(str(one) for one in value)


def _document(inputs: Mapping[str, Any]) -> tuple[str, ...]:
    """What makes two documents one."""
    return (inputs["document"], inputs.get("context", ""))


def _lengths(task: Task, length: Length) -> tuple[int, int]:
    """Longest query and longest document, in sub-words."""
    if "context" not in task.columns:
        return length.max_length, length.max_length
    query = length.max_length * QUERY_SHARE[0] // QUERY_SHARE[1]
    return query, length.max_length - query


def _encoded_documents(
    tokenizer: Any, examples: Sequence[Example], longest: int
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Ids and token types of each document, as a pair with its context where there is one."""
    texts = [example.inputs["document"] for example in examples]
    pairs = [example.inputs["context"] for example in examples if "context" in example.inputs]
    return subwords.encode_texts(tokenizer, texts, pairs or None, longest)


def _trained(
    task: Task, examples: Sequence[Example], tokenizer: Any, longest: tuple[int, int]
) -> list[Feature]:
    """Training features of pairs.

    Raises:
        DataError: an example lacks its query or its document.
    """
    for example in examples:
        if not {"query", "document"} <= set(example.inputs):
            problem = f"row {example.item} of {task.name} has no query with its document to train on"
            raise DataError(problem, "train on rows with both columns")
    queries = subwords.encode_texts(
        tokenizer, [example.inputs["query"] for example in examples], None, longest[0]
    )
    documents = _encoded_documents(tokenizer, examples, longest[1])
    return [
        Feature(
            number,
            (queries[number][0], documents[number][0]),
            _number(example.inputs),
            subwords.types_kept((queries[number][1], documents[number][1])),
        )
        for number, example in enumerate(examples)
    ]


def _number(inputs: Mapping[str, Any]) -> int:
    """63 bits of a digest: equal for equal documents, else by chance in one of 10^13 batches of 1,000."""
    text = "\0".join(_document(inputs)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def _part(feature: Feature, which: int) -> Feature:
    """One of a feature's two sequences as a feature."""
    kinds = feature.keep.get("types")
    keep = {} if kinds is None else {"types": (kinds[which],)}
    return Feature(feature.example, (feature.input_ids[which],), None, keep)


def _places(features: Sequence[Feature], side: str) -> list[int]:
    return [place for place, feature in enumerate(features) if feature.keep["side"] == side]


CODE: FamilyCode = DualEncoder()
