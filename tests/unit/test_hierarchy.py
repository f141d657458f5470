"""One ranking or several: what is planted is found, what is not is found no oftener than promised."""

from __future__ import annotations

import dataclasses

import numpy
import pandas
import pytest
from scipy import stats
from study_frames import Frame

from xstilts.errors import UnknownName, XstiltsError
from xstilts.report.studies import hierarchy, ranks
from xstilts.report.studies.answer import REFUSED, TooLittle
from xstilts.report.studies.catalogue import run

FRAMES = 200
MOST = int(stats.binom.ppf(0.999, FRAMES, 0.05))
"""False alarms of a test that keeps 5 %, but for once in a thousand: 21."""
TWO = {
    "xnli": "ar bg de el es fr hi ru sw th tr ur vi zh",
    "panx": "ar he de nl es fr hi bn ta te fi et id jv tr kk",
}
SMALL = Frame(targets=TWO)
MAIN = {"mnli": 3.0, "squad_v1": 1.0, "ccg": -2.0}


def measured(frame: Frame, seed: int) -> hierarchy.Found:
    return hierarchy.measure(frame.gains(seed), permutations=200, seed=seed)


def alarms(frame: Frame, frames: int = FRAMES) -> tuple[int, int, int]:
    """How often: the interaction, the tasks with other seeds, the tasks with other seeds and languages."""
    found = [measured(frame, seed) for seed in range(frames)]
    of_seeds = sum(each.whole.p_seeds < 0.05 for each in found)
    return (
        sum(each.interaction.p < 0.05 for each in found),
        of_seeds,
        sum(each.whole.p < 0.05 for each in found),
    )


@pytest.mark.slow
def test_nothing_planted() -> None:
    """Languages differ and so do runs, in no way that families or tasks explain."""
    interaction, _, both = alarms(SMALL)
    assert interaction <= MOST and both <= MOST


@pytest.mark.slow
def test_nothing_but_runs() -> None:
    """Only runs differ: relabelling within seeds is then exact."""
    interaction, seeds, both = alarms(dataclasses.replace(SMALL, language=0.0, place=0.0, run=1.0, seed=1.0))
    assert interaction <= MOST and both <= MOST
    assert stats.binom.ppf(0.001, FRAMES, 0.05) <= seeds <= MOST


def test_counting_blocks_would_be_wrong() -> None:
    """What the module warns of: with nothing planted, Friedman's own p calls most frames different."""
    frame = dataclasses.replace(SMALL, language=0.0, place=0.0, run=1.0)
    found = [measured(frame, seed) for seed in range(20)]
    naive = [stats.chi2.sf(each.whole.chi2, len(each.profiles.rows) - 1) for each in found]
    assert sum(p < 0.05 for p in naive) > 12


@pytest.mark.slow
def test_one_ranking_is_consistent() -> None:
    found = [measured(dataclasses.replace(SMALL, main=MAIN), seed) for seed in range(20)]
    assert sum(each.verdict == hierarchy.CONSISTENT for each in found) >= 17
    best = [each.profiles.rows[each.order[0]] for each in found]
    assert best.count("mnli") == 20


@pytest.mark.slow
def test_a_planted_interaction_is_found() -> None:
    planted = {("mnli", "Indo-European"): -3.0, ("ccg", "Indo-European"): 3.0}
    found = [measured(dataclasses.replace(SMALL, main=MAIN, by_family=planted), seed) for seed in range(20)]
    assert sum(each.verdict == hierarchy.DIFFERENT for each in found) >= 18
    answer = hierarchy.answer(dataclasses.replace(SMALL, main=MAIN, by_family=planted).gains(1), draws=5)
    assert answer.verdict == hierarchy.DIFFERENT and "Not consistent" in answer.sentence


