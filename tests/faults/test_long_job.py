"""jobs/cluster_look.yaml on all of it at once: four searches, an autoscaler, S3, MLflow on PostgreSQL.

Its nodes are taken away twice while it works, and the table must be the one that a single machine gives.
"""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_kit import Bench, records
from infra.local.stack import Stack
from test_cluster import Submitted

from end_state import results
from stack import store_seen_here

pytestmark = [
    pytest.mark.slow,
    pytest.mark.cluster,
    pytest.mark.s3,
    pytest.mark.timeout(1800),
    pytest.mark.skipif("XSTILTS_LONG" not in os.environ, reason="takes 10 minutes: set XSTILTS_LONG=1"),
]

JOB = Path(__file__).resolve().parents[2] / "jobs" / "cluster_look.yaml"


@pytest.fixture(scope="module")
def stack(make_stack: Any) -> Iterator[Stack]:
    made: Stack = make_stack("s3", "postgres", "mlflow", "ray", idle_seconds=30.0)
    with store_seen_here(made):
        yield made


@pytest.fixture(scope="module")
def one_machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The records of a run in one process."""
    bench = Bench(tmp_path_factory.mktemp("one") / "bench", JOB.read_text())
    try:
        bench.run("run", "--backend", "inline")
        return bench.records()
    finally:
        bench.close()


@pytest.fixture(scope="module")
def done(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Submitted:
    """The job on the cluster, after its nodes were taken away twice."""
    job = Submitted(stack, tmp_path_factory.mktemp("long"), JOB.read_text())
    assert stack.ray is not None
    cluster = stack.ray.cluster
    for kind, least in (("search", 0), ("train", 16)):
        busy: list[str] = []

        def met(kind: str = kind, least: int = least, busy: list[str] = busy) -> bool:
            busy[:] = [node for node in cluster.nodes() if cluster.workers(node)]
            return bool(busy) and _works(job, kind, least)

        job.until(met, 420)
        cluster.kill_node(busy[0])
    job.until(lambda: job.status()["drivers"][-1]["state"] != "running", 600)
    return job


def _works(job: Submitted, kind: str, least: int) -> bool:
    """Whether a step of this kind runs, and so many steps are recorded."""
    steps = job.status()["steps"]
    recorded = sum(step["state"] == "recorded" for step in steps)
    return recorded >= least and any(step["kind"] == kind and step["state"] == "running" for step in steps)


def test_the_table_is_that_of_one_machine(done: Submitted, one_machine: dict[str, dict[str, Any]]) -> None:
    assert done.status()["drivers"][-1]["state"] == "done", done.command("status")
    there = records(done.store)
    assert results(there) == results(one_machine)
    searches = {key: record["result"] for key, record in there.items() if key.startswith("search-")}
    assert len(searches) == 4 and all(len(each["trials"]) == 8 for each in searches.values())
    alone = {key: record["result"]["chosen"] for key, record in one_machine.items() if key in searches}
    assert {key: each["chosen"] for key, each in searches.items()} == alone
    assert len(there) >= 60, "it is a smaller job than it was to be"
    assert sum(done.causes().values()) >= 1, "no attempt was lost, so nothing was tested"


@pytest.mark.browser
def test_its_runs_can_be_looked_at_in_mlflow(
    done: Submitted, stack: Stack, chromium: str, tmp_path: Path
) -> None:
    assert stack.mlflow is not None
    url = stack.mlflow.url

    def asked(path: str, **words: Any) -> Any:
        request = urllib.request.Request(
            f"{url}/api/2.0/mlflow/{path}",
            json.dumps(words).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)

    (experiment,) = asked("experiments/search", max_results=10, filter="name = 'cluster_look'")["experiments"]
    number = experiment["experiment_id"]
    runs = asked("runs/search", experiment_ids=[number], max_results=1000)["runs"]
    kinds = [{tag["key"]: tag["value"] for tag in run["data"]["tags"]}.get("kind") for run in runs]
    assert kinds.count("train") >= 12 and kinds.count("cell") == 18
    shot = tmp_path / "mlflow.png"
    command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1500,1200",
               f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000"]  # fmt: skip
    page = f"{url}/#/experiments/{number}/runs"
    subprocess.run([*command, f"--screenshot={shot}", page], capture_output=True, timeout=120, check=True)
    dumped = subprocess.run(
        [*command, "--dump-dom", page], capture_output=True, text=True, timeout=120, check=True
    )
    assert shot.stat().st_size > 20_000, "an empty page"
    assert "cluster_look" in dumped.stdout
