"""How many seeds show a gain of a given size: from the spread of gains over seeds, measured or stated.

The test is the one that reports make: Student's t over one mean zero-shot gain a seed, two-sided. Power by
the noncentral t distribution of scipy (statsmodels' TTestPower gives NaN for large gains). A spread that a
few seeds gave is itself unsure: beside it stands its upper bound (90 %, chi-squared), and the seeds that this
would need. It speaks of other seeds with the same languages and test items, not of other languages or tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import pandas
from scipy import stats

from xstilts.errors import XstiltsError
from xstilts.record.artifacts import ArtifactStore
from xstilts.report import frame
from xstilts.report.intervals import SEEDS_FOR_T
from xstilts.report.studies.answer import TooLittle
from xstilts.report.studies.gains import Gains, of_frame

SURE = 0.9
"""Of the upper bound of a measured spread."""
MOST = 10_000
"""Seeds that are looked through; a gain that needs more is too small to be shown by seeds."""
COLUMNS = [
    "intermediate",
    "target",
    "gain",
    "seeds",
    "sd",
    "sd at most",
    "needed",
    "needed at most",
    "power now",
]


@dataclass(frozen=True, slots=True)
class Need:
    """What one gain asks for."""

    gain: float
    power: float
    alpha: float
    table: pandas.DataFrame
    """One row an (intermediate, target) pair, with COLUMNS; `needed` is how many seeds show `gain`."""
    sentence: str
    caption: str = ""
    """What the spread was measured on."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; None for a number that is not there."""
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict("records")
        asked = {"gain": self.gain, "power": self.power, "alpha": self.alpha}
        return {**asked, "sentence": self.sentence, "caption": self.caption, "rows": rows}


