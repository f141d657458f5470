"""Steps on Ray: warm workers that keep process, encoder and caches, and may be lost at any time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from xstilts.errors import ClusterError
from xstilts.execute.backends import Event, Listener, Terms, new_attempt
from xstilts.execute.cluster import (
    HEAD,
    SLOW_SECONDS,
    Cluster,
    LocalRay,
    SharedRay,
    draining,
    node_kinds,
    ran_out_of_memory,
    shortage,
)
from xstilts.execute.site import Site
from xstilts.execute.state import Cause
from xstilts.execute.workers import THREADS, News, Place, Worker, slay
from xstilts.plan.step import SearchBody, Step

STOP_SECONDS = 60.0
"""How long steps get to write a checkpoint once asked to stop; 7 GB (XLM-R Large, moments) take half."""

SILENCE_SECONDS = 300.0
"""A worker that does not even answer for so long hangs: stopped by the system, or stuck in one call."""

LOOK_SECONDS = 2.0
"""Between looks at what goes on in the cluster; a spot node is announced 120 s (AWS) before it goes."""

IDLE_SECONDS = 20.0
"""After which a shared cluster gets an idle worker back; starting one again takes some 5 s."""


@dataclass(slots=True, eq=False)
class _Member:
    """A worker process, as the driver knows it."""

    actor: Any
    shape: Mapping[str, float]
    """Resource -> what it holds."""
    returns: bool = False
    """Whether it comes back after it died."""
    place: Place | None = None
    """Known once it has answered."""
    asked: Any = None
    """Answered once it has a place; asked of a search's trials' workers, whose news are the trials'."""
    did: set[str] = field(default_factory=set)
    """Keys of steps it has done or read: their files and encoders are near it."""
    idle_since: float = 0.0

    @property
    def node(self) -> str:
        """Hexadecimal id of the node it runs on, or "" before that is known."""
        return self.place.node if self.place else ""


@dataclass(slots=True, eq=False)
class _Job:
    """A step on its way."""

    step: Step
    terms: Terms
    attempt: str
    member: _Member
    crew: tuple[_Member, ...]
    waits_since: float
    """Since when some worker of it has had no place, on the driver's clock; 0 when all have."""
    asked: Any
    """The answer that `news` will give."""
    answered: float = 0.0
    progressed: float = 0.0
    started: bool = False
    """Whether its worker has been heard."""
    works: bool = False
    """Whether the step has begun; one of several processes waits for their places first."""
    placed: int = 0
    """How many of the crew have a place."""
    told_waiting: bool = False
    ended_by: Cause | None = None
    """Why the driver ended it."""

    @property
    def slots(self) -> int:
        """Of the steps at once that the job file allows."""
        return max(1, len(self.crew))


