"""Having a cluster run a job, and what the store and the cluster say of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from xstilts.api.planning import look, plan
from xstilts.errors import ClusterError, UnknownName
from xstilts.execute.jobs import Job
from xstilts.execute.site import is_bucket
from xstilts.frozen import digest
from xstilts.record.artifacts import job_file
from xstilts.spec.experiment import BudgetSpec

if TYPE_CHECKING:
    from xstilts.execute.submit import Package


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
