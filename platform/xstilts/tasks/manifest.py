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
        self._of = {entry.place: entry for entry in entries if entry.place}

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
        """Whether the rows of `split` are there."""
        return split.place() in self._of

    def count(self, split: Split) -> int | None:
        """How many rows the published split has here, before any part of it is chosen; None: not there."""
        entry = self._of.get(split.place())
        return entry.rows if entry else None

    def configs(self, path: str) -> tuple[str, ...]:
        """The configs that are there of the hub id `path`, sorted: the languages of raw text."""
        return tuple(sorted({place[1] for place in self._of if place[0] == path}))

    def rows(self, split: Split, language: str) -> Rows:
        """The identity of the rows of `split`, whose `{code}` is filled in already (`split.at(code)`).

        Raises:
            DataError: they are not there; names the nearest that are.
        """
        files = [self._entry(split.place())]
        if split.exclude_contexts_of is not None:
            files.append(self._entry(place_of(split.exclude_contexts_of)))
        return Rows(
            path=split.path,
            config=split.config,
            split=split.split,
            language=language,
            sha256=tuple(entry.sha256 for entry in files),
            exclude_contexts_of=split.exclude_contexts_of,
            holdout=split.holdout,
        )

    def check(self, rows: Rows) -> None:
        """Compares sizes with the manifest, which takes no time; `families.reading` compares the bytes.

        Raises:
            DataError: a file is missing, empty, or of another size than when it was pulled.
        """
        places = [(rows.path, rows.config, rows.split)]
        if rows.exclude_contexts_of is not None:
            places.append(place_of(rows.exclude_contexts_of))
        for place in places:
            path, size = file_of(place, self.folder), self._entry(place).bytes
            if not path.is_file():
                raise DataError(f"{path} is missing", PULL)
            found = path.stat().st_size
            if found == 0:
                raise DataError(f"{path} is empty", "pull the data again")
            if found != size:
                sizes = f"{found} bytes, in the manifest {size}"
                raise DataError(
                    f"{path} is truncated, or changed since it was pulled ({sizes})", "pull the data again"
                )

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

    def _entry(self, place: Place) -> Entry:
        if place in self._of:
            return self._of[place]
        known = {" ".join(there): there for there in self._of}
        near = difflib.get_close_matches(" ".join(place), known, n=1, cutoff=0.8)
        hint = f"; the nearest there is {_spelt(known[near[0]])}" if near else ""
        raise DataError(f"{self.folder} holds no {_spelt(place)}", PULL + hint)


def place_of(text: str) -> Place:
    """ "google/xtreme/XQuAD.en/validation" as hub id, config and split."""
    path, config, split = text.rsplit("/", 2)
    return path, config, split


def file_of(place: Place, data: Path) -> Path:
    """Where the rows of a published split lie in a data folder."""
    path, config, split = place
    return data / "datasets" / path / config / f"{split}.parquet"


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
