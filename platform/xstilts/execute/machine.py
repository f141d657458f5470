"""Of the machine a step runs on: device, layout, checkpoints, the reporter that paces them, memory."""

from __future__ import annotations

import functools
import gc
import traceback
from collections.abc import Callable

import torch

from xstilts.execute.steps import Outcome, Work
from xstilts.train import loop
from xstilts.train.checkpoint import Checkpoints

PREDICTION_BATCH = 64
"""Features at a time when predicting, but at most twice the training batch: no gradients are kept, so twice
fits where once fits, and after a device ran out of memory both are halved."""


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
        per_device_batch=work.terms.per_device_batch or execution.per_device_batch,
        threads=execution.threads,
        workers=work.team.size,
    )


def prediction_batch(work: Work) -> int:
    """Features at a time when predicting."""
    return min(PREDICTION_BATCH, 2 * layout_of(work).per_device_batch)


def checkpoints_of(work: Work) -> Checkpoints:
    """The step's checkpoints, written under this attempt."""
    return Checkpoints(work.store, work.paths, work.attempt, work.scratch / "checkpoints")


def tidy(body: Callable[[Work], Outcome]) -> Callable[[Work], Outcome]:
    """A body after which a warm worker has its memory back, also when it failed.

    An exception holds the frames it went through, and they the model: whoever tells of the exception would
    keep 7 GB of XLM-R Large on the device, and the next, smaller attempt would not fit either.
    """

    @functools.wraps(body)
    def tidied(work: Work) -> Outcome:
        try:
            return body(work)
        except BaseException as problem:
            _forget_frames(problem)
            raise
        finally:
            if device_of(work.site.execution.device) == "cuda":
                gc.collect()
                torch.cuda.empty_cache()

    return tidied


def _forget_frames(problem: BaseException | None) -> None:
    """Of a problem and all it came of; their tracebacks still print."""
    while problem is not None:
        traceback.clear_frames(problem.__traceback__)
        problem = problem.__cause__ or problem.__context__
