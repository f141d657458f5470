"""The transfer table says what was put into a job that never ran."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_up_job import made
from rich.console import Console

from xstilts.errors import StoreError
from xstilts.report import terminal
from xstilts.report.intervals import Interval
from xstilts.report.transfer import Cell, source_language, tidy, transfer
from xstilts.report.verdict import Finding, planted, points, sentence, verdict
from xstilts.tasks import registry

GAINS = {("mnli", "xnli"): 0.12, ("squad_v1", "xnli"): -0.12}


def cell_of(tmp_path: Path, row: str, target: str, **words: object) -> Cell:
    plan, store = made(tmp_path, **words)
    cell = transfer(plan, store, resamples=1000).cell(row, target)
    assert cell is not None
    return cell


def test_finds_what_was_planted_and_nothing_else(tmp_path: Path) -> None:
    plan, store = made(tmp_path, gains=GAINS, planted="mnli -> xnli")
    result = transfer(plan, store, resamples=1000)
    found = {(cell.intermediate, cell.target): verdict(cell).finding for cell in result.compared}
    assert found["mnli", "xnli"] is Finding.HELPED and found["squad_v1", "xnli"] is Finding.HURT
    assert Finding.HELPED not in {finding for key, finding in found.items() if key != ("mnli", "xnli")}
    plant = planted(result)
    assert plant is not None and plant.excludes_zero and "its interval excludes zero" in plant.text
    assert "mnli \u2192 xnli" in sentence(result) and "Of 6 pairs" in sentence(result)


def test_a_gain_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    plan, store = made(tmp_path, targets=("xnli",), planted="mnli -> xnli")
    plant = planted(transfer(plan, store, resamples=500))
    assert plant is not None and not plant.excludes_zero and "does not exclude zero" in plant.text


def test_means_are_zero_shot_and_points_are_means_of_pairs(tmp_path: Path) -> None:
    cell = cell_of(tmp_path, "mnli", "xnli", gains=GAINS)
    by = {line.name: line for line in cell.languages}
    assert cell.source == "en" and cell.zero_shot is not None and cell.main is cell.zero_shot
    assert cell.zero_shot.languages == ("de", "ru", "sw")
    assert cell.zero_shot.gain == pytest.approx(sum((by[code].gain or 0) for code in ("de", "ru", "sw")) / 3)
    assert cell.every.gain == pytest.approx(sum((line.gain or 0) for line in cell.languages) / 4)
    for line in (*cell.languages, cell.main):
        assert line.gain == pytest.approx((line.score or 0) - (line.base or 0))
        assert line.items is not None and line.items.holds(line.gain or 0) and len(line.per_seed) == 3
    assert cell.main.n == 3 * 240 and cell.main.seeds is not None and cell.main.spread is not None


def test_the_mean_is_surer_than_any_language(tmp_path: Path) -> None:
    cell = cell_of(tmp_path, "mnli", "panx", gains=GAINS)
    assert all(_width(cell.every.items) < _width(line.items) for line in cell.languages)


def _width(interval: Interval | None) -> float:
    assert interval is not None
    return interval.high - interval.low


def test_retrieval_has_no_source_language_and_one_run_of_none(tmp_path: Path) -> None:
    cell = cell_of(tmp_path, "mnli", "tatoeba")
    assert cell.source == "" and cell.zero_shot is not None
    assert cell.zero_shot.languages == cell.every.languages == ("de", "ru", "sw")
    assert cell.chance == pytest.approx(100 / 240)


def test_source_languages() -> None:
    assert source_language(registry.task("xnli")) == "en"
    worlds = [task for task in registry.all_tasks() if task.name.startswith("world_")]
    assert {source_language(task) for task in worlds if task.train} == {"w0"}
    assert {source_language(task) for task in worlds if not task.train} <= {"", "w0"}


def test_untrained_is_beside_and_not_compared(tmp_path: Path) -> None:
    plan, store = made(tmp_path, gains=GAINS)
    result = transfer(plan, store, resamples=200)
    assert result.intermediates == ("mnli", "squad_v1")
    assert not {cell.intermediate for cell in result.compared} & {"none", "untrained"}
    beside = result.cell("untrained", "xnli")
    assert beside is not None and beside.near_chance(beside.main)


def test_near_chance_is_said(tmp_path: Path) -> None:
    gains = {(row, "xnli"): -0.25 for row in ("none", "mnli")}
    cell = cell_of(tmp_path, "mnli", "xnli", gains=gains, intermediates=("none", "mnli"))
    said = verdict(cell)
    assert said.finding is Finding.NEAR_CHANCE and "guessing 33.3" in said.text


def test_collapsed_and_missing_runs_are_counted(tmp_path: Path) -> None:
    cell = cell_of(
        tmp_path,
        "mnli",
        "xnli",
        gains=GAINS,
        collapsed=("train-mnli-s2", "train-xnli-s1"),
        unfinished=("score-xnli-s3-after-mnli-s3",),
        dropped=(("score-xnli-s1-after-mnli-s1", "sw"),),
    )
    assert (cell.collapsed, cell.base_collapsed) == (1, 1)
    assert cell.missing == ("seed 1 in sw", "seed 3") and cell.seeds == (1, 2)
    text = verdict(cell).text
    assert "collapsed runs: 1 here, 1 of `none`" in text and "incomplete, lacks seed 1 in sw, seed 3" in text


def test_seeds_that_differ_make_a_gain_unsure(tmp_path: Path) -> None:
    cell = cell_of(tmp_path, "mnli", "xnli", gains={("mnli", "xnli"): 0.08}, seed_noise=0.08)
    assert cell.main.side == 1 and cell.main.seeds is not None and cell.main.seeds.side == 0
    assert verdict(cell).finding is Finding.UNSURE


def test_one_seed_gets_no_interval_over_seeds(tmp_path: Path) -> None:
    cell = cell_of(tmp_path, "mnli", "xnli", gains=GAINS, seeds=(1,))
    assert cell.main.seeds is None and cell.main.spread is None
    assert "1 seed" in verdict(cell).text


def test_nothing_scored_yet_is_a_report_too(tmp_path: Path) -> None:
    plan, store = made(tmp_path)
    plan["steps"] = [{**step, "key": None} for step in plan["steps"]]
    result = transfer(plan, store, resamples=200)
    assert "No intermediate task has been compared" in sentence(result)
    assert {verdict(cell).finding for cell in result.compared} == {Finding.NOTHING}
    Console(width=100, quiet=True).print(terminal.summary(result))


def test_without_a_row_none_there_is_no_gain(tmp_path: Path) -> None:
    cell = cell_of(tmp_path, "mnli", "xnli", intermediates=("mnli",))
    assert cell.main.gain is None and cell.main.score is not None
    assert verdict(cell).text == "no run of `none` to compare with"


def test_rows_scored_on_other_items_are_refused(tmp_path: Path) -> None:
    plan, store = made(tmp_path, targets=("xnli",), seeds=(1,))
    other, _ = "score-xnli-s1-after-mnli-s1", made(tmp_path / "b", targets=("xnli",), seeds=(1,), items=90)
    place = "steps/{}--0000000000000000/runs/a1/items/en.parquet"
    store.put(place.format(other), _[1].read(place.format(other)) or b"")
    with pytest.raises(StoreError, match="other en items"):
        transfer(plan, store)


def test_every_table_says_what_it_is_of(tmp_path: Path) -> None:
    plan, store = made(tmp_path, gains=GAINS, planted="mnli -> xnli")
    result = transfer(plan, store, resamples=200)
    console = Console(width=150, record=True, quiet=True)
    with console.capture() as shown:
        console.quiet = False
        console.print(terminal.summary(result))
    text = shown.get()
    for word in ("made_up", "split test", "seeds 1 2 3", "source_dev", "abc1234", "n 720"):
        assert word in text
    assert "planted gain" in text and "untrained" in text
    table = tidy(result)
    assert len(table) == 4 * (6 + 6 + 5) and not table[["gain", "score"]].isna().all(axis=1).any()
    assert set(table.language) == {"zero_shot", "all", "en", "de", "ru", "sw"}


def test_points_have_a_sign_and_no_negative_zero() -> None:
    assert [points(value) for value in (1.25, -0.04, -3.0, None)] == ["+1.2", "0.0", "\u22123.0", "\u2013"]
