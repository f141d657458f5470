"""The nodes of the local cluster and their processes: what a test asks, and how it takes one away.

Nothing here talks to Ray from this process, which may have imported it with other settings: what runs is
read from /proc and from the provider's notes, the rest is asked of the dashboard and of Ray's own commands.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.local.processes import Noted, kill_all, marked


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster, seen from outside."""

    folder: Path
    scratch: Path
    """Ray's temporary folder; the head's files are in its `ray`, those of node 7 in its `n7`."""
    address: str
    url: str
    environment: Mapping[str, str] = field(repr=False)

    def nodes(self) -> dict[str, str]:
        """Id of each node whose raylet lives -> its kind, without the head."""
        return {node: said["kind"] for node, said in self._noted().items() if Noted.of(said["pid"])}

    def alive(self) -> set[str]:
        """Ids of the nodes that Ray takes for alive, without the head; some may just have died."""
        said = self._get(
            "/api/v0/nodes?limit=1000&filter_keys=state&filter_predicates=%3D&filter_values=ALIVE"
        )
        rows = said["data"]["result"]["result"]
        return {row["node_id"] for row in rows if not row["is_head_node"]}

    def raylet(self, node: str) -> Noted:
        """The process that makes the node one.

        Raises:
            ProcessLookupError: there is no such node any more.
        """
        said = self._noted().get(node)
        noted = Noted.of(said["pid"]) if said else None
        if noted is None:
            raise ProcessLookupError(f"no raylet of node {node[-5:]} runs")
        return noted

    def processes(self, node: str | None = None) -> list[Noted]:
        """All processes of a node; without one, of the cluster: head, nodes, jobs."""
        if node is None:
            return _distinct(marked(self.folder), _retitled(self.scratch))
        number = int(node[-5:])
        own = self.scratch / (f"n{number}" if number else "ray")
        return _distinct(marked(self.folder, RAY_CLOUD_INSTANCE_ID=node), _retitled(own))

    def kill(self, seconds: float = 20.0) -> None:
        """Kills all processes of the cluster, and what they start meanwhile, until none is left.

        Raises:
            TimeoutError: some do not go.
        """
        kill_all(self.processes, seconds)

    def workers(self, node: str) -> list[Noted]:
        """The processes of a node that run tasks and actors now; Ray titles them ray::Class.method."""
        own = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent")
        titles = {noted: _title(noted.pid) for noted in self.processes(node)}
        return [
            noted
            for noted, title in titles.items()
            if title.startswith("ray::") and not title.startswith(own)
        ]

    def kill_node(self, node: str, number: signal.Signals = signal.SIGKILL) -> None:
        """All its processes at once, raylet first, as when a machine is taken away."""
        raylet = self.raylet(node)
        for noted in [raylet, *self.processes(node)]:
            noted.send(number)

    def kill_raylet(self, node: str) -> None:
        """Only the raylet: its workers notice, and write what they are writing until then."""
        self.raylet(node).send(signal.SIGKILL)

    def drain(self, node: str, seconds: float, message: str = "spot instance is going") -> None:
        """Tells Ray that the node will be taken away in so many seconds; taking it away is another matter.

        Raises:
            RuntimeError: Ray does not take it.
        """
        words = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", self.address]
        words += ["--node-id", node, "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", message]
        words += ["--deadline-remaining-seconds", str(int(seconds))]
        told = subprocess.run(words, env=self.environment, capture_output=True, text=True, check=False)
        if told.returncode:
            raise RuntimeError(f"the node cannot be drained: {told.stdout}{told.stderr}")

    def limit(self, launch_seconds: float = 0.0, **capacity: int) -> None:
        """What the cloud has to give: how many nodes of each kind; of one not named, as many as are wanted.

        Args:
            launch_seconds: how long each launch takes, besides the second that a raylet needs.
        """
        _replace(self.folder / "provider.json", {"capacity": capacity, "seconds": launch_seconds})

    def allow(self, kind: str, most: int) -> None:
        """How many nodes of a kind the autoscaler may have; if there are more, it takes some in use."""
        config = json.loads((self.folder / "autoscaling.json").read_text())
        config["available_node_types"][kind]["max_workers"] = most
        _replace(self.folder / "autoscaling.json", config)

    def wait_for(self, count: int, seconds: float = 60.0) -> set[str]:
        """Waits until Ray takes so many nodes for alive, and returns their ids.

        Raises:
            TimeoutError: it does not come to that.
        """
        until = time.monotonic() + seconds
        while len(there := self.alive()) != count:
            if time.monotonic() > until:
                raise TimeoutError(f"{len(there)} nodes after {seconds:.0f} s, not {count}")
            time.sleep(0.2)
        return there

    def _noted(self) -> dict[str, dict[str, Any]]:
        with contextlib.suppress(FileNotFoundError):
            said: dict[str, dict[str, Any]] = json.loads((self.folder / "nodes.json").read_text())
            return said
        return {}

    def _get(self, path: str) -> Any:
        request = urllib.request.Request(f"{self.url}{path}")
        request.add_header(
            "Authorization", f"Bearer {Path(self.environment['RAY_AUTH_TOKEN_PATH']).read_text()}"
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)


def _distinct(*found: list[Noted]) -> list[Noted]:
    return list(dict.fromkeys(noted for each in found for noted in each))


def _retitled(below: Path) -> list[Noted]:
    """Ray's processes with open files in a folder that have lost their mark.

    A node's agents, and the dashboard's parts, write their title over the environment they were started with.
    Drivers have files open there too; they do not title themselves, and are their user's.
    """
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if _title(int(entry.name)).startswith(("ray::", "ray-dashboard")):
                noted = Noted.of(int(entry.name))
                files = [os.readlink(link) for link in (entry / "fd").iterdir()]
                if noted is not None and any(each.startswith(f"{below}/") for each in files):
                    found.append(noted)
    return found


def _replace(path: Path, content: Mapping[str, Any]) -> None:
    """In one piece: the autoscaler reads it every second."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps(content, indent=1))
    part.replace(path)


def _title(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").strip("\0")
    return ""
