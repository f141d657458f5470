"""The versions that are part of every key, and how a key is made.

A constant here, or the version of a kind of task (`tasks/kinds.py`), is bumped by hand when the same
description would give another result; never a git hash, which would re-buy everything at each commit.
`tests/golden` pins keys.
"""

from __future__ import annotations

from collections.abc import Mapping

from xstilts.frozen import Json, digest

VERSION = 2
"""Of the fingerprint itself: how identity becomes a digest. 2: rows name what is left out of them by a list
(`without`), not by a file that would have to be opened."""

STEP_VERSION: dict[str, int] = {
    "pretrain": 1,
    "translate": 1,
    "train": 1,
    "search": 2,
    "probe": 1,
    "predict": 1,
    "score": 1,
}
"""Of what each kind of step does."""


def fingerprint(kind: str, identity: Mapping[str, Json], inputs: Mapping[str, str]) -> str:
    """16 hex digits over kind, versions, identity and the digests of the steps it starts from."""
    starts = {role: key.rpartition("--")[2] for role, key in inputs.items()}
    return digest(
        {
            "fingerprint": VERSION,
            "kind": kind,
            "version": STEP_VERSION[kind],
            "is": dict(identity),
            "from": starts,
        }
    )
