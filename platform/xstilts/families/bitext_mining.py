"""Translations found in two piles of sentences (BUCC): no head and no training, the encoder as it is.

The procedure is jiant's (the code of Phang et al. 2020): cosines, the ratio margin over the four nearest of
both sides, candidates of both directions, one-to-one by score. The benchmark's own code keeps dev's pairs
for test and uses a threshold that it never sets; it is no model for this.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from xstilts.errors import DataError, JobFileError
from xstilts.families import batching, columns, pooling, subwords
from xstilts.families.base import Batch, Example, FamilyCode, Feature, Length, Prediction
from xstilts.families.nearest import Nearest
from xstilts.tasks import metrics
from xstilts.tasks.task import FAMILY_VERSION, Family, Task

NEIGHBOURS = 4
"""Nearest sentences of the other side that a margin compares with."""
CLUSTER = 200
"""Foreign sentences, in published order, that are resampled together: BUCC gives no documents, and drawing
each of a hundred thousand sentences of its own would take long."""
ON_GPU = 10**10
"""Pairs from which on mining uses a GPU if there is one: of 1,024 numbers each, so many take a CPU core eight
minutes (bench/search.py), and BUCC's test has more. The result is the same on either."""

Found = Sequence[Prediction] | Mapping[str, tuple[Any, float]]
"""Mined pairs: predictions, or foreign id -> (English id or ids, margin)."""


