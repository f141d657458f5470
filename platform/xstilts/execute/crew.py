"""One trial on one worker of a search's crew, from beginning to end, whatever becomes of the worker.

Runs in a light process of Tune's that loads no torch: it asks the worker for news, passes on what a search
must know, and begins again where a worker was lost. How it ends is told in the last report.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from xstilts.errors import StoreError, TrainingError
from xstilts.execute.attempts import TOLD_FROM_OUTSIDE, leave
from xstilts.execute.backends import Event, Terms, new_attempt
from xstilts.execute.cluster import draining, ran_out_of_memory
from xstilts.execute.site import Site
from xstilts.execute.state import Again, Cause, given_up
from xstilts.execute.trials import Journal, attempt_mark
from xstilts.execute.workers import Place, slay
from xstilts.plan.step import Step
from xstilts.record.artifacts import StepPaths
from xstilts.record.lease import Dead, Free, Held, Watch
from xstilts.record.schema import read_record

POLL_SECONDS = 0.3
"""Between two questions for news; a pruned trial goes on for so long, and for the report it is in."""

LOOK_SECONDS = 2.0
"""Between looks for nodes that are about to go; a spot node is announced 120 s (AWS) before it goes."""

WAIT_SECONDS = 2.0
"""Between two questions whether a worker is back, or a step that somebody else has is recorded."""

MOVE_SECONDS = 30.0
"""A trial whose worker is not back after so long is given to another: nodes take some 10 s here, minutes in a
cloud, and another worker of the crew may have had nothing to do since."""

SIGN_SECONDS = 5.0
"""Between two reports that a trial lives."""

CURVE_POINTS = 40

ENDED, RUNG, DONE, WAITING = "ended", "rung", "share", "waiting"
"""Words of a report. `ended`: finished | failed | stopped | unplaced | broken | bug. None is `done`: a report
that says so ends the trial for Tune."""

NUMBER, MEMBER = "number", "member"
"""Words of a trial's configuration beside its settings: which of the search's trials, which worker."""

Tell = Callable[[Mapping[str, Any]], None]


@dataclass(slots=True)
class TrialRun:
    """A trial's step on a member of the crew."""

    ray: Any
    member: Any
    """Handle of an actor of `workers.Worker` that comes back after each death."""
    step: Step
    number: int
    site: Site
    terms: Terms
    journal: Journal
    tell: Tell
    """Reports to the search; may end this process where the search is stopping and nothing runs."""
    again: Again = Again()
    watch: Watch = field(default_factory=Watch)
    found: Free | Held | Dead = Free()
    """Who has the step."""
    seen: Counter[Cause] = field(default_factory=Counter)
    curve: list[tuple[float, float]] = field(default_factory=list)
    place: Place | None = None
    leaving: bool = False
    """Whether the step was asked to stop because its worker's node goes."""
    signed: float = 0.0
    done: float = 0.0
    """Share of its steps."""
    held_since: float | None = None
    """Since when an attempt of this search's own has the step that nobody follows any more."""

    def run(self) -> None:
        """Until the step is recorded, has failed, was pruned or stopped.

        Raises:
            StoreError: the store refuses.
        """
        while True:
            if self._is_recorded():
                return self._end("finished")
            if self._is_pruned():
                return self._end("stopped")
            if not self._is_free():
                self._end_own()
                self._wait()
                continue
            if not self._await_worker():
                return self._end("unplaced")
            event = self._attempt(f"{new_attempt()}{attempt_mark(self.journal.search)}")
            if event.what == "done":
                if self._is_recorded():
                    return self._end("finished")
                return self._end(
                    "broken", why="it left no record", remedy="look at the store, then run again"
                )
            if not self._goes_on(event):
                return None

    def _goes_on(self, event: Event) -> bool:
        """Whether to try again after an attempt that failed; if not, the report has said how it ended."""
        cause = event.cause or Cause.BUG
        if isinstance(event.error, TrainingError):
            self._end("failed", why=event.error.problem)
            return False
        if cause is Cause.INTERRUPTED and not self.leaving:
            self._end("stopped")
            return False
        cause = Cause.PREEMPTED if self.leaving else cause
        self.seen[cause] += 1
        if cause in TOLD_FROM_OUTSIDE:
            with suppress(StoreError):  # the next attempt will meet the same store, and say so
                leave(self.journal.store, self.step.key, event.attempt, cause, event.text)
        batch = self.terms.per_device_batch or self.site.execution.per_device_batch
        if not self.again.allows(cause, self.seen[cause], batch):
            if event.error is not None:
                self._end("broken", why=event.error.problem, remedy=event.error.remedy)
            elif cause is Cause.BUG:
                self._end("bug", why=event.text)
            else:
                self._end("broken", why=given_up(event.text, self.seen[cause]))
            return False
        if cause is Cause.DEVICE_MEMORY:
            self.terms = replace(self.terms, per_device_batch=max(1, batch // 2))
        if cause is Cause.ELSEWHERE:
            self._wait()
        else:
            self.watch.gone(event.attempt)
        return True

    def _attempt(self, attempt: str) -> Event:
        """One run of the step, to its last event."""
        run = self.member.run.remote(self.step, attempt, self.terms)
        asked = self.member.news.remote()
        answered = looked = progressed = time.monotonic()
        hang = self.site.execution.hang_seconds
        while True:
            ended, _ = self.ray.wait([run], timeout=POLL_SECONDS)
            heard = self._heard(asked, attempt)
            now = time.monotonic()
            if heard is not None:
                answered, asked = now, self.member.news.remote()
                progressed = now if heard else progressed
            if ended:
                return self._ended(run, asked, attempt)
            if now - self.signed > SIGN_SECONDS:
                # Whether it got on or not: that this trial hangs is seen here, and by nobody else first.
                self.signed = now
                self.tell({DONE: self.done})
            if now - looked > LOOK_SECONDS:
                looked = now
                self._look()
            if now - min(answered, progressed) > hang:
                self._slay()
                text = f"its worker gave no sign of life for {hang:g} s"
                return Event(self.step.label, "failed", attempt, cause=Cause.HUNG, text=text)

    def _ended(self, run: Any, asked: Any, attempt: str) -> Event:
        exceptions = self.ray.exceptions
        try:
            event: Event = self.ray.get(run)
        except exceptions.RayTaskError as problem:
            return Event(self.step.label, "failed", attempt, cause=Cause.BUG, text=str(problem))
        except exceptions.RayError as problem:
            first = str(problem).strip().partition("\n")[0]
            gone = getattr(problem, "preempted", False) or self._is_leaving()
            if ran_out_of_memory(self.ray, problem):
                cause, text = Cause.HOST_MEMORY, "the host ran out of memory, and its worker was ended"
            elif gone:
                cause, text = Cause.PREEMPTED, "its node was taken away"
            else:
                cause, text = Cause.LOST_WORKER, f"its worker was lost ({first})"
            return Event(self.step.label, "failed", attempt, cause=cause, text=text)
        # What was said at the very end: a rung that the run passed on its way out.
        with suppress(exceptions.RayError):
            for last in (asked, self.member.news.remote()):
                self.ray.wait([last], timeout=5)
                self._heard(last, attempt)
        return event

    def _heard(self, asked: Any, attempt: str) -> bool | None:
        """Passes on what the worker said; None when it has not answered, False when it had nothing to say."""
        ready, _ = self.ray.wait([asked], timeout=0)
        if not ready:
            return None
        try:
            news = self.ray.get(asked)
        except self.ray.exceptions.RayError:
            return False  # the run ends in the same way, which says more
        self.place = news.place
        mine = [event for event in news.events if event.attempt == attempt]
        for event in mine:
            self._pass_on(event)
        return any(event.what != "gauges" for event in mine)

    def _pass_on(self, event: Event) -> None:
        metrics = dict(event.metrics)
        if event.what == "rung" and event.metrics:
            value = event.metrics[0][1]
            self.tell({RUNG: event.done, "value": value, "step": event.step, "curve": self._thinned()})
        elif event.what == "started":
            self.tell({DONE: self.done})
        elif event.what == "note":
            self.tell({WAITING: True, "why": event.text})
        elif event.what == "progress":
            self.done = max(self.done, event.done)
            if "loss" in metrics:
                self.curve.append((round(event.done, 4), metrics["loss"]))

    def _end(self, how: str, **words: str) -> None:
        self.tell({ENDED: how, "curve": self._thinned(), **words})

    def _thinned(self) -> list[list[float]]:
        every = max(1, -(-len(self.curve) // CURVE_POINTS))
        return [list(each) for each in self.curve[::every]]

    def _is_recorded(self) -> bool:
        return read_record(self.journal.store, self.step.key) is not None

    def _is_pruned(self) -> bool:
        """Whether the search has said so, to a worker that was lost before it heard."""
        found = self.journal.read(self.number)
        return found is not None and found.state == "pruned"

    def _is_free(self) -> bool:
        """Whether nobody else runs the step; of the dead it is taken over."""
        self.found = found = self.watch.look(self.journal.store, StepPaths(self.step.key))
        self.terms = replace(self.terms, over=found.data if isinstance(found, Dead) else None)
        return not isinstance(found, Held)

    def _end_own(self) -> None:
        """Stops what nobody follows any more: an attempt begun for this trial by a process that was lost. The
        next goes on from its checkpoint, and tells its rungs again."""
        own = isinstance(self.found, Held) and self.found.attempt.endswith(attempt_mark(self.journal.search))
        if not own:
            return
        now = time.monotonic()
        self.held_since = now if self.held_since is None else self.held_since
        self.member.stop.remote()
        if now - self.held_since > self.site.execution.hang_seconds:
            self.held_since = None
            asked = self.member.news.remote()
            with suppress(self.ray.exceptions.RayError):
                if self.ray.wait([asked], timeout=WAIT_SECONDS)[0]:
                    self.place = self.ray.get(asked).place
            self._slay()

    def _wait(self) -> None:
        self.tell({WAITING: True})
        time.sleep(WAIT_SECONDS)

    def _look(self) -> None:
        """Asks for a checkpoint where the node is about to go."""
        if not self.leaving and self._is_leaving():
            self.leaving = True
            self.member.stop.remote()

    def _is_leaving(self) -> bool:
        return self.place is not None and self.place.node in draining(self.ray)

    def _await_worker(self) -> bool:
        """Until the worker answers, on a node that stays, and does nothing else; False when it does not."""
        self.leaving = False
        begun = time.monotonic()
        while time.monotonic() - begun < MOVE_SECONDS:
            # A search that died leaves its trials running, and nobody would ask those to end.
            asked = [self.member.stop.remote(), self.member.news.remote()]
            ready, _ = self.ray.wait(asked, num_returns=2, timeout=WAIT_SECONDS)
            with suppress(self.ray.exceptions.RayError):  # it is on its way
                if len(ready) == 2:
                    self.place = self.ray.get(asked[1]).place
                    if not self._is_leaving():
                        return True
                    self.ray.kill(self.member, no_restart=False)  # comes back on another node
            self._wait()
        return False

    def _slay(self) -> None:
        """Ends a worker that may not even listen; Ray brings it back."""
        with suppress(Exception):
            self.ray.kill(self.member, no_restart=False)
        if self.place is not None:
            slay(self.ray, self.place)
