"""The record of a step as it is stored: what other tools read, and what a damaged one says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from xstilts.errors import StoreError
from xstilts.record.artifacts import StepPaths
from xstilts.record.local import LocalStore
from xstilts.record.schema import Output, Score, StepRecord, read_record

KEY = "xnli-score--0123456789abcdef"


def record() -> StepRecord:
    """A score step's record with every part filled."""
    score = Score(task="xnli", language="de", split="test", metric="accuracy", value=61.5, n=5010)
    return StepRecord(
        key=KEY,
        kind="score",
        version=1,
        identity={"metric": "accuracy", "languages": ["de"]},
        inputs={"predictions": "xnli-predict--0"},
        outputs={"items/de": Output(path="runs/a1/items/de.parquet", bytes=10, sha256="0" * 64)},
        scores=(score,),
        provenance={"hôte": "ü"},
        attempt="a1",
        finished="2026-11-21T05:00:00+00:00",
    )


def test_comes_back_as_it_was() -> None:
    assert StepRecord.from_json(record().to_json()) == record()


def test_the_stored_form_is_the_contract() -> None:
    words = json.loads(record().to_json())
    assert next(iter(words)) == "schema"
    assert words["schema"] == 1
    assert set(words["scores"][0]) == {"task", "language", "split", "metric", "value", "n"}
    assert set(words["outputs"]["items/de"]) == {"path", "bytes", "sha256"}
    assert set(words["seconds"]) == {"wait", "load", "compute", "save"}
    assert not {"role", "row", "job", "suite"} & set(words)
    assert "ü" in record().to_json().decode()


def test_a_misspelt_field_is_refused() -> None:
    words = json.loads(record().to_json())
    words["score"] = []
    with pytest.raises(ValidationError):
        StepRecord.from_json(json.dumps(words).encode())


def test_reads_from_a_store(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert read_record(store, KEY) is None
    assert store.create(StepPaths(KEY).record, record().to_json())
    assert read_record(store, KEY) == record()


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"schema": 1}', b'{"key": "x"}', b"\xff\xfe"])
def test_a_damaged_record_says_what_to_do(tmp_path: Path, damage: bytes) -> None:
    store = LocalStore(tmp_path)
    store.put(StepPaths(KEY).record, damage)
    with pytest.raises(StoreError, match=f"the record of {KEY} is damaged: move steps/{KEY} out of"):
        read_record(store, KEY)


def test_paths_of_a_step() -> None:
    paths = StepPaths(KEY)
    assert paths.record == f"steps/{KEY}/record.json"
    assert paths.attempt("a1") == f"steps/{KEY}/attempts/a1.json"
    assert paths.run("a1", "history.jsonl") == f"steps/{KEY}/runs/a1/history.jsonl"
    assert paths.checkpoints("a1") == f"steps/{KEY}/runs/a1/checkpoints/"
    assert paths.run("a1").startswith(paths.runs)
