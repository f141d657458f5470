"""A job's scores and gains beside published ones: `xstilts compare JOB --with phang2020`.

Numbers are subtracted only where they speak of the same thing: the same metric, split, model and languages,
whole. Everything else stands in the table with what is published and the reason why nothing is subtracted.
A published number is one run of unknown seed: a difference within the seed spread says nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy
import pandas

from xstilts.record.artifacts import ArtifactStore
from xstilts.report import frame
from xstilts.report.published import published as papers
from xstilts.report.studies.gains import of_frame
from xstilts.report.transfer import BASE, REFERENCE
from xstilts.report.verdict import points
from xstilts.spec.experiment import RowSpec
from xstilts.tasks import registry, suites

COLUMNS = [
    *("intermediate", "target", "language", "metric", "split", "seeds", "score", "published", "difference"),
    *("gain", "published_gain", "gain_difference", "why", "note", "source"),
]
"""`why`: what keeps the row from being compared, "" where it is."""
SHOWN = 6
"""Missing languages that a reason names."""


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """What a job has in common with a paper."""

    name: str
    job: str
    table: pandas.DataFrame
    """One row a score of the job that the paper could have, with COLUMNS."""
    sentence: str
    notes: tuple[str, ...]
    incomplete: bool
    """Whether scores that the job plans are not there yet."""

    @property
    def compared(self) -> int:
        """Rows that have a difference."""
        return int((self.table.why == "").sum())

    def to_json(self) -> dict[str, Any]:
        """Plain values; None for a number that is not there."""
        rows = self.table.astype(object).where(self.table.notna(), None).to_dict("records")
        said = {"with": self.name, "job": self.job, "sentence": self.sentence, "notes": list(self.notes)}
        return {**said, "compared": self.compared, "incomplete": self.incomplete, "rows": rows}


def compare(plan: Mapping[str, Any], store: ArtifactStore, name: str) -> Comparison:
    """The job of a stored plan beside the published numbers called `name`.

    Raises:
        UnknownName: there are none of that name.
        StoreError: a record is damaged.
    """
    papers.published(name)  # an unknown name is told before anything is read
    known = frame.records(plan, store)
    return beside(plan, frame.frame(plan, store, known), name, frame.commit([known]))


def beside(plan: Mapping[str, Any], table: pandas.DataFrame, name: str, commit: str = "-") -> Comparison:
    """The same for a job's frame. `commit`: of the code that made it."""
    scores = papers.published(name)
    scores = scores[scores.setting.str.startswith("zero-shot")]
    known = _with_gains(scores)
    labels = _labels(plan)
    rows = [
        row
        for (intermediate, target), own in table.groupby(["intermediate", "target"], sort=False)
        if intermediate != REFERENCE
        for row in _rows(plan, table, own, labels.get(intermediate, intermediate), target, known)
    ]
    made = pandas.DataFrame([*rows, *_averages(rows, scores)], columns=COLUMNS)
    incomplete = bool((table.status == "missing").any())
    notes = (*_notes(made), f"here: {of_frame(table, commit).caption()}")
    return Comparison(name, plan["job"], made, _sentence(made, name), notes, incomplete)


def _labels(plan: Mapping[str, Any]) -> dict[str, str]:
    """A row's name in the job -> what it is called by its words alone, as published rows are."""
    rows = (RowSpec.model_validate(words) for words in plan["experiment"].get("intermediate") or ())
    return {row.label: row.model_copy(update={"name": None}).label for row in rows if row.checkpoint is None}


def _with_gains(scores: pandas.DataFrame) -> pandas.DataFrame:
    """All published rows, with `gain` over the row none of the same paper where there is one."""
    keys = ["paper", "system", "model", "intermediate", "target", "split", "setting", "language", "metric"]
    base = scores[scores.intermediate == BASE].drop_duplicates([key for key in keys if key != "intermediate"])
    base = base[[*keys, "value"]].rename(columns={"value": "base"}).drop(columns="intermediate")
    joined = scores.merge(base, on=[key for key in keys if key != "intermediate"], how="left")
    gain = (joined.value - joined.base).round(2)
    return joined.assign(gain=gain.where(joined.intermediate != BASE))


