"""A step whose training several processes do together, as one Ray Train run: DDP, or FSDP2 with `shard`.

    run_step       in a coordinator that holds no resources; events, stopping and errors as `steps.run_step`'s
    rank 0         runs `steps.run_step`: lease, checkpoints, files and record are its own
    other ranks    run the body and write nothing

Ray Train places the processes, joins them and ends all of them with the first that fails. It keeps no
checkpoints and tries nothing again: the store has the ones, the driver does the other. News goes by way of a
small actor that rank 0 and the coordinator ask twice a second; `ray.train.report` is a barrier of all ranks.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from xstilts.errors import TrainingError
from xstilts.execute import steps
from xstilts.execute.backends import Event, Listener, Terms, WorkersLost, classify
from xstilts.execute.cluster import (
    SLOW_SECONDS,
    draining,
    import_ray,
    node_kinds,
    ran_out_of_memory,
    shortage,
)
from xstilts.execute.nearby import brought
from xstilts.execute.scratch import scratch
from xstilts.execute.site import Site
from xstilts.execute.state import Cause
from xstilts.plan.step import Step
from xstilts.record.schema import StepRecord, read_record
from xstilts.train.loop import Interrupted
from xstilts.train.team import Team

POLL_SECONDS = 0.5
"""Between two questions for news and orders, on both sides."""

START_SECONDS = 120
"""For Train to get the places that were just seen free; then they are waited for again. Train's own 60 s are
too few where a node is starting."""

COLLECTIVE_SECONDS = 3600
"""Longest that ranks wait for each other: while rank 0 writes 130 GB, XLM-R XXL with its moments."""

ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": str(START_SECONDS),
    # A rank that ended is noticed within this time.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    # A process of Train's that does not answer. What does not train is the driver's to see (hang_seconds).
    "RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S": "300",
    # The driver watches nodes that go, and stops the step in time; Train would begin again by itself.
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    # A store or data folder may be given relative to where the worker began.
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
"""What Train reads when a run begins."""

GONE = ("connection closed", "connection reset", "broken pipe", "timed out waiting")
"""In what gloo says when a rank has gone. NCCL's errors have types of their own."""


class Preempted(WorkersLost):
    """A node was taken away, or was about to be and the training was stopped in time."""

    preempted = True
    """As errors of Ray's have it: nobody's fault, and no attempt is counted."""


class Mailbox:
    """Between the ranks and the coordinator; an actor, so that neither has to be reachable by the other."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._nodes: set[str] = set()
        self._stop = False

    def begin(self, node: str) -> None:
        """A rank begins, on this node."""
        self._nodes.add(node)

    def exchange(self, events: tuple[Event, ...]) -> bool:
        """Rank 0's news; whether it is to stop."""
        self._events.extend(events)
        return self._stop

    def collect(self, stop: bool) -> tuple[tuple[Event, ...], frozenset[str]]:
        """The news since the last time, and the nodes of all ranks; `stop`: whether they are to stop."""
        self._stop = self._stop or stop
        events = tuple(self._events)
        self._events.clear()
        return events, frozenset(self._nodes)


@dataclass(frozen=True, slots=True)
class Order:
    """What every rank is told."""

    step: Step
    site: Site
    attempt: str
    terms: Terms
    mailbox: Any
    """Handle of the actor."""


def run_step(
    step: Step,
    site: Site,
    attempt: str,
    listen: Listener,
    should_stop: Callable[[], bool],
    terms: Terms,
) -> StepRecord:
    """Does a step on `execution.ranks` processes of the cluster, and returns its record.

    Raises:
        XstiltsError, Interrupted, Elsewhere: as `steps.run_step`.
        WorkersLost: one of the processes went away, Preempted with its node; the checkpoints are there.
        torch.OutOfMemoryError: a device ran out of memory.
    """
    ray = import_ray()
    bundle = _bundle(ray, site)
    mailbox = ray.remote(num_cpus=0, max_restarts=0)(Mailbox).remote()

    def tell(what: Literal["started", "progress", "note"], text: str = "") -> None:
        listen(Event(step.label, what, attempt, time=time.time(), text=text))

    try:
        with _passed_on(ray, mailbox, listen, should_stop) as leaving, scratch() as folder:
            while True:
                _await_places(ray, step, bundle, site.execution.ranks, should_stop, tell)
                tell("started")
                problem = _fit(Order(step, site, attempt, terms, mailbox), bundle, folder)
                if problem is None or not _is_late(problem):
                    break
    finally:
        with suppress(Exception):
            ray.kill(mailbox)
    record = read_record(site.open_store(), step.key)
    if record is not None:
        return record
    if problem is None:
        raise WorkersLost("the run ended without a record")
    cause = _cause(ray, problem)
    if isinstance(cause, Interrupted) and leaving.is_set() and not should_stop():
        raise Preempted(f"{cause}, for a node is about to be taken away") from cause
    raise cause


