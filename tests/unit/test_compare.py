"""A job beside published numbers: subtracted where both speak of the same thing, else with the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas
import pytest
from made_up_job import made
from typer.testing import CliRunner

from xstilts import api
from xstilts.cli.main import app
from xstilts.errors import UnknownName, XstiltsError
from xstilts.report.frame import COLUMNS
from xstilts.report.published import beside
from xstilts.report.published import published as papers
from xstilts.tasks import registry, suites

LARGE = "FacebookAI/xlm-roberta-large"
NAMED = {"mix": ["qqp", "mlm"], "name": "with_text"}


def a_plan(model: str = LARGE, **evaluate: Any) -> dict[str, Any]:
    rows = ["none", "squad_v1", NAMED]
    return {"job": "mine", "model": model, "experiment": {"intermediate": rows, "evaluate": evaluate}}


def a_frame(split: str = "dev", above: float = 0.5, seeds: tuple[int, ...] = (1, 2)) -> pandas.DataFrame:
    """Every published cell of three rows of the paper, `above` points higher, in all languages."""
    scores = papers.published("phang2020")
    scores = scores[(scores.split == "dev") & (scores.language == papers.MEAN)]
    names = {"none": "none", "squad_v1": "squad_v1", "mlm+qqp": "with_text"}
    rows = []
    for cell in scores[scores.intermediate.isin(list(names))].itertuples(index=False):
        if cell.target == papers.AVERAGE:
            continue
        for code in suites.suite("xtreme").tasks[cell.target]:
            if split == "dev" and code in registry.task(cell.target).no_dev:
                continue
            for seed in seeds:
                row = dict.fromkeys(COLUMNS, "") | {"n": 100, "fraction": 1.0, "status": "ok"}
                row |= {"intermediate": names[cell.intermediate], "target": cell.target, "language": code}
                value = cell.value + above + (seed - 1.5)
                rows.append(row | {"metric": cell.metric, "value": value, "seed": seed, "split": split})
    return pandas.DataFrame(rows)[COLUMNS]


def test_the_same_numbers_are_compared_cell_by_cell() -> None:
    found = beside.beside(a_plan(), a_frame(), "phang2020")
    table = found.table.set_index(["intermediate", "target"])
    means = table[table.language == papers.MEAN]
    assert len(means) == 30 and means.why.eq("").all(), "three rows, nine tasks and their average"
    assert not found.incomplete
    table = means
    assert table.difference.astype(float).round(6).eq(0.5).all()
    assert table.loc[("squad_v1", "tydiqa"), "published_gain"] == pytest.approx(6.5)
    assert table.loc[("squad_v1", "tydiqa"), "gain_difference"] == pytest.approx(0.0, abs=0.01)
    assert table.loc["none"].gain.isna().all() and table.seeds.eq(2).all()
    assert "67 of 67 numbers" in found.sentence, "with 40 languages of retrieval"


def test_the_inconsistent_average_is_taken_from_its_cells_and_said() -> None:
    table = beside.beside(a_plan(), a_frame(), "phang2020").table
    one = table[(table.intermediate == "with_text") & (table.target == papers.AVERAGE)].iloc[0]
    assert one.published == pytest.approx(74.3) and "+5.1" in one.note


@pytest.mark.parametrize(
    ("plan", "table", "reason"),
    [
        (a_plan("FacebookAI/xlm-roberta-base"), a_frame(), "other model: FacebookAI/xlm-roberta-base here"),
        (a_plan(first=500), a_frame(), "only the first 500 items"),
        (a_plan(), a_frame().query("language != 'sw'"), "languages missing: 1 of 15, sw"),
        (a_plan(), a_frame().assign(selection="target_dev"), "chosen on target dev"),
        (a_plan(), a_frame().assign(metric="token_accuracy"), "other metric: "),
    ],
)
def test_what_is_not_the_same_is_shown_with_the_reason(
    plan: dict[str, Any], table: pandas.DataFrame, reason: str
) -> None:
    found = beside.beside(plan, table, "phang2020").table
    row = found[(found.intermediate == "squad_v1") & (found.target == "xnli")].iloc[0]
    assert reason in row.why and pandas.isna(row.difference) and pandas.isna(row.gain_difference)


def test_another_split_is_compared_only_where_it_has_the_same_rows() -> None:
    found = beside.beside(a_plan(), a_frame("test"), "phang2020").table
    squad = found[found.intermediate == "squad_v1"].set_index("target")
    assert squad.why["xnli"] == "other split: test here, dev there"
    assert squad.why["xquad"] == squad.why["tydiqa"] == squad.why["tatoeba"] == ""
    assert papers.AVERAGE not in squad.index, "an average of unlike things is none"


def test_unknown_rows_and_names_are_told() -> None:
    plan = a_plan()
    plan["experiment"]["intermediate"] = ["none", "mnli"]
    found = beside.beside(plan, a_frame().replace("squad_v1", "mnli"), "phang2020").table
    assert found[found.intermediate == "mnli"].why.eq("not published: no row mnli").all()
    with pytest.raises(UnknownName, match="phang2020"):
        beside.beside(plan, a_frame(), "phang2021")


def test_single_languages_are_compared_with_baselines() -> None:
    found = beside.beside(a_plan(), a_frame("test"), "xtreme_baselines").table
    xnli = found[(found.intermediate == "none") & (found.target == "xnli")].set_index("language")
    assert {"en", "sw", papers.MEAN} <= set(xnli.index) and xnli.published["sw"] == 71.2
    assert xnli.difference["sw"] == pytest.approx(80.1 + 0.5 - 71.2)


def test_the_command_writes_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, store = made(tmp_path, unfinished=("score-xnli-s2-after-mnli-s2",))
    monkeypatch.setattr(api, "open_job", lambda *_: None)
    monkeypatch.setattr(api, "compare", lambda _, name: beside.compare(plan, store, name))
    run = CliRunner().invoke(app, ["compare", "job.yaml", "--to", str(tmp_path / "all.csv"), "--json"])
    assert run.exit_code == 1, "nothing of another model can be compared, and a score is missing"
    told = json.loads(run.stdout)
    assert told["incomplete"] and told["compared"] == 0 and told["with"] == "phang2020"
    assert len(pandas.read_csv(tmp_path / "all.csv")) == len(told["rows"]) > 5
    for to, said in (
        (str(tmp_path), "cannot be written"), (str(tmp_path / "no" / "all.csv"), "in a folder that is there"),
        ("", "empty"), ("s3://bucket/all.csv", "an address"),
    ):  # fmt: skip
        problem = CliRunner().invoke(app, ["compare", "job.yaml", "--to", to]).exception
        assert isinstance(problem, XstiltsError) and said in str(problem), (to, problem)
    assert "Nothing of this job" in CliRunner().invoke(app, ["compare", "job.yaml"]).stdout
