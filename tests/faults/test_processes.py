"""Processes that die, hang, come back, run out of memory or disk, or are told to stop: jobs end as if not.

Ray runs on this machine, in a temporary folder of the bench's own; the store is a folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from fault_kit import (
    AFTER,
    IN_FORWARD,
    NLI,
    PLAIN,
    PRETRAIN,
    TINY,
    Bench,
    enlarge,
    fault,
    mounted,
    quick_leases,
    reports_every,
)

import made_mirror
from conftest import NewBench
from end_state import results
from xstilts import api

pytestmark = [pytest.mark.slow]

RAY = ("--backend", "ray")
RUN_TRAIN = "xstilts.execute.training:run_train"
CREATE = "xstilts.record.local:LocalStore.create"
PUT = "xstilts.record.local:LocalStore.put"


@pytest.mark.cluster
def test_a_killed_driver_costs_no_finished_step(bench: NewBench, whole: dict[str, Any]) -> None:
    place: Bench = bench(words=RAY, faults=[fault("forward", IN_FORWARD, "hold", NLI)])
    driver = place.start("run")
    place.wait("forward")
    place.until(lambda: any("pretrain" in key for key in place.records()))
    finished = {key: record["attempt"] for key, record in place.records().items()}
    driver.send(signal.SIGKILL)
    driver.end()
    _wait(lambda: not place.processes(), "what the driver had started outlives it")
    (dead,) = _drivers(place)
    assert dead["state"] == "running" and not dead["alive"], "status takes a dead driver for a live one"

    place.run("run", faults=[])
    place.check(whole)
    assert {key: place.records()[key]["attempt"] for key in finished} == finished
    assert place.causes()["lost worker"] >= 1, "status does not say that the step's first process was lost"


@pytest.mark.cluster
def test_workers_killed_at_the_worst_moments(bench: NewBench, whole: dict[str, Any]) -> None:
    """In forward; between a checkpoint's tensors and its state.json; after outputs were uploaded; while the
    record is written; once it is there. And a host that is out of memory."""
    predicted = "'/predict-' in str(a[1]) and 'after' not in str(a[1])"
    scored = "'/score-' in a[1] and a[1].endswith('record.json')"
    faults = [
        reports_every(10),
        fault("forward", IN_FORWARD, "kill", f"{PLAIN} and a[0].memory.step == 2"),
        fault("checkpoint", PUT, "kill", "'/pretrain-' in a[1] and a[1].endswith('/00000030/state.json')"),
        fault("uploaded", "xstilts.execute.steps:_publish", "kill", NLI, after=True),
        fault("record", "xstilts.record.local:_link", "kill", f"{predicted} and a[1].name == 'record.json'"),
        fault("recorded", CREATE, "kill", f"r and {scored}", after=True),
        fault("memory", IN_FORWARD, "raise", AFTER, value="MemoryError('injected')"),
    ]
    place: Bench = bench(words=RAY, faults=faults)
    said = place.run("run")
    for mark in ("forward", "checkpoint", "uploaded", "record", "recorded", "memory"):
        assert place.happened(mark) == 1, f"{mark}\n{said}"
    (pretrained,) = [record for key, record in place.records().items() if key.startswith("pretrain")]
    assert pretrained["result"]["resumed_at"] == 20, "the torn checkpoint was used, or none"
    _clean_up(place)
    place.check(whole)
    assert place.causes() == {"lost worker": 5, "host out of memory": 1}


@pytest.mark.cluster
def test_workers_that_hang_are_ended_and_their_steps_done_again(
    bench: NewBench, whole: dict[str, Any]
) -> None:
    """One is stopped by the system and answers nothing; one answers, and its forward pass never ends."""
    faults = [fault("stopped", IN_FORWARD, "stop", NLI), fault("stuck", IN_FORWARD, "hold", PLAIN)]
    # Long enough for imports on a busy machine, which are no progress.
    text = TINY.replace("workers: 2", "hang_seconds: 15, workers: 2")
    place: Bench = bench(text=text, words=RAY, faults=faults)
    place.run("run")
    assert place.happened("stopped") == place.happened("stuck") == 1
    place.check(whole)
    assert place.causes() == {"no sign of life": 2}


@pytest.mark.cluster
def test_an_orphan_of_a_dead_driver_stops_by_itself(bench: NewBench, whole: dict[str, Any]) -> None:
    stop = fault("orphan", IN_FORWARD, "stop", f"{PRETRAIN} and a[0].memory.step == 35")
    place: Bench = bench(words=RAY, faults=[stop, reports_every(10), *quick_leases()])
    driver = place.start("run")
    orphan = psutil.Process(place.wait("orphan"))
    driver.send(signal.SIGKILL)
    driver.end()

    place.run("run", faults=quick_leases())
    done = {key: record["attempt"] for key, record in place.records().items()}
    if orphan.is_running():
        orphan.resume()
    _wait(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE, "it works on")
    assert {key: record["attempt"] for key, record in place.records().items()} == done
    place.check(whole)


def test_a_driver_that_was_frozen_gives_up_what_was_taken_over(
    bench: NewBench, whole: dict[str, Any]
) -> None:
    """A machine that sleeps for longer than a lease lives, and wakes in the middle of a training."""
    faults = [
        *quick_leases(),
        reports_every(10),
        fault("frozen", IN_FORWARD, "stop", f"{PRETRAIN} and a[0].memory.step == 30"),
        fault("awake", IN_FORWARD, "hold", f"{PRETRAIN} and a[0].memory.step == 35"),
        fault("lost", "xstilts.record.lease:Lease.beat", "note", "not r", after=True),
        fault("steps", IN_FORWARD, "note", PRETRAIN, value="a[0].memory.step"),
    ]
    place: Bench = bench(faults=faults)
    first = place.start("run")
    place.wait("frozen")
    place.run("run", faults=quick_leases())
    done = {key: record["attempt"] for key, record in place.records().items()}

    first.send(signal.SIGCONT)
    place.wait("awake", driver=first)
    place.until((place.marks / "lost.log").exists, driver=first)
    place.go("awake")
    assert first.end() == 0, first.said
    last = max(map(int, (place.marks / "steps.log").read_text().split()))
    assert last < 40, "it trained on although somebody else had the step"
    assert {key: record["attempt"] for key, record in place.records().items()} == done
    place.check(whole)


def test_a_loss_that_is_not_finite_fails_its_step_alone(bench: NewBench, whole: dict[str, Any]) -> None:
    nan = fault("nan", IN_FORWARD, "give", PLAIN, after=True, value="(r[0] * float('nan'), r[1])", times=0)
    place: Bench = bench(faults=[nan])
    said = place.run("run", code=2)
    assert "not finite" in said and "lower learning_rate" in said
    steps = place.steps()
    (failed,) = [step for step in steps.values() if step["state"] == "failed"]
    assert failed["cause"] == "fixable" and "not finite" in failed["text"]
    blocked = [step for step in steps.values() if step["state"] == "blocked"]
    assert len(blocked) == 2 and all(failed["label"] in step["cause"] for step in blocked)
    found = results(place.records())
    assert len(found) == 5 and found.items() <= whole.items(), "another step was touched by it"

    place.run("run", faults=[])
    place.check(whole)


def test_a_file_that_is_replaced_while_the_job_runs_is_refused(bench: NewBench, tmp_path: Path) -> None:
    data = made_mirror.make(tmp_path / "mirror", tasks=["udpos", "panx"], rows=24, languages=["en", "de"])
    made_mirror.encoder(data)
    place, other = (bench(text=PUBLISHED, words=("--data", str(data))) for _ in range(2))
    other.run("run")
    whole = results(other.records())

    plan = api.look(api.open_job(place.job, place.location, str(data)), explain=False).plan
    first, second = [planned for planned in plan if planned.kind == "train"]
    held = fault("held", RUN_TRAIN, "hold", f"label() == {first.label!r}")
    driver = place.start("run", faults=[held])
    place.wait("held")
    assert second.step is not None
    rows = second.step.body.rows  # type: ignore[union-attr]
    file = data / "datasets" / rows.path / rows.config / f"{rows.split}.parquet"
    shutil.copy(file, tmp_path / "kept.parquet")
    table = pq.read_table(file)
    pq.write_table(table.take(list(range(len(table)))[::-1]), file)
    place.go("held")
    assert driver.end() == 2, driver.said
    assert f"{file.name} is not the file of the manifest" in driver.said.replace("\n", "")
    found = results(place.records())
    assert first.key in found and second.key not in found and found.items() <= whole.items()
    words = api.status(api.open_job(place.job, place.location, str(data)))
    (failed,) = [step for step in words["steps"] if step["state"] == "failed"]
    assert failed["label"] == second.label and failed["cause"] == "fixable"

    shutil.copy(tmp_path / "kept.parquet", file)
    place.run("run", faults=[])
    place.check(whole)


PUBLISHED = """\
name: tiny
model: {name: made/encoder}
targets: [udpos, panx]
languages: [en, de]
seeds: [1]
train: {target: {learning_rate: 1.0e-3, epochs: 0.5, effective_batch: 8, max_length: 48}}
evaluate: {split: test, first: 8, selection: {first: 8}}
execution: {backend: inline}
"""


def test_a_store_without_room_fails_its_steps_with_a_sentence(bench: NewBench, whole: dict[str, Any]) -> None:
    full = fault(
        "full",
        "xstilts.record.local:_flush",
        "raise",
        NLI,
        value="OSError(errno.ENOSPC, 'injected')",
        times=0,
    )
    place: Bench = bench(faults=[full])
    said = place.run("run", code=2)
    assert "the disk is full" in said and "finished steps are kept" in said
    (failed,) = [step for step in place.steps().values() if step["state"] == "failed"]
    assert failed["label"].startswith("train-world_nli") and "the disk is full" in failed["text"]
    place.check_nothing_left()

    place.run("run", faults=[])
    place.check(whole)


@pytest.mark.parametrize("where", ["store", "scratch"])
def test_a_real_disk_that_is_full(bench: NewBench, whole: dict[str, Any], tmp_path: Path, where: str) -> None:
    with mounted(tmp_path / "small", "600k" if where == "store" else "60k") as small:
        place: Bench = bench(faults=[reports_every(10)])
        if where == "store":
            place.location = str(small / "store")
        else:
            place.environment["TMPDIR"] = str(small)
        said = place.run("run", code=2)
        assert "full" in said and "Traceback" not in said, said
        assert any("full" in step.get("text", "") for step in place.steps().values())
        found = results(place.records())
        assert found.items() < whole.items()

        enlarge(small, "50m")
        place.run("run")
        place.check(whole)
        left = [path.name for path in small.iterdir() if not path.name.startswith("torchinductor")]
        assert left == (["store"] if where == "store" else [])


def test_a_device_out_of_memory_gets_half_as_much_at_a_time(bench: NewBench, whole: dict[str, Any]) -> None:
    oom = "sys.modules['torch'].OutOfMemoryError('CUDA out of memory (injected)')"
    small = fault("memory", IN_FORWARD, "raise", "len(a[1]['input_ids']) > 8", value=oom, times=0)
    place: Bench = bench(faults=[small])
    place.run("run")
    found = place.records()
    trained = [record for record in found.values() if record["kind"] in ("train", "pretrain")]
    assert [record["layout"]["per_device_batch"] for record in trained] == [8] * 4
    place.check_recorded_once(set(whole))
    place.check_nothing_left()
    # 32 -> 16 -> 8 for each of the four that train.
    assert place.causes()["device out of memory"] == 8
    for key, (scores, _) in whole.items():
        for one, other in zip(found[key]["scores"], scores, strict=True):
            assert abs(one["value"] - other["value"]) < 6, (key, one, other)


@pytest.mark.cluster
def test_a_host_out_of_memory_ends_workers_and_says_so(bench: NewBench, whole: dict[str, Any]) -> None:
    """Ray's own monitor, told that a hundredth of the memory is all there is: it ends every worker."""
    place: Bench = bench(words=RAY)
    monitor = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "200"}
    said = place.run("run", code=1, **monitor)
    assert "out of memory" in said
    (failed,) = [step for step in place.steps().values() if step["state"] == "failed"]
    assert failed["cause"] == "host out of memory" and len(failed["attempts"]) == 2
    assert not place.records()

    place.run("run")
    place.check(whole)


