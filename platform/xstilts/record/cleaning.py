"""What of a store may go, and its removal: `xstilts store gc`. Deciding is apart from doing.

Of steps that are recorded: files of attempts that lost, checkpoints, leases that nobody holds any more. When
asked for, weights of trained models that no stored plan needs for a step still to run. Never a record, and
nothing of a step that is not recorded (its checkpoints are where it goes on) or that somebody works on.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from xstilts import __version__
from xstilts.errors import StoreError
from xstilts.record.artifacts import ArtifactStore, Leftover, StepPaths
from xstilts.record.contents import ASKING, OLD_SECONDS, Holding, holder_of, holdings, is_weights
from xstilts.record.dropped import Dropped, Removal, read_dropped, remade, stored_inputs
from xstilts.record.fetched import DamagedObject
from xstilts.record.schema import read_record

TRAINED = ("train", "pretrain")
"""Kinds of step that leave weights."""

Tell = Callable[[int, int], None]
"""Told (files removed, files to remove)."""


@dataclass(frozen=True, slots=True)
class Doomed:
    """Files of one step, of one sort."""

    key: str
    attempt: str
    """That of the record which makes them needless."""
    what: str
    """losing attempts | checkpoints | leases | models."""
    files: Mapping[str, int]
    """Name in the store -> bytes."""
    outputs: tuple[str, ...] = ()
    """Of the record, by name: models only."""

    @property
    def bytes(self) -> int:
        """That are freed."""
        return sum(self.files.values())


@dataclass(slots=True)
class Cleaning:
    """What would go, and what will not although one might think so."""

    doomed: list[Doomed] = field(default_factory=list)
    leftovers: list[Leftover] = field(default_factory=list)
    """What writers that died never finished."""
    skipped: dict[str, str] = field(default_factory=dict)
    """Key -> why its step is left alone."""
    kept: dict[str, str] = field(default_factory=dict)
    """Key -> which step of which job still needs its weights."""
    notes: list[str] = field(default_factory=list)

    @property
    def files(self) -> int:
        """That go."""
        return sum(len(each.files) for each in self.doomed) + len(self.leftovers)

    @property
    def bytes(self) -> int:
        """That are freed."""
        return sum(each.bytes for each in self.doomed) + sum(each.bytes for each in self.leftovers)


def look(store: ArtifactStore, models: str | None = None) -> Cleaning:
    """What may go; removes nothing. `models`: a pattern of keys whose weights may go too, "*" for all.

    Raises:
        StoreError: the store cannot be asked, or with `models` a stored plan cannot be read.
    """
    held = holdings(store)
    done = {each.key: each for each in held if each.record is not None}
    needed = needed_by(store, done) if models is not None else {}
    found = Cleaning()
    for each in held:
        if each.damage:
            found.skipped[each.key] = "its record is damaged: see `xstilts store verify`"
    for key, each in done.items():
        doomed = list(_needless(each))
        if models is not None and fnmatchcase(key, models):
            weights = _weights(each)
            if weights is not None and key in needed:
                found.kept[key] = needed[key]
            elif weights is not None:
                doomed.append(weights)
        if doomed and each.holder:
            found.skipped[key] = f"{each.holder} works on it"
        else:
            found.doomed += doomed
    try:
        found.leftovers = list(store.leftovers(OLD_SECONDS))
    except StoreError as problem:  # roles of a bucket often may not; all else can go without it
        found.notes.append(f"unfinished uploads are left out ({problem})")
    return found


def carry_out(store: ArtifactStore, cleaning: Cleaning, tell: Tell = lambda done, of: None) -> Cleaning:
    """Removes what `look` found, as far as it is still so; what went.

    A step's dropped.json is written before anything of it goes: ended half-way, the rest goes another time.

    Raises:
        StoreError: the store refuses.
    """
    gone = Cleaning(notes=list(cleaning.notes), kept=dict(cleaning.kept), skipped=dict(cleaning.skipped))
    by_step: dict[str, list[Doomed]] = {}
    for each in cleaning.doomed:
        by_step.setdefault(each.key, []).append(each)
    with ThreadPoolExecutor(ASKING) as pool:
        for key, doomed in by_step.items():
            if why := _changed(store, key, doomed[0].attempt):
                gone.skipped[key] = why
                continue
            _note(store, key, doomed)
            for each in doomed:
                list(pool.map(store.delete, each.files))
                gone.doomed.append(each)
                tell(gone.files, cleaning.files)
        for leftover in cleaning.leftovers:
            store.discard(leftover)
            gone.leftovers.append(leftover)
            tell(gone.files, cleaning.files)
    return gone


def needed_by(store: ArtifactStore, done: Mapping[str, Holding]) -> dict[str, str]:
    """Key -> which step of which job starts from it and is still to run, by all plans that the store keeps.

    Raises:
        StoreError: a plan cannot be read: what it needs is then not known.
    """
    needed: dict[str, str] = {}
    for name, plan in stored_plans(store):
        try:
            inputs = stored_inputs(plan)
        except ValueError as problem:
            remedy = "run its job again, or remove the file"
            raise StoreError(f"{name} in {store.location} cannot be read, so what it needs is unknown",
                             remedy) from problem  # fmt: skip
        again = remade(inputs, done.keys(), lambda key: _lacks(done[key]))
        for step, starts in inputs:
            if step not in done or step in again:
                needed |= {key: f"{step} of job {name.split('/')[1]} needs it" for key in starts}
    return needed


def stored_plans(store: ArtifactStore) -> Iterator[tuple[str, Mapping[str, object]]]:
    """(name, plan) of every plan that the store keeps; {} for what is no JSON."""
    for name in store.list("jobs/"):
        _, _, file = name.rpartition("/")
        if name.count("/") == 2 and file.startswith("plan-") and file.endswith(".json"):
            plan: object = None
            with contextlib.suppress(ValueError, DamagedObject):
                plan = json.loads(store.read(name) or b"{}")
            yield name, plan if isinstance(plan, dict) else {}


def _lacks(holding: Holding) -> bool:
    return holding.state == "dropped"


def _needless(holding: Holding) -> Iterator[Doomed]:
    """What a recorded step does not need: everything but the winner's files, less its checkpoints."""
    record = holding.record
    assert record is not None
    outputs = {output.path for output in record.outputs.values()}
    for what in ("losing attempts", "checkpoints", "leases"):
        files = [name for name in holding.files if holding.what(name) == what and name not in outputs]
        if files:
            yield _doomed(holding, what, files)


