"""All services of a cluster on this machine: S3, PostgreSQL, MLflow, a Ray head, nodes that come and go.

    python infra/local/stack.py up FOLDER [--workers-max 2] [--gpus-per-node 1]    # README.md has the rest
    eval "$(python infra/local/stack.py env FOLDER)"                               # a shell that uses it
    python infra/local/stack.py status FOLDER
    python infra/local/stack.py down FOLDER          # ends what `up` started, by process id, and nothing else

FOLDER is for the stack alone. It holds settings, logs and what is secret (mode 0600); `down` leaves the logs,
and nothing of what S3 and PostgreSQL held. Everything listens on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

if __package__ in (None, ""):
    sys.path.append(str(Path(__file__).resolve().parents[2]))

from infra.local import postgres, rgw
from infra.local.postgres import Postgres
from infra.local.processes import free_port, inherited
from infra.local.ray_head import Head, Kind
from infra.local.tracking import Tracking

PARTS = ("s3", "postgres", "mlflow", "ray")
BUCKET = "xstilts"
UNSET = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "RAY_AUTH_TOKEN")
"""Variables that would win over those of `env`."""


class Part(Protocol):
    """What every part of a stack can do."""

    def send(self, number: signal.Signals) -> None:
        """Sends a signal; ProcessLookupError when it does not run."""
        ...

    def revive(self) -> None:
        """Starts it again at the port where it was, on what it kept."""
        ...

    def stop(self) -> None:
        """Ends it; nothing of it runs afterwards."""
        ...


@dataclass(slots=True)
class Stack:
    """The parts that were started in a folder; None for those that were not."""

    folder: Path
    s3: rgw.Gateway | None = None
    postgres: Postgres | None = None
    mlflow: Tracking | None = None
    ray: Head | None = None

    @classmethod
    def start(
        cls,
        folder: Path,
        parts: Collection[str] = PARTS,
        kinds: Sequence[Kind] = (Kind(),),
        idle_seconds: float = 60.0,
        environment: Mapping[str, str] | None = None,
    ) -> Stack:
        """Ends what an earlier start left in `folder`, and starts `parts`; leaves nothing after an exception.

        Args:
            kinds: of nodes that the autoscaler may launch.
            idle_seconds: after which a node without work goes.
            environment: for all that runs on the cluster, besides where the other parts are.

        Raises:
            RuntimeError: the folder holds something else, programs are missing, or a part does not come up.
        """
        folder = folder.absolute()
        if absent := missing(parts):
            raise RuntimeError(f"not installed: {' '.join(absent)}; see infra/local/README.md")
        if folder.exists() and any(folder.iterdir()) and not (folder / "stack.json").exists():
            raise RuntimeError(f"{folder} holds files that are not a stack's: name another folder")
        cls.at(folder).stop()
        # Short, for Ray's sockets, and open to the user that PostgreSQL runs as.
        scratch = Path(tempfile.mkdtemp(prefix="xs-", dir="/tmp"))
        scratch.chmod(0o711)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "stack.json").write_text(json.dumps({"scratch": str(scratch)}))
        try:
            _start(folder, scratch, parts, kinds, idle_seconds, environment or {})
        except BaseException:
            cls.at(folder).stop()
            raise
        return cls.at(folder)

    @classmethod
    def at(cls, folder: Path) -> Stack:
        """What was started in `folder`, whether it still runs or not."""
        folder = folder.absolute()
        stack = cls(folder)
        if (folder / "s3" / "port").exists():
            stack.s3 = rgw.Gateway.at(folder / "s3")
        if (folder / "postgres" / "settings.json").exists():
            stack.postgres = Postgres.at(folder / "postgres")
        if (folder / "mlflow" / "settings.json").exists():
            stack.mlflow = Tracking.at(folder / "mlflow")
        if (folder / "ray" / "settings.json").exists():
            stack.ray = Head.at(folder / "ray")
        return stack

    @property
    def parts(self) -> dict[str, Part]:
        """Those that were started, by name."""
        every: tuple[Part | None, ...] = (self.s3, self.postgres, self.mlflow, self.ray)
        return {name: part for name, part in zip(PARTS, every, strict=True) if part is not None}

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to use it; secrets by path only. RAY_ADDRESS is the jobs API's."""
        words = _services(self.folder, self.s3, self.mlflow.url if self.mlflow is not None else None)
        if self.ray is not None:
            words |= {"RAY_ADDRESS": self.ray.url, **self.ray.client_environment}
        return words

    @property
    def shell(self) -> dict[str, str]:
        """The whole environment of such a process: this one's, with nothing in it that says otherwise."""
        return {**inherited(), **self.environment}

    def status(self) -> dict[str, bool]:
        """Name of each part that was started -> whether it runs."""
        pids = {
            "s3": self.s3.pid if self.s3 is not None else None,
            "postgres": self.postgres.pid if self.postgres is not None else None,
            "mlflow": self.mlflow.pid if self.mlflow is not None else None,
            "ray": self.ray.pid if self.ray is not None else None,
        }
        return {name: pids[name] is not None for name in self.parts}

    def stop(self) -> None:
        """Ends every part, the last first, and removes all that it wrote, but for logs. Twice is no harm."""
        for part in reversed(self.parts.values()):
            part.stop()
        note = self.folder / "stack.json"
        said = json.loads(note.read_text()) if note.exists() else {}
        if "scratch" not in said:
            return
        self._keep_logs(Path(said["scratch"]))
        shutil.rmtree(said["scratch"], ignore_errors=True)
        for name in PARTS:
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / "aws_credentials").unlink(missing_ok=True)
        # It stays: a folder with logs and this file in it is a stack's.
        note.write_text("{}")

    def _keep_logs(self, scratch: Path) -> None:
        """Gathers what parts and nodes said, for whoever asks why something did not work."""
        for name in PARTS:
            for log in [*self.folder.glob(f"{name}/*.log"), *self.folder.glob(f"{name}/log/*")]:
                _copy(log, self.folder / "logs" / name / log.name)
        for session in scratch.glob("*/**/session_2*/logs"):
            node = session.relative_to(scratch).parts[1]
            for log in session.glob("*.*"):
                _copy(log, self.folder / "logs" / "ray" / node / log.name)


