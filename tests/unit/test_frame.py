"""The frame: exactly the columns of the contract, one row a score, from a plan joined to records."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from made_up_job import made

from xstilts.errors import StoreError
from xstilts.record.artifacts import StepPaths
from xstilts.report import frame

ROW = ("intermediate", "target", "seed")


def test_columns_are_those_of_the_contract(tmp_path: Path) -> None:
    plan, store = made(tmp_path)
    table = frame.frame(plan, store)
    words = "job suite model intermediate target language family script split metric value n seed key"
    assert list(table.columns) == [*words.split(), "selection", "fraction", "status"]
    assert set(table.status) == {"ok"}
    one = table[(table.target == "xnli") & (table.language == "sw") & (table.seed == 2)]
    one = one[one.intermediate == "mnli"]
    assert one.metric.tolist() == ["accuracy"] and one.n.tolist() == [240]
    assert one[["family", "script", "split"]].values.tolist() == [["Atlantic-Congo", "Latn", "test"]]
    assert one.key.item().startswith("score-xnli-s2-after-mnli-s2--")


def test_values_are_those_of_the_item_statistics(tmp_path: Path) -> None:
    plan, store = made(tmp_path, intermediates=("none",), targets=("xnli",), seeds=(1,))
    known = frame.records(plan, store)
    found = frame.items(plan, store, tmp_path, known)["none", "xnli", 1]
    table = frame.frame(plan, store, known).set_index("language")
    assert {code: items.columns["correct"].mean() * 100 for code, items in found.items()} == pytest.approx(
        table.value.to_dict()
    )


def test_fraction_and_selection_are_those_of_the_last_training(tmp_path: Path) -> None:
    plan, store = made(tmp_path)
    table = frame.frame(plan, store).groupby(["target", "intermediate"])[["fraction", "selection"]].first()
    assert table.loc[("xnli", "mnli")].tolist() == [0.5, "source_dev"], "from the record"
    assert table.loc[("panx", "mnli")].tolist() == [0.25, "source_dev"], "from the job file"
    assert table.loc[("tatoeba", "none")].tolist() == [1.0, ""], "nothing was trained or chosen"


def test_a_cell_that_is_not_scored_is_one_row_without_value(tmp_path: Path) -> None:
    plan, store = made(tmp_path, unfinished=("score-xnli-s2-after-mnli-s2",))
    plan["steps"] = [
        {**step, "key": None} if step["label"] == "train-panx-s1" else step for step in plan["steps"]
    ]
    missing = frame.frame(plan, store).query("status == 'missing'")
    assert missing[list(ROW)].values.tolist() == [["mnli", "xnli", 2]]
    assert missing.value.isna().all() and missing.n.isna().all() and missing.language.tolist() == [""]


@pytest.mark.parametrize("label", ["train-xnli-s1-after-mnli-s1", "train-mnli-s1"])
def test_a_collapsed_run_marks_every_score_that_stands_on_it(tmp_path: Path, label: str) -> None:
    plan, store = made(tmp_path, collapsed=(label,))
    marked = frame.frame(plan, store).query("status == 'collapsed'")
    cells = set(marked[list(ROW)].itertuples(index=False, name=None))
    whole = {("mnli", target, 1) for target in ("xnli", "panx", "tatoeba")}
    assert cells == (whole if label == "train-mnli-s1" else {("mnli", "xnli", 1)})


def test_a_language_nobody_registered_is_shown(tmp_path: Path) -> None:
    plan, store = made(tmp_path, intermediates=("none",), targets=("xnli",), seeds=(1,))
    name = StepPaths("score-xnli-s1--" + "0" * 16).record
    store.put(name, (store.read(name) or b"").replace(b'"language": "sw"', b'"language": "zz"'))
    assert "zz" in set(frame.frame(plan, store).language)


def test_damaged_item_statistics_say_what_to_do(tmp_path: Path) -> None:
    plan, store = made(tmp_path, targets=("xnli",), seeds=(1,))
    store.put(f"steps/score-xnli-s1--{'0' * 16}/runs/a1/items/en.parquet", b"PAR1")
    with pytest.raises(StoreError, match="item statistics of score-xnli-s1.*run again"):
        frame.items(plan, store, tmp_path, frame.records(plan, store))


def test_provenance_is_what_records_agree_and_differ_on(tmp_path: Path) -> None:
    plan, store = made(tmp_path, targets=("xnli",), seeds=(1,))
    assert frame.provenance(frame.records(plan, store)) == {"commit": ["abc1234"], "python": ["3.11.4"]}


def test_a_report_never_loads_an_ml_library() -> None:
    heavy = "torch transformers datasets ray mlflow boto3"
    code = f"import sys, xstilts.report.render; print([m for m in '{heavy}'.split() if m in sys.modules])"
    path = {"PYTHONPATH": str(Path(frame.__file__).parents[2])}
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=path).strip() == "[]"
