"""A bucket keeps the store's promises: against Ceph's RADOS gateway, with faults that endpoints have."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

import xstilts
from made_up_store import MadeUpStore
from xstilts.errors import StoreError
from xstilts.record import checking, s3
from xstilts.record.s3 import S3Store

from .housekeeping import HousekeepingContract
from .leases import LeaseContract
from .store import StoreContract

pytestmark = pytest.mark.s3

UPLOADER = """
import sys
from pathlib import Path
from xstilts.record import s3
real = s3._transfer
def slow():
    settings = real()
    settings.max_bandwidth = 10_000_000
    print("begins", flush=True)
    return settings
s3._transfer = slow
s3.S3Store(sys.argv[1]).upload(Path(sys.argv[2]), "k")
"""


def client() -> Any:
    """As the user, past the store."""
    return boto3.session.Session().client("s3")


class TestS3Store(StoreContract):
    """Under a prefix of a new bucket."""

    @pytest.fixture
    def store(self, bucket: str) -> S3Store:
        return S3Store.open(f"s3://{bucket}/some/prefix")


class TestS3Leases(LeaseContract):
    """Of steps in a bucket."""

    @pytest.fixture
    def store(self, bucket: str) -> S3Store:
        return S3Store.open(f"s3://{bucket}")


class TestS3Housekeeping(HousekeepingContract):
    """Of a bucket, beside a folder."""

    @pytest.fixture
    def store(self, bucket: str) -> S3Store:
        return S3Store.open(f"s3://{bucket}/some/prefix")


@pytest.fixture
def store(bucket: str) -> S3Store:
    return S3Store.open(f"s3://{bucket}")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time-outs of a second."""
    monkeypatch.setattr(s3, "CONNECT_SECONDS", 1.0)
    monkeypatch.setattr(s3, "READ_SECONDS", 1.0)


@pytest.fixture
def frozen(gateway: Any) -> Iterator[Any]:
    """The gateway does not answer any more; it does when the test is over."""
    gateway.send(signal.SIGSTOP)
    yield gateway
    gateway.send(signal.SIGCONT)


def test_a_store_sees_nothing_beside_its_prefix(bucket: str) -> None:
    one, other, all_of_it = (S3Store.open(f"s3://{bucket}{prefix}") for prefix in ("/a", "/ab/", ""))
    one.put("k", b"1")
    other.put("k", b"2")
    assert (list(one.list("")), one.read("k")) == (["k"], b"1")
    assert (list(other.list("")), other.location) == (["k"], f"s3://{bucket}/ab")
    assert list(all_of_it.list("")) == ["a/k", "ab/k"]


def test_what_others_put_there_is_read(store: S3Store, bucket: str, tmp_path: Path) -> None:
    client().put_object(Bucket=bucket, Key="mirror/", Body=b"")
    client().put_object(Bucket=bucket, Key="mirror/x", Body=b"1")
    assert list(store.list("")) == ["mirror/x"]
    assert store.read("mirror/x") == b"1"
    assert store.local("mirror/x", tmp_path).read_bytes() == b"1"


