"""A bucket as a store, on AWS or on any endpoint that has conditional writes.

What a folder does with `link` and `rename`, S3 does by itself: an object appears whole or not at all, and
a write with `If-None-Match: *` succeeds for the first only. Every object carries the SHA-256 of its bytes as
metadata, so that what is read is compared with what was written, on any endpoint (Ceph 16 gives no checksum).

    AWS_*                  botocore's own: profile, keys, role, region, AWS_ENDPOINT_URL_S3, AWS_CA_BUNDLE
    XSTILTS_S3_SSE         AES256 or aws:kms: have every object encrypted by the endpoint
    XSTILTS_S3_KMS_KEY     the key, with aws:kms; the account's own when left out
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import secrets
import time
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import S3DownloadFailedError  # type: ignore[import-untyped]

from xstilts.errors import StoreError
from xstilts.record.artifacts import NAME_BYTES, WRITING, Leftover, check_name, is_name
from xstilts.record.fetched import Copies, DamagedObject, Source
from xstilts.record.s3_refusals import Refusal
from xstilts.record.s3_settings import encryption, parts

CONNECT_SECONDS = 5.0
READ_SECONDS = 30.0
"""Longest silence within an answer. botocore asks three times, so that one request ends within 110 s."""

PATIENCE = 120.0
"""Seconds after which an outage is no longer waited out. An error then comes within PATIENCE + 110 s, of a
large upload within twice 110 s, since it also asks the endpoint to drop its parts."""

_LARGE = 16 * 2**20
"""Bytes from which a file goes in parts of that size, eight at once; one stream is about 60 MB/s on AWS."""

_TURNS = 8
"""Writes that another writer disturbed (409) before giving up."""

_SHA = "sha256"
_WRITER = "writer"
_CONDITION = frozenset({"PreconditionFailed", "412"})
_ABSENT = frozenset({"NoSuchKey", "404", "NotFound", "NoSuchUpload"})
_SAID = (BotoCoreError, ClientError, Boto3Error, ResponseParserError, S3DownloadFailedError)
"""What boto3 raises when asked; a bug in a call (TypeError) is not among them."""

Value = TypeVar("Value")


class S3Store:
    """The ArtifactStore in a bucket.

    Safe among threads, processes and hosts; pickled by its location, so no credential travels with it.
    """

    def __init__(self, location: str, patience: float = PATIENCE) -> None:
        """Asks nothing yet, so that a worker starts through an outage and read-only results can be read.

        Raises:
            StoreError: `location` is not s3://bucket or s3://bucket/prefix.
        """
        self._bucket, self._prefix = parts(location)
        self.location = f"s3://{self._bucket}/{self._prefix}".rstrip("/")
        self._patience = patience
        self._made: tuple[int, Any] | None = None

    def __reduce__(self) -> tuple[type[S3Store], tuple[str, float]]:
        """By location: a client holds credentials and sockets."""
        return S3Store, (self.location, self._patience)

    @classmethod
    def open(cls, location: str) -> S3Store:
        """The store at `location`, known to be writable and to let only the first of many writers win.

        Leaves one object there that no method lists; with it, opening again costs one request.

        Raises:
            StoreError: no answer, no access, no bucket, no conditional writes, or not encrypted as asked.
        """
        store = cls(location, patience=0)
        store._probe()
        store._patience = PATIENCE
        return store

    def create(self, name: str, data: bytes) -> bool:
        """Writes `name` if it is absent; True when this call made it. Of many at once exactly one wins."""
        return self._create(self._key(name), data, f"write {name}")

    def put(self, name: str, data: bytes) -> None:
        """Writes `name` whole, replacing what was there."""
        key, words = self._key(name), _words(_checksum(data))
        doing = f"write {name}"
        self._ask(doing, lambda client: client.put_object(**self._at(key), Body=data, **words))

    def read(self, name: str) -> bytes | None:
        """The bytes, or None when there is no such name.

        Raises:
            DamagedObject: they are not those that were written.
        """
        key, doing = self._key(name), f"read {name}"

        def get(client: Any) -> tuple[bytes, str] | None:
            answer = _if_there(lambda: client.get_object(**self._at(key)))
            return None if answer is None else (answer["Body"].read(), answer["Metadata"].get(_SHA, ""))

        for _ in range(2):
            found = self._ask(doing, get)
            if found is None:
                return None
            data, written = found
            if written in ("", _checksum(data)):
                return data
        raise DamagedObject.of(name, self.location)

    def exists(self, name: str) -> bool:
        """Whether `name` is there."""
        return self._head(self._key(name), f"look for {name}") is not None

    def list(self, prefix: str) -> Iterator[str]:
        """Names that start with `prefix`, sorted; what appears or goes meanwhile may or may not be there.

        One request a thousand names, made as the names are used.
        """
        for name, _ in self.sizes(prefix):
            yield name

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        """As `list`, each name with its bytes, and for the same few requests."""
        if folder := prefix.rpartition("/")[0]:
            self._key(folder)
        asked = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        doing = f"list {prefix}"
        while True:
            page = self._ask(doing, lambda client: client.list_objects_v2(**asked))
            for entry in page.get("Contents", ()):
                name = entry["Key"].removeprefix(self._prefix)
                # A console makes "folder/" objects; a probe is nobody's.
                if is_name(name):
                    yield name, int(entry["Size"])
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def checksum(self, name: str, noted: bool = False) -> str | None:
        """SHA-256 of what is there now, None when there is no such name; with `noted`, as it was written."""
        key, doing = self._key(name), f"read {name}"
        if noted:
            found = self._head(key, doing)
            return None if found is None else str(found["Metadata"].get(_SHA, ""))

        def digest(client: Any) -> str | None:
            read, answer = hashlib.sha256(), _if_there(lambda: client.get_object(**self._at(key)))
            if answer is None:
                return None
            for part in answer["Body"].iter_chunks(2**20):
                read.update(part)
            return read.hexdigest()

        return self._ask(doing, digest)

    def upload(self, source: Path, name: str) -> None:
        """Copies a local file to `name`, whole or not at all; a large one in parts.

        The parts of an upload whose process was killed stay, unseen but paid for, until `store gc` or the
        bucket's lifecycle rule AbortIncompleteMultipartUpload removes them.
        """
        key, doing = self._key(name), f"write {name}"
        if not source.is_file():
            raise StoreError(f"there is no file {source} to store as {name}", "run the step again")
        try:
            with source.open("rb") as file:
                words = _words(hashlib.file_digest(file, "sha256").hexdigest())
            place = (str(source), self._bucket, key)
            settings = {"ExtraArgs": {**words}, "Config": _transfer()}
            self._ask(doing, lambda client: client.upload_file(*place, **settings))
        except OSError as problem:
            what = f"cannot read {source} to store it as {name}, {problem.strerror or 'reading failed'}"
            raise StoreError(what, "check that disk, then run again") from problem

    def local(self, name: str, scratch: Path) -> Path:
        """A file under `scratch` with the bytes of `name`; names keep their places relative to each other.

        What was fetched before and is still the same object is not fetched again.

        Raises:
            StoreError: there is no such name. DamagedObject: the bytes are not those that were written.
        """
        key, doing = self._key(name), f"fetch {name}"

        def current() -> str | None:
            return (self._head(key, doing) or {}).get("ETag")

        def fetch(path: Path) -> Source | None:
            return self._ask(doing, lambda client: self._fetch(client, key, path))

        return Copies(self.location, scratch).get(name, current, fetch)

    def delete(self, name: str) -> None:
        """Removes `name`; no error when it is absent."""
        key = self._key(name)

        def remove(client: Any) -> None:
            _if_there(lambda: client.delete_object(**self._at(key)))

        self._ask(f"remove {name}", remove)

    def leftovers(self, seconds: float) -> Iterator[Leftover]:
        """Uploads in parts that began more than `seconds` ago, by the endpoint's own clock."""
        asked = {"Bucket": self._bucket, "Prefix": self._prefix}
        doing = "look for unfinished uploads"

        def listed(client: Any) -> Any:
            return client.list_multipart_uploads(**asked)

        while True:
            page = self._ask(doing, listed)
            now = parsedate_to_datetime(page["ResponseMetadata"]["HTTPHeaders"]["date"])
            for entry in page.get("Uploads", ()):
                key, upload = entry["Key"], entry["UploadId"]
                if (now - entry["Initiated"]).total_seconds() > seconds:
                    name, token = key.removeprefix(self._prefix), f"{upload} {key}"
                    yield Leftover(name, self._parts_bytes(key, upload), token)
            if not page.get("IsTruncated"):
                return
            asked |= {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def discard(self, leftover: Leftover) -> None:
        """Removes it; no error when it is gone."""
        upload, _, key = leftover.token.partition(" ")

        def abort(client: Any) -> None:
            _if_there(lambda: client.abort_multipart_upload(**self._at(key), UploadId=upload))

        self._ask(f"remove {leftover.name}", abort)

    def _parts_bytes(self, key: str, upload: str) -> int:
        """Bytes that an unfinished upload has sent; 0 when it is gone."""
        asked: dict[str, Any] = {**self._at(key), "UploadId": upload}

        def listed(client: Any) -> dict[str, Any]:
            return _if_there(lambda: client.list_parts(**asked)) or {}

        total = 0
        while True:
            page = self._ask("look for unfinished uploads", listed)
            total += sum(int(part["Size"]) for part in page.get("Parts", ()))
            if not page.get("IsTruncated"):
                return total
            asked["PartNumberMarker"] = page["NextPartNumberMarker"]

    def _probe(self) -> None:
        """Raises StoreError unless a second conditional write is refused and encryption is as asked."""
        asked = encryption().get("ServerSideEncryption", "")
        name = f"{WRITING}probe-{asked.replace(':', '-') or 'plain'}"
        key, doing = self._prefix + name, "write"
        if self._create(key, b"xstilts", doing) and self._create(key, b"xstilts", doing):
            problem = f"{self._endpoint()} ignores If-None-Match, so two writers could both win"
            raise StoreError(problem, "use an endpoint with conditional writes, or a folder, with --store")
        if asked:
            found = self._head(key, doing) or {}
            if found.get("ServerSideEncryption") != asked:
                problem = f"{self._endpoint()} does not encrypt as XSTILTS_S3_SSE={asked} asks"
                raise StoreError(problem, "unset it or choose another store with --store")

    def _create(self, key: str, data: bytes, doing: str) -> bool:
        writer = secrets.token_hex(16)
        words = _words(_checksum(data), writer)

        def write(client: Any) -> bool | None:
            try:
                client.put_object(**self._at(key), Body=data, IfNoneMatch="*", **words)
            except ClientError as problem:
                if _code(problem) in _CONDITION:
                    return False
                # 409: another write to the name was under way; 404: so was its removal. Both: ask again.
                if _refusal(problem).status == 409 or _code(problem) == "NoSuchKey":
                    return None
                raise
            return True

        for turn in range(_TURNS):
            won = self._ask(doing, write)
            if won is False:
                # A request whose answer was lost is repeated and then meets its own object.
                found = self._head(key, doing)
                return found is not None and found["Metadata"].get(_WRITER) == writer
            if won:
                return True
            time.sleep(random.uniform(0.5, 1) * min(0.05 * 2**turn, 2))
        raise Refusal("ClientError", "ConditionalRequestConflict", 409).error(
            self._cannot(doing), self._bucket, self._endpoint()
        )

    def _head(self, key: str, doing: str) -> dict[str, Any] | None:
        """ETag, Metadata, ... of an object, or None when it is absent."""

        def head(client: Any) -> dict[str, Any] | None:
            return _if_there(lambda: client.head_object(**self._at(key)))

        return self._ask(doing, head)

    def _fetch(self, client: Any, key: str, path: Path) -> Source | None:
        """Writes the object to `path`; None when it is absent."""

        def get() -> Source:
            answer = client.get_object(**self._at(key))
            size = int(answer["ContentLength"])
            if size < _LARGE:
                path.write_bytes(answer["Body"].read())
            else:
                # The first answer is dropped: several streams at once are faster than what it has begun.
                answer["Body"].close()
                client.download_file(self._bucket, key, str(path), Config=_transfer())
            return Source(answer["ETag"], size, answer["Metadata"].get(_SHA, ""))

        return _if_there(get)

    def _ask(self, doing: str, call: Callable[[Any], Value]) -> Value:
        """What `call` gives; an outage is waited out for a while, all else is a StoreError at once."""
        begin, pause = time.monotonic(), 0.5
        while True:
            try:
                return call(self._client())
            except _SAID as problem:
                refusal = _refusal(problem)
            if not refusal.passing or time.monotonic() - begin >= self._patience:
                raise refusal.error(self._cannot(doing), self._bucket, self._endpoint())
            time.sleep(random.uniform(0.5, 1) * pause)
            pause = min(2 * pause, 5.0)

    def _client(self) -> Any:
        """One client a process: a fork must not share its parent's sockets."""
        made = self._made
        if made is None or made[0] != os.getpid():
            self._made = made = os.getpid(), _connect()
        return made[1]

    def _endpoint(self) -> str:
        """Scheme, host and port; the URL of an endpoint may hold a password."""
        with contextlib.suppress(StoreError, ValueError, *_SAID):
            parts = urlsplit(self._client().meta.endpoint_url)
            return f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
        return "the endpoint"

    def _cannot(self, doing: str) -> str:
        return f"cannot {doing} in {self.location}"

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": key}

    def _key(self, name: str) -> str:
        """The key of `name`; never outside the prefix."""
        key = self._prefix + check_name(name)
        if len(key.encode()) > NAME_BYTES:
            raise StoreError(f"{key!r} is too long for S3", "choose a shorter prefix with --store")
        return key


def _connect() -> Any:
    """A client by the standard chain of credentials, with time-outs and botocore's own few retries.

    Checksum trailers are off unless the user asks: old endpoints answer 411 to them. Nothing is lost, since
    the signature then covers the SHA-256 of the body, which the endpoint verifies, over TLS too.
    """
    words: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"mode": "standard", "total_max_attempts": 3},
        "max_pool_connections": 32,
    }
    if "AWS_REQUEST_CHECKSUM_CALCULATION" not in os.environ:
        words["request_checksum_calculation"] = "when_required"
    try:
        session = boto3.session.Session()
        client = session.client("s3", config=Config(**words))
        known = urlsplit(client.meta.endpoint_url).hostname or ""
        style = (client.meta.config.s3 or {}).get("addressing_style")
        if style is None and not known.endswith((".amazonaws.com", ".amazonaws.com.cn")):
            # bucket.host needs a wildcard in the DNS, which few endpoints of one's own have.
            client = session.client("s3", config=Config(**words, s3={"addressing_style": "path"}))
        return client
    except ValueError:
        pass
    # Not raised up there: that error repeats the URL, with the password it may hold, and would come along.
    remedy = "write AWS_ENDPOINT_URL_S3 as http://HOST:PORT or https://HOST"
    raise StoreError("the endpoint of the store is no address", remedy)


