"""Orders to a running driver, what it has spent, what it says of itself, and what `status` makes of it."""

from __future__ import annotations

import errno
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from test_runner import plan_of, planned, record

from xstilts.errors import DataError, StoreError
from xstilts.execute import ledger as ledgers
from xstilts.execute.backends import Event
from xstilts.execute.bodies import BODIES
from xstilts.execute.ledger import Ledger, drivers_of, status
from xstilts.execute.orders import Inbox, Orders, Spending, order
from xstilts.execute.site import Site
from xstilts.execute.state import Cause, survey
from xstilts.execute.steps import run_step
from xstilts.record.artifacts import StepPaths, driver_file, orders_file
from xstilts.record.lease import Lease
from xstilts.record.local import LocalStore
from xstilts.spec.experiment import BudgetSpec, ExecutionSpec
from xstilts.train.loop import Interrupted


@pytest.fixture
def store(store_root: Path) -> LocalStore:
    return LocalStore(store_root)


def test_orders_are_read_back_and_nonsense_asks_for_nothing() -> None:
    asked = Orders("now", 3, BudgetSpec(accelerator_hours=2.5))
    assert Orders.from_json(asked.to_json()) == asked
    for data in (b"", b"[]", b"{}", b'{"stop": "rm -rf", "workers": null, "budget": null}', b"\xff"):
        assert Orders.from_json(data) == Orders()


def test_an_order_to_stop_from_before_is_not_meant_for_the_next_driver(store: LocalStore) -> None:
    store.put(orders_file("job"), Orders("now", 3).to_json())
    own = Inbox(store, "job", False)
    assert own() == Orders()
    order(store, "job")  # as `submit` does before a new driver
    submitted = Inbox(store, "job", True)
    assert submitted() == Orders(workers=3)
    store.put(orders_file("job"), Orders("checkpoint").to_json())
    assert own().stop == submitted().stop == "checkpoint"


def test_a_job_cancelled_before_its_submitted_driver_looked_stops(store: LocalStore) -> None:
    order(store, "job", stop="checkpoint")
    assert Inbox(store, "job", True)().stop == "checkpoint"


def test_a_limit_that_is_taken_back_gives_the_jobs_own_again(store: LocalStore) -> None:
    inbox = Inbox(store, "job", True, workers=2)
    assert inbox() == Orders(), "a driver that nobody limited keeps the number that it has"
    order(store, "job", workers=7, budget=BudgetSpec(accelerator_hours=9))
    assert inbox() == Orders("", 7, BudgetSpec(accelerator_hours=9))
    order(store, "job", workers=None)
    assert inbox() == Orders("", 2, BudgetSpec(accelerator_hours=9))
    order(store, "job", budget=None)
    assert inbox() == Orders(workers=2)