def seeds_needed(sd: float, gain: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """The least number of seeds with which a gain of that size is shown with that power; None beyond MOST.

    `sd`: of the gain over seeds. At least three, as reports give no interval with fewer.

    Raises:
        XstiltsError: a number is not one that it can be.
    """
    _check(sd, gain, power, alpha)
    if sd == 0.0:
        return SEEDS_FOR_T
    if shown(sd, gain, MOST, alpha) < power:
        return None
    low, high = SEEDS_FOR_T, MOST
    while low < high:
        middle = (low + high) // 2
        if shown(sd, gain, middle, alpha) >= power:
            high = middle
        else:
            low = middle + 1
    return low


def shown(sd: float, gain: float, seeds: int, alpha: float = 0.05) -> float:
    """How often that many seeds show a gain of that size."""
    if seeds < 2:
        return math.nan
    if sd == 0.0:
        return 1.0
    bound, df = stats.t.ppf(1 - alpha / 2, seeds - 1), seeds - 1
    away = abs(gain) / sd * math.sqrt(seeds)
    wrong_side = stats.nct.cdf(-bound, df, away)  # NaN, not a small number, from about away = 8 on
    return float(stats.nct.sf(bound, df, away) + numpy.nan_to_num(wrong_side))


def upper(sd: float, seeds: float, sure: float = SURE) -> float:
    """What the spread is at most, with 90 % confidence, when `seeds` of them gave `sd`."""
    return float(sd * math.sqrt((seeds - 1) / stats.chi2.ppf(1 - sure, seeds - 1)))


def of_sd(sd: float, gain: float, power: float = 0.8, alpha: float = 0.05) -> Need:
    """For a stated spread.

    Raises:
        XstiltsError: a number is not one that it can be.
    """
    needed = seeds_needed(sd, gain, power, alpha)
    row = {"sd": sd, "needed": needed}
    table = pandas.DataFrame([row], columns=COLUMNS).astype({"needed": "Int64"})
    many = f"{needed} seeds" if needed else f"more than {MOST:,} seeds"
    text = f"With a spread of {sd:.2f} points over seeds, a gain of {gain:g} points needs {many}"
    return Need(gain, power, alpha, table, f"{text} (power {power:.0%}, alpha {alpha:g}).")


def of_plans(
    stored: Iterable[tuple[Mapping[str, Any], ArtifactStore]],
    gain: float,
    power: float = 0.8,
    alpha: float = 0.05,
) -> Need:
    """For jobs, by their stored plans.

    Raises:
        TooLittle: no pair has two seeds.
        StoreError: a record is damaged.
    """
    read = [(plan, store, frame.records(plan, store)) for plan, store in stored]
    table = pandas.concat([frame.frame(*each) for each in read], ignore_index=True)
    found = of_frame(table, frame.commit(known for _, _, known in read))
    return of_gains(found, gain, power, alpha)


def of_gains(gains: Gains, gain: float, power: float = 0.8, alpha: float = 0.05) -> Need:
    """For what a job measured, pair by pair.

    Raises:
        TooLittle: no pair has two seeds.
        XstiltsError: a number is not one that it can be, or there are several models.
    """
    _check(1.0, gain, power, alpha)
    try:
        made = _pairs(gains, gain, power, alpha)
    except TooLittle as why:
        raise why.unfinished(gains.unscored) from None
    sd, most = pooled(made)
    needed, at_most = (seeds_needed(each, gain, power, alpha) for each in (sd, most))
    text = (
        f"A gain of {gain:g} points needs {_many(needed)} at the spread measured over all {len(made)} pairs "
        f"(sd {sd:.2f}; with sd at most {most:.2f}, {_many(at_most)}): power {power:.0%}, alpha {alpha:g}."
    )
    return Need(gain, power, alpha, made, text, gains.caption())


def _pairs(gains: Gains, gain: float, power: float, alpha: float) -> pandas.DataFrame:
    """One row a pair of tasks, with COLUMNS; raises TooLittle where there is none."""
    table = gains.single().zero_shot
    rows = [
        _row(str(names[0]), str(names[1]), _by_seed(own), gain, power, alpha)
        for names, own in table.groupby(["intermediate", "target"], sort=False)
    ]
    kept = [row for row in rows if row is not None]
    if not kept:
        raise TooLittle(
            "no pair of tasks has two seeds", "two seeds at least, three or more to trust the spread"
        )
    return pandas.DataFrame(kept, columns=COLUMNS).astype({"needed": "Int64", "needed at most": "Int64"})


def pooled(made: pandas.DataFrame) -> tuple[float, float]:
    """The spread over all pairs, and what it is at most. `made`: `sd` and `seeds` of each pair.

    Pairs share the runs of `none` and of their intermediate task, so that many of them tell hardly more than
    one: the bound has the degrees of freedom of one pair's seeds (the harmonic mean, where they differ).
    Added up over pairs they gave a bound that held in 138 of 200 simulated jobs, not in 180.
    """
    sd = math.sqrt(float((made.sd**2).mean()))
    df = 1.0 / float((1.0 / (made.seeds - 1)).mean())
    return sd, upper(sd, df + 1.0)


def _by_seed(own: pandas.DataFrame) -> numpy.ndarray[Any, numpy.dtype[numpy.float64]]:
    """One mean gain a seed, over the languages that all seeds have."""
    wide = own.pivot_table(index="language", columns="seed", values="gain").dropna()
    return numpy.asarray(wide.mean(axis=0), dtype=numpy.float64)


def _row(
    intermediate: str, target: str, found: Sequence[float] | Any, gain: float, power: float, alpha: float
) -> dict[str, Any] | None:
    seeds = len(found)
    if seeds < 2 or numpy.isnan(found).any():
        return None
    sd = float(numpy.std(found, ddof=1))
    most = upper(sd, seeds)
    values = (
        intermediate, target, float(numpy.mean(found)), seeds, sd, most,
        seeds_needed(sd, gain, power, alpha), seeds_needed(most, gain, power, alpha),
        shown(sd, gain, seeds, alpha),
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _many(seeds: int | None) -> str:
    return f"{seeds} seeds" if seeds else f"more than {MOST:,} seeds"


def _check(sd: float, gain: float, power: float, alpha: float) -> None:
    if not (math.isfinite(gain) and gain != 0.0):
        raise XstiltsError(f"a gain of {gain:g} points needs no showing", "name another: --gain 1.0")
    if not (math.isfinite(sd) and sd >= 0.0):
        raise XstiltsError(f"{sd:g} is no spread", "name a standard deviation of gains in points: --sd 1.2")
    for name, value in (("power", power), ("alpha", alpha)):
        if not 0.0 < value < 1.0:
            raise XstiltsError(f"{name} {value:g} is no share", f"choose --{name} between 0 and 1")
