"""One trial on a worker that may be lost, hang, be taken away or be busy; a fake Ray, a real store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_search_trials import record, search_step

from xstilts.errors import StoreError, TrainingError
from xstilts.execute import crew
from xstilts.execute.attempts import of_step
from xstilts.execute.backends import Event, Terms
from xstilts.execute.crew import DONE, ENDED, RUNG, WAITING, TrialRun
from xstilts.execute.site import Site
from xstilts.execute.state import Cause
from xstilts.execute.trials import Journal, Trial, attempt_mark
from xstilts.execute.workers import News, Place
from xstilts.plan.step import Step
from xstilts.plan.trainings import trial_of
from xstilts.record.artifacts import StepPaths
from xstilts.record.lease import Lease
from xstilts.record.local import LocalStore
from xstilts.spec.experiment import ExecutionSpec

SEARCH = search_step()
STEP = trial_of(SEARCH, {"learning_rate": 1e-5, "epochs": 1})


class RayError(Exception):
    preempted = False


class RayTaskError(RayError):
    """A call that raised."""


class OutOfMemoryError(RayError):
    """The host's."""


class Answer:
    """What an actor's call gives: a value or an exception, now or never."""

    def __init__(self, value: Any, ready: bool = True) -> None:
        self.value, self.ready = value, ready


class FakeRay:
    exceptions: Any = type(
        "exceptions",
        (),
        {"RayError": RayError, "RayTaskError": RayTaskError, "OutOfMemoryError": OutOfMemoryError},
    )

    def __init__(self) -> None:
        self.killed = 0

    def wait(
        self, asked: list[Answer], num_returns: int = 1, timeout: float = 0
    ) -> tuple[list[Answer], None]:
        return [each for each in asked if each.ready], None

    def get(self, answer: Answer) -> Any:
        if isinstance(answer.value, Exception):
            raise answer.value
        return answer.value

    def kill(self, member: Any, no_restart: bool) -> None:
        assert not no_restart
        self.killed += 1


class Member:
    """A worker whose runs end as scripted; each entry gives the events it tells and what its call returns."""

    def __init__(self, *script: Callable[[Step, str, Terms], tuple[list[Event], Any]]) -> None:
        self.script, self.events, self.terms, self.stops = list(script), list[Event](), list[Terms](), 0
        self.place = Place("node1", 1, 1.0)
        self.run, self.news, self.stop = (
            type("call", (), {"remote": staticmethod(each)}) for each in (self._run, self._news, self._stop)
        )

    def _run(self, step: Step, attempt: str, terms: Terms) -> Answer:
        self.terms.append(terms)
        events, value = self.script.pop(0)(step, attempt, terms)
        self.events = [Event(step.label, "started", attempt), *events]
        return Answer(value, value is not None)

    def _news(self) -> Answer:
        told, self.events = self.events, []
        return Answer(News(self.place, tuple(told)))

    def _stop(self) -> Answer:
        self.stops += 1
        return Answer(None)


