"""Processes that are started here and ended here: noted in files with their start time, never sought by name.

A number alone is not a process: after a crash or a reboot the same number may be somebody else's. So a note
holds the start time too, and a signal goes through a descriptor that is opened before that is compared.
Linux only, as is all of infra/local.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

MARK = "XSTILTS_LOCAL_PART"
"""Environment variable that every process of a part carries and passes on: the part's folder."""


@dataclass(frozen=True, slots=True)
class Noted:
    """One process: its number, and when it was started in clock ticks since the machine came up."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Noted | None:
        """The process that has this number now; None for none, and for one that only waits to be reaped."""
        state = _state(pid)
        return cls(pid, state[1]) if state is not None and state[0] not in "ZX" else None

    @classmethod
    def read(cls, note: Path) -> Noted | None:
        """What a pid file says, whether it still runs or not; None without a file, or with half a one."""
        try:
            pid, started = note.read_text().split()
            return cls(int(pid), int(started))
        except (OSError, ValueError):
            return None

    def write(self, note: Path) -> None:
        """Writes the pid file, in one piece."""
        part = note.with_name(f"{note.name}.part")
        part.write_text(f"{self.pid} {self.started}\n")
        part.replace(note)

    @property
    def runs(self) -> bool:
        """Whether it is still there, and still the same."""
        return Noted.of(self.pid) == self

    def send(self, number: signal.Signals) -> bool:
        """Sends a signal; False when there is no such process any more."""
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            # A descriptor is of one process for ever: if that is the right one, no other gets the signal.
            if not self.runs:
                return False
            signal.pidfd_send_signal(descriptor, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(descriptor)

    def end(self, politely: signal.Signals = signal.SIGTERM, seconds: float = 10.0) -> None:
        """Ends it: a signal that it may answer, SIGKILL after so many seconds; returns when it is gone."""
        self.send(politely)
        if not self.wait(seconds):
            self.send(signal.SIGKILL)
            self.wait(seconds)

    def wait(self, seconds: float) -> bool:
        """Waits until it is gone; False when it is not."""
        until = time.monotonic() + seconds
        while self.runs:
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)  # where it was this process's own child
        return True


def begin(
    command: Sequence[str],
    note: Path,
    log: Path,
    environment: Mapping[str, str],
    folder: Path,
    user: int | None = None,
) -> Noted:
    """Starts a program in a session of its own and notes it.

    Args:
        note: its pid file.
        log: gets both its outputs, behind what is there.
        environment: the whole of it.
        folder: it works in.
        user: number of the user and group to run as, for programs that refuse root.

    Raises:
        OSError: it cannot be started.
    """
    with log.open("ab") as out:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=dict(environment),
            cwd=folder,
            start_new_session=True,
            user=user,
            group=None if user is None else pwd.getpwuid(user).pw_gid,
            extra_groups=None if user is None else [],
        )
    state = _state(process.pid)
    noted = Noted(process.pid, state[1] if state is not None else 0)
    noted.write(note)
    return noted


def marked(folder: Path, **more: object) -> list[Noted]:
    """Every process but this one that has a part's mark, and these environment variables besides.

    What such a process starts has them too, unless it takes them away (PostgreSQL overwrites its own).
    """
    values = {MARK: folder, **more}
    wanted = {os.fsencode(f"{name}={value}") for name, value in values.items()}
    found = []
    for pid in psutil.pids():
        noted = Noted.of(pid)
        with contextlib.suppress(OSError):
            there = set(Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"))
            if noted is not None and wanted <= there and pid != os.getpid():
                found.append(noted)
    return found


def pid_of(note: Path) -> int | None:
    """Number of the process that a note is about, if it runs."""
    noted = Noted.read(note)
    return noted.pid if noted is not None and noted.runs else None


def kill_marked(folder: Path, seconds: float = 20.0) -> None:
    """Kills all of them, and what they start meanwhile, until none is left.

    Raises:
        TimeoutError: some do not go.
    """
    kill_all(lambda: marked(folder), seconds)


def kill_all(found: Callable[[], list[Noted]], seconds: float = 20.0) -> None:
    """Kills the processes that `found` gives, and those that it gives then, until it gives none.

    Raises:
        TimeoutError: some do not go.
    """
    until = time.monotonic() + seconds
    while there := found():
        for noted in there:
            noted.send(signal.SIGKILL)
            noted.wait(0.0)
        if time.monotonic() > until:
            raise TimeoutError(f"these do not end: {' '.join(str(noted.pid) for noted in there)}")
        time.sleep(0.05)


def inherited() -> dict[str, str]:
    """This process's environment without what steers the parts of a stack: they get their own."""
    steering = ("AWS_", "CUDA_", "MLFLOW_", "PG", "RAY_", "XSTILTS_")
    return {name: value for name, value in os.environ.items() if not name.startswith(steering)}


def keep(folder: Path, **settings: Any) -> None:
    """Writes a part's settings, for `kept`; only their user may read them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.json"
    path.touch(mode=0o600)
    path.write_text(json.dumps(settings, indent=1))


def kept(folder: Path) -> dict[str, Any]:
    """The settings of the part in a folder; FileNotFoundError when there is none."""
    settings: dict[str, Any] = json.loads((folder / "settings.json").read_text())
    return settings


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on."""
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return int(made.getsockname()[1])


def _state(pid: int) -> tuple[str, int] | None:
    """State letter and start time, from /proc."""
    try:
        # The program's name, in brackets, may hold anything; what follows the last bracket is regular.
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return words[0], int(words[19])
