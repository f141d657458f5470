"""`xstilts store` says and does the same on every store, as tests; subclass and give a `store` fixture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from made_up_store import MadeUpStore
from xstilts.cli.store import commands
from xstilts.record.artifacts import ArtifactStore, StepPaths
from xstilts.record.lease import Lease
from xstilts.record.local import LocalStore


def told(store: ArtifactStore, *words: str) -> tuple[int, Any]:
    """Exit code and what `--json` says, without what differs: where it is, and when it was."""
    result = CliRunner().invoke(commands, [*words, "--store", store.location, "--json"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    said = json.loads(result.stdout)
    if isinstance(said, dict):
        said.pop("store", None)
        said["repaired"] = sorted(said.get("repaired", ()))
    return result.exit_code, said


def fill(store: ArtifactStore) -> None:
    """Steps in every state, a plan, and files of other sorts."""
    made = MadeUpStore(store)
    for number in range(3):
        made.train(f"train-{number}-s1--1", losing=number == 0)
    made.predict("predict-0--1", "train-0-s1--1")
    made.train("train-3-s1--1", recorded=False)
    made.train("train-4-s1--1")
    store.put(StepPaths("train-5-s1--1").attempt("x"), b"{}")
    made.plan("j", ("predict-0--1", ["train-0-s1--1"]), ("predict-1--1", ["train-1-s1--1"]))
    store.put("mirror/manifest.json", b"{}")


def shape(store: ArtifactStore) -> list[str]:
    """Its names, without when something was set aside."""
    return [name.partition("/damaged-")[0] for name in store.list("")]


class HousekeepingContract:
    """Subclass, and define a fixture `store` that gives an empty store."""

    @pytest.fixture
    def twin(self, tmp_path: Path) -> LocalStore:
        """A folder that is given the same."""
        return LocalStore(tmp_path / "twin")

    def test_says_and_does_what_it_does_with_a_folder(self, store: ArtifactStore, twin: LocalStore) -> None:
        for each in (store, twin):
            fill(each)
        for words in (
            ["ls"],
            ["du"],
            ["verify"],
            ["gc"],
            ["gc", "--yes"],
            ["gc", "--unused"],
            ["gc", "--unused", "--yes"],
            ["verify"],
            ["ls", "--state", "dropped"],
            ["gc", "--unused"],
        ):
            code, said = told(store, *words)
            assert (code, said) == told(twin, *words), words
            assert shape(store) == shape(twin), words
        assert said["files"] == 0
        assert said["needed"] == {"train-1-s1--1": "predict-1--1 of job j needs it"}
        gone = [each["key"] for each in told(store, "ls", "--state", "dropped")[1]]
        assert gone == ["train-0-s1--1", "train-2-s1--1", "train-4-s1--1"]

    def test_finds_and_repairs_the_same_damage(self, store: ArtifactStore, twin: LocalStore) -> None:
        for each in (store, twin):
            fill(each)
            root = "steps/train-{}-s1--1/runs/win/"
            each.put(root.format(0) + "model/model.safetensors", bytes(300))
            each.put(root.format(1) + "model/model.safetensors", b"short")
            each.delete(root.format(2) + "head.safetensors")
            each.put(StepPaths("predict-0--1").record, b"{")
            each.delete(root.format(4) + "head.safetensors")
            assert Lease.take(each, StepPaths("train-4-s1--1"), "a9", "driver")
        damage = []
        for words in (["verify"], ["verify", "--repair"], ["verify"]):
            code, said = told(store, *words)
            assert (code, said) == told(twin, *words), words
            assert shape(store) == shape(twin), words
            assert code == 1
            damage.append(len(said["damage"]))
        assert damage == [5, 5, 1], "somebody works on the one that is left"
