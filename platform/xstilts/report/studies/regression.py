"""The regression of the similarity study: one response on properties of languages, related ones as groups.

Which predictors, random effects and degrees of freedom: stated in `similarity`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import pandas

from xstilts.errors import UnknownName
from xstilts.report.clusters import Floats
from xstilts.report.studies import language_distance, mixed
from xstilts.report.studies.answer import TooLittle
from xstilts.tasks import languages

VOCABULARY = "vocabulary"
"""The measure of probe steps that is a language predictor."""
LEAST = 5
"""Languages for each predictor, and in all."""
LANGUAGE_AND_TASK = [mixed.Random("language", "language"), mixed.Random("task", "target")]
TASKS = 4
"""The least that carry slopes of their own. Where tasks' slopes differ (sd 5 points) and their mean is zero,
intercepts alone found one in 11 of 20 frames of six tasks and 12 of 20 of four, at alpha 0.05; with slopes
none in 20 did (nor in 40 without such differences: the fewest degrees of freedom are on the safe side)."""


@dataclass(frozen=True, slots=True, eq=False)
class Regression:
    """One response on language predictors."""

    cells: pandas.DataFrame
    """One row a (target, language): target language family genus y, one standardised column a predictor."""
    used: list[str]
    fit: mixed.Fit | None
    df: int
    statistic: float
    p: float
    left_out: list[str]
    """In words: predictors and languages."""
    extra: tuple[str, ...] = ()
    """Predictors that were asked for by name."""

    @property
    def of_other_tasks(self) -> bool:
        """Whether tasks' slopes are random, so that the answer is for more than these tasks."""
        return self.fit is not None and any(name.startswith("task x ") for name in self.fit.variances)

    @property
    def languages(self) -> int:
        """How many."""
        return int(self.cells.language.nunique())

    @property
    def families(self) -> int:
        """How many, where they are random; else 0, and languages are the units."""
        return language_distance.families(set(self.cells.language))

    @property
    def tasks(self) -> int:
        """How many."""
        return int(self.cells.target.nunique())


def regress(
    rows: pandas.DataFrame,
    source: str,
    extra: Sequence[str],
    seed: int,
    overlap: pandas.Series | None = None,
) -> Regression:
    """Of `y` on language predictors; `rows` has model, target, language, seed and y; `overlap` is that of
    each language's vocabulary with the source language's.

    Raises:
        TooLittle: fewer than five languages, or no predictor that differs between them.
    """
    cells = average(rows)
    spoken = list(dict.fromkeys(cells.language))
    codes = [code for code in spoken if _known(code)]
    if len(codes) < LEAST:
        raise TooLittle(
            f"{len(codes)} languages beside the source language",
            f"{LEAST} languages for each predictor: {LEAST} are the least, 20 carry all four",
        )
    about = _predictors(rows, codes, source, extra)
    if overlap is not None:
        about[VOCABULARY] = overlap.reindex(codes)
    used, kept, left = _carried(about, extra)
    if not used:
        raise TooLittle("no language predictor differs between these languages", "languages of other kinds")
    if len(kept) < LEAST:
        raise TooLittle(f"{len(kept)} languages of known {', '.join(used)}", f"{LEAST} languages or more")
    spread = kept.std(ddof=1).replace(0.0, 1.0)
    cells = cells.merge((kept - kept.mean()) / spread, left_on="language", right_index=True)
    cells["family"] = cells.language.map(language_distance.family)
    cells["genus"] = cells.language.map(language_distance.genus)
    random, families = _random(cells, used), language_distance.families(kept.index)
    df = (families or len(kept)) - 1 - len(used)
    if any(each.slope for each in random):
        df = min(df, cells.target.nunique() - 1)
    found = mixed.fit(cells, "y", used, random)
    unit = "family" if families else "language"
    statistic, p = _permuted(cells, used, unit, seed) if found is None else found.test(used, df)
    unknown = [code for code in spoken if code not in codes]
    if unknown:
        left.append(f"left out, not in the registry of languages: {' '.join(unknown)}")
    return Regression(cells, used, found, df, statistic, p, left, tuple(extra))


