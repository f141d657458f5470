"""Similarity: how far do similarity of tasks and distance of languages predict loss and gain?

Stated beforehand. Response: degradation, the score in the source language minus that in the target language,
of the row `none`, averaged over seeds and models to one value a (target task, language). Primary test: a
mixed-effects regression of it on language predictors (`language_distance`: pretraining size, genetic and
geographic distance, script; in a generated world its distance; last, where probe steps measured it, overlap
of vocabularies under the tokenizer), language and task random, and with four tasks or more each task's own
slopes too, so that it speaks of other tasks, REML; the joint F test that all slopes are zero, alpha 0.05,
languages - 1 - predictors degrees of freedom, and no more than tasks - 1 where slopes are random. With fewer
tasks the answer is for these tasks and says so; with one task it is least squares. One predictor for every
five languages, in that order. Where the regression does not converge, a permutation of languages takes its
place and says so. Robustness: R2 of predictions for languages left out, one at a time, against the task
means; and by whole families, because related languages are not independent (Galton's problem). Beside it the
slopes with each task left out: one task of six can make most of a slope (PAN-X does in the published ones).

Everything else has intervals and no p-value: the single slopes, the same regression of gains, and measures of
probe steps (task similarity, alignment), for which a tidy table `model intermediate target language measure
value` is needed (`measures`). Method: Lauscher et al. 2020 (arXiv 2005.00633) regress zero-shot losses on
lang2vec similarities and pretraining size; correlations over a handful of languages are not reported here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import pandas

from xstilts.errors import UnknownName
from xstilts.report.published import published as papers
from xstilts.report.studies import language_distance, measured, mixed, scatter
from xstilts.report.studies.answer import Answer, Table, Test, TooLittle, p_value
from xstilts.report.studies.gains import Gains
from xstilts.report.studies.leaving_out import Foretold, leave_out
from xstilts.report.transfer import BASE, source_language
from xstilts.report.verdict import points
from xstilts.tasks import languages, registry

NAME = "similarity"
QUESTION = "How far do task similarity and language distance predict loss and gain in other languages?"
ALPHA = 0.05
VOCABULARY = "vocabulary"
"""The measure of probe steps that is a language predictor."""
LEAST = 5
"""Languages for each predictor, and in all."""
SLOPES = ["response", "predictor", "points per sd", "low", "high", "languages", "tasks"]
LANGUAGE_AND_TASK = [mixed.Random("language", "language"), mixed.Random("task", "target")]
TASKS = 4
"""The least that carry slopes of their own. Where tasks' slopes differ (sd 5 points) and their mean is zero,
intercepts alone found one in 11 of 20 frames of six tasks and 12 of 20 of four, at alpha 0.05; with slopes
none in 20 did (nor in 40 without such differences: the fewest degrees of freedom are on the safe side)."""
XXL = " (75% trained)"
"""How the model of some of mT5's tables is told from itself in others."""
PUBLISHED_TASKS = ("xnli", "pawsx", "panx", "xquad", "mlqa", "tydiqa")
"""With a baseline in each language, of several models, by one paper (mT5, tables 6 to 11)."""


@dataclass(frozen=True, slots=True, eq=False)
class Regression:
    """One response on language predictors."""

    cells: pandas.DataFrame
    """One row a (target, language): target language y, one standardised column a predictor."""
    used: list[str]
    fit: mixed.Fit | None
    df: int
    statistic: float
    p: float
    left_out: list[str]
    """In words: predictors and languages."""

    @property
    def of_other_tasks(self) -> bool:
        """Whether tasks' slopes are random, so that the answer is for more than these tasks."""
        return self.fit is not None and any(name.startswith("task x ") for name in self.fit.variances)

    @property
    def languages(self) -> int:
        """How many."""
        return int(self.cells.language.nunique())

    @property
    def tasks(self) -> int:
        """How many."""
        return int(self.cells.target.nunique())


