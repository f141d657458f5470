"""Simulated tidy frames, exactly `report.frame.COLUMNS`, with planted effects or, by default, none.

What varies, in points (standard deviations, all independent of each other):
    run       a (row, target, seed) training: one number for all its languages, `none` has its own
    seed      a (row, seed) intermediate model: one number for all targets and languages, `none` has its own
    language  a (row, language) pair: how the language takes to the row, in every target and seed
    place     a (row, target, language) triple, in every seed
    noise     every score
`none` varies like any other row, so that gains over it share its noise.

    frame = Frame(main={"mnli": 2.0}).draw(7)        # seeded; the same twice
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy
import pandas

from xstilts.report.frame import COLUMNS
from xstilts.report.studies.gains import Gains, of_frame
from xstilts.tasks import languages, registry

ROWS = ("mnli", "squad_v1", "hellaswag", "ccg")
TARGETS = {
    "xnli": "ar bg de el es fr hi ru sw th tr ur vi zh en",
    "panx": "ar he de nl es fr hi bn ta te fi et id jv tr kk",
    "udpos": "ar he de nl es fr hi mr ta te fi et id tr kk",
    "tatoeba": "ar he de nl es fr hi bn ta te fi et id jv tr kk",
}

_NUMBERED: dict[int, tuple[object, Gains]] = {}
"""By identity of the Frame, which is kept so that no other gets it."""


@dataclass(frozen=True)
class Frame:
    """What is planted, in points. Nothing is by default."""

    rows: tuple[str, ...] = ROWS
    targets: Mapping[str, str] = field(default_factory=lambda: TARGETS)
    """Target -> its languages, as words."""
    seeds: tuple[int, ...] = (1, 2, 3)
    level: float = 70.0
    main: Mapping[str, float] = field(default_factory=dict)
    """Row -> gain everywhere."""
    by_family: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(row, language family) -> gain on top of `main`: the task x family interaction."""
    by_place: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(target, language) -> gain of every row on top, "*" for all of either: a difference between strata."""
    run: float = 0.5
    seed: float = 0.3
    language: float = 0.5
    place: float = 0.3
    noise: float = 0.5
    collapsed: tuple[tuple[str, str, int], ...] = ()
    """(row, target, seed) of runs that collapsed."""
    missing: tuple[tuple[str, str, int], ...] = ()
    """(row, target, seed) of runs that are not scored yet."""
    job: str = "simulated"

    def draw(self, seed: int) -> pandas.DataFrame:
        """One frame."""
        table = self._table()
        return table.assign(value=table.value.where(table.value.isna(), self._values(seed)))

    def gains(self, seed: int) -> Gains:
        """Gains of one frame: the same as `of_frame(self.draw(seed))`, thirty times as fast. Which score is
        whose base depends on no value, so it is looked up in a frame whose values are row numbers."""
        found = self._numbered()
        value = self._values(seed)
        both = []
        for table in (found.table, found.scores):
            score = value[table.score.to_numpy(dtype=int)]
            source = (table.score + table.gap).to_numpy()
            known = ~numpy.isnan(source)
            gap = numpy.full(len(table), numpy.nan)
            gap[known] = value[source[known].astype(int)] - score[known]
            new = {"score": score, "gap": gap}
            if "base" in table:
                new["base"] = value[table.base.to_numpy(dtype=int)]
                new["gain"] = score - new["base"]
                of_source = (table.base + table.base_gap).to_numpy()
                new["base_gap"] = numpy.full(len(table), numpy.nan)
                new["base_gap"][known] = value[of_source[known].astype(int)] - new["base"][known]
            both.append(table.assign(**new))
        return replace(found, table=both[0], scores=both[1])

    def _numbered(self) -> Gains:
        if id(self) not in _NUMBERED:
            table = self._table()
            numbered = table.value.where(table.value.isna(), numpy.arange(len(table), dtype=float))
            _NUMBERED[id(self)] = (self, of_frame(table.assign(value=numbered), "abc1234"))
        return _NUMBERED[id(self)][1]

    def _values(self, seed: int) -> numpy.ndarray:
        """One value a row of the frame."""
        every = ("none", *self.rows)
        spoken = sorted({code for words in self.targets.values() for code in words.split()})
        random = numpy.random.default_rng(seed)
        rows, runs = len(every), len(self.seeds)
        common = random.normal(0, self.seed, (rows, runs))
        likes = random.normal(0, self.language, (rows, len(spoken)))
        level = self.level - random.uniform(0, 20, len(spoken))
        parts = []
        for target, words in self.targets.items():
            codes = words.split()
            at = [spoken.index(code) for code in codes]
            value = level[at][None, :, None] + likes[:, at][:, :, None] + common[:, None, :]
            value = value + random.normal(0, self.run, (rows, 1, runs))
            value = value + random.normal(0, self.place, (rows, len(codes), 1))
            value = value + random.normal(0, self.noise, (rows, len(codes), runs))
            value[1:] += self._planted(target, codes)[:, :, None]
            parts.append(value.ravel())
        return numpy.concatenate(parts)

    def _table(self) -> pandas.DataFrame:
        """The frame without values, NaN where one is missing and 0 elsewhere."""
        parts = [self._part(target, words.split()) for target, words in self.targets.items()]
        return pandas.concat(parts, ignore_index=True)[COLUMNS]

    def _planted(self, target: str, codes: list[str]) -> numpy.ndarray:
        families = [languages.of(code).family for code in codes]
        main = numpy.array([self.main.get(row, 0.0) for row in self.rows])[:, None]
        by_family = [[self.by_family.get((row, family), 0.0) for family in families] for row in self.rows]
        keys = [((target, code), (target, "*"), ("*", code)) for code in codes]
        strata = numpy.array([sum(self.by_place.get(key, 0.0) for key in three) for three in keys])
        return main + numpy.array(by_family) + strata[None, :]

    def _part(self, target: str, codes: list[str]) -> pandas.DataFrame:
        every = ("none", *self.rows)
        index = pandas.MultiIndex.from_product(
            [every, codes, self.seeds], names=["intermediate", "language", "seed"]
        )
        table = pandas.DataFrame({"value": 0.0}, index=index).reset_index()
        known = {code: languages.of(code) for code in codes}
        table["family"] = table.language.map({code: each.family for code, each in known.items()})
        table["script"] = table.language.map({code: each.script for code, each in known.items()})
        fixed = {"job": self.job, "suite": "", "model": "tiny", "target": target, "split": "test"}
        fixed |= {"metric": registry.task(target).metric, "n": 500, "selection": "source_dev"}
        table = table.assign(**fixed, fraction=1.0, status="ok")
        table["key"] = "score-" + target + "-" + table.intermediate + "-" + table.seed.astype(str)
        for row, name, seed in self.collapsed:
            table.loc[(table.intermediate == row) & (table.seed == seed) & (name == target), "status"] = (
                "collapsed"
            )
        for row, name, seed in self.missing:
            gone = (table.intermediate == row) & (table.seed == seed) & (name == target)
            table.loc[gone, "value"] = numpy.nan
            table.loc[gone, "status"] = "missing"
        return table.astype({"n": "Int64", "seed": "int64", "fraction": "float64"})
