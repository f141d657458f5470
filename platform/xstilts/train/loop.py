"""The training loop. It knows no cluster and no tracker: it sees batches, an objective and a reporter.

Resuming is exact: batches and schedule are functions of the step, and everything else that a step depends on
(weights, AdamW's moments, the dropout generators, what was best so far) is in the checkpoint.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

import torch
from torch import Tensor, nn

from xstilts.errors import TrainingError
from xstilts.families.base import Batch
from xstilts.frozen import Json, stream
from xstilts.spec.experiment import Selection
from xstilts.train import tensors
from xstilts.train.batches import Batches
from xstilts.train.checkpoint import Checkpoint, Checkpoints
from xstilts.train.optimisation import Optimisation, adamw, load_moments, moments

__all__ = [
    "Interrupted",
    "Layout",
    "Objective",
    "Optimisation",
    "Outcome",
    "Progress",
    "Reporter",
    "Signal",
    "run",
]

log = logging.getLogger(__name__)

Objective = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]
"""(model, batch) -> sum of losses, number of things summed over; a family's `loss`."""

RECENT = 50
"""Steps that a reported loss is the mean of; one loss of 32 examples is too noisy to read."""

MAJORITY = "majority"
"""What `assess` may return beside its metrics: the first metric's value for always saying the commonest."""

COLLAPSE_MARGIN = 1.0
"""Percent points above the majority value below which a run counts as collapsed. A collapsed classifier says
one class and gets the majority value exactly; of 500 examples one point is five."""


class Interrupted(Exception):
    """Training was asked to stop; what was done is in a checkpoint. Not an error of anybody's."""


class Signal(Enum):
    """What a reporter answers."""

    GO = "go"
    STOP = "stop"
    CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far training is."""

    step: int
    """Optimiser steps done."""
    steps: int
    epoch: float
    """Epochs done."""
    seconds: float
    """Training time, attempts that this one resumed included."""


class Reporter(Protocol):
    """Whoever watches: called about once a second and after each evaluation, never each step."""

    def report(self, progress: Progress, metrics: dict[str, float]) -> Signal:
        """`metrics`: loss, learning_rate and, after an evaluation, what `assess` returned."""
        ...


@dataclass(frozen=True, slots=True)
class Layout:
    """Where it runs; recorded, never identity."""

    device: str = "cpu"
    """"cpu", "cuda" or "cuda:1"."""
    per_device_batch: int = 32
    threads: int = 1
    """CPU threads of this process."""
    workers: int = 1

    def to_record(self, precision: str) -> dict[str, Json]:
        """As `StepRecord.layout` has it."""
        return {
            "device": self.device,
            "workers": self.workers,
            "per_device_batch": self.per_device_batch,
            "threads": self.threads,
            "dtype": precision,
        }


@dataclass(frozen=True, slots=True)
class Outcome:
    """What training led to; the model holds the kept weights."""

    steps: int
    """Optimiser steps done; fewer than planned after early stopping."""
    final_loss: float
    """Mean of the last 50 steps."""
    metric: str | None
    """The metric that decided; None without evaluations."""
    best: float | None
    best_step: int | None
    """The step whose weights were best; those kept with `keep: best`."""
    kept: float | None
    """The metric of the weights that the model ends with: the best, or with `keep: last` the newest."""
    history: list[dict[str, float]]
    """One row a report: step, epoch, seconds, loss, learning_rate, and metrics after evaluations."""
    flags: tuple[str, ...]
    """"collapsed", or nothing."""
    seconds: float
    resumed_at: int
    """The step it went on from; 0 when it began anew."""


@dataclass(slots=True)
class _Memory:
    """What the loop must know beside tensors; all of it goes into the checkpoint's state."""

    step: int = 0
    metric: str | None = None
    best: float | None = None
    best_step: int | None = None
    last: float | None = None
    majority: float | None = None
    since_best: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def run(
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    settings: Optimisation,
    *,
    seed: int,
    layout: Layout,
    assess: Callable[[], dict[str, float]] | None = None,
    selection: Selection | None = None,
    checkpoints: Checkpoints | None = None,
    reporter: Reporter,
    note: Callable[[str], None] = log.warning,
    report_seconds: float = 1.0,
) -> Outcome:
    """Trains `model` in place, from the newest whole checkpoint if there is one.

    `assess` evaluates the model as it is (higher is better, its first metric decides) at the end of each
    epoch, or every `selection.every` steps, and after the last step. With `keep: best` (the default) the
    model ends with the best weights, the earlier ones of equals. `note` hears of torn checkpoints.

    Raises:
        TrainingError: a loss or gradient is not finite.
        Interrupted: the reporter said STOP; a checkpoint was written first, where there are checkpoints.
    """
    with tensors.settled(torch.device(layout.device), layout.threads):
        trainer = _Trainer(model, objective, batches, settings, layout, selection or Selection(), assess)
        trainer.begin(seed)
        if checkpoints is not None and (found := checkpoints.latest(note)) is not None:
            trainer.restore(found)
            note(f"resumed at step {found.step} of {settings.steps} (attempt {found.attempt})")
        resumed_at = trainer.memory.step
        watch = _Watch(trainer, reporter, checkpoints, report_seconds)
        while trainer.goes_on():
            trainer.step()
            if trainer.due():
                watch.tell(trainer.evaluate())
            elif trainer.memory.step == settings.steps or watch.waited():
                watch.tell({})
        return trainer.finish(resumed_at)


