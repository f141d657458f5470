"""The values that every study returns: an answer with its tests, tables and figures, or why there is none.

A study is a function `answer(gains, **options) -> Answer`. Where the data are too few it raises `TooLittle`
before any test is made; `refusal` turns that into an answer which says what is missing and holds no p-value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas

from xstilts.errors import XstiltsError
from xstilts.report.intervals import Interval

REFUSED = "not enough data"
"""The verdict of an answer that has none; studies may also give it where a test cannot decide."""
LEAST_P = 1e-4


class TooLittle(XstiltsError):
    """Data that cannot answer a question. `problem`: what is missing; `remedy`: how much would be enough."""

    def unfinished(self, unscored: int) -> TooLittle:
        """The same of jobs that lack so many scores: those may be all that it takes."""
        if not unscored:
            return self
        first = "the missing scores, which `xstilts run JOB` makes; where they are not enough, "
        return TooLittle(f"{self.problem}; {missing(unscored)}", first + self.remedy, self.where)


@dataclass(frozen=True, slots=True)
class Test:
    """One test of a study, as it was pre-stated, and what came out."""

    __test__: ClassVar[bool] = False  # pytest takes classes called Test... for its own
    name: str
    """ "Kendall's W, permutation of families"."""
    statistic: float | None
    value: float | None
    """The effect, in the unit that `text` names."""
    interval: Interval | None
    p: float | None
    n: Mapping[str, int]
    """What was counted, such as {"tasks": 9, "languages": 40, "seeds": 3}."""
    text: str
    """One sentence: what was compared, what follows."""

    def to_json(self) -> dict[str, Any]:
        """Plain values; an interval is its two ends."""
        ends = [self.interval.low, self.interval.high] if self.interval else None
        return {
            "name": self.name,
            "statistic": number(self.statistic),
            "value": number(self.value),
            "interval": ends and [number(end) for end in ends],
            "p": number(self.p),
            "n": {name: int(count) for name, count in self.n.items()},
            "text": self.text,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """A table; `pages` writes it as HTML, LaTeX, CSV and for a terminal."""

    name: str
    """Of its files: letters, digits and underscores."""
    title: str
    data: pandas.DataFrame
    """Column names are what people read; the index is not shown. Numbers stay numbers."""
    note: str = ""
    main: tuple[str, ...] = ()
    """Columns that are shown where there is no room for all, in this order: what the note and the caption
    speak of. The first eight where none is named."""

    def __post_init__(self) -> None:
        gone = [name for name in self.main if name not in self.data]
        if gone:
            raise ValueError(f"table {self.name} has no columns {gone}")


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """A figure; `pages` writes it interactive, as SVG and as PNG."""

    name: str
    title: str
    chart: Any
    """An Altair chart without colours of background, axes and text of its own: `pages` sets them for light
    and dark."""
    alt: str
    """What is to be seen, for who cannot see it."""
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a study says: a sentence, then a table, then a figure, and how sure it is."""

    study: str
    question: str
    sentence: str
    verdict: str
    """A word or three: "persists", "consistent"; `REFUSED` where the data are too few."""
    primary: Test | None = None
    robustness: Test | None = None
    tables: tuple[Table, ...] = ()
    """The first is the main one."""
    figures: tuple[Figure, ...] = ()
    caption: str = ""
    """Stands under every table and figure: n, seeds, split, selection, commit, collapsed runs."""
    refused: str = ""
    """ "" or what is missing and how much would be enough."""
    notes: tuple[str, ...] = ()
    """What has to be said beside the answer: limits, exclusions, how it was computed."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """More for study.json: options and numbers that no table has."""

    def to_json(self) -> dict[str, Any]:
        """What study.json holds; figures are named, not drawn."""
        return {
            "study": self.study,
            "question": self.question,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "refused": self.refused,
            "primary": self.primary.to_json() if self.primary else None,
            "robustness": self.robustness.to_json() if self.robustness else None,
            "tables": [
                {"name": table.name, "title": table.title, "note": table.note, "rows": rows(table.data)}
                for table in self.tables
            ],
            "figures": [
                {"name": figure.name, "title": figure.title, "alt": figure.alt} for figure in self.figures
            ],
            "caption": self.caption,
            "notes": list(self.notes),
            "facts": dict(self.facts),
        }


def refusal(
    study: str, question: str, why: TooLittle, caption: str = "", notes: tuple[str, ...] = ()
) -> Answer:
    """The answer where there are too few data: says what is missing, tests nothing."""
    said = f"Not enough data to answer: {why.problem}. Enough would be: {why.remedy}."
    return Answer(study, question, said, REFUSED, caption=caption, refused=str(why), notes=notes)


def missing(unscored: int) -> str:
    """ "12 scores are still missing"."""
    return f"{unscored:,} score{' is' if unscored == 1 else 's are'} still missing"


def p_value(p: float) -> str:
    """ "p = 0.013", "p < 0.0001"."""
    if p < LEAST_P:
        return f"p < {LEAST_P:.4f}"
    return f"p = {p:.3f}" if p >= 0.001 else f"p = {p:.4f}"


def number(value: float | None) -> float | None:
    """A number that JSON has: neither NaN nor infinite."""
    return float(value) if value is not None and math.isfinite(value) else None


def rows(data: pandas.DataFrame) -> list[dict[str, Any]]:
    """A table's rows as plain values; None where there is none."""
    return [{str(name): _plain(value) for name, value in row.items()} for row in data.to_dict("records")]


def _plain(value: Any) -> Any:
    if isinstance(value, Interval):
        return [number(value.low), number(value.high)]
    if value is None or value is pandas.NA:
        return None
    if hasattr(value, "item"):
        value = value.item()
    return number(value) if isinstance(value, float) else value
