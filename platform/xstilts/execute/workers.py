"""A process of a cluster that does one step after another and keeps what it has loaded.

A Ray Train run costs 15 s before its first step; a warm worker starts a step within milliseconds. Workers
are asked for news, they send none: so whoever has the handle hears them, and one that does not answer hangs.
"""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil

from xstilts.execute.backends import Event, Terms, failure
from xstilts.execute.cluster import import_ray
from xstilts.execute.site import Site
from xstilts.plan.step import Step

THREADS = 4
"""Calls that a worker answers at once: the step, news, stop, and one to spare."""

QUIET_SECONDS = 0.5
"""Between two tellings of bare progress; values and notes are all told."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker runs, so that it can be ended even when it no longer listens."""

    node: str
    """Hexadecimal id of Ray's."""
    pid: int
    created: float
    """When the process began, in seconds since the epoch: another may get its number."""

    def end(self) -> None:
        """Ends the process, called on its node; nothing when it is gone."""
        with suppress(psutil.NoSuchProcess):
            if abs(psutil.Process(self.pid).create_time() - self.created) < 1:
                os.kill(self.pid, signal.SIGKILL)


def slay(ray: Any, place: Place) -> None:
    """Ends a worker that may not even listen: by signal, from its own node."""
    strategies = importlib.import_module("ray.util.scheduling_strategies")
    there = strategies.NodeAffinitySchedulingStrategy(place.node, soft=False)
    ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_end).remote(place)


def _end(place: Place) -> None:
    place.end()


@dataclass(frozen=True, slots=True)
class News:
    """What a worker says when asked."""

    place: Place
    events: tuple[Event, ...]
    """Since it was asked before."""


class Worker:
    """What runs in the process; all methods may be called while a step runs."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._stop = threading.Event()
        self._alone = threading.Lock()
        """Held by the step that runs: the process's random generators, and `stop`, are one step's. A search
        whose own process died may leave a trial here."""
        self._events: deque[Event] = deque()
        self._told = 0.0
        node = str(import_ray().get_runtime_context().get_node_id())
        self._place = Place(node, os.getpid(), psutil.Process().create_time())

    def run(self, step: Step, attempt: str, terms: Terms, crew: Sequence[Any] = ()) -> Event:
        """Does a step; what goes wrong comes back as an event, so that only a lost process raises.

        `crew`: handles of workers that the step may give steps of its own (the trials of a search).
        """
        with self._alone:
            self._stop.clear()
            together = terms.engine == "ray_train" and step.kind != "search"
            if not together:  # it begins when its ranks have their places, and says so then
                self._events.append(Event(step.label, "started", attempt, time=time.time()))
            try:
                if together:
                    from xstilts.execute import ray_train

                    ray_train.run_step(step, self._site, attempt, self._hear, self._stop.is_set, terms)
                else:
                    from xstilts.execute.steps import run_step

                    run_step(step, self._site, attempt, self._hear, self._stop.is_set, terms, tuple(crew))
            except Exception as problem:
                return failure(step.label, attempt, problem)
            return Event(step.label, "done", attempt, done=1.0, time=time.time())

    def stop(self) -> None:
        """The running step writes a checkpoint and ends at its next report."""
        self._stop.set()

    def news(self) -> News:
        """What happened since the last call."""
        events = []
        while self._events:
            events.append(self._events.popleft())
        return News(self._place, tuple(events))

    def _hear(self, event: Event) -> None:
        if event.what == "progress" and not event.metrics and time.monotonic() - self._told < QUIET_SECONDS:
            return
        self._told = time.monotonic()
        self._events.append(event)
