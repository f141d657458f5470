"""Which code and libraries made a result. Recorded, never identity."""

from __future__ import annotations

import functools
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import xstilts
from xstilts.frozen import Json

LIBRARIES = ("torch", "transformers", "tokenizers", "ray", "optuna", "pyarrow")


@functools.cache
def provenance() -> dict[str, Json]:
    """Versions, commit (with "+changes" when the tree differs from it), machine."""
    return {
        "xstilts": xstilts.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: found for name in LIBRARIES if (found := _version(name))},
    }


@functools.cache
def commit() -> str | None:
    """The commit of the source tree this package runs from; None when it is not a git checkout."""
    root = Path(xstilts.__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+changes" if _git(root, "status", "--porcelain", "--", "platform") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
