"""The figure of the data-scaling study: gain against the share of intermediate data, with fits and bands."""

from __future__ import annotations

from typing import Any

import altair
import pandas

from xstilts.report.studies.answer import Figure

NEAR, FAR = "near", "far"
"""Tiers of a generated world, by distance from the source language."""
TIERS = ["all", "very high", "high", "medium", "low", "none", NEAR, FAR]
COLOURS = ["#888888", "#0072B2", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#0072B2", "#D55E00"]
"""Okabe and Ito's, which all kinds of colour vision tell apart on white and on black; grey for all tiers."""
WIDEST = 3


def figures(drawn: pandas.DataFrame, table: pandas.DataFrame) -> tuple[Figure, ...]:
    """One panel an intermediate task. `drawn`: curves with their band; `table`: gains with `share`."""
    tiers = [tier for tier in TIERS if tier in set(drawn.tier)]
    panels = [_panel(drawn, _points(table, name), name, tiers) for name in dict.fromkeys(drawn.intermediate)]
    rows = [altair.hconcat(*panels[i : i + WIDEST]) for i in range(0, len(panels), WIDEST)]
    chart = altair.vconcat(*rows).resolve_scale(color="shared")
    alt = (
        f"Gain against the share of intermediate data, on a log scale, for {len(panels)} intermediate tasks; "
        "one fitted curve with its band for each tier of resources, points are seeds."
    )
    return (Figure("curves", "Gain against the share of intermediate data", chart, alt),)


def _points(table: pandas.DataFrame, name: str) -> pandas.DataFrame:
    """Mean gains by seed, of each tier and of all."""
    own = table[table.intermediate == name]
    every = own.groupby(["share", "seed"], as_index=False).gain.mean().assign(tier="all")
    each = own[own.tier != ""].groupby(["share", "seed", "tier"], as_index=False).gain.mean()
    return pandas.concat([every, each], ignore_index=True)


def _panel(drawn: pandas.DataFrame, points: pandas.DataFrame, name: str, tiers: list[str]) -> Any:
    scale = altair.Scale(domain=tiers, range=[COLOURS[TIERS.index(tier)] for tier in tiers])
    legend = altair.Legend(title="distance" if NEAR in tiers else "CC-100 tier", symbolOpacity=1.0)
    colour = altair.Color("tier:N", scale=scale, sort=tiers, legend=legend)
    shares = sorted(set(points["share"]))
    fraction = "datum.value < 1 ? '1/' + format(1 / datum.value, '.3~g') : '1'"
    ticks = altair.Axis(values=shares, labelExpr=fraction, labelOverlap=True)
    x = altair.X("share:Q", scale=altair.Scale(type="log", base=2), axis=ticks, title="share of the data")
    y = altair.Y("gain:Q", title="gain, points")
    lines = altair.Chart(drawn[drawn.intermediate == name]).encode(x=x, color=colour)
    band = lines.mark_area(opacity=0.12).encode(y=altair.Y("low:Q", title="gain, points"), y2="high:Q")
    tooltip = ["tier", altair.Tooltip("share:Q", format=".3g"), altair.Tooltip("gain:Q", format=".1f")]
    curve = lines.mark_line(strokeWidth=2).encode(y=y, tooltip=tooltip)
    dots = altair.Chart(points).mark_circle(size=28, opacity=0.7)
    seeds = dots.encode(x=x, y=y, color=colour, tooltip=[*tooltip, "seed"])
    return altair.layer(band, curve, seeds).properties(width=220, height=220, title=name)
