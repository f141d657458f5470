"""The report as it is read in a terminal: the answer, the table, one verdict a cell."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from xstilts.report.standing import Standing
from xstilts.report.transfer import BASE, REFERENCE, Cell, Line, Transfer
from xstilts.report.verdict import Finding, planted, points, sentence, verdict

STYLES = {Finding.HELPED: "green", Finding.HURT: "red", Finding.UNSURE: "yellow"}
WIDEST = 10
"""Languages that a table of 100 columns has room for."""


def summary(result: Transfer, standings: Sequence[Standing] = ()) -> Group:
    """What a run prints at its end."""
    parts: list[RenderableType] = [Text(sentence(result), style="bold")]
    plant = planted(result)
    if plant is not None:
        parts.append(Text(plant.text, style="green" if plant.excludes_zero else "yellow"))
    parts.append(_table(result))
    if standings:
        parts.append(_suite(result, standings))
    if result.compared and len(result.languages) <= WIDEST:
        parts.append(_by_language(result))
    parts.append(_verdicts(result))
    return Group(*parts)


def caption(result: Transfer) -> str:
    """What every table must say of itself."""
    cells = result.cells
    seeds = sorted({seed for cell in cells for seed in cell.seeds})
    splits = ", ".join(sorted({cell.split for cell in cells if cell.split})) or "-"
    chosen = ", ".join(sorted({cell.selection for cell in cells if cell.selection})) or "-"
    return (
        f"job {result.job} ({result.digest}) \u00b7 split {splits} \u00b7 seeds {_list(seeds)} \u00b7 "
        f"selection {chosen} \u00b7 commit {result.commit}"
    )


def _table(result: Transfer) -> Table:
    table = Table(
        title=f"Gain over `{BASE}`, mean over zero-shot languages, with 95 % intervals over items",
        caption=caption(result),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("intermediate", no_wrap=True)
    for target in result.targets:
        table.add_column(f"{target}\n{_about(result, target)}", justify="right")
    table.add_row(f"{BASE} (score)", *(_score(result, BASE, target) for target in result.targets))
    if any(cell.intermediate == REFERENCE for cell in result.cells):
        beside = (_score(result, REFERENCE, target) for target in result.targets)
        table.add_row(f"{REFERENCE} (score)", *beside, style="dim")
    table.add_section()
    for row in result.intermediates:
        table.add_row(row, *(_gain(result.cell(row, target)) for target in result.targets))
    return table


def _suite(result: Transfer, standings: Sequence[Standing]) -> Table:
    names = [*standings[0].groups, *standings[0].tasks]
    notes = [
        f"* incomplete: lacks {line}" for line in sorted({one for row in standings for one in row.missing})
    ]
    notes += [f"\u2020 {line}" for line in sorted({one for row in standings for one in row.notes})]
    table = Table(
        title="The suite, mean over all its languages",
        caption="\n".join([caption(result), *notes]),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("intermediate", no_wrap=True)
    for name in ("overall", *names):
        table.add_column(name, justify="right")
    for one in standings:
        shown = [*one.groups.values(), *one.tasks.values()]
        table.add_row(one.intermediate, str(one.overall), *map(str, shown))
    return table


def _by_language(result: Transfer) -> Table:
    table = Table(title="Gain by language (bold: the item interval leaves zero out)", title_justify="left")
    table.add_column("target")
    table.add_column("intermediate")
    for language in result.languages:
        table.add_column(language, justify="right")
    for cell in sorted(result.compared, key=lambda cell: result.targets.index(cell.target)):
        lines = {line.name: line for line in cell.languages}
        shown = (_small(lines.get(language)) for language in result.languages)
        table.add_row(cell.target, cell.intermediate, *shown)
    return table


def _verdicts(result: Transfer) -> Table:
    table = Table.grid(padding=(0, 2))
    for cell in result.compared:
        said = verdict(cell)
        style = STYLES.get(said.finding, "")
        table.add_row(Text(f"{cell.intermediate} \u2192 {cell.target}", style=style), Text(said.text))
    return table


def _about(result: Transfer, target: str) -> str:
    cell = next(cell for cell in result.cells if cell.target == target)
    return f"{cell.metric}, n {cell.main.n}"


def _score(result: Transfer, row: str, target: str) -> str:
    cell = result.cell(row, target)
    if cell is None or cell.main.score is None:
        return "\u2013"
    return f"{cell.main.score:.1f}" + (" (near chance)" if cell.near_chance(cell.main) else "") + _marks(cell)


def _gain(cell: Cell | None) -> Text:
    if cell is None or cell.main.gain is None:
        return Text("\u2013")
    line = cell.main
    text = f"{points(line.gain)} {line.items or ''}" + _marks(cell)
    if line.spread is not None:
        text += f"\nseeds sd {line.spread:.1f}" + (f" {line.seeds}" if line.seeds else "")
    return Text(text, style=STYLES.get(verdict(cell).finding, ""))


def _marks(cell: Cell) -> str:
    words = [f"{cell.collapsed} collapsed"] if cell.collapsed else []
    words += ["incomplete"] if cell.missing else []
    words += ["chosen on target dev"] if "target_dev" in cell.selection else []
    return f" ({', '.join(words)})" if words else ""


def _small(line: Line | None) -> Text:
    if line is None or line.gain is None:
        return Text("")
    return Text(points(line.gain), style="bold" if line.side else "dim")


def _list(seeds: list[int]) -> str:
    return " ".join(str(seed) for seed in seeds) or "-"
