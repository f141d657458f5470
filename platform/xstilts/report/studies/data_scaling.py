"""Data scaling: how does the gain grow with intermediate data, and does it grow otherwise with few resources?

Stated beforehand. Jobs that differ in the fraction of their intermediate tasks' training rows, nested
subsets of one `subset_seed` (1/64 ... 1). A target that is read in poorer languages and grows faster is no
interaction, so that everything is taken within runs: a language's zero-shot gain less the mean over the
languages of the same target, share and seed, and its level less the mean of that target's languages; then
both are averaged over intermediate tasks and targets. Primary test: the interaction of size and resource
level in a mixed-effects regression of that gain on the level (log10 of CC-100 GiB; in a generated world the
distance) and its product with log2 of the fraction; random are languages, in level and in slope, and runs
(fraction x seed) in how they treat resources. REML; t with min(languages, runs) - 2 degrees of freedom;
alpha 0.05. All seeds of a fraction are trained on the same rows, so that runs are not independent as draws
of data: the answer is of these subsets, and says so. Where the regression does not converge, languages are
permuted instead and it says so. Robustness: the slope of the better-resourced half of the languages minus
that of the other half, of the same gains within runs, languages and seeds redrawn whole (`crossed`).

Curves (`curves`): a saturating power law an intermediate task and tier of resources, beside a constant and a
log-linear rule, by AICc, with bands. They describe; only the interaction is tested.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy
import pandas

from xstilts.errors import UnknownName, XstiltsError
from xstilts.report.studies import crossed, curves, growth, mixed
from xstilts.report.studies.answer import Answer, Table, Test, TooLittle, p_value
from xstilts.report.studies.gains import Gains
from xstilts.report.verdict import points
from xstilts.spec.experiment import PhaseSettings, RowSpec
from xstilts.tasks import languages

NAME = "data_scaling"
QUESTION = "How does the gain grow with intermediate data, and otherwise in languages of few resources?"
ALPHA = 0.05
FRACTIONS, LANGUAGES, SEEDS = 3, 5, 3
"""The least of each that can be answered for."""
SUBSETS = (
    "one subset of rows a share, the same for all its seeds: what is said is of these subsets, and how much "
    "other rows would change it is not measured"
)
ENOUGH = "four fractions or more, such as 1/64, 1/16, 1/4 and 1, of one subset_seed, one job each"
HERE = " (pretrained here)"
CURVES = [
    *("intermediate", "tier", "languages", "rule", "fitted gain, all data", "low", "high", "a", "b", "c"),
    *("AICc constant", "AICc log-linear", "AICc power law"),
]
MAIN = ("intermediate", "tier", "rule", "fitted gain, all data", "low", "high", "a", "b", "c")
"""Of CURVES, what READING explains."""
GIB, DISTANCE = "log10 CC-100 GiB", "distance"
LEVELS = {
    GIB: "tiers and log10 GiB are of CC-100 (Conneau et al. 2020, table 6)",
    DISTANCE: "distance is from the source language, 0 to 1, by construction of the generated world; near "
    "and far are the halves of its languages, the middle one near",
}
"""What resource levels are called -> what they are."""
READING = (
    "fitted gain: the curve's, at the largest share; a: ceiling, b: what the smallest subset lacks of it, "
    "c: exponent; blank where another rule is the best or the exponent is at its bound; low and high: 95 % "
    "band, languages and seeds redrawn"
)
RANDOM = [
    mixed.Random("language", "language"),
    mixed.Random("language x size", "language", "size"),
    mixed.Random("run x resources", "run", "level"),
]

Fractions = Mapping[tuple[str, str], float]
"""(job, row) -> the share of the intermediate task's training rows."""