def _rows(
    plan: Mapping[str, Any],
    table: pandas.DataFrame,
    own: pandas.DataFrame,
    label: str,
    target: str,
    known: pandas.DataFrame,
) -> Iterable[dict[str, Any]]:
    """Of one cell of the job: the mean over languages, and each language that is published."""
    intermediate = str(own.intermediate.iloc[0])
    found = known[(known.intermediate == label) & (known.target == target)]
    task = registry.task(target)
    said = {"intermediate": intermediate, "target": target}
    if task.variant_of or found.empty:
        what = f"{target} is no task of it" if known[known.target == target].empty else f"no row {label}"
        yield _row(**said, language=papers.MEAN, why=f"not published: {what}")
        return
    languages = [papers.MEAN, *(code for code in dict.fromkeys(own.language) if code in set(found.language))]
    for language in languages:
        here = found[found.language == language]
        metrics = [metric for metric in (task.metric, "f1", "exact_match") if metric in set(own.metric)]
        shared = [metric for metric in metrics if metric in set(here.metric)]
        if here.empty:
            continue
        if not shared:
            there = ", ".join(sorted(set(here.metric)))
            why = f"other metric: {', '.join(metrics) or 'none yet'} here, {there} there"
            yield _row(**said, language=language, why=why)
            continue
        yield _pair(plan, table, own, here[here.metric == shared[0]], said, language, shared[0])


def _pair(
    plan: Mapping[str, Any],
    table: pandas.DataFrame,
    own: pandas.DataFrame,
    here: pandas.DataFrame,
    said: Mapping[str, str],
    language: str,
    metric: str,
) -> dict[str, Any]:
    """One score beside its published one."""
    mine = own[(own.metric == metric) & own.value.notna()]
    split = str(mine.split.iloc[0]) if len(mine) else ""
    there = _nearest(here, model_name(plan["model"]), split)
    wanted = _languages(said["target"], split) if language == papers.MEAN else (language,)
    score, seeds = _mean(mine, wanted)
    base = table[(table.intermediate == BASE) & (table.target == said["target"]) & (table.metric == metric)]
    reasons = list(_reasons(plan, mine, there, wanted, split))
    gain = None if said["intermediate"] == BASE else _gain(mine, base, wanted)
    same = not reasons and score is not None
    return _row(
        **said,
        language=language,
        metric=metric,
        split=split,
        seeds=seeds,
        score=score,
        published=there.value,
        difference=score - there.value if same and score is not None else None,
        gain=gain,
        published_gain=there.gain if pandas.notna(there.gain) else None,
        gain_difference=gain - there.gain if same and gain is not None and pandas.notna(there.gain) else None,
        why="; ".join(reasons),
        note=there.note,
        source=there.source,
    )


def _row(**given: Any) -> dict[str, Any]:
    words = dict.fromkeys(("metric", "split", "why", "note", "source"), "")
    return {**dict.fromkeys(COLUMNS), **words, "seeds": 0, **given}


def _nearest(here: pandas.DataFrame, model: str, split: str) -> Any:
    """The published row of the same model and split where there is one; the authors' own before one they
    quote."""
    ordered = here.assign(
        stranger=here.model != model,
        other=here.split != split,
        quoted=here.system.str.contains("Hu et al"),
        unpaired=here.gain.isna(),
    )
    ordered = ordered.sort_values(["stranger", "other", "quoted", "unpaired"], kind="stable")
    return next(ordered.itertuples(index=False))


def _reasons(
    plan: Mapping[str, Any], mine: pandas.DataFrame, there: Any, wanted: tuple[str, ...], split: str
) -> Iterable[str]:
    """What keeps the two from being compared."""
    if mine.empty:
        yield "not scored yet"
        return
    model = model_name(plan["model"])
    if model != there.model:
        yield f"other model: {plan['model']} here, {there.model} there"
    if split != there.split and not _same_rows(there.target):
        yield f"other split: {split} here, {there.split} there"
    lacking = [code for code in wanted if code not in set(mine.language)]
    if lacking:
        named = " ".join(lacking[:SHOWN]) + (" ..." if len(lacking) > SHOWN else "")
        yield f"languages missing: {len(lacking)} of {len(wanted)}, {named}"
    first = (plan["experiment"].get("evaluate") or {}).get("first")
    if first:
        yield f"only the first {first} items of each language"
    if "target_dev" in set(mine.selection):
        yield "chosen on target dev, there on source dev"


def model_name(model: str) -> str:
    """What papers call a model of the hub; its own name where that is not known."""
    plain = model.rpartition("/")[2].lower()
    known = papers.table("model_parameters")
    ids = {
        str(row.hub_id).rpartition("/")[2].lower(): str(row.model) for row in known.itertuples(index=False)
    }
    return ids.get(plain, model)


