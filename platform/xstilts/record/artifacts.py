"""The promise every store keeps, and the one place that knows every path in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


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
