"""What a store in a bucket does when its endpoint misbehaves, and that no error gives a secret away."""

from __future__ import annotations

import logging
import os
import pickle
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from made_up_endpoint import Endpoint, endpoint

from xstilts.errors import StoreError
from xstilts.record import s3
from xstilts.record.fetched import DamagedObject
from xstilts.record.s3 import S3Store
from xstilts.record.s3_refusals import Refusal

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAPLANTEDPLANTED",
    "AWS_SECRET_ACCESS_KEY": "planted/secret+key",
    "AWS_SESSION_TOKEN": "planted-session-token",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted keys, nothing of this machine's own, and pauses fifty times shorter."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "XSTILTS_S3_"))]:
        monkeypatch.delenv(name)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    real = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: real(seconds / 50))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """The endpoint that stores in this test use."""
    with endpoint() as made:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", made.url)
        yield made


@pytest.fixture
def store(server: Endpoint) -> S3Store:
    return S3Store("s3://bucket/prefix", patience=5)


def planted(text: str) -> list[str]:
    """Secrets that `text` gives away."""
    return [secret for secret in (*SECRETS.values(), "hidden-password") if secret in text]


def everything(problem: BaseException) -> str:
    """An error as any log could show it, with those that led to it."""
    shown = [*traceback.format_exception(problem), repr(problem), repr(pickle.dumps(problem))]
    behind: BaseException | None = problem
    while behind is not None:
        shown += [str(behind), repr(behind.args)]
        behind = behind.__cause__ or behind.__context__
    return "\n".join(shown)


@pytest.mark.parametrize(
    ("location", "kept"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b//", "s3://bucket/a/b"),
        ("s3://b.u-c_ket/é", "s3://b.u-c_ket/é"),
    ],
)
def test_location_is_what_opens_it_again(location: str, kept: str) -> None:
    assert S3Store(location).location == S3Store(kept).location == kept


@pytest.mark.parametrize(
    "location",
    [
        "bucket/prefix", "s3:/bucket", "s3://", "s3:///prefix", "s3://b", "gs://bucket/x", "s3://bucket/a/../b",
        "s3://bucket//a", "s3://bucket/a\nb", "s3://key:hidden-password@bucket/x",
        "s3://bucket/x?secret_key=hidden-password",
    ],
)  # fmt: skip
def test_refuses_other_locations_without_repeating_them(location: str) -> None:
    with pytest.raises(StoreError, match="s3://BUCKET/PREFIX") as caught:
        S3Store(location)
    assert not planted(everything(caught.value))


@pytest.mark.parametrize(
    "name", ["a\nb", "a\x7f", "\x1b[2J", "a/\ud800", ".writing-x", "a/.writing-x/b", "x" * 1020]
)
def test_refuses_names_that_no_listing_could_hold(store: S3Store, server: Endpoint, name: str) -> None:
    for act in (store.read, store.exists, store.delete, lambda name: store.put(name, b"")):
        with pytest.raises(StoreError, match="no name in a store"):
            act(name)
    assert server.requests == []


def test_open_asks_once_when_it_was_opened_before(server: Endpoint) -> None:
    S3Store.open("s3://bucket/prefix")
    server.requests.clear()
    S3Store.open("s3://bucket/prefix")
    assert [method for method, *_ in server.requests] == ["PUT", "HEAD"]


def test_an_endpoint_that_ignores_conditions_is_refused(server: Endpoint) -> None:
    server.conditions = False
    with pytest.raises(StoreError, match="ignores If-None-Match.*use an endpoint with conditional writes"):
        S3Store.open("s3://bucket/prefix")


def test_an_endpoint_that_knows_no_conditions_is_refused(server: Endpoint) -> None:
    server.faults.append("501 NotImplemented")
    with pytest.raises(StoreError, match="NotImplemented 501.*use an endpoint with conditional writes"):
        S3Store.open("s3://bucket/prefix")


@pytest.mark.parametrize("faults", [["lost"], ["lost", "503 SlowDown", "lost"]])
def test_a_lost_answer_is_no_lost_race(store: S3Store, server: Endpoint, faults: list[str]) -> None:
    server.faults.extend(faults)
    assert store.create("k", b"mine")
    server.faults.append("lost")
    assert not store.create("k", b"other")
    assert store.read("k") == b"mine"


def test_a_disturbed_write_is_tried_again(store: S3Store, server: Endpoint) -> None:
    server.faults.extend(
        ["409 ConditionalRequestConflict", "404 NoSuchKey", "409 ConditionalRequestConflict"]
    )
    assert store.create("k", b"1")
    assert store.read("k") == b"1"


def test_a_write_that_is_always_disturbed_ends(store: S3Store, server: Endpoint) -> None:
    server.faults.extend(["409 ConditionalRequestConflict"] * 100)
    with pytest.raises(
        StoreError, match="cannot write k in s3://bucket/prefix.*ConditionalRequestConflict 409"
    ):
        store.create("k", b"1")


