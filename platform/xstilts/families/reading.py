"""Rows from the data folder or from the generated world, checked against the identity they are asked for by.

A file is read only if its SHA-256 is the one that the plan was made with: nothing stale is ever trained on.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from xstilts.errors import DataError
from xstilts.frozen import stream
from xstilts.tasks import world
from xstilts.tasks.manifest import PULL, Place, file_of, place_of, sha256_of
from xstilts.tasks.task import Holdout, Rows

_sums: dict[tuple[str, int, int], str] = {}
"""(path, size, time of change) -> SHA-256, so that a file is summed once a process."""


def read(rows: Rows, data: Path | None) -> list[dict[str, Any]]:
    """The rows, in published order; of them `exclude_contexts_of`, `holdout` and `first`, in this order.

    Raises:
        DataError: the file is missing, empty, truncated, not the one of the manifest, or leaves no row.
    """
    if rows.world is not None:
        found = list(world.rows(rows.world, rows.config, rows.split))
    else:
        found = _published(rows, data)
    if rows.holdout is not None:
        found = _part(rows, rows.holdout, found)
    found = found[: rows.first]
    if not found:
        raise DataError(f"{_named(rows)} has no rows", "choose another split, or pull the data again")
    return found


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


def _published(rows: Rows, data: Path | None) -> list[dict[str, Any]]:
    if data is None:
        raise DataError(f"{_named(rows)} is needed and no data folder is known", PULL)
    places: list[Place] = [(rows.path, rows.config, rows.split)]
    if rows.exclude_contexts_of is not None:
        places.append(place_of(rows.exclude_contexts_of))
    paths = [file_of(place, data) for place in places]
    for path, sha256 in zip(paths, rows.sha256, strict=len(rows.sha256) > 0):
        _check(path, sha256)
    if rows.exclude_contexts_of is None:
        whole = rows.holdout is not None
        return _table(paths[0], None if whole else rows.first)
    left_out = {_collapsed(row["context"]) for row in _table(paths[1])}
    return [row for row in _table(paths[0]) if _collapsed(row["context"]) not in left_out]


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
        _table(path, 1)  # says so if the cause is that the file is cut off
        remedy = "pull the data again, then plan anew"
        raise DataError(f"{path} is not the file of the manifest: it changed since it was pulled", remedy)


def _table(path: Path, first: int | None = None) -> list[dict[str, Any]]:
    import pyarrow as pa  # 0.2 s, and rows of the world need none of it
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, partitioning=None)
    except FileNotFoundError as problem:
        raise DataError(f"{path} is missing", PULL) from problem
    except (pa.ArrowException, OSError) as problem:
        cause = f"{path} is truncated or no parquet file ({str(problem).splitlines()[0]})"
        raise DataError(cause, "pull the data again") from problem
    rows: list[dict[str, Any]] = table.slice(0, first).to_pylist()
    return rows


def _part(rows: Rows, holdout: Holdout, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of `found` those that training, or selection, may have."""
    if found and holdout.by not in found[0]:
        remedy = f"it has {', '.join(sorted(found[0]))}; plan the job again"
        raise DataError(f"{_named(rows)} has no column {holdout.by!r}", remedy)
    held = holdout.part == "select"
    return [row for row in found if in_selection(row[holdout.by], holdout.share) == held]


def _collapsed(text: str) -> str:
    return " ".join(text.split())


def _named(rows: Rows) -> str:
    return f"{rows.path}, config {rows.config}, split {rows.split}"
