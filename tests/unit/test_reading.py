"""Rows are read whole, checked, and chosen the same way everywhere; everything wrong is one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xstilts.errors import DataError
from xstilts.families.reading import in_selection, nested_subset, read
from xstilts.tasks import reserved
from xstilts.tasks.manifest import sha256_of
from xstilts.tasks.task import Holdout, Keep, Rows
from xstilts.tasks.world import generator_identity

N = 400


def file_of(data: Path, split: str) -> Path:
    """Where rows of x/y, config c lie."""
    return data / "datasets" / "x" / "y" / "c" / f"{split}.parquet"


def written(data: Path, split: str, columns: dict[str, list[object]]) -> str:
    """Writes rows of x/y, config c; returns their checksum."""
    path = file_of(data, split)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return sha256_of(path)


def asked(*sha256: str, **more: object) -> Rows:
    """The identity of what `written` wrote."""
    return Rows.model_validate(
        {"path": "x/y", "config": "c", "split": "train", "language": "en", "sha256": sha256, **more}
    )


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, str]:
    """A folder and the checksum of its one file: 400 rows of 200 different sentences."""
    words = [[f"w{i // 2}", "."] for i in range(N)]
    return tmp_path, written(tmp_path, "train", {"n": list(range(N)), "tokens": words})


def test_rows_come_in_published_order(data):
    folder, sha256 = data
    assert [row["n"] for row in read(asked(sha256), folder)] == list(range(N))
    assert [row["n"] for row in read(asked(sha256, first=3), folder)] == [0, 1, 2]


def test_a_holdout_parts_the_rows_and_keeps_equal_ones_together(data):
    folder, sha256 = data
    parts = {
        part: read(asked(sha256, holdout=Holdout(part=part, by="tokens", share=0.2)), folder)
        for part in ("train", "select")
    }
    numbers = {part: [row["n"] for row in rows] for part, rows in parts.items()}
    assert sorted(numbers["train"] + numbers["select"]) == list(range(N))
    assert 40 <= len(numbers["select"]) <= 120  # 80 expected of 200 sentences by two, standard deviation 11
    texts = {part: {tuple(row["tokens"]) for row in rows} for part, rows in parts.items()}
    assert not texts["train"] & texts["select"]
    first = read(asked(sha256, first=5, holdout=Holdout(part="select", by="tokens", share=0.2)), folder)
    assert [row["n"] for row in first] == numbers["select"][:5]


def test_a_holdout_by_a_column_that_is_not_there(data):
    folder, sha256 = data
    with pytest.raises(DataError, match="no column 'title': it has n, tokens"):
        read(asked(sha256, holdout=Holdout(part="train", by="title")), folder)


def test_a_holdout_is_the_same_on_every_machine():
    drawn = [i for i in range(100) if in_selection([f"word {i}", "Łódź"], 0.05)]
    assert drawn == PINNED_HOLDOUT
    assert not in_selection("x", 0.0) and in_selection("x", 1.0)


PINNED_HOLDOUT = [6, 12, 34, 39, 59, 72]
"""Changing it moves rows from training to selection under keys that say otherwise."""


def test_reserved_rows_are_left_out_without_opening_where_they_are_reported(tmp_path, monkeypatch):
    mine = {reserved.digest(text) for text in ("One two", "four")}
    monkeypatch.setitem(reserved.LISTS, "mine", lambda row: reserved.digest(row["context"]) in mine)
    ours = written(tmp_path, "train", {"id": ["a", "b", "c"], "context": ["One  two ", "three", "four"]})
    assert [row["id"] for row in read(asked(ours, without="mine"), tmp_path)] == ["b"]
    few = written(tmp_path, "train", {"id": ["a"], "context": ["four"]})
    with pytest.raises(DataError, match="has no rows"):
        read(asked(few, without="mine"), tmp_path)


def test_rows_are_kept_by_a_column(tmp_path):
    columns = {"id": ["english-1", "arabic-1", "english-2"], "label": [0, 1, -1]}
    ours = written(tmp_path, "train", columns)
    english = asked(ours, keep=Keep(column="id", prefix="english-"))
    assert [row["id"] for row in read(english, tmp_path)] == ["english-1", "english-2"]
    agreed = asked(ours, keep=Keep(column="label", drop=(-1,)))
    assert [row["label"] for row in read(agreed, tmp_path)] == [0, 1]


def test_further_rows_follow(tmp_path):
    ours = written(tmp_path, "train", {"n": [1, 2]})
    theirs = written(tmp_path, "other", {"n": [3, 4]})
    rows = asked(ours, more=(asked(theirs, split="other"),))
    assert [row["n"] for row in read(rows, tmp_path)] == [1, 2, 3, 4]


def test_the_first_rows_are_dealt_from_every_part(tmp_path):
    ours = written(tmp_path, "train", {"n": [1, 2, 3]})
    theirs = written(tmp_path, "other", {"n": [11]})
    rows = asked(ours, more=(asked(theirs, split="other"),), first=3)
    assert [row["n"] for row in read(rows, tmp_path)] == [1, 11, 2]


def test_a_step_made_the_rows(tmp_path):
    written(tmp_path, "made", {"n": [5]})
    rows = asked(made_by="rows/de")
    assert read(rows, None, {"rows/de": file_of(tmp_path, "made")}) == [{"n": 5}]


def test_a_changed_file_is_refused(data):
    folder, sha256 = data
    read(asked(sha256), folder)
    written(folder, "train", {"n": list(range(N)), "tokens": [["other"]] * N})
    with pytest.raises(DataError, match="changed since it was pulled.*pull the data again"):
        read(asked(sha256), folder)


def test_a_changed_file_of_the_same_size_is_refused(data):
    folder, sha256 = data
    path = file_of(folder, "train")
    read(asked(sha256), folder)
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    with pytest.raises(DataError):
        read(asked(sha256), folder)


@pytest.mark.parametrize(("keep", "said"), [(0, "is empty"), (0.5, "truncated"), (-1, "is missing")])
def test_a_damaged_file_is_one_sentence(data, keep, said):
    folder, sha256 = data
    path = file_of(folder, "train")
    content = path.read_bytes()
    path.unlink()
    if keep >= 0:
        path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DataError, match=said) as raised:
        read(asked(sha256), folder)
    assert "pull" in raised.value.remedy and "\n" not in str(raised.value)


def test_no_data_folder_says_to_pull():
    with pytest.raises(DataError, match="x/y, config c, split train.*xstilts data pull"):
        read(asked("0"), None)


def test_the_world_needs_no_data():
    world = generator_identity(1)
    rows = Rows(path="world", config="nli.w0", split="selection", language="w0", world=world, first=10)
    assert len(read(rows, None)) == 10


@given(n=st.integers(1, 300), small=st.floats(0.01, 1), large=st.floats(0.01, 1), seed=st.integers(0, 9))
@settings(max_examples=50, deadline=None)
def test_subsets_are_nested(n, small, large, seed):
    small, large = sorted((small, large))
    fewer, more = nested_subset(n, small, seed), nested_subset(n, large, seed)
    assert set(fewer) <= set(more)
    assert fewer == sorted(set(fewer)) and len(fewer) == max(1, round(small * n))


def test_subsets_of_another_seed_differ():
    assert nested_subset(100, 0.2, 0) != nested_subset(100, 0.2, 1)
    assert nested_subset(100, 1.0, 5) == list(range(100))
    assert nested_subset(20, 0.25, 0) == PINNED_SUBSET


PINNED_SUBSET = [5, 8, 13, 14, 16]
"""Changing it changes what a fraction means under keys that say otherwise."""
