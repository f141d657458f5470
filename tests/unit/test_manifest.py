"""What a data folder holds, as its manifest says it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from xstilts.errors import DataError
from xstilts.tasks.manifest import Manifest, paths_of
from xstilts.tasks.task import Holdout, Keep, Rows, Split


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
    assert paths_of(rows, data) == [data / name]


def test_what_chooses_rows_is_identity(data):
    plain = Split(path="rajpurkar/squad", config="plain_text", split="validation")
    other = Split(path="xstilts/raw_text", config="en", split="train")
    changes = [
        {},
        {"without": "xquad"},
        {"keep": Keep(column="id", prefix="{code}-")},
        {"reader": "squad_sentences"},
        {"more": (other,)},
    ]
    splits = [plain.model_copy(update=change).at("english") for change in changes]
    found = [Manifest.load(data).rows(split, "en") for split in splits]
    assert len({json.dumps(rows.to_identity(), sort_keys=True) for rows in found}) == len(changes)
    assert found[2].keep.prefix == "english-" and found[4].more[0].path == "xstilts/raw_text"


def add(data: Path, *files: dict[str, object]) -> None:
    """More lines of the manifest."""
    words = json.loads((data / "manifest.json").read_text())
    (data / "manifest.json").write_text(json.dumps({**words, "files": [*words["files"], *files]}))


def test_a_split_in_several_files_is_read_in_their_order(data):
    names = [f"train-0000{n}-of-00002.parquet" for n in (0, 1)]
    place = {"dataset": "big/one", "config": "c", "split": "train", "rows": 5}
    add(data, *(entry(f"datasets/big/one/c/{name}", **place) for name in names))
    manifest, split = Manifest.load(data), Split(path="big/one", config="c", split="train")
    assert manifest.count(split) == 10
    assert [path.name for path in paths_of(manifest.rows(split, "en"), data)] == names


def test_original_files_are_found_packed_or_not_and_by_pattern(data):
    add(data, entry("files/a/x.gold.gz"), entry("files/a/02/b.auto"), entry("files/a/02/a.auto"))
    manifest = Manifest.load(data)
    split = Split(
        path="a", split="{code}", files=("files/a/{code}.gold", "files/a/0[2-9]/*.auto"), reader="r"
    )
    rows = manifest.rows(split.at("x"), "x")
    assert rows.files == ("files/a/x.gold.gz", "files/a/02/a.auto", "files/a/02/b.auto")
    assert "files" not in rows.to_identity() and len(rows.sha256) == 3
    missing = split.at("y").model_copy(update={"owner": "https://example.org"})
    with pytest.raises(DataError, match="no files/a/y.gold: its owner publishes it at https://example.org"):
        manifest.rows(missing, "y")
    assert manifest.holds(split.at("x")) and not manifest.holds(missing)


def test_sizes_are_compared_before_anything_runs(data):
    manifest = Manifest.load(data)
    split = Split(path="xstilts/raw_text", config="en", split="train")
    more = Split(path="xstilts/raw_text", config="fr", split="train")
    rows: Rows = manifest.rows(split.model_copy(update={"more": (more,)}), "en")
    manifest.check(rows)
    (data / "datasets/xstilts/raw_text/fr/train.parquet").write_text("short")
    with pytest.raises(DataError, match="fr/train.parquet is truncated, or changed"):
        manifest.check(rows)


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
