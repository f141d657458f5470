"""Fills a data folder or bucket with what a suite, a task or a job reads: a mirror first, the hub second.

Everything is looked up before anything is fetched, so that a full disk is known at once. What cannot be had
is collected; the rest goes on. Files that are there and right are kept, so that running it again goes on.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypeVar

from xstilts.errors import DataError, StoreError, XstiltsError
from xstilts.execute.hub import Dataset, Hub, HubFile, Stopped, last_config, of_model
from xstilts.execute.mirror import Mirror, Words, measured, new_words, open_mirror, read_words
from xstilts.execute.wanted import Failure, Tally, named, own, repository, unserved
from xstilts.families import snapshot
from xstilts.plan.needs import Needs
from xstilts.spec.experiment import ModelSpec
from xstilts.tasks.manifest import FILE, Manifest, sha256_of
from xstilts.tasks.task import Split

TICK = 0.5
"""Seconds between two looks at how far it is."""
SUPPLIED = "put here by hand"

Item = TypeVar("Item")


@dataclass
class Outcome:
    """What a pull came to; counts are splits, models and original files."""

    kept: int = 0
    copied: int = 0
    fetched: int = 0
    entered: int = 0
    """Original files that lay in the folder and are listed now."""
    bytes: int = 0
    """That came from the hub or from another mirror."""
    failures: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether all that is needed is there."""
        return not self.failures


@dataclass(frozen=True, slots=True)
class Piece:
    """One file on its way: from another mirror, from the hub, or there already and only to be listed."""

    path: str
    """Below the mirror."""
    size: int
    source: Path | HubFile | None
    sha256: str = ""
    """Known before it comes; "" for small files of the hub."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Files that are listed together or not at all: one split, one model, or one original file."""

    what: str
    words: tuple[Words, ...]
    """What the manifest will say of each piece, as far as it is known."""
    pieces: tuple[Piece, ...]


def pull(
    needs: Needs,
    to: str,
    source: Path | None = None,
    parallel: int = 8,
    listen: Callable[[Tally], None] = lambda tally: None,
    hub: Hub | None = None,
) -> Outcome:
    """Puts what `needs` names at `to`, a folder or s3://bucket/prefix; `source` is a mirror to copy from.

    Raises:
        StoreError: `to` cannot be written, or has too little space.
        DataError: a manifest is damaged, or another pull is writing there.
    """
    with open_mirror(to) as mirror:
        same = source is not None and mirror.root is not None and source.resolve() == mirror.root.resolve()
        other = None if same else source
        work = _Pull(mirror, Manifest.load(other) if other else None, hub or Hub(), parallel, listen)
        units = work.look(needs)
        work.check_space(units)
        work.take(units)
        return work.outcome


