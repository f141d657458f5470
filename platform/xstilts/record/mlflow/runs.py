"""The runs of one job, found by their tags or made: the module that speaks to MLflow.

Uses a client with explicit run ids, never MLflow's global "active run", and every method may be
repeated after a failure: runs are found before they are made, points that are there are not sent again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xstilts.errors import StoreError
from xstilts.record.mlflow.twins import PARENT, merge
from xstilts.record.mlflow.words import GAUGE, NAME, PARAM, TAG, cut, named

BATCH = 1000
"""Metrics MLflow takes in one request."""

_PASSING = {
    "INTERNAL_ERROR",
    "TEMPORARILY_UNAVAILABLE",
    "REQUEST_LIMIT_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "DEADLINE_EXCEEDED",
    "ABORTED",
    "CANCELLED",
    # What MLflow calls any error of SQLAlchemy, such as a connection that PostgreSQL closed; a request
    # that is wrong in itself is an INVALID_PARAMETER_VALUE.
    "BAD_REQUEST",
}

_ELSEWHERE = ("requests", "urllib3", "sqlalchemy", "sqlite3", "psycopg", "botocore")
"""Libraries whose errors speak of a server or a database, not of what was asked."""

Point = tuple[str, float, int, int]
"""Metric, value, step, time in milliseconds since 1970."""


@dataclass
class Run:
    """What is known of one run without asking again."""

    id: str
    status: str
    tags: dict[str, str]
    params: set[str]
    metrics: dict[str, float]
    """Newest value of each."""
    last: dict[str, int] = field(default_factory=dict)
    """Newest step of each metric that was looked at."""
    began: int = 0
    """Milliseconds since 1970."""

    @property
    def light(self) -> bool:
        """Stands for a step that another run computed."""
        return "reused" in self.tags

    @property
    def stands_for(self) -> tuple[str, str]:
        """What no two runs are to have in common: a key, and for light runs the parent too."""
        return self.tags.get("key", ""), self.tags.get(PARENT, "") if self.light else ""


def passing(problem: Exception) -> bool:
    """Whether trying again later may help: a server that is away, a database that is locked or full."""
    code = getattr(problem, "error_code", None)
    library = type(problem).__module__.partition(".")[0]
    return code in _PASSING or library in _ELSEWHERE or isinstance(problem, TimeoutError | StoreError)


class Runs:
    """One experiment. Not thread-safe: it belongs to the thread that made it.

    Raises:
        Exception: any method, whatever MLflow raised; see `passing`.
    """

    def __init__(self, tracking_uri: str, artifact_root: str | None, job: str) -> None:
        """Imports MLflow (seconds); finds or makes the database and the experiment."""
        _quiet()
        _make_database(tracking_uri)
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=tracking_uri)
        self._job = job
        self._experiment = self._open(artifact_root)
        self._found: dict[str, list[Run]] | None = None
        self._last: dict[str, dict[str, int]] = {}
        self._everywhere: list[str] | None = None
        """Ids of all experiments, once they were asked for."""

    @property
    def experiment(self) -> str:
        """Id of the job's experiment."""
        return self._experiment

    @property
    def ids(self) -> dict[str, str]:
        """Key -> id of the run that computed it, or of one that stands for it."""
        every = [run for runs in self._runs().values() for run in runs]
        found = {run.tags["key"]: run.id for run in every if run.light}
        return found | {run.tags["key"]: run.id for run in every if not run.light}

    def answers(self) -> bool:
        """Whether MLflow answers at all: what it then refuses, it refuses for a reason of its own."""
        try:
            self._client.get_experiment(self._experiment)
        except Exception:
            return False
        return True

    def parent(self, digest: str, tags: Mapping[str, str], at: int) -> Run:
        """The run of one plan of the job."""
        key = f"{self._job}@{digest}" if digest else self._job
        words = {**tags, "job": self._job, "kind": "job", "key": key}
        return self._find(key, lambda run: True) or self._make(self._job, words, at)

    def step(self, key: str, name: str, parent: Run, tags: Mapping[str, str], at: int) -> Run:
        """The run that computes `key`; one begun under an earlier plan goes on under this one."""
        words = {"step": name, **tags, "job": self._job, "key": key, PARENT: parent.id}
        run = self._find(key, lambda run: not run.light)
        if run is None:
            return self._make(name, words, at)
        self.tag(run, words)
        return run

    def reused(self, key: str, name: str, parent: Run, tags: Mapping[str, str], at: int) -> Run:
        """The light run of a step that was there; the run that computed it, where this plan has that one."""
        run = self._find(key, lambda run: run.tags.get(PARENT) == parent.id)
        if run is not None:
            return run
        words = {"step": name, **tags, "job": self._job, "key": key, PARENT: parent.id, "reused": "true"}
        if first := self._first(key):
            words["first_run"] = first
        return self._make(name, words, at)

    def stands_in(self, key: str, parent: Run) -> bool:
        """Whether a light run under `parent` stands for the step."""
        found = self._runs().get(key, [])
        return any(run.light and run.tags.get(PARENT) == parent.id for run in found)

    def reopen(self, run: Run) -> None:
        """Marks a run that ended as running again, and looks up how far its curves go."""
        if run.status != "RUNNING":
            self._client.update_run(run.id, status="RUNNING")
            run.status = "RUNNING"
        for metric in run.metrics:
            self._steps(run, metric)

    def points(self, run: Run, points: Iterable[Point]) -> None:
        """Adds curve points that lie beyond the newest step of their metric; a resumed step repeats some."""
        placed = (_placed(run, point) for point in points)
        new = [point for point in placed if point[2] > run.last.get(named(point[0]), -1)]
        self._send(run, new)
        for metric, value, step, _ in new:
            run.last[named(metric)] = max(step, run.last.get(named(metric), step))
            run.metrics[named(metric)] = value

    def missing_points(self, run: Run, points: Iterable[Point]) -> None:
        """Adds curve points whose step the run has not, also between those that it has."""
        by_metric: dict[str, list[Point]] = defaultdict(list)
        for point in points:
            by_metric[named(point[0])].append(point)
        for metric, curve in by_metric.items():
            there = self._steps(run, metric) if metric in run.metrics else set()
            self._send(run, [point for point in curve if point[2] not in there])

    def metrics(self, run: Run, metrics: Mapping[str, float], at: int) -> None:
        """Sets final values; one that is there already is not sent again."""
        new = {named(key): float(value) for key, value in metrics.items()}
        new = {key: value for key, value in new.items() if repr(run.metrics.get(key)) != repr(value)}
        self._send(run, [(key, value, max(run.last.get(key, 0), 0), at) for key, value in new.items()])
        run.metrics.update(new)

    def params(self, run: Run, params: Mapping[str, str]) -> None:
        """Adds params; MLflow refuses to change one, so those that are there stay."""
        from mlflow.entities import Param

        words = {named(key): cut(value, PARAM) for key, value in params.items()}
        new = [Param(key, value) for key, value in words.items() if key not in run.params]
        for start in range(0, len(new), 100):
            self._client.log_batch(run.id, params=new[start : start + 100])
        run.params |= set(words)

    def tag(self, run: Run, tags: Mapping[str, str]) -> None:
        """Sets the tags that differ, in one request."""
        from mlflow.entities import RunTag

        words = _tags(tags)
        new = {key: value for key, value in words.items() if run.tags.get(key) != value}
        if new:
            self._client.log_batch(run.id, tags=[RunTag(key, value) for key, value in new.items()])
            run.tags.update(new)

    def end(self, run: Run, status: str, at: int) -> None:
        """Ends a run: FINISHED, FAILED or KILLED."""
        if run.status != status:
            # Records tell whole seconds: the end would lie before the beginning of a step of half a second.
            self._client.set_terminated(run.id, status, max(at, run.began))
            run.status = status

    def attach(self, run: Run, path: Path, folder: str) -> None:
        """Copies a file, or the files below a folder, to the run's artifacts.

        Raises:
            ValueError: there is nothing at `path`.
        """
        if not path.exists():
            raise ValueError(f"no file {path} to show")
        # One at a time: log_artifacts starts a thread pool, which Python waits for at exit even
        # when the server hangs and this thread is a daemon.
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                inside = file.parent.relative_to(path) if path.is_dir() else Path()
                place = (Path(folder) / inside).as_posix()
                self._client.log_artifact(run.id, str(file), None if place == "." else place)

    def of(self, key: str) -> Run | None:
        """The run that computed `key` in this job, where there is one."""
        return self._find(key, lambda run: not run.light)

    def has_artifact(self, run: Run, path: str) -> bool:
        """Whether a file is among the run's artifacts."""
        folder = path.rpartition("/")[0]
        return any(each.path == path for each in self._client.list_artifacts(run.id, folder or None))

    def _open(self, artifact_root: str | None) -> str:
        """Id of the experiment named like the job; restored when it was deleted in the UI."""
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(self._job)
        if found is None:
            root = f"{artifact_root}/{named(self._job)}" if artifact_root else None
            try:
                return str(self._client.create_experiment(self._job, artifact_location=root))
            except MlflowException:
                # Another process was quicker; anything else is raised again by what follows.
                found = self._client.get_experiment_by_name(self._job)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _runs(self) -> dict[str, list[Run]]:
        """Runs of the experiment by key, read once: 1000 a request instead of a search for each step."""
        if self._found is None:
            found: dict[str, list[Run]] = defaultdict(list)
            token: str | None = None
            while True:
                page = self._client.search_runs([self._experiment], max_results=1000, page_token=token)
                for each in page:
                    if key := each.data.tags.get("key"):
                        found[key].append(_known(each, self._last.get(each.info.run_id, {})))
                token = page.token
                if not token:
                    break
            self._found = found
        return self._found

    def _find(self, key: str, fits: Callable[[Run], bool]) -> Run | None:
        """The run of `key` that fits. Another driver may have made it since the runs were read."""
        known = self._runs().setdefault(key, [])
        found = next((run for run in known if fits(run)), None)
        if found is None:
            ids = {run.id for run in known}
            quote = '"' if "'" in key else "'"
            asked = f"tags.`key` = {quote}{key.replace(quote, '')}{quote}"
            for each in self._client.search_runs([self._experiment], asked, max_results=100):
                if each.info.run_id not in ids:
                    known.append(_known(each, self._last.get(each.info.run_id, {})))
            found = next((run for run in known if fits(run)), None)
        return found

    def settle(self) -> None:
        """Makes one run of those that drivers at work together have made at the same moment.

        MLflow cannot make a run unless there is one. So two drivers may each find none and make one; whoever
        looks later merges them, and all choose the same one to stay.
        """
        self.forget()
        self._adopt()
        same: dict[tuple[str, str], list[Run]] = defaultdict(list)
        for run in (run for runs in self._runs().values() for run in runs):
            same[run.stands_for].append(run)
        for twins in same.values():
            stays, *others = sorted(twins, key=lambda run: (run.began, run.id))
            for other in others:
                merge(self._client, stays, other)
        if any(len(twins) > 1 for twins in same.values()):
            self.forget()

    def _adopt(self) -> None:
        """Hangs runs whose parent is gone under the run that stays: another driver merged the parent before
        they were made, and MLflow takes a run under a deleted one."""
        from mlflow.exceptions import MlflowException

        every = [run for runs in self._runs().values() for run in runs]
        there = {run.id for run in every}
        for orphan in (run for run in every if run.tags.get(PARENT, run.id) not in there):
            with contextlib.suppress(MlflowException):  # deleted for good: nothing is known of it
                gone = self._client.get_run(orphan.tags[PARENT])
                for stays in self._runs().get(gone.data.tags.get("key", ""), [])[:1]:
                    self.tag(orphan, {PARENT: stays.id})

    def forget(self) -> None:
        """Reads the runs anew next time: after a failure a request may have arrived all the same."""
        for run in (run for runs in (self._found or {}).values() for run in runs):
            self._last[run.id] = run.last
        self._found = None

    def _make(self, name: str, tags: Mapping[str, str], at: int) -> Run:
        words = _tags(tags)
        made = self._client.create_run(self._experiment, start_time=at, tags=words, run_name=cut(name, NAME))
        run = Run(made.info.run_id, "RUNNING", words, set(), {}, began=at)
        self._runs().setdefault(words["key"], []).append(run)
        return run

    def _first(self, key: str) -> str | None:
        """Id of the run that computed `key`, in any experiment."""
        for run in self._runs().get(key, []):
            if not run.light:
                return run.id
        if self._everywhere is None:
            self._everywhere = [each.experiment_id for each in self._client.search_experiments()]
        quoted = key.replace("'", "")
        for each in self._client.search_runs(self._everywhere, f"tags.`key` = '{quoted}'", max_results=100):
            if "reused" not in each.data.tags:
                return str(each.info.run_id)
        return None

    def _steps(self, run: Run, metric: str) -> set[int]:
        """Steps at which a metric has points; remembers the newest."""
        steps = {int(point.step) for point in self._client.get_metric_history(run.id, metric)}
        run.last[metric] = max(steps, default=-1)
        return steps

    def _send(self, run: Run, points: list[Point]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(named(metric), value, at, step) for metric, value, step, at in points]
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(run.id, metrics=metrics[start : start + BATCH])


