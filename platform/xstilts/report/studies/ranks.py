"""Rankings of intermediate tasks: how much they agree, and whether language families have their own.

Blocks are (target, language, seed) with every intermediate task in it; the average over blocks says which
task is best, and Kendall's W (0 to 1) how much blocks agree. But blocks are not independent. All languages
of a target are predicted by one model, and all targets of a seed start from one intermediate model: with one
seed, a lucky run looks like agreement of forty languages. So no p-value here counts blocks. Relabelled are:

`matters`, other seeds: the intermediate tasks within each seed, a task's whole profile over targets and
languages at a time. If the task does not matter, the encoders of one seed are exchangeable; this is exact,
and speaks of these languages. Other seeds and languages: what differs between languages (deviations from
the target's mean over languages, whole profiles over targets and seeds, relabelled within each language) is
added, so that the null varies as runs and languages together do.

`interaction`: the family labels of languages, a language whole with all its targets and seeds, among
languages scored on about as many targets. If families do not differ, a language's residuals (double-centred
within each target: over its languages and over the intermediate tasks) are exchangeable. What parallel items
share, all languages of a target share, and centring takes it out. Runs that favour a family by luck would
look like an interaction, so that what differs between seeds (deviations from the mean over seeds, the
intermediate tasks relabelled within each seed) is added to the null. Language x seed noise is then in it
twice: where nothing is there, fewer than 5 % of frames are called different (measured in
tests/unit/test_hierarchy.py). `upper` leaves that addition out, which makes it larger, never smaller. A
family whose languages are scored on more targets than all others cannot be relabelled: `relabelling` counts
what can be, and `hierarchy` refuses where that is too little.

Residuals are divided by their standard deviation within the target, so that Tatoeba's tens of points do not
drown XNLI's ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import choix
import numpy
import pandas
import scikit_posthocs
from numpy.typing import NDArray
from scipy import optimize, stats

from xstilts.report.clusters import Floats

PERMUTATIONS = 2_000
"""A p of 0.05 then wobbles by 0.005 (one standard deviation)."""
TIE = 1e-9
LEAST_PARTITIONS = 21
"""Of languages into groups: with 20 of them p is 0.05 at best, and has to be below it."""


@dataclass(frozen=True, slots=True, eq=False)
class Profiles:
    """Gains of every intermediate task in every (target, language) where all of them have all seeds."""

    rows: tuple[str, ...]
    seeds: tuple[int, ...]
    targets: NDArray[Any]
    """(cells,): names."""
    languages: NDArray[Any]
    """(cells,): codes."""
    groups: NDArray[Any]
    """(cells,): language family, or what else languages are grouped by."""
    gains: Floats
    """(cells, rows, seeds), points."""
    dropped: int
    """(target, language) pairs left out because a run of them is missing."""

    @property
    def ranks(self) -> Floats:
        """(cells, rows, seeds): 1 for the largest gain; ties share."""
        found: Floats = stats.rankdata(-self.gains, axis=1)
        return found


def profiles(table: pandas.DataFrame, groups: pandas.Series) -> Profiles:
    """Of the zero-shot rows of `Gains.table`; `groups` has one entry a row."""
    named = table.assign(group=groups.to_numpy())
    wide = named.pivot(index=["target", "language", "group"], columns=["intermediate", "seed"], values="gain")
    rows = tuple(dict.fromkeys(named.intermediate))
    seeds = tuple(sorted(set(named.seed)))
    wide = wide.reindex(columns=pandas.MultiIndex.from_product([rows, seeds]))
    whole = wide.dropna()
    index = whole.index
    return Profiles(
        rows=rows,
        seeds=seeds,
        targets=index.get_level_values("target").to_numpy(),
        languages=index.get_level_values("language").to_numpy(),
        groups=index.get_level_values("group").to_numpy(),
        gains=whole.to_numpy(dtype=numpy.float64).reshape(len(whole), len(rows), len(seeds)),
        dropped=len(wide) - len(whole),
    )


@dataclass(frozen=True, slots=True)
class Concordance:
    """How far blocks agree."""

    blocks: int
    w: float
    """Kendall's W."""
    chi2: float
    """Friedman's, of which W is the share of the largest possible; its own p would count blocks."""
    p_seeds: float
    """That tasks which do not matter agree as much with other seeds, in these languages."""
    p: float
    """The same with other seeds and languages; NaN for a single language."""
    luck: tuple[float, float] = (math.nan, math.nan)
    """Of seeds and of languages: how much of what is observed luck alone reaches in one of twenty. Where the
    two add up to less than 1, `p` is below 0.05; each falls as there are more of them."""


