"""Takes passwords out of what is shown: notes, tags, spilled news, jobs/<name>/mlflow.json.

MLflow names the tracking URI in its errors, password and all; a failed step's text may name anything.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote, unquote

GONE = "(hidden)"

_OF_USER = re.compile(r"(?<=://)[^/\s?#'\"]*@")
"""name:password@ of an address."""

_NAMED = re.compile(
    r"(?i)(\b[\w.-]*(?:password|passwd|secret|authorization|api[_-]?key|access[_-]?key"
    r"|(?:access|auth|session|tracking|security|hf)[_-]?token)[\w-]*[\"']?\s*[=:]\s*[\"']?)"
    r"(?:(?:basic|bearer)\s+)?[^\s\"'&,;)}\]]+"
)
"""password=..., "secret": "...", Authorization: Basic ..., as settings, headers and query strings have it."""

_BEARER = re.compile(
    r"\b((?i:bearer)(?=\s)|(?i:basic)(?=\s+\S*[0-9A-Z=+/]))\s+[A-Za-z0-9+/=._~-]{8,}"  # but "basic training"
)

_SECRET = re.compile(r"(?i)(passw(or)?d|secret|token|api_?key|access_?key|credentials)$")
"""Ends of the names of variables whose values are secrets."""


def hidden(text: str) -> str:
    """`text` without addresses' passwords, what is named as a secret, and this process's own secrets."""
    for secret in _own():
        text = text.replace(secret, GONE)
    text = _OF_USER.sub("", text)
    text = _NAMED.sub(rf"\g<1>{GONE}", text)
    return _BEARER.sub(rf"\g<1> {GONE}", text)


def address(uri: str) -> str:
    """A tracking URI as it may be told: without user, password and what follows a question mark."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    rest = re.split(r"[?#]", rest)[0]
    # A password may hold slashes that nobody quoted; a path with an @ in it is a database file's.
    if scheme.startswith("sqlite"):
        return f"{scheme}://{rest}"
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _own() -> list[str]:
    """Secrets of this process's environment, the longest first, as they are and as an address quotes them."""
    found = {value for name, value in os.environ.items() if _SECRET.search(name)}
    user = os.environ.get("MLFLOW_TRACKING_URI", "").partition("://")[2].rpartition("@")[0]
    found |= {user.partition(":")[2]}
    found |= {form(value) for value in set(found) for form in (unquote, lambda each: quote(each, safe=""))}
    # A short word, such as a token of "true", would take pieces out of ordinary sentences.
    return sorted((value for value in found if len(value) >= 6), key=len, reverse=True)
