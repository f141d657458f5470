"""Checkpoints in the store: written whole or not believed, found again over all attempts of a step.

They are written in the background while training goes on, from copies of what they hold.

    runs/<attempt>/checkpoints/<step:08d>/{model,optimizer,...}.safetensors, then state.json, LAST

state.json holds the SHA-256 of the others, so a torn checkpoint is recognised, and the one before is used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from xstilts.errors import StoreError
from xstilts.record.artifacts import ArtifactStore, StepPaths
from xstilts.record.fetched import DamagedObject

KEPT = 2
"""Whole checkpoints an attempt keeps: the newest, and the one to fall back to."""

STATE = "state.json"


class _Torn(Exception):
    """A checkpoint that is not all there; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was saved after optimiser step `step`."""

    step: int
    attempt: str
    tensors: dict[str, dict[str, Tensor]]
    """File ("model", "optimizer", ...) -> name -> tensor, on the CPU."""
    state: dict[str, Any]
    """JSON: whatever else the loop must know."""


class Checkpoints:
    """The checkpoints of one step, written by one attempt of it."""

    def __init__(self, store: ArtifactStore, paths: StepPaths, attempt: str, scratch: Path) -> None:
        self.store = store
        self.paths = paths
        self.attempt = attempt
        self.scratch = scratch
        self._writing: threading.Thread | None = None
        self._problem: Exception | None = None

    def save_soon(
        self, step: int, tensors_by_file: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
    ) -> None:
        """Waits for the one before, and writes this one in the background. The tensors are then this
        object's: nobody may change them.

        Raises:
            StoreError: the one before could not be written. Of this one, `check` tells.
        """
        self._settle()

        def write() -> None:
            try:
                self._save(step, tensors_by_file, state)
            except Exception as problem:  # it rises where training looks next
                self._problem = problem

        # A daemon: a process that is told to end twice must not wait for it.
        self._writing = threading.Thread(target=write, name="checkpoint", daemon=True)
        self._writing.start()

    def save(
        self, step: int, tensors_by_file: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
    ) -> None:
        """Writes the checkpoint of `step` now, then drops all but the newest two of this attempt.

        Raises:
            StoreError: the store or the scratch folder refuses, e.g. a full disk.
        """
        self.wait()  # what became of the one before no longer matters: this one is newer
        self._save(step, tensors_by_file, state)

    def check(self) -> None:
        """Does not wait.

        Raises:
            StoreError: a checkpoint in the background could not be written.
        """
        if self._problem is not None:
            problem, self._problem = self._problem, None
            raise problem

    def wait(self) -> Exception | None:
        """Until nothing is being written; why the last one was not, if it was not."""
        if self._writing is not None:
            self._writing.join()
            self._writing = None
        problem, self._problem = self._problem, None
        return problem

    def _settle(self) -> None:
        if (problem := self.wait()) is not None:
            raise problem

    def _save(
        self, step: int, tensors_by_file: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
    ) -> None:
        folder = f"{self.paths.checkpoints(self.attempt)}{step:08d}/"
        # Saved before, and torn since: nothing may look whole while it is written again.
        self.store.delete(folder + STATE)
        files = {}
        for name, tensors in tensors_by_file.items():
            file = f"{name}.safetensors"
            files[file] = self._write(tensors, folder + file)
        body = {"step": step, "files": files, "state": dict(state)}
        self.store.put(folder + STATE, json.dumps(body).encode())
        self._prune(step)

    def latest(self, note: Callable[[str], None]) -> Checkpoint | None:
        """The newest whole checkpoint over all attempts; `note` is told of each newer one that is torn.

        Raises:
            StoreError: the store cannot be read.
        """
        for step, attempt, names in self._found():
            try:
                return self._read(step, attempt, names)
            except _Torn as problem:
                note(f"checkpoint {step} of attempt {attempt} is torn ({problem}); trying the one before")
        return None

    def _write(self, tensors: Mapping[str, Tensor], name: str) -> str:
        """Uploads one file; its SHA-256."""
        path = self.scratch / f"{self.attempt}-{Path(name).name}"
        try:
            self.scratch.mkdir(parents=True, exist_ok=True)
            save_file({key: tensor.detach().contiguous() for key, tensor in tensors.items()}, path)
        except (OSError, SafetensorError) as problem:
            with contextlib.suppress(OSError):
                path.unlink()
            remedy = f"free space or choose another scratch folder ({problem})"
            raise StoreError(f"cannot write a checkpoint in {self.scratch}", remedy) from problem
        try:
            checksum = _sha256(path)
            self.store.upload(path, name)
        finally:
            path.unlink(missing_ok=True)
        return checksum

    def _found(self) -> list[tuple[int, str, list[str]]]:
        """(step, attempt, names in the store), newest first."""
        shape = re.compile(re.escape(self.paths.runs) + r"([^/]+)/checkpoints/(\d{8,})/[^/]+$")
        folders: dict[tuple[int, str], list[str]] = {}
        for name in self.store.list(self.paths.runs):
            if match := shape.match(name):
                folders.setdefault((int(match[2]), match[1]), []).append(name)
        return [(step, attempt, names) for (step, attempt), names in sorted(folders.items(), reverse=True)]

    def _read(self, step: int, attempt: str, names: list[str]) -> Checkpoint:
        folder = f"{self.paths.checkpoints(attempt)}{step:08d}/"
        data = self.store.read(folder + STATE)
        if data is None:
            raise _Torn(f"no {STATE}")
        try:
            body = json.loads(data)
            files, state = dict(body["files"]), dict(body["state"])
        except (ValueError, KeyError, TypeError) as problem:
            raise _Torn(f"{STATE} is damaged") from problem
        tensors = {}
        for file, checksum in files.items():
            if folder + file not in names:
                raise _Torn(f"no {file}")
            try:
                path = self.store.local(folder + file, self.scratch)
            except DamagedObject as problem:  # not StoreError: an outage is no torn checkpoint
                raise _Torn(f"{file} is not what was written") from problem
            if _sha256(path) != checksum:
                raise _Torn(f"{file} is not what was written")
            try:
                tensors[file.removesuffix(".safetensors")] = load_file(path)
            except SafetensorError as problem:
                raise _Torn(f"{file} holds no tensors") from problem
        return Checkpoint(step, attempt, tensors, state)

    def _prune(self, newest: int) -> None:
        """Keeps `newest` and the ones before it, KEPT in all; a later step of this attempt cannot be."""
        prefix = self.paths.checkpoints(self.attempt)
        names = list(self.store.list(prefix))
        steps = sorted({int(name.removeprefix(prefix).split("/", 1)[0]) for name in names}, reverse=True)
        older = [step for step in steps if step <= newest]
        for step in older[KEPT:]:
            # state.json first: a checkpoint half removed must not look whole.
            doomed = [name for name in names if name.startswith(f"{prefix}{step:08d}/")]
            for name in sorted(doomed, key=lambda each: not each.endswith(STATE)):
                self.store.delete(name)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
