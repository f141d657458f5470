"""`xstilts evaluate`: suites, averages, what is missing, what is malformed; and none of it needs torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from official_kit import folders, labels_of, put
from rich.console import Console
from typer.testing import CliRunner

from xstilts.cli import official
from xstilts.errors import DataError, UnknownName
from xstilts.evaluate.official import layout
from xstilts.evaluate.official.evaluator import Outcome, evaluate
from xstilts.tasks import registry, suites


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Read only."""
    return folders(tmp_path_factory.mktemp("whole"), "xtreme")


@pytest.mark.parametrize("suite", suites.all_suites(), ids=lambda one: one.name)
def test_suites_are_of_registered_tasks_in_their_languages(suite: suites.Suite) -> None:
    grouped = [task for members in suite.groups.values() for task in members]
    assert sorted(grouped) == sorted(suite.tasks) and list(suite.groups) == [
        "classification", "tagging", "qa", "retrieval",
    ]  # fmt: skip
    for name, languages in suite.tasks.items():
        assert set(languages) <= set(registry.task(name).languages)
        assert len(set(languages)) == len(languages)
        assert name in layout.LAYOUTS
    for name in suite.also:
        assert registry.task(name).variant_of in suite.tasks
        assert layout.folder(registry.task(name)) in suite.tasks


def test_sizes_of_the_suites() -> None:
    counts = {
        suite.name: [len(languages) for languages in suite.tasks.values()] for suite in suites.all_suites()
    }
    assert counts == {
        "xtreme": [7, 15, 40, 33, 4, 36, 11, 7, 9],
        "xtreme-r": [15, 11, 48, 38, 12, 7, 9, 41, 11, 11],
    }
    with pytest.raises(UnknownName, match="did you mean 'xtreme'"):
        suites.suite("xtrem")


@pytest.mark.parametrize("name", ["xtreme", "xtreme-r"])
def test_everything_right_is_100(name: str, tmp_path: Path) -> None:
    outcome = evaluate(name, *folders(tmp_path, name))
    words = outcome.to_json()
    assert list(words) == ["suite", "overall", "groups", "tasks", "missing", "warnings"]
    assert outcome.exit_code == 0 and words["overall"] == 100 and set(words["groups"].values()) == {100}
    assert words["missing"] == [] == words["warnings"]
    for task, made in words["tasks"].items():
        assert list(made["languages"]) == list(suites.suite(name).tasks[task])
        form = layout.LAYOUTS[task].form
        metrics = {
            "tags": {"f1", "precision", "recall", "token_accuracy"}, "pairs": {"f1", "precision", "recall"},
            "answers": {"exact_match", "f1"}, "ranked": {"map@20"},
        }.get(form, {"accuracy"})  # fmt: skip
        assert all(set(scores) == metrics for scores in made["languages"].values())
    json.dumps(words, allow_nan=False)


def test_averages_are_plain_means(tmp_path: Path) -> None:
    predictions, labels = folders(tmp_path, "xtreme")
    put(predictions, "pawsx", "de", "1\n1\n")  # 50
    put(
        predictions, "xquad", "en", json.dumps({"q1": "Warschau lag", "q2": "1897"})
    )  # EM 50, F1 (2/3 + 1) / 2
    outcome = evaluate("xtreme", predictions, labels)
    pawsx = (6 * 100 + 50) / 7
    exact, f1 = (10 * 100 + 50) / 11, (10 * 100 + 100 * (2 / 3 + 1) / 2) / 11
    xquad = (exact + f1) / 2
    assert outcome.tasks["pawsx"].score == pytest.approx(pawsx, abs=1e-12)
    assert outcome.tasks["xquad"].score == pytest.approx(xquad, abs=1e-12)
    assert outcome.groups == pytest.approx(
        {"classification": (pawsx + 100) / 2, "tagging": 100, "qa": (xquad + 200) / 3, "retrieval": 100}
    )
    assert outcome.overall == pytest.approx((7 * 100 + pawsx + xquad) / 9, abs=1e-12)