def test_orders_hold_while_the_store_is_away(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox(store, "job", True, workers=2)
    order(store, "job", workers=7, budget=BudgetSpec(accelerator_hours=9))
    asked = inbox()

    def away(self: LocalStore, name: str) -> bytes | None:
        raise StoreError("it is away", "wait")

    monkeypatch.setattr(LocalStore, "read", away)
    assert inbox() == asked == Orders("", 7, BudgetSpec(accelerator_hours=9))


def test_what_was_spent_counts_over_all_drivers(store: LocalStore) -> None:
    for driver, seconds, trials in (("a", 1800.0, {"x": 4, "y": 1}), ("b", 900.5, {"x": 2, "y": 4})):
        words = {"spent": {"accelerator_seconds": seconds, "trials": trials}}
        store.put(driver_file("job", driver), json.dumps(words).encode())
    store.put(driver_file("job", "torn"), b"{")
    spent = Spending.of_job(store, "job")
    assert spent.before == 2700.5 and spent.trials == {"x": 4, "y": 4}
    assert not spent.over(BudgetSpec(accelerator_hours=1))
    assert "0.75 accelerator-hours" in spent.over(BudgetSpec(accelerator_hours=0.75))
    assert "budget of 3" in spent.over(BudgetSpec(money=3, price=4))
    assert not spent.over(BudgetSpec(money=3, price=3.9))
    assert "8 trials" in spent.over(BudgetSpec(trials=8)) and not spent.over(BudgetSpec(trials=9))


def test_running_steps_spend_what_they_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 10.0, 20.0, 30.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    spending = Spending()
    for held in (2.0, 0.5, 0.0, 1.0):  # nothing was held before the first look
        spending.count(held)
    assert spending.seconds == pytest.approx(10 * (0.5 + 0.0 + 1.0))


def test_a_drivers_file_says_what_runs_waits_and_failed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "PACE_SECONDS", 0.0)
    a, b = planned("a"), planned("b")
    monkeypatch.setenv("XSTILTS_SUBMISSION", "third")
    told = Ledger(store, "job", "me", Spending(seconds=7.0), lambda: 5, lambda: True)
    told.start("digest")
    told.event(Event("a", "started", "attempt-a", time=1.0), a)
    told.event(Event("a", "progress", "attempt-a", done=0.5), a)
    told.event(Event("b", "note", text="waits for a place"), b)
    told.event(Event("c", "failed", "x", cause=Cause.BUG, text="Traceback: it broke"), planned("c"))
    told.event(Event("d", "failed", "x", cause=Cause.INTERRUPTED), planned("d"))
    _until(lambda: bool(drivers_of(store, "job")) and "c" in drivers_of(store, "job")[0]["failed"])
    (words,) = drivers_of(store, "job")
    assert words["submission"] == "third" and words["stopping"]
    assert words["alive"] and words["slots"] == 5 and words["spent"]["accelerator_seconds"] == 7.0
    assert words["running"] == {"a": {"attempt": "attempt-a", "since": 1.0, "done": 0.5}}
    assert words["notes"] == {"b": "waits for a place"} and list(words["failed"]) == ["c"]
    assert words["failed"]["c"]["key"] == planned("c").key and words["failed"]["c"]["attempt"] == "x"
    told.end("done")
    (words,) = drivers_of(store, "job")
    assert words["state"] == "done" and not words["alive"] and not words["running"]


def test_status_tells_running_failed_and_blocked_with_causes(store: LocalStore) -> None:
    a, b, d = planned("a"), planned("b"), planned("d")
    c = planned("c", b)
    assert a.step and b.step and d.step
    record(store, d.step)
    lease = Lease.take(store, StepPaths(a.step.key), "attempt-a", "driver-1")
    assert lease is not None
    ended = {"attempt": "x", "cause": "lost worker", "text": "gone", "ended": "then"}
    store.put(StepPaths(b.step.key).attempt("x"), json.dumps(ended).encode())
    words = {"driver": "me", "updated": time.time(), "started": 1.0, "state": "failed"}
    words["failed"] = {"b": {"cause": "bug", "text": "it broke"}}
    words["running"] = {"a": {"done": 0.25}}
    store.put(driver_file("job", "me"), json.dumps(words).encode())

    found = status(survey(plan_of(a, b, c, d), store), store)
    steps = {step["label"]: step for step in found["steps"]}
    assert steps["a"]["state"] == "running" and steps["a"]["lease"]["holder"] == "driver-1"
    assert steps["a"]["done"] == 0.25
    assert steps["b"]["state"] == "failed" and steps["b"]["cause"] == "bug"
    assert steps["b"]["attempts"] == [ended]
    assert steps["c"]["state"] == "blocked" and steps["c"]["cause"] == "b failed"
    assert steps["d"]["state"] == "recorded" and steps["d"]["cause"] is None
    totals = found["totals"]
    assert (totals["running"], totals["failed"], totals["blocked"], totals["recorded"]) == (1, 1, 1, 1)


def test_the_lease_of_a_driver_that_is_gone_does_not_run(store: LocalStore) -> None:
    """The cluster is gone, its leases are of other machines, and nobody takes them away."""
    a = planned("a")
    assert a.step

    def state(silent: float, alive: bool) -> str:
        then = datetime.fromtimestamp(time.time() - silent, UTC).isoformat(timespec="seconds")
        claim = {"holder": "theirs", "attempt": "x", "host": "elsewhere", "boot": "b", "heartbeat": then}
        store.put(StepPaths(a.step.key).lease, json.dumps(claim).encode())  # type: ignore[union-attr]
        words = {"driver": "theirs", "started": 1.0, "state": "running"}
        told = json.dumps(words | {"updated": time.time() - (0 if alive else silent)})
        store.put(driver_file("job", "theirs"), told.encode())
        (step,) = status(survey(plan_of(a), store), store)["steps"]
        return str(step["state"])

    assert state(5, True) == "running"
    assert state(200, True) == "running", "its worker may wait for the store"
    assert state(200, False) == "to_run"


