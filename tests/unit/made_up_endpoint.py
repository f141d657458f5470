"""An S3 endpoint in memory that misbehaves on request; it checks no signature."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

ECHOED = ("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id")


class Endpoint(ThreadingHTTPServer):
    """`faults` holds what the next requests meet, one each:

    a number with a code ("503 SlowDown")   that error, and nothing is done
    "lost"                                  it is done, and the answer never comes
    "half"                                  half of the answer's body comes
    "frozen"                                nothing comes until `thaw` is set
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.faults: deque[str] = deque()
        self.conditions = True
        self.encrypts = True
        self.says = "something"
        """The text of its errors."""
        self.thaw = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is no news."""


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Endpoint

    def do_PUT(self) -> None:
        """Stores the body, with its metadata and encryption."""
        key, body = self._key(), self.rfile.read(int(self.headers["Content-Length"]))
        fault = self._fault()
        if fault is None:
            return
        with self.server.lock:
            if self.server.conditions and self.headers["If-None-Match"] == "*" and key in self.server.objects:
                self._error(412, "PreconditionFailed")
                return
            kept = {name.lower(): value for name, value in self.headers.items()}
            words = {name: value for name, value in kept.items() if name.startswith("x-amz-meta-")}
            if self.server.encrypts:
                words |= {name: kept[name] for name in ECHOED if name in kept}
            self.server.objects[key] = body, words
        self._send(200, words, b"", fault)

    def do_GET(self) -> None:
        """The object, or the names that begin with a prefix, all on one page."""
        asked = dict(parse_qsl(urlsplit(self.path).query))
        if "list-type" in asked:
            self._listed(asked.get("prefix", ""))
        else:
            self._found(with_body=True)

    def do_HEAD(self) -> None:
        """What is known of the object."""
        self._found(with_body=False)

    def _listed(self, prefix: str) -> None:
        self._key()
        fault = self._fault()
        if fault is None:
            return
        with self.server.lock:
            found = {name: body for name, (body, _) in sorted(self.server.objects.items())}
        entries = "".join(
            f"<Contents><Key>{escape(name)}</Key><Size>{len(body)}</Size></Contents>"
            for name, body in found.items()
            if name.startswith(prefix)
        )
        text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        self._send(200, {"Content-Type": "application/xml"}, text.encode(), fault)

    def _found(self, with_body: bool) -> None:
        key, fault = self._key(), self._fault()
        if fault is None:
            return
        if key not in self.server.objects:
            self._error(404, "NoSuchKey")
            return
        body, words = self.server.objects[key]
        self._send(200, words | {"ETag": f'"{hash((body, *words.items())):x}"'}, body, fault, with_body)

    def _key(self) -> str:
        key = "/".join(unquote(urlsplit(self.path).path).split("/")[2:])
        self.server.requests.append((self.command, key, dict(self.headers.items())))
        return key

    def _fault(self) -> str | None:
        """What is to go wrong, "" for nothing; None when it has been answered."""
        fault = self.server.faults.popleft() if self.server.faults else ""
        status, _, code = fault.partition(" ")
        if status.isdecimal():
            self._error(int(status), code)
            return None
        if fault == "frozen":
            self.server.thaw.wait(60)
        return fault

    def _error(self, status: int, code: str) -> None:
        text = f"<Error><Code>{code}</Code><Message>{self.server.says}</Message></Error>"
        self._send(status, {}, text.encode(), "", self.command != "HEAD")

    def _send(
        self, status: int, headers: dict[str, str], body: bytes, fault: str, with_body: bool = True
    ) -> None:
        if fault == "lost":
            self.close_connection = True
            return
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body[: len(body) // 2] if fault == "half" else body)
        self.close_connection = fault == "half"

    def log_message(self, format: str, *args: Any) -> None:
        """Tests have their own output."""


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """One that listens."""
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.thaw.set()
        server.shutdown()
        thread.join()
        server.server_close()
