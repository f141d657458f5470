"""infra/local: what `up` starts works, for its user only; nodes come, go and die; `down` leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from infra.local.postgres import Postgres
from infra.local.processes import Noted, begin, marked
from infra.local.ray_head import Head
from infra.local.stack import Stack

from stack import REPO, StackMaker

SCRIPT = REPO / "infra" / "local" / "stack.py"

JOB = """
import os, sys, time
import ray

ray.init(log_to_driver=False)

@ray.remote(num_gpus=1, num_cpus=1, max_retries=9)
def where(seconds):
    time.sleep(seconds)
    return os.environ["RAY_CLOUD_INSTANCE_ID"][-5:]

print("on", *sorted(ray.get([where.remote(float(sys.argv[1])) for _ in range(int(sys.argv[2]))])), flush=True)
"""

SUBMIT = """
import sys, time
from ray.job_submission import JobSubmissionClient

client = JobSubmissionClient()
job = client.submit_job(entrypoint=sys.argv[1])
while not client.get_job_status(job).is_terminal():
    time.sleep(0.2)
print(client.get_job_status(job).value)
print(client.get_job_logs(job))
"""


DRAINING = """
import ray
from ray._private.state import state

ray.init()
print(list(state.get_draining_nodes()))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A driver: so many tasks of so many seconds, one GPU each, and then the nodes that they ran on."""
    path = tmp_path / "job.py"
    path.write_text(JOB)
    return path


def head_of(stack: Stack) -> Head:
    assert stack.ray is not None
    return stack.ray


def driver(stack: Stack, script: Path, *words: object) -> subprocess.Popen[str]:
    """The driver as a process of this machine."""
    environment = {**stack.shell, "RAY_ADDRESS": head_of(stack).address}
    command = [sys.executable, str(script), *map(str, words)]
    # What Ray says of nodes that died goes to the other output.
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def ended(process: subprocess.Popen[str], seconds: float = 120) -> list[str]:
    """The nodes that its tasks ran on, once it has ended well: the last five digits of each."""
    said, complained = process.communicate(timeout=seconds)
    assert process.returncode == 0, said + complained
    return said.strip().splitlines()[-1].removeprefix("on ").split()


def until(true: Callable[[], object], seconds: float) -> float:
    """Waits for it; returns how many seconds it took."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds, "it did not come to that"
        time.sleep(0.1)
    return time.monotonic() - begun


def stack_py(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *words], capture_output=True, text=True, timeout=120, check=False
    )


# Process notes


def sleeper(folder: Path, name: str = "sleeper") -> Noted:
    return begin(
        ["sleep", "60"], folder / f"{name}.pid", folder / f"{name}.log", {"PATH": os.environ["PATH"]}, folder
    )


def test_a_process_is_ended_by_its_note(tmp_path: Path) -> None:
    sleeper(tmp_path)
    noted = Noted.read(tmp_path / "sleeper.pid")
    assert noted is not None and noted.runs
    noted.end()
    assert not noted.runs and not psutil.pid_exists(noted.pid)


def test_a_number_that_went_to_another_process_gets_no_signal(tmp_path: Path) -> None:
    other = sleeper(tmp_path)
    stale = Noted(other.pid, other.started - 1)
    assert not stale.runs and not stale.send(signal.SIGKILL)
    stale.end()
    assert other.runs
    other.end(signal.SIGKILL)


@pytest.mark.parametrize("text", ["", "12", "x y", "1 2 3"])
def test_half_a_note_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.pid").write_text(text)
    assert Noted.read(tmp_path / "a.pid") is None


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    told = stack_py("up", str(tmp_path), "--parts", "ray")
    assert told.returncode == 2 and "name another folder" in told.stderr
    assert stack_py("down", str(tmp_path)).returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.slow
def test_a_part_that_does_not_come_up_takes_the_others_with_it(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_: object) -> None:
        until(lambda: Stack.at(tmp_path / "a").status().get("postgres"), 30)
        raise RuntimeError("no Ray head came up")

    monkeypatch.setattr(Head, "start", refuses)
    with pytest.raises(RuntimeError, match="no Ray head"):
        Stack.start(tmp_path / "a", ("postgres", "ray"))
    assert not Stack.at(tmp_path / "a").parts
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"logs", "stack.json"}
    assert postgres.pid is not None, "another stack's server"


