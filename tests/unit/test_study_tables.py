"""Tables of a study where there is no room for all columns, and what a study leaves where it writes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import altair
import pandas
import pytest
from rich.console import Console
from typer.testing import CliRunner

from xstilts.cli.main import app
from xstilts.errors import XstiltsError
from xstilts.report.studies import catalogue, pages
from xstilts.report.studies.answer import Answer, Figure, Table, TooLittle, refusal

LONG = ["world_model_scaling_32 (pretrained here)", "a_name_of_more_letters_than_a_line_is_given_here"]
WIDE = pandas.DataFrame(
    {"model": LONG, "task": ["world_paraphrase"] * 2, "empty": [None, None]}
    | {f"number {n}": [-10.5 - n, 1000.25] for n in range(12)}
    | {"p": [0.0312, 0.0]}
)


def answer(table: Table) -> Answer:
    return Answer("s", "Why?", "Because.", "v", tables=(table,), caption="n 2")


def printed(table: Table, width: int) -> str:
    console = Console(width=width)
    with console.capture() as caught:
        console.print(pages.terminal(answer(table)))
    return caught.get()


def test_no_word_is_cut_and_columns_are_as_many_as_fit() -> None:
    table = Table("wide", "Wide", WIDE, "a note")
    narrow, wide = printed(table, 80), printed(table, 400)
    for text, width in ((narrow, 80), (wide, 400)):
        assert "\u2026" not in text and max(map(len, text.splitlines())) <= width
        assert "task: world_paraphrase; empty: \u2013" in text, "what all rows share is said once"
    first = "".join(line[:24].strip() for line in narrow.splitlines())
    assert "world_model_scaling_32" in narrow and LONG[1] in first, "folded, not cut"
    shown = narrow.count("1,000")
    assert 4 <= shown < 12 and f"({13 - shown} more columns in wide.csv)" in narrow
    assert wide.count("1,000") == 12 and "more column" not in wide and "<0.0001" in wide


def test_the_smallest_terminal_has_the_first_column() -> None:
    text = printed(Table("wide", "Wide", WIDE), 10)
    assert "world_mode" in text and "13 more" in " ".join(text.split())


def test_main_columns_come_first_everywhere(tmp_path: Path) -> None:
    table = Table("wide", "Wide", WIDE, main=("model", "p", "number 11"))
    latex = pages.latex(answer(table))
    head = next(line for line in latex.splitlines() if line.startswith("model &"))
    assert head == r"model & p & number 11 \\" and "Wide (13 more columns in wide.csv)" in latex
    assert r"0.031 & $-$21.50 \\" in latex
    page = pages.page(answer(table))
    names = [part.partition("</th>")[0].rpartition(">")[2] for part in page.split("<th ")[1:]]
    assert names[:5] == ["model", "p", "number 11", "task", "empty"] and len(names) == len(WIDE.columns)
    row = page.partition("<tbody>")[2].partition("</tr>")[0]
    assert row.index("0.031") < row.index("\u221221.50") < row.index("world_paraphrase")
    assert "p  " in printed(table, 60).partition("\u2500")[0]
    pages.write(answer(table), tmp_path)
    assert list(pandas.read_csv(tmp_path / "wide.csv").columns) == list(WIDE.columns), "the CSV is as it was"
    with pytest.raises(ValueError, match="no columns"):
        Table("wide", "Wide", WIDE, main=("model", "q"))


def test_long_names_of_columns_are_stacked_on_paper() -> None:
    table = Table("t", "T", pandas.DataFrame({"low, both right": [1.0], "x_1 of a & b": [2.0]}))
    assert r"\shortstack{low, both \\ right} & x\_1 of a \& b \\" in pages.latex(answer(table))


DRAWN = altair.Chart(pandas.DataFrame({"x": [1, 2]})).mark_point().encode(x="x:Q")
SHOWN = Answer(
    "hierarchy", "Which?", "That one.", "v", caption="n 2",
    tables=(Table("ranks", "R", WIDE), Table("targets", "T", WIDE)),
    figures=(Figure("ranks", "R", DRAWN, "alt", "grey bars: over `none`"), Figure("gains", "G", DRAWN, "")),
)  # fmt: skip
REFUSED = refusal("hierarchy", "Which?", TooLittle("2 tasks", "3 tasks"))


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_what_an_answer_has_no_more_is_removed_and_nothing_else(tmp_path: Path) -> None:
    pages.write(SHOWN, tmp_path)
    mine = {"notes.csv", "study_ranks.svg", "study_mine.png", "paper.tex"}
    for name in mine:
        (tmp_path / name).write_text("mine")
    first = dataclasses.replace(SHOWN, figures=SHOWN.figures[:1], tables=SHOWN.tables[:1])
    left = {file.name for file in pages.write(first, tmp_path)}
    assert names(tmp_path) == left | mine and "targets.csv" not in left and "study_gains.svg" not in left
    assert {file.name for file in pages.write(REFUSED, tmp_path)} == {"study.html", "study.tex", "study.json"}
    assert names(tmp_path) == {"study.html", "study.tex", "study.json"} | mine


@pytest.mark.parametrize(
    "former",
    [
        b"", b"no json", b"[1]", b'{"study": "hierarchy"}', b"\xff",
        b'{"study": "similarity", "tables": [{"name": "mine"}], "figures": []}',
        b'{"study": "hierarchy", "tables": [{"name": "../mine"}, {"name": "a/mine"}], "figures": [1]}',
        b'{"study": "hierarchy", "tables": [{"name": "../out/mine"}, {"name": ""}], "figures": []}',
    ],
)  # fmt: skip
def test_only_names_of_the_same_study_are_removed(tmp_path: Path, former: bytes) -> None:
    folder = tmp_path / "out"
    (folder / "a").mkdir(parents=True)
    kept = [tmp_path / "mine.csv", folder / "mine.csv", folder / "a" / "mine.csv", folder / "study.svg"]
    for file in kept:
        file.write_text("mine")
    (folder / "study.json").write_bytes(former)
    pages.write(REFUSED, folder)
    assert all(file.read_text() == "mine" for file in kept)
    assert json.loads((folder / "study.json").read_bytes())["refused"]


class Bucket:
    """As much of a store as keeps a study."""

    location = "s3://bucket/x"

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        return self.held.get(name)

    def upload(self, source: Path, name: str) -> None:
        self.held[name] = source.read_bytes()

    def delete(self, name: str) -> None:
        self.held.pop(name, None)


def test_a_bucket_keeps_no_former_answer_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bucket = Bucket()
    for found in (SHOWN, REFUSED):
        monkeypatch.setattr(catalogue, "of_plans", lambda *_, found=found: found)
        made = pages.publish("hierarchy", [({"job": "j"}, bucket)])  # type: ignore[list-item]
        assert {name.rpartition("/")[2] for name in bucket.held} == {file.name for file in made.files}
    assert "jobs/j/studies/hierarchy/study.json" in bucket.held and len(bucket.held) == 3


def test_a_printed_figure_explains_its_marks() -> None:
    drawn = "".join(pages.svg(SHOWN.figures[0], "n 2").split())
    assert "greybars:over'none'" in drawn and drawn.index("greybars") < drawn.index(">n2<")
    assert "greybars" not in "".join(pages.svg(SHOWN.figures[0]).split()), "the page has it as text"


def test_to_is_a_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for to, said in (("", "empty"), (" ", "empty"), ("s3://bucket/x", "address"), ("gs://b", "address")):
        problem = CliRunner().invoke(app, ["study", "persistence", "--published", "--to", to]).exception
        assert isinstance(problem, XstiltsError) and said in str(problem), (to, problem)
    assert list(tmp_path.iterdir()) == []
    ran = CliRunner().invoke(app, ["study", "persistence", "--published"])
    assert ran.exit_code == 1 and names(tmp_path) == {"persistence-study"}, "as README says"
