"""All the words of a job file. Everything but `name` and `execution` decides results and is identity."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_serializer, model_validator

from xstilts.frozen import Frozen, late

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1)]


class ModelSpec(Frozen):
    """A pretrained encoder by hub id or local folder."""

    name: str
    revision: Annotated[str, Field(pattern="^[0-9a-f]{40}$")] | None = None
    """Hub commit; needed only when the encoder is neither a folder nor in the mirror."""


class TranslatorSpec(ModelSpec):
    """A translation model and how it translates."""

    beams: Count = 5
    max_length: Count = 256
    """Sub-words of a text and of its translation; what is longer loses its end."""


class WorldSpec(Frozen):
    """The generated world of `tasks/world.py`; another seed is another world."""

    seed: int = 1


class PretrainSpec(Frozen):
    """Masked-LM pretraining of a small XLM-R-shaped encoder and its Unigram vocabulary, from nothing."""

    data: str
    """"world", or a hub id whose configs are languages, such as xstilts/raw_text."""
    languages: tuple[str, ...] = ()
    """() for all that the data has."""
    sentences: Count = 40_000
    """At most so many a language."""
    exponent: float = Field(default=0.3, ge=0, le=1)
    """Languages are drawn with p proportional to n^exponent (Conneau & Lample 2019); 0 draws them evenly."""
    vocabulary: Count = 8_000
    layers: Count = 2
    width: Count = 128
    heads: Count = 4
    length: Annotated[int, Field(ge=8)] = 64
    """Sub-words a sequence, special tokens included."""
    mask: Share = 0.15
    batch: Count = 64
    steps: Count = 1_000
    learning_rate: Positive = 1e-3
    warmup: float = Field(default=0.06, ge=0, lt=1)
    weight_decay: float = Field(default=0.01, ge=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0

    @model_validator(mode="after")
    def _divisible(self) -> PretrainSpec:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class Selection(Frozen):
    """How the checkpoint is chosen, on rows that no score is ever reported on."""

    rows: Literal["source_dev", "target_dev"] = late("source_dev")
    """target_dev: the mean over the target's dev rows in all its languages, which is no zero-shot transfer
    any more; every number that came of it says so. `selection: target_dev` is short for it."""
    first: Count = 500
    """Examples of the selection split (the first 500, Phang et al. 2020 App. A)."""
    every: Count | None = None
    """Optimiser steps between evaluations; none: at the end of each epoch."""
    patience: Count | None = None
    """Evaluations without gain before stopping; none: never stop early."""
    keep: Literal["best", "last"] = "best"

    @model_validator(mode="before")
    @classmethod
    def _short(cls, words: Any) -> Any:
        return {"rows": words} if isinstance(words, str) else words


class TrainSettings(Frozen):
    """How a model is fine-tuned; every field changes the result, so all are identity.

    Defaults are those of Phang et al. 2020 (v1 App. A) and its released guide where the paper is silent.
    """

    learning_rate: Positive = 1e-5
    epochs: Positive = 3
    effective_batch: Count = 32
    """Examples an optimiser step; the split over devices and micro-batches is the backend's business."""
    max_length: Count = 128
    """Sub-words a sequence, special tokens included."""
    doc_stride: Count = 128
    """Overlap step of span-QA windows."""
    schedule: Literal["linear", "constant"] = "linear"
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of all optimiser steps."""
    warmup_steps: Annotated[int, Field(ge=0)] | None = late(None)
    """Optimiser steps; goes before `warmup`."""
    weight_decay: float = Field(default=0.01, ge=0)
    """Not applied to biases and normalisation."""
    adam_epsilon: Positive = 1e-8
    clip: Positive = 1.0
    """Largest gradient norm, applied once an optimiser step."""
    precision: Literal["fp32", "bf16"] = "fp32"
    fraction: Share = 1.0
    """Of the training rows; subsets of one `subset_seed` are nested."""
    subset_seed: int = 0
    select: Selection | None = late(None)
    """How this task's checkpoint is chosen, where it is not as `evaluate.selection` says."""


