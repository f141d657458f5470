"""The transfer page below its heat map: one target by language family and language, one cell by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xstilts.dashboards.links import Links
from xstilts.report import figures
from xstilts.report.transfer import Cell, Line, Transfer, family_of
from xstilts.report.verdict import points


@dataclass(frozen=True, slots=True)
class Column:
    """One language or one language family of a small heat map."""

    name: str
    title: str
    family: str
    source: bool = False


@dataclass(frozen=True, slots=True)
class Map:
    """A small heat map: rows of the job by language or by language family."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, tuple[figures.Tile | None, ...]], ...]


@dataclass(frozen=True, slots=True)
class Spread:
    """One line of a cell: its gain, and where each seed's lies. Positions are percent of the width."""

    line: Line
    name: str
    family: str
    kind: str
    """mean | family | language."""
    tone: str
    seeds: tuple[tuple[float, str], ...]
    """(position, title), one a seed."""
    low: float | None
    high: float | None
    """Ends of the interval over items."""
    at: float | None


@dataclass(frozen=True, slots=True)
class Detail:
    """One cell, opened."""

    cell: Cell
    plot: figures.Lollipops | None
    spreads: tuple[Spread, ...]
    largest: float
    """Points at either end of the axis, whose middle is zero."""
    runs: tuple[tuple[int, str], ...]
    """(seed, its run in MLflow)."""


def target_cells(result: Transfer, target: str) -> list[Cell]:
    """The compared cells of one target."""
    return [cell for cell in result.compared if cell.target == target]


def by_language(result: Transfer, target: str) -> Map:
    """A column a language: the source first, then by how well the row `none` does there."""
    cells = target_cells(result, target)
    there = {line.name for cell in cells for line in cell.languages}
    columns = tuple(
        Column(code, figures.name_of(code), family_of(code), any(code == cell.source for cell in cells))
        for code in result.languages
        if code in there
    )
    lines = {id(cell): {line.name: line for line in cell.languages} for cell in cells}
    return _map(result, cells, columns, lines)


def by_family(result: Transfer, target: str) -> Map:
    """A column a language family, over its zero-shot languages."""
    cells = target_cells(result, target)
    first = cells[0].families if cells else ()
    columns = tuple(
        Column(line.name or "no family", f"mean over {' '.join(line.languages)}", line.name) for line in first
    )
    lines = {id(cell): {line.name or "no family": line for line in cell.families} for cell in cells}
    return _map(result, cells, columns, lines)


def detail(result: Transfer, cell: Cell, links: Links) -> Detail:
    """A cell with everything that is known of it."""
    plots = figures.lollipops(result)
    plot = next((p for p in plots if (p.intermediate, p.target) == (cell.intermediate, cell.target)), None)
    lines = [("mean", cell.main), *(("family", line) for line in cell.families)]
    lines += [("language", line) for line in _in_order(result, cell)]
    largest = _largest([line for _, line in lines])
    runs = tuple((seed, links.cell(cell.intermediate, cell.target, seed)) for seed in cell.seeds)
    spreads = tuple(_spread(cell, kind, line, largest) for kind, line in lines)
    return Detail(cell, plot, spreads, largest, tuple(run for run in runs if run[1]))


def _map(
    result: Transfer, cells: Sequence[Cell], columns: tuple[Column, ...], lines: dict[int, dict[str, Line]]
) -> Map:
    largest = figures.top(result)
    rows = tuple(
        (cell, tuple(figures.tile(cell, lines[id(cell)].get(each.name), largest) for each in columns))
        for cell in cells
    )
    return Map(columns, rows)


def _in_order(result: Transfer, cell: Cell) -> list[Line]:
    lines = {line.name: line for line in cell.languages}
    return [lines[code] for code in result.languages if code in lines]


def _largest(lines: Sequence[Line]) -> float:
    """The end of the axis: the largest gain or end of an interval, rounded up."""
    values = [abs(gain) for line in lines for gain in line.per_seed]
    values += [abs(end) for line in lines if line.items for end in (line.items.low, line.items.high)]
    most = max(values, default=1.0)
    return next((step for step in figures.STEPS if step >= most), most)


def _spread(cell: Cell, kind: str, line: Line, largest: float) -> Spread:
    def at(value: float) -> float:
        return round(50 + 50 * max(-1.0, min(1.0, value / largest)), 2)

    zero_shot = "all zero-shot languages" if cell.zero_shot else "all languages"
    names = {"mean": zero_shot, "family": line.name or "no family"}
    # Which seed a gain is of is known where no seed lacks anything.
    named = len(line.per_seed) == len(cell.seeds)
    words = [f"seed {seed}" for seed in cell.seeds] if named else ["a seed"] * len(line.per_seed)
    return Spread(
        line=line,
        name=names.get(kind) or figures.name_of(line.name),
        family=line.name if kind == "family" else family_of(line.name) if kind == "language" else "",
        kind=kind,
        tone="flat" if line.side == 0 else ("gain" if line.side > 0 else "loss"),
        seeds=tuple(
            (at(gain), f"{word}: {points(gain)}") for gain, word in zip(line.per_seed, words, strict=True)
        ),
        low=at(line.items.low) if line.items else None,
        high=at(line.items.high) if line.items else None,
        at=at(line.gain) if line.gain is not None else None,
    )
