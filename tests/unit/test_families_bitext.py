"""Bitext mining: margins and pairs beside a slow reading of the procedure, and the threshold from dev."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_encoder import Model, tokenizer

from xstilts.errors import DataError, JobFileError
from xstilts.families import batching, bitext_mining, code_of, originals
from xstilts.families.base import Example, Feature, Length, Prediction
from xstilts.families.bitext_mining import kept, mine, threshold
from xstilts.tasks.task import Family, Task

TASK = Task(
    name="bucc2018", family=Family.BITEXT_MINING, roles=("target",), metric="set_f1", languages=("de",),
    columns={"item": "id", "text": "text", "side": "side", "gold": "gold"}, source="-", licence="-",
)  # fmt: skip
CODE = code_of(Family.BITEXT_MINING)


def row(name: str, text: str, gold: Sequence[str] | None = None) -> dict[str, Any]:
    side = "english" if gold is None else "foreign"
    return {"id": name, "text": text, "side": side, "gold": None if gold is None else list(gold)}


def foreign(*gold: Sequence[str]) -> list[Example]:
    return CODE.examples(TASK, [row(f"de-{n}", f"Satz {n}", ids) for n, ids in enumerate(gold)])


def unit(rows: int, seed: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(rows, 6))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def mined_slowly(foreign: np.ndarray, english: np.ndarray) -> list[tuple[int, int, float]]:
    """The procedure pair by pair."""
    cosines = foreign @ english.T
    mean = [np.sort(line)[-4:].mean() for line in cosines]
    back = [np.sort(line)[-4:].mean() for line in cosines.T]

    def margin(one: int, other: int) -> float:
        return float(cosines[one, other] / ((mean[one] + back[other]) / 2))

    proposals = []
    for one, line in enumerate(cosines):
        proposals.append((one, max(np.argsort(-line)[:4], key=lambda other: margin(one, other))))
    for other, line in enumerate(cosines.T):
        proposals.append((max(np.argsort(-line)[:4], key=lambda one: margin(one, other)), other))
    found: list[tuple[int, int, float]] = []
    for one, other in sorted(proposals, key=lambda pair: -margin(*pair)):
        if all(one != taken and other != gone for taken, gone, _ in found):
            found.append((int(one), int(other), margin(one, other)))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_mining_is_the_procedure_pair_by_pair(seed: int) -> None:
    one, other = np.abs(unit(30, seed)), np.abs(unit(41, 100 + seed))
    found, wanted = mine(one, other), mined_slowly(one, other)
    assert [pair[:2] for pair in found] == [pair[:2] for pair in wanted]
    np.testing.assert_allclose([pair[2] for pair in found], [pair[2] for pair in wanted], rtol=1e-5)
    assert len({pair[0] for pair in found}) == len({pair[1] for pair in found}) == len(found) <= 30


def test_the_margin_is_the_cosine_over_the_mean_of_both_sides_means() -> None:
    """One foreign sentence: its cosines 1, 0.8, 0.6 and 0; every English sentence has one neighbour only."""
    found = mine(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8], [0.0, 1.0]]))
    # Forward mean 0.6; the best margin is 1 / ((0.6 + 1) / 2) = 1.25, of the first.
    assert found == [(0, 0, pytest.approx(1.25))]


def test_fewer_sentences_than_neighbours_and_cosines_of_nothing() -> None:
    assert mine(unit(1, 0), unit(1, 0)) == [(0, 0, pytest.approx(1.0))]
    across = mine(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    assert across == [(0, 0, 0.0)]


def test_equal_sentences_are_mined_once_and_their_ids_all_listed() -> None:
    rows = [
        row("de-1", "gleich", ["en-1"]), row("de-2", "anders", []), row("de-3", " gleich ", ["en-3"]),
        row("en-1", "same"), row("en-2", "other"), row("en-3", "same "),
    ]  # fmt: skip
    vectors = torch.tensor([[1, 0.1], [0, 1], [1, 0.1], [1, 0], [0.1, 1], [1, 0]])
    examples = CODE.examples(TASK, rows)
    features = [Feature(n, ((0,),), keep={"side": each.inputs["side"]}) for n, each in enumerate(examples)]
    said = CODE.decode(TASK, examples, features, list(vectors))
    assert [(made.item, made.prediction) for made in said] == [
        ("de-1", ["en-1", "en-3"]),
        ("de-2", ["en-2"]),
        ("de-3", ["en-1", "en-3"]),
    ]
    assert said[0].score == said[2].score > 1
    items = CODE.items(TASK, examples, kept(said, 0.0), "de")
    assert [(one["item"], one["tp"], one["n_pred"], one["n_gold"]) for one in items] == [
        ("de-1", 1, 2, 1), ("de-2", 0, 1, 0), ("de-3", 1, 2, 1),
    ]  # fmt: skip
    assert CODE.decode(TASK, examples[:3], features[:3], list(vectors[:3])) == []


def best_by_hand(gold: list[Example], said: list[Prediction]) -> float:
    """The greatest F1 of any cut that keeps equal margins together."""
    pairs = {(example.item, one) for example in gold for one in example.gold or ()}
    best = 0.0
    for cut in {made.score for made in said}:
        taken = {(made.item, one) for made in said if made.score >= cut for one in made.prediction}
        best = max(best, 2 * len(taken & pairs) / (len(taken) + len(pairs)))
    return best


def f1(gold: list[Example], chosen: dict[str, tuple[str, ...]]) -> float:
    items = CODE.items(TASK, gold, chosen, "de")
    sums = {name: sum(one[name] for one in items) for name in ("tp", "n_pred", "n_gold")}
    return float(CODE.score(TASK, sums | {"items": len(items)})["set_f1"]) / 100


def test_the_threshold_is_midway_after_the_best_cut() -> None:
    gold = foreign(["en-0"], ["en-1"], ["en-2"], [])
    said = [Prediction(f"de-{n}", [f"en-{n}"], 1.5 - n / 4) for n in range(4)]
    said[2] = Prediction("de-2", ["en-9"], 1.0)
    assert threshold(gold, said) == pytest.approx(1.125)  # the first two are right, of three
    assert kept(said, threshold(gold, said)) == {"de-0": ("en-0",), "de-1": ("en-1",)}
    assert f1(gold, kept(said, 1.125)) == pytest.approx(0.8)
    as_read = {made.item: (made.prediction[0], made.score) for made in said}
    assert threshold(gold, as_read) == threshold(gold, said)
    assert kept(as_read, 1.2) == kept(said, 1.2)


def test_the_threshold_when_every_pair_is_right() -> None:
    """The benchmark's code looks for the margin after the last one here, and dies."""
    gold = foreign(["en-0"], ["en-1"])
    said = [Prediction("de-0", ["en-0"], 1.3), Prediction("de-1", ["en-1"], 1.1)]
    assert threshold(gold, said) == 1.1 and len(kept(said, 1.1)) == 2
    assert threshold(gold, said[:1]) == 1.3


