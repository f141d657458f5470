"""Can measures that cost little say, before targets are trained, which intermediate task to take?

Pre-stated. Within every target the intermediate tasks are ranked by each measure of the probe steps, the
largest first, and judged against the measured grid of gains, zero-shot languages and seeds averaged:
    regret@k   percent of the best task's score that is lost when the best of the k ranked first is taken
               (Poth et al. 2021, section 5); points is the same at k = 1, in points
    NDCG       of the whole ranking, relevance being the gain above that of the worst task, 0..1 of the best
               (Vu et al. 2020 take the score itself, which brings every ranking near 1)
    saved      share of the grid's training that is not done when k are taken
Primary: mean NDCG of LogME against tasks relabelled, one relabelling for all targets, since a task that is
good everywhere is no evidence of another target; one-sided at 5 %. Robustness: the same of regret@1, which
hangs on first choices alone: where one task is chosen for all targets its p is never below 1 / tasks. Other
measures are described and not tested.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import altair
import numpy
import pandas

from xstilts.errors import UnknownName, XstiltsError
from xstilts.report.measures import CELL, averaged
from xstilts.report.studies.answer import Answer, Figure, Table, Test, TooLittle, p_value
from xstilts.report.studies.gains import Gains
from xstilts.report.transfer import BASE, REFERENCE

QUESTION = "Which intermediate task should be taken, and can that be known before the target is trained?"
RANKS, OPEN = "better than chance", "not shown to be better than chance"
ALPHA = 0.05
LEAST_TASKS, LEAST_TARGETS = 5, 3
"""Five tasks can be relabelled in 120 ways, so that p can be 0.008; four in 24, where only 0.042 would do."""
EXACT = 7
"""Up to so many tasks, all relabellings are gone through (5,040)."""
DRAWN = 9_999
RANDOM, OTHERS = "random", "mean gain on the other targets"
"""What measures are set beside: a blind choice, and one that knows the grid but for the target itself."""
BLIND = ("text_embedding",)
"""Measures that no intermediate training is needed for."""
BLUE, ORANGE = "#0072B2", "#D55E00"

Array = numpy.ndarray[Any, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """What was measured, of tasks and targets that have gains and the tested measure; arrays are (tasks,
    targets)."""

    tasks: tuple[str, ...]
    targets: tuple[str, ...]
    gains: Array
    scores: Array
    """In percent, of the same cells."""
    values: dict[str, Array]
    """Measure -> its values."""
    seeds: int
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Judged:
    """How good one way to rank is, over targets."""

    regret_1: float
    regret_3: float
    points: float
    ndcg: float
    right: float
    """Share of targets whose best task is ranked first, 0..1."""


def answer(
    gains: Gains,
    *,
    measures: pandas.DataFrame | None = None,
    by: str = "logme",
    intermediate_cost: float = 1.0,
    target_cost: float = 1.0,
    seed: int = 0,
) -> Answer:
    """`measures`: of `report.measures`; `by`: the measure that is tested; costs of one training each, in any
    one unit.

    Raises:
        TooLittle: fewer than five intermediate tasks or three targets that have gains and measures.
        UnknownName: no measure called `by`. XstiltsError: several models; a table without its columns.
    """
    grid = _grid(gains, measures, by)
    judged = {name: judge(grid, values) for name, values in grid.values.items()}
    judged |= {OTHERS: judge(grid, elsewhere(grid.gains)), RANDOM: at_random(grid)}
    primary, robust = _tests(grid, by, judged, seed)
    assert primary.p is not None
    main = _main_table(grid, judged, (intermediate_cost, target_cost))
    verdict = RANKS if primary.p < ALPHA else OPEN
    return Answer(
        study="select",
        question=QUESTION,
        sentence=_sentence(grid, by, judged, primary, verdict),
        verdict=verdict,
        primary=primary,
        robustness=robust,
        tables=(main, _picks_table(grid)),
        figures=(_figure(judged),),
        caption=gains.caption(_used(gains, grid)),
        notes=(*grid.left_out, *_notes(grid)),
        facts={"by": by, "alpha": ALPHA, "tasks": list(grid.tasks), "targets": list(grid.targets)},
    )


def _used(gains: Gains, grid: Grid) -> pandas.DataFrame:
    """The gains that were ranked."""
    table = gains.zero_shot
    return table[table.intermediate.isin(grid.tasks) & table.target.isin(grid.targets)]


def published() -> Answer:
    """Always refused.

    Raises:
        TooLittle: nobody published gains by language together with measures of the same encoders.
    """
    raise TooLittle(
        "published tables have no measures of encoders",
        f"a job with `probe: {{}}`, {LEAST_TASKS} intermediate tasks and {LEAST_TARGETS} targets",
    )


def judge(grid: Grid, values: Array) -> Judged:
    """The means over targets; of equal values the task that comes first in the grid."""
    order = numpy.argsort(-values, axis=0, kind="stable")
    lost = [_lost(grid.scores, order[:k]) for k in (1, 3)]
    share = [100 * one / grid.scores.max(0) for one in lost]
    return Judged(
        regret_1=float(share[0].mean()),
        regret_3=float(share[1].mean()),
        points=float(lost[0].mean()),
        ndcg=float(ndcg(grid.gains, order).mean()),
        right=float((lost[0] == 0).mean()),
    )


def at_random(grid: Grid) -> Judged:
    """What to expect of a blind ranking."""
    n = len(grid.tasks)
    ordered = numpy.sort(grid.scores, axis=0)
    lost = []
    for k in (1, 3):
        # The best of k of n is the i-th from below where the other k - 1 are below it.
        chances = numpy.array([math.comb(i, k - 1) / math.comb(n, k) for i in range(n)])
        lost.append(ordered[-1] - chances @ ordered)
    share = [float((100 * one / ordered[-1]).mean()) for one in lost]
    relevance = _relevance(grid.gains)
    mean = relevance.mean(0) * _discounts(n).sum() / _ideal(relevance)
    return Judged(share[0], share[1], float(lost[0].mean()), float(mean.mean()), 1 / n)


def ndcg(gained: Array, order: Array) -> Array:
    """(targets,): discounted cumulative gain of each target's ranking over that of the best one, 0..1."""
    relevance = _relevance(gained)
    ranked = numpy.take_along_axis(relevance, order, axis=0)
    found: Array = (_discounts(len(order)) @ ranked) / _ideal(relevance)
    return found


