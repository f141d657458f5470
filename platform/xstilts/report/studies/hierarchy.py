"""Does the intermediate task matter, and is there one ranking of them across language families?

Pre-stated. Blocks are zero-shot (target, language, seed), ranked by gain over `none`; Kendall's W says how
much they agree, for each family and for all. Primary: the interaction of intermediate task and language
family, by permutation at 5 % (`ranks` says what is relabelled and why that may be). The answer is
    not consistent   the interaction is there: p < 0.05
    consistent       the tasks differ (W, p < 0.05 over seeds and languages), the interaction is not found,
                     and the largest one that the data do not reject is under half of the main effect: a
                     family's profile then correlates with the common one by 0.9
    cannot tell      neither; says what would be enough
Refused, without a p, where no relabelling of languages could show anything: 20 partitions or fewer, or a
group whose languages are all scored on more, or fewer, targets than the others. Not finding an interaction is
no evidence of one ranking, which is why "consistent" asks for the bound. That bound, on the interaction, is
set against a point estimate of the main effect, whose own error it leaves out.

Figure: average ranks with Nemenyi's critical difference (Demsar 2006), languages as blocks. Robustness: a
Plackett-Luce ranking with whole languages redrawn. A family cannot be told from what its languages share
besides: script, resources.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import pandas
from scipy import stats
from statsmodels.stats.multitest import multipletests

from xstilts.errors import UnknownName, XstiltsError
from xstilts.report.clusters import Floats
from xstilts.report.studies import printed_ranks, rank_figures, ranks
from xstilts.report.studies.answer import Answer, Figure, Table, Test, TooLittle, p_value
from xstilts.report.studies.gains import Gains
from xstilts.report.verdict import points

QUESTION = "Does the intermediate task matter, and is there one ranking of them across language families?"
CONSISTENT, DIFFERENT, OPEN = "consistent", "not consistent", "cannot tell"
ALPHA = 0.05
SHARE = 0.5
"""Of the main effect, that an interaction has to stay below: 1 / sqrt(1 + 0.5 ** 2) = 0.89, a correlation."""
MOST = 20.0
"""Times the seeds and languages that there are: beyond, an estimate of what would be enough is a guess."""
LEAST_ROWS, LEAST_LANGUAGES = 3, 2
LEAST_ORDERS = 20
"""Ways to relabel the tasks within seeds, below which no p can be 0.05."""
GROUPINGS = ("family", "genus", "script", "tier")


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Everything that is computed before it is told."""

    profiles: ranks.Profiles
    groups: tuple[str, ...]
    """Every family, largest first."""
    whole: ranks.Concordance
    of_group: tuple[ranks.Concordance, ...]
    interaction: ranks.Interaction
    ranks: ranks.Nemenyi
    used: pandas.DataFrame
    """The gains that profiles were made of."""
    outside: tuple[str, ...] = ()
    """Languages that are in no group."""

    @property
    def order(self) -> list[int]:
        """Rows, best first."""
        return [int(i) for i in numpy.argsort(self.ranks.ranks, kind="stable")]

    def inside(self, group: str) -> Floats:
        """(rows,): average ranks over the languages of a group, which those over all are the mean of."""
        mine = set(self.profiles.languages[self.profiles.groups == group])
        found: Floats = self.ranks.of_language[[code in mine for code in self.ranks.languages]].mean(axis=0)
        return found

    @property
    def members(self) -> dict[str, list[str]]:
        """Group -> its languages."""
        spoken, groups = self.profiles.languages, self.profiles.groups
        return {group: sorted(set(spoken[groups == group].tolist())) for group in self.groups}

    @property
    def verdict(self) -> str:
        """By the rule of the module."""
        if self.interaction.p < ALPHA:
            return DIFFERENT
        small = self.interaction.upper < SHARE * self.interaction.main
        return CONSISTENT if self.whole.p < ALPHA and small else OPEN


