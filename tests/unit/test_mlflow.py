"""The live view in MLflow: what it shows, and that it is never in the way."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow_kit import curve, runs_of

import xstilts
from xstilts.record.mlflow import LiveView, backlog, live, telling, ui_command, where
from xstilts.record.mlflow.runs import Runs

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(xstilts.__file__).parents[1])}
"""For other processes, where the package is not installed."""

FIRST = """
import sys
from xstilts.record.mlflow import LiveView
view = LiveView(sys.argv[1], sys.argv[2], sys.argv[3])
view.job_started({"digest": "d0"}, {"seed": "1"})
view.step_started("k--0", "k", {"kind": "train"}, {})
view.points("k--0", [("loss", 1.0, 1, 1000)])
view.step_ended("k--0", "FINISHED", {})
view.job_ended("FINISHED")
print(view.close(60))
"""

HANGS = """
import sys, time
from xstilts.record.mlflow import LiveView
view, slowest = LiveView(sys.argv[1], None, "job"), 0.0
def timed(call):
    global slowest
    started = time.perf_counter()
    call()
    slowest = max(slowest, time.perf_counter() - started)
timed(lambda: view.job_started({"digest": "d0"}, {"a": "b"}))
timed(lambda: view.step_started("k", "k", {}, {}))
time.sleep(4)  # long enough to import MLflow and to hang in its first request
for step in range(312):
    timed(lambda: view.points("k", [("loss", 1.0, step, 1000)]))
