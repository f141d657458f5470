"""The steps of the training phases: what each row trains in phase 2, and each target in phase 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
from xstilts.spec.experiment import (
    Experiment,
    ModelSpec,
    RowSpec,
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
        if row.mix:
            return self._mixture(row, seed)
        fitting = self.fittings(registry.task(row.tasks[0]))[-1]
        settings = self.experiment.train.intermediate.for_task(fitting.task.name)
        if row.translated is None:
            return self.train(fitting, settings, seed, self.beginning())
        return self._translated(row, fitting, settings, seed)

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

    def train(
        self, fitting: Fitting, settings: TrainSettings, seed: int, start: Start, row: str = "none",
        target: Task | None = None,
    ) -> Start:  # fmt: skip
        """Fine-tuning from `start`; with `target`, as the last stage before it is reported."""
        body, label = self.training(fitting, settings, seed, start, row, target)
        return self._trained(label, body, start.inputs)

    def _trained(self, label: str, body: TrainBody, inputs: dict[str, Planned]) -> Start:
        return Start(None, self.add(label, body, inputs), label.removeprefix("train-"))

    def training(
        self, fitting: Fitting, settings: TrainSettings, seed: int, start: Start, row: str,
        target: Task | None = None,
    ) -> tuple[TrainBody, str]:  # fmt: skip
        """The body of one training and its label."""
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
        return body, f"train-{fitting.task.name}{chosen}-{tag(body)}-s{seed}{start.after(row)}"

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
        wanted = self.experiment.languages
        languages = [code for code in target.reported("dev") if not wanted or code in wanted]
        splits = {code: target.place("dev", code) for code in sorted(languages)}
        apart = {code: dev for code, dev in splits.items() if dev and dev != target.place("test", code)}
        return tuple(self.rows(split, code) for code, split in apart.items())

    def _translated(self, row: RowSpec, fitting: Fitting, settings: TrainSettings, seed: int) -> Start:
        """Phase 2 on translations of a task's training rows, the languages one after another."""
        start, task = self.beginning(), fitting.task
        body, _ = self.training(fitting, settings, seed, start, "none")
        inputs, found = dict(start.inputs), []
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
        label = f"train-{task.name}-in-{'-'.join(row.languages)}{by}-{tag(body)}-s{seed}"
        return self._trained(label, body.model_copy(update=changes), inputs)

    def _translate(self, task: Task, rows: Rows, language: str, translator: TranslatorSpec) -> Planned:
        model = self._encoder(translator)
        how = {"beams": translator.beams, "max_length": translator.max_length}
        body = TranslateBody(task=task, rows=rows, into=language, model=model, **how)
        return self.add(f"translate-{task.name}-{language}-{digest([model, how])[:4]}", body, {})

    def _mixture(self, row: RowSpec, seed: int) -> Start:
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
        body, _ = self.training(fits[0], settings, seed, start, "none")
        parts = tuple(self._part(fitting, phase.for_task(fitting.task.name)) for fitting in fits[1:])
        mlm = self._mlm(phase.for_task(MLM)) if MLM in row.mix else None
        mixing = Mixing(parts=parts, mlm=mlm, cap=row.cap)
        settled = digest({"settings": tag(body), "mixing": mixing})[:4]
        named = "-".join(sorted(row.mix))
        named = named if len(named) <= 40 else f"{len(row.mix)}-tasks"  # a label is a file name
        label = f"train-mix-{named}-{settled}-s{seed}"
        return self._trained(label, body.model_copy(update={"mixing": mixing}), start.inputs)

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
        named = (registry.task(name).languages for name in self.experiment.targets)
        spoken = {code for codes in (suite.tasks.values() if suite else named) for code in codes}
        return spoken & set(self.experiment.languages) if self.experiment.languages else spoken

    def phase_three(self, row: RowSpec, target: Task, seed: int) -> Start:
        """The target's stages; the last with the settings of the job file or those that a search chose."""
        stages = self.fittings(target)
        settings = self.experiment.train.target.for_task(target.name)
        start = self._before_last(row, target, seed)
        search = self._search(row, target, stages[-1], settings)
        if search is None:
            return self.train(stages[-1], settings, seed, start, row.label, target)
        values = self.chosen.get(search.key or "")
        if values is not None:
            chosen = settings.model_copy(update=dict(values))
            return self.train(stages[-1], chosen, seed, start, row.label, target)
        name = f"{stages[-1].task.name}-searched-s{seed}{start.after(row.label)}"
        inputs = {role: planned.label for role, planned in start.inputs.items()}
        return Start(None, self.put(Planned(f"train-{name}", "train", None, inputs, (search.label,))), name)

    def _before_last(self, row: RowSpec, target: Task, seed: int) -> Start:
        """What the last stage starts from: phase 2, and the stages before."""
        settings = self.experiment.train.target.for_task(target.name)
        start = self.phase_two(row, seed)
        for fitting in self.fittings(target)[:-1]:
            start = self.train(fitting, settings, seed, start, row.label)
            row = RowSpec(task="none")  # what follows starts from weights that were trained
        return start

    def _search(self, row: RowSpec, target: Task, last: Fitting, settings: TrainSettings) -> Planned | None:
        """The search for `target`'s settings in this row, on a phase-2 model of the search's own seed."""
        spec = self.experiment.search
        if spec is None or (spec.targets and target.name not in spec.targets):
            return None
        start = self._before_last(row, target, spec.seed)
        body, label = self.training(last, settings, spec.seed, start, row.label, target)
        searching = SearchBody(
            task=last.task,
            trial=body,
            trials=spec.trials,
            concurrent=spec.concurrent,
            learning_rate=spec.learning_rate,
            epochs=spec.epochs,
        )
        return self.add(label.replace("train-", "search-", 1), searching, start.inputs)


def tag(body: TrainBody) -> str:
    """Four digits that tell one set of settings from another in a label; two phases may train one task."""
    return digest({"settings": body.settings, "selection": body.selection})[:4]


def _text(path: str, language: str) -> Split:
    return Split(path=path, config=f"text.{language}" if path == "world" else language, split="train")


def _named(rows: Rows) -> dict[str, str]:
    return {"path": rows.path, "config": rows.config, "split": rows.split}
