"""Alignment by layer: CKA and retrieval of parallel sentences in each layer of the encoder of the row `none`.

A description beside the similarity study, whose regression takes the mean over layers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import altair
import pandas

from xstilts.report.studies.answer import Answer, Figure, Table
from xstilts.report.studies.measured import DEBIASED
from xstilts.report.transfer import BASE

RETRIEVAL = "retrieval"
NAMES = {"cka": "CKA, not debiased", "cka_debiased": "debiased CKA", RETRIEVAL: "retrieval, percent"}
BLUE = "#0072B2"
"""Of Okabe and Ito's palette, as in the study's other figure."""
NEEDED = {"model", "intermediate", "language", "measure", "layer", "value"}


def added(answer: Answer, layers: pandas.DataFrame | None) -> Answer:
    """The answer with a table and a figure by layer; as it is where nothing was measured. `layers`: as
    `report.measures` gives it."""
    values = _values(layers)
    if values.empty:
        return answer
    table, count = _table(values), values.language.nunique()
    title = f"Alignment of parallel sentences by layer, mean over {count} languages"
    note = (
        f"encoder of the row {BASE}, with the source language; lowest and highest: of the languages; "
        "layer 0: embeddings; a description, the slopes take the mean over layers"
    )
    shown = Table("layers", title, table, note)
    return replace(answer, tables=(*answer.tables, shown), figures=(*answer.figures, _figure(values, title)))


def _values(layers: pandas.DataFrame | None) -> pandas.DataFrame:
    """model measure layer language value: one row each, mean over seeds and jobs."""
    columns = ["model", "measure", "layer", "language"]
    if layers is None or not set(layers.columns) >= NEEDED:
        return pandas.DataFrame(columns=[*columns, "value"])
    plain, debiased = DEBIASED
    cka = debiased if debiased in set(layers.measure) else plain
    own = layers[(layers.intermediate == BASE) & layers.measure.isin([cka, RETRIEVAL])]
    own = own[own.layer.notna() & own.value.notna() & (own.language != "")]
    return own.groupby(columns, as_index=False).value.mean()


def _ranges(values: pandas.DataFrame) -> pandas.DataFrame:
    """model measure layer mean lowest highest."""
    grouped = values.groupby(["model", "measure", "layer"], as_index=False).value
    return grouped.agg(**{"mean": "mean", "lowest": "min", "highest": "max"})


def _table(values: pandas.DataFrame) -> pandas.DataFrame:
    """One row a model and layer."""
    keys = ["model", "layer"]
    made = values.groupby(keys, as_index=False).agg(languages=("language", "nunique"))
    for name, own in _ranges(values).groupby("measure"):
        said = NAMES[str(name)]
        named = {"mean": said, "lowest": f"{said}: lowest", "highest": f"{said}: highest"}
        made = made.merge(own.drop(columns="measure").rename(columns=named), on=keys, how="left")
    return made[[*(name for name in made.columns if name != "languages"), "languages"]]


def _figure(values: pandas.DataFrame, title: str) -> Figure:
    """One panel a measure: the mean over languages as a line, their range as a band."""
    ranges = _ranges(values).astype({"layer": int})
    several = ranges.model.nunique() > 1
    panels = [
        _panel(own, NAMES[str(name)], str(model) if several else "")
        for (model, name), own in ranges.groupby(["model", "measure"])
    ]
    chart = altair.concat(*panels, columns=2)
    alt = (
        f"{len(panels)} panels by layer, of the encoder of the row {BASE}: the mean over languages of how "
        "alike parallel sentences are, as a line, and from the lowest to the highest language, as a band."
    )
    return Figure("layers", title, chart, alt, "Line: mean over languages. Band: lowest to highest language.")


def _panel(own: pandas.DataFrame, name: str, model: str) -> Any:
    ticks = altair.Axis(values=sorted(own.layer), format="d", labelOverlap=True)
    base = altair.Chart(own).encode(x=altair.X("layer:Q", axis=ticks, title="layer (0: embeddings)"))
    y = altair.Y("mean:Q", title=name, scale=altair.Scale(zero=True))
    band = base.mark_area(opacity=0.15, color=BLUE).encode(y=altair.Y("lowest:Q", title=name), y2="highest:Q")
    tooltip = [
        "layer",
        *(altair.Tooltip(f"{each}:Q", format=".2f") for each in ("mean", "lowest", "highest")),
    ]
    line = base.mark_line(strokeWidth=2, color=BLUE, point={"color": BLUE}).encode(y=y, tooltip=tooltip)
    return altair.layer(band, line).properties(width=220, height=200, title=model)