def elsewhere(gained: Array) -> Array:
    """For each target the mean gain on the others."""
    found: Array = (gained.sum(1, keepdims=True) - gained) / (gained.shape[1] - 1)
    return found


def relabelled(grid: Grid, values: Array, seed: int) -> tuple[float, float, int]:
    """(p of mean regret@1, p of mean NDCG, relabellings): how often tasks relabelled, for all targets alike,
    do as well or better. The labels as they are count."""
    n = len(grid.tasks)
    if n <= EXACT:
        every = numpy.array(list(permutations(range(n))))
    else:
        random = numpy.random.default_rng(seed)
        drawn = random.permuted(numpy.tile(numpy.arange(n), (DRAWN, 1)), axis=1)
        every = numpy.vstack([numpy.arange(n), drawn])
    order = numpy.argsort(-values, axis=0, kind="stable")
    share = 100 * (1 - grid.scores / grid.scores.max(0))
    gained = _relevance(grid.gains) / _ideal(_relevance(grid.gains))
    at = numpy.arange(len(grid.targets))
    regrets = share[every[:, order[0]], at].mean(1)
    ranked = gained[every[:, order], at]  # (relabellings, ranks, targets)
    quality = numpy.einsum("r,prt->p", _discounts(n), ranked) / len(at)
    observed = int((every == numpy.arange(n)).all(1).argmax())
    worse = regrets <= regrets[observed] + 1e-9
    better = quality >= quality[observed] - 1e-9
    return float(worse.mean()), float(better.mean()), len(every)


