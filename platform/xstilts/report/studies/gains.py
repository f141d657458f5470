"""Gains over `none` as a tidy table, and what has to be said of them: where every study starts.

A frame (`report.frame`), or several jobs' frames one below the other, becomes one row a gain: model,
intermediate task, target, language, seed. Judged as `report.transfer` judges: by the target's headline
metric, against `none` of the same job with the same seed, without variants of a target, and zero-shot (the
language the target was trained in, and rows of another data set, stay in the table but are marked).

What is independent of what: all languages of a target are predicted by one trained model, and all targets of
a seed start from one intermediate model. So languages and seeds are crossed, and a (language, seed) cell is
never a unit. `crossed` redraws whole languages and whole seeds; `Draws` redraws test items, which says what
other items would give these very models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy
import pandas

from xstilts.errors import UnknownName, XstiltsError
from xstilts.frozen import stream
from xstilts.report import clusters, frame, intervals
from xstilts.report.intervals import Interval, Resampled
from xstilts.report.studies.answer import TooLittle
from xstilts.report.transfer import BASE, REFERENCE, source_language
from xstilts.tasks import languages, metrics, registry
from xstilts.tasks.task import Task

CELL = ["model", "intermediate", "target", "language", "seed"]
SCORES = [
    *("job", "suite", *CELL, "score", "gap", "metric", "split", "n", "selection", "fraction", "key"),
    *("family", "genus", "script", "tier", "zero_shot", "collapsed"),
]
"""Of `Gains.scores`. `score` and `gap` are in percent; `gap` is the score in the source language minus this
one, of the same run, NaN where the target has no source language or is not scored in it."""
COLUMNS = [*SCORES, "base", "gain", "base_gap", "base_collapsed"]
"""Of `Gains.table`: `base` is the score of `none`, `gain` is `score - base`, both in percent."""

TIERS = ((100.0, "very high"), (10.0, "high"), (1.0, "medium"), (0.0, "low"))
"""Powers of ten of GiB of CC-100, on which XLM-R was trained; a language it lacks is "none"."""
RESAMPLES = 2_000
"""Item draws kept for a study: the ends of an interval then wobble by 1.6 % of its width."""


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """Item draws of one target of one job, all rows and languages together."""

    rows: tuple[str, ...]
    resampled: Resampled

    def gain(self, intermediates: Sequence[str], spoken: Sequence[str]) -> Interval | None:
        """Of the mean gain over rows and languages, by other test items; None where a run is missing."""
        at = [self.rows.index(row) for row in intermediates if row in self.rows]
        wanted = [i for i, language in enumerate(self.resampled.languages) if language in spoken]
        chosen = self.resampled.gains[:, at][:, :, wanted]
        if not at or not wanted or numpy.isnan(chosen).any():
            return None
        return intervals.percentile(chosen.mean(axis=(1, 2)))


@dataclass(frozen=True, slots=True, eq=False)
class Gains:
    """Everything a study reads."""

    table: pandas.DataFrame
    """One row a gain, with exactly COLUMNS."""
    scores: pandas.DataFrame
    """One row a score, `none` and `untrained` included, with exactly SCORES."""
    commit: str = "-"
    """Of the code that made the results; several are joined with commas."""
    unscored: int = 0
    """Rows of the frames that have no score yet."""
    unpaired: int = 0
    """Scores without a `none` of the same job, target, language and seed; they have no gain."""
    draws: Mapping[tuple[str, str], Draws] = field(default_factory=dict)
    """(job, target) -> item draws, where item statistics were read."""

    @property
    def zero_shot(self) -> pandas.DataFrame:
        """The rows of `table` that a gain is judged by."""
        return self.table[self.table.zero_shot]

    def only(self, **chosen: Iterable[Any]) -> Gains:
        """Rows whose columns have one of the given values: `only(target=["xnli"], seed=[1, 2])`."""
        table, scores = self.table, self.scores
        for name, values in chosen.items():
            kept = list(values)
            table, scores = table[table[name].isin(kept)], scores[scores[name].isin(kept)]
        return replace(self, table=table, scores=scores)

    def single(self) -> Gains:
        """The same, with every cell once.

        Raises:
            TooLittle: there is no gain at all.
            XstiltsError: a cell was scored under several settings, or there are several models.
        """
        if self.table.empty:
            missing = "no score has a `none` of the same job, target, language and seed beside it"
            raise TooLittle(missing, "run a job that has the row `none` and at least one intermediate task")
        if self.table.model.nunique() > 1:
            models = ", ".join(sorted(set(self.table.model)))
            raise XstiltsError(f"there are several models: {models}", "study one at a time")
        again = self.table[self.table.duplicated(CELL)]
        if len(again):
            one = again.iloc[0]
            what = f"{one.intermediate} on {one.target} in {one.language}, seed {one.seed}"
            raise XstiltsError(f"{what} was scored under several settings", "study one of the jobs")
        return self

    def interval(self, intermediates: Sequence[str], target: str, spoken: Sequence[str]) -> Interval | None:
        """Of the mean gain, by other test items; None where no item statistics were read."""
        found = (draws for (_, name), draws in self.draws.items() if name == target)
        got = (draws.gain(intermediates, spoken) for draws in found)
        return next((interval for interval in got if interval is not None), None)

    def caption(self, used: pandas.DataFrame | None = None) -> str:
        """What every table and figure must say of itself. `used`: the rows of `table` that a study analysed;
        by default all that are zero-shot, or the scores where there is no gain."""
        table = self.zero_shot if used is None else used
        if table.empty:
            table = self.scores[self.scores.zero_shot]
        rows = table[~table.intermediate.isin([BASE, REFERENCE])].intermediate.nunique()
        targets, spoken = table.target.nunique(), table.language.nunique()
        counts = {"intermediate task": rows, "target": targets, "language": spoken}
        many = " \u00d7 ".join(f"{n} {what}{'' if n == 1 else 's'}" for what, n in counts.items())
        runs, of_base = self._collapsed(table)
        parts = [
            f"job {_list(table.job)}",
            f"model {_list(table.model)}",
            f"n {many}, {int(table.n.fillna(0).sum()):,} predictions",
            f"seeds {_list(sorted(set(table.seed)))}",
            f"split {_list(table.split)}",
            f"selection {_list(table.selection)}",
            f"commit {self.commit}",
            f"collapsed runs {runs}"
            + (f" and {of_base} of {BASE}" if of_base else "")
            + (" (kept)" if runs or of_base else ""),
        ]
        if self.unscored:
            parts.append(f"not scored yet {self.unscored}")
        return " \u00b7 ".join(parts)

    def _collapsed(self, table: pandas.DataFrame) -> tuple[int, int]:
        """How many runs behind these gains are flagged, and how many of `none`; one that jobs share has one
        key, and counts once."""
        run = ["model", "target", "seed"]
        near = self.scores[self.scores.collapsed].merge(table[run].drop_duplicates(), on=run)
        fallen = near.drop_duplicates(["key", "intermediate", "target", "seed"])
        mine = fallen.intermediate.isin(set(table.intermediate) - {BASE, REFERENCE})
        return int(mine.sum()), int((fallen.intermediate == BASE).sum())


def of_frame(
    table: pandas.DataFrame, commit: str = "-", draws: Mapping[tuple[str, str], Draws] | None = None
) -> Gains:
    """Gains of a frame with report.frame.COLUMNS; frames of several jobs are put one below the other.

    A score that several jobs share (one key) counts once.

    Raises:
        XstiltsError: the frame lacks a column.
    """
    lacking = [name for name in frame.COLUMNS if name not in table.columns]
    if lacking:
        raise XstiltsError(f"the frame lacks {', '.join(lacking)}", "give one of `xstilts results`")
    unscored = int(table.value.isna().sum())
    scores = _scores(table[table.value.notna()])
    base = scores[scores.intermediate == BASE]
    base = base.rename(columns={"score": "base", "gap": "base_gap", "collapsed": "base_collapsed"})
    on = ["job", "model", "target", "language", "seed"]
    base = base[[*on, "base", "base_gap", "base_collapsed"]]
    rows = scores[~scores.intermediate.isin([BASE, REFERENCE])]
    paired = rows.merge(base.drop_duplicates(on), on=on, how="left")
    paired["gain"] = paired.score - paired.base
    found = paired[paired.gain.notna()].astype({"base_collapsed": bool})
    return Gains(
        table=_once(found)[COLUMNS].reset_index(drop=True),
        scores=_once(scores)[SCORES].reset_index(drop=True),
        commit=commit,
        unscored=unscored,
        unpaired=len(paired) - len(found),
        draws=draws or {},
    )


def item_draws(
    plan: Mapping[str, Any],
    table: pandas.DataFrame,
    runs: Mapping[frame.Run, Mapping[str, frame.Items]],
    resamples: int = RESAMPLES,
) -> dict[tuple[str, str], Draws]:
    """(job, target) -> item draws of one job; `runs` are those of `report.frame.items`.

    Raises:
        StoreError: two runs of one language were scored on different items.
    """
    found = {}
    for target in dict.fromkeys(cell["target"] for cell in plan["cells"]):
        task = registry.task(target)
        own = {(row, seed): by for (row, name, seed), by in runs.items() if name == target and by}
        mine = table[(table.target == target) & (table.metric == task.metric)]
        if task.variant_of or not any(row == BASE for row, _ in own):
            continue
        rows = (BASE, *dict.fromkeys(row for row, _ in own if row not in (BASE, REFERENCE)))
        seeds = sorted({seed for _, seed in own})
        spoken = [code for code in task.languages if code in set(mine.language)]
        samples = clusters.gather(own, metrics.COLUMNS[task.metric], rows, seeds, spoken, task.parallel)
        seed = stream(0, f"bootstrap/{target}")
        again = intervals.resample(samples, task.metric, task.parallel, seed, resamples)
        found[plan["job"], target] = Draws(rows, again)
    return found


def tier(code: str) -> str:
    """How much text XLM-R had of a language: very high, high, medium, low or none; "" for one that is not
    registered or belongs to a generated world."""
    try:
        language = languages.of(code)
    except UnknownName:
        return ""
    if language.cc100_gib is None:
        return "" if language.wiki_articles is None else "none"
    return next(name for least, name in TIERS if language.cc100_gib >= least)


def _scores(table: pandas.DataFrame) -> pandas.DataFrame:
    """Headline scores with what is known of target and language."""
    about = pandas.DataFrame([_about(name) for name in dict.fromkeys(table.target)], columns=_ABOUT)
    tongues = pandas.DataFrame(
        [(code, _genus(code), tier(code)) for code in dict.fromkeys(table.language)],
        columns=["language", "genus", "tier"],
    )
    found = table.merge(about, on="target").merge(tongues, on="language")
    found = found[(found.metric == found.headline) & ~found.variant]
    elsewhere = [code in other for code, other in zip(found.language, found.elsewhere, strict=True)]
    found["zero_shot"] = (found.language != found.source) & ~numpy.array(elsewhere, dtype=bool)
    found["collapsed"] = found.status == "collapsed"
    found["score"] = found.value
    run = ["job", "model", "intermediate", "target", "seed", "key"]
    is_source = (found.language == found.source) & ~numpy.array(elsewhere, dtype=bool)
    source = found[is_source][[*run, "score"]].rename(columns={"score": "at_source"}).drop_duplicates(run)
    found = found.merge(source, on=run, how="left")
    found["gap"] = found.at_source - found.score
    return found


_ABOUT = ["target", "headline", "variant", "source", "elsewhere"]


@cache
def _about(name: str) -> tuple[str, str, bool, str, tuple[str, ...]]:
    task: Task = registry.task(name)
    return name, task.metric, bool(task.variant_of), source_language(task), tuple(task.elsewhere)


def _genus(code: str) -> str:
    try:
        return languages.of(code).genus
    except UnknownName:
        return ""


def _once(table: pandas.DataFrame) -> pandas.DataFrame:
    """Without what several jobs share; rows that have no key are all kept."""
    shared = table.duplicated([*CELL, "key"]) & (table.key != "")
    return table[~shared]


def _list(values: Iterable[Any]) -> str:
    return ", ".join(str(value) for value in dict.fromkeys(values) if value != "") or "-"
