"""The live view on a real MLflow server, with runs in PostgreSQL and artifacts in S3, and what befalls those.

Whatever happens, the same end: no call waited, everything is there once, or a sentence says what is not.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from infra.local.stack import Stack

from stack import REPO, StackMaker
from xstilts.record.local import LocalStore
from xstilts.record.mlflow import LiveView, backlog, live, read_links, rebuild

for folder in ("unit", "faults"):
    sys.path.append(str(REPO / "tests" / folder))

from mlflow_kit import curve, planned, runs_of  # noqa: E402
from proxy import Proxy, Rule  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.s3]

MOST_CALLS, ANY_CALL = 0.001, 3.0
"""Seconds that half of the calls and any one may take: a machine has stood still for 0.8 s, and who waited
for a server that is down, hangs or starts would wait longer than 3 s."""


@pytest.fixture(scope="module")
def stack(make_stack: StackMaker) -> Stack:
    """S3, PostgreSQL and MLflow."""
    return make_stack("s3", "postgres", "mlflow")


@pytest.fixture
def server(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The server's address, in the environment of its users; all of it runs before and after."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(live, "PACE", 0.2)
    assert stack.mlflow is not None
    yield stack.mlflow.url
    for part in (stack.postgres, stack.mlflow):
        assert part is not None
        if part.pid is None:
            part.revive()


class Job:
    """A job that is shown live, which notes how long each call took."""

    def __init__(self, server: str, name: str, steps: int = 3) -> None:
        self.view = LiveView(server, None, name)
        self.server, self.name = server, name
        self.times: list[float] = []
        self.steps = [f"t--{number}" for number in range(steps)]
        self.sent = 0

    def call(self, method: str, *words: Any) -> None:
        began = time.perf_counter()
        getattr(self.view, method)(*words)
        self.times.append(time.perf_counter() - began)

    def begin(self) -> None:
        self.call("job_started", {"digest": "d1", "model": "mini"}, {"seeds": "[1]"})
        for key in self.steps:
            self.call("step_started", key, f"train {key}", {"kind": "train"}, {"epochs": "3"})

    def train(self, points: int, pause: float = 0.0) -> None:
        """So many more points for every step."""
        for step in range(self.sent, self.sent + points):
            for key in self.steps:
                self.call("points", key, [("loss", 1.0 / (step + 1), step, 1_800_000_000_000 + step)])
            time.sleep(pause)
        self.sent += points

    def end(self, timeout: float = 90.0) -> list[str]:
        for key in self.steps:
            self.call("step_ended", key, "FINISHED", {"final/loss": 0.1})
        self.call("cell", "none > xnli", {"target": "xnli"}, {"accuracy/de": 61.5})
        self.call("job_ended", "FINISHED")
        return self.view.close(timeout)

    def check(self) -> None:
        """Everything is there once, and no call waited."""
        runs = runs_of(self.server, self.name)
        assert set(runs) == {self.name, "none > xnli", *(f"train {key}" for key in self.steps)}
        assert {run.info.status for run in runs.values()} == {"FINISHED"}
        for key in self.steps:
            found = curve(self.server, runs[f"train {key}"], "loss")
            assert found == [(step, 1.0 / (step + 1)) for step in range(self.sent)]
            assert curve(self.server, runs[f"train {key}"], "final/loss") == [(0, 0.1)]
        self.check_pace()

    def check_pace(self) -> None:
        """No call waited."""
        assert statistics.median(self.times) < MOST_CALLS and max(self.times) < ANY_CALL


class Before(Proxy):
    """A proxy that says it is the server: MLflow takes requests for the hosts that it was told of only."""

    def _answer(self, client: Any, request: Any) -> bool:
        host = b"Host: 127.0.0.1:%d\r" % self.port
        request.head = re.sub(rb"(?im)^host:[^\r]*\r", host, request.head)
        return super()._answer(client, request)


def waits(job: Job) -> Counter[str]:
    return job.view._backlog.waiting


def until(true: Any, seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not come to that"
        time.sleep(0.05)


def test_a_job_is_shown_and_rebuilt_with_its_report_in_s3(server: str, tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    job = Job(server, "whole")
    job.begin()
    job.train(200, 0.001)
    assert job.end() == []
    job.check()

    store = LocalStore(tmp_path / "store")
    plan = planned(store, "rebuilt", trainings=3, points=50)
    first = None
    for _ in range(2):
        assert rebuild(plan, store, server, None) == 6
        runs = runs_of(server, "rebuilt")
        for name, run in runs.items():
            for metric in run.data.metrics:
                assert len(curve(server, run, metric)) == (50 if metric == "loss" else 1), (name, metric)
        ids = {name: run.info.run_id for name, run in runs.items()}
        assert first in (None, ids), "twice makes no second ones"
        first = ids
    parent = runs["rebuilt"].info
    assert parent.artifact_uri.startswith("s3://")
    file = MlflowClient(server).download_artifacts(parent.run_id, "report/report.html", str(tmp_path))
    assert Path(file).read_bytes() == b"<html>"
    links = read_links(store, "rebuilt")
    assert links is not None
    assert (links["tracking"], links["parent"]) == (server, parent.run_id)


def test_a_server_that_is_down_at_the_start_and_comes(server: str, stack: Stack) -> None:
    assert stack.mlflow is not None
    stack.mlflow.stop()
    job = Job(server, "late")
    job.begin()
    job.train(100)
    time.sleep(3)
    assert waits(job) == {"points": 300, "events": 4}
    stack.mlflow.revive()
    assert job.end() == []
    job.check()


def test_a_server_that_goes_and_comes_back_gets_what_was_spilled_in_order(
    server: str, stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(backlog, "MEMORY", 2_000)
    assert stack.mlflow is not None
    job = Job(server, "outage")
    job.begin()
    job.train(300, 0.002)
    until(lambda: waits(job)["points"] < 300)
    stack.mlflow.send(signal.SIGKILL)
    job.train(3_000, 0.001)
    assert job.view._backlog.spilled > 100_000
    stack.mlflow.revive()
    job.train(300, 0.002)
    assert job.end() == []
    job.check()


def test_a_server_that_is_killed_while_it_takes_something(server: str, stack: Stack) -> None:
    """What was asked may have been done, and the answer lost: nothing is there twice."""
    assert stack.mlflow is not None
    job = Job(server, "torn")
    job.begin()
    for _ in range(3):
        job.train(150, 0.004)
        stack.mlflow.send(signal.SIGKILL)
        job.train(100, 0.001)
        stack.mlflow.revive()
    assert job.end() == []
    job.check()


def test_answers_that_are_lost_make_nothing_twice(server: str, stack: Stack) -> None:
    assert stack.mlflow is not None
    with Before(stack.mlflow.port) as proxy:
        job = Job(proxy.url, "lost")
        proxy.rules.append(Rule("lose", method="POST", path="/(experiments|runs)/create", times=4))
        proxy.rules.append(Rule("lose", method="POST", path="/(log-batch|update)", times=0, share=0.3))
        proxy.rules.append(Rule("503", times=0, share=0.1))
        proxy.rules.append(Rule("500", times=0, share=0.1))
        job.begin()
        limit = time.monotonic() + 40
        while proxy.met["lose"] < 8 and time.monotonic() < limit:
            job.train(10, 0.02)
        proxy.rules.clear()
        assert job.end() == []
        assert proxy.met["lose"] >= 8
    job.server = server
    job.check()


def test_a_server_that_is_gone_for_good_is_a_sentence(server: str, stack: Stack) -> None:
    assert stack.mlflow is not None
    job = Job(server, "gone")
    job.begin()
    job.train(50, 0.001)
    until(lambda: not waits(job).total())
    stack.mlflow.stop()
    job.train(50)
    began = time.monotonic()
    (note,) = job.end(3.0)
    assert time.monotonic() - began < 4.5
    assert "150 points and 5 events were not written; `xstilts export mlflow gone` rebuilds them" in note
    job.check_pace()


def test_a_server_that_hangs_is_a_sentence_too(server: str, stack: Stack) -> None:
    assert stack.mlflow is not None
    job = Job(server, "hangs")
    stack.mlflow.send(signal.SIGSTOP)
    try:
        job.begin()
        job.train(50)
        time.sleep(3)
        began = time.monotonic()
        (note,) = job.end(2.0)
        assert time.monotonic() - began < 3.5
    finally:
        stack.mlflow.send(signal.SIGCONT)
    assert "150 points and 9 events were not written" in note
    job.check_pace()


def test_a_slow_server_slows_no_step(server: str, stack: Stack) -> None:
    assert stack.mlflow is not None
    with Before(stack.mlflow.port) as proxy:
        proxy.rules.append(Rule("delay", times=0, seconds=0.4))
        job = Job(proxy.url, "slow", steps=2)
        began = time.monotonic()
        job.begin()
        job.train(1_000)
        assert time.monotonic() - began < 5
        assert job.end() == []
    job.server = server
    job.check()


def test_postgresql_that_is_restarted_under_the_server(server: str, stack: Stack) -> None:
    assert stack.postgres is not None
    job = Job(server, "database")
    job.begin()
    job.train(200, 0.002)
    for number in (signal.SIGQUIT, signal.SIGKILL):
        stack.postgres.send(number)
        job.train(200, 0.01)
        stack.postgres.revive()
        job.train(200, 0.005)
    assert job.end() == []
    job.check()


def test_values_that_are_no_numbers(server: str) -> None:
    view = LiveView(server, None, "numbers")
    view.job_started({"digest": "d1"}, {})
    view.step_started("t--1", "t", {}, {})
    values = [1.0, math.nan, math.inf, -math.inf, 2.0]
    view.points("t--1", [("loss", value, step, 1_000 + step) for step, value in enumerate(values)])
    view.step_ended("t--1", "FINISHED", {"final/loss": math.nan, "final/best": math.inf})
    assert view.close(60) == []
    run = runs_of(server, "numbers")["t"]
    found = [value for _, value in curve(server, run, "loss")]
    assert (found[0], found[4]) == (1.0, 2.0)
    assert math.isnan(found[1])
    assert found[2] > 1e300 > -1e300 > found[3]
    assert math.isnan(run.data.metrics["final/loss"])


DRIVER = """
import sys, time
from xstilts.record.local import LocalStore
from xstilts.record.mlflow import LiveView
server, job, first, last, begin, folder = sys.argv[1:]
view = LiveView(server, None, job)
view.from_store(LocalStore(folder))
time.sleep(max(0.0, float(begin) - time.time()))
view.job_started({"digest": "d1"}, {"seeds": "[1]"})
view.step_started("t--1", "t", {"kind": "train"}, {"epochs": "3"})
for step in range(int(first), int(last)):
    view.points("t--1", [("loss", float(step), step, 1_800_000_000_000 + step)])
    time.sleep(0.01)