def answer(
    gains: Gains,
    by: str = "family",
    permutations: int = ranks.PERMUTATIONS,
    draws: int = 200,
    seed: int = 0,
) -> Answer:
    """The answer. `by`: family, genus, script or tier, or groups such as "near=w1+w2 far=w3+w4"; `draws`: of
    the Plackett-Luce bootstrap.

    Raises:
        TooLittle: fewer than three intermediate tasks, too few seeds, fewer than two families with two
            languages, or families that cannot be relabelled.
        UnknownName: no such grouping, or a group has a language without zero-shot gains.
        XstiltsError: several models or settings in one cell; a language is in two groups.
    """
    found = measure(gains, by, permutations, seed)
    strengths = ranks.plackett_luce(found.profiles, seed, draws)
    counted = {
        "intermediate tasks": len(found.profiles.rows),
        "targets": len(set(found.profiles.targets)),
        "languages": len(set(found.profiles.languages)),
        "groups" if "=" in by else "families": len(found.interaction.groups),
        "seeds": len(found.profiles.seeds),
    }
    main, families = _main_table(found, by), _family_table(found, by)
    return Answer(
        study="hierarchy",
        question=QUESTION,
        sentence=_sentence(found, by),
        verdict=found.verdict,
        primary=_primary(found, by, counted),
        robustness=_robustness(found, strengths, counted),
        tables=(main, families, _strengths_table(found, strengths), _target_table(found)),
        figures=_figures(found, by),
        caption=gains.caption(found.used),
        notes=_notes(found, by, permutations),
        facts={
            "by": by,
            "alpha": ALPHA,
            "share": SHARE,
            "permutations": permutations,
            "draws": draws,
            "groups": found.members,
        },
    )


def published() -> Answer:
    """Over target tasks, from the table of Phang et al. 2020, which has no language families."""
    return printed_ranks.answer(QUESTION)


def measure(gains: Gains, by: str = "family", permutations: int = ranks.PERMUTATIONS, seed: int = 0) -> Found:
    """The tests alone; raises as `answer` does."""
    table = gains.single().zero_shot
    if table.intermediate.nunique() < LEAST_ROWS:
        missing = f"{table.intermediate.nunique()} intermediate tasks are no ranking"
        raise TooLittle(missing, f"{LEAST_ROWS} intermediate tasks beside `none`")
    groups = _groups(table, by)
    outside = tuple(dict.fromkeys(table.language[groups == ""]))
    table, groups = table[groups != ""], groups[groups != ""]
    if table.empty:
        others = ", ".join(name for name in GROUPINGS if name != by)
        raise TooLittle(f"no language of these jobs has a {by}", f"another grouping: {others}, or by hand")
    profiles = ranks.profiles(table, groups)
    _enough(profiles, by)
    sizes = pandas.Series(profiles.groups).groupby(profiles.languages).first().value_counts()
    names = tuple(sorted(sizes.index, key=lambda name: (-sizes[name], name)))
    sets = [numpy.ones(len(profiles.groups), dtype=bool), *(profiles.groups == name for name in names)]
    whole, *of_group = ranks.matters(profiles, sets, seed, permutations)
    interaction = ranks.interaction(profiles, LEAST_LANGUAGES, seed, permutations)
    assert interaction is not None
    cells = pandas.DataFrame({"target": profiles.targets, "language": profiles.languages})
    used = table.merge(cells, on=["target", "language"])
    return Found(profiles, names, whole, tuple(of_group), interaction, ranks.nemenyi(profiles), used, outside)


def _groups(table: pandas.DataFrame, by: str) -> pandas.Series:
    """What each row's language is grouped under; "" for one that is in no group."""
    if "=" not in by:
        if by not in GROUPINGS:
            raise UnknownName.among("grouping", by, GROUPINGS)
        return table[by]
    known, of_code = list(dict.fromkeys(table.language)), dict[str, str]()
    for part in by.replace(",", " ").split():
        name, _, codes = part.partition("=")
        for code in codes.split("+"):
            if code not in known:
                raise UnknownName.among("language with zero-shot gains", code, known)
            if code in of_code:
                raise XstiltsError(f"by={by} names {code!r} twice", "put each language into one group")
            of_code[code] = name
    return table.language.map(of_code).fillna("")


