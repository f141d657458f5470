"""Jobs on a Ray cluster: `jobs/drive.py` as a Ray Job, whose table is a hint: the store is the truth.

What goes to the cluster is the package, the name of the job and where its store lies. Keys do not: nodes have
their own (an instance role, a secret of Kubernetes); an environment of Ray's can be read by whoever sees it.
"""

from __future__ import annotations

import importlib
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from xstilts.errors import ClusterError
from xstilts.execute.cluster import import_ray

Package = Literal["upload", "here", "installed"]
"""How nodes come by the package: uploaded with the job; from the folder it is run from, which they see too
(one machine, a shared disk); or because their image has it."""

SOURCE = Path(__file__).resolve().parents[2]
"""The folder that holds the package."""

DRIVE = "from xstilts.cli.main import main; main()"
"""What the Ray Job runs where jobs/drive.py does not lie beside the package."""

PASSED_ON = (
    "XSTILTS_S3_SSE",
    "XSTILTS_S3_KMS_KEY",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "MLFLOW_TRACKING_URI",
    "OMP_NUM_THREADS",
)
"""Of the submitter's environment: where things are, never a key to them."""

ACTIVE = ("PENDING", "RUNNING")
POLL_SECONDS = 1.0

SUBMISSION = "XSTILTS_SUBMISSION"
"""In a submitted driver's environment: which submission it is; its file in the store says so too."""

STOP_SECONDS = 120.0
"""For which `submit` waits for a driver that was told to stop: its running steps write checkpoints first."""

DEAF_SECONDS = 60.0
"""For which a log is still followed when the cluster does not answer."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a cluster is asked to drive."""

    job: str
    store: str
    data: str | None = None
    package: Package = "upload"
    version: str = ""
    """The plan's digest: of all that decides a result, in the job file and in the data."""
    execution: str = ""
    """Digest of how it is to be run, which decides none."""


