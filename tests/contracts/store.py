"""What every ArtifactStore promises, as tests; a new store subclasses and gives a `store` fixture."""

from __future__ import annotations

import multiprocessing
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from xstilts.errors import StoreError
from xstilts.record.artifacts import ArtifactStore, StepPaths


def create_one(store: ArtifactStore, name: str, who: int) -> bool:
    """At module level so that another process can run it."""
    return store.create(name, bytes([who]) * 4096)


class StoreContract:
    """Subclass, and define a fixture `store` that gives an empty store."""

    def test_reads_back_what_was_created(self, store: ArtifactStore) -> None:
        assert store.read("a/b") is None
        assert not store.exists("a/b")
        assert store.create("a/b", b"1")
        assert store.read("a/b") == b"1"
        assert store.exists("a/b")

    def test_create_never_replaces(self, store: ArtifactStore) -> None:
        assert store.create("k", b"first")
        assert not store.create("k", b"second")
        assert store.read("k") == b"first"

    def test_put_replaces_whole(self, store: ArtifactStore) -> None:
        store.put("k", b"a long first value")
        store.put("k", b"short")
        assert store.read("k") == b"short"
        assert not store.create("k", b"third")

    @pytest.mark.parametrize("data", [b"", b"\0\xff" * 3, b"x" * 300_000], ids=["empty", "bytes", "300 kB"])
    def test_bytes_come_back_unchanged(self, store: ArtifactStore, data: bytes) -> None:
        assert store.create("made", data)
        store.put("put", data)
        assert store.read("made") == data
        assert store.read("put") == data

    def test_only_one_of_many_threads_wins(self, store: ArtifactStore) -> None:
        with ThreadPoolExecutor(16) as pool:
            wins = list(pool.map(lambda who: create_one(store, "k", who), range(64)))
        assert sum(wins) == 1
        assert store.read("k") == bytes([wins.index(True)]) * 4096

    def test_only_one_of_many_processes_wins(self, store: ArtifactStore) -> None:
        with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
            for name in ("r0", "r1", "r2"):
                futures = [pool.submit(create_one, store, name, who) for who in range(8)]
                wins = [future.result() for future in futures]
                assert sum(wins) == 1
                assert store.read(name) == bytes([wins.index(True)]) * 4096

    def test_a_reader_never_sees_half_a_value(self, store: ArtifactStore) -> None:
        values = {bytes([who]) * 50_000 for who in range(4)}
        store.put("k", bytes(1) * 50_000)
        over = threading.Event()

        def write() -> None:
            for turn in range(40):
                store.put("k", bytes([turn % 4]) * 50_000)
            over.set()

        writer = threading.Thread(target=write)
        writer.start()
        seen = 0
        while not over.is_set() or not seen:
            assert store.read("k") in values
            seen += 1
        writer.join()

    def test_list_is_sorted_and_by_prefix(self, store: ArtifactStore) -> None:
        names = ["steps/a/record.json", "steps/a/runs/1/x", "steps/a-b/x", "steps/ab", "jobs/j", "z"]
        for name in names:
            store.put(name, b"")
        assert list(store.list("")) == sorted(names)
        assert list(store.list("steps/a")) == sorted(name for name in names if name.startswith("steps/a"))
        assert list(store.list("steps/a/")) == ["steps/a/record.json", "steps/a/runs/1/x"]
        assert list(store.list("steps/a/r")) == ["steps/a/record.json", "steps/a/runs/1/x"]
        assert list(store.list("nothing/")) == []
        assert list(store.list("z/")) == []

    def test_list_bears_names_that_come_and_go(self, store: ArtifactStore) -> None:
        for number in range(30):
            store.put(f"steps/{number:02}/x", b"")
        listing = store.list("steps/")
        assert next(listing) == "steps/00/x"
        for number in range(10, 30):
            store.delete(f"steps/{number:02}/x")
        store.put("steps/zz/y", b"")
        rest = list(listing)
        assert rest[:9] == [f"steps/{number:02}/x" for number in range(1, 10)]
        assert rest == sorted(rest)

    def test_delete_is_quiet_and_makes_room(self, store: ArtifactStore) -> None:
        store.delete("k")
        assert store.create("k", b"1")
        store.delete("k")
        store.delete("k")
        assert not store.exists("k")
        assert store.create("k", b"2")

    def test_upload_and_local(self, store: ArtifactStore, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(b"weights")
        store.upload(source, "steps/s/runs/1/model")
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        assert store.local("steps/s/runs/1/model", scratch).read_bytes() == b"weights"
        source.write_bytes(b"other")
        assert store.read("steps/s/runs/1/model") == b"weights"
        store.upload(source, "steps/s/runs/1/model")
        assert store.read("steps/s/runs/1/model") == b"other"

    def test_local_of_nothing_says_so(self, store: ArtifactStore, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="no steps/s/x"):
            store.local("steps/s/x", tmp_path)

    def test_upload_of_nothing_says_so_and_writes_nothing(self, store: ArtifactStore, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="gone"):
            store.upload(tmp_path / "gone", "k")
        assert list(store.list("")) == []

    @pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x", "a//b", "a/", ".", "a/./b", "a\0b"])
    def test_refuses_names_that_are_none(self, store: ArtifactStore, name: str) -> None:
        with pytest.raises(StoreError, match="no name in a store"):
            store.create(name, b"")
        with pytest.raises(StoreError, match="no name in a store"):
            store.read(name)

    def test_takes_the_names_that_steps_have(self, store: ArtifactStore) -> None:
        paths = StepPaths("mnli-then-xnli-s1--0123456789abcdef")
        for name in (paths.record, paths.attempt("a1"), paths.run("a1", "items/zh-Hant.parquet"), "jobs/é ü"):
            assert store.create(name, b"1")
        assert paths.record in list(store.list(paths.root))

    def test_travels_to_another_process(self, store: ArtifactStore) -> None:
        store.put("k", b"1")
        copy = pickle.loads(pickle.dumps(store))
        assert copy.read("k") == b"1"
        assert copy.location == store.location