@pytest.mark.slow
def test_the_bound_holds_the_interaction_that_is_there() -> None:
    """`upper` is below the truth in no more than 5 %."""
    planted = {("mnli", "Indo-European"): -1.0, ("ccg", "Turkic"): 1.5}
    frame = dataclasses.replace(SMALL, main=MAIN, by_family=planted)
    calm = dataclasses.replace(frame, run=0.0, seed=0.0, language=0.0, place=0.0, noise=0.0)
    below = 0
    for seed in range(60):
        found = measured(frame, seed)
        noisy, exact = found.profiles, ranks.profiles(*_flat(calm, seed))
        kept = numpy.isin(noisy.groups, found.interaction.groups)
        scales = {name: _scale(noisy.gains[kept & (noisy.targets == name)]) for name in set(noisy.targets)}
        weights = numpy.array([scales[name] for name in noisy.targets])[:, None, None]
        truth = dataclasses.replace(exact, gains=exact.gains / weights)
        below += found.interaction.upper < _truth(truth, kept)
    assert below <= stats.binom.ppf(0.999, 60, 0.05)


def _flat(frame: Frame, seed: int) -> tuple[pandas.DataFrame, pandas.Series]:
    table = frame.gains(seed).zero_shot
    return table, table.family


def _scale(gains: numpy.ndarray) -> float:
    inner = gains - gains.mean(axis=1, keepdims=True)
    return float(numpy.sqrt(((inner - inner.mean(axis=0)) ** 2).mean()))


def _truth(found: ranks.Profiles, kept: numpy.ndarray) -> float:
    """Root mean square of family profiles, double-centred within targets."""
    inner = numpy.zeros(found.gains.shape[:2])
    for target in set(found.targets):
        mine = kept & (found.targets == target)
        values = found.gains[mine].mean(axis=2)
        values = values - values.mean(axis=1, keepdims=True)
        inner[mine] = values - values.mean(axis=0)
    sums = {name: inner[kept & (found.groups == name)] for name in set(found.groups[kept])}
    total = sum(len(each) * float((each.mean(axis=0) ** 2).mean()) for each in sums.values())
    return float(numpy.sqrt(total / kept.sum()))


def test_w_is_scipys_and_says_how_much_blocks_agree() -> None:
    calm = dataclasses.replace(SMALL, main=MAIN, run=0.0, seed=0.0, language=0.0, place=0.0, noise=0.01)
    found = measured(calm, 1)
    assert found.whole.w == pytest.approx(1.0) and all(each.w == pytest.approx(1) for each in found.of_group)
    assert found.whole.blocks == 30 * 3
    assert found.whole.chi2 == pytest.approx(found.whole.w * found.whole.blocks * 3)


def test_answer_says_all_of_it() -> None:
    answer = hierarchy.answer(dataclasses.replace(SMALL, main=MAIN).gains(2), draws=20)
    assert answer.primary is not None and answer.primary.p is not None and answer.robustness is not None
    assert answer.primary.n["languages"] == 24 and answer.primary.n["seeds"] == 3
    assert answer.tables[0].data.intermediate.iloc[0] == "mnli"
    assert {table.name for table in answer.tables} == {"ranks", "concordance", "strengths", "targets"}
    assert len(answer.figures) == 2 and "commit abc1234" in answer.caption
    assert "one language" in " ".join(answer.notes)


def test_other_groups() -> None:
    found = hierarchy.measure(SMALL.gains(1), by="near=de+nl+fr+es+he far=ta+te+hi+bn+th", permutations=50)
    assert found.groups == ("far", "near") and set(found.profiles.languages) == set(
        "de nl fr es he ta te hi bn th".split()
    )
    assert len(hierarchy.measure(SMALL.gains(1), by="script", permutations=50).groups) > 5
    with pytest.raises(UnknownName, match="family"):
        hierarchy.measure(SMALL.gains(1), by="famly")


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (dataclasses.replace(SMALL, rows=("mnli", "ccg")), "2 intermediate tasks are no ranking"),
        (dataclasses.replace(SMALL, seeds=(1,)), "3 seeds|2 seeds"),
        (dataclasses.replace(SMALL, targets={"xnli": "de fr sw th"}), "2 languages of each of two"),
        (
            dataclasses.replace(SMALL, missing=(("ccg", "xnli", 1), ("mnli", "panx", 2))),
            "no target is scored",
        ),
    ],
)
def test_too_little_is_refused_without_a_p(frame: Frame, words: str) -> None:
    with pytest.raises(TooLittle, match=words):
        hierarchy.answer(frame.gains(1))
    answer = run("hierarchy", frame.gains(1))
    assert answer.verdict == REFUSED and answer.refused and answer.primary is None and not answer.tables
    assert "p =" not in answer.sentence and "p <" not in answer.sentence


