"""The body of each kind of step: from what the store and the data hold to files and a record.

run_step(step, site, attempt, listen)     the one way a step runs, whatever backend runs it
"""

from __future__ import annotations

import errno
import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from safetensors import SafetensorError

from xstilts.errors import StoreError, XstiltsError
from xstilts.execute.backends import Event, Listener
from xstilts.execute.provenance import provenance
from xstilts.execute.site import Site
from xstilts.frozen import Json
from xstilts.plan.fingerprint import STEP_VERSION
from xstilts.plan.step import Step
from xstilts.record.artifacts import ArtifactStore, StepPaths
from xstilts.record.schema import Output, Score, Seconds, StepRecord, read_record
from xstilts.train.loop import Progress, Signal

ShouldStop = Callable[[], bool]


@dataclass(slots=True)
class Outcome:
    """What a body made, before it is recorded."""

    files: dict[str, Path] = field(default_factory=dict)
    """Output name -> local file; the name is also its path under the attempt."""
    scores: tuple[Score, ...] = ()
    selection: dict[str, Json] | None = None
    result: dict[str, Json] = field(default_factory=dict)
    layout: dict[str, Json] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


@dataclass(slots=True)
class Work:
    """A step being done: what its body is given."""

    step: Step
    site: Site
    store: ArtifactStore
    attempt: str
    scratch: Path
    listen: Listener
    should_stop: ShouldStop
    seconds: dict[str, float] = field(default_factory=lambda: {"load": 0.0, "compute": 0.0, "save": 0.0})

    @property
    def paths(self) -> StepPaths:
        """Where everything of the step lies."""
        return StepPaths(self.step.key)

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Adds the time spent inside to load, compute or save."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[what] += time.monotonic() - begin

    def input(self, role: str) -> tuple[StepRecord, StepPaths]:
        """The record of the step that `role` names."""
        key = self.step.inputs[role]
        record = read_record(self.store, key)
        if record is None:
            raise XstiltsError(f"{key} is not recorded", "run the job again; it will be made first")
        return record, StepPaths(key)

    def input_files(self, role: str, prefix: str) -> dict[str, Path]:
        """Local files of an input's outputs whose name starts with `prefix`, by the rest of the name."""
        record, paths = self.input(role)
        return {
            name.removeprefix(prefix): self.store.local(f"{paths.root}/{output.path}", self.scratch)
            for name, output in record.outputs.items()
            if name.startswith(prefix)
        }

    def made(self) -> dict[str, Path]:
        """Files of rows that steps made, by the role that `Rows.made_by` names."""
        roles = [role for role in self.step.inputs if role.startswith("rows/")]
        return {role: self.input_files(role, "rows")[""] for role in roles}

    def note(self, text: str) -> None:
        """Tells people something that changes nothing, such as a torn checkpoint that was passed over."""
        self.listen(Event(self.step.label, "note", self.attempt, text=text, time=time.time()))

    def report(self, progress: Progress, metrics: dict[str, float]) -> Signal:
        """The loop's reporter: passes progress on and brings back whether to stop."""
        self.tell(progress.step / max(progress.steps, 1), metrics, progress.step)
        return Signal.STOP if self.should_stop() else Signal.GO

    def tell(self, done: float, metrics: dict[str, float] | None = None, step: int = 0) -> None:
        """Passes progress on."""
        points = tuple((metrics or {}).items())
        self.listen(Event(self.step.label, "progress", self.attempt, done, points, step, time.time()))


def run_step(
    step: Step, site: Site, attempt: str, listen: Listener, should_stop: ShouldStop = lambda: False
) -> StepRecord:
    """Does a step and records it; the record is the last write.

    Raises:
        XstiltsError: what a person can fix. `train.loop.Interrupted`: asked to stop; a checkpoint is written.
    """
    from xstilts.execute.bodies import BODIES

    begin = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="xstilts-") as scratch:
        work = Work(step, site, site.open_store(), attempt, Path(scratch), listen, should_stop)
        try:
            outcome = BODIES[step.kind](work)
            with work.timed("save"):
                outputs = _publish(work, outcome)
        except BaseException as problem:
            _leave_cause(work, problem)
            if isinstance(problem, OSError | SafetensorError) and _is_full(problem):
                remedy = "free some space there or set TMPDIR, then run again; finished steps are kept"
                raise StoreError(f"the scratch folder {scratch} is full", remedy) from problem
            raise
        record = _record(work, outcome, outputs, time.monotonic() - begin)
        if not work.store.create(work.paths.record, record.to_json()):
            work.note("another attempt was recorded first; its result is used")
    return record


def _publish(work: Work, outcome: Outcome) -> dict[str, Output]:
    """Copies the files under this attempt; returns what the record says of them."""
    outputs: dict[str, Output] = {}
    for name, path in sorted(outcome.files.items()):
        place = work.paths.run(work.attempt, name + path.suffix if not Path(name).suffix else name)
        work.store.upload(path, place)
        with path.open("rb") as file:
            checksum = hashlib.file_digest(file, "sha256").hexdigest()
        relative = place.removeprefix(work.paths.root + "/")
        outputs[name] = Output(path=relative, bytes=path.stat().st_size, sha256=checksum)
    return outputs


def _record(work: Work, outcome: Outcome, outputs: dict[str, Output], wall: float) -> StepRecord:
    step = work.step
    return StepRecord(
        key=step.key,
        kind=step.body.kind,
        version=STEP_VERSION[step.kind],
        identity=step.body.to_identity(),
        inputs=step.inputs,
        outputs=outputs,
        scores=outcome.scores,
        selection=outcome.selection,
        result=outcome.result,
        layout=outcome.layout,
        seconds=Seconds(**{name: round(spent, 3) for name, spent in work.seconds.items()}),
        cost={"seconds": round(wall, 3)},
        flags=outcome.flags,
        provenance=provenance(),
        attempt=work.attempt,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _is_full(problem: Exception) -> bool:
    number = getattr(problem, "errno", None)
    return number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(problem)


def _leave_cause(work: Work, problem: BaseException) -> None:
    """Writes why the attempt ended; a store that cannot take even that does not hide the problem."""
    words = {"attempt": work.attempt, "cause": type(problem).__name__, "text": str(problem)}
    words["ended"] = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        work.store.put(work.paths.attempt(work.attempt), json.dumps(words, indent=1).encode())
    except XstiltsError as second:
        work.note(f"the cause could not be written to the store either ({second})")
