"""A Ray head on this machine, and an autoscaler whose nodes are raylets of this machine too (autoscaling.py).

Everything listens on 127.0.0.1, and wants the token that is in a file of the head's folder. The head itself
has no CPU and no GPU, only `head`, which what watches takes a little of: steps run on nodes that come and go.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.local.cluster import Cluster
from infra.local.processes import MARK, free_port, inherited, keep, kept, marked, pid_of

REPO = Path(__file__).resolve().parents[2]

HEAD_ID = "f" * 51 + "00000"
"""Ray's provider of fake nodes numbers them from the head's upwards."""

OBJECT_STORE = 80_000_000
"""Bytes a node, just over the least that Ray takes; steps pass files, not objects."""

DETECTION = {
    # A raylet that is killed is noticed in 2 s, not 15: five refusals in a row, this far apart. One that is
    # only slow has 10 s for each answer, as ever.
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_initial_delay_ms": "2000",
    "AUTOSCALER_UPDATE_INTERVAL_S": "1",
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of node that the autoscaler may launch."""

    name: str = "gpu"
    resources: Mapping[str, float] = field(default_factory=lambda: {"CPU": 2, "GPU": 1, "memory": 4 * 2**30})
    """As Ray counts them; none need exist. `memory` is in bytes."""
    least: int = 0
    most: int = 2


