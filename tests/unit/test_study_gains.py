"""Gains of frames: paired by seed, zero-shot marked, shared steps once; and contrasts of redrawn cells."""

from __future__ import annotations

from pathlib import Path

import numpy
import pandas
import pytest
from made_up_job import made
from scipy import stats
from study_frames import Frame

from xstilts.errors import XstiltsError
from xstilts.report import frame
from xstilts.report.studies import gains
from xstilts.report.studies.answer import TooLittle
from xstilts.report.studies.crossed import redraw
from xstilts.report.transfer import transfer


def test_gains_are_those_of_the_transfer_table(tmp_path: Path) -> None:
    plan, store = made(tmp_path, gains={("mnli", "xnli"): 0.12})
    known = frame.records(plan, store)
    table = frame.frame(plan, store, known)
    draws = gains.item_draws(plan, table, frame.items(plan, store, tmp_path, known), 1000)
    found = gains.of_frame(table, "abc", draws)
    result = transfer(plan, store, resamples=1000)
    for cell in result.compared:
        mine = found.zero_shot[
            (found.zero_shot.intermediate == cell.intermediate) & (found.zero_shot.target == cell.target)
        ]
        assert mine.gain.mean() == pytest.approx(cell.main.gain)
        spoken = sorted(set(mine.language))
        assert found.interval([cell.intermediate], cell.target, spoken) == cell.main.items
    assert list(found.table.columns) == gains.COLUMNS and list(found.scores.columns) == gains.SCORES
    assert "untrained" not in set(found.table.intermediate) and "untrained" in set(found.scores.intermediate)


def test_simulated_gains_are_those_of_the_simulated_frame() -> None:
    made_up = Frame(missing=(("ccg", "panx", 1),))
    fast, slow = made_up.gains(3), gains.of_frame(made_up.draw(3), "abc1234")
    for name in ("table", "scores"):
        pandas.testing.assert_frame_equal(getattr(fast, name), getattr(slow, name))
    assert fast.unscored == slow.unscored


def test_the_source_language_is_marked_and_gaps_are_of_one_run() -> None:
    table = Frame().gains(1).table
    xnli = table[table.target == "xnli"]
    assert set(xnli[~xnli.zero_shot].language) == {"en"} and (xnli[xnli.language == "en"].gap == 0).all()
    english = xnli[xnli.language == "en"].set_index(["intermediate", "seed"]).score
    for row in xnli[xnli.language == "sw"].itertuples():
        assert row.gap == pytest.approx(english[row.intermediate, row.seed] - row.score)
    assert table[table.target == "tatoeba"].gap.isna().all(), "retrieval has no source language"
    assert set(table[table.language == "jv"].tier) == {"low"}


def test_shared_steps_count_once_and_other_settings_are_refused() -> None:
    one = Frame().draw(1)
    twice = pandas.concat([one, one.assign(job="again")], ignore_index=True)
    assert len(gains.of_frame(twice).single().table) == len(gains.of_frame(one).table)
    other = pandas.concat([one, one.assign(job="again", key=one.key + "-b")], ignore_index=True)
    with pytest.raises(XstiltsError, match="several settings"):
        gains.of_frame(other).single()
    with pytest.raises(XstiltsError, match="several models"):
        gains.of_frame(pandas.concat([one, one.assign(model="big", job="b")])).single()
    with pytest.raises(XstiltsError, match="lacks value"):
        gains.of_frame(one.drop(columns="value"))


def test_what_has_no_base_has_no_gain() -> None:
    table = Frame().draw(1)
    found = gains.of_frame(table[(table.intermediate != "none") | (table.seed != 2)])
    assert set(found.table.seed) == {1, 3} and found.unpaired == len(found.table) / 2
    with pytest.raises(TooLittle, match="none"):
        gains.of_frame(table[table.intermediate != "none"]).single()


def test_the_caption_says_what_must_be_said() -> None:
    frame_ = Frame(collapsed=(("mnli", "xnli", 2),), missing=(("ccg", "panx", 1),))
    said = frame_.gains(1).caption()
    for words in ("seeds 1, 2, 3", "split test", "commit abc1234", "collapsed runs 1 (kept)", "4 targets"):
        assert words in said
    assert "not scored yet 16" in said and "selection source_dev" in said
    fallen = Frame(collapsed=(("mnli", "xnli", 2), ("none", "xnli", 1))).gains(1)
    assert "collapsed runs 1 and 1 of none (kept)" in fallen.caption()


