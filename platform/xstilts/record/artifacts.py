"""The promise every store keeps, and the one place that knows every path in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from xstilts.errors import StoreError

WRITING = ".writing-"
"""Start of the names of what is being written; no name in a store may have a part that starts so."""

PART_BYTES, NAME_BYTES = 255, 1024
"""Longest part that a folder takes, and longest key that S3 does: a store can then be copied either way."""


def is_name(name: str) -> bool:
    """Whether something in a store can be called so: parts joined by single slashes, none of them '.' or
    '..', without control characters (no listing can hold them) or halves of characters."""
    if any(ord(sign) < 32 or ord(sign) == 127 or 0xD800 <= ord(sign) < 0xE000 for sign in name):
        return False
    if len(name.encode()) > NAME_BYTES:
        return False
    return all(
        part not in ("", ".", "..") and not part.startswith(WRITING) and len(part.encode()) <= PART_BYTES
        for part in name.split("/")
    )


def check_name(name: str) -> str:
    """`name`, which is one.

    Raises:
        StoreError: it is not; asked before a store is, so that no name leads out of its folder or prefix.
    """
    if not is_name(name):
        remedy = f"use parts joined by single slashes, without '.', '..' or a leading {WRITING}"
        limits = f"of at most {PART_BYTES} bytes each and {NAME_BYTES} in all"
        raise StoreError(f"{name!r} is no name in a store", f"{remedy}, {limits}")
    return name


@dataclass(frozen=True, slots=True)
class Leftover:
    """What a writer that died left of something it never finished; no method lists, reads or counts it."""

    name: str
    """What it would have become, or lies as; for people."""
    bytes: int
    token: str
    """How the store finds it."""


class ArtifactStore(Protocol):
    """Named bytes. Names are `/`-separated; nothing is ever half-written under a name.

    Every method raises StoreError (with what to do) when the store refuses: permissions, a full disk.
    """

    location: str
    """What a user would type to open it again: a folder, or s3://bucket/prefix."""

    def create(self, name: str, data: bytes) -> bool:
        """Writes `name` if it is absent; True when this call made it. Of many at once exactly one wins."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Writes `name` whole, replacing what was there."""
        ...

    def read(self, name: str) -> bytes | None:
        """The bytes, or None when there is no such name."""
        ...

    def exists(self, name: str) -> bool:
        """Whether `name` is there."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Names that start with `prefix`, sorted."""
        ...

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """As `list`, each name with its bytes, and for the same few requests."""
        ...

    def checksum(self, name: str, noted: bool = False) -> str | None:
        """SHA-256 of what is there now, read through and never held whole; None when there is no such name.

        With `noted`, what was written down when it was written, without reading it; "" where nothing was.
        """
        ...

    def upload(self, source: Path, name: str) -> None:
        """Copies a local file to `name`, whole or not at all."""
        ...

    def local(self, name: str, scratch: Path) -> Path:
        """A local file with the bytes of `name`: itself for a folder store, else fetched under `scratch`.

        Raises:
            StoreError: there is no such name.
        """
        ...

    def delete(self, name: str) -> None:
        """Removes `name`; no error when it is absent."""
        ...

    def leftovers(self, seconds: float) -> Iterator[Leftover]:
        """What was begun, never finished and not touched for `seconds`."""
        ...

    def discard(self, leftover: Leftover) -> None:
        """Removes it; no error when it is gone."""
        ...


@dataclass(frozen=True, slots=True)
class StepPaths:
    """Where everything of one step lies."""

    key: str

    @property
    def root(self) -> str:
        """The step's folder."""
        return f"steps/{self.key}"

    @property
    def record(self) -> str:
        """Written last: its presence is what "done" means."""
        return f"{self.root}/record.json"

    @property
    def lease(self) -> str:
        """Who works on the step now; see `record.lease`."""
        return f"{self.root}/lease.json"

    def taken(self, digest: str = "") -> str:
        """Who took over the lease whose bytes have this SHA-256; the prefix of all of them for ""."""
        return f"{self.root}/taken/{digest}.json" if digest else f"{self.root}/taken/"

    @property
    def dropped(self) -> str:
        """What was removed of a finished step to make room; see `record.dropped`."""
        return f"{self.root}/dropped.json"

    def aside(self, why: str, when: str) -> str:
        """A record that does not count any more."""
        return f"{self.root}/{why}-{when}.json"

    @property
    def attempts(self) -> str:
        """Prefix of the causes of failed and lost attempts."""
        return f"{self.root}/attempts/"

    def attempt(self, attempt: str) -> str:
        """Why this attempt ended, if it did not win."""
        return f"{self.attempts}{attempt}.json"

    @property
    def runs(self) -> str:
        """Prefix of the files of every attempt."""
        return f"{self.root}/runs/"

    def run(self, attempt: str, file: str = "") -> str:
        """A file of one attempt; no attempt writes under another's."""
        return f"{self.runs}{attempt}/{file}"

    def checkpoints(self, attempt: str) -> str:
        """Prefix of one attempt's checkpoints."""
        return self.run(attempt, "checkpoints/")


def job_file(name: str) -> str:
    """The job as last asked for."""
    return f"jobs/{name}/job.yaml"


def plan_file(name: str, digest: str) -> str:
    """What was asked, as planned then; reports read this and never plan again."""
    return f"jobs/{name}/plan-{digest}.json"


def report_file(name: str, file: str) -> str:
    """A rendered report of the job."""
    return f"jobs/{name}/report/{file}"


def study_file(name: str, study: str, file: str) -> str:
    """What a study of the job came to."""
    return f"jobs/{name}/studies/{study}/{file}"


def driver_file(name: str, driver: str = "") -> str:
    """What one driver of the job last said of itself; the folder of all of them for ""."""
    return f"jobs/{name}/drivers/{driver}.json" if driver else f"jobs/{name}/drivers/"


def orders_file(name: str) -> str:
    """What people ask of a running driver: to stop, or to run more or fewer steps at once."""
    return f"jobs/{name}/orders.json"