# The whole stack


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.s3
class TestWholeStack:
    def test_every_part_runs_and_listens_on_loopback_only(self, whole_stack: Stack) -> None:
        assert whole_stack.status() == {"s3": True, "postgres": True, "mlflow": True, "ray": True}
        open_to_others = [
            (connection.pid, connection.laddr)
            for pid in pids_of(whole_stack)
            for connection in listening(pid)
            if connection.laddr.ip not in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
        ]
        assert not open_to_others
        # A check that finds nothing because it sees nothing would pass too.
        assert sum(len(listening(pid)) for pid in pids_of(whole_stack)) > 8

    def test_no_secret_in_its_environment(self, whole_stack: Stack) -> None:
        words = json.dumps(whole_stack.environment)
        files = [head_of(whole_stack).token, whole_stack.folder / "aws_credentials"]
        assert whole_stack.postgres is not None
        files.append(whole_stack.postgres.passwords)
        for path in files:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            secret = path.read_text().strip().rpartition("=")[2].rpartition(":")[2].strip()
            assert secret and secret not in words
            spoken = [open_line(pid) for pid in pids_of(whole_stack)]
            assert not [line for line in spoken if secret in line]

    def test_a_job_gets_two_nodes_that_go_again(self, whole_stack: Stack, script: Path) -> None:
        cluster = head_of(whole_stack).cluster
        cluster.wait_for(0)
        command = [sys.executable, "-c", SUBMIT, f"python {script} 4 2"]
        begun = time.monotonic()
        told = subprocess.run(
            command, env=whole_stack.shell, capture_output=True, text=True, timeout=120, check=False
        )
        took = time.monotonic() - begun
        assert told.stdout.startswith("SUCCEEDED"), told.stdout + told.stderr
        assert "on 00001 00002" in told.stdout
        gone = until(lambda: not cluster.nodes(), 60)
        print(f"job {took:.1f} s from nothing, nodes gone {gone:.1f} s later")

    def test_the_wrong_token_opens_nothing(self, whole_stack: Stack, tmp_path: Path) -> None:
        head = head_of(whole_stack)
        assert head.asks("/api/version")["ray_version"]
        with pytest.raises(urllib.error.HTTPError) as refused:
            head.asks("/api/jobs/", token="0" * 64)
        assert refused.value.code == 403
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"{head.url}/api/jobs/", timeout=30)
        assert refused.value.code == 401
        (tmp_path / "token").write_text("0" * 64)
        code = f"import ray; ray.init({head.address!r}); print('inside')"
        told = python(whole_stack, code, RAY_AUTH_TOKEN_PATH=str(tmp_path / "token"))
        assert told.returncode != 0 and "inside" not in told.stdout
        assert "Authentication" in told.stderr or "token" in told.stderr

    def test_runs_outlast_a_crash_of_mlflow_and_of_its_database(self, whole_stack: Stack) -> None:
        assert whole_stack.mlflow is not None and whole_stack.postgres is not None
        run = track(
            whole_stack,
            "with mlflow.start_run() as run: mlflow.log_text('kept', 'a.txt')\nprint(run.info.run_id)",
        )
        whole_stack.postgres.send(signal.SIGKILL)
        whole_stack.postgres.revive()
        assert track(whole_stack, f"print(mlflow.get_run({run!r}).info.status)") == "FINISHED"
        whole_stack.mlflow.send(signal.SIGKILL)
        whole_stack.mlflow.revive()
        assert (
            track(
                whole_stack,
                f"print(mlflow.artifacts.load_text(mlflow.get_run({run!r}).info.artifact_uri + '/a.txt'))",
            )
            == "kept"
        )


