"""What a training says of itself and is told: how far it is, what it is worth, where it runs, its outcome."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from xstilts.frozen import Json


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


@dataclass(frozen=True, slots=True)
class Rung:
    """What a run was worth at a share of its way, for a search that compares runs there."""

    fraction: float
    """Of its optimiser steps."""
    step: int
    metric: str
    value: float


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
    """CPU threads of each process."""
    workers: int = 1
    """Ranks that train together."""

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
