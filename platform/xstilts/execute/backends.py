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
    what: Literal["started", "progress", "done", "failed", "note"]
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


class Backend(Protocol):
    """Runs steps and tells what happens, always from the thread that calls `poll`."""

    def room(self, step: Step) -> bool:
        """Whether the step could start now."""
        ...

    def submit(self, step: Step) -> None:
        """Starts or queues a step; its inputs must be recorded."""
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

    if isinstance(problem, Interrupted | KeyboardInterrupt):
        return Cause.INTERRUPTED
    return Cause.FIXABLE if isinstance(problem, XstiltsError) else Cause.BUG


def failure(label: str, attempt: str, problem: BaseException) -> Event:
    """The event that tells of an exception: a sentence for what can be fixed, else the traceback."""
    cause = classify(problem)
    error = problem if isinstance(problem, XstiltsError) else None
    text = (
        str(problem) if error or cause is Cause.INTERRUPTED else "".join(traceback.format_exception(problem))
    )
    return Event(label, "failed", attempt, time=time.time(), cause=cause, text=text, error=error)


class InlineBackend:
    """Runs one step after another in this process: for tests, debuggers and small machines."""

    def __init__(self, site: Site, listen: Listener) -> None:
        self._site = site
        self._listen = listen
        self._queue: list[Step] = []
        self._stopping = False

    def room(self, step: Step) -> bool:
        """One at a time."""
        return not self._queue

    def submit(self, step: Step) -> None:
        """Queues a step."""
        self._queue.append(step)

    def poll(self, seconds: float) -> None:
        """Runs one queued step to its end."""
        from xstilts.execute.steps import run_step

        if not self._queue:
            time.sleep(seconds)
            return
        step = self._queue.pop(0)
        attempt = new_attempt()
        if self._stopping:
            # Told, not dropped: the driver waits for every step that it has submitted.
            text = "stopped before it began"
            self._listen(Event(step.label, "failed", attempt, cause=Cause.INTERRUPTED, text=text))
            return
        self._listen(Event(step.label, "started", attempt, time=time.time()))
        try:
            run_step(step, self._site, attempt, self._listen, lambda: self._stopping)
        except Exception as problem:
            self._listen(failure(step.label, attempt, problem))
        else:
            self._listen(Event(step.label, "done", attempt, done=1.0, time=time.time()))

    def stop(self) -> None:
        """The running step sees it at its next report; what is queued never begins. Safe in a handler."""
        self._stopping = True

    def close(self) -> None:
        """Nothing was started."""