def _grid(gains: Gains, measures: pandas.DataFrame | None, by: str) -> Grid:
    """Tasks and targets that have the measure `by`, with gains in languages and seeds that all tasks have."""
    if measures is None or measures.empty:
        missing = "no measures were given: they are of probe steps"
        raise TooLittle(
            missing, f"a job with `probe: {{}}`, {LEAST_TASKS} intermediate tasks and {LEAST_TARGETS} targets"
        )
    lacking = [name for name in (*CELL, "value") if name not in measures.columns]
    if lacking:
        raise XstiltsError(
            f"the table of measures lacks {', '.join(lacking)}", "give that of report.measures"
        )
    table = gains.single().zero_shot
    kept = measures.assign(seed=measures["seed"] if "seed" in measures.columns else pandas.NA)
    kept = averaged(kept[~kept.intermediate.isin([BASE, REFERENCE]) & (kept.target != "")])
    kept = kept[kept.model.isin(table.model)]
    pivots = {
        str(name): own.pivot_table(index="intermediate", columns="target", values="value")
        for name, own in kept.groupby("measure", sort=False)
    }
    if not pivots:
        enough = "`probe: {measures: [logme, text_embedding]}` in the job, or `probe: {}` for all measures"
        raise TooLittle("no measure of these jobs is of an intermediate task and a target", enough)
    if by not in pivots:
        raise UnknownName.among("measure of these jobs", by, pivots)
    own = pivots[by]
    tasks = [name for name in dict.fromkeys(table.intermediate) if name in own.index]
    targets = [name for name in dict.fromkeys(table.target) if name in own.columns]
    targets = [name for name in targets if own.loc[tasks, name].notna().all()]
    blocks = table[table.intermediate.isin(tasks) & table.target.isin(targets)]
    keys = ["target", "language", "seed"]
    whole = blocks.pivot_table(index=keys, columns="intermediate", values=["gain", "score"]).dropna()
    targets = [name for name in targets if name in whole.index.get_level_values("target")]
    _enough(tasks, targets)
    mean = whole.groupby(["target", "seed"]).mean().groupby("target").mean()
    values = {name: pivot.reindex(index=tasks, columns=targets) for name, pivot in pivots.items()}
    whole_values = {name: one for name, one in values.items() if one.notna().all(axis=None)}
    return Grid(
        tasks=tuple(tasks),
        targets=tuple(targets),
        gains=mean["gain"].loc[targets, tasks].to_numpy(dtype=float).T,
        scores=mean["score"].loc[targets, tasks].to_numpy(dtype=float).T,
        values={name: one.to_numpy(dtype=float) for name, one in whole_values.items()},
        seeds=int(whole.index.get_level_values("seed").nunique()),
        left_out=(*_absent(table, tasks, targets), *_holes(values)),
    )


def _absent(table: pandas.DataFrame, tasks: list[str], targets: list[str]) -> list[str]:
    """Who has gains and is not judged, in words."""
    said = []
    for word, had, kept in (
        ("intermediate tasks", table.intermediate, tasks),
        ("targets", table.target, targets),
    ):
        gone = [name for name in dict.fromkeys(had) if name not in kept]
        if gone:
            said.append(f"{word} left out, without the measure: {', '.join(gone)}")
    return said


def _holes(values: dict[str, pandas.DataFrame]) -> list[str]:
    """Measures that some pairs of tasks lack, in words."""
    holes = {name: int(one.isna().to_numpy().sum()) for name, one in values.items()}
    return [
        f"{name} is not judged: {count} of {values[name].size} pairs lack it"
        for name, count in holes.items()
        if count
    ]


def _enough(tasks: list[str], targets: list[str]) -> None:
    if len(tasks) < LEAST_TASKS or len(targets) < LEAST_TARGETS:
        raise TooLittle(
            f"{len(tasks)} intermediate tasks and {len(targets)} targets have gains and the measure",
            f"{LEAST_TASKS} intermediate tasks and {LEAST_TARGETS} trained targets",
        )


def _lost(scores: Array, chosen: Array) -> Array:
    found: Array = scores.max(0) - numpy.take_along_axis(scores, chosen, axis=0).max(0)
    return found


def _relevance(gained: Array) -> Array:
    """Above the worst task of each target, 1 for the best; 1 everywhere where all are equal."""
    low, high = gained.min(0), gained.max(0)
    found: Array = numpy.where(high > low, (gained - low) / numpy.where(high > low, high - low, 1.0), 1.0)
    return found


def _discounts(n: int) -> Array:
    found: Array = 1 / numpy.log2(numpy.arange(n) + 2.0)
    return found


def _ideal(relevance: Array) -> Array:
    best = -numpy.sort(-relevance, axis=0)
    found: Array = _discounts(len(relevance)) @ best
    return found


def saved(grid: Grid, name: str, k: int, costs: tuple[float, float]) -> float:
    """Percent of the cost of the grid's trainings (each intermediate once, then every cell) that is not
    spent. The trainings of `none` are done in any case, and probe steps cost little beside a training."""
    n, many = len(grid.tasks), len(grid.targets)
    full = n * costs[0] + n * many * costs[1]
    needed = n
    if name in BLIND:
        order = numpy.argsort(-grid.values[name], axis=0, kind="stable")
        needed = len(set(order[:k].ravel().tolist()))
    return 100 * (1 - (needed * costs[0] + k * many * costs[1]) / full)


