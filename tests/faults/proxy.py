"""A proxy before an S3 endpoint that does what a test asks of it: waits, breaks off, refuses, cuts short.

    with Proxy(port) as proxy:
        proxy.rules.append(Rule("503", method="PUT", path=r"/steps/", times=5))

It listens on loopback and passes every header on as it came, since a signature covers Host: whoever is to go
through it takes its address as the endpoint. HTTP/1.1 with a Content-Length or in chunks, which is all that
botocore and the gateway speak.
"""

from __future__ import annotations

import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

SILENT = 600.0
"""Seconds that a stalled request waits, unless the proxy ends or its client goes."""


@dataclass(slots=True)
class Rule:
    """What happens to requests, to the first `times` that fit."""

    do: str
    """A status, such as 503; delay; stall (no answer); reset; cut (half of the answer's body); lose (what was
    asked is done, and the answer never comes)."""
    method: str = ""
    """Pattern; any when empty."""
    path: str = ""
    times: int = 1
    """0: always."""
    share: float = 1.0
    """Of the requests that fit, by lot."""
    seconds: float = 1.0
    """Of a delay."""
    done: int = 0

    def fits(self, method: str, path: str, lot: random.Random) -> bool:
        """Whether it is this request's turn."""
        if self.times and self.done >= self.times:
            return False
        wanted = re.search(self.method, method) and re.search(self.path, path)
        return bool(wanted) and (self.share >= 1 or lot.random() < self.share)


@dataclass(slots=True)
class _Message:
    """A request or an answer."""

    first: str
    head: bytes
    """All of it, with the empty line."""
    headers: dict[str, str]
    body: bytes = b""


@dataclass(slots=True)
class Proxy:
    """Before the endpoint at `port` of this machine."""

    port: int
    rules: list[Rule] = field(default_factory=list)
    met: Counter[str] = field(default_factory=Counter)
    """What rules did -> how often."""
    requests: int = 0
    _server: socket.socket = field(default_factory=socket.socket)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _over: threading.Event = field(default_factory=threading.Event)
    _lot: random.Random = field(default_factory=lambda: random.Random(4))

    def __enter__(self) -> Proxy:
        self._server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._server.bind(("127.0.0.1", 0))
        self._server.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    @property
    def url(self) -> str:
        """Of the endpoint, through this."""
        return f"http://127.0.0.1:{self._server.getsockname()[1]}"

    def _accept(self) -> None:
        while not self._over.is_set():
            with suppress(OSError):
                client, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """One connection: request after request, until either side ends it."""
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, suppress(OSError, EOFError), client.makefile("rb") as reader:
            while not self._over.is_set():
                request = _read(reader, client)
                if not self._answer(client, request):
                    return

    def _answer(self, client: socket.socket, request: _Message) -> bool:
        """Whether the connection may go on."""
        method, path, _ = request.first.split(" ", 2)
        do, seconds = self._turn(method, path)
        if do == "delay":
            self._over.wait(seconds)
        elif do == "stall":
            self._stall(client)
            return False
        elif do == "reset":
            # Linger of 0 s: RST and not FIN.
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        elif do.isdigit():
            client.sendall(_refusal(int(do), method))
            return True
        with socket.create_connection(("127.0.0.1", self.port), timeout=SILENT) as upstream:
            upstream.sendall(request.head + request.body)
            with upstream.makefile("rb") as reader:
                answer = _read(reader, None, head_only=method == "HEAD")
        if do == "lose":
            return False
        if do == "cut" and answer.body:
            client.sendall(answer.head + answer.body[: len(answer.body) // 2])
            return False
        client.sendall(answer.head + answer.body)
        return answer.headers.get("connection", "").lower() != "close"

    def _turn(self, method: str, path: str) -> tuple[str, float]:
        with self._lock:
            self.requests += 1
            for rule in self.rules:
                if rule.fits(method, path, self._lot):
                    rule.done += 1
                    self.met[rule.do] += 1
                    return rule.do, rule.seconds
        return "", 0.0

    def _stall(self, client: socket.socket) -> None:
        deadline = time.monotonic() + SILENT
        client.settimeout(0.2)
        while not self._over.is_set() and time.monotonic() < deadline:
            try:
                if not client.recv(1):
                    return
            except TimeoutError:
                continue


def _read(reader: IO[bytes], client: socket.socket | None, head_only: bool = False) -> _Message:
    """One message. A client that waits to be told to send its body is told, and the word is left out of what
    is passed on: it is no part of a signature."""
    lines = []
    while (line := reader.readline()) not in (b"\r\n", b""):
        lines.append(line)
    if not lines or not line:
        raise EOFError
    headers = {}
    for each in lines[1:]:
        name, _, value = each.decode("latin-1").partition(":")
        headers[name.strip().lower()] = value.strip()
    if client is not None and headers.get("expect", "").lower() == "100-continue":
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        lines = [each for each in lines if not each.lower().startswith(b"expect:")]
    first = lines[0].decode("latin-1").strip()
    message = _Message(first, b"".join(lines) + b"\r\n", headers)
    status = first.split(" ")[1] if client is None else ""
    if not head_only and status not in ("204", "304"):
        message.body = _body(reader, headers, client is None)
    return message


def _body(reader: IO[bytes], headers: dict[str, str], answer: bool) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        parts = []
        while True:
            size = reader.readline()
            parts.append(size)
            count = int(size.split(b";")[0], 16)
            parts.append(_exactly(reader, count + 2))
            if not count:
                return b"".join(parts)
    if "content-length" in headers:
        return _exactly(reader, int(headers["content-length"]))
    return reader.read() if answer else b""


def _exactly(reader: IO[bytes], count: int) -> bytes:
    data: bytes = reader.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _refusal(status: int, method: str) -> bytes:
    """As S3 says it."""
    code = {500: "InternalError", 503: "SlowDown"}.get(status, "Refused")
    words = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>made up</Message></Error>".encode()
    body = b"" if method == "HEAD" else words
    kind = "Content-Type: application/xml\r\n"
    return f"HTTP/1.1 {status} Refused\r\n{kind}Content-Length: {len(body)}\r\n\r\n".encode() + body