def _known(found: Any, last: dict[str, int]) -> Run:
    """An MLflow run as ours."""
    info, data = found.info, found.data
    tags, began = dict(data.tags), info.start_time or 0
    return Run(info.run_id, info.status, tags, set(data.params), dict(data.metrics), last, began)


def _placed(run: Run, point: Point) -> Point:
    """A gauge's step is the seconds since the run began: a counter would start anew with each attempt."""
    metric, value, _, at = point
    return (metric, value, max(0, (at - run.began) // 1000), at) if metric.startswith(GAUGE) else point


def _tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {key if key.startswith("mlflow.") else named(key): cut(value, TAG) for key, value in tags.items()}


def _make_database(tracking_uri: str) -> None:
    """Makes a missing SQLite database whole or not at all.

    MLflow makes one by some sixty migrations in place: of two processes that begin at once one dies
    ("table _alembic_tmp_experiments already exists"), and one killed meanwhile leaves it broken for good.
    """
    path = Path(tracking_uri.removeprefix("sqlite:///"))
    if not tracking_uri.startswith("sqlite:///") or path.exists():
        return
    from mlflow.tracking import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".writing-{os.getpid()}-{secrets.token_hex(8)}.db"
    try:
        MlflowClient(f"sqlite:///{temporary}").search_experiments(max_results=1)
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _quiet() -> None:
    """Settings MLflow reads while it is imported; what the user set stays."""
    # Its own 7 retries of 120 s add up to a quarter of an hour; `LiveView` retries by itself.
    # CRITICAL: making a database logs some thirty migrations, and a locked one its whole traceback.
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_LOGGING_LEVEL": "CRITICAL",
        "GIT_PYTHON_REFRESH": "quiet",
        # A line of emoji and address for each run that ends, on the output that a script reads.
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    }.items():
        os.environ.setdefault(name, value)
