"""How far a job is, in numbers and rows for a page: a pure function of what the store says."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from xstilts.dashboards.links import Links
from xstilts.dashboards.watched import State
from xstilts.record import mlflow
from xstilts.record.schema import StepRecord

STATES = ("recorded", "running", "failed", "blocked", "to_run", "awaits")
"""In the order in which they are drawn."""

WORDS = {"recorded": "done", "to_run": "waiting", "awaits": "awaits a search"}
"""What a state is called on the page, where it is called otherwise."""

MOST_TEXT = 4000
"""Characters of a failure that are shown."""


@dataclass(frozen=True, slots=True)
class Row:
    """One step."""

    label: str
    kind: str
    state: str
    done: float
    """0..1, of a running one."""
    seconds: float | None
    """What a recorded one took."""
    cause: str
    text: str
    """Of a failure: what went wrong, in full."""
    note: str
    by: str
    """Who works on it."""
    attempts: tuple[tuple[str, str, str], ...]
    """(when, cause, first line) of each that ended without a record."""
    link: str
    """Its run in MLflow; "" where none is known."""

    @property
    def last(self) -> str:
        """The last line of what went wrong, which says it in a traceback."""
        return self.text.splitlines()[-1] if self.text else ""


@dataclass(frozen=True, slots=True)
class Driver:
    """Who drives the job, or drove it."""

    name: str
    state: str
    alive: bool
    updated: float
    """When it was last heard of, in seconds since 1970."""
    slots: int
    hours: float
    """Accelerator-hours."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Everything that the page says."""

    job: str
    model: str
    question: str
    state: str
    """done | running | failed | stopped | waiting."""
    why: str
    """Of a driver that stopped."""
    counts: Mapping[str, int]
    kinds: Mapping[str, Mapping[str, int]]
    """Kind of step -> state -> how many."""
    retries: int
    """Attempts that ended without a record."""
    causes: Mapping[str, int]
    """Why they ended -> how many."""
    hours: float
    """Accelerator-hours of all drivers; a machine without accelerators counts as one a step."""
    money: float | None
    """`hours` at the price that the job file names."""
    seconds_left: float | None
    """None while nobody works on it, or no step of a kind that is left has been timed."""
    drivers: tuple[Driver, ...]
    """The newest first."""
    rows: tuple[Row, ...]
    """Every step, in the plan's order."""
    problems: tuple[str, ...]
    scored: int
    cells: int

    @property
    def steps(self) -> int:
        """How many there are."""
        return sum(self.counts.values())

    @property
    def waiting(self) -> int:
        """To run now or later, and not held up by a failure."""
        return self.counts["to_run"] + self.counts["awaits"]

    def of(self, *states: str) -> tuple[Row, ...]:
        """Steps in these states."""
        return tuple(row for row in self.rows if row.state in states)


def progress(state: State, links: Links) -> Progress:
    """The page's words. Texts come without secrets."""
    status = state.status
    rows = tuple(_row(step, state.records.get(step["label"]), links) for step in status["steps"])
    counts = Counter(row.state for row in rows)
    kinds: dict[str, Counter[str]] = {}
    for row in rows:
        kinds.setdefault(row.kind, Counter())[row.state] += 1
    drivers = tuple(_driver(words) for words in reversed(status["drivers"]))
    hours = sum(driver.hours for driver in drivers)
    experiment = state.plan["experiment"]
    price = _number(((experiment.get("execution") or {}).get("budget") or {}).get("price"))
    ended = [attempt for row in rows for attempt in row.attempts]
    causes = Counter(cause or "unknown" for _, cause, _ in ended)
    return Progress(
        job=str(status["job"]),
        model=str(state.plan["model"]),
        question=_hidden(str(experiment.get("question") or "")),
        state=_state(counts, len(rows), drivers),
        why=_hidden(str(status["drivers"][-1].get("why") or "")) if drivers else "",
        counts={word: counts[word] for word in STATES},
        kinds={kind: {word: found[word] for word in STATES} for kind, found in kinds.items()},
        retries=len(ended),
        causes=dict(causes.most_common()),
        hours=hours,
        money=hours * price if price else None,
        seconds_left=seconds_left(rows),
        drivers=drivers,
        rows=rows,
        problems=state.problems,
        scored=sum(cell["score"] in state.records for cell in state.plan["cells"]),
        cells=len(state.plan["cells"]),
    )


