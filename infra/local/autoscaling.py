"""Nodes that come and go on this one machine: what Ray's autoscaler takes for a cloud.

Every node is a raylet of its own, started by the autoscaler's process, with resources that exist on paper:
two GPU nodes on a machine without any. What the cloud has to give is in provider.json, read at each launch:

    {"capacity": {"gpu": 1}, "seconds": 5}     # one node of that kind at most; a launch takes 5 s

nodes.json says what runs: {node id: {"kind": ..., "pid": of its raylet}}. A node whose raylet was killed is
gone for the autoscaler at once, as a machine that was taken away is, and its remaining processes are ended.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider
from ray.autoscaler.node_launch_exception import NodeLaunchException
from ray.autoscaler.tags import (
    NODE_KIND_WORKER,
    STATUS_UP_TO_DATE,
    TAG_RAY_NODE_KIND,
    TAG_RAY_NODE_NAME,
    TAG_RAY_NODE_STATUS,
    TAG_RAY_USER_NODE_TYPE,
)

HEAD_KIND = "head"


class LocalProvider(FakeMultiNodeProvider):  # type: ignore[misc]
    """Ray's provider of fake nodes, with a limit on what can be had, a note of what runs, and real deaths."""

    def __init__(self, provider_config: dict[str, Any], cluster_name: str) -> None:
        """`provider_config` names `folder`, with the notes, and `scratch`, where nodes keep their files."""
        super().__init__(provider_config, cluster_name)
        self._folder = Path(provider_config["folder"])
        self._scratch = Path(provider_config["scratch"])
        self._nodes[self._head_node_id]["tags"][TAG_RAY_USER_NODE_TYPE] = HEAD_KIND

    def non_terminated_nodes(self, tag_filters: dict[str, str]) -> list[str]:
        """Ids of the nodes that live."""
        with self.lock:
            for node_id, node in list(self._nodes.items()):
                if "node" in node and _raylet(node["node"]).poll() is not None:
                    self.terminate_node(node_id)
        live: list[str] = super().non_terminated_nodes(tag_filters)
        return live

    def create_node_with_resources_and_labels(
        self,
        node_config: Mapping[str, Any],
        tags: dict[str, str],
        count: int,
        resources: Mapping[str, float],
        labels: Mapping[str, str],
    ) -> None:
        """Launches up to `count` nodes.

        Raises:
            NodeLaunchException: there is no capacity for all of them; those that there was some for run.
        """
        said = self._said()
        kind = tags[TAG_RAY_USER_NODE_TYPE]
        for _ in range(count):
            with self.lock:
                there = [
                    each for each in self._nodes.values() if each["tags"][TAG_RAY_USER_NODE_TYPE] == kind
                ]
                if len(there) >= said.get("capacity", {}).get(kind, len(there) + 1):
                    words = f"no more than {len(there)} of kind {kind} can be had"
                    raise NodeLaunchException("InsufficientInstanceCapacity", words, None)
            time.sleep(said.get("seconds", 0))
            self._launch(tags, dict(resources), dict(labels))

    def terminate_node(self, node_id: str) -> None:
        """Ends a node; one that is gone already is no error."""
        with self.lock:
            node = self._nodes.pop(node_id, None)
            if node is not None:
                self._terminate_node(node)
            self._note()

    def _launch(self, tags: dict[str, str], resources: dict[str, float], labels: dict[str, str]) -> None:
        """Starts one raylet. Ray's own provider knows no memory, and puts all nodes into one folder."""
        with self.lock:
            node_id = self._next_hex_node_id()
            kind = tags[TAG_RAY_USER_NODE_TYPE]
            params = ray._private.parameter.RayParams(
                node_ip_address="127.0.0.1",
                min_worker_port=0,
                max_worker_port=0,
                dashboard_port=None,
                dashboard_agent_listen_port=0,
                # Nobody reads the workers' lines at the driver; 78 MB a node.
                include_log_monitor=False,
                num_cpus=resources.pop("CPU", 0),
                num_gpus=resources.pop("GPU", 0),
                memory=resources.pop("memory", None),
                object_store_memory=resources.pop("object_store_memory", None),
                resources=resources,
                labels=labels,
                # A folder of its own: in a shared one, the agent of a node that goes deletes the package
                # (runtime_env's working_dir) that jobs on other nodes work in.
                temp_dir=str(self._scratch / f"n{int(node_id[-5:])}"),
                redis_address=self._gcs_address,
                gcs_address=self._gcs_address,
                env_vars={
                    "RAY_OVERRIDE_NODE_ID_FOR_TESTING": node_id,
                    "RAY_CLOUD_INSTANCE_ID": node_id,
                    "RAY_NODE_TYPE_NAME": kind,
                },
            )
            node = ray._private.node.Node(params, head=False, shutdown_at_exit=False, spawn_reaper=False)
            own = {
                TAG_RAY_NODE_KIND: NODE_KIND_WORKER,
                TAG_RAY_USER_NODE_TYPE: kind,
                TAG_RAY_NODE_NAME: node_id,
                TAG_RAY_NODE_STATUS: STATUS_UP_TO_DATE,
            }
            self._nodes[node_id] = {"tags": {**tags, **own}, "node": node}
            self._note()

    def _said(self) -> dict[str, Any]:
        """What provider.json says; nothing without a file, or with one that is just being written."""
        try:
            said: dict[str, Any] = json.loads((self._folder / "provider.json").read_text())
        except (OSError, ValueError):
            return {}
        return said

    def _note(self) -> None:
        """Writes nodes.json."""
        notes = {}
        for node_id, node in self._nodes.items():
            if "node" in node:
                kind = node["tags"][TAG_RAY_USER_NODE_TYPE]
                notes[node_id] = {"kind": kind, "pid": _raylet(node["node"]).pid}
        part = self._folder / "nodes.json.part"
        part.write_text(json.dumps(notes))
        part.replace(self._folder / "nodes.json")


def _raylet(node: Any) -> subprocess.Popen[bytes]:
    """The process of a node's raylet."""
    process: subprocess.Popen[bytes] = node.all_processes["raylet"][0].process
    return process