def _same_rows(target: str) -> bool:
    """Whether dev and test of a task are the same published rows (XQuAD, TyDiQA, Tatoeba)."""
    task = registry.task(target)
    return task.dev is None or task.test is None or task.dev == task.test


def _languages(target: str, split: Literal["dev", "test"] | str) -> tuple[str, ...]:
    """The languages that XTREME's score of a target is the mean over; of dev, those that have it."""
    task = registry.task(target)
    listed = suites.suite("xtreme").tasks.get(target, task.languages)
    there = task.reported("dev" if split == "dev" else "test")
    return tuple(code for code in listed if code in there or not there)


def _mean(mine: pandas.DataFrame, wanted: Iterable[str]) -> tuple[float | None, int]:
    """Mean over seeds of the mean over languages; and how many seeds there are."""
    by_seed = mine[mine.language.isin(list(wanted))].groupby("seed").value.mean()
    return (float(by_seed.mean()), len(by_seed)) if len(by_seed) else (None, 0)


def _gain(mine: pandas.DataFrame, base: pandas.DataFrame, wanted: Iterable[str]) -> float | None:
    """Mean over seeds and languages that both have."""
    on = ["language", "seed"]
    both = mine[mine.language.isin(list(wanted))].merge(base[[*on, "value"]], on=on, suffixes=("", "_none"))
    both = both[both.value_none.notna()]
    gains = (both.value - both.value_none).groupby(both.seed).mean()
    return float(gains.mean()) if len(gains) else None


def _averages(rows: list[dict[str, Any]], scores: pandas.DataFrame) -> list[dict[str, Any]]:
    """XTREME's overall score, of the job's rows whose nine tasks were all compared; against the mean of the
    published cells, not against what is printed."""
    if not len(scores[scores.target == papers.AVERAGE]):
        return []
    means = pandas.DataFrame([row for row in rows if row["language"] == papers.MEAN], columns=COLUMNS)
    nine, made = list(suites.suite("xtreme").tasks), []
    found = papers.averages(scores)
    labelled = {row["intermediate"]: row for row in rows}
    for intermediate in labelled:
        own = means[(means.intermediate == intermediate) & means.target.isin(nine) & (means.why == "")]
        split = set(own.split)
        if len(own) != len(nine) or len(split) != 1:
            continue
        there = float(own.published.mean())
        printed = found[(found.recomputed.round(2) == round(there, 2)) & found.split.isin(split)]
        note = str(printed.note.fillna("").iloc[0]) if len(printed) else ""
        score = float(own.score.astype(float).mean())
        gains = own.gain.astype(float).mean() if intermediate != BASE else numpy.nan
        published_gain = own.published_gain.astype(float).mean() if intermediate != BASE else numpy.nan
        made.append(
            _row(
                intermediate=intermediate, target=papers.AVERAGE, language=papers.MEAN, metric=papers.MEAN,
                split=next(iter(split)), seeds=int(own.seeds.min()), score=score, published=there,
                difference=score - there, gain=gains, published_gain=published_gain,
                gain_difference=gains - published_gain, note=note, source="mean of the nine published cells",
            )
        )  # fmt: skip
    return made


def _sentence(made: pandas.DataFrame, name: str) -> str:
    same = made[(made.why == "") & (made.target != papers.AVERAGE)]
    if same.empty:
        return f"Nothing of this job can be compared with {name}: the table says why."
    text = f"{len(same)} of {len(made[made.target != papers.AVERAGE])} numbers can be compared with {name}"
    off = same.difference.astype(float)
    text += f"; scores differ by {points(float(off.mean()))} points on average, {off.abs().max():.1f} at most"
    gains = same[same.gain_difference.notna()]
    if len(gains):
        agree = (numpy.sign(gains.gain.astype(float)) == numpy.sign(gains.published_gain.astype(float))).sum()
        text += f"; {agree} of {len(gains)} gains have the published sign"
    return text + "."


def _notes(made: pandas.DataFrame) -> tuple[str, ...]:
    """Why not, most frequent first."""
    reasons = [reason.partition(":")[0] for why in made.why if why for reason in why.split("; ")]
    counts = pandas.Series(reasons, dtype=str).value_counts()
    notes = [f"not compared, {reason}: {count} rows" for reason, count in counts.items()]
    seeds = sorted({int(count) for count in made[made.why == ""].seeds})
    if seeds:
        shown = " to ".join(str(each) for each in dict.fromkeys((seeds[0], seeds[-1])))
        notes.append(f"means of {shown} seeds beside one published run: seed spread is part of a difference")
    return tuple(notes)
