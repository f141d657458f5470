"""Which trials of a search end early: successive halving on fractions of a trial's own optimiser steps.

As ASHA does with a reduction factor of 2, but a trial is compared with those of the rounds before only,
never with one that runs beside it: what is pruned does then not depend on which worker is faster, and is
known before a round begins. Rungs are shares of a trial's own steps, since a run of two epochs that is nearly
annealed and one of ten that is not say little about each other after as many steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

RUNGS = (0.25, 0.5)
"""Shares of its optimiser steps at which a trial may end."""

ENOUGH = 4
"""Values that a rung must have before it ends anything. Dev scores of 500 examples have a standard error of
two points: worse than one or two trials is no reason."""


def floors(before: Iterable[Mapping[float, float]]) -> dict[float, float]:
    """Rung -> the value below which a trial ends there; rungs that end nothing yet are left out.

    `before`: of every trial of the rounds before, rung -> value (higher is better), as far as it came. A
    trial goes on in the better half of all values of the rung, its own among them; of equals all go on.
    """
    met = [dict(values) for values in before]
    found: dict[float, float] = {}
    for rung in RUNGS:
        values = sorted((each[rung] for each in met if rung in each), reverse=True)
        if len(values) >= ENOUGH:
            places = (len(values) + 2) // 2  # half of them and one more trial, rounded up
            found[rung] = values[places - 1]
    return found
