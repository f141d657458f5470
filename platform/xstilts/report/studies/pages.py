"""An answer as files: an interactive page that asks nothing of the network, figures and tables for papers.

study.html              sentence, table, figures with filters; Vega is in it, and a policy forbids loading
study.svg, study.png    the first figure; others under their own names; note and caption stand over each
study.tex               the sentence, every table with booktabs, and every figure, captions under them
study.pdf               the figure that study.tex includes, bare
<table>.csv, study.json the numbers
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import altair
import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Group, RenderableType
from rich.text import Text

from xstilts.errors import StoreError
from xstilts.record.artifacts import ArtifactStore, study_file
from xstilts.report.render import marked
from xstilts.report.studies import catalogue, tables
from xstilts.report.studies.answer import Answer, Figure, Table

LONGEST = 30
"""Rows of a table that fit on a page of paper; what is longer is broken over pages."""
HEADER = 12
"""Letters in a line of a column's name on paper, unless a word is longer."""
FITTING = r"width=\linewidth,height=0.6\textheight,keepaspectratio"
"""Of a figure on paper: the rest of the page is its caption's."""
SCALE = 2.0
"""Pixels of study.png for one of the figure."""
LETTER = 6.0
"""Mean width in pixels of a letter of a printed caption; the widest of the world jobs' captions took 5.6."""
NARROWEST = 60
"""Letters in a line of a printed caption, however narrow the figure."""
FONT = "Helvetica Neue, Arial, Liberation Sans, sans-serif"
LIGHT = {"ink": "#1c2024", "soft": "#5b636b", "line": "#d9d5cc", "mid": "#f3f1ec"}
DARK = {"ink": "#e8eaec", "soft": "#a0a8b0", "line": "#3a4147", "mid": "#23282d"}
OKABE_ITO = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#B8A400"]
"""Okabe & Ito's palette; its black is the text, its yellow is darker here, to be seen on white."""
OKABE_ITO_DARK = ["#56B4E9", "#E69F00", "#2FBF94", "#E59BC5", "#F0E442", "#6C9BFF", "#B0B0B0", "#FF8A4C"]
DIVERGING = (
    ["#E08A3C", "#E6A569", "#ECBF96", "#F1DAC4", "#F7F5F1", "#D0DEEA", "#A9C8E3", "#82B1DC", "#5B9BD5"],
    ["#A8561A", "#874B1F", "#653F23", "#443428", "#23282D", "#253A4D", "#284C6D", "#2A5D8D", "#2C6FAD"],
)
"""Loss to gain in orange and blue, light and dark; text is read on every shade. Nine stops: between three,
Vega goes from orange to grey through purple."""


@dataclass(frozen=True, slots=True)
class Study:
    """An answer and where it was written."""

    answer: Answer
    files: list[Path]


def publish(
    name: str,
    stored: Sequence[tuple[Mapping[str, Any], ArtifactStore]],
    to: Path | None = None,
    words: Sequence[str] = (),
) -> Study:
    """Asks a study of stored plans together, or of published tables where there is none, and writes its files
    into `to`: by default the first job's folder in a local store; NAME-study here for a bucket (kept in the
    bucket too) and for published tables.

    Raises:
        XstiltsError: no such study or option, data that cannot be studied, a folder that cannot be written.
    """
    answer = catalogue.of_plans(name, stored, words) if stored else catalogue.published(name, words)
    folder = to or Path(f"{answer.study}-study")
    if to is not None or not stored:
        return Study(answer, write(answer, folder))
    plan, store = stored[0]
    if "://" not in store.location:
        return Study(answer, write(answer, Path(store.location) / study_file(plan["job"], answer.study, "")))
    files = write(answer, folder)
    before = _written(store.read(study_file(plan["job"], answer.study, "study.json")), answer.study)
    for file in files:
        store.upload(file, study_file(plan["job"], answer.study, file.name))
    for name in sorted(before - {file.name for file in files}):
        store.delete(study_file(plan["job"], answer.study, name))
    return Study(answer, files)


def write(answer: Answer, folder: Path) -> list[Path]:
    """Writes all files into `folder`, making it where needed; the page is first. What the same study had
    written there and this answer has no more (a figure, where it is refused now) is removed.

    Raises:
        StoreError: the folder cannot be written.
    """
    files: dict[str, bytes] = {"study.html": page(answer).encode()}
    for at, figure in enumerate(answer.figures):
        name = _file(at, figure)
        files[f"{name}.svg"] = svg(figure, answer.caption).encode()
        files[f"{name}.png"] = png(figure, answer.caption)
        files[f"{name}.pdf"] = pdf(figure)
    files["study.tex"] = latex(answer).encode()
    files |= {f"{table.name}.csv": table.data.to_csv(index=False).encode() for table in answer.tables}
    files["study.json"] = json.dumps(answer.to_json(), indent=1, ensure_ascii=False).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        former = folder / "study.json"
        before = _written(former.read_bytes() if former.is_file() else None, answer.study)
        for gone in (folder / name for name in before - set(files)):
            if gone.is_file():
                gone.unlink()
        for name, data in files.items():
            (folder / name).write_bytes(data)
    except OSError as problem:
        what = f"the study cannot be written to {folder} ({problem})"
        raise StoreError(what, "choose another folder: --to DIR") from problem
    return [folder / name for name in files]


