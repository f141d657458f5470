"""Where things go and what colour they are in the page's figures; the templates draw them.

Positions are percent of a figure's width, so that the same figure fits a phone and a wide screen.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xstilts.errors import UnknownName
from xstilts.report.transfer import REFERENCE, Cell, Line, Transfer, family_of
from xstilts.report.verdict import Finding, finding_of, points
from xstilts.tasks import languages

DEEPEST = 80
"""Percent of full colour that the largest gain gets: dark and light text keep a contrast of 4 there."""
STEPS = (1.0, 2.0, 5.0, 10.0, 20.0, 25.0, 50.0, 100.0)
TICKS = 5


@dataclass(frozen=True, slots=True)
class Tile:
    """One square of a heat map."""

    text: str
    interval: str
    depth: float
    """0..DEEPEST, percent of the tone's colour."""
    tone: str
    """gain, loss or flat."""
    clear: bool
    """Whether a gain or loss is claimed; the others are hatched. Of a mean by its verdict, of a single
    language by the interval over items, which is how the verdict counts languages."""
    notes: tuple[str, ...]
    title: str


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale of scores in percent."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def at(self, value: float) -> float:
        """Where `value` is, in percent of the width, kept inside."""
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(max(share, 0.0), 1.0), 2)


@dataclass(frozen=True, slots=True)
class Strip:
    """One language of a lollipop plot: the row `none`, the row, and the gain's interval."""

    language: str
    name: str
    family: str
    """Language family; "" for none known."""
    source: bool
    base: float
    score: float
    low: float | None
    high: float | None
    """Ends of the item interval of the gain, put on the score of `none`."""
    reference: float | None
    """The row `untrained`."""
    tone: str
    text: str
    title: str


@dataclass(frozen=True, slots=True)
class Lollipops:
    """One row of the job on one target."""

    intermediate: str
    target: str
    axis: Axis
    chance: float | None
    families: tuple[tuple[str, tuple[Strip, ...]], ...]
    """The source language's family first, the others by how well the row `none` does in their best language;
    languages in that order too."""

    @property
    def strips(self) -> tuple[Strip, ...]:
        """All of them, in the order in which they are drawn."""
        return tuple(strip for _, strips in self.families for strip in strips)


def name_of(code: str) -> str:
    """A language's English name, or its code where it is not registered."""
    try:
        return languages.of(code).name
    except UnknownName:
        return code


def top(result: Transfer) -> float:
    """The gain, in points, at which colour is deepest: the largest one, rounded up."""
    lines = (line for cell in result.compared for line in (*cell.languages, cell.main))
    largest = max((abs(line.gain) for line in lines if line.gain is not None), default=1.0)
    return next((step for step in STEPS if step >= largest), STEPS[-1])


def depth(gain: float, largest: float) -> float:
    """Colour grows with the square root of the gain: 1 point is seen beside 50."""
    return round(DEEPEST * math.sqrt(min(abs(gain) / largest, 1.0)), 1)


def tile(cell: Cell | None, line: Line | None, largest: float) -> Tile | None:
    """The square of one line; None where there is no gain to show."""
    if cell is None or line is None or line.gain is None:
        return None
    tone = "gain" if line.gain > 0 else "loss"
    found = finding_of(cell, line)
    unsure = found is Finding.UNSURE
    sure = found in (Finding.HELPED, Finding.HURT) or (unsure and line.name in line.languages)
    notes = [found.value] if unsure and not sure else []
    notes += [f"{cell.collapsed} collapsed"] if cell.collapsed else []
    notes += ["incomplete"] if cell.missing else []
    notes += ["near chance"] if cell.near_chance(line) and cell.base_near_chance(line) else []
    return Tile(
        text=points(line.gain),
        interval=str(line.items or ""),
        depth=depth(line.gain, largest),
        tone=tone,
        clear=sure,
        notes=tuple(notes),
        title=_title(cell, line),
    )


def lollipops(result: Transfer) -> list[Lollipops]:
    """One plot a compared cell; the plots of one target share an axis."""
    plots = []
    for target in result.targets:
        cells = [cell for cell in result.compared if cell.target == target]
        reference = result.cell(REFERENCE, target)
        shown = [*cells, reference] if reference else cells
        scale = axis(_values(shown))
        if scale is not None:
            plots += [_plot(result, cell, reference, scale) for cell in cells]
    return [plot for plot in plots if plot.strips]


def axis(values: Iterable[float]) -> Axis | None:
    """About five round ticks around `values`, within 0..100; None for no values."""
    found = list(values)
    if not found:
        return None
    wide = max(max(found) - min(found), 1.0)
    step = next(step for step in STEPS if wide / step <= TICKS)
    low = max(0.0, math.floor(min(found) / step) * step)
    high = min(100.0, math.ceil(max(found) / step) * step)
    if high <= low:
        low, high = (low - step, high) if low >= 100 else (low, low + step)
    ticks = tuple(low + step * i for i in range(round((high - low) / step) + 1))
    return Axis(low, high, ticks)


def _values(cells: Sequence[Cell]) -> list[float]:
    found: list[float] = []
    for cell in cells:
        for line in cell.languages:
            found += [value for value in (line.score, line.base) if value is not None]
            if line.items is not None and line.base is not None and cell.intermediate != REFERENCE:
                found += [line.base + line.items.low, line.base + line.items.high]
    return found


def _plot(result: Transfer, cell: Cell, reference: Cell | None, scale: Axis) -> Lollipops:
    beside = {line.name: line.score for line in reference.languages} if reference else {}
    lines = {line.name: line for line in cell.languages}
    families: dict[str, list[Strip]] = {}
    for code in result.languages:
        strip = _strip(cell, lines[code], beside.get(code), scale) if code in lines else None
        if strip is not None:
            families.setdefault(strip.family, []).append(strip)
    shown = cell.chance is not None and scale.low <= cell.chance <= scale.high
    return Lollipops(
        intermediate=cell.intermediate,
        target=cell.target,
        axis=scale,
        chance=scale.at(cell.chance) if shown and cell.chance is not None else None,
        families=tuple((family, tuple(strips)) for family, strips in families.items()),
    )


def _strip(cell: Cell, line: Line, beside: float | None, scale: Axis) -> Strip | None:
    if line.score is None or line.base is None or line.gain is None:
        return None
    return Strip(
        language=line.name,
        name=name_of(line.name),
        family=family_of(line.name),
        source=line.name == cell.source,
        base=scale.at(line.base),
        score=scale.at(line.score),
        low=scale.at(line.base + line.items.low) if line.items else None,
        high=scale.at(line.base + line.items.high) if line.items else None,
        reference=scale.at(beside) if beside is not None else None,
        tone="flat" if line.side == 0 else ("gain" if line.side > 0 else "loss"),
        text=points(line.gain),
        title=_title(cell, line),
    )


def _title(cell: Cell, line: Line) -> str:
    where = {"zero_shot": "mean over zero-shot languages", "all": "mean over all languages"}
    text = f"{cell.intermediate} \u2192 {cell.target}, {where.get(line.name) or name_of(line.name)}: "
    text += f"{line.base:.1f} \u2192 {line.score:.1f} {cell.metric}, gain {points(line.gain)}"
    text += f" {line.items}" if line.items else ""
    text += f", sd over seeds {line.spread:.1f}" if line.spread is not None else ""
    unsure = finding_of(cell, line) is Finding.UNSURE
    return text + (f"; unsure, other seeds may differ: {line.seeds}" if unsure else "")
