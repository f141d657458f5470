"""`xstilts evaluate`: any folder of predictions against labels, as the benchmarks score it, without a job."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from xstilts.evaluate.official import evaluator, scores
from xstilts.evaluate.official.evaluator import Outcome, TaskScore
from xstilts.tasks import suites

SHOWN = 20
"""Problems of one file, and warnings, that are printed; --json has all of them."""

BESIDE = {"exact_match": "EM", "f1": "F1", "precision": "P", "recall": "R", "token_accuracy": "token acc."}
"""Metrics of which a score is made, or that stand beside it, as the table heads them."""


def evaluate(
    predictions: Annotated[Path, typer.Option(help="Folder of <task>/test-<language> files.")],
    labels: Annotated[Path, typer.Option(help="Folder of the same shape with the right answers.")],
    suite: Annotated[str, typer.Option(help="xtreme or xtreme-r.")] = "xtreme",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Score a folder of predictions as XTREME and XTREME-R do. Exit 1: something is missing; 2: malformed."""
    outcome = evaluator.evaluate(suite, predictions, labels)
    if as_json:
        print(json.dumps(outcome.to_json(), indent=1, ensure_ascii=False))
    elif not outcome.problems:
        Console().print(table(outcome))
    errors = Console(stderr=True)
    for line in _few_a_file(outcome.problems):
        errors.print(f"[red]error[/red] {escape(line)}", highlight=False, soft_wrap=True)
    if not as_json:
        for line in _few(outcome.warnings, "warnings"):
            errors.print(f"[yellow]warning[/yellow] {escape(line)}", highlight=False, soft_wrap=True)
    raise typer.Exit(outcome.exit_code)


def table(outcome: Outcome) -> RenderableType:
    """Overall, groups and tasks, with the mean of every metric, and what is missing."""
    columns = _columns(outcome)
    drawn = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("task", "score", *(BESIDE[metric] for metric in columns), "languages"):
        drawn.add_column(name, justify="left" if name == "task" else "right", no_wrap=True)
    suite = suites.suite(outcome.suite)
    for group, members in suite.groups.items():
        drawn.add_row(Text(group, style="bold"), Text(_number(outcome.groups[group]), style="bold"))
        for name in members:
            task = outcome.tasks[name]
            means = [_number(_mean(task, metric)) for metric in columns]
            there = f"{len(task.languages)} of {len(suite.tasks[name])}"
            drawn.add_row(f"  {name}", _number(task.score), *means, there)
    overall = "incomplete" if outcome.overall is None else _number(outcome.overall)
    parts: list[RenderableType] = [Text(f"{outcome.suite}  overall {overall}", style="bold"), drawn]
    gaps = Counter(name for name, _ in outcome.missing)
    for name, count in gaps.items():
        absent = ", ".join(language for task, language in outcome.missing if task == name)
        every = count == len(suite.tasks[name])
        parts.append(Text(f"missing: {name}" if every else f"missing: {name} in {absent}"))
    return Group(*parts)


def _columns(outcome: Outcome) -> list[str]:
    """Metrics that stand beside a score."""
    met = {metric for task in outcome.tasks.values() for made in task.languages.values() for metric in made}
    return [metric for metric in BESIDE if metric in met]


def _mean(task: TaskScore, metric: str) -> float | None:
    """Over the languages of a task that is whole; None for one that is not, or has no such metric."""
    values = [made[metric] for made in task.languages.values() if metric in made]
    return scores.mean(values) if values and task.score is not None else None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _few_a_file(problems: Sequence[str]) -> list[str]:
    """The first problems of each file, and how many more it has."""
    by_file: dict[str, list[str]] = {}
    for problem in problems:
        by_file.setdefault(problem.partition(":")[0], []).append(problem)
    return [line for path, lines in by_file.items() for line in _few(lines, f"in {path}")]


def _few(lines: Sequence[str], what: str) -> list[str]:
    more = [f"… and {len(lines) - SHOWN} more {what}: --json has them all"] if len(lines) > SHOWN else []
    return [*lines[:SHOWN], *more]
