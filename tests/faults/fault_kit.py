"""What the fault tests share: a job in a place of its own, how it is disturbed, and its end state.

bench.start("run")                    the command in a process of its own, with the bench's faults in it
bench.wait("forward")                 until a fault has happened
bench.check(whole)                    the end state: see there
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from end_state import results
from xstilts import api
from xstilts.execute.site import open_store
from xstilts.record.artifacts import ArtifactStore

REPO = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-c", "from xstilts.cli.main import main; main()"]
INJECT = Path(__file__).resolve().parent / "inject"

TINY = """\
name: tiny
world: {seed: 1}
pretrain:
  {data: world, vocabulary: 500, layers: 1, width: 16, heads: 2, length: 32, batch: 32, steps: 60,
   learning_rate: 2.0e-3, sentences: 200}
intermediate: [none, world_nli]
targets: [world_tagging]
languages: [w0, w1]
seeds: [1]
train:
  intermediate: {learning_rate: 1.0e-3, epochs: 0.1, effective_batch: 32, max_length: 32}
  target: {learning_rate: 1.0e-3, epochs: 0.5, effective_batch: 32, max_length: 32}
evaluate: {split: test, first: 20, selection: {first: 20}}
execution: {backend: inline, workers: 2, threads: 1, checkpoint_seconds: 0.01}
"""
"""8 steps: pretraining, the tagger with and without NLI before it, predictions and scores. 7 s in one
process, of which imports and the report are five."""

PRETRAIN = "label().startswith('pretrain')"
NLI = "label().startswith('train-world_nli')"
PLAIN = "label().startswith('train-world_tagging') and 'after' not in label()"
AFTER = "label().startswith('train-world_tagging') and 'after' in label()"
"""Conditions of faults: the step that is being done."""

IN_FORWARD = "xstilts.train.loop:_Trainer._losses"

Fault = dict[str, Any]


def fault(mark: str, at: str, do: str, when: str = "True", **more: Any) -> Fault:
    """As inject/sitecustomize.py reads it; `value` is its `with`."""
    words = {"mark": mark, "at": at, "do": do, "when": when, **more}
    if "value" in words:
        words["with"] = words.pop("value")
    return words


def reports_every(steps: int) -> Fault:
    """The loop reports, and so writes checkpoints, every so many steps and not every second: the same steps
    on a fast machine and on a slow one."""
    value = f"a[0].trainer.memory.step % {steps} == 0"
    return fault("pace", "xstilts.train.loop:_Watch.waited", "give", value=value, times=0)


def quick_leases(seconds: float = 6.0) -> list[Fault]:
    """Everything about leases ten times as fast: they live for 6 s, and beat every 1.5."""
    beat = f"Heartbeat.__init__.__defaults__ = ({seconds / 4}, *Heartbeat.__init__.__defaults__[1:])"
    look = f"Watch.__init__.__defaults__ = ({seconds}, *Watch.__init__.__defaults__[1:])"
    return [fault("ttl", "xstilts.record.lease", "run", value=f"{beat}\n{look}")]


def recorded_once() -> list[Fault]:
    """Writes down every record that is made, by whichever process, and every one that is written over."""
    made = "a[1].startswith('steps/') and a[1].endswith('/record.json')"
    stores = ("xstilts.record.local:LocalStore", "xstilts.record.s3:S3Store")
    return [
        fault("recorded", f"{store}.{how}", "note", f"r is {back} and {made}", after=True, value="a[1]")
        for store in stores
        for how, back in (("create", True), ("put", None))
    ]


@dataclass(slots=True)
class Driver:
    """A run of the command."""

    process: subprocess.Popen[bytes]
    out: Path

    @property
    def said(self) -> str:
        """Both of its outputs, so far."""
        return self.out.read_text(errors="replace")

    def send(self, number: signal.Signals, group: bool = False) -> None:
        """A signal; to the whole group, as a terminal's Ctrl-C goes."""
        (os.killpg if group else os.kill)(self.process.pid, number)

    def end(self, seconds: float = 150) -> int:
        """Its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the run did not end within {seconds} s:\n{self.said}")


@dataclass(slots=True)
class Bench:
    """A place for one job: its file, its store, a temporary folder, and what happened there."""

    folder: Path
    text: str = TINY
    location: str = ""
    """Of the store; a folder of the bench's own when left out."""
    faults: list[Fault] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    """More for every `run`."""
    tmp: Path = field(init=False)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
    drivers: list[Driver] = field(default_factory=list)

    def __post_init__(self) -> None:
        # Short: the names of Ray's sockets are below it, and must stay below 108 characters.
        self.tmp = Path(tempfile.mkdtemp(prefix="xf", dir="/tmp"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.marks.mkdir()
        (self.folder / "home").mkdir()
        self.job.write_text(self.text)
        self.location = self.location or str(self.folder / "store")

    @property
    def job(self) -> Path:
        """Its file."""
        return self.folder / "tiny.yaml"

    @property
    def marks(self) -> Path:
        """Where faults say that they happened."""
        return self.folder / "marks"

    @property
    def store(self) -> ArtifactStore:
        """As this process sees it."""
        return open_store(self.location, checked=True)

    def start(self, *words: str, faults: list[Fault] | None = None, **environment: str) -> Driver:
        """The command with the job and the store; `faults` instead of the bench's own."""
        # Those that write down come first, and so inside: a process may be killed as the call returns.
        own = [*recorded_once(), *(self.faults if faults is None else faults)]
        told = {"XSTILTS_FAULTS": json.dumps(own), "XSTILTS_FAULT_MARKS": str(self.marks)}
        path = f"{INJECT}{os.pathsep}{REPO / 'platform'}"
        places = {"TMPDIR": str(self.tmp), "HOME": str(self.folder / "home"), "PYTHONPATH": path}
        mine = {"XSTILTS_BENCH": self.token, "COLUMNS": "200", "NO_COLOR": "1"}
        unset = {"RAY_TMPDIR", "MLFLOW_TRACKING_URI", "XSTILTS_STORE", "XSTILTS_DATA", "RAY_ADDRESS"}
        base = {name: value for name, value in os.environ.items() if name not in unset}
        # `store` has commands of its own, which know no job.
        job = () if words[0] == "store" else (str(self.job),)
        words = (*words, *job, "--store", self.location)
        if words[0] == "run":
            words = (*words, "--no-mlflow", *self.words) if "--mlflow" not in words else (*words, *self.words)
        out = self.folder / f"out-{len(self.drivers)}"
        with out.open("wb") as file:
            process = subprocess.Popen(
                [*COMMAND, *words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=self.folder,  # where the report of a store in a bucket goes
                env=base | told | places | mine | self.environment | environment,
                start_new_session=True,
            )
        self.drivers.append(Driver(process, out))
        return self.drivers[-1]

    def run(self, *words: str, code: int = 0, **more: Any) -> str:
        """The command to its end, which must be with `code`; what it said, on one line."""
        driver = self.start(*(words or ("run",)), **more)
        got = driver.end()
        assert got == code, driver.said
        return " ".join(driver.said.split())

    def wait(self, mark: str, number: int = 0, driver: Driver | None = None) -> int:
        """Until a fault has happened for the (number+1)th time; the process that it happened in."""
        place = self.marks / f"{mark}.{number}"
        self.until(lambda: place.exists() and place.read_text() != "", driver)
        return int(place.read_text())

    def until(self, met: Callable[[], bool], driver: Driver | None = None, seconds: float = 120) -> None:
        """Waits; a driver that ends meanwhile (the last one) will not bring it about any more."""
        driver = driver or self.drivers[-1]
        deadline = time.monotonic() + seconds
        while not met():
            if driver.process.poll() is not None and not met():
                pytest.fail(f"the run ended (code {driver.process.returncode}) too early:\n{driver.said}")
            if time.monotonic() > deadline:
                pytest.fail(f"waited in vain:\n{driver.said}")
            time.sleep(0.02)

    def go(self, mark: str) -> None:
        """Lets what is held go on."""
        (self.marks / f"{mark}.go").touch()

    def happened(self, mark: str) -> int:
        """How often a fault has."""
        return len([path for path in self.marks.glob(f"{mark}.*") if path.suffix[1:].isdigit()])

    def records(self) -> dict[str, dict[str, Any]]:
        """Key -> record, of every finished step."""
        return records(self.store)

    def key(self, label: str) -> str:
        """Of the only step of the plan whose label begins so."""
        steps = api.look(api.open_job(self.job, self.location), explain=False).plan.steps.values()
        (found,) = [
            step.key for step in steps if step.label.startswith(label) and "-after-" not in step.label
        ]
        assert found is not None
        return found

    def steps(self) -> dict[str, dict[str, Any]]:
        """What `xstilts status --json` says of each step, by label."""
        words = api.status(api.open_job(self.job, self.location))
        return {step["label"]: step for step in words["steps"]}

    def causes(self) -> Counter[str]:
        """Of all attempts that ended without a record, as `status` tells them."""
        return Counter(attempt["cause"] for step in self.steps().values() for attempt in step["attempts"])

    def processes(self) -> list[psutil.Process]:
        """Those that a run of this bench started, or that work in its temporary folder."""
        return [process for process in psutil.process_iter() if self._is_mine(process)]

    def check(self, whole: dict[str, Any]) -> None:
        """The end state: scores, weights and predictions of the undisturbed run, each step recorded once, no
        process and no temporary file left."""
        assert results(self.records()) == whole
        self.check_recorded_once(set(whole))
        self.check_nothing_left()

    def check_recorded_once(self, keys: set[str]) -> None:
        """Every record was made by one process, once, and never written over."""
        log = self.marks / "recorded.log"
        made = Counter(line.split("/")[1] for line in log.read_text().splitlines())
        assert made == Counter(keys)

    def check_nothing_left(self, seconds: float = 20) -> None:
        """No process of any run, nothing in the temporary folder, nothing half-written in the store."""
        deadline = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left, [" ".join(_command(process))[:200] for process in left]
        assert self.leftovers() == []

    def leftovers(self) -> list[str]:
        """Temporary files, and those that a store has begun to write."""
        found = [path for path in self.tmp.iterdir() if not _of_torch(path)]
        return [*map(str, found), *(each.name for each in self.store.leftovers(-60))]

    def close(self) -> None:
        """Ends what a failed test left running, by process, and removes the temporary folder."""
        for driver in self.drivers:
            with suppress(ProcessLookupError):
                driver.process.kill()
            driver.process.wait()
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(self.tmp, ignore_errors=True)

    def _is_mine(self, process: psutil.Process) -> bool:
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                return False
            # Ray's workers write their title over their environment; others have the folder in their words.
            mine = process.environ().get("XSTILTS_BENCH") == self.token
            return mine or any(str(self.tmp) in word for word in process.cmdline())
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            return False


def records(store: ArtifactStore) -> dict[str, dict[str, Any]]:
    """Key -> record, of every finished step of a store."""
    names = [name for name in store.list("steps/") if name.endswith("/record.json")]
    return {name.split("/")[1]: json.loads(store.read(name) or b"null") for name in names}


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A file system in memory, of so many bytes; skips the test where nobody may mount one."""
    folder.mkdir()
    asked = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"cannot mount a small tmpfs here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def enlarge(folder: Path, size: str) -> None:
    """Gives a file system in memory more room."""
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


def _command(process: psutil.Process) -> list[str]:
    try:
        return [str(process.pid), *process.cmdline()]
    except psutil.NoSuchProcess:
        return []


def _of_torch(path: Path) -> bool:
    """A folder that torch makes for its compiler as it is imported, and leaves empty."""
    return path.name.startswith("torchinductor_") and not any(path.rglob("*.*"))