timed(lambda: view.step_ended("k", "FINISHED", {}))
timed(lambda: view.job_ended("FINISHED"))
started = time.perf_counter()
notes = view.close(1.0)
print(slowest, time.perf_counter() - started)
print(*notes, sep="\\n")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Tracking URI and artifact root, made by two processes at once: neither fails nor prints a word."""
    store = tmp_path_factory.mktemp("store")
    found = where(str(store))
    assert found is not None
    uri, root = found
    assert root is not None
    both = [
        subprocess.Popen(
            [sys.executable, "-c", FIRST, uri, root, f"first{number}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        for number in (1, 2)
    ]
    for process in both:
        assert process.communicate() == ("[]\n", "")
    return uri, root


def test_shows_a_job_as_nested_runs(place: tuple[str, str], tmp_path: Path) -> None:
    uri, root = place
    report = tmp_path / "report" / "figures"
    report.mkdir(parents=True)
    (report / "map.svg").write_text("<svg/>")
    (tmp_path / "report" / "report.html").write_text("<html>")
    shown = LiveView(uri, root, "nested")
    shown.job_started({"digest": "d1", "model": "mini-12"}, {"seeds": "[1]", "long": "x" * 9000})
    shown.step_started("t--1", "train t", {"kind": "train", "seed": "1"}, {"learning_rate": "1e-05"})
    shown.points("t--1", [("loss", 1.0 / step, step, 1_000 + step) for step in range(1, 2501)])
    shown.points("t--1", [("dev/accuracy (en)", float("nan"), 1, 1_000)])
    shown.step_ended("t--1", "FINISHED", {"final/loss": 0.1}, {"flags": "collapsed"})
    shown.cell("none > xnli", {"intermediate": "none"}, {"accuracy/de": 61.5})
    shown.artifact(tmp_path / "report", "report")
    shown.artifact(tmp_path / "absent", "report")
    shown.job_ended("FINISHED")
    notes = shown.close(60)
    assert len(notes) == 1
    assert "refused 1 events or curves, the first because: no file" in notes[0]

    runs = runs_of(uri, "nested")
    parent, step, cell = runs["nested"], runs["train t"], runs["none > xnli"]
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for run in (step, cell):
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["job"] == "nested"
    assert parent.data.tags["digest"] == "d1"
    assert len(parent.data.params["long"]) == 6000
    assert parent.data.params["long"].endswith("…")
    assert step.data.tags["key"] == "t--1"
    assert step.data.tags["flags"] == "collapsed"
    assert step.data.params == {"learning_rate": "1e-05"}
    assert step.data.metrics["final/loss"] == 0.1
    assert "dev/accuracy _en_" in step.data.metrics
    assert len(curve(uri, step, "loss")) == 2500
    assert cell.data.metrics == {"accuracy/de": 61.5}
    folder = Path(root) / "nested" / parent.info.run_id / "artifacts" / "report"
    assert (folder / "report.html").read_text() == "<html>"
    assert (folder / "figures" / "map.svg").exists()


def test_a_resumed_step_goes_on_in_its_run(place: tuple[str, str]) -> None:
    uri, root = place
    before = LiveView(uri, root, "resumed")
    before.job_started({"digest": "d1"}, {"a": "1"})
    before.step_started("t--1", "train t", {"kind": "train"}, {})
    before.points("t--1", [("loss", float(step), step, 1_000) for step in range(1, 8)])
    before.step_ended("t--1", "KILLED", {})
    before.job_ended("KILLED")
    assert before.close(60) == []
    first = runs_of(uri, "resumed")
    assert first["train t"].info.status == "KILLED"

    # The same plan again, from the checkpoint at step 5 on.
    after = LiveView(uri, root, "resumed")
    after.job_started({"digest": "d1"}, {"a": "changed", "b": "2"})
    after.step_started("t--1", "train t", {"kind": "train"}, {})
    after.points("t--1", [("loss", float(step), step, 2_000) for step in range(6, 11)])
    after.step_ended("t--1", "FINISHED", {})
    after.job_ended("FINISHED")
    assert after.close(60) == []
    second = runs_of(uri, "resumed")
    assert {name: run.info.run_id for name, run in first.items()} == {
        name: run.info.run_id for name, run in second.items()
    }
    assert {run.info.status for run in second.values()} == {"FINISHED"}
    assert curve(uri, second["train t"], "loss") == [(step, float(step)) for step in range(1, 11)]
    assert second["resumed"].data.params == {"a": "1", "b": "2"}


def test_a_reused_step_links_to_the_run_that_computed_it(place: tuple[str, str]) -> None:
    uri, root = place
    for _ in range(2):  # twice: the second time everything is there
        shown = LiveView(uri, root, "reuser")
        shown.job_started({"digest": "d1"}, {})
        shown.reused("k--0", "k", {"kind": "train"}, {"final/loss": 0.5})
        shown.job_ended("FINISHED")
        assert shown.close(60) == []
    runs = runs_of(uri, "reuser")
    assert set(runs) == {"reuser", "k"}
    tags = runs["k"].data.tags
    assert tags["reused"] == "true"
    firsts = {runs_of(uri, job)["k"].info.run_id for job in ("first1", "first2")}
    assert tags["first_run"] in firsts
    assert runs["k"].data.metrics == {"final/loss": 0.5}


def test_a_changed_plan_takes_over_what_was_begun(place: tuple[str, str], tmp_path: Path) -> None:
    uri, root = place
    runs = Runs(uri, root, "changed")
    before, after = (runs.parent(digest, {"digest": digest}, 1) for digest in ("d1", "d2"))
    begun = runs.step("t--1", "t", before, {}, 1)
    found = Runs(uri, root, "changed").step("t--1", "t", after, {}, 2)
    assert (found.id, found.tags["mlflow.parentRunId"]) == (begun.id, after.id)

    (tmp_path / "report.html").write_text("<html>")
    late = LiveView(uri, root, "changed", digest="d1")
    late.artifact(tmp_path / "report.html", "report")
    assert late.close(60) == []
    assert (Path(root) / "changed" / before.id / "artifacts" / "report" / "report.html").exists()


def test_points_travel_in_batches(place: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    uri, root = place
    sizes: list[int] = []
    real = MlflowClient.log_batch

    def counted(self: Any, run_id: str, metrics: Sequence[Any] = (), **others: Any) -> Any:
        sizes.append(len(metrics))
        return real(self, run_id, metrics=metrics, **others)

    monkeypatch.setattr(MlflowClient, "log_batch", counted)
    shown = LiveView(uri, root, "batches")
    shown.job_started({"digest": "d1"}, {})
    shown.step_started("t--1", "t", {}, {})
    started = time.monotonic()
    for step in range(300):
        shown.points("t--1", [(name, 0.5, step, 1_000 + step) for name in ("loss", "rate", "norm")])
        time.sleep(0.01)
    rounds = time.monotonic() - started
    shown.step_ended("t--1", "FINISHED", {})
    assert shown.close(60) == []
    curves = [size for size in sizes if size]
    assert sum(curves) == 900
    assert len(curves) <= rounds + 2


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that accepts every connection and never says a word."""
    kept = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    kept.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        # Some kernels do not wake accept() by close() alone.
        server.shutdown(socket.SHUT_RDWR)
    for connection in kept:
        connection.close()