def test_encrypts_when_asked(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XSTILTS_S3_SSE", "aws:kms")
    monkeypatch.setenv("XSTILTS_S3_KMS_KEY", "local-key")
    store = S3Store.open(f"s3://{bucket}")
    (tmp_path / "file").write_bytes(b"x" * 17_000_000)
    store.create("made", b"1")
    store.put("put", b"1")
    store.upload(tmp_path / "file", "file")
    for name in ("made", "put", "file"):
        assert client().head_object(Bucket=bucket, Key=name)["ServerSideEncryption"] == "aws:kms"
    assert store.local("file", tmp_path).read_bytes() == b"x" * 17_000_000


def test_an_endpoint_that_would_not_encrypt_is_refused(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ceph 16 takes the header for AES256 and stores in clear.
    monkeypatch.setenv("XSTILTS_S3_SSE", "AES256")
    with pytest.raises(StoreError, match="does not encrypt as XSTILTS_S3_SSE=AES256"):
        S3Store.open(f"s3://{bucket}")


def test_says_that_the_bucket_is_missing(aws: None) -> None:
    with pytest.raises(StoreError, match=r"no bucket not-there at http://127\.0\.0\.1:\d+.*make it"):
        S3Store.open("s3://not-there/x")


def test_says_that_the_keys_are_wrong(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(StoreError, match=r"credentials \(SignatureDoesNotMatch 403\)"):
        S3Store.open(f"s3://{bucket}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(StoreError, match=r"credentials \(InvalidAccessKeyId 403\)"):
        S3Store.open(f"s3://{bucket}")


def test_says_that_access_is_denied(store: S3Store, bucket: str) -> None:
    store.put("k", b"1")
    denied = {"Effect": "Deny", "Principal": {"AWS": ["*"]}, "Resource": [f"arn:aws:s3:::{bucket}/*"]}
    denied["Action"] = ["s3:PutObject", "s3:GetObject"]
    policy = json.dumps({"Version": "2012-10-17", "Statement": [denied]})
    client().put_bucket_policy(Bucket=bucket, Policy=policy)
    for act in (lambda: store.put("k", b"2"), lambda: store.read("k"), lambda: store.exists("k")):
        with pytest.raises(StoreError, match=r"access denied.*s3:PutObject"):
            act()


def test_a_frozen_endpoint_is_an_error_within_bounds(store: S3Store, impatient: None, frozen: Any) -> None:
    impatient_store = S3Store(store.location, patience=1)
    begin = time.monotonic()
    with pytest.raises(StoreError, match=r"no good answer came \(ReadTimeoutError\).*can be reached"):
        impatient_store.put("k", b"1")
    assert time.monotonic() - begin < 20


def test_waits_while_an_endpoint_is_frozen(store: S3Store, impatient: None, frozen: Any) -> None:
    waiting = S3Store(store.location, patience=60)
    waking = threading.Timer(8, lambda: frozen.send(signal.SIGCONT))
    waking.start()
    assert waiting.create("k", b"1")
    waking.join()
    assert waiting.read("k") == b"1"


def test_works_on_through_a_restart_of_the_endpoint(store: S3Store, gateway: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 40_000_000)

    def work() -> None:
        for number in range(40):
            won.append(store.create(f"steps/{number:02}", b"1"))
        store.upload(source, "large")

    won: list[bool] = []
    worker = threading.Thread(target=work)
    worker.start()
    while len(won) < 5:
        time.sleep(0.01)
    gateway.send(signal.SIGKILL)
    time.sleep(3)
    gateway.revive()
    worker.join()
    assert won == [True] * 40
    assert len(list(store.list("steps/"))) == 40
    assert len(store.read("large") or b"") == 40_000_000


def test_a_killed_uploader_leaves_nothing_under_the_name(store: S3Store, bucket: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 60_000_000)
    environment = {**os.environ, "PYTHONPATH": str(Path(xstilts.__file__).parents[1])}
    command = [sys.executable, "-c", UPLOADER, store.location, str(source)]
    uploader = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert uploader.stdout is not None
    assert uploader.stdout.readline() == b"begins\n"
    while not client().list_multipart_uploads(Bucket=bucket).get("Uploads"):
        assert uploader.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    uploader.send_signal(signal.SIGKILL)
    assert uploader.wait() == -signal.SIGKILL
    uploader.stdout.close()
    assert (store.read("k"), store.exists("k"), list(store.list(""))) == (None, False, [])
    (left,) = store.leftovers(-5)  # its clock tells whole seconds
    assert left.name == "k"
    store.upload(source, "k")
    assert len(store.read("k") or b"") == 60_000_000
    assert list(store.leftovers(-5)) == [left]
    store.discard(left)
    store.discard(left)
    assert list(store.leftovers(-5)) == []
    assert len(store.read("k") or b"") == 60_000_000


def test_an_upload_that_was_begun_yesterday_is_left_over(bucket: str) -> None:
    store = S3Store.open(f"s3://{bucket}/a")
    for key in ("a/k", "a/é", "b/k"):
        upload = client().create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        for number in (1, 2):
            client().upload_part(
                Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=bytes(5 * 2**20)
            )
    assert [(left.name, left.bytes) for left in store.leftovers(-5)] == [("k", 10 * 2**20), ("é", 10 * 2**20)]
    assert list(store.leftovers(60)) == []


def test_a_quick_check_of_a_bucket_sees_what_was_written_over(store: S3Store) -> None:
    record = MadeUpStore(store).train("train-a-s1--1")
    assert checking.verify(store, quick=True).damage == []
    store.put("steps/train-a-s1--1/runs/win/head.safetensors", bytes(40))
    (damage,) = checking.verify(store, quick=True).damage
    assert (damage.key, damage.problem) == (record.key, "its bytes are not those that were recorded")
