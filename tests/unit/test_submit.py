"""`xstilts submit`: what it does about a driver that runs, stops, or works on another version of the job."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from xstilts import api
from xstilts.cli.main import app
from xstilts.errors import ClusterError, XstiltsError
from xstilts.execute import ledger, submit
from xstilts.execute.orders import Orders, asked_of
from xstilts.record.artifacts import driver_file, job_file
from xstilts.record.local import LocalStore
from xstilts.spec.experiment import BudgetSpec

ADDRESS = "http://127.0.0.1:8265"
TEXT = """\
name: tiny
world: {seed: 1}
pretrain: {data: world, vocabulary: 500, layers: 1, width: 16, heads: 2, length: 32, batch: 32, steps: 40}
intermediate: [none]
targets: [world_tagging]
languages: [w0, w1]
seeds: [1]
evaluate: {split: test, first: 20, selection: {first: 20}}
execution: {workers: 2}
"""


@dataclass
class Cluster:
    """What Ray's dashboard says of its jobs, and is asked."""

    jobs: list[Any] = field(default_factory=list)
    environments: list[dict[str, Any]] = field(default_factory=list)
    asleep: Callable[[], None] = lambda: None

    def list_jobs(self) -> list[Any]:
        return list(self.jobs)

    def submit_job(self, entrypoint: str, submission_id: str, runtime_env: Any, metadata: Any) -> str:
        words = {"submission_id": submission_id, "metadata": metadata, "status": "RUNNING"}
        self.jobs.append(SimpleNamespace(**words, start_time=len(self.jobs)))
        self.environments.append(runtime_env)
        return submission_id


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    sdk = SimpleNamespace(JobSubmissionClient=lambda address: made)
    monkeypatch.setattr(submit, "import_ray", lambda: None)
    monkeypatch.setattr(submit, "importlib", SimpleNamespace(import_module=lambda name: sdk))
    clock = iter(range(10_000))
    slept = SimpleNamespace(
        time=time.time, monotonic=lambda: float(next(clock)), sleep=lambda seconds: made.asleep()
    )
    monkeypatch.setattr(submit, "time", slept)
    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(TEXT)
    return path


@pytest.fixture
def store(store_root: Path) -> LocalStore:
    return LocalStore(store_root)


def asks(file: Path, store: LocalStore, **words: Any) -> tuple[str, bool, list[str]]:
    """What `api.submit` gives and says."""
    said: list[str] = []
    job = api.open_job(file, store.location)
    name, new = api.submit(job, ADDRESS, "here", **words, say=said.append)
    return name, new, said


def says(store: LocalStore, submission: str, **words: Any) -> None:
    """Writes a driver's file."""
    now = time.time()
    told = {"driver": "me", "updated": now, "started": now, "state": "running", "submission": submission}
    store.put(driver_file("tiny", "me"), json.dumps(told | words).encode())


def test_a_job_that_is_driven_goes_on_and_heeds_limits(
    cluster: Cluster, file: Path, store: LocalStore
) -> None:
    first, new, said = asks(file, store)
    assert new and not said
    assert cluster.environments[0]["env_vars"]["XSTILTS_SUBMISSION"] == first
    says(store, first)
    assert asks(file, store, workers=3, budget=BudgetSpec(accelerator_hours=4)) == (first, False, [])
    assert asked_of(store, "tiny") == Orders("", 3, BudgetSpec(accelerator_hours=4))
    assert asks(file, store, workers="none") == (first, False, [])
    assert asked_of(store, "tiny") == Orders("", None, BudgetSpec(accelerator_hours=4))
    assert asks(file, store, budget="none") == (first, False, [])
    assert asked_of(store, "tiny") == Orders() and len(cluster.jobs) == 1


def test_what_runs_another_version_is_named_and_keeps_its_file(
    cluster: Cluster, file: Path, store: LocalStore
) -> None:
    first, _, _ = asks(file, store)
    says(store, first)
    file.write_text(TEXT.replace("seeds: [1]", "seeds: [1, 2]"))
    with pytest.raises(ClusterError, match=f"{first} is running another version of tiny.*xstilts cancel"):
        asks(file, store, workers=3)
    assert store.read(job_file("tiny")) == TEXT.encode()
    assert asked_of(store, "tiny") == Orders() and len(cluster.jobs) == 1

    cluster.jobs[0].status = "SUCCEEDED"
    second, new, _ = asks(file, store)
    assert new and second != first and b"[1, 2]" in (store.read(job_file("tiny")) or b"")


