"""The figure of the similarity study: loss by language against each predictor, with the fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair
import numpy
import pandas

from xstilts.report.studies.answer import Figure
from xstilts.report.studies.mixed import Fit
from xstilts.tasks import languages

BLUE, ORANGE = "#0072B2", "#D55E00"
"""Of Okabe and Ito's palette, told apart by all kinds of colour vision."""


def figures(cells: pandas.DataFrame, used: Sequence[str], fit: Fit | None, source: str) -> tuple[Figure, ...]:
    """One panel a predictor; a point is a language, its task means removed."""
    level = float(cells.y.mean())
    adjusted = cells.y - cells.groupby("target").y.transform("mean") + level
    mean = cells.assign(lost=adjusted).groupby("language", as_index=False, sort=False).agg(
        lost=("lost", "mean"), tasks=("target", "nunique"), **{name: (name, "first") for name in used}
    )  # fmt: skip
    mean["name"] = [languages.of(code).name for code in mean.language]
    mean["family"] = [languages.of(code).family for code in mean.language]
    panels = [_panel(mean, name, _slope(fit, name), level) for name in used]
    chart = altair.concat(*panels, columns=2).resolve_scale(y="shared")
    alt = (
        f"Scatter of {len(mean)} languages: points lost against {', '.join(used)}, with the slope of the "
        "mixed-effects regression as a line."
    )
    note = "A line is what one predictor adds when the others are held at their mean."
    return (Figure("scatter", f"Points lost in other languages than {source}", chart, alt, note),)


def _slope(fit: Fit | None, name: str) -> float | None:
    return None if fit is None else float(fit.slopes[fit.names.index(name)])


def _panel(mean: pandas.DataFrame, name: str, slope: float | None, level: float) -> Any:
    x = altair.X(f"{name}:Q", title=f"{name} (standardised)", scale=altair.Scale(zero=False, padding=22))
    y = altair.Y("lost:Q", title="points lost", scale=altair.Scale(zero=False))
    base = altair.Chart(mean).encode(x=x, y=y)
    tooltip = [
        "name",
        "family",
        altair.Tooltip("lost:Q", format=".1f"),
        altair.Tooltip(f"{name}:Q", format=".2f"),
    ]
    marks = base.mark_circle(size=45, color=BLUE, opacity=0.8).encode(tooltip=tooltip)
    layers = [marks, base.mark_text(dx=9, fontSize=9, align="left", opacity=0.8).encode(text="language")]
    if slope is not None:
        ends = numpy.array([mean[name].min(), mean[name].max()])
        line = pandas.DataFrame({name: ends, "lost": level + slope * ends})
        layers.append(altair.Chart(line).mark_line(color=ORANGE, strokeWidth=2).encode(x=x, y=y))
    return altair.layer(*layers).properties(width=220, height=240)
