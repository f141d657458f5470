"""Faults of a folder store: a killed writer, a full or read-only disk, names that collide."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import xstilts
from xstilts.errors import StoreError
from xstilts.record.local import LocalStore

WRITER = """
import os, sys, time
from xstilts.record import local
real = os.write
def slow(handle, data):
    real(handle, data[: len(data) // 2])
    print("half", flush=True)
    time.sleep(60)
os.write = slow
store = local.LocalStore(sys.argv[1])
getattr(store, sys.argv[2])("steps/s/record.json", b"x" * 100_000)
"""


def files(root: Path) -> list[str]:
    """Every file below `root`, temporary ones included."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte; needs root."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "xstilts-test", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a tmpfs here (needs root)")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("method", ["create", "put"])
def test_a_killed_writer_leaves_nothing_under_the_name(tmp_path: Path, method: str) -> None:
    store = LocalStore(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(Path(xstilts.__file__).parents[1])}
    command = [sys.executable, "-c", WRITER, str(tmp_path), method]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"half\n"
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert not store.exists("steps/s/record.json")
    assert list(store.list("")) == []
    assert len(files(tmp_path)) == 1, "the half file lies there, under a temporary name"
    assert store.create("steps/s/record.json", b"whole")
    assert list(store.list("")) == ["steps/s/record.json"]


def test_a_full_disk_is_one_sentence_and_harms_nothing(small_disk: Path) -> None:
    store = LocalStore.open(small_disk)
    assert store.create("kept", b"kept")
    big = small_disk.parent / "big"
    big.write_bytes(bytes(3_000_000))
    for write in (
        lambda: store.create("k", bytes(3_000_000)),
        lambda: store.put("kept", bytes(3_000_000)),
        lambda: store.upload(big, "k"),
    ):
        with pytest.raises(StoreError, match="disk is full: free some space"):
            write()
    assert files(small_disk) == ["kept"]
    assert store.read("kept") == b"kept"
    assert store.create("k", b"fits")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (errno.ENOSPC, "the disk is full: free some space there, then run again; finished steps are kept"),
        (errno.EDQUOT, "the disk is full: free some space"),
        (errno.EACCES, "permission denied: make it writable or choose another with --store"),
        (errno.EROFS, "it is read-only: make it writable or choose another with --store"),
        (errno.EIO, "Input/output error: check that disk"),
    ],
)
def test_every_refusal_has_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, sentence: str
) -> None:
    store = LocalStore(tmp_path)

    def refuse(handle: int, data: bytes) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", refuse)
        for write in (store.create, store.put):
            with pytest.raises(StoreError) as caught:
                write("a/b", b"1")
            assert sentence in str(caught.value)
    assert files(tmp_path) == []


def test_a_rename_that_fails_leaves_the_old_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path)
    store.put("k", b"old")

    def refuse(source: object, target: object) -> None:
        raise OSError(errno.EIO, "gone")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(StoreError, match="gone"):
            store.put("k", b"new")
    assert files(tmp_path) == ["k"]
    assert store.read("k") == b"old"


def test_a_link_whose_answer_was_lost_still_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, link = LocalStore(tmp_path), os.link

    def lost(source: Path, target: Path) -> None:
        link(source, target)
        raise FileExistsError(errno.EEXIST, "File exists")

    monkeypatch.setattr(os, "link", lost)
    assert store.create("k", b"1")
    assert files(tmp_path) == ["k"]


def test_no_hard_links_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(StoreError, match="no hard links: choose a folder on another file system"):
        LocalStore(tmp_path).create("k", b"1")


def test_opening_makes_nothing(tmp_path: Path) -> None:
    store = LocalStore.open(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
    assert list(store.list("")) == []
    assert store.read("x") is None
    store.delete("x")
    assert list(tmp_path.iterdir()) == []
    store.put("x", b"1")
    assert (tmp_path / "a" / "b" / "x").read_bytes() == b"1"


def test_opening_says_what_is_wrong_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="is not a folder"):
        LocalStore.open(tmp_path / "file" / "store")
    with pytest.raises(StoreError, match="is not a folder of this machine"):
        LocalStore.open("s3://bucket/prefix")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(StoreError, match="make it writable or choose another with --store"):
        LocalStore.open(tmp_path / "store")


def test_location_outlasts_a_change_of_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = LocalStore.open("results")
    assert store.location == str(tmp_path / "results")


def test_a_name_below_a_file_is_said(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a", b"1")
    assert store.read("a/b") is None
    assert not store.exists("a/b")
    with pytest.raises(StoreError, match="a file and a folder want the same name"):
        store.create("a/b", b"2")
    store.put("c/d", b"1")
    assert store.read("c") is None
    assert not store.exists("c")
    with pytest.raises(StoreError, match="c"):
        store.put("c", b"2")
    assert files(tmp_path) == ["a", "c/d"]


def test_list_goes_on_when_a_folder_goes(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    over = threading.Event()

    def churn() -> None:
        while not over.is_set():
            for name in ("steps/a/x", "steps/b/y"):
                store.put(name, b"")
                store.delete(name)
                os.rmdir((tmp_path / name).parent)

    store.put("steps/0/kept", b"")
    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(100):
            assert "steps/0/kept" in list(store.list("steps/"))
    finally:
        over.set()
        thread.join()


def test_files_of_a_group_stay_readable_to_it(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        LocalStore(tmp_path).create("k", b"1")
    finally:
        os.umask(before)
    assert (tmp_path / "k").stat().st_mode & 0o777 == 0o640


def test_a_record_costs_little(tmp_path: Path) -> None:
    """Measured 0.5 ms a record, flushes included; 100 ms each leaves room for a slow disk."""
    store, started = LocalStore(tmp_path), time.monotonic()
    for number in range(100):
        assert store.create(f"steps/{number}/record.json", b"{}")
    assert time.monotonic() - started < 10
