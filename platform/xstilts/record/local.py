"""A folder as a store: whole files or none, and exactly one winner per record.

Everything is written under a temporary name in the same folder, flushed to the disk, and then given
its name by one system call: `link` where the first must win, `rename` where the last may. A process
killed at any moment leaves at most a temporary file, which no method lists, reads or counts.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from xstilts.errors import StoreError
from xstilts.record.artifacts import WRITING, Leftover, check_name, is_name

_CHOOSE = "make it writable or choose another with --store"
_FULL = "free some space there, then run again; finished steps are kept"


class LocalStore:
    """The ArtifactStore in a folder, also over NFS as long as it has hard links.

    Safe among threads, processes and hosts; can be pickled. The folder is made by the first write.
    """

    def __init__(self, root: Path | str) -> None:
        """Looks at nothing yet, so that a colleague's read-only results can be read; see `open`."""
        self._root = Path(root).expanduser().absolute()
        self.location = str(self._root)

    @classmethod
    def open(cls, location: Path | str) -> LocalStore:
        """The store at `location`, known to be writable; makes nothing there.

        Raises:
            StoreError: it is not a folder, or neither it nor the folder it would be made in is writable.
        """
        if "://" in str(location):
            remedy = "give the path of a folder with --store"
            raise StoreError(f"{location} is not a folder of this machine", remedy)
        store = cls(location)
        nearest = store._root
        while not os.path.lexists(nearest):
            nearest = nearest.parent
        if not nearest.is_dir():
            raise StoreError(f"{nearest} is not a folder", "move it away or choose another with --store")
        # access() also answers no for root on a file system that is mounted read-only.
        if not os.access(nearest, os.W_OK | os.X_OK):
            problem = f"the store {store.location} cannot be written, {nearest} is read-only"
            raise StoreError(problem, _CHOOSE)
        return store

    def create(self, name: str, data: bytes) -> bool:
        """Writes `name` if it is absent; True when this call made it. Of many at once exactly one wins."""
        target = self._path(name)
        try:
            if target.exists():
                return False
            with _temporary(target) as temporary:
                _write(temporary, data)
                won = _link(temporary, target)
            if won:
                _flush_folder(target.parent)
        except OSError as problem:
            raise self._error(problem, f"write {name}") from problem
        return won

    def put(self, name: str, data: bytes) -> None:
        """Writes `name` whole, replacing what was there."""
        target = self._path(name)
        try:
            with _temporary(target) as temporary:
                _write(temporary, data)
                os.replace(temporary, target)
        except OSError as problem:
            raise self._error(problem, f"write {name}") from problem

    def read(self, name: str) -> bytes | None:
        """The bytes, or None when there is no such name."""
        try:
            return self._path(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as problem:
            raise self._error(problem, f"read {name}") from problem

    def exists(self, name: str) -> bool:
        """Whether `name` is there."""
        try:
            return self._path(name).is_file()
        except OSError as problem:
            raise self._error(problem, f"look for {name}") from problem

    def list(self, prefix: str) -> Iterator[str]:
        """Names that start with `prefix`, sorted; what appears or goes meanwhile may or may not be there."""
        for name, _ in self._found(prefix):
            yield name

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """As `list`, each name with its bytes."""
        for name, entry in self._found(prefix):
            with contextlib.suppress(FileNotFoundError):  # a link to nowhere, or it has just gone
                yield name, entry.stat().st_size

    def checksum(self, name: str, noted: bool = False) -> str | None:
        """SHA-256 of what is there now, or None when there is no such name. A folder notes none: ""."""
        path = self._path(name)
        if noted:
            return "" if self.exists(name) else None
        try:
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as problem:
            raise self._error(problem, f"read {name}") from problem

    def upload(self, source: Path, name: str) -> None:
        """Copies a local file to `name`, whole or not at all."""
        target = self._path(name)
        if not source.is_file():
            raise StoreError(f"there is no file {source} to store as {name}", "run the step again")
        try:
            with _temporary(target) as temporary:
                shutil.copyfile(source, temporary)
                _flush(temporary)
                os.replace(temporary, target)
        except OSError as problem:
            raise self._error(problem, f"write {name}") from problem

    def local(self, name: str, scratch: Path) -> Path:
        """The file itself; `scratch` is not needed.

        Raises:
            StoreError: there is no such name.
        """
        path = self._path(name)
        if not self.exists(name):
            remedy = "it was removed or never written; remove the record of its step and run again"
            raise StoreError(f"there is no {name} in {self.location}", remedy)
        return path

    def delete(self, name: str) -> None:
        """Removes `name`; no error when it is absent."""
        try:
            self._path(name).unlink()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as problem:
            raise self._error(problem, f"remove {name}") from problem

    def leftovers(self, seconds: float) -> Iterator[Leftover]:
        """Temporary files that nobody has written to for `seconds`."""
        newest = time.time() - seconds
        try:
            for name, entry in _files(self._root, "", "", temporary=True):
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    if entry.name.startswith(WRITING) and found.st_mtime < newest:
                        yield Leftover(name, found.st_size, name)
        except OSError as problem:
            raise self._error(problem, "look for temporary files") from problem

    def discard(self, leftover: Leftover) -> None:
        """Removes it; no error when it is gone."""
        folder, _, file = leftover.token.rpartition("/")
        place = (self._path(folder) if folder else self._root) / file
        try:
            if file.startswith(WRITING):
                place.unlink(missing_ok=True)
        except OSError as problem:
            raise self._error(problem, f"remove {leftover.name}") from problem

    def _found(self, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        folder, _, start = prefix.rpartition("/")
        top = self._path(folder) if folder else self._root
        try:
            yield from _files(top, f"{folder}/" if folder else "", start)
        except OSError as problem:
            raise self._error(problem, f"list {prefix}") from problem

    def _path(self, name: str) -> Path:
        """Where `name` lies; never outside the store."""
        return self._root / check_name(name)

    def _error(self, problem: OSError, doing: str) -> StoreError:
        """What the operating system said, as a sentence with a remedy."""
        what = f"cannot {doing} in {self.location}"
        match problem.errno:
            case errno.EACCES | errno.EPERM:
                return StoreError(f"{what}, permission denied", _CHOOSE)
            case errno.EROFS:
                return StoreError(f"{what}, it is read-only", _CHOOSE)
            case errno.ENOSPC | errno.EDQUOT:
                return StoreError(f"{what}, the disk is full", _FULL)
            case errno.ENOTDIR | errno.EEXIST | errno.EISDIR:
                blocked = problem.filename or self.location
                remedy = f"move {blocked} away or choose another with --store"
                return StoreError(f"{what}, a file and a folder want the same name", remedy)
            case errno.EMLINK | errno.ENOTSUP | errno.ENOSYS:
                remedy = "choose a folder on another file system with --store"
                return StoreError(f"{what}, its file system has no hard links", remedy)
            case _:
                remedy = "check that disk or choose another with --store"
                return StoreError(f"{what}, {problem.strerror or problem}", remedy)


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """A name nobody else has, in the folder of `target`; what is left under it afterwards is removed."""
    temporary = target.parent / f"{WRITING}{os.getpid()}-{secrets.token_hex(8)}"
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
    finally:
        # Must not hide the error that brought us here, such as a disk that is full or gone.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    """`data` into the new file `path`, on the disk when this returns."""
    # 0o666 leaves the mode to the umask, so that a group can share a store; tempfile would say 0o600.
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _link(temporary: Path, target: Path) -> bool:
    """Gives the file its name unless it is taken; True when it was free."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        # NFS repeats a call whose answer was lost and then finds its own link: the count tells.
        return temporary.stat().st_nlink > 1
    return True


def _flush(path: Path) -> None:
    """Puts what was written to a file, or to the entries of a folder, on the disk."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _flush_folder(folder: Path) -> None:
    """Makes a new name outlast a power cut, where the file system can; some refuse and are right without."""
    with contextlib.suppress(OSError):
        _flush(folder)


def _files(
    folder: Path, before: str, start: str, temporary: bool = False
) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Files under `folder` whose next part starts with `start`, in the order of whole names; with
    `temporary`, also those that are being written. What has no name that a store can give is left out.

    Folders sort with their slash ("a-b" before "a/c", as in S3), so that nothing need be collected.
    """
    try:
        with os.scandir(folder) as entries:
            found = sorted(
                (
                    (entry.name + ("/" if _is_folder(entry) else ""), entry)
                    for entry in entries
                    if entry.name.startswith(start)
                    and (is_name(entry.name) or (temporary and entry.name.startswith(WRITING)))
                ),
                key=lambda each: each[0],
            )
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, entry in found:
        if name.endswith("/"):
            yield from _files(folder / entry.name, before + name, "", temporary)
        else:
            yield before + name, entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Follows links, so that steps may lie on another disk; a link to nowhere is no folder."""
    try:
        return entry.is_dir()
    except OSError:
        return False