def test_a_missing_language_empties_its_averages_alone(tmp_path: Path) -> None:
    predictions, labels = folders(tmp_path, "xtreme")
    (predictions / "panx" / "test-yo.tsv").unlink()
    for file in (predictions / "mlqa").iterdir():
        file.unlink()
    (labels / "bucc2018" / "test-de.tsv").unlink()
    outcome = evaluate("xtreme", predictions, labels)
    words = outcome.to_json()
    assert outcome.exit_code == 1 and words["overall"] is None
    assert words["groups"] == {"classification": 100, "tagging": None, "qa": None, "retrieval": None}
    assert {"task": "panx", "language": "yo"} in words["missing"]
    assert {"task": "bucc2018", "language": "de"} in words["missing"]
    assert sum(one["task"] == "mlqa" for one in words["missing"]) == 7 and len(words["missing"]) == 9
    assert words["tasks"]["mlqa"] == {"score": None, "languages": {}}
    assert words["tasks"]["panx"]["score"] is None and len(words["tasks"]["panx"]["languages"]) == 39
    assert words["tasks"]["udpos"]["score"] == 100
    assert len(words["warnings"]) == 1 and "there is no" in words["warnings"][0]  # predictions without labels


def test_a_folder_that_is_not_there_is_no_missing_task(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="for labels, is no folder"):
        evaluate("xtreme", tmp_path, tmp_path / "labels")
    (tmp_path / "labels").mkdir()
    outcome = evaluate("xtreme", tmp_path, tmp_path / "labels")
    assert outcome.exit_code == 1 and len(outcome.missing) == 162 and outcome.overall is None


def test_a_question_without_prediction_counts_0_and_is_a_warning(tmp_path: Path) -> None:
    predictions, labels = folders(tmp_path, "xtreme-r")
    put(predictions, "tydiqa", "sw", '{"q1": "warschau"}')
    put(predictions, "mewslix", "ta", "{}")
    outcome = evaluate("xtreme-r", predictions, labels)
    assert outcome.exit_code == 0
    assert outcome.tasks["tydiqa"].languages["sw"] == {"exact_match": 50, "f1": 50}
    assert outcome.tasks["mewslix"].languages["ta"] == {"map@20": 0}
    assert [warning.rpartition("/")[2] for warning in outcome.warnings] == [
        "test-sw.json: q2 has no prediction and counts 0",
        "test-ta.json: m1 has no prediction and counts 0",
        "test-ta.json: m2 has no prediction and counts 0",
    ]


BAD = [
    ("xnli", "de", "entailment\nmaybe\n", ["de.tsv:2: 'maybe' is not one of"]),
    ("xnli", "en", "entailment\n", ["en.tsv: has 1 lines, and the labels", "have 2"]),
    ("xnli", "fr", "entailment\nneutral\n\n", ["has 3 lines", "fr.tsv:3: '' is not"]),
    ("pawsx", "de", "2\n0\n", ["de.tsv:1: '2' is not one of 0, 1"]),
    ("tatoeba", "fr", "1\n2\n", ["fr.tsv:2: '2' is not a row, 0 to 1"]),
    ("tatoeba", "de", "1\n-1\n", ["de.tsv:2: '-1'"]),
    ("udpos", "de", "NOUN\nVERB\nSYM\n", ["de.tsv: has 1 sentences, and the labels", "have 2"]),
    ("udpos", "en", "NOUN\n\nSYM\n", ["en.tsv:1: sentence 1 has 1 tags, and its labels are 2"]),
    ("udpos", "fr", "NOUN\na\tVERB\n\nNOUM\n", ["fr.tsv:2: 'a\\tVERB'", "fr.tsv:4: 'NOUM' is no tag"]),
    ("panx", "de", "B-PER\nI-MISC\n\nO\n", ["de.tsv:2: 'I-MISC' is no tag of panx"]),
    ("bucc2018", "de", "de-1 en-7\n", ["de.tsv:1: 'de-1 en-7' is not <foreign id>TAB<english id>"]),
    ("bucc2018", "fr", "en-7\tfr-1\n", ["fr.tsv:1: 'en-7\\tfr-1' has unknown ids: not fr-... and en-..."]),
    ("xquad", "de", '{\n"q1": "x",\n"q3": "y", "q2": ""\n}', ["de.json:3: the labels have no id 'q3'"]),
    ("xquad", "en", '{"q1": 1897, "q2": null}', ["q1 has 1897, and not a text", "q2 has None"]),
    ("xquad", "ru", '{"q1": "x",\n "q1": "y", "q2": ""}', ["ru.json:1: 'q1' is there more than once"]),
    ("mlqa", "de", '{"q1": "x",\n', ["de.json:2: is no JSON"]),
    ("mlqa", "en", "", ["en.json:1: is no JSON"]),
    ("mlqa", "es", "[]", ["es.json:1: is no JSON object"]),
    ("xcopa", "et", '{"label": "0"}\n{"label": 2}\n', ["et.jsonl:1: the label is '0'", ":2: the label is 2"]),
    ("xcopa", "ht", '{"lable": 0}\n1\n', ["ht.jsonl:1: '{", "ht.jsonl:2: '1' is no JSON object"]),
    ("mewslix", "ar", '{"m1": "Q1", "m2": ["Q2"]}', ["m1 has 'Q1', and not a list of ids"]),
    ("lareqa", "ar", '{"m1": ["c"], "m2": [3], "m9": []}', ["m2 has [3], and not", "no id 'm9'"]),
]  # fmt: skip