def _enough(found: ranks.Profiles, by: str) -> None:
    rows, seeds = len(found.rows), len(found.seeds)
    if not len(found.targets):
        missing = f"no target is scored in any language with all {rows} intermediate tasks and {seeds} seeds"
        raise TooLittle(missing, "every row and seed of at least one target")
    if seeds < 2 or math.factorial(rows) ** (seeds - 1) < LEAST_ORDERS:
        need = next(n for n in range(2, 9) if math.factorial(rows) ** (n - 1) >= LEAST_ORDERS)
        missing = f"{seeds} seed{'s' if seeds != 1 else ''} of {rows} intermediate tasks: runs differ by luck"
        raise TooLittle(f"{missing}, and nothing shows by how much", f"{need} seeds of every row")
    can = ranks.relabelling(found, LEAST_LANGUAGES)
    if can is None:
        missing = f"fewer than two groups (by {by}) have {LEAST_LANGUAGES} languages"
        raise TooLittle(missing, f"{LEAST_LANGUAGES} languages of each of two groups")
    if can.lacking:
        raise TooLittle(*can.lacking)


def _sentence(found: Found, by: str) -> str:
    inter, order = found.interaction, [found.profiles.rows[i] for i in found.order]
    k = len(inter.groups)
    what = f"{len(order)} intermediate tasks in {k} groups of languages" + ("" if "=" in by else f" by {by}")
    agree = f"Kendall's W {found.whole.w:.2f}, {p_value(found.whole.p)}; interaction {p_value(inter.p)}"
    if found.verdict == DIFFERENT:
        group, row, size = _largest(inter, found.profiles.rows)
        return (
            f"Not consistent: the gains of {what} differ from group to group by more than luck "
            f"({agree}); largest departure: {row} in {group}, {points(size)} points from what the others let "
            "expect. "
            f"{_first(found)} Over all: {', '.join(order)}."
        )
    if found.verdict == CONSISTENT:
        return f"Consistent: {what} rank alike ({agree}): {', '.join(order)}."
    return f"It cannot be told whether {what} rank alike ({agree}). {_wanting(found)}"


def _first(found: Found) -> str:
    """Whether the departures change which task is best, or only by how much."""
    first = {
        group: found.profiles.rows[int(found.inside(group).argmin())] for group in found.interaction.groups
    }
    if len(set(first.values())) == 1:
        return f"It is the sizes that differ: {next(iter(first.values()))} is first in every one of them."
    return f"First are {', '.join(f'{row} in {group}' for group, row in first.items())}."


def _wanting(found: Found) -> str:
    """What would be enough, where neither answer can be given."""
    inter = found.interaction
    if found.whole.p >= ALPHA or inter.main == 0.0:
        return f"The tasks themselves cannot be told apart; {_apart(found)}."
    # What noise leaves falls with the root of the number of languages.
    times = (inter.expected / (SHARE * inter.main)) ** 2
    if times <= 1.0:
        return "It is close: other languages or seeds may decide."
    return (
        f"About {math.ceil(times * inter.languages)} languages (now {inter.languages}) in these groups would "
        "be enough, if there is no interaction."
    )


def _apart(found: Found) -> str:
    """How many seeds or languages would tell tasks apart that differ as much as these seem to."""
    by_seeds, by_languages = found.whole.luck
    seeds, spoken = len(found.profiles.seeds), len(set(found.profiles.languages))
    now = f"(now {seeds} and {spoken})"
    if not by_seeds + by_languages < MOST:
        return f"they seem to differ so little that no number of seeds and languages {now} can be given"
    if by_languages < by_seeds and by_languages < 0.9:
        many = math.ceil(seeds * by_seeds / (1 - by_languages))
        enough = f"{max(many, seeds + 1)} seeds of these languages"
    elif by_seeds < 0.9:
        many = math.ceil(spoken * by_languages / (1 - by_seeds))
        enough = f"{max(many, spoken + 1)} languages with these seeds"
    else:
        times = by_seeds + by_languages
        enough = f"{math.ceil(seeds * times)} seeds and {math.ceil(spoken * times)} languages"
    return f"if they differ as much as they seem to, about {enough} {now} would be enough"


