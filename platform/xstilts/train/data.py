"""Which training rows are used: nested random fractions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from xstilts.frozen import stream

T = TypeVar("T")


def share(rows: Sequence[T], fraction: float, subset_seed: int) -> list[T]:
    """`fraction` of the rows, rounded up, in published order; of one seed, the larger holds the smaller."""
    kept = math.ceil(round(len(rows) * fraction, 9))
    if kept >= len(rows):
        return list(rows)
    order = np.random.default_rng(stream(subset_seed, "subset")).permutation(len(rows))
    return [rows[index] for index in sorted(order[:kept].tolist())]
