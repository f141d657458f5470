"""Who works on a step now, so that no two machines buy it twice and no dead one keeps it.

    steps/<key>/lease.json           who holds it, written anew by every heartbeat
    steps/<key>/taken/<sha256>.json  who took over the lease that had these bytes

A lease is dead when its bytes have not changed for TTL seconds of the *watcher's* time: two machines' clocks
are never compared. Stores have one atomic act, `create`, and a takeover is one: the marker is named by the
bytes it ends, so of all who saw them die exactly one makes it. It holds the new lease, which therefore stands
even if its maker dies before lease.json is written.

What is left to chance is a holder frozen for longer than the TTL between its reading lease.json and its
writing it. Waking, it writes over its successor's lease. It then looks for the marker of the bytes it wrote
before, finds it, and stops; the successor finds a lease that it took over (`over`) and writes its own again,
at its next heartbeat. Should both work for that while, nothing is lost but their time: each writes
under its own attempt, and only one of them can create record.json.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from xstilts.errors import StoreError
from xstilts.record.artifacts import ArtifactStore, StepPaths
from xstilts.record.fetched import DamagedObject

TTL = 60.0
"""Seconds of silence after which a holder is given up. Four heartbeats: a store that answers after its read
time-out of 30 s costs two of them. Little beside a step of minutes, and a dead process of the same machine is
seen at once."""

BEAT_SECONDS = TTL / 4

LEAVING_SECONDS = 10.0
"""How long the end of a step waits for its lease to be removed; after that it goes in the background."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a lease says. Everything beside `attempt` and `over` is for people and for the shortcut below."""

    holder: str = "unknown"
    """The driver that asked for the attempt."""
    attempt: str = ""
    host: str = ""
    boot: str = ""
    """Of which start of which machine, and of which of its process tables, `pid` is; "" where unknown."""
    pid: int = 0
    born: int = 0
    """When the process began, in the kernel's ticks since the machine did: tells it from a later one."""
    started: str = ""
    """UTC, ISO 8601."""
    heartbeat: str = ""
    """When it was last written, on the holder's clock: for people."""
    beats: int = 0
    over: tuple[str, ...] = ()
    """Attempts that it was taken over from, directly or not."""

    def to_json(self) -> bytes:
        """As stored; never the same bytes twice."""
        return json.dumps(asdict(self), indent=1).encode()

    @classmethod
    def parse(cls, data: bytes) -> Claim:
        """Reads what any version wrote; of what is none, a claim of nobody's."""
        try:
            words = json.loads(data)
            known: dict[str, Any] = {name: str(words[name]) for name in _TEXTS if name in words}
            known |= {name: int(words[name]) for name in _NUMBERS if name in words}
            known["over"] = tuple(str(attempt) for attempt in words.get("over", ()))
        except (ValueError, TypeError, AttributeError):
            return cls()
        return cls(**known)

    @classmethod
    def here(cls, attempt: str, holder: str, over: tuple[str, ...]) -> Claim:
        """Of this process."""
        born = _process(os.getpid())
        now = _now()
        return cls(
            holder=holder,
            attempt=attempt,
            host=socket.gethostname(),
            boot=_boot() if born else "",
            pid=os.getpid(),
            born=born[1] if born else 0,
            started=now,
            heartbeat=now,
            over=over,
        )

    @property
    def is_gone(self) -> bool:
        """Whether its process was one of this machine and is not there any more. Known on Linux only."""
        if not self.boot or self.boot != _boot() or self.pid <= 0:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            return False  # it is there, and somebody else's
        found = _process(self.pid)
        # Z and X: it has ended, and its parent has not asked how.
        return found is not None and (found[0] in "ZX" or found[1] != self.born)


_TEXTS = ("holder", "attempt", "host", "boot", "started", "heartbeat")
_NUMBERS = ("pid", "born", "beats")


@dataclass(slots=True)
class Lease:
    """A step that this process has. Not for several threads at once."""

    store: ArtifactStore
    paths: StepPaths
    claim: Claim
    superseded: bool = False
    """Somebody else has the step now; never false again."""
    _written: set[bytes] = field(default_factory=set)
    """What lease.json may hold: the last heartbeat, and those since whose answer never came."""

    @classmethod
    def take(
        cls, store: ArtifactStore, paths: StepPaths, attempt: str, holder: str, over: bytes | None = None
    ) -> Lease | None:
        """The step for `attempt`, or None when somebody else has it. `over`: bytes that `Watch` saw die.

        Says nothing of whether the step is recorded: ask that afterwards, it cannot change any more then.

        Raises:
            StoreError: the store refuses.
        """
        there = None if over is None else standing(store, paths)
        if there is None:
            data = (claim := Claim.here(attempt, holder, ())).to_json()
            return cls(store, paths, claim, False, {data}) if store.create(paths.lease, data) else None
        if there != over:
            return None
        dead = Claim.parse(there)
        data = (claim := Claim.here(attempt, holder, (*dead.over, dead.attempt))).to_json()
        if not store.create(paths.taken(_digest(there)), data):
            return None
        store.put(paths.lease, data)
        lease = cls(store, paths, claim, False, {data})
        # It may have been long ago that the marker was made: somebody may have seen this lease die in it.
        return None if lease._is_taken({data}) else lease

    def beat(self) -> bool:
        """Says that the holder lives. False when somebody else has the step: the work should then stop.

        Raises:
            StoreError: the store is away. Nobody can take the lease over then: try again later.
        """
        if self.superseded:
            return False
        there = _read(self.store, self.paths.lease)
        found = None if there is None else Claim.parse(there)
        if found is None:
            # Somebody removed it; or another took it, finished and went, which leaves a marker or a record.
            gone = self._is_taken(self._written) or self.store.exists(self.paths.record)
            self.superseded = gone or not self.store.create(self.paths.lease, self._next())
            return not self.superseded
        if found.attempt not in ("", self.claim.attempt, *self.claim.over):
            self.superseded = True
            return False
        before = set(self._written)
        data = self._next()
        self.store.put(self.paths.lease, data)
        self.superseded = self._is_taken(before)
        self._written = {data}
        return not self.superseded

    def release(self) -> None:
        """Gives the step back, if it is still ours.

        Raises:
            StoreError: the store is away; the lease then dies by itself.
        """
        there = _read(self.store, self.paths.lease)
        if there is not None and Claim.parse(there).attempt == self.claim.attempt:
            self.store.delete(self.paths.lease)

    def _next(self) -> bytes:
        """The bytes of the next heartbeat."""
        self.claim = replace(self.claim, heartbeat=_now(), beats=self.claim.beats + 1)
        data = self.claim.to_json()
        self._written.add(data)
        return data

    def _is_taken(self, written: set[bytes]) -> bool:
        return any(self.store.exists(self.paths.taken(_digest(data))) for data in written)