def _largest(inter: ranks.Interaction, rows: Sequence[str]) -> tuple[str, str, float]:
    group, row = numpy.unravel_index(int(numpy.abs(inter.points).argmax()), inter.points.shape)
    return inter.groups[int(group)], rows[int(row)], float(inter.points[group, row])


def _primary(found: Found, by: str, counted: dict[str, int]) -> Test:
    inter = found.interaction
    share = inter.size / inter.main if inter.main else math.inf
    bound = inter.upper / inter.main if inter.main else math.inf
    return Test(
        name=f"Intermediate task x {_word(by)} interaction, permutation",
        statistic=inter.size**2,
        value=share if math.isfinite(share) else None,
        interval=None,
        p=inter.p,
        n=counted,
        text=f"interaction {inter.size:.2f} standard deviations, {share:.2f} of the main effect, at most "
        f"{bound:.2f} of it at 95 %; {p_value(inter.p)}; Kendall's W over all {found.whole.blocks} blocks "
        f"{found.whole.w:.2f}, {p_value(found.whole.p)}",
    )


def _robustness(found: Found, strengths: ranks.Strengths, counted: dict[str, int]) -> Test:
    tau = float(stats.kendalltau(strengths.value, -found.ranks.ranks).statistic)
    first = int(strengths.value.argmax())
    often = float((strengths.draws.argmax(axis=1) == first).mean())
    return Test(
        name="Plackett-Luce ranking, languages redrawn",
        statistic=tau,
        value=often,
        interval=None,
        p=None,
        n=counted,
        text=f"its order agrees with average ranks by Kendall's tau {tau:.2f}; {found.profiles.rows[first]} "
        f"is first in {100 * often:.0f} % of {len(strengths.draws)} draws of languages",
    )


def _main_table(found: Found, by: str) -> Table:
    """One row an intermediate task, best first, with its average rank in every group."""
    profiles = found.profiles
    mean = profiles.gains.mean(axis=(0, 2))
    lines = []
    for i in found.order:
        line = {"intermediate": profiles.rows[i], "average rank": found.ranks.ranks[i], "gain": mean[i]}
        inside = (found.inside(group)[i] for group in found.groups)
        lines.append(line | dict(zip(found.groups, inside, strict=True)))
    note = (
        "Ranks of gains over `none`, 1 is best, within each language by its mean over targets and seeds; "
        f"average rank: over {found.ranks.blocks} languages, where {found.ranks.difference:.2f} or more "
        "apart differ (Nemenyi, 5 %, these very runs), and over those of a group. gain: points, mean over "
        "(target, language, seed) blocks."
    )
    return Table(
        "ranks", f"Average ranks of intermediate tasks, by {_word(by)}", pandas.DataFrame(lines), note
    )


def _family_table(found: Found, by: str) -> Table:
    profiles = found.profiles
    holm = multipletests([each.p_seeds for each in found.of_group], method="holm")[1]
    lines = [
        {
            _word(by): group,
            "languages": len(set(profiles.languages[profiles.groups == group])),
            "blocks": each.blocks,
            "W": each.w,
            "chi2": each.chi2,
            "p": each.p_seeds,
            "p (Holm)": float(adjusted),
        }
        for group, each, adjusted in zip(found.groups, found.of_group, holm, strict=True)
    ]
    total = {
        _word(by): "all",
        "languages": len(set(profiles.languages)),
        "blocks": found.whole.blocks,
        "W": found.whole.w,
        "chi2": found.whole.chi2,
        "p": found.whole.p_seeds,
        "p (Holm)": None,
    }
    note = (
        "W: Kendall's, chi2: Friedman's. Blocks share runs and languages, so p is not chi2's: tasks are "
        "relabelled within seeds, which speaks of other seeds in these languages. Holm: over the groups."
    )
    return Table("concordance", "How much blocks agree", pandas.DataFrame([*lines, total]), note)


