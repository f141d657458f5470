"""Checkpoints: written whole or not believed, found over all attempts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_kit import KEY, checkpoints

from xstilts.errors import StoreError
from xstilts.record.artifacts import StepPaths
from xstilts.train.checkpoint import Checkpoints

FILES = ("model.safetensors", "rng.safetensors", "state.json")


def save(where: Checkpoints, step: int) -> None:
    """A checkpoint whose tensors say which step it is."""
    tensors = {
        "model": {"w": torch.full((3,), float(step))},
        "rng": {"cpu": torch.arange(4, dtype=torch.uint8)},
    }
    where.save(step, tensors, {"step": step, "loss": 0.1})


def file(root: Path, attempt: str, step: int, name: str) -> Path:
    """Where one file of a checkpoint lies."""
    return root / "store" / f"{StepPaths(KEY).checkpoints(attempt)}{step:08d}" / name


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    assert checkpoints(tmp_path).latest(pytest.fail) is None
    save(checkpoints(tmp_path), 12)
    found = checkpoints(tmp_path, "a2").latest(pytest.fail)
    assert found is not None and (found.step, found.attempt) == (12, "a1")
    assert found.state == {"step": 12, "loss": 0.1}
    assert torch.equal(found.tensors["model"]["w"], torch.full((3,), 12.0))
    assert found.tensors["rng"]["cpu"].dtype == torch.uint8
    assert not list((tmp_path / "scratch-a1").iterdir())


def test_the_two_newest_of_an_attempt_are_kept_and_others_left_alone(tmp_path: Path) -> None:
    other = checkpoints(tmp_path, "older")
    save(other, 1)
    mine = checkpoints(tmp_path, "a1")
    for step in (2, 5, 9, 100_000_000):
        save(mine, step)
    folders = sorted(path.parent.name for path in (tmp_path / "store").rglob("state.json"))
    assert folders == ["00000001", "00000009", "100000000"]
    found = mine.latest(pytest.fail)
    assert found is not None and found.step == 100_000_000


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["missing", "truncated", "changed"])
def test_a_torn_one_falls_back_to_the_one_before_and_says_so(tmp_path: Path, name: str, damage: str) -> None:
    save(checkpoints(tmp_path, "a1"), 4)
    save(checkpoints(tmp_path, "a2"), 8)
    torn = file(tmp_path, "a2", 8, name)
    data = torn.read_bytes()
    torn.unlink()
    if damage == "truncated":
        torn.write_bytes(data[: len(data) // 2])
    elif damage == "changed":
        torn.write_bytes(b"#" + data[1:])
    said: list[str] = []
    found = checkpoints(tmp_path, "a3").latest(said.append)
    assert found is not None and (found.step, found.attempt) == (4, "a1")
    assert len(said) == 1 and "checkpoint 8 of attempt a2 is torn" in said[0]
    if name == "state.json" and damage == "missing":
        return
    torn.write_bytes(data)
    whole = checkpoints(tmp_path, "a3").latest(pytest.fail)
    assert whole is not None and whole.step == 8


def test_all_torn_is_none(tmp_path: Path) -> None:
    for step in (1, 2):
        save(checkpoints(tmp_path), step)
        file(tmp_path, "a1", step, "model.safetensors").write_bytes(b"")
    said: list[str] = []
    assert checkpoints(tmp_path).latest(said.append) is None and len(said) == 2


def test_saving_again_over_a_torn_one_makes_it_whole(tmp_path: Path) -> None:
    save(checkpoints(tmp_path), 3)
    file(tmp_path, "a1", 3, "model.safetensors").write_bytes(b"torn")
    save(checkpoints(tmp_path), 3)
    found = checkpoints(tmp_path).latest(pytest.fail)
    assert found is not None and found.step == 3


def test_a_kill_while_writing_leaves_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = checkpoints(tmp_path)
    save(where, 3)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where.store, "put", killed, raising=False)
    with pytest.raises(KeyboardInterrupt):
        save(where, 6)
    said: list[str] = []
    found = checkpoints(tmp_path).latest(said.append)
    assert found is not None and found.step == 3 and "no state.json" in said[0]


def test_a_scratch_folder_that_refuses_is_named(tmp_path: Path) -> None:
    where = checkpoints(tmp_path)
    (tmp_path / "scratch-a1").write_text("a file, not a folder")
    with pytest.raises(StoreError, match="scratch"):
        save(where, 1)
