"""A PostgreSQL server on this machine, in a folder of its own: what MLflow keeps runs in.

    apt-get install --no-install-recommends postgresql

It listens on 127.0.0.1 only, has no socket in the file system, and wants a password, which is in a file that
only its user reads. It refuses to run as root; started by root it runs as the user `postgres`, or `nobody`.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from infra.local.processes import Noted, begin, free_port, keep, kept, pid_of

_PROGRAMS = Path("/usr/lib/postgresql")
"""Debian and Ubuntu keep the programs of each version here, off the path."""

USER, DATABASE = "xstilts", "mlflow"

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "32MB",
    "max_connections": "50",
    # A killed server loses nothing by this, only a machine that loses power; commits take 0.1 ms, not 5.
    "fsync": "off",
    "log_min_messages": "warning",
}


def programs() -> Path | None:
    """Folder of the newest version's programs; None when it is not installed."""
    found = [folder for folder in _PROGRAMS.glob("*/bin") if (folder / "initdb").exists()]
    newest = max(found, key=lambda folder: float(folder.parent.name), default=None)
    if newest is None and (on_path := shutil.which("initdb")):
        return Path(on_path).resolve().parent
    return newest


def missing() -> list[str]:
    """What is to be installed."""
    return [] if programs() else ["postgresql"]


@dataclass(frozen=True, slots=True)
class Postgres:
    """A server, running or not: notes in `folder`, data in `scratch`, which root's server can reach too."""

    folder: Path
    scratch: Path
    port: int

    @classmethod
    def start(cls, folder: Path, scratch: Path) -> Postgres:
        """Makes an empty database in a folder `scratch` that is not there yet; 2 s.

        Raises:
            RuntimeError: it does not come up; says where the log is.
        """
        made = cls(folder, scratch, free_port())
        keep(folder, scratch=str(scratch), port=made.port)
        try:
            made._found()
            made.revive()
            made._sql(f"create database {DATABASE}")
        except (OSError, subprocess.SubprocessError, TimeoutError) as problem:
            made.stop()
            raise RuntimeError(f"no PostgreSQL came up, see {made._log} ({problem})") from problem
        return made

    @classmethod
    def at(cls, folder: Path) -> Postgres:
        """The one that was started in `folder`."""
        settings = kept(folder)
        return cls(folder, Path(settings["scratch"]), settings["port"])

    @property
    def passwords(self) -> Path:
        """File with the password, as libpq reads it."""
        return self.folder / "pgpass"

    @property
    def url(self) -> str:
        """Of the database, for SQLAlchemy with psycopg 3; the password is found by its path."""
        return f"postgresql+psycopg://{USER}@127.0.0.1:{self.port}/{DATABASE}?passfile={self.passwords}"

    @property
    def pid(self) -> int | None:
        """Number of the server's first process, if it runs."""
        return pid_of(self._note)

    def send(self, number: signal.Signals) -> None:
        """To the first process: SIGKILL is a crash, SIGQUIT an immediate stop, SIGSTOP lets nobody new in."""
        noted = Noted.read(self._note)
        if noted is None or not noted.send(number):
            raise ProcessLookupError(f"no PostgreSQL runs in {self.folder}")

    def revive(self) -> None:
        """Starts it on the data that is there, after a stop or a crash.

        Raises:
            TimeoutError: it does not answer.
        """
        self._wait_for_children()
        settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        command = [self._program("postgres"), "-D", str(self.scratch), "-p", str(self.port), *settings]
        begin(command, self._note, self._log, self._environment(), self.scratch, _user())
        for _ in range(300):
            with contextlib.suppress(subprocess.SubprocessError):
                self._sql("select 1")
                return
            time.sleep(0.1)
        raise TimeoutError("PostgreSQL does not answer")

    def stop(self) -> None:
        """Ends it, connections and all; the data stays."""
        noted = Noted.read(self._note)
        if noted is not None:
            noted.end(signal.SIGINT)
            self._wait_for_children()
            self._note.unlink(missing_ok=True)

    def _found(self) -> None:
        """Makes the data folder, and a password."""
        user = _user()
        password = secrets.token_hex(16)
        self.passwords.touch(mode=0o600)
        self.passwords.write_text(f"127.0.0.1:*:*:{USER}:{password}\n")
        self.scratch.mkdir(mode=0o700)
        # initdb reads it as the user that it runs as, and the folder is that user's.
        hidden = self.scratch.with_name(f"{self.scratch.name}.password")
        hidden.touch(mode=0o600)
        hidden.write_text(password)
        try:
            if user is not None:
                os.chown(self.scratch, user, -1)
                os.chown(hidden, user, -1)
            self._run(
                "initdb",
                *("-D", str(self.scratch), "-U", USER, f"--pwfile={hidden}", "--auth=scram-sha-256"),
                *("--no-sync", "--encoding=UTF8", "--locale=C"),
                user=user,
            )
        finally:
            hidden.unlink()

    def _sql(self, words: str) -> None:
        """Runs one statement as a client does."""
        address = ("-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", "postgres")
        self._run("psql", "-X", "-w", "-q", *address, "-c", words)

    def _run(self, program: str, *words: str, user: int | None = None) -> None:
        """Runs a program to its end; what it says is in the log."""
        with self._log.open("ab") as log:
            subprocess.run(
                [self._program(program), *words],
                check=True,
                timeout=60,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment(),
                cwd=self.scratch if user is None else "/",
                user=user,
            )

    def _wait_for_children(self, seconds: float = 20.0) -> None:
        """After a crash its processes go by themselves, and a new server refuses to start before."""
        until = time.monotonic() + seconds
        while time.monotonic() < until and any(_works_in(self.scratch)):
            time.sleep(0.1)

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "LC_ALL": "C", "PGPASSFILE": str(self.passwords)}

    def _program(self, name: str) -> str:
        folder = programs()
        if folder is None:
            raise FileNotFoundError("PostgreSQL is not installed: the package postgresql")
        return str(folder / name)

    @property
    def _note(self) -> Path:
        return self.folder / "server.pid"

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"


def _user() -> int | None:
    """The user to run as: None for this one, unless that is root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    raise FileNotFoundError("PostgreSQL does not run as root, and there is no user postgres or nobody")


def _works_in(folder: Path) -> list[int]:
    """Processes whose working folder it is: a server and its children, whatever their environment says."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (entry / "cwd").readlink() == folder and Noted.of(int(entry.name)):
                found.append(int(entry.name))
    return found
