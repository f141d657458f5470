"""A real S3 endpoint for the tests marked s3: one gateway a session, in a folder of its own.

The fixtures are every test's: tests/conftest.py imports them.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[1]


def _rgw() -> ModuleType:
    """infra/local/rgw.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("rgw", REPO / "infra" / "local" / "rgw.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Ceph's RADOS gateway, as infra/local/rgw.py starts it (12 s); stopped by its own process ids."""
    rgw = _rgw()
    if absent := rgw.missing():
        pytest.skip(f"no {' '.join(absent)} here: install radosgw ceph-mon ceph-osd ceph-common")
    started = rgw.Gateway.start(tmp_path_factory.mktemp("rgw"))
    yield started
    started.stop()


@pytest.fixture
def aws(gateway: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a user of that endpoint, without anything of this machine's own."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "XSTILTS_S3_"))]:
        monkeypatch.delenv(name)
    for name, value in gateway.environment.items():
        monkeypatch.setenv(name, value)
    # A user has the choice that the store makes by itself; see xstilts.record.s3.
    monkeypatch.delenv("AWS_REQUEST_CHECKSUM_CALCULATION")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@pytest.fixture
def bucket(aws: None) -> str:
    """A bucket of the test's own."""
    import boto3

    name = f"b-{uuid.uuid4().hex[:12]}"
    boto3.session.Session().client("s3").create_bucket(Bucket=name)
    return name