def test_a_server_that_hangs_blocks_nothing(silent: str) -> None:
    started = time.monotonic()
    command = [sys.executable, "-c", HANGS, silent]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=ENVIRONMENT)
    times, note = done.stdout.strip().split("\n")
    slowest, closing = map(float, times.split())
    assert slowest < 3.0, "a call waited for MLflow, which hangs for ever"
    assert 1.0 <= closing < 2.5
    assert "312 points and 4 events were not written; `xstilts export mlflow job` rebuilds them" in note
    assert done.stderr == ""
    assert time.monotonic() - started < 20, "the process waited at exit for a request that hangs"


def test_a_server_that_is_away_is_said_at_the_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    shown = LiveView(f"http://127.0.0.1:{port}", None, "away")
    shown.job_started({}, {})
    shown.points("t--1", [("loss", 1.0, 1, 1)])
    started = time.monotonic()
    notes = shown.close(2.0)
    assert time.monotonic() - started < 3.5
    assert "did not answer in time" in notes[0]
    assert shown.close() == notes
    shown.points("t--1", [("loss", 1.0, 2, 1)])
    shown.job_ended("FAILED")


class Away(Exception):
    """What MLflow raises for a server that does not answer."""

    error_code = "TEMPORARILY_UNAVAILABLE"


class Memory:
    """Runs kept in memory, with faults to order: each call first asks `fault`."""

    def __init__(self, fault: Callable[[str], None]) -> None:
        self.fault, self.calls = fault, []  # type: tuple[Callable[[str], None], list[Any]]

    def parent(self, digest: str, tags: object, at: int) -> str:
        return "parent"

    def step(self, key: str, name: str, parent: str, tags: object, at: int) -> str:
        return key

    def points(self, run: str, points: list[Any]) -> None:
        self.fault("points")
        self.calls.append((run, [point[2] for point in points]))

    def end(self, run: str, status: str, at: int) -> None:
        self.fault("end")
        self.calls.append((run, status))

    def forget(self) -> None:
        self.calls.append("forget")

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *others: None


def in_memory(monkeypatch: pytest.MonkeyPatch, fault: Callable[[str], None]) -> tuple[LiveView, Memory]:
    """A view that writes to memory, ten rounds a second."""
    memory = Memory(fault)
    monkeypatch.setattr(live, "Runs", lambda *address: memory)
    monkeypatch.setattr(live, "PACE", 0.1)
    return LiveView("memory", None, "job"), memory


def test_an_outage_loses_nothing_and_keeps_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    left = [3]

    def fault(method: str) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise Away("503")

    shown, memory = in_memory(monkeypatch, fault)
    for step in range(5):
        shown.points("a", [("loss", 0.0, step, 0)])
        shown.points("b", [("loss", 0.0, step, 0)])
    shown.step_ended("a", "FINISHED", {})
    shown.job_ended("FINISHED")
    assert shown.close(10) == []
    assert [call for call in memory.calls if call != "forget"] == [
        ("a", [0, 1, 2, 3, 4]),
        ("a", "FINISHED"),
        ("parent", "FINISHED"),
        ("b", [0, 1, 2, 3, 4]),
    ]


