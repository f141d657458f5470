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
        """The store, checked to be writable.

        Raises:
            StoreError: it cannot be written, or is of a kind that this version does not know.
        """
        return open_store(self.store)

    @property
    def data_root(self) -> Path | None:
        """Folder with `datasets/`, `models/` and `manifest.json`, if there is one."""
        return Path(self.data) if self.data else None


def open_store(location: str) -> ArtifactStore:
    """The store at `location`, a folder."""
    return LocalStore.open(location)
