"""Ranking intermediate tasks by measures: judged by hand on small grids, refused where tasks are too few."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path
from typing import Any

import numpy
import pandas
import pytest
from made_up_job import made, opens
from study_frames import Frame
from typer.testing import CliRunner

from xstilts.cli.main import app
from xstilts.errors import UnknownName, XstiltsError
from xstilts.report import measures
from xstilts.report.studies import ranking
from xstilts.report.studies.answer import TooLittle, refusal
from xstilts.report.studies.gains import Gains, of_frame
from xstilts.report.studies.ranking import OTHERS, RANDOM, Grid

ROWS = ("mnli", "squad_v1", "hellaswag", "ccg", "qqp", "siqa")
PLANTED = {"mnli": 6.0, "squad_v1": 4.0, "hellaswag": 2.0, "ccg": 0.0, "qqp": -2.0, "siqa": -4.0}
TARGETS = {"xnli": "de fr ru en", "panx": "de fr ru", "udpos": "de fr ru"}


def grid(gained: Any, values: Any, base: float = 50.0) -> Grid:
    gained = numpy.asarray(gained, float)
    names = tuple(f"task{i}" for i in range(len(gained)))
    targets = tuple(f"target{i}" for i in range(gained.shape[1]))
    found = {"logme": numpy.asarray(values, float)}
    return Grid(names, targets, gained, base + gained, found, seeds=1)


def simulated(seed: int = 1, **changed: Any) -> Gains:
    words: dict[str, Any] = {"rows": ROWS, "targets": TARGETS, "main": PLANTED, **changed}
    return of_frame(Frame(**words).draw(seed))


def measured(values: Any, *names: str, targets: Any = tuple(TARGETS)) -> pandas.DataFrame:
    """A table of measures: `values(row, target)` of every pair."""
    rows = [
        {"model": model, "intermediate": row, "target": target, "language": "", "measure": name,
         "layer": 2, "value": values(row, target), "n": 9, "seed": None, "key": ""}
        for model in set(simulated().table.model) for name in names for row in ("none", *ROWS)
        for target in targets
    ]  # fmt: skip
    return pandas.DataFrame(rows)


def planted(row: str, target: str) -> float:
    return PLANTED.get(row, 99.0)


def test_judged_by_hand() -> None:
    # Best tasks: 0 and 2. Ranked 1 0 2 3 on the first target and 2 0 1 3 on the second.
    made = grid([[10, 0], [8, 4], [0, 6], [5, 1]], [[2, 2], [3, 1], [1, 3], [0, 0]])
    found = ranking.judge(made, made.values["logme"])
    assert found.regret_1 == pytest.approx((100 * 2 / 60 + 0) / 2)
    assert found.points == pytest.approx((2 + 0) / 2) and found.right == 0.5
    assert found.regret_3 == 0
    d = 1 / numpy.log2([2, 3, 4, 5])
    first = (0.8 * d[0] + 1.0 * d[1] + 0 * d[2] + 0.5 * d[3]) / (1 * d[0] + 0.8 * d[1] + 0.5 * d[2])
    second = (1 * d[0] + 0 * d[1] + 4 / 6 * d[2] + 1 / 6 * d[3]) / (d[0] + 4 / 6 * d[1] + 1 / 6 * d[2])
    assert found.ndcg == pytest.approx((first + second) / 2)


def test_blind_choices_by_all_rankings() -> None:
    rng = numpy.random.default_rng(3)
    made = grid(rng.normal(0, 3, (5, 2)), rng.normal(0, 1, (5, 2)))
    every = [numpy.array(one) for one in permutations(range(5))]
    judged = [ranking.judge(made, one[:, None] * numpy.ones((1, 2))) for one in every]
    blind = ranking.at_random(made)
    for name in ("regret_1", "regret_3", "points", "ndcg", "right"):
        assert getattr(blind, name) == pytest.approx(numpy.mean([getattr(one, name) for one in judged])), name


def test_the_others_never_see_their_own_target() -> None:
    gained = numpy.array([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]])
    assert ranking.elsewhere(gained) == pytest.approx(numpy.array([[4.0, 3.5, 1.5], [3.0, 3.0, 3.0]]))


def test_p_is_the_share_of_relabellings() -> None:
    rng = numpy.random.default_rng(5)
    made = grid(rng.normal(0, 3, (5, 3)), rng.normal(0, 1, (5, 3)))
    own = ranking.judge(made, made.values["logme"])
    again = [ranking.judge(made, made.values["logme"][list(one)]) for one in permutations(range(5))]
    regret, quality, ways = ranking.relabelled(made, made.values["logme"], 0)
    assert ways == 120
    assert regret == pytest.approx(numpy.mean([one.regret_1 <= own.regret_1 + 1e-9 for one in again]))
    assert quality == pytest.approx(numpy.mean([one.ndcg >= own.ndcg - 1e-9 for one in again]))


def test_many_tasks_are_relabelled_by_chance_and_the_true_labels_count() -> None:
    values = numpy.arange(9.0)[:, None] * numpy.ones((1, 3))
    regret, quality, ways = ranking.relabelled(grid(values, values), values, 0)
    # The best first in 1 of 9; the whole order in 1 of 362,880, which is met once, as it is.
    assert ways == 10_000 and regret == pytest.approx(1 / 9, abs=0.02) and 0 < quality < 0.001


def test_a_measure_that_knows_is_found() -> None:
    found = ranking.answer(simulated(), measures=measured(planted, "logme", "text_embedding"))
    assert found.verdict == ranking.RANKS and found.primary is not None
    assert found.primary.p is not None and found.primary.p < 0.01 and found.robustness is not None
    assert found.robustness.p == pytest.approx(1 / 6), "one task is chosen for all targets"
    main = found.tables[0].data.set_index("ranked by")
    assert main.loc["logme", "regret@1 %"] == pytest.approx(0, abs=0.5)
    assert main.loc[RANDOM, "regret@1 %"] > 3 and main.loc[OTHERS, "regret@1 %"] < 1
    assert "logme" in found.sentence and found.caption and found.figures
    assert found.to_json()["primary"]["n"]["targets"] == 3


def test_what_is_saved() -> None:
    made = grid(numpy.eye(5, 3), numpy.eye(5, 3))
    made.values["text_embedding"] = numpy.eye(5, 3)
    # 5 intermediate trainings and 15 of targets; logme needs all 5, text embeddings those of its three picks.
    assert ranking.saved(made, "logme", 1, (1.0, 1.0)) == pytest.approx(100 * (1 - (5 + 3) / 20))
    assert ranking.saved(made, "text_embedding", 1, (1.0, 1.0)) == pytest.approx(100 * (1 - (3 + 3) / 20))
    assert ranking.saved(made, "logme", 3, (10.0, 1.0)) == pytest.approx(100 * (1 - (50 + 9) / 65))


def test_measures_with_holes_are_named_and_not_judged() -> None:
    table = measured(planted, "logme", "few_shot_64")
    table = table[~((table.measure == "few_shot_64") & (table.target == "udpos"))]
    found = ranking.answer(simulated(), measures=table)
    assert "few_shot_64" not in set(found.tables[0].data["ranked by"])
    assert any("few_shot_64 is not judged: 6 of 18" in note for note in found.notes)


def test_targets_without_the_measure_are_named() -> None:
    targets = {**TARGETS, "tatoeba": "de fr ru"}
    found = ranking.answer(simulated(targets=targets), measures=measured(planted, "logme"))
    assert found.facts["targets"] == ["xnli", "panx", "udpos"]
    assert "targets left out, without the measure: tatoeba" in found.notes


@pytest.mark.parametrize(
    ("changed", "table", "said"),
    [
        ({}, None, "no measures were given"),
        ({"rows": ROWS[:4]}, measured(planted, "logme"), "4 intermediate tasks and 3 targets"),
        ({}, measured(planted, "logme", targets=("xnli", "panx")), "6 intermediate tasks and 2 targets"),
    ],
)
def test_too_few_are_refused(changed: dict[str, Any], table: Any, said: str) -> None:
    with pytest.raises(TooLittle, match=said) as caught:
        ranking.answer(simulated(**changed), measures=table)
    told = refusal("select", ranking.QUESTION, caught.value)
    assert told.primary is None and "5 intermediate tasks and 3" in told.refused


def test_published_tables_are_refused() -> None:
    with pytest.raises(TooLittle, match="no measures of encoders"):
        ranking.published()


def test_the_command_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`xstilts study select` on a made-up job; its probe steps' measures are made up too."""
    gained = {(row, target): PLANTED[row] / 40 for row in ROWS for target in ("xnli", "panx", "tatoeba")}
    plan, store = made(tmp_path, intermediates=("none", *ROWS), gains=gained, seeds=(1, 2))
    table = measured(planted, "logme", targets=("xnli", "panx", "tatoeba")).assign(model=plan["model"])
    asked: list[str] = []

    def read(of: dict[str, Any], *_: Any) -> pandas.DataFrame:
        asked.append(of["job"])
        return table

    opens(monkeypatch, plan, store)
    monkeypatch.setattr(measures, "measures", read)
    words = ["study", "select", "job.yaml", "--set", "by=logme", "--to", str(tmp_path / "out")]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 0 and asked == [plan["job"]], ran.output
    found = pandas.read_csv(tmp_path / "out" / "select.csv").set_index("ranked by")
    assert found.NDCG["logme"] > 0.95 > found.NDCG[RANDOM]
    assert (tmp_path / "out" / "study.svg").is_file() and "better than chance" in ran.stdout
    monkeypatch.setattr(measures, "measures", lambda *_: table.head(0))
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 1 and "no measures were given" in refused.output