def missing(parts: Collection[str] = PARTS) -> list[str]:
    """Packages and programs that these parts need and that are not installed."""
    absent = rgw.missing() if "s3" in parts else []
    if "postgres" in parts:
        absent += postgres.missing()
        absent += ["psycopg"] if "mlflow" in parts and find_spec("psycopg") is None else []
    return absent


def _start(
    folder: Path,
    scratch: Path,
    parts: Collection[str],
    kinds: Sequence[Kind],
    idle_seconds: float,
    environment: Mapping[str, str],
) -> None:
    """Starts the parts, together where one does not need another; each notes first that it is there."""
    gateway = rgw.Gateway(folder / "s3", free_port()) if "s3" in parts else None
    port = free_port()
    services = _services(folder, gateway, f"http://127.0.0.1:{port}" if "mlflow" in parts else None)
    starts: list[Callable[[], object]] = []
    if gateway is not None:
        _write_credentials(folder / "aws_credentials")
        starts.append(lambda: _start_s3(gateway))
    if "postgres" in parts or "mlflow" in parts:
        artifacts = f"s3://{BUCKET}/mlflow" if gateway is not None else None

        def tracking() -> None:
            server = Postgres.start(folder / "postgres", scratch / "pg") if "postgres" in parts else None
            if "mlflow" in parts:
                Tracking.start(folder / "mlflow", server.url if server else None, artifacts, services, port)

        starts.append(tracking)
    if "ray" in parts:
        words = {**services, **environment}
        starts.append(lambda: Head.start(folder / "ray", scratch / "r", kinds, idle_seconds, words))
    with ThreadPoolExecutor(max(1, len(starts))) as pool:
        for outcome in [pool.submit(start) for start in starts]:
            outcome.result()


