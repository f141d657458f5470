"""Everything the command line can do, for notebooks and scripts.

from xstilts import api
job = api.open_job("jobs/quickstart.yaml")
api.run(job)
api.results(job)          # a pandas data frame, one row a score
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from xstilts.errors import ClusterError, DataError, ModelError, StoreError, UnknownName, XstiltsError
from xstilts.execute.jobs import DEFAULT_STORE, Job, open_job, open_stored, unlike
from xstilts.execute.site import Site, is_bucket
from xstilts.execute.sources import LocalSources
from xstilts.execute.state import Survey, chosen_values, survey
from xstilts.frozen import digest
from xstilts.plan.expand import Missing, expand
from xstilts.plan.graph import Plan
from xstilts.record.artifacts import job_file, plan_file, report_file
from xstilts.spec.experiment import BudgetSpec
from xstilts.tasks import suites

if TYPE_CHECKING:
    import pandas

    from xstilts.execute.backends import Backend, Event, Listener
    from xstilts.execute.runner import Failure, Observer, Result, Runner
    from xstilts.execute.submission import Submission
    from xstilts.execute.submit import Package
    from xstilts.plan.graph import Planned
    from xstilts.report.render import Report

__all__ = [
    "DEFAULT_STORE",
    "Job",
    "cancel",
    "exit_code",
    "export_mlflow",
    "export_xtreme",
    "logs",
    "look",
    "open_job",
    "open_stored",
    "plan",
    "report",
    "results",
    "run",
    "status",
    "submit",
    "why",
]

Value = TypeVar("Value")


def plan(job: Job, failed: Missing | None = None, searched: dict[str, dict[str, Any]] | None = None) -> Plan:
    """What the job asks for, with what its searches have chosen so far and without the languages that
    `failed`. Needs no ML library. Who plans again and again gives the same `searched` each time, where the
    choices that were read are kept."""
    sources = LocalSources(job.file.experiment, job.data)

    known: dict[str, dict[str, Any]] = {} if searched is None else searched

    def made() -> Plan:
        plan = expand(job.file.experiment, sources, None, failed)
        while chosen := chosen_values(plan, job.store, known):
            again = expand(job.file.experiment, sources, chosen, failed)
            if again.steps.keys() == plan.steps.keys():
                break
            plan = again
        return plan

    return _located(job, made)


def look(job: Job, explain: bool = True) -> Survey:
    """The plan beside the store: what is recorded, what is to run and why."""
    return survey(plan(job), job.store, explain)


def plan_words(job: Job, surveyed: Survey) -> dict[str, Any]:
    """The plan as stored: what `plan --json` prints, and what a report needs beside it."""
    return surveyed.to_json() | {
        "experiment": surveyed.plan.experiment,
        "model": surveyed.plan.model,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def run(
    job: Job,
    observers: Sequence[Observer] = (),
    live: bool = True,
    address: str | None = None,
    submitted: bool = False,
) -> tuple[Result, list[str]]:
    """Runs what is missing. Returns what it came to, and notes for people.

    `address`: of a Ray cluster to run on; none for this machine. `submitted`: what was asked of this job
    before it began (`xstilts submit --max-concurrent`) holds for it too.

    Raises:
        XstiltsError: the job cannot be planned or the store not written; steps that fail are in the result.
    """
    from xstilts.execute.ledger import Ledger

    first = look(job, explain=False)
    ahead = [planned.step for planned in first.to_run if planned.step is not None]
    # Files in a bucket are looked at by the worker that fetches them.
    damaged = {} if job.remote else LocalSources(job.file.experiment, job.data).check(ahead)
    watching, notes = [_PlanFile(job), *observers], unlike(job)
    view = _live_view(job, first.plan) if live and first.to_run else None
    if view is not None:
        from xstilts.execute.live import LiveRuns

        watching.append(LiveRuns(view, job.store))
    runner = _runner(job, watching, address, submitted)
    runner.failed_languages.update(damaged)
    name = job.file.experiment.name
    ledger = Ledger(
        job.store, name, runner.driver, runner.spending, lambda: runner.slots, lambda: runner.stopping
    )
    state, why = "failed", "it ended by an error of its own"
    try:
        if first.to_run:
            watching.append(ledger)
            ledger.start(first.plan.digest)
        result = runner.run()
        state = "done" if result.complete else "interrupted" if result.interrupted else "failed"
        why = result.stopped_by
    except KeyboardInterrupt:
        state, why = "interrupted", "Ctrl-C, twice"
        raise
    finally:
        ledger.end(state, why)
        if view is not None:
            view.job_ended({"done": "FINISHED", "interrupted": "KILLED"}.get(state, "FAILED"))
            notes += view.close()
    failed = tuple(_placed(job, failure) for failure in result.failed)
    return replace(result, failed=failed), notes


def _runner(job: Job, watching: Sequence[Observer], address: str | None, submitted: bool) -> Runner:
    """A driver of the job, with a name of its own, that heeds orders and knows what was spent before."""
    from xstilts.execute.ledger import new_driver
    from xstilts.execute.orders import Inbox, Spending
    from xstilts.execute.runner import Runner

    name = job.file.experiment.name
    searched: dict[str, dict[str, Any]] = {}
    return Runner(
        job.store,
        lambda failed: plan(job, failed, searched),
        _starter(job.site, address),
        job.site.execution,
        watching,
        driver=new_driver(),
        on_cluster=address is not None,
        orders=Inbox(job.store, name, submitted, job.site.execution.workers),
        spending=Spending.of_job(job.store, name),
    )


def status(job: Job) -> dict[str, Any]:
    """The job's steps with what runs, waits and failed, by the store alone; `plan --json` and more."""
    from xstilts.execute.ledger import status as told

    return told(look(job, explain=False), job.store)


