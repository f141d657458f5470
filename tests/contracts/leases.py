"""What leases promise on every store, as tests; subclass and give a `store` fixture."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from xstilts.record.artifacts import ArtifactStore, StepPaths
from xstilts.record.lease import Claim, Dead, Free, Heartbeat, Held, Lease, Watch, standing

PATHS = StepPaths("train-xnli-s1--0123456789abcdef")


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def take(store: ArtifactStore, attempt: str, over: bytes | None = None) -> Lease | None:
    """The step for `attempt`, asked for by "driver"."""
    return Lease.take(store, PATHS, attempt, "driver", over)


def taken(store: ArtifactStore, attempt: str, over: bytes | None = None) -> Lease:
    """As `take`, and it must be had."""
    lease = take(store, attempt, over)
    assert lease is not None
    return lease


def now(store: ArtifactStore) -> bytes:
    """The lease that counts."""
    data = standing(store, PATHS)
    assert data is not None
    return data


def holder(store: ArtifactStore) -> str:
    """The attempt that has the step."""
    return Claim.parse(now(store)).attempt


def dies(store: ArtifactStore, watch: Watch, clock: Clock) -> Dead:
    """Looks until the lease is dead; `clock` is the watch's."""
    for _ in range(6):
        found = watch.look(store, PATHS)
        if isinstance(found, Dead):
            return found
        clock.now += 15
    raise AssertionError(f"{found} after 90 s")


