"""Official files written from examples and predictions: their text, and that they score as the job does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from xstilts.errors import DataError, StoreError
from xstilts.evaluate import score as scoring
from xstilts.evaluate.official import checking, formats, layout, scores
from xstilts.families import code_of, reading
from xstilts.families.base import Example
from xstilts.tasks import registry
from xstilts.tasks.manifest import Manifest

Made = tuple[list[Example], dict[str, Any]]


def test_labels_a_line(tmp_path: Path) -> None:
    rows = [Example("0", {}, 2), Example("1", {}, 0)]
    path = formats.write_labels("xnli", "sw", rows, tmp_path)
    assert path == tmp_path / "xnli" / "test-sw.tsv" and path.read_text() == "contradiction\nentailment\n"
    said = {"1": "neutral", "0": "entailment"}
    assert (
        formats.write_predictions("xnli", "sw", rows, said, tmp_path).read_text() == "entailment\nneutral\n"
    )
    assert formats.write_labels("pawsx", "de", [Example("7", {}, 1)], tmp_path).read_text() == "1\n"
    said = {"7": "different"}
    assert formats.write_predictions("pawsx", "de", [Example("7", {})], said, tmp_path).read_text() == "0\n"
    assert (
        formats.write_labels("xcopa", "et", [Example("0", {}, 1)], tmp_path).read_text() == '{"label": 1}\n'
    )


def test_tags_have_a_blank_line_between_sentences(tmp_path: Path) -> None:
    rows = [Example("0", {"words": "a b".split()}, [7, 15]), Example("1", {"words": ["c"]}, [14])]
    path = formats.write_labels("udpos", "de", rows, tmp_path)
    assert path.read_text() == "NOUN\nVERB\n\nSYM\n"
    empty = [Example("0", {"words": ()}, []), rows[1], Example("2", {"words": ()}, [])]
    assert formats.write_labels("udpos", "de", empty, tmp_path).read_text() == "\nSYM\n\n\n"
    found = checking.Findings()
    files = checking.Files(registry.task("udpos"), "de", path, path)
    assert checking.units(files, found) == [([], []), (["SYM"], ["SYM"]), ([], [])]
    assert found.problems == []


def test_tatoeba_lines_are_sorted_by_their_english_and_name_published_rows(tmp_path: Path) -> None:
    """Code points: capitals come before small letters, accents last; equal lines stay in published order."""
    english = ["tree", "Tree", "étoile", "an apple", "tree", " Zoo"]
    rows = [Example(str(n), {"query": text, "document": "x"}, str(n)) for n, text in enumerate(english)]
    assert formats.write_labels("tatoeba", "fr", rows, tmp_path).read_text() == "1\n5\n3\n0\n4\n2\n"
    said = {str(n): [str((n + 1) % 6), str(n)] for n in range(6)}
    path = formats.write_predictions("tatoeba", "fr", rows, said, tmp_path)
    assert path.read_text() == "2\n0\n4\n1\n5\n3\n"


def test_pairs_are_foreign_then_english(tmp_path: Path) -> None:
    rows = [
        Example("de-1", {"side": "foreign"}, ("en-3", "en-4")),
        Example("de-2", {"side": "foreign"}, ()),
        Example("en-3", {"side": "english"}, None),
    ]
    assert formats.write_labels("bucc2018", "de", rows, tmp_path).read_text() == "de-1\ten-3\nde-1\ten-4\n"
    path = formats.write_predictions("bucc2018", "de", rows, {"de-2": "en-3"}, tmp_path)
    assert path.read_text() == "de-2\ten-3\n"
    assert formats.write_predictions("bucc2018", "de", rows, {}, tmp_path).read_text() == ""


def test_answers_are_one_object_and_their_labels_squads(tmp_path: Path) -> None:
    passages = ["P Ω", "P Ω", "Q"]
    rows = [
        Example(f"q{n}", {"question": f"{n}?", "context": text}, [{"text": text[0], "start": 0}])
        for n, text in enumerate(passages)
    ]
    path = formats.write_predictions("tydiqa", "ko", rows, {"q2": "", "q0": "한국"}, tmp_path)
    assert json.loads(path.read_text(encoding="utf-8")) == {"q0": "한국", "q2": ""}
    words = json.loads(formats.write_labels("tydiqa", "ko", rows, tmp_path).read_text(encoding="utf-8"))
    paragraphs = words["data"][0]["paragraphs"]
    assert [len(one["qas"]) for one in paragraphs] == [2, 1] and paragraphs[0]["context"] == "P Ω"
    assert paragraphs[1]["qas"] == [
        {"id": "q2", "question": "2?", "answers": [{"text": "Q", "answer_start": 0}]}
    ]


def test_ranks_end_at_twenty(tmp_path: Path) -> None:
    rows = [Example("m1", {}, ("Q7",)), Example("m2", {}, ("Q8",))]
    said = {"m1": [f"Q{n}" for n in range(25)]}
    path = formats.write_predictions("mewslix", "ta", rows, said, tmp_path)
    assert json.loads(path.read_text()) == {"m1": [f"Q{n}" for n in range(20)]}
    assert json.loads(formats.write_labels("lareqa", "el", rows, tmp_path).read_text()) == {
        "m1": ["Q7"],
        "m2": ["Q8"],
    }


def test_what_a_file_cannot_say_is_refused(tmp_path: Path) -> None:
    rows = [Example("0", {"words": ["a", "b"], "query": "x"}, None)]
    for task, said, problem in [
        ("xnli", {}, "missing"),
        ("xnli", {"0": "maybe"}, "which the task does not have"),
        ("udpos", {"0": ["NOUN"]}, "1 tags for 2 words"),
        ("tatoeba", {"0": []}, "matched with no row"),
        ("tatoeba", {"0": ["9"]}, "matched with no row"),
    ]:
        with pytest.raises(DataError, match=problem):
            formats.write_predictions(task, "de", rows, said, tmp_path)
    with pytest.raises(DataError, match="missing"):
        formats.write_labels("xnli", "de", rows, tmp_path)
    assert list(tmp_path.rglob("*.tsv*")) == []
    (tmp_path / "xnli").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        formats.write_predictions("xnli", "de", rows, {"0": "neutral"}, tmp_path)


def made(task_name: str) -> Made:
    """Examples of odd numbers and predictions that are right, wrong and between."""
    task = registry.task(task_name)
    form = layout.LAYOUTS[task_name].form
    if form in ("labels", "choices"):
        rows = [Example(str(n), {}, n % len(task.labels)) for n in range(7)]
        return rows, {str(n): task.labels[(n * n // 3) % len(task.labels)] for n in range(7)}
    if form == "rows":
        english = ["b", "a", "c", "a", "B", "b"]
        rows = [Example(str(n), {"query": text, "document": text}, str(n)) for n, text in enumerate(english)]
        return rows, {str(n): [str(n if n % 2 else 0), str(n)] for n in range(6)}
    if form == "tags":
        count = len(task.labels)
        tags = [[(5 * n + place * place) % count for place in range(n)] for n in (3, 0, 7, 11)]
        rows = [Example(str(n), {"words": ["x"] * len(one)}, one) for n, one in enumerate(tags)]
        said = [[(tag + (place % 3 == 1)) % count for place, tag in enumerate(one)] for one in tags]
        return rows, {str(n): [task.labels[tag] for tag in one] for n, one in enumerate(said)}
    if form == "pairs":
        foreign = [Example(f"de-{n}", {"side": "foreign"}, (f"en-{n}",) * (n % 3 > 0)) for n in range(9)]
        english = [Example(f"en-{n}", {"side": "english"}, None) for n in range(9)]
        return foreign + english, {f"de-{n}": (f"en-{n}", "en-8")[: n % 3] for n in range(1, 9)}
    if form == "answers":
        texts = ["الرجل في القاهرة", "在北京，NBA", "der Hund", "1,000 a", "the"]
        rows = [
            Example(f"q{n}", {"question": "?", "context": text},
                    [{"text": text, "start": 0}, {"text": text[:3], "start": 0}])
            for n, text in enumerate(texts)
        ]  # fmt: skip
        return rows, {f"q{n}": text[: 3 + n] + " the" * (n % 2) for n, text in enumerate(texts) if n != 2}
    rows = [Example(f"m{n}", {}, tuple(f"c{k}" for k in range(n + 1))) for n in range(5)]
    return rows, {f"m{n}": [f"c{(k * k + n) % 30}" for k in range(20)] for n in range(4)}


@pytest.mark.parametrize("name", sorted(layout.LAYOUTS))
def test_files_score_as_the_job_does_to_the_last_bit(name: str, tmp_path: Path) -> None:
    task, language = registry.task(name), "ar" if name == "mlqa" else "de"
    rows, said = made(name)
    if name == "mewslix":
        rows = [Example(row.item, {}, row.gold[:1]) for row in rows]
    predictions = formats.write_predictions(name, language, rows, said, tmp_path / "predictions")
    labels = formats.write_labels(name, language, rows, tmp_path / "labels")
    found = checking.Findings()
    units = checking.units(checking.Files(task, language, predictions, labels), found)
    assert found.problems == []
    _, own = scoring.score(code_of(task.family), task, rows, said, language)
    official = scores.of_language(task, language, units)
    assert official == {
        scores.NAMES.get(metric, metric): value
        for metric, value in own.items()
        if metric not in ("squad", "mlqa")
    }
    assert any(0 < value < 100 for value in official.values()), "says nothing"


REAL = ["xnli de", "pawsx de", "udpos th", "panx ar", "xquad th", "mlqa zh", "mlqa ar", "tydiqa sw",
        "tatoeba ka", "tatoeba ja", "xcopa qu", "bucc2018 zh", "lareqa el"]  # fmt: skip


@pytest.mark.mirror
@pytest.mark.parametrize("which", REAL)
def test_real_rows_score_as_the_job_does_to_the_last_bit(which: str, mirror: Path, tmp_path: Path) -> None:
    """Predictions are the gold of the row before, for every third row."""
    name, language = which.split()
    task, manifest = registry.task(name), Manifest.load(mirror)
    split = task.place("test", language)
    if split is None or not manifest.holds(split):
        split = task.place("dev", language)
    assert split is not None
    code = code_of(task.family)
    rows = code.examples(task, reading.read(manifest.rows(split, language), mirror))
    gold = [(row, row) if n % 3 else (row, rows[n - 1]) for n, row in enumerate(rows) if row.gold is not None]
    said = {row.item: value_of(name, row, other) for row, other in gold}
    predictions = formats.write_predictions(name, language, rows, said, tmp_path / "predictions")
    labels = formats.write_labels(name, language, rows, tmp_path / "labels")
    found = checking.Findings()
    units = checking.units(checking.Files(task, language, predictions, labels), found)
    assert found.problems == [] == found.warnings
    _, own = scoring.score(code, task, rows, said, language)
    official = scores.of_language(task, language, units)
    assert official == {
        scores.NAMES.get(metric, metric): value
        for metric, value in own.items()
        if metric not in ("squad", "mlqa")
    }
    assert 0 < min(official.values()) < 100


def value_of(name: str, row: Example, other: Example) -> Any:
    """The gold of `other` as a prediction for `row`."""
    task, form = registry.task(name), layout.LAYOUTS[name].form
    if form in ("labels", "choices"):
        return task.labels[other.gold]
    if form == "tags":
        tags = [task.labels[tag] for tag in other.gold]
        count = len(row.inputs["words"])
        return (tags * count)[:count] if tags else [task.labels[0]] * count
    if form == "answers":
        return other.gold[0]["text"]
    return [other.gold] if form == "rows" else list(other.gold or ())