def _bundle(ray: Any, site: Site) -> dict[str, float]:
    """Resource -> what each rank holds."""
    execution = site.execution
    bundle = {"CPU": float(execution.threads)}
    # A cluster that begins without nodes has no accelerator yet: the job file then says that it wants one.
    asked = execution.gpus or execution.device == "cuda"
    if execution.device != "cpu" and (asked or any(kind.get("GPU") for kind in node_kinds(ray))):
        bundle["GPU"] = execution.gpus if execution.ranks == 1 and execution.gpus else 1.0
    return bundle


def _collectives(bundle: dict[str, float]) -> str:
    """How ranks talk to each other; a torch built for CPUs has no NCCL, whatever its node counts as a GPU."""
    import torch

    return "nccl" if "GPU" in bundle and torch.distributed.is_nccl_available() else "gloo"


def _await_places(
    ray: Any,
    step: Step,
    bundle: dict[str, float],
    ranks: int,
    should_stop: Callable[[], bool],
    tell: Callable[..., None],
) -> None:
    """Until all ranks have a place: Train itself could not be stopped while it waits, and would wait 60 s."""
    from ray.util.placement_group import get_placement_group, placement_group, remove_placement_group

    # A coordinator that died while it waited has left its group, which Ray keeps as long as the job lives.
    name = f"places of {step.key}"
    with suppress(ValueError):
        remove_placement_group(get_placement_group(name))
    places = placement_group([bundle] * ranks, strategy="PACK", name=name)
    said, begun = "", time.monotonic()
    try:
        while not places.wait(POLL_SECONDS):
            if should_stop():
                raise Interrupted("stopped before it began")
            tell("progress")  # it lives, and waits
            short = shortage(ray, bundle, ranks) if time.monotonic() - begun > SLOW_SECONDS else ""
            if short and short != said:
                said = short
                tell("note", f"waits for a place: {short}")
    finally:
        remove_placement_group(places)


def _fit(order: Order, bundle: dict[str, float], folder: Path) -> Exception | None:
    """One run of Ray Train; what went wrong."""
    os.environ.update(ENVIRONMENT)  # before Train is loaded, which reads some of it then
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer

    trainer = TorchTrainer(
        _rank,
        train_loop_config={"order": order},
        torch_config=TorchConfig(_collectives(bundle), timeout_s=COLLECTIVE_SECONDS),
        scaling_config=train.ScalingConfig(
            num_workers=order.site.execution.ranks,
            use_gpu="GPU" in bundle,
            resources_per_worker=bundle,
        ),
        run_config=train.RunConfig(
            name=order.attempt,
            storage_path=str(folder),
            failure_config=train.FailureConfig(
                max_failures=0, controller_failure_limit=0, max_preemption_failures=0
            ),
        ),
    )
    try:
        trainer.fit()
    except Exception as problem:
        return problem
    return None


def _rank(words: dict[str, Any]) -> None:
    """What one process does."""
    import torch
    from torch import distributed as dist

    order: Order = words["order"]
    execution = order.site.execution
    size = dist.get_world_size() if dist.is_initialized() else 1
    team = Team.of_group(execution.shard) if size > 1 else Team.alone()
    torch.set_num_threads(execution.threads)
    ray = import_ray()
    ray.get(order.mailbox.begin.remote(str(ray.get_runtime_context().get_node_id())))
    if not team.first:
        _assist(order, team)
        return
    with _spoken(order.mailbox) as (tell, stopped):
        record = steps.run_step(order.step, order.site, order.attempt, tell, stopped, order.terms, team=team)
    if record.attempt != order.attempt and size > 1:
        # The others wait for a training that is not needed: that ends them, and the record is found.
        raise WorkersLost("another attempt was recorded first")


