"""Mixed-effects regression: planted slopes come back, nothing planted is found as often as alpha says."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import pandas
import pytest
from scipy import stats

from xstilts.report.studies import mixed
from xstilts.report.studies.leaving_out import leave_out

RANDOM = [mixed.Random("language", "language"), mixed.Random("task", "task")]


def cells(
    seed: int,
    languages: int = 12,
    tasks: int = 4,
    slope: float = 0.0,
    spread: float = 2.0,
    noise: float = 1.0,
) -> pandas.DataFrame:
    """One value a (task, language), a fifth of them missing; x and z are properties of languages."""
    random = numpy.random.default_rng(seed)
    x, z = random.normal(size=(2, languages))
    own, level = random.normal(0, spread, languages), random.normal(0, 4.0, tasks)
    rows = [
        (f"t{t}", f"l{i}", x[i], z[i], slope * x[i] + own[i] + level[t] + random.normal(0, noise))
        for t in range(tasks)
        for i in range(languages)
        if random.random() < 0.8
    ]
    return pandas.DataFrame(rows, columns=["task", "language", "x", "z", "y"])


def likeness(x: numpy.ndarray, y: numpy.ndarray) -> Callable[[numpy.ndarray], float]:
    """A statistic for units whose x change places."""
    return lambda order: abs(float(numpy.corrcoef(x[order], y)[0, 1]))


def p_of(table: pandas.DataFrame) -> float:
    found = mixed.fit(table, "y", ["x", "z"], RANDOM)
    assert found is not None, "Powell's method is there for what gradients cannot do"
    return found.test(["x", "z"], table.language.nunique() - 3)[1]


@pytest.mark.parametrize("spread", [2.0, 0.0], ids=["languages differ", "languages do not"])
def test_nothing_is_found_where_nothing_is_planted(spread: float) -> None:
    times = 80
    found = sum(p_of(cells(seed, spread=spread)) < 0.05 for seed in range(times))
    assert found <= stats.binom.ppf(0.999, times, 0.05)


def test_a_normal_approximation_over_rows_would_find_far_too_much() -> None:
    """What the degrees of freedom are for: least squares without random effects takes rows for languages."""
    times, found = 60, 0
    for seed in range(times):
        table = cells(seed, spread=4.0)
        slope = stats.linregress(table.x, table.y - table.groupby("task").y.transform("mean"))
        found += slope.pvalue < 0.05
    assert found > stats.binom.ppf(0.999, times, 0.05)


def test_a_planted_slope_comes_back_inside_its_interval() -> None:
    times, inside, shown = 40, 0, 0
    for seed in range(times):
        table = cells(seed, languages=20, slope=2.0)
        found = mixed.fit(table, "y", ["x", "z"], RANDOM)
        assert found is not None
        _, interval = found.slope("x", table.language.nunique() - 3)
        inside += interval.holds(2.0)
        shown += interval.low > 0
    assert inside >= stats.binom.ppf(0.001, times, 0.95) and shown > times * 0.8


def test_variances_are_found() -> None:
    table = cells(1, languages=60, tasks=12)
    found = mixed.fit(table, "y", ["x"], RANDOM)
    assert found is not None
    assert found.variances["language"] == pytest.approx(4.0, rel=0.5)
    assert found.variances["residual"] == pytest.approx(1.0, rel=0.2)
    assert 0.0 <= found.explained <= 0.2


def test_the_permutation_keeps_its_rate_and_finds_what_is_there() -> None:
    random = numpy.random.default_rng(5)
    times, found = 200, 0
    for _ in range(times):
        x, y = random.normal(size=(2, 10))
        found += mixed.permuted(likeness(x, y), 10, 0, 200) < 0.05
    assert found <= stats.binom.ppf(0.999, times, 0.05)
    x = numpy.arange(10.0)
    assert mixed.permuted(lambda order: abs(numpy.corrcoef(x[order], x)[0, 1]), 10, 0) == pytest.approx(
        1 / 2001
    )


def test_left_out_languages_are_foretold_only_where_there_is_something_to_know() -> None:
    known = leave_out(cells(1, languages=30, slope=5.0), "y", ["x"], "task", "language")
    nothing = leave_out(cells(2, languages=30), "y", ["x", "z"], "task", "language")
    assert known is not None and nothing is not None
    assert known.r2 > 0.6 and known.interval.low > 0.2 and known.left_out == 30
    assert nothing.r2 < 0, "what says nothing foretells worse than the task means"
    assert leave_out(cells(1, languages=2), "y", ["x"], "task", "language") is None
