"""The pages on this machine's loopback: GET and HEAD of a few addresses, nothing else, nothing written.

    /                                the jobs
    /progress/JOB  /transfer/JOB     pages, ?intermediate=ROW&target=TARGET opens a cell
    /look/...                        the parts of a page that changed since, as it asks for them
    /data/jobs  /data/progress/JOB  /data/transfer/JOB     the numbers, for programs
    /dashboard.css  /dashboard.js

No address names a file. What a browser sends along with a foreign page's request gets it nothing: the Host
header must name this machine (DNS rebinding), no answer may be read or framed by another site.
"""

from __future__ import annotations

import errno
import json
import sys
import traceback
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from xstilts.dashboards.pages import FILES, KINDS, Pages
from xstilts.errors import UnknownName, XstiltsError

LOOPBACK = "127.0.0.1"

NAMES = ("127.0.0.1", "localhost", "::1")
"""What this machine is called by those who ask it; at any port, since a tunnel may end at another one."""

FIELDS = 8
"""Words of a query at most; pages have three."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; style-src-attr 'unsafe-inline'; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_HTML = "text/html; charset=utf-8"
_JSON = "application/json"


class Dashboard(ThreadingHTTPServer):
    """Serves `pages` on the loopback until `shutdown`; `url` says where. A context manager that closes it."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, pages: Pages, port: int) -> None:
        """`port` 0 takes a free one.

        Raises:
            XstiltsError: the port is taken, or not for this user.
        """
        self.pages = pages
        self.closed = False
        try:
            super().__init__((LOOPBACK, port), _Answer)
        except OSError as problem:
            taken = problem.errno == errno.EADDRINUSE
            what = f"port {port} of this machine is {'taken' if taken else f'not to be had ({problem})'}"
            raise XstiltsError(what, "choose another with --port") from problem

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        return f"http://{LOOPBACK}:{self.server_address[1]}/"

    def server_close(self) -> None:
        """Ends it; connections that browsers keep open get no more answers."""
        self.closed = True
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is nothing to tell of."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Answer(BaseHTTPRequestHandler):
    """One connection."""

    server: Dashboard
    protocol_version = "HTTP/1.1"
    timeout = 30

    def do_GET(self) -> None:
        """Answers, or says why not; a bug costs one answer."""
        if self.server.closed:
            self.close_connection = True
            return
        try:
            refusal = self._refusal()
            status, kind, body = refusal or self._answer()
        except UnknownName as problem:
            status, kind, body = _said(HTTPStatus.NOT_FOUND, problem.problem)
        except XstiltsError as problem:
            status, kind, body = _said(HTTPStatus.SERVICE_UNAVAILABLE, str(problem))
        except Exception:
            traceback.print_exc()
            text = "an error of the dashboard's own; its terminal has more"
            status, kind, body = _said(HTTPStatus.INTERNAL_SERVER_ERROR, text)
        self._send(status, kind, body.encode())

    do_HEAD = do_GET

    def _only_reads(self) -> None:
        status, kind, body = _said(HTTPStatus.METHOD_NOT_ALLOWED, "this only shows: GET and HEAD")
        self._send(status, kind, body.encode(), Allow="GET, HEAD")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_TRACE = do_CONNECT = _only_reads

    def _refusal(self) -> tuple[HTTPStatus, str, str] | None:
        hosts = self.headers.get_all("Host") or []
        try:
            names = [urlsplit(f"//{host}").hostname for host in hosts]
        except ValueError:
            names = []
        if len(names) != 1 or names[0] not in NAMES:
            return _said(HTTPStatus.FORBIDDEN, f"open {self.server.url}: this answers to no other name")
        return None

    def _answer(self) -> tuple[HTTPStatus, str, str]:
        path, _, query = self.path.partition("?")
        try:
            words = dict(parse_qsl(query, max_num_fields=FIELDS)) if len(query) < 4096 else {}
        except ValueError:
            return _said(HTTPStatus.BAD_REQUEST, f"more than {FIELDS} words after the question mark")
        pages = self.server.pages
        match [unquote(part) for part in path.split("/")]:
            case ["", ""]:
                return HTTPStatus.OK, _HTML, pages.index()
            case ["", name] if name in FILES:
                return HTTPStatus.OK, FILES[name], pages.file(name)
            case ["", "data", "jobs"]:
                return _json(lambda: {"jobs": pages.jobs().value or (), "problem": pages.jobs().problem})
            case ["", "data", kind, job] if kind in KINDS:
                return _json(lambda: pages.data(kind, job))
            case ["", "look", kind, job] if kind in KINDS:
                return _json(lambda: pages.look(kind, job, words))
            case ["", kind, job] if kind in KINDS:
                return HTTPStatus.OK, _HTML, pages.page(kind, job, words)
        return _said(HTTPStatus.NOT_FOUND, "there is no such page")

    def _send(self, status: HTTPStatus, kind: str, body: bytes, **more: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, **more}.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if self.headers.get("Content-Length") or self.headers.get("Transfer-Encoding"):
            self.send_header("Connection", "close")  # what was sent along is not read
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        """Which Python this is concerns nobody."""
        return "xstilts"

    def log_message(self, format: str, *args: Any) -> None:
        """Pages ask every few seconds: nothing to tell of."""


def _said(status: HTTPStatus, text: str) -> tuple[HTTPStatus, str, str]:
    return status, "text/plain; charset=utf-8", f"{text}\n"


def _json(make: Callable[[], Any]) -> tuple[HTTPStatus, str, str]:
    return HTTPStatus.OK, _JSON, json.dumps(make(), ensure_ascii=False, allow_nan=False)