@dataclass(frozen=True, slots=True)
class Head:
    """A head in a folder of its own, running or not."""

    folder: Path
    scratch: Path
    """Ray's temporary folder; short, since a socket's path must stay below 108 characters."""
    port: int
    dashboard_port: int
    environment: Mapping[str, str] = field(repr=False)
    """What its processes, and all that runs on the cluster, get besides this process's own."""

    @classmethod
    def start(
        cls,
        folder: Path,
        scratch: Path,
        kinds: Sequence[Kind] = (Kind(),),
        idle_seconds: float = 60.0,
        environment: Mapping[str, str] | None = None,
    ) -> Head:
        """Starts in a folder that may be there already; 5 s.

        Args:
            scratch: not there yet.
            idle_seconds: after which a node that does nothing goes.
            environment: say, where the store is and with which credentials.

        Raises:
            RuntimeError: it does not come up; says what Ray said.
        """
        made = cls(folder, scratch, free_port(), free_port(), dict(environment or {}))
        ports = {"port": made.port, "dashboard_port": made.dashboard_port}
        keep(folder, scratch=str(scratch), **ports, environment=made.environment)
        scratch.mkdir(mode=0o700)
        made.token.touch(mode=0o600)
        made.token.write_text(secrets.token_hex(32))
        made._write(kinds, idle_seconds)
        made.revive()
        return made

    @classmethod
    def at(cls, folder: Path) -> Head:
        """The one that was started in `folder`."""
        settings = kept(folder)
        return cls(folder, Path(settings.pop("scratch")), **settings)

    @property
    def token(self) -> Path:
        """File with the token that every client and every process of the cluster shows."""
        return self.folder / "token"

    @property
    def address(self) -> str:
        """For ray.init, of a process with `client_environment`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Of the dashboard and the jobs API."""
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def client_environment(self) -> dict[str, str]:
        """What a process needs to talk to it."""
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_USAGE_STATS_ENABLED": "0",
            # Else Ray takes 127.0.0.1 for the machine's address in its network, where nothing listens. A head
            # at that address, or at 127.0.0.2, would have every port open to the network: only for
            # 127.0.0.1 does Ray bind to the loopback interface.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        }

    @property
    def cluster(self) -> Cluster:
        """Its nodes and their processes."""
        return Cluster(self.folder, self.scratch, self.address, self.url, self._words())

    @property
    def pid(self) -> int | None:
        """Number of the process that the cluster stands and falls with, the GCS server, if it runs."""
        return pid_of(self._note)

    def send(self, number: signal.Signals) -> None:
        """A signal to every process of the head, jobs' drivers too, but not to other nodes'."""
        there = self.cluster.processes(HEAD_ID)
        if not there:
            raise ProcessLookupError(f"no Ray head runs in {self.folder}")
        for noted in there:
            noted.send(number)

    def revive(self) -> None:
        """Starts a head where there is none, or none any more: a new cluster, at the ports of the old one.

        Raises:
            RuntimeError: it does not come up; says what Ray said.
        """
        self.stop()
        (self.folder / "nodes.json").unlink(missing_ok=True)
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--disable-usage-stats"),
            *("--node-ip-address=127.0.0.1", f"--port={self.port}"),
            *("--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard_port}"),
            *("--num-cpus=0", "--num-gpus=0", '--resources={"head": 1000}'),
            f"--object-store-memory={OBJECT_STORE}",
            # Both have a number of their own, the same for every Ray here; without an agent no job starts.
            *(f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}"),
            f"--autoscaling-config={self._config}",
        ]
        told = subprocess.run(
            command,
            env=self._words(),
            cwd=self.scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        (self.folder / "start.log").write_bytes(told.stdout + told.stderr)
        gcs = [noted for noted in marked(self.folder) if _is_gcs(noted.pid)]
        if told.returncode or not gcs:
            self.stop()
            raise RuntimeError(f"no Ray head came up, see {self.folder}/start.log")
        gcs[0].write(self._note)

    def stop(self) -> None:
        """Ends the cluster: every process that carries its mark, all nodes and all jobs."""
        self.cluster.kill()
        self._note.unlink(missing_ok=True)

    def asks(self, path: str, token: str | None = None) -> Any:
        """What the dashboard answers at a path, from JSON.

        Args:
            token: instead of the right one.

        Raises:
            urllib.error.HTTPError: it refuses: 401 without a token, 403 with the wrong one.
        """
        request = urllib.request.Request(f"{self.url}{path}")
        request.add_header("Authorization", f"Bearer {token or self.token.read_text()}")
        with urllib.request.urlopen(request, timeout=30) as reply:
            return json.load(reply)

    def _words(self) -> dict[str, str]:
        """The whole environment of the cluster's processes."""
        words = {**inherited(), **self.environment}
        path = os.pathsep.join([str(Path(sys.executable).parent), words.get("PATH", "")])
        # The autoscaler imports infra.local.autoscaling.
        python_path = os.pathsep.join(each for each in (words.get("PYTHONPATH"), str(REPO)) if each)
        return {
            **DETECTION,
            **words,
            # A job's `python` is this one: its command is found with the head's path.
            "PATH": path,
            **self.client_environment,
            "RAY_TMPDIR": str(self.scratch),
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
            "AUTOSCALER_METRIC_PORT": str(free_port()),
            "PYTHONPATH": python_path,
            MARK: str(self.folder),
        }

    def _write(self, kinds: Sequence[Kind], idle_seconds: float) -> None:
        """The autoscaler's configuration, with all that Ray's check of it wants to see."""
        lists = "cluster_synced_files rsync_exclude rsync_filter initialization_commands setup_commands"
        lists += (
            " head_setup_commands worker_setup_commands head_start_ray_commands worker_start_ray_commands"
        )
        config = {
            "cluster_name": "xstilts-local",
            "max_workers": sum(kind.most for kind in kinds),
            "idle_timeout_minutes": idle_seconds / 60,
            # All that are wanted at once; Ray's own default adds as many as there are.
            "upscaling_speed": 1000,
            "provider": {
                "type": "external",
                "module": "infra.local.autoscaling.LocalProvider",
                "use_node_id_as_ip": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
                "head_node_id": HEAD_ID,
                "gcs_address": self.address,
                "folder": str(self.folder),
                "scratch": str(self.scratch),
            },
            "available_node_types": {
                "head": _node_type({"CPU": 0, "head": 1000}, 0, 0),
                **{kind.name: _node_type(kind.resources, kind.least, kind.most) for kind in kinds},
            },
            "head_node_type": "head",
            "auth": {},
            "file_mounts": {},
            "file_mounts_sync_continuously": False,
            **{name: [] for name in lists.split()},
        }
        self._config.write_text(json.dumps(config, indent=1))

    @property
    def _config(self) -> Path:
        return self.folder / "autoscaling.json"

    @property
    def _note(self) -> Path:
        return self.folder / "gcs.pid"


def _node_type(resources: Mapping[str, float], least: int, most: int) -> dict[str, Any]:
    with_store = {"object_store_memory": OBJECT_STORE, **resources}
    return {"node_config": {}, "resources": with_store, "min_workers": least, "max_workers": most}


def _is_gcs(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].endswith(b"/gcs_server")
    return False
