"""The Ray that steps run on: a local cluster of the driver's own, or one that others share."""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import psutil

from xstilts.errors import ClusterError
from xstilts.execute.scratch import own_folder, sweep

OBJECT_STORE_BYTES = 100_000_000
"""Steps pass files, not objects; what goes through Ray is descriptions and progress."""

HEAD = "head"
"""A resource that a cluster may give its head: what only watches then runs there, not on a spot node."""

SLOW_SECONDS = 20.0
"""What waits longer for a place than nodes usually take to come says why."""


class Cluster(Protocol):
    """A Ray that this process is connected to."""

    ray: Any
    """The module."""
    shared: bool
    """Whether other drivers use it too: workers then say what they need, and idle ones are given back."""

    def close(self) -> None:
        """Leaves it; a cluster of one's own ends."""
        ...


class LocalRay:
    """A Ray cluster of this process's own: temporary folder, token and end are private to it."""

    shared = False

    def __init__(self, cpus: int) -> None:
        # Sockets below it must have names of at most 107 characters, which rules out a deep TMPDIR.
        base = Path(tempfile.gettempdir())
        short = base if len(str(base)) <= 15 else Path("/tmp")
        sweep(short)
        self._others = {child.pid for child in psutil.Process().children(recursive=True)}
        self._folder = own_folder(short)
        self._before = os.environ.get("RAY_TMPDIR")
        os.environ["RAY_TMPDIR"] = str(self._folder)
        if "ray" not in sys.modules:
            # Its address is then 127.0.0.1, and for just this address Ray listens on loopback alone; else it
            # would listen on all interfaces (2.60). Read once, when Ray is imported.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        self.ray = import_ray()
        try:
            self.ray.init(
                address="local",
                num_cpus=max(cpus, 1),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends every process of the cluster and removes its folder."""
        every = psutil.Process().children(recursive=True)
        children = [child for child in every if child.pid not in self._others]
        with suppress(Exception):
            self.ray.shutdown()
        _, left = psutil.wait_procs(children, timeout=5)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)
        sweep()  # Ray ends workers without letting them clean up
        os.environ.pop("RAY_TMPDIR", None)
        if self._before is not None:
            os.environ["RAY_TMPDIR"] = self._before
        shutil.rmtree(self._folder, ignore_errors=True)


class SharedRay:
    """A cluster that is there already; its nodes come and go, and other jobs use it."""

    shared = True

    def __init__(self, address: str = "auto") -> None:
        """Joins the cluster at `address`; auto is the one that RAY_ADDRESS names, as in a Ray Job.

        Raises:
            ClusterError: there is none, or it does not let this process in.
        """
        self.ray = import_ray()
        # Ray Train's cleaner of placement groups looks for the cluster by this variable, or by a file that a
        # node with a temporary folder of its own lacks; without it groups of dead runs hold their nodes.
        known = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
        told = {"env_vars": {"RAY_ADDRESS": known}} if known and "://" not in known else None
        try:
            self.ray.init(address=address, runtime_env=told, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as problem:
            first = str(problem).strip().partition("\n")[0]
            remedy = "start one (infra/local/stack.py), or run the job without --address"
            raise ClusterError(f"no Ray cluster at {address} ({first})", remedy) from problem

    def close(self) -> None:
        """Leaves; what this process started there ends with it."""
        with suppress(Exception):
            self.ray.shutdown()


def node_kinds(ray: Any) -> list[dict[str, float]]:
    """What each node that is there has, by resource. An autoscaler does not tell what it may launch."""
    return [dict(node["Resources"]) for node in ray.nodes() if node["Alive"]]


def draining(ray: Any) -> frozenset[str]:
    """Hexadecimal ids of the nodes that are about to go: a preemption notice, or the autoscaler's."""
    with suppress(Exception):  # the head is away for a moment: then there is no notice either
        state = importlib.import_module("ray._private.state").state
        return frozenset(state.get_draining_nodes())
    return frozenset()


def ran_out_of_memory(ray: Any, problem: BaseException) -> bool:
    """Whether Ray's memory monitor ended a process; of an actor it says so only in words."""
    return isinstance(problem, ray.exceptions.OutOfMemoryError) or "running low on memory" in str(problem)


def shortage(ray: Any, shape: Mapping[str, float], count: int = 1) -> str:
    """Why `count` places of this shape cannot be had now, in words; "" when they can, or nothing is wanted.
    Asked for what has waited for a while."""
    wanted = {name: need for name, need in shape.items() if need > 0}
    if not wanted:
        return ""
    words = " and ".join(f"{need:g} {name}" for name, need in wanted.items())
    if any(_places(kind, wanted) for kind in node_kinds(ray)):
        per_node = importlib.import_module("ray._private.state").available_resources_per_node()
        free = sum(_places(each, wanted) for each in per_node.values())
        if free >= count:
            return ""  # whoever waits is about to have it
        if count > 1:
            return f"{free} of {count} places of {words} are free"
        return f"no node with {words} is free"
    state = _autoscaling(ray)
    if state is None:
        return f"no node of this cluster has {words}, and it launches none"
    for request in state.infeasible_resource_requests:
        if {name: need for name, need in request.resources_bundle.items() if need} == wanted:
            return f"no node that this cluster may launch has {words}"
    failed = [str(each.reason).strip() for each in state.failed_instance_requests if each.reason]
    why = f" ({failed[-1].splitlines()[0][:200]})" if failed else ""
    return f"no node with {words} is there, and none has come yet{why}"


def _places(has: Mapping[str, float], wanted: Mapping[str, float]) -> int:
    """How often something fits; Ray counts in parts of 1e-4."""
    return min(int(has.get(name, 0.0) / need + 1e-4) for name, need in wanted.items())


def _autoscaling(ray: Any) -> Any:
    """What the autoscaler last reported; None where there is none. Ray's own status leaves out what is
    infeasible (2.60)."""
    try:
        message = importlib.import_module("ray.core.generated.autoscaler_pb2").GetClusterStatusReply()
        client = importlib.import_module("ray._raylet").GcsClient(ray.get_runtime_context().gcs_address)
        message.ParseFromString(client.get_cluster_status(timeout_s=5))
    except Exception:  # the head is away, or Ray speaks otherwise: there is nothing to tell people then
        return None
    state = message.autoscaling_state
    return state if state.autoscaler_state_version else None


def import_ray() -> Any:
    """Ray, told before its first import how its processes know each other: it reads that once.

    Left to itself it would write a token into the user's home, and behave by what it finds there.
    """
    if "ray" not in sys.modules:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if os.environ["RAY_AUTH_MODE"] == "token" and "RAY_AUTH_TOKEN_PATH" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    return importlib.import_module("ray")
