"""An answer as files: everything of the page is in the page, figures parse, tables have booktabs rules."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pandas
import pytest
from made_up_job import made, opens
from study_frames import Frame
from typer.testing import CliRunner

from xstilts.cli.main import app
from xstilts.errors import StoreError, UnknownName, XstiltsError
from xstilts.report.studies import catalogue, hierarchy, pages, persistence, tables
from xstilts.report.studies.answer import Answer, Table, TooLittle, p_value, refusal

NASTY = "a < b & `none` </script><script>alert(1)</script> 50% of $x_1$"
PLAIN = Frame(main={"mnli": 3.0, "ccg": -2.0}, collapsed=(("mnli", "xnli", 2),))


class Shape(HTMLParser):
    """Collects what could be fetched, and the text of tables."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.scripts += tag == "script"


@pytest.fixture(scope="module")
def answers() -> dict[str, Answer]:
    new = Frame(main={"mnli": 2.0}, targets={**PLAIN.targets, "xcopa": "et ht id it qu sw ta th tr vi zh"})
    return {
        "hierarchy": hierarchy.answer(PLAIN.gains(1), permutations=100, draws=3),
        "persistence": persistence.answer(new.gains(1), draws=100),
    }


@pytest.mark.parametrize("name", ["hierarchy", "persistence"])
def test_files_are_whole(answers: dict[str, Answer], name: str, tmp_path: Path) -> None:
    answer = answers[name]
    files = {file.name: file for file in pages.write(answer, tmp_path / "out")}
    assert {"study.html", "study.svg", "study.png", "study.pdf", "study.tex", "study.json"} <= set(files)
    for table in answer.tables:
        assert list(pandas.read_csv(files[f"{table.name}.csv"]).columns) == list(table.data.columns)
    drawn = ElementTree.parse(files["study.svg"]).getroot()
    assert drawn.tag.endswith("svg") and len(list(drawn.iter("{http://www.w3.org/2000/svg}path"))) > 10
    assert files["study.png"].read_bytes().startswith(b"\x89PNG")
    assert files["study.pdf"].read_bytes().startswith(b"%PDF")
    words = json.loads(files["study.json"].read_text(encoding="utf-8"))
    assert words["primary"]["p"] == answer.primary.p and words["sentence"] == answer.sentence  # type: ignore[union-attr]
    latex = files["study.tex"].read_text(encoding="utf-8")
    for rule in (r"\toprule", r"\midrule", r"\bottomrule"):
        assert latex.count(rule) == len(answer.tables)
    floats = len(answer.tables) + len(answer.figures)
    assert latex.count("commit abc1234") == floats, "no table and no figure without its caption"
    body = [line for line in latex.splitlines() if not line.startswith("%")]
    assert body[1] == pages._escaped(answer.sentence), "the sentence is printed, not a comment"
    drawn_files = re.findall(r"\\includegraphics\[[^\]]+\]\{([^}]+)\}", latex)
    assert len(drawn_files) == len(answer.figures) and set(drawn_files) <= set(files)
    for printed in (files["study.svg"].read_text(encoding="utf-8"),):
        assert "commit abc1234" in _text(printed) and "collapsed runs" in _text(printed)
    assert not re.search(r"(?<!\\)[_&%#](?![^\n]*usepackage)", _cells(latex)), "unescaped"


def _text(drawn: str) -> str:
    """What is written in an SVG, lines of one text joined."""
    words = ("".join(part.itertext()) for part in ElementTree.fromstring(drawn).iter())
    return " ".join(" ".join(words).split())


def _cells(latex: str) -> str:
    """Text of cells, without the marks that LaTeX needs."""
    rows = [line[: -len(r" \\")] for line in latex.splitlines() if line.endswith(r"\\")]
    return "\n".join(cell for row in rows for cell in re.split(r"(?<!\\)&", row))


@pytest.mark.parametrize("name", ["hierarchy", "persistence"])
def test_the_page_asks_nothing_of_the_network(answers: dict[str, Answer], name: str) -> None:
    text = pages.page(answers[name])
    shape = Shape()
    shape.feed(text)
    assert shape.fetched == [] and shape.scripts == 2
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text
    own = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"https?://|url\(|@import", own)
    figures = text.rpartition("<script>")[2]
    assert "http" not in figures, "no data and no schema from elsewhere"
    assert text.count("collapsed runs") >= len(answers[name].tables) + len(answers[name].figures)