class _Pull:
    """One pull. Its methods run in this order: look, check_space, take."""

    def __init__(
        self,
        mirror: Mirror,
        other: Manifest | None,
        hub: Hub,
        parallel: int,
        listen: Callable[[Tally], None],
    ) -> None:
        self.outcome = Outcome()
        self._mirror, self._other, self._hub = mirror, other, hub
        self._other_words = read_words(other.folder) if other else {}
        self._there = mirror.words()
        self._parallel, self._listen = parallel, listen
        self._tally, self._counting = Tally(), threading.Lock()
        self._claimed: set[str] = set()
        """Original files and patterns that a split was given already: splits share some."""

    def look(self, needs: Needs) -> list[Unit]:
        """What is to be copied, fetched or listed. What is there is counted as kept."""
        found: list[Unit] = []
        asked: list[Split | ModelSpec] = []
        originals = self._mirror.originals()

        def here(need: Split | ModelSpec) -> None:
            if isinstance(need, Split) and need.files:
                found.extend(self._originals(need, originals))
            elif self._kept(need):
                self._count(kept=1)
            elif (unit := self._unlisted(need) or self._copied(need)) is not None:
                found.append(unit)
            else:
                asked.append(need)

        every: list[Split | ModelSpec] = [*needs.splits, *(each for each in needs.models if not own(each))]
        self._each("looking", every, here)
        by_repository: dict[tuple[type, str], list[Split | ModelSpec]] = {}
        for need in asked:
            by_repository.setdefault((type(need), repository(need)), []).append(need)
        self._each("asking the hub", list(by_repository.values()), lambda each: found.extend(self._ask(each)))
        return sorted(found, key=lambda unit: unit.what)

    def check_space(self, units: Iterable[Unit]) -> None:
        """Refuses to begin what the disk cannot hold.

        Raises:
            StoreError: says how much is needed.
        """
        sizes = sorted(
            (sum(piece.size for piece in unit.pieces if piece.source) for unit in units), reverse=True
        )
        # Of a bucket only what is on its way lies on this machine.
        needed = sum(sizes if self._mirror.root else sizes[: self._parallel])
        if needed > self._mirror.free():
            where = self._mirror.root or self._mirror.staging
            cause = f"{where} has {self._mirror.free():,} bytes free and {needed:,} are to come"
            raise StoreError(cause, "free some space or choose another --to; nothing was fetched yet")

    def take(self, units: Sequence[Unit]) -> None:
        """Copies, fetches and lists."""
        self._tally.of_bytes = sum(piece.size for unit in units for piece in unit.pieces if piece.source)
        self._each("fetching", units, self._take)

    def _each(self, doing: str, items: Sequence[Item], act: Callable[[Item], object]) -> None:
        """Does `act` for all items, some at once, and tells how far it is."""
        tally = self._tally
        tally.doing, tally.done, tally.of = doing, 0, len(items)
        pool = ThreadPoolExecutor(self._parallel, "pull")
        try:
            waiting = {pool.submit(act, item) for item in items}
            while waiting:
                ended, waiting = wait(waiting, TICK, FIRST_COMPLETED)
                for each in ended:
                    each.result()
                tally.done, tally.failed = len(items) - len(waiting), len(self.outcome.failures)
                self._listen(tally)
        except BaseException:
            self._hub.stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _kept(self, need: Split | ModelSpec) -> bool:
        """Whether all its files are listed and as listed."""
        listed = _entries(need, self._there.values())
        return bool(listed) and all(self._mirror.whole(each) for each in listed)

    def _unlisted(self, need: Split | ModelSpec) -> Unit | None:
        """How to list a model that somebody put into the folder."""
        if isinstance(need, Split) or self._mirror.root is None or self._there_is(need):
            return None
        return _by_hand(need, self._mirror.root, copied=False)

    def _there_is(self, model: ModelSpec) -> bool:
        return any(path.startswith(f"models/{model.name}/") for path in self._there)

    def _copied(self, need: Split | ModelSpec) -> Unit | None:
        """How to copy it from the other mirror; None when that has it not."""
        if self._other is None:
            return None
        listed = _entries(need, self._other_words.values())
        if listed:
            return _copy(named(need), listed, self._other.folder)
        return None if isinstance(need, Split) else _by_hand(need, self._other.folder, copied=True)

    def _ask(self, needs: list[Split | ModelSpec]) -> list[Unit]:
        """What the hub has of one repository."""
        dataset, found = self._hub.dataset(repository(needs[0])), []
        for need in needs:
            try:
                found.append(self._listed(need, dataset))
            except XstiltsError as problem:
                self._fail(named(need), problem)
        return found

    def _listed(self, need: Split | ModelSpec, dataset: Dataset) -> Unit:
        if isinstance(need, ModelSpec):
            published = self._hub.model(need.name, need.revision)
            names = [f"models/{need.name}/{file.name}" for file in published.files]
            place = ("", "", "")
        else:
            published = dataset.split(need.config, need.split)
            names = _shards(need, len(published.files))
            place = need.place()
        pieces = tuple(
            Piece(name, file.size, file, file.sha256)
            for name, file in zip(names, published.files, strict=True)
        )
        words = tuple(
            new_words(name, place, published.licence, file.origin, published.note)
            for name, file in zip(names, published.files, strict=True)
        )
        return Unit(named(need), words, pieces)

    def _originals(self, split: Split, there: list[str]) -> list[Unit]:
        """Units for the original files of `split`; those that nobody has are failures that name the owner."""
        found = []
        for pattern in split.files:
            if self._taken(pattern):
                continue
            names = _plain_first(name for name in there if _fits(name, pattern))
            for name in names:
                if name != pattern and self._taken(name):
                    continue
                listed = self._there.get(name)
                if listed is not None and self._mirror.whole(listed):
                    self._count(kept=1)
                else:
                    words = new_words(name, ("", "", ""), "", "user-supplied", SUPPLIED)
                    found.append(Unit(name, (words,), (Piece(name, 0, None),)))
            if names:
                continue
            names = _plain_first(name for name in self._other_words if _fits(name, pattern))
            folder = self._other.folder if self._other else Path()
            new = [name for name in names if name == pattern or not self._taken(name)]
            found += [_copy(name, [self._other_words[name]], folder) for name in new]
            if not names:
                self._fail(pattern, unserved(split, self._mirror.store.location))
        return found

    def _take(self, unit: Unit) -> None:
        """All files of a unit, then their lines in the manifest."""
        try:
            lines = [self._file(piece, words) for piece, words in zip(unit.pieces, unit.words, strict=True)]
            self._mirror.enter(lines)
        except DataError as problem:
            self._fail(unit.what, problem)
            return
        source = unit.pieces[0].source
        way = "entered" if source is None else "copied" if isinstance(source, Path) else "fetched"
        self._count(**{way: 1, "bytes": sum(piece.size for piece in unit.pieces if piece.source)})
        note = str(unit.words[0].get("note", ""))
        if way == "copied" and note.startswith("partial"):
            with self._counting:
                self.outcome.notes.append(f"{unit.what}: {note} (so says the mirror that it was copied from)")

    def _file(self, piece: Piece, words: Words) -> Words:
        """Puts one file in its place; its line for the manifest."""
        if piece.source is None:
            return measured(words, self._mirror.local(piece.path))
        if self._lies_there(piece):
            self._came(piece.size)
            return measured(words, self._mirror.local(piece.path), piece.sha256)
        folder = self._mirror.staging / f"{threading.get_ident()}-{time.monotonic_ns()}"
        try:
            staged, sha256 = self._staged(piece, folder)
            line = measured(words, staged, sha256)
            self._mirror.put(staged, piece.path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return line

    def _lies_there(self, piece: Piece) -> bool:
        """Whether an earlier pull brought the file and ended before it was listed."""
        if self._mirror.root is None or not piece.sha256:
            return False
        path = self._mirror.root / piece.path
        return path.is_file() and path.stat().st_size == piece.size and sha256_of(path) == piece.sha256

    def _staged(self, piece: Piece, folder: Path) -> tuple[Path, str]:
        """The file under a name of its own, and its SHA-256."""
        if isinstance(piece.source, HubFile):
            return self._hub.fetch(piece.source, folder, self._came)
        assert piece.source is not None
        folder.mkdir()
        staged = folder / piece.source.name
        try:
            shutil.copyfile(piece.source, staged)
        except FileNotFoundError as problem:
            raise _damaged(piece.source) from problem
        except OSError as problem:
            reason = problem.strerror or str(problem)
            raise StoreError(
                f"{piece.source} cannot be copied ({reason})", "check both disks, then run it again"
            ) from problem
        if (sha256 := sha256_of(staged)) != (piece.sha256 or sha256):
            raise _damaged(piece.source)
        self._came(piece.size)
        return staged, sha256

    def _came(self, count: int) -> None:
        if self._hub.stop.is_set():
            raise Stopped
        with self._counting:
            self._tally.bytes += count

    def _count(self, **counts: int) -> None:
        with self._counting:
            for name, count in counts.items():
                setattr(self.outcome, name, getattr(self.outcome, name) + count)

    def _taken(self, name: str) -> bool:
        """Whether another split was given it; from now on it is."""
        with self._counting:
            before = name in self._claimed
            self._claimed.add(name)
            return before

    def _fail(self, what: str, error: XstiltsError) -> None:
        with self._counting:
            self.outcome.failures.append(Failure(what, error))


def _entries(need: Split | ModelSpec, listed: Iterable[Words]) -> list[Words]:
    """The lines of a manifest that are about it, by path."""
    if isinstance(need, ModelSpec):
        folder = f"models/{need.name}/"
        found = [each for each in listed if each["path"].startswith(folder)]
        # A mirror may hold a vocabulary alone, under the name of the model that it is of.
        found = found if any(each["path"].endswith(".safetensors") for each in found) else []
        wanted = f"{need.name}@{need.revision}"
        if need.revision is not None and any(each.get("origin") != wanted for each in found):
            return []
    else:
        found = [
            each
            for each in listed
            if (each.get("dataset"), each.get("config"), each.get("split")) == need.place()
        ]
    return sorted(found, key=lambda each: str(each["path"]))


def _copy(what: str, listed: list[Words], folder: Path) -> Unit:
    pieces = (Piece(each["path"], each["bytes"], folder / each["path"], each["sha256"]) for each in listed)
    return Unit(what, tuple(listed), tuple(pieces))


def _by_hand(model: ModelSpec, folder: Path, copied: bool) -> Unit | None:
    """The files of a model that a data folder holds without listing it, of whatever commit."""
    found = snapshot.find(model.name, folder)
    if found is None or model.revision is not None or not any(found.glob("*.safetensors")):
        return None
    paths = sorted((path for path in found.iterdir() if of_model(path.name)), key=last_config)
    names = [f"models/{model.name}/{path.name}" for path in paths]
    pieces = (
        Piece(name, path.stat().st_size, path if copied else None)
        for name, path in zip(names, paths, strict=True)
    )
    words = (new_words(name, ("", "", ""), "", "user-supplied", SUPPLIED) for name in names)
    return Unit(named(model), tuple(words), tuple(pieces))


def _shards(split: Split, count: int) -> list[str]:
    """Names below a mirror, as `tasks.manifest.paths_of` looks for them."""
    stem = f"datasets/{split.path}/{split.config}/{split.split}"
    if count == 1:
        return [f"{stem}.parquet"]
    return [f"{stem}-{number:05d}-of-{count:05d}.parquet" for number in range(count)]


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(name.removesuffix(".gz"), pattern)


def _plain_first(names: Iterable[str]) -> list[str]:
    """Each file once, the plain one where it lies beside a packed one."""
    found = set(names)
    return sorted(name for name in found if name.removesuffix(".gz") == name or name[:-3] not in found)


def _damaged(path: Path) -> DataError:
    return DataError(
        f"{path} is not the file that its mirror lists",
        "`xstilts data check` that mirror, or leave out --from",
    )


def text_languages(hub: Hub, to: str, source: Path | None) -> Callable[[str], tuple[str, ...]]:
    """Where the languages of raw text are looked up: in the folders that have some of it, else on the hub."""

    def languages(path: str) -> tuple[str, ...]:
        for folder in (source, None if "://" in to else Path(to).expanduser()):
            if folder is not None and (folder / FILE).is_file():
                try:
                    return Manifest.load(folder).configs(path)
                except DataError:  # not this one
                    continue
        return hub.dataset(path).configs()

    return languages
