"""A data folder, or a prefix of a bucket, that is being filled: files first, each whole, then the manifest.

The manifest is read and written anew for every split that arrives, so that what has arrived counts whenever
the command ends. It lists a file only when all files of its split or model are there.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xstilts.errors import DataError, StoreError
from xstilts.execute.site import open_store
from xstilts.record.artifacts import ArtifactStore
from xstilts.tasks import manifest
from xstilts.tasks.manifest import Entry, Manifest, Place

STAGING = ".pulling-"
LOCK = ".pulling.lock"

Words = dict[str, Any]
"""One file of a manifest: path dataset config split rows bytes sha256 columns licence origin note."""


@dataclass
class Mirror:
    """What `open_mirror` gives. Safe among threads."""

    store: ArtifactStore
    root: Path | None
    """The folder; None for a bucket."""
    staging: Path
    """Where files are made before they get their names; on the same disk as `root`."""
    _writing: threading.Lock = field(default_factory=threading.Lock)

    def words(self) -> dict[str, Words]:
        """Path -> what the manifest says of it.

        Raises:
            DataError: the manifest is damaged.
        """
        data = self.store.read(manifest.FILE)
        return {} if data is None else _parsed(data, self.store.location)

    def whole(self, words: Words) -> bool:
        """Whether the file is there as the manifest says; of a bucket only that it is there."""
        if self.root is None:
            return self.store.exists(words["path"])
        entry = Entry(words["path"], words["sha256"], words["bytes"], words.get("rows"), None)
        return next(Manifest(self.root, [entry]).problems(), None) is None

    def put(self, staged: Path, name: str) -> None:
        """Gives a finished file its name.

        Raises:
            StoreError: the disk is full, or the bucket refuses.
        """
        if self.root is None:
            self.store.upload(staged, name)
            return
        target = self.root / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with staged.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(staged, target)
        except OSError as problem:
            raise _refused(target, problem) from problem

    def enter(self, files: list[Words]) -> None:
        """Lists `files` in the manifest, in place of what it said of them or of their split."""
        taken = {each["path"] for each in files}
        places = {_place(each) for each in files} - {None}
        with self._writing:
            before = self.words().values()
            kept = [each for each in before if each["path"] not in taken and _place(each) not in places]
            listed = sorted([*kept, *files], key=lambda each: str(each["path"]))
            text = json.dumps({"version": 1, "files": listed}, indent=0, ensure_ascii=False)
            self.store.put(manifest.FILE, text.encode())

    def originals(self) -> list[str]:
        """Names of the original files that were put here, whether the manifest lists them or not."""
        return list(self.store.list("files/"))

    def local(self, name: str) -> Path:
        """The file on this machine, to be summed."""
        return self.store.local(name, self.staging)

    def free(self) -> int:
        """Bytes that can be written where files are staged."""
        return shutil.disk_usage(self.staging).free


@contextlib.contextmanager
def open_mirror(location: str) -> Iterator[Mirror]:
    """The folder or bucket prefix at `location`, for one `data pull` at a time where it is a folder.

    Raises:
        StoreError: it cannot be written. DataError: another pull is writing there.
    """
    store = open_store(location)
    if "://" in store.location:
        with tempfile.TemporaryDirectory(prefix="xstilts-pull-") as scratch:
            yield Mirror(store, None, Path(scratch))
        return
    root = Path(store.location)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root), tempfile.TemporaryDirectory(prefix=STAGING, dir=root) as scratch:
            yield Mirror(store, root, Path(scratch))
    except PermissionError as problem:
        raise _refused(root, problem) from problem


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keeps other pulls out, and clears what a killed one left."""
    with (root / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as problem:
            raise DataError(
                f"another `xstilts data pull` is writing to {root}", "wait until it has ended, then run again"
            ) from problem
        except OSError:
            pass  # some network file systems have no locks; one pull at a time is then the user's to see to
        for left in root.glob(f"{STAGING}*"):
            shutil.rmtree(left, ignore_errors=True)
        yield


def new_words(path: str, place: Place, licence: str, origin: str, note: str) -> Words:
    """A line of the manifest before the file itself was looked at."""
    dataset, config, split = place
    about = {"path": path, "dataset": dataset, "config": config, "split": split}
    from_file: Words = {"rows": None, "bytes": 0, "sha256": "", "columns": []}
    return {**about, **from_file, "licence": licence, "origin": origin, "note": note}


def measured(words: Words, path: Path, sha256: str = "") -> Words:
    """The line with what the file at `path` itself says; its SHA-256 is reckoned where it is not known.

    Raises:
        DataError: rows that are no parquet.
    """
    found: Words = {"bytes": path.stat().st_size, "sha256": sha256 or manifest.sha256_of(path)}
    if words["dataset"]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            parquet = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as problem:
            remedy = f"look at where it comes from, {words['origin']}"
            raise DataError(f"{words['path']} is no parquet file", remedy) from problem
        found |= {"rows": parquet.metadata.num_rows, "columns": parquet.schema_arrow.names}
    return {**words, **found}


def read_words(folder: Path) -> dict[str, Words]:
    """Path -> line, of the manifest of a folder.

    Raises:
        DataError: it has none, or a damaged one.
    """
    Manifest.load(folder)
    return _parsed((folder / manifest.FILE).read_bytes(), str(folder))


def _parsed(data: bytes, where: str) -> dict[str, Words]:
    try:
        found = {str(file["path"]): dict(file) for file in json.loads(data)["files"]}
        if outside := [path for path in found if path.startswith("/") or ".." in path.split("/")]:
            raise ValueError(f"{outside[0]} lies outside it")
        return found
    except (ValueError, KeyError, TypeError) as problem:
        raise DataError(
            f"{where}/{manifest.FILE} is no manifest ({problem!r})",
            "remove it; files that are right are kept",
        ) from problem


def _place(words: Words) -> Place | None:
    return (words["dataset"], words["config"], words["split"]) if words.get("dataset") else None


def _refused(path: Path, problem: OSError) -> StoreError:
    reason = problem.strerror or type(problem).__name__
    return StoreError(
        f"{path} cannot be written ({reason})", "free some space or choose another --to, then run it again"
    )
