"""A hub on the loopback that answers what the hub client asks, and fails where it is told to.

Two requests make up everything: what a repository holds at a revision (`/api/...`), and a file at a commit
(`/resolve/...`; HEAD for its sums, GET for its bytes, from an offset where `Range` asks for it).
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

CONVERTED = "refs/convert/parquet"


def parquet(rows: list[dict[str, Any]]) -> bytes:
    """Rows as the bytes of a parquet file."""
    made = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), made)
    return made.getvalue()


def commit_of(repo: str, revision: str = "main") -> str:
    """The commit that a made-up repository is at."""
    return hashlib.sha1(f"{repo} {revision}".encode()).hexdigest()


@dataclass
class Repo:
    """One repository: its card, and its files by revision and name."""

    card: dict[str, Any] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: bool = False


@dataclass
class FakeHub:
    """Repositories by "datasets/owner/name" or "models/owner/name"; faults by the end of a path, in turn."""

    repos: dict[str, Repo] = field(default_factory=dict)
    faults: dict[str, list[str]] = field(default_factory=dict)
    """End of a path -> what its next GETs meet: "500", "drop" (half of the bytes), "short" (half, and it says
    so), "other" (other bytes), "echo" (500 with the request's own headers as its text)."""
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and Range of every request."""
    url: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def dataset(self, path: str, card: dict[str, Any] | None = None, **files: dict[str, bytes]) -> Repo:
        """Adds a data set with `main` and `converted` files."""
        return self._add(f"datasets/{path}", card, files)

    def model(self, path: str, card: dict[str, Any] | None = None, **files: dict[str, bytes]) -> Repo:
        """Adds a model."""
        return self._add(f"models/{path}", card, files)

    def gets(self, end: str) -> list[tuple[str, str, str]]:
        """The requests for bytes of files whose path ends so."""
        return [each for each in self.asked if each[0] == "GET" and each[1].endswith(end)]

    def _add(self, key: str, card: dict[str, Any] | None, files: dict[str, dict[str, bytes]]) -> Repo:
        names = {"main": "main", "converted": CONVERTED}
        self.repos[key] = Repo(card or {}, {names[name]: each for name, each in files.items()})
        return self.repos[key]

    def fault(self, path: str) -> str:
        """What the next GET of `path` meets."""
        with self._lock:
            for end, left in self.faults.items():
                if path.endswith(end) and left:
                    return left.pop(0)
        return ""


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    """`hub` under an address of this machine."""
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        fault = self.hub.fault(path) if body else ""
        if fault in ("500", "echo"):
            self._send(500, str(self.headers).encode() if fault == "echo" else b"", {}, body)
        elif path.startswith("/api/"):
            self._about(path.removeprefix("/api/"), body)
        else:
            self._file(path.removeprefix("/"), body, fault)

    def _about(self, path: str, body: bool) -> None:
        key, _, revision = path.partition("/revision/")
        repo = self.hub.repos.get(key)
        if repo is None:
            self._send(401, b"", {"X-Error-Code": "RepoNotFound"}, body)
            return
        name = key.partition("/")[2]
        revisions = {commit_of(name, each): each for each in repo.files}
        revision = revisions.get(revision, revision or "main")
        if revision not in repo.files:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"}, body)
            return
        words = {
            "id": name,
            "sha": commit_of(name, revision),
            "cardData": repo.card,
            "siblings": [_sibling(each, data) for each, data in repo.files[revision].items()],
        }
        self._send(200, json.dumps(words).encode(), {"Content-Type": "application/json"}, body)

    def _file(self, path: str, body: bool, fault: str) -> None:
        key, _, rest = path.partition("/resolve/")
        key = key if key.startswith("datasets/") else f"models/{key}"
        commit, _, name = rest.partition("/")
        repo = self.hub.repos[key]
        if repo.gated:
            self._send(401, b"", {"X-Error-Code": "GatedRepo"}, body)
            return
        at = {commit_of(key.partition("/")[2], each): files for each, files in repo.files.items()}
        data = at.get(commit, {}).get(name)
        if data is None:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
            return
        about = {"ETag": f'"{_sum(name, data)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if fault == "other":
            data = data[::-1]
        if start and not fault:
            about["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(206 if start else 200, data[start:], about, body, fault)

    def _send(self, code: int, data: bytes, headers: dict[str, str], body: bool, fault: str = "") -> None:
        half = data[: len(data) // 2]
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(half if fault == "short" else data)))
        self.end_headers()
        if body:
            self.wfile.write(half if fault in ("short", "drop") else data)
        if fault == "drop":
            self.close_connection = True


def _sum(name: str, data: bytes) -> str:
    """A large file's SHA-256, a small one's sum in git: what an ETag is."""
    if name.endswith((".parquet", ".safetensors")):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def _sibling(name: str, data: bytes) -> dict[str, Any]:
    words: dict[str, Any] = {"rfilename": name, "size": len(data), "blobId": _sum(name, data)}
    if name.endswith((".parquet", ".safetensors")):
        words["blobId"] = "0" * 40
        words["lfs"] = {"size": len(data), "sha256": _sum(name, data), "pointerSize": 134}
    return words
