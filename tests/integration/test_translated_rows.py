"""A row whose training data a translation model makes: a step of its own, shared by all that need it."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from made_up_run import run

import made_mirror

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from tiny_translators import m2m100  # noqa: E402


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up CSQA (whose rows have ids) and XNLI, an encoder, and a translation model that knows nothing."""
    folder = tmp_path_factory.mktemp("data")
    made_mirror.make(folder, ["csqa", "mnli", "xnli"], rows=12, languages=["en", "de"])
    made_mirror.encoder(folder)
    m2m100(folder / "models" / "made" / "translator")
    made_mirror.enter(folder)
    return folder


def test_a_translate_step_feeds_the_training(data: Path, tmp_path: Path) -> None:
    row = {
        "translated": "csqa",
        "languages": ["en", "de"],
        "translator": {"name": "made/translator", "max_length": 30, "beams": 2},
    }
    changes = {"intermediate": ["none", {**row, "name": "csqa-two"}], "targets": ["xnli"]}
    done = run(tmp_path, data, **changes, languages=["en", "de"], seeds=[1, 2])
    (step,) = done.of("translate")
    (path,) = (tmp_path / "store").glob(f"steps/{step['key']}/runs/*/rows.parquet")
    made, original = (
        pq.read_table(path),
        pq.read_table(data / "datasets/tau/commonsense_qa/default/train.parquet"),
    )
    assert made.schema.names == original.schema.names and step["result"] == {"rows": len(original)}
    assert made["answerKey"].to_pylist() == original["answerKey"].to_pylist()
    assert made["question"].to_pylist() != original["question"].to_pylist()
    trained = [record for record in done.of("train") if "rows/de" in record["inputs"]]
    assert {record["inputs"]["rows/de"] for record in trained} == {step["key"]} and len(trained) == 2
    assert set(done.frame.intermediate) == {"none", "csqa-two"}
    again = run(tmp_path, data, **changes, languages=["en", "de"], seeds=[1, 2])
    assert not again.result.ran
