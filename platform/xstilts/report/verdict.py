"""What the numbers say, in plain words. A gain is claimed only when its interval leaves zero out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from xstilts.report.transfer import BASE, Cell, Line, Transfer


class Finding(StrEnum):
    """What can be said of one cell."""

    HELPED = "helped"
    HURT = "hurt"
    UNSURE = "unsure"
    """The item interval leaves zero out, the one over seeds does not."""
    NO_DIFFERENCE = "no difference"
    NEAR_CHANCE = "near chance"
    """Neither the row nor `none` can be told from guessing."""
    NOTHING = "not scored"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A finding and the sentence for it."""

    finding: Finding
    text: str


@dataclass(frozen=True, slots=True)
class Planted:
    """Whether the gain that is true by construction was found."""

    intermediate: str
    target: str
    excludes_zero: bool
    """By the item interval of the main mean, and on the side of a gain."""
    text: str


def verdict(cell: Cell) -> Verdict:
    """The finding of a cell of an intermediate task."""
    line = cell.main
    if line.gain is None:
        why = f"no run of `{BASE}` to compare with" if line.score is not None else "not scored yet"
        return Verdict(Finding.NOTHING, why)
    finding = finding_of(cell, line)
    return Verdict(finding, _sentence(cell, line, finding) + _caveats(cell))


def planted(result: Transfer) -> Planted | None:
    """What became of the planted gain; None when the job plants none."""
    intermediate, arrow, target = (part.strip() for part in result.planted.partition("->"))
    if not arrow:
        return None
    cell = result.cell(intermediate, target)
    line = cell.main if cell else None
    if line is None or line.items is None or line.gain is None:
        return Planted(intermediate, target, False, f"planted gain {result.planted}: not scored yet")
    found = line.items.side > 0
    text = (
        f"planted gain {intermediate} -> {target}: {points(line.gain)} {line.items}; "
        f"its interval {'excludes' if found else 'does not exclude'} zero"
    )
    if line.seeds is not None:
        text += f" (over seeds {line.seeds}: {'excludes' if line.seeds.side > 0 else 'holds'} zero)"
    return Planted(intermediate, target, found, text)


def sentence(result: Transfer) -> str:
    """The answer to the job's question, in one or two sentences."""
    found = {(cell.intermediate, cell.target): (cell, verdict(cell)) for cell in result.compared}
    scored = [(cell, said) for cell, said in found.values() if said.finding is not Finding.NOTHING]
    if not scored:
        return "No intermediate task has been compared with `none` yet."
    helped = [cell for cell, said in scored if said.finding is Finding.HELPED]
    hurt = [cell for cell, said in scored if said.finding is Finding.HURT]
    pairs = "1 pair" if len(scored) == 1 else f"{len(scored)} pairs"
    text = f"Of {pairs} of intermediate and target task, {len(helped)} gained and {len(hurt)} lost"
    text += f"; for {len(scored) - len(helped) - len(hurt)} the data cannot tell."
    for word, cells, sign in (("Largest gain", helped, 1), ("Largest loss", hurt, -1)):
        if cells:
            best = max(cells, key=lambda cell: sign * (cell.main.gain or 0.0))
            text += f" {word}: {best.intermediate} \u2192 {best.target}, "
            text += f"{points(best.main.gain)} {best.main.items}"
            text += " points zero-shot." if best.zero_shot else " points."
    unscored = len(found) - len(scored)
    return text + (f" {unscored} more not scored yet." if unscored else "")


def points(value: float | None) -> str:
    """A signed number of points with one decimal; a dash for nothing."""
    if value is None:
        return "\u2013"
    shown = f"{value:+.1f}"
    return "0.0" if shown in ("+0.0", "-0.0") else shown.replace("-", "\u2212")


def finding_of(cell: Cell, line: Line) -> Finding:
    """The finding of one line of a cell that has a gain: both intervals have to leave zero out."""
    side = line.side
    if side == 0:
        guessing = cell.near_chance(line) and cell.base_near_chance(line)
        return Finding.NEAR_CHANCE if guessing else Finding.NO_DIFFERENCE
    if line.seeds is not None and line.seeds.side != side:
        return Finding.UNSURE
    return Finding.HELPED if side > 0 else Finding.HURT


def _sentence(cell: Cell, line: Line, finding: Finding) -> str:
    size = f"{points(line.gain)} points" + (f" {line.items}" if line.items else "")
    seeds = len(line.per_seed)
    runs = "1 seed" if seeds == 1 else f"{seeds} seeds"
    if finding in (Finding.HELPED, Finding.HURT):
        among = [each for each in cell.languages if each.name in line.languages and each.gain is not None]
        side = 1 if finding is Finding.HELPED else -1
        moved = sum(each.side == side for each in among)
        text = f"{finding} in {moved} of {len(among)} languages, {size} on average"
        return text + (" (1 seed: another may differ)" if seeds == 1 else "")
    if finding is Finding.UNSURE:
        return f"{size} with these {runs}, which differ too much ({line.seeds}) to promise it of another"
    if finding is Finding.NEAR_CHANCE:
        scores = f"{line.score:.1f} and {line.base:.1f}, guessing {cell.chance:.1f}"
        return f"near chance with and without ({scores})"
    if line.items is None:
        return f"{size}; no item statistics, so no interval"
    return f"no difference that {runs} could show, {size}"


def _caveats(cell: Cell) -> str:
    words = []
    if cell.collapsed or cell.base_collapsed:
        words.append(f"collapsed runs: {cell.collapsed} here, {cell.base_collapsed} of `{BASE}`")
    if cell.missing:
        words.append(f"incomplete, lacks {', '.join(cell.missing)}")
    return "".join(f"; {word}" for word in words)
