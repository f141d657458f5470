"""The ranking of intermediate tasks in the published table of Phang et al. 2020: over target tasks only.

Means over languages, one run of each: nothing can be said of language families or of other runs. Blocks are
target tasks, and they share the encoders; Friedman's p speaks of other target tasks with these very encoders.
Robustness: a Plackett-Luce ranking with whole target tasks redrawn.
"""

from __future__ import annotations

import math

import altair
import numpy
import pandas
import scikit_posthocs
from scipy import stats

from xstilts.report.published import published as papers
from xstilts.report.studies.answer import Answer, Figure, Table, Test, p_value
from xstilts.report.studies.ranks import Profiles, plackett_luce

PAPER = "phang2020"
MIXED = "+"
"""In the name of a row that was trained on several tasks, or with masked language modelling."""


def answer(question: str) -> Answer:
    """Kendall's W over target tasks, average ranks, and the refusal of what the table cannot say."""
    wide = _gains()
    ranks = pandas.DataFrame(stats.rankdata(-wide.to_numpy(), axis=1), wide.index, wide.columns)
    tasks, rows = wide.shape
    chi2, p = (float(value) for value in stats.friedmanchisquare(*wide.T.to_numpy()))
    w = chi2 / (tasks * (rows - 1))
    average = ranks.mean().sort_values()
    q = float(stats.studentized_range.ppf(0.95, rows, numpy.inf)) / math.sqrt(2)
    difference = q * math.sqrt(rows * (rows + 1) / (6 * tasks))
    pairs = scikit_posthocs.posthoc_nemenyi_friedman(ranks.to_numpy())
    apart = int((numpy.triu(pairs.to_numpy(), 1) < 0.05)[numpy.triu_indices(rows, 1)].sum())
    order = list(average.index)
    table = wide[order].T.reset_index()
    table.insert(1, "average rank", average.to_numpy())
    table.insert(2, "mean gain", wide.mean()[order].to_numpy())
    primary = Test(
        name="Kendall's W over target tasks",
        statistic=chi2,
        value=w,
        interval=None,
        p=p,
        n={"intermediate tasks": rows, "targets": tasks, "runs of each": 1},
        text=f"W {w:.2f}, Friedman's chi2 {chi2:.1f}, {p_value(p)}: other target tasks, these very encoders",
    )
    return Answer(
        study="hierarchy",
        question=question,
        sentence=f"In the published table the ranks of {rows} intermediate tasks agree "
        f"{_agreement(w) if p < 0.05 else 'no more than by chance'} over {tasks} target tasks (Kendall's W "
        f"{w:.2f}, {p_value(p)}); on average {', '.join(average.index)}. Whether language families rank them "
        "alike it cannot say: it prints means over languages, and one run of each.",
        verdict="target tasks only",
        primary=primary,
        robustness=_robustness(wide, average),
        tables=(Table("ranks", "Gains in the published table, by average rank", table, _note(difference)),),
        figures=(_figure(average, difference, tasks),),
        caption=f"Phang et al. 2020, arXiv v1, table 2: XLM-R Large \u00b7 n {rows} intermediate tasks "
        f"\u00d7 {tasks} targets, means over languages, English included \u00b7 one run each, "
        "seeds not told \u00b7 split dev \u00b7 selection English dev \u00b7 commit - \u00b7 collapsed runs "
        "not told",
        notes=(
            "interaction with language family: refused, no published table has gains by language",
            f"{apart} of {rows * (rows - 1) // 2} pairs differ by Nemenyi's test at 5 %",
            "rows trained on several tasks or with masked language modelling are left out",
        ),
        facts={"critical difference": difference},
    )  # fmt: skip


def _gains() -> pandas.DataFrame:
    """targets x intermediate tasks, points, of single English tasks on dev."""
    table = papers.gains(papers.published(PAPER))
    single = ~table.intermediate.str.contains(MIXED, regex=False)
    table = table[single & (table.split == "dev") & (table.language == papers.MEAN)]
    return table.pivot(index="target", columns="intermediate", values="gain").dropna()


def _robustness(wide: pandas.DataFrame, average: pandas.Series) -> Test:
    """The ranking of a model of ranks, and how often its first is first with other target tasks."""
    targets = wide.index.to_numpy()
    gains = wide.to_numpy(dtype=numpy.float64)[:, :, None]
    # What is redrawn whole is the target: the mean over languages has no language.
    found = plackett_luce(Profiles(tuple(wide.columns), (1,), targets, targets, targets, gains, 0))
    first = int(found.value.argmax())
    often = float((found.draws.argmax(axis=1) == first).mean())
    tau = float(stats.kendalltau(found.value, -average[list(wide.columns)].to_numpy()).statistic)
    return Test(
        name="Plackett-Luce ranking, target tasks redrawn",
        statistic=tau,
        value=often,
        interval=None,
        p=None,
        n={"intermediate tasks": wide.shape[1], "targets": wide.shape[0], "draws": len(found.draws)},
        text=f"its order agrees with average ranks by Kendall's tau {tau:.2f}; {wide.columns[first]} is "
        f"first in {100 * often:.0f} % of {len(found.draws)} draws of target tasks",
    )


def _note(difference: float) -> str:
    return (
        f"Points over `none`; ranks over the target tasks, 1 is best; {difference:.2f} or more apart differ "
        "(Nemenyi, 5 %, these very encoders)."
    )


def _figure(average: pandas.Series, difference: float, tasks: int) -> Figure:
    data = pandas.DataFrame({"intermediate": average.index, "rank": average.to_numpy()})
    data = data.assign(low=data["rank"] - difference / 2, high=data["rank"] + difference / 2)
    y = altair.Y("intermediate:N", sort=list(average.index), title=None)
    bars = altair.Chart(data).mark_bar(height=9, opacity=0.35).encode(
        x=altair.X("low:Q", title="average rank (1 is best)"), x2="high:Q", y=y
    )  # fmt: skip
    ticks = altair.Chart(data).mark_tick(thickness=3, height=20).encode(
        x="rank:Q", y=y, tooltip=["intermediate", altair.Tooltip("rank", format=".2f")]
    )  # fmt: skip
    told = ", ".join(f"{name} {rank:.2f}" for name, rank in average.items())
    return Figure(
        "ranks",
        f"Average ranks over {tasks} target tasks",
        altair.layer(bars, ticks).properties(width=560, height=altair.Step(30)),
        f"Average ranks, best first: {told}",
        f"Grey bars: half the critical difference of {difference:.2f} to either side of the average rank; "
        "tasks whose bars do not overlap differ (Nemenyi, 5 %, these very encoders).",
    )


def _agreement(w: float) -> str:
    """Of Kendall's W, which is 1 where all ranks are the same."""
    return "weakly" if w < 0.3 else "in part" if w < 0.7 else "closely"