@pytest.mark.parametrize(
    "fault", ["503 SlowDown", "500 InternalError", "429 TooManyRequests", "lost", "half"]
)
def test_a_burst_of_faults_is_waited_out(store: S3Store, server: Endpoint, fault: str) -> None:
    store.put("k", b"12345678")
    # More than botocore's own three tries.
    server.faults.extend([fault] * 7)
    assert store.read("k") == b"12345678"
    assert not server.faults


@pytest.mark.parametrize("fault", ["503 SlowDown", "lost", "half", "500 InternalError"])
def test_a_checksum_is_of_the_whole_object_or_asked_again(
    store: S3Store, server: Endpoint, fault: str
) -> None:
    store.put("k", b"12345678")
    server.faults.extend([fault] * 7)
    assert store.checksum("k") == s3._checksum(b"12345678")
    server.objects["prefix/k"] = b"12345679", server.objects["prefix/k"][1]
    assert store.checksum("k") == s3._checksum(b"12345679")
    assert store.checksum("k", noted=True) == s3._checksum(b"12345678")


@pytest.mark.parametrize("code", ["BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"])
def test_what_arrived_damaged_is_sent_again(
    store: S3Store, server: Endpoint, tmp_path: Path, code: str
) -> None:
    (tmp_path / "file").write_bytes(b"1")
    for act in (
        lambda: store.put("k", b"1"),
        lambda: store.create("new", b"1"),
        lambda: store.upload(tmp_path / "file", "k"),
    ):
        server.faults.extend([f"400 {code}"] * 2)
        act()
        assert not server.faults
    assert store.read("new") == b"1"


def test_an_outage_that_lasts_is_an_error(server: Endpoint) -> None:
    store = S3Store("s3://bucket/prefix", patience=0.3)
    server.faults.extend(["503 ServiceUnavailable"] * 10_000)
    with pytest.raises(StoreError, match=r"ServiceUnavailable 503.*http://127\.0\.0\.1:\d+.*run again"):
        store.read("k")


def test_a_frozen_endpoint_is_an_error(server: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "READ_SECONDS", 0.2)
    server.faults.extend(["frozen"] * 100)
    begin = time.monotonic()
    with pytest.raises(StoreError, match="ReadTimeoutError"):
        S3Store.open("s3://bucket/prefix")
    assert time.monotonic() - begin < 5