def test_two_drivers_of_one_job_share_its_steps(bench: NewBench, whole: dict[str, Any]) -> None:
    faults = [fault("nli", RUN_TRAIN, "hold", NLI), fault("plain", RUN_TRAIN, "hold", PLAIN)]
    place: Bench = bench(faults=faults)
    drivers = [place.start("run"), place.start("run")]
    there = [place.wait(mark) for mark in ("nli", "plain")]
    assert sorted(there) == sorted(driver.process.pid for driver in drivers)
    for mark in ("nli", "plain"):
        place.go(mark)
    assert [driver.end() for driver in drivers] == [0, 0], [driver.said for driver in drivers]
    place.check(whole)


@pytest.mark.cluster
def test_ctrl_c_once_leaves_a_checkpoint_to_go_on_from(bench: NewBench, whole: dict[str, Any]) -> None:
    faults = [
        reports_every(10),
        fault("forward", IN_FORWARD, "hold", f"{PRETRAIN} and a[0].memory.step == 35"),
        fault("told", "xstilts.execute.workers:Worker.stop", "note", after=True),
    ]
    place: Bench = bench(words=RAY, faults=faults)
    driver = place.start("run")
    place.wait("forward")
    driver.send(signal.SIGINT, group=True)
    place.until((place.marks / "told.log").exists)
    place.go("forward")
    assert driver.end() == 130, driver.said
    assert "interrupted" in driver.said
    place.check_nothing_left()
    assert not place.records()
    (attempt,) = place.steps()["pretrain-world-s0"]["attempts"]
    assert attempt["cause"] == "interrupted"

    place.run("run", faults=[])
    _resumed_at(place, 40)
    place.check(whole)


