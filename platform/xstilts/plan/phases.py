"""The steps of the training phases: what each row trains in phase 2, and each target in phase 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from xstilts.errors import JobFileError, ModelError
from xstilts.frozen import digest
from xstilts.plan.graph import Planned
from xstilts.plan.step import (
    Body,
    EncoderRef,
    Mixing,
    MlmPart,
    Part,
    PretrainBody,
    SearchBody,
    Step,
    TrainBody,
    TranslateBody,
)
from xstilts.plan.trainings import HINT, Training
from xstilts.spec.experiment import (
    Experiment,
    ModelSpec,
    RowSpec,
    SearchSpec,
    Selection,
    TrainSettings,
    TranslatorSpec,
)
from xstilts.spec.presets import MIX, MIX_MLM
from xstilts.tasks import registry, suites
from xstilts.tasks.registry import Fitting
from xstilts.tasks.task import Family, Rows, Split, Task

MLM = "mlm"


class Sources(Protocol):
    """What the bytes are that a job names."""

    def rows(self, split: Split, language: str) -> Rows:
        """Identity of the rows of one split of one language; DataError when there are none."""
        ...

    def count(self, split: Split) -> int | None:
        """How many rows a split has here; None where that is not known."""
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


@dataclass(frozen=True, slots=True)
class Start:
    """The encoder that a phase starts from: a published one, or what a step made."""

    encoder: EncoderRef | None
    step: Planned | None
    name: str = ""
    """What labels say of it; "" for phase 1."""

    @property
    def inputs(self) -> dict[str, Planned]:
        """As a step's inputs."""
        return {} if self.step is None else {"encoder": self.step}

    def after(self, row: str) -> str:
        """The end of the label of whatever starts here."""
        if row == "untrained":
            return "-untrained"
        return f"-after-{self.name}" if self.name else ""


