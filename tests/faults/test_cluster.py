"""Nodes that die, are announced to go, are taken away or cannot be had; a head that is lost.

One local cluster for the module: a Ray head, an autoscaler with up to two nodes that have a GPU on paper, and
the store in Ceph's gateway.
"""

from __future__ import annotations

import json
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_kit import COMMAND, REPO, Bench, records
from infra.local.stack import Stack

from end_state import results
from stack import store_seen_here
from xstilts import api
from xstilts.execute.site import open_store

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.s3]

LONGER = """\
name: longer
world: {seed: 1}
pretrain:
  {data: world, vocabulary: 500, layers: 1, width: 16, heads: 2, length: 32, batch: 32, steps: 1600,
   learning_rate: 2.0e-3, sentences: 200}
intermediate: [none]
targets: [world_tagging]
languages: [w0, w1]
seeds: [1, 2]
train:
  target: {learning_rate: 1.0e-3, epochs: 110, effective_batch: 32, max_length: 32}
evaluate: {split: test, first: 20, selection: {first: 20}}
execution: {engine: warm, workers: 2, threads: 1, gpus: 1, checkpoint_seconds: 0.5}
"""
"""7 steps: pretraining, then two trainings at once, each long enough to be met at work."""

SEARCHED = LONGER.replace("seeds: [1, 2]", "seeds: [1]") + (
    "search: {trials: 2, concurrent: 2, prune: none, epochs: [110],"
    " learning_rate: {low: 1.0e-4, high: 1.0e-2}}\n"
)