def _start_s3(gateway: rgw.Gateway) -> None:
    import boto3

    rgw.Gateway.start(gateway.folder, gateway.port)
    keys = {"aws_access_key_id": rgw.ACCESS_KEY, "aws_secret_access_key": rgw.SECRET_KEY}
    client = boto3.session.Session(**keys, region_name="us-east-1").client("s3", endpoint_url=gateway.url)
    client.create_bucket(Bucket=BUCKET)


def _services(folder: Path, gateway: rgw.Gateway | None, tracking: str | None) -> dict[str, str]:
    """Where the store and the runs are."""
    words: dict[str, str] = {}
    if gateway is not None:
        hidden = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
        words |= {name: value for name, value in gateway.environment.items() if name not in hidden}
        words["AWS_SHARED_CREDENTIALS_FILE"] = str(folder / "aws_credentials")
        words["XSTILTS_STORE"] = f"s3://{BUCKET}/store"
    if tracking is not None:
        words["MLFLOW_TRACKING_URI"] = tracking
    return words


def _write_credentials(path: Path) -> None:
    path.touch(mode=0o600)
    path.write_text(
        f"[default]\naws_access_key_id = {rgw.ACCESS_KEY}\naws_secret_access_key = {rgw.SECRET_KEY}\n"
    )


def _copy(log: Path, there: Path) -> None:
    if log.is_file() and not log.is_symlink():
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(log, there)


def _words() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stack.py", description=(__doc__ or "").partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="start everything; what an earlier up left there ends first")
    up.add_argument("--parts", default=",".join(PARTS), help="some of %(default)s")
    up.add_argument("--workers-min", type=int, default=0, help="nodes that are always there")
    up.add_argument("--workers-max", type=int, default=2)
    up.add_argument("--cpus-per-node", type=int, default=2)
    up.add_argument("--gpus-per-node", type=int, default=1, help="on paper; no device is needed")
    up.add_argument("--memory-per-node", type=float, default=4.0, help="GiB, on paper")
    up.add_argument("--idle-seconds", type=float, default=60.0, help="after which a node without work goes")
    down = verbs.add_parser("down", help="end everything")
    status = verbs.add_parser("status", help="say what runs; exit code 1 when something does not")
    env = verbs.add_parser("env", help="print what a shell needs to use it")
    for verb in (up, down, status, env):
        verb.add_argument("folder", type=Path)
    return parser


def _up(words: argparse.Namespace) -> None:
    resources = {
        "CPU": words.cpus_per_node,
        "GPU": words.gpus_per_node,
        "memory": int(words.memory_per_node * 2**30),
    }
    kind = Kind("gpu" if words.gpus_per_node else "cpu", resources, words.workers_min, words.workers_max)
    stack = Stack.start(words.folder, words.parts.split(","), [kind], words.idle_seconds)
    print(f"up: {' '.join(stack.parts)}")
    if stack.mlflow is not None:
        print(f"MLflow     {stack.mlflow.url}")
    if stack.ray is not None:
        print(f"Ray        {stack.ray.url}   (asks for the token in {stack.ray.token})")
    print(f'to use it: eval "$({shlex.join([sys.executable, sys.argv[0], "env", str(words.folder)])})"')


def main(given: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    words = _words().parse_args(given)
    if words.verb == "up":
        try:
            _up(words)
        except RuntimeError as problem:
            print(f"error: {problem}", file=sys.stderr)
            return 2
        return 0
    stack = Stack.at(words.folder)
    if words.verb == "down":
        stack.stop()
    elif words.verb == "env":
        print(f"unset {' '.join(UNSET)}")
        for name, value in stack.environment.items():
            print(f"export {name}={shlex.quote(value)}")
    elif words.verb == "status":
        for name, runs in stack.status().items():
            print(f"{name:<9}{'runs' if runs else 'does not run'}")
        return 0 if stack.parts and all(stack.status().values()) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