def test_what_comes_from_outside_is_escaped(answers: dict[str, Answer], tmp_path: Path) -> None:
    table = Table("t", NASTY, pandas.DataFrame({"x_1": [NASTY], "p": [0.0]}), NASTY)
    figure = dataclasses.replace(answers["hierarchy"].figures[0], title=NASTY, alt=NASTY)
    answer = Answer("s", NASTY, NASTY, "v", tables=(table,), figures=(figure,), caption=NASTY, notes=(NASTY,))
    text = pages.page(answer)
    assert text.count("<script>") == 2 and "alert(1)</script>" not in text and "<code>none</code>" in text
    latex = pages.latex(answer)
    assert r"50\% of \$x\_1\$" in latex and "$<$0.0001" in latex
    pages.write(answer, tmp_path)


def test_a_wide_table_has_its_main_columns_on_paper_and_a_long_one_is_broken_over_pages(
    answers: dict[str, Answer],
) -> None:
    wide = pandas.DataFrame([range(12)], columns=[f"c{n}" for n in range(12)])
    long = pandas.DataFrame({"language": [f"l{n}" for n in range(pages.LONGEST + 1)]})
    tables = (Table("wide", "Wide", wide), Table("long", "Long", long))
    latex = pages.latex(dataclasses.replace(answers["hierarchy"], tables=tables))
    assert "c7" in latex and "c8" not in latex and "Wide (4 more columns in wide.csv)" in latex
    assert latex.count(r"\begin{table}") == 1 and latex.count(r"\begin{longtable}") == 1
    assert latex.count(r"l30 \\") == 1 and latex.count("commit abc1234") == 2 + len(
        answers["hierarchy"].figures
    )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