def _tests(grid: Grid, by: str, judged: dict[str, Judged], seed: int) -> tuple[Test, Test]:
    regret, quality, ways = relabelled(grid, grid.values[by], seed)
    counted = {
        "intermediate tasks": len(grid.tasks), "targets": len(grid.targets), "seeds": grid.seeds,
        "relabellings": ways,
    }  # fmt: skip
    own, blind = judged[by], judged[RANDOM]
    one = f"Mean regret@1 of {by} is {own.regret_1:.2f} %, of a blind choice {blind.regret_1:.2f} %"
    two = f"NDCG of {by} is {own.ndcg:.2f}, of a blind ranking {blind.ndcg:.2f}"
    how = "tasks relabelled jointly for all targets"
    less, more = own.regret_1 - blind.regret_1, own.ndcg - blind.ndcg
    primary = Test(f"NDCG, {how}", own.ndcg, more, None, quality, counted, f"{two}, {p_value(quality)}.")
    robust = Test(f"regret@1, {how}", own.regret_1, less, None, regret, counted, f"{one}, {p_value(regret)}.")
    return primary, robust


def _sentence(grid: Grid, by: str, judged: dict[str, Judged], primary: Test, verdict: str) -> str:
    own, blind = judged[by], judged[RANDOM]
    among = f"{len(grid.tasks)} intermediate tasks on {len(grid.targets)} targets"
    said = f"{by} is {verdict} at choosing among {among}"
    assert primary.p is not None
    return (
        f"{said}: NDCG {own.ndcg:.2f}, of a blind ranking {blind.ndcg:.2f} ({p_value(primary.p)}). Its first "
        f"choice loses {own.points:.2f} points to the best task, a blind one {blind.points:.2f}; the best of "
        f"its first three loses {own.regret_3:.2f} % of the score." + ("" if verdict == RANKS else _MORE)
    )


_MORE = (
    " That it tells nothing is not shown either: a smaller difference needs more intermediate tasks, or "
    "targets that want different ones."
)


def _main_table(grid: Grid, judged: dict[str, Judged], costs: tuple[float, float]) -> Table:
    rows = []
    for name, one in sorted(judged.items(), key=lambda pair: pair[1].regret_1):
        measured = name in grid.values
        rows.append(
            {
                "ranked by": name,
                "regret@1 %": one.regret_1,
                "regret@3 %": one.regret_3,
                "points lost": one.points,
                "NDCG": one.ndcg,
                "best first": f"{100 * one.right:.0f} %",
                "saved at 1 %": saved(grid, name, 1, costs) if measured else math.nan,
                "saved at 3 %": saved(grid, name, 3, costs) if measured else math.nan,
            }
        )
    note = f"{RANDOM}: expected of a blind ranking. {OTHERS}: knows the grid but for the target itself."
    return Table(
        "select", "Rankings of intermediate tasks against the measured grid", pandas.DataFrame(rows), note
    )


def _picks_table(grid: Grid) -> Table:
    rows = []
    for place, target in enumerate(grid.targets):
        gained = grid.gains[:, place]
        best = int(gained.argmax())
        row: dict[str, Any] = {"target": target, "best": grid.tasks[best], "gain": float(gained[best])}
        for name, values in grid.values.items():
            pick = int(values[:, place].argmax())
            row[name] = f"{grid.tasks[pick]} ({gained[pick]:+.1f})"
        rows.append(row)
    note = "Each measure's first choice, with the gain that was measured for it, in points."
    return Table("picks", "First choices by target", pandas.DataFrame(rows), note)


def _figure(judged: dict[str, Judged]) -> Figure:
    rows = [
        {"ranked by": name, "taken": taken, "regret": value}
        for name, one in judged.items()
        for taken, value in (("the first", one.regret_1), ("best of three", one.regret_3))
    ]
    order = sorted(judged, key=lambda name: judged[name].regret_1)
    colour = altair.Scale(domain=["the first", "best of three"], range=[ORANGE, BLUE])
    shape = altair.Scale(domain=["the first", "best of three"], range=["square", "circle"])
    chart = (
        altair.Chart(pandas.DataFrame(rows))
        .mark_point(filled=True, size=80)
        .encode(
            x=altair.X("regret:Q", title="regret, percent of the best task's score"),
            y=altair.Y("ranked by:N", sort=order, title=None),
            color=altair.Color("taken:N", scale=colour, title="taken"),
            shape=altair.Shape("taken:N", scale=shape, title="taken"),
            tooltip=["ranked by", "taken", altair.Tooltip("regret:Q", format=".2f")],
        )
        .properties(width=420, height=altair.Step(26))
    )
    alt = f"Regret of {len(judged)} ways to rank, least first: {', '.join(order)}."
    return Figure("regret", "What is lost by trusting a ranking", chart, alt)


def _notes(grid: Grid) -> tuple[str, ...]:
    return (
        f"gains of {grid.seeds} seed{'s' if grid.seeds != 1 else ''} are taken for the truth: their own "
        "noise counts against every ranking alike",
        "all measures but text_embedding need the intermediate trainings: they save trainings of targets",
        "p is for the one measure that was named beforehand; the others are not tested",
    )