def matters(
    found: Profiles, among: Sequence[NDArray[numpy.bool_]], seed: int = 0, permutations: int = PERMUTATIONS
) -> list[Concordance]:
    """Agreement of the blocks of each set of cells; all sets see the same permutations."""
    ranks, rows = found.ranks, len(found.rows)
    drawn = _within(rows, len(found.seeds), seed, permutations)
    names, of_cell = numpy.unique(found.languages, return_inverse=True)
    spoken = _within(rows, len(names), seed + 1, permutations)
    results = []
    for cells in among:
        blocks = ranks[cells].transpose(0, 2, 1).reshape(-1, rows)
        chi2 = float(stats.friedmanchisquare(*blocks.T).statistic) if len(blocks) > 1 else math.nan
        chi2 = 0.0 if math.isnan(chi2) else chi2  # every block is one tie
        centred = ranks[cells] - (rows + 1) / 2
        of_seed = centred.sum(axis=0)
        members, mine = numpy.unique(of_cell[cells], return_inverse=True)
        own = _own(centred.sum(axis=2), found.targets[cells])
        of_language = _by(mine, own, len(members)).T
        observed = float((of_seed.sum(axis=1) ** 2).sum())
        by_seed = _relabelled(of_seed, drawn).sum(axis=2)
        by_both = by_seed + _relabelled(of_language, spoken[:, :, members]).sum(axis=2)
        null, seeds = (by_both**2).sum(axis=1), (by_seed**2).sum(axis=1)
        reach = numpy.quantile(null, 0.95) / max(null.mean() * observed, TIE)
        luck = (float(reach * seeds.mean()), float(reach * max(null.mean() - seeds.mean(), 0.0)))
        results.append(
            Concordance(
                blocks=len(blocks),
                w=chi2 / (len(blocks) * (rows - 1)),
                chi2=chi2,
                p_seeds=_p(observed, seeds),
                p=math.nan if len(members) == 1 else _p(observed, null),
                luck=luck,
            )
        )
    return results


@dataclass(frozen=True, slots=True, eq=False)
class Interaction:
    """Whether families have rankings of their own. Sizes are root mean squares in standard deviations of a
    target's residuals, so that 0.5 of the main effect means a correlation of 0.9 between a family's profile
    and the common one."""

    groups: tuple[str, ...]
    """Families with two languages or more; the others cannot be told from a language."""
    languages: int
    size: float
    main: float
    """Of the intermediate tasks themselves, without what noise alone would show."""
    upper: float
    """The largest interaction that the data do not reject at 5 %, never below `size`. `main`, which it is
    compared with, is an estimate and has an error of its own."""
    expected: float
    """What `upper` would be, about, if there were no interaction."""
    p: float
    """That families which do not differ look as different, with other languages and seeds."""
    points: Floats
    """(groups, rows): a family's gain minus what task and family alone would give, in points."""


@dataclass(frozen=True, slots=True)
class Relabelling:
    """What relabelling languages can tell."""

    partitions: int
    """Different partitions of the languages into groups: no p is below one in so many."""
    stuck: tuple[str, ...]
    """Groups of which no language can change places with one of another group."""

    @property
    def lacking(self) -> tuple[str, str] | None:
        """What is missing for a test, and what would be enough."""
        if self.stuck:
            missing = (
                f"no other group has languages scored on about as many targets as {', '.join(self.stuck)}"
            )
            return missing, "targets scored in languages of all groups, or `by=` with other groups"
        if self.partitions >= LEAST_PARTITIONS:
            return None
        few = f"languages with about as many targets can be grouped in {self.partitions} ways only"
        enough = f"{LEAST_PARTITIONS} ways: two groups of four languages scored on the same targets have 35"
        return f"{few}, so that no p is below 1/{self.partitions}", enough