def test_sigterm_leaves_a_checkpoint_to_go_on_from(bench: NewBench, whole: dict[str, Any]) -> None:
    held = fault("forward", IN_FORWARD, "hold", f"{PRETRAIN} and a[0].memory.step == 35")
    place: Bench = bench(faults=[held, reports_every(10)])
    driver = place.start("run")
    place.wait("forward")
    driver.send(signal.SIGTERM)
    place.go("forward")
    assert driver.end() == 130, driver.said
    place.check_nothing_left()

    place.run("run", faults=[])
    _resumed_at(place, 40)
    place.check(whole)


@pytest.mark.cluster
def test_ctrl_c_twice_ends_at_once(bench: NewBench, whole: dict[str, Any]) -> None:
    faults = [
        fault("forward", IN_FORWARD, "hold", PRETRAIN),
        fault("told", "xstilts.execute.workers:Worker.stop", "note", after=True),
    ]
    place: Bench = bench(words=RAY, faults=faults)
    driver = place.start("run")
    place.wait("forward")
    driver.send(signal.SIGINT, group=True)
    place.until((place.marks / "told.log").exists)
    begin = time.monotonic()
    driver.send(signal.SIGINT, group=True)
    assert driver.end() == 130, driver.said
    assert time.monotonic() - begin < 20, "a step that takes for ever was waited for"
    assert "Traceback" not in driver.said
    place.check_nothing_left()

    place.run("run", faults=[])
    place.check(whole)


def _clean_up(place: Bench) -> None:
    """What a process that is killed while it writes to a folder leaves is no name of the store's, and `store
    gc` removes it, a day later."""
    (left,) = place.store.leftovers(-60)
    assert "/.writing-" in left.name and left.name not in place.store.list("steps/")
    days_ago = time.time() - 2 * 24 * 3600
    os.utime(place.folder / "store" / left.name, (days_ago, days_ago))
    place.run("store", "gc", "--yes")


def _resumed_at(place: Bench, step: int) -> None:
    (record,) = [record for key, record in place.records().items() if key.startswith("pretrain")]
    assert record["result"]["resumed_at"] == step


def _drivers(place: Bench) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = api.status(api.open_job(place.job, place.location))["drivers"]
    return found


def _wait(until: Callable[[], bool], complaint: str, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.05)
