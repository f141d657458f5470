"""What runs steps: the promise, and the backend that runs them in this process."""

from __future__ import annotations

import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from xstilts.errors import XstiltsError
from xstilts.execute.site import Site
from xstilts.execute.state import Cause
from xstilts.plan.step import Step


@dataclass(frozen=True, slots=True)
class Event:
    """News of a running step."""

    label: str
    what: Literal["started", "progress", "rung", "gauges", "done", "failed", "note"]
    """rung: a value at a share of the work where a search may prune; `metrics` has it. gauges: how busy the
    node is whose name is `text`."""
    attempt: str = ""
    done: float = 0.0
    """Share of the step's work, 0 to 1."""
    metrics: tuple[tuple[str, float], ...] = ()
    step: int = 0
    """Optimiser step that the metrics belong to."""
    time: float = 0.0
    """Seconds since the epoch."""
    cause: Cause | None = None
    text: str = ""
    """For people: the note, or what went wrong."""
    error: XstiltsError | None = None


Listener = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Terms:
    """How one attempt of a step is to be done. Nothing of it decides the result."""

    ready: float = 0.0
    """When the step could have begun, in seconds since the epoch; 0 when nobody waited."""
    holder: str = ""
    """The driver that asks for it."""
    over: bytes | None = None
    """The lease of a dead attempt that this one takes over."""
    per_device_batch: int | None = None
    """Instead of the site's, after a device ran out of memory."""
    engine: Literal["warm", "ray_train"] = "warm"
    """Of a search: the engine of its trials."""
    rungs: tuple[float, ...] = ()
    """Shares of the optimiser steps at which to tell the selection metric, for a search that prunes."""


class Elsewhere(Exception):
    """Another driver's worker has the step, or took it over from this one. Not an error of anybody's."""


class WorkersLost(Exception):
    """Of several processes that do a step together one went away."""

    preempted = False
    """Whether its node was taken away, as was announced."""


class Backend(Protocol):
    """Runs steps and tells what happens, always from the thread that calls `poll`."""

    slots: int
    """Steps at once; may be changed at any time."""

    def room(self, step: Step) -> bool:
        """Whether the step could start now."""
        ...

    def submit(self, step: Step, terms: Terms) -> None:
        """Starts or queues a step; its inputs must be recorded."""
        ...

    def accelerators(self) -> float:
        """How many are held now by steps that have begun; a machine without any counts as one a step."""
        ...

    def poll(self, seconds: float) -> None:
        """Tells the listener what has happened, waiting up to `seconds` for something to happen."""
        ...

    def stop(self) -> None:
        """Asks every running step to write a checkpoint and end. Safe in a signal handler."""
        ...

    def close(self) -> None:
        """Ends what this backend started."""
        ...


def new_attempt() -> str:
    """A name no other attempt has, sorting by time."""
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:8]}"


def classify(problem: BaseException) -> Cause:
    """Which kind of failure an exception is."""
    from xstilts.train.loop import Interrupted

    if isinstance(problem, Elsewhere):
        return Cause.ELSEWHERE
    if isinstance(problem, WorkersLost):
        return Cause.PREEMPTED if problem.preempted else Cause.LOST_WORKER
    if isinstance(problem, Interrupted | KeyboardInterrupt):
        return Cause.INTERRUPTED
    if isinstance(problem, MemoryError):
        return Cause.HOST_MEMORY
    # Known by name: torch takes seconds to load, which a driver need not pay.
    if type(problem).__name__ == "OutOfMemoryError" and type(problem).__module__.startswith("torch"):
        return Cause.DEVICE_MEMORY
    return Cause.FIXABLE if isinstance(problem, XstiltsError) else Cause.BUG


def failure(label: str, attempt: str, problem: BaseException) -> Event:
    """The event that tells of an exception: a sentence for what can be fixed, else the traceback."""
    cause = classify(problem)
    error = problem if isinstance(problem, XstiltsError) else None
    text = "".join(traceback.format_exception(problem)) if cause is Cause.BUG else str(problem)
    return Event(label, "failed", attempt, time=time.time(), cause=cause, text=text, error=error)


class InlineBackend:
    """Runs one step after another in this process: for tests, debuggers and small machines."""

    def __init__(self, site: Site, listen: Listener) -> None:
        self._site = site
        self._listen = listen
        self._queue: list[tuple[Step, Terms]] = []
        self._stopping = False
        self.slots = 1

    def room(self, step: Step) -> bool:
        """One at a time."""
        return not self._queue

    def submit(self, step: Step, terms: Terms) -> None:
        """Queues a step."""
        self._queue.append((step, terms))

    def accelerators(self) -> float:
        """One, for the step that the next `poll` runs."""
        return float(sum(step.kind != "score" for step, _ in self._queue[:1]))

    def poll(self, seconds: float) -> None:
        """Runs one queued step to its end."""
        from xstilts.execute.steps import run_step

        if not self._queue:
            time.sleep(seconds)
            return
        step, terms = self._queue.pop(0)
        attempt = new_attempt()
        if self._stopping:
            # Told, not dropped: the driver waits for every step that it has submitted.
            text = "stopped before it began"
            self._listen(Event(step.label, "failed", attempt, cause=Cause.INTERRUPTED, text=text))
            return
        self._listen(Event(step.label, "started", attempt, time=time.time()))
        try:
            run_step(step, self._site, attempt, self._listen, lambda: self._stopping, terms)
        except Exception as problem:
            self._listen(failure(step.label, attempt, problem))
        else:
            self._listen(Event(step.label, "done", attempt, done=1.0, time=time.time()))

    def stop(self) -> None:
        """The running step sees it at its next report; what is queued never begins. Safe in a handler."""
        self._stopping = True

    def close(self) -> None:
        """Nothing was started."""
