"""Measures of vectors that an encoder gives: pure functions over arrays, rows being sentences or words.

alignment of two languages   linear CKA (Kornblith et al. 2019), with and without its bias in small samples;
                             retrieval of translations; shared sub-words
fit of vectors to labels     LogME (You et al. 2021); a few-shot probe, which is closed-form ridge regression
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from xstilts.frozen import stream

Array = np.ndarray[Any, Any]

DIGITS = 7
"""Cosines are rounded to float32's own resolution, as in `families.nearest`: ties go to the first."""
ROUNDS = 100
"""Of LogME's iteration at most; it settles in about ten."""
SETTLED = 1e-6
"""Relative change of the evidence at which it has."""


def cka(one: Array, two: Array) -> float:
    """Linear CKA of two sets of vectors of the same n sentences, 0..1 (Kornblith et al. 2019, section 3).

    With fewer sentences than dimensions it is far above 0 even for vectors that share nothing: see
    `debiased_cka`. NaN where all vectors of a side are equal.
    """
    first, second = _centred(one), _centred(two)
    return _ratio(
        float(np.sum(np.square(first.T @ second))),
        float(np.linalg.norm(first.T @ first) * np.linalg.norm(second.T @ second)),
    )


def debiased_cka(one: Array, two: Array) -> float:
    """Linear CKA from the unbiased estimate of HSIC (Song et al. 2012, eq. 5; Nguyen et al. 2021): about 0
    for unrelated vectors whatever n is, and sometimes below. NaN for fewer than 4 sentences."""
    if len(one) < 4:
        return float("nan")
    first, second = _without_diagonal(one), _without_diagonal(two)
    product = _hsic(first, first) * _hsic(second, second)
    return _ratio(_hsic(first, second), float(np.sqrt(max(product, 0.0))))


def retrieval(one: Array, two: Array) -> float:
    """Percent of vectors whose nearest on the other side, by cosine, is their own translation (the same row);
    mean of both directions."""
    cosines = np.round(_unit(one) @ _unit(two).T, DIGITS)
    own = np.arange(len(cosines))
    there, back = cosines.argmax(1) == own, cosines.argmax(0) == own
    return 50.0 * float(there.mean() + back.mean())


def vocabulary_overlap(one: Iterable[Sequence[int]], two: Iterable[Sequence[int]]) -> float:
    """Jaccard index, 0..1, of the sub-words that occur in two languages' sentences."""
    first, second = ({part for ids in side for part in ids} for side in (one, two))
    return _ratio(float(len(first & second)), float(len(first | second)))


def logme(vectors: Array, labels: Array) -> float:
    """Mean over labels of the log evidence per row that a Bayesian linear model gives to "this label or
    another", maximised over both its precisions (You et al. 2021, algorithm 1; MacKay's fixed point).

    `vectors` (n, width), `labels` (n,) whole numbers. NaN where there is one label only.
    """
    present = np.unique(labels)
    if len(present) < 2:
        return float("nan")
    left, singular, _ = np.linalg.svd(vectors.astype(np.float64), full_matrices=False)
    width = vectors.shape[1]
    values = [_evidence(left, singular, width, (labels == label).astype(np.float64)) for label in present]
    return float(np.mean(values))


