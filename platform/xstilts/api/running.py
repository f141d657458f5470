"""Running a job, on this machine or from inside a cluster."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xstilts.api.planning import look, plan, plan_words
from xstilts.api.views import tracking
from xstilts.errors import XstiltsError
from xstilts.execute.jobs import Job, unlike
from xstilts.execute.site import Site
from xstilts.execute.sources import LocalSources
from xstilts.plan.graph import Plan
from xstilts.record.artifacts import job_file, plan_file

if TYPE_CHECKING:
    from xstilts.execute.backends import Backend, Event, Listener
    from xstilts.execute.runner import Failure, Observer, Result, Runner
    from xstilts.execute.state import Survey
    from xstilts.plan.graph import Planned


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
    server = tracking(job)
    if server is None:
        return None
    from xstilts.record.mlflow import LiveView

    return LiveView(*server, planned.job, planned.digest)
