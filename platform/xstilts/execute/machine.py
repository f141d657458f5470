"""Of the machine a step runs on: device, layout, checkpoints, and the reporter that paces them."""

from __future__ import annotations

import torch

from xstilts.execute.steps import Work
from xstilts.train import loop
from xstilts.train.checkpoint import Checkpoints

PREDICTION_BATCH = 64
"""Features at a time when predicting; no gradients are kept, so twice the training batch fits."""


class Paced:
    """A reporter that passes progress on and asks for a checkpoint every so many seconds."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._every = work.site.execution.checkpoint_seconds
        self._last: float | None = None

    def report(self, progress: loop.Progress, metrics: dict[str, float]) -> loop.Signal:
        """STOP when the driver wants it, CHECKPOINT when it is time, else GO."""
        signal = self._work.report(progress, metrics)
        if self._last is None:
            self._last = progress.seconds
        if signal is loop.Signal.GO and progress.seconds - self._last >= self._every:
            self._last = progress.seconds
            return loop.Signal.CHECKPOINT
        return signal


def device_of(word: str) -> str:
    """auto is a GPU when there is one."""
    if word == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return word


def layout_of(work: Work) -> loop.Layout:
    """Where this attempt runs."""
    execution = work.site.execution
    return loop.Layout(
        device=device_of(execution.device),
        per_device_batch=execution.per_device_batch,
        threads=execution.threads,
    )


def checkpoints_of(work: Work) -> Checkpoints:
    """The step's checkpoints, written under this attempt."""
    return Checkpoints(work.store, work.paths, work.attempt, work.scratch / "checkpoints")
