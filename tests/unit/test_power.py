"""Seeds needed for a gain: as often shown as promised, and refused where there is no spread to measure."""

from __future__ import annotations

import json
import math

import numpy
import pandas
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower
from study_frames import Frame
from typer.testing import CliRunner

from xstilts.cli.main import app
from xstilts.errors import XstiltsError
from xstilts.report.studies import power
from xstilts.report.studies.answer import TooLittle


@pytest.mark.parametrize(("sd", "gain"), [(1.0, 1.0), (1.5, 1.0), (0.4, 1.0), (2.0, -3.0)])
def test_so_many_seeds_show_the_gain_as_often_as_promised(sd: float, gain: float) -> None:
    seeds = power.seeds_needed(sd, gain) or 0
    drawn = numpy.random.default_rng(3).normal(gain, sd, (20_000, seeds))
    t = drawn.mean(axis=1) / drawn.std(axis=1, ddof=1) * math.sqrt(seeds)
    often = (abs(t) > stats.t.ppf(0.975, seeds - 1)).mean()
    assert often == pytest.approx(power.shown(sd, gain, seeds), abs=0.01) and often >= 0.79
    assert seeds == 3 or power.shown(sd, gain, seeds - 1) < 0.8


def test_power_is_statsmodels_own_where_that_is_a_number() -> None:
    for effect, seeds in ((0.2, 10), (0.5, 30), (1.0, 5), (2.0, 8)):
        theirs = TTestPower().power(effect, seeds, 0.05, alternative="two-sided")
        assert power.shown(1.0, effect, seeds) == pytest.approx(theirs, abs=1e-9)
    every = [power.shown(1.0, effect, n) for effect in (0.1, 1, 5, 40) for n in (2, 3, 10, 300, 10_000)]
    assert all(0.0 <= each <= 1.0 for each in every)


def test_the_bound_of_a_measured_spread_holds_as_often_as_it_says() -> None:
    drawn = numpy.random.default_rng(4).normal(0, 1.0, (5_000, 3)).std(axis=1, ddof=1)
    held = numpy.mean([power.upper(sd, 3) >= 1.0 for sd in drawn])
    assert held == pytest.approx(0.9, abs=0.015)


@pytest.mark.parametrize("shared", [0.0, 0.9], ids=["pairs apart", "pairs share `none`"])
def test_the_bound_over_pairs_that_share_runs_holds_as_often_as_it_says(shared: float) -> None:
    random, times, seeds = numpy.random.default_rng(5), 2_000, 3
    held = 0
    for _ in range(times):
        runs = math.sqrt(1 - shared) * random.normal(size=(16, seeds)) + math.sqrt(shared) * random.normal(
            size=seeds
        )
        made = pandas.DataFrame({"sd": runs.std(axis=1, ddof=1), "seeds": seeds})
        held += power.pooled(made)[1] >= 1.0
    assert held / times >= 0.88


def test_the_bound_over_pairs_of_unlike_seeds_is_between_theirs() -> None:
    made = pandas.DataFrame({"sd": [1.0, 1.0], "seeds": [2, 5]})
    assert power.upper(1.0, 5) < power.pooled(made)[1] < power.upper(1.0, 2)


def test_a_job_says_it_pair_by_pair() -> None:
    need = power.of_gains(Frame(seeds=(1, 2, 3, 4, 5)).gains(1), gain=1.0)
    assert list(need.table.columns) == power.COLUMNS and len(need.table) == 16
    assert (need.table["sd at most"] > need.table.sd).all() and (need.table.needed >= 3).all()
    assert "A gain of 1 points needs" in need.sentence


def test_one_seed_has_no_spread() -> None:
    with pytest.raises(TooLittle, match="no pair of tasks has two seeds"):
        power.of_gains(Frame(seeds=(1,)).gains(1), gain=1.0)
    half = Frame(seeds=(1, 2), missing=tuple(("none", target, 2) for target in Frame().targets))
    with pytest.raises(TooLittle, match="62 scores are still missing: .*`xstilts run JOB` makes.*two seeds"):
        power.of_gains(half.gains(1), gain=1.0)


@pytest.mark.parametrize(
    "words", [{"gain": 0.0}, {"sd": -1.0}, {"power": 1.0}, {"alpha": 0.0}, {"sd": math.nan}]
)
def test_numbers_that_cannot_be_are_refused(words: dict[str, float]) -> None:
    with pytest.raises(XstiltsError):
        power.seeds_needed(**({"sd": 1.0, "gain": 1.0} | words))


def test_the_command() -> None:
    told = json.loads(CliRunner().invoke(app, ["power", "--sd", "1.5", "--gain", "1", "--json"]).stdout)
    assert told["rows"][0]["needed"] == 20
    assert isinstance(CliRunner().invoke(app, ["power", "--gain", "1"]).exception, XstiltsError)