def relabelling(found: Profiles, least: int = 2) -> Relabelling | None:
    """Of the groups of `least` languages; None with fewer than two of them."""
    groups = _groups(found, least)
    if len(groups) < 2:
        return None
    mine = numpy.isin(found.groups, groups)
    names, of_cell = numpy.unique(found.languages[mine], return_inverse=True)
    group = numpy.empty(len(names), dtype=object)
    group[of_cell] = found.groups[mine]
    strata = _strata(numpy.bincount(of_cell))
    held = pandas.crosstab(strata, group)[list(groups)].to_numpy()  # (strata, groups)
    ways = math.prod(
        math.factorial(int(row.sum())) // math.prod(math.factorial(int(n)) for n in row) for row in held
    )
    # Groups that are as large in every stratum may swap names, which is the same partition.
    alike = numpy.unique(held, axis=1, return_counts=True)[1]
    shared = held[(held > 0).sum(axis=1) > 1]
    stuck = tuple(name for name, column in zip(groups, shared.T, strict=True) if not column.any())
    return Relabelling(ways // math.prod(math.factorial(int(n)) for n in alike), stuck)


def _groups(found: Profiles, least: int) -> tuple[str, ...]:
    counted = pandas.Series(found.groups).groupby(found.languages).first().value_counts()
    return tuple(sorted(name for name, count in counted.items() if count >= least))


def interaction(
    found: Profiles, least: int = 2, seed: int = 0, permutations: int = PERMUTATIONS
) -> Interaction | None:
    """None with fewer than two groups of `least` languages."""
    groups = _groups(found, least)
    if len(groups) < 2:
        return None
    kept = numpy.isin(found.groups, groups)
    scaled, plain, common = _residuals(found, kept)
    names, of_cell = numpy.unique(found.languages[kept], return_inverse=True)
    member = numpy.zeros((len(names), len(groups)))
    member[of_cell, [groups.index(name) for name in found.groups[kept]]] = 1.0
    sums = _by(of_cell, scaled, len(names))
    counts = numpy.bincount(of_cell, minlength=len(names)).astype(numpy.float64)
    weights = member.T @ counts
    of_seed = (member.T @ sums.reshape(len(names), -1)).reshape(len(groups), *sums.shape[1:])
    of_seed /= weights[:, None, None]
    observed = float(_size(of_seed.mean(axis=2)[None], weights[None])[0])
    drawn = _shuffled(counts, seed, permutations)
    again = member[drawn]  # (permutations, languages, groups)
    heavy = again.transpose(0, 2, 1) @ counts
    by_language = (again.transpose(0, 2, 1) @ sums.mean(axis=2)) / heavy[:, :, None]
    relabel = _within(len(found.rows), len(found.seeds), seed + 1, permutations)
    by_seed = numpy.stack([_relabelled(_apart(each), relabel).mean(axis=2) for each in of_seed], axis=1)
    noise = _relabelled(common, relabel).mean(axis=2)
    return Interaction(
        groups=groups,
        languages=len(names),
        size=math.sqrt(observed),
        main=math.sqrt(max(float((common.mean(axis=1) ** 2).mean() - (noise**2).mean()), 0.0)),
        upper=_upper(by_language, heavy, observed, seed),
        expected=_upper(by_language, heavy, float(numpy.median(_size(by_language, heavy))), seed),
        p=_p(observed, _size(by_language + by_seed, heavy)),
        points=(member.T @ _by(of_cell, plain, len(names))) / weights[:, None],
    )


@dataclass(frozen=True, slots=True, eq=False)
class Strengths:
    """A Plackett-Luce ranking: log strengths that sum to zero, with bootstrap draws over languages."""

    value: Floats
    """(rows,)"""
    draws: Floats
    """(draws, rows)"""

    def intervals(self) -> tuple[Floats, Floats]:
        """Ends of the middle 95 % of each row."""
        low, high = numpy.quantile(self.draws, [0.025, 0.975], axis=0)
        return low, high


def plackett_luce(found: Profiles, seed: int = 0, draws: int = 200) -> Strengths:
    """Strengths by which every (target, language) drew its ranking of mean gains; whole languages redrawn."""
    random = numpy.random.default_rng(seed)
    mean = found.gains.mean(axis=2)
    mean = mean + random.uniform(-TIE, TIE, mean.shape)  # ties have no order of their own
    orders = [tuple(int(i) for i in order) for order in numpy.argsort(-mean, axis=1)]
    of_language: dict[str, list[tuple[int, ...]]] = {}
    for language, order in zip(found.languages, orders, strict=True):
        of_language.setdefault(language, []).append(order)
    rows, names = len(found.rows), list(of_language)
    # alpha keeps a task that always wins from an infinite strength: a hundredth of a prior comparison.
    value = choix.ilsr_rankings(rows, orders, alpha=0.01)
    again = []
    for _ in range(draws):
        chosen = random.integers(len(names), size=len(names))
        data = [order for i in chosen for order in of_language[names[i]]]
        again.append(choix.ilsr_rankings(rows, data, alpha=0.01, initial_params=value, tol=1e-4))
    return Strengths(numpy.asarray(value), numpy.stack(again))


@dataclass(frozen=True, slots=True, eq=False)
class Nemenyi:
    """Average ranks with languages as blocks: what other languages would give with these very runs."""

    ranks: Floats
    """(rows,): mean of `of_language`."""
    difference: float
    """Two average ranks further apart than this differ at 5 %."""
    p: pandas.DataFrame
    """rows x rows."""
    languages: NDArray[Any]
    """(blocks,): codes."""
    of_language: Floats
    """(blocks, rows): ranks of each language's mean ranks."""

    @property
    def blocks(self) -> int:
        """How many languages."""
        return len(self.languages)


def nemenyi(found: Profiles) -> Nemenyi:
    """Nemenyi's test after Friedman's (Demsar 2006), one block a language."""
    names, of_cell = numpy.unique(found.languages, return_inverse=True)
    sums = _by(of_cell, found.ranks, len(names)).mean(axis=2)
    blocks = stats.rankdata(sums / numpy.bincount(of_cell)[:, None], axis=1)
    k = len(found.rows)
    q = float(stats.studentized_range.ppf(0.95, k, numpy.inf)) / math.sqrt(2)
    p = scikit_posthocs.posthoc_nemenyi_friedman(blocks)
    p.index = p.columns = list(found.rows)
    return Nemenyi(blocks.mean(axis=0), q * math.sqrt(k * (k + 1) / (6 * len(names))), p, names, blocks)


def _residuals(found: Profiles, kept: NDArray[numpy.bool_]) -> tuple[Floats, Floats, Floats]:
    """(cells, rows, seeds) double-centred and scaled within targets; (cells, rows) the same in points, mean
    over seeds; and (rows, seeds) the scaled main effect."""
    gains, targets = found.gains[kept], found.targets[kept]
    scaled, plain = numpy.zeros_like(gains), numpy.zeros(gains.shape[:2])
    common, counted = numpy.zeros(gains.shape[1:]), 0
    for target in numpy.unique(targets):
        mine = targets == target
        inner = gains[mine] - gains[mine].mean(axis=1, keepdims=True)
        main = inner.mean(axis=0)
        inner = inner - main
        plain[mine] = inner.mean(axis=2)
        # Of single seeds: a scale of means over seeds would change with the relabelling of seeds.
        scale = math.sqrt(float((inner**2).mean()))
        if scale > TIE:
            scaled[mine] = inner / scale
            common += main / scale * mine.sum()
            counted += int(mine.sum())
    return scaled, plain, common / max(counted, 1)


def _by(of_cell: NDArray[Any], values: Floats, n: int) -> Floats:
    """Sums of cells by language: (languages, ...)."""
    sums = numpy.zeros((n, *values.shape[1:]))
    numpy.add.at(sums, of_cell, values)
    return sums


def _size(profiles_: Floats, weights: Floats) -> Floats:
    """(draws,): weighted mean square of (draws, groups, rows) around the weighted mean over groups."""
    share = weights / weights.sum(axis=1, keepdims=True)
    middle = numpy.einsum("dgk,dg->dk", profiles_, share)
    found: Floats = numpy.einsum("dgk,dg->d", (profiles_ - middle[:, None]) ** 2, share)
    mean: Floats = found / profiles_.shape[2]
    return mean


def _own(values: Floats, targets: NDArray[Any]) -> Floats:
    """Deviations of (cells, rows) from the mean of their target, made as large as languages differ."""
    found = numpy.zeros_like(values)
    for target in numpy.unique(targets):
        mine = targets == target
        found[mine] = _apart(values[mine].T).T
    return found


def _apart(values: Floats) -> Floats:
    """Deviations of (rows, units) from the mean over units, made as large as units differ: deviations from
    the mean of n vary by (n - 1) / n of that."""
    n = values.shape[1]
    found: Floats = (values - values.mean(axis=1, keepdims=True)) * math.sqrt(n / max(n - 1, 1))
    return found


def _upper(null: Floats, weights: Floats, observed: float, seed: int) -> float:
    """The interaction, as a root mean square, under which one as small as `observed` comes up in 5 %:
    patterns of every direction are added to what permutations leave. Where those leave more than is observed,
    they are no bound, and `observed` itself is given."""
    random = numpy.random.default_rng(seed)
    share = weights / weights.sum(axis=1, keepdims=True)

    def centred(values: Floats) -> Floats:
        found: Floats = values - numpy.einsum("dgk,dg->dk", values, share)[:, None]
        return found

    pattern = random.normal(size=null.shape)
    pattern = centred(pattern - pattern.mean(axis=2, keepdims=True))
    pattern /= numpy.sqrt(_size(pattern, weights))[:, None, None]
    noise = _size(null, weights)
    cross = numpy.einsum("dgk,dgk,dg->d", centred(null), pattern, share) / null.shape[2]

    def short(size: float) -> float:
        return float(numpy.quantile(noise + 2 * size * cross + size**2, 0.05)) - observed

    far = 2 * math.sqrt(observed + float(noise.max())) + 1.0
    found = 0.0 if short(0.0) >= 0 else float(optimize.brentq(short, 0.0, far))
    return max(found, math.sqrt(observed))


def _within(rows: int, units: int, seed: int, permutations: int) -> NDArray[numpy.int64]:
    """(permutations, rows, units): an order of the rows for every unit."""
    random = numpy.random.default_rng(seed)
    start = numpy.broadcast_to(numpy.arange(rows)[None, :, None], (permutations, rows, units))
    return random.permuted(start, axis=1)


def _relabelled(values: Floats, drawn: NDArray[numpy.int64]) -> Floats:
    """(permutations, rows, seeds) of (rows, seeds)."""
    wide = numpy.broadcast_to(values, (len(drawn), *values.shape))
    found: Floats = numpy.take_along_axis(wide, drawn, axis=1)
    return found


def _shuffled(counts: Floats, seed: int, permutations: int) -> NDArray[numpy.int64]:
    """(permutations, languages): languages in another order, each within its stratum."""
    random = numpy.random.default_rng(seed)
    drawn = numpy.broadcast_to(numpy.arange(len(counts)), (permutations, len(counts))).copy()
    stratum = _strata(counts)
    for each in numpy.unique(stratum):
        mine = numpy.flatnonzero(stratum == each)
        drawn[:, mine] = random.permuted(numpy.broadcast_to(mine, (permutations, len(mine))), axis=1)
    return drawn


def _strata(counts: NDArray[Any]) -> NDArray[numpy.int64]:
    """(languages,): those with about as many targets (thirds of the languages) share a number."""
    edges = numpy.quantile(counts, [1 / 3, 2 / 3])
    return numpy.searchsorted(edges, counts, side="left").astype(numpy.int64)


def _p(observed: float, again: Floats) -> float:
    """Share of permutations, the observed order among them, that show as much."""
    return (1 + int((again >= observed * (1 - TIE)).sum())) / (1 + len(again))
