"""Regression with random effects: slopes when languages, tasks and runs could have been others.

Variances are estimated by REML (statsmodels' MixedLM; crossed effects are variance components of one group).
Slopes and their covariance follow from them by generalised least squares. A predictor that is a property of
languages is judged by the number of languages, or of families where related languages share an effect, not of
rows: tests are F and t with the degrees of freedom that its units leave (units - 1 - predictors), the
between-within rule, where a normal approximation with ten languages would claim too much. Measured on frames
in which nothing is planted: see tests/unit/test_mixed.py and test_similarity.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy
import pandas
from numpy.typing import NDArray
from scipy import stats
from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

from xstilts.report.clusters import Floats
from xstilts.report.intervals import Interval

OPTIMISERS = ["bfgs", "lbfgs", "powell"]
"""Tried in this order until one converges; gradients fail where a variance is zero, Powell then does not."""
PERMUTATIONS = 2_000


@dataclass(frozen=True, slots=True)
class Random:
    """One random effect: an intercept for each level of a factor, or a slope where `slope` names a column."""

    name: str
    factor: str
    slope: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """A fitted regression."""

    names: tuple[str, ...]
    """Fixed effects, "1" for the intercept first."""
    slopes: Floats
    covariance: Floats
    variances: Mapping[str, float]
    """Of each random effect, and "residual"."""
    fixed_variance: float
    """Of what the fixed effects predict."""
    rows: int

    def test(self, names: Sequence[str], df: float) -> tuple[float, float]:
        """F and p of "all these slopes are zero"; `df` in the denominator."""
        at = [self.names.index(name) for name in names]
        some = self.slopes[at]
        wald = some @ numpy.linalg.solve(self.covariance[numpy.ix_(at, at)], some)
        statistic = float(wald / len(at))
        return statistic, float(stats.f.sf(statistic, len(at), df))

    def slope(self, name: str, df: float) -> tuple[float, Interval]:
        """One slope and its 95 % interval."""
        at = self.names.index(name)
        value = float(self.slopes[at])
        half = float(stats.t.ppf(0.975, df) * numpy.sqrt(self.covariance[at, at]))
        return value, Interval(value - half, value + half)

    @property
    def explained(self) -> float:
        """Share of all variance that the fixed effects predict (marginal R2, Nakagawa & Schielzeth 2013)."""
        total = self.fixed_variance + sum(self.variances.values())
        return self.fixed_variance / total if total > 0 else 0.0


def fit(table: pandas.DataFrame, response: str, fixed: Sequence[str], random: Sequence[Random]) -> Fit | None:
    """REML fit of `response` on an intercept and the columns `fixed`; None where it does not converge.

    A variance that comes out as zero is an answer (that effect is not needed), not a failure.
    """
    y = table[response].to_numpy(dtype=numpy.float64)
    names = ("1", *fixed)
    x = numpy.column_stack([numpy.ones(len(table)), *(table[name].to_numpy(dtype=float) for name in fixed)])
    parts = {each.name: _columns(table, each) for each in random}
    ratios = _ratios(y, x, parts)
    if ratios is None:
        return None
    v = numpy.eye(len(y))
    for name, z in parts.items():
        v += ratios[name] * z @ z.T
    weighed = numpy.linalg.solve(v, x)
    information = x.T @ weighed
    slopes = numpy.linalg.solve(information, weighed.T @ y)
    left = y - x @ slopes
    scale = float(left @ numpy.linalg.solve(v, left)) / (len(y) - x.shape[1])
    # A random slope's share of the variance depends on its column: the mean square of it.
    spread = {name: scale * ratios[name] * float((z**2).sum() / len(y)) for name, z in parts.items()}
    predicted = float(numpy.var(x[:, 1:] @ slopes[1:]))
    covariance = scale * numpy.linalg.inv(information)
    return Fit(names, slopes, covariance, {**spread, "residual": scale}, predicted, len(y))


def _columns(table: pandas.DataFrame, effect: Random) -> Floats:
    """(rows, levels): which level a row has, times its slope's value."""
    numbers, levels = pandas.factorize(table[effect.factor])
    columns = numpy.zeros((len(table), len(levels)))
    slope = table[effect.slope].to_numpy(dtype=float) if effect.slope else 1.0
    columns[numpy.arange(len(table)), numbers] = slope
    return columns


def _ratios(y: Floats, x: Floats, parts: Mapping[str, Floats]) -> dict[str, float] | None:
    """Variance of each random effect over that of the residual; none without effects: least squares."""
    names = list(parts)
    if not names:
        return {}
    columns = [[f"{name}[{i}]" for i in range(parts[name].shape[1])] for name in names]
    spec = VCSpec(names, [[each] for each in columns], [[parts[name]] for name in names])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of variances on the boundary: said by their value, zero
        try:
            model = MixedLM(y, x, groups=numpy.zeros(len(y)), exog_vc=spec)
            found = model.fit(reml=True, method=OPTIMISERS)
        except (numpy.linalg.LinAlgError, ValueError):
            return None
    variances = numpy.asarray(found.vcomp, dtype=float)
    if not found.converged or not numpy.isfinite(variances).all() or not found.scale > 0:
        return None
    return {
        name: float(max(value, 0.0) / found.scale)
        for name, value in zip(model.exog_vc.names, variances, strict=True)
    }


def permuted(
    statistic: Callable[[NDArray[numpy.int64]], float], units: int, seed: int, times: int = PERMUTATIONS
) -> float:
    """p of a statistic, larger is stranger, of `statistic(order)` when units change places: the fallback
    where no mixed model converges."""
    generator = numpy.random.default_rng(seed)
    observed = statistic(numpy.arange(units))
    as_far = sum(statistic(generator.permutation(units)) >= observed * (1 - 1e-12) for _ in range(times))
    return (as_far + 1) / (times + 1)
