"""Every task whose files are in the mirror reads, turns into examples of its family, and is disjoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from xstilts.families import code_of
from xstilts.families.reading import read
from xstilts.tasks import registry
from xstilts.tasks.manifest import Manifest
from xstilts.tasks.task import Family, Split, Task

REAL = [task for task in registry.all_tasks() if not task.name.startswith("world_")]
ALWAYS = {"squad_v1", "mnli", "csqa", "udpos", "panx", "xnli", "xquad", "tatoeba"}
"""What `jobs/first_look.yaml` needs: missing from the mirror, the test fails and does not skip."""


def splits_of(task: Task) -> list[tuple[Split, str]]:
    """Every split that any job could ask for, with its language."""
    found = []
    for reporting in ("dev", "test"):
        for fitting in registry.fittings(task, reporting):
            if fitting.task is task:
                found += [(fitting.train, fitting.language), (fitting.selection, fitting.language)]
        found += [(task.place(reporting, code), code) for code in task.reported(reporting)]
    return [(split, language) for split, language in found if split is not None]


@pytest.mark.parametrize("task", REAL, ids=lambda task: task.name)
def test_rows_become_examples(mirror: Path, task: Task) -> None:
    manifest, code = Manifest.load(mirror), code_of(task.family)
    there = [(split, language) for split, language in splits_of(task) if manifest.holds(split)]
    assert there or task.name not in ALWAYS
    items: dict[Split, list[str]] = {}
    for split, language in there:
        rows = manifest.rows(split, language)
        examples = code.examples(task, read(rows, mirror))
        if task.family not in (Family.BITEXT_MINING, Family.DUAL_ENCODER):
            assert all(example.gold is not None for example in examples), "labels outside the set raise"
        names = [example.item for example in examples]
        assert len(set(names)) == len(names)
        if task.parallel:
            shape = split.model_copy(update={"config": "", "split": split.split})
            assert items.setdefault(shape, names)[: len(names)] == names[: len(items[shape])]


def test_the_first_look_has_its_languages(mirror: Path) -> None:
    manifest = Manifest.load(mirror)
    for name in ("udpos", "panx", "xnli", "xquad", "tatoeba"):
        task = registry.task(name)
        there = [code for code in task.reported("dev") if manifest.holds(task.dev.at(task.code(code)))]
        assert len(there) >= 8, name


def test_nothing_reported_is_trained_or_selected_on(mirror: Path) -> None:
    """By paragraph for XQuAD, by pair for XNLI: one premise of MNLI selection is also in XNLI test."""
    manifest = Manifest.load(mirror)
    for name, columns in (("xquad", ["context"]), ("xnli", ["premise", "hypothesis"])):
        task = registry.task(name)
        (fitting,) = registry.fittings(task, "test")
        assert fitting.selection is not None and task.test is not None
        reported = read(manifest.rows(task.test.at("en"), "en"), mirror)
        texts = {_text(row, columns) for row in reported}
        for split in (fitting.train, fitting.selection):
            chosen = read(manifest.rows(split, "en"), mirror)
            assert not texts & {_text(row, columns) for row in chosen}


def _text(row: dict[str, Any], columns: list[str]) -> str:
    return " ".join(" ".join(row[column] for column in columns).split())


@pytest.mark.parametrize("name", ["udpos", "panx"])
def test_the_held_out_part_is_large_enough_to_select_on(mirror: Path, name: str) -> None:
    manifest, (fitting,) = Manifest.load(mirror), registry.fittings(registry.task(name), "dev")
    assert fitting.selection is not None
    train, select = (read(manifest.rows(split, "en"), mirror) for split in (fitting.train, fitting.selection))
    assert len(train) + len(select) == manifest.count(fitting.train)
    assert 800 <= len(select) <= 1200
    assert not {tuple(row["tokens"]) for row in train} & {tuple(row["tokens"]) for row in select}


def test_english_is_the_query_of_tatoeba(mirror: Path) -> None:
    task = registry.task("tatoeba")
    assert task.test is not None and task.family is Family.RETRIEVAL
    rows = read(Manifest.load(mirror).rows(task.test.at(task.code("de")), "de"), mirror)
    first = code_of(task.family).examples(task, rows)[0]
    assert first.inputs["query"].startswith("Mary") and first.inputs["document"].startswith("Maria")