def _strengths_table(found: Found, strengths: ranks.Strengths) -> Table:
    low, high = strengths.intervals()
    first = (strengths.draws == strengths.draws.max(axis=1, keepdims=True)).mean(axis=0)
    lines = [
        {
            "intermediate": found.profiles.rows[i],
            "log strength": strengths.value[i],
            "low": low[i],
            "high": high[i],
            "first in %": 100 * first[i],
        }
        for i in numpy.argsort(-strengths.value)
    ]
    note = "Plackett-Luce; low, high: 95 %, whole languages redrawn; the runs are these."
    return Table("strengths", "Robustness: Plackett-Luce ranking", pandas.DataFrame(lines), note)


def _target_table(found: Found) -> Table:
    profiles = found.profiles
    names = list(dict.fromkeys(profiles.targets))
    agreed = ranks.matters(profiles, [profiles.targets == name for name in names], permutations=1)
    lines = []
    for name, each in zip(names, agreed, strict=True):
        mean = profiles.gains[profiles.targets == name].mean(axis=(0, 2))
        best = int(mean.argmax())
        lines.append(
            {
                "target": name,
                "languages": int((profiles.targets == name).sum()),
                "W": each.w,
                "best": profiles.rows[best],
                "its gain": mean[best],
            }
        )
    note = "Described, not tested: the languages of a target share its runs, which makes them agree."
    return Table("targets", "The same by target", pandas.DataFrame(lines), note)


def _figures(found: Found, by: str) -> tuple[Figure, Figure]:
    """Average ranks, over all and within each group, and mean gains."""
    profiles, named = found.profiles, [(i, found.profiles.rows[i]) for i in found.order]
    whole = pandas.DataFrame(
        {"intermediate": [row for _, row in named], "rank": [found.ranks.ranks[i] for i, _ in named]}
    )
    inside = pandas.DataFrame(
        [
            {"intermediate": row, "group": group, "rank": found.inside(group)[i]}
            for i, row in named
            for group in found.interaction.groups
        ]
    )
    gained = pandas.DataFrame(
        [
            {"intermediate": row, "group": group, "gain": profiles.gains[profiles.groups == group, i].mean()}
            for i, row in named
            for group in found.groups
        ]
    )
    return (
        rank_figures.averages(whole, inside, found.ranks.difference, found.ranks.blocks, _word(by)),
        rank_figures.gained(gained, _word(by)),
    )


def _notes(found: Found, by: str, permutations: int) -> tuple[str, ...]:
    inter, profiles = found.interaction, found.profiles
    alone = [group for group in found.groups if group not in inter.groups]
    notes = [
        f"relabelled {permutations:,} times: the {_word(by)} of whole languages among "
        "languages scored on about as many targets, and intermediate tasks within whole seeds; a "
        "(language, seed) cell is never a unit",
        "targets are fixed: blocks are weighted alike, so a target in many languages weighs more",
        "a group of languages cannot be told from the scripts and resources its languages share",
        f"consistent asks for a bound of the interaction under {SHARE:g} of the main effect, an estimate "
        "whose own error is not in the bound",
    ]
    if "=" in by:
        told = "; ".join(f"{group}: {' '.join(codes)}" for group, codes in found.members.items())
        notes.append(f"groups by hand: {told}")
    if found.outside:
        notes.append(f"left out, in no {_word(by)}: {' '.join(found.outside)}")
    if alone:
        notes.append(f"one language, ranked but not in the interaction: {', '.join(alone)}")
    if profiles.dropped:
        notes.append(f"left out, a run is missing: {profiles.dropped} (target, language) pairs")
    return tuple(notes)


def _word(by: str) -> str:
    return "group" if "=" in by else by
