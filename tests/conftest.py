"""What all tests share: where real data lies, a store folder, thread limits, a private place for Ray."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway import aws, bucket, gateway  # noqa: F401  (fixtures)
from stack import cluster, make_stack, mlflow_server, postgres, whole_stack  # noqa: F401  (fixtures)

REPO = Path(__file__).resolve().parents[1]

# Before anything imports torch. On two cores the tiny models of the tests are faster with one thread
# than with two, and sums in another order would make bit-equality depend on the machine.
for name, value in {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
}.items():
    os.environ.setdefault(name, value)

_cluster_home: Path | None = None


@pytest.fixture(scope="session")
def mirror() -> Path:
    """Folder of real data with its manifest: XSTILTS_DATA, else ../shared/mirror beside the repository."""
    named = os.environ.get("XSTILTS_DATA")
    folder = Path(named) if named else REPO.parent / "shared" / "mirror"
    if not (folder / "manifest.json").is_file():
        pytest.skip("no mirror here: set XSTILTS_DATA")
    return folder


@pytest.fixture
def store_root(tmp_path: Path) -> Path:
    """A folder for a store; not there yet."""
    return tmp_path / "store"


@pytest.fixture(scope="session")
def chromium() -> str:
    """A browser that can run headless."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium here: install the package chromium")


MARKED = (
    ("mirror", "mirror"),
    ("chromium", "browser"),
    ("gateway", "s3"),
    ("cluster", "cluster"),
    ("whole_stack", "cluster"),
    ("whole_stack", "s3"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that use the mirror, the browser or the gateway are marked so."""
    for item in items:
        for fixture, marker in MARKED:
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests for a GPU skip where there is none. Asked of the driver: importing torch takes seconds."""
    if item.get_closest_marker("gpu"):
        asked = shutil.which("nvidia-smi")
        if asked is None or subprocess.run([asked, "-L"], capture_output=True, check=False).returncode:
            pytest.skip("no CUDA device here")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that starts Ray sees a home and a temporary folder of its own, before any fixture is made.

    A hook and not a fixture: fixtures of a module or a session come first, and may start Ray themselves.
    """
    if item.get_closest_marker("cluster") is None:
        return (yield)
    with _environment(HOME=_home(), RAY_TMPDIR=_home() / "ray"):
        return (yield)


def pytest_unconfigure() -> None:
    """Removes what Ray left behind."""
    if _cluster_home is not None:
        shutil.rmtree(_cluster_home, ignore_errors=True)


def _home() -> Path:
    """One short path a session: a Ray socket's path must stay below 108 characters."""
    global _cluster_home
    if _cluster_home is None:
        _cluster_home = Path(tempfile.mkdtemp(prefix="xs", dir="/tmp"))
        (_cluster_home / "ray").mkdir()
    return _cluster_home


@contextmanager
def _environment(**values: Path) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update({name: str(value) for name, value in values.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