def test_a_caption_is_of_what_was_analysed() -> None:
    frame_ = Frame(collapsed=(("mnli", "xnli", 2), ("none", "xnli", 1), ("ccg", "panx", 3)))
    found = frame_.gains(1)
    table = found.zero_shot
    used = table[(table.target == "xnli") & (table.intermediate == "mnli") & (table.seed < 3)]
    said = found.caption(used)
    assert f"n 1 intermediate task \u00d7 1 target \u00d7 {used.language.nunique()} languages" in said
    assert "seeds 1, 2 " in said and "collapsed runs 1 and 1 of none (kept)" in said
    alone = found.caption(table[(table.target == "panx") & (table.intermediate == "mnli")])
    assert "collapsed runs 0" in alone, "that of another row is not behind these gains"
    base = gains.of_frame(frame_.draw(1).query("intermediate == 'none'"))
    assert "n 0 intermediate tasks" in base.caption()


def _made(generator: numpy.random.Generator, languages: float, seeds: float, noise: float) -> numpy.ndarray:
    """(2 cells, 24 languages, 4 seeds): 12 languages in each cell; effects of language and seed."""
    values = generator.normal(0, languages, (24, 1)) + generator.normal(0, noise, (24, 4))
    cells = numpy.full((2, 24, 4), numpy.nan)
    cells[0, :12], cells[1, 12:] = values[:12], values[12:] + generator.normal(0, seeds, (1, 4))
    return cells


@pytest.mark.parametrize("spread", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.5, 1.0)])
def test_errors_are_those_of_other_draws(spread: tuple[float, float, float]) -> None:
    generator = numpy.random.default_rng(5)
    strata = numpy.repeat([0, 1], 12)
    found = [
        redraw(_made(generator, *spread), numpy.arange(24), strata, draws=400).contrast([-1.0, 1.0])
        for _ in range(300)
    ]
    values = numpy.array([one.value for one in found])
    squares = numpy.array([one.error**2 for one in found])
    # Noise alone is overstated: it is in languages and in seeds, and the larger of two guesses is taken.
    assert 0.8 < squares.mean() / values.var() < 1.6
    outside = sum(not one.interval.holds(0.0) for one in found)
    assert outside <= 29, "more than 5 % of 300, by a binomial bound of 0.1 %"


@pytest.mark.parametrize("spoken", [3, 4])
def test_a_cell_of_few_languages_counts_as_few(spoken: int) -> None:
    """Among twenty others: with the degrees of freedom of the whole stratum 82 % of "95 %" intervals held."""
    generator = numpy.random.default_rng(2)
    strata, held = numpy.zeros(20, dtype=int), 0
    for _ in range(300):
        values = numpy.full((2, 20, 3), numpy.nan)
        values[0, :spoken] = generator.normal(0, 1, (spoken, 1)) + generator.normal(0, 0.1, (spoken, 3))
        values[1, spoken:] = generator.normal(0, 1, (20 - spoken, 1))
        found = redraw(values, numpy.arange(20), strata, draws=200).contrast([1.0, 0.0])
        held += found.interval.holds(0.0)
    assert held >= stats.binom.ppf(0.001, 300, 0.95), held / 300


def test_two_languages_have_no_interval() -> None:
    values = numpy.full((2, 9, 3), numpy.nan)
    values[0, :2], values[1] = 1.0, numpy.random.default_rng(1).normal(size=(9, 3))
    again = redraw(values, numpy.arange(9), numpy.zeros(9, dtype=int), draws=100)
    for weights in ([1.0, 0.0], [1.0, -1.0]):
        found = again.contrast(weights)
        assert numpy.isnan([found.error, found.interval.low, found.below(0.0)]).all()
        assert not numpy.isnan(found.value)
    assert again.contrast([0.0, 1.0]).error > 0, "the other cell alone has one"


def test_three_seeds_are_three_beside_many_clusters() -> None:
    """Degrees of freedom are of the variance itself, not of the sum of its overlapping parts."""
    generator, alarms = numpy.random.default_rng(4), 0
    for _ in range(200):
        values = generator.normal(0, 1, (1, 1, 3)) + generator.normal(0, 20, (1, 150, 3))
        found = redraw(values, numpy.arange(150), numpy.zeros(150, dtype=int), draws=200).contrast([1.0])
        alarms += not found.interval.holds(0.0)
    assert alarms <= stats.binom.ppf(0.999, 200, 0.05)


def test_a_relative_is_not_another_language() -> None:
    generator = numpy.random.default_rng(3)
    kin = numpy.repeat(numpy.arange(4), 3)
    values = (generator.normal(0, 1, 4)[kin] + generator.normal(0, 0.1, 12))[None, :, None] + numpy.zeros(3)
    nothing = numpy.zeros(12, dtype=int)
    alone = redraw(values, numpy.arange(12), nothing, draws=500).contrast([1.0])
    related = redraw(values, kin, nothing, draws=500).contrast([1.0])
    assert related.error > 1.5 * alone.error and related.df == pytest.approx(3, abs=0.2)
