"""The transfer table: intermediate x target, gain over the row `none`, per language and on average.

Points come from the frame, intervals from item statistics. `untrained` is a row for reference, never
compared as if it were an intermediate task.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import pandas

from xstilts.errors import UnknownName
from xstilts.frozen import stream
from xstilts.record.artifacts import ArtifactStore
from xstilts.report import clusters, frame, intervals
from xstilts.report.intervals import Interval, Resampled
from xstilts.tasks import kinds, languages, metrics, registry
from xstilts.tasks.task import Family, Task

BASE = "none"
REFERENCE = "untrained"


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the job in one language, or on average over several. Percent; None where not scored."""

    name: str
    """Language code; "zero_shot" or "all" for means."""
    languages: tuple[str, ...]
    n: int
    """Items a run, summed over languages."""
    score: float | None
    """Mean over seeds."""
    score_interval: Interval | None
    base: float | None
    """The same of the row `none`."""
    base_interval: Interval | None
    gain: float | None
    """Mean over seeds of score minus that of `none` with the same seed, in points."""
    items: Interval | None
    """Of the gain, by bootstrap over items."""
    per_seed: tuple[float, ...]
    """One gain a seed, in the order of seeds."""

    @property
    def seeds(self) -> Interval | None:
        """Of the gain, over seeds; from three of them on."""
        return intervals.over_seeds(self.per_seed)

    @property
    def spread(self) -> float | None:
        """Standard deviation of the gain over seeds, in points."""
        return float(numpy.std(self.per_seed, ddof=1)) if len(self.per_seed) > 1 else None

    @property
    def side(self) -> int:
        """1 when the gain's item interval lies above zero, -1 below, else 0."""
        return self.items.side if self.items else 0


@dataclass(frozen=True, slots=True)
class Cell:
    """One row of the job on one target."""

    intermediate: str
    target: str
    metric: str
    split: str
    selection: str
    source: str
    """The language the target is trained in; it is not zero-shot."""
    chance: float | None
    """Percent by guessing, where known."""
    seeds: tuple[int, ...]
    """Those scored."""
    collapsed: int
    """Seeds of this row with a collapsed run behind them; they stay in the mean."""
    base_collapsed: int
    missing: tuple[str, ...]
    """What is not there, in words; () when the cell is whole."""
    languages: tuple[Line, ...]
    zero_shot: Line | None
    """Mean over all languages but the source; None when there is no other."""
    every: Line
    families: tuple[Line, ...] = ()
    """Means over the zero-shot languages of one language family each, where `transfer` was asked for them."""

    @property
    def main(self) -> Line:
        """What the cell is judged by: the zero-shot mean where there is one."""
        return self.zero_shot or self.every

    def near_chance(self, line: Line) -> bool:
        """Whether guessing cannot be ruled out: the score's interval reaches down to chance."""
        return _reaches(line.score_interval, self.chance)

    def base_near_chance(self, line: Line) -> bool:
        """The same of the row `none`."""
        return _reaches(line.base_interval, self.chance)


@dataclass(frozen=True, slots=True)
class Transfer:
    """Everything a report says, before it is drawn."""

    job: str
    digest: str
    model: str
    created: str
    question: str
    planted: str
    """ "intermediate -> target" that gains by construction; "" when nothing is planted."""
    intermediates: tuple[str, ...]
    """Rows that are compared: neither `none` nor `untrained`."""
    targets: tuple[str, ...]
    languages: tuple[str, ...]
    """Source first, then by how well the row `none` does there, best first."""
    cells: tuple[Cell, ...]
    """Every row of the job on every target, `none` and `untrained` included."""
    provenance: dict[str, list[str]]
    resamples: int
    """Of the bootstrap."""

    def cell(self, intermediate: str, target: str) -> Cell | None:
        """The cell of this row and target, None when the job has none."""
        found = (c for c in self.cells if (c.intermediate, c.target) == (intermediate, target))
        return next(found, None)

    @property
    def compared(self) -> tuple[Cell, ...]:
        """Cells of intermediate tasks, which have a gain; none is defined under a variant's protocol."""
        return tuple(
            cell
            for cell in self.cells
            if cell.intermediate in self.intermediates and not registry.task(cell.target).variant_of
        )

    @property
    def commit(self) -> str:
        """The commits that made the results, or a dash."""
        return ", ".join(self.provenance.get("commit", [])) or "-"


def transfer(
    plan: Mapping[str, Any],
    store: ArtifactStore,
    table: pandas.DataFrame | None = None,
    known: frame.Records | None = None,
    resamples: int = intervals.RESAMPLES,
    families: bool = False,
) -> Transfer:
    """The transfer table of a stored plan; `table` and `known` save reading the records again.

    With `families`, cells also have means over language families.

    Raises:
        StoreError: a record or its item statistics are damaged.
        UnknownName: a target is not registered here.
    """
    known = frame.records(plan, store) if known is None else known
    table = frame.frame(plan, store, known) if table is None else table
    rows = tuple(dict.fromkeys(cell["intermediate"] for cell in plan["cells"]))
    targets = tuple(dict.fromkeys(cell["target"] for cell in plan["cells"]))
    with tempfile.TemporaryDirectory(prefix="xstilts-report-") as scratch:
        runs = frame.items(plan, store, Path(scratch), known)
    cells: list[Cell] = []
    for target in targets:
        cells += _Target(plan, table, runs, registry.task(target), rows, resamples).cells(families)
    return assembled(plan, cells, known, resamples)