@pytest.mark.parametrize(("task", "language", "text", "said"), BAD)
def test_what_is_malformed_is_said_with_file_and_line(
    task: str, language: str, text: str, said: list[str], tmp_path: Path
) -> None:
    outcome = evaluate(suite_of(task), *one_file(tmp_path, task, language, text))
    assert outcome.exit_code == 2
    assert all(any(part in problem for problem in outcome.problems) for part in said), outcome.problems
    assert str(tmp_path / "predictions" / task) in outcome.problems[0]
    assert outcome.overall is None and outcome.tasks == {} and set(outcome.groups.values()) == {None}


@pytest.mark.parametrize(
    ("task", "text", "said"),
    [
        ("xnli", "entailment\nentails\n", "de.tsv:2: 'entails'"),
        ("xnli", "", "labels"),
        ("xquad", '{"data": [{"paragraphs": [{"qas": [{"id": "q1", "answers": []}]}]}]}', "q1 has no gold"),
        ("xquad", '{"data": [{"qas": []}]}', "is not SQuAD's JSON"),
        ("xquad", "7", "is not SQuAD's JSON"),
        ("bucc2018", "", "has no labels"),
    ],
)
def test_malformed_labels_are_told_too(task: str, text: str, said: str, tmp_path: Path) -> None:
    predictions, labels = one_file(tmp_path, task, "de", None)
    put(labels, task, "de", text)
    outcome = evaluate("xtreme", predictions, labels)
    assert outcome.exit_code == 2 and any(said in problem for problem in outcome.problems), outcome.problems


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    predictions, labels = folders(tmp_path, "xtreme")
    put(predictions, "xnli", "de", "yes\nno\nmaybe\n")
    put(predictions, "xquad", "de", '{"q7": "x"}')
    (predictions / "panx" / "test-af.tsv").write_bytes(b"\xff\xfe")
    (predictions / "tatoeba" / "test-af.tsv").unlink()
    outcome = evaluate("xtreme", predictions, labels)
    assert outcome.exit_code == 2 and outcome.missing == (("tatoeba", "af"),)
    assert len([one for one in outcome.problems if "xnli" in one]) == 4
    assert any("no id 'q7'" in one for one in outcome.problems)
    assert any("is not UTF-8" in one for one in outcome.problems)
    words = outcome.to_json()
    assert words["tasks"] == {} and words["problems"] == outcome.problems


def test_lines_end_as_in_python_files(tmp_path: Path) -> None:
    """Windows line ends and a last line without one are no other labels; U+2028 ends no line."""
    predictions, labels = one_file(tmp_path, "xnli", "de", "entailment\r\nneutral")
    put(predictions, "udpos", "de", "NOUN \r\nVERB\r\n\r\nSYM")
    put(labels, "udpos", "de", labels_of("udpos", "de"))
    put(predictions, "xquad", "de", json.dumps({"q1": "War\u2028schau", "q2": "1897"}, ensure_ascii=False))
    put(labels, "xquad", "de", labels_of("xquad", "de"))
    outcome = evaluate("xtreme", predictions, labels)
    assert outcome.problems == []
    assert outcome.tasks["xnli"].languages["de"] == {"accuracy": 100}
    assert outcome.tasks["udpos"].languages["de"]["f1"] == 100
    assert outcome.tasks["xquad"].languages["de"]["exact_match"] == 50


