"""Streams a running job to MLflow from a thread of its own: every call returns at once, none fails.

What cannot be written in time is counted and said at the end; the store has all of it, and
`xstilts export mlflow JOB` makes the same runs from there.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Literal

from xstilts.record.mlflow.runs import Point, Run, Runs, passing

Status = Literal["FINISHED", "FAILED", "KILLED"]

PACE = 1.0
"""Seconds between two rounds of writing: so long do points gather into one request a run."""

BOUND = 20_000
"""Points kept while MLflow does not take them; some 4 MB. The oldest go first."""

_SLOWEST = 30.0
"""Seconds between rounds when MLflow fails again and again."""

_TRIES = 30
"""Rounds one event may hold up all others (about a quarter of an hour) before it is given up."""

Event = Callable[[Runs], None]


class LiveView:
    """One run of one job in MLflow. All methods may be called from any thread."""

    def __init__(self, tracking_uri: str, artifact_root: str | None, job: str, digest: str = "") -> None:
        """Starts the thread; MLflow is imported and asked only when there is something to write.

        `digest` (of the plan) is for those who add to a job's run without starting it, such as a report.
        """
        self._address = (tracking_uri, artifact_root, job)
        self._job = job
        self._digest = digest
        self._lock = threading.Lock()
        self._events: deque[Event] = deque()
        self._points: deque[tuple[str, Point]] = deque()
        self._writing = 0
        self._dropped = 0
        self._refused: list[str] = []
        self._failures = 0
        self._tries = 0
        self._problem = ""
        self._notes: list[str] | None = None
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._names: dict[str, tuple[str, dict[str, str]]] = {}
        self._thread = threading.Thread(target=self._work, name=f"mlflow-{job}", daemon=True)
        self._thread.start()

    def job_started(self, tags: Mapping[str, str], params: Mapping[str, str]) -> None:
        """Opens the parent run; `tags["digest"]`, the plan's, says which: a resumed job goes on in it."""
        at, tags, params = _now(), dict(tags), dict(params)
        self._digest = tags.get("digest", self._digest)

        def event(runs: Runs) -> None:
            parent = runs.parent(self._digest, tags, at)
            runs.reopen(parent)
            runs.tag(parent, tags)
            runs.params(parent, params)

        self._add(event)

    def step_started(self, key: str, name: str, tags: Mapping[str, str], params: Mapping[str, str]) -> None:
        """Opens the run of a step; when it was begun before, its run goes on."""
        at, tags, params = _now(), dict(tags), dict(params)
        self._names[key] = (name, tags)

        def event(runs: Runs) -> None:
            run = self._run(runs, key, at)
            runs.reopen(run)
            runs.params(run, params)

        self._add(event)

    def points(self, key: str, points: Iterable[Point]) -> None:
        """Adds curve points of a step: (metric, value, optimiser step, milliseconds since 1970)."""
        with self._lock:
            if self._closing.is_set():
                return
            self._points.extend((key, point) for point in points)
            self._trim()

    def step_ended(
        self, key: str, status: Status, metrics: Mapping[str, float], tags: Mapping[str, str] | None = None
    ) -> None:
        """Ends the run of a step with its final values; no metrics when it failed."""
        at, metrics, tags = _now(), dict(metrics), dict(tags or {})

        def event(runs: Runs) -> None:
            self._write_points(runs, key)
            run = self._run(runs, key, at)
            runs.metrics(run, metrics, at)
            runs.tag(run, tags)
            runs.end(run, status, at)

        self._add(event)

    def reused(self, key: str, name: str, tags: Mapping[str, str], metrics: Mapping[str, float]) -> None:
        """A step that was there: a light run, tagged `reused`, with `first_run` the run that computed it."""
        at, tags, metrics = _now(), dict(tags), dict(metrics)

        def event(runs: Runs) -> None:
            run = runs.reused(key, name, self._parent(runs, at), tags, at)
            runs.metrics(run, metrics, at)
            runs.end(run, "FINISHED", at)

        self._add(event)

    def cell(self, name: str, tags: Mapping[str, str], metrics: Mapping[str, float]) -> None:
        """A finished cell of the table: a nested run with its scores by language."""
        at, tags, metrics = _now(), dict(tags), dict(metrics)

        def event(runs: Runs) -> None:
            write_cell(runs, self._parent(runs, at), name, tags, metrics, at)

        self._add(event)

    def artifact(self, path: Path, folder: str = "") -> None:
        """Copies a file, or the files of a folder, to `folder` of the parent run's artifacts."""
        at = _now()
        self._add(lambda runs: runs.attach(self._parent(runs, at), path, folder))

    def job_ended(self, status: Status) -> None:
        """Ends the parent run."""
        at = _now()
        self._add(lambda runs: runs.end(self._parent(runs, at), status, at))

    def close(self, timeout: float = 10.0) -> list[str]:
        """Writes what is left, for at most `timeout` seconds; what a user should know of what was not."""
        with self._lock:
            self._closing.set()
        self._thread.join(timeout)
        self._abandoned.set()
        if self._notes is None:
            self._notes = self._say()
        return list(self._notes)

    def _say(self) -> list[str]:
        """One sentence for each thing that is not in MLflow."""
        again = f"`xstilts export mlflow {self._job}` rebuilds them from the store"
        with self._lock:
            left, events = len(self._points) + self._writing, len(self._events)
            notes = []
            if left or events:
                why = f" ({self._problem})" if self._problem else ""
                notes.append(
                    f"MLflow at {self._address[0]} did not answer in time{why}: "
                    f"{left} points and {events} events were not written; {again}"
                )
            if self._dropped:
                notes.append(f"MLflow was too slow for {self._dropped} points; {again}")
            if self._refused:
                count, first = len(self._refused), self._refused[0]
                notes.append(f"MLflow refused {count} events or curves, the first because: {first}; {again}")
        return notes

    def _add(self, event: Event) -> None:
        """Queues an event. They are few (some for each step) and never dropped."""
        with self._lock:
            if not self._closing.is_set():
                self._events.append(event)

    def _trim(self) -> None:
        """Keeps the newest points; called with the lock held."""
        while len(self._points) > BOUND:
            self._points.popleft()
            self._dropped += 1

    def _work(self) -> None:
        """The thread: a round of writing a second, slower while MLflow fails, until all is written."""
        _hush()
        runs: Runs | None = None
        wait = PACE
        while not self._abandoned.is_set():
            closing = self._closing.wait(wait)
            wait = PACE
            if self._events or self._points:
                try:
                    runs = runs or Runs(*self._address)
                    self._round(runs)
                except Exception as problem:
                    # The one place where everything is caught: nothing here may reach the job.
                    wait = self._failed(problem, runs)
            if closing:
                if not self._events and not self._points:
                    return
                self._abandoned.wait(0.2)

    def _failed(self, problem: Exception, runs: Runs | None) -> float:
        """Remembers why a round failed; how long to wait before the next."""
        self._problem = _brief(problem)
        self._failures += 1
        if runs is None and not passing(problem):
            # No client can be made at all, such as when MLflow is not installed: do not try for ever.
            self._refuse(problem, len(self._events))
            with self._lock:
                self._dropped += len(self._points)
                self._events.clear()
                self._points.clear()
        elif runs is not None:
            # A library that fails here must not end the thread either.
            with contextlib.suppress(Exception):
                runs.forget()
        return float(min(PACE * 2 ** min(self._failures, 10), _SLOWEST))

    def _round(self, runs: Runs) -> None:
        """Writes all events in order, then one batch of points a run.

        Raises:
            Exception: MLflow is away; what was not written stays queued, in order.
        """
        while self._events and not self._abandoned.is_set():
            try:
                self._events[0](runs)
            except Exception as problem:
                self._tries += 1
                if passing(problem) and self._tries < _TRIES:
                    raise
                self._refuse(problem)
            self._tries = 0
            with self._lock:
                self._events.popleft()
        self._write_points(runs, None)
        self._failures = 0

    def _write_points(self, runs: Runs, only: str | None) -> None:
        """Sends the points of one step, or of all, one batch for each step."""
        while points := self._take(only):
            by_key: dict[str, list[Point]] = {}
            for key, point in points:
                by_key.setdefault(key, []).append(point)
            try:
                for key in list(by_key):
                    if self._abandoned.is_set():
                        return
                    self._send(runs, key, by_key[key])
                    del by_key[key]
            except Exception:
                with self._lock:
                    self._points.extendleft(
                        (key, point) for key, points in by_key.items() for point in reversed(points)
                    )
                    self._trim()
                    self._writing = 0
                raise
            self._writing = 0
            if only is None:
                return

    def _send(self, runs: Runs, key: str, points: list[Point]) -> None:
        """One batch; points that MLflow will never take are noted, so that they hold up nothing."""
        try:
            runs.points(self._run(runs, key, points[0][3]), points)
        except Exception as problem:
            if passing(problem):
                raise
            self._refuse(problem)
        with self._lock:
            self._writing -= len(points)

    def _take(self, only: str | None) -> list[tuple[str, Point]]:
        """Takes the points of one step, or all; they count as being written until they are."""
        with self._lock:
            taken = [each for each in self._points if only in (None, each[0])]
            self._points = deque(each for each in self._points if only not in (None, each[0]))
            self._writing = len(taken)
        return taken

    def _refuse(self, problem: Exception, count: int = 1) -> None:
        self._refused.extend([_brief(problem)] * count)

    def _parent(self, runs: Runs, at: int) -> Run:
        return runs.parent(self._digest, {"digest": self._digest} if self._digest else {}, at)

    def _run(self, runs: Runs, key: str, at: int) -> Run:
        name, tags = self._names.get(key, (key, {}))
        return runs.step(key, name, self._parent(runs, at), tags, at)


def write_cell(
    runs: Runs, parent: Run, name: str, tags: Mapping[str, str], metrics: Mapping[str, float], at: int
) -> Run:
    """The run of one cell under `parent`: the same live and rebuilt."""
    key = f"{parent.tags['key']}/{name}"
    run = runs.step(key, name, parent, {"kind": "cell", **tags}, at)
    runs.metrics(run, metrics, at)
    runs.end(run, "FINISHED", at)
    return run


def _now() -> int:
    return int(time.time() * 1000)


def _brief(problem: Exception) -> str:
    """The first line of what went wrong, short enough for a sentence."""
    text = str(problem).strip() or type(problem).__name__
    return text.splitlines()[0][:200]


def _hush() -> None:
    """Keeps urllib3 from printing a warning for each retry of this thread; other threads keep theirs."""
    mine = threading.get_ident()

    def others(record: logging.LogRecord) -> bool:
        return record.thread != mine

    logging.getLogger("urllib3.connectionpool").addFilter(others)