def _words(sha256: str, writer: str = "") -> dict[str, Any]:
    """What every write says beside the bytes."""
    return {"Metadata": {_SHA: sha256, **({_WRITER: writer} if writer else {})}, **encryption()}


def _transfer() -> TransferConfig:
    """In this process and by this client: the other transfer client would not know its time-outs."""
    return TransferConfig(
        multipart_threshold=_LARGE,
        multipart_chunksize=_LARGE,
        max_concurrency=8,
        preferred_transfer_client="classic",
    )


def _refusal(problem: BaseException) -> Refusal:
    """What was met. boto3 wraps an upload's error in one of its own, with nothing but a text."""
    inner = problem
    while isinstance(inner, Boto3Error) and inner.__context__ is not None:
        inner = inner.__context__
    if isinstance(inner, ClientError):
        status = inner.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return Refusal("ClientError", _code(inner), int(status))
    return Refusal(type(inner).__name__)


def _if_there(call: Callable[[], Value]) -> Value | None:
    """What `call` gives; None when the endpoint says that there is no such thing."""
    try:
        return call()
    except ClientError as problem:
        if _code(problem) in _ABSENT:
            return None
        raise


def _code(problem: ClientError) -> str:
    return str(problem.response.get("Error", {}).get("Code", ""))


def _checksum(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
