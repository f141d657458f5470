"""What the README says can be typed, opened and run: commands, options, files, the example job."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from xstilts.spec.load import parse
from xstilts.tasks import registry

REPO = Path(__file__).resolve().parents[2]
TEXT = (REPO / "README.md").read_text(encoding="utf-8")
MADE = (
    *("xstilts-store/", "datasets/", "files/", "models/", "submission/", "labels/", ".venv/"),
    *("record.json", "manifest.json"),
)
"""Paths that runs and mirrors have, not the repository."""


def commands() -> list[list[str]]:
    """Every `xstilts ...` in the README as words."""
    blocks = "\n".join(re.findall(r"```console\n(.*?)```", TEXT, re.S))
    typed = re.findall(r"xstilts ([a-z][^\n#`]*)", blocks)
    return [line.split() for line in [*typed, *re.findall(r"`xstilts ([a-z][^`\n]*)`", TEXT)]]


def paths() -> list[str]:
    """Every path of this repository that the README names."""
    quoted = re.findall(r"`([\w./-]+)`", TEXT)
    linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT)
    typed = re.findall(r"(?<![\w/])jobs/[\w.]+\.yaml", TEXT)
    named = [each for each in quoted if "/" in each or re.search(r"\.(md|txt|toml|cff|yaml|json)$", each)]
    return sorted({each for each in [*named, *linked, *typed] if not each.startswith(MADE)})


@pytest.mark.skipif(importlib.util.find_spec("xstilts.cli.main") is None, reason="no command line yet")
@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_exists_with_its_options(words: list[str]) -> None:
    import typer.main

    from xstilts.cli.main import app

    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands"):
        assert rest and rest[0] in command.commands, f"no command `xstilts {' '.join(words)}`"
        command = command.commands[rest.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in rest if word.startswith("-")} <= known


@pytest.mark.parametrize("path", paths())
def test_every_path_exists(path: str) -> None:
    assert (REPO / path).exists(), f"README.md names {path}"


@pytest.mark.parametrize("target", sorted(set(re.findall(r"(?:^    |`)make ([a-z]+)", TEXT, re.M))))
def test_every_make_target_exists(target: str) -> None:
    done = subprocess.run(["make", "-n", target], cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", TEXT, re.S))
def test_the_example_job_is_one(block: str) -> None:
    job = parse(block, Path("README.md")).experiment
    for name in {name for row in job.intermediate for name in row.tasks}:
        assert "intermediate" in registry.task(name).roles
    known = {language for target in job.targets for language in registry.task(target).languages}
    assert set(job.languages) <= known
    assert all("target" in registry.task(target).roles for target in job.targets)


def test_every_study_is_shown_and_none_is_said_to_be_missing() -> None:
    from xstilts.report.studies import catalogue

    asked = {words[1] for words in commands() if words[0] == "study"}
    assert set(catalogue.STUDIES) <= asked
    assert not re.search(r"not yet[^.]*studies", TEXT, re.IGNORECASE)
