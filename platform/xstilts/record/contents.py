"""What a store holds: its steps and their states, and where its bytes are. One listing, and the records."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from xstilts.record.artifacts import ArtifactStore, StepPaths
from xstilts.record.dropped import Dropped
from xstilts.record.fetched import DamagedObject
from xstilts.record.lease import Claim, standing
from xstilts.record.schema import StepRecord

ASKING = 16
"""Questions to a store at once: a bucket takes some 25 ms for each, and the paper's grid has 820 records."""

OLD_SECONDS = 24 * 3600.0
"""After which a lease has no holder, and a temporary file no writer, whatever clocks say: a holder writes its
lease every 15 s, and no upload of a file takes a day."""

KINDS = ("pretrain", "translate", "train", "search", "probe", "predict", "score")
STATES = ("recorded", "running", "failed", "stopped", "dropped", "damaged")
"""running: somebody works on it; failed: an attempt said why it ended; stopped: none could; dropped: it is
recorded, and outputs of it were removed since; damaged: its record cannot be read."""

WHATS = ("models", "checkpoints", "predictions", "items", "losing attempts", "unfinished", "records",
         "leases", "jobs", "mirror", "mlflow", "other")  # fmt: skip

_RUN = re.compile(r"runs/([^/]+)/(.+)")


@dataclass(frozen=True, slots=True)
class Holding:
    """One step in a store."""

    key: str
    files: Mapping[str, int]
    """Name within the step's folder -> bytes."""
    record: StepRecord | None = None
    damage: str = ""
    """Why there is a record and it cannot be read."""
    dropped: Dropped | None = None
    holder: str = ""
    """Who works on it; "" also when a lease was left behind."""

    @property
    def kind(self) -> str:
        """By its record, else by its name."""
        if self.record is not None:
            return self.record.kind
        word = self.key.partition("-")[0]
        return word if word in KINDS else ""

    @property
    def state(self) -> str:
        """One of STATES."""
        if self.damage:
            return "damaged"
        if self.record is not None:
            return "dropped" if self.dropped is not None and self.dropped.outputs else "recorded"
        if self.holder:
            return "running"
        return "failed" if any(name.startswith("attempts/") for name in self.files) else "stopped"

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(self.files.values())

    def what(self, name: str) -> str:
        """One of WHATS, for a file of this step."""
        if name == "lease.json" or name.startswith("taken/"):
            return "leases"
        run = _RUN.fullmatch(name)
        if run is None:
            return "records"
        if self.record is None:
            return "checkpoints" if run[2].startswith("checkpoints/") else "unfinished"
        if run[1] != self.record.attempt:
            return "losing attempts"
        if is_weights(run[2]):
            return "models"
        folder = run[2].partition("/")[0]
        return folder if folder in ("checkpoints", "predictions", "items") else "other"


@dataclass(slots=True)
class Usage:
    """Where the bytes of a store are."""

    kinds: Counter[str] = field(default_factory=Counter)
    """Kind of step -> bytes."""
    whats: Counter[str] = field(default_factory=Counter)
    """Sort of file -> bytes."""
    counts: Counter[str] = field(default_factory=Counter)
    """Sort of file -> files."""

    @property
    def bytes(self) -> int:
        """In all."""
        return self.whats.total()

    def count(self, what: str, size: int) -> None:
        """One more file."""
        self.whats[what] += size
        self.counts[what] += 1


def is_weights(name: str) -> bool:
    """Whether a file of an attempt belongs to a model: `model/...`, and heads beside it."""
    return name.startswith("model/") or (name.endswith(".safetensors") and "/" not in name)


def holdings(store: ArtifactStore) -> list[Holding]:
    """Every step of the store, by key.

    Raises:
        StoreError: the store cannot be asked. What is damaged is part of the answer.
    """
    return _holdings(store, store.sizes("steps/"))


def usage(store: ArtifactStore) -> Usage:
    """Where the bytes of the whole store are."""
    found, steps = Usage(), []
    for name, size in store.sizes(""):
        if name.startswith("steps/"):
            steps.append((name, size))
        else:
            top = name.partition("/")[0]
            found.count("mlflow" if top.startswith("ml") else top if top in WHATS else "other", size)
    for holding in _holdings(store, steps):
        found.kinds[holding.kind or "other"] += holding.bytes
        for name, size in holding.files.items():
            found.count(holding.what(name), size)
    return found


def _holdings(store: ArtifactStore, listed: Iterable[tuple[str, int]]) -> list[Holding]:
    files: dict[str, dict[str, int]] = {}
    for name, size in listed:
        _, key, *rest = name.split("/", 2)
        if rest:
            files.setdefault(key, {})[rest[0]] = size
    with ThreadPoolExecutor(ASKING) as pool:
        return list(pool.map(lambda key: _holding(store, key, files[key]), sorted(files)))


def holder_of(store: ArtifactStore, key: str) -> str:
    """Who works on a step; "" for nobody, or one that is certainly gone.

    Asked once, so unlike a driver that watches it cannot tell a holder that died from one that is silent.
    """
    data = standing(store, StepPaths(key))
    claim = Claim() if data is None else Claim.parse(data)
    # A lease that says nothing is nobody's: a holder would have written its own over it.
    if not claim.attempt or claim.is_gone:
        return ""
    with contextlib.suppress(ValueError, TypeError):
        if datetime.now(UTC) - datetime.fromisoformat(claim.heartbeat) > timedelta(seconds=OLD_SECONDS):
            return ""
    return claim.holder


def _holding(store: ArtifactStore, key: str, files: Mapping[str, int]) -> Holding:
    paths = StepPaths(key)
    data = note = None
    holder = holder_of(store, key) if "lease.json" in files else ""
    try:
        if "record.json" in files:
            data = store.read(paths.record)
        if data is None:
            return Holding(key, files, holder=holder)
        record = StepRecord.from_json(data)
        if record.key != key:
            return Holding(key, files, damage=f"it is the record of {record.key}")
        if "dropped.json" in files:
            note = store.read(paths.dropped)
        return Holding(key, files, record, "", Dropped.parse(note, record) if note else None, holder)
    except DamagedObject as problem:
        return Holding(key, files, damage=problem.problem)
    except ValueError as problem:
        return Holding(key, files, damage=_first(problem))


def _first(problem: ValueError) -> str:
    """What pydantic or json says, on one line."""
    return " ".join(str(problem).split())[:200]
