"""Rows from the data folder or from the generated world, checked against the identity they are asked for by.

A file is read only if its SHA-256 is the one that the plan was made with: nothing stale is ever trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

from xstilts.errors import DataError
from xstilts.families import originals
from xstilts.frozen import stream
from xstilts.tasks import reserved, world
from xstilts.tasks.manifest import PULL, paths_of, sha256_of
from xstilts.tasks.task import Holdout, Keep, Rows

_sums: dict[tuple[str, int, int], str] = {}
"""(path, size, time of change) -> SHA-256, so that a file is summed once a process."""


def read(rows: Rows, data: Path | None, made: Mapping[str, Path] | None = None) -> list[dict[str, Any]]:
    """The rows, in published order, then those of `more`; of each part what `keep`, `without` and `holdout`
    leave. With `first`, so many of them, one of each part in turn: the first 500 of ANLI+'s dev would else be
    of ANLI's first round alone. `made`: key of the step that made rows -> the file.

    Raises:
        DataError: a file is missing, empty, truncated, not the one of the manifest, or leaves no row.
    """
    parts = [_part(part, data, made or {}) for part in (rows, *rows.more)]
    found = [row for part in parts for row in part] if rows.first is None else _dealt(parts, rows.first)
    if not found:
        raise DataError(f"{_named(rows)} has no rows", "choose another split, or pull the data again")
    return found


def _dealt(parts: Sequence[Sequence[dict[str, Any]]], count: int) -> list[dict[str, Any]]:
    turns = zip_longest(*parts)
    return list(islice((row for turn in turns for row in turn if row is not None), count))


def nested_subset(n: int, fraction: float, seed: int) -> list[int]:
    """Indices of a share of n rows, ascending; those of a smaller fraction are among those of a larger.

    Rows are ranked by a hash of (seed, index), so that a row keeps its rank whatever n is. At least one row.
    """
    if fraction >= 1:
        return list(range(n))
    own = stream(seed, "subset")
    rank = {index: hashlib.sha256(f"{own}/{index}".encode()).digest() for index in range(n)}
    return sorted(sorted(rank, key=rank.__getitem__)[: max(1, round(fraction * n))])


def in_selection(value: Any, share: float) -> bool:
    """Whether rows with this value are held out for selection: the same answer on every machine."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
    drawn = int.from_bytes(hashlib.sha256(f"holdout/{text}".encode()).digest()[:8], "big")
    return drawn < share * 2**64


def _part(rows: Rows, data: Path | None, made: Mapping[str, Path]) -> list[dict[str, Any]]:
    if rows.world is not None:
        found = list(world.rows(rows.world, rows.config, rows.split))
    elif rows.made_by:
        found = _table(made[rows.made_by])
    else:
        found = _published(rows, data)
    if rows.keep is not None:
        found = [row for row in found if _kept(row, rows.keep)]
    if rows.without:
        found = [row for row in found if not reserved.LISTS[rows.without](row)]
    return found if rows.holdout is None else _side(rows, rows.holdout, found)


def _published(rows: Rows, data: Path | None) -> list[dict[str, Any]]:
    if data is None:
        raise DataError(f"{_named(rows)} is needed and no data folder is known", PULL)
    paths = paths_of(rows, data)
    for path, sha256 in zip(paths, rows.sha256, strict=len(rows.sha256) > 0):
        _check(path, sha256)
    if rows.reader:
        return originals.READERS[rows.reader](paths)
    alone = len(paths) == 1 and not (rows.more or rows.keep or rows.without or rows.holdout)
    return [row for path in paths for row in _table(path, rows.first if alone else None)]


def _kept(row: dict[str, Any], keep: Keep) -> bool:
    value = row.get(keep.column)
    return value not in keep.drop and (keep.prefix is None or str(value).startswith(keep.prefix))


def _check(path: Path, sha256: str) -> None:
    """Compares the file with its sum in the manifest; a file that has not changed is summed once."""
    try:
        state = path.stat()
    except OSError as problem:
        raise DataError(f"{path} is missing", PULL) from problem
    if state.st_size == 0:
        raise DataError(f"{path} is empty", "pull the data again")
    key = (str(path), state.st_size, state.st_mtime_ns)
    if key not in _sums:
        _sums[key] = sha256_of(path)
    if _sums[key] != sha256:
        if path.suffix == ".parquet":
            _table(path, 1)  # says so if the cause is that the file is cut off
        remedy = "pull the data again, then plan anew"
        raise DataError(f"{path} is not the file of the manifest: it changed since it was pulled", remedy)


def _table(path: Path, first: int | None = None) -> list[dict[str, Any]]:
    import pyarrow as pa  # 0.2 s, and rows of the world need none of it
    import pyarrow.parquet as pq

    try:
        if first is not None:  # Wikipedia's files hold 100,000 articles, of which a mixture may want few
            return _first(pq.ParquetFile(path).iter_batches(min(first, 10_000)), first)
        rows: list[dict[str, Any]] = pq.read_table(path, partitioning=None).to_pylist()
    except FileNotFoundError as problem:
        raise DataError(f"{path} is missing", PULL) from problem
    except (pa.ArrowException, OSError, UnicodeDecodeError) as problem:
        cause = f"{path} is truncated or no parquet file ({str(problem).splitlines()[0]})"
        raise DataError(cause, "pull the data again") from problem
    return rows


def _first(batches: Iterable[Any], count: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for batch in batches:
        found += batch.slice(0, count - len(found)).to_pylist()
        if len(found) >= count:
            break
    return found


def _side(rows: Rows, holdout: Holdout, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of `found` those that training, or selection, may have."""
    if found and holdout.by not in found[0]:
        remedy = f"it has {', '.join(sorted(found[0]))}; plan the job again"
        raise DataError(f"{_named(rows)} has no column {holdout.by!r}", remedy)
    held = holdout.part == "select"
    return [row for row in found if in_selection(row[holdout.by], holdout.share) == held]


def _named(rows: Rows) -> str:
    return f"{rows.path}, config {rows.config}, split {rows.split}"
