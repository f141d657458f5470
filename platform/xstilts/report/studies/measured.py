"""Measures of probe steps (task similarity, alignment) as predictors of gain and of degradation.

A tidy table `model intermediate target language measure value`: `language` is "" for a measure of two tasks,
`target` is "" for one of an encoder in a language, such as the retrieval accuracy after an intermediate task.
Slopes have intervals and no p-value. Their degrees of freedom are those of the factor with the fewest levels
among those that the measure differs by, less two. Related languages are not independent: where there are
three families or more, fewer than languages, they and their genera are random too, and a measure of languages
is judged by how many families there are. Of CKA the debiased one is taken where there are both: with few
sentences the plain one is high for any two languages. All are means over layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas

from xstilts.errors import XstiltsError
from xstilts.report.studies import language_distance, mixed
from xstilts.report.studies.answer import TooLittle
from xstilts.report.studies.gains import Gains
from xstilts.report.transfer import BASE

COLUMNS = ("model", "intermediate", "target", "language", "measure", "value")
DEBIASED = ("cka", "cka_debiased")
MEANT = {
    "cka": "linear CKA of parallel sentences with the source language's, mean over layers",
    "cka_debiased": "the same without its bias in small samples",
    "retrieval": "percent of parallel sentences found among all, mean over layers, of the encoder before the "
    "target is trained",
    "vocabulary": "Jaccard index of the sub-words in translations",
    "text_embedding": "cosine of two tasks' mean-pooled texts",
    "task_embedding": "cosine of two tasks' Fisher information",
    "logme": "LogME of the encoder on the target's training rows",
    "few_shot": "percent right of a probe on so many examples of each label",
}
"""What a measure is, in a few words; a probe on 16 examples is called few_shot_16."""
LEAST = 4
"""Levels of each random effect: a slope over fewer is a line through a handful of points."""
NEEDED = (
    "task similarity and alignment: refused, no probe step has measured them; enough would be `probe: {}` in "
    "the job, and `xstilts run` again"
)


def slopes(
    gains: Gains, lost: pandas.DataFrame, measures: pandas.DataFrame | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """(rows of the study's table of slopes, what could not be done and why). `lost`: rows of `none` with the
    degradation as `y`.

    Raises:
        XstiltsError: `measures` lacks a column.
    """
    if measures is None or measures.empty:
        return [], [NEEDED]
    lacking = [name for name in COLUMNS if name not in measures.columns]
    if lacking:
        raise XstiltsError(f"the table of measures lacks {', '.join(lacking)}", f"it has {' '.join(COLUMNS)}")
    given = measures.fillna({"target": "", "language": ""}).dropna(subset=["value"])
    if DEBIASED[1] in set(given.measure):
        given = given[given.measure != DEBIASED[0]]
    gained = gains.zero_shot.assign(y=gains.zero_shot.gain)
    rows, notes = [], []
    for name, mine in given.groupby("measure", sort=False):
        for response, table, own in (
            ("gain", gained, mine[mine.intermediate != BASE]),
            ("degradation", lost, mine[(mine.intermediate == BASE) & (mine.language != "")]),
        ):
            if own.empty:
                continue
            try:
                rows.append(_slope(str(name), response, table, own))
            except TooLittle as why:
                notes.append(f"{response} on {name}: refused, {why.problem}; enough would be {why.remedy}")
    return rows, notes


def told(names: Sequence[str]) -> list[str]:
    """ "logme: LogME of ..." for each of these that is known."""
    plain = {name: "few_shot" if name.startswith("few_shot_") else name for name in names}
    return [f"{name}: {MEANT[key]}" for name, key in plain.items() if key in MEANT]


def _slope(name: str, response: str, table: pandas.DataFrame, own: pandas.DataFrame) -> dict[str, Any]:
    """One measure as the only predictor of one response."""
    on = [key for key in ("model", "intermediate", "target", "language") if (own[key] != "").all()]
    cells = table.merge(own[[*on, "value"]].groupby(on, as_index=False).value.mean(), on=on)
    unit = ["intermediate", "target", *(["language"] if "language" in on else [])]
    cells = cells.groupby(unit, as_index=False).agg(y=("y", "mean"), value=("value", "mean"))
    factors = [factor for factor in unit if response == "gain" or factor != "intermediate"]
    levels = {factor: cells[factor].nunique() for factor in factors}
    few = [f"{count} of {factor}" for factor, count in levels.items() if count < LEAST and factor != "target"]
    if few or cells.empty or cells.value.std(ddof=1) == 0:
        raise TooLittle(", ".join(few) or "it is the same everywhere", f"{LEAST} of each, with other values")
    cells["x"] = (cells.value - cells.value.mean()) / cells.value.std(ddof=1)
    kin = language_distance.related(set(cells.language)) if "language" in factors else []
    if kin:
        cells["family"] = cells.language.map(language_distance.family)
        cells["genus"] = cells.language.map(language_distance.genus)
        levels["language"] = cells.family.nunique()
    found = mixed.fit(cells, "y", ["x"], [mixed.Random(factor, factor) for factor in (*factors, *kin)])
    if found is None:
        raise TooLittle("the regression does not converge", "more tasks or languages")
    value, interval = found.slope("x", max(min(levels[factor] for factor in _varied(cells, factors)) - 2, 1))
    return {
        "response": response,
        "predictor": name,
        "points per sd": value,
        "low": interval.low,
        "high": interval.high,
        "languages": int(cells.language.nunique()) if "language" in unit else None,
        "tasks": int(cells.target.nunique()),
    }


def _varied(cells: pandas.DataFrame, factors: Sequence[str]) -> list[str]:
    """The factors that `x` differs by when the others stay; all of them where none does so alone."""
    found = []
    for factor in factors:
        others = [each for each in factors if each != factor]
        kept = cells.groupby(others).x if others else [("", cells.x)]
        # Means of equal values over more and fewer languages differ in the last digit.
        if any(values.max() - values.min() > 1e-9 for _, values in kept):
            found.append(factor)
    return found or list(factors)
