"""Where a step runs: the store, the data and the machine. Plain values, so that any worker can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xstilts.record.artifacts import ArtifactStore
from xstilts.record.local import LocalStore
from xstilts.spec.experiment import ExecutionSpec


@dataclass(frozen=True, slots=True)
class Site:
    """What a worker needs to know beside the step; none of it is identity."""

    store: str
    data: str | None
    execution: ExecutionSpec

    def open_store(self) -> ArtifactStore:
        """The store, as a worker opens it: the driver has checked a bucket, which may be out of reach now.

        Raises:
            StoreError: a folder cannot be written, or it is of a kind that this version does not know.
        """
        return open_store(self.store, checked=True)

    @property
    def data_root(self) -> Path | None:
        """Folder with `datasets/`, `models/` and `manifest.json`, if there is one."""
        return Path(self.data) if self.data else None


def is_bucket(location: str) -> bool:
    """Whether a store lies in a bucket: it has then no folder to look into."""
    return location.startswith("s3://")


def open_store(location: str, checked: bool = False) -> ArtifactStore:
    """The store at `location`, a folder or s3://bucket/prefix; if `checked`, a bucket is asked nothing."""
    if not is_bucket(location):
        return LocalStore.open(location)
    # boto3 takes 0.2 s to load, which a folder store need not pay.
    from xstilts.record.s3 import S3Store

    return S3Store(location) if checked else S3Store.open(location)


def reading_store(location: str) -> ArtifactStore:
    """The store at `location` for who only reads: nothing is written, not even what `open_store` leaves in a
    bucket, and an outage is told instead of waited out.

    Raises:
        StoreError: `location` names neither a folder nor a bucket.
    """
    if not is_bucket(location):
        if "://" in location:
            return LocalStore.open(location)  # which refuses it
        return LocalStore(location)
    from xstilts.record.s3 import S3Store

    return S3Store(location, patience=0)