def python(stack: Stack, code: str, **words: str) -> subprocess.CompletedProcess[str]:
    """Runs lines as a user of the stack."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**stack.shell, "OMP_NUM_THREADS": "1", **words},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def track(stack: Stack, code: str) -> str:
    """Runs lines with MLflow as a user of the stack; returns the last line that they print."""
    told = python(stack, f"import mlflow\n{code}")
    assert told.returncode == 0, told.stderr
    return [line for line in told.stdout.splitlines() if "://" not in line][-1]


# Nodes


@pytest.mark.slow
@pytest.mark.cluster
class TestNodes:
    def test_a_killed_raylet_is_noticed_and_replaced(self, cluster: Stack, script: Path) -> None:
        nodes = head_of(cluster).cluster
        running = driver(cluster, script, 12, 2)
        victim = min(nodes.wait_for(2))
        until(lambda: nodes.workers(victim), 20)
        orphans = nodes.workers(victim)
        nodes.kill_raylet(victim)
        noticed = until(lambda: victim not in nodes.alive(), 15)
        until(lambda: not any(noted.runs for noted in orphans), 15)
        replaced = until(lambda: len(nodes.alive()) == 2, 30)
        print(f"noticed after {noticed:.1f} s, replaced {replaced:.1f} s later")
        assert victim[-5:] not in ended(running)
        assert not nodes.processes(victim)

    def test_all_nodes_lost_at_once(self, cluster: Stack, script: Path) -> None:
        nodes = head_of(cluster).cluster
        running = driver(cluster, script, 8, 2)
        lost = nodes.wait_for(2)
        for node in lost:
            nodes.kill_node(node)
        until(lambda: not any(nodes.processes(node) for node in lost), 10)
        assert not {node[-5:] for node in lost} & set(ended(running))

    def test_no_capacity(self, cluster: Stack, script: Path) -> None:
        nodes = head_of(cluster).cluster
        until(lambda: not nodes.nodes(), 60)
        nodes.limit(gpu=0)
        running = driver(cluster, script, 0, 1)
        time.sleep(6)
        assert running.poll() is None and not nodes.nodes() and not nodes.alive()
        nodes.limit()
        assert ended(running)

    def test_a_preemption_notice_is_known(self, cluster: Stack, script: Path) -> None:
        nodes = head_of(cluster).cluster
        running = driver(cluster, script, 15, 1)
        node = nodes.wait_for(1).pop()
        nodes.drain(node, 20)
        told = python(cluster, DRAINING, RAY_ADDRESS=nodes.address)
        assert node in told.stdout, told.stderr
        nodes.kill_node(node)
        assert node[-5:] not in ended(running)

    def test_the_autoscaler_takes_a_node_in_use(self, cluster: Stack, script: Path) -> None:
        nodes = head_of(cluster).cluster
        running = driver(cluster, script, 10, 2)
        before = nodes.wait_for(2)
        time.sleep(2)
        nodes.allow("gpu", 1)
        took = until(lambda: len(nodes.nodes()) == 1, 60)
        taken = (before - set(nodes.nodes())).pop()
        print(f"taken after {took:.1f} s")
        assert taken[-5:] not in ended(running)
        nodes.allow("gpu", 2)

    def test_a_lost_head_is_replaced_by_a_new_cluster(self, cluster: Stack, script: Path) -> None:
        head = head_of(cluster)
        running = driver(cluster, script, 60, 1)
        head.cluster.wait_for(1)
        head.send(signal.SIGKILL)
        until(lambda: not cluster.status()["ray"], 5)
        head.revive()
        running.kill()
        running.communicate()
        assert ended(driver(cluster, script, 0, 1)) == ["00001"]


# Starting and ending


@pytest.mark.slow
@pytest.mark.cluster
def test_down_leaves_nothing(tmp_path: Path) -> None:
    parts = "postgres,mlflow,ray"
    assert stack_py("up", str(tmp_path / "a"), "--parts", parts, "--workers-min", "1").returncode == 0
    stack = Stack.at(tmp_path / "a")
    head_of(stack).cluster.wait_for(1)
    scratch = json.loads((tmp_path / "a" / "stack.json").read_text())["scratch"]
    # The agents of the node and the dashboard's parts come a little later.
    until(lambda: sum("Agent" in open_line(pid) for pid in pids_of(stack)) == 4, 30)
    pids = {pid for pid in psutil.pids() if uses(pid, scratch)}
    assert len(pids) > 20 and pids <= pids_of(stack)
    assert stack_py("status", str(tmp_path / "a")).returncode == 0
    assert stack_py("down", str(tmp_path / "a")).returncode == 0
    assert not [(pid, open_line(pid)) for pid in pids if Noted.of(pid)]
    assert not [pid for pid in psutil.pids() if uses(pid, scratch)]
    assert not Path(scratch).exists()
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"logs", "stack.json"}
    assert stack_py("status", str(tmp_path / "a")).returncode == 1
    assert stack_py("down", str(tmp_path / "a")).returncode == 0


@pytest.mark.slow
@pytest.mark.cluster
def test_two_stacks_at_once_and_one_that_was_killed(make_stack: StackMaker, script: Path) -> None:
    one, other = make_stack("postgres", "ray"), make_stack("postgres", "ray")
    for pid in pids_of(one):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not pids_of(one), 20)
    assert not any(one.status().values())
    # What is left of the first is its folder, with notes of processes that are gone.
    one = Stack.start(one.folder, ("postgres", "ray"), idle_seconds=5.0)
    assert all(one.status().values()) and all(other.status().values())
    drivers = [driver(stack, script, 0, 1) for stack in (one, other)]
    assert [ended(each) for each in drivers] == [["00001"], ["00001"]]
    one.stop()
    assert not pids_of(one) and all(other.status().values())


def pids_of(stack: Stack) -> set[int]:
    """Every process of a stack: by its environment, or by its parent where it has overwritten that."""
    known = {noted.pid for noted in marked(stack.folder / "mlflow")}
    if stack.ray is not None:
        known |= {noted.pid for noted in stack.ray.cluster.processes()}
    for part in (stack.postgres, stack.s3):
        if part is not None and part.pid is not None:
            known |= {part.pid, *(child.pid for child in psutil.Process(part.pid).children(recursive=True))}
    return known


def listening(pid: int) -> list[psutil._common.sconn]:
    """Sockets of a process that wait for connections."""
    try:
        return [each for each in psutil.Process(pid).net_connections("inet") if each.status == "LISTEN"]
    except psutil.NoSuchProcess:
        return []


def uses(pid: int, folder: str) -> bool:
    """Whether a process names it, works in it, or has files open there."""
    try:
        links = [Path(f"/proc/{pid}/cwd"), *Path(f"/proc/{pid}/fd").iterdir()]
        return folder in open_line(pid) or any(str(link.readlink()).startswith(folder) for link in links)
    except OSError:
        return False


def open_line(pid: int) -> str:
    """What everyone on the machine sees of a process: its command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
