"""Steps on Ray: a local cluster of its own with warm workers that keep process, encoder and caches.

A Ray Train run costs 15 s before its first step; a warm worker starts a step within milliseconds.
"""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import shutil
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xstilts.execute.backends import Event, Listener, failure, new_attempt
from xstilts.execute.site import Site
from xstilts.execute.state import Cause
from xstilts.plan.step import SearchBody, Step

STOP_SECONDS = 30.0
"""How long steps get to write a checkpoint once asked to stop."""

OBJECT_STORE_BYTES = 100_000_000
"""Steps pass files, not objects; what goes through Ray is descriptions and progress."""


class Mailbox:
    """Progress on its way from workers to the driver."""

    def __init__(self) -> None:
        self._events: list[Event] = []

    def post(self, event: Event) -> None:
        """Adds one."""
        self._events.append(event)

    def drain(self) -> list[Event]:
        """All since the last time."""
        events, self._events = self._events, []
        return events


class Worker:
    """A process that does one step after another and keeps what it has loaded."""

    def __init__(self, site: Site, mailbox: Any) -> None:
        self._site = site
        self._mailbox = mailbox
        self._stop = threading.Event()

    def run(self, step: Step, attempt: str) -> Event:
        """Does a step; what goes wrong comes back as an event, so that only a lost process raises."""
        from xstilts.execute.steps import run_step

        try:
            run_step(step, self._site, attempt, self._post(), self._stop.is_set)
        except Exception as problem:
            return failure(step.label, attempt, problem)
        return Event(step.label, "done", attempt, done=1.0, time=time.time())

    def stop(self) -> None:
        """The running step ends at its next report."""
        self._stop.set()

    def _post(self) -> Listener:
        last = 0.0

        def post(event: Event) -> None:
            nonlocal last
            if event.what == "progress" and not event.metrics and time.monotonic() - last < 0.5:
                return
            last = time.monotonic()
            self._mailbox.post.remote(event)

        return post


@dataclass(slots=True)
class _Job:
    step: Step
    attempt: str
    actor: Any
    slots: int


class RayBackend:
    """Runs steps on workers of a local Ray cluster that it starts and ends."""

    def __init__(self, site: Site, listen: Listener) -> None:
        self._site = site
        self._listen = listen
        self._slots = site.execution.workers
        self._cluster = LocalRay(site.execution.workers * site.execution.threads)
        self._ray = self._cluster.ray
        self._mailbox = self._ray.remote(num_cpus=0)(Mailbox).remote()
        self._idle: list[Any] = []
        self._running: dict[Any, _Job] = {}
        self._stop_at: float | None = None
        self._told = False

    def room(self, step: Step) -> bool:
        """Whether enough slots are free."""
        return sum(job.slots for job in self._running.values()) + self._need(step) <= self._slots

    def submit(self, step: Step) -> None:
        """Starts a step on an idle worker, or on a new one."""
        actor = self._idle.pop() if self._idle else self._new_worker()
        attempt = new_attempt()
        job = _Job(step, attempt, actor, self._need(step))
        self._running[actor.run.remote(step, attempt)] = job
        self._listen(Event(step.label, "started", attempt, time=time.time()))

    def poll(self, seconds: float) -> None:
        """Passes on progress, then what has ended."""
        if self._stop_at is not None and not self._told:
            self._told = True
            for job in self._running.values():
                job.actor.stop.remote()
        ended, _ = self._ray.wait(list(self._running), timeout=seconds) if self._running else ([], [])
        running = {job.step.label for job in self._running.values()}
        for event in self._ray.get(self._mailbox.drain.remote()):
            if event.label in running:
                self._listen(event)
        for reference in ended:
            self._end(reference)
        if self._stop_at is not None and time.monotonic() > self._stop_at:
            self._give_up()

    def stop(self) -> None:
        """Steps are told at the next poll; after 30 s they are given up. Safe in a signal handler."""
        self._stop_at = time.monotonic() + STOP_SECONDS

    def close(self) -> None:
        """Ends the cluster and removes its temporary files."""
        self._cluster.close()

    def _need(self, step: Step) -> int:
        if isinstance(step.body, SearchBody):
            return min(self._slots, step.body.concurrent)
        return 1

    def _new_worker(self) -> Any:
        # No CPUs of Ray's: slots are counted here, and a search's trials need the cluster's.
        return self._ray.remote(num_cpus=0, max_concurrency=2)(Worker).remote(self._site, self._mailbox)

    def _end(self, reference: Any) -> None:
        job = self._running.pop(reference)
        try:
            event: Event = self._ray.get(reference)
        except self._ray.exceptions.RayError as problem:  # dead, or killed by the host's memory monitor
            bug = isinstance(problem, self._ray.exceptions.RayTaskError)
            cause = Cause.BUG if bug else Cause.LOST_WORKER
            first = str(problem).partition("\n")[0]
            text = str(problem) if bug else f"its worker was lost ({first})"
            event = Event(job.step.label, "failed", job.attempt, time=time.time(), cause=cause, text=text)
        else:
            self._idle.append(job.actor)
        self._listen(event)

    def _give_up(self) -> None:
        for job in list(self._running.values()):
            text = "did not stop in time; its last checkpoint is kept"
            self._listen(
                Event(
                    job.step.label,
                    "failed",
                    job.attempt,
                    time=time.time(),
                    cause=Cause.INTERRUPTED,
                    text=text,
                )
            )
        self._running.clear()


class LocalRay:
    """A Ray cluster of this process's own: temporary folder, token and end are private to it."""

    def __init__(self, cpus: int) -> None:
        # Sockets below it must have names of at most 107 characters, which rules out a deep TMPDIR.
        base = Path(tempfile.gettempdir())
        short = base if len(str(base)) < 30 else Path("/tmp")
        self._folder = Path(tempfile.mkdtemp(prefix="xst", dir=short))
        self._before = os.environ.get("RAY_TMPDIR")
        os.environ["RAY_TMPDIR"] = str(self._folder)
        self.ray = import_ray()
        try:
            self.ray.init(
                address="local",
                num_cpus=max(cpus, 1),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends every process of the cluster and removes its folder."""
        with suppress(Exception):
            self.ray.shutdown()
        os.environ.pop("RAY_TMPDIR", None)
        if self._before is not None:
            os.environ["RAY_TMPDIR"] = self._before
        shutil.rmtree(self._folder, ignore_errors=True)


def import_ray() -> Any:
    """Ray, told before its first import how its processes know each other: it reads that once.

    Left to itself it would write a token into the user's home, and behave by what it finds there.
    """
    if "ray" not in sys.modules:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    return importlib.import_module("ray")
