"""Does the gain persist on XTREME-R? Strata of tasks and languages, compared by a test of non-inferiority.

Strata, by the registry's suites `old` and `new` (tasks/suites.py):
    dropped         tasks of XTREME that XTREME-R leaves out
    old languages   shared tasks, in XTREME's languages of them
    new languages   shared tasks, in languages that only XTREME-R has there
    new tasks       tasks that only XTREME-R has

Pre-stated. A gain is zero-shot, over `none` of the same seed, mean over the job's intermediate tasks; a task
is the mean over its languages, a stratum the plain mean over its tasks, as the benchmarks average. Two
contrasts: the new languages against the old ones of the very same tasks, and the new tasks against all old
ones (dropped, and shared in old languages); of tasks with three languages or more on either side, as fewer
cannot show how much languages differ. A contrast counts where its old gain's own interval lies above zero.
    does not persist     a contrast that counts lies below -margin, one-sided, 2.5 % in all (Holm)
    no gain to persist   a contrast does not count
    persists             all lie above -margin by a one-sided bound of 97.5 % (margin: 1 point unless stated
                         otherwise), and of each the old gain's interval lies above the margin, or the new
                         gain's above zero: to lose all of a gain is else no more than the margin
    margin too large     as before, but the margin is as large as the gain
    not shown            none of this
To persist both have to, so nothing is corrected for there being two (intersection-union; Berger 1982), and p
is the larger one.

What is redrawn: whole languages (old and new apart) with everything they have in every task, and whole
seeds with all their tasks and languages (`crossed`). A (language, seed) cell is never a unit, and a task with
fewer than three seeds is in no contrast. Tasks are fixed: three new ones allow an interval for each and no
inference over tasks. Robustness: languages of one genus are redrawn together, as relatives are not
independent either; where that does not bear the answer out, the sentence says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import altair
import numpy
import pandas

from xstilts.report.studies.answer import Answer, Figure, Table, Test, TooLittle, p_value
from xstilts.report.studies.crossed import DRAWS, Redrawn, redraw
from xstilts.report.studies.gains import Gains
from xstilts.report.studies.strata import (
    DROPPED,
    LEAST_LANGUAGES,
    LEAST_SEEDS,
    NEW,
    OLD,
    STRATA,
    TASKS,
    Cells,
    Contrast,
    by_suites,
    by_words,
    cells_of,
    contrasts,
    drawn_apart,
    each,
    genera,
)
from xstilts.report.verdict import points

ITEMS = True
"""Item statistics are read, for the intervals of single tasks."""
QUESTION = "Does the gain of intermediate training persist on XTREME-R's new languages and new tasks?"
ALPHA = 0.025
"""One-sided, of each answer."""
PERSISTS, LESS, OPEN = "persists", "does not persist", "not shown"
NOTHING, SMALL = "no gain to persist", "margin too large"


def answer(
    gains: Gains,
    margin: float = 1.0,
    old: str = "xtreme",
    new: str = "xtreme-r",
    new_tasks: Sequence[str] = (),
    new_languages: Sequence[str] = (),
    dropped: Sequence[str] = (),
    draws: int = DRAWS,
) -> Answer:
    """The answer. `margin`, in points; `new_tasks`, `new_languages` and `dropped` say the strata of tasks
    that no suite has, such as a generated world's, and are used instead of the suites when any is given.

    Raises:
        TooLittle: fewer than three seeds, no old stratum, or no new one that can be compared.
        UnknownName: a task or language that is named has no zero-shot gain.
        XstiltsError: several models, several settings in one cell, or a name that is given twice.
    """
    table = gains.single().zero_shot
    own = bool(new_tasks or new_languages or dropped)
    placed = by_words(table, new_tasks, new_languages, dropped) if own else by_suites(table, old, new)
    everything = table.assign(stratum=placed.to_numpy())
    table = everything[everything.stratum != ""]
    _enough(table, _wanted(everything, own))
    rows = tuple(dict.fromkeys(table.intermediate))
    cells = cells_of(table, rows)
    _every_stratum(cells)
    again = redraw(cells.values, each(cells), drawn_apart(cells), draws=draws)
    found = contrasts(cells, again, margin)
    if not found:
        missing = "no old and new stratum are whole: some language, intermediate task or seed is missing"
        raise TooLittle(
            missing, "three languages and the same seeds of every row, on an old task and a new one"
        )
    every = numpy.zeros(len(cells.languages), dtype=numpy.int64)
    related = contrasts(cells, redraw(cells.values, genera(cells, table), every, draws=draws), margin)
    # A task whose languages are of one or two genera has no error then.
    kin = not any(math.isnan(one.p) for one in related)
    verdict = _verdict(found, margin)
    lines = _lines(gains, cells, again, rows)
    return Answer(
        study="persistence",
        question=QUESTION,
        sentence=_sentence(found, margin, verdict) + _related(related if kin else (), margin, verdict),
        verdict=verdict,
        primary=_test("Non-inferiority, languages and seeds redrawn", cells, found, margin),
        robustness=_test("The same, genera of languages redrawn whole", cells, related, margin)
        if kin
        else None,
        tables=(_contrasts(found, margin), lines, _by_row(table, rows, margin, draws)),
        figures=(_figure(lines.data),),
        caption=gains.caption(table[table.seed.isin(cells.seeds)]),
        notes=(*_notes(table, cells, found, draws), *(() if kin else (_FEW_GENERA,))),
        facts={"margin": margin, "alpha": ALPHA, "intermediate": list(rows), "strata": _strata(cells)},
    )


def published() -> Answer:
    """Always refused.

    Raises:
        TooLittle: no published table has gains on XTREME-R by intermediate task.
    """
    missing = "no published table has gains over `none` on XTREME-R"
    raise TooLittle(
        missing, "a job on XTREME-R's tasks and languages, three seeds of `none` and of another row"
    )


def _wanted(table: pandas.DataFrame, own: bool) -> tuple[TooLittle, TooLittle]:
    """What to say where nothing is old, and where nothing is new; `own`: strata are named, of no suite."""
    tasks, codes = (" ".join(dict.fromkeys(table[name])) for name in ("target", "language"))
    named = f"new_tasks= and new_languages=, from among {tasks} and {codes}"
    if own:
        return (
            TooLittle("no old task or language is left", f"fewer names in {named}"),
            TooLittle("neither a new task nor a new language is named", f"some in {named}"),
        )
    hint = "" if table.stratum.any() else f"; or strata of your own, by --set {named}"
    return (
        TooLittle(
            "no task of the old suite is scored zero-shot",
            f"score at least one task of XTREME in three of its languages or more{hint}",
        ),
        TooLittle(
            "neither a new task nor a new language is scored",
            "XCOPA, Mewsli-X or LAReQA, or POS, NER or Tatoeba in three of the new languages",
        ),
    )


def _enough(table: pandas.DataFrame, wanted: tuple[TooLittle, TooLittle]) -> None:
    """Raises TooLittle where no test can be made: what is `wanted` where nothing is old, or nothing new."""
    seeds = table.seed.nunique()
    strata = set(table.stratum)
    if not strata & {DROPPED, OLD}:
        raise wanted[0]
    if not strata & {NEW, TASKS}:
        raise wanted[1]
    if seeds < LEAST_SEEDS:
        missing = f"{seeds} seed{'s' if seeds != 1 else ''} cannot show how much seeds differ"
        raise TooLittle(missing, f"{LEAST_SEEDS - seeds} more, {LEAST_SEEDS} in all, of every row")
    spoken = table.groupby(["stratum", "target"]).language.nunique()
    widest = spoken.groupby("stratum").max()
    old = int(widest[widest.index.isin([DROPPED, OLD])].max())
    if old < LEAST_LANGUAGES:
        raise TooLittle(
            f"no old task is scored in more than {old} languages",
            f"{LEAST_LANGUAGES - old} more, {LEAST_LANGUAGES} in all",
        )
    new = int(widest[widest.index.isin([NEW, TASKS])].max())
    if new < LEAST_LANGUAGES:
        what = "new task" if NEW not in strata else "shared task" if TASKS not in strata else "task"
        kind = "languages" if NEW not in strata else "new languages"
        raise TooLittle(
            f"no {what} is scored in more than {new} {kind}", f"{LEAST_LANGUAGES} {kind} of one task"
        )


def _every_stratum(cells: Cells) -> None:
    """Raises TooLittle where a stratum has no task with enough seeds: its runs' luck could not be told."""
    most: dict[str, int] = {}
    for at, (stratum, _) in enumerate(cells.names):
        most[stratum] = max(most.get(stratum, 0), cells.runs(at))
    for stratum, seeds in most.items():
        if seeds < LEAST_SEEDS:
            what = f"{stratum}: {seeds} seed{'s' if seeds != 1 else ''} of every row"
            raise TooLittle(what, f"{LEAST_SEEDS - seeds} more, {LEAST_SEEDS} in all, as of the other strata")