@pytest.fixture
def store(store_root: Path) -> LocalStore:
    return LocalStore.open(str(store_root))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "WAIT_SECONDS", 0.001)
    monkeypatch.setattr(crew, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(crew, "draining", lambda ray: frozenset())


def follow(store: LocalStore, member: Member, **execution: Any) -> list[dict[str, Any]]:
    """Runs the trial; what it told."""
    told: list[dict[str, Any]] = []
    spec = ExecutionSpec(per_device_batch=32, **execution)
    journal = Journal(store, SEARCH.key, ("learning_rate", "epochs"))
    TrialRun(
        FakeRay(), member, STEP, 4, Site(store.location, None, spec), Terms(rungs=(0.25,)), journal,
        lambda words: told.append(dict(words)),
    ).run()  # fmt: skip
    return told


def finishes(store: LocalStore, *events: Event) -> Any:
    def run(step: Step, attempt: str, terms: Terms) -> tuple[list[Event], Any]:
        record(store, step, 50.0)
        mine = [replace(each, attempt=attempt) for each in events]
        return mine, Event(step.label, "done", attempt)

    return run


def fails(cause: Cause, error: Any = None, text: str = "went wrong") -> Any:
    return lambda step, attempt, terms: (
        [], Event(step.label, "failed", attempt, cause=cause, text=text, error=error),
    )  # fmt: skip


def raises(problem: Exception) -> Any:
    return lambda step, attempt, terms: ([], problem)


def test_a_recorded_trial_is_found_and_no_worker_asked(store: LocalStore) -> None:
    record(store, STEP, 50.0)
    member = Member()
    assert follow(store, member) == [{ENDED: "finished", "curve": []}] and member.stops == 0


def test_values_at_rungs_and_the_curve_are_passed_on(store: LocalStore) -> None:
    member = Member(
        finishes(
            store,
            Event(STEP.label, "progress", done=0.1, metrics=(("loss", 2.0), ("learning_rate", 1e-5))),
            Event(STEP.label, "rung", done=0.25, metrics=(("accuracy", 41.0),), step=10),
            Event("another step", "rung", done=0.5, metrics=(("accuracy", 1.0),), step=10),
        )
    )
    told = follow(store, member)
    assert {RUNG: 0.25, "value": 41.0, "step": 10, "curve": [[0.1, 2.0]]} in told
    assert told[0] == {DONE: 0.0} and told[-1] == {ENDED: "finished", "curve": [[0.1, 2.0]]}
    assert member.terms[0].rungs == (0.25,) and member.stops == 1, "whatever ran there before is asked to end"


def test_attempts_can_be_told_from_those_of_others(store: LocalStore) -> None:
    seen: list[str] = []

    def run(step: Step, attempt: str, terms: Terms) -> Any:
        seen.append(attempt)
        return finishes(store)(step, attempt, terms)

    follow(store, Member(run))
    assert seen[0].endswith(attempt_mark(SEARCH.key)) and seen[0].startswith("20")


def test_training_that_fails_ends_it_and_what_is_no_answer_is_broken(store: LocalStore) -> None:
    told = follow(store, Member(fails(Cause.FIXABLE, TrainingError("the loss was not finite", "lower it"))))
    assert told[-1] == {ENDED: "failed", "curve": [], "why": "the loss was not finite"}
    told = follow(store, Member(fails(Cause.FIXABLE, StoreError("the disk is full", "free some"))))
    assert told[-1] == {ENDED: "broken", "curve": [], "why": "the disk is full", "remedy": "free some"}
    assert follow(store, Member(fails(Cause.BUG, text="Traceback")))[-1][ENDED] == "bug"
    assert follow(store, Member(raises(RayTaskError("Traceback"))))[-1][ENDED] == "bug"


def test_lost_workers_are_rationed_and_preemption_is_not(store: LocalStore) -> None:
    lost = raises(RayError("the actor died"))
    told = follow(store, Member(lost, lost, lost, finishes(store)))
    assert told[-1][ENDED] == "finished"


def test_a_worker_lost_four_times_ends_the_search(store: LocalStore) -> None:
    told = follow(store, Member(*[raises(RayError("the actor died"))] * 4))
    assert told[-1][ENDED] == "broken" and "given up after 4 tries" in told[-1]["why"]


def test_preemption_costs_nothing(store: LocalStore) -> None:
    taken = RayError("node gone")
    taken.preempted = True
    told = follow(store, Member(*[raises(taken)] * 7, finishes(store)))
    assert told[-1][ENDED] == "finished"


def test_a_notice_is_a_checkpoint_and_another_node(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaving = [frozenset[str](), frozenset({"node1"}), frozenset({"node1"}), frozenset({"node1"})]
    monkeypatch.setattr(crew, "draining", lambda ray: leaving.pop(0) if leaving else frozenset())
    member = Member(lambda step, attempt, terms: ([], None), finishes(store))
    stopped = Event(STEP.label, "failed", "x", cause=Cause.INTERRUPTED, text="stopped")
    running: list[Answer] = []
    run = member._run

    def begin(step: Step, attempt: str, terms: Terms) -> Answer:
        running.append(run(step, attempt, terms))
        return running[-1]

    def stop() -> Answer:
        member.stops += 1
        if running:
            running[0].value, running[0].ready = stopped, True
        return Answer(None)

    member.run = type("call", (), {"remote": staticmethod(begin)})
    member.stop = type("call", (), {"remote": staticmethod(stop)})
    told = follow(store, member)
    assert told[-1][ENDED] == "finished" and len(running) == 2 and {WAITING: True} in told


def test_memory_halves_the_batch(store: LocalStore) -> None:
    member = Member(fails(Cause.DEVICE_MEMORY), fails(Cause.DEVICE_MEMORY), finishes(store))
    assert follow(store, member)[-1][ENDED] == "finished"
    assert [terms.per_device_batch for terms in member.terms] == [None, 16, 8]


def test_a_worker_that_does_not_come_back_leaves_the_trial_to_another(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "MOVE_SECONDS", 0.05)
    member = Member(finishes(store))
    member.news = type("call", (), {"remote": staticmethod(lambda: Answer(None, ready=False))})
    assert follow(store, member)[-1] == {ENDED: "unplaced", "curve": []} and member.script, "it never ran"


def test_a_trial_says_that_it_lives_whether_it_gets_on_or_not(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the driver would take the search for hung before the trial's own clock does."""
    monkeypatch.setattr(crew, "SIGN_SECONDS", 0.0)
    monkeypatch.setattr(TrialRun, "_slay", lambda self: None)
    silent = lambda step, attempt, terms: ([], None)  # noqa: E731
    told = follow(store, Member(silent, finishes(store)), hang_seconds=0.02)
    assert told.count({DONE: 0.0}) > 2


def test_why_ranks_wait_is_passed_on(store: LocalStore) -> None:
    waits = Event(STEP.label, "note", text="waits for a place: no node with 1 GPU is free")
    told = follow(store, Member(finishes(store, waits)))
    assert {WAITING: True, "why": "waits for a place: no node with 1 GPU is free"} in told


def test_lost_attempts_leave_their_cause(store: LocalStore) -> None:
    follow(store, Member(raises(RayError("the actor died")), fails(Cause.HUNG), finishes(store)))
    left = [each["cause"] for each in of_step(store, STEP.key)]
    assert sorted(left) == ["lost worker", "no sign of life"]


def test_an_attempt_that_nobody_follows_is_stopped_and_then_ended(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process of Tune's was lost; another takes the trial over, on the same worker."""
    slain: list[Place | None] = []
    monkeypatch.setattr(TrialRun, "_slay", lambda self: slain.append(self.place))
    lost = f"20260101T000000-aaaa{attempt_mark(SEARCH.key)}"
    lease = Lease.take(store, StepPaths(STEP.key), lost, "this search")
    assert lease is not None
    member = Member(finishes(store))
    told: list[dict[str, Any]] = []

    def tell(words: Any) -> None:
        told.append(dict(words))
        if slain:
            lease.release()

    journal = Journal(store, SEARCH.key, ("learning_rate", "epochs"))
    site = Site(store.location, None, ExecutionSpec(hang_seconds=0.01))
    TrialRun(FakeRay(), member, STEP, 4, site, Terms(), journal, tell).run()
    assert member.stops >= 2 and slain[0] == member.place and told[-1][ENDED] == "finished"


def test_a_stop_ends_it_and_a_pruned_one_is_not_begun_again(store: LocalStore) -> None:
    assert follow(store, Member(fails(Cause.INTERRUPTED)))[-1] == {ENDED: "stopped", "curve": []}

    def pruned(step: Step, attempt: str, terms: Terms) -> Any:
        journal = Journal(store, SEARCH.key, ("learning_rate", "epochs"))
        journal.write(Trial(4, {"learning_rate": 1e-5, "epochs": 1}, step.key, "pruned"))
        return [], RayError("its worker died before it heard")

    assert follow(store, Member(pruned))[-1] == {ENDED: "stopped", "curve": []}


def test_a_step_that_somebody_else_has_is_waited_for(store: LocalStore) -> None:
    told: list[dict[str, Any]] = []
    assert Lease.take(store, StepPaths(STEP.key), "theirs", "another driver") is not None

    def tell(words: Any) -> None:
        told.append(dict(words))
        if len(told) == 3:
            record(store, STEP, 50.0)

    journal = Journal(store, SEARCH.key, ("learning_rate", "epochs"))
    site, member = Site(store.location, None, ExecutionSpec()), Member()
    TrialRun(FakeRay(), member, STEP, 4, site, Terms(), journal, tell).run()
    assert told[:3] == [{WAITING: True}] * 3 and told[-1][ENDED] == "finished" and not member.terms


def test_a_worker_that_hangs_is_ended_once(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    slain: list[Place | None] = []
    monkeypatch.setattr(TrialRun, "_slay", lambda self: slain.append(self.place))
    hangs = lambda step, attempt, terms: ([], None)  # noqa: E731
    told = follow(store, Member(hangs, finishes(store)), hang_seconds=0.01)
    assert told[-1][ENDED] == "finished" and slain == [Place("node1", 1, 1.0)]
    told = follow(LocalStore.open(f"{store.location}2"), Member(hangs, hangs), hang_seconds=0.01)
    assert told[-1][ENDED] == "broken" and "no sign of life for 0.01 s" in told[-1]["why"]