@dataclass
class Phases:
    """Steps as they are met; meeting one again gives the same one."""

    experiment: Experiment
    sources: Sources
    chosen: Chosen
    steps: dict[str, Planned] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)
    """Digests of the data and encoders met: a plan is known by them before any search has chosen."""
    first: dict[str, Planned] = field(default_factory=dict)
    """Target -> its search in the first row, whose choice the other rows' searches try early."""
    decided: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Label of a training -> the searches that chose its settings."""

    def rows(self, split: Split, language: str) -> Rows:
        """Identity of rows, noted."""
        return self.noted(self.sources.rows(split, language))

    def noted(self, source: Source) -> Source:
        """`source`, counted among what the plan is known by."""
        self.met.add(digest(source))
        return source

    def add(self, label: str, body: Body, inputs: dict[str, Planned]) -> Planned:
        """A step, awaiting what any of its inputs awaits."""
        keys = {role: planned.key for role, planned in inputs.items()}
        awaits = tuple(dict.fromkeys(wait for planned in inputs.values() for wait in planned.awaits))
        known = {role: key for role, key in keys.items() if key is not None}
        step = Step(label=label, body=body, inputs=known) if len(known) == len(keys) else None
        labels = {role: planned.label for role, planned in inputs.items()}
        return self.put(Planned(label, body.kind, step, labels, awaits if step is None else ()))

    def put(self, planned: Planned) -> Planned:
        """The step of this label, which is `planned`."""
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

    def beginning(self) -> Start:
        """What phase 1 is: a published encoder, or a pretrain step."""
        spec = self.experiment.pretrain
        if spec is None:
            assert self.experiment.model is not None
            return Start(self.noted(self.sources.encoder(self.experiment.model)), None)
        languages = tuple(sorted(spec.languages or self.sources.languages(spec.data)))
        corpora = tuple(self.rows(_text(spec.data, language), language) for language in languages)
        body = PretrainBody(spec=spec.model_copy(update={"languages": languages}), corpora=corpora)
        name = spec.data.replace("/", "-")
        return Start(None, self.add(f"pretrain-{name}-s{spec.seed}", body, {}))

    def phase_two(self, row: RowSpec, seed: int) -> Start:
        """What the target phase of a row starts from."""
        if row.task in registry.RESERVED:
            return self.beginning()
        if row.checkpoint is not None:
            encoder = self._encoder(row.checkpoint)
            return Start(encoder, None, f"checkpoint-{digest(encoder)[:6]}")
        training = self._mixture(row, seed) if row.mix else self._intermediate(row, seed)
        spec = self.experiment.search
        if spec is None or "intermediate" not in spec.phases:
            return self._trained(training)
        seeded = replace(training, body=training.body.model_copy(update={"seed": spec.seed}))
        return self._decided(training, self._search(spec, seeded), hinted=False)

    def _intermediate(self, row: RowSpec, seed: int) -> Training:
        """Phase 2 on one task, in its own language or in translation."""
        fitting = self.fittings(registry.task(row.tasks[0]))[-1]
        settings = self.experiment.train.intermediate.for_task(fitting.task.name)
        training = self.training(fitting, settings, seed, self.beginning())
        return training if row.translated is None else self._translated(row, fitting, training)

    def _encoder(self, model: ModelSpec) -> EncoderRef:
        """A model that a row names, noted; that there is none is told of the rows."""
        try:
            return self.noted(self.sources.encoder(model))
        except ModelError as problem:
            raise ModelError(problem.problem, problem.remedy, ("intermediate",)) from problem

    def fittings(self, task: Task) -> tuple[Fitting, ...]:
        """Where `task` is trained and chosen, stage by stage."""
        found = registry.fittings(task, self.experiment.evaluate.split)
        for fitting in found:
            if fitting.selection is None:
                raise JobFileError(
                    f"{fitting.task.name} has no rows to choose a checkpoint on", "choose another task"
                )
        return found

    def _trained(self, training: Training) -> Start:
        step = self.add(training.label, training.body, training.inputs)
        return Start(None, step, training.label.removeprefix("train-"))

    def _decided(self, training: Training, search: Planned, hinted: bool) -> Start:
        """A training with what its search has chosen, or one that waits for it."""
        values = self.chosen.get(search.key or "")
        if values is not None:
            settled = training.with_values(values)
            by = self.decided.get(settled.label, ())
            self.decided[settled.label] = tuple(dict.fromkeys((*by, search.label)))
            return self._trained(settled)
        label = training.waiting_label(hinted)
        inputs = {role: planned.label for role, planned in training.inputs.items()}
        waiting = self.put(Planned(label, "train", None, inputs, (search.label,)))
        return Start(None, waiting, label.removeprefix("train-"))

    def _search(self, spec: SearchSpec, training: Training, hint: Planned | None = None) -> Planned:
        """The search whose trials are `training`, which has the search's own seed."""
        settings = training.body.settings
        if settings.warmup_steps is not None and "warmup" in spec.space:
            raise JobFileError(
                f"warmup of {training.body.task.name} is searched, but its warmup_steps go before it",
                "search warmup_steps instead, or set `warmup_steps: null` under `train`",
                ("search", "space", "warmup"),
            )
        body = SearchBody(
            task=training.body.task,
            trial=training.body,
            trials=spec.trials,
            concurrent=spec.concurrent,
            space=spec.values,
            prune=spec.prune,
        )
        inputs = training.inputs if hint is None else {**training.inputs, HINT: hint}
        return self.add(training.search_label(hint is not None), body, inputs)

    def training(
        self, fitting: Fitting, settings: TrainSettings, seed: int, start: Start, row: str = "none",
        target: Task | None = None,
    ) -> Training:  # fmt: skip
        """Fine-tuning from `start`; with `target`, as the last stage before it is reported."""
        assert fitting.selection is not None
        selection = settings.select or self.experiment.evaluate.selection
        unused = {} if settings.fraction < 1 else {"subset_seed": 0}
        settings = settings.model_copy(update={"select": None, **unused})
        watched = self._target_dev(target, selection)
        if not watched:
            selection = selection.model_copy(update={"rows": "source_dev"})
        body = TrainBody(
            task=fitting.task,
            rows=self.rows(fitting.train, fitting.language),
            selection_rows=self.rows(fitting.selection, fitting.language),
            selection=selection,
            settings=settings,
            seed=seed,
            encoder=start.encoder,
            untrained=row == "untrained",
            target_dev=watched,
        )
        chosen = f"-for-{target.name}" if watched and target else ""
        return Training(f"{fitting.task.name}{chosen}", body, start.inputs, start.after(row))

    def _target_dev(self, target: Task | None, selection: Selection) -> tuple[Rows, ...]:
        """The target's dev rows in all its languages, where checkpoints are chosen on them. () for targets
        that have none apart from what is reported (XQuAD), whose dev is a translation of it (XCOPA's, of
        COPA's), or whose rows have no documents to find (Mewsli-X): they are chosen on the source."""
        if target is None or selection.rows != "target_dev":
            return ()
        if self.experiment.evaluate.split == "dev":
            raise JobFileError(
                f"{target.name} would be chosen on the rows that are reported",
                "report `split: test`, or choose on source_dev",
                ("evaluate", "selection"),
            )
        if target.elsewhere or target.family is Family.DUAL_ENCODER:
            return ()
        languages = target.reported("dev", self.experiment.languages)
        splits = {code: target.place("dev", code) for code in sorted(languages)}
        apart = {code: dev for code, dev in splits.items() if dev and dev != target.place("test", code)}
        return tuple(self.rows(split, code) for code, split in apart.items())

    def _translated(self, row: RowSpec, fitting: Fitting, training: Training) -> Training:
        """The same on translations of the task's training rows, the languages one after another."""
        task, body, inputs, found = fitting.task, training.body, dict(training.inputs), []
        for language in row.languages:
            if language == fitting.language:
                found.append(body.rows)
            elif row.translator is None:
                assert task.translations is not None
                found.append(self.rows(task.translations.at(task.code(language)), language))
            else:
                role = f"rows/{language}"
                inputs[role] = self._translate(task, body.rows, language, row.translator)
                found.append(Rows(**_named(body.rows), language=language, made_by=role))
        rows = found[0].model_copy(update={"more": (*found[0].more, *found[1:])})
        # One published id in several languages would be one item: rows are numbered instead.
        unnamed = {word: column for word, column in task.columns.items() if word != "item"}
        changes = {"rows": rows, "task": task.model_copy(update={"columns": unnamed})}
        made = [planned.label for role, planned in inputs.items() if role.startswith("rows/")]
        by = f"-by-{digest(made)[:4]}" if made else ""
        name = f"{task.name}-in-{'-'.join(row.languages)}{by}"
        return Training(name, body.model_copy(update=changes), inputs)

    def _translate(self, task: Task, rows: Rows, language: str, translator: TranslatorSpec) -> Planned:
        model = self._encoder(translator)
        how = {"beams": translator.beams, "max_length": translator.max_length}
        body = TranslateBody(task=task, rows=rows, into=language, model=model, **how)
        return self.add(f"translate-{task.name}-{language}-{digest([model, how])[:4]}", body, {})

    def _mixture(self, row: RowSpec, seed: int) -> Training:
        """Phase 2 on several tasks at once."""
        phase = self.experiment.train.intermediate
        names = sorted(name for name in row.mix if name != MLM)
        fits = [self.fittings(registry.task(name))[-1] for name in names]
        start = self.beginning()
        own = phase.for_task(names[0])
        words = ("effective_batch", "max_length", "doc_stride", "fraction", "subset_seed")
        shapes = {word: getattr(own, word) for word in words}
        # A task with mlm alone keeps its own epochs; the mixture's rate is for both.
        kind = MIX_MLM if MLM in row.mix else MIX
        shared = phase.for_task(kind if len(names) > 1 else names[0])
        rate = phase.for_task(kind).learning_rate if kind in phase.tasks else shared.learning_rate
        settings = shared.model_copy(update={**shapes, "learning_rate": rate})
        body = self.training(fits[0], settings, seed, start).body
        parts = tuple(self._part(fitting, phase.for_task(fitting.task.name)) for fitting in fits[1:])
        mlm = self._mlm(phase.for_task(MLM)) if MLM in row.mix else None
        mixing = Mixing(parts=parts, mlm=mlm, cap=row.cap)
        named = "-".join(sorted(row.mix))
        named = named if len(named) <= 40 else f"{len(row.mix)}-tasks"  # a label is a file name
        return Training(f"mix-{named}", body.model_copy(update={"mixing": mixing}), start.inputs)

    def _part(self, fitting: Fitting, settings: TrainSettings) -> Part:
        assert fitting.selection is not None
        return Part(
            task=fitting.task,
            rows=self.rows(fitting.train, fitting.language),
            selection_rows=self.rows(fitting.selection, fitting.language),
            effective_batch=settings.effective_batch,
            max_length=settings.max_length,
            doc_stride=settings.doc_stride,
            fraction=settings.fraction,
            subset_seed=settings.subset_seed,
        )

    def _mlm(self, settings: TrainSettings) -> MlmPart:
        spec = self.experiment.mlm
        corpora, counts = [], []
        for code in sorted(spec.languages or self._spoken()):
            split = Split(path=spec.data, config=spec.config.replace("{code}", code), split="train")
            if spec.data == "world":
                split = _text(spec.data, code)
            corpora.append(self.rows(split, code).model_copy(update={"first": spec.sentences}))
            counts.append(self.sources.count(split))
        return MlmPart(
            corpora=tuple(corpora),
            counts=tuple(count for count in counts if count) if all(counts) else (),
            exponent=spec.exponent,
            mask=spec.mask,
            effective_batch=settings.effective_batch,
            max_length=settings.max_length,
        )

    def _spoken(self) -> set[str]:
        """The languages that the job reports."""
        suite = None if self.experiment.suite is None else suites.suite(self.experiment.suite)
        wanted = set(self.experiment.languages)
        tasks = [registry.task(name) for name in self.experiment.targets]
        named = ([code for code in task.languages if wanted or code not in task.by_name] for task in tasks)
        spoken = {code for codes in (suite.tasks.values() if suite else named) for code in codes}
        return spoken & wanted if wanted else spoken

    def phase_three(self, row: RowSpec, target: Task, seed: int) -> Start:
        """The target's stages; the last with the settings of the job file or those that a search chose."""
        training = self._last(row, target, seed)
        spec = self.experiment.search
        if spec is None or "target" not in spec.phases or (spec.targets and target.name not in spec.targets):
            return self._trained(training)
        # On a phase-2 model of the search's own seed, so that no final run was chosen by itself.
        own = self._last(row, target, spec.seed)
        if row == self.experiment.intermediate[0]:
            search = self.first[target.name] = self._search(spec, own)
            return self._decided(training, search, hinted=False)
        return self._decided(training, self._search(spec, own, self.first[target.name]), hinted=True)

    def _last(self, row: RowSpec, target: Task, seed: int) -> Training:
        """The last stage of a target, after phase 2 and the stages before."""
        *before, last = self.fittings(target)
        settings = self.experiment.train.target.for_task(target.name)
        start, label = self.phase_two(row, seed), row.label
        for fitting in before:
            start = self._trained(self.training(fitting, settings, seed, start, label))
            label = "none"  # what follows starts from weights that were trained
        return self.training(last, settings, seed, start, label, target)


def _text(path: str, language: str) -> Split:
    return Split(path=path, config=f"text.{language}" if path == "world" else language, split="train")


def _named(rows: Rows) -> dict[str, str]:
    return {"path": rows.path, "config": rows.config, "split": rows.split}
