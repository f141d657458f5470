"""A store that is away, slow, refuses, loses answers or holds what is damaged: a gateway and a proxy.

Ceph's gateway as infra/local/rgw.py starts it; what a network does to it, `proxy.py` does. Jobs run in one
process: how workers are lost is the matter of test_processes.py.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import boto3
import psutil
import pytest
from fault_kit import IN_FORWARD, NLI, PRETRAIN, REPO, Bench, Driver, fault, quick_leases, reports_every
from proxy import Proxy, Rule

from conftest import NewBench
from end_state import results
from xstilts.record.artifacts import StepPaths

pytestmark = [pytest.mark.slow, pytest.mark.s3]

IMPATIENT = fault("patience", "xstilts.record.s3", "run", value="READ_SECONDS, CONNECT_SECONDS = 2.0, 1.0")
"""A silence of 2 s is a time-out, and not one of 30."""

BURSTS = {
    "refusals": [Rule("503", path="steps", times=25), Rule("500", path="steps", times=15, share=0.3)],
    "connections": [
        Rule("lose", method="PUT", path=r"/record\.json", times=2),
        Rule("lose", method="PUT", path=r"/lease\.json", times=2),
        Rule("cut", method="GET", path=r"model\.safetensors", times=2),
        Rule("stall", path="steps", times=3),
        Rule("reset", path="steps", times=8, share=0.3),
        Rule("delay", path="steps", times=20, share=0.3, seconds=0.3),
    ],
}


@pytest.fixture
def proxy(gateway: Any) -> Iterator[Proxy]:
    """Before the gateway."""
    with Proxy(gateway.port) as started:
        yield started


@pytest.fixture
def location(bucket: str) -> str:
    """Of a store in a bucket of the test's own."""
    return f"s3://{bucket}/results"


@pytest.mark.parametrize("what", BURSTS)
def test_bursts_of_bad_answers_are_waited_out(
    bench: NewBench, whole: dict[str, Any], location: str, proxy: Proxy, what: str
) -> None:
    proxy.rules += [replace(rule) for rule in BURSTS[what]]
    through = {"AWS_ENDPOINT_URL_S3": proxy.url}
    place: Bench = bench(location=location, faults=[IMPATIENT], environment=through)
    place.run("run")
    assert set(proxy.met) == {each.do for each in proxy.rules}, proxy.met
    place.check(whole)


def test_a_gateway_that_is_frozen_for_20_s(
    bench: NewBench, whole: dict[str, Any], location: str, gateway: Any
) -> None:
    place, driver = _held_in_nli(bench, location)
    gateway.send(signal.SIGSTOP)
    _sit_out(place, driver, 20, lambda: gateway.send(signal.SIGCONT))
    place.check(whole)


def test_a_gateway_that_is_killed_and_comes_back_after_60_s(
    bench: NewBench, whole: dict[str, Any], location: str, gateway: Any
) -> None:
    place, driver = _held_in_nli(bench, location)
    gateway.send(signal.SIGKILL)
    _sit_out(place, driver, 60, gateway.revive)
    place.check(whole)


def test_a_wrong_key_is_said_at_once_and_not_repeated(bench: NewBench, location: str) -> None:
    wrong = "wr0ng/" + "Secret+Key" * 3
    place: Bench = bench(location=location, environment={"AWS_SECRET_ACCESS_KEY": wrong})
    begin = time.monotonic()
    said = place.run("run", code=2)
    assert time.monotonic() - begin < 30
    assert "does not accept the credentials" in said and "AWS_" in said
    assert wrong not in said and "Traceback" not in said
    place.check_nothing_left()


def test_access_that_is_lost_in_the_middle(
    bench: NewBench, whole: dict[str, Any], location: str, gateway: Any
) -> None:
    place, driver = _held_in_nli(bench, location)
    gateway._do("radosgw-admin", "-n", "client.gateway", "user", "suspend", "--uid=local")
    try:
        begin = time.monotonic()
        place.go("forward")
        assert driver.end(100) == 2, driver.said
        assert time.monotonic() - begin < 60, "what is forbidden was waited for"
    finally:
        gateway._do("radosgw-admin", "-n", "client.gateway", "user", "enable", "--uid=local")
    assert "access denied" in driver.said and "s3:PutObject" in driver.said
    assert gateway.environment["AWS_SECRET_ACCESS_KEY"] not in driver.said
    assert "Traceback" not in driver.said, driver.said
    place.run("run", faults=[])
    place.check(whole)


def test_of_two_writers_of_one_record_one_wins(bench: NewBench, whole: dict[str, Any], location: str) -> None:
    """The first is frozen as it is about to record, its step is taken over and recorded, and it wakes."""
    name = "a[1].startswith('steps/pretrain') and a[1].endswith('/record.json')"
    late = fault("late", "xstilts.record.s3:S3Store.create", "stop", name)
    lost = fault("lost", "xstilts.record.s3:S3Store.create", "note", f"r is False and {name}", after=True)
    place: Bench = bench(location=location, faults=[late, lost, *quick_leases()])
    first = place.start("run")
    place.wait("late")
    place.run("run", faults=quick_leases())
    done = {key: record["attempt"] for key, record in place.records().items()}
    first.send(signal.SIGCONT)
    assert first.end() == 0, first.said
    assert (place.marks / "lost.log").exists(), "the first never tried"
    assert {key: record["attempt"] for key, record in place.records().items()} == done
    place.check(whole)