class BitextMining:
    """Columns: item, text, side ("foreign" or "english") and gold (English ids; None in English rows).

    Prediction: for each foreign sentence that was mined, the ids of its English sentence: more than one only
    where that sentence occurs more than once. Score: the margin. All mined pairs are kept; `threshold` finds
    the cut on dev, `kept` applies it, and `items` counts what it is given.
    """

    VERSION: int = FAMILY_VERSION[Family.BITEXT_MINING]
    metrics: tuple[str, ...] = metrics.METRICS["set_f1"]

    def examples(self, task: Task, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """See `FamilyCode`; gold is a tuple of English ids for foreign sentences, None for English ones."""
        found, foreign = [], 0
        for number, (row, name) in enumerate(zip(rows, columns.identities(task, rows), strict=True)):
            words = {word: columns.text(task, row, number, word) for word in ("text", "side")}
            if words["side"] not in ("foreign", "english"):
                problem = f"row {number} of {task.name} has {words['side']!r} where its side belongs"
                raise DataError(problem, 'the sides are "foreign" and "english"')
            gold, cluster = None, name.cluster
            if words["side"] == "foreign":
                listed = columns.column(task, row, number, task.columns["gold"])
                gold = None if listed is None else tuple(str(one) for one in listed)
                cluster, foreign = str(foreign // CLUSTER), foreign + 1
            found.append(Example(name.item, words, gold, cluster))
        return found

    def encode(
        self, task: Task, examples: Sequence[Example], tokenizer: Any, length: Length, training: bool
    ) -> list[Feature]:
        """See `FamilyCode`; keep["side"] is the example's."""
        if training:
            raise self._untrainable(task.name)
        texts = [example.inputs["text"] for example in examples]
        encoded = subwords.encode_texts(tokenizer, texts, None, length.max_length)
        return [
            Feature(number, (ids,), None, {"side": examples[number].inputs["side"]})
            for number, (ids, _) in enumerate(encoded)
        ]

    def collate(self, features: Sequence[Feature], pad_id: int) -> Batch:
        """See `FamilyCode`."""
        return batching.padded(features, pad_id)

    def head(self, task: Task, width: int, dropout: float) -> None:
        """None: the encoder is used as it is."""
        return

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Vectors (n, width), as of `Family.RETRIEVAL`.

        Raises:
            ModelError: the encoder has no layer `model.layer`.
        """
        return pooling.mean_of_layer(model, batch)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """There is none: a task of this family is never trained.

        Raises:
            JobFileError: always.
        """
        raise self._untrainable("bitext mining")

    def decode(
        self, task: Task, examples: Sequence[Example], features: Sequence[Feature], outputs: Sequence[Tensor]
    ) -> list[Prediction]:
        """One prediction for each foreign sentence that was mined, in their order; the others have none."""
        own = {feature.example: output for feature, output in zip(features, outputs, strict=True)}
        foreign, english = (_unified(examples, side) for side in ("foreign", "english"))
        if not foreign or not english:
            return []
        vectors = [pooling.unit([own[places[0]] for places in side]) for side in (foreign, english)]
        large = len(foreign) * len(english) >= ON_GPU and torch.cuda.is_available()
        found = {}
        for one, other, margin in mine(vectors[0], vectors[1], "cuda" if large else "cpu"):
            ids = [examples[place].item for place in english[other]]
            found.update({place: Prediction(examples[place].item, ids, margin) for place in foreign[one]})
        return [found[place] for place in sorted(found)]

    def items(
        self, task: Task, examples: Sequence[Example], predictions: Mapping[str, Any], language: str
    ) -> list[dict[str, Any]]:
        """One row a foreign sentence: tp, n_pred, n_gold. `predictions`: foreign id -> English id or ids."""
        found = []
        for example in examples:
            if example.inputs["side"] != "foreign":
                continue
            gold = set(columns.require_gold(task, example, "score"))
            said = set(_ids(predictions.get(example.item, ())))
            counts = {"tp": len(said & gold), "n_pred": len(said), "n_gold": len(gold)}
            found.append({**columns.item_row(example), **counts})
        return found

    def score(self, task: Task, sums: Mapping[str, Any]) -> dict[str, Any]:
        """See `tasks.metrics`."""
        return metrics.from_sums(task.metric, sums)

    @staticmethod
    def _untrainable(name: str) -> JobFileError:
        return JobFileError(
            f"{name} has nothing to train: it uses the encoder as it is",
            "name it among the targets, not among the intermediate tasks",
        )


def mine(
    foreign: np.ndarray[Any, Any], english: np.ndarray[Any, Any], device: torch.device | str = "cpu"
) -> list[tuple[int, int, float]]:
    """Pairs (foreign row, English row, margin), best first, each row in at most one pair.

    `foreign` (n, width) and `english` (m, width) have unit length and no two equal sentences. The margin of a
    pair is its cosine over the mean of two means: of the foreign sentence's four greatest cosines and of the
    English one's. Each sentence of either side proposes, of its four nearest, that with the greatest margin;
    proposals are taken by margin, of equals foreign ones first, in order of rows.
    """
    ahead, ahead_cosines = _neighbours(foreign, english, device)
    back, back_cosines = _neighbours(english, foreign, device)
    means, back_means = ahead_cosines.mean(1), back_cosines.mean(1)
    margins = _ratio(ahead_cosines, means[:, None], back_means[ahead])
    back_margins = _ratio(back_cosines, back_means[:, None], means[back])
    best, back_best = margins.argmax(1), back_margins.argmax(1)
    rows, back_rows = np.arange(len(foreign)), np.arange(len(english))
    ones = np.concatenate([rows, back[back_rows, back_best]])
    others = np.concatenate([ahead[rows, best], back_rows])
    scores = np.concatenate([margins[rows, best], back_margins[back_rows, back_best]])
    return _one_to_one(ones, others, scores)


def threshold(examples: Sequence[Example], predictions: Found) -> float:
    """The margin from which on (inclusive) mined pairs are kept, so that F1 against `examples` is greatest.

    Midway to the next lower margin; the lowest margin itself when all are kept. Pairs of equal margin stay
    together. Of equally good cuts the one that keeps least. 0 where no mined pair is right.
    """
    gold = {example.item: set(example.gold) for example in examples if example.gold is not None}
    total = sum(len(ids) for ids in gold.values())
    ranked = sorted(_scored(predictions), key=lambda pair: -pair[2])
    taken = right = 0
    best, best_of, cut = 0, 1, 0.0  # F1 = 2 * best / best_of, compared without division
    for place, (item, ids, margin) in enumerate(ranked):
        taken += len(ids)
        right += len(gold.get(item, set()).intersection(ids))
        following = ranked[place + 1][2] if place + 1 < len(ranked) else None
        if following == margin or right * best_of <= best * (taken + total):
            continue
        best, best_of = right, taken + total
        middle = margin if following is None else (margin + following) / 2
        cut = margin if following is not None and middle <= following else middle  # neighbouring floats
    return cut


def kept(predictions: Found, threshold: float) -> dict[str, tuple[str, ...]]:
    """Foreign id -> English ids of the mined pairs whose margin is at least `threshold`."""
    return {item: ids for item, ids, margin in _scored(predictions) if margin >= threshold}


def _scored(predictions: Found) -> Iterable[tuple[str, tuple[str, ...], float]]:
    """Foreign id, English ids and margin of each."""
    if isinstance(predictions, Mapping):
        return [(item, _ids(said), margin) for item, (said, margin) in predictions.items()]
    return [(made.item, _ids(made.prediction), made.score) for made in predictions]


def _ids(said: Any) -> tuple[str, ...]:
    return (said,) if isinstance(said, str) else tuple(said)


def _unified(examples: Sequence[Example], side: str) -> list[list[int]]:
    """Places of the examples of one side, those with the same text together, by first occurrence."""
    found: dict[str, list[int]] = {}
    for place, example in enumerate(examples):
        if example.inputs["side"] == side:
            found.setdefault(example.inputs["text"].strip(), []).append(place)
    return list(found.values())


def _neighbours(
    queries: np.ndarray[Any, Any], documents: np.ndarray[Any, Any], device: torch.device | str
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    search = Nearest(queries, NEIGHBOURS, device)
    search.add(documents, 0)
    return search.result()


def _ratio(
    cosines: np.ndarray[Any, Any], one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """cosine / mean of two means; where that is 0, the cosine is divided by the least positive number that
    its rounding tells from 0."""
    mean = (one + other) / 2
    ratio: np.ndarray[Any, Any] = cosines / np.where(mean == 0, 1e-7, mean)
    return ratio


def _one_to_one(
    ones: np.ndarray[Any, Any], others: np.ndarray[Any, Any], scores: np.ndarray[Any, Any]
) -> list[tuple[int, int, float]]:
    """Proposals taken greedily, best first, while both of a pair are free."""
    seen: set[int] = set()
    seen_others: set[int] = set()
    found = []
    for place in np.argsort(-scores, kind="stable").tolist():
        one, other = int(ones[place]), int(others[place])
        if one not in seen and other not in seen_others:
            seen.add(one)
            seen_others.add(other)
            found.append((one, other, float(scores[place])))
    return found


CODE: FamilyCode = BitextMining()
