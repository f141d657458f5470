"""The body of each kind of step: from what the store and the data hold to files and a record.

run_step(step, site, attempt, listen)     the one way a step runs, whatever backend runs it
"""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from xstilts.errors import StoreError, XstiltsError
from xstilts.execute.attempts import leave
from xstilts.execute.backends import Elsewhere, Event, Listener, Terms, classify
from xstilts.execute.gauges import gauged
from xstilts.execute.nearby import brought
from xstilts.execute.provenance import provenance
from xstilts.execute.scratch import kept, scratch
from xstilts.execute.site import Site
from xstilts.families.snapshot import sha256
from xstilts.frozen import Json
from xstilts.plan.fingerprint import STEP_VERSION
from xstilts.plan.step import Step
from xstilts.record.artifacts import ArtifactStore, StepPaths
from xstilts.record.dropped import check_kept, dropped, set_aside
from xstilts.record.lease import Heartbeat, Lease
from xstilts.record.schema import Output, Score, Seconds, StepRecord, read_record
from xstilts.train.loop import Interrupted, Progress, Signal
from xstilts.train.team import Team

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
    terms: Terms = Terms()
    crew: tuple[Any, ...] = ()
    """Workers that steps of this step's own may be given to: the trials of a search."""
    team: Team = Team()
    """The ranks that train the step together; this process is one of them."""
    seconds: dict[str, float] = field(
        default_factory=lambda: {"wait": 0.0, "load": 0.0, "compute": 0.0, "save": 0.0}
    )

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
        """Local files of an input's outputs whose name starts with `prefix`, by the rest of the name.

        Raises:
            StoreError: one is missing, or is not what was recorded.
        """
        record, paths = self.input(role)
        check_kept(self.store, record, prefix)
        found = {}
        for name, output in record.outputs.items():
            if name.startswith(prefix):
                place = f"{paths.root}/{output.path}"
                path = self.store.local(place, kept())
                if path.stat().st_size != output.bytes or sha256(path) != output.sha256:
                    remedy = "`xstilts store verify --repair` has the step that made it done again"
                    raise StoreError(f"{place} in {self.store.location} is not what was recorded", remedy)
                found[name.removeprefix(prefix)] = path
        return found

    def made(self) -> dict[str, Path]:
        """Files of rows that steps made, by the role that `Rows.made_by` names."""
        roles = [role for role in self.step.inputs if role.startswith("rows/")]
        return {role: self.input_files(role, "rows")[""] for role in roles}

    def note(self, text: str) -> None:
        """Tells people something that changes nothing, such as a torn checkpoint that was passed over."""
        self.listen(Event(self.step.label, "note", self.attempt, text=text, time=time.time()))

    def gauge(self, values: tuple[tuple[str, float], ...], node: str) -> None:
        """Tells how busy the node is."""
        now = time.time()
        self.listen(Event(self.step.label, "gauges", self.attempt, metrics=values, time=now, text=node))

    def report(self, progress: Progress, metrics: dict[str, float]) -> Signal:
        """The loop's reporter: passes progress on and brings back whether to stop."""
        self.tell(progress.step / max(progress.steps, 1), metrics, progress.step)
        return Signal.STOP if self.should_stop() else Signal.GO

    def tell(self, done: float, metrics: dict[str, float] | None = None, step: int = 0) -> None:
        """Passes progress on."""
        points = tuple((metrics or {}).items())
        self.listen(Event(self.step.label, "progress", self.attempt, done, points, step, time.time()))


def run_step(
    step: Step,
    site: Site,
    attempt: str,
    listen: Listener,
    should_stop: ShouldStop = lambda: False,
    terms: Terms = Terms(),  # noqa: B008 (frozen)
    crew: tuple[Any, ...] = (),
    team: Team = Team(),  # noqa: B008 (frozen)
) -> StepRecord:
    """Does a step and records it; the record is the last write. One that is recorded already is not done.

    Raises:
        XstiltsError: what a person can fix. `train.loop.Interrupted`: asked to stop; a checkpoint is written.
        Elsewhere: another driver's worker has the step.
    """
    begun = time.time()
    store, paths = site.open_store(), StepPaths(step.key)
    lease = Lease.take(store, paths, attempt, terms.holder, terms.over)
    if lease is None:
        raise Elsewhere("another driver's worker began it at the same time")
    with Heartbeat(lease) as heart, scratch() as folder:
        recorded = read_record(store, step.key)
        if recorded is not None:
            if dropped(store, step.key) is None:
                return recorded
            set_aside(store, step.key, "dropped")
        work = Work(
            step, site, store, attempt, folder, listen, lambda: heart.lost or should_stop(), terms, crew, team
        )
        work.seconds["wait"] = max(0.0, begun - terms.ready) if terms.ready else 0.0
        try:
            return _done(work)
        except BaseException as problem:
            named = _named(problem, work, heart.lost)
            _leave_cause(work, named)
            if named is problem:
                raise
            raise named from problem


def _done(work: Work) -> StepRecord:
    """Does the body, publishes what it made, records it."""
    from xstilts.execute.bodies import BODIES

    begin = time.monotonic()
    with work.timed("load"):
        work.site = brought(work.step, work.site)
    with gauged(work.gauge):
        outcome = BODIES[work.step.kind](work)
    with work.timed("save"):
        outputs = _publish(work, outcome)
    record = _record(work, outcome, outputs, time.monotonic() - begin)
    if not work.store.create(work.paths.record, record.to_json()):
        work.note("another attempt was recorded first; its result is used")
        return read_record(work.store, work.step.key) or record
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


def _named(problem: BaseException, work: Work, taken_over: bool) -> BaseException:
    """What an exception means for the step, where it does not say so itself."""
    if isinstance(problem, Interrupted) and taken_over:
        return Elsewhere("another driver's worker took it over")
    if isinstance(problem, OSError | SafetensorError) and _is_full(problem):
        remedy = "free some space there or set TMPDIR, then run again; finished steps are kept"
        return StoreError(f"the scratch folder {work.scratch} is full", remedy)
    return problem


def _leave_cause(work: Work, problem: BaseException) -> None:
    """Writes why the attempt ended; a store that cannot take even that does not hide the problem."""
    try:
        cause = classify(problem)
        leave(work.store, work.step.key, work.attempt, cause, str(problem), type(problem).__name__)
    except XstiltsError as second:
        work.note(f"the cause could not be written to the store either ({second})")
