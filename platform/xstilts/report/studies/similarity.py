"""Similarity: how far do similarity of tasks and distance of languages predict loss and gain?

Stated beforehand. Response: degradation, the score in the source language minus that in the target language,
of the row `none`, averaged over seeds and models to one value a (target task, language). Primary test: a
mixed-effects regression of it on language predictors (`language_distance`: pretraining size, genetic and
geographic distance, script; in a generated world its distance; last, where probe steps measured it, overlap
of vocabularies under the tokenizer), REML; the joint F test that all slopes are zero, alpha 0.05.
    Random: language and task; with four tasks or more each task's own slopes, so that it speaks of other
tasks (with fewer the answer is for these tasks and says so); and family (an isolate is one of its own) where
there are three or more, fewer than languages, and genus with it where there are more of these than families
and fewer than languages: related languages are not independent (Galton's problem), and the predictors are
properties of families. With one task the residual is the language; where families are not random either, it
is least squares. Degrees of freedom: families - 1 - predictors, or languages - 1 - predictors where families
are not random; and no more than tasks - 1 where slopes are. Two families cannot be told from their languages:
these are the units there, and the answer says so.
    Predictors: one for every five languages, in that order, and no more than families - 2 where families are
random. Where the regression does not converge, a permutation of languages (where families are random, of
families and their means) takes its place and says so. Robustness: R2 of predictions for languages left out,
one at a time and by whole families, against the task means. Beside it the slopes with each task left out: one
task of six can make most of a slope (PAN-X does in the published ones).

Everything else has intervals and no p-value: the single slopes, the same regression of gains, and measures of
probe steps (task similarity, alignment), for which a tidy table `model intermediate target language measure
value` is needed (`measures`), the mean over layers; layer by layer alignment is described (`alignment`) and
not regressed on. Method: Lauscher et al. 2020 (arXiv 2005.00633) regress zero-shot losses on lang2vec
similarities and pretraining size; correlations over a handful of languages are not reported here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas

from xstilts.report.published import published as papers
from xstilts.report.studies import alignment, language_distance, measured, scatter
from xstilts.report.studies.answer import Answer, Table, Test, TooLittle, p_value
from xstilts.report.studies.gains import Gains
from xstilts.report.studies.leaving_out import Foretold, leave_out
from xstilts.report.studies.regression import TASKS, VOCABULARY, Regression, regress, without_each
from xstilts.report.transfer import BASE, source_language
from xstilts.report.verdict import points
from xstilts.tasks import languages, registry

NAME = "similarity"
QUESTION = "How far do task similarity and language distance predict loss and gain in other languages?"
ALPHA = 0.05
FEW = 4
"""Degrees of freedom; with fewer it is said that they are few."""
SLOPES = ["response", "predictor", "points per sd", "low", "high", "languages", "tasks"]
XXL = " (75% trained)"
"""How the model of some of mT5's tables is told from itself in others."""
PUBLISHED_TASKS = ("xnli", "pawsx", "panx", "xquad", "mlqa", "tydiqa")
"""With a baseline in each language, of several models, by one paper (mT5, tables 6 to 11)."""