print("here", flush=True)
if sys.stdin.readline():
    view.step_ended("t--1", "FINISHED", {"final/loss": 0.1})
for number in range(8):
    view.cell(f"none > {number}", {"target": str(number)}, {"accuracy/de": 61.5})
view.job_ended("FINISHED")
print(view.close(60))
"""


@contextlib.contextmanager
def driver(
    server: str, job: str, first: int, last: int, begin: float, folder: Path
) -> Iterator[subprocess.Popen[str]]:
    words = [server, job, str(first), str(last), str(begin), str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPO / "platform")},
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_two_drivers_of_one_job_make_one_run_of_each(server: str, tmp_path: Path) -> None:
    """They begin in the same moment, so that each finds nothing; the same step, since a lease may be lost."""
    begin = time.time() + 4
    one, two = (driver(server, "two", 0, 100, begin, tmp_path) for _ in range(2))
    with one as first, two as second:
        for process in (first, second):
            assert process.stdout is not None and process.stdout.readline() == "here\n"
        said = [process.communicate("end\n", timeout=90)[0] for process in (first, second)]
    assert said == ["[]\n", "[]\n"]
    runs = runs_of(server, "two")
    assert set(runs) == {"two", "t", *(f"none > {number}" for number in range(8))}
    assert curve(server, runs["t"], "loss") == [(step, float(step)) for step in range(100)]
    parent = runs["two"].info.run_id
    assert {run.data.tags.get("mlflow.parentRunId") for name, run in runs.items() if name != "two"} == {
        parent
    }
    links = read_links(LocalStore(tmp_path), "two")
    assert links is not None
    assert (links["parent"], links["runs"]) == (parent, {"t--1": runs["t"].info.run_id})
    assert len(links["cells"]) == 8


def told(server: str, job: str, name: str) -> int:
    """Points of a run's curve so far."""
    from mlflow.tracking import MlflowClient

    found = MlflowClient(server).get_experiment_by_name(job) and runs_of(server, job)
    return len(curve(server, found[name], "loss")) if found and name in found else 0


