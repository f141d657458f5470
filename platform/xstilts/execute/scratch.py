"""Temporary files of this process: a folder of its own, removed with it, or by the next one if it was killed.

What was fetched from a remote store is kept there from step to step: an encoder that a hundred predictions
read is fetched once by each worker.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from xstilts.errors import StoreError
from xstilts.record.lease import Claim

PREFIX = "xstilts-"
RAY = "xst-"
"""Of the folder of a Ray of one's own: sockets below it have names of at most 107 characters."""

KEPT_BYTES = 20_000_000_000
"""Fetched files kept by one process: eight encoders of XLM-R Large, 2.2 GB each, with room for data."""


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one attempt, removed afterwards."""
    _trim(_kept(_own(os.getpid())))
    with tempfile.TemporaryDirectory(prefix="attempt-", dir=_own(os.getpid())) as folder:
        yield Path(folder)


def kept() -> Path:
    """Where files from elsewhere are kept as long as this process lives and there is room."""
    folder = _kept(_own(os.getpid()))
    folder.mkdir(exist_ok=True)
    return folder


def own_folder(place: Path) -> Path:
    """A folder with a short name for this process's Ray, which `sweep` removes if the process was killed."""
    return _made(place / f"{RAY}{_name(os.getpid())}")


def sweep(place: Path | None = None) -> None:
    """Removes the folders of processes that ended without doing so; those of this start of this machine and
    this table of processes alone, for of others nobody here can tell."""
    place = place or Path(tempfile.gettempdir())
    here = Claim.here("", "", ())
    for folder in [*place.glob(f"{PREFIX}*-*-*"), *place.glob(f"{RAY}*-*-*")]:
        pid, _, rest = folder.name.removeprefix(PREFIX).removeprefix(RAY).partition("-")
        born, _, boot = rest.partition("-")
        if boot != _short(here.boot) or not pid.isdigit():
            continue
        with suppress(ValueError):  # not a folder of ours
            if Claim(boot=here.boot, pid=int(pid), born=int(born, 16)).is_gone:
                shutil.rmtree(folder, ignore_errors=True)


def _name(pid: int) -> str:
    """Of this process: its number, when it began in the kernel's ticks, and of which start of which machine.
    Not the time of day, which moves when a clock is set."""
    mine = Claim.here("", "", ())
    return f"{pid}-{mine.born:x}-{_short(mine.boot)}"


def _short(boot: str) -> str:
    return hashlib.sha256(boot.encode()).hexdigest()[:4]


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.lstat().st_uid != os.getuid() or folder.is_symlink():
        raise StoreError(f"{folder} is somebody else's", "remove it, or set TMPDIR to a folder of your own")
    return folder


@lru_cache(maxsize=1)
def _own(pid: int) -> Path:
    """By the process's number and when it began: a fork has its own."""
    sweep()
    folder = _made(Path(tempfile.gettempdir()) / f"{PREFIX}{_name(pid)}")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _kept(own: Path) -> Path:
    return own / "kept"


def _trim(folder: Path) -> None:
    """Removes what was fetched longest ago until the rest fits; called while no step reads any of it."""
    files = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    sizes = {path: path.stat() for path in files}
    total = sum(state.st_size for state in sizes.values())
    for path in sorted(files, key=lambda each: sizes[each].st_mtime):
        if total <= KEPT_BYTES:
            return
        path.unlink(missing_ok=True)
        total -= sizes[path].st_size