def _verdict(found: Sequence[Contrast], margin: float) -> str:
    """By the rule of the module."""
    counted = _counted(found)
    # Holm's first step: that any of them is below.
    if any(one.p_lower(margin) < ALPHA / len(found) for one in counted):
        return LESS
    if len(counted) < len(found):
        return NOTHING
    if not all(one.bound() > -margin for one in found):
        return OPEN
    room = all(one.old.interval.low > margin or one.new.interval.low > 0 for one in found)
    return PERSISTS if room else SMALL


def _counted(found: Sequence[Contrast]) -> list[Contrast]:
    """Those whose old gain is there."""
    return [one for one in found if one.old.interval.low > 0]


def _decided(found: Sequence[Contrast], margin: float) -> str:
    """Where a gain does not persist, by a test that is not the primary one: the least p of contrasts that
    count, against Holm's first step."""
    every = {one.name: one.p_lower(margin) for one in _counted(found)}
    every = {name: p for name, p in every.items() if not math.isnan(p)}
    if not every:
        return ""
    name = min(every, key=lambda each: every[each])
    return f"for {name} (one-sided {p_value(every[name])}, below {ALPHA / len(found):g})"


def _related(related: Sequence[Contrast], margin: float, verdict: str) -> str:
    """What the robustness check takes back. Where relatives gain alike (sd 1.5 points a family), the bound of
    new languages erred in 7 % of frames, that of redrawn genera in 2 %."""
    if not related or verdict not in (PERSISTS, LESS) or _verdict(related, margin) == verdict:
        return ""
    return " With whole genera redrawn, as relatives are not independent, that is not shown."


