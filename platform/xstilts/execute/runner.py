"""The driver: starts what can start, listens, decides about failures, until nothing is left to do."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

from xstilts.errors import DataError, LanguageError, StoreError
from xstilts.execute.attempts import TOLD_FROM_OUTSIDE, leave
from xstilts.execute.backends import Backend, Event, Listener, Terms
from xstilts.execute.orders import Orders, Spending
from xstilts.execute.state import Again, Cause, Survey, engine_of, given_up, survey
from xstilts.plan.expand import Missing
from xstilts.plan.graph import Plan, Planned
from xstilts.record.artifacts import ArtifactStore, StepPaths
from xstilts.record.dropped import is_whole
from xstilts.record.lease import Dead, Held, Watch
from xstilts.spec.experiment import BudgetSpec, ExecutionSpec

POLL_SECONDS = 0.2
"""How long to wait for news before looking again; a step of the quickstart takes seconds."""

ELSEWHERE_SECONDS = 2.0
"""Between looks at a step that another driver's worker has."""

ORDERS_SECONDS = 3.0
"""Between looks for orders; a request to a bucket takes 25 ms."""


class Observer(Protocol):
    """Whoever wants to know: the terminal, MLflow, the ledger. Must not fail and must not block."""

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
    stopped_by: str = ""
    """Why it was stopped, where nobody pressed Ctrl-C: an order, a budget."""

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
    execution: ExecutionSpec = ExecutionSpec()
    observers: Sequence[Observer] = ()
    again: Again = Again()
    driver: str = ""
    """A name no other driver has; leases hold it."""
    on_cluster: bool = False
    orders: Callable[[], Orders] = Orders
    """What people ask of this run, asked every 3 s."""
    spending: Spending = field(default_factory=Spending)
    watch: Watch = field(default_factory=Watch)
    survey: Survey = field(init=False)
    busy: dict[str, str] = field(default_factory=dict)
    """Label -> key that is being made; a new plan may have another by then."""
    failures: dict[str, Failure] = field(default_factory=dict)
    seen: Counter[tuple[str, Cause]] = field(default_factory=Counter)
    ran: list[str] = field(default_factory=list)
    stopping: bool = False
    stopped_by: str = ""
    failed_languages: dict[tuple[str, str], str] = field(default_factory=dict)
    """(target, language) -> why it is left out."""
    batches: dict[str, int] = field(default_factory=dict)
    """Label -> per-device batch, after its device ran out of memory."""
    elsewhere: dict[str, float] = field(default_factory=dict)
    """Label of a step that another driver's worker has -> when to look again."""
    ready_since: dict[str, float] = field(default_factory=dict)
    asked_at: float = 0.0
    slots: int = 0
    """Steps at once, as the backend has it now."""

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
        unfinished = self.stopping and bool(self.survey.to_run)
        return Result(self.survey, tuple(self.ran), failed, blocked, unfinished, self.stopped_by)

    def _drive(self, backend: Backend) -> None:
        self.spending.count(0.0)
        while True:
            if not self.stopping:
                self._start_ready(backend)
            waits = not self.stopping and any(label not in self.survey.recorded for label in self.elsewhere)
            if not self.busy and not waits:
                return
            held = backend.accelerators()
            backend.poll(POLL_SECONDS)
            self.spending.count(held)
            self._mind(backend)

    def _start_ready(self, backend: Backend) -> None:
        failed = set(self.failures)
        held = set(self.busy) | failed | set(self.survey.plan.blocked_by(failed))
        for planned in list(self.survey.ready(frozenset(held))):
            assert planned.step is not None
            self.ready_since.setdefault(planned.label, time.time())
            if not backend.room(planned.step) or time.monotonic() < self.elsewhere.get(planned.label, 0.0):
                continue
            try:
                free, over = self._is_free(planned)
            except StoreError as problem:
                # Steps that run outlast an outage; with none there is nothing to wait for.
                if not self.busy:
                    raise
                self._tell(Event(planned.label, "note", text=str(problem), time=time.time()), planned)
                return
            if free:
                self.busy[planned.label] = planned.step.key
                backend.submit(planned.step, self._terms(planned, over))

    def _is_free(self, planned: Planned) -> tuple[bool, bytes | None]:
        """Whether nobody else has the step, and the lease of the dead that it is taken over from."""
        assert planned.step is not None
        paths = StepPaths(planned.step.key)
        found = self.watch.look(self.store, paths)
        if not isinstance(found, Held):
            self.elsewhere.pop(planned.label, None)
            if isinstance(found, Dead) and found.attempt:
                text = f"whoever did it for {found.holder} is gone; taken over"
                gone = Event(
                    planned.label, "note", found.attempt, time=time.time(), cause=Cause.LOST_WORKER, text=text
                )
                if not self.store.exists(paths.attempt(found.attempt)):
                    self._leave_cause(gone, planned)
                    self._tell(gone, planned)
            return True, found.data if isinstance(found, Dead) else None
        if is_whole(self.store, planned.step.key):
            self.elsewhere.pop(planned.label, None)
            event = Event(planned.label, "done", time=time.time(), text=f"by {found.holder}")
            self._tell(event, planned)
            self._recorded(planned)
            return False, None
        if planned.label not in self.elsewhere:
            text = f"{found.holder} has it; waiting for its result"
            self._tell(Event(planned.label, "note", text=text, time=time.time()), planned)
        self.elsewhere[planned.label] = time.monotonic() + ELSEWHERE_SECONDS
        return False, None

    def _terms(self, planned: Planned, over: bytes | None) -> Terms:
        return Terms(
            ready=self.ready_since[planned.label],
            holder=self.driver,
            over=over,
            per_device_batch=self.batches.get(planned.label),
            engine=engine_of(planned, self.survey.plan, self.execution, self.on_cluster),
        )

    def _mind(self, backend: Backend) -> None:
        """Does what people asked for meanwhile, and ends what has no budget left."""
        if time.monotonic() - self.asked_at < ORDERS_SECONDS:
            return
        self.asked_at = time.monotonic()
        orders = self.orders()
        if orders.workers is not None:
            backend.slots = orders.workers
        self.slots = backend.slots
        searching = any(planned.kind == "search" for planned in self.survey.to_run)
        over = self.spending.over(_merged(orders.budget, self.execution.budget), searching)
        if (orders.stop or over) and not self.stopping:
            self.stopped_by = over or "it was cancelled"
            self.stopping = True
            backend.stop()
        if orders.stop == "now":
            self.busy.clear()

    def _look(self) -> None:
        self.survey = survey(self.replan(self.failed_languages), self.store)
        for observer in self.observers:
            observer.planned(self.survey)

    def _tell(self, event: Event, planned: Planned) -> None:
        for observer in self.observers:
            observer.event(event, planned)

    def _heard(self, event: Event) -> None:
        planned = self.survey.plan.steps[event.label]
        if event.what == "failed":
            event = self._failed(event, planned)
        if event.what == "progress" and planned.kind == "search":
            self.spending.trials[event.label] = event.step
        self._tell(event, planned)
        if event.what == "done":
            made = self.busy.pop(event.label, planned.key)
            self.ran.append(event.label)
            if made == planned.key:
                self._recorded(planned)

    def _recorded(self, planned: Planned) -> None:
        self.survey = Survey(self.survey.plan, self.survey.recorded | {planned.label})
        if planned.kind == "search":
            self._look()

    def _failed(self, event: Event, planned: Planned) -> Event:
        """Decides whether the step is tried again; the event then says so."""
        cause = event.cause
        assert cause is not None
        self.busy.pop(event.label, None)
        self.ready_since.pop(event.label, None)
        self.seen[event.label, cause] += 1
        if event.attempt:
            self.watch.gone(event.attempt)
        self._leave_cause(event, planned)
        if cause is Cause.INTERRUPTED:
            return event
        if isinstance(event.error, LanguageError) and self._without(event.error):
            return _note(event, f"{event.text}; going on without {event.error.place[1]}")
        batch = self.batches.get(event.label, self.execution.per_device_batch)
        if self.again.allows(cause, self.seen[event.label, cause], batch):
            if cause is not Cause.DEVICE_MEMORY:
                return _note(event, f"{event.text}; trying again")
            self.batches[event.label] = max(1, batch // 2)
            return _note(event, f"{cause}; trying again with {batch // 2} at a time, not {batch}")
        told_once = cause in (Cause.FIXABLE, Cause.BUG)
        text = event.text if told_once else given_up(event.text, self.seen[event.label, cause])
        self.failures[event.label] = Failure(event.label, cause, text, event.error)
        return event

    def _leave_cause(self, event: Event, planned: Planned) -> None:
        """Where the process could not write why it ended, the driver does."""
        if planned.step is None or event.cause not in TOLD_FROM_OUTSIDE or not event.attempt:
            return
        with suppress(StoreError):  # the next attempt will meet the same store, and say so
            leave(self.store, planned.step.key, event.attempt, event.cause, event.text)

    def _without(self, problem: LanguageError) -> bool:
        """Plans anew without the language; False where the target then has none."""
        if problem.place in self.failed_languages:
            return True  # by another step that read it, begun before the plan went without
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


def _merged(asked: BudgetSpec | None, own: BudgetSpec) -> BudgetSpec:
    """The job file's budget, with what was asked for since in its place."""
    given = {} if asked is None else asked.model_dump(exclude_none=True)
    return own.model_copy(update=given)


def _note(event: Event, text: str) -> Event:
    return Event(event.label, "note", event.attempt, text=text, time=event.time, cause=event.cause)
