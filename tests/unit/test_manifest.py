"""What a data folder holds, as its manifest says it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from xstilts.errors import DataError
from xstilts.tasks.manifest import Manifest, file_of, place_of
from xstilts.tasks.task import Holdout, Split


def entry(path: str, **words: object) -> dict[str, object]:
    """One line of a manifest."""
    return {"path": path, "sha256": hashlib.sha256(path.encode()).hexdigest(), "bytes": len(path), **words}


def rows_entry(dataset: str, config: str, split: str) -> dict[str, object]:
    """One line that stands for rows."""
    path = f"datasets/{dataset}/{config}/{split}.parquet"
    return entry(path, dataset=dataset, config=config, split=split, rows=7, licence="MIT", note="")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder whose files hold their own names."""
    files = [
        rows_entry("google/xtreme", "XQuAD.en", "validation"),
        rows_entry("google/xtreme", "PAN-X.de", "validation"),
        rows_entry("rajpurkar/squad", "plain_text", "validation"),
        rows_entry("xstilts/raw_text", "fr", "train"),
        rows_entry("xstilts/raw_text", "en", "train"),
        entry("models/xstilts/mini/config.json", dataset="", config="", split="", rows=None),
        entry("models/xstilts/mini-12/config.json", dataset="", config="", split="", rows=None),
    ]
    for file in files:
        path = tmp_path / str(file["path"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(file["path"]))
    (tmp_path / "manifest.json").write_text(json.dumps({"version": 1, "files": files}))
    return tmp_path


def test_rows_have_the_checksum_of_their_file(data):
    split = Split(path="google/xtreme", config="PAN-X.{code}", split="validation").at("de")
    rows = Manifest.load(data).rows(split, "de")
    name = "datasets/google/xtreme/PAN-X.de/validation.parquet"
    assert rows.sha256 == (hashlib.sha256(name.encode()).hexdigest(),)
    assert (rows.language, rows.first, rows.holdout) == ("de", None, None)
    assert file_of((rows.path, rows.config, rows.split), data) == data / name


def test_an_exclusion_counts_with_its_own_file(data):
    split = Split(
        path="rajpurkar/squad",
        config="plain_text",
        split="validation",
        exclude_contexts_of="google/xtreme/XQuAD.en/validation",
    )
    assert len(Manifest.load(data).rows(split, "en").sha256) == 2
    assert place_of("google/xtreme/XQuAD.en/validation") == ("google/xtreme", "XQuAD.en", "validation")


def test_a_holdout_is_identity(data):
    manifest, whole = Manifest.load(data), Split(path="google/xtreme", config="PAN-X.de", split="validation")
    parts = [whole.model_copy(update={"holdout": Holdout(part=part, by="t")}) for part in ("train", "select")]
    identities = [json.dumps(manifest.rows(split, "de").to_identity()) for split in (whole, *parts)]
    assert len(set(identities)) == 3
    assert "holdout" not in identities[0]


def test_missing_rows_name_the_nearest(data):
    wrong = Split(path="google/xtreme", config="PAN-X.dee", split="validation")
    with pytest.raises(DataError, match="PAN-X.dee.*xstilts data pull.*PAN-X.de, split validation"):
        Manifest.load(data).rows(wrong, "de")
    assert not Manifest.load(data).holds(wrong)


def test_what_there_is(data):
    manifest = Manifest.load(data)
    assert manifest.configs("xstilts/raw_text") == ("en", "fr")
    assert manifest.count(Split(path="xstilts/raw_text", config="en", split="train")) == 7
    assert set(manifest.model("xstilts/mini") or {}) == {"config.json"}
    assert manifest.model("xstilts/nothing") is None


def test_check_finds_what_changed(data):
    manifest = Manifest.load(data)
    assert list(manifest.problems()) == []
    (data / "models/xstilts/mini/config.json").write_text("changed")
    (data / "datasets/xstilts/raw_text/fr/train.parquet").unlink()
    assert len(list(manifest.problems())) == 2


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"files": 3}', '{"files": [{"path": "x"}]}', '{"files": [7]}']
)
def test_a_damaged_manifest_is_one_sentence(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match="is no manifest"):
        Manifest.load(tmp_path)


def test_no_manifest_says_to_pull(tmp_path):
    for folder in (None, tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="xstilts data pull"):
            Manifest.load(folder)
