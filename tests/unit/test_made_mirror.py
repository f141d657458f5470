"""The made-up mirror has what the registry asks for, in the published formats, the same every time."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import made_mirror
import made_rows
from xstilts.families import code_of
from xstilts.families.reading import read
from xstilts.tasks import registry
from xstilts.tasks.manifest import Manifest
from xstilts.tasks.task import Family, Task

TASKS = made_mirror.everything()
ROWS = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_mirror.make(tmp_path_factory.mktemp("made"), rows=ROWS)


def schemas(folder: Path) -> Iterator[tuple[tuple[str, str], Any]]:
    """Data set, with what kind of config it is -> columns and types, of every file of rows."""
    for file in json.loads((folder / "manifest.json").read_text())["files"]:
        if file["dataset"]:
            kind = (
                file["config"].partition(".")[0]
                if file["dataset"] in ("google/xtreme", "nyu-mll/glue")
                else ""
            )
            name = file["dataset"], kind
            schema = pq.read_schema(folder / file["path"]).remove_metadata()
            yield name, schema


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_split_is_there_and_becomes_examples(made: Path, task: Task) -> None:
    manifest = Manifest.load(made)
    code = code_of(task.family)
    seen = 0
    for language, split in {(language, split) for language, split in made_mirror.splits(task)}:
        rows = manifest.rows(split, language)
        manifest.check(rows)
        assert read(rows, made)
    for reporting in made_mirror.BOTH:
        for language in task.reported(reporting):
            place = task.place(reporting, language)
            assert place is not None
            examples = code.examples(task, read(manifest.rows(place, language), made))
            names = [example.item for example in examples]
            assert len(set(names)) == len(names) >= ROWS
            if task.family is not Family.BITEXT_MINING:
                assert len(names) == ROWS, "rows of another language are among them"
                assert all(example.gold for example in examples if isinstance(example.gold, tuple | list))
            seen += 1
    assert seen or "target" not in task.roles


def test_columns_and_types_are_those_of_the_real_files(made: Path, mirror: Path) -> None:
    """The order of columns is not compared: nothing reads by it."""
    ours, theirs = dict(schemas(made)), list(schemas(mirror))
    both = {name for name, _ in theirs} & ours.keys()
    assert len(both) >= 17
    for name, schema in theirs:
        if name in both:
            assert {each.name: each.type for each in ours[name]} == {
                each.name: each.type for each in schema
            }, name


def test_originals_have_the_fields_of_the_real_ones(made: Path, mirror: Path) -> None:
    def article(folder: Path) -> Any:
        data = (folder / "files/lareqa/xquad-r/th.json.gz").read_bytes()
        text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        return json.loads(text)

    def shape(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shape(inner) for name, inner in value.items()}
        return [shape(value[0])] if isinstance(value, list) else type(value)

    assert shape(article(made)) == shape(article(mirror))
    for name in ("zh-en.dev.zh", "zh-en.dev.en", "zh-en.dev.gold"):
        lines = [
            gzip.decompress((folder / f"files/bucc2018/{name}.gz").read_bytes()).decode().split("\n")[0]
            for folder in (made, mirror)
        ]
        ids = [[word[:3] + str(len(word)) for word in line.split("\t") if "-0" in word] for line in lines]
        assert ids[0] == ids[1] and [line.count("\t") for line in lines] == [1, 1]


def test_what_is_awkward_is_there(made: Path) -> None:
    def rows(name: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pq.read_table(made / "datasets" / name, partitioning=None).to_pylist()
        return found

    assert -1 in {row["label"] for row in rows("stanfordnlp/snli/plain_text/train.parquet")}
    unanswerable = [row["answers"]["text"] for row in rows("rajpurkar/squad_v2/squad_v2/validation.parquet")]
    assert [] in unanswerable and any(unanswerable)
    assert (
        max(len(row["tokens"]) for row in rows("google/xtreme/udpos.Thai/test.parquet"))
        == made_rows.LONG_WORDS
    )
    names = {row["id"].partition("-")[0] for row in rows("google/xtreme/tydiqa/validation.parquet")}
    assert names == set(registry.task("tydiqa").codes.values())
    thai = rows("facebook/xnli/th/test.parquet")[0]["premise"]
    assert " " not in thai and len(thai) > 20
    chinese = rows("google/xtreme/XQuAD.zh/validation.parquet")[0]
    assert chinese["answers"]["text"][0] in chinese["context"] and "。" in chinese["context"]
    assert any("ال" in row["premise"] for row in rows("facebook/xnli/ar/test.parquet"))


def test_answers_lie_where_they_are_said_to(made: Path) -> None:
    for path in made.rglob("datasets/**/*.parquet"):
        if "answers" in pq.read_schema(path).names:
            for row in pq.read_table(path, partitioning=None).to_pylist():
                for text, start in zip(row["answers"]["text"], row["answers"]["answer_start"], strict=True):
                    assert row["context"][start:].startswith(text), (path, row["id"])


def test_some_tasks_in_some_languages_and_the_same_bytes_again(tmp_path: Path) -> None:
    def sums(folder: Path) -> dict[str, str]:
        files = (path for path in folder.rglob("*") if path.is_file())
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
        }

    folders = [
        made_mirror.make(tmp_path / name, ["xnli", "bucc2018"], 6, ["en", "th", "zh"]) for name in ("a", "b")
    ]
    assert sums(folders[0]) == sums(folders[1])
    there = {file["path"] for file in json.loads((folders[0] / "manifest.json").read_text())["files"]}
    assert "datasets/facebook/xnli/th/test.parquet" in there
    assert "datasets/nyu-mll/multi_nli/default/train.parquet" in there, "xnli trains on it"
    assert {path for path in there if "bucc" in path} == {
        f"files/bucc2018/zh-en.{split}.{kind}.gz"
        for split in ("dev", "test")
        for kind in ("en", "gold", "zh")
    }
    assert not any("/de/" in path for path in there)
    made_mirror.without(folders[0], "datasets/facebook/xnli/th/test.parquet")
    gone = registry.task("xnli").place("test", "th")
    assert gone is not None and not Manifest.load(folders[0]).holds(gone)
    assert list(Manifest.load(folders[0]).problems()) == []


@pytest.mark.parametrize("code", ["en", "de", "ar", "th", "zh", "ja", "el"])
def test_words_of_a_language_are_all_different(code: str) -> None:
    words = {made_rows.word(code, meaning) for meaning in range(made_rows.MEANINGS)}
    assert len(words) == made_rows.MEANINGS


def test_a_place_is_one_set_of_files() -> None:
    """Whether rows are reported is asked by hub id, config and split: two sets may not share them."""
    files: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for task in TASKS:
        for language, split in made_mirror.splits(task):
            there = files.setdefault(split.place(), split.files)
            assert there == split.files, (task.name, language, there, split.files)
