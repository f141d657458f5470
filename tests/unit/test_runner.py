"""The driver's decisions: what starts, what a failure stops, what is tried again. No model, no Ray."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from xstilts.errors import DataError, LanguageError
from xstilts.execute.backends import Event, Listener, Terms
from xstilts.execute.orders import Orders, Spending
from xstilts.execute.runner import Runner
from xstilts.execute.state import Again, Cause, survey
from xstilts.plan.expand import Missing
from xstilts.plan.graph import Cell, Plan, Planned
from xstilts.plan.step import PretrainBody, Step
from xstilts.record.artifacts import StepPaths
from xstilts.record.lease import Lease, Watch
from xstilts.record.local import LocalStore
from xstilts.record.schema import StepRecord
from xstilts.spec.experiment import BudgetSpec, ExecutionSpec, PretrainSpec


def planned(label: str, *needs: Planned, kind: str = "train", awaits: tuple[str, ...] = ()) -> Planned:
    """A step that differs from others by its label alone."""
    body = PretrainBody(spec=PretrainSpec(data=label), corpora=())
    inputs = {f"input{number}": need for number, need in enumerate(needs)}
    keys = {role: need.key or "" for role, need in inputs.items()}
    step = None if awaits else Step(label=label, body=body, inputs=keys)
    return Planned(label, kind, step, {role: need.label for role, need in inputs.items()}, awaits)


def plan_of(*steps: Planned) -> Plan:
    cells = (Cell("none", "task", 1, None, steps[-1].label, steps[-1].label),)
    return Plan("job", "0", {each.label: each for each in steps}, cells, {}, "model")


def record(store: LocalStore, step: Step, **more: object) -> None:
    """What a step that went well leaves."""
    words = {
        "key": step.key,
        "kind": "train",
        "version": 1,
        "identity": {},
        "attempt": "a",
        "finished": "",
    } | more
    assert store.create(StepPaths(step.key).record, StepRecord.model_validate(words).to_json())


class Scripted:
    """A backend that does what a test says: label -> causes of the failures before it goes well."""

    def __init__(
        self, store: LocalStore, listen: Listener, script: dict[str, list[Cause]], slots: int = 2
    ) -> None:
        self.store, self.listen, self.script, self.slots = store, listen, script, slots
        self.running: list[Step] = []
        self.started: list[str] = []
        self.terms: list[Terms] = []
        self.stopped = self.closed = False

    def room(self, step: Step) -> bool:
        return len(self.running) < self.slots

    def submit(self, step: Step, terms: Terms) -> None:
        self.running.append(step)
        self.started.append(step.label)
        self.terms.append(terms)

    def accelerators(self) -> float:
        return float(len(self.running))

    @staticmethod
    def idle(seconds: float) -> None:
        """What a poll does when nothing runs."""

    def poll(self, seconds: float) -> None:
        if not self.running:
            self.idle(seconds)
            return
        step = self.running.pop(0)
        causes = self.script.get(step.label, [])
        if causes:
            error = DataError("it is wrong", "mend it") if causes[0] is Cause.FIXABLE else None
            if error is not None and step.label.startswith("predict"):
                error = LanguageError.of("xnli", "de", error)
            self.listen(
                Event(
                    step.label,
                    "failed",
                    "mine",
                    cause=causes.pop(0),
                    text="it is wrong: mend it",
                    error=error,
                )
            )
            return
        record(self.store, step)
        self.listen(Event(step.label, "done", done=1.0, time=time.time()))

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def store(store_root: Path) -> LocalStore:
    return LocalStore(store_root)


Ran = tuple[Runner, list[Scripted]]


def runner(
    store: LocalStore, replan: Callable[[Missing], Plan], script: dict[str, list[Cause]] | None = None
) -> Ran:
    made: list[Scripted] = []

    def start(listen: Listener) -> Scripted:
        made.append(Scripted(store, listen, script or {}))
        return made[0]

    return Runner(store, replan, start), made


def test_runs_everything_once_in_an_order_that_works(store: LocalStore) -> None:
    a = planned("a")
    b, c = planned("b", a), planned("c", a)
    d = planned("d", b, c)
    driver, made = runner(store, lambda failed: plan_of(a, b, c, d))
    result = driver.run()
    assert made[0].started == ["a", "b", "c", "d"] and made[0].closed
    assert result.complete and set(result.ran) == {"a", "b", "c", "d"} and not result.failed


def test_nothing_to_do_starts_no_backend(store: LocalStore) -> None:
    a = planned("a")
    assert a.step is not None
    record(store, a.step)
    driver, made = runner(store, lambda failed: plan_of(a))
    assert driver.run().complete and not made


def test_a_failure_blocks_only_what_stands_on_it(store: LocalStore) -> None:
    a, x = planned("a"), planned("x")
    b, y = planned("b", a), planned("y", x)
    driver, made = runner(store, lambda failed: plan_of(a, b, x, y), {"a": [Cause.FIXABLE]})
    result = driver.run()
    assert set(result.ran) == {"x", "y"} and result.blocked == {"b": "a"}
    (failure,) = result.failed
    assert failure.label == "a" and failure.cause is Cause.FIXABLE and not result.complete


def test_a_language_that_fails_is_left_out_and_the_others_go_on(store: LocalStore) -> None:
    seen: list[Missing] = []

    def replan(failed: Missing) -> Plan:
        seen.append(dict(failed))
        made = plan_of(planned("predict-without" if failed else "predict-all"))
        return replace(made, missing=dict(failed))

    driver, made = runner(store, replan, {"predict-all": [Cause.FIXABLE]})
    result = driver.run()
    assert made[0].started == ["predict-all", "predict-without"] and not result.failed
    assert seen[-1] == {("xnli", "de"): "it is wrong"}
    assert not result.complete, "a language is missing"


def test_a_lost_worker_is_tried_again_and_rationed(store: LocalStore) -> None:
    a = planned("a")
    driver, made = runner(store, lambda failed: plan_of(a), {"a": [Cause.LOST_WORKER] * 2})
    assert driver.run().complete and made[0].started == ["a"] * 3

    b = planned("b")
    driver, made = runner(store, lambda failed: plan_of(b), {"b": [Cause.LOST_WORKER] * 9})
    result = driver.run()
    assert not result.complete and made[0].started == ["b"] * 4
    assert "given up after 4 tries" in result.failed[0].text


def test_what_is_tried_again_goes_by_cause() -> None:
    assert Again(lost_workers=2).allows(Cause.LOST_WORKER, 2, 32)
    assert not Again(lost_workers=2).allows(Cause.LOST_WORKER, 3, 32)
    assert Again().allows(Cause.PREEMPTED, 1000, 32) and Again().allows(Cause.HUNG, 1, 32)
    assert not Again().allows(Cause.HUNG, 2, 32) and not Again().allows(Cause.HOST_MEMORY, 2, 32)
    assert not any(Again().allows(cause, 1, 32) for cause in (Cause.FIXABLE, Cause.BUG, Cause.INTERRUPTED))


def test_a_device_out_of_memory_halves_the_batch_until_it_is_one(store: LocalStore) -> None:
    a = planned("a")
    driver, made = runner(store, lambda failed: plan_of(a), {"a": [Cause.DEVICE_MEMORY] * 99})
    driver.execution = ExecutionSpec(per_device_batch=12)
    result = driver.run()
    assert [terms.per_device_batch for terms in made[0].terms] == [None, 6, 3, 1]
    assert [failure.cause for failure in result.failed] == [Cause.DEVICE_MEMORY]


def test_a_lost_workers_attempt_says_why_it_ended(store: LocalStore) -> None:
    a = planned("a")
    driver, _ = runner(store, lambda failed: plan_of(a), {"a": [Cause.LOST_WORKER]})
    assert driver.run().complete
    (name,) = store.list(StepPaths(a.key or "").attempts)
    assert json.loads(store.read(name) or b"")["cause"] == "lost worker"


def test_a_step_that_another_driver_has_is_waited_for_and_not_done_twice(store: LocalStore) -> None:
    a = planned("a")
    b = planned("b", a)
    assert a.step is not None
    other = Lease.take(store, StepPaths(a.step.key), "theirs", "another driver")
    assert other is not None
    driver, made = runner(store, lambda failed: plan_of(a, b))
    driver.elsewhere["a"] = 0.0  # its note was told
    noted: list[Event] = []

    class Hears:
        def planned(self, survey: object) -> None: ...

        def event(self, event: Event, planned: object) -> None:
            noted.append(event)

    driver.observers = [Hears()]
    assert a.step is not None
    record(store, a.step)
    assert driver.run().complete and made[0].started == ["b"]

    c = planned("c")
    assert c.step is not None
    assert Lease.take(store, StepPaths(c.step.key), "theirs", "another driver") is not None
    driver, made = runner(store, lambda failed: plan_of(c))
    driver.observers = [Hears()]
    looks: list[float] = []

    def finish_elsewhere(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3 and c.step is not None:
            record(store, c.step)
            driver.elsewhere["c"] = 0.0

    Scripted.idle = staticmethod(finish_elsewhere)
    try:
        assert driver.run().complete and not made[0].started and len(looks) >= 3
    finally:
        Scripted.idle = staticmethod(lambda seconds: None)
    assert [event.what for event in noted][-2:] == ["note", "done"]
    assert "another driver has it" in noted[-2].text


def test_the_lease_of_the_dead_is_taken_over(store: LocalStore) -> None:
    a = planned("a")
    assert a.step is not None
    paths = StepPaths(a.step.key)
    store.put(paths.lease, b"not even JSON")
    clock = iter(range(0, 10_000, 20))
    driver, made = runner(store, lambda failed: plan_of(a))
    driver.watch = Watch(clock=lambda: float(next(clock)))
    driver.elsewhere["a"] = 0.0
    Scripted.idle = staticmethod(lambda seconds: driver.elsewhere.update(a=0.0))
    try:
        assert driver.run().complete
    finally:
        Scripted.idle = staticmethod(lambda seconds: None)
    assert [terms.over for terms in made[0].terms] == [b"not even JSON"]


def test_an_order_to_stop_and_a_spent_budget_end_a_run_cleanly(store: LocalStore) -> None:
    a = planned("a")
    driver, made = runner(store, lambda failed: plan_of(a, planned("b", a)))
    driver.orders = lambda: Orders("checkpoint")
    result = driver.run()
    assert result.interrupted and made[0].stopped and result.stopped_by == "it was cancelled"

    driver, made = runner(store, lambda failed: plan_of(a, planned("c", a), planned("d", planned("c", a))))
    driver.execution = ExecutionSpec(budget=BudgetSpec(accelerator_hours=1))
    driver.spending = Spending(before=3600.0)
    result = driver.run()
    assert result.interrupted and "budget of 1 accelerator-hours is spent" in result.stopped_by


def test_steps_at_once_can_be_changed_while_a_job_runs(store: LocalStore) -> None:
    driver, made = runner(store, lambda failed: plan_of(planned("a"), planned("b"), planned("c")))
    driver.orders = lambda: Orders(workers=7)
    assert driver.run().complete and made[0].slots == 7


def test_a_search_that_has_chosen_brings_the_steps_that_awaited_it(store: LocalStore) -> None:
    search = planned("search", kind="search")

    def replan(failed: Missing) -> Plan:
        assert search.key is not None
        if store.exists(StepPaths(search.key).record):
            return plan_of(search, planned("train-chosen"))
        return plan_of(search, planned("train-searched", awaits=("search",)))

    driver, made = runner(store, replan)
    result = driver.run()
    assert result.complete and made[0].started == ["search", "train-chosen"]


def test_stopping_leaves_the_rest_and_says_interrupted(store: LocalStore) -> None:
    a = planned("a")
    b = planned("b", a)
    driver, made = runner(store, lambda failed: plan_of(a, b), {"a": [Cause.INTERRUPTED]})
    driver.stopping = True
    driver.survey = survey(plan_of(a, b), store)
    result = driver.run()
    assert result.interrupted and not result.ran and not made[0].started


def test_the_survey_says_what_is_recorded_and_what_can_start(store: LocalStore) -> None:
    a = planned("a")
    b, waiting = planned("b", a), planned("c", awaits=("search",))
    assert a.step is not None
    record(store, a.step)
    seen = survey(plan_of(a, b, waiting), store, explain=True)
    assert [seen.state(each) for each in seen.plan] == ["recorded", "to_run", "awaits"]
    assert [each.label for each in seen.ready(frozenset())] == ["b"]
    assert not list(seen.ready(frozenset({"b"})))
    assert (
        seen.to_json()["totals"] | {"steps": 3, "recorded": 1, "to_run": 1, "awaits": 1}
        == seen.to_json()["totals"]
    )


def test_why_names_the_setting_that_differs(store: LocalStore) -> None:
    def step(rate: float) -> Planned:
        body = PretrainBody(spec=PretrainSpec(data="x", learning_rate=rate), corpora=())
        return Planned("pretrain-x", "pretrain", Step(label="pretrain-x", body=body), {})

    old = step(1e-5)
    assert old.step is not None
    record(store, old.step, identity=old.step.body.to_identity(), kind="pretrain")
    new = survey(plan_of(step(3e-5)), store, explain=True)
    assert new.why["pretrain-x"] == ("spec.learning_rate: 1e-05 -> 3e-05",)
