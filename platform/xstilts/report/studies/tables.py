"""A table's cells as people read them, the columns that come first, and a table as wide as a terminal."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table as Drawn
from rich.text import Text

from xstilts.report.studies.answer import LEAST_P, Table

WIDEST = 8
"""Columns that are the main ones where a table does not name them: on paper there is room for no more."""
WORD = 24
"""Letters of a word that is not broken in a terminal, such as `world_similarity_tasks`."""
GAP = 2
"""Spaces between two columns in a terminal."""


def shown(name: str, value: Any) -> str:
    """A value as people read it: two decimals, a p-value never as zero, a dash for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)) or str(value) == "<NA>":
        return "\u2013"
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        if name == "p" or name.startswith("p "):
            return (
                f"<{LEAST_P:.4f}" if value < LEAST_P else f"{value:.4f}" if value < 0.01 else f"{value:.3f}"
            )
        text = f"{value:.2f}" if abs(value) < 1000 else f"{value:,.0f}"
        return ("0.00" if text == "-0.00" else text).replace("-", "\u2212")
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def numeric(table: Table, name: str) -> bool:
    """Whether a column holds numbers, which are aligned to the right."""
    return bool(table.data[name].dtype.kind in "iuf")


def main(table: Table) -> list[str]:
    """The columns that are shown where there is no room for all."""
    return list(table.main) or [str(name) for name in table.data.columns][:WIDEST]


def ordered(table: Table) -> list[str]:
    """Every column, the main ones first."""
    first = main(table)
    return [*first, *(str(name) for name in table.data.columns if name not in first)]


def titled(table: Table, left_out: int) -> str:
    """The title, and where the columns are that it stands over a table without."""
    what = "column" if left_out == 1 else "columns"
    return f"{table.title} ({left_out} more {what} in {table.name}.csv)" if left_out else table.title


def printed(table: Table) -> str:
    """The title where only the main columns are shown."""
    return titled(table, len(table.data.columns) - len(main(table)))


@dataclass(frozen=True, slots=True)
class Fitted:
    """A table with as many columns as a terminal is wide, the main ones first; long words are folded, none is
    cut. A text that all rows share is said once, below."""

    table: Table
    caption: str

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns, same = self._columns()
        cells = {name: [shown(name, value) for value in self.table.data[name]] for name in columns}
        wide = _widths({name: [name, *cells[name]] for name in columns}, options.max_width)
        said = [f"{', '.join(names)}: {value}" for value, names in same.items()]
        drawn = Drawn(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, GAP - 1, 0, 0), pad_edge=False)
        for name, width in wide.items():
            right = numeric(self.table, name)
            drawn.add_column(Text(name), justify="right" if right else "left", overflow="fold", width=width)
        for row in zip(*(cells[name] for name in wide), strict=True):
            drawn.add_row(*(Text(cell) for cell in row))
        # The table's own title and caption would be folded to its width, which may be a third of the line.
        yield Text(titled(self.table, len(columns) - len(wide)), style="table.title")
        yield drawn
        below = ("; ".join(said), self.table.note, self.caption)
        yield Text("\n".join(part for part in below if part), style="table.caption")

    def _columns(self) -> tuple[list[str], dict[str, list[str]]]:
        """Columns to show; and text that is the same in every row, with the columns that say it. The first
        column tells rows apart."""
        data, (first, *names) = self.table.data, ordered(self.table)
        same: dict[str, list[str]] = {}
        for name in names:
            if len(data) > 1 and not numeric(self.table, name) and data[name].nunique(dropna=False) == 1:
                same.setdefault(shown(name, data[name].iloc[0]), []).append(name)
        told = {name for each in same.values() for name in each}
        return [first, *(name for name in names if name not in told)], same


def _widths(words: dict[str, list[str]], room: int) -> dict[str, int]:
    """How wide each column is, of as many as fit into `room`. A column needs its longest word; what is left
    goes to those that would be wider, the narrowest want first."""
    least = {name: min(WORD, _longest(" ".join(texts).split())) for name, texts in words.items()}
    most = {name: _longest(texts) for name, texts in words.items()}
    fit: dict[str, int] = {}
    for name, width in least.items():
        if fit and sum(fit.values()) + GAP * len(fit) + width > room:
            break
        fit[name] = min(width, room)
    left = room - sum(fit.values()) - GAP * (len(fit) - 1)
    for name in sorted(fit, key=lambda name: most[name] - fit[name]):
        more = min(max(left, 0), most[name] - fit[name])
        fit[name], left = fit[name] + more, left - more
    return fit


def _longest(texts: list[str]) -> int:
    return max(map(len, texts), default=1)