def few_shot(vectors: Array, labels: Array, shots: int, draws: int) -> tuple[float, int]:
    """(balanced accuracy in percent, rows that it is over) of a linear probe on `shots` rows of each label.

    Ridge regression on one column a label, with an intercept and a penalty as large as the mean squared
    length of the centred vectors; the largest column is the answer. Mean over `draws`, each on other rows;
    all rows that are not drawn are tested. Draws are the same for every encoder, so that encoders are
    compared on the same rows. Labels with no more than `shots` rows are left out; NaN where fewer than two
    are left.
    """
    present, counts = np.unique(labels, return_counts=True)
    kept = present[counts > shots]
    if len(kept) < 2:
        return float("nan"), 0
    inside = np.isin(labels, kept)
    vectors, labels = vectors[inside].astype(np.float64), labels[inside]
    found = []
    for draw in range(draws):
        rng = np.random.default_rng(stream(draw, "few-shot"))
        chosen = np.concatenate([rng.permutation(np.flatnonzero(labels == label))[:shots] for label in kept])
        tested = np.setdiff1d(np.arange(len(labels)), chosen)
        said = kept[ridge(vectors[chosen], labels[chosen], vectors[tested], kept).argmax(1)]
        right = said == labels[tested]
        found.append(np.mean([right[labels[tested] == label].mean() for label in kept]))
    return 100.0 * float(np.mean(found)), len(labels) - shots * len(kept)


def ridge(vectors: Array, labels: Array, others: Array, columns: Array) -> Array:
    """(others, columns): what ridge regression of "is it this label" on `vectors` says of `others`."""
    mean = vectors.mean(0)
    centred = vectors - mean
    gram = centred @ centred.T
    wanted = (labels[:, None] == columns[None, :]).astype(np.float64)
    offset = wanted.mean(0)
    penalty = max(float(np.trace(gram)) / len(vectors), 1e-12)
    weights = np.linalg.solve(gram + penalty * np.eye(len(gram)), wanted - offset)
    found: Array = (others - mean) @ centred.T @ weights + offset
    return found


def _evidence(left: Array, singular: Array, width: int, wanted: Array) -> float:
    """Log evidence per row for one target, from the singular value decomposition of the vectors."""
    rows = len(wanted)
    inner = left.T @ wanted
    rest = max(float(wanted @ wanted - inner @ inner), 0.0)
    """Of the target's squared length, what lies outside the span of the vectors."""
    squared = singular**2
    alpha = beta = 1.0
    before = -np.inf
    value = before
    for _ in range(ROUNDS):
        shrunk = beta * squared / (alpha + beta * squared)
        gamma = float(shrunk.sum())
        weights = beta * singular * inner / (alpha + beta * squared)
        length = max(float(weights @ weights), 1e-12)
        error = max(float(np.sum(np.square(inner - singular * weights))) + rest, 1e-12)
        value = _log_evidence(alpha, beta, squared, length, error, rows, width) / rows
        if abs(value - before) <= SETTLED * abs(value):
            break
        before = value
        alpha, beta = max(gamma, 1e-12) / length, max(rows - gamma, 1e-12) / error
    return float(value)


def _log_evidence(
    alpha: float, beta: float, squared: Array, length: float, error: float, rows: int, width: int
) -> float:
    determinant = float(np.log(alpha + beta * squared).sum()) + (width - len(squared)) * np.log(alpha)
    gained = rows * np.log(beta) + width * np.log(alpha) - determinant - rows * np.log(2 * np.pi)
    return float(gained - beta * error - alpha * length) / 2


def _centred(vectors: Array) -> Array:
    double = vectors.astype(np.float64)
    centred: Array = double - double.mean(0)
    return centred


def _unit(vectors: Array) -> Array:
    double = vectors.astype(np.float64)
    scaled: Array = double / np.maximum(np.linalg.norm(double, axis=1, keepdims=True), 1e-12)
    return scaled


def _without_diagonal(vectors: Array) -> Array:
    """Products of every two vectors, centred first (which changes no result, and keeps the digits)."""
    centred = _centred(vectors)
    gram: Array = centred @ centred.T
    np.fill_diagonal(gram, 0.0)
    return gram


def _hsic(first: Array, second: Array) -> float:
    """The unbiased estimate, from products without their diagonal."""
    n = len(first)
    trace = float(np.sum(first * second))
    sums = float(first.sum() * second.sum()) / ((n - 1) * (n - 2))
    crossed = 2.0 * float(first.sum(0) @ second.sum(1)) / (n - 2)
    return (trace + sums - crossed) / (n * (n - 3))


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else float("nan")
