"""The driver: starts what can start, listens, decides about failures, until nothing is left to do."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

from xstilts.errors import DataError, LanguageError
from xstilts.execute.backends import Backend, Event, Listener
from xstilts.execute.state import Again, Cause, Survey, survey
from xstilts.plan.expand import Missing
from xstilts.plan.graph import Plan, Planned
from xstilts.record.artifacts import ArtifactStore

POLL_SECONDS = 0.2
"""How long to wait for news before looking again; a step of the quickstart takes seconds."""


class Observer(Protocol):
    """Whoever wants to know: the terminal, MLflow. Must not fail and must not block."""

    def planned(self, survey: Survey) -> None:
        """The work ahead; again after each search that has chosen."""
        ...

    def event(self, event: Event, planned: Planned) -> None:
        """News of a step."""
        ...


@dataclass(frozen=True, slots=True)
class Failure:
    """A step that was given up."""

    label: str
    cause: Cause
    text: str
    error: Exception | None


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to."""

    survey: Survey
    ran: tuple[str, ...]
    """Labels of steps that this run finished."""
    failed: tuple[Failure, ...]
    blocked: dict[str, str]
    """Label -> the failed label it stands on."""
    interrupted: bool

    @property
    def complete(self) -> bool:
        """Whether everything that the job asks for is recorded, no language missing."""
        return not self.survey.to_run and not self.survey.plan.missing


@dataclass(slots=True)
class Runner:
    """Runs one plan. `replan` gives the plan anew, with what searches have chosen and without the languages
    that failed."""

    store: ArtifactStore
    replan: Callable[[Missing], Plan]
    start_backend: Callable[[Listener], Backend]
    observers: Sequence[Observer] = ()
    again: Again = Again()
    survey: Survey = field(init=False)
    busy: set[str] = field(default_factory=set)
    failures: dict[str, Failure] = field(default_factory=dict)
    seen: Counter[tuple[str, Cause]] = field(default_factory=Counter)
    ran: list[str] = field(default_factory=list)
    stopping: bool = False
    failed_languages: dict[tuple[str, str], str] = field(default_factory=dict)
    """(target, language) -> why it is left out."""

    def run(self) -> Result:
        """Until everything is recorded, failed or blocked; or until Ctrl-C, which leaves checkpoints."""
        self._look()
        if self.survey.to_run:
            backend = self.start_backend(self._heard)
            try:
                with self._interruptible(backend):
                    self._drive(backend)
            finally:
                backend.close()
        plan = self.survey.plan
        blocked = plan.blocked_by(set(self.failures))
        failed = tuple(self.failures.values())
        return Result(
            self.survey, tuple(self.ran), failed, blocked, self.stopping and bool(self.survey.to_run)
        )

    def _drive(self, backend: Backend) -> None:
        while True:
            if not self.stopping:
                self._start_ready(backend)
            if not self.busy:
                return
            backend.poll(POLL_SECONDS)

    def _start_ready(self, backend: Backend) -> None:
        held = self.busy | set(self.failures) | set(self.survey.plan.blocked_by(set(self.failures)))
        for planned in self.survey.ready(frozenset(held)):
            if planned.step is not None and backend.room(planned.step):
                self.busy.add(planned.label)
                backend.submit(planned.step)

    def _look(self) -> None:
        self.survey = survey(self.replan(self.failed_languages), self.store)
        for observer in self.observers:
            observer.planned(self.survey)

    def _heard(self, event: Event) -> None:
        planned = self.survey.plan.steps[event.label]
        if event.what == "failed":
            event = self._failed(event)
        for observer in self.observers:
            observer.event(event, planned)
        if event.what == "done":
            self.busy.discard(event.label)
            self.ran.append(event.label)
            self.survey = Survey(self.survey.plan, self.survey.recorded | {event.label})
            if planned.kind == "search":
                self._look()

    def _failed(self, event: Event) -> Event:
        """Decides whether the step is tried again; the event then says so."""
        assert event.cause is not None
        self.busy.discard(event.label)
        self.seen[event.label, event.cause] += 1
        if event.cause is Cause.INTERRUPTED:
            return event
        if isinstance(event.error, LanguageError) and self._without(event.error):
            text = f"{event.text}; going on without {event.error.place[1]}"
            return Event(event.label, "note", event.attempt, text=text, time=event.time)
        if self.again.allows(event.cause, self.seen[event.label, event.cause]):
            return Event(
                event.label, "note", event.attempt, text=f"{event.text}; trying again", time=event.time
            )
        self.failures[event.label] = Failure(event.label, event.cause, event.text, event.error)
        return event

    def _without(self, problem: LanguageError) -> bool:
        """Plans anew without the language; False where the target then has none."""
        if problem.place in self.failed_languages:
            return False
        self.failed_languages[problem.place] = problem.problem
        try:
            self._look()
        except DataError:
            del self.failed_languages[problem.place]
            return False
        return True

    @contextmanager
    def _interruptible(self, backend: Backend) -> Iterator[None]:
        """The first Ctrl-C (or SIGTERM) asks steps to write checkpoints and end; the second ends at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def asked(number: int, frame: FrameType | None) -> None:
            if self.stopping:
                raise KeyboardInterrupt
            self.stopping = True
            backend.stop()

        before: dict[int, Any] = {
            number: signal.signal(number, asked) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
