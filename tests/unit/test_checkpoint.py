"""Checkpoints: written whole or not believed, found over all attempts."""

from __future__ import annotations

import threading
import time
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


class Slow:
    """A store whose uploads wait until they are let through, and may then refuse."""

    def __init__(self, where: Checkpoints, refusing: bool = False) -> None:
        self.gate, self.refusing = threading.Event(), refusing
        self.upload = where.store.upload
        where.store.upload = self  # type: ignore[method-assign, assignment]

    def __call__(self, source: Path, name: str) -> None:
        assert self.gate.wait(20)
        if self.refusing:
            raise StoreError("the store is full", "make room")
        self.upload(source, name)


def save_soon(where: Checkpoints, step: int) -> None:
    """As `save`, in the background."""
    where.save_soon(step, {"model": {"w": torch.full((3,), float(step))}}, {"step": step})


def test_one_in_the_background_is_whole_or_not_there(tmp_path: Path) -> None:
    where = checkpoints(tmp_path)
    slow = Slow(where)
    save_soon(where, 5)
    where.check()
    assert checkpoints(tmp_path, "a2").latest(lambda _: None) is None
    slow.gate.set()
    assert where.wait() is None
    found = checkpoints(tmp_path, "a2").latest(pytest.fail)
    assert found is not None and found.step == 5 and float(found.tensors["model"]["w"][0]) == 5


def test_the_next_one_waits_for_the_one_before(tmp_path: Path) -> None:
    where = checkpoints(tmp_path)
    slow = Slow(where)
    save_soon(where, 5)
    threading.Timer(0.3, slow.gate.set).start()
    begin = time.monotonic()
    save_soon(where, 7)
    assert time.monotonic() - begin > 0.2
    save(where, 9)  # and so does one that is written at once
    folders = sorted(path.parent.name for path in (tmp_path / "store").rglob("state.json"))
    assert folders == ["00000007", "00000009"]


def test_an_error_in_the_background_rises_once_where_training_looks(tmp_path: Path) -> None:
    where = checkpoints(tmp_path)
    slow = Slow(where, refusing=True)
    slow.gate.set()
    save_soon(where, 5)
    deadline = time.monotonic() + 20
    with pytest.raises(StoreError, match="make room"):
        while time.monotonic() < deadline:
            where.check()
            time.sleep(0.01)
    where.check()
    save_soon(where, 6)
    assert isinstance(where.wait(), StoreError) and where.wait() is None