def why(job: Job, step: str) -> dict[str, Any]:
    """One step of `status`, with why it is new; `step` is its label, or what the label begins with.

    Raises:
        UnknownName: no step of the job is called so, or several are.
    """
    from xstilts.execute.ledger import status as told

    surveyed = look(job)
    labels = [label for label in surveyed.plan.steps if label == step] or [
        label for label in surveyed.plan.steps if label.startswith(step.partition("--")[0])
    ]
    if len(labels) > 1:
        several = ", ".join(labels[:4]) + (", ..." if len(labels) > 4 else "")
        raise UnknownName(f"{len(labels)} steps begin with {step!r}", f"name one of them: {several}")
    if not labels:
        raise UnknownName.among("step", step, surveyed.plan.steps, f"xstilts status {job.file.path}")
    words = told(surveyed, job.store, labels[0])
    return next(dict(each) for each in words["steps"] if each["label"] == labels[0])


def submit(
    job: Job,
    address: str,
    package: Package = "upload",
    workers: int | Literal["none"] | None = None,
    budget: BudgetSpec | Literal["none"] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[str, bool]:
    """Has a cluster drive the job: (submission id, whether that is a new one). A job that is being driven
    goes on, and heeds `workers` (steps at once) and `budget` from now on; "none" takes what was asked before
    back. One that was told to stop is waited for, and then driven anew; `say` is told what one should know.

    Raises:
        ClusterError: there is no cluster, nodes of one would not see the job's store, or what drives the job
            works on another version of it.
    """
    from xstilts.execute.ledger import await_stop, is_ending
    from xstilts.execute.orders import order
    from xstilts.execute.submit import STOP_SECONDS, Asked, Submissions

    name = job.file.experiment.name
    submissions = Submissions(address)
    if not is_bucket(job.store.location) and package != "here":
        problem = f"the store {job.store.location} is a folder of this machine"
        remedy = "name one that the cluster's nodes see: --store s3://BUCKET/PREFIX"
        raise ClusterError(problem, f"{remedy}, or --package here where they see this machine's folders")
    version = plan(job).digest  # what cannot be planned is told here, not by a job that fails there
    execution = digest(job.file.experiment.execution.model_dump(mode="json"))
    asked = Asked(name, job.store.location, job.site.data, package, version, execution)
    running = submissions.going_on(asked, lambda each: is_ending(job.store, name, each), say)
    ended = () if running else [str(each.submission_id) for each in submissions.of_job(asked)]
    if not running and (driver := await_stop(job.store, name, STOP_SECONDS, ended)):
        problem = f"{driver} was told to stop and has not ended within {STOP_SECONDS:.0f} s"
        raise ClusterError(problem, "submit again when `xstilts status JOB` says that it has")
    given = {"workers": workers, "budget": budget}
    given = {word: value for word, value in given.items() if value is not None}
    if given or not running:  # an order to stop is not meant for a new driver
        order(job.store, name, **{word: None if value == "none" else value for word, value in given.items()})
    if running:
        return running, False
    job.store.put(job_file(name), job.file.text.encode())
    return submissions.submit(asked), True


def logs(job: Job, address: str, follow: bool = False) -> Iterator[str]:
    """What the newest driver of the job printed on that cluster, in pieces.

    Raises:
        ClusterError: the cluster knows of none.
    """
    from xstilts.execute.submit import Asked, Submissions

    submissions = Submissions(address)
    found = submissions.of_job(Asked(job.file.experiment.name, job.store.location))
    if not found:
        problem = f"the cluster at {address} knows of no driver of {job.file.experiment.name}"
        raise ClusterError(problem, "its table is lost with its head; `xstilts status JOB` reads the store")
    return submissions.logs(str(found[-1].submission_id), follow)


def exit_code(address: str, submission: str) -> int:
    """How the driver of an ended submission ended, by the codes of the commands."""
    from xstilts.execute.submit import Submissions

    return Submissions(address).code(submission)


def cancel(job: Job, address: str | None = None, now: bool = False) -> bool:
    """Asks whoever drives the job to stop: running steps write a checkpoint, or with `now` are killed.
    False when nobody drives it. With `address`, `now` also ends the Ray Job."""
    from xstilts.execute.ledger import drivers_of
    from xstilts.execute.orders import order

    name = job.file.experiment.name
    driven = any(words["alive"] for words in drivers_of(job.store, name))
    order(job.store, name, stop="now" if now else "checkpoint")
    if address:
        from xstilts.execute.submit import ACTIVE, Asked, Submissions

        submissions = Submissions(address)
        for each in submissions.of_job(Asked(name, job.store.location)):
            driven = driven or str(each.status) in ACTIVE
            # One that has not begun would do no more than read the order.
            if str(each.status) == "PENDING" or now and str(each.status) in ACTIVE:
                submissions.kill(str(each.submission_id))
    return driven


def report(job: Job, out: Path | None = None, live: bool = True) -> Report:
    """Writes the report of the job as far as it is done; with `live`, attaches it to the job's run in MLflow.

    Raises:
        XstiltsError: the job was never run on this store.
    """
    from xstilts.report.render import write

    words = stored_plan(job)
    name, bucket = job.file.experiment.name, is_bucket(job.store.location)
    folder = out or (Path(f"{name}-report") if bucket else Path(job.store.location) / report_file(name, ""))
    made = write(words, job.store, folder)
    if bucket and out is None:
        for file in made.files:
            job.store.upload(file, report_file(name, file.name))
    tracking = _tracking(job) if live else None
    if tracking is not None and _has_runs(job):
        from xstilts.record.mlflow import LiveView

        view = LiveView(*tracking, words["job"], words["digest"])
        for file in made.files:
            view.artifact(file, "report")
        view.close()
    return made


def results(job: Job) -> pandas.DataFrame:
    """One row a score: job suite model intermediate target language ... value n seed key ... status."""
    from xstilts.report.frame import frame

    return frame(stored_plan(job), job.store)


def export_mlflow(job: Job, models: bool = False) -> int:
    """Rebuilds the job's runs in MLflow from the store; how many there are. Twice makes no second ones. With
    `models`, kept encoders can be loaded by `mlflow.transformers.load_model("runs:/RUN/model")`."""
    from xstilts.record.mlflow import rebuild

    tracking = _tracking(job)
    if tracking is None:
        raise StoreError("there is no MLflow to export to", "set MLFLOW_TRACKING_URI")
    return rebuild(stored_plan(job), job.store, *tracking, models=models)


def export_xtreme(
    job: Job,
    to: Path,
    suite: str | None = None,
    intermediate: str | None = None,
    seed: int | None = None,
    labels: Path | None = None,
) -> Submission:
    """Writes the predictions of one row and seed as XTREME (or XTREME-R) wants them; `labels`, a folder for
    the right answers in the same shape.

    Raises:
        XstiltsError: the job has several rows or seeds and none is named, or a file cannot be written.
    """
    from xstilts.execute.submission import parts_of, write_submission

    chosen = suites.suite(suite or job.file.experiment.suite or "xtreme")
    parts = parts_of(plan(job), job.store, intermediate, seed)
    return write_submission(parts, job.store, job.data, to, chosen, labels)


def stored_plan(job: Job) -> dict[str, Any]:
    """The plan as it was when the job was last run here; found by the job's words where its data are gone."""
    name = job.file.experiment.name
    try:
        data = job.store.read(plan_file(name, plan(job).digest))
    except (DataError, ModelError):
        data = _plan_of_words(job)
    if data is None:
        raise XstiltsError(
            f"{name} was never run on {job.store.location} as {job.file.path} is now",
            f"xstilts run {job.file.path}",
        )
    words: dict[str, Any] = json.loads(data)
    return words


def _plan_of_words(job: Job) -> bytes | None:
    """The newest stored plan that was made from just this job file."""
    asked = job.file.experiment.model_dump(mode="json")
    found = [
        job.store.read(name)
        for name in job.store.list(plan_file(job.file.experiment.name, "")[: -len(".json")])
    ]
    plans = [(json.loads(data), data) for data in found if data is not None]
    alike = [(words["created"], data) for words, data in plans if words["experiment"] == asked]
    return max(alike)[1] if alike else None


class _PlanFile:
    """An observer that keeps the plan in the store up to date: a search that has chosen decides keys."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def planned(self, survey: Survey) -> None:
        """Writes what was asked, as planned now."""
        store, name = self._job.store, survey.plan.job
        store.put(job_file(name), self._job.file.text.encode())
        words = plan_words(self._job, survey)
        store.put(plan_file(name, survey.plan.digest), json.dumps(words, indent=1).encode())

    def event(self, event: Event, planned: Planned) -> None:
        """Steps change no plan."""


def _placed(job: Job, failure: Failure) -> Failure:
    """A failure whose cause stands in the job file says where."""
    if not isinstance(failure.error, XstiltsError) or not failure.error.where:
        return failure
    error = job.file.error_at(failure.error)
    return replace(failure, text=str(error), error=error)


def _starter(site: Site, address: str | None) -> Callable[[Listener], Backend]:
    def start(listen: Listener) -> Backend:
        inline = site.execution.backend == "inline" or site.execution.engine == "inline"
        if inline and address is None:
            from xstilts.execute.backends import InlineBackend

            return InlineBackend(site, listen)
        from xstilts.execute.ray_backend import RayBackend

        return RayBackend(site, listen, address)

    return start


def _live_view(job: Job, planned: Plan) -> Any:
    tracking = _tracking(job)
    if tracking is None:
        return None
    from xstilts.record.mlflow import LiveView

    return LiveView(*tracking, planned.job, planned.digest)


def _tracking(job: Job) -> tuple[str, str | None] | None:
    from xstilts.record.mlflow import where

    return where(job.store.location)


def _has_runs(job: Job) -> bool:
    """Whether MLflow has been written to: a job that ran without it gets no database for its report alone."""
    location = job.store.location
    here = not is_bucket(location) and (Path(location) / "mlflow.db").is_file()
    return "MLFLOW_TRACKING_URI" in os.environ or here


def _located(job: Job, act: Callable[[], Value]) -> Value:
    """What `act` gives; its errors say file and line."""
    try:
        return act()
    except XstiltsError as problem:
        raise job.file.error_at(problem) from problem