def _carried(about: pandas.DataFrame, extra: Sequence[str]) -> tuple[list[str], pandas.DataFrame, list[str]]:
    """(the predictors that these languages and families carry, their values in the languages that have all
    of them, what is left out in words)."""
    codes = about.index
    while True:
        families = language_distance.families(codes)
        most, whose = max(1, len(codes) // LEAST), f"{len(codes)} languages"
        if families and families - 2 < most:
            most, whose = families - 2, f"{families} families"
        used, lacking, out = language_distance.chosen(about, most, extra, whose)
        kept = about.drop(index=lacking)[used]
        families = language_distance.families(kept.index)
        if len(used) <= max(1, min(len(kept) // LEAST, families - 2 if families else len(kept))):
            break
        codes = kept.index
    left = [f"left out of the predictors: {word}" for word in out]
    if lacking:
        left.append(f"left out, a predictor is unknown: {' '.join(lacking)}")
    return used, kept, left


def _random(cells: pandas.DataFrame, used: Sequence[str]) -> list[mixed.Random]:
    """With one task, where a language has one value, the residual is the language."""
    tasks = cells.target.nunique()
    kin = [mixed.Random(name, name) for name in language_distance.related(set(cells.language))]
    if tasks == 1:
        return kin
    slopes = [mixed.Random(f"task x {name}", "target", name) for name in used] if tasks >= TASKS else []
    return [*LANGUAGE_AND_TASK, *kin, *slopes]


def without_each(main: Regression) -> pandas.DataFrame:
    """Slopes with each task left out, as the whole is standardised: one row a task, one column a predictor;
    empty with one task. No intervals: they say on which tasks the slopes rest."""
    made = []
    for task in dict.fromkeys(main.cells.target) if main.tasks > 1 else ():
        cells = main.cells[main.cells.target != task]
        found = mixed.fit(cells, "y", main.used, _random(cells, main.used))
        values = {name: found.slopes[found.names.index(name)] if found else None for name in main.used}
        made.append({"left out": task, **values, "languages": cells.language.nunique()})
    return pandas.DataFrame(made).astype({name: float for name in main.used} if made else {})


def average(rows: pandas.DataFrame) -> pandas.DataFrame:
    """One value a (target, language): least squares on language and run (model, intermediate, seed) within
    each target, the effects of runs summing to zero, so that a run which lacks a language does not shift the
    others. The mean where no run lacks one."""
    run = ["model", "seed", *(["intermediate"] if "intermediate" in rows else [])]
    made = [
        pandas.DataFrame({"target": target, "language": own.language.unique(), "y": _of_languages(own, run)})
        for target, own in rows.groupby("target", sort=False)
    ]
    return pandas.concat(made, ignore_index=True)


def _of_languages(own: pandas.DataFrame, run: list[str]) -> Floats:
    """One value a language, in the order in which they appear."""
    numbers, codes = pandas.factorize(own.language)
    runs = own.groupby(run, sort=False, dropna=False).ngroup().to_numpy()
    contrasts = numpy.eye(runs.max() + 1)[runs]
    design = numpy.column_stack([numpy.eye(len(codes))[numbers], contrasts[:, :-1] - contrasts[:, -1:]])
    level = own.y.mean()
    found = numpy.linalg.lstsq(design, own.y.to_numpy(dtype=float) - level, rcond=None)[0]
    effects: Floats = found[: len(codes)] + level
    return effects


def _predictors(
    rows: pandas.DataFrame, codes: Sequence[str], source: str, extra: Sequence[str]
) -> pandas.DataFrame:
    """One row a language; size is standardised within each model's corpus, then averaged over models."""
    corpora = [language_distance.corpus_of(model) for model in dict.fromkeys(rows.model)]
    found = [language_distance.distances(codes, source, corpus, extra) for corpus in corpora]
    about = found[0].copy()
    if len(set(corpora)) > 1:
        sizes = [(each["size"] - each["size"].mean()) / each["size"].std(ddof=1) for each in found]
        about["size"] = numpy.mean([size.to_numpy() for size in sizes], axis=0)
    return about


def _permuted(cells: pandas.DataFrame, used: Sequence[str], unit: str, seed: int) -> tuple[float, float]:
    """F of least squares with task means, and its p when languages swap their predictors; where the `unit` is
    "family", of the means of families."""
    about = cells.drop_duplicates("language").groupby(unit)[list(used)].mean()
    cells = cells.groupby(["target", unit], as_index=False, sort=False).y.mean()
    numbers, codes = pandas.factorize(cells[unit])
    by_unit = about.loc[codes].to_numpy()
    tasks = pandas.get_dummies(cells.target).to_numpy(dtype=float)
    y = cells.y.to_numpy()
    plain = float(numpy.linalg.lstsq(tasks, y, rcond=None)[1].sum())
    free = len(y) - tasks.shape[1] - len(used)

    def statistic(order: numpy.ndarray[Any, numpy.dtype[numpy.int64]]) -> float:
        design = numpy.column_stack([tasks, by_unit[order][numbers]])
        left = y - design @ numpy.linalg.lstsq(design, y, rcond=None)[0]
        error = float(left @ left)
        return float((plain - error) / len(used) / max(error / max(free, 1), 1e-12))

    return statistic(numpy.arange(len(codes))), mixed.permuted(statistic, len(codes), seed)


def _known(code: str) -> bool:
    try:
        languages.of(code)
    except UnknownName:
        return False
    return True
