"""The figures of the hierarchy study: average ranks with the critical difference, and mean gains by group."""

from __future__ import annotations

import altair
import pandas

from xstilts.report.studies.answer import Figure

ROW, PLACE = 38, 11
"""Pixels of an intermediate task, and of each group in it where there are many."""


def averages(
    whole: pandas.DataFrame, inside: pandas.DataFrame, difference: float, blocks: int, word: str
) -> Figure:
    """`whole`: intermediate and rank, best first, drawn with bars of half the critical difference to either
    side; `inside`: the same of each group; `word`: what a group is."""
    groups = list(dict.fromkeys(inside.group))
    whole = whole.assign(low=whole["rank"] - difference / 2, high=whole["rank"] + difference / 2)
    menu = altair.binding_select(options=[None, *groups], labels=["all", *groups], name=f"{word}\u2002")
    shown = altair.selection_point(fields=["group"], bind=menu, name="group")
    y = altair.Y("intermediate:N", sort=list(whole.intermediate), title=None)
    # Equal ranks hide none: each group has its own height, which it keeps where the menu shows it alone.
    domain = altair.Scale(domain=groups)
    apart = altair.YOffset("group:N", sort=groups, scale=altair.Scale(domain=groups, paddingOuter=0.8))
    title = "average rank (1 is best)"
    x = altair.X("rank:Q", title=title, scale=altair.Scale(zero=False, nice=True))
    tips = ["intermediate", altair.Tooltip("rank", format=".2f")]
    base = altair.Chart(whole)
    bars = base.mark_bar(height=9, opacity=0.35).encode(
        x=altair.X("low:Q", title=title), x2="high:Q", y=y, tooltip=tips
    )
    middle = base.mark_tick(thickness=3, height=20).encode(x=x, y=y, tooltip=tips)
    dots = (
        altair.Chart(inside)
        .mark_point(filled=True, size=60, opacity=0.9)
        .encode(
            x=x,
            y=y,
            yOffset=apart,
            color=altair.Color("group:N", title=word, scale=domain),
            shape=altair.Shape("group:N", title=word, scale=domain),
            tooltip=["group", *tips],
        )
        .transform_filter(shown)
        .add_params(shown)
    )
    step = altair.Step(max(ROW, PLACE * len(groups)), **{"for": "position"})
    told = ", ".join(f"{row.intermediate} {row.rank:.2f}" for row in whole.itertuples(index=False))
    return Figure(
        "ranks",
        f"Average ranks, and those within each {word}",
        altair.layer(bars, middle, dots).properties(width=560, height=step),
        f"Average ranks, best first: {told}; critical difference {difference:.2f}",
        f"Grey bars: half the critical difference of {difference:.2f} to either side of the average rank; "
        f"tasks whose bars do not overlap differ (Nemenyi, 5 %, {blocks} languages as blocks, these very "
        "runs). Dots: groups of two languages or more.",
    )


def gained(data: pandas.DataFrame, word: str) -> Figure:
    """Mean gain of every intermediate task in every group, in the order of `data`."""
    order, groups = (list(dict.fromkeys(data[name])) for name in ("intermediate", "group"))
    most = float(data.gain.abs().max()) or 1.0
    base = altair.Chart(data).encode(
        x=altair.X("intermediate:N", sort=order, title=None, axis=altair.Axis(labelAngle=-30)),
        y=altair.Y("group:N", sort=groups, title=None),
        tooltip=["intermediate", "group", altair.Tooltip("gain", format="+.2f")],
    )
    scale = altair.Scale(domain=[-most, most], domainMid=0)
    tiles = base.mark_rect().encode(color=altair.Color("gain:Q", title="gain, points", scale=scale))
    words = base.mark_text().encode(text=altair.Text("gain:Q", format="+.1f"))
    return Figure(
        "gains",
        f"Mean gain over none, by {word}",
        altair.layer(tiles, words).properties(width=altair.Step(72), height=altair.Step(28)),
        f"Heat map of the mean gain of {len(order)} intermediate tasks in {len(groups)} groups",
        "Points, mean over (target, language, seed) blocks.",
    )