def _weights(holding: Holding) -> Doomed | None:
    """The weights of a trained model, as far as they are still there."""
    record = holding.record
    assert record is not None
    if record.kind not in TRAINED:
        return None
    start = f"runs/{record.attempt}/"
    found = {
        name: output.path
        for name, output in record.outputs.items()
        if output.path in holding.files and is_weights(output.path.removeprefix(start))
    }
    return _doomed(holding, "models", list(found.values()), tuple(found)) if found else None


def _doomed(holding: Holding, what: str, names: Sequence[str], outputs: Collection[str] = ()) -> Doomed:
    assert holding.record is not None
    root = StepPaths(holding.key).root
    files = {f"{root}/{name}": holding.files[name] for name in names}
    return Doomed(holding.key, holding.record.attempt, what, files, tuple(outputs))


def _changed(store: ArtifactStore, key: str, attempt: str) -> str:
    """Why what was found of a step may not hold any more; "" when it does."""
    record = read_record(store, key)
    if record is None or record.attempt != attempt:
        return "it has been made again meanwhile"
    holder = holder_of(store, key)
    return f"{holder} works on it" if holder else ""


def _note(store: ArtifactStore, key: str, doomed: Sequence[Doomed]) -> None:
    """Adds what is about to go to the step's dropped.json."""
    record = read_record(store, key)
    assert record is not None
    before = read_dropped(store, record) or Dropped(attempt=record.attempt)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    removed = [
        Removal(what=each.what, files=len(each.files), bytes=each.bytes, when=now, version=__version__)
        for each in doomed
    ]
    outputs = {*before.outputs, *(name for each in doomed for name in each.outputs)}
    after = Dropped(
        attempt=record.attempt, outputs=tuple(sorted(outputs)), removed=(*before.removed, *removed)
    )
    store.put(StepPaths(key).dropped, after.to_json())
