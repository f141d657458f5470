"""The data-scaling study: planted interactions and curves come back, none are made up, refusals."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy
import pandas
import pytest
from scaling_frames import SHARES, scaled
from scipy import stats
from study_frames import Frame

from xstilts.errors import XstiltsError
from xstilts.report.studies import curves, data_scaling
from xstilts.report.studies.answer import TooLittle
from xstilts.tasks import languages


def p_of(seed: int, **words: Any) -> float:
    gains, fractions = scaled(seed, **words)
    table, _ = data_scaling._sized(gains, fractions)
    return p_in(table)


def p_in(table: pandas.DataFrame) -> float:
    name, level = data_scaling._levels(table)
    test, said = data_scaling._interaction(data_scaling._within_runs(table, level), name, 0)
    assert not said, "Powell's method is there for what gradients cannot do"
    return test.p if test.p is not None else 1.0


WIDE = {
    "xnli": "ar bg de el es fr hi ru sw th tr ur vi zh",
    "panx": "ar he vi id jv ms tl eu ml ta te af nl de el bn hi mr ur fa fr it pt es bg ru ja ka ko th sw my",
    "tydiqa": "ar bn fi id ko ru sw te",
}
"""Targets of which one alone is read in most of the languages that have little text."""


def several(seed: int, slopes: dict[str, float], tilt: float = 0.0) -> pandas.DataFrame:
    """Gains by share with `slopes` of targets per doubling, and `tilt` of log10 GiB more in all of them."""
    random = numpy.random.default_rng([seed, 2])
    spoken = sorted({code for words in WIDE.values() for code in words.split()})
    own = dict(zip(spoken, random.normal(0, 0.1, len(spoken)), strict=True))
    rows = []
    for share, run in itertools.product((1 / 64, 1 / 16, 1 / 4, 1.0), (1, 2, 3)):
        size = numpy.log2(share)
        for target, words in WIDE.items():
            luck = random.normal(0, 0.5)
            for code in words.split():
                more = tilt * numpy.log10(languages.of(code).cc100_gib or 1)
                gain = (slopes[target] + own[code] + more) * size + luck + random.normal(0, 0.5)
                rows.append(("mnli", target, code, share, run, gain))
    return pandas.DataFrame(rows, columns=["intermediate", "target", "language", "share", "seed", "gain"])


def test_a_target_in_poorer_languages_that_grows_faster_is_no_interaction() -> None:
    """Averaged over targets first, 31 of 40 such frames were called one."""
    found = sum(p_in(several(seed, {"xnli": 0.0, "panx": 1.0, "tydiqa": 0.0})) < 0.05 for seed in range(20))
    assert found <= 4  # of 20 at 5 %, five or more come in 0.3 %


def test_an_interaction_in_all_targets_is_found_whatever_their_slopes() -> None:
    slopes = {"xnli": 0.0, "panx": 1.0, "tydiqa": 0.5}
    assert all(p_in(several(seed, slopes, tilt=0.3)) < 0.05 for seed in range(5))


@pytest.mark.parametrize("wobble", [0.0, 0.5], ids=["languages alike", "languages and runs differ"])
def test_no_interaction_is_found_where_none_is_planted(wobble: float) -> None:
    times = 25
    found = sum(
        p_of(seed, rule=lambda share, _: 4 + numpy.log2(share) / 2, slope=wobble, tilt=wobble) < 0.05
        for seed in range(times)
    )
    assert found <= stats.binom.ppf(0.999, times, 0.05)


def test_a_planted_interaction_comes_back() -> None:
    gains, fractions = scaled(1, lambda share, level: 5 + 0.8 * numpy.log2(share) * (level - 1.5), slope=0.1)
    found = data_scaling.answer(gains, fractions=fractions)
    assert found.verdict == "differs with resources" and found.primary is not None
    assert found.primary.interval is not None and found.primary.interval.holds(0.8)
    for said in (found.sentence, found.primary.text, " ".join(found.notes)):
        assert "these subsets" in said, "all seeds of a share have the same rows"
    assert (found.primary.p or 1) < 0.01 and "log10 CC-100 GiB" in found.sentence
    assert found.robustness is not None and found.robustness.interval is not None
    assert found.robustness.interval.low > 0 and found.robustness.p is None
    assert found.to_json() and all(figure.chart.to_dict() for figure in found.figures)
    assert set(found.tables[0].data.tier) == {"all", "very high", "high", "medium"}


def test_a_saturating_curve_is_told_from_the_simpler_rules() -> None:
    shares = tuple(2.0**-k for k in range(6, -1, -1))
    gains, fractions = scaled(
        2,
        lambda share, _: 8 - 6 * (share / shares[0]) ** -1.0,
        shares=shares,
        slope=0.0,
        tilt=0.0,
        seeds=(1, 2, 3),
    )
    row = data_scaling.answer(gains, fractions=fractions).tables[0].data.set_index("tier").loc["all"]
    assert row.rule == curves.POWER and row.a == pytest.approx(8, abs=1.0)
    assert row.low < 7.9 < row.high
    assert row["AICc power law"] < min(row["AICc constant"], row["AICc log-linear"])


def test_rules_that_are_planted_are_chosen() -> None:
    shares = numpy.repeat(2.0 ** -numpy.arange(6.0, -1.0, -1.0), 3)
    planted = {
        curves.CONSTANT: numpy.full(len(shares), 3.0),
        curves.LOG: 3.0 + 1.5 * numpy.log2(shares),
        curves.POWER: 6.0 - 5.0 * (shares * 64) ** -0.8,
    }
    random, times = numpy.random.default_rng(1), 50
    for rule, truth in planted.items():
        noisy = (truth + random.normal(0, 0.3, len(shares)) for _ in range(times))
        right = sum(curves.fit(shares, gains).best == rule for gains in noisy)
        assert right >= 0.7 * times, f"{rule}: AIC takes one parameter too many in 16 % of cases"
    found = curves.fit(shares, planted[curves.POWER] + random.normal(0, 0.1, len(shares)))
    assert (found.a, found.b, found.c) == pytest.approx((6.0, 5.0, 0.8), abs=0.35) and not found.at_bound


def test_bands_hold_what_was_planted_as_often_as_they_say() -> None:
    shares, random = 2.0 ** -numpy.arange(4.0, -1.0, -1.0), numpy.random.default_rng(2)
    truth = 6.0 - 5.0 * (shares * 16) ** -0.8
    times, held = 200, 0
    for _ in range(times):
        mean = truth + random.normal(0, 0.3, len(shares))
        low, high = curves.band(
            curves.POWER, shares, mean + random.normal(0, 0.3, (300, len(shares))), shares
        )
        held += bool(low[-1] <= truth[-1] <= high[-1])
    assert held >= stats.binom.ppf(0.001, times, 0.9)


def test_three_points_carry_no_power_law() -> None:
    found = curves.fit(numpy.array([0.1, 0.5, 1.0]), numpy.array([1.0, 2.0, 2.5]))
    assert found.best in (curves.CONSTANT, curves.LOG) and numpy.isnan(found.aicc[curves.POWER])


def test_too_little_is_refused_with_what_is_missing() -> None:
    gains, fractions = scaled(1, shares=SHARES[:2])
    with pytest.raises(TooLittle, match="2 fractions.*four fractions or more"):
        data_scaling.answer(gains, fractions=fractions)
    with pytest.raises(TooLittle, match="0 fractions"):
        data_scaling.answer(Frame().gains(1))
    gains, fractions = scaled(1, spoken="de fr ru")
    with pytest.raises(TooLittle, match="3 languages of known resources"):
        data_scaling.answer(gains, fractions=fractions)
    for seeds, said in (((1,), "1 seed scored"), ((1, 2), "2 seeds scored")):
        gains, fractions = scaled(1, seeds=seeds)
        with pytest.raises(TooLittle, match=f"{said}.*3 seeds of every fraction"):
            data_scaling.answer(gains, fractions=fractions)
    with pytest.raises(TooLittle, match="no published table"):
        data_scaling.published()


def test_the_same_share_twice_is_no_second_measurement() -> None:
    gains, fractions = scaled(1)
    with pytest.raises(XstiltsError, match="measured twice with one share"):
        data_scaling.answer(
            gains, fractions={key: max(share, 1 / 16) for key, share in fractions.items()} | {}
        )


def test_what_lacks_a_share_is_left_out_and_said() -> None:
    gains, fractions = scaled(1)
    lacking = gains.table[~((gains.table.job == "share-0") & (gains.table.language == "sw"))]
    found = data_scaling.answer(type(gains)(lacking, gains.scores), fractions=fractions)
    assert any("not scored with every share" in note for note in found.notes)


def test_shares_are_read_from_plans() -> None:
    mixed = {"mix": ["mnli", "ccg"], "name": "both"}
    train = {"intermediate": {"fraction": 0.25, "subset_seed": 3, "tasks": {"ccg": {"fraction": 0.5}}}}
    plan = {"job": "quarter", "experiment": {"intermediate": ["none", "mnli", "ccg", mixed], "train": train}}
    found = data_scaling.options([plan, {"job": "whole", "experiment": {"intermediate": ["mnli"]}}])
    assert found["fractions"] == {("quarter", "mnli"): 0.25, ("quarter", "ccg"): 0.5, ("whole", "mnli"): 1.0}
    assert found["nested"], "the one subset seed is 3 throughout"
    other = {
        "job": "other",
        "experiment": {"intermediate": ["mnli"], "train": {"intermediate": {"fraction": 0.5}}},
    }
    assert not data_scaling.options([plan, other])["nested"]


def test_in_a_generated_world_distance_takes_the_place_of_resources() -> None:
    gains, fractions = scaled(3, lambda share, level: 10 + numpy.log2(share), spoken="ar bg de el es fr")
    codes = dict(zip("ar bg de el es fr".split(), "w1 w2 w3 w4 w5 v1".split(), strict=True))
    table = gains.table[gains.table.language.isin(list(codes))]
    table = table.assign(language=table.language.map(codes), tier="")
    found = data_scaling.answer(dataclasses.replace(gains, table=table), fractions=fractions)
    assert list(found.tables[0].data.tier) == ["all", "near", "far"] and found.facts["level"] == "distance"
    assert list(found.tables[0].data.languages) == [6, 3, 3]
    assert "by construction" in found.notes[-1] and "depends on distance" in found.sentence