@pytest.mark.parametrize("damage", ["flipped", "truncated"])
def test_of_a_damaged_checkpoint_the_one_before_is_used(
    bench: NewBench, whole: dict[str, Any], location: str, damage: str
) -> None:
    held = fault("forward", IN_FORWARD, "hold", f"{PRETRAIN} and a[0].memory.step == 45")
    place: Bench = bench(location=location, faults=[held, reports_every(10)])
    driver = place.start("run")
    place.wait("forward")
    runs = StepPaths(place.key("pretrain")).runs
    place.until(lambda: any(name.endswith("/00000040/state.json") for name in place.store.list(runs)))
    driver.send(signal.SIGKILL)
    driver.end()
    (name,) = [each for each in place.store.list(runs) if each.endswith("/00000040/model.safetensors")]
    _damage(location, name, damage)

    said = place.run("run", faults=[])
    assert "checkpoint 40" in said and "is torn" in said and "trying the one before" in said
    (record,) = [record for key, record in place.records().items() if key.startswith("pretrain")]
    assert record["result"]["resumed_at"] == 30
    place.check(whole)


def test_a_damaged_input_is_refused_and_mended(bench: NewBench, whole: dict[str, Any], location: str) -> None:
    place, driver = _held_in_nli(bench, location, at="xstilts.execute.training:run_train")
    driver.send(signal.SIGKILL)
    driver.end()
    key, before = place.key("pretrain"), results(place.records())
    runs = place.store.list(StepPaths(key).runs)
    (name,) = [each for each in runs if each.endswith("/model/model.safetensors")]
    _damage(location, name, "flipped")

    said = place.run("run", faults=[], code=2)
    assert "is not what was" in said and "store verify --repair" in said and "Traceback" not in said
    assert results(place.records()) == before, "something was trained on a damaged model"
    failed = [step for step in place.steps().values() if step["state"] == "failed"]
    assert failed and all("is not what was" in step["text"] for step in failed)

    assert name in place.run("store", "verify", "--repair")
    place.run("run", faults=[])
    assert results(place.records()) == whole
    made = Counter(line.split("/")[1] for line in (place.marks / "recorded.log").read_text().splitlines())
    assert made == Counter(dict.fromkeys(whole, 1)) + Counter({key: 1}), "more was repeated than was damaged"
    place.check_nothing_left()


def test_leases_of_the_dead_are_taken_over(bench: NewBench, whole: dict[str, Any], location: str) -> None:
    """One of a process of this machine that is gone, which is seen at once; one of another machine."""
    place: Bench = bench(location=location, faults=quick_leases())
    here, there = StepPaths(place.key("pretrain")), StepPaths(place.key("train-world_nli"))
    code = (
        "from xstilts.execute.site import open_store; from xstilts.record.lease import Lease\n"
        "from xstilts.record.artifacts import StepPaths\n"
        f"assert Lease.take(open_store({location!r}), StepPaths({here.key!r}), 'a1', 'gone')"
    )
    dead = subprocess.Popen([sys.executable, "-c", code], cwd=REPO / "platform")
    assert dead.wait(60) == 0 and not psutil.pid_exists(dead.pid)
    claim = {"holder": "far", "attempt": "a2", "host": "elsewhere", "boot": "another", "pid": 1, "beats": 3}
    assert place.store.create(there.lease, json.dumps(claim).encode())
    said = place.run("run")
    assert "far has it" in said or place.causes()["lost worker"] == 2
    place.check(whole)
    assert not [each for each in (here, there) if place.store.exists(each.lease)], "a lease is left"


def _sit_out(place: Bench, driver: Driver, seconds: float, mend: Callable[[], None]) -> None:
    """Goes on for so long without the store, which then comes back; the run is to end well."""
    try:
        place.go("forward")
        time.sleep(seconds)
        assert driver.process.poll() is None, driver.said
    finally:
        mend()
    assert driver.end() == 0, driver.said


def _held_in_nli(bench: NewBench, location: str, at: str = IN_FORWARD) -> tuple[Bench, Any]:
    """A run that pretrained, and waits in the middle of the NLI training until `go("forward")`."""
    place: Bench = bench(location=location, faults=[fault("forward", at, "hold", NLI)])
    driver = place.start("run")
    place.wait("forward")
    return place, driver


def _damage(location: str, name: str, how: str) -> None:
    """Changes an object as a failing disk would: nothing beside it says so."""
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    client, place = boto3.session.Session().client("s3"), {"Bucket": bucket, "Key": f"{prefix}/{name}"}
    found = client.get_object(**place)
    data = bytearray(found["Body"].read())
    if how == "truncated":
        data = data[: len(data) // 2]
    else:
        data[-100] ^= 1
    client.put_object(**place, Body=bytes(data), Metadata=found["Metadata"])
