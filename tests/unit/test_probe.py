"""Measures of vectors beside values worked out by hand and beside other implementations of the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats
from sklearn.linear_model import BayesianRidge, Ridge

from xstilts.evaluate import probe

RNG = np.random.default_rng(7)


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape)


def test_cka_of_three_points_by_hand() -> None:
    one, two = np.array([[1.0], [2.0], [4.0]]), np.array([[0.0], [1.0], [5.0]])
    # Of one column a side it is the squared correlation: centred (-4, -1, 5)/3 and (-2, -1, 3).
    assert probe.cka(one, two) == pytest.approx((8 + 1 + 15) ** 2 / ((16 + 1 + 25) * (4 + 1 + 9)))


def test_cka_knows_no_rotation_no_scale_and_no_offset() -> None:
    vectors = noise(40, 6)
    turn, _ = np.linalg.qr(noise(6, 6, seed=1))
    for measure in (probe.cka, probe.debiased_cka):
        assert measure(vectors, 3 * vectors @ turn + 5) == pytest.approx(1.0)
        assert measure(vectors, vectors * np.array([1, 1, 1, 1, 1, 30.0])) < 0.9
    assert np.isnan(probe.cka(vectors, np.ones((40, 3))))


def test_cka_of_fewer_sentences_than_dimensions_is_biased_and_the_other_is_not() -> None:
    pairs = [(noise(50, 400, seed=2 * i), noise(50, 400, seed=2 * i + 1)) for i in range(8)]
    assert min(probe.cka(*pair) for pair in pairs) > 0.8
    assert abs(np.mean([probe.debiased_cka(*pair) for pair in pairs])) < 0.02


def test_debiased_hsic_is_the_mean_over_all_choices_of_four() -> None:
    """Song et al. 2012: the U-statistic whose kernel is over four different sentences."""
    from itertools import permutations

    one, two = noise(6, 3, seed=1), noise(6, 2, seed=2)
    first, second = probe._without_diagonal(one), probe._without_diagonal(two)
    wanted = np.mean(
        [
            first[i, j] * (second[i, j] + second[k, m] - 2 * second[i, k])
            for i, j, k, m in permutations(range(6), 4)
        ]
    )
    assert probe._hsic(first, second) == pytest.approx(wanted)


def test_retrieval_by_hand() -> None:
    one = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])
    two = np.array([[5.0, 1.0], [1.0, 9.0], [9.0, 1.0], [-2.0, 0.1]])
    # There: rows 1 and 3 are right; row 0 is nearer to (9, 1), row 2 to (5, 1). Back: 0, 1 and 3 are right.
    assert probe.retrieval(one, two) == pytest.approx(100 * (2 / 4 + 3 / 4) / 2)


def test_of_equal_vectors_one_is_found() -> None:
    assert probe.retrieval(np.ones((5, 3)), np.ones((5, 3))) == pytest.approx(20.0)


def test_vocabulary_by_hand() -> None:
    assert probe.vocabulary_overlap([[1, 2, 2], [3]], [[3, 4], [1]]) == pytest.approx(2 / 4)
    assert np.isnan(probe.vocabulary_overlap([[]], [[]]))


def evidence(vectors: Any, wanted: Any) -> float:
    """The largest log evidence per row, by a general optimiser on the marginal Gaussian."""
    product, rows = vectors @ vectors.T, len(wanted)

    def minus(logs: Any) -> float:
        alpha, beta = np.exp(logs)
        spread = np.eye(rows) / beta + product / alpha
        return -float(stats.multivariate_normal.logpdf(wanted, np.zeros(rows), spread)) / rows

    found = optimize.minimize(minus, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-9})
    return -float(found.fun)


@pytest.mark.parametrize(("rows", "width"), [(60, 5), (30, 45)])
def test_logme_is_the_greatest_evidence_averaged_over_labels(rows: int, width: int) -> None:
    labels = RNG.integers(0, 3, rows)
    vectors = noise(rows, width) + 1.5 * np.eye(3, width)[labels]
    wanted = np.mean([evidence(vectors, (labels == label).astype(float)) for label in range(3)])
    assert probe.logme(vectors, labels) == pytest.approx(wanted, abs=2e-4)


def test_logme_is_what_scikit_learn_makes_of_it() -> None:
    labels = RNG.integers(0, 2, 80)
    vectors = noise(80, 6) + labels[:, None]
    values = []
    for label in (0, 1):
        model = BayesianRidge(
            fit_intercept=False, compute_score=True, tol=1e-8,
            alpha_1=0, alpha_2=0, lambda_1=0, lambda_2=0,
        )  # fmt: skip
        values.append(model.fit(vectors, labels == label).scores_[-1] / 80)
    assert probe.logme(vectors, labels) == pytest.approx(np.mean(values), abs=1e-4)


def test_logme_is_higher_where_labels_can_be_told() -> None:
    labels = RNG.integers(0, 3, 200)
    told, untold = noise(200, 16) + 3 * np.eye(3, 16)[labels], noise(200, 16)
    assert probe.logme(told, labels) > probe.logme(untold, labels) + 0.3
    assert np.isnan(probe.logme(told, np.zeros(200)))


@pytest.mark.parametrize("width", [4, 60])
def test_ridge_is_scikit_learns(width: int) -> None:
    vectors, labels, others = noise(30, width) + 2, RNG.integers(0, 3, 30), noise(9, width, seed=1)
    columns = np.arange(3)
    penalty = np.square(vectors - vectors.mean(0)).sum() / 30
    model = Ridge(alpha=penalty).fit(vectors, np.eye(3)[labels])
    assert probe.ridge(vectors, labels, others, columns) == pytest.approx(model.predict(others))


def test_few_shots_tell_what_can_be_told_and_guess_the_rest() -> None:
    labels = np.repeat([0, 1, 2, 9], [150, 100, 50, 4])
    told = noise(304, 8) + 8 * np.eye(10, 8)[labels % 8]
    value, n = probe.few_shot(told, labels, 8, 3)
    assert value > 95 and n == 300 - 3 * 8, "a label with 4 rows is left out"
    chance, _ = probe.few_shot(noise(304, 8), labels, 8, 20)
    assert chance == pytest.approx(100 / 3, abs=6), "balanced: the commonest label alone is worth a third"
    assert probe.few_shot(told, labels, 8, 3) == (value, n), "draws are the same each time"
    assert np.isnan(probe.few_shot(told, labels, 150, 3)[0])
