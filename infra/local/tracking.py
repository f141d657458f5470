"""An MLflow server on this machine: runs in PostgreSQL and artifacts in S3, where there are such.

Clients write artifacts to S3 themselves. Through the server 30 MB take 2.4 s instead of 0.8, every client
has the store's credentials anyway, and a server that is away then costs the view of a run, not its files.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from infra.local.processes import (
    MARK,
    Noted,
    begin,
    free_port,
    inherited,
    keep,
    kept,
    kill_marked,
    marked,
    pid_of,
)


@dataclass(frozen=True, slots=True)
class Tracking:
    """A server in a folder of its own, running or not."""

    folder: Path
    port: int
    database: str
    artifacts: str | None
    environment: Mapping[str, str] = field(repr=False)
    """What its process gets besides this one's."""

    @classmethod
    def start(
        cls,
        folder: Path,
        database: str | None = None,
        artifacts: str | None = None,
        environment: Mapping[str, str] | None = None,
        port: int = 0,
    ) -> Tracking:
        """Starts in a folder that may be there already; 5 s, more the first time, when tables are made.

        Args:
            database: SQLAlchemy's URL, without a secret in it; None for a file in the folder.
            artifacts: s3://bucket/prefix; None for a folder, served through the server.
            environment: where the credentials for both are.
            port: 0 for any.

        Raises:
            RuntimeError: it does not come up; says where the log is.
        """
        database = database or f"sqlite:///{folder}/mlflow.db"
        made = cls(folder, port or free_port(), database, artifacts, dict(environment or {}))
        keep(folder, port=made.port, database=database, artifacts=artifacts, environment=made.environment)
        try:
            made.revive()
        except (OSError, TimeoutError) as problem:
            made.stop()
            raise RuntimeError(f"no MLflow server came up, see {made._log} ({problem})") from problem
        return made

    @classmethod
    def at(cls, folder: Path) -> Tracking:
        """The one that was started in `folder`."""
        return cls(folder, **kept(folder))

    @property
    def url(self) -> str:
        """For MLFLOW_TRACKING_URI, and for a browser."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int | None:
        """Number of its first process, if it runs."""
        return pid_of(self._note)

    def send(self, number: signal.Signals) -> None:
        """A signal to its first process, and to those that it has answer for it."""
        there = marked(self.folder)
        if not there:
            raise ProcessLookupError(f"no MLflow server runs in {self.folder}")
        for noted in there:
            noted.send(number)

    def revive(self, seconds: float = 90.0) -> None:
        """Starts it at the port that it had, on what it kept.

        Raises:
            TimeoutError: it does not answer, or has ended.
        """
        self.stop()
        noted = begin(self._command(), self._note, self._log, self._words(), self.folder)
        until = time.monotonic() + seconds
        while noted.runs and time.monotonic() < until:
            with (
                contextlib.suppress(OSError),
                urllib.request.urlopen(f"{self.url}/health", timeout=5) as reply,
            ):
                if reply.status == 200:
                    return
            time.sleep(0.1)
        raise TimeoutError("the MLflow server does not answer")

    def stop(self) -> None:
        """Ends it and every process that it started."""
        noted = Noted.read(self._note)
        if noted is not None:
            noted.end()
        kill_marked(self.folder)
        self._note.unlink(missing_ok=True)

    def _command(self) -> list[str]:
        hosts = f"127.0.0.1:{self.port},localhost:{self.port}"
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--allowed-hosts", hosts]
        what = ["--workers", "1", "--backend-store-uri", self.database]
        if self.artifacts is not None:
            what += ["--no-serve-artifacts", "--default-artifact-root", self.artifacts]
        return [sys.executable, "-m", "mlflow", "server", *where, *what]

    def _words(self) -> dict[str, str]:
        return {
            **inherited(),
            **self.environment,
            # Its job runner is seven processes and 700 MB more, for features that nothing here uses.
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "true",
            MARK: str(self.folder),
        }

    @property
    def _note(self) -> Path:
        return self.folder / "server.pid"

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"
