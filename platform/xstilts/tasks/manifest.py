"""What data is there: `manifest.json` of a data folder, as `xstilts data pull` writes it.

    {"version": 1, "files": [{"path": "datasets/facebook/xnli/de/test.parquet", "dataset": "facebook/xnli",
     "config": "de", "split": "test", "rows": 5010, "bytes": ..., "sha256": "...", ...}]}

Every file is listed, models too (`models/<name>/config.json`). Keys that are not read here are for people:
columns, licence, origin, note.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from xstilts.errors import DataError
from xstilts.tasks.task import Rows, Split

FILE = "manifest.json"
PULL = "run `xstilts data pull JOB`, or name a folder that holds it with --data"

Place = tuple[str, str, str]
"""Hub id, config, split."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a data folder."""

    path: str
    """Below the data folder, `/`-separated."""
    sha256: str
    bytes: int
    rows: int | None
    """None for files that are no rows."""
    place: Place | None
    """Which published split it holds, if any."""


class Manifest:
    """The files of one data folder, by the split they hold."""

    def __init__(self, folder: Path, entries: list[Entry]) -> None:
        self.folder = folder
        self.entries = tuple(entries)
        self._of: dict[Place, list[Entry]] = {}
        for entry in entries:
            if entry.place:
                self._of.setdefault(entry.place, []).append(entry)
        self._named = {entry.path: entry for entry in entries}

    @classmethod
    def load(cls, data: Path | None) -> Manifest:
        """Reads `manifest.json` in `data`.

        Raises:
            DataError: no data folder was named, it has no manifest, or the manifest is damaged.
        """
        if data is None:
            raise DataError("the job needs data from the hub and no data folder is known", PULL)
        path = data / FILE
        try:
            words = json.loads(path.read_bytes())
            entries = [_entry(file) for file in words["files"]]
        except (FileNotFoundError, NotADirectoryError) as problem:
            raise DataError(f"{data} holds no {FILE}", PULL) from problem
        except OSError as problem:
            raise DataError(f"{path} cannot be read ({problem.strerror})", "make it readable") from problem
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            remedy = f"it is truncated or was edited by hand ({problem!r}); pull the data again"
            raise DataError(f"{path} is no manifest", remedy) from problem
        return cls(data, entries)

    def holds(self, split: Split) -> bool:
        """Whether the rows of `split` are there, those of `more` included."""
        try:
            return all(self.files(each) for each in (split, *split.more))
        except DataError:
            return False

    def count(self, split: Split) -> int | None:
        """How many rows the published split has here, before any part of it is chosen; None: not known."""
        try:
            counts = [entry.rows for each in (split, *split.more) for entry in self.files(each)]
        except DataError:
            return None
        return None if None in counts else sum(count or 0 for count in counts)

    def configs(self, path: str) -> tuple[str, ...]:
        """Configs of a data set, sorted.

        Raises:
            DataError: there is no file of this data set.
        """
        found = {place[1] for place in self._of if place[0] == path}
        if not found:
            raise DataError(f"{self.folder} holds no data of {path!r}", PULL)
        return tuple(sorted(found))

    def rows(self, split: Split, language: str) -> Rows:
        """The identity of the rows of one split.

        Raises:
            DataError: it is not in this data folder; names the nearest that is, or who publishes it.
        """
        entries = self.files(split)
        return Rows(
            path=split.path,
            config=split.config,
            split=split.split,
            language=language,
            sha256=tuple(entry.sha256 for entry in entries),
            files=tuple(entry.path for entry in entries) if split.files else (),
            keep=split.keep,
            without=split.without,
            reader=split.reader,
            holdout=split.holdout,
            more=tuple(self.rows(each, language) for each in split.more),
        )

    def files(self, split: Split) -> list[Entry]:
        """The files that hold `split`, without those of `more`.

        Raises:
            DataError: one of them is not in this data folder.
        """
        if not split.files:
            return self._entries(split.place())
        return [entry for name in split.files for entry in self._originals(name, split)]

    def check(self, rows: Rows) -> None:
        """Compares sizes with the manifest, which takes no time; `families.reading` compares the bytes.

        Raises:
            DataError: a file is missing, empty, or of another size than when it was pulled.
        """
        for path in paths_of(rows, self.folder):
            entry = self._named.get(path.relative_to(self.folder).as_posix())
            if entry is None or not path.is_file():
                raise DataError(f"{path} is missing", PULL)
            found = path.stat().st_size
            if found == 0:
                raise DataError(f"{path} is empty", "pull the data again")
            if found != entry.bytes:
                sizes = f"{found} bytes, in the manifest {entry.bytes}"
                raise DataError(
                    f"{path} is truncated, or changed since it was pulled ({sizes})", "pull the data again"
                )
        for more in rows.more:
            self.check(more)

    def model(self, name: str) -> dict[str, str] | None:
        """File -> SHA-256 of the model folder `models/<name>`; None when there is no such model."""
        folder = f"models/{name}/"
        files = {
            entry.path.removeprefix(folder): entry.sha256
            for entry in self.entries
            if entry.path.startswith(folder)
        }
        return files or None

    def problems(self) -> Iterator[str]:
        """Reads every file and says which are missing or differ, one sentence each."""
        for entry in self.entries:
            path = self.folder / entry.path
            if not path.is_file():
                yield f"{entry.path} is missing"
            elif path.stat().st_size != entry.bytes or sha256_of(path) != entry.sha256:
                yield f"{entry.path} differs from the manifest"

    def _entries(self, place: Place) -> list[Entry]:
        if place in self._of:
            return self._of[place]
        known = {" ".join(there): there for there in self._of}
        near = difflib.get_close_matches(" ".join(place), known, n=1, cutoff=0.8)
        hint = f"; the nearest there is {_spelt(known[near[0]])}" if near else ""
        raise DataError(f"{self.folder} holds no {_spelt(place)}", PULL + hint)

    def _originals(self, name: str, split: Split) -> list[Entry]:
        """Original files called `name`, or that match it, packed or not, by name."""
        found = {
            each.removesuffix(".gz"): self._named[each]
            for each in sorted(self._named, reverse=True)  # of a file that is there twice, the unpacked one
            if fnmatchcase(each.removesuffix(".gz"), name)
        }
        if found:
            return [found[each] for each in sorted(found)]
        where = f"its owner publishes it at {split.owner}; " if split.owner else ""
        raise DataError(
            f"{self.folder} holds no {name}",
            f"{where}put it there and run `xstilts data pull`, which enters it in the manifest",
        )


def paths_of(rows: Rows, data: Path) -> list[Path]:
    """Where the files of `rows` lie in a data folder, one for each of `sha256`; without those of `more`."""
    if rows.files:
        return [data / name for name in rows.files]
    folder = data / "datasets" / rows.path / rows.config
    count = len(rows.sha256)
    if count <= 1:
        return [folder / f"{rows.split}.parquet"]
    return [folder / f"{rows.split}-{number:05d}-of-{count:05d}.parquet" for number in range(count)]


def sha256_of(path: Path) -> str:
    """SHA-256 of the file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _spelt(place: Place) -> str:
    return f"{place[0]}, config {place[1]}, split {place[2]}"


def _entry(file: dict[str, Any]) -> Entry:
    dataset = file.get("dataset") or ""
    return Entry(
        path=file["path"],
        sha256=file["sha256"],
        bytes=file["bytes"],
        rows=file.get("rows"),
        place=(dataset, file["config"], file["split"]) if dataset else None,
    )
