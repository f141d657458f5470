"""From a job file to its plan: every step once, shared by all the cells that need it.

Pure: what data and encoders are is asked of `Sources`, what searches chose is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xstilts.errors import DataError, JobFileError
from xstilts.frozen import digest
from xstilts.plan import names
from xstilts.plan.graph import Cell, Plan, Planned
from xstilts.plan.phases import Chosen, Phases, Sources, Start
from xstilts.plan.probes import probed
from xstilts.plan.settle import settled
from xstilts.plan.step import PredictBody, ScoreBody, TrainBody
from xstilts.spec.experiment import Experiment, RowSpec
from xstilts.tasks import kinds, registry, suites
from xstilts.tasks.task import Family, Rows, Split, Task

__all__ = ["Chosen", "Missing", "Sources", "expand"]

Missing = Mapping[tuple[str, str], str]
"""(target, language) -> why its rows cannot be had."""


def expand(
    experiment: Experiment, sources: Sources, chosen: Chosen | None = None, failed: Missing | None = None
) -> Plan:
    """The plan of a job. A language of a target whose rows are missing, or that `failed`, is left out and
    named in `Plan.missing`; a target without any language is refused.

    Raises:
        UnknownName, JobFileError: with `where` pointing into the job file.
        DataError, ModelError: from `sources`.
    """
    asked = experiment.to_identity()
    asked |= {"intermediate": experiment.model_dump(mode="json")["intermediate"]}
    asked = {word: asked[word] for word in asked if word not in ("name", "execution", "question", "planted")}
    meant = settled(experiment)
    names.check(meant)
    grid = _Grid(meant, sources, chosen or {}, failed=dict(failed or {}))
    cells = tuple(
        grid.cell(row, registry.task(target), seed)
        for row in meant.intermediate
        for target in meant.targets
        for seed in meant.seeds
    )
    if not cells:
        grid.beginning()
    _check_target_dev(meant, grid.steps)
    probes = () if meant.probe is None else probed(grid, meant.probe, grid.missing)
    return Plan(
        job=experiment.name,
        digest=digest({"asked": asked, "data": sorted(grid.met)}),
        steps=grid.steps,
        cells=cells,
        experiment=experiment.model_dump(mode="json"),
        model=experiment.model.name if experiment.model else f"{experiment.name} (pretrained here)",
        uses=_uses(grid, cells),
        probed=probes,
        missing=dict(grid.missing),
    )


@dataclass
class _Grid(Phases):
    """The cells of the table, on the steps of the phases."""

    failed: dict[tuple[str, str], str] = field(default_factory=dict)
    missing: dict[tuple[str, str], str] = field(default_factory=dict)
    known: dict[str, tuple[Rows, ...]] = field(default_factory=dict)
    """Target -> its reported rows, found once."""

    def cell(self, row: RowSpec, target: Task, seed: int) -> Cell:
        """The steps that fill one cell."""
        trained = self.phase_three(row, target, seed) if self.fittings(target) else None
        predict = self._predict(row, target, seed, trained)
        rows = self._reported(target)
        score = self.add(
            predict.label.replace("predict-", "score-", 1),
            ScoreBody(task=target, rows=rows, calibration=self._calibration(target)),
            {"predictions": predict},
        )
        train = trained.step.label if trained and trained.step else None
        return Cell(row.label, target.name, seed, train, predict.label, score.label)

    def _predict(self, row: RowSpec, target: Task, seed: int, trained: Start | None) -> Planned:
        # Tatoeba after SQuAD is read at Tatoeba's length, not at that of its training.
        read_as = target.variant_of or target.name
        settings = self.experiment.train.target.for_task(read_as)
        step = trained.step.step if trained and trained.step else None
        if step is not None and isinstance(step.body, TrainBody) and not target.variant_of:
            settings = step.body.settings  # a length that a search chose is read at too
        start = trained or self.phase_two(row, seed)
        rows = self._reported(target)
        untrained = trained is None and row.task == "untrained"
        body = PredictBody(
            task=target,
            rows=rows,
            max_length=settings.max_length,
            doc_stride=settings.doc_stride,
            precision=settings.precision,
            retrieval=self.experiment.evaluate.retrieval if kinds.of(target.family).as_it_is else None,
            encoder=start.encoder,
            untrained_seed=seed if untrained else None,
            calibration=self._calibration(target),
            candidates=self._candidates(target),
        )
        if trained is not None:
            label = f"predict-{target.name}-from-{trained.name}"
        else:
            label = f"predict-{target.name}{f'-s{seed}' if untrained else ''}{start.after(row.label)}"
        return self.add(label, body, {} if start.step is None else {"model": start.step})

    def _reported(self, target: Task) -> tuple[Rows, ...]:
        """One a language of all the languages that have rows here."""
        if target.name not in self.known:
            self.known[target.name] = self._find(target)
        return self.known[target.name]

    def _find(self, target: Task) -> tuple[Rows, ...]:
        spec, wanted = self.experiment.evaluate, self.experiment.languages
        languages = target.reported(spec.split, wanted)
        if not languages:
            reported = target.reported(spec.split)
            raise JobFileError(
                f"{target.name} is reported in none of the languages asked for",
                f"it has {' '.join(reported)}" if reported else f"it has no {spec.split} rows",
                ("languages",) if reported else ("evaluate", "split"),
            )
        needed = _needed(self.experiment.suite, target, languages)
        found: list[Rows] = []
        problems: list[DataError] = []
        for language in sorted(languages):
            try:
                found.append(self._rows_of(target, language))
            except DataError as problem:
                problems.append(problem)
                if language in needed:
                    self.missing[target.name, language] = problem.problem
        if not found:
            raise problems[0]
        # Mining needs both piles whole: the first of one have their translations anywhere in the other.
        first = None if target.family is Family.BITEXT_MINING else spec.first
        return tuple(rows.model_copy(update={"first": first}) for rows in found)

    def _rows_of(self, target: Task, language: str) -> Rows:
        split = target.place(self.experiment.evaluate.split, language)
        assert split is not None
        rows = self.rows(split, language)
        dev = self._dev_of(target, language)
        if dev is not None:
            self.rows(dev, language)
        reason = self.failed.get((target.name, language))
        if reason is not None:  # only now: the plan's digest is the same with and without a failure
            raise DataError(reason, "pull the data again, then run again")
        return rows

    def _dev_of(self, target: Task, language: str) -> Split | None:
        """Where a bitext threshold is found that test is cut at; None for other tasks and for dev."""
        mining = target.family is Family.BITEXT_MINING and self.experiment.evaluate.split == "test"
        return target.place("dev", language) if mining else None

    def _calibration(self, target: Task) -> tuple[Rows, ...]:
        places = ((rows.language, self._dev_of(target, rows.language)) for rows in self._reported(target))
        return tuple(self.rows(place, language) for language, place in places if place is not None)

    def _candidates(self, target: Task) -> tuple[Rows, ...]:
        return () if target.candidates is None else (self.rows(target.candidates, "all"),)


def _check_target_dev(experiment: Experiment, steps: Mapping[str, Planned]) -> None:
    """Refuses a job that would choose on target dev rows and has no target where that can be."""
    asked = experiment.evaluate.selection.rows == "target_dev" and experiment.search is None
    bodies = [planned.step.body for planned in steps.values() if planned.step is not None]
    if asked and not any(isinstance(body, TrainBody) and body.target_dev for body in bodies):
        raise JobFileError(
            "none of the targets has dev rows apart from what is reported",
            "choose on source_dev, or add a target that has both dev and test",
            ("evaluate", "selection"),
        )


def _needed(suite: str | None, target: Task, languages: Sequence[str]) -> set[str]:
    """Of the languages that a task has, those that the job's suite averages over."""
    if suite is None:
        return set(languages)
    return set(suites.suite(suite).tasks[target.variant_of or target.name]) & set(languages)


def _uses(grid: _Grid, cells: tuple[Cell, ...]) -> dict[str, int]:
    """How many cells stand on each step; a search that has chosen still counts."""
    uses = dict.fromkeys(grid.steps, 0)
    for cell in cells:
        met: set[str] = set()
        frontier = [cell.score]
        while frontier:
            label = frontier.pop()
            if label not in met:
                met.add(label)
                needs = grid.steps[label]
                frontier += [*needs.inputs.values(), *needs.awaits, *grid.decided.get(label, ())]
        for label in met:
            uses[label] += 1
    return uses