def assembled(
    plan: Mapping[str, Any], cells: Sequence[Cell], known: frame.Records, resamples: int = intervals.RESAMPLES
) -> Transfer:
    """The transfer table of a stored plan from its cells, target by target."""
    rows = tuple(dict.fromkeys(cell["intermediate"] for cell in plan["cells"]))
    targets = tuple(dict.fromkeys(cell["target"] for cell in plan["cells"]))
    asked = plan["experiment"]
    return Transfer(
        job=plan["job"],
        digest=plan["digest"],
        model=plan["model"],
        created=plan.get("created", ""),
        question=asked.get("question") or "",
        planted=asked.get("planted") or "",
        intermediates=tuple(row for row in rows if row not in (BASE, REFERENCE)),
        targets=targets,
        languages=_in_order(cells),
        cells=tuple(cells),
        provenance=frame.provenance(known),
        resamples=resamples,
    )


def tidy(result: Transfer) -> pandas.DataFrame:
    """One row a line of every cell: what transfer.csv holds."""
    return pandas.DataFrame([_flat(result, cell, line) for cell in result.cells for line in _lines(cell)])


def family_of(code: str) -> str:
    """Top-level family of a language; "" for one that is not registered."""
    try:
        return languages.of(code).family
    except UnknownName:
        return ""


def source_language(task: Task) -> str:
    """The language that `task` is trained in; "" where every language is zero-shot, as in retrieval."""
    fittings = registry.fittings(task, "dev" if task.test is None else "test")
    return fittings[-1].language if fittings and not kinds.of(task.family).as_it_is else ""


