"""Scores a folder of predictions against a folder of labels, as the benchmarks' own evaluator does.

xstilts evaluate --suite xtreme --predictions DIR --labels DIR
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xstilts.errors import DataError
from xstilts.evaluate.official import checking, layout, scores
from xstilts.evaluate.official.checking import Files, Findings
from xstilts.tasks import registry, suites
from xstilts.tasks.suites import Suite


@dataclass(frozen=True, slots=True)
class TaskScore:
    """One task."""

    score: float | None
    """Percent; None while a language is missing."""
    languages: dict[str, scores.Scores]
    """Those that were scored."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a folder of predictions scores. All scores are in percent, None where they would be incomplete."""

    suite: str
    overall: float | None
    groups: dict[str, float | None]
    tasks: dict[str, TaskScore]
    """{} where there are problems."""
    missing: tuple[tuple[str, str], ...]
    """(task, language) that could not be scored for want of a file."""
    warnings: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Malformed things with file and line; with any there are no scores."""

    @property
    def exit_code(self) -> int:
        """0 complete, 1 something is missing, 2 something is malformed."""
        return 2 if self.problems else int(bool(self.missing))

    def to_json(self) -> dict[str, Any]:
        """What `xstilts evaluate --json` prints; `problems` only where there are some."""
        words: dict[str, Any] = {
            "suite": self.suite,
            "overall": self.overall,
            "groups": dict(self.groups),
            "tasks": {
                name: {
                    "score": task.score,
                    "languages": {at: dict(made) for at, made in task.languages.items()},
                }
                for name, task in self.tasks.items()
            },
            "missing": [{"task": task, "language": language} for task, language in self.missing],
            "warnings": list(self.warnings),
        }
        return {**words, "problems": list(self.problems)} if self.problems else words


def evaluate(suite: str, predictions: Path, labels: Path) -> Outcome:
    """Scores every task and language of `suite` that both folders have.

    Raises:
        UnknownName: no such suite.
        DataError: one of the folders does not exist.
    """
    asked = suites.suite(suite)
    for folder, what in ((predictions, "predictions"), (labels, "labels")):
        if not folder.is_dir():
            remedy = f"name the folder that holds <task>/test-<language> files: --{what} DIR"
            raise DataError(f"{folder}, for {what}, is no folder", remedy)
    found = Findings()
    missing: list[tuple[str, str]] = []
    made: dict[str, dict[str, scores.Scores]] = {}
    for name, languages in asked.tasks.items():
        task = registry.task(name)
        made[name] = {}
        for language in languages:
            files = Files(
                task,
                language,
                layout.place(predictions, name, language),
                layout.place(labels, name, language),
            )
            if not _there(files, found):
                missing.append((name, language))
                continue
            before = len(found.problems)
            units = checking.units(files, found)
            if len(found.problems) == before:
                made[name][language] = scores.of_language(task, language, units)
    return _outcome(asked, made, missing, found)


def _there(files: Files, found: Findings) -> bool:
    """Whether both files are there; predictions that nothing can be compared with are worth a warning."""
    there = files.predictions.is_file()
    if there and not files.labels.is_file():
        found.warnings.append(f"{files.predictions} is not scored: there is no {files.labels}")
        return False
    return there


def _outcome(
    suite: Suite,
    made: dict[str, dict[str, scores.Scores]],
    missing: list[tuple[str, str]],
    found: Findings,
) -> Outcome:
    incomplete = {name for name, _ in missing}
    tasks = {
        name: TaskScore(None if name in incomplete else scores.of_task(name, languages), languages)
        for name, languages in made.items()
        if not found.problems
    }
    groups, overall = scores.of_suite(
        suite, {name: tasks[name].score if name in tasks else None for name in suite.tasks}
    )
    return Outcome(suite.name, overall, groups, tasks, tuple(missing), found.warnings, found.problems)