def answer(
    gains: Gains, *, measures: pandas.DataFrame | None = None, extra: Sequence[str] = (), seed: int = 0
) -> Answer:
    """`measures`: of probe steps; `extra`: URIEL distances to add to the predictors, by name.

    Raises:
        TooLittle: fewer than five languages, or no row `none` with a score in the source language.
    """
    lost = gains.scores[(gains.scores.intermediate == BASE) & gains.scores.zero_shot]
    lost = lost[lost.gap.notna()].assign(y=lambda rows: rows.gap)
    if lost.empty:
        raise TooLittle(
            "no score of the row `none` in another language has one in the source language beside it",
            "a job with `none`, a target that is trained in the source language, and five languages or more",
        )
    source, overlap = _source(lost.target), _overlap(measures)
    main = regress(lost, source, extra, seed, overlap)
    notes = [*main.left_out]
    gained = None
    try:
        gained = regress(gains.zero_shot.assign(y=gains.zero_shot.gain), source, extra, seed, overlap)
    except TooLittle as why:
        notes.append(f"gain on language distance: refused, {why.problem}")
    if measures is not None and VOCABULARY in main.used:  # its slope beside other predictors is told
        measures = measures[measures.measure != VOCABULARY]
    others, said = measured.slopes(gains, lost, measures)
    rows = [*slopes("degradation", main), *(slopes("gain", gained) if gained else []), *others]
    return _told(main, rows, _caption(gains, lost), [*notes, *said], source, seed, gained)


def published() -> Answer:
    """The same on the degradation of XTREME's published baselines; they have no gain per language."""
    scores = papers.headline(papers.published("xtreme_baselines"))
    scores = scores[
        scores.source.str.startswith("mT5 arXiv v1")
        & (scores.setting == "zero-shot")
        & scores.target.isin(PUBLISHED_TASKS)
        & (scores.language != papers.MEAN)
    ]
    scores = scores.assign(model=scores.model.str.removesuffix(XXL))
    keys = ["model", "target"]
    english = scores[scores.language == "en"].set_index(keys).value.rename("at_source")
    lost = scores[scores.language != "en"].join(english, on=keys)
    lost = lost.assign(y=lost.at_source - lost.value, seed=0)
    main = regress(lost, "en", (), 0)
    sources = sorted({source.partition(";")[0] for source in lost.source})
    caption = (
        f"published baselines of {lost.model.nunique()} models ({', '.join(sorted(set(lost.model)))}) \u00b7 "
        f"n {main.tasks} tasks \u00d7 {main.languages} languages, {len(lost)} scores, one run each, seeds "
        f"not told \u00b7 split test (dev where none is held out) \u00b7 {papers.UNTOLD} \u00b7 source: "
        f"{'; '.join(sources)}"
    )
    notes = [
        *main.left_out,
        "gain: refused, no published table has gains over `none` by language",
        "task similarity and alignment: refused, published tables have no embeddings",
        "mT5-XXL was 75 % trained when all its tables but PAN-X's were printed",
        "UD POS, BUCC and Tatoeba: left out, no published baseline by language in the source language too",
    ]
    return _told(main, slopes("degradation", main), caption, notes, "en", 0, None)