def answer(
    gains: Gains, *, measures: pandas.DataFrame | None = None, layers: pandas.DataFrame | None = None,
    extra: Sequence[str] = (), seed: int = 0,
) -> Answer:  # fmt: skip
    """`measures`: of probe steps, mean over layers, and `layers`: the same layer by layer; `extra`: URIEL
    distances to add to the predictors, by name.

    Raises:
        TooLittle: fewer than five languages, or no row `none` with a score in the source language.
    """
    every = gains.scores[(gains.scores.intermediate == BASE) & gains.scores.zero_shot]
    lost = every[every.gap.notna()].assign(y=lambda rows: rows.gap)
    if lost.empty:
        raise TooLittle(
            "no score of the row `none` in another language has one in the source language beside it",
            "a job with `none`, a target that is trained in the source language, and five languages or more",
        )
    source, overlap = _source(lost.target), _overlap(measures)
    main = regress(lost, source, extra, seed, overlap)
    notes = [*main.left_out, *_sourceless(every, lost)]
    gained = None
    try:
        gained = regress(gains.zero_shot.assign(y=gains.zero_shot.gain), source, extra, seed, overlap)
        notes += [f"gain: {note}" for note in gained.left_out if note not in notes]
    except TooLittle as why:
        notes.append(f"gain on language distance: refused, {why.problem}")
    if measures is not None and VOCABULARY in main.used:  # its slope beside other predictors is told
        measures = measures[measures.measure != VOCABULARY]
    others, said = measured.slopes(gains, lost, measures)
    rows = [*slopes("degradation", main), *(slopes("gain", gained) if gained else []), *others]
    told = _told(main, rows, _caption(gains, lost), [*notes, *said], source, seed, gained)
    return alignment.added(told, layers)