def test_what_decides_no_result_is_no_other_version(cluster: Cluster, file: Path, store: LocalStore) -> None:
    first, _, _ = asks(file, store)
    says(store, first)
    file.write_text(f"# a comment\n{TEXT}")
    assert asks(file, store) == (first, False, [])
    file.write_text(TEXT.replace("workers: 2", "workers: 5"))
    name, new, said = asks(file, store, workers=5)
    assert (name, new) == (first, False) and asked_of(store, "tiny").workers == 5
    assert len(said) == 1 and "keeps the `execution` it was submitted with" in said[0]


@pytest.mark.parametrize("how", ["cancelled", "stopping by itself", "done and still there"])
def test_a_driver_that_is_stopping_is_waited_for_and_the_job_driven_anew(
    cluster: Cluster, file: Path, store: LocalStore, how: str
) -> None:
    first, _, _ = asks(file, store)
    says(store, first, stopping=how == "stopping by itself", state="done" if "done" in how else "running")
    if how == "cancelled":
        assert api.cancel(api.open_job(file, store.location))
    file.write_text(TEXT.replace("seeds: [1]", "seeds: [1, 2]"))  # another version may follow it

    naps: list[int] = []

    def nap() -> None:
        naps.append(1)
        cluster.jobs[0].status = "RUNNING" if len(naps) < 2 else "STOPPED"

    cluster.asleep = nap
    second, new, said = asks(file, store)
    assert new and second != first and len(cluster.jobs) == len(naps) == 2
    assert said == [f"{first} is stopping; waiting for its end"]
    assert asked_of(store, "tiny") == Orders(), "the new driver would take the stop for its own"
    assert b"[1, 2]" in (store.read(job_file("tiny")) or b"")


def test_a_driver_that_does_not_stop_is_not_waited_for_for_ever(
    cluster: Cluster, file: Path, store: LocalStore
) -> None:
    first, _, _ = asks(file, store)
    says(store, first)
    api.cancel(api.open_job(file, store.location))
    with pytest.raises(ClusterError, match="is stopping and has not ended within 120 s.*cancel JOB --now"):
        asks(file, store, workers=3)
    assert asked_of(store, "tiny") == Orders("checkpoint"), "the order to stop was lost"
    assert len(cluster.jobs) == 1


def test_a_driver_of_another_place_that_stops_is_not_this_one(
    cluster: Cluster, file: Path, store: LocalStore
) -> None:
    first, _, _ = asks(file, store)
    says(store, "", stopping=True)  # an `xstilts run` after Ctrl-C
    assert asks(file, store) == (first, False, [])


def test_an_order_to_stop_stands_until_who_it_is_meant_for_has_read_it(
    cluster: Cluster, file: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`xstilts run` elsewhere, then cancel and submit in one breath."""
    monkeypatch.setattr(ledger, "PACE_SECONDS", 0.01)
    says(store, "")
    assert api.cancel(api.open_job(file, store.location))
    seen: list[str] = []

    def reads(store: Any, job: str) -> list[dict[str, Any]]:
        seen.append(asked_of(store, job).stop)
        if len(seen) == 3:
            says(store, "", state="interrupted")
        return drivers_of(store, job)

    drivers_of = ledger.drivers_of
    monkeypatch.setattr(ledger, "drivers_of", reads)
    _, new, _ = asks(file, store)
    assert new and set(seen[:3]) == {"checkpoint"} and not asked_of(store, "tiny").stop


def test_limits_are_given_and_taken_back_in_words(
    cluster: Cluster, file: Path, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")

    def xstilts(*words: str) -> str:
        result = CliRunner().invoke(app, [words[0], str(file), *words[1:], "--store", store.location])
        if isinstance(result.exception, XstiltsError):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.output

    place = ("--address", ADDRESS, "--package", "here")
    assert "submitted as" in xstilts("submit", "--max-concurrent", "3", "--budget", "2.5", *place)
    assert "at most 3 steps at once, accelerator-hours up to 2.5" in xstilts("status")
    assert json.loads(xstilts("status", "--json"))["orders"]["workers"] == 3
    said = xstilts("submit", "--max-concurrent", "none", *place)
    assert "running it already and goes on, with what was asked now" in said
    assert "asked by submit or cancel: accelerator-hours up to 2.5" in xstilts("status")
    xstilts("submit", "--budget", "none", *place)
    assert "asked by" not in xstilts("status")
    assert json.loads(xstilts("status", "--json"))["orders"] == Orders().to_words()
    for option, text in (("--max-concurrent", "0"), ("--max-concurrent", "2.5"), ("--budget", "nan")):
        with pytest.raises(XstiltsError, match=f"{option} {text} is no limit"):
            xstilts("submit", option, text, *place)