class _Target:
    """All rows of the job on one target; row 0 is what the others are compared with."""

    def __init__(
        self,
        plan: Mapping[str, Any],
        table: pandas.DataFrame,
        runs: Mapping[frame.Run, Mapping[str, frame.Items]],
        task: Task,
        rows: Sequence[str],
        resamples: int,
    ) -> None:
        self.task = task
        self.rows = tuple(dict.fromkeys((BASE, *rows)))
        self.asked = tuple(rows)
        planned = (cell for cell in plan["cells"] if cell["target"] == task.name)
        self.seeds = tuple(dict.fromkeys(cell["seed"] for cell in planned))
        mine = table[table.target == task.name]
        self.mine = mine
        self.scored = mine[mine.metric == task.metric]
        found = set(self.scored.language)
        self.languages = tuple(code for code in task.languages if code in found)
        self.source = source_language(task)
        self.lacking = frame.missing_languages(plan, task.name)
        self.values: dict[tuple[str, int, str], float] = {
            (one.intermediate, one.seed, one.language): one.value
            for one in self.scored.itertuples(index=False)
        }
        self.counts: dict[str, int] = self.scored.groupby("language").n.max().to_dict()
        self.resampled = self._resampled(runs, resamples)

    def cells(self, families: bool = False) -> list[Cell]:
        """One cell a row that the job asks for; with `families`, their means over language families too."""
        made = [self._cell(row) for row in self.asked]
        return [replace(cell, families=self._families(cell)) for cell in made] if families else made

    def _families(self, cell: Cell) -> tuple[Line, ...]:
        found: dict[str, list[str]] = {}
        for code in cell.zero_shot.languages if cell.zero_shot else ():
            found.setdefault(family_of(code), []).append(code)
        return tuple(self._line(cell.intermediate, name, tuple(codes)) for name, codes in found.items())

    def _resampled(
        self, runs: Mapping[frame.Run, Mapping[str, frame.Items]], resamples: int
    ) -> Resampled | None:
        own = {(row, seed): by for (row, target, seed), by in runs.items() if target == self.task.name and by}
        if not own:
            return None
        columns = metrics.COLUMNS[self.task.metric]
        samples = clusters.gather(own, columns, self.rows, self.seeds, self.languages, self.task.parallel)
        seed = stream(0, f"bootstrap/{self.task.name}")
        return intervals.resample(samples, self.task.metric, self.task.parallel, seed, resamples)

    def _cell(self, row: str) -> Cell:
        mine = self.mine[self.mine.intermediate == row]
        scored = self.scored[self.scored.intermediate == row]
        # XCOPA's English is another data set, shown for reference and in no mean.
        counted = tuple(code for code in self.languages if code not in self.task.elsewhere)
        elsewhere = tuple(code for code in counted if code != self.source)
        return Cell(
            intermediate=row,
            target=self.task.name,
            metric=self.task.metric,
            split=", ".join(dict.fromkeys(scored.split)),
            selection=", ".join(dict.fromkeys(mine.selection)),
            source=self.source,
            chance=self._chance(),
            seeds=tuple(seed for seed in self.seeds if seed in set(scored.seed)),
            collapsed=self._collapsed(row),
            base_collapsed=self._collapsed(BASE),
            missing=self._missing(row),
            languages=tuple(self._line(row, code, (code,)) for code in self.languages),
            zero_shot=self._line(row, "zero_shot", elsewhere) if elsewhere else None,
            every=self._line(row, "all", counted),
        )

    def _line(self, row: str, name: str, languages: tuple[str, ...]) -> Line:
        # A variant reports a target under another protocol; a gain is defined under the target's own.
        compared = row != BASE and not self.task.variant_of
        per_seed = self._gains(row, languages) if compared else ()
        at = self.rows.index(row)
        again = self.resampled
        return Line(
            name=name,
            languages=languages,
            n=sum(int(self.counts[code]) for code in languages),
            score=self._score(row, languages),
            score_interval=again.score(at, languages) if again else None,
            base=self._score(BASE, languages),
            base_interval=again.score(0, languages) if again else None,
            gain=float(numpy.mean(per_seed)) if per_seed else None,
            items=again.gain(at, languages) if again and per_seed else None,
            per_seed=per_seed,
        )

    def _score(self, row: str, languages: tuple[str, ...]) -> float | None:
        """Mean over languages of the mean over seeds, of what there is."""
        found = []
        for code in languages:
            values = [self.values[row, seed, code] for seed in self.seeds if (row, seed, code) in self.values]
            if values:
                found.append(numpy.mean(values))
        return float(numpy.mean(found)) if found else None

    def _gains(self, row: str, languages: tuple[str, ...]) -> tuple[float, ...]:
        """Mean over languages of the gain, one a seed that the row shares with `none`."""
        gains = []
        for seed in self.seeds:
            pairs = [((row, seed, code), (BASE, seed, code)) for code in languages]
            differences = [
                self.values[one] - self.values[other]
                for one, other in pairs
                if one in self.values and other in self.values
            ]
            if differences:
                gains.append(float(numpy.mean(differences)))
        return tuple(gains)

    def _collapsed(self, row: str) -> int:
        mine = self.mine[(self.mine.intermediate == row) & (self.mine.status == "collapsed")]
        return int(mine.seed.nunique())

    def _missing(self, row: str) -> tuple[str, ...]:
        words = []
        for seed in self.seeds:
            lacking = [code for code in self.languages if (row, seed, code) not in self.values]
            if lacking:
                whole = len(lacking) == len(self.languages)
                words.append(f"seed {seed}" if whole else f"seed {seed} in {' '.join(lacking)}")
        if not self.languages:
            words = [f"seed {seed}" for seed in self.seeds]
        return tuple(words) + tuple(f"{code} ({why})" for code, why in self.lacking.items())

    def _chance(self) -> float | None:
        """By construction; and one right document among n for retrieval."""
        if self.task.chance is not None:
            return self.task.chance
        if self.task.family is Family.RETRIEVAL and self.counts:
            return 100.0 / min(self.counts.values())
        return None


def _reaches(interval: Interval | None, chance: float | None) -> bool:
    return interval is not None and chance is not None and interval.low <= chance


def _in_order(cells: Sequence[Cell]) -> tuple[str, ...]:
    """Source languages first, then by the mean rank of the row `none` over targets."""
    ranks: dict[str, list[float]] = {}
    for cell in cells:
        lines = [line for line in cell.languages if line.base is not None]
        lines.sort(key=lambda line: -(line.base or 0.0))
        for rank, line in enumerate(lines):
            ranks.setdefault(line.name, []).append(rank / len(lines))
    for cell in cells:
        for line in cell.languages:
            ranks.setdefault(line.name, [1.0])
    sources = {cell.source for cell in cells}
    return tuple(sorted(ranks, key=lambda code: (code not in sources, float(numpy.mean(ranks[code])), code)))


def _lines(cell: Cell) -> list[Line]:
    means = [cell.every] if cell.zero_shot is None else [cell.zero_shot, cell.every]
    return [*means, *cell.languages]


def _flat(result: Transfer, cell: Cell, line: Line) -> dict[str, Any]:
    ends = {"items": line.items, "seeds": line.seeds, "score": line.score_interval}
    bounds = {
        f"{name}_{end}": getattr(interval, end) if interval else None
        for name, interval in ends.items()
        for end in ("low", "high")
    }
    return {
        "job": result.job,
        "model": result.model,
        "intermediate": cell.intermediate,
        "target": cell.target,
        "language": line.name,
        "languages": len(line.languages),
        "metric": cell.metric,
        "split": cell.split,
        "n": line.n,
        "seeds": len(cell.seeds),
        "score": line.score,
        "none": line.base,
        "gain": line.gain,
        "gain_sd": line.spread,
        **bounds,
        "collapsed": cell.collapsed,
        "incomplete": "; ".join(cell.missing),
        "near_chance": cell.near_chance(line),
        "selection": cell.selection,
        "commit": result.commit,
    }