def test_what_mlflow_never_takes_holds_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(method: str) -> None:
        if method == "points":
            raise ValueError("INVALID: no such thing\nand more")

    shown, memory = in_memory(monkeypatch, fault)
    shown.points("a", [("loss", 0.0, 1, 0)])
    shown.step_ended("a", "FINISHED", {})
    notes = shown.close(10)
    assert [call for call in memory.calls if call != "forget"] == [("a", "FINISHED")]
    assert "refused 1 events or curves, the first because: INVALID: no such thing;" in notes[0]


def test_what_fails_alone_is_given_up_once_mlflow_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that always ends in an error of the server's, while the server takes others."""

    def fault(method: str) -> None:
        if method == "points":
            raise Away("500")

    monkeypatch.setattr(telling, "TRIES", 3)
    shown, memory = in_memory(monkeypatch, fault)
    monkeypatch.setattr(memory, "answers", lambda: True, raising=False)
    shown.points("a", [("loss", 0.0, 1, 0)])
    shown.step_ended("b", "FINISHED", {})
    assert "refused 1 events or curves, the first because: 500;" in shown.close(20)[0]
    assert ("b", "FINISHED") in memory.calls


def test_what_there_is_no_room_for_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MEMORY", 10)
    monkeypatch.setattr(backlog, "SPILL_BYTES", 0)
    up = threading.Event()

    def fault(method: str) -> None:
        if not up.is_set():
            raise Away("503")

    shown, memory = in_memory(monkeypatch, fault)
    shown._backlog._begin = lambda: None  # type: ignore[method-assign]
    for step in range(25):
        shown.points("a", [("loss", 0.0, step, 0)])
    up.set()
    notes = shown.close(10)
    assert memory.calls[-1] == ("a", list(range(10)))
    assert notes == [
        "MLflow was too slow for 15 points; `xstilts export mlflow job` rebuilds them from the store"
    ]


def test_no_mlflow_at_all_is_one_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*address: object) -> None:
        raise ModuleNotFoundError("No module named 'mlflow'")

    monkeypatch.setattr(live, "Runs", absent)
    shown = LiveView("memory", None, "job")
    shown.job_started({}, {})
    shown.points("a", [("loss", 0.0, 1, 0)])
    notes = shown.close(10)
    assert any("No module named 'mlflow'" in note for note in notes)


def test_a_server_in_the_environment_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert where("/results") == ("sqlite:////results/mlflow.db", "/results/mlflow-artifacts")
    assert where("s3://bucket/prefix") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    assert where("s3://bucket/prefix") == ("http://mlflow:5000", None)


def test_importing_the_view_imports_no_mlflow() -> None:
    code = "import sys, xstilts.record.mlflow; print([m for m in ('mlflow', 'pandas') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=ENVIRONMENT).strip() == "[]"


@pytest.mark.slow
def test_the_ui_shows_runs_and_reports(place: tuple[str, str], tmp_path: Path) -> None:
    uri, root = place
    (tmp_path / "report.html").write_text("<html>seen")
    shown = LiveView(uri, root, "seen")
    shown.job_started({"digest": "d1"}, {})
    shown.artifact(tmp_path / "report.html", "report")
    assert shown.close(60) == []
    run = runs_of(uri, "seen")["seen"].info.run_id
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    command, environment = ui_command(Path(root).parent, port)
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(120):
            try:
                assert urllib.request.urlopen(f"{address}/health", timeout=5).status == 200
                break
            except OSError:
                time.sleep(0.5)
        file = f"{address}/get-artifact?path=report/report.html&run_uuid={run}"
        assert urllib.request.urlopen(file, timeout=20).read() == b"<html>seen"
    finally:
        process.terminate()
        process.communicate(timeout=30)
