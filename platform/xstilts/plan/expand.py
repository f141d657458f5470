"""From a job file to its plan: every step once, shared by all the cells that need it.

Pure: what data and encoders are is asked of `Sources`, what searches chose is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from xstilts.errors import JobFileError, UnknownName
from xstilts.frozen import digest
from xstilts.plan.graph import Cell, Plan, Planned
from xstilts.plan.step import (
    Body,
    EncoderRef,
    PredictBody,
    PretrainBody,
    ScoreBody,
    SearchBody,
    Step,
    TrainBody,
)
from xstilts.spec.experiment import Experiment, ModelSpec, TrainSettings
from xstilts.tasks import registry
from xstilts.tasks.registry import Fitting
from xstilts.tasks.task import Rows, Split, Task

WORDS_FOR_ROWS = ("none", "untrained")


class Sources(Protocol):
    """What the bytes are that a job names."""

    def rows(self, split: Split, language: str) -> Rows:
        """Identity of the rows of one split of one language; DataError when there are none."""
        ...

    def languages(self, path: str) -> tuple[str, ...]:
        """Languages that raw text `path` has, sorted."""
        ...

    def encoder(self, model: ModelSpec) -> EncoderRef:
        """Identity of a published encoder; ModelError when there is none."""
        ...


Source = TypeVar("Source", Rows, EncoderRef)
Chosen = Mapping[str, Mapping[str, Any]]
"""Key of a finished search -> the values it chose."""


def expand(experiment: Experiment, sources: Sources, chosen: Chosen | None = None) -> Plan:
    """The plan of a job.

    Raises:
        UnknownName, JobFileError: with `where` pointing into the job file.
        DataError, ModelError: from `sources`.
    """
    _check_names(experiment)
    grid = _Grid(experiment, sources, chosen or {})
    cells = tuple(
        grid.cell(row, registry.task(target), seed)
        for row in experiment.intermediate
        for target in experiment.targets
        for seed in experiment.seeds
    )
    if not cells:
        grid.beginning()
    asked = experiment.to_identity()
    asked = {word: asked[word] for word in asked if word not in ("name", "execution", "question", "planted")}
    return Plan(
        job=experiment.name,
        digest=digest({"asked": asked, "data": sorted(grid.met)}),
        steps=grid.steps,
        cells=cells,
        experiment=experiment.model_dump(mode="json"),
        model=experiment.model.name if experiment.model else f"{experiment.name} (pretrained here)",
        uses=_uses(grid.steps, cells),
    )


@dataclass
class _Grid:
    """Steps as they are met; meeting one again gives the same one."""

    experiment: Experiment
    sources: Sources
    chosen: Chosen
    steps: dict[str, Planned] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)
    """Digests of the data and encoders met: a plan is known by them before any search has chosen."""

    def rows(self, split: Split | None, task: Task, language: str, what: str) -> Rows:
        if split is None:
            raise JobFileError(f"{task.name} has no {what} rows", "choose another split or task")
        return self.noted(self.sources.rows(split.at(task.code(language)), language))

    def noted(self, source: Source) -> Source:
        self.met.add(digest(source))
        return source

    def add(self, label: str, body: Body, inputs: dict[str, Planned]) -> Planned:
        keys = {role: planned.key for role, planned in inputs.items()}
        awaits = tuple(dict.fromkeys(wait for planned in inputs.values() for wait in planned.awaits))
        known = {role: key for role, key in keys.items() if key is not None}
        step = Step(label=label, body=body, inputs=known) if len(known) == len(keys) else None
        labels = {role: planned.label for role, planned in inputs.items()}
        return self._put(Planned(label, body.kind, step, labels, awaits if step is None else ()))

    def _put(self, planned: Planned) -> Planned:
        met = self.steps.get(planned.label)
        if met is None:
            self.steps[planned.label] = planned
            return planned
        if (met.key, met.awaits) != (planned.key, planned.awaits):
            raise JobFileError(
                f"two different steps of this job are both called {planned.label!r}",
                "give the task one set of settings, or ask for the two in two jobs",
            )
        return met

    def beginning(self) -> tuple[EncoderRef | None, Planned | None]:
        """What phase 1 is: a published encoder, or a pretrain step."""
        spec = self.experiment.pretrain
        if spec is None:
            assert self.experiment.model is not None
            return self.noted(self.sources.encoder(self.experiment.model)), None
        languages = spec.languages or self.sources.languages(spec.data)
        corpora = tuple(
            self.noted(self.sources.rows(_text(spec.data, language), language))
            for language in sorted(languages)
        )
        body = PretrainBody(
            spec=spec.model_copy(update={"languages": tuple(sorted(languages))}), corpora=corpora
        )
        name = spec.data.replace("/", "-")
        return None, self.add(f"pretrain-{name}-s{spec.seed}", body, {})

    def train(
        self, fitting: Fitting, settings: TrainSettings, seed: int, start: Planned | None, row: str = "none"
    ) -> Planned:
        """Fine-tuning from phase 1, or from `start`."""
        body, inputs, label = self._training(fitting, settings, seed, start, row)
        return self.add(label, body, inputs)

    def _training(
        self, fitting: Fitting, settings: TrainSettings, seed: int, start: Planned | None, row: str
    ) -> tuple[TrainBody, dict[str, Planned], str]:
        task = fitting.task
        encoder, pretrained = self.beginning()
        source = pretrained if start is None else start
        if fitting.selection is None:
            raise JobFileError(f"{task.name} has no rows to choose a checkpoint on", "choose another task")
        body = TrainBody(
            task=task,
            rows=self.noted(self.sources.rows(fitting.train, fitting.language)),
            selection_rows=self.noted(self.sources.rows(fitting.selection, fitting.language)),
            selection=self.experiment.evaluate.selection,
            settings=settings,
            seed=seed,
            encoder=encoder if source is None else None,
            untrained=row == "untrained",
        )
        label = f"train-{task.name}-{_tag(settings)}-s{seed}{_after(start, row)}"
        return body, {} if source is None else {"encoder": source}, label

    def phase_two(self, row: str, seed: int) -> Planned | None:
        if row in WORDS_FOR_ROWS:
            return None
        fitting = registry.fitting(registry.task(row), self.experiment.evaluate.split)
        if fitting is None:
            raise JobFileError(
                f"{row} has nothing to train on", "choose another intermediate task", ("intermediate",)
            )
        return self.train(fitting, self.experiment.train.intermediate.for_task(row), seed, None)

    def search(self, row: str, target: Task, learnt: Fitting, settings: TrainSettings) -> Planned | None:
        """The search for `target`'s settings in this row, on a phase-2 model of the search's own seed."""
        spec = self.experiment.search
        if spec is None or (spec.targets and target.name not in spec.targets):
            return None
        body, inputs, label = self._training(learnt, settings, spec.seed, self.phase_two(row, spec.seed), row)
        searching = SearchBody(
            task=learnt.task,
            trial=body,
            trials=spec.trials,
            concurrent=spec.concurrent,
            learning_rate=spec.learning_rate,
            epochs=spec.epochs,
        )
        return self.add(label.replace("train-", "search-", 1), searching, inputs)

    def phase_three(
        self, row: str, target: Task, learnt: Fitting, seed: int, start: Planned | None
    ) -> Planned:
        """The target phase, with the settings of the job file or those that a search has chosen."""
        settings = self.experiment.train.target.for_task(target.name)
        search = self.search(row, target, learnt, settings)
        if search is None:
            return self.train(learnt, settings, seed, start, row)
        values = self.chosen.get(search.key or "")
        if values is not None:
            return self.train(learnt, settings.model_copy(update=dict(values)), seed, start, row)
        label = f"train-{learnt.task.name}-{_tag(None)}-s{seed}{_after(start, row)}"
        inputs = {} if start is None else {"encoder": start.label}
        return self._put(Planned(label, "train", None, inputs, (search.label,)))

    def cell(self, row: str, target: Task, seed: int) -> Cell:
        """The steps that fill one cell."""
        start = self.phase_two(row, seed)
        learnt = registry.fitting(target, self.experiment.evaluate.split)
        train = None if learnt is None else self.phase_three(row, target, learnt, seed, start)
        predict = self._predict(target, start, train, row, seed)
        rows = self._reported(target)
        score = self.add(
            predict.label.replace("predict-", "score-", 1),
            ScoreBody(task=target, rows=rows, split=rows[0].split),
            {"predictions": predict},
        )
        return Cell(row, target.name, seed, train.label if train else None, predict.label, score.label)

    def _reported(self, target: Task) -> tuple[Rows, ...]:
        wanted = self.experiment.languages
        reported = target.reported(self.experiment.evaluate.split)
        languages = [code for code in reported if not wanted or code in wanted]
        if not languages:
            known = " ".join(reported)
            raise JobFileError(
                f"{target.name} is reported in none of the languages asked for",
                f"it has {known}",
                ("languages",),
            )
        spec = self.experiment.evaluate
        split = target.dev if spec.split == "dev" else target.test
        found = (self.rows(split, target, language, spec.split) for language in sorted(languages))
        return tuple(rows.model_copy(update={"first": spec.first}) for rows in found)

    def _predict(
        self, target: Task, start: Planned | None, train: Planned | None, row: str, seed: int
    ) -> Planned:
        frozen = train is None
        settings = self.experiment.train.target.for_task(target.name)
        encoder, pretrained = self.beginning()
        model = train or start or pretrained
        rows = self._reported(target)
        body = PredictBody(
            task=target,
            rows=rows,
            split=rows[0].split,
            max_length=settings.max_length,
            doc_stride=settings.doc_stride,
            precision=settings.precision,
            retrieval=self.experiment.evaluate.retrieval if frozen else None,
            encoder=encoder if model is None else None,
            untrained_seed=seed if frozen and row == "untrained" else None,
        )
        if train is not None:
            label = f"predict-{target.name}-from-{train.label.removeprefix('train-')}"
        else:
            own_seed = f"-s{seed}" if row == "untrained" else ""
            label = f"predict-{target.name}{own_seed}{_after(start, row)}"
        return self.add(label, body, {} if model is None else {"model": model})


def _after(start: Planned | None, row: str) -> str:
    if row == "untrained":
        return "-untrained"
    return f"-after-{start.label.removeprefix('train-')}" if start else ""


def _text(path: str, language: str) -> Split:
    return Split(path=path, config=f"text.{language}" if path == "world" else language, split="train")


def _tag(settings: TrainSettings | None) -> str:
    """Four digits that tell one set of settings from another in a label; two phases may train one task."""
    return "searched" if settings is None else digest(settings)[:4]


def _check_names(experiment: Experiment) -> None:
    """Every task and language named exists and has the role it is used in."""
    for word, names in (("intermediate", experiment.intermediate), ("targets", experiment.targets)):
        if len(set(names)) < len(names):
            raise JobFileError(f"{word} names a task twice", "name each once", (word,))
    if len(set(experiment.seeds)) < len(experiment.seeds):
        raise JobFileError("seeds holds a number twice", "a seed run once more is no new run", ("seeds",))
    for index, name in enumerate(experiment.intermediate):
        if name not in WORDS_FOR_ROWS:
            _check_role(name, "intermediate", ("intermediate", index))
    for index, name in enumerate(experiment.targets):
        _check_role(name, "target", ("targets", index))
    spoken = {code for name in experiment.targets for code in registry.task(name).languages}
    for index, code in enumerate(experiment.languages):
        if spoken and code not in spoken:
            raise UnknownName.among(
                "language of these targets", code, spoken, "xstilts tasks", ("languages", index)
            )
    if experiment.search is not None:
        for index, name in enumerate(experiment.search.targets):
            if name not in experiment.targets:
                raise UnknownName.among(
                    "target", name, experiment.targets, "xstilts tasks", ("search", "targets", index)
                )
    for phase, settings in (
        ("intermediate", experiment.train.intermediate),
        ("target", experiment.train.target),
    ):
        named = experiment.intermediate if phase == "intermediate" else experiment.targets
        for name in settings.tasks:
            if name not in named:
                raise UnknownName.among(
                    f"{phase} task of this job", name, named, "xstilts tasks", ("train", phase, "tasks", name)
                )


def _check_role(name: str, role: str, where: tuple[str | int, ...]) -> None:
    known = {task.name: task for task in registry.all_tasks()}
    if name not in known:
        raise UnknownName.among(f"{role} task", name, [*known, *WORDS_FOR_ROWS], "xstilts tasks", where)
    if role not in known[name].roles:
        fit = " ".join(task.name for task in known.values() if role in task.roles)
        raise JobFileError(f"{name} is no {role} task", f"choose among {fit}", where)


def _uses(steps: Mapping[str, Planned], cells: tuple[Cell, ...]) -> dict[str, int]:
    """How many cells stand on each step."""
    uses = dict.fromkeys(steps, 0)
    for cell in cells:
        met: set[str] = set()
        frontier = [cell.score]
        while frontier:
            label = frontier.pop()
            if label not in met:
                met.add(label)
                frontier += [*steps[label].inputs.values(), *steps[label].awaits]
        for label in met:
            uses[label] += 1
    return uses