def test_the_threshold_without_pairs_and_without_right_ones() -> None:
    gold = foreign(["en-0"], [])
    assert threshold(gold, []) == threshold(gold, {}) == 0.0 == threshold([], [])
    assert threshold(gold, [Prediction("de-1", ["en-0"], 1.2)]) == 0.0
    assert threshold(foreign([], []), [Prediction("de-1", ["en-0"], 1.2)]) == 0.0


def test_pairs_of_equal_margin_are_kept_together_or_not_at_all() -> None:
    gold = foreign(["en-0"], ["en-1"], [])
    said = [Prediction(f"de-{n}", [f"en-{n}"], margin) for n, margin in enumerate([1.4, 1.2, 1.2])]
    assert threshold(gold, said) == 1.2  # 2 of 3 beats 1 of 1; stopping between equals is no choice
    close = np.nextafter(1.0, 2.0)
    near = [Prediction("de-0", ["en-0"], float(close)), Prediction("de-2", ["en-7"], 1.0)]
    assert kept(near, threshold(gold, near)) == {"de-0": ("en-0",)}


def test_no_cut_is_better_than_the_one_found() -> None:
    draw = np.random.default_rng(7)
    for size, _ in itertools.product((1, 2, 5, 40), range(30)):
        gold = foreign(*[[f"en-{n}"] if draw.random() < 0.6 else [] for n in range(size)])
        said = [
            Prediction(f"de-{n}", [f"en-{n if draw.random() < 0.7 else 99}"], float(draw.integers(8)) / 4)
            for n in range(size)
        ]
        assert f1(gold, kept(said, threshold(gold, said))) == pytest.approx(best_by_hand(gold, said))


def test_clusters_are_blocks_of_foreign_sentences_and_sides_are_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bitext_mining, "CLUSTER", 2)
    rows = [row("de-0", "a", []), row("en-0", "b"), row("de-1", "c", []), row("de-2", "d", [])]
    assert [each.cluster for each in CODE.examples(TASK, rows)] == ["0", "en-0", "0", "1"]
    with pytest.raises(DataError, match="row 1 of bucc2018 has 'left' where its side belongs"):
        CODE.examples(TASK, [rows[0], {**rows[1], "side": "left"}])
    unlabelled = CODE.examples(TASK, [{**rows[0], "gold": None}])
    with pytest.raises(DataError, match="no gold label to score"):
        CODE.items(TASK, unlabelled, {}, "de")
    with pytest.raises(JobFileError, match="bucc2018 has nothing to train"):
        CODE.encode(TASK, unlabelled, tokenizer(), Length(), True)


def test_the_whole_way_from_published_files(mirror: Path) -> None:
    files = [mirror / "files/bucc2018" / f"zh-en.dev.{kind}.gz" for kind in ("zh", "en", "gold")]
    rows = originals.READERS["bucc"](files)
    every = CODE.examples(TASK, rows)
    assert sum(len(example.gold or ()) for example in every) == 257
    examples = [*every[:60], *every[8624:8700]]
    features = CODE.encode(TASK, examples, tokenizer(), Length(), False)
    outputs = batching.outputs_of(Model(None, layer=1), CODE, features, 1, 32, "cpu", "fp32")
    said = CODE.decode(TASK, examples, features, outputs)
    assert 0 < len(said) <= 60 and all(made.item.startswith("zh-") for made in said)
    cut = threshold(examples, said)
    assert len(CODE.items(TASK, examples, kept(said, cut), "zh")) == 60