def test_nobody_there_is_an_error_at_once(server: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    with pytest.raises(StoreError, match=r"EndpointConnectionError.*http://127\.0\.0\.1:1 works"):
        S3Store.open("s3://bucket/prefix")


def test_a_flipped_byte_is_seen(store: S3Store, server: Endpoint, tmp_path: Path) -> None:
    store.put("k", b"12345678")
    body, words = server.objects["prefix/k"]
    for damaged in (b"12345679", b"1234567", b""):
        server.objects["prefix/k"] = damaged, words
        with pytest.raises(DamagedObject, match="k in s3://bucket/prefix is not what was written"):
            store.read("k")
        with pytest.raises(DamagedObject):
            store.local("k", tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_copy_is_fetched_once(store: S3Store, server: Endpoint, tmp_path: Path) -> None:
    store.put("a/k", b"1")
    path = store.local("a/k", tmp_path)
    server.requests.clear()
    assert S3Store(store.location).local("a/k", tmp_path) == path
    assert [method for method, *_ in server.requests] == ["HEAD"]
    path.write_bytes(b"changed by somebody")
    assert store.local("a/k", tmp_path).read_bytes() == b"1"


def test_stores_with_one_scratch_folder_keep_apart(store: S3Store, tmp_path: Path) -> None:
    other = S3Store("s3://bucket/other")
    store.put("k", b"1")
    other.put("k", b"2")
    assert (store.local("k", tmp_path).read_bytes(), other.local("k", tmp_path).read_bytes()) == (b"1", b"2")


def test_a_scratch_folder_that_is_none_is_an_error(store: S3Store, tmp_path: Path) -> None:
    store.put("k", b"1")
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot fetch k to .*file and a folder want the same name"):
        store.local("k", tmp_path / "file")


def test_every_write_asks_for_encryption(
    store: S3Store, server: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XSTILTS_S3_SSE", "aws:kms")
    monkeypatch.setenv("XSTILTS_S3_KMS_KEY", "arn:aws:kms:x:1:key/2")
    (tmp_path / "file").write_bytes(b"1")
    S3Store.open(store.location)
    store.create("a", b"1")
    store.put("b", b"1")
    store.upload(tmp_path / "file", "c")
    written = {key: words for key, (_, words) in server.objects.items()}
    assert set(written) == {"prefix/.writing-probe-aws-kms", "prefix/a", "prefix/b", "prefix/c"}
    for words in written.values():
        assert words["x-amz-server-side-encryption"] == "aws:kms"
        assert words["x-amz-server-side-encryption-aws-kms-key-id"] == "arn:aws:kms:x:1:key/2"


def test_an_endpoint_that_does_not_encrypt_is_refused(
    store: S3Store, server: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.encrypts = False
    S3Store.open(store.location)
    monkeypatch.setenv("XSTILTS_S3_SSE", "AES256")
    with pytest.raises(StoreError, match="does not encrypt as XSTILTS_S3_SSE=AES256 asks"):
        S3Store.open(store.location)


@pytest.mark.parametrize(("kind", "key"), [("aes256", ""), ("AES256", "k"), ("", "k")])
def test_encryption_that_is_none_is_refused(
    store: S3Store, monkeypatch: pytest.MonkeyPatch, kind: str, key: str
) -> None:
    monkeypatch.setenv("XSTILTS_S3_SSE", kind)
    monkeypatch.setenv("XSTILTS_S3_KMS_KEY", key)
    with pytest.raises(StoreError, match="set (it to AES256 or aws:kms|XSTILTS_S3_SSE=aws:kms too)"):
        S3Store.open(store.location)


def test_the_body_is_signed_over_tls_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # Otherwise nothing would tell an endpoint that it received what was sent: trailers are off.
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://127.0.0.1:1")
    sent: list[Any] = []

    def grab(request: Any, **rest: Any) -> AWSResponse:
        sent.append(request.headers)
        return AWSResponse(request.url, 200, {}, SimpleNamespace(stream=lambda: iter(())))

    client = s3._connect()
    client.meta.events.register("before-send.s3.PutObject", grab)
    client.put_object(Bucket="bucket", Key="k", Body=b"1")
    assert sent[0]["X-Amz-Content-SHA256"].decode() == s3._checksum(b"1")
    assert "x-amz-trailer" not in sent[0]


def acts(store: S3Store, source: Path) -> list[Callable[[], object]]:
    """Everything a store does, each call a failure when the endpoint fails."""
    return [
        lambda: S3Store.open(store.location),
        lambda: store.create("k", b"1"),
        lambda: store.put("k", b"1"),
        lambda: store.read("k"),
        lambda: store.exists("k"),
        lambda: list(store.list("")),
        lambda: list(store.sizes("")),
        lambda: store.checksum("k"),
        lambda: list(store.leftovers(0)),
        lambda: store.upload(source, "k"),
        lambda: store.local("k", source.parent),
    ]


@pytest.mark.parametrize(
    "fault",
    ["403 AccessDenied", "403 InvalidAccessKeyId", "403 SignatureDoesNotMatch", "400 ExpiredToken",
     "403 RequestTimeTooSkewed", "301 PermanentRedirect", "503 SlowDown", "400 InvalidRequest", "frozen"],
)  # fmt: skip
def test_no_error_gives_a_secret_away(
    server: Endpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(s3, "READ_SECONDS", 0.2)
    server.says = " ".join(SECRETS.values())
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url.replace("//", "//user:hidden-password@"))
    store = S3Store("s3://bucket/prefix", patience=0)
    (tmp_path / "file").write_bytes(b"1")
    assert not planted(repr(pickle.dumps(store)))
    for act in acts(store, tmp_path / "file"):
        server.faults.extend([fault] * 3)
        with pytest.raises(StoreError) as caught:
            act()
        assert not planted(everything(caught.value)), act
        assert isinstance(pickle.loads(pickle.dumps(caught.value)), StoreError)
        server.faults.clear()
    assert not planted(caplog.text)


def test_a_credential_helper_that_fails_is_not_quoted(
    server: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SECRETS:
        monkeypatch.delenv(name)
    config = tmp_path / "config"
    config.write_text("[profile p]\ncredential_process = sh -c 'echo hidden-password >&2; exit 1'\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_PROFILE", "p")
    with pytest.raises(StoreError, match=r"no credentials \(CredentialRetrievalError\)") as caught:
        S3Store.open("s3://bucket/prefix")
    assert not planted(everything(caught.value))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"AWS_PROFILE": "nobody"}, r"AWS configuration cannot be used \(ProfileNotFound\)"),
        ({"AWS_ENDPOINT_URL_S3": "hidden-password"}, "is no address.*write AWS_ENDPOINT_URL_S3 as"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, r"no credentials \(NoCredentialsError\)"),
    ],
)
def test_a_configuration_that_is_none_is_an_error(
    server: Endpoint, monkeypatch: pytest.MonkeyPatch, asked: dict[str, str], said: str
) -> None:
    for name, value in asked.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    with pytest.raises(StoreError, match=said) as caught:
        S3Store.open("s3://bucket/prefix")
    assert not planted(everything(caught.value))


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (Refusal("ClientError", "403", 403), "access denied (403)"),
        (Refusal("ClientError", "400", 400), "does not accept the credentials (400)"),
        (Refusal("ClientError", "KMS.DisabledException", 400), "XSTILTS_S3_KMS_KEY"),
        (Refusal("ClientError", "QuotaExceeded", 403), "it is full"),
        (Refusal("ClientError", "PermanentRedirect", 301), "set AWS_DEFAULT_REGION"),
        (Refusal("ClientError", "RequestTimeTooSkewed", 403), "set the clock"),
        (Refusal("SSLError"), "AWS_CA_BUNDLE"),
        (Refusal("ClientError", "two words: secret", 418), "refused (ClientError 418)"),
    ],
)
def test_a_refusal_says_what_to_do(refusal: Refusal, said: str) -> None:
    assert said in str(refusal.error("cannot write k", "bucket", "http://host"))
    assert not refusal.passing
