"""Model scaling: what becomes of the gain on NLI tasks when the encoder grows?

Stated beforehand. Gain and relative error reduction (gain over what the row `none` gets wrong) of cells whose
intermediate or target task is natural language inference, against log10 of the parameters, for XLM-R base,
large, XL and XXL, with other families of models as control. Four sizes of one family differ in more than size
(width, depth, training): the slope is descriptive, no test is made and no p-value given, however many
languages and seeds there are. Intervals of single sizes redraw languages and seeds whole (`crossed`); with
one seed, languages alone, and say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair
import numpy
import pandas

from xstilts.report.published import published as papers
from xstilts.report.studies import crossed
from xstilts.report.studies.answer import Answer, Figure, Table, Test, TooLittle
from xstilts.report.studies.gains import Gains
from xstilts.report.verdict import points

NAME = "model_scaling"
QUESTION = "What becomes of the gain on NLI tasks when the encoder grows?"
NLI = ("xnli", "mnli", "anli_plus", "world_nli")
MAIN = "XLM-R"
SIZES = 3
"""The least of one family that a slope is drawn through."""
ENOUGH = "one job each with three sizes or more of a family, such as XLM-R base, large, XL and XXL"
DESCRIPTIVE = "descriptive: sizes of one family are too few, and differ in more than size, for a test"
SIZE, REMOVED = "parameters, millions", "errors removed, %"
LOST, OTHERS = "points lost outside English", "mean of others"
ORDER = ["family", SIZE]
MAIN_COLUMNS = ("model", SIZE, "none", "gain", "low", "high", REMOVED, "family")
READING = "low, high: 95 %, languages and seeds redrawn; the same tasks, languages and seeds in all sizes"
ONE_SEED = (
    "low, high: 95 %, languages redrawn; one seed, so that the luck of runs is not in them; the same tasks, "
    "languages and seed in all sizes"
)
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
"""Okabe and Ito's."""
SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down"]

Sizes = Mapping[str, tuple[str, float]]
"""Model -> (family, parameters in millions)."""