@pytest.mark.parametrize("name", ["hierarchy", "persistence"])
def test_latex_takes_it(answers: dict[str, Answer], name: str, tmp_path: Path) -> None:
    rows = pandas.concat([answers[name].tables[0].data.iloc[:, :3]] * 30)
    many = Table("many", answers[name].tables[0].title, rows, answers[name].tables[0].note)
    answer = dataclasses.replace(answers[name], tables=(*answers[name].tables, many))
    pages.write(answer, tmp_path)
    preamble = r"\documentclass{article}\usepackage{booktabs,graphicx,longtable}"
    words = preamble + r"\begin{document}\input{study.tex}\end{document}"
    (tmp_path / "paper.tex").write_text(words, encoding="utf-8")
    made = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
    done = subprocess.run(made, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout and "Float too large" not in done.stdout


def test_a_printed_figure_carries_its_caption_in_lines(answers: dict[str, Answer]) -> None:
    figure = answers["persistence"].figures[0]
    plain, long = pages.svg(figure), pages.svg(figure, "seeds 1 2 3, commit abc1234. " * 12)
    width, before = (
        float(ElementTree.fromstring(drawn).attrib["width"].removesuffix("px")) for drawn in (long, plain)
    )
    assert width <= max(before, pages.NARROWEST * 8) * 1.1, "wrapped, so that it does not widen the figure"
    assert "abc1234" in _text(long) and "abc1234" not in _text(plain)
    assert pages.png(figure, "caption") != pages.png(figure)
    assert "subtitle" not in json.dumps(pages.specification(figure)), "the page has it as text"


def test_a_refusal_has_a_page_and_no_p(tmp_path: Path) -> None:
    answer = refusal("hierarchy", "Which?", TooLittle("2 tasks", "3 tasks"), "job j")
    files = {file.name for file in pages.write(answer, tmp_path)}
    assert files == {"study.html", "study.tex", "study.json"}
    text = (tmp_path / "study.html").read_text(encoding="utf-8")
    assert "2 tasks" in text and "3 tasks" in text and "p =" not in text and "<script" not in text


def test_numbers_as_people_read_them() -> None:
    assert [tables.shown("gain", value) for value in (-0.001, -1.5, float("nan"), None, 3, "x")] == [
        "0.00", "\u22121.50", "\u2013", "\u2013", "3", "x"
    ]  # fmt: skip
    assert [tables.shown("p", value) for value in (0.0, 0.0004, 0.0312)] == ["<0.0001", "0.0004", "0.031"]
    assert (p_value(0.0), p_value(0.0312), p_value(0.0005)) == ("p < 0.0001", "p = 0.031", "p = 0.0005")


def test_words_become_options() -> None:
    assert catalogue.options("hierarchy", ["by=script", "permutations=500"]) == {
        "by": "script",
        "permutations": 500,
    }
    for word, said in (
        ("bye=script", "did you mean 'by'"),
        ("by", "OPTION=VALUE"),
        ("seed=x", "whole number"),
    ):
        with pytest.raises(XstiltsError, match=said):
            catalogue.options("hierarchy", [word])
    for word in ("fractions=1", "nested=yes"):
        with pytest.raises(XstiltsError, match="not set by hand"):
            catalogue.options("data_scaling", [word])
    with pytest.raises(UnknownName, match="hierarchy"):
        catalogue.options("hirarchy", [])


def test_what_cannot_be_set_by_hand_is_no_option() -> None:
    for study, word, said in (
        ("hierarchy", "xyz=1", "named 'xyz': choose among by, permutations, draws, seed$"),
        ("data_scaling", "xyz=1", "choose among seed$"),
        ("consistency", "xyz=1", "choose among draws, seed$"),
        ("model_scaling", "sizes=1", "sizes is not set by hand: it comes from the jobs"),
        ("similarity", "measures=1", "not set by hand"),
        ("similarity", "gains=1", "not set by hand"),
    ):
        with pytest.raises(XstiltsError, match=said):
            catalogue.options(study, [word])


def test_help_lists_the_options_of_every_study(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    told = CliRunner().invoke(app, ["study", "--help"]).output
    for name in catalogue.STUDIES:
        assert f"{name}: {catalogue.defaults(name)}" in told
    assert "hierarchy: by=family permutations=2000 draws=200 seed=0" in told and "margin=1 " in told
    assert "similarity: extra= seed=0 (with --published: extra)" in told
    assert "fractions" not in told and "measures" not in told and "nested" not in told


def test_options_are_kept_with_every_answer(tmp_path: Path) -> None:
    answer = catalogue.run("hierarchy", PLAIN.gains(1), {"by": "script", "permutations": 100, "draws": 3})
    pages.write(answer, tmp_path)
    words = json.loads((tmp_path / "study.json").read_text(encoding="utf-8"))
    assert words["facts"]["options"] == {"by": "script", "permutations": 100, "draws": 3, "seed": 0}
    refused = catalogue.run("data_scaling", PLAIN.gains(1), {"fractions": {}, "nested": True})
    assert refused.refused and refused.facts["options"] == {"seed": 0}
    assert catalogue.published("similarity").facts["options"] == {"extra": []}


@pytest.mark.parametrize("name", ["persistence", "data_scaling", "model_scaling", "hierarchy", "consistency"])
def test_a_job_that_is_not_done_is_refused_with_what_is_missing(name: str) -> None:
    """Nothing but `none` is scored yet, or nothing at all: what helps is to run the job."""
    rows, targets = Frame().rows, Frame().targets
    undone = tuple((row, target, seed) for row in rows for target in targets for seed in (1, 2, 3))
    for more in ((), tuple(("none", target, seed) for target in targets for seed in (1, 2, 3))):
        gains = Frame(missing=(*undone, *more)).gains(1)
        refused = catalogue.run(name, gains).refused
        assert f"{gains.unscored} scores are still missing" in refused and gains.unscored >= 700
        assert "`xstilts run JOB` makes" in refused
    assert "missing" not in catalogue.run(name, Frame(seeds=(1,), rows=("ccg",)).gains(1)).refused


def test_a_name_that_is_not_scored_yet_is_not_called_wrong_alone() -> None:
    gains = Frame(missing=tuple((row, "panx", seed) for row in Frame().rows for seed in (1, 2, 3))).gains(1)
    with pytest.raises(UnknownName, match="192 scores are still missing .`xstilts run JOB`"):
        catalogue.run("persistence", gains, {"new_tasks": ("panx",)})
    with pytest.raises(UnknownName, match="shows them all|choose among") as caught:
        catalogue.run("persistence", PLAIN.gains(1), {"new_tasks": ("zz",)})
    assert "missing" not in str(caught.value)


def test_a_remedy_is_a_command_to_type_or_names_to_choose_among() -> None:
    assert str(UnknownName.among("x", "zz", ["a", "b"])) == "no x named 'zz': choose among a, b"
    assert str(UnknownName.among("x", "zz", ["a"], "ls")) == "no x named 'zz': `ls` shows them all"


@pytest.mark.parametrize(
    ("study", "word", "said"),
    [
        ("hierarchy", "permutations=0", "permutations is 0"),
        ("hierarchy", "draws=99", "draws is 99"),
        ("persistence", "draws=-1", "draws is -1"),
        ("similarity", "seed=-1", "seed is -1"),
        ("persistence", "margin=inf", "finite"),
        ("persistence", "margin=nan", "finite"),
        ("persistence", "margin=-3", "above zero"),
        ("persistence", "margin=0", "above zero"),
        ("select", "target_cost=0", "above zero"),
        ("hierarchy", "by=near=de+fr far=xx", "'xx'"),
        ("hierarchy", "by=junk=", "no languages"),
        ("hierarchy", "by=near=de+fr far=ta,te", "no languages"),
        ("persistence", "new_languages=de,zz", "'zz'"),
    ],
)
def test_values_out_of_range_are_refused_by_name(study: str, word: str, said: str) -> None:
    with pytest.raises(XstiltsError, match=said):
        catalogue.options(study, [word])


def test_values_at_the_end_of_their_range_are_taken() -> None:
    words = ["by=near=de+fr far=ta+te", "draws=100", "permutations=100", "seed=0"]
    assert catalogue.options("hierarchy", words)["draws"] == 100
    assert catalogue.options("persistence", ["margin=0.25"]) == {"margin": 0.25}
    assert catalogue.options("select", ["intermediate_cost=0"]) == {"intermediate_cost": 0.0}


@pytest.mark.parametrize("name", catalogue.STUDIES)
def test_every_study_says_what_published_tables_can(name: str) -> None:
    answer = catalogue.published(name)
    assert answer.study == name and answer.sentence and answer.question
    assert answer.refused or answer.tables


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up job's store; the commands see its plan."""
    rows = ("none", "mnli", "squad_v1", "hellaswag")
    gains = {("mnli", target): 0.15 for target in ("xnli", "panx", "tatoeba")}
    spoken = ("en", "de", "fr", "es", "bg", "ar", "hi", "th", "tr")
    plan, store = made(tmp_path, intermediates=rows, languages=spoken, gains=gains, seed_noise=0.01)
    opens(monkeypatch, plan, store)
    return Path(store.location) / "jobs" / plan["job"] / "studies"


def test_the_command_answers_and_writes_beside_the_job(job: Path) -> None:
    words = [
        "--set",
        "by=near=de+fr+es+bg far=ar+hi+th+tr",
        "--set",
        "permutations=100",
        "--set",
        "draws=100",
    ]
    ran = CliRunner().invoke(app, ["study", "hierarchy", "job.yaml", *words])
    assert ran.exit_code == 0, ran.output
    assert "study.html" in ran.stdout and (job / "hierarchy" / "study.svg").is_file()
    assert "mnli" in ran.stdout and "interaction" in ran.stdout
    told = CliRunner().invoke(app, ["study", "hierarchy", "job.yaml", "--json", *words])
    assert json.loads(told.stdout)["tables"][0]["rows"][0]["intermediate"] == "mnli"


def test_item_statistics_are_read_for_single_tasks(job: Path, tmp_path: Path) -> None:
    words = ["--set", "new_tasks=tatoeba", "--set", "draws=100", "--to", str(tmp_path / "here")]
    ran = CliRunner().invoke(app, ["study", "persistence", "job.yaml", *words])
    assert ran.exit_code == 0, ran.output
    table = pandas.read_csv(tmp_path / "here" / "tasks.csv")
    assert table["items low"].notna().all() and (table["items low"] < table.gain).all()


def test_the_command_refuses_with_exit_1(job: Path) -> None:
    ran = CliRunner().invoke(app, ["study", "persistence", "job.yaml"])
    assert ran.exit_code == 1 and "neither a new task nor a new language" in ran.output
    words = json.loads((job / "persistence" / "study.json").read_text(encoding="utf-8"))
    assert words["refused"] and words["primary"] is None
    for bad in (["study", "hierarchy"], ["study", "hierarchy", "job.yaml", "--published"]):
        assert isinstance(CliRunner().invoke(app, bad).exception, XstiltsError)


def test_a_folder_that_cannot_be_written(answers: dict[str, Answer], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--to DIR"):
        pages.write(refusal("s", "q", TooLittle("a", "b")), tmp_path / "file")
