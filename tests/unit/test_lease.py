"""Leases beside what every store promises of them: watchers, heartbeats through outages, dead processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import xstilts
from xstilts.errors import StoreError
from xstilts.record import lease as leases
from xstilts.record.artifacts import StepPaths
from xstilts.record.fetched import DamagedObject
from xstilts.record.lease import TTL, Claim, Dead, Free, Heartbeat, Held, Lease, Watch, standing
from xstilts.record.local import LocalStore

PATHS = StepPaths("train-mnli-s1--0123456789abcdef")

HOLDER = """
import sys, time
from xstilts.record.artifacts import StepPaths
from xstilts.record.lease import Heartbeat, Lease
from xstilts.record.local import LocalStore
lease = Lease.take(LocalStore(sys.argv[1]), StepPaths(sys.argv[2]), "a1", "driver")
with Heartbeat(lease, every=0.05):
    print("has it", flush=True)
    time.sleep(60)
"""


class Clock:
    """Seconds that a test lets pass."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Away(LocalStore):
    """A store that answers nothing while `away` is set."""

    away: bool = False
    before: Callable[[], None] = staticmethod(lambda: None)

    def _path(self, name: str) -> Path:
        self.before()
        if self.away:
            raise StoreError("no good answer came", "wait")
        return super()._path(name)


@pytest.fixture
def store(tmp_path: Path) -> Away:
    return Away(tmp_path / "store")


def take(store: LocalStore, attempt: str = "a1", over: bytes | None = None) -> Lease:
    lease = Lease.take(store, PATHS, attempt, "driver", over)
    assert lease is not None
    return lease


def elsewhere(store: LocalStore) -> None:
    """The lease is of another machine: nothing is known of its process."""
    words = json.loads(store.read(PATHS.lease) or b"")
    store.put(PATHS.lease, json.dumps(words | {"boot": "another", "host": "far"}).encode())


def until(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.01)


def holder_process(store: LocalStore) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(xstilts.__file__).parents[1])}
    command = [sys.executable, "-c", HOLDER, store.location, PATHS.key]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == b"has it\n"
    return process


def test_a_store_that_was_away_makes_nobody_look_dead(store: Away) -> None:
    """Killed for ten minutes: neither could the holder write, nor the watcher read."""
    clock = Clock()
    watch = Watch(clock=clock)
    lease = take(store)
    assert isinstance(watch.look(store, PATHS), Held)
    clock.now, store.away = 15, True
    for _ in range(40):
        clock.now += 15
        with pytest.raises(StoreError):
            lease.beat()
        with pytest.raises(StoreError):
            watch.look(store, PATHS)
    store.away = False
    found = watch.look(store, PATHS)
    assert isinstance(found, Held)
    assert found.quiet == TTL / 4
    clock.now += 15
    assert lease.beat()
    assert isinstance(watch.look(store, PATHS), Held)


def test_a_look_that_waits_out_an_outage_counts_as_none(store: Away) -> None:
    clock = Clock()
    watch = Watch(clock=clock)
    take(store)
    elsewhere(store)

    def wait() -> None:
        clock.now += 100

    store.before = wait  # type: ignore[method-assign]
    for _ in range(4):
        found = watch.look(store, PATHS)
        assert isinstance(found, Held)
        assert found.quiet == 0.0


def test_a_watcher_that_was_frozen_sees_nobody_die(store: Away) -> None:
    clock = Clock()
    watch = Watch(clock=clock)
    take(store)
    elsewhere(store)
    watch.look(store, PATHS)
    clock.now += 3600
    assert isinstance(watch.look(store, PATHS), Held)
    clock.now += 3600
    assert isinstance(watch.look(store, PATHS), Held)


def test_what_the_clock_of_the_holder_says_does_not_matter(store: Away) -> None:
    clock = Clock()
    watch = Watch(clock=clock)
    lease = take(store)
    for heartbeat in ("1970-01-01T00:00:00+00:00", "2999-01-01T00:00:00+00:00", "yesterday"):
        words = json.loads(lease.claim.to_json())
        store.put(PATHS.lease, json.dumps(words | {"heartbeat": heartbeat}).encode())
        clock.now += 30
        assert isinstance(watch.look(store, PATHS), Held)


def test_an_attempt_that_is_known_to_be_over_is_not_waited_for(store: Away) -> None:
    watch = Watch()
    lease = take(store)
    watch.gone("a0")
    assert isinstance(watch.look(store, PATHS), Held)
    watch.gone("a1")
    found = watch.look(store, PATHS)
    assert isinstance(found, Dead)
    assert (found.holder, found.attempt) == ("driver", "a1")
    assert take(store, "a2", found.data).beat()
    assert not lease.beat()


def test_a_killed_process_of_this_machine_is_seen_at_once(store: Away) -> None:
    process = holder_process(store)
    watch = Watch()
    assert isinstance(watch.look(store, PATHS), Held)
    process.send_signal(signal.SIGSTOP)
    assert isinstance(watch.look(store, PATHS), Held), "it may go on"
    process.kill()
    until(lambda: isinstance(watch.look(store, PATHS), Dead))  # not reaped yet
    process.wait()
    assert isinstance(watch.look(store, PATHS), Dead)


