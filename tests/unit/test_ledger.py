"""Orders to a running driver, what it has spent, what it says of itself, and what `status` makes of it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from test_runner import plan_of, planned, record

from xstilts.execute import ledger as ledgers
from xstilts.execute.backends import Event
from xstilts.execute.ledger import Ledger, drivers_of, status
from xstilts.execute.orders import Inbox, Orders, Spending
from xstilts.execute.state import Cause, survey
from xstilts.record.artifacts import StepPaths, driver_file, orders_file
from xstilts.record.lease import Lease
from xstilts.record.local import LocalStore
from xstilts.spec.experiment import BudgetSpec, ExecutionSpec


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
    own, submitted = Inbox(store, "job", False), Inbox(store, "job", True)
    assert own() == Orders() and submitted() == Orders(workers=3)
    store.put(orders_file("job"), Orders("checkpoint").to_json())
    assert own().stop == submitted().stop == "checkpoint"


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
    clock = iter([0.0, 10.0, 30.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    spending, busy = Spending(), [planned("a"), planned("b"), planned("s", kind="score")]
    for _ in range(3):
        spending.count(busy, ExecutionSpec(gpus=0.25))
    assert spending.seconds == pytest.approx(30 * 2 * 0.25)


def test_a_drivers_file_says_what_runs_waits_and_failed(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "PACE_SECONDS", 0.0)
    a, b = planned("a"), planned("b")
    told = Ledger(store, "job", "me", Spending(seconds=7.0), lambda: 5)
    told.start("digest")
    told.event(Event("a", "started", "attempt-a", time=1.0), a)
    told.event(Event("a", "progress", "attempt-a", done=0.5), a)
    told.event(Event("b", "note", text="waits for a place"), b)
    told.event(Event("c", "failed", "x", cause=Cause.BUG, text="Traceback: it broke"), planned("c"))
    told.event(Event("d", "failed", "x", cause=Cause.INTERRUPTED), planned("d"))
    _until(lambda: bool(drivers_of(store, "job")) and "c" in drivers_of(store, "job")[0]["failed"])
    (words,) = drivers_of(store, "job")
    assert words["alive"] and words["slots"] == 5 and words["spent"]["accelerator_seconds"] == 7.0
    assert words["running"] == {"a": {"attempt": "attempt-a", "since": 1.0, "done": 0.5}}
    assert words["notes"] == {"b": "waits for a place"} and list(words["failed"]) == ["c"]
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


def _until(holds: object) -> None:
    assert callable(holds)
    for _ in range(200):
        if holds():
            return
        time.sleep(0.02)
    raise AssertionError("it did not come about within 4 s")