NESTED = {"xnli": "bg de el es fr", "udpos": "bg de el es fr", "panx": "bg de el es fr tr kk az"}
"""Every Indo-European language on three targets, every Turkic one on one."""


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (NESTED, "as many targets as Indo-European, Turkic"),
        ({"panx": "de fr tr kk"}, "3 ways only"),
        ({"panx": "de fr nl tr kk az"}, "10 ways only"),
    ],
)
def test_groups_that_cannot_be_relabelled_are_refused(targets: dict[str, str], words: str) -> None:
    """A reversed ranking of Turkic was told to be consistent, where no relabelling moved a family."""
    reversed_ = {("mnli", "Turkic"): -6.0, ("ccg", "Turkic"): 6.0}
    frame = Frame(targets=targets, main={"mnli": 3.0, "ccg": -3.0}, by_family=reversed_)
    with pytest.raises(TooLittle, match=words):
        hierarchy.measure(frame.gains(1), permutations=50)


def test_partitions_are_counted_by_hand() -> None:
    frame = Frame(targets={"panx": "de fr nl es bn tr kk az"})
    table = frame.gains(1).zero_shot
    found = ranks.relabelling(ranks.profiles(table, table.family))
    assert found == ranks.Relabelling(56, ()) and found.lacking is None
    assert len(hierarchy.measure(frame.gains(1), permutations=50).groups) == 2


@pytest.mark.parametrize(
    ("by", "said"),
    [
        ("near=de+fr far=ta+eg", "no language with zero-shot gains named 'eg'"),
        ("near=de+fr far=ta+en", "no language with zero-shot gains named 'en'"),
        ("near=de+fr far=ta+de", "names 'de' twice: put each language into one group"),
        ("near=de+de far=ta+te", "names 'de' twice"),
        ("families", "did you mean 'family'"),
        ("resources", "choose among family, genus, script, tier"),
    ],
)
def test_groups_by_hand_are_of_languages_that_have_gains(by: str, said: str) -> None:
    with pytest.raises(XstiltsError, match=said):
        hierarchy.measure(SMALL.gains(1), by, permutations=50)


def test_a_grouping_that_no_language_has_is_refused() -> None:
    gains = SMALL.gains(1)
    bare = dataclasses.replace(gains, table=gains.table.assign(tier=""))
    with pytest.raises(TooLittle, match="no language of these jobs has a tier"):
        hierarchy.measure(bare, "tier", 100)


def test_groups_are_kept_with_their_languages() -> None:
    by = "near=de+es+fr+nl far=ta+te+hi+bn"
    answer = hierarchy.answer(dataclasses.replace(SMALL, targets={"panx": TWO["panx"]}).gains(1), by, 100, 2)
    assert answer.facts["groups"] == {"far": ["bn", "hi", "ta", "te"], "near": ["de", "es", "fr", "nl"]}
    assert "groups by hand: far: bn hi ta te; near: de es fr nl" in answer.notes
    (left,) = [note for note in answer.notes if note.startswith("left out, in no group: ")]
    assert left.rpartition(": ")[2] == "ar he fi et id jv tr kk"
    plain = hierarchy.answer(SMALL.gains(1), permutations=100, draws=2)
    assert plain.facts["groups"]["Turkic"] == ["kk", "tr"]
    assert not any(note.startswith(("groups by hand", "left out, in no")) for note in plain.notes)


def test_the_bound_is_never_below_what_is_seen() -> None:
    """Also where what permutations leave is larger than that."""
    planted = {("mnli", "Turkic"): -4.0, ("ccg", "Turkic"): 4.0}
    targets = {"panx": "de fr nl es bn tr kk az", "tatoeba": "de fr nl es bn tr"}
    for seed in range(4):
        found = measured(Frame(targets=targets, main=MAIN, by_family=planted), seed)
        assert found.interaction.upper >= found.interaction.size and found.verdict != hierarchy.CONSISTENT
    still = numpy.full((50, 2, 3), [[[1.0, 0.0, -1.0], [-1.0, 0.0, 1.0]]])
    assert ranks._upper(still, numpy.ones((50, 2)), 0.25, 0) == pytest.approx(0.5)