def _assist(order: Order, team: Team) -> None:
    """A rank that writes nothing."""
    from xstilts.execute.bodies import BODIES

    with scratch() as folder:
        site = brought(order.step, order.site)
        work = steps.Work(
            order.step,
            site,
            site.open_store(),
            order.attempt,
            folder,
            _unheard,
            _never,
            order.terms,
            team=team,
        )
        # Rank 0 says how it ended, and may have something to write yet: the first error ends all ranks.
        with suppress(Interrupted, TrainingError):
            BODIES[order.step.kind](work)


@contextmanager
def _spoken(mailbox: Any) -> Iterator[tuple[Listener, Callable[[], bool]]]:
    """How rank 0 tells its news, and whether it is to stop, which never wait: a thread of its own asks."""
    ray = import_ray()
    events: deque[Event] = deque()
    stop, ended = threading.Event(), threading.Event()

    def post() -> None:
        news = tuple(events.popleft() for _ in range(len(events)))
        try:
            if ray.get(mailbox.exchange.remote(news)):
                stop.set()
        except ray.exceptions.RayError:
            stop.set()  # nobody waits for this run any more

    def go_on() -> None:
        while not ended.wait(POLL_SECONDS):
            post()

    thread = threading.Thread(target=go_on, name="news", daemon=True)
    thread.start()
    try:
        yield events.append, stop.is_set
    finally:
        ended.set()
        thread.join()
        post()


@contextmanager
def _passed_on(
    ray: Any, mailbox: Any, listen: Listener, should_stop: Callable[[], bool]
) -> Iterator[threading.Event]:
    """Passes on what rank 0 says and what it is asked, while Train runs; set when a rank's node is going."""
    ended, leaving = threading.Event(), threading.Event()

    def pass_on() -> None:
        with suppress(ray.exceptions.RayError):
            events, nodes = ray.get(mailbox.collect.remote(should_stop() or leaving.is_set()))
            for event in events:
                listen(event)
            if nodes & draining(ray):
                leaving.set()

    def go_on() -> None:
        while not ended.wait(POLL_SECONDS):
            pass_on()

    thread = threading.Thread(target=go_on, name="news", daemon=True)
    thread.start()
    try:
        yield leaving
    finally:
        ended.set()
        thread.join()
        pass_on()


def _is_late(problem: Exception) -> bool:
    """Whether somebody else got the places that were free a moment ago."""
    inner = getattr(problem, "controller_failure", None)
    return type(inner).__name__ == "WorkerGroupStartupTimeoutError"


def _cause(ray: Any, problem: Exception) -> BaseException:
    """What went wrong first, of all that the ranks and Train say; the rest follows from it."""
    said: dict[int, Exception] = getattr(problem, "worker_failures", None) or {0: problem}
    every = [getattr(each, "_base_exc", each) for _, each in sorted(said.items())]
    lost = [_inner(each) for each in every if type(each).__module__.partition(".")[0] == "ray"]
    found: list[BaseException] = [each for each in every if type(each).__module__.partition(".")[0] != "ray"]
    for one in found:
        if classify(one) is not Cause.BUG:
            return one
    for one in lost:
        if ran_out_of_memory(ray, one):
            return MemoryError(f"the host ran out of memory, and one of the ranks was ended ({_first(one)})")
    tasks = [one for one in lost if isinstance(one, ray.exceptions.RayTaskError)]
    if tasks and not found and not any(_follows(one) for one in tasks):
        return RuntimeError(str(tasks[0]))  # Train's own set-up went wrong, and would again
    if any(getattr(one, "preempted", False) for one in lost):
        return Preempted("the node of one of the ranks was taken away")
    if lost:
        return WorkersLost(f"one of the ranks was lost ({_first(lost[0])})")
    bugs = [one for one in found if not _follows(one)]
    if not bugs:
        return WorkersLost(f"the ranks lost each other ({_first(found[0])})")
    bugs[0].add_note(str(problem))  # its own traceback stayed in the process that it comes from
    return bugs[0]


def _follows(problem: BaseException) -> bool:
    """Whether a rank only says that another has gone."""
    distributed = type(problem).__name__ in ("DistBackendError", "DistNetworkError", "DistStoreError")
    return distributed or any(word in str(problem).lower() for word in GONE)


def _inner(problem: Any) -> BaseException:
    """What Train's own error is about."""
    found: BaseException | None = getattr(problem, "health_check_failure", None)
    return found or getattr(problem, "controller_failure", None) or problem


def _first(problem: BaseException) -> str:
    return str(problem).strip().partition("\n")[0]


def _unheard(event: Event) -> None:
    """Rank 0 tells for all."""


def _never() -> bool:
    return False