class LeaseContract:
    """Subclass, and define a fixture `store` that gives an empty store."""

    def test_one_of_many_has_a_free_step(self, store: ArtifactStore) -> None:
        with ThreadPoolExecutor(12) as pool:
            got = list(pool.map(lambda who: take(store, f"a{who}"), range(24)))
        (lease,) = [each for each in got if each is not None]
        assert holder(store) == lease.claim.attempt
        assert lease.beat()

    def test_one_of_many_has_a_dead_one(self, store: ArtifactStore) -> None:
        dead = taken(store, "dead")
        start = threading.Barrier(8)

        def race(who: str) -> Lease | None:
            start.wait()
            return take(store, who, over)

        with ThreadPoolExecutor(8) as pool:
            for turn in range(4):
                over = now(store)
                got = list(pool.map(race, [f"a{turn}-{who}" for who in range(8)]))
                (lease,) = [each for each in got if each is not None]
                assert holder(store) == lease.claim.attempt
                assert lease.beat()
        assert lease.claim.over[0] == "dead"
        assert not dead.beat()

    def test_who_wakes_up_too_late_stops_and_harms_nobody(self, store: ArtifactStore) -> None:
        zombie = taken(store, "zombie")
        assert zombie.beat()
        heir = taken(store, "heir", now(store))
        before = now(store)
        assert not zombie.beat()
        assert zombie.superseded
        assert now(store) == before
        zombie.release()
        assert holder(store) == "heir"
        assert heir.beat()
        heir.release()
        assert standing(store, PATHS) is None
        assert not zombie.beat()
        assert standing(store, PATHS) is None

    def test_a_heartbeat_that_was_frozen_between_reading_and_writing(self, store: ArtifactStore) -> None:
        zombie = taken(store, "zombie")
        heir = taken(store, "heir", now(store))
        # What the zombie read before it froze was its own lease, so it writes.
        store.put(PATHS.lease, zombie._next())
        zombie._written = {each for each in zombie._written if Claim.parse(each).beats == 0}
        assert zombie._is_taken(zombie._written), "it looks after it has written, and finds out"
        assert heir.beat(), "the lease there is of one that it took over"
        assert holder(store) == "heir"
        assert not zombie.beat()
        assert heir.beat()

    def test_an_old_view_takes_nothing(self, store: ArtifactStore) -> None:
        lease = taken(store, "alive")
        seen = now(store)
        assert lease.beat()
        assert take(store, "late", seen) is None
        assert lease.beat()

    def test_a_taker_that_dies_half_way_is_itself_taken_over(self, store: ArtifactStore) -> None:
        taken(store, "dead")
        over = now(store)
        put = store.put
        try:
            store.put = _refuse  # type: ignore[method-assign]
            with pytest.raises(InterruptedError):
                take(store, "taker", over)
        finally:
            store.put = put  # type: ignore[method-assign]
        assert store.read(PATHS.lease) == over
        assert holder(store) == "taker", "its marker says so"
        assert take(store, "second", over) is None
        heir = taken(store, "heir", now(store))
        assert heir.claim.over == ("dead", "taker")
        assert heir.beat()
        assert holder(store) == "heir"

    @pytest.mark.parametrize("data", [b"", b"\0\xff", b"[]", b'{"pid": "x"}', b'"word"', b"{"])
    def test_garbage_blocks_nobody_for_ever(self, store: ArtifactStore, data: bytes) -> None:
        store.put(PATHS.lease, data)
        clock = Clock()
        watch = Watch(clock=clock)
        for attempt in ("first", "again"):
            assert isinstance(watch.look(store, PATHS), Held)
            lease = taken(store, attempt, dies(store, watch, clock).data)
            assert holder(store) == attempt
            assert lease.beat()
            store.put(PATHS.lease, data)
            assert lease.beat(), "the holder writes its own over it"
            assert holder(store) == attempt
            lease.release()
            store.put(PATHS.lease, data)

    def test_a_lease_that_was_removed_is_made_again(self, store: ArtifactStore) -> None:
        lease = taken(store, "a1")
        store.delete(PATHS.lease)
        assert lease.beat()
        assert holder(store) == "a1"

    def test_a_lease_of_a_recorded_step_is_not_made_again(self, store: ArtifactStore) -> None:
        lease = taken(store, "a1")
        store.delete(PATHS.lease)
        store.create(PATHS.record, b"{}")
        assert not lease.beat()
        assert standing(store, PATHS) is None

    def test_alive_is_held_and_silent_is_dead(self, store: ArtifactStore) -> None:
        clock = Clock()
        watch = Watch(clock=clock)
        assert watch.look(store, PATHS) == Free()
        lease = taken(store, "a1")
        for _ in range(20):
            clock.now += 15
            assert lease.beat()
            found = watch.look(store, PATHS)
            assert isinstance(found, Held)
            assert (found.holder, found.attempt, found.quiet) == ("driver", "a1", 0.0)
        for quiet in (15.0, 30.0, 45.0):
            clock.now += 15
            found = watch.look(store, PATHS)
            assert isinstance(found, Held)
            assert found.quiet == quiet
        clock.now += 15
        assert isinstance(watch.look(store, PATHS), Dead)
        assert lease.beat()
        assert isinstance(watch.look(store, PATHS), Held)
        lease.release()
        assert watch.look(store, PATHS) == Free()

    def test_many_holders_that_beat_on_and_one_that_is_left(self, store: ArtifactStore) -> None:
        """Eight in a row are taken over while their heartbeats go on, a hundred a second."""
        beats: list[Heartbeat] = []
        over: bytes | None = None
        with ExitStack() as stack:
            for who in range(8):
                lease = _insist(store, f"a{who}", over)
                beats.append(stack.enter_context(Heartbeat(lease, every=0.01)))
                over = _of(store, f"a{who}")
            last = _insist(store, "last", over)
            end = time.monotonic() + 20
            while not all(beating.lost for beating in beats) and time.monotonic() < end:
                assert last.beat()
            assert [beating.lost for beating in beats] == [True] * 8
            assert holder(store) == "last"
        assert last.beat()
        assert holder(store) == "last"


def _of(store: ArtifactStore, attempt: str) -> bytes:
    """The lease once it is that of `attempt`: the last heartbeat of one that it took over may stand there for
    a moment, and nobody takes over what has not been silent before their eyes."""
    for _ in range(500):
        found = now(store)
        if Claim.parse(found).attempt == attempt:
            return found
    raise AssertionError(f"{attempt} lost the step that it had taken")


def _insist(store: ArtifactStore, attempt: str, over: bytes | None) -> Lease:
    """The step for `attempt`, from a holder that lives and is sometimes the faster one."""
    for _ in range(500):
        lease = take(store, attempt, over)
        if lease is not None:
            return lease
        over = now(store)
    raise AssertionError("its holder was faster five hundred times")


def _refuse(name: str, data: bytes) -> None:
    raise InterruptedError
