"""Local copies of what a remote store holds: whole, in the places that their names have, fetched once.

A copy is fetched under another name, compared with what was written, and then renamed. Beside the copies a
card for each says of which object it is a copy, and which file: one that was changed or replaced since
is fetched again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from xstilts.errors import StoreError


class DamagedObject(StoreError):
    """An object whose bytes are not those that were written, fetched twice."""

    @classmethod
    def of(cls, name: str, location: str) -> DamagedObject:
        """`name` of the store at `location`."""
        remedy = "`xstilts store verify --repair` has the step that made it done again"
        return cls(f"{name} in {location} is not what was written", remedy)


@dataclass(frozen=True, slots=True)
class Source:
    """What a store said of an object that was just fetched."""

    etag: str
    """Changes whenever the object does."""
    bytes: int
    sha256: str
    """As it was written; "" for an object that another program put there."""


class Copies:
    """The copies of one store's objects under a scratch folder. Safe among threads and processes."""

    def __init__(self, location: str, scratch: Path) -> None:
        """Makes nothing yet; stores that share a scratch folder have a folder each."""
        self._location = location
        self._scratch = scratch
        folder = f"copies-{hashlib.sha256(location.encode()).hexdigest()[:12]}"
        self._files = scratch / folder
        self._cards = scratch / f"{folder}.cards"

    def get(
        self, name: str, current: Callable[[], str | None], fetch: Callable[[Path], Source | None]
    ) -> Path:
        """The copy of `name`; `current` gives its ETag, `fetch` writes it to a path; None says it is absent.

        Raises:
            StoreError: there is no such name, or the scratch folder refuses. DamagedObject: see there.
        """
        target = self._files / name
        card = self._cards / hashlib.sha256(name.encode()).hexdigest()
        try:
            known = _known(target, card)
            if known and current() == known:
                return target
            for _ in range(2):
                with _temporary(target) as temporary:
                    source = fetch(temporary)
                    if source is None:
                        raise self._absent(name)
                    if _is_whole(temporary, source):
                        os.replace(temporary, target)
                        _note(card, target, source.etag)
                        return target
        except OSError as problem:
            raise self._error(problem, name) from problem
        raise DamagedObject.of(name, self._location)

    def _absent(self, name: str) -> StoreError:
        remedy = "it was removed or never written; remove the record of its step and run again"
        return StoreError(f"there is no {name} in {self._location}", remedy)

    def _error(self, problem: OSError, name: str) -> StoreError:
        """What the operating system said of the scratch folder."""
        what = f"cannot fetch {name} to {self._scratch}"
        if problem.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free some space there or set TMPDIR, then run again; finished steps are kept"
            return StoreError(f"{what}, the disk is full", remedy)
        if problem.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            remedy = "one of the two was not written by xstilts; remove it from the store"
            return StoreError(f"{what}, a file and a folder want the same name", remedy)
        reason = problem.strerror or type(problem).__name__
        return StoreError(f"{what}, {reason}", "check that disk or set TMPDIR to another folder")


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """A name nobody else has, in the folder of `target`; what is left under it afterwards is removed."""
    # Not made from the name of `target`, which may be as long as a name can be.
    temporary = target.parent / f".writing-{os.getpid()}-{secrets.token_hex(8)}"
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _is_whole(path: Path, source: Source) -> bool:
    if path.stat().st_size != source.bytes:
        return False
    with path.open("rb") as file:
        return source.sha256 in ("", hashlib.file_digest(file, "sha256").hexdigest())


def _note(card: Path, target: Path, etag: str) -> None:
    """Writes down of which object `target` is a copy, with what tells this file from a later one."""
    with _temporary(card) as temporary:
        temporary.write_text(json.dumps([etag, *_identity(target)]), encoding="utf-8")
        os.replace(temporary, card)


def _known(target: Path, card: Path) -> str:
    """The ETag of the object that `target` is a copy of; "" when it is not there or was changed."""
    try:
        etag, *identity = json.loads(card.read_text(encoding="utf-8"))
        return str(etag) if identity == _identity(target) else ""
    except (OSError, ValueError, TypeError):
        return ""


def _identity(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_ino, found.st_size, found.st_mtime_ns]