def test_where_neither_is_shown_it_says_what_would_be_enough() -> None:
    frame = dataclasses.replace(SMALL, main={"mnli": 1.0}, language=1.5, run=0.1, seed=0.1)
    said = [hierarchy.answer(frame.gains(seed), permutations=200, draws=2) for seed in range(6)]
    opened = [answer for answer in said if answer.verdict == hierarchy.OPEN]
    assert all(a.verdict != REFUSED and a.primary is not None and not a.refused for a in said)
    assert all("cannot be told whether" in a.sentence for a in opened)
    assert opened and all("would be enough" in a.sentence or "would show" in a.sentence for a in opened)


def test_published_table_speaks_of_target_tasks_only() -> None:
    answer = hierarchy.published()
    assert answer.primary is not None and answer.primary.n == {
        "intermediate tasks": 7, "targets": 9, "runs of each": 1
    }  # fmt: skip
    table = answer.tables[0].data.set_index("intermediate")
    assert table["mean gain"]["squad_v1"] == pytest.approx(8.3, abs=0.05), "as printed"
    assert answer.robustness is not None and "draws of target tasks" in answer.robustness.text
    assert answer.robustness.n["targets"] == 9 and (answer.robustness.statistic or 0) > 0.7
    assert 0.2 < (answer.robustness.value or 0) <= 1.0 and answer.robustness.p is None
    assert "cannot say" in answer.sentence and any("refused" in note for note in answer.notes)


def test_ranks_over_all_languages_are_the_mean_of_those_of_the_groups() -> None:
    found = measured(dataclasses.replace(SMALL, main=MAIN), 0)
    languages = {
        group: len(set(found.profiles.languages[found.profiles.groups == group])) for group in found.groups
    }
    inside = sum(found.inside(group) * count for group, count in languages.items()) / found.ranks.blocks
    assert sum(languages.values()) == found.ranks.blocks
    numpy.testing.assert_allclose(inside, found.ranks.ranks)


def test_a_difference_of_sizes_is_not_told_as_another_order() -> None:
    found = measured(dataclasses.replace(SMALL, main={"mnli": 9.0, "ccg": -9.0}), 0)
    assert "mnli is first in every one of them" in hierarchy._first(found)
    codes = set(found.profiles.languages[found.profiles.groups == found.interaction.groups[0]])
    mine = numpy.array([code in codes for code in found.ranks.languages])
    turned = numpy.where(mine[:, None], found.ranks.of_language[:, ::-1], found.ranks.of_language)
    other = dataclasses.replace(found, ranks=dataclasses.replace(found.ranks, of_language=turned))
    assert hierarchy._first(other).startswith("First are ")


WEAK = {"panx": "de fr nl es tr kk az fi et hu", "xnli": "de fr es tr"}


def wanting(frame: Frame, draw: int) -> tuple[float, str]:
    found = hierarchy.measure(frame.gains(draw), permutations=200, seed=draw)
    return found.whole.p, hierarchy._apart(found)


def test_what_would_be_enough_is_more_of_what_there_is_too_little_of() -> None:
    """Seeds cannot help where it is languages that differ, and the other way round."""
    spoken = Frame(
        rows=("mnli", "squad_v1", "ccg"), targets=WEAK, main={"mnli": 0.5}, language=2.0, run=0.1, seed=0.1
    )
    runs = dataclasses.replace(spoken, main={"mnli": 1.0}, language=0.1, run=1.0, seed=1.5)
    said = [wanting(spoken, draw) for draw in range(6)]
    unsure = [text for p, text in said if p >= 0.05]
    assert unsure and not any("seeds of these languages" in text for text in unsure)
    said = [wanting(runs, draw) for draw in range(6)]
    unsure = [text for p, text in said if p >= 0.05]
    assert unsure and not any("languages with these seeds" in text for text in unsure)
