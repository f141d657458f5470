"""A made-up job half done, as its drivers would have left it, and a browser's view of its dashboard."""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from made_up_job import MadeUpJob, QuickStore

from xstilts.dashboards.pages import Pages
from xstilts.dashboards.server import Dashboard
from xstilts.dashboards.watched import Asked
from xstilts.record.artifacts import ArtifactStore, StepPaths, driver_file, plan_file
from xstilts.record.lease import Claim

LABELS = {
    "runs": "train-panx-s1-after-mnli-s1",
    "fails": "train-panx-s2-after-mnli-s2",
    "blocked": ("predict-panx-s2-after-mnli-s2", "score-panx-s2-after-mnli-s2"),
    "waits": ("predict-panx-s1-after-mnli-s1", "score-panx-s1-after-mnli-s1"),
}
HOSTILE = '<script>alert("x")</script>'


@dataclass
class Half:
    """Of 2 rows, 3 targets and 2 seeds: one step runs, one failed and blocks two, two wait."""

    folder: Path
    words: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        waiting = (LABELS["runs"], LABELS["fails"], *LABELS["blocked"], *LABELS["waits"])
        self.store = QuickStore(self.folder / "store")
        made = {"intermediates": ("none", "mnli"), "seeds": (1, 2), "items": 60, "unfinished": waiting}
        self.job = MadeUpJob(**{**made, "gains": {("mnli", "xnli"): 0.12}, **self.words})
        self.plan = self.job.make(self.store)
        self.put_plan(self.store)
        attempt = {"attempt": "x", "cause": "lost worker", "text": f"gone {HOSTILE}\nmore", "ended": "then"}
        self.put(StepPaths(self.key(LABELS["runs"])).attempt("x"), attempt)
        claim = Claim(holder="driver-1", attempt="a2", host="elsewhere")
        self.store.put(StepPaths(self.key(LABELS["runs"])).lease, claim.to_json())
        self.drive(0.25)

    def put_plan(self, store: ArtifactStore, **changed: Any) -> None:
        """The plan where drivers leave it."""
        data = json.dumps({**self.plan, **changed}).encode()
        store.put(plan_file("made_up", {**self.plan, **changed}["digest"]), data)

    def drive(self, done: float, text: str = f"Traceback:\nValueError: {HOSTILE}", **changed: Any) -> None:
        """What the driver says of itself, with the running step so far."""
        words = {"driver": "driver-1", "updated": time.time(), "started": 1.0, "state": "running", "slots": 2,
                 "spent": {"accelerator_seconds": 5400.0}, "running": {LABELS["runs"]: {"done": done}},
                 "notes": {LABELS["waits"][0]: "waits for a place"},
                 "failed": {LABELS["fails"]: {"cause": "bug", "text": text}}}  # fmt: skip
        self.put(driver_file("made_up", "driver-1"), {**words, **changed})

    def finish(self, label: str) -> None:
        """Makes the record that was missing."""
        self.job._record(next(step for step in self._steps() if step["label"] == label), self.store)

    def key(self, label: str) -> str:
        """Its name in the store."""
        return next(step["key"] for step in self.plan["steps"] if step["label"] == label)

    def put(self, name: str, words: Any) -> None:
        """Writes JSON."""
        self.store.put(name, json.dumps(words).encode())

    def _steps(self) -> list[dict[str, Any]]:
        cells = {cell["score"]: cell for cell in self.plan["cells"]}
        return [
            {**step, "row": cells[step["label"]]["intermediate"], "target": cells[step["label"]]["target"],
             "seed": cells[step["label"]]["seed"]} if step["label"] in cells else step
            for step in self.plan["steps"]
        ]  # fmt: skip


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below, with when it changed and how large it is."""
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted([folder, *folder.rglob("*")])
    }


@contextmanager
def serving(store: ArtifactStore, *jobs: Asked, **words: Any) -> Iterator[Dashboard]:
    """A dashboard on a free port."""
    with Dashboard(Pages(store, jobs, **words), 0) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join(10)


@dataclass(frozen=True)
class Got:
    """An answer."""

    status: int
    text: str
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def get(dashboard: Dashboard, path: str, method: str = "GET", **headers: str) -> Got:
    """What the dashboard answers; `Host=...` asks under another name."""
    asked = urllib.request.Request(
        dashboard.url + path, method=method, headers=headers, data=b"x=1" if method == "POST" else None
    )
    try:
        with urllib.request.urlopen(asked, timeout=20) as reply:
            return Got(reply.status, reply.read().decode(), dict(reply.headers))
    except urllib.error.HTTPError as reply:
        with reply:
            return Got(reply.code, reply.read().decode(), dict(reply.headers))


def until(dashboard: Dashboard, path: str, holds: Any, seconds: float = 20) -> Any:
    """Asks for JSON until it `holds`."""
    end = time.monotonic() + seconds
    while True:
        found = get(dashboard, path).json
        if holds(found):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.1)
