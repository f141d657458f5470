"""Tells MLflow the news that a live view took: in order, each once, whatever fails meanwhile."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xstilts.errors import StoreError
from xstilts.record.artifacts import ArtifactStore
from xstilts.record.mlflow.backlog import Backlog, News, points_of, weight
from xstilts.record.mlflow.hidden import hidden
from xstilts.record.mlflow.runs import Point, Run, Runs, passing
from xstilts.record.mlflow.words import cell_words, final, metrics_of, milliseconds, outcome_words
from xstilts.record.schema import StepRecord, read_record

CHUNK = 5_000
"""Weight of the news told in one go: points of so many news gather into one request a run."""

TRIES = 5
"""Rounds that a request may fail, some 30 s, before it is asked whether MLflow answers at all."""


class Teller:
    """What one thread tells. News that fail are tried again, and hold up the others while MLflow is away.

    Raises:
        Exception: `tell`, whatever passes; what was not told is told next time, in order.
    """

    def __init__(self, job: str, digest: str, backlog: Backlog, over: threading.Event) -> None:
        """`over`: when to leave what is left."""
        self.digest = digest
        self.store: ArtifactStore | None = None
        self.refused: list[str] = []
        """Why MLflow will never take something."""
        self._job = job
        self._backlog = backlog
        self._over = over
        self._hand: deque[News] = deque()
        self._points: dict[str, list[Point]] = {}
        self._names: dict[str, tuple[str, dict[str, str]]] = {}
        self._tries = 0

    def tell(self, runs: Runs) -> None:
        """All that waits; a few news that come meanwhile stay, until more have gathered."""
        full = True
        while full and not self._over.is_set():
            if not self._hand and not self._points:
                self._hand.extend(self._backlog.take(CHUNK))
            full = sum(map(weight, self._hand)) >= CHUNK
            while self._hand and not self._over.is_set():
                self._one(runs, self._hand[0])
            for key in list(self._points):
                self._curve(runs, key)

    def drop(self, problem: Exception) -> None:
        """Gives up all that waits: there is no MLflow to tell."""
        for what in ("points", "events"):
            if count := self._backlog.waiting[what]:
                self._refuse(problem, what, count)
        self._hand.clear()
        self._points.clear()
        while self._backlog.take(CHUNK):
            continue

    def _one(self, runs: Runs, news: News) -> None:
        if news["what"] == "points":
            self._points.setdefault(news["key"], []).extend(points_of(news))
        else:
            if "ended" in (news["what"], news.get("as")):
                self._curve(runs, news["key"])
            if self._over.is_set():
                return
            self._try(runs, "events", 1, lambda: self._event(runs, news))
        self._hand.popleft()

    def _curve(self, runs: Runs, key: str) -> None:
        """One batch of points of one run."""
        points = self._points.get(key, [])
        if points and not self._over.is_set():
            self._try(runs, "points", len(points), lambda: self._send(runs, key, points))
            del self._points[key]

    def _send(self, runs: Runs, key: str, points: list[Point]) -> None:
        runs.points(self._run(runs, key, points[0][3]), points)

    def _try(self, runs: Runs, what: str, count: int, act: Callable[[], None]) -> None:
        """Does it, or refuses it for good: what MLflow will never take must hold up nothing else."""
        for fresh in (False, True):
            try:
                act()
            except Exception as problem:
                if passing(problem):
                    self._tries += 1
                    if self._tries < TRIES or not runs.answers():
                        raise
                elif not fresh:
                    # The run may have been deleted meanwhile, or merged with another: look again.
                    runs.forget()
                    continue
                self._refuse(problem, what, count)
            else:
                self._backlog.told(what, count)
            self._tries = 0
            return

    def _refuse(self, problem: Exception, what: str, count: int) -> None:
        self.refused.extend([brief(problem)] * (count if what == "events" else 1))
        self._backlog.told(what, count)

    def _event(self, runs: Runs, news: News) -> None:
        """One event, by its name."""
        match news["what"]:
            case "job":
                parent = runs.parent(self.digest, news["tags"], news["at"])
                runs.reopen(parent)
                runs.tag(parent, news["tags"])
                runs.params(parent, news["params"])
            case "step":
                self._names[news["key"]] = (news["name"], news["tags"])
                run = self._run(runs, news["key"], news["at"])
                runs.reopen(run)
                runs.params(run, news["params"])
            case "ended":
                run = self._run(runs, news["key"], news["at"])
                runs.metrics(run, news["metrics"], news["at"])
                runs.tag(run, news["tags"])
                runs.end(run, news["status"], news["at"])
            case "tagged":
                runs.tag(self._run(runs, news["key"], news["at"]), news["tags"])
            case "reused":
                self._reused(runs, news)
            case "cell":
                parent = self._parent(runs, news["at"])
                write_cell(runs, parent, news["name"], news["tags"], news["metrics"], news["at"])
            case "recorded":
                self._recorded(runs, news)
            case "file":
                runs.attach(self._parent(runs, news["at"]), Path(news["path"]), news["folder"])
            case "job_ended":
                runs.settle()
                runs.end(self._parent(runs, news["at"]), news["status"], news["at"])

    def _recorded(self, runs: Runs, news: News) -> None:
        """What a record says, read here and not by the driver: a bucket takes 25 ms for each."""
        assert self.store is not None
        record = read_record(self.store, news["key"])
        if record is None:
            raise StoreError(f"there is no record of {news['key']}", "it was removed meanwhile")
        at = milliseconds(record.finished) or news["at"]
        match news["as"]:
            case "ended":
                tags = outcome_words(record, self.store.location)
                ended = {"metrics": final(record), "tags": tags, "status": "FINISHED"}
                self._event(runs, {**news, **ended, "what": "ended", "at": at})
            case "reused":
                self._event(runs, {**news, "what": "reused", "metrics": final(record), "at": at})
            case "cells":
                for cell in news["cells"]:
                    write_record_cell(runs, self._parent(runs, at), cell, record, news["tags"])

    def _reused(self, runs: Runs, news: News) -> None:
        run = runs.reused(news["key"], news["name"], self._parent(runs, news["at"]), news["tags"], news["at"])
        runs.metrics(run, news["metrics"], news["at"])
        runs.end(run, "FINISHED", news["at"])

    def _parent(self, runs: Runs, at: int) -> Run:
        return runs.parent(self.digest, {"digest": self.digest} if self.digest else {}, at)

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


def write_record_cell(
    runs: Runs, parent: Run, cell: Mapping[str, Any], record: StepRecord, tags: Mapping[str, str]
) -> Run:
    """The run of a cell that `record` fills; `tags`: where the record is."""
    name, words = cell_words(cell)
    at = milliseconds(record.finished)
    return write_cell(runs, parent, name, {**words, **tags}, metrics_of(record.scores), at)


def now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def brief(problem: Exception) -> str:
    """The first line of what went wrong, without secrets, short enough for a sentence."""
    text = hidden(str(problem)).strip() or type(problem).__name__
    return text.splitlines()[0][:200]
