"""What a driver says of itself while it works, and what the store says of a job: `xstilts status`.

The store is the ledger: records say what is done, leases who works on what, attempts what went wrong. A
driver's file adds what only it knows: what waits, what was given up and why, what was spent.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from xstilts.errors import StoreError
from xstilts.execute.attempts import of_step
from xstilts.execute.backends import Event
from xstilts.execute.orders import Spending, asked_of
from xstilts.execute.state import ASKING, Cause, Survey
from xstilts.execute.submit import SUBMISSION
from xstilts.plan.graph import Planned, blocked_by
from xstilts.record.artifacts import ArtifactStore, StepPaths, driver_file
from xstilts.record.lease import Claim, standing

PACE_SECONDS = 2.0
"""Between two writings of what changed."""

BEAT_SECONDS = 15.0
"""Between two writings when nothing did, so that a reader can tell a driver that works from one that died."""

GONE_SECONDS = 90.0
"""A driver that has said nothing for so long is told of as gone."""


def new_driver() -> str:
    """A name no other driver has, which says where it runs."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:6]}"


@dataclass(slots=True)
class Ledger:
    """An observer that keeps this driver's file up to date, from a thread of its own: it never blocks."""

    store: ArtifactStore
    job: str
    driver: str
    spending: Spending
    slots: Callable[[], int] = lambda: 0
    stopping: Callable[[], bool] = lambda: False
    """Whether it has been told to stop, or its budget is spent: then it starts nothing more."""
    _words: dict[str, Any] = field(default_factory=dict)
    _running: dict[str, dict[str, Any]] = field(default_factory=dict)
    _notes: dict[str, str] = field(default_factory=dict)
    _failed: dict[str, dict[str, Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _changed: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self, digest: str) -> None:
        """Begins to write."""
        started = time.time()
        host = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
        mine = Claim.here("", "", ())
        host |= {"boot": mine.boot, "born": mine.born, "submission": os.environ.get(SUBMISSION, "")}
        self._words = {"driver": self.driver, **host, "digest": digest, "state": "running", "why": ""}
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()
        self._changed.set()

    def planned(self, survey: Survey) -> None:
        """The plan has a file of its own."""

    def event(self, event: Event, planned: Planned) -> None:
        """What runs, waits and failed."""
        with self._lock:
            label = event.label
            match event.what:
                case "started":
                    self._notes.pop(label, None)
                    self._running[label] = {"attempt": event.attempt, "since": event.time, "done": 0.0}
                case "progress" if label in self._running:
                    self._running[label]["done"] = round(event.done, 4)
                case "done":
                    self._running.pop(label, None)
                    self._notes.pop(label, None)
                case "note":
                    self._notes[label] = event.text
                    if event.cause is not None:  # an attempt that ended, and is tried again
                        self._running.pop(label, None)
                case "failed" if event.cause is Cause.INTERRUPTED:
                    self._running.pop(label, None)
                case "failed":
                    self._running.pop(label, None)
                    self._failed[label] = {
                        "cause": str(event.cause),
                        "text": event.text[-4000:],
                        "key": planned.key,
                        "attempt": event.attempt,
                    }
        self._changed.set()

    def end(self, state: str, why: str = "") -> None:
        """Writes the last word: done, failed, interrupted or stopped."""
        if self._thread is None:
            return
        with self._lock:
            self._words |= {"state": state, "why": why}
            self._running.clear()
        self._ended.set()
        self._changed.set()
        self._thread.join(10)

    def _work(self) -> None:
        while True:
            ended = self._ended.is_set()
            self._changed.clear()
            with suppress(StoreError):  # it will be written with the next change
                self.store.put(driver_file(self.job, self.driver), self._said())
            if ended:
                return
            self._ended.wait(PACE_SECONDS)
            self._changed.wait(BEAT_SECONDS)

    def _said(self) -> bytes:
        with self._lock:
            words = {
                **self._words,
                "updated": time.time(),
                "slots": self.slots(),
                "stopping": self.stopping(),
                "spent": self.spending.to_json(),
                "running": dict(self._running),
                "notes": dict(self._notes),
                "failed": dict(self._failed),
            }
        return json.dumps(words, indent=1).encode()


def status(survey: Survey, store: ArtifactStore, only: str = "") -> dict[str, Any]:
    """The plan as `plan --json` has it, with what runs, waits, failed and is blocked, the drivers and the
    orders that stand. With `only`, a label, the store is asked for attempts of this step alone, and for the
    leases of it and of what failed."""
    return told(survey.to_json(), store, only)


def told(
    words: dict[str, Any], store: ArtifactStore, only: str = "", known: Mapping[str, list[Any]] | None = None
) -> dict[str, Any]:
    """As `status`, of a plan in the words of `plan --json`, whose states are those of now: changes `words`.

    `known`: label -> the attempts of a recorded step; the store is not asked for them.
    """
    drivers = drivers_of(store, words["job"])
    left = {step["label"]: step["key"] for step in words["steps"] if step["state"] != "recorded"}
    failed = _failed(drivers, left)
    attempts = {label: list(ended) for label, ended in (known or {}).items() if label not in left}
    asked = [step for step in words["steps"] if only in ("", step["label"]) and step["key"] is not None]
    every = {step["label"]: step["key"] for step in asked if step["label"] not in attempts}
    looked = {label for label in left if label in every or label in failed}
    keys = {label: left[label] for label in looked if left[label] is not None}
    with ThreadPoolExecutor(ASKING) as pool:
        gone = frozenset(driver["driver"] for driver in drivers if not driver["alive"])
        leases = pool.map(lambda key: _lease(store, key, gone), keys.values())
        ended = pool.map(lambda key: of_step(store, key), every.values())
        held = {label: lease for label, lease in zip(keys, leases, strict=True) if lease is not None}
        attempts |= dict(zip(every, ended, strict=True))
    # The lease of a failed attempt whose machine died stays; any other is of somebody who tries again.
    own = {label: why["attempt"] for label, why in failed.items() if why.get("attempt")}
    running = {label: lease for label, lease in held.items() if lease["attempt"] != own.get(label)}
    failed = {label: why for label, why in failed.items() if label not in running}
    needed = {step["label"]: (*step["inputs"].values(), *step["awaits"]) for step in words["steps"]}
    blocked = blocked_by(needed, set(failed))
    work = {label: each for driver in drivers for label, each in driver["running"].items()}
    notes = {label: text for driver in drivers if driver["alive"] for label, text in driver["notes"].items()}
    for step in words["steps"]:
        label = step["label"]
        step["attempts"] = attempts.get(label, [])
        step["cause"] = None
        if step["state"] == "recorded":
            continue
        if label in running:
            step |= {
                "state": "running",
                "done": work.get(label, {}).get("done", 0.0),
                "lease": running[label],
            }
        elif label in failed:
            step |= {"state": "failed", "cause": failed[label]["cause"], "text": failed[label]["text"]}
        elif label in blocked:
            step |= {"state": "blocked", "cause": f"{blocked[label]} failed"}
        step["note"] = notes.get(label, "")
    states = [step["state"] for step in words["steps"]]
    words["totals"] |= {word: states.count(word) for word in ("running", "failed", "blocked")}
    words["totals"] |= {word: states.count(word) for word in ("to_run", "awaits")}
    words["drivers"] = drivers
    words["orders"] = asked_of(store, words["job"]).to_words()
    return words


def drivers_of(store: ArtifactStore, job: str) -> list[dict[str, Any]]:
    """What each driver of the job last said, the newest last; `alive` by how long ago that was."""
    found = []
    for name in store.list(driver_file(job)):
        with suppress(ValueError):
            words = json.loads(store.read(name) or b"null")
            if isinstance(words, dict) and {"driver", "updated", "started", "state"} <= words.keys():
                heard = time.time() - float(words["updated"])
                claim = Claim(boot=words.get("boot", ""), pid=words.get("pid", 0), born=words.get("born", 0))
                words["alive"] = words["state"] == "running" and heard < GONE_SECONDS and not claim.is_gone
                found.append({"running": {}, "notes": {}, "failed": {}, **words})
    return sorted(found, key=lambda words: float(words["started"]))


def await_stop(store: ArtifactStore, job: str, seconds: float, beside: Collection[str] = ()) -> str:
    """Waits until every driver that was told to stop has ended; else the name of one that has not. An order
    that is taken back before it was read would be lost. `beside`: submissions known to have ended."""
    deadline = time.monotonic() + seconds
    while asked_of(store, job).stop:
        found = [words for words in drivers_of(store, job) if words["alive"]]
        working = [str(words["driver"]) for words in found if words.get("submission") not in beside]
        if not working or time.monotonic() > deadline:
            return working[0] if working else ""
        time.sleep(PACE_SECONDS)
    return ""


def is_ending(store: ArtifactStore, job: str, submission: str) -> bool:
    """Whether the submitted driver was told to stop, is stopping by itself, or has done what it does: then it
    takes no more orders, though a cluster may still say that it runs."""
    mine = [words for words in drivers_of(store, job) if words.get("submission") == submission]
    if mine and (mine[-1]["state"] != "running" or mine[-1].get("stopping")):
        return True
    return bool(asked_of(store, job).stop)


def _failed(drivers: list[dict[str, Any]], left: Mapping[str, str | None]) -> dict[str, dict[str, Any]]:
    """Label -> cause and text, of steps that the newest driver gave up, or one that is alive; of several the
    newest one's. `left`: label -> key of what is not recorded. A step that has another key now was asked for
    otherwise then, and has not failed."""
    found: dict[str, dict[str, Any]] = {}
    for driver in drivers:
        if driver["alive"] or driver is drivers[-1]:
            found |= {label: dict(why) for label, why in driver["failed"].items()}
    return {
        label: why for label, why in found.items() if label in left and why.get("key") in (None, left[label])
    }


def _lease(store: ArtifactStore, key: str, gone: frozenset[str]) -> dict[str, Any] | None:
    """Who works on the step; None for nobody, a process of this machine that is gone, or one that a driver
    which is `gone` asked for and that has been silent as long."""
    data = standing(store, StepPaths(key))
    claim = Claim() if data is None else Claim.parse(data)
    if data is None or claim.is_gone:
        return None
    with suppress(ValueError):
        silent = datetime.now(UTC) - datetime.fromisoformat(claim.heartbeat)
        if claim.holder in gone and silent.total_seconds() > GONE_SECONDS:
            return None
    return asdict(claim)