@pytest.fixture(scope="module")
def stack(make_stack: Any) -> Iterator[Stack]:
    """Nodes without work stay for a while: most tests find two of them there."""
    made: Stack = make_stack("s3", "ray", idle_seconds=30.0)
    with store_seen_here(made):
        yield made


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Scores, weights and predictions by key, of a run in one process."""
    bench = Bench(tmp_path_factory.mktemp("undisturbed") / "bench", LONGER)
    try:
        bench.run("run", "--backend", "inline")
        return results(bench.records())
    finally:
        bench.close()


class Submitted:
    """A job on the cluster, on a store of its own."""

    def __init__(self, stack: Stack, folder: Path, text: str = LONGER) -> None:
        self.stack, self.file = stack, folder / "job.yaml"
        self.file.write_text(text)
        self.location = f"s3://xstilts/{uuid.uuid4().hex[:8]}"
        self.store = open_store(self.location, checked=True)
        self.submit()

    def command(self, *words: str, code: int = 0) -> str:
        """A command of xstilts to its end; what it said."""
        path = {"PYTHONPATH": str(REPO / "platform"), "XSTILTS_PACKAGE": "here", "COLUMNS": "200"}
        told = [*COMMAND, words[0], str(self.file), *words[1:], "--store", self.location]
        done = subprocess.run(
            told, env=self.stack.shell | path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def submit(self, *words: str) -> str:
        """Again to resume."""
        return self.command("submit", *words)

    def status(self) -> dict[str, Any]:
        """As `xstilts status --json`."""
        return api.status(api.open_job(self.file, self.location))

    def at_work(self, kind: str) -> dict[str, int]:
        """Label of each step of this kind that is running and has a checkpoint -> its process."""
        found = {}
        for step in self.status()["steps"]:
            if step["kind"] == kind and step["state"] == "running":
                prefix = f"steps/{step['key']}/runs/{step['lease']['attempt']}/checkpoints/"
                if any(name.endswith("state.json") for name in self.store.list(prefix)):
                    found[step["label"]] = int(step["lease"]["pid"])
        return found

    def meet(self, kind: str, count: int = 1) -> list[str]:
        """Waits until so many steps of a kind are at work; the nodes that they run on."""
        self.until(lambda: len(self.at_work(kind)) >= count)
        pids = set(self.at_work(kind).values())
        cluster = self.stack.ray.cluster  # type: ignore[union-attr]
        return [node for node in cluster.nodes() if pids & {noted.pid for noted in cluster.workers(node)}]

    def until(self, met: Callable[[], bool], seconds: float = 90) -> None:
        """Waits for it."""
        deadline = time.monotonic() + seconds
        while not met():
            if time.monotonic() > deadline:
                pytest.fail(f"waited in vain; {json.dumps(self.status(), indent=1)[-6000:]}")
            time.sleep(0.1)

    def end(self) -> dict[str, Any]:
        """Waits until the newest driver has ended; what status says then."""
        self.until(
            lambda: bool(drivers := self.status()["drivers"]) and drivers[-1]["state"] != "running", 150
        )
        return self.status()

    def check(self, undisturbed: dict[str, Any]) -> Counter[str]:
        """The end state is that of the undisturbed run, no lease is left; causes of lost attempts."""
        found = self.end()
        assert results(records(self.store)) == undisturbed
        assert not [name for name in self.store.list("steps/") if name.endswith("lease.json")]
        assert found["drivers"][-1]["state"] == "done", found["drivers"]
        return self.causes()

    def causes(self) -> Counter[str]:
        """Of all attempts that ended without a record."""
        found: Counter[str] = Counter()
        for name in self.store.list("steps/"):
            if "/attempts/" in name:
                found[json.loads(self.store.read(name) or b"")["cause"]] += 1
        return found


@pytest.fixture
def submitted(stack: Stack, tmp_path: Path) -> Iterator[Callable[..., Submitted]]:
    assert stack.ray is not None
    stack.ray.cluster.limit()
    stack.ray.cluster.allow("gpu", 2)
    yield lambda **words: Submitted(stack, tmp_path, **words)


def test_a_killed_raylet_costs_what_was_done_since_the_last_checkpoint(
    stack: Stack, submitted: Callable[..., Submitted], undisturbed: dict[str, Any]
) -> None:
    job = submitted()
    (node,) = job.meet("pretrain")
    assert stack.ray is not None
    stack.ray.cluster.kill_raylet(node)
    causes = job.check(undisturbed)
    # A second, "preempted", if the driver tried that node again before Ray knew that it was dead.
    assert causes["lost worker"] <= 1 <= causes["lost worker"] + causes["preempted"], causes
    (pretrained,) = [record for key, record in records(job.store).items() if key.startswith("pretrain")]
    assert pretrained["result"]["resumed_at"] > 0, "it began anew though it had a checkpoint"


def test_all_nodes_lost_at_once(
    stack: Stack, submitted: Callable[..., Submitted], undisturbed: dict[str, Any]
) -> None:
    job = submitted()
    assert stack.ray is not None
    nodes = job.meet("train", 2)
    assert len(nodes) == 2
    for node in nodes:
        stack.ray.cluster.kill_node(node)
    causes = job.check(undisturbed)
    # A third, if the driver tried a node that was dead already and not known to be.
    assert causes["lost worker"] + causes["preempted"] >= 2 and causes["lost worker"] <= 2, causes


def test_the_autoscaler_takes_a_node_in_use(
    stack: Stack, submitted: Callable[..., Submitted], undisturbed: dict[str, Any]
) -> None:
    job = submitted()
    assert stack.ray is not None
    job.meet("train", 2)
    stack.ray.cluster.allow("gpu", 1)
    causes = job.check(undisturbed)
    assert sum(causes.values()) >= 1 and set(causes) <= {"lost worker", "preempted", "interrupted"}, causes


def test_a_preemption_notice_leaves_a_checkpoint_in_time(
    stack: Stack, submitted: Callable[..., Submitted], undisturbed: dict[str, Any]
) -> None:
    text = LONGER.replace("checkpoint_seconds: 0.5", "checkpoint_seconds: 600")
    job = submitted(text=text)
    assert stack.ray is not None
    cluster = stack.ray.cluster
    # Into its steps; there is no checkpoint to see before the notice.
    job.until(lambda: any(step.get("done", 0) > 0.1 for step in job.status()["steps"]))
    (pid,) = [int(step["lease"]["pid"]) for step in job.status()["steps"] if step["state"] == "running"]
    (node,) = [node for node in cluster.nodes() if pid in {noted.pid for noted in cluster.workers(node)}]
    cluster.drain(node, 8)
    job.until(lambda: job.causes()["preempted"] == 1, 8)
    cluster.kill_node(node)
    assert job.check(undisturbed)["preempted"] >= 1
    (pretrained,) = [record for key, record in records(job.store).items() if key.startswith("pretrain")]
    assert pretrained["result"]["resumed_at"] > 0, "the notice brought no checkpoint"


def test_no_capacity_is_said_and_waited_out(
    stack: Stack, submitted: Callable[..., Submitted], undisturbed: dict[str, Any]
) -> None:
    assert stack.ray is not None
    cluster = stack.ray.cluster
    cluster.limit(gpu=0)
    for node in list(cluster.nodes()):
        cluster.kill_node(node)
    cluster.wait_for(0)
    job = submitted()
    cluster.limit(gpu=0)
    job.until(lambda: any("waits for a place" in step.get("note", "") for step in job.status()["steps"]))
    assert "waits for a place" in job.command("why", "pretrain")
    cluster.limit()
    assert not job.check(undisturbed), "waiting for a node was taken for a failure"


def test_a_search_goes_on_with_the_places_it_has(stack: Stack, submitted: Callable[..., Submitted]) -> None:
    """Two of its trials may run at once, and there is one node."""
    assert stack.ray is not None
    stack.ray.cluster.allow("gpu", 1)
    job = submitted(text=SEARCHED)
    job.until(lambda: any("for 1 of its 2 workers" in step.get("note", "") for step in job.status()["steps"]))
    assert job.end()["drivers"][-1]["state"] == "done"
    (search,) = [record for key, record in records(job.store).items() if key.startswith("search")]
    assert [trial["state"] for trial in search["result"]["trials"]] == ["finished"] * 2


def test_a_shape_that_no_node_has_is_named_and_the_job_can_be_cancelled(
    submitted: Callable[..., Submitted],
) -> None:
    job = submitted(text=LONGER.replace("gpus: 1", "gpus: 5"))
    job.until(lambda: any("5 GPU" in step.get("note", "") for step in job.status()["steps"]))
    assert "no node that this cluster may launch has 1 CPU and 5 GPU" in " ".join(
        job.command("status").split()
    )
    job.command("cancel")
    found = job.end()
    assert found["drivers"][-1]["state"] == "interrupted"
    assert "cancelled" in found["drivers"][-1]["why"]


def test_a_lost_head_and_a_job_submitted_again(
    stack: Stack, submitted: Callable[..., Submitted], undisturbed: dict[str, Any]
) -> None:
    job = submitted()
    assert stack.ray is not None
    job.meet("train", 1)
    stack.ray.cluster.kill()
    stack.ray.revive()
    assert "submitted as" in job.submit()
    job.check(undisturbed)
    drivers = job.status()["drivers"]
    assert len(drivers) == 2 and drivers[0]["state"] == "running" and not drivers[0]["alive"]
    assert "running it already" not in job.command("logs")


def test_cancel_leaves_checkpoints_and_submit_resumes(
    submitted: Callable[..., Submitted], undisturbed: dict[str, Any]
) -> None:
    job = submitted()
    job.meet("pretrain")
    assert "running it already" in job.submit("--max-concurrent", "1")
    assert "asked to stop" in job.command("cancel")
    assert job.end()["drivers"][-1]["state"] == "interrupted"
    said = job.submit("--wait")
    assert "resumed at step" in said and "ran " in said
    job.check(undisturbed)
    assert job.status()["drivers"][-1]["slots"] == 1
