"""Agreement of a run with itself in two languages, item by item, and what of it accuracy does not explain.

kappa is Cohen's of right and wrong: 0 for two independent models of these accuracies, whatever they are, and
1 where the same items are right (error consistency, Geirhos, Meding & Wichmann 2020, arXiv 2006.16736). Label
kappa is Cohen's of the predicted labels. Intervals redraw clusters of items: they are of other test items
with these very models.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy
from statsmodels.stats.inter_rater import cohens_kappa

from xstilts.report import intervals
from xstilts.report.clusters import Floats
from xstilts.report.studies.parallel import Paired

RESAMPLES = 2_000
Mask = numpy.ndarray[Any, numpy.dtype[numpy.bool_]]


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """Of one target; arrays are (rows, languages but the source), shares in percent, means over seeds."""

    source: Floats
    """Right in the source language; the same for all languages."""
    here: Floats
    lost: Floats
    """Right in the source language and wrong here."""
    won: Floats
    """Wrong there and right here."""
    alone: Floats
    """Lost by two independent models of these accuracies."""
    kappa: Floats
    labels: Floats
    """Kappa of labels; NaN where none are predicted."""
    source_ends: Floats
    lost_ends: Floats
    """(2, rows, languages): the ends of 95 % intervals."""
    kappa_ends: Floats


def agreement(one: Paired, seed: int = 0, resamples: int = RESAMPLES) -> Agreement:
    """Shares and kappas of every row and language, with intervals by redrawing clusters of items."""
    source, here = one.right[:, :, :1], one.right[:, :, 1:]
    kinds = numpy.stack([source & here, source & ~here, ~source & here], axis=-1)
    several = int(one.clusters.max()) + 1
    units = numpy.zeros((several, *kinds.shape[:3], 3))
    numpy.add.at(units, one.clusters, numpy.moveaxis(kinds, 3, 0))
    sizes = numpy.bincount(one.clusters, minlength=several).astype(float)
    found = _shares(units.sum(axis=0), sizes.sum(), one.present)
    again = [
        _shares(
            (counts @ units.reshape(several, -1)).reshape(len(counts), *units.shape[1:]),
            (counts @ sizes)[:, None, None, None],
            one.present,
        )
        for counts in intervals.draws(numpy.random.default_rng(seed), several, resamples)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a kappa that no draw has: NaN says so
        ends = {
            name: numpy.nanquantile(numpy.concatenate([part[name] for part in again]), [0.025, 0.975], axis=0)
            for name in ("source", "lost", "kappa")
        }
    return Agreement(
        **found, labels=_label_kappas(one), **{f"{name}_ends": each for name, each in ends.items()}
    )


def _shares(counts: Floats, items: Any, present: Mask) -> dict[str, Floats]:
    """From counts (..., rows, seeds, languages, 3) of both right, lost and won; means over seeds."""
    both, lost, won = (counts[..., i] / items for i in range(3))
    source, here = both + lost, both + won
    chance = source * here + (1 - source) * (1 - here)
    # Where all items are right, or all wrong, in both languages, nothing is left that could agree.
    kappa = numpy.where(
        chance < 1, (1 - lost - won - chance) / numpy.where(chance < 1, 1 - chance, 1), numpy.nan
    )
    found = {"source": source, "here": here, "lost": lost, "won": won, "alone": source * (1 - here)}
    found = {name: _over_seeds(100 * each, present) for name, each in found.items()}
    return {**found, "kappa": _over_seeds(kappa, present)}


def _over_seeds(values: Floats, present: Mask) -> Floats:
    """(..., rows, seeds, languages) to (..., rows, languages); NaN where a row has no run."""
    there = present[:, :, None] & ~numpy.isnan(values)
    count = there.sum(axis=-2)
    total = numpy.where(there, values, 0.0).sum(axis=-2)
    return numpy.where(count > 0, total / numpy.maximum(count, 1), numpy.nan)


def _label_kappas(one: Paired) -> Floats:
    """(rows, languages): Cohen's kappa of predicted labels, mean over seeds."""
    rows, seeds, languages, _ = one.right.shape
    found = numpy.full((rows, seeds, languages - 1), numpy.nan)
    if one.labels is not None:
        many = int(one.labels.max()) + 2  # -1, no label, is a label too
        for i, j, k in zip(
            *numpy.nonzero(numpy.broadcast_to(one.present[:, :, None], found.shape)), strict=True
        ):
            pairs = (one.labels[i, j, 0] + 1) * many + one.labels[i, j, k + 1] + 1
            table = numpy.bincount(pairs, minlength=many**2).reshape(many, many)
            if (table.sum(axis=0) < table.sum()).any() and table.any(axis=0).sum() > 1:
                found[i, j, k] = cohens_kappa(table, return_results=False)
    return _over_seeds(found, one.present)