def _written(former: bytes | None, study: str) -> set[str]:
    """Names of the files that `study` wrote beside this study.json; none where another study, or something
    else, is in it. Only names that `write` gives are among them, whatever the file says."""
    try:
        words = json.loads(former or b"null")
        if words["study"] != study:
            return set()
        files, figures = ([one["name"] for one in words[kind]] for kind in ("tables", "figures"))
    except (ValueError, TypeError, LookupError):
        return set()
    drawn = ["study", *(f"study_{name}" for name in figures[1:])][: len(figures)]
    named = [f"{name}.csv" for name in files]
    named += [f"{name}.{suffix}" for name in drawn for suffix in ("svg", "png", "pdf")]
    return {name for name in named if re.fullmatch(r"\w+\.\w+", name)}


def page(answer: Answer) -> str:
    """The HTML page; everything that comes from outside is escaped."""
    environment = Environment(
        loader=PackageLoader("xstilts.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        shown=tables.shown, numeric=tables.numeric, ordered=tables.ordered, marked=marked
    )
    figures = [{"name": figure.name, "spec": specification(figure)} for figure in answer.figures]
    return environment.get_template("study.html.j2").render(
        answer=answer,
        bundle=_bundle() if figures else "",
        figures=_for_script(figures),
        themes=_for_script({"light": theme(dark=False), "dark": theme(dark=True)}),
    )


def specification(figure: Figure) -> dict[str, Any]:
    """The Vega-Lite words of a figure, without colours of background and text."""
    with altair.data_transformers.enable("default", max_rows=None):
        words: dict[str, Any] = figure.chart.to_dict()
    words.pop("config", None)
    words.pop("$schema", None)
    return words


def svg(figure: Figure, caption: str = "") -> str:
    """The figure as it is printed: light, on nothing, under its title, note and caption where it has one."""
    text: str = vl_convert.vegalite_to_svg(_captioned(figure, caption), config=theme(dark=False))
    return text


def png(figure: Figure, caption: str = "") -> bytes:
    """The same in pixels, on white."""
    config = theme(dark=False) | {"background": "#ffffff"}
    words = _captioned(figure, caption)
    data: bytes = vl_convert.vegalite_to_png(words, config=config, scale=SCALE)
    return data


def pdf(figure: Figure) -> bytes:
    """The figure alone, for LaTeX, which takes no SVG and sets the caption itself."""
    data: bytes = vl_convert.vegalite_to_pdf(specification(figure), config=theme(dark=False))
    return data


def _captioned(figure: Figure, caption: str) -> dict[str, Any]:
    """The figure's words with its title, and its note and the caption as lines under it: a file that leaves
    the page says of itself what its marks are, and of what n, seeds, split and selection. Lines are as long
    as the figure is wide, which is known only once it is drawn."""
    words = specification(figure)
    if not caption:
        return words
    drawn: str = vl_convert.vegalite_to_svg(words, config=theme(dark=False))
    found = re.search(r'<svg[^>]*?\swidth="([0-9.]+)', drawn)
    letters = max(NARROWEST, int(float(found.group(1)) / LETTER) if found else NARROWEST)
    words["title"] = {
        "text": textwrap.wrap(figure.title, letters, break_on_hyphens=False),
        "subtitle": [
            line
            for part in (figure.note.replace("`", "'"), caption)
            for line in textwrap.wrap(part, letters, break_on_hyphens=False)
        ],
        "anchor": "start",
        "frame": "bounds",
        "fontSize": 13,
        "subtitleFontSize": 11,
        "subtitleColor": LIGHT["soft"],
        "offset": 12,
    }
    return words


def theme(dark: bool) -> dict[str, Any]:
    """Vega-Lite's config: colours told apart without seeing red and green, on a light or a dark page."""
    tone = DARK if dark else LIGHT
    words = {"labelColor": tone["ink"], "titleColor": tone["soft"], "titleFontWeight": "normal"}
    return {
        "background": None,
        "font": FONT,
        "axis": {**words, "gridColor": tone["line"], "domainColor": tone["soft"], "tickColor": tone["soft"],
                 "labelFontSize": 12, "titleFontSize": 12, "labelLimit": 260},
        "header": {**words, "labelFontSize": 12, "labelFontWeight": "bold"},
        "legend": {**words, "labelFontSize": 12, "titleFontSize": 12},
        "title": {"color": tone["ink"]},
        "view": {"stroke": tone["line"]},
        "text": {"color": tone["ink"]},
        "rule": {"color": tone["soft"]},
        "tick": {"color": tone["ink"]},
        "bar": {"color": tone["soft"]},
        "line": {"color": tone["ink"]},
        "range": {
            "category": OKABE_ITO_DARK if dark else OKABE_ITO,
            "diverging": DIVERGING[dark],
            "heatmap": {"scheme": "viridis"},
            "ramp": {"scheme": "viridis"},
        },
    }  # fmt: skip


def latex(answer: Answer) -> str:
    """The sentence and the tests as paragraphs, tables with booktabs rules, every figure as a `figure` of its
    PDF; each under the caption that it must not go without."""
    # Names such as world_paraphrase and numbers are not hyphenated: lines need room for wider spaces.
    parts = [r"% \usepackage{booktabs,graphicx,longtable}", r"{\emergencystretch=3em"]
    parts += [_escaped(answer.sentence), ""]
    for test, what in ((answer.primary, "Primary test"), (answer.robustness, "Robustness")):
        if test is not None:
            parts += [_escaped(f"{what}: {test.name}: {test.text}"), ""]
    parts += [r"\par}", ""]
    for table in answer.tables:
        parts += _long(answer, table) if len(table.data) > LONGEST else _short(answer, table)
    for at, figure in enumerate(answer.figures):
        parts += [
            r"\begin{figure}",
            r"\centering",
            rf"\includegraphics[{FITTING}]{{{_file(at, figure)}.pdf}}",
            *_under(answer, f"fig:{answer.study}-{figure.name}", figure.title, figure.note),
            r"\end{figure}",
        ]
    return "\n".join(parts) + "\n"


def _short(answer: Answer, table: Table) -> list[str]:
    """A table that floats, no wider than the text."""
    align, head, lines = _cells(table)
    return [
        r"\begin{table}",
        r"\centering",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{align}}}",
        r"\toprule",
        head,
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}}",
        *_under(answer, *_of(answer, table)),
        r"\end{table}",
    ]