def options(plans: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Sizes of encoders that jobs pretrain themselves, which no table has: of embeddings and layers as they
    are made."""
    found: dict[str, tuple[str, float]] = {}
    for plan in plans:
        spec = plan["experiment"].get("pretrain")
        if spec:
            width, layers = spec.get("width", 128), spec.get("layers", 2)
            shown = spec.get("vocabulary", 8_000) + spec.get("length", 64)
            count = shown * width + layers * (12 * width**2 + 13 * width)
            found[plan["model"]] = ("encoders made here", count / 1e6)
    return {"sizes": found}


def answer(gains: Gains, *, sizes: Sizes | None = None, seed: int = 0) -> Answer:
    """`sizes`: of models that `published/tables/model_parameters.csv` does not have.

    Raises:
        TooLittle: no NLI task, or fewer than three sizes of any family.
    """
    known = {**papers.parameters(), **(sizes or {})}
    table = gains.zero_shot
    table = table[table.intermediate.isin(NLI) | table.target.isin(NLI)]
    if table.empty:
        raise TooLittle("no gain of or on an NLI task", f"rows such as mnli, or the target xnli; {ENOUGH}")
    unknown = sorted(set(table.model) - set(known))
    table = table[~table.model.isin(unknown)]
    notes = [f"left out, number of parameters unknown: {', '.join(unknown)}"] if unknown else []
    if sizes and set(sizes) & set(table.model):
        notes.append("encoders made here are counted with the vocabulary asked for, which text may not fill")
    table, said = _shared(table)
    rows = pandas.DataFrame([_row(own, known, seed) for _, own in table.groupby("model", sort=False)])
    family = _main_family(rows)
    slopes = {name: _slopes(own) for name, own in rows.groupby("family") if len(own) >= SIZES}
    gain, reduction = slopes[family]
    mine = rows[rows.family == family].sort_values(SIZE)
    first, last = mine.iloc[0], mine.iloc[-1]
    sentence = (
        f"Over {len(mine)} sizes of {family}, from {_count(first)} to {_count(last)} parameters, the mean "
        f"gain goes from {points(first.gain)} to {points(last.gain)} points, and the share of errors it "
        f"removes from {first[REMOVED]:.1f} to {last[REMOVED]:.1f} % ({DESCRIPTIVE})."
    )
    n = {"sizes": len(mine), "languages": table.language.nunique(), "seeds": table.seed.nunique()}
    per = f"for ten times the parameters, {len(mine)} sizes of {family}"
    return Answer(
        study=NAME,
        question=QUESTION,
        sentence=sentence,
        verdict="descriptive",
        primary=_slope("gain", gain, n, f"{points(gain)} points {per}; {DESCRIPTIVE}."),
        robustness=_slope(
            "relative error reduction", reduction, n,
            f"{points(reduction)} % of the errors {per}; {_agree(gain, reduction)}.",
        ),
        tables=(Table("sizes", "Gain on NLI tasks by size of the encoder", rows.sort_values(ORDER),
                      READING if table.seed.nunique() > 1 else ONE_SEED, MAIN_COLUMNS),
                _by_pair(table, known)),
        figures=(_figure(rows, "gain", "gain, points", "low", "high"),
                 _figure(rows, REMOVED, REMOVED)),
        caption=gains.caption(table),
        notes=(*notes, *said, *_controls(slopes, family), DESCRIPTIVE),
        facts={"slopes": {name: list(value) for name, value in slopes.items()}},
    )  # fmt: skip


def published() -> Answer:
    """XNLI by size where a paper prints it (mT5): scores and what is lost outside English. No paper has gains
    by size, so that gains are refused in a note."""
    scores = papers.headline(papers.published("xtreme_baselines"))
    scores = scores[
        (scores.target == "xnli") & (scores.setting == "zero-shot") & (scores.language != papers.MEAN)
    ]
    known = papers.parameters()
    scores = scores[scores.source.str.startswith("mT5 arXiv v1")]
    scores = scores.assign(model=scores.model.str.removesuffix(" (75% trained)"))
    scores = scores[scores.model.isin(list(known))]
    rows = pandas.DataFrame([_published_row(own, known) for _, own in scores.groupby("model", sort=False)])
    mine = rows[rows.family == "mT5"].sort_values(SIZE)
    first, last = mine.iloc[0], mine.iloc[-1]
    lost, others = (_slope_of(mine, name) for name in (LOST, OTHERS))
    n = {"sizes": len(mine), "languages": int(mine.languages.max())}
    per = f"points for ten times the parameters, {len(mine)} sizes of mT5"
    sentence = (
        f"Over {len(mine)} published sizes of mT5, from {_count(first)} to {_count(last)} parameters, XNLI "
        f"outside English goes from {first[OTHERS]:.1f} to {last[OTHERS]:.1f} and what is lost from English "
        f"from {first[LOST]:.1f} to {last[LOST]:.1f} points ({DESCRIPTIVE}); gains by size are not published."
    )
    return Answer(
        study=NAME,
        question=QUESTION,
        sentence=sentence,
        verdict="descriptive",
        primary=_slope(LOST, lost, n, f"{points(lost)} {per}; {DESCRIPTIVE}."),
        robustness=_slope("score outside English", others, n, f"{points(others)} {per}."),
        tables=(Table("sizes", "Published XNLI by size of the model, zero-shot", rows.sort_values(ORDER)),),
        figures=(_figure(rows, LOST, LOST),),
        caption=f"published, n {len(rows)} models \u00d7 {n['languages']} languages of 1 task, one run each, "
        f"seeds not told \u00b7 split test \u00b7 {papers.UNTOLD} \u00b7 source: mT5 arXiv v1 PDF, table 6; "
        "parameters: published/tables/model_parameters.csv",
        notes=(
            "gains and relative error reduction: refused, no published table has gains over `none` by size; "
            f"enough would be {ENOUGH}",
            "mT5-XXL was 75 % trained when this was printed",
            "XLM-R and mBERT: one size each by the same paper",
        ),
    )  # fmt: skip


def _shared(table: pandas.DataFrame) -> tuple[pandas.DataFrame, list[str]]:
    """What every model was scored on: sizes are not to be compared over other languages or tasks."""
    cell = ["intermediate", "target", "language", "seed"]
    if table.duplicated(["model", *cell]).any():
        table = table.groupby(["model", *cell], as_index=False).agg(
            {name: "mean" if name in ("gain", "base", "score") else "first" for name in table.columns
             if name not in ("model", *cell)}
        )  # fmt: skip
    models = table.model.nunique()
    whole = table.groupby(cell).model.transform("nunique") == models
    if models and not whole.any():
        raise TooLittle("no task, language and seed was scored with every model", ENOUGH)
    left = int((~whole).sum())
    return table[whole], [f"left out, not scored with every model: {left} gains"] if left else []


def _row(own: pandas.DataFrame, known: Sizes, seed: int) -> dict[str, Any]:
    model = str(own.model.iloc[0])
    family, size = known[model]
    by = own.groupby(["language", "seed"])
    base, means = float(by.base.mean().mean()), by.gain.mean().unstack()
    drawn = crossed.redraw(
        means.to_numpy(dtype=float)[None], numpy.arange(len(means)), numpy.zeros(len(means), dtype=int), seed
    )
    found = drawn.contrast([1.0])
    gain, interval = found.value, found.interval
    return {
        "model": model,
        "family": family,
        SIZE: size,
        "none": base,
        "gain": gain,
        "low": interval.low,
        "high": interval.high,
        REMOVED: 100 * gain / (100 - base) if base < 100 else numpy.nan,
        "languages": own.language.nunique(),
        "seeds": own.seed.nunique(),
    }


def _published_row(own: pandas.DataFrame, known: Sizes) -> dict[str, Any]:
    model = str(own.model.iloc[0])
    english = float(own[own.language == "en"].value.iloc[0])
    others = own[own.language != "en"]
    return {
        "model": model,
        "family": known[model][0],
        SIZE: known[model][1],
        "English": english,
        OTHERS: float(others.value.mean()),
        LOST: english - float(others.value.mean()),
        "languages": len(others),
    }


def _main_family(rows: pandas.DataFrame) -> str:
    counts = rows.groupby("family")[SIZE].nunique() if len(rows) else pandas.Series(dtype=int)
    enough = counts[counts >= SIZES]
    if enough.empty:
        most = f"{int(counts.max())} of {counts.idxmax()}" if len(counts) else "none of known parameters"
        raise TooLittle(f"too few sizes of one family: {most}", ENOUGH)
    return MAIN if MAIN in enough.index else str(enough.idxmax())


def _slopes(rows: pandas.DataFrame) -> tuple[float, float]:
    """Of the gain, and of the errors removed."""
    return _slope_of(rows, "gain"), _slope_of(rows, REMOVED)


def _slope_of(rows: pandas.DataFrame, name: str) -> float:
    """Per tenfold parameters, by least squares."""
    x = numpy.log10(rows[SIZE].to_numpy(dtype=float))
    return float(numpy.polyfit(x, rows[name].to_numpy(dtype=float), 1)[0])


def _slope(what: str, value: float, n: Mapping[str, int], text: str) -> Test:
    """A slope that is told and not tested."""
    return Test(f"slope of the {what} on log10 parameters, least squares", None, value, None, None, n, text)


def _agree(one: float, other: float) -> str:
    return "the same direction as the gain" if one * other > 0 else "another direction than the gain"


def _controls(slopes: Mapping[str, tuple[float, float]], main: str) -> Sequence[str]:
    others = [f"{name} {points(gain)}" for name, (gain, _) in slopes.items() if name != main]
    if not others:
        return ("no other family has three sizes: size cannot be told from what else differs in this one",)
    return (f"control, points for ten times the parameters: {', '.join(others)}",)


def _by_pair(table: pandas.DataFrame, known: Sizes) -> Table:
    means = table.groupby(["model", "intermediate", "target"], as_index=False).agg(
        none=("base", "mean"), gain=("gain", "mean")
    )
    means.insert(1, SIZE, [known[str(model)][1] for model in means.model])
    return Table("pairs", "Gain by intermediate and target task", means.sort_values(SIZE))


def _count(row: pandas.Series) -> str:
    millions = float(row[SIZE])
    if millions < 1:
        return f"{1000 * millions:.3g} thousand"
    return f"{millions / 1000:g} billion" if millions >= 1000 else f"{millions:.3g} million"


def _figure(rows: pandas.DataFrame, name: str, title: str, low: str = "", high: str = "") -> Figure:
    families = list(dict.fromkeys(rows.family))
    kinds = range(len(families))
    colours = altair.Scale(domain=families, range=[COLOURS[i % len(COLOURS)] for i in kinds])
    shapes = altair.Scale(domain=families, range=[SHAPES[i % len(SHAPES)] for i in kinds])
    data = rows.rename(columns={SIZE: "millions", name: "shown"})
    scale_x = altair.Scale(type="log", nice=False, padding=14)
    short = "datum.value < 1 ? format(datum.value, '.2~g') : format(datum.value, ',.0f')"
    # Greedy leaves out a label only where it would touch another; every size has its tick.
    ticks = altair.Axis(values=sorted(set(data.millions)), labelOverlap="greedy", labelExpr=short)
    base = altair.Chart(data).encode(
        x=altair.X("millions:Q", scale=scale_x, axis=ticks, title=f"{SIZE} (log scale)"),
        color=altair.Color("family:N", scale=colours, title="family"),
    )
    y = altair.Y("shown:Q", title=title, scale=altair.Scale(zero=False))
    tooltip = ["model", altair.Tooltip("shown:Q", title=title, format=".1f")]
    # Open marks, one shape a family: of two at one place both are seen.
    points = base.mark_point(size=90, strokeWidth=2, opacity=1).encode(
        y=y, shape=altair.Shape("family:N", scale=shapes, title="family"), tooltip=tooltip
    )
    layers = [base.mark_line(strokeWidth=1.5, opacity=0.6).encode(y=y), points]
    if low:
        layers.append(
            base.mark_rule(strokeWidth=1.5).encode(y=altair.Y(f"{low}:Q", title=title), y2=f"{high}:Q")
        )
    chart: Any = altair.layer(*layers).properties(width=380, height=260)
    alt = f"{title} against parameters on a log scale, one line for each of {len(families)} families."
    file = "errors" if name.startswith("errors") else name.split(maxsplit=1)[0]
    return Figure(f"by_size_{file}", f"{title} by size of the encoder", chart, alt, DESCRIPTIVE)
