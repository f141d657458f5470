"""The batches of optimiser step t, as a pure function of (seed, t): resuming needs only the step's number.

Sequences of like length share a batch, so that little is padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from xstilts.families.base import Batch, Feature
from xstilts.frozen import stream

BUCKET = 50
"""Batches that are sorted by length together. Whole-epoch sorting would put one length in each batch and so
make gradients of neighbouring steps alike; Hugging Face's length-grouped sampler takes 50 as well."""

Ints = NDArray[np.int64]

IDLE = "idle"
"""A key of batches that repeat an example so that every rank computes equally often: they count nothing."""


class Deal(NamedTuple):
    """Whose part of a step's examples: those of one rank of several that train together."""

    rank: int = 0
    ranks: int = 1


ALL = Deal()


class Batches(Protocol):
    """What the loop trains on."""

    steps: int
    """Optimiser steps in all."""
    steps_per_epoch: int

    def micro(self, step: int, deal: Deal = ALL) -> list[Batch]:
        """The micro-batches of optimiser step `step` (from 0), on the CPU; one gradient for all of them.

        Every rank of a deal gets equally many, and together they get each example once.
        """
        ...


def dealt(count: int, size: int, deal: Deal = ALL) -> list[tuple[slice, bool]]:
    """Which of `count` examples are in each micro-batch of a rank, at most `size` in one; True: it is idle.

    Several ranks split a step evenly, however large `size` is. Micro-batches are dealt in turn, so that
    where examples are sorted by length no rank gets only long ones.
    """
    size = min(size, math.ceil(count / deal.ranks))
    starts = range(0, count, size)
    turns = range(deal.rank, math.ceil(len(starts) / deal.ranks) * deal.ranks, deal.ranks)
    return [
        (slice(starts[turn], starts[turn] + size), False) if turn < len(starts) else (slice(0, 1), True)
        for turn in turns
    ]


def marked(batch: Batch, idle: bool) -> Batch:
    """The batch, with the mark of those that count nothing."""
    return {**batch, IDLE: torch.zeros(1)} if idle else batch


def steps_of(features: int, epochs: float, effective_batch: int) -> tuple[int, int]:
    """(optimiser steps in all, in one epoch); `epochs` may be a fraction, and there is at least one step."""
    per_epoch = max(1, math.ceil(features / effective_batch))
    return max(1, math.ceil(round(epochs * per_epoch, 9))), per_epoch