class RayBackend:
    """Runs steps on workers of a Ray cluster: its own, or one that it shares."""

    def __init__(self, site: Site, listen: Listener, address: str | None = None) -> None:
        """`address`: of a cluster to join; none for a local one that ends with this backend."""
        self._site = site
        self._listen = listen
        self.slots = site.execution.workers
        """Steps at once; may be changed while they run."""
        local = max(site.execution.workers, site.execution.ranks) * site.execution.threads
        self._cluster: Cluster = LocalRay(local) if address is None else SharedRay(address)
        self._ray = self._cluster.ray
        self._idle: list[_Member] = []
        self._running: dict[Any, _Job] = {}
        self._stop_at: float | None = None
        self._told = False
        self._looked = 0.0
        self._heard = time.monotonic()

    def room(self, step: Step) -> bool:
        """Whether enough slots are free."""
        used = sum(job.slots for job in self._running.values())
        return used == 0 or used + self._need(step) <= self.slots

    def submit(self, step: Step, terms: Terms) -> None:
        """Starts a step on the idle worker that has most of its inputs, or on a new one."""
        shape = self.shape(step, terms)
        crew: tuple[_Member, ...] = ()
        if isinstance(step.body, SearchBody):
            # A trial of several processes is done by those; its worker only looks after them.
            each = self._aside() if terms.engine == "ray_train" else self._own()
            crew = tuple(self._member(step, each, True) for _ in range(self._need(step)))
        member = self._member(step, shape)
        now, attempt = time.monotonic(), new_attempt()
        run = member.actor.run.remote(step, attempt, terms, [each.actor for each in crew])
        asked = member.actor.news.remote()
        self._running[run] = _Job(
            step, terms, attempt, member, crew, now, asked, answered=now, progressed=now
        )

    def shape(self, step: Step, terms: Terms) -> dict[str, float]:
        """Resource -> what the step's own process holds; nothing on a local cluster: slots count there."""
        if step.kind == "search" or terms.engine == "ray_train":
            return self._aside()
        return self._own() if step.kind != "score" else self._cpus()

    def accelerators(self) -> float:
        """What running steps hold. Trials of several processes count while their search runs."""
        return sum(self._held(job) for job in self._running.values())

    def poll(self, seconds: float) -> None:
        """Passes on news, then what has ended; looks after workers that hang or whose node goes."""
        if self._stop_at is not None and not self._told:
            self._told = True
            for job in self._running.values():
                self._ask_to_stop(job, Cause.INTERRUPTED)
        ended, _ = self._ray.wait(list(self._running), timeout=seconds) if self._running else ([], [])
        if not self._running:
            time.sleep(seconds)
        for reference, job in self._running.items():
            if reference not in ended:
                self._hear(job)
        for reference in ended:
            self._end(reference)
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            self._look()
        if self._stop_at is not None and time.monotonic() > self._stop_at:
            self._give_up()

    def stop(self) -> None:
        """Steps are told at the next poll; after 60 s they are given up. Safe in a signal handler."""
        self._stop_at = time.monotonic() + STOP_SECONDS

    def close(self) -> None:
        """Ends every worker, and the cluster where it is this backend's own."""
        if self._cluster.shared:
            members = {member for job in self._running.values() for member in (job.member, *job.crew)}
            for member in {*members, *self._idle}:
                self._dismiss(member)
        self._cluster.close()

    def _held(self, job: _Job) -> float:
        execution = self._site.execution
        if not job.works or job.step.kind == "score":
            return 0.0
        together = job.terms.engine == "ray_train" and execution.ranks > 1
        each = 1.0 if execution.gpus is None else execution.gpus
        return (execution.ranks if together else each) * (job.placed if job.crew else 1)

    def _need(self, step: Step) -> int:
        if isinstance(step.body, SearchBody):
            return min(self.slots, step.body.concurrent)
        return 1

    def _cpus(self) -> dict[str, float]:
        return {"CPU": float(self._site.execution.threads)} if self._cluster.shared else {}

    def _aside(self) -> dict[str, float]:
        """Of a process that only looks after others: where the cluster is kept together."""
        has_head = self._cluster.shared and any(HEAD in kind for kind in node_kinds(self._ray))
        return {HEAD: 0.001} if has_head else {}

    def _own(self) -> dict[str, float]:
        gpus = self._gpus()
        return {**self._cpus(), **({"GPU": gpus} if gpus else {})}

    def _gpus(self) -> float:
        execution = self._site.execution
        if execution.device == "cpu":
            return 0.0
        if execution.gpus is not None:
            return execution.gpus
        there = max((kind.get("GPU", 0.0) for kind in node_kinds(self._ray)), default=0.0)
        if self._cluster.shared and execution.device == "cuda":
            return 1.0  # one will come, though no node that has one may be there yet
        if self._cluster.shared and not any(kind.get("CPU") for kind in node_kinds(self._ray)):
            problem = "the cluster has no node yet, so whether it will have accelerators is not known"
            raise ClusterError(problem, "write `device: cuda` or `device: cpu` under execution")
        # Steps at once share what a machine of one's own has; whole ones are asked of a cluster.
        return min(1.0, there if self._cluster.shared else there / max(self.slots, 1))

    def _member(self, step: Step, shape: Mapping[str, float], returns: bool = False) -> _Member:
        fitting = [each for each in self._idle if (each.shape, each.returns) == (shape, returns)]
        if not fitting:
            self._make_place(shape)
            return self._new_member(shape, returns)
        wanted = {*step.inputs.values()}
        best = max(fitting, key=lambda member: len(member.did & wanted))
        self._idle.remove(best)
        return best

    def _make_place(self, shape: Mapping[str, float]) -> None:
        """Ends idle workers that hold what a new one needs: on a machine of one's own nothing else would."""
        for each in [each for each in self._idle if any(each.shape.get(name) for name in shape)]:
            self._idle.remove(each)
            self._dismiss(each)

    def _new_member(self, shape: Mapping[str, float], returns: bool) -> _Member:
        own = {name: need for name, need in shape.items() if name not in ("CPU", "GPU")}
        options = {
            "num_cpus": shape.get("CPU", 0),
            "num_gpus": shape.get("GPU", 0),
            "max_concurrency": THREADS,
            # A search keeps the handles of its trials' workers, which must outlast one death. Others must not
            # come back by themselves: Ray then does not say why they died.
            "max_restarts": -1 if returns else 0,
            **({"resources": own} if own else {}),
        }
        return _Member(self._ray.remote(**options)(Worker).remote(self._site), dict(shape), returns)

    def _hear(self, job: _Job) -> None:
        """Listens to what the worker of a running step says, if it has answered."""
        ready, _ = self._ray.wait([job.asked], timeout=0)
        if not ready:
            return
        try:
            news: News = self._ray.get(job.asked)
        except self._ray.exceptions.RayError:
            return  # its run has ended in the same way, which says more
        job.asked = job.member.actor.news.remote()
        job.answered = time.monotonic()
        self._pass_on(job, news)

    def _pass_on(self, job: _Job, news: News) -> None:
        job.member.place = news.place
        for event in news.events:
            if event.label == job.step.label and event.attempt == job.attempt:
                job.started, job.works = True, job.works or event.what == "started"
                if event.what != "gauges":  # its own thread tells them, whether the step goes on or not
                    job.progressed = time.monotonic()
                self._listen(event)

    def _end(self, reference: Any) -> None:
        job = self._running.pop(reference)
        try:
            event: Event = self._ray.get(reference)
            with suppress(self._ray.exceptions.RayError):
                for last in (job.asked, job.member.actor.news.remote()):
                    self._pass_on(job, self._ray.get(last, timeout=5))
        except self._ray.exceptions.RayError as problem:
            event = self._lost(job, problem)
            self._dismiss(job.member)
        else:
            if event.cause is Cause.INTERRUPTED and job.ended_by not in (None, Cause.INTERRUPTED):
                event = _because(event, job.ended_by)
            job.member.did |= {job.step.key, *job.step.inputs.values()}
            self._rest(job.member)
        for each in job.crew:
            if event.what == "failed":
                each.actor.stop.remote()  # a trial may go on after the search's own process died
            if event.cause is Cause.HUNG:
                self._dismiss(each)
            else:
                self._rest(each)
        self._listen(event)

    def _lost(self, job: _Job, problem: Exception) -> Event:
        """The event of a step whose process went away."""
        first = str(problem).strip().partition("\n")[0]
        if job.ended_by is not None:
            cause, text = job.ended_by, f"its worker was ended by the driver ({job.ended_by})"
        elif isinstance(problem, self._ray.exceptions.RayTaskError):
            cause, text = Cause.BUG, str(problem)
        elif getattr(problem, "preempted", False) or job.member.node in draining(self._ray):
            cause, text = Cause.PREEMPTED, "its node was taken away"
        elif ran_out_of_memory(self._ray, problem):
            cause, text = Cause.HOST_MEMORY, "the host ran out of memory, and its worker was ended"
        elif not job.started and "node has died" in str(problem):
            cause, text = Cause.PREEMPTED, f"its node went before the step began ({first})"
        else:
            cause, text = Cause.LOST_WORKER, f"its worker was lost ({first})"
        return Event(job.step.label, "failed", job.attempt, time=time.time(), cause=cause, text=text)

    def _rest(self, member: _Member) -> None:
        member.idle_since = time.monotonic()
        self._idle.append(member)

    def _ask_to_stop(self, job: _Job, cause: Cause) -> None:
        if job.ended_by is None:
            job.ended_by = cause
            if job.started:
                job.member.actor.stop.remote()
            else:
                self._dismiss(job.member)  # it may have no place yet, and there is nothing to keep

    def _look(self) -> None:
        """Nodes that are about to go, workers that hang, steps that wait for a place, workers not needed."""
        leaving = draining(self._ray) if self._cluster.shared else frozenset()
        now = time.monotonic()
        hang = self._site.execution.hang_seconds
        # While this process itself was stopped, or waited for a store, nobody was asked: that is no silence.
        deaf = max(0.0, now - self._heard - SLOW_SECONDS)
        self._heard = now
        for job in self._running.values():
            job.answered, job.progressed = job.answered + deaf, job.progressed + deaf
        for job in self._running.values():
            if job.member.node in leaving:
                self._ask_to_stop(job, Cause.PREEMPTED)
            silent = job.started and now - job.answered > min(hang, SILENCE_SECONDS)
            if silent or (job.started and now - job.progressed > hang):
                job.ended_by = Cause.HUNG
                self._slay(job.member)
            self._look_at_places(job, now)
        # Processes that train together find no place beside idle workers, which would wait for ever here.
        together = any(job.terms.engine == "ray_train" for job in self._running.values())
        for member in list(self._idle):
            idle = self._cluster.shared and now - member.idle_since > IDLE_SECONDS
            if member.node in leaving or idle or (together and any(member.shape.values())):
                self._idle.remove(member)
                self._dismiss(member)

    def _look_at_places(self, job: _Job, now: float) -> None:
        """Says it of a step whose worker waits for a place, or of a search some of whose workers do."""
        placed = [self._has_place(each) for each in job.crew] if job.crew else [job.started]
        job.placed = sum(placed)
        if all(placed):
            if job.told_waiting:
                self._say(job, "has its place now")
            job.waits_since, job.told_waiting = 0.0, False
            return
        job.waits_since = job.waits_since or now
        if job.told_waiting or now - job.waits_since < SLOW_SECONDS:
            return
        short = shortage(self._ray, job.crew[0].shape if job.crew else job.member.shape)
        if short:
            job.told_waiting = True
            some = f" for {len(placed) - job.placed} of its {len(placed)} workers" if job.placed else ""
            self._say(job, f"waits for a place{some}: {short}")

    def _has_place(self, member: _Member) -> bool:
        """As it was at the last look: each answer is followed by the next question."""
        asked = member.asked
        if asked is not None and not self._ray.wait([asked], timeout=0)[0]:
            return False
        member.asked = member.actor.__ray_ready__.remote()
        try:
            return asked is not None and self._ray.get(asked) is not None
        except self._ray.exceptions.RayError:  # it died, and may come back
            return False

    def _say(self, job: _Job, text: str) -> None:
        self._listen(Event(job.step.label, "note", job.attempt, text=text, time=time.time()))

    def _dismiss(self, member: _Member) -> None:
        with suppress(Exception):
            self._ray.kill(member.actor, no_restart=True)

    def _slay(self, member: _Member) -> None:
        """Ends a worker that may not even listen."""
        self._dismiss(member)
        if member.place is not None:
            slay(self._ray, member.place)

    def _give_up(self) -> None:
        for job in list(self._running.values()):
            text = "did not stop in time; its last checkpoint is kept"
            cause = Cause.INTERRUPTED
            self._listen(
                Event(job.step.label, "failed", job.attempt, time=time.time(), cause=cause, text=text)
            )
        self._running.clear()


def _because(event: Event, cause: Cause) -> Event:
    """A step that ended when asked to, and why it was asked."""
    text = f"{event.text} ({cause})" if event.text else str(cause)
    return Event(event.label, "failed", event.attempt, time=event.time, cause=cause, text=text)
