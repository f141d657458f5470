"""The report as files: one HTML page that asks nothing of the network, and two tables.

report.html     the answer, heat maps, plots, every interval, methods, where it comes from
report.csv      the frame, one row a score
transfer.csv    one row a gain, with both intervals
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from rich.console import RenderableType

from xstilts.errors import StoreError
from xstilts.record.artifacts import ArtifactStore
from xstilts.report import figures, frame, intervals, standing, terminal, verdict
from xstilts.report.transfer import BASE, REFERENCE, Cell, Transfer, tidy, transfer


@dataclass(frozen=True, slots=True)
class Report:
    """What was written, and what to say about it."""

    sentence: str
    """The answer."""
    terminal: RenderableType
    """The tables, for `rich`."""
    files: list[Path]
    planted: verdict.Planted | None
    """What became of the planted gain, where the job plants one."""


def write(
    plan: Mapping[str, Any], store: ArtifactStore, out: Path, resamples: int = intervals.RESAMPLES
) -> Report:
    """Writes the three files into the folder `out`, making it where needed.

    Raises:
        StoreError: a record is damaged, or `out` cannot be written.
    """
    known = frame.records(plan, store)
    table = frame.frame(plan, store, known)
    result = transfer(plan, store, table, known, resamples)
    standings = standing.standings(plan, table)
    pages = {
        "report.html": page(result, store.location, standings),
        "report.csv": table.to_csv(index=False),
        "transfer.csv": tidy(result).to_csv(index=False),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in pages.items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as problem:
        what = f"the report cannot be written to {out} ({problem})"
        raise StoreError(what, "choose another folder") from problem
    said = verdict.sentence(result)
    shown, files = terminal.summary(result, standings), [out / name for name in pages]
    return Report(said, shown, files, verdict.planted(result))


def page(result: Transfer, location: str, standings: Sequence[standing.Standing] = ()) -> str:
    """The HTML page; everything that comes from outside is escaped."""
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            **drawn(result),
            by_language=_by_language(result, figures.top(result)),
            standings=standings,
            plots=figures.lollipops(result),
            rows=[row for row in (BASE, REFERENCE) if any(cell.intermediate == row for cell in result.cells)],
            collapsed=sum(cell.collapsed for cell in result.cells),
            incomplete=sum(bool(cell.missing) for cell in result.cells),
            resamples=f"{result.resamples:,}",
            location=location,
        )
    )


def environment(*packages: str) -> Environment:
    """What renders templates: those of `packages` first, then the report's; everything is escaped."""
    names = (*packages, "xstilts.report")
    made = Environment(
        loader=ChoiceLoader([PackageLoader(name, "templates") for name in names]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(
        points=verdict.points, name_of=figures.name_of, verdict=verdict.verdict, marked=marked
    )
    return made


def marked(text: str) -> Markup:
    """Escaped, with what stands between backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def drawn(result: Transfer) -> dict[str, Any]:
    """What a page of this table begins with: the answer in words, the heat map, what can be hidden."""
    largest = figures.top(result)
    return {
        "result": result,
        "sentence": verdict.sentence(result),
        "planted": verdict.planted(result),
        "caption": terminal.caption(result),
        "heat": _heat(result, largest),
        "legend": _legend(largest),
        "shown": _shown(result),
    }


def _heat(result: Transfer, largest: float) -> list[tuple[str, list[tuple[str, figures.Tile | None]]]]:
    """Rows of (intermediate, [(target, tile)])."""
    cells = {(cell.intermediate, cell.target): cell for cell in result.compared}
    return [
        (row, [(target, _main(cells.get((row, target)), largest)) for target in result.targets])
        for row in result.intermediates
    ]


def _main(cell: Cell | None, largest: float) -> figures.Tile | None:
    return figures.tile(cell, cell.main, largest) if cell else None


def _by_language(result: Transfer, largest: float) -> list[tuple[str, list[tuple[Cell, dict[str, Any]]]]]:
    """(target, [(cell, language -> tile)]), of targets that have anything to show."""
    blocks = []
    for target in result.targets:
        cells = [cell for cell in result.compared if cell.target == target]
        rows = [
            (cell, {line.name: figures.tile(cell, line, largest) for line in cell.languages})
            for cell in cells
        ]
        if rows:
            blocks.append((target, rows))
    return blocks


def _legend(largest: float) -> list[tuple[str, str, float]]:
    """(text, tone, depth) of the swatches, from the largest loss to the largest gain."""
    steps = (-1.0, -0.5, -0.1, 0.0, 0.1, 0.5, 1.0)
    return [
        (
            verdict.points(step * largest),
            "gain" if step > 0 else "loss",
            figures.depth(step * largest, largest),
        )
        for step in steps
    ]


def _shown(result: Transfer) -> dict[str, list[tuple[str, str]]]:
    """What can be shown or hidden: kind -> [(value, words)]."""
    return {
        "intermediate": [(name, name) for name in result.intermediates],
        "target": [(name, name) for name in result.targets],
        "language": [(code, figures.name_of(code)) for code in result.languages],
    }
