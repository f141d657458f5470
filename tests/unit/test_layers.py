"""The contracts on imports hold, and would be broken by an import that they forbid."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


def lint(source: Path) -> subprocess.CompletedProcess[str]:
    """import-linter on a copy of the source, with the contracts of pyproject.toml."""
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(source)!r})\n"
         "from importlinter.cli import lint_imports\n"
         f"sys.exit(lint_imports({str(REPO / 'pyproject.toml')!r}, cache_dir=None))"],
        cwd=source.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of platform/ to break."""
    return Path(shutil.copytree(REPO / "platform", tmp_path / "platform"))


def test_imports_go_one_way(source: Path) -> None:
    done = lint(source)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("spec/load.py", "import xstilts.record.schema", "Imports go one way"),
        ("tasks/task.py", "import xstilts.spec.load", "Imports go one way"),
        ("stray.py", "", "Imports go one way"),
        ("tasks/task.py", "import numpy", "Describing and planning"),
        ("record/schema.py", "import pandas", "Describing and planning"),
        ("families/base.py", "import ray", "Training and evaluation"),
        ("report/frame.py", "import torch", "A report reads records"),
        ("execute/steps.py", "import ray", "Ray only where"),
        ("record/local.py", "import boto3", "S3 only in its store"),
        ("execute/steps.py", "import mlflow", "MLflow only in its view"),
    ],
)
def test_a_forbidden_import_is_refused(source: Path, module: str, line: str, contract: str) -> None:
    path = source / "xstilts" / module
    path.write_text((path.read_text() if path.exists() else '"""Stray."""\n') + f"\n{line}\n")
    done = lint(source)
    broken = [row for row in done.stdout.splitlines() if "BROKEN" in row or "exhaustive" in row]
    assert done.returncode != 0 and any(contract in row for row in broken), done.stdout + done.stderr


def test_the_package_and_the_constraints_agree() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    pinned = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in (REPO / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    names = {requirement.split("[")[0].split(">")[0].split("<")[0].strip().lower() for requirement in wanted}
    names -= {project["name"]}  # an extra of its own
    assert names <= pinned, f"not pinned: {sorted(names - pinned)}"
