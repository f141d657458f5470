"""A headless Chromium that a test asks and clicks in, by its DevTools protocol over a pipe."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PATIENCE = 60.0
"""Seconds for an answer: Chromium takes ten to start on two cores that others use too."""


class Browser:
    """One page. `errors` holds what its console and its network complained of."""

    def __init__(self, chromium: str, profile: Path, dark: bool = False) -> None:
        self.errors: list[str] = []
        self.requested: list[str] = []
        self._number, self._left = 0, b""
        read, self._out = os.pipe()
        self._in, write = os.pipe()
        # Chromium reads from descriptor 3 and writes to 4; the shell puts them there.
        run = f'exec "$0" "$@" 3<&{read} 4>&{write} {read}<&- {write}>&-'
        words = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
                 f"--user-data-dir={profile}", "--window-size=1200,1600", "--no-first-run",
                 f"--blink-settings=preferredColorScheme={0 if dark else 1}"]  # fmt: skip
        with (profile.parent / "chromium.log").open("wb") as said:
            self._process = subprocess.Popen(
                ["/bin/bash", "-c", run, *words], pass_fds=(read, write), stderr=said, stdout=said
            )
        os.close(read)
        os.close(write)
        self._session = ""
        page = self._say("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._say("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._say(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = ""
        with contextlib.suppress(OSError, AssertionError):
            self._say("Browser.close")
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._in)
        os.close(self._out)

    def open(self, url: str) -> None:
        """Goes there, and waits until it is loaded."""
        self._say("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def ask(self, script: str) -> Any:
        """The value of an expression in the page."""
        words = {"expression": script, "returnByValue": True, "awaitPromise": True}
        found = self._say("Runtime.evaluate", **words)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def until(self, script: str, seconds: float = PATIENCE) -> Any:
        """Asks until the answer is true."""
        end = time.monotonic() + seconds
        while not (found := self.ask(script)):
            assert time.monotonic() < end, f"never true: {script}\n{self.errors}"
            time.sleep(0.1)
        return found

    def shot(self, file: Path) -> int:
        """A picture of the whole page; its bytes."""
        found = self._say("Page.captureScreenshot", captureBeyondViewport=True)
        data = base64.b64decode(found["data"])
        file.write_bytes(data)
        return len(data)

    def _say(self, method: str, **words: Any) -> Any:
        self._number += 1
        asked = {"id": self._number, "method": method, "params": words}
        if self._session:
            asked["sessionId"] = self._session
        os.write(self._out, json.dumps(asked).encode() + b"\0")
        while True:
            told = self._hear()
            if told.get("id") == self._number:
                assert "error" not in told, told
                return told["result"]
            self._note(told)

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._left:
            ready, _, _ = select.select([self._in], [], [], PATIENCE)
            assert ready, "Chromium does not answer"
            data = os.read(self._in, 2**20)
            assert data, "Chromium has ended"
            self._left += data
        one, _, self._left = self._left.partition(b"\0")
        told: dict[str, Any] = json.loads(one)
        return told

    def _note(self, told: dict[str, Any]) -> None:
        words = told.get("params", {})
        match told.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(str(words["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if words["type"] in ("error", "warning", "assert"):
                self.errors.append(str(words["args"]))
            case "Log.entryAdded" if words["entry"]["level"] in ("error", "warning"):
                self.errors.append(f"{words['entry']['text']} {words['entry'].get('url', '')}")
            case "Network.requestWillBeSent":
                self.requested.append(str(words["request"]["url"]))
