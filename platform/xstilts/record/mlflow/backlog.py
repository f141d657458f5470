"""News for MLflow that wait: in memory, then in files that nobody can see, and never without bound.

Whoever adds waits for nothing: not for MLflow, not for a disk. A thread of its own moves what does not fit
in memory to files, which have no name and are gone with the process, however it ends.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

News = dict[str, Any]
"""One thing to be told, as JSON has it; `what` says which. Curve points: `key` and `points`."""

MEMORY = 20_000
"""Weight kept in memory at most, 8 MB measured; beyond half of it, the oldest go to a file."""

SEGMENT_BYTES, SPILL_BYTES = 4_000_000, 64_000_000
"""Of one file, and of all: a million points: 24 hours of training at twelve points a second."""

PAUSE = 0.05
"""Seconds between two looks at whether memory is half full."""

READ_BYTES = 500_000
"""Of a file at once."""

EVENT = 25
"""Weight of what is not points: settings of a step are some 5 KB, a point 0.2 KB."""


def weight(news: Mapping[str, Any]) -> int:
    """How much of the bounds it takes: its points, or as much as 25 points."""
    return len(news["points"]) if news["what"] == "points" else EVENT


class Backlog:
    """First in, first out. `add` may be called from any thread, the rest from the one that writes."""

    def __init__(self, folder: Path | None = None) -> None:
        """Files are made in `folder`, by default that of temporary files, once there is need."""
        self._folder = folder
        self._lock = threading.Lock()
        self._memory: deque[News] = deque()
        self._weight = 0
        self._disk = threading.Lock()
        self._segments: deque[_Segment] = deque()
        self._full = threading.Event()
        self._closed = False
        self._spiller: threading.Thread | None = None
        self.waiting: Counter[str] = Counter()
        """Points and events that were added and not yet told."""
        self.dropped: Counter[str] = Counter()
        """Points and events that there was no room for."""

    def add(self, news: News) -> None:
        """Takes news for later, or counts them as dropped when memory and files are full."""
        size, (what, count) = weight(news), _counted(news)
        with self._lock:
            # Events are few, and each is worth more than a point: twice the room is theirs.
            if self._weight + size > MEMORY * (1 if what == "points" else 2):
                self.dropped[what] += count
                return
            self._memory.append(news)
            self._weight += size
            self.waiting[what] += count
            spill = self._weight > MEMORY // 2
        if spill and not self._full.is_set():
            self._full.set()
            self._begin()

    def take(self, most: int) -> list[News]:
        """The oldest news, of about the weight `most`; they count as waiting until `told`."""
        with self._disk:
            while self._segments:
                if taken := self._segments[0].read(most):
                    return taken
                self._segments.popleft().close()
            taken, size = [], 0
            with self._lock:
                while self._memory and size < most:
                    news = self._memory.popleft()
                    size += weight(news)
                    taken.append(news)
                self._weight -= size
            return taken

    def told(self, what: str, count: int) -> None:
        """So many points or events need not wait any more: MLflow has them, or refused them."""
        with self._lock:
            self.waiting[what] -= count

    def close(self) -> None:
        """Drops what waits, files and all."""
        self._closed = True
        self._full.set()
        # A disk that hangs holds this lock, and nobody waits for it.
        if self._disk.acquire(timeout=1.0):
            try:
                while self._segments:
                    self._segments.popleft().close()
            finally:
                self._disk.release()

    @property
    def spilled(self) -> int:
        """Bytes in files now."""
        return sum(segment.written for segment in self._segments)

    def _begin(self) -> None:
        if self._spiller is None and not self._closed:
            self._spiller = threading.Thread(target=self._spill, name="mlflow-spill", daemon=True)
            self._spiller.start()

    def _spill(self) -> None:
        """The thread: moves the older half of memory to files whenever memory is half full."""
        while True:
            self._full.wait()
            self._full.clear()
            if self._closed:
                return
            # A full disk: memory fills up too, and what finds no room there is counted.
            with self._disk, suppress(OSError):
                self._move()
            time.sleep(PAUSE)

    def _move(self) -> None:
        """Called with the disk's lock held, so that nothing newer is taken while this is on its way."""
        while self.spilled < SPILL_BYTES and not self._closed:
            with self._lock:
                if self._weight <= MEMORY // 4 or not self._memory:
                    return
                news = self._memory[0]
            if not self._segments or self._segments[-1].written >= SEGMENT_BYTES:
                self._segments.append(_Segment(self._folder))
            self._segments[-1].write(news)
            with self._lock:
                self._memory.popleft()
                self._weight -= weight(news)


class _Segment:
    """A file without a name, written at its end and read from its beginning."""

    def __init__(self, folder: Path | None) -> None:
        # Unbuffered: what a full disk did not take must not come back with the next line.
        self._file = tempfile.TemporaryFile(dir=folder, prefix="xstilts-", buffering=0)  # noqa: SIM115
        self._read = 0
        self.written = 0

    def write(self, news: News) -> None:
        """Adds a line. Raises OSError: no room; there is then half a line that the next one replaces."""
        line = json.dumps(news).encode() + b"\n"
        if os.pwrite(self._file.fileno(), line, self.written) < len(line):
            raise OSError(errno.ENOSPC, "no room for news of MLflow")
        self.written += len(line)

    def read(self, most: int) -> list[News]:
        """What comes next, of about the weight `most`; nothing at the end."""
        found: list[News] = []
        size, room = 0, READ_BYTES
        while size < most and self._read < self.written:
            block = os.pread(self._file.fileno(), min(room, self.written - self._read), self._read)
            room *= 2  # where not even one line fits, twice as much is read next
            for line in block.splitlines(keepends=True):
                if size >= most or not line.endswith(b"\n"):
                    break
                found.append(json.loads(line))
                self._read += len(line)
                size += weight(found[-1])
        return found

    def close(self) -> None:
        """Gives the space back."""
        self._file.close()


def points_of(news: News) -> Sequence[tuple[str, float, int, int]]:
    """Metric, value, step and milliseconds since 1970 of each point; JSON has no tuples."""
    return [(str(metric), float(value), int(step), int(at)) for metric, value, step, at in news["points"]]


def _counted(news: News) -> tuple[str, int]:
    return ("points", len(news["points"])) if news["what"] == "points" else ("events", 1)
