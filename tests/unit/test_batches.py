"""Batches are a function of (seed, step): every feature once an epoch, new orders, little padding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from training_kit import collate, features, finetuning

from xstilts.families.base import Batch, Feature
from xstilts.train.batches import FineTuning, Pretraining, steps_of


def numbers(batches: FineTuning, epoch: int) -> list[int]:
    """Features of one epoch, in order."""
    per_epoch = batches.steps_per_epoch
    steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
    return [int(each) for step in steps for micro in batches.micro(step) for each in micro["number"]]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 40), st.integers(0, 5))
def test_an_epoch_is_a_permutation_of_all_features(count: int, effective: int, micro: int, seed: int) -> None:
    batches = finetuning(count, epochs=2, effective=effective, micro=micro, seed=seed)
    assert batches.steps == 2 * math.ceil(count / effective)
    for epoch in (0, 1):
        assert sorted(numbers(batches, epoch)) == list(range(count))
    sizes = [[len(part["number"]) for part in batches.micro(step)] for step in range(batches.steps_per_epoch)]
    assert all(sum(each) == effective for each in sizes[:-1])
    assert all(part <= micro for each in sizes for part in each)


def test_every_epoch_has_a_new_order_and_another_seed_another() -> None:
    batches = finetuning(100, epochs=4)
    orders = [tuple(numbers(batches, epoch)) for epoch in range(4)]
    assert len(set(orders)) == 4
    assert tuple(numbers(finetuning(100, epochs=4, seed=4), 0)) not in orders


def test_small_data_are_not_cut_into_the_same_batches_each_epoch() -> None:
    batches = finetuning(120, epochs=2, effective=6)
    first, second = ({frozenset(part.tolist()) for part in batches.order(epoch)} for epoch in (0, 1))
    assert len(first & second) <= 2


def test_a_step_is_the_same_whatever_was_asked_before() -> None:
    one, other = finetuning(50, epochs=3), finetuning(50, epochs=3)
    steps = list(range(one.steps))
    forward = [one.micro(step)[0]["number"].tolist() for step in steps]
    backward = [other.micro(step)[0]["number"].tolist() for step in reversed(steps)]
    assert forward == backward[::-1]


def test_the_split_over_micro_batches_does_not_change_what_a_step_sees() -> None:
    whole, parts = finetuning(50, effective=10, micro=10), finetuning(50, effective=10, micro=3)
    for step in range(whole.steps):
        seen = [int(each) for micro in parts.micro(step) for each in micro["number"]]
        assert seen == whole.micro(step)[0]["number"].tolist()


def test_little_is_padding() -> None:
    lengths = np.random.default_rng(0).lognormal(3.2, 0.5, 6400).astype(int) + 3
    long = [Feature(index, ((5,) * int(length),), 0) for index, length in enumerate(lengths)]
    batches = FineTuning(long, 1, 32, 32, 1, collate)
    cells = sum(micro["input_ids"].numel() for step in range(batches.steps) for micro in batches.micro(step))
    assert 1 - lengths.sum() / cells < 0.05  # in random order it is 0.53


@pytest.mark.parametrize(
    ("epochs", "steps"), [(0.01, 1), (0.25, 1), (0.3, 2), (1, 4), (1.1, 5), (3, 12), (0.1 * 3, 2)]
)
def test_epochs_may_be_fractions(epochs: float, steps: int) -> None:
    assert steps_of(16, epochs, 4) == (steps, 4)


def unmasked(rows: torch.Tensor, generator: torch.Generator) -> Batch:
    """Hides nothing, but draws."""
    return {"input_ids": rows, "draw": torch.rand(len(rows), generator=generator)}


def pretraining(exponent: float = 0.5, per_device: int = 8) -> Pretraining:
    """Two languages: 400 sentences of ids from 100 and 25 from 500."""
    texts = {
        "big": [[100 + index % 50] * (1 + index % 5) for index in range(400)],
        "small": [[500 + index] * 3 for index in range(25)] + [[]],
    }
    return Pretraining(
        texts, steps=50, batch=8, per_device_batch=per_device, length=12, exponent=exponent, seed=1, begin=0,
        end=2, mask=unmasked,
    )  # fmt: skip


def test_languages_are_drawn_by_their_exponent() -> None:
    batches = pretraining()
    assert batches.probabilities.tolist() == pytest.approx([0.8, 0.2])
    rows = np.concatenate([batches.rows(step) for step in range(400)])
    assert (rows[:, 1] < 500).mean() == pytest.approx(0.8, abs=0.02)
    assert pretraining(exponent=0).probabilities.tolist() == [0.5, 0.5]


def test_a_crop_is_full_begins_at_a_sentence_and_stays_in_its_language() -> None:
    batches = pretraining()
    rows = np.concatenate([batches.rows(step) for step in range(200)])
    assert rows.shape == (1600, 12) and (rows[:, 0] == 0).all() and (rows[:, 1] >= 100).all()
    text = np.where(rows == 2, 0, rows)[:, 1:]
    assert all((row[row > 0] < 500).all() or (row[row > 0] >= 500).all() for row in text)
    assert {int(row[1]) for row in rows} >= set(range(500, 525))


def test_pretraining_steps_are_independent_of_one_another_and_of_the_split() -> None:
    whole, parts = pretraining(), pretraining(per_device=3)
    for step in (17, 3, 17):
        got = [part for part in parts.micro(step)]
        assert [len(part["draw"]) for part in got] == [3, 3, 2]
        for name, expected in whole.micro(step)[0].items():
            assert torch.equal(torch.cat([part[name] for part in got]), expected)
    assert not np.array_equal(whole.rows(3), whole.rows(4))


def test_nothing_to_train_on_is_said() -> None:
    with pytest.raises(ValueError, match="no features"):
        FineTuning([], 1, 4, 4, 0, collate)
    assert len(features(3)) == 3