def test_a_driver_that_was_killed_is_followed_by_one_that_repeats_some(server: str, tmp_path: Path) -> None:
    with driver(server, "killed", 0, 150, 0.0, tmp_path) as process:
        assert process.stdout is not None and process.stdout.readline() == "here\n"
        until(lambda: told(server, "killed", "t") == 150)
        process.kill()
    with driver(server, "killed", 120, 200, 0.0, tmp_path) as process:
        assert process.communicate("end\n", timeout=90)[0].splitlines() == ["here", "[]"]
    runs = runs_of(server, "killed")
    assert [step for step, _ in curve(server, runs["t"], "loss")] == list(range(200))
    assert {run.info.status for run in runs.values()} == {"FINISHED"}


def test_no_password_is_anywhere(
    server: str, stack: Stack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert stack.mlflow is not None
    secret = "pl4nted-Secr3t"
    monkeypatch.setattr(backlog, "MEMORY", 200)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.replace("://", f"://me:{secret}@"))
    monkeypatch.setenv("PGPASSWORD", f"other-{secret}")
    store = LocalStore(tmp_path / "store")
    view = LiveView(os.environ["MLFLOW_TRACKING_URI"], None, "secret", scratch=tmp_path)
    view.from_store(store)
    view.job_started({"digest": "d1"}, {"a": "b"})
    view.step_started("t--1", "t", {}, {})
    until(lambda: not view._backlog.waiting.total())
    stack.mlflow.stop()
    text = f"postgresql://me:{secret}@db/mlflow: password={secret}, Authorization: Basic {secret}"
    text += f", other-{secret}"
    for step in range(300):
        view.points("t--1", [("loss", 1.0, step, 1_000 + step)])
        if step % 30 == 0:
            view.step_ended("t--1", "FAILED", {}, {"text": text})
        time.sleep(0.002)
    time.sleep(2)
    spilled = b"".join(segment_bytes(each) for each in view._backlog._segments)
    assert b"hidden" in spilled
    assert b"Secr3t" not in spilled
    notes = view.close(1)
    assert "127.0.0.1" in notes[0]
    assert "Secr3t" not in notes[0]

    stack.mlflow.revive()
    view = LiveView(os.environ["MLFLOW_TRACKING_URI"], None, "secret")
    view.from_store(store)
    view.job_started({"digest": "d1"}, {})
    view.step_ended("t--1", "FAILED", {}, {"text": text})
    assert view.close(60) == []
    links = store.read("jobs/secret/mlflow.json") or b""
    assert json.loads(links)["tracking"] == server
    run = runs_of(server, "secret")["t"]
    assert "(hidden)" in run.data.tags["text"]
    assert not any("Secr3t" in str(run.to_dictionary()) for run in runs_of(server, "secret").values())


def segment_bytes(segment: Any) -> bytes:
    data: bytes = os.pread(segment._file.fileno(), 10_000_000, 0)
    return data


def test_nothing_of_a_view_is_left_running(server: str) -> None:
    for number in range(3):
        view = LiveView(server, None, "threads")
        view.job_started({"digest": f"d{number}"}, {})
        assert view.close(60) == []
    assert not [each.name for each in threading.enumerate() if each.name.startswith("mlflow-")]