def test_what_cannot_be_read_is_told() -> None:
    with pytest.raises(UnknownName, match="did you mean 'logme'"):
        ranking.answer(simulated(), measures=measured(planted, "logme"), by="logmee")
    with pytest.raises(UnknownName, match="named 'zz': choose among logme$"):
        ranking.answer(simulated(), measures=measured(planted, "logme"), by="zz")
    with pytest.raises(TooLittle, match="`probe: {}` for all"):
        ranking.answer(simulated(), measures=measured(planted, "cka").assign(target=""))
    with pytest.raises(XstiltsError, match="lacks value"):
        ranking.answer(simulated(), measures=measured(planted, "logme").drop(columns="value"))


def test_where_nothing_is_told_p_is_what_it_says() -> None:
    """200 grids whose measure is noise, tasks being good and liked everywhere: 5 % are called better."""
    rng = numpy.random.default_rng(11)

    def noise(shared: float, own: float) -> Any:
        return rng.normal(0, shared, (5, 1)) + rng.normal(0, own, (5, 3))

    found = []
    for _ in range(200):
        likes = noise(2.0, 0.5)
        found.append(ranking.relabelled(grid(noise(2.0, 1.0), likes), likes, 0))
    for column in (0, 1):
        assert numpy.mean([one[column] < 0.05 for one in found]) < 0.09  # 0.05 + 2.6 standard errors