def _long(answer: Answer, table: Table) -> list[str]:
    """A table that is broken over pages, in small letters, under its caption."""
    align, head, lines = _cells(table)
    caption, label = _under(answer, *_of(answer, table))
    return [
        r"{\scriptsize\setlength{\tabcolsep}{3pt}",
        rf"\begin{{longtable}}{{{align}}}",
        rf"{caption}{label} \\",
        r"\toprule",
        head,
        r"\midrule",
        r"\endfirsthead",
        r"\toprule",
        head,
        r"\midrule",
        r"\endhead",
        r"\bottomrule",
        r"\endfoot",
        *lines,
        r"\end{longtable}}",
    ]


def _cells(table: Table) -> tuple[str, str, list[str]]:
    """How columns are aligned, the row of names, and the rows."""
    columns = tables.main(table)
    align = "".join("r" if tables.numeric(table, name) else "l" for name in columns)
    lines = [
        " & ".join(_escaped(tables.shown(name, value)) for name, value in zip(columns, row, strict=True))
        + r" \\"
        for row in table.data[columns].itertuples(index=False, name=None)
    ]
    return align, " & ".join(_stacked(name) for name in columns) + r" \\", lines


def _stacked(name: str) -> str:
    """A column's name, in lines where it is long: a narrower table keeps larger letters."""
    lines = [_escaped(line) for line in textwrap.wrap(name, HEADER, break_long_words=False)]
    stacked = r" \\ ".join(lines)
    return rf"\shortstack{{{stacked}}}" if len(lines) > 1 else stacked


def _of(answer: Answer, table: Table) -> tuple[str, str, str]:
    """Label, title and note of a table on paper."""
    return f"tab:{answer.study}-{table.name}", tables.printed(table), table.note


def _under(answer: Answer, label: str, title: str, note: str) -> list[str]:
    """Caption and label of a float."""
    caption = ". ".join(part.rstrip(".") for part in (title, note, answer.caption) if part)
    return [rf"\caption{{{_escaped(caption)}.}}", rf"\label{{{label}}}".replace("_", "-")]


def _file(at: int, figure: Figure) -> str:
    """Of a figure, without its suffix."""
    return "study" if at == 0 else f"study_{figure.name}"


def terminal(answer: Answer) -> RenderableType:
    """The sentence and the main table, for `rich`."""
    parts: list[RenderableType] = [Text(answer.sentence, style="bold")]
    for test, what in ((answer.primary, "primary"), (answer.robustness, "robustness")):
        if test is not None:
            parts.append(Text(f"{what}: {test.name}: {test.text}"))
    parts += [tables.Fitted(table, answer.caption) for table in answer.tables[:1]]
    if not answer.tables and answer.caption:
        parts.append(Text(answer.caption, style="dim"))
    parts += [Text(f"note: {note}", style="dim") for note in answer.notes]
    return Group(*parts)


def _one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text)


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
    "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$",
    "\u2212": "$-$", "\u2013": "--", "\u00d7": r"$\times$", "\u00b7": r"$\cdot$", "\u00b2": "$^2$", "`": "'",
}  # fmt: skip


def _escaped(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in _one_line(text))


def _for_script(words: Any) -> str:
    """JSON that cannot end the script it stands in."""
    text = json.dumps(words, ensure_ascii=False, allow_nan=False)
    for letter, code in (("<", "\\u003c"), (">", "\\u003e"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        text = text.replace(letter, code)
    return text


@cache
def _bundle() -> str:
    """Vega, Vega-Lite and vega-embed as one script (0.9 MB; making it takes some seconds, once a process)."""
    text: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return text.replace("</script", "<\\/script")
