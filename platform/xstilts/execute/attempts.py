"""Why attempts at a step ended without a record: one small file each, for people and for `xstilts why`.

steps/<key>/attempts/<attempt>.json    {attempt, cause, error, text, ended}
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

from xstilts.errors import XstiltsError
from xstilts.execute.state import Cause
from xstilts.record.artifacts import ArtifactStore, StepPaths

TOLD_FROM_OUTSIDE = frozenset({Cause.LOST_WORKER, Cause.HUNG, Cause.HOST_MEMORY, Cause.PREEMPTED})
"""Causes that the process which ended could not write, or did not know."""

_CLASSES = {
    "Interrupted": Cause.INTERRUPTED,
    "KeyboardInterrupt": Cause.INTERRUPTED,
    "Elsewhere": Cause.ELSEWHERE,
    "WorkersLost": Cause.LOST_WORKER,
    "Preempted": Cause.PREEMPTED,
    "MemoryError": Cause.HOST_MEMORY,
    "OutOfMemoryError": Cause.DEVICE_MEMORY,
}
"""Exceptions by the name that attempts once had in their cause's place."""


def leave(store: ArtifactStore, key: str, attempt: str, cause: Cause, text: str, error: str = "") -> None:
    """Writes why an attempt ended; `error` is an exception's class, where there was one.

    Raises:
        StoreError: the store refuses.
    """
    ended = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    words = {"attempt": attempt, "cause": str(cause), "error": error, "text": text, "ended": ended}
    store.put(StepPaths(key).attempt(attempt), json.dumps(words, indent=1).encode())


def of_step(store: ArtifactStore, key: str) -> list[dict[str, Any]]:
    """The attempts of a step that ended without a record, oldest first."""
    found = []
    for name in store.list(StepPaths(key).attempts):
        with suppress(ValueError):
            found.append(_in_words(dict(json.loads(store.read(name) or b"{}"))))
    return found


def _in_words(ended: dict[str, Any]) -> dict[str, Any]:
    """How an attempt ended, as it is written now: workers once left an exception's class as the cause."""
    name = ended.get("cause")
    if not isinstance(name, str) or "error" in ended or name in set(Cause):
        return ended
    cause = Cause.FIXABLE if name in _names(XstiltsError) else _CLASSES.get(name, Cause.BUG)
    return {**ended, "cause": str(cause), "error": name}


def _names(kind: type[Exception]) -> set[str]:
    """Of an exception and of all that stand on it."""
    return {kind.__name__}.union(*map(_names, kind.__subclasses__()))