def published(extra: Sequence[str] = ()) -> Answer:
    """The same on the degradation of XTREME's published baselines; they have no gain per language. `extra` as
    for `answer`."""
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
    every = lost.assign(y=lost.at_source - lost.value, seed=0)
    lost = every[every.y.notna()]
    main = regress(lost, "en", extra, 0)
    sources = sorted({source.partition(";")[0] for source in lost.source})
    caption = (
        f"published baselines of {lost.model.nunique()} models ({', '.join(sorted(set(lost.model)))}) \u00b7 "
        f"n {main.tasks} tasks \u00d7 {main.languages} languages, {len(lost)} scores, one run each, seeds "
        f"not told \u00b7 split test (dev where none is held out) \u00b7 {papers.UNTOLD} \u00b7 source: "
        f"{'; '.join(sources)}"
    )
    notes = [
        *main.left_out,
        *_sourceless(every, lost),
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


def _sourceless(every: pandas.DataFrame, lost: pandas.DataFrame) -> list[str]:
    """What has no loss, for want of a score in the source language: targets, and languages of no other."""
    had = pandas.MultiIndex.from_frame(lost[["target", "language"]])
    gone = every[~pandas.MultiIndex.from_frame(every[["target", "language"]]).isin(had)]
    codes = [code for code in dict.fromkeys(gone.language) if code not in set(lost.language)]
    targets = ", ".join(dict.fromkeys(gone.target))
    said = f"left out of the loss, no score in the source language beside it: {targets}"
    return [said + (f" (and so {' '.join(codes)}, of no other target)" if codes else "")] if targets else []


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
    by_family = leave_out(main.cells, "y", main.used, "target", "family", seed)
    sure = main.p < ALPHA
    strongest = _strongest(rows)
    sentence = (
        f"Language distance {'predicts' if sure else 'has not been shown to predict'} how much is lost "
        f"outside the source language{_of_which(main)} (F({len(main.used)}, {main.df}) = "
        f"{main.statistic:.1f}, {p_value(main.p)}, {main.languages} languages"
        f"{f' of {main.families} families' if main.families else ''}, {main.tasks} "
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
                  pandas.DataFrame(rows, columns=SLOPES).astype({"languages": "Int64"}),
                  _sources(main, rows)),
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
    kin = language_distance.related(set(main.cells.language))
    terms = ["language", *kin, "task"] if main.tasks > 1 else [*kin]
    terms += ["the tasks' slopes"] if main.of_other_tasks else []
    named = " and ".join([part for part in (", ".join(terms[:-1]), *terms[-1:]) if part])
    how = f"mixed-effects regression, {named} random, REML"
    if main.tasks == 1:
        how = f"{how}: one task" if kin else "regression by least squares: one task and no random families"
    if main.fit is None:
        unit = "families" if kin else "languages"
        how = f"permutation of {unit} (the mixed-effects regression did not converge)"
    explained = main.fit.explained if main.fit else None
    shares = ""
    if main.fit:
        total = sum(main.fit.variances.values()) + main.fit.fixed_variance
        each = (f"{name} {100 * value / total:.0f} %" for name, value in main.fit.variances.items())
        shares = f" The predictors account for {100 * main.fit.explained:.0f} % of the variance; "
        shares += f"{', '.join(each)}."
    text = (
        f"Degradation on {', '.join(main.used)}: F({len(main.used)}, {main.df}) = {main.statistic:.2f}, "
        f"{p_value(main.p)}." + shares
    )
    n = {"languages": main.languages, "tasks": main.tasks, "cells": len(main.cells)}
    if main.families:
        n["families"] = main.families
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


def _sources(main: Regression, rows: Sequence[Mapping[str, Any]]) -> str:
    """What the predictors of the table of slopes are."""
    said = {
        "distance": "distance: by construction of the world",
        "size": "size: log10 of pretraining text (XLM-R: CC-100, mT5: mC4, mBERT and XLM: Wikipedia)",
        "genetic": "genetic: 0 same genus, 0.5 same family, 1 neither (WALS, Glottolog)",
        "geographic": "geographic: great circle between Glottolog's points",
        "script": "script: 1 where it is another (CLDR)",
        VOCABULARY: "vocabulary: Jaccard index of the sub-words in translations (probe steps)",
    }
    words = [said.get(name, f"{name}: URIEL, 1 - cosine of kNN-completed features") for name in main.used]
    others = [name for name in dict.fromkeys(row["predictor"] for row in rows) if name not in main.used]
    return "; ".join([*words, *measured.told(others)]) + (
        f"; all standardised over the languages used; a slope over fewer than {TASKS} tasks, or of a "
        "measure of probe steps, is of these tasks alone"
    )


def _untold(main: Regression, families: bool) -> tuple[str, ...]:
    """What is not in the study, and why."""
    unasked = ", ".join(name for name in language_distance.URIEL if name not in main.extra)
    uriel = f"left out: URIEL distances unless asked for ({unasked}; their data are CC BY-SA and not shipped)"
    return (
        *((uriel,) if unasked else ()),
        *_related(main, families),
        *(() if main.of_other_tasks else
          (f"of other tasks nothing is said: that takes {TASKS} tasks, whose slopes may differ",)),
        *(("two predictors or more share variance: a slope is what one adds to the others",)
          if len(main.used) > 1 else ()),
    )  # fmt: skip


def _related(main: Regression, foretold: bool) -> tuple[str, ...]:
    """What is made of languages that are related; nothing where none are."""
    found = main.cells.family.nunique()
    if main.families:
        kin = language_distance.related(set(main.cells.language))
        said = f"their {found} families {'and their genera ' if 'genus' in kin else ''}are random"
        few = f", and so few that only steep slopes can be shown (F({len(main.used)}, {main.df}))"
        said += few if main.df < FEW else ""
    elif found == main.languages:
        return ()
    else:
        said = "two families cannot be told from their languages" if found == 2 else "all are of one family"
        said += ", and languages are the units"
    seen = "see the prediction by family" if foretold else "so few families cannot be left out one by one"
    return (f"related languages are not independent: {said}; {seen}",)


def _overlap(measures: pandas.DataFrame | None) -> pandas.Series | None:
    """Language -> overlap of its vocabulary with the source language's; a tokenizer has one, whatever its
    encoder was trained on since. None where it was not measured."""
    if measures is None or not {"measure", "language", "value"} <= set(measures.columns):
        return None
    own = measures[measures.measure == VOCABULARY]
    return None if own.empty else own.groupby("language").value.mean()


def _source(targets: pandas.Series) -> str:
    """The language that these targets are trained in."""
    found = {source_language(registry.task(name)) for name in set(targets)} - {""}
    return found.pop() if len(found) == 1 else "en"
