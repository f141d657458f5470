"""A value that many browsers ask for and one thread makes: at most every few seconds, and only when asked."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from xstilts.errors import XstiltsError
from xstilts.record.mlflow import hidden

Value = TypeVar("Value")

SHARE = 0.25
"""Of the time that making a value may take: one that takes 5 s (1,000 steps in a bucket) is made again after
20 s, however many pages ask."""


@dataclass(frozen=True, slots=True)
class Seen(Generic[Value]):
    """The newest value, and what went wrong since."""

    value: Value | None = None
    made: float = 0.0
    """Seconds since 1970; 0 for never."""
    problem: str = ""
    """Why there is no newer one, without secrets; "" when there is nothing to say."""


class Kept(Generic[Value]):
    """Asks `make` anew when somebody looks and the value is older than `seconds`; never twice at once.

    Whoever looks gets what is there, at once: a store that does not answer holds up one thread and no page.
    """

    def __init__(self, make: Callable[[], Value], seconds: float, share: float = SHARE) -> None:
        self._make, self._seconds, self._share = make, seconds, share
        self._seen: Seen[Value] = Seen()
        self._due = 0.0
        self._busy = False
        self._lock = threading.Lock()
        self._done = threading.Event()

    def look(self, wait: float = 0.0) -> Seen[Value]:
        """What is there. The first to look waits up to `wait` seconds for something to be."""
        with self._lock:
            if not self._busy and time.monotonic() >= self._due:
                self._busy = True
                threading.Thread(target=self._refresh, name="dashboard-look", daemon=True).start()
        if wait:
            self._done.wait(wait)
        with self._lock:
            return self._seen

    def _refresh(self) -> None:
        began = time.monotonic()
        try:
            seen = Seen(self._make(), time.time())
        except XstiltsError as problem:
            seen = replace(self._seen, problem=hidden(str(problem)))
        except Exception as problem:
            # The one place where everything is caught: what a file of the store says must not end the pages.
            traceback.print_exc()
            seen = replace(self._seen, problem=hidden(f"{type(problem).__name__}: {problem}"))
        with self._lock:
            now = time.monotonic()
            self._seen, self._busy = seen, False
            self._due = now + max(self._seconds, (now - began) / self._share)
        self._done.set()