class PhaseSettings(TrainSettings):
    """Settings of one phase; `tasks` holds exceptions by task name, and what they leave out is inherited."""

    tasks: dict[str, TrainSettings] = {}

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, words: Any) -> Any:
        if not isinstance(words, dict) or not isinstance(words.get("tasks"), dict):
            return words
        common = {name: value for name, value in words.items() if name in TrainSettings.model_fields}
        merged = {
            task: {**common, **own} if isinstance(own, dict) else own for task, own in words["tasks"].items()
        }
        return {**words, "tasks": merged}

    def for_task(self, name: str) -> TrainSettings:
        """The settings that `name` trains with."""
        common = TrainSettings(**self.model_dump(exclude={"tasks"}))
        return self.tasks.get(name, common)


class RetrievalSettings(Frozen):
    """How sentences become vectors for frozen retrieval."""

    layer: int = 14
    """Index into hidden states, 0 is the embeddings (14 in the paper's code); negative: from the top."""
    centre: bool = False
    """Subtract each language's mean vector first."""


class EvaluateSpec(Frozen):
    """What is reported, and how the model that is reported was chosen."""

    split: Literal["dev", "test"] = "test"
    selection: Selection = Selection()
    retrieval: RetrievalSettings = RetrievalSettings()
    first: Count | None = None
    """Only the first so many items of each language, in published order (none: all); bitext is mined
    whole."""


Measure = Literal["cka", "retrieval", "vocabulary", "text_embedding", "task_embedding", "logme", "few_shot"]


class ProbeSpec(Frozen):
    """What is measured of encoders besides scores: of the pretrained one and of each row's, before the target
    is trained. `evaluate/probe.py` says how; `report/measures.py` reads it."""

    measures: Annotated[tuple[Measure, ...], Field(min_length=1)] | None = None
    """none: all that can be measured in this job."""
    parallel: str | None = None
    """The task whose rows are translations of each other, such as tatoeba, xnli, xquad; none: the first of
    the targets that has such rows, a retrieval task before others."""
    sentences: Annotated[int, Field(ge=8)] = 500
    """Parallel sentences a language, at most."""
    layers: tuple[int, ...] = ()
    """Hidden states, 0 is the embeddings, negative from the top; () for all."""
    samples: Annotated[int, Field(ge=8)] = 1_000
    """Training examples of each task, at most; the same for all encoders."""
    shots: tuple[Count, ...] = (16, 64)
    """Examples of each label that a few-shot probe is fitted on."""
    draws: Count = 5
    """Few-shot probes, each on other examples, whose mean is given."""


class Range(Frozen):
    """A closed interval to search in."""

    low: Annotated[float, Field(ge=0)]
    high: Positive

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        return self


class Values(Frozen):
    """What a training setting is searched among: `{low, high}`, or a list of choices."""

    low: Annotated[float, Field(ge=0)] | None = None
    high: Positive | None = None
    scale: Literal["linear", "log"] = "linear"
    """log: every factor between two values is as likely as the same factor elsewhere."""
    choices: tuple[Any, ...] = ()
    """Written as a plain list."""

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, words: Any) -> Any:
        return {"choices": words} if isinstance(words, list | tuple) else words

    @model_validator(mode="after")
    def _one_kind(self) -> Values:
        if self.low is None and self.high is None and self.choices:
            return self
        if self.low is None or self.high is None or self.choices:
            raise ValueError("give `low` and `high`, or a list of choices")
        if self.low >= self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        if self.scale == "log" and self.low == 0:
            raise ValueError("a log scale has no 0: give a `low` above it")
        return self