@pytest.mark.parametrize(
    ("changed", "seen"),
    [
        ({}, Held),
        ({"born": 1}, Dead),  # another process has its number now
        ({"born": 1, "boot": "another"}, Held),  # another machine, or container, has processes of its own
        ({"born": 1, "boot": ""}, Held),
        ({"pid": 0}, Held),
        ({"pid": 5_000_000}, Dead),  # above the kernel's limit: no such process
    ],
)
def test_a_process_is_gone_only_if_this_machine_knows_it(
    store: Away, changed: dict[str, Any], seen: type
) -> None:
    words = json.loads(take(store).claim.to_json())
    assert words["boot"], "the tests run on Linux"
    store.put(PATHS.lease, json.dumps(words | changed).encode())
    assert isinstance(Watch().look(store, PATHS), seen)


def test_a_container_has_processes_of_its_own() -> None:
    boot = leases._boot()
    assert Path("/proc/sys/kernel/random/boot_id").read_text().strip() in boot
    assert os.readlink("/proc/self/ns/pid") in boot


def test_the_end_of_a_step_gives_it_back(store: Away) -> None:
    with Heartbeat(take(store), every=0.01) as beating:
        until(lambda: Claim.parse(store.read(PATHS.lease) or b"").beats > 2)
        assert not beating.lost
    assert store.read(PATHS.lease) is None
    assert standing(store, PATHS) is None
    with pytest.raises(RuntimeError), Heartbeat(take(store, "a2"), every=60):
        raise RuntimeError
    assert store.read(PATHS.lease) is None


def test_a_heartbeat_outlasts_an_outage(store: Away) -> None:
    with Heartbeat(take(store), every=0.01) as beating:
        store.away = True
        until(lambda: beating.error is not None)
        time.sleep(0.1)
        assert not beating.lost
        store.away = False
        until(lambda: beating.error is None)
        until(lambda: Claim.parse(store.read(PATHS.lease) or b"").beats > 2)
    assert store.read(PATHS.lease) is None


def test_an_outage_at_the_end_hides_nothing_and_holds_nobody_up(
    store: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEAVING_SECONDS", 0.3)
    waiting = threading.Event()
    begin = time.monotonic()
    with pytest.raises(RuntimeError, match="why"), Heartbeat(take(store), every=60) as beating:
        store.before = lambda: None if waiting.wait(5) else None  # type: ignore[method-assign]
        raise RuntimeError("why")
    assert time.monotonic() - begin < 3
    waiting.set()
    beating._thread.join(5)
    assert store.read(PATHS.lease) is None, "removed when the store is back"


def test_who_lost_a_step_is_told_once(store: Away) -> None:
    told: list[str] = []
    with Heartbeat(take(store), every=0.01, on_lost=lambda: told.append("lost")) as beating:
        heir = None
        while heir is None:
            heir = Lease.take(store, PATHS, "heir", "another", standing(store, PATHS))
        until(lambda: beating.lost)
        time.sleep(0.05)
    assert told == ["lost"]
    assert heir.beat()  # the other may have written last, before it found out
    assert Claim.parse(store.read(PATHS.lease) or b"").attempt == "heir"


def test_a_write_that_arrives_late_is_found_out(store: Away) -> None:
    """A heartbeat whose answer never came, and which is done only after somebody took over."""
    lease = take(store)
    over = standing(store, PATHS)
    put, late = store.put, []

    def lost(name: str, data: bytes) -> None:
        late.append((name, data))
        raise StoreError("no good answer came", "wait")

    store.put = lost  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        lease.beat()
    store.put = put  # type: ignore[method-assign]
    heir = take(store, "heir", over)
    store.put(*late[0])
    assert not lease.beat(), "the marker of what it wrote before is there"
    assert heir.beat()
    assert Claim.parse(standing(store, PATHS) or b"").attempt == "heir"


def test_a_taker_that_froze_half_way_has_nothing(store: Away) -> None:
    take(store, "dead")
    over = standing(store, PATHS)
    put = store.put

    def slow(name: str, data: bytes) -> None:
        store.put = put  # type: ignore[method-assign]
        assert take(store, "heir", standing(store, PATHS)).beat()
        put(name, data)

    store.put = slow  # type: ignore[method-assign]
    assert Lease.take(store, PATHS, "frozen", "driver", over) is None


def test_a_damaged_lease_is_waited_for_like_any(store: Away, monkeypatch: pytest.MonkeyPatch) -> None:
    lease, read, clock = take(store), store.read, Clock()

    def damaged(name: str) -> bytes | None:
        if name == PATHS.lease:
            raise DamagedObject.of(name, store.location)
        return read(name)

    monkeypatch.setattr(store, "read", damaged)
    watch = Watch(clock=clock)
    assert isinstance(watch.look(store, PATHS), Held)
    assert lease.beat()
    for _ in range(4):
        clock.now += 15
        found = watch.look(store, PATHS)
    assert isinstance(found, Dead)
    monkeypatch.undo()
    assert isinstance(Watch().look(store, PATHS), Held)


def test_a_free_step_needs_no_memory(store: Away) -> None:
    watch = Watch()
    take(store).release()
    assert watch.look(store, PATHS) == Free()
    assert not watch._seen


def test_no_two_heartbeats_are_alike(store: Away) -> None:
    lease = take(store)
    seen = {store.read(PATHS.lease)}
    for _ in range(20):
        assert lease.beat()
        seen.add(store.read(PATHS.lease))
    assert len(seen) == 21


def test_a_claim_of_a_later_version_is_read() -> None:
    claim = Claim.here("a1", "driver", ("a0",))
    words = json.loads(claim.to_json())
    assert Claim.parse(json.dumps(words | {"later": [1]}).encode()) == claim
    assert Claim.parse(json.dumps({"attempt": "a1"}).encode()).attempt == "a1"
