"""Whether a store holds what its records say, and what to do where it does not: `xstilts store verify`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from xstilts.record.artifacts import ArtifactStore, StepPaths
from xstilts.record.cleaning import stored_plans
from xstilts.record.contents import Holding, holdings
from xstilts.record.dropped import set_aside, stored_inputs
from xstilts.record.lease import Lease
from xstilts.record.schema import Output

READING = 8
"""Files at once; one stream from a bucket is about 60 MB/s, and one core digests more than that."""

AGAIN = "`xstilts store verify --repair` sets its record aside, and the next run makes it again"

Tell = Callable[["Verdict"], None]


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is wrong."""

    key: str
    """Of the step; "" for a file of a job."""
    name: str
    """In the store."""
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Orphan:
    """Files of an attempt that neither won nor said why it ended, and that nobody works on. No damage."""

    key: str
    attempt: str
    files: int
    bytes: int


@dataclass(slots=True)
class Verdict:
    """What a check has found so far."""

    steps: int = 0
    """With a record."""
    outputs: int = 0
    """Files that their records name, but for those that gc took."""
    right: int = 0
    """Outputs that are as recorded."""
    files: int = 0
    """Outputs that are to be compared: there, and of the right size."""
    bytes: int = 0
    checked: int = 0
    checked_bytes: int = 0
    damage: list[Damage] = field(default_factory=list)
    orphans: list[Orphan] = field(default_factory=list)
    repaired: dict[str, str] = field(default_factory=dict)
    """Key -> where its record lies now."""
    busy: list[str] = field(default_factory=list)
    """Keys that were not repaired, since somebody works on them."""


@dataclass(frozen=True, slots=True)
class _File:
    key: str
    name: str
    output: Output


def verify(store: ArtifactStore, quick: bool = False, tell: Tell = lambda verdict: None) -> Verdict:
    """Compares every output of every record with what is there. `quick` reads no file: it compares sizes, and
    of a bucket the SHA-256 that was written down beside the file.

    Raises:
        StoreError: the store cannot be asked. All that is damaged is in the verdict.
    """
    found = Verdict()
    files: list[_File] = []
    for holding in holdings(store):
        found.orphans += _orphans(holding)
        if holding.damage:
            name = StepPaths(holding.key).record
            problem = f"the record cannot be used: {holding.damage}"
            found.damage.append(Damage(holding.key, name, problem, AGAIN))
        elif holding.record is not None:
            found.steps += 1
            wrong = len(found.damage)
            there = list(_to_read(holding, found.damage))
            found.outputs += len(there) + len(found.damage) - wrong
            files += there
    found.damage += _damaged_plans(store)
    found.files, found.bytes = len(files), sum(each.output.bytes for each in files)
    for each, checksum in _checksums(store, files, quick):
        found.checked += 1
        found.checked_bytes += each.output.bytes
        if checksum is None:
            found.damage.append(Damage(each.key, each.name, "it is missing", AGAIN))
        elif checksum not in ("", each.output.sha256):
            problem = "its bytes are not those that were recorded"
            found.damage.append(Damage(each.key, each.name, problem, AGAIN))
        else:
            found.right += 1
        tell(found)
    return found


def repair(store: ArtifactStore, verdict: Verdict, attempt: str, holder: str) -> None:
    """Sets aside the record of every damaged step that nobody works on, and says so in the verdict.

    Nothing else is removed: `store gc` takes the files once the step is recorded anew.
    """
    for key in sorted({damage.key for damage in verdict.damage if damage.key}):
        lease = Lease.take(store, StepPaths(key), attempt, holder)
        if lease is None:
            verdict.busy.append(key)
            continue
        try:
            verdict.repaired[key] = set_aside(store, key, "damaged")
        finally:
            lease.release()


def _checksums(store: ArtifactStore, files: list[_File], quick: bool) -> Iterator[tuple[_File, str | None]]:
    """In the order of `files`."""
    pool = ThreadPoolExecutor(READING)
    try:
        yield from zip(
            files, pool.map(lambda each: store.checksum(each.name, noted=quick), files), strict=True
        )
    finally:
        # Ctrl-C need not wait for the rest of a terabyte.
        pool.shutdown(cancel_futures=True)


def _to_read(holding: Holding, damage: list[Damage]) -> Iterator[_File]:
    """The outputs that are there with their right size; the others are damage, but for those that gc took."""
    assert holding.record is not None
    gone = holding.dropped.outputs if holding.dropped is not None else ()
    for name, output in holding.record.outputs.items():
        place = f"{StepPaths(holding.key).root}/{output.path}"
        size = holding.files.get(output.path)
        if size is None:
            if name not in gone:
                damage.append(Damage(holding.key, place, "it is missing", AGAIN))
        elif size != output.bytes:
            problem = f"it has {size} bytes, and {output.bytes} were recorded"
            damage.append(Damage(holding.key, place, problem, AGAIN))
        else:
            yield _File(holding.key, place, output)


def _orphans(holding: Holding) -> Iterator[Orphan]:
    if holding.holder:
        return
    won = holding.record.attempt if holding.record is not None else ""
    files: dict[str, list[int]] = {}
    for name, size in holding.files.items():
        top, _, rest = name.partition("/")
        if top == "runs":
            files.setdefault(rest.partition("/")[0], []).append(size)
    for attempt, sizes in files.items():
        if attempt != won and f"attempts/{attempt}.json" not in holding.files:
            yield Orphan(holding.key, attempt, len(sizes), sum(sizes))


def _damaged_plans(store: ArtifactStore) -> Iterator[Damage]:
    for name, plan in stored_plans(store):
        try:
            stored_inputs(plan)
        except ValueError:
            job = name.split("/")[1]
            remedy = f"run job {job} again, or remove the file"
            yield Damage("", name, "the plan cannot be read", remedy)