def _sentence(found: Sequence[Contrast], margin: float, verdict: str) -> str:
    lead = {
        PERSISTS: f"The gain persists to within {margin:g} point{'s' if margin != 1 else ''}",
        LESS: f"The gain does not persist: it is lower by more than {margin:g} {_decided(found, margin)}",
        NOTHING: f"There is no gain to persist: the interval of {_idle(found)} holds zero",
        SMALL: f"The margin of {margin:g} is as large as the gain, all of which may be lost within it",
        OPEN: f"Whether the gain persists to within {margin:g} is not shown: the intervals are too wide",
    }[verdict]
    parts = [
        f"{points(one.new.value)} against {points(one.old.value)} for {one.name} "
        f"(difference {points(one.difference.value)} {one.difference.interval})"
        for one in found
    ]
    alone = "" if len(found) == 2 else " Only one of the two new strata is scored."
    return f"{lead}: {'; '.join(parts)}." + alone


def _strata(cells: Cells) -> dict[str, dict[str, list[str]]]:
    """Stratum -> task -> its languages."""
    made: dict[str, dict[str, list[str]]] = {}
    for at, (stratum, target) in enumerate(cells.names):
        made.setdefault(stratum, {})[target] = list(cells.spoken(at))
    return made


_FEW_GENERA = "genera are not redrawn: languages of a compared task are of fewer than three"