def _caption(gains: Gains, lost: pandas.DataFrame) -> str:
    """That of the gains, and what the loss is measured on: a job may have the row `none` alone."""
    of_loss = (
        f"loss: row {BASE} of {', '.join(dict.fromkeys(lost.job))}, n {lost.target.nunique()} targets \u00d7 "
        f"{lost.language.nunique()} languages, {int(lost.n.fillna(0).sum()):,} predictions"
    )
    return f"{gains.caption()} \u00b7 {of_loss}"


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
    codes = [code for code in dict.fromkeys(cells.language) if _known(code)]
    if len(codes) < LEAST:
        raise TooLittle(
            f"{len(codes)} languages beside the source language",
            f"{LEAST} languages for each predictor: {LEAST} are the least, 20 carry all four",
        )
    about = _predictors(rows, codes, source, extra)
    if overlap is not None:
        about[VOCABULARY] = overlap.reindex(codes)
    used, lacking, out = language_distance.chosen(about, max(1, len(codes) // LEAST))
    if not used:
        raise TooLittle("no language predictor differs between these languages", "languages of other kinds")
    kept = about.drop(index=lacking)[used]
    if len(kept) < LEAST:
        raise TooLittle(f"{len(kept)} languages of known {', '.join(used)}", f"{LEAST} languages or more")
    spread = kept.std(ddof=1).replace(0.0, 1.0)
    cells = cells.merge((kept - kept.mean()) / spread, left_on="language", right_index=True)
    random = _random(cells.target.nunique(), used)
    df = len(kept) - 1 - len(used)
    if len(random) > len(LANGUAGE_AND_TASK):
        df = min(df, cells.target.nunique() - 1)
    found = mixed.fit(cells, "y", used, random)
    statistic, p = _permuted(cells, used, seed) if found is None else found.test(used, df)
    left = [f"left out of the predictors: {word}" for word in out]
    if lacking:
        left.append(f"left out, a predictor is unknown: {' '.join(lacking)}")
    return Regression(cells, used, found, df, statistic, p, left)


def _random(tasks: int, used: Sequence[str]) -> list[mixed.Random]:
    """None with one task, where a language has one value and the residual is the language."""
    if tasks == 1:
        return []
    slopes = [mixed.Random(f"task x {name}", "target", name) for name in used] if tasks >= TASKS else []
    return [*LANGUAGE_AND_TASK, *slopes]


def without_each(main: Regression) -> pandas.DataFrame:
    """Slopes with each task left out, as the whole is standardised: one row a task, one column a predictor;
    empty with one task. No intervals: they say on which tasks the slopes rest."""
    made = []
    for task in dict.fromkeys(main.cells.target) if main.tasks > 1 else ():
        cells = main.cells[main.cells.target != task]
        found = mixed.fit(cells, "y", main.used, _random(cells.target.nunique(), main.used))
        values = {name: found.slopes[found.names.index(name)] if found else None for name in main.used}
        made.append({"left out": task, **values, "languages": cells.language.nunique()})
    return pandas.DataFrame(made).astype({name: float for name in main.used} if made else {})


def average(rows: pandas.DataFrame) -> pandas.DataFrame:
    """One value a (target, language): over models, intermediates and seeds, each run centred first on what
    it has of its target, so that a run that lacks a language does not shift the others."""
    run = ["model", "target", "seed", *(["intermediate"] if "intermediate" in rows else [])]
    centred = rows.y - rows.groupby(run).y.transform("mean") + rows.groupby("target").y.transform("mean")
    return rows.assign(y=centred).groupby(["target", "language"], as_index=False, sort=False).y.mean()


def slopes(response: str, main: Regression) -> list[dict[str, Any]]:
    """One row a predictor; without intervals where the regression fell back."""
    made = []
    for name in main.used:
        value, interval = main.fit.slope(name, main.df) if main.fit else (None, None)
        ends = (interval.low, interval.high) if interval else (None, None)
        made.append(
            dict(zip(SLOPES, (response, name, value, *ends, main.languages, main.tasks), strict=True))
        )
    return made


def _told(
    main: Regression, rows: list[dict[str, Any]], caption: str, notes: Sequence[str], source: str,
    seed: int, gained: Regression | None,
) -> Answer:  # fmt: skip
    foretold = leave_out(main.cells, "y", main.used, "target", "language", seed)
    families = main.cells.assign(family=[languages.of(code).family for code in main.cells.language])
    by_family = leave_out(families, "y", main.used, "target", "family", seed)
    sure = main.p < ALPHA
    strongest = _strongest(rows)
    sentence = (
        f"Language distance {'predicts' if sure else 'has not been shown to predict'} how much is lost "
        f"outside the source language{_of_which(main)} (F({len(main.used)}, {main.df}) = "
        f"{main.statistic:.1f}, {p_value(main.p)}, {main.languages} languages, {main.tasks} "
        f"task{'s' if main.tasks > 1 else ''})"
        + (f"; the largest slope is {strongest}" if sure and strongest else "")
        + (f". Languages left out are foretold with R\u00b2 {foretold.r2:.2f}." if foretold else ".")
    )
    without = without_each(main)
    return Answer(
        study=NAME,
        question=QUESTION,
        sentence=sentence,
        verdict="predicts" if sure else "not shown",
        primary=_primary(main),
        robustness=_robustness(main, foretold, by_family),
        tables=(
            Table("slopes", "Points lost, or gained, per standard deviation of a predictor, 95 % intervals",
                  pandas.DataFrame(rows, columns=SLOPES).astype({"languages": "Int64"}), _sources(main)),
            *((Table("without", "Points lost per standard deviation of a predictor, with each task left out",
                     without, "the same predictors and random effects, as far as the tasks left carry them"),)
              if len(without) else ()),
            Table("languages", "Languages and their predictors", _languages(main, gained)),
        ),
        figures=scatter.figures(main.cells, main.used, main.fit, source),
        caption=caption,
        notes=(*notes, *_untold(main, by_family is not None)),
        facts={"alpha": ALPHA, "predictors": main.used, "df": main.df, "source_language": source},
    )  # fmt: skip


def _of_which(main: Regression) -> str:
    """ " in these 3 tasks" where no other tasks are spoken of."""
    if main.of_other_tasks:
        return ""
    return f" in these {main.tasks} tasks" if main.tasks > 1 else " in this one task"


def _primary(main: Regression) -> Test:
    how = "mixed-effects regression, language and task random, REML"
    if main.of_other_tasks:
        how = "mixed-effects regression, language, task and the tasks' slopes random, REML"
    elif main.tasks == 1:
        how = "regression by least squares: one task, so that no task is random"
    if main.fit is None:
        how = "permutation of languages (the mixed-effects regression did not converge)"
    explained = main.fit.explained if main.fit else None
    shares = ""
    if main.fit:
        total = sum(main.fit.variances.values()) + main.fit.fixed_variance
        named = (f"{name} {100 * value / total:.0f} %" for name, value in main.fit.variances.items())
        shares = f" The predictors account for {100 * main.fit.explained:.0f} % of the variance; "
        shares += f"{', '.join(named)}."
    text = (
        f"Degradation on {', '.join(main.used)}: F({len(main.used)}, {main.df}) = {main.statistic:.2f}, "
        f"{p_value(main.p)}." + shares
    )
    n = {"languages": main.languages, "tasks": main.tasks, "cells": len(main.cells)}
    return Test(how, main.statistic, explained, None, main.p, n, text)


def _robustness(main: Regression, foretold: Foretold | None, by_family: Foretold | None) -> Test | None:
    if foretold is None:
        return None
    text = (
        f"Left out one at a time, {foretold.left_out} languages are predicted with R\u00b2 {foretold.r2:.2f} "
        f"[{foretold.interval.low:.2f}, {foretold.interval.high:.2f}] against the task means (the interval "
        "redraws languages and not the fits: too narrow where they are few)"
    )
    if by_family is not None:
        text += f"; left out by family ({by_family.left_out}), with R\u00b2 {by_family.r2:.2f}"
    n = {"languages": main.languages, **({"families": by_family.left_out} if by_family else {})}
    return Test(
        "leave-languages-out prediction", foretold.r2, foretold.r2, foretold.interval, None, n, text + "."
    )


def _strongest(rows: Sequence[dict[str, Any]]) -> str:
    known = [row for row in rows if row["response"] == "degradation" and row["points per sd"] is not None]
    clear = [row for row in known if row["low"] > 0 or row["high"] < 0]
    if not clear:
        return ""
    best = max(clear, key=lambda row: abs(row["points per sd"]))
    return (
        f"that of {best['predictor']}, {points(best['points per sd'])} points per standard deviation "
        f"[{points(best['low'])}, {points(best['high'])}]"
    )


def _languages(main: Regression, gained: Regression | None) -> pandas.DataFrame:
    lost = main.cells.groupby("language", sort=False).agg(
        degradation=("y", "mean"),
        tasks=("target", "nunique"),
        **{name: (name, "first") for name in main.used},
    )
    if gained is not None:
        lost["gain"] = gained.cells.groupby("language").y.mean()
    lost.insert(0, "name", [languages.of(str(code)).name for code in lost.index])
    lost.insert(1, "family", [languages.of(str(code)).family for code in lost.index])
    return lost.reset_index().sort_values("degradation")


def _sources(main: Regression) -> str:
    said = {
        "distance": "distance: by construction of the world",
        "size": "size: log10 of pretraining text (XLM-R: CC-100, mT5: mC4, mBERT and XLM: Wikipedia)",
        "genetic": "genetic: 0 same genus, 0.5 same family, 1 neither (WALS, Glottolog)",
        "geographic": "geographic: great circle between Glottolog's points",
        "script": "script: 1 where it is another (CLDR)",
        VOCABULARY: "vocabulary: Jaccard index of the sub-words in translations (probe steps)",
    }
    words = [said.get(name, f"{name}: URIEL, 1 - cosine of kNN-completed features") for name in main.used]
    return "; ".join(words) + (
        f"; all standardised over the languages used; a slope over fewer than {TASKS} tasks, or of a "
        "measure of probe steps, is of these tasks alone"
    )


def _untold(main: Regression, families: bool) -> tuple[str, ...]:
    """What is not in the study, and why."""
    return (
        "left out: URIEL distances unless asked for (their data are CC BY-SA and not shipped)",
        "related languages are not independent: "
        + ("see the prediction by family" if families else "so few families cannot be left out one by one"),
        *(() if main.of_other_tasks else
          (f"of other tasks nothing is said: that takes {TASKS} tasks, whose slopes may differ",)),
        *(("two predictors or more share variance: a slope is what one adds to the others",)
          if len(main.used) > 1 else ()),
    )  # fmt: skip


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


def _overlap(measures: pandas.DataFrame | None) -> pandas.Series | None:
    """Language -> overlap of its vocabulary with the source language's; a tokenizer has one, whatever its
    encoder was trained on since. None where it was not measured."""
    if measures is None or not {"measure", "language", "value"} <= set(measures.columns):
        return None
    own = measures[measures.measure == VOCABULARY]
    return None if own.empty else own.groupby("language").value.mean()


def _permuted(cells: pandas.DataFrame, used: Sequence[str], seed: int) -> tuple[float, float]:
    """F of least squares with task means, and its p when languages swap their predictors."""
    numbers, codes = pandas.factorize(cells.language)
    by_language = cells.drop_duplicates("language").set_index("language").loc[codes, list(used)].to_numpy()
    tasks = pandas.get_dummies(cells.target).to_numpy(dtype=float)
    y = cells.y.to_numpy()
    plain = float(numpy.linalg.lstsq(tasks, y, rcond=None)[1].sum())
    free = len(y) - tasks.shape[1] - len(used)

    def statistic(order: numpy.ndarray[Any, numpy.dtype[numpy.int64]]) -> float:
        design = numpy.column_stack([tasks, by_language[order][numbers]])
        left = y - design @ numpy.linalg.lstsq(design, y, rcond=None)[0]
        error = float(left @ left)
        return float((plain - error) / len(used) / max(error / max(free, 1), 1e-12))

    return statistic(numpy.arange(len(codes))), mixed.permuted(statistic, len(codes), seed)


def _source(targets: pandas.Series) -> str:
    """The language that these targets are trained in."""
    found = {source_language(registry.task(name)) for name in set(targets)} - {""}
    return found.pop() if len(found) == 1 else "en"


def _known(code: str) -> bool:
    try:
        languages.of(code)
    except UnknownName:
        return False
    return True