class _Trainer:
    """The state of one training run and what one step does to it."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        batches: Batches,
        settings: Optimisation,
        layout: Layout,
        selection: Selection,
        assess: Callable[[], dict[str, float]] | None,
    ) -> None:
        if batches.steps != settings.steps:
            raise ValueError(f"{batches.steps} steps of batches, {settings.steps} of the schedule")
        self.device = torch.device(layout.device)
        self.model = model.to(self.device)
        self.objective, self.batches, self.settings = objective, batches, settings
        self.selection, self.assess = selection, assess
        self.named = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
        self.parameters = [each for _, each in self.named]
        self.optimizer = adamw(self.named, settings)
        self.recent = torch.zeros(RECENT, device=self.device)
        self.norm = torch.zeros((), device=self.device)
        self.best_weights: dict[str, Tensor] | None = None
        self.memory = _Memory()
        self.began = time.monotonic()

    def begin(self, seed: int) -> None:
        """Dropout from its own stream, whatever was drawn before."""
        torch.manual_seed(stream(seed, "dropout"))
        self.model.train()

    def goes_on(self) -> bool:
        """Whether there is another step to do."""
        patience = self.selection.patience
        stopped = patience is not None and self.memory.since_best >= patience
        return self.memory.step < self.settings.steps and not stopped

    def step(self) -> None:
        """One optimiser step: gradients of all micro-batches, clipped once."""
        step = self.memory.step
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(step)
        loss = self._backward(self.batches.micro(step))
        self.norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip, foreach=True)
        self.recent[step % RECENT] = loss
        # On a CPU looking costs 2 microseconds; a GPU would have to be waited for, so `check` looks.
        if self.device.type == "cpu" and not (math.isfinite(loss.item()) and math.isfinite(self.norm.item())):
            raise _not_finite(step + 1)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.memory.step = step + 1

    def _backward(self, micro: list[Batch]) -> Tensor:
        """Gradients of the mean loss over all micro-batches; that loss, on the device."""
        total = torch.zeros((), device=self.device)
        weight = torch.zeros((), device=self.device)
        for batch in micro:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
                loss, count = self.objective(self.model, tensors.on_device(batch, self.device))
            if len(micro) == 1:
                loss = loss / count.detach().clamp_min(1)
                loss.backward()  # type: ignore[no-untyped-call]
                return loss.detach().float()
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
            weight += count.detach()
        # How many things there are is known only after the last micro-batch: sums first, then one division.
        share = 1 / weight.clamp_min(1)
        grads = [each.grad for each in self.parameters if each.grad is not None]
        torch._foreach_mul_(grads, share)
        return total * share

    def check(self) -> float:
        """Mean loss of the last 50 steps.

        Raises:
            TrainingError: it is not finite.
        """
        loss = self.recent[: min(self.memory.step, RECENT)].mean().item()
        if not (math.isfinite(loss) and math.isfinite(self.norm.item())):
            raise _not_finite(self.memory.step)
        return loss

    def due(self) -> bool:
        """Whether to evaluate now."""
        every = self.selection.every or self.batches.steps_per_epoch
        step = self.memory.step
        return self.assess is not None and (step % every == 0 or step == self.settings.steps)

    def evaluate(self) -> dict[str, float]:
        """Evaluates, remembers the best; draws nothing from the dropout stream."""
        assert self.assess is not None
        self.check()
        self.model.eval()
        with torch.random.fork_rng(devices=tensors.indices(self.device)), torch.no_grad():
            metrics = dict(self.assess())
        self.model.train()
        memory = self.memory
        memory.majority = metrics.pop(MAJORITY, memory.majority)
        memory.metric, value = next(iter(metrics.items()))
        memory.last = value
        if memory.best is None or value > memory.best:
            memory.best, memory.best_step, memory.since_best = value, memory.step, 0
            if self.selection.keep == "best":
                now = tensors.weights_of(self.model)
                self.best_weights = {name: each.to("cpu", copy=True) for name, each in now.items()}
        else:
            memory.since_best += 1
        return metrics

    def progress(self) -> Progress:
        """How far it is."""
        step = self.memory.step
        seconds = self.memory.seconds + time.monotonic() - self.began
        return Progress(step, self.settings.steps, step / self.batches.steps_per_epoch, seconds)

    def save(self, checkpoints: Checkpoints) -> None:
        """Writes everything that the next step depends on."""
        self.check()
        files = {
            "model": tensors.weights_of(self.model),
            "optimizer": moments(self.named, self.optimizer),
            "rng": {"recent": self.recent, **tensors.generators(self.device)},
        }
        if self.best_weights is not None:
            files["best"] = self.best_weights
        memory = self.memory
        state = {name: getattr(memory, name) for name in _Memory.__slots__}
        state["seconds"] = self.progress().seconds
        checkpoints.save(memory.step, files, state)

    def restore(self, found: Checkpoint) -> None:
        """Goes on from a checkpoint of the same step and layout."""
        tensors.load_weights(self.model, found.tensors["model"])
        load_moments(self.named, self.optimizer, found.tensors["optimizer"])
        self.recent.copy_(found.tensors["rng"]["recent"])
        tensors.load_generators(self.device, found.tensors["rng"])
        best = found.tensors.get("best")
        self.best_weights = None if best is None else {name: each.clone() for name, each in best.items()}
        self.memory = _Memory(**found.state)

    def finish(self, resumed_at: int) -> Outcome:
        """Puts the kept weights into the model."""
        loss, seconds, memory = self.check(), self.progress().seconds, self.memory
        if self.best_weights is not None and memory.best_step != memory.step:
            tensors.load_weights(self.model, self.best_weights)
        self.model.eval()
        kept = memory.best if self.selection.keep == "best" else memory.last
        flags: tuple[str, ...] = ()
        if kept is not None and memory.majority is not None:
            flags = ("collapsed",) if kept < memory.majority + COLLAPSE_MARGIN else ()
        return Outcome(
            steps=memory.step,
            final_loss=loss,
            metric=memory.metric,
            best=memory.best,
            best_step=memory.best_step,
            kept=kept,
            history=memory.history,
            flags=flags,
            seconds=seconds,
            resumed_at=resumed_at,
        )


class _Watch:
    """Tells the reporter now and then, and does what it answers."""

    def __init__(
        self, trainer: _Trainer, reporter: Reporter, checkpoints: Checkpoints | None, seconds: float
    ) -> None:
        self.trainer, self.reporter, self.checkpoints, self.seconds = trainer, reporter, checkpoints, seconds
        self.last = time.monotonic()

    def waited(self) -> bool:
        """Whether it is time for another report."""
        return time.monotonic() - self.last >= self.seconds

    def tell(self, metrics: dict[str, float]) -> None:
        """One report, and one row of the history.

        Raises:
            Interrupted: the answer was STOP.
        """
        trainer, progress = self.trainer, self.trainer.progress()
        rate = trainer.settings.rate(progress.step - 1)
        row = {"loss": trainer.check(), "learning_rate": rate, **metrics}
        epoch, seconds = round(progress.epoch, 4), round(progress.seconds, 2)
        trainer.memory.history.append({"step": progress.step, "epoch": epoch, "seconds": seconds, **row})
        signal = self.reporter.report(progress, row)
        if signal is not Signal.GO and self.checkpoints is not None:
            trainer.save(self.checkpoints)
        self.last = time.monotonic()
        if signal is Signal.STOP:
            raise Interrupted(f"stopped after step {progress.step} of {progress.steps}")


def _not_finite(step: int) -> TrainingError:
    remedy = "lower learning_rate, or use precision fp32; else look for a broken row in the training data"
    return TrainingError(f"the loss or its gradient was not finite by step {step}", remedy)
