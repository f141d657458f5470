"""What every ArtifactStore promises, as tests; a new store subclasses and gives a `store` fixture."""

from __future__ import annotations

import hashlib
import multiprocessing
import pickle
import random
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from xstilts.errors import StoreError
from xstilts.record.artifacts import (
    ArtifactStore,
    StepPaths,
    job_file,
    orders_file,
    plan_file,
    report_file,
)


def create_one(store: ArtifactStore, name: str, who: int) -> bool:
    """At module level so that another process can run it."""
    return store.create(name, bytes([who]) * 4096)


ODD = (
    "é ü",
    "e\u0301",
    "日本/語",
    "🙂",
    "a+b",
    "100%",
    "%2F",
    "q?x=1&y",
    "#",
    "~",
    "a:b;c",
    "'\"<>",
    "back\\slash",
)
"""Names that a URL, an XML listing or a careless joining of paths would change."""


WRONG = (
    "", "/etc/x", "../x", "a/../../x", "a//b", "a/", ".", "a/./b", "a/..", "a\0b", "a\nb", "a\x7f",
    "\x1b[2J", "a/\ud800", ".writing-x", "a/.writing-x/b", "x" * 256, "x/" * 512 + "xx",
)  # fmt: skip
"""Names that lead elsewhere, or that no listing or folder could hold."""


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

    def test_only_one_of_eight_wins_in_each_of_many_races(self, store: ArtifactStore) -> None:
        start = threading.Barrier(8)

        def race(who: int, name: str) -> bool:
            start.wait()
            return create_one(store, name, who)

        with ThreadPoolExecutor(8) as pool:
            for name in (f"race/{number}" for number in range(20)):
                wins = list(pool.map(race, range(8), [name] * 8))
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

    def test_list_gives_all_of_more_names_than_one_answer_holds(self, store: ArtifactStore) -> None:
        names = [f"steps/{number:04}/x" for number in range(1100)]
        with ThreadPoolExecutor(16) as pool:
            list(pool.map(lambda name: store.put(name, b""), names))
        assert list(store.list("steps/")) == names
        assert list(store.list("steps/10")) == names[1000:]

    def test_sizes_are_of_the_names_that_are_listed(self, store: ArtifactStore, tmp_path: Path) -> None:
        big = tmp_path / "big"
        big.write_bytes(bytes(17_000_000))
        store.upload(big, "steps/a/runs/1/model")
        for name, size in (("steps/a/record.json", 3), ("steps/b/x", 0), ("z", 70_000)):
            store.put(name, bytes(size))
        wanted = [("steps/a/record.json", 3), ("steps/a/runs/1/model", 17_000_000), ("steps/b/x", 0)]
        assert list(store.sizes("steps/")) == wanted
        assert list(store.sizes("steps/a/r")) == wanted[:2]
        assert list(store.sizes("")) == [*wanted, ("z", 70_000)]
        assert [name for name, _ in store.sizes("")] == list(store.list(""))
        assert list(store.sizes("nothing")) == []

    @pytest.mark.parametrize("size", [0, 5, 18_000_000])
    def test_checksum_is_of_what_is_there(self, store: ArtifactStore, tmp_path: Path, size: int) -> None:
        source = tmp_path / "source"
        source.write_bytes(random.Random(2).randbytes(size))
        store.upload(source, "a/k")
        sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
        assert store.checksum("a/k") == sha256
        assert store.checksum("a/k", noted=True) in ("", sha256)
        assert store.checksum("a/none") is None
        assert store.checksum("a/none", noted=True) is None

    def test_nothing_is_left_over_by_who_finished(self, store: ArtifactStore, tmp_path: Path) -> None:
        (tmp_path / "big").write_bytes(bytes(17_000_000))
        store.upload(tmp_path / "big", "a/b")
        store.create("c", b"1")
        assert list(store.leftovers(-10)) == []

    def test_names_come_back_as_they_are(self, store: ArtifactStore, tmp_path: Path) -> None:
        names = [f"jobs/{name}" for name in ODD]
        source = tmp_path / "source"
        for name in names:
            source.write_text(name)
            if name < "jobs/b":
                assert store.create(name, name.encode())
            else:
                store.upload(source, name)
        assert list(store.list("jobs/")) == sorted(names)
        for name in names:
            assert store.exists(name)
            assert store.read(name) == name.encode()
            assert store.local(name, tmp_path / "scratch").read_text() == name
            assert list(store.list(name)) == [name]
            store.delete(name)
            assert not store.exists(name)

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

    def test_a_large_file_comes_back_unchanged(self, store: ArtifactStore, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(random.Random(1).randbytes(20_000_000))
        store.upload(source, "steps/s/runs/1/model")
        checksum = hashlib.sha256(source.read_bytes()).digest()
        assert hashlib.sha256(store.read("steps/s/runs/1/model") or b"").digest() == checksum
        copy = store.local("steps/s/runs/1/model", tmp_path / "scratch")
        assert hashlib.sha256(copy.read_bytes()).digest() == checksum

    def test_an_upload_is_seen_whole_or_not_at_all(self, store: ArtifactStore, tmp_path: Path) -> None:
        size, source, over = 18_000_000, tmp_path / "source", threading.Event()
        source.write_bytes(b"\1" * size)

        def write() -> None:
            try:
                for value in (1, 2):
                    source.write_bytes(bytes([value]) * size)
                    store.upload(source, "k")
            finally:
                over.set()

        writer = threading.Thread(target=write)
        writer.start()
        seen = set()
        while not over.is_set():
            data = store.read("k")
            assert list(store.list("k")) == ["k"] or data is None
            seen.add(data and (len(data), *set(data)))
        writer.join()
        assert seen <= {None, (size, 1), (size, 2)}
        assert store.read("k") == b"\2" * size

    def test_local_keeps_files_of_a_folder_together(self, store: ArtifactStore, tmp_path: Path) -> None:
        for name in ("config.json", "model.safetensors"):
            store.put(f"steps/s/runs/1/model/{name}", name.encode())
        paths = [
            store.local(f"steps/s/runs/1/model/{name}", tmp_path)
            for name in ("config.json", "model.safetensors")
        ]
        assert paths[0].parent == paths[1].parent
        assert [path.name for path in paths] == ["config.json", "model.safetensors"]

    def test_local_is_what_the_store_holds_now(self, store: ArtifactStore, tmp_path: Path) -> None:
        for value in (b"one", b"two", b"two"):
            store.put("a/b", value)
            assert store.local("a/b", tmp_path).read_bytes() == value
        store.delete("a/b")
        with pytest.raises(StoreError, match="no a/b"):
            store.local("a/b", tmp_path)

    def test_local_of_nothing_says_so(self, store: ArtifactStore, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="no steps/s/x"):
            store.local("steps/s/x", tmp_path)

    def test_upload_of_nothing_says_so_and_writes_nothing(self, store: ArtifactStore, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="gone"):
            store.upload(tmp_path / "gone", "k")
        assert list(store.list("")) == []

    @pytest.mark.parametrize("name", WRONG)
    def test_refuses_names_that_are_none(self, store: ArtifactStore, tmp_path: Path, name: str) -> None:
        (tmp_path / "file").write_bytes(b"1")
        scratch = tmp_path / "scratch"
        acts: list[Callable[[], object]] = [
            lambda: store.create(name, b""),
            lambda: store.put(name, b""),
            lambda: store.read(name),
            lambda: store.exists(name),
            lambda: store.upload(tmp_path / "file", name),
            lambda: store.local(name, scratch),
            lambda: store.delete(name),
            lambda: store.checksum(name),
            lambda: list(store.list(f"{name}/x")),
            lambda: list(store.sizes(f"{name}/x")),
        ]
        for act in acts[:8] if name == "" else acts:
            with pytest.raises(StoreError, match="no name in a store"):
                act()
        assert not scratch.exists()
        assert list(store.list("")) == []

    @pytest.mark.parametrize("name", ["../x", "/etc", "a/../../../x", ".."])
    def test_a_key_or_job_that_points_elsewhere_is_refused(self, store: ArtifactStore, name: str) -> None:
        paths = StepPaths(name)
        for place in (paths.record, paths.lease, paths.attempt("a"), StepPaths("k").run(name, "x")):
            with pytest.raises(StoreError, match="no name in a store"):
                store.put(place, b"")
        for place in (job_file(name), plan_file(name, "0"), report_file(name, "x"), orders_file(name)):
            with pytest.raises(StoreError, match="no name in a store"):
                store.read(place)
        assert list(store.list("")) == []

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
