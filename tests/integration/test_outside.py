"""A package that is not ours brings a task, and a new kind of task, through the one entry-point group."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from small_job import COMMAND, REPO, SMALL, records

PLUGIN = '''
"""Sentences by length: a new kind of task, and a task of a kind that is there already."""

from xstilts.tasks import kinds, registry
from xstilts.tasks.kinds import Kind
from xstilts.tasks.task import Family, Split, Task

kinds.register(Kind(name="first_word", needed=("text", "label"), labelled=True, module="theirs.first_word"))
WORLD = Split(path="world", config="nli.{code}", split="train")
HELD = WORLD.model_copy(update={"split": "validation"})
WORDS = {
    "roles": ("intermediate", "target"),
    "metric": "accuracy",
    "languages": ("w0", "w1"),
    "labels": ("entailment", "neutral", "contradiction"),
    "train": WORLD,
    "selection": WORLD.model_copy(update={"split": "selection"}),
    "dev": HELD,
    "test": HELD.model_copy(update={"split": "test"}),
    "source": "made up",
    "licence": "CC0-1.0",
}
registry.register(
    Task(name="their_nli", family=Family.CLASSIFICATION,
         columns={"text": "premise", "pair": "hypothesis", "label": "label"}, **WORDS)
)
registry.register(
    Task(name="their_kind", family="first_word", columns={"text": "hypothesis", "label": "label"}, **WORDS)
)
'''
FAMILY = '''
"""Classification of a sentence by its first word alone."""

from xstilts.families.classification import Classification


class FirstWord(Classification):
    def examples(self, task, rows):
        return super().examples(task, [{**row, "hypothesis": row["hypothesis"].split()[0]} for row in rows])


CODE = FirstWord()
'''


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a Python that has the package installed, with its entry point."""
    site = tmp_path / "site"
    (site / "theirs").mkdir(parents=True)
    (site / "theirs" / "__init__.py").write_text(PLUGIN)
    (site / "theirs" / "first_word.py").write_text(FAMILY)
    about = site / "theirs-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[xstilts.tasks]\ntheirs = theirs\n")
    return {**os.environ, "PYTHONPATH": f"{REPO / 'platform'}{os.pathsep}{site}", "COLUMNS": "200"}


def run(environment: dict[str, str], *words: str | Path) -> str:
    """The command's output; it must succeed."""
    made = subprocess.run(
        [*COMMAND, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=400,
        env=environment,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return made.stdout


@pytest.mark.slow
def test_a_task_and_a_kind_from_another_package_run_end_to_end(
    installed: dict[str, str], tmp_path: Path
) -> None:
    listed = {task["name"]: task for task in json.loads(run(installed, "tasks", "--json"))}
    assert listed["their_nli"]["family"] == "classification"
    assert listed["their_kind"]["family"] == "first_word"
    job = SMALL.replace("[none, world_nli]", "[none, their_nli]").replace(
        "[world_paraphrase, world_tagging, world_retrieval]", "[their_kind]"
    )
    job = job.replace("languages: [w0, w1, w5]", "languages: [w0, w1]").replace("seeds: [1, 2]", "seeds: [1]")
    path = tmp_path / "job.yaml"
    path.write_text(job)
    run(installed, "run", path, "--store", tmp_path / "store", "--no-mlflow")
    scores = [score for record in records(tmp_path / "store").values() for score in record["scores"]]
    assert {(score["task"], score["language"]) for score in scores} == {
        ("their_kind", "w0"),
        ("their_kind", "w1"),
    }