def test_rows_of_a_part_of_tatoeba_are_taken(tmp_path: Path) -> None:
    """XTREME's own example has ten lines whose rows go to 939: no row is too high then."""
    predictions, labels = one_file(tmp_path, "tatoeba", "af", "308\n12\n")
    put(labels, "tatoeba", "af", "308\n441\n")
    outcome = evaluate("xtreme", predictions, labels)
    assert outcome.problems == [] and outcome.tasks["tatoeba"].languages["af"] == {"accuracy": 50}


def test_gold_may_have_tags_that_the_task_has_not(tmp_path: Path) -> None:
    predictions, labels = one_file(tmp_path, "udpos", "de", "_\nVERB\n")
    put(labels, "udpos", "de", "_\n_\n")
    assert evaluate("xtreme", predictions, labels).problems == []


def test_only_twenty_ranks_count(tmp_path: Path) -> None:
    ranked = [f"Q{number}" for number in range(100, 120)] + ["Q1"]
    predictions, labels = one_file(
        tmp_path, "mewslix", "de", json.dumps({"m1": ranked, "m2": ranked[1:19] + ["Q2"]})
    )
    outcome = evaluate("xtreme-r", predictions, labels)
    assert outcome.tasks["mewslix"].languages["de"] == {"map@20": pytest.approx(100 * (0 + 1 / 19) / 2)}
    assert outcome.problems == [] and "m1 lists 21 ids" in outcome.warnings[0]


def test_no_ml_library_is_loaded(whole: tuple[Path, Path]) -> None:
    heavy = "torch transformers datasets ray mlflow boto3 numpy pandas pyarrow"
    code = (
        "import sys, pathlib, xstilts.evaluate.official.formats\n"
        "from xstilts.evaluate.official.evaluator import evaluate\n"
        f"assert evaluate('xtreme', *map(pathlib.Path, sys.argv[1:])).overall == 100\n"
        f"print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    ran = [sys.executable, "-c", code, *map(str, whole)]
    assert subprocess.check_output(ran, text=True).strip() == "[]"


def command() -> typer.Typer:
    app = typer.Typer()
    app.command()(official.evaluate)
    return app


def test_the_command_prints_json_or_a_table(whole: tuple[Path, Path], tmp_path: Path) -> None:
    asked = ["--suite", "xtreme", "--predictions", str(whole[0]), "--labels", str(whole[1])]
    ran = CliRunner().invoke(command(), [*asked, "--json"])
    assert ran.exit_code == 0 and json.loads(ran.stdout)["overall"] == 100
    ran = CliRunner().invoke(command(), asked)
    assert ran.exit_code == 0 and "overall 100.00" in ran.stdout and "36 of 36" in ran.stdout
    broken = one_file(tmp_path, "xnli", "de", "perhaps\n" * 30)
    ran = CliRunner().invoke(command(), ["--predictions", str(broken[0]), "--labels", str(broken[1])])
    assert ran.exit_code == 2 and "and 11 more in" in ran.stderr and "'perhaps'" in ran.stderr
    ran = CliRunner().invoke(
        command(), ["--predictions", str(broken[0]), "--labels", str(broken[1]), "--json"]
    )
    assert len(json.loads(ran.stdout)["problems"]) == 31


def test_the_table_says_what_is_missing(tmp_path: Path) -> None:
    outcome = evaluate("xtreme", *one_file(tmp_path, "xnli", "de", "entailment\nneutral\n"))
    drawn = drawing(outcome)
    assert "overall incomplete" in drawn and "1 of 15" in drawn
    assert "missing: panx\n" in drawn and "missing: xnli in ar, bg, el" in drawn


def drawing(outcome: Outcome) -> str:
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as got:
        console.print(official.table(outcome))
    return "\n".join(line.rstrip() for line in got.get().splitlines()) + "\n"


def suite_of(task: str) -> str:
    return "xtreme" if task in suites.suite("xtreme").tasks else "xtreme-r"


def one_file(root: Path, task: str, language: str, text: str | None) -> tuple[Path, Path]:
    """One language of predictions (None: all right) and its labels."""
    put(root / "labels", task, language, labels_of(task, language))
    right = '{"q1": "x", "q2": "y"}' if layout.LAYOUTS[task].form == "answers" else labels_of(task, language)
    put(root / "predictions", task, language, right if text is None else text)
    return root / "predictions", root / "labels"
