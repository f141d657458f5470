"""Consistency: does an intermediate task change how often a model is right in English and wrong in X?

Stated beforehand. On parallel test sets (`parallel`) an item is lost in X where a run is right on it in the
source language and wrong on its translation. Primary: the share of lost items, mean over languages, of an
intermediate task minus that of `none` with the same seed on the same items, mean over intermediate tasks and
targets; two-sided at 5 %. Whole clusters of items and whole seeds are redrawn (`crossed`): translations of an
item, items of one premise or article, and items of one run are not independent. McNemar's exact test takes
each item for a trial of its own, and is not used. The test speaks of other items and other seeds; languages,
tasks and targets are those at hand. Robustness: the same with only those items that both runs get right in
the source language, so that being right there more often is no part of it.

Described, without a test: agreement apart from accuracy (`agreement`), by row and language.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import altair
import numpy
import pandas
from scipy import stats

from xstilts.errors import XstiltsError
from xstilts.frozen import stream
from xstilts.report.clusters import Floats
from xstilts.report.intervals import SEEDS_FOR_T
from xstilts.report.studies import crossed, parallel
from xstilts.report.studies.agreement import Agreement, agreement
from xstilts.report.studies.answer import Answer, Figure, Table, Test, TooLittle, p_value
from xstilts.report.studies.crossed import Estimate
from xstilts.report.studies.gains import Gains
from xstilts.report.studies.parallel import Paired
from xstilts.report.transfer import BASE
from xstilts.report.verdict import points
from xstilts.tasks import languages, registry

NAME = "consistency"
QUESTION = (
    "Are items that are right in English lost in other languages, and does an intermediate task change it?"
)
FEWER, MORE, SAME = "fewer lost", "more lost", "no change shown"
ALPHA = 0.05
LEAST_CLUSTERS = 20
"""Fewer cannot be redrawn: of 20 the standard error is itself sure to 16 %."""
DRAWS = 1_000
"""Of clusters and seeds; a standard error is then sure to 2 %."""
MAIN = (
    *("intermediate", "target", "lost %", "change", "low", "high", "change, both right", "low, both right"),
    *("high, both right", "won %", "kappa"),
)
"""Of the main table: the two tests, and what its note explains."""
BLUE, ORANGE = "#0072B2", "#D55E00"
ENOUGH = (
    f"a job with `none`, an intermediate task, {SEEDS_FOR_T} seeds, and a target such as xnli, pawsx or "
    "xquad in the language that it is trained in and in another"
)

Cell = tuple[str, str]
"""Target, intermediate task."""
read = parallel.read
"""Of a stored plan, what `answer` is given as `paired`."""


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """Of the share of lost items, in points."""

    every: Estimate
    """Mean over cells."""
    both: Estimate
    """The same among items that both runs get right in the source language."""
    cells: dict[Cell, tuple[Estimate, Estimate]]
    clusters: int
    items: int


def answer(
    gains: Gains, *, paired: Sequence[Paired] | None = None, draws: int = DRAWS, seed: int = 0
) -> Answer:
    """`paired`: of `parallel.read`, of the same jobs as the gains.

    Raises:
        TooLittle: no parallel target in its source language and another, three seeds, twenty clusters.
        XstiltsError: several models, or a target that several jobs have scored.
    """
    chosen, notes = _chosen(gains, paired or ())
    changes = change(chosen, draws, seed)
    agreed = {one.target: agreement(one, stream(seed, f"{NAME}/{one.target}")) for one in chosen}
    primary, robust = _tests(chosen, changes)
    verdict = SAME
    if primary.p is not None and primary.p < ALPHA:
        verdict = FEWER if changes.every.value < 0 else MORE
    main = _main_table(chosen, changes, agreed)
    spoken = _language_table(chosen, agreed)
    return Answer(
        study=NAME,
        question=QUESTION,
        sentence=_sentence(chosen, main, changes, primary, verdict, _near_chance(chosen, agreed)),
        verdict=verdict,
        primary=primary,
        robustness=robust,
        tables=(
            Table(
                "consistency",
                "Items right in the source language and wrong in another",
                main,
                _MAIN_NOTE,
                MAIN,
            ),
            Table("languages", "Agreement with the source language", spoken, _LANGUAGE_NOTE),
        ),
        figures=(_figure(main, spoken),),
        caption=gains.caption(_used(gains, chosen)),
        notes=(*notes, *_notes(chosen, changes, draws), *_guessing(chosen, agreed)),
        facts={"alpha": ALPHA, "targets": [one.target for one in chosen], "draws": draws},
    )


def published() -> Answer:
    """Always refused.

    Raises:
        TooLittle: published tables have no item.
    """
    raise TooLittle("published tables have scores and no items", ENOUGH)


def _used(gains: Gains, chosen: Sequence[Paired]) -> pandas.DataFrame:
    """The gains of what was compared item by item."""
    cells = [(one.target, code, seed) for one in chosen for code in one.languages for seed in one.seeds]
    named = pandas.DataFrame(cells, columns=["target", "language", "seed"])
    return gains.zero_shot.merge(named, on=list(named))


def change(chosen: Sequence[Paired], draws: int = DRAWS, seed: int = 0) -> Changes:
    """How rows differ from `none`. Every row of every target is a cell; cells count alike."""
    seeds = sorted({each for one in chosen for each in one.seeds})
    names = [(one.target, row) for one in chosen for row in one.rows[1:]]
    sizes = [len(one.clusters) for one in chosen]
    values = numpy.full((2 * len(names), sum(sizes), len(seeds)), numpy.nan)
    units, strata = numpy.empty(sum(sizes), dtype=numpy.int64), numpy.repeat(numpy.arange(len(sizes)), sizes)
    at, cell, met = 0, 0, 0
    for one, size in zip(chosen, sizes, strict=True):
        own = slice(at, at + size)
        units[own] = one.clusters + met
        columns = [seeds.index(each) for each in one.seeds]
        for every, both in _differences(one):
            values[cell, own, columns] = every
            values[len(names) + cell, own, columns] = both
            cell += 1
        at, met = at + size, met + int(one.clusters.max()) + 1
    redrawn = crossed.redraw(values, units, strata, seed, draws)
    count, weights = len(names), numpy.eye(2 * len(names))
    wanted = [*weights, weights[:count].mean(axis=0), weights[count:].mean(axis=0)]
    each = [redrawn.contrast(line) for line in wanted]
    return Changes(
        every=each[-2],
        both=each[-1],
        cells={name: (each[i], each[count + i]) for i, name in enumerate(names)},
        clusters=met,
        items=at,
    )


def _differences(one: Paired) -> Iterator[tuple[Floats, Floats]]:
    """For each row but `none`, (seeds, items) in percent, means over languages: lost minus lost by `none`;
    and the same where both are right in the source language, NaN elsewhere."""
    source, wrong = one.right[:, :, 0], ~one.right[:, :, 1:]
    for i in range(1, len(one.rows)):
        there = (one.present[i] & one.present[0])[:, None]
        lost = (source[i][:, None] & wrong[i]).mean(axis=1) - (source[0][:, None] & wrong[0]).mean(axis=1)
        among = wrong[i].mean(axis=1) - wrong[0].mean(axis=1)
        known = there & source[i] & source[0]
        yield numpy.where(there, 100 * lost, numpy.nan), numpy.where(known, 100 * among, numpy.nan)


def _chosen(gains: Gains, paired: Sequence[Paired]) -> tuple[list[Paired], list[str]]:
    """Targets that can be studied, in the languages that gains are reported in; and what was left out."""
    table = gains.single().zero_shot
    again = [one.target for i, one in enumerate(paired) if one.target in [each.target for each in paired[:i]]]
    if again:
        raise XstiltsError(f"{again[0]} was scored in several jobs", "study one of the jobs")
    chosen, notes = [], []
    for one in paired:
        seeds = (one.present & one.present[0]).sum(axis=1)
        few = [
            f"{row} ({n})" for row, n in zip(one.rows, seeds, strict=True) if n < SEEDS_FOR_T and row != BASE
        ]
        if few:
            notes.append(f"{one.target}: left out, fewer than {SEEDS_FOR_T} seeds: {', '.join(few)}")
        kept = one.speaking(list(table[table.target == one.target].language))
        kept = kept.only([row for row, n in zip(one.rows, seeds, strict=True) if n >= SEEDS_FOR_T])
        clusters = len(set(kept.clusters.tolist()))
        if clusters < LEAST_CLUSTERS:
            notes.append(f"{one.target}: left out, {clusters} clusters of items, {LEAST_CLUSTERS} needed")
        elif len(kept.rows) > 1 and len(kept.languages) > 1:
            chosen.append(kept)
    if not chosen:
        why = "no target has parallel items, right or wrong, in the language it is trained in and in another"
        raise TooLittle("; ".join(notes) or why, ENOUGH)
    return chosen, notes


def _tests(chosen: Sequence[Paired], changes: Changes) -> tuple[Test, Test]:
    n = {
        "intermediate tasks": len({row for one in chosen for row in one.rows[1:]}),
        "targets": len(chosen),
        "languages": len({code for one in chosen for code in one.languages[1:]}),
        "seeds": len({seed for one in chosen for seed in one.seeds}),
        "items": changes.items,
        "clusters": changes.clusters,
    }
    how = "clusters of items and seeds redrawn"
    made = []
    for name, found, among in (
        (f"share of lost items, {how}", changes.every, "Of all items"),
        (
            "the same among items right in the source language with and without",
            changes.both,
            "Of those items",
        ),
    ):
        p = 2 * float(stats.t.sf(abs(found.value) / found.error, found.df)) if found.error > 0 else 1.0
        told = f"{points(found.value)} points {found.interval} lost over `{BASE}`, {p_value(p)}"
        statistic = found.value / found.error if found.error > 0 else None
        made.append(Test(name, statistic, found.value, found.interval, p, n, f"{among}, {told}."))
    return made[0], made[1]


def _sentence(
    chosen: Sequence[Paired],
    main: pandas.DataFrame,
    changes: Changes,
    primary: Test,
    verdict: str,
    low: Sequence[tuple[str, str]],
) -> str:
    """`low`: (row, target) pairs near chance in the source language."""
    tasks = main[main.intermediate != BASE]
    base = main[main.intermediate == BASE].set_index("target").loc[tasks.target]  # as often as it is compared
    source = _source(chosen)
    assert primary.p is not None
    borne = verdict == SAME or changes.both.interval.side == numpy.sign(changes.every.value)
    guessed = [target for row, target in low if row == BASE]
    return (
        f"After an intermediate task {tasks['lost %'].mean():.1f} % of the items are right in {source} and "
        f"wrong in another language, without one {base['lost %'].mean():.1f} %: {verdict} "
        f"({points(changes.every.value)} points {changes.every.interval}, {p_value(primary.p)}). Of the "
        f"items that both get right in {source}, it is {points(changes.both.value)} points "
        f"{changes.both.interval}{'' if borne else f', which does not bear out {verdict!r}'}. "
        + (f"`{BASE}` is near chance in {source} on {', '.join(guessed)}, where it has little to lose. "
           if guessed else "")
        + f"Agreement apart from accuracy (kappa) is {tasks.kappa.mean():.2f}, without one "
        f"{base.kappa.mean():.2f}."
    )  # fmt: skip


def _source(chosen: Sequence[Paired]) -> str:
    found = {one.source for one in chosen}
    return languages.of(found.pop()).name if len(found) == 1 else "the source language"


def _main_table(
    chosen: Sequence[Paired], changes: Changes, agreed: Mapping[str, Agreement]
) -> pandas.DataFrame:
    rows = []
    for one in chosen:
        found = agreed[one.target]
        for i, row in enumerate(one.rows):
            every, both = changes.cells.get((one.target, row), (None, None))
            ends = (every.interval.low, every.interval.high) if every else (None, None)
            rows.append(
                {
                    "intermediate": row,
                    "target": one.target,
                    "lost %": float(found.lost[i].mean()),
                    "change": every.value if every else None,
                    "low": ends[0],
                    "high": ends[1],
                    "kappa": _mean(found.kappa[i]),
                    "if independent %": float(found.alone[i].mean()),
                    "change, both right": both.value if both else None,
                    "low, both right": both.interval.low if both else None,
                    "high, both right": both.interval.high if both else None,
                    "won %": float(found.won[i].mean()),
                    "right in source %": float(found.source[i].mean()),
                    "right elsewhere %": float(found.here[i].mean()),
                    "label kappa": _mean(found.labels[i]),
                    "languages": len(one.languages) - 1,
                    "items": len(one.clusters),
                    "seeds": int((one.present[i] & one.present[0]).sum()),
                }
            )
    return pandas.DataFrame(rows)


def _language_table(chosen: Sequence[Paired], agreed: Mapping[str, Agreement]) -> pandas.DataFrame:
    rows = []
    for one in chosen:
        found = agreed[one.target]
        for i, k in numpy.ndindex(*found.lost.shape):
            rows.append(
                {
                    "intermediate": one.rows[i],
                    "target": one.target,
                    "language": one.languages[k + 1],
                    "lost %": found.lost[i, k],
                    "low": found.lost_ends[0, i, k],
                    "high": found.lost_ends[1, i, k],
                    "if independent %": found.alone[i, k],
                    "kappa": found.kappa[i, k],
                    "kappa low": found.kappa_ends[0, i, k],
                    "kappa high": found.kappa_ends[1, i, k],
                    "label kappa": found.labels[i, k],
                    "won %": found.won[i, k],
                    "right in source %": found.source[i, k],
                    "right here %": found.here[i, k],
                }
            )
    return pandas.DataFrame(rows)


def _mean(values: Floats) -> float:
    known = values[~numpy.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


_MAIN_NOTE = (
    "Lost: right in the source language, wrong in the other; won: the reverse; means over languages and "
    "seeds. Change: points over `none`, 95 %, other items and seeds. Both right: of items that the row and "
    "`none` get right in the source language"
)
_LANGUAGE_NOTE = (
    "Means over seeds; 95 %, other test items, these very models. If independent: lost by two models of "
    "these accuracies whose errors have nothing in common; kappa is then 0"
)


def _notes(chosen: Sequence[Paired], changes: Changes, draws: int) -> tuple[str, ...]:
    short = [f"{one.target} {one.left_out}" for one in chosen if one.left_out]
    mute = [one.target for one in chosen if one.labels is None]
    notes = [
        f"redrawn {draws:,} times: {changes.clusters:,} clusters of items, within targets, and whole seeds; "
        f"bounds are Student's t with Satterthwaite's degrees of freedom ({changes.every.df:.1f})",
        "intervals of single rows are not corrected for their number",
    ]
    if short:
        notes.append(f"items left out, a language lacks them: {', '.join(short)}")
    if mute:
        notes.append(f"no label kappa, no labels were predicted or kept: {', '.join(mute)}")
    if changes.every.value * changes.both.value < 0:
        notes.append("the two tests point to different sides: how often the source language is right decides")
    return tuple(notes)


def _near_chance(chosen: Sequence[Paired], agreed: Mapping[str, Agreement]) -> list[tuple[str, str]]:
    """(row, target) pairs that may know nothing: where one label is said to everything, nothing is lost and
    kappa is 1."""
    found = []
    for one in chosen:
        chance = registry.task(one.target).chance
        low = agreed[one.target].source_ends[0, :, 0]
        found += [
            (row, one.target)
            for row, end in zip(one.rows, low, strict=True)
            if chance is not None and end <= chance
        ]
    return found


def _guessing(chosen: Sequence[Paired], agreed: Mapping[str, Agreement]) -> tuple[str, ...]:
    """The same in words."""
    found = [f"{row} on {target}" for row, target in _near_chance(chosen, agreed)]
    told = "near chance in the source language, where what is lost and kappa say little"
    return (f"{told}: {', '.join(found)}",) if found else ()


def _figure(main: pandas.DataFrame, spoken: pandas.DataFrame) -> Figure:
    """Change of the share by row, with its languages; one panel a target."""
    base = spoken[spoken.intermediate == BASE].set_index(["target", "language"])["lost %"]
    moved = spoken[spoken.intermediate != BASE].copy()
    moved["change"] = (
        moved["lost %"] - base.loc[list(zip(moved.target, moved.language, strict=True))].to_numpy()
    )
    moved["name"] = [languages.of(code).name for code in moved.language]
    means = main[main.intermediate != BASE]
    order = list(means.groupby("intermediate", sort=False).change.mean().sort_values().index)
    title = "change of the share of lost items, points"
    y = altair.Y("intermediate:N", sort=order, title=None)
    tips = [altair.Tooltip(end, format="+.2f") for end in ("change", "low", "high")]
    panels = []
    for target, own in means.groupby("target", sort=False):
        dots = altair.Chart(moved[moved.target == target][["intermediate", "name", "language", "change"]])
        mean = altair.Chart(own[["intermediate", "change", "low", "high"]])
        zero = altair.Chart().mark_rule(strokeDash=[4, 4]).encode(x=altair.datum(0))
        spots = dots.mark_point(filled=True, size=28, opacity=0.7, color=BLUE).encode(
            x=altair.X("change:Q", title=title), y=y,
            tooltip=["intermediate", "name", altair.Tooltip("change", format="+.2f")],
        )  # fmt: skip
        bar = mean.mark_rule(strokeWidth=2, color=ORANGE).encode(
            x="low:Q", x2="high:Q", y=y, tooltip=["intermediate", *tips]
        )
        middle = mean.mark_point(filled=True, size=110, opacity=1, shape="diamond", color=ORANGE).encode(
            x="change:Q", y=y, tooltip=["intermediate", *tips]
        )
        chart = altair.layer(zero, bar, spots, middle)
        panels.append(chart.properties(width=560, height=altair.Step(30), title=str(target)))
    told = "; ".join(
        f"{one.intermediate} on {one.target} {points(one.change)}" for one in means.itertuples(index=False)
    )
    return Figure(
        "change",
        "Change of the share of items that are right in the source language and wrong in another",
        altair.vconcat(*panels).resolve_scale(x="shared"),
        f"Diamonds with intervals: {told}",
        "Diamonds: mean over languages, with 95 % intervals; dots: languages. Left of zero fewer are lost.",
    )
