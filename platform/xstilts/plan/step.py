"""One unit of work, fully described: what a worker needs to do it, and the key of its result."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field

from xstilts.frozen import Frozen, Json, aside, late
from xstilts.plan.fingerprint import fingerprint
from xstilts.spec.experiment import PretrainSpec, RetrievalSettings, Selection, TrainSettings, Values
from xstilts.tasks.task import Rows, Task


class EncoderRef(Frozen):
    """A published encoder. Known by its bytes, or by its commit on the hub, not by where it lies."""

    name: str = aside()
    revision: str | None = None
    weights: dict[str, str] = {}
    """File name -> SHA-256; {} when only the commit is known."""


class _OfTask(Frozen):
    """A body about one task; of the task, only what decides a result counts."""

    task: Task

    def to_identity(self) -> dict[str, Json]:
        return {**super().to_identity(), "task": self.task.core()}


class PretrainBody(Frozen):
    """A tokenizer and an encoder, from raw text."""

    kind: Literal["pretrain"] = "pretrain"
    spec: PretrainSpec
    corpora: tuple[Rows, ...]
    """One a language, in the order of their codes."""


class Part(_OfTask):
    """One of the further tasks of a mixture; rates and schedule are the mixture's."""

    rows: Rows
    selection_rows: Rows
    effective_batch: int
    max_length: int
    doc_stride: int
    fraction: float
    subset_seed: int


class MlmPart(Frozen):
    """Masked language modelling as a part of a mixture."""

    corpora: tuple[Rows, ...]
    """One a language, in the order of their codes; of each at most `first`."""
    counts: tuple[int, ...] = ()
    """Rows that each language has in all, which its share is made of; () where that is not known."""
    exponent: float
    mask: float
    effective_batch: int
    max_length: int


class Mixing(Frozen):
    """What is trained beside the task of a `TrainBody`: one task is drawn for every optimiser step."""

    parts: tuple[Part, ...]
    """In the order of their names, which come after the task's own."""
    mlm: MlmPart | None = None
    cap: int
    """A task is drawn with p proportional to min(its examples, cap)."""


class TrainBody(_OfTask):
    """Fine-tuning of a whole encoder with a fresh head. Starts from input `encoder`, else from `encoder`.

    Rows that a `translate` step makes come from input `rows/<language>`, which `Rows.made_by` names.
    """

    kind: Literal["train"] = "train"
    rows: Rows
    selection_rows: Rows
    selection: Selection
    settings: TrainSettings
    seed: int
    encoder: EncoderRef | None = None
    untrained: bool = False
    """Fresh weights in the encoder's architecture."""
    mixing: Mixing | None = late(None)
    target_dev: tuple[Rows, ...] = late(())
    """With `selection.rows: target_dev`, the reported task's dev rows, one a language; `selection_rows` is
    not read then."""


class TranslateBody(_OfTask):
    """Training rows of one task in another language, by a translation model."""

    kind: Literal["translate"] = "translate"
    rows: Rows
    into: str
    model: EncoderRef
    beams: int
    max_length: int


class SearchBody(_OfTask):
    """Settings for one training, chosen among several that are tried. Trials start from the inputs of the
    search but for `hint`: another search, whose choice is tried early."""

    kind: Literal["search"] = "search"
    trial: TrainBody
    """What each trial is, but for the searched values; as it stands it is the first trial."""
    trials: int
    concurrent: int
    space: dict[str, Values]
    """Name of a training setting -> what it is searched among."""
    prune: Literal["asha", "none"]


class ProbeBody(_OfTask):
    """Measures of one encoder, on rows of one task.

    alignment: of translations in one language beside the source language, by layer.
    text: the mean vector of a task's texts. fit: how well vectors tell the task's labels.
    gradients: what the task's loss, of a model trained on it, wants changed (input `model`).
    """

    kind: Literal["probe"] = "probe"
    what: Literal["alignment", "text", "fit", "gradients"]
    rows: tuple[Rows, ...]
    """alignment: one a language, in the order of their codes; else the training rows, after them for
    gradients those that checkpoints are chosen on, which open labels may be met in."""
    source: Rows | None = None
    """alignment: the same rows in the source language; None where they have both."""
    measures: tuple[str, ...]
    """Sorted."""
    layers: tuple[int, ...] = ()
    """alignment; () for all."""
    samples: int
    """Sentences of each language, or training examples, at most."""
    max_length: int
    doc_stride: int
    precision: str
    shots: tuple[int, ...] = ()
    draws: int = 0
    encoder: EncoderRef | None = None
    untrained_seed: int | None = None
    """As in PredictBody."""


class PredictBody(_OfTask):
    """Predictions of one trained model in every language of one task."""

    kind: Literal["predict"] = "predict"
    rows: tuple[Rows, ...]
    """One a language, in the order of their codes."""
    max_length: int
    doc_stride: int
    precision: str
    retrieval: RetrievalSettings | None = None
    """For frozen retrieval only: how vectors are made."""
    encoder: EncoderRef | None = None
    untrained_seed: int | None = None
    """Fresh weights in `encoder`'s architecture, from this seed."""
    calibration: tuple[Rows, ...] = late(())
    """Bitext mining reported on test: the dev rows, one a language, that its threshold is found on."""
    candidates: tuple[Rows, ...] = late(())
    """Documents that every query is compared with; one entry, or none."""


class ScoreBody(_OfTask):
    """Item statistics and metrics from predictions; needs no accelerator."""

    kind: Literal["score"] = "score"
    rows: tuple[Rows, ...]
    calibration: tuple[Rows, ...] = late(())
    """As in PredictBody."""

    def to_identity(self) -> dict[str, Json]:
        """Items say which of them are translations of each other."""
        return {**super().to_identity(), "parallel": self.task.parallel}


Body = Annotated[
    PretrainBody | TranslateBody | TrainBody | SearchBody | ProbeBody | PredictBody | ScoreBody,
    Field(discriminator="kind"),
]


class Step(Frozen):
    """A body and the steps it starts from. Equal keys are equal results."""

    label: str
    """For people; a pure function of identity, never of role, row or job."""
    body: Body
    inputs: dict[str, str] = {}
    """Role -> key of the step it starts from."""

    @property
    def kind(self) -> str:
        """Which kind of step this is."""
        return self.body.kind

    @cached_property
    def digest(self) -> str:
        """Changes exactly when the result could."""
        return fingerprint(self.kind, self.body.to_identity(), self.inputs)

    @property
    def key(self) -> str:
        """Name of the step's folder in the store."""
        return f"{self.label}--{self.digest}"