def test_status_tells_what_any_live_driver_gave_up(store: LocalStore) -> None:
    steps = {label: planned(label) for label in "abcdef"}
    keys = {label: step.key for label, step in steps.items()}
    after = planned("z", steps["b"])

    def says(driver: str, started: float, failed: dict[str, dict[str, Any]], **more: Any) -> None:
        words = {"driver": driver, "updated": time.time(), "started": started, "state": "running"}
        why = {label: {"cause": "bug", "text": driver, **each} for label, each in failed.items()}
        store.put(driver_file("job", driver), json.dumps({**words, "failed": why, **more}).encode())

    says("ended", 1.0, {"f": {}}, state="failed")
    says("older", 2.0, {"a": {}, "b": {}, "c": {}, "d": {"key": "of another version"}, "e": {"attempt": "x"}})
    says("newest", 3.0, {"a": {"key": keys["a"]}})
    for label, attempt in (("b", "anew"), ("e", "x")):  # tried again; what its dead worker left
        made = steps[label].step
        assert made and Lease.take(store, StepPaths(made.key), attempt, "newest")
    plan = plan_of(*steps.values(), after)
    found = {step["label"]: step for step in status(survey(plan, store), store)["steps"]}
    states = {label: step["state"] for label, step in found.items()}
    failed = dict.fromkeys("ace", "failed")
    assert states == failed | {"b": "running", "z": "to_run", "d": "to_run", "f": "to_run"}
    assert found["a"]["text"] == "newest" and found["c"]["text"] == "older"
    (only,) = [s for s in status(survey(plan, store), store, "z")["steps"] if s["label"] == "z"]
    assert only["state"] == "to_run", "`why` says otherwise than `status`"
    made = steps["c"].step
    assert made
    record(store, made)
    found = {step["label"]: step for step in status(survey(plan, store), store)["steps"]}
    assert found["c"]["state"] == "recorded" and found["c"]["cause"] is None


OUT_OF_MEMORY = type("OutOfMemoryError", (RuntimeError,), {"__module__": "torch"})


@pytest.mark.parametrize(
    ("problem", "cause", "error"),
    [
        (ValueError("it broke"), "bug", "ValueError"),
        (DataError("it is wrong", "mend it"), "fixable", "DataError"),
        (Interrupted("stopped"), "interrupted", "Interrupted"),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
        (OUT_OF_MEMORY("20 MiB"), "device out of memory", "OutOfMemoryError"),
        (OSError(errno.ENOSPC, "No space left on device"), "fixable", "StoreError"),
    ],
)
def test_an_attempts_cause_is_one_word_whoever_writes_it(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, problem: BaseException, cause: str, error: str
) -> None:
    a = planned("a")
    assert a.step

    def breaks(work: object) -> object:
        raise problem

    monkeypatch.setitem(BODIES, a.step.kind, breaks)
    with pytest.raises(BaseException):  # noqa: B017, PT011 (which one it is, the attempt says)
        run_step(a.step, Site(store.location, None, ExecutionSpec()), "x", lambda event: None)
    stored = json.loads(store.read(StepPaths(a.step.key).attempt("x")) or b"")
    assert (stored["cause"], stored["error"]) == (cause, error)
    (step,) = status(survey(plan_of(a), store), store)["steps"]
    assert step["attempts"] == [stored]


def test_attempts_of_earlier_versions_are_told_by_the_same_words(store: LocalStore) -> None:
    a = planned("a")
    assert a.key
    once = ("Interrupted", "OutOfMemoryError", "LanguageError", "ZeroDivisionError", "lost worker")
    for number, cause in enumerate(once):
        words = {"attempt": str(number), "cause": cause, "text": "", "ended": "then"}
        store.put(StepPaths(a.key).attempt(str(number)), json.dumps(words).encode())
    (step,) = status(survey(plan_of(a), store), store)["steps"]
    causes = ["interrupted", "device out of memory", "fixable", "bug", "lost worker"]
    assert [attempt["cause"] for attempt in step["attempts"]] == causes
    assert [attempt.get("error", "") for attempt in step["attempts"]] == [*once[:4], ""]


def _until(holds: object) -> None:
    assert callable(holds)
    for _ in range(200):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come about within 4 s")