class Heartbeat:
    """Beats for a lease from a thread of its own while a `with` lasts, and gives it back at the end.

    A store that is away does not end the work: nobody can take the lease over then either.
    """

    def __init__(
        self, lease: Lease, every: float = BEAT_SECONDS, on_lost: Callable[[], None] | None = None
    ) -> None:
        """`on_lost` is called once, from that thread, when somebody else has the step."""
        self.lease = lease
        self.error: StoreError | None = None
        """Why the last heartbeat could not be written, if it could not."""
        self._every = every
        self._on_lost = on_lost
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"lease {lease.paths.key}", daemon=True)

    @property
    def lost(self) -> bool:
        """Whether somebody else has the step: what is computed from now on is of no use."""
        return self.lease.superseded

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        # Not for ever: where the store is away, the error that brought us here should be told.
        self._thread.join(LEAVING_SECONDS)

    def _work(self) -> None:
        while not self._over.wait(self._every):
            try:
                self.error = None
                alive = self.lease.beat()
            except StoreError as problem:
                self.error = problem
                continue
            if not alive:
                if self._on_lost is not None:
                    self._on_lost()
                return
        with contextlib.suppress(StoreError):
            self.lease.release()


@dataclass(frozen=True, slots=True)
class Free:
    """Nobody has the step."""


@dataclass(frozen=True, slots=True)
class Held:
    """Somebody has it, or may have."""

    holder: str
    attempt: str
    host: str
    quiet: float
    """Seconds for which its lease is known not to have changed."""


@dataclass(frozen=True, slots=True)
class Dead:
    """Whoever had it is gone."""

    data: bytes
    """For `Lease.take(over=...)`."""
    holder: str
    attempt: str


@dataclass(frozen=True, slots=True)
class _Sight:
    data: bytes
    at: float
    quiet: float


@dataclass(slots=True)
class Watch:
    """What a driver remembers of leases that others hold.

    Between two looks at most a quarter of `ttl` counts as silence. A store that was away for a minute, or a
    driver that was frozen, would otherwise make every holder look dead: they could not write, or not be read.
    """

    ttl: float = TTL
    clock: Callable[[], float] = time.monotonic
    _seen: dict[str, _Sight] = field(default_factory=dict)
    _gone: set[str] = field(default_factory=set)

    def look(self, store: ArtifactStore, paths: StepPaths) -> Free | Held | Dead:
        """Who has the step now. Ask at least every `ttl / 4` seconds, or the dead are seen later.

        Raises:
            StoreError: the store is away; nothing is concluded from that.
        """
        begin = self.clock()
        data = standing(store, paths)
        if data is None:
            self._seen.pop(paths.key, None)
            return Free()
        before = self._seen.get(paths.key)
        quiet = 0.0
        if before is not None and before.data == data:
            quiet = before.quiet + min(max(begin - before.at, 0.0), self.ttl / 4)
        self._seen[paths.key] = _Sight(data, self.clock(), quiet)
        claim = Claim.parse(data)
        if quiet >= self.ttl or claim.attempt in self._gone or claim.is_gone:
            return Dead(data, claim.holder, claim.attempt)
        return Held(claim.holder, claim.attempt, claim.host, quiet)

    def gone(self, attempt: str) -> None:
        """Tells that an attempt is over for certain, so that its lease need not be waited for."""
        self._gone.add(attempt)


def standing(store: ArtifactStore, paths: StepPaths) -> bytes | None:
    """The lease that counts now, or None when the step is nobody's.

    That in lease.json, or that of who took it over and has not written it there yet.
    """
    data = _read(store, paths.lease)
    after = data
    while after is not None:
        data = after
        after = _read(store, paths.taken(_digest(data)))
    return data


def _read(store: ArtifactStore, name: str) -> bytes | None:
    """The bytes; of an object that is damaged some that do not change, so that it is waited for like any."""
    try:
        return store.read(name)
    except DamagedObject:
        return f"damaged {name}".encode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@cache
def _boot() -> str:
    """This start of this machine and this table of processes: containers of one machine have a table each."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _process(pid: int) -> tuple[str, int] | None:
    """State and birth of a process, as the kernel tells them; None when they cannot be read."""
    try:
        # The second field is the program's name in brackets, which may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return fields[0], int(fields[19])
    except (OSError, ValueError, IndexError):
        return None
