"""The figure of the similarity study: loss by language against each predictor, with the fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair
import numpy
import pandas

from xstilts.report.studies.answer import Figure
from xstilts.report.studies.mixed import Fit
from xstilts.tasks import languages

BLUE, ORANGE = "#0072B2", "#D55E00"
"""Of Okabe and Ito's palette, told apart by all kinds of colour vision."""
FEW = 12
"""Languages that can all be named beside their points."""
EXTREMES = 4
"""Of more languages, those named: so many farthest above the lines, and as many below."""
WIDE, HIGH, EDGE = 220, 240, 22
"""Of a panel, in pixels; its points stay that far from its sides."""
LETTER, LINE, POINT = 7, 11, 5
"""Pixels of a name's letter and height, and of half a point."""


def figures(cells: pandas.DataFrame, used: Sequence[str], fit: Fit | None, source: str) -> tuple[Figure, ...]:
    """One panel a predictor; a point is a language, freed of what its tasks and the other predictors add."""
    slopes = {} if fit is None else {name: float(fit.slopes[fit.names.index(name)]) for name in used}
    level = float(cells.y.mean()) if fit is None else float(fit.slopes[0])
    mean = _means(cells, used, level, slopes)
    freed = {name: level + slopes.get(name, 0.0) * mean[name] + mean.left_over for name in used}
    ends = min(each.min() for each in freed.values()), max(each.max() for each in freed.values())
    panels = [
        _panel(_named(mean.assign(lost=lost), name, ends), name, level, slopes.get(name))
        for name, lost in freed.items()
    ]
    chart = altair.concat(*panels, columns=2).resolve_scale(y="shared")
    alt = (
        f"Scatter of {len(mean)} languages: points lost against {', '.join(used)}, with the slope of the "
        "mixed-effects regression as a line."
    )
    note = "Points: languages, means over tasks, whose own means are taken out."
    if slopes:
        note = (
            "A line is the partial slope of one predictor: what it adds when the others are held at their "
            "mean. Points are languages, with what the other predictors and their tasks add taken out "
            "(partial residuals)."
        )
    if len(mean) > FEW:
        note += " Named are those farthest from the lines."
    return (Figure("scatter", f"Points lost in other languages than {source}", chart, alt, note),)


def _means(
    cells: pandas.DataFrame, used: Sequence[str], level: float, slopes: Mapping[str, float]
) -> pandas.DataFrame:
    """One row a language: its predictors, and `left_over`, what the fit does not foretell of its loss, mean
    over tasks. A task's own part is its mean of what the fit leaves, not of its scores: a task with far
    languages loses more because of these, and that is the predictors' part."""
    rest = cells.y - level - sum(slope * cells[name] for name, slope in slopes.items())
    mean = cells.assign(left_over=rest - rest.groupby(cells.target).transform("mean")).groupby(
        "language", as_index=False, sort=False
    ).agg(left_over=("left_over", "mean"), **{name: (name, "first") for name in used})  # fmt: skip
    mean["name"] = [languages.of(code).name for code in mean.language]
    mean["family"] = [languages.of(code).family for code in mean.language]
    return mean


def _named(shown: pandas.DataFrame, name: str, ends: tuple[float, float]) -> pandas.DataFrame:
    """With `right` and `left`: the code of a language that is named on that side of its point, else "". A
    name that would lie on a point or another name is left out; `ends`: of the axis that panels share."""
    order = list(shown.left_over.sort_values().index)
    chosen = order if len(order) <= FEW else [*order[:EXTREMES], *order[-EXTREMES:]]
    x, y = shown[name], shown.lost
    across = EDGE + (WIDE - 2 * EDGE) * (x - x.min()) / ((x.max() - x.min()) or 1.0)
    up = HIGH * (y - ends[0]) / ((ends[1] - ends[0]) or 1.0)
    taken = {
        row: (across[row] - POINT, across[row] + POINT, up[row] - POINT, up[row] + POINT) for row in order
    }
    sides = {"right": [""] * len(shown), "left": [""] * len(shown)}
    for row in sorted(chosen, key=lambda row: -abs(shown.left_over[row])):
        long, high = LETTER * len(shown.language[row]), LINE / 2
        for side, start in (("right", POINT + 2), ("left", -POINT - 2 - long)):
            at = across[row] + start
            box = (at, at + long, up[row] - high, up[row] + high)
            if not any(_meet(box, other) for key, other in taken.items() if key != row):
                sides[side][shown.index.get_loc(row)] = shown.language[row]
                taken[side, row] = box
                break
    return shown.assign(**sides)


def _meet(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether two boxes (left, right, low, high) have a point in common."""
    return one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]


def _panel(shown: pandas.DataFrame, name: str, level: float, slope: float | None) -> Any:
    x = altair.X(f"{name}:Q", title=f"{name} (standardised)", scale=altair.Scale(zero=False, padding=EDGE))
    y = altair.Y("lost:Q", title="points lost", scale=altair.Scale(zero=False))
    base = altair.Chart(shown).encode(x=x, y=y)
    tooltip = [
        "name",
        "family",
        altair.Tooltip("lost:Q", format=".1f"),
        altair.Tooltip(f"{name}:Q", format=".2f"),
    ]
    # Open marks: of two at one place both are seen.
    layers = [
        base.mark_point(size=42, color=BLUE, strokeWidth=1.6, opacity=0.9).encode(tooltip=tooltip),
        base.mark_text(dx=8, fontSize=10, align="left").encode(text="right"),
        base.mark_text(dx=-8, fontSize=10, align="right").encode(text="left"),
    ]
    if slope is not None:
        ends = numpy.array([shown[name].min(), shown[name].max()])
        line = pandas.DataFrame({name: ends, "lost": level + slope * ends})
        layers.insert(0, altair.Chart(line).mark_line(color=ORANGE, strokeWidth=2).encode(x=x, y=y))
    return altair.layer(*layers).properties(width=WIDE, height=HIGH)