def seconds_left(rows: Sequence[Row]) -> float | None:
    """By the mean time of each kind so far, with as many steps at once as run now; as `xstilts run` says it.

    A few seconds' worth of a kind not seen yet (scores, at the start) is not worth hiding the rest.
    """
    running = [row for row in rows if row.state == "running"]
    left = [row for row in rows if row.state in ("running", "to_run", "awaits")]
    times: dict[str, list[float]] = {}
    for row in rows:
        if row.seconds is not None:
            times.setdefault(row.kind, []).append(row.seconds)
    known = {kind: sum(each) / len(each) for kind, each in times.items()}
    kinds = {row.kind for row in left}
    if not left:
        return 0.0
    if not running or not known or any(kind in kinds - known.keys() for kind in ("train", "search")):
        return None
    return sum(known.get(row.kind, 1.0) * (1 - row.done) for row in left) / len(running)


def _row(step: Mapping[str, Any], record: StepRecord | None, links: Links) -> Row:
    attempts = [each for each in step["attempts"] if isinstance(each, dict)]
    return Row(
        label=str(step["label"]),
        kind=str(step["kind"]),
        state=str(step["state"]),
        done=min(max(_number(step.get("done")) or 0.0, 0.0), 1.0),
        seconds=_number(record.cost.get("seconds")) if record is not None else None,
        cause=str(step.get("cause") or ""),
        text=_hidden(str(step.get("text") or "").strip()[-MOST_TEXT:]),
        note=_hidden(str(step.get("note") or "")),
        by=_hidden(str((step.get("lease") or {}).get("holder") or "")),
        attempts=tuple(
            (
                str(each.get("ended") or ""),
                str(each.get("cause") or ""),
                _hidden(str(each.get("text") or "").strip().partition("\n")[0][:MOST_TEXT]),
            )
            for each in attempts
        ),
        link=links.step(step["key"]) if step["key"] else "",
    )


def _driver(words: Mapping[str, Any]) -> Driver:
    spent = words.get("spent")
    seconds = _number(spent.get("accelerator_seconds")) if isinstance(spent, dict) else None
    return Driver(
        name=str(words["driver"]),
        state=str(words["state"]) if words["alive"] or words["state"] != "running" else "gone",
        alive=bool(words["alive"]),
        updated=_number(words["updated"]) or 0.0,
        slots=int(_number(words.get("slots")) or 0),
        hours=(seconds or 0.0) / 3600,
    )


def _state(counts: Mapping[str, int], steps: int, drivers: Sequence[Driver]) -> str:
    if counts["recorded"] == steps:
        return "done"
    if counts["running"] or any(driver.alive for driver in drivers):
        return "running"
    if counts["failed"]:
        return "failed"
    return "stopped" if drivers else "waiting"


def _hidden(text: str) -> str:
    """Without secrets; most steps have nothing to say, and looking for secrets takes 0.1 ms."""
    return mlflow.hidden(text) if text else ""


def _number(value: Any) -> float | None:
    """A file of the store may hold anything."""
    usable = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if usable and value == value and abs(value) < float("inf") else None


def duration(seconds: float | None) -> str:
    """In the largest unit that says it; a dash for none."""
    if seconds is None:
        return "\u2013"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def moment(seconds: float) -> str:
    """A time of day in UTC, with its date."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "\u2013"


def ago(moment: float) -> str:
    """How long a moment is past."""
    return f"{duration(max(time.time() - moment, 0.0))} ago"
