"""Scaling curves: a saturating power law against simpler rules, by AICc, with bootstrap bands.

    constant      gain = a
    log-linear    gain = a + b log2(x)
    power law     gain = a - b x^-c        x: data in units of the smallest subset, 0.05 <= c <= 4

x counts from the smallest subset, so that b is what that subset lacks of the ceiling a. AICc (Hurvich & Tsai
1989) counts the error variance as a parameter and takes one mean a (subset, seed) as a point. Points of one
seed are not independent, so a small difference in AICc decides nothing; the bands redraw seeds as wholes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy
from scipy.optimize import OptimizeWarning, curve_fit

from xstilts.report.clusters import Floats

EXPONENTS = (0.05, 4.0)
GRID = numpy.geomspace(*EXPONENTS, 60)
"""Exponents that a band's curves are looked for among: 7 % apart."""
LIMIT = 300.0
"""Bounds of a and b, in points: three times what there is to gain."""
POWER, LOG, CONSTANT = "power law", "log-linear", "constant"


@dataclass(frozen=True, slots=True)
class Curve:
    """The fits to one set of points."""

    best: str
    """Of the rules, the one with the least AICc."""
    aicc: Mapping[str, float]
    """Rule -> AICc; NaN where there are too few points for it."""
    a: float
    """Of the power law; NaN where it could not be fitted."""
    b: float
    c: float
    line: tuple[float, float]
    """Of the log-linear rule."""
    mean: float
    smallest: float
    """The smallest subset's share of the data."""

    @property
    def at_bound(self) -> bool:
        """Whether the exponent is at one of its bounds, and with it a and b are not to be read."""
        return any(math.isclose(self.c, end, rel_tol=0.01) for end in EXPONENTS)

    def at(self, shares: Floats) -> Floats:
        """The best rule's gain with these shares of the data."""
        x = shares / self.smallest
        if self.best == POWER:
            return self.a - self.b * x**-self.c
        if self.best == LOG:
            return self.line[0] + self.line[1] * numpy.log2(x)
        return numpy.full(len(shares), self.mean)


def fit(shares: Floats, gains: Floats) -> Curve:
    """Fits all three rules; `shares` and `gains` have one entry a point."""
    smallest = float(shares.min())
    x = shares / smallest
    slope, level = numpy.polyfit(numpy.log2(x), gains, 1)
    mean = float(gains.mean())
    a, b, c = _power(x, gains)
    errors = {
        CONSTANT: (gains - mean, 1),
        LOG: (gains - level - slope * numpy.log2(x), 2),
        POWER: (gains - a + b * x**-c, 3),
    }
    aicc = {name: _aicc(left, count) for name, (left, count) in errors.items()}
    known = {name: value for name, value in aicc.items() if not math.isnan(value)}
    best = min(known, key=lambda name: known[name]) if known else CONSTANT
    return Curve(best, aicc, a, b, c, (float(level), float(slope)), mean, smallest)


def _power(x: Floats, gains: Floats) -> tuple[float, float, float]:
    """a, b and c by bounded least squares, from the best exponent of a grid."""
    if len(numpy.unique(x)) < 4:
        return math.nan, math.nan, math.nan
    start = _profile(x, gains[None])[0]
    low, high = [-LIMIT, -LIMIT, EXPONENTS[0]], [LIMIT, LIMIT, EXPONENTS[1]]
    first = numpy.clip(start, low, high)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OptimizeWarning)  # of covariances, which are not used
        try:
            found, _ = curve_fit(_law, x, gains, p0=first, bounds=(low, high))
        except RuntimeError:
            found = first
    return float(found[0]), float(found[1]), float(found[2])


def _law(x: Floats, a: float, b: float, c: float) -> Floats:
    return a - b * x**-c


def _profile(x: Floats, rows: Floats) -> Floats:
    """(rows, 3): a, b, c of each of `rows`, (rows, points), by least squares at every exponent of GRID."""
    best = numpy.full(len(rows), numpy.inf)
    found = numpy.zeros((len(rows), 3))
    for exponent in GRID:
        design = numpy.column_stack([numpy.ones(len(x)), -(x**-exponent)])
        solved = numpy.linalg.lstsq(design, rows.T, rcond=None)[0]
        error = ((rows.T - design @ solved) ** 2).sum(axis=0)
        better = error < best
        best[better] = error[better]
        found[better] = numpy.column_stack([solved.T, numpy.full(len(rows), exponent)])[better]
    return found


def band(rule: str, shares: Floats, draws: Floats, at: Floats) -> tuple[Floats, Floats]:
    """Ends of the pointwise 95 % band of a rule at the shares `at`; `draws`: (draws, subsets), redrawn means
    at `shares`."""
    x, wanted = shares / shares.min(), at / shares.min()
    if rule == POWER:
        found = _profile(x, draws)
        curves = found[:, :1] - found[:, 1:2] * wanted[None, :] ** -found[:, 2:]
    elif rule == LOG:
        slope, level = numpy.polyfit(numpy.log2(x), draws.T, 1)
        curves = level[:, None] + slope[:, None] * numpy.log2(wanted)[None, :]
    else:
        curves = numpy.repeat(draws.mean(axis=1)[:, None], len(at), axis=1)
    low, high = numpy.quantile(curves, [0.025, 0.975], axis=0)
    return low, high


def _aicc(left: Floats, parameters: int) -> float:
    """NaN where there are too few points."""
    n, k = len(left), parameters + 1
    if n - k - 1 <= 0 or numpy.isnan(left).any():
        return math.nan
    error = max(float((left**2).sum()) / n, 1e-12)
    return n * math.log(error) + 2 * k + 2 * k * (k + 1) / (n - k - 1)