class FineTuning:
    """Each epoch is a new permutation of all features, each exactly once; the last batch may be smaller."""

    def __init__(
        self,
        features: Sequence[Feature],
        epochs: float,
        effective_batch: int,
        per_device_batch: int,
        seed: int,
        collate: Callable[[Sequence[Feature]], Batch],
        whole: bool = False,
    ) -> None:
        """`whole`: a step's features are compared with each other and never split, not even over ranks."""
        if not features:
            raise ValueError("no features to train on")
        self.features = features
        self.effective_batch = effective_batch
        self.per_device_batch = min(per_device_batch, effective_batch)
        self.seed = seed
        self.collate = collate
        self.whole = whole
        self.steps, self.steps_per_epoch = steps_of(len(features), epochs, effective_batch)
        self._lengths: Ints = np.fromiter((each.length for each in features), np.int64, len(features))
        self._order: tuple[int, list[Ints]] = (-1, [])

    def order(self, epoch: int) -> list[Ints]:
        """Indices of the features of each optimiser step of `epoch`, longest first within a step."""
        if self._order[0] != epoch:  # only one epoch's is kept: memory stays flat
            self._order = (epoch, self._shuffled(epoch))
        return self._order[1]

    def micro(self, step: int, deal: Deal = ALL) -> list[Batch]:
        """The micro-batches of optimiser step `step`."""
        epoch, position = divmod(step, self.steps_per_epoch)
        chosen = self.order(epoch)[position].tolist()
        if self.whole:
            parts = [(slice(0, 1), True) if deal.rank else (slice(0, len(chosen)), False)]
        else:
            parts = dealt(len(chosen), self.per_device_batch, deal)
        return [
            marked(self.collate([self.features[index] for index in chosen[part]]), idle)
            for part, idle in parts
        ]

    def _shuffled(self, epoch: int) -> list[Ints]:
        size = self.effective_batch
        draw = np.random.default_rng([stream(self.seed, "order"), epoch])
        permutation = draw.permutation(len(self.features))
        whole = len(permutation) // size * size
        # The rest is taken at random before sorting, or the shortest would come last in every epoch.
        rest = self._longest_first(permutation[whole:])
        # Four buckets at least, or a small set would be cut into the same batches every epoch.
        bucket = size * max(1, min(BUCKET, whole // size // 4))
        batches: list[Ints] = []
        for start in range(0, whole, bucket):
            part = self._longest_first(permutation[start : min(start + bucket, whole)])
            batches += np.split(part, len(part) // size)
        # Batches of all buckets are mixed, so that lengths do not fall from long to short again and again.
        mixed = [batches[index] for index in draw.permutation(len(batches))]
        return [*mixed, rest] if len(rest) else mixed

    def _longest_first(self, indices: Ints) -> Ints:
        return indices[np.argsort(-self._lengths[indices], kind="stable")]


class Pretraining:
    """Crops of raw text: each row draws a language, p proportional to n^exponent, and a sentence to begin at.

    Sentences follow one another, each closed by </s>, so that every row is full and nothing is padding.
    """

    def __init__(
        self,
        texts: Mapping[str, Sequence[Sequence[int]] | Sequence[NDArray[np.int32]]],
        *,
        steps: int,
        batch: int,
        per_device_batch: int,
        length: int,
        exponent: float,
        seed: int,
        begin: int,
        end: int,
        mask: Callable[[torch.Tensor, torch.Generator], Batch],
    ) -> None:
        """`texts`: language -> sentences as sub-word ids without special tokens. `mask` takes ids
        (n, length) int64 and a generator, and makes a batch of tensors that all have n rows."""
        kept = {language: [ids for ids in every if len(ids)] for language, every in sorted(texts.items())}
        kept = {language: every for language, every in kept.items() if every}
        if not kept:
            raise ValueError("no text to pretrain on")
        self.steps, self.batch, self.length = steps, batch, length
        self.per_device_batch = min(per_device_batch, batch)
        self.seed, self.begin, self.mask = seed, begin, mask
        self.languages = list(kept)
        counts = np.array([len(every) for every in kept.values()], dtype=np.float64)
        self.probabilities = counts**exponent / (counts**exponent).sum()
        self._flat = [_packed(every, end, length) for every in kept.values()]
        rows = sum(len(flat) for flat, _ in self._flat) / (length - 1)
        self.steps_per_epoch = max(1, math.ceil(rows / batch))
        """As many sub-words as the text has; rows are drawn with replacement."""

    def micro(self, step: int, deal: Deal = ALL) -> list[Batch]:
        """The micro-batches of optimiser step `step`, masked anew."""
        generator = torch.Generator().manual_seed(stream(self.seed, f"mask/{step}"))
        whole = self.mask(torch.from_numpy(self.rows(step)), generator)
        parts = dealt(self.batch, self.per_device_batch, deal)
        return [marked({name: rows[part] for name, rows in whole.items()}, idle) for part, idle in parts]

    def rows(self, step: int) -> Ints:
        """Unmasked ids (batch, length) of step `step`."""
        draw = np.random.default_rng([stream(self.seed, "order"), step])
        languages = draw.choice(len(self.languages), self.batch, p=self.probabilities)
        where = draw.random(self.batch)
        rows = np.empty((self.batch, self.length), np.int64)
        rows[:, 0] = self.begin
        for row, (language, share) in enumerate(zip(languages.tolist(), where.tolist(), strict=True)):
            flat, starts = self._flat[language]
            start = starts[int(share * len(starts))]
            rows[row, 1:] = flat[start : start + self.length - 1]
        return rows


def _packed(
    texts: Sequence[Sequence[int] | NDArray[np.int32]], end: int, length: int
) -> tuple[NDArray[np.int32], Ints]:
    """All sentences in one array, each closed by `end`, and where each begins. The beginning is repeated
    after the last sentence, so that a crop may start at any of them."""
    closed = [np.array([*ids, end], np.int32) for ids in texts]
    flat = np.concatenate(closed)
    starts: Ints = np.cumsum([0, *(len(each) for each in closed[:-1])], dtype=np.int64)
    again: Any = np.resize(flat, length)
    return np.concatenate([flat, again]), starts
