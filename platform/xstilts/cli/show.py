"""What people read: plans, progress, outcomes, tasks."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from xstilts.errors import UnknownName
from xstilts.execute.state import Survey
from xstilts.plan.graph import Planned
from xstilts.tasks import registry
from xstilts.tasks.task import Family, Task

if TYPE_CHECKING:
    from xstilts.execute.backends import Event
    from xstilts.execute.runner import Result

SHOWN_REASONS = 12
"""Kinds of reason that a plan lists; more would not be read."""


def plan(survey: Survey) -> RenderableType:
    """Counts by kind, why steps are new, what is shared."""
    words = survey.to_json()
    totals = words["totals"]
    head = f"{totals['steps']} steps: {totals['recorded']} recorded, {totals['to_run']} to run"
    if totals["awaits"]:
        head += f", {totals['awaits']} await a search"
    table = Table(box=None, pad_edge=False, show_header=True, header_style="dim")
    for column in ("kind", "steps", "recorded", "to run"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    kinds = Counter(step["kind"] for step in words["steps"])
    done = Counter(step["kind"] for step in words["steps"] if step["state"] == "recorded")
    for kind in ("pretrain", "translate", "search", "train", "probe", "predict", "score"):
        if kinds[kind]:
            table.add_row(kind, str(kinds[kind]), str(done[kind]), str(kinds[kind] - done[kind]))
    parts: list[RenderableType] = [Text(f"{survey.plan.job}  {head}", style="bold"), table]
    if totals["trainings_saved_by_sharing"]:
        parts.append(Text(f"shared: {totals['trainings_saved_by_sharing']} trainings less than cell by cell"))
    if not survey.to_run:
        parts.append(Text("nothing to do"))
    parts += lacking(survey)
    reasons = Counter(
        (step["kind"], reason)
        for step in words["steps"]
        if step["state"] != "recorded"
        for reason in step["why"]
    )
    parts += [
        Text(f"{count:>4} {kind:<8} {reason}") for (kind, reason), count in reasons.most_common(SHOWN_REASONS)
    ]
    if len(reasons) > SHOWN_REASONS:
        parts.append(
            Text(f"     … and {len(reasons) - SHOWN_REASONS} more kinds of reason: --json has them all")
        )
    return Group(*parts)


def lacking(survey: Survey) -> list[Text]:
    """One line a target that lacks languages, with the reason of the first."""
    found: dict[str, dict[str, str]] = {}
    for (target, language), why in survey.plan.missing.items():
        found.setdefault(target, {})[language] = why
    return [
        Text(f"left out of {target}: {' '.join(whys)} ({next(iter(whys.values()))})", style="yellow")
        for target, whys in found.items()
    ]


class Progress:
    """An observer of a run: steps done, running and left, time left, current loss."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._survey: Survey | None = None
        self._running: dict[str, tuple[float, dict[str, float], float]] = {}
        self._began = time.monotonic()
        self._seconds: dict[str, deque[float]] = {}
        self._printed = 0.0

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(self._draw(), console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def planned(self, survey: Survey) -> None:
        """The work ahead."""
        self._survey = survey
        if not survey.to_run:
            self._console.print("nothing to do", highlight=False)

    def event(self, event: Event, planned: Planned) -> None:
        """News of a step."""
        if event.what == "gauges":
            return
        if event.what == "started":
            self._running[event.label] = (0.0, {}, time.monotonic())
        elif event.what == "progress":
            _, metrics, since = self._running.get(event.label, (0.0, {}, time.monotonic()))
            self._running[event.label] = (event.done, {**metrics, **dict(event.metrics)}, since)
        elif event.what == "note":
            self._console.print(f"[dim]{escape(event.label)}: {escape(event.text)}[/dim]", highlight=False)
        else:
            *_, since = self._running.pop(event.label, (0.0, {}, time.monotonic()))
            if event.what == "done" and self._survey is not None:
                self._seconds.setdefault(planned.kind, deque(maxlen=50)).append(time.monotonic() - since)
                recorded = self._survey.recorded | {event.label}
                self._survey = Survey(self._survey.plan, recorded)
        self._tell()

    def _tell(self) -> None:
        if self._live is not None:
            self._live.update(self._draw())
        elif time.monotonic() - self._printed > 10:
            # A log file: a line every 10 s.
            self._printed = time.monotonic()
            self._console.print(self._line(), highlight=False, soft_wrap=True)

    def _draw(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        for label, (done, metrics, since) in self._running.items():
            bar = "━" * round(done * 20)
            shown = "  ".join(f"{name} {value:.4g}" for name, value in list(metrics.items())[:3])
            spent = f"{time.monotonic() - since:.0f} s"
            table.add_row(
                Text(label), Text(f"{bar:<20}", style="green"), f"{100 * done:3.0f} %", spent, Text(shown)
            )
        return Group(Text(self._line(), style="bold"), table)

    def _line(self) -> str:
        if self._survey is None:
            return "planning"
        total, left = len(self._survey.plan.steps), len(self._survey.to_run)
        spent = _minutes(time.monotonic() - self._began)
        line = f"{total - left} of {total} steps done, {len(self._running)} running, {left} left; {spent}"
        expected = self._left()
        line = line if expected is None else f"{line}, about {_minutes(expected)} left"
        losses = [metrics["loss"] for _, metrics, _ in self._running.values() if "loss" in metrics]
        return f"{line}; loss " + " ".join(f"{loss:.3f}" for loss in losses) if losses else line

    def _left(self) -> float | None:
        """Seconds, from the mean of each kind of step so far; None until every kind left has been seen."""
        assert self._survey is not None
        left = Counter(planned.kind for planned in self._survey.to_run)
        # A few seconds' worth of a kind not seen yet (scores, at the start) is not worth hiding the rest.
        known = {kind: sum(times) / len(times) for kind, times in self._seconds.items()}
        if not known or "train" in left and "train" not in known:
            return None
        work = sum(count * known.get(kind, 1.0) for kind, count in left.items())
        return work / max(len(self._running), 1)


def outcome(console: Console, errors: Console, result: Result) -> None:
    """What a run came to, and why steps failed."""
    if result.ran:
        kinds = Counter(result.survey.plan.steps[label].kind for label in result.ran)
        console.print("ran " + ", ".join(f"{count} {kind}" for kind, count in kinds.items()), highlight=False)
    for failure in result.failed:
        errors.print(
            f"[red]failed[/red] {escape(failure.label)}: {escape(failure.text)}",
            highlight=False,
            soft_wrap=True,
        )
    for line in lacking(result.survey):
        errors.print(line)
    if result.blocked:
        errors.print(f"{len(result.blocked)} steps stand on failed ones and were not run", highlight=False)
    if result.interrupted:
        by = f"stopped: {result.stopped_by}" if result.stopped_by else "interrupted"
        errors.print(f"{by}; checkpoints are written, run it again to go on", highlight=False)


def exit_code(result: Result) -> int:
    """0, 1 or 2; a run whose every failure a user can fix is 2."""
    from xstilts.execute.state import Cause

    if result.complete:
        return 0
    fixable = result.failed and all(failure.cause is Cause.FIXABLE for failure in result.failed)
    return 2 if fixable else 1


def choose_tasks(role: str | None, family: str | None, language: str | None) -> list[Task]:
    """Tasks by role, family and language; UnknownName for words that select nothing by mistake."""
    every = registry.all_tasks()
    if role is not None and role not in ("intermediate", "target"):
        raise UnknownName.among("role", role, ("intermediate", "target"), "xstilts tasks")
    if family is not None and family not in set(Family):
        raise UnknownName.among("family", family, [each.value for each in Family], "xstilts tasks")
    spoken = {code for task in every for code in task.languages}
    if language is not None and language not in spoken:
        raise UnknownName.among("language", language, spoken, "xstilts tasks")
    return [
        task
        for task in every
        if (role is None or role in task.roles)
        and (family is None or task.family == family)
        and (language is None or language in task.languages)
    ]


def task_words(task: Task) -> dict[str, Any]:
    """`xstilts tasks --json`."""
    return {
        "name": task.name,
        "role": list(task.roles),
        "family": str(task.family),
        "languages": list(task.languages),
        "metric": task.metric,
        "size": task.size,
        "source": task.source,
        "licence": task.licence,
    }


def tasks(found: Sequence[Task]) -> RenderableType:
    """The registry as a table."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("name", "role", "family", "metric", "languages", "size", "source", "licence"):
        table.add_column(column, overflow="fold")
    for task in found:
        spoken = " ".join(task.languages) if len(task.languages) <= 6 else f"{len(task.languages)} languages"
        role, family = " ".join(task.roles), str(task.family)
        table.add_row(task.name, role, family, task.metric, spoken, task.size, task.source, task.licence)
    return table


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"