class SearchSpec(Frozen):
    """Ray Tune with Optuna's TPE, on source dev: the target phase of each row and trained target, and phase 2
    of each row that has one."""

    phases: Annotated[tuple[Literal["intermediate", "target"], ...], Field(min_length=1)] = (
        "intermediate",
        "target",
    )
    """A phase that is not named trains with its settings as they are."""
    trials: Count = 12
    concurrent: Count = 2
    """Trials of one round. Their settings are suggested together, so this decides results; how many workers
    there are does not."""
    learning_rate: Range
    """Searched on a log scale."""
    epochs: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """The choices, in ascending order."""
    space: dict[str, Values] = {}
    """Any other training setting by name: `warmup: {low: 0, high: 0.2}`, `effective_batch: [16, 32]`,
    `weight_decay: {low: 1.0e-3, high: 0.1, scale: log}`."""
    prune: Literal["asha", "none"] = "asha"
    """asha: a trial ends at 1/4 or 1/2 of its own steps when it is in the worse half of those before it. Of a
    trial that the store already had, rungs are known only where a search that prunes made it."""
    seed: int = 1000
    """Of the sampler and of every trial's training; none of `seeds`."""
    targets: tuple[str, ...] = ()
    """() for every trained target."""

    @model_validator(mode="after")
    def _logarithmic(self) -> SearchSpec:
        if self.learning_rate.low == 0:
            raise ValueError(
                "learning_rate is searched on a log scale, which has no 0: give a `low` above it"
            )
        return self

    @property
    def values(self) -> dict[str, Values]:
        """Every setting that is searched, by its name among the settings of training."""
        rate = Values(low=self.learning_rate.low, high=self.learning_rate.high, scale="log")
        return {"learning_rate": rate, "epochs": Values(choices=self.epochs), **self.space}


class BudgetSpec(Frozen):
    """What a job may spend, all its runs together; then running steps write a checkpoint and the job ends."""

    trials: Count | None = None
    """Trials of all searches."""
    accelerator_hours: Positive | None = None
    money: Positive | None = None
    """In the currency of `price`."""
    price: Positive | None = None
    """Of one accelerator for an hour."""

    @model_validator(mode="after")
    def _priced(self) -> BudgetSpec:
        if self.money is not None and self.price is None:
            raise ValueError("`money` needs `price`, of one accelerator for an hour")
        return self


class ExecutionSpec(Frozen):
    """Where and how it runs. Never identity: a bigger machine finds the same results."""

    backend: Literal["ray", "inline"] = "ray"
    engine: Literal["auto", "ray_train", "warm", "inline"] = "auto"
    """warm: processes that do one step after another; ray_train: a Ray Train run for each training; auto: on
    a cluster Ray Train for pretraining, for steps that others start from and for `ranks` above 1."""
    workers: Count = 2
    """Steps at once."""
    threads: Count = 1
    """CPU threads of each worker."""
    gpus: Annotated[float, Field(ge=0)] | None = None
    """Accelerators of each step that wants one, 0.25 for four steps on one; none: one where there are any
    now. A cluster that begins without nodes has none yet: say how many, or `device: cuda`."""
    ranks: Count = 1
    """Processes that train one step together under Ray Train, each with an accelerator of its own."""
    shard: bool = False
    """Whether ranks share out weights and optimiser (FSDP2), for encoders that do not fit on one."""
    per_device_batch: Count = 32
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_seconds: Positive = 60
    """Between checkpoints of a running step."""
    hang_seconds: Positive = 1800
    """A step without any sign of progress for so long is ended and tried again."""
    budget: BudgetSpec = BudgetSpec()


NAME = r"^[a-z0-9][a-z0-9_-]{0,63}$"