def _idle(found: Sequence[Contrast]) -> str:
    """Old gains that may be none."""
    idle = [one for one in found if not one.old.interval.low > 0]
    told = ", ".join(f"{points(one.old.value)} {one.old.interval}" for one in idle)
    return f"the old gain{'s' if len(idle) > 1 else ''} {told}"


def _test(name: str, cells: Cells, found: Sequence[Contrast], margin: float) -> Test:
    worst = max(found, key=lambda one: one.p)
    p = f"{p_value(worst.p)} of non-inferiority"
    tasks = {target for _, target in cells.names}
    return Test(
        name=name,
        statistic=None,
        value=worst.difference.value,
        interval=worst.difference.interval,
        p=worst.p,
        n={"tasks": len(tasks), "languages": len(cells.languages), "seeds": len(cells.seeds)},
        text=f"{worst.name}, the weaker of {len(found)} contrasts: difference of gains "
        f"{points(worst.difference.value)} points, one-sided 97.5 % bound {points(worst.bound())} against a "
        f"margin of {points(-margin)}, {p}",
    )


def _contrasts(found: Sequence[Contrast], margin: float) -> Table:
    rows = [
        {
            "new against old": one.name,
            "tasks": ", ".join(one.tasks),
            "new gain": one.new.value,
            "old gain": one.old.value,
            "difference": one.difference.value,
            "low": one.difference.interval.low,
            "high": one.difference.interval.high,
            "error from languages": one.difference.languages,
            "error from seeds": one.difference.seeds,
            "p": one.p,
            "p (lower)": one.p_lower(margin),
        }
        for one in found
    ]
    note = (
        "Points over `none`. Persisting: every `low`, the one-sided bound of 97.5 %, above "
        f"{points(-margin)}. p: one-sided, of a difference as high as this where the new gain is lower by "
        "the margin; p (lower): of one as low as this there. Not persisting: p (lower) of a contrast whose "
        f"old gain lies above zero is below {ALPHA / len(found):g} ({100 * ALPHA:g} % in all, Holm)."
    )
    main = ("new against old", "tasks", "new gain", "old gain", "difference", "low", "high", "p", "p (lower)")
    return Table("contrasts", "New strata against old ones", pandas.DataFrame(rows), note, main)


def _lines(gains: Gains, cells: Cells, again: Redrawn, rows: Sequence[str]) -> Table:
    """One row a task of a stratum."""
    lines = []
    for at, (stratum, target) in enumerate(cells.names):
        weights = numpy.zeros(len(cells.names))
        weights[at] = 1.0
        found, spoken = again.contrast(weights), cells.spoken(at)
        ends = found.interval if cells.runs(at) >= LEAST_SEEDS else None
        items = gains.interval(rows, target, spoken)
        lines.append(
            {
                "stratum": stratum,
                "task": target,
                "languages": len(spoken),
                "gain": found.value,
                "low": ends.low if ends else None,
                "high": ends.high if ends else None,
                "items low": items.low if items else None,
                "items high": items.high if items else None,
            }
        )
    note = (
        "Mean gain over the intermediate tasks, points over `none`, zero-shot. low, high: 95 %, other "
        "languages and seeds; none with fewer than three of either. items: 95 %, other test items "
        "for these very models, where item statistics were read."
    )
    return Table("tasks", "Gain by task", pandas.DataFrame(lines), note)