def options(plans: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """What `answer` must be told beside the gains, from the stored plans: the frame's `fraction` is that of
    the last phase."""
    found: dict[tuple[str, str], float] = {}
    subsets: set[int] = set()
    for plan in plans:
        asked = plan["experiment"]
        phase = PhaseSettings.model_validate((asked.get("train") or {}).get("intermediate") or {})
        for words in asked.get("intermediate") or ():
            row = RowSpec.model_validate(words)
            own = [phase.for_task(name) for name in row.tasks if name != "mlm"]
            shares = {each.fraction for each in own}
            if len(shares) == 1:  # a mixture of unequal shares has no size of its own
                found[plan["job"], row.label] = shares.pop()
                subsets |= {each.subset_seed for each in own if each.fraction < 1}
    return {"fractions": found, "nested": len(subsets) <= 1}


def answer(gains: Gains, *, fractions: Fractions | None = None, nested: bool = True, seed: int = 0) -> Answer:
    """`fractions` as `options` finds them.

    Raises:
        TooLittle: fewer than three fractions or seeds, or than five languages of known resources.
        XstiltsError: there are several models.
    """
    table, notes = _sized(gains, fractions or {})
    if not nested:
        notes.append("the subsets are not nested: the jobs have different values of subset_seed")
    name, level = _levels(table)
    within = _within_runs(table, level)
    test, fallen = _interaction(within, name, seed)
    check = _halves(within, name, level, seed)
    if name == DISTANCE:
        middle = float(numpy.median(list(level.values())))
        sides = {code: growth.NEAR if value <= middle else growth.FAR for code, value in level.items()}
        table = table.assign(tier=table.language.map(sides).fillna(""))
    rows, drawn = _curves(table, seed)
    sure = test.p is not None and test.p < ALPHA
    return Answer(
        study=NAME,
        question=QUESTION,
        sentence=_sentence(table, name, test, check),
        verdict="differs with resources" if sure else "no difference shown",
        primary=test,
        robustness=check,
        tables=(
            Table("curves", "Gain against the share of intermediate data", _table_of(rows), READING, MAIN),
            Table("gains", "Mean zero-shot gain by share of the data", _by_share(table)),
        ),
        figures=growth.figures(drawn, table),
        caption=gains.caption(table),
        notes=(*notes, *fallen, *_mixed_tiers(table), SUBSETS, LEVELS[name]),
        facts={"alpha": ALPHA, "shares": sorted(set(table["share"])), "nested": nested, "level": name},
    )  # fmt: skip


def published() -> Answer:
    """Always refused.

    Raises:
        TooLittle: no published table has gains by amount of intermediate data.
    """
    missing = "no published table has gains by the amount of intermediate data"
    raise TooLittle(missing, f"jobs of your own, with {ENOUGH}")


def _sentence(table: pandas.DataFrame, name: str, test: Test, check: Test | None) -> str:
    by = table.groupby("share").gain.mean()
    p = 1.0 if test.p is None else test.p
    ends = check.interval if check else None
    doubt = ""
    if p < ALPHA and ends and ends.low <= 0 <= ends.high:
        doubt = "; the interval of the check by halves of the languages holds zero"
    return (
        f"From {_part(by.index.min())} to {_part(by.index.max())} of the intermediate data (these subsets, "
        f"one a share), the mean gain goes from {points(by.iloc[0])} to {points(by.iloc[-1])} points; that "
        f"its growth depends on {name} is {'shown' if p < ALPHA else 'not shown'} "
        f"({_points2(test.value)} points per doubling and unit of it, {p_value(p)}{doubt})."
    )


def _part(share: float) -> str:
    """ "1/64", "all", "0.3"."""
    if share == 1:
        return "all"
    whole = round(1 / share)
    return f"1/{whole}" if abs(1 / share - whole) < 0.01 * whole else f"{share:.3g}"


def _points2(value: float | None) -> str:
    """A signed number with two decimals."""
    return "-" if value is None else f"{value:+.2f}".replace("-", "\u2212")


def _table_of(rows: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    return pandas.DataFrame(list(rows), columns=CURVES)


def _sized(gains: Gains, fractions: Fractions) -> tuple[pandas.DataFrame, list[str]]:
    """Zero-shot gains with `share`, of what was measured with every share; and what was left out."""
    table = gains.zero_shot.copy()
    models = {model for model in table.model if not str(model).endswith(HERE)}
    if len(models) > 1:
        raise XstiltsError(f"there are several models: {', '.join(sorted(models))}", "study one at a time")
    keys = zip(table.job, table.intermediate, strict=True)
    table["share"] = [fractions.get((str(job), str(row)), numpy.nan) for job, row in keys]
    unsized = sorted(set(table[table["share"].isna()].intermediate))
    notes = [f"left out, no one share of the data: {', '.join(unsized)}"] if unsized else []
    table = table[table["share"].notna()]
    of_each = table.groupby("intermediate")["share"].transform("nunique")
    shares = int(of_each.max()) if len(table) else 0
    if shares < FRACTIONS:
        what = "fraction" if shares == 1 else "fractions"
        raise TooLittle(f"{shares} {what} of the data of any intermediate task", ENOUGH)
    fewer = sorted(set(table[of_each < shares].intermediate))
    notes += [f"left out, with fewer fractions: {', '.join(fewer)}"] if fewer else []
    table = table[of_each == shares]
    cell = ["intermediate", "target", "language", "seed"]
    whole = table.groupby(cell)["share"].transform("nunique") == shares
    if not whole.all():
        notes.append(f"left out, not scored with every share: {int((~whole).sum())} of {len(table)} gains")
    table = table[whole]
    if table.duplicated([*cell, "share"]).any():
        raise XstiltsError(
            "some gains were measured twice with one share", "study jobs with different shares"
        )
    if table.empty:
        raise TooLittle("no task, language and seed was scored with every fraction", ENOUGH)
    seeds = table.seed.nunique()
    if seeds < SEEDS:
        missing = f"{seeds} seed{'s' if seeds > 1 else ''} scored with every fraction: runs differ by luck"
        raise TooLittle(missing, f"{SEEDS} seeds of every fraction")
    return table, notes


def _levels(table: pandas.DataFrame) -> tuple[str, dict[str, float]]:
    """What resource levels are called, and that of each language that has one."""
    found: dict[str, dict[str, float]] = {GIB: {}, DISTANCE: {}}
    for code in dict.fromkeys(table.language):
        try:
            language = languages.of(str(code))
        except UnknownName:
            continue
        if language.cc100_gib:
            found[GIB][str(code)] = float(numpy.log10(language.cc100_gib))
        elif language.distance is not None:
            found[DISTANCE][str(code)] = language.distance
    name = max(found, key=lambda each: len(found[each]))
    if len(found[name]) < LANGUAGES or len(set(found[name].values())) < 3:
        missing = f"{len(found[name])} languages of known resources"
        raise TooLittle(missing, f"{LANGUAGES} or more of different size in CC-100")
    return name, found[name]


def _within_runs(table: pandas.DataFrame, level: Mapping[str, float]) -> pandas.DataFrame:
    """Gains of languages of known level, less the mean of their run; and `level`, less that of the target."""
    known = table[table.language.isin(list(level))]
    run = ["intermediate", "target", "share", "seed"]
    own = known.language.map(level)
    return known.assign(
        gain=known.gain - known.groupby(run).gain.transform("mean"),
        level=own - own.groupby(known.target).transform("mean"),
    )


def _interaction(within: pandas.DataFrame, name: str, seed: int) -> tuple[Test, list[str]]:
    """The primary test; and what to say where it is not the mixed-effects regression."""
    cells = within.groupby(["share", "seed", "language"], as_index=False).agg(
        gain=("gain", "mean"), level=("level", "mean")
    )
    cells["run"] = cells["share"].astype(str) + "/" + cells.seed.astype(str)
    cells["size"] = numpy.log2(cells["share"])
    cells["size"] -= cells["size"].mean()
    cells["product"] = cells["size"] * cells["level"]
    spoken, runs = cells.language.nunique(), cells.run.nunique()
    df = min(spoken, runs) - 2
    found = mixed.fit(cells, "gain", ["level", "product"], RANDOM)
    n = {
        "languages": spoken,
        "runs": runs,
        "seeds": cells.seed.nunique(),
        "fractions": cells["share"].nunique(),
    }
    if found is None:
        value, p = _permuted(cells, seed)
        text = (
            f"Slope of the gain on size changes by {_points2(value)} points per doubling and unit of {name}; "
        )
        text += f"{p_value(p)} by permutation; of these subsets, one a share."
        how = "size x resources, permutation of languages"
        return Test(how, None, value, None, p, n, text), ["the mixed-effects regression did not converge"]
    statistic, p = found.test(["product"], df)
    value, interval = found.slope("product", df)
    text = (
        f"Size x {name}: {_points2(value)} points per doubling of the data and unit "
        f"[{_points2(interval.low)}, {_points2(interval.high)}], F(1, {df}) = {statistic:.2f}, {p_value(p)}; "
        "of these subsets, one a share."
    )
    how = "size x resources, mixed-effects regression, languages and runs random"
    return Test(how, statistic, value, interval, p, n, text), []


def _permuted(cells: pandas.DataFrame, seed: int) -> tuple[float, float]:
    """Slope of the languages' slopes on their level, and its p when languages swap levels."""
    by = cells.groupby("language")
    slopes = numpy.array([numpy.polyfit(own["size"], own.gain, 1)[0] for _, own in by])
    level = by.level.first().to_numpy()
    value = float(numpy.polyfit(level, slopes, 1)[0])
    p = mixed.permuted(lambda order: abs(numpy.polyfit(level[order], slopes, 1)[0]), len(level), seed)
    return value, p


def _halves(within: pandas.DataFrame, name: str, level: Mapping[str, float], seed: int) -> Test | None:
    """The slope of the half with the most resources (the farthest half) minus that of the other half."""
    upmost, least = ("farthest", "nearest") if name == DISTANCE else ("best-resourced", "least-resourced")
    order = sorted(level, key=lambda code: level[code])
    spoken = [code for code in order if code in set(within.language)]
    half = len(spoken) // 2
    if half < 3:
        return None
    lower, upper = spoken[:half], spoken[-half:]
    values = _array(within, [*lower, *upper])
    x = numpy.log2(numpy.array(sorted(set(within["share"]))))
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    split = numpy.full((2 * len(x), *values.shape[1:]), numpy.nan)
    split[: len(x), :half], split[len(x) :, half:] = values[:, :half], values[:, half:]
    strata = numpy.repeat([0, 1], half)
    drawn = crossed.redraw(split, numpy.arange(2 * half), strata, seed)
    found = drawn.contrast(numpy.concatenate([-weights, weights]))
    text = (
        f"Per doubling, the {half} {upmost} languages gain {_points2(found.value)} points more than the "
        f"{half} {least} [{_points2(found.interval.low)}, {_points2(found.interval.high)}]."
    )
    n = {"languages": 2 * half, "seeds": values.shape[2]}
    return Test("halves, languages and seeds redrawn", None, found.value, found.interval, None, n, text)


def _array(table: pandas.DataFrame, spoken: Sequence[str]) -> numpy.ndarray[Any, numpy.dtype[numpy.float64]]:
    """(shares, languages, seeds): mean gains, NaN where there is none."""
    means = table.groupby(["share", "language", "seed"]).gain.mean()
    shares, seeds = sorted(set(table["share"])), sorted(set(table.seed))
    whole = pandas.MultiIndex.from_product([shares, list(spoken), seeds])
    found = means.reindex(whole).to_numpy(dtype=numpy.float64)
    return numpy.asarray(found.reshape(len(shares), len(spoken), len(seeds)))


def _curves(table: pandas.DataFrame, seed: int) -> tuple[list[dict[str, Any]], pandas.DataFrame]:
    """Rows of the table of curves, and the lines to draw."""
    rows, drawn = [], []
    shares = numpy.array(sorted(set(table["share"])))
    at = numpy.geomspace(shares.min(), shares.max(), 40)
    tiers = [tier for tier in dict.fromkeys(table.tier) if tier]
    for intermediate in dict.fromkeys(table.intermediate):
        own = table[table.intermediate == intermediate]
        for tier in ["all", *tiers]:
            mine = own if tier == "all" else own[own.tier == tier]
            if mine.empty:
                continue
            spoken = list(dict.fromkeys(mine.language))
            values = _array(mine, spoken)
            means = mine.groupby(["share", "seed"], as_index=False).gain.mean()
            found = curves.fit(means["share"].to_numpy(), means.gain.to_numpy())
            again = crossed.redraw(
                values, numpy.arange(len(spoken)), numpy.zeros(len(spoken), int), seed, 1_000
            )
            low, high = curves.band(found.best, shares, again.together, at)
            line = {"share": at, "gain": found.at(at), "low": low, "high": high}
            drawn.append(pandas.DataFrame(line).assign(intermediate=intermediate, tier=tier, kind="curve"))
            rows.append(_row(intermediate, tier, len(spoken), found, found.at(at[-1:])[0], low[-1], high[-1]))
    return rows, pandas.concat(drawn, ignore_index=True)


def _row(
    intermediate: str, tier: str, spoken: int, found: curves.Curve, gain: float, low: float, high: float
) -> dict[str, Any]:  # fmt: skip
    readable = found.best == curves.POWER and not found.at_bound
    law = (found.a, found.b, found.c) if readable else (None, None, None)
    scores = [found.aicc[rule] for rule in (curves.CONSTANT, curves.LOG, curves.POWER)]
    values = (intermediate, tier, spoken, found.best, gain, low, high, *law, *scores)
    return dict(zip(CURVES, values, strict=True))


def _mixed_tiers(table: pandas.DataFrame) -> list[str]:
    """That curves of tiers are of different targets, where they are; the test is within targets."""
    of_tier = table[table.tier != ""].groupby("tier").target.agg(lambda own: tuple(sorted(set(own))))
    if of_tier.nunique() < 2:
        return []
    told = "; ".join(f"{tier}: {', '.join(targets)}" for tier, targets in of_tier.items())
    said = f"tiers are read in other targets ({told}), so that their curves differ by target too"
    return [f"{said}; the test is within targets"]


def _by_share(table: pandas.DataFrame) -> pandas.DataFrame:
    means = table.groupby(["intermediate", "share"], as_index=False).agg(
        gain=("gain", "mean"), seeds=("seed", "nunique"), languages=("language", "nunique")
    )
    return means.assign(share=means["share"].map(_part)).rename(columns={"share": "share of the data"})
