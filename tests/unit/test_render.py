"""The page: whole, self-contained, and safe with whatever a job file says."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pandas
import pytest
from made_up_job import made

from xstilts.errors import StoreError
from xstilts.report import figures, render, verdict
from xstilts.report.figures import DEEPEST, Axis
from xstilts.report.transfer import transfer
from xstilts.report.verdict import Finding
from xstilts.tasks import languages

VOID = {"meta", "link", "br", "hr", "img", "input", "line", "circle"}


class Shape(HTMLParser):
    """Checks that every element is closed; collects what could be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert tag in VOID or self.open.pop() == tag


def written(tmp_path: Path, **words: object) -> tuple[render.Report, str]:
    plan, store = made(tmp_path, **words)
    report = render.write(plan, store, tmp_path / "out", resamples=200)
    return report, (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_writes_a_page_and_two_tables(tmp_path: Path) -> None:
    report, page = written(tmp_path, gains={("mnli", "xnli"): 0.12}, planted="mnli -> xnli")
    assert [path.name for path in report.files] == ["report.html", "report.csv", "transfer.csv"]
    assert len(pandas.read_csv(report.files[1])) > 100 and "gain" in pandas.read_csv(report.files[2])
    assert report.planted is not None and report.planted.excludes_zero
    assert report.sentence in page and "its interval excludes zero" in page
    assert page.count("<figure") == 6, "one plot for each intermediate and target"
    assert page.count("abc1234") >= 4 and "seeds 1 2 3" in page


def test_the_page_is_well_formed_and_fetches_nothing(tmp_path: Path) -> None:
    _, page = written(tmp_path, seeds=(1,))
    shape = Shape()
    shape.feed(page)
    assert shape.open == [] and shape.fetched == []
    assert not re.search(r"url\(|@import|https?://|fetch\(|XMLHttp", page)
    assert "prefers-color-scheme" in page


def test_what_a_job_file_says_is_escaped(tmp_path: Path) -> None:
    _, page = written(tmp_path, seeds=(1,), question='<script>alert("x")</script> & "more"')
    assert "<script>alert" not in page and "&lt;script&gt;" in page


@pytest.mark.parametrize(
    "words",
    [
        {"intermediates": ("none",)},
        {"intermediates": ("mnli",), "seeds": (1,)},
        {"targets": ("tatoeba",), "seeds": (1, 2)},
        {"languages": ("en",), "seeds": (1,), "targets": ("xnli",)},
        {"unfinished": tuple(f"score-xnli-s{seed}" for seed in (1, 2, 3))},
    ],
)
def test_half_a_job_makes_a_page(tmp_path: Path, words: dict[str, object]) -> None:
    report, page = written(tmp_path, **words)
    assert page.rstrip().endswith("</html>") and report.sentence


def test_the_same_records_give_the_same_bytes(tmp_path: Path) -> None:
    plan, store = made(tmp_path, seeds=(1, 2), targets=("xnli",))
    pages = [render.write(plan, store, tmp_path / name, resamples=200).files[0].read_bytes() for name in "ab"]
    assert pages[0] == pages[1]


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    plan, store = made(tmp_path, seeds=(1,), targets=("xnli",))
    (tmp_path / "out").write_text("a file is in the way")
    with pytest.raises(StoreError, match="cannot be written.*choose another folder"):
        render.write(plan, store, tmp_path / "out")


def test_colour_grows_with_the_gain_and_is_symmetric() -> None:
    depths = [figures.depth(gain, 20.0) for gain in (0.0, 1.0, 5.0, 20.0, 40.0)]
    assert depths == sorted(depths) and depths[0] == 0 and depths[-1] == depths[-2] == DEEPEST
    assert figures.depth(-5.0, 20.0) == figures.depth(5.0, 20.0)


@pytest.mark.parametrize("values", [[50.0], [100.0, 100.0], [0.0], [0.2, 0.4], [3.0, 97.0], [47.1, 58.9]])
def test_an_axis_holds_its_values_within_0_to_100(values: list[float]) -> None:
    scale = figures.axis(values)
    assert scale is not None and 0 <= scale.low <= min(values) and max(values) <= scale.high <= 100
    assert 2 <= len(scale.ticks) <= 7 and scale.ticks[0] == scale.low and scale.ticks[-1] == scale.high
    assert all(0 <= scale.at(value) <= 100 for value in values)


def test_a_mean_that_seeds_leave_open_is_hatched_and_called_unsure(tmp_path: Path) -> None:
    plan, store = made(tmp_path, gains={("mnli", "xnli"): 0.08}, seed_noise=0.08)
    result = transfer(plan, store, resamples=1000, families=True)
    cell = result.cell("mnli", "xnli")
    assert cell is not None and verdict.verdict(cell).finding is Finding.UNSURE and cell.main.side == 1
    tile = figures.tile(cell, cell.main, 10.0)
    assert tile is not None and not tile.clear and "unsure" in tile.notes
    assert f"unsure, other seeds may differ: {cell.main.seeds}" in tile.title
    for line in cell.families:
        shown = figures.tile(cell, line, 10.0)
        sure = verdict.finding_of(cell, line) in (Finding.HELPED, Finding.HURT)
        assert shown is not None and shown.clear is sure, line.name
    for line in cell.languages:
        shown = figures.tile(cell, line, 10.0)
        assert shown is not None and shown.clear is (line.side != 0), "as the verdict counts languages"
    page = render.page(result, "here")
    assert re.search(r'class="tile gain unclear"[^>]*unsure[^>]*><b>[^<]*</b><small>.*?<em>unsure</em>', page)


def test_what_is_hatched_is_what_the_sentence_cannot_tell(tmp_path: Path) -> None:
    plan, store = made(tmp_path, gains={("mnli", "xnli"): 0.3, ("mnli", "panx"): -0.1}, seed_noise=0.05)
    result = transfer(plan, store, resamples=1000)
    tiles = [figures.tile(cell, cell.main, 10.0) for cell in result.compared]
    open_ = sum(not tile.clear for tile in tiles if tile)
    assert 0 < open_ < len(tiles) and f"for {open_} the data cannot tell" in verdict.sentence(result)


def test_languages_of_a_plot_stand_by_family(tmp_path: Path) -> None:
    plan, store = made(
        tmp_path, seeds=(1,), languages=("en", "ar", "de", "sw", "fr", "he"), targets=("panx",)
    )
    result = transfer(plan, store, resamples=200)
    for plot in figures.lollipops(result):
        assert plot.families[0][0] == "Indo-European" and plot.strips[0].language == "en"
        assert len({family for family, _ in plot.families}) == len(plot.families) > 1
        for family, strips in plot.families:
            codes = [strip.language for strip in strips]
            assert {languages.of(code).family for code in codes} == {family}
            assert codes == sorted(codes, key=result.languages.index)
    page = render.page(result, "here")
    assert page.count('<div class="kin" data-family="Indo-European"><p>Indo-European</p>') == len(
        figures.lollipops(result)
    )


def test_backticks_are_code_and_the_finding_stands_before_the_numbers(tmp_path: Path) -> None:
    _, page = written(tmp_path, unfinished=tuple(f"score-xnli-s{seed}" for seed in (1, 2, 3)))
    own = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)
    assert "`" not in own and "no run of <code>none</code>" in own
    assert own.index('class="what">finding</th>') < own.index('class="n">score</th>')
    assert render.marked("a `b` <c>") == "a <code>b</code> &lt;c&gt;"


def test_positions_stay_inside_the_figure() -> None:
    scale = Axis(20.0, 60.0, (20.0, 40.0, 60.0))
    assert [scale.at(value) for value in (0.0, 20.0, 40.0, 90.0)] == [0.0, 0.0, 50.0, 100.0]