def _by_row(table: pandas.DataFrame, rows: Sequence[str], margin: float, draws: int) -> Table:
    """The contrasts for every intermediate task alone: described, not tested."""
    lines = []
    for row in rows:
        cells = cells_of(table, (row,))
        again = redraw(cells.values, each(cells), drawn_apart(cells), draws=draws)
        for one in contrasts(cells, again, margin):
            lines.append(
                {
                    "intermediate": row,
                    "new against old": one.name,
                    "new gain": one.new.value,
                    "old gain": one.old.value,
                    "difference": one.difference.value,
                    "low": one.difference.interval.low,
                    "high": one.difference.interval.high,
                }
            )
    note = "95 % intervals, other languages and seeds; many comparisons, so no p-values."
    return Table("by_intermediate", "The same for each intermediate task", pandas.DataFrame(lines), note)


def _notes(table: pandas.DataFrame, cells: Cells, found: Sequence[Contrast], draws: int) -> tuple[str, ...]:
    fresh = len({name for stratum, name in cells.names if stratum == TASKS})
    notes = [
        f"tasks are fixed: each of {fresh} new tasks has an interval of its own, and so few allow no "
        "inference over tasks",
        f"redrawn {draws:,} times: {len(cells.languages)} whole languages, {len(cells.seeds)} whole seeds; "
        "bounds are Student's t with Satterthwaite's degrees of freedom "
        f"({', '.join(f'{one.difference.df:.1f}' for one in found)})",
    ]
    for least, what, count in (
        (LEAST_LANGUAGES, "languages", lambda at: len(cells.spoken(at))),
        (LEAST_SEEDS, "seeds", cells.runs),
    ):
        cell = enumerate(cells.names)
        thin = [f"{target} ({stratum})" for at, (stratum, target) in cell if count(at) < least]
        if thin:
            notes.append(f"fewer than {least} {what}, shown and in no contrast: {', '.join(thin)}")
    gone = sorted(set(zip(table.stratum, table.target, strict=True)) - set(cells.names))
    if gone:
        notes.append(f"left out, a row or seed is missing: {', '.join(target for _, target in gone)}")
    return tuple(notes)


def _figure(lines: pandas.DataFrame) -> Figure:
    """Gains by task with intervals, grouped by stratum; a menu shows one stratum."""
    menu = altair.binding_select(options=[None, *STRATA], labels=["all", *STRATA], name="Stratum\u2002")
    shown = altair.selection_point(fields=["stratum"], bind=menu, name="stratum")
    named = lines.assign(name=[f"{one.task}, {one.stratum}" for one in lines.itertuples()])
    base = altair.Chart(named).transform_filter(shown)
    y = altair.Y("name:N", title=None, sort=list(named.name))
    strata: dict[str, Any] = {
        "sort": [stratum for stratum in STRATA if stratum in set(named.stratum)],
        "title": "stratum",
    }
    ends = [altair.Tooltip(end, format=".2f") for end in ("gain", "low", "high")]
    tips = ["stratum", "task", "languages", *ends]
    bars = base.mark_rule(strokeWidth=2).encode(
        x=altair.X("low:Q", title="gain over none, points"),
        x2="high:Q",
        y=y,
        color=altair.Color("stratum:N", **strata),
        tooltip=tips,
    )
    dots = base.mark_point(filled=True, size=90, opacity=1).encode(
        x="gain:Q",
        y=y,
        color=altair.Color("stratum:N", **strata),
        shape=altair.Shape("stratum:N", sort=strata["sort"], legend=None),
        tooltip=tips,
    )
    zero = altair.Chart().mark_rule(strokeDash=[4, 4]).encode(x=altair.datum(0))
    chart = altair.layer(zero, bars, dots.add_params(shown)).properties(width=560, height=altair.Step(24))
    alt = "; ".join(f"{one.task}, {one.stratum}: {points(one.gain)}" for one in lines.itertuples())
    return Figure(
        "gains",
        "Mean gain over the intermediate tasks, by task and stratum",
        chart,
        f"Dots with intervals: {alt}",
        "Points over `none`, zero-shot; bars are 95 %, other languages and seeds.",
    )
