"""Streams a running job to MLflow from a thread of its own: every call returns at once, none fails.

What MLflow cannot take now waits, in memory and then in a file, and is told in order once it is back. What
finds no room is counted and said at the end; the store has all of it, and `xstilts export mlflow JOB` makes
the same runs from there.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from xstilts.errors import StoreError
from xstilts.record.artifacts import ArtifactStore
from xstilts.record.mlflow.backlog import Backlog
from xstilts.record.mlflow.hidden import address, hidden
from xstilts.record.mlflow.links import write_links
from xstilts.record.mlflow.runs import Point, Runs, passing
from xstilts.record.mlflow.telling import Teller, brief, now

Status = Literal["FINISHED", "FAILED", "KILLED"]

PACE = 1.0
"""Seconds between two rounds of writing: so long do points gather into one request a run."""

_SLOWEST = 30.0
"""Seconds between rounds when MLflow fails again and again."""

_SETTLE = 5.0
"""Seconds after the beginning when drivers that began together see each other's runs."""

_LINKS = 30.0
"""Seconds between two writings of jobs/<name>/mlflow.json."""


class LiveView:
    """One run of one job in MLflow. All methods may be called from any thread.

    A call takes 2 µs for points and 30 µs for the settings of a step, whether MLflow is there or not.
    """

    def __init__(
        self,
        tracking_uri: str,
        artifact_root: str | None,
        job: str,
        digest: str = "",
        scratch: Path | None = None,
    ) -> None:
        """Starts the thread; MLflow is imported and asked only when there is something to write.

        `digest` (of the plan) is for those who add to a job's run without starting it, such as a report;
        `scratch`: a folder for what waits, else that of temporary files.
        """
        self._address = (tracking_uri, artifact_root, job)
        self._job = job
        self._lock = threading.Lock()
        self._backlog = Backlog(scratch)
        self._failures = 0
        self._problem = ""
        self._notes: list[str] | None = None
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._teller = Teller(job, digest, self._backlog, self._abandoned)
        self._linked: dict[str, Any] = {}
        self._due = {"settle": 0.0, "links": 0.0}
        self._thread = threading.Thread(target=self._work, name=f"mlflow-{job}", daemon=True)
        self._thread.start()

    def from_store(self, store: ArtifactStore) -> None:
        """Where `recorded_...` find records, and where the way to the runs is written down."""
        self._teller.store = store

    def job_started(self, tags: Mapping[str, str], params: Mapping[str, str]) -> None:
        """Opens the parent run; `tags["digest"]`, the plan's, says which: a resumed job goes on in it."""
        self._teller.digest = tags.get("digest", self._teller.digest)
        self._add("job", tags=_shown(tags), params=_shown(params))

    def step_started(self, key: str, name: str, tags: Mapping[str, str], params: Mapping[str, str]) -> None:
        """Opens the run of a step; when it was begun before, its run goes on."""
        self._add("step", key=key, name=name, tags=dict(tags), params=dict(params))

    def points(self, key: str, points: Iterable[Point]) -> None:
        """Adds curve points of a step: (metric, value, optimiser step, milliseconds since 1970)."""
        if kept := list(points):
            with self._lock:
                if not self._closing.is_set():
                    self._backlog.add({"what": "points", "key": key, "points": kept})

    def step_tagged(self, key: str, tags: Mapping[str, str]) -> None:
        """Adds tags to the run of a step that was started."""
        self._add("tagged", key=key, tags=_shown(tags))

    def step_ended(
        self, key: str, status: Status, metrics: Mapping[str, float], tags: Mapping[str, str] | None = None
    ) -> None:
        """Ends the run of a step with its final values; no metrics when it failed."""
        self._add("ended", key=key, status=status, metrics=dict(metrics), tags=_shown(tags or {}))

    def reused(self, key: str, name: str, tags: Mapping[str, str], metrics: Mapping[str, float]) -> None:
        """A step that was there: a light run, tagged `reused`, with `first_run` the run that computed it."""
        self._add("reused", key=key, name=name, tags=dict(tags), metrics=dict(metrics))

    def cell(self, name: str, tags: Mapping[str, str], metrics: Mapping[str, float]) -> None:
        """A finished cell of the table: a nested run with its scores by language."""
        self._add("cell", name=name, tags=dict(tags), metrics=dict(metrics))

    def recorded_end(self, key: str) -> None:
        """As `step_ended`, with what the record of the step says; read by this view's thread."""
        self._add("recorded", **{"as": "ended", "key": key})

    def recorded_before(self, key: str, name: str, tags: Mapping[str, str]) -> None:
        """As `reused`, with what the record says."""
        self._add("recorded", **{"as": "reused", "key": key, "name": name, "tags": dict(tags)})

    def recorded_cells(self, key: str, cells: Sequence[Mapping[str, Any]], tags: Mapping[str, str]) -> None:
        """As `cell` for each of `cells`, with the scores of the record of `key`."""
        said = [dict(cell) for cell in cells]
        self._add("recorded", **{"as": "cells", "key": key, "cells": said, "tags": dict(tags)})

    def artifact(self, path: Path, folder: str = "") -> None:
        """Copies a file, or the files of a folder, to `folder` of the parent run's artifacts."""
        self._add("file", path=str(path), folder=folder)

    def job_ended(self, status: Status) -> None:
        """Ends the parent run."""
        self._add("job_ended", status=status)

    def close(self, timeout: float = 10.0) -> list[str]:
        """Writes what is left, for at most `timeout` seconds; what a user should know of what was not."""
        with self._lock:
            self._closing.set()
        self._thread.join(timeout)
        self._abandoned.set()
        if self._notes is None:
            self._notes = self._say()
            self._backlog.close()
        return list(self._notes)

    def _say(self) -> list[str]:
        """One sentence for each thing that is not in MLflow."""
        again = f"`xstilts export mlflow {self._job}` rebuilds them from the store"
        waiting, dropped, refused = self._backlog.waiting, self._backlog.dropped, self._teller.refused
        notes = []
        if waiting["points"] or waiting["events"]:
            why = f" ({self._problem})" if self._problem else ""
            notes.append(
                f"MLflow at {address(self._address[0])} did not answer in time{why}: "
                f"{waiting['points']} points and {waiting['events']} events were not written; {again}"
            )
        if dropped.total():
            events = f" and {dropped['events']} events" if dropped["events"] else ""
            notes.append(f"MLflow was too slow for {dropped['points']} points{events}; {again}")
        if refused:
            notes.append(
                f"MLflow refused {len(refused)} events or curves, the first because: {refused[0]}; {again}"
            )
        return notes

    def _add(self, what: str, **words: Any) -> None:
        with self._lock:
            if not self._closing.is_set():
                self._backlog.add({"what": what, "at": now(), **words})

    def _work(self) -> None:
        """The thread: a round of writing a second, slower while MLflow fails, until all is written."""
        _hush()
        runs: Runs | None = None
        wait = PACE
        while not self._abandoned.is_set():
            closing = self._closing.wait(wait)
            wait = PACE
            try:
                if self._backlog.waiting.total():
                    runs = runs or Runs(*self._address)
                    self._teller.tell(runs)
                if runs is not None:
                    self._tidy(runs, closing)
                    self._failures = 0
            except Exception as problem:
                # The one place where everything is caught: nothing here may reach the job.
                wait = self._failed(problem, runs)
            if closing:
                if not self._backlog.waiting.total():
                    return
                self._abandoned.wait(0.2)

    def _tidy(self, runs: Runs, closing: bool) -> None:
        """Beside news: once, what drivers that began together made twice; now and then, the links."""
        elapsed = time.monotonic()
        if not self._due["settle"]:
            self._due["settle"] = elapsed + _SETTLE
        if elapsed >= self._due["settle"]:
            self._due["settle"] = float("inf")
            runs.settle()
        store = self._teller.store
        if store is not None and self._teller.digest and (closing or elapsed >= self._due["links"]):
            self._due["links"] = elapsed + _LINKS
            # A store that is away loses a link for 30 s; the driver hears of it elsewhere.
            with contextlib.suppress(StoreError):
                where = address(self._address[0])
                self._linked = write_links(store, self._job, self._teller.digest, where, runs, self._linked)

    def _failed(self, problem: Exception, runs: Runs | None) -> float:
        """Remembers why a round failed; how long to wait before the next."""
        self._problem = brief(problem)
        self._failures += 1
        if runs is None and not passing(problem):
            # No client can be made at all, such as when MLflow is not installed: do not try for ever.
            self._teller.drop(problem)
        elif runs is not None:
            # A library that fails here must not end the thread either.
            with contextlib.suppress(Exception):
                runs.forget()
        return float(min(PACE * 2 ** min(self._failures, 10), _SLOWEST))


def _shown(words: Mapping[str, str]) -> dict[str, str]:
    """Words of a person's or a failure's without secrets; those that are made of a plan have none."""
    return {key: hidden(value) for key, value in words.items()}


def _hush() -> None:
    """Keeps urllib3 from printing a warning for each retry of this thread; other threads keep theirs."""
    mine = threading.get_ident()

    def others(record: logging.LogRecord) -> bool:
        return record.thread != mine

    logging.getLogger("urllib3.connectionpool").addFilter(others)
