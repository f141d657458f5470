"""How sure a gain is, two ways, both at 95 %.

Items: a paired bootstrap. Units (clusters of items) are drawn with replacement, the same draw for the row
and for `none`, for every seed, and, where items are parallel, for every language; the gain is the mean
over seeds of the difference. It says what other test items would give these very models.

Seeds: Student's t over one mean gain a seed, from three seeds on. It says what other seeds would give, and
is wide with three of them (the factor is 4.3 standard errors, against 2 for many).

Everything is a function of its arguments: the same data give the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy
from numpy.typing import NDArray
from scipy import stats

from xstilts.report.clusters import Floats, Sample
from xstilts.tasks import metrics

LEVEL = 0.95
RESAMPLES = 10_000
"""The ends of a 95 % interval then wobble by about 0.7 % of its width from draw to draw."""
CHUNK = 4_000_000
"""Numbers held at once in the matrix of draws: 32 MB, however many resamples and units."""
SEEDS_FOR_T = 3


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval, in points."""

    low: float
    high: float

    @property
    def side(self) -> int:
        """1 when it lies above zero, -1 below, 0 when it holds zero."""
        return int(self.low > 0) - int(self.high < 0)

    def holds(self, value: float) -> bool:
        """Whether `value` is inside."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        ends = (f"{round(end, 1) + 0.0:.1f}".replace("-", "\u2212") for end in (self.low, self.high))
        return f"[{', '.join(ends)}]"


@dataclass(frozen=True, slots=True)
class Resampled:
    """Scores and gains of every resample of one target; NaN where a run is missing."""

    languages: tuple[str, ...]
    scores: Floats
    """(resamples, rows, languages), mean over seeds."""
    gains: Floats
    """(resamples, rows, languages), mean over the seeds that the row shares with row 0."""

    def score(self, row: int, languages: Sequence[str]) -> Interval | None:
        """Of the mean score over `languages`."""
        return self._interval(self.scores, row, languages)

    def gain(self, row: int, languages: Sequence[str]) -> Interval | None:
        """Of the mean gain over `languages`."""
        return self._interval(self.gains, row, languages)

    def _interval(self, values: Floats, row: int, languages: Sequence[str]) -> Interval | None:
        """Over those of `languages` that have values; None when none has."""
        wanted = [i for i, language in enumerate(self.languages) if language in languages]
        chosen = values[:, row, wanted]
        chosen = chosen[:, ~numpy.isnan(chosen).any(axis=0)]
        return percentile(chosen.mean(axis=1)) if chosen.shape[1] else None


def resample(
    samples: Mapping[str, Sample], metric: str, joint: bool, seed: int, resamples: int = RESAMPLES
) -> Resampled:
    """Scores and gains of `resamples` draws; row 0 is what the others are compared with.

    `joint`: one draw of units for all languages, which then have the same units in the same order.
    """
    languages = tuple(samples)
    shape = (resamples, next(iter(samples.values())).present.shape[0], len(languages))
    scores, gains = numpy.empty(shape), numpy.empty(shape)
    for i, sample in enumerate(samples.values()):
        start = numpy.random.default_rng([seed, 0 if joint else i])
        done = 0
        for counts in draws(start, len(sample.sums), resamples):
            drawn = slice(done, done + len(counts))
            scores[drawn, :, i], gains[drawn, :, i] = _compare(_values(counts, sample, metric))
            done = drawn.stop
    return Resampled(languages, scores, gains)


def draws(generator: numpy.random.Generator, units: int, resamples: int) -> Iterator[Floats]:
    """How often each of `units` is drawn, (some resamples, units) at a time; rows sum to `units`."""
    size = max(1, CHUNK // max(units, 1))
    for done in range(0, resamples, size):
        n = min(size, resamples - done)
        drawn = generator.integers(units, size=(n, units))
        drawn += numpy.arange(n)[:, None] * units
        yield numpy.bincount(drawn.ravel(), minlength=n * units).reshape(n, units).astype(numpy.float64)


def percentile(values: Floats) -> Interval:
    """The middle 95 % of bootstrap values."""
    low, high = numpy.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def over_seeds(gains: Sequence[float]) -> Interval | None:
    """Student's t interval of the mean of one gain a seed; None with fewer than three."""
    if len(gains) < SEEDS_FOR_T:
        return None
    mean = float(numpy.mean(gains))
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(gains) - 1)) * float(numpy.std(gains, ddof=1))
    half /= math.sqrt(len(gains))
    return Interval(mean - half, mean + half)


def _values(counts: Floats, sample: Sample, metric: str) -> Floats:
    """(resamples, rows, seeds): the metric of every run, NaN where the run is missing."""
    units, rows, seeds, columns = sample.sums.shape
    sums = (counts @ sample.sums.reshape(units, -1)).reshape(len(counts), rows, seeds, columns)
    names = (*metrics.COLUMNS[metric], "items")
    found = metrics.from_sums(metric, {name: sums[..., k] for k, name in enumerate(names)})
    return numpy.where(sample.present, found[metric], numpy.nan)


def _compare(values: Floats) -> tuple[Floats, Floats]:
    """Means over seeds, (resamples, rows): of the values, and of their differences from row 0."""
    return _mean(values), _mean(values - values[:, :1])


def _mean(values: Floats) -> Floats:
    """Mean over the last axis of what is there; NaN where nothing is (without numpy's warning)."""
    there: NDArray[numpy.bool_] = ~numpy.isnan(values)
    count = there.sum(axis=-1)
    total = numpy.where(there, values, 0.0).sum(axis=-1)
    return numpy.where(count > 0, total / numpy.maximum(count, 1), numpy.nan)
