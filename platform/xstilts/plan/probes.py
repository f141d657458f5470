"""The probe steps of a job: which encoder is measured on which rows, and what each measure is of.

alignment  the encoder of every row and seed, on translations
fit        the same encoders, on labelled training rows of every target
text       the pretrained encoder, on training rows of every intermediate task and every target
gradients  models trained on a task: of phase 2, and of each target in the row `none`
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xstilts.errors import DataError, JobFileError, UnknownName
from xstilts.frozen import digest
from xstilts.plan.graph import Planned, Probed
from xstilts.plan.phases import MLM, Phases, Start
from xstilts.plan.step import ProbeBody
from xstilts.spec.experiment import ProbeSpec, RowSpec, TrainSettings
from xstilts.tasks import registry
from xstilts.tasks.registry import Fitting
from xstilts.tasks.task import Family, Rows, Task
from xstilts.tasks.world_languages import SOURCE

GROUPS = {
    "alignment": ("cka", "retrieval", "vocabulary"),
    "fit": ("few_shot", "logme"),
    "text": ("text_embedding",),
    "gradients": ("task_embedding",),
}
"""What is measured together, sorted."""

LABELLED = (Family.CLASSIFICATION, Family.MULTIPLE_CHOICE, Family.TAGGING, Family.SPAN_QA)
"""Kinds whose labels a probe can be fitted on, and whose loss compares no two examples of a batch."""

Missing = dict[tuple[str, str], str]
"""As in `plan.graph.Plan`; a target is then "probe-" and the name of the parallel task."""


def probed(phases: Phases, spec: ProbeSpec, missing: Missing) -> tuple[Probed, ...]:
    """Adds the probe steps that `spec` asks for; languages that have no rows go into `missing`.

    Raises:
        UnknownName, JobFileError: with `where` pointing into the job file.
        DataError, ModelError: from the sources of `phases`.
    """
    made = _Probes(phases, spec)
    asked = {what: tuple(name for name in names if made.wants(name)) for what, names in GROUPS.items()}
    found: list[Probed] = []
    if asked["alignment"]:
        found += made.alignment(asked["alignment"], missing)
    if asked["fit"]:
        found += made.fit(asked["fit"])
    if asked["text"]:
        found += made.text()
    if asked["gradients"]:
        found += made.gradients()
    if not found:
        raise JobFileError(
            "`probe` has nothing to measure in this job",
            "name a task of translations as probe.parallel, or targets that are trained",
            ("probe",),
        )
    return tuple(dict.fromkeys(found))


@dataclass
class _Probes:
    """Probe steps, on the steps of the phases."""

    phases: Phases
    spec: ProbeSpec

    def wants(self, measure: str) -> bool:
        """Whether the job asks for a measure, or for all there are."""
        return self.spec.measures is None or measure in self.spec.measures

    def starts(self) -> Iterator[tuple[RowSpec, int, Start]]:
        """The encoder that targets start from, of every row and seed."""
        for row in self.phases.experiment.intermediate:
            for seed in self.phases.experiment.seeds:
                yield row, seed, self.phases.phase_two(row, seed)

    def targets(self, labelled: bool) -> Iterator[tuple[Task, Fitting]]:
        """Every target that is trained, with its last stage."""
        for name in self.phases.experiment.targets:
            fittings = self.phases.fittings(registry.task(name))
            if fittings and (not labelled or fittings[-1].task.family in LABELLED):
                yield registry.task(name), fittings[-1]

    def alignment(self, measures: tuple[str, ...], missing: Missing) -> Iterator[Probed]:
        """Of translations in every language."""
        task = self._parallel()
        if task is None:
            return
        both = task.family is Family.RETRIEVAL
        source = None if both else self._translated(task, _source(task))
        rows = self._languages(task, missing)
        settings = self.phases.experiment.train.target.for_task(task.name)
        for row, seed, start in self.starts():
            body = ProbeBody(
                task=task,
                what="alignment",
                rows=rows,
                source=source,
                measures=measures,
                layers=tuple(sorted(set(self.spec.layers))),
                samples=self.spec.sentences,
                encoder=start.encoder,
                untrained_seed=seed if row.task == "untrained" else None,
                **_read_as(settings),
            )
            yield Probed("alignment", row.label, "", seed, self._add(body, row.label, start).label)

    def fit(self, measures: tuple[str, ...]) -> Iterator[Probed]:
        """Of the labels of every target's training rows."""
        few = "few_shot" in measures
        for row, seed, start in self.starts():
            for target, fitting in self.targets(labelled=True):
                body = ProbeBody(
                    task=fitting.task,
                    what="fit",
                    rows=(self.phases.rows(fitting.train, fitting.language),),
                    measures=measures,
                    samples=self.spec.samples,
                    shots=tuple(sorted(set(self.spec.shots))) if few else (),
                    draws=self.spec.draws if few else 0,
                    encoder=start.encoder,
                    untrained_seed=seed if row.task == "untrained" else None,
                    **_read_as(self.phases.experiment.train.target.for_task(target.name)),
                )
                yield Probed("fit", row.label, target.name, seed, self._add(body, row.label, start).label)

    def text(self) -> Iterator[Probed]:
        """Of the texts of every task, by the pretrained encoder."""
        experiment = self.phases.experiment
        start = self.phases.beginning()
        wanted: list[tuple[str, str, Fitting, TrainSettings]] = []
        for row in experiment.intermediate:
            for name in row.tasks:
                if name != MLM:
                    settings = experiment.train.intermediate.for_task(name)
                    wanted.append((row.label, "", self.phases.fittings(registry.task(name))[-1], settings))
        for target, fitting in self.targets(labelled=False):
            wanted.append(("", target.name, fitting, experiment.train.target.for_task(target.name)))
        for row_label, name, fitting, settings in wanted:
            body = ProbeBody(
                task=fitting.task,
                what="text",
                rows=(self.phases.rows(fitting.train, fitting.language),),
                measures=GROUPS["text"],
                samples=self.spec.samples,
                encoder=start.encoder,
                **_read_as(settings),
            )
            label = self._add(body, "none", start).label
            for seed in experiment.seeds:
                yield Probed("text", row_label, name, seed, label)

    def gradients(self) -> Iterator[Probed]:
        """Of every task, by a model trained on it: phase 2 alone, and the target without phase 2.

        A mixture has several heads and no task of its own: it is left out.
        """
        experiment = self.phases.experiment
        base = next((row for row in experiment.intermediate if row.task == "none"), None)
        if base is None:
            if self.spec.measures is None:
                return
            raise JobFileError(
                "task_embedding needs targets trained without an intermediate task",
                "add the row none, or measure something else",
                ("probe", "measures"),
            )
        for row, seed, start in self.starts():
            if len(row.tasks) == 1 and not row.mix and start.step is not None:
                fitting = self.phases.fittings(registry.task(row.tasks[0]))[-1]
                settings = experiment.train.intermediate.for_task(fitting.task.name)
                yield from self._gradients(fitting, settings, start, Probed("", row.label, "", seed, ""))
        for target, fitting in self.targets(labelled=True):
            for seed in experiment.seeds:
                trained = self.phases.phase_three(base, target, seed)
                settings = experiment.train.target.for_task(target.name)
                yield from self._gradients(fitting, settings, trained, Probed("", "", target.name, seed, ""))

    def _gradients(
        self, fitting: Fitting, settings: TrainSettings, trained: Start, of: Probed
    ) -> Iterator[Probed]:
        if fitting.task.family not in LABELLED or trained.step is None:
            return
        assert fitting.selection is not None
        body = ProbeBody(
            task=fitting.task,
            what="gradients",
            rows=(
                self.phases.rows(fitting.train, fitting.language),
                self.phases.rows(fitting.selection, fitting.language),
            ),
            measures=GROUPS["gradients"],
            samples=self.spec.samples,
            **_read_as(settings),
        )
        label = f"probe-gradients-{fitting.task.name}-{_tag(body)}-of-{trained.name}"
        planned = self.phases.add(label, body, {"model": trained.step})
        yield Probed("gradients", of.intermediate, of.target, of.seed, planned.label)

    def _add(self, body: ProbeBody, row: str, start: Start) -> Planned:
        seed = "" if body.untrained_seed is None else f"-s{body.untrained_seed}"
        label = f"probe-{body.what}-{body.task.name}-{_tag(body)}{seed}{start.after(row)}"
        return self.phases.add(label, body, start.inputs)

    def _parallel(self) -> Task | None:
        """The task that translations are taken from; None where the job names and has none."""
        experiment = self.phases.experiment
        if self.spec.parallel is not None:
            known = {task.name: task for task in registry.all_tasks()}
            fitting = [name for name, task in known.items() if _is_parallel(task)]
            if self.spec.parallel not in fitting:
                raise UnknownName.among(
                    "task with translations",
                    self.spec.parallel,
                    fitting,
                    "xstilts tasks",
                    ("probe", "parallel"),
                )
            return known[self.spec.parallel]
        found = [registry.task(name) for name in experiment.targets]
        found = [task for task in found if _is_parallel(task) and self._codes(task)]
        found.sort(key=lambda task: task.family is not Family.RETRIEVAL)
        if not found and self.spec.measures is not None:
            raise JobFileError(
                "none of the targets has rows that are translations of each other",
                "name a task that has, such as tatoeba or xnli",
                ("probe", "parallel"),
            )
        return found[0] if found else None

    def _languages(self, task: Task, missing: Missing) -> tuple[Rows, ...]:
        """The rows of every language that the job reports, but for the source language."""
        codes = self._codes(task)
        if not codes:
            raise JobFileError(
                f"{task.name} has translations into none of the languages asked for",
                f"it has {' '.join(task.languages)}",
                ("probe", "parallel"),
            )
        found, problems = [], []
        for code in codes:
            try:
                found.append(self._translated(task, code))
            except DataError as problem:
                problems.append(problem)
                missing[f"probe-{task.name}", code] = problem.problem
        if not found:
            raise problems[0]
        return tuple(found)

    def _codes(self, task: Task) -> list[str]:
        wanted = self.phases.experiment.languages
        own = None if task.family is Family.RETRIEVAL else _source(task)
        spoken = task.reported("test" if task.dev is None else "dev", wanted)
        return [code for code in sorted(spoken) if code != own]

    def _translated(self, task: Task, language: str) -> Rows:
        place = task.place("test" if task.dev is None else "dev", language)
        assert place is not None
        return self.phases.rows(place, language)


def _is_parallel(task: Task) -> bool:
    """Whether its rows are translations of each other, within a row or from language to language."""
    return (task.family is Family.RETRIEVAL or task.parallel) and not task.variant_of


def _source(task: Task) -> str:
    place = task.dev or task.test
    return SOURCE if place is not None and place.path == "world" else "en"


def _read_as(settings: TrainSettings) -> dict[str, int | str]:
    return {name: getattr(settings, name) for name in ("max_length", "doc_stride", "precision")}


def _tag(body: ProbeBody) -> str:
    """Four digits that tell one way of measuring from another in a label."""
    words = ("measures", "layers", "samples", "max_length", "doc_stride", "precision", "shots", "draws")
    return digest({word: getattr(body, word) for word in words})[:4]