class Submissions:
    """The jobs of one cluster."""

    def __init__(self, address: str) -> None:
        """`address`: of the cluster's dashboard, http://HOST:8265.

        Raises:
            ClusterError: nobody answers there, or not to this token.
        """
        _check_address(address)
        import_ray()
        sdk = importlib.import_module("ray.job_submission")
        self._address = address
        try:
            self._client: Any = sdk.JobSubmissionClient(address)
        except Exception as problem:  # requests' errors, RuntimeError, ConnectionError: one meaning
            raise self._refused(problem) from None

    def submit(self, asked: Asked) -> str:
        """Has the job driven; the submission's id. Ask `going_on` before: nothing is driven twice."""
        name = f"xstilts-{asked.job}-{len(self.of_job(asked)) + 1}-{int(time.time())}"
        words = {"xstilts_job": asked.job, "xstilts_store": asked.store}
        words |= {"xstilts_version": asked.version, "xstilts_execution": asked.execution}
        command, environment = _drive(asked)
        environment["env_vars"][SUBMISSION] = name
        try:
            made = self._client.submit_job(
                entrypoint=command, submission_id=name, runtime_env=environment, metadata=words
            )
        except Exception as problem:
            raise self._refused(problem) from None
        return str(made)

    def going_on(
        self, asked: Asked, is_ending: Callable[[str], bool], say: Callable[[str], None]
    ) -> str | None:
        """The submission that drives the job and goes on, or None: then nobody does. One that `is_ending`,
        by its id, is waited for; `say` is told.

        Raises:
            ClusterError: it works on another version of the job, or does not end within 120 s.
        """
        running = self._active(asked)
        if any(is_ending(str(each.submission_id)) for each in running):
            self._wait(asked, say)
            return None
        if not running:
            return None
        name, known = str(running[-1].submission_id), running[-1].metadata or {}
        if known.get("xstilts_version", asked.version) != asked.version:
            problem = f"{name} is running another version of {asked.job}: the job file or its data changed"
            remedy = "cancel it (`xstilts cancel JOB`) or wait for its end, then submit this version"
            raise ClusterError(problem, f"{remedy}; or give this version a `name` of its own")
        if known.get("xstilts_execution", asked.execution) != asked.execution:
            say(f"{name} keeps the `execution` it was submitted with; to change that, cancel it and submit")
        return name

    def _active(self, asked: Asked) -> list[Any]:
        return [each for each in self.of_job(asked) if str(each.status) in ACTIVE]

    def _wait(self, asked: Asked, say: Callable[[str], None]) -> None:
        """Until nothing drives the job.

        Raises:
            ClusterError: something does after 120 s.
        """
        deadline, told = time.monotonic() + STOP_SECONDS, False
        while running := self._active(asked):
            name = str(running[-1].submission_id)
            if time.monotonic() >= deadline:
                problem = f"{name} is stopping and has not ended within {STOP_SECONDS:.0f} s"
                remedy = "submit again when `xstilts status JOB` says that it has"
                raise ClusterError(problem, f"{remedy}, or end it at once: xstilts cancel JOB --now")
            if not told:
                say(f"{name} is stopping; waiting for its end")
            told = True
            time.sleep(POLL_SECONDS)

    def of_job(self, asked: Asked) -> list[Any]:
        """Ray's own records of what drove the job on this store, oldest first."""
        try:
            found = self._client.list_jobs()
        except Exception as problem:
            raise self._refused(problem) from None
        words = {"xstilts_job": asked.job, "xstilts_store": asked.store}
        mine = [each for each in found if words.items() <= (each.metadata or {}).items()]
        return sorted(mine, key=lambda each: each.start_time or 0)

    def logs(self, submission: str, follow: bool) -> Iterator[str]:
        """What its driver printed, in pieces. Following ends with the job, not with a lost connection."""
        seen, deaf_since = 0, None
        while True:
            try:
                status = str(self._client.get_job_status(submission))
                text = self._client.get_job_logs(submission)
            except (OSError, RuntimeError) as problem:  # requests' errors are OSErrors
                deaf_since = deaf_since or time.monotonic()
                if not follow or time.monotonic() - deaf_since > DEAF_SECONDS:
                    raise self._refused(problem) from None
            else:
                deaf_since = None
                yield text[seen:]
                seen = max(seen, len(text))
                if not follow or status not in ACTIVE:
                    return
            time.sleep(POLL_SECONDS)

    def code(self, submission: str) -> int:
        """The exit code of a driver that has ended; 1 where Ray does not know it."""
        try:
            found = self._client.get_job_info(submission)
        except (OSError, RuntimeError) as problem:
            raise self._refused(problem) from None
        if found.driver_exit_code is not None:
            return int(found.driver_exit_code)
        return 0 if str(found.status) == "SUCCEEDED" else 1

    def kill(self, submission: str) -> None:
        """Ends its driver, and with it every worker; their last checkpoints are kept."""
        try:
            self._client.stop_job(submission)
        except (OSError, RuntimeError) as problem:
            raise self._refused(problem) from None

    def _refused(self, problem: Exception) -> ClusterError:
        text = str(problem).strip()
        if "401" in text or "403" in text or "nauthorized" in text or "token" in text.lower():
            remedy = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the file with the cluster's token"
            return ClusterError(f"the cluster at {self._address} does not accept this token", remedy)
        first = text.splitlines()[0][:200] if text else type(problem).__name__
        remedy = "give the address of its dashboard, such as http://127.0.0.1:8265, and check that it is up"
        return ClusterError(f"the cluster at {self._address} did not take it ({first})", remedy)


def _check_address(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClusterError(f"{address!r} is no address of a dashboard", "write http://HOST:8265")
    if parts.password:
        raise ClusterError(
            "the cluster's address holds a password", "leave it out: RAY_AUTH_TOKEN_PATH names a token"
        )


def _drive(asked: Asked) -> tuple[str, dict[str, Any]]:
    """The command of the Ray Job, and its environment."""
    words = [asked.job, "--store", asked.store, *(["--data", asked.data] if asked.data else [])]
    here = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    # An address may hold a password or a token; nodes then have it from elsewhere.
    here = {name: value for name, value in here.items() if "://" not in value or "@" not in value}
    if asked.package == "here":
        script = SOURCE.parent / "jobs" / "drive.py"
        program = [sys.executable, str(script)] if script.is_file() else [sys.executable, "-c", DRIVE]
        return shlex.join([*program, *(words if script.is_file() else ["drive", *words])]), {
            "env_vars": {**here, "PYTHONPATH": str(SOURCE)}
        }
    environment: dict[str, Any] = {"env_vars": here}
    if asked.package == "upload":
        environment["py_modules"] = [str(SOURCE / "xstilts")]
    return shlex.join(["python", "-c", DRIVE, "drive", *words]), environment