class RowSpec(Frozen):
    """What phase 2 is: a task, a mixture of tasks, machine-translated training rows, or a checkpoint."""

    task: str | None = None
    """Written as a plain word: `none`, `untrained`, or an intermediate task."""
    mix: tuple[str, ...] = ()
    """Tasks that are trained together, a head each; one is drawn for every optimiser step. `mlm` adds
    multilingual masked language modelling, on the text that the job names under `mlm`."""
    cap: Count = 131_072
    """A task is drawn with p proportional to min(its examples, cap): 2^17 (Phang et al. 2020, 3.1)."""
    translated: str | None = None
    """A task whose training rows are read in other languages, machine-translated."""
    languages: tuple[str, ...] = ()
    """The languages of `translated`, one after another; the source language itself may be among them."""
    translator: TranslatorSpec | None = None
    """A translation model (MarianMT, NLLB); none: the translations that the hub serves."""
    checkpoint: ModelSpec | None = None
    """A model of the user's that stands in for phase 2; its encoder is used."""
    name: Annotated[str, Field(pattern=NAME)] | None = None
    """What tables call the row; else made of its words."""

    @model_validator(mode="before")
    @classmethod
    def _plain(cls, words: Any) -> Any:
        return {"task": words} if isinstance(words, str) else words

    @model_validator(mode="after")
    def _one_kind(self) -> RowSpec:
        if sum(bool(kind) for kind in (self.task, self.mix, self.translated, self.checkpoint)) != 1:
            raise ValueError("a row is a task, or has exactly one of mix, translated and checkpoint")
        if self.mix and (len(self.mix) < 2 or len(set(self.mix)) < len(self.mix)):
            raise ValueError("a mixture names two tasks or more, each once")
        if bool(self.translated) != bool(self.languages):
            raise ValueError("`translated` names a task and `languages` the languages it is read in")
        return self

    @model_serializer(mode="wrap")
    def _as_written(self, dump: Any) -> Any:
        return self.task if self.task else dump(self)

    @property
    def label(self) -> str:
        """What tables call the row."""
        if self.name or self.task:
            return self.name or self.task or ""
        if self.mix:
            return "+".join(sorted(self.mix))
        if self.translated:
            return f"{self.translated}-{'-'.join(self.languages)}"
        assert self.checkpoint is not None
        return self.checkpoint.name.rstrip("/").rpartition("/")[2]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that the row trains on, by name."""
        named = self.mix or (self.translated or self.task or "",)
        return tuple(name for name in named if name not in ("", "none", "untrained"))


class MlmSpec(Frozen):
    """The text of `mlm` in mixtures (Phang et al. 2020, 2.3: Wikipedia in the suite's languages)."""

    data: str = "wikimedia/wikipedia"
    """Hub id with a config for each language."""
    config: str = "20231101.{code}"
    """How its configs are named; "{code}" for plain codes."""
    languages: tuple[str, ...] = ()
    """() for those of the job's targets."""
    sentences: Count = 50_000
    """At most so many a language, its first (2 million in 40 languages in Phang et al. 2020)."""
    exponent: float = Field(default=0.3, ge=0, le=1)
    """Languages are drawn with p proportional to n^exponent (Conneau & Lample 2019)."""
    mask: Share = 0.15


class Experiment(Frozen):
    """One job: rows (intermediate tasks) x columns (targets) x seeds."""

    name: Annotated[str, Field(pattern=NAME)]
    question: str = ""
    """One sentence for people: what the job asks."""
    planted: str = ""
    """For generated worlds: which gain is true by construction, as "intermediate -> target"."""
    model: ModelSpec | None = None
    pretrain: PretrainSpec | None = None
    world: WorldSpec | None = None
    intermediate: Annotated[tuple[RowSpec, ...], Field(min_length=1)] = (RowSpec(task="none"),)
    """Rows. `none` skips phase 2; `untrained` skips phase 1 too: the same architecture with fresh weights."""
    targets: tuple[str, ...] = ()
    suite: str | None = None
    """xtreme or xtreme-r: its tasks and languages, instead of `targets`."""
    languages: tuple[str, ...] = ()
    """() for every language of each target."""
    mlm: MlmSpec = MlmSpec()
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (1, 2, 3)
    settings: str | None = None
    """A preset of published settings (`spec/presets.py`), beneath what `train` says."""
    train: TrainSpec = Field(default_factory=lambda: TrainSpec())  # noqa: PLW0108 (defined below)
    search: SearchSpec | None = None
    evaluate: EvaluateSpec = EvaluateSpec()
    probe: ProbeSpec | None = late(None)
    execution: ExecutionSpec = ExecutionSpec()

    @model_validator(mode="after")
    def _one_beginning(self) -> Experiment:
        if self.suite is not None and self.targets:
            raise ValueError("a job names `targets` or a `suite`, not both")
        if (self.model is None) == (self.pretrain is None):
            raise ValueError("a job starts from `model` or from `pretrain`, exactly one of them")
        return self


class TrainSpec(Frozen):
    """Settings of the two training phases."""

    intermediate: PhaseSettings = PhaseSettings()
    target: PhaseSettings = PhaseSettings()


Experiment.model_rebuild()
