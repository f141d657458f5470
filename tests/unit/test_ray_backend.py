"""What the Ray backend decides: what steps hold, who waits for a place, which workers go. Ray is made up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from test_search_trials import search_step

from xstilts.execute import ray_backend
from xstilts.execute.backends import Event, Terms
from xstilts.execute.cluster import shortage
from xstilts.execute.ray_backend import RayBackend, _Job, _Member
from xstilts.execute.site import Site
from xstilts.plan.trainings import trial_of
from xstilts.spec.experiment import ExecutionSpec

SEARCH = search_step()
TRAIN = trial_of(SEARCH, {"learning_rate": 1e-5, "epochs": 1})


class RayError(Exception):
    """A worker that is away."""


class Ray:
    """Answers are (ready, value) and nodes are what they have and what is free."""

    exceptions: Any = type("exceptions", (), {"RayError": RayError})

    def __init__(self) -> None:
        self.killed: list[Any] = []

    def wait(self, asked: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return [each for each in asked if each[0]], []

    def get(self, answer: Any) -> Any:
        if isinstance(answer[1], Exception):
            raise answer[1]
        return answer[1]

    def kill(self, actor: Any, no_restart: bool) -> None:
        self.killed.append(actor)


class Actor:
    """Answers as told."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.__ray_ready__ = self

    def remote(self) -> Any:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


ANSWERS, AWAY, SILENT = (True, True), (True, RayError()), (False, None)


class Shared:
    """A cluster that others use too, or a machine of one's own."""

    def __init__(self, shared: bool = True) -> None:
        self.ray, self.shared = Ray(), shared

    def close(self) -> None:
        """It goes on."""


@pytest.fixture
def heard() -> list[Event]:
    return []


def backend(
    monkeypatch: pytest.MonkeyPatch, heard: list[Event], shared: bool = True, **execution: Any
) -> RayBackend:
    monkeypatch.setattr(ray_backend, "SharedRay", lambda address: Shared())
    monkeypatch.setattr(ray_backend, "LocalRay", lambda cpus: Shared(shared=False))
    monkeypatch.setattr(ray_backend, "draining", lambda ray: frozenset())
    monkeypatch.setattr(ray_backend, "shortage", lambda ray, shape: "no node with 1 GPU is free")
    site = Site("nowhere", None, ExecutionSpec(**execution))
    return RayBackend(site, heard.append, "auto" if shared else None)


def running(made: RayBackend, step: Any = TRAIN, crew: tuple[Any, ...] = (), engine: Any = "warm") -> _Job:
    members = tuple(_Member(Actor(*answers), {"GPU": 1.0}) for answers in crew)
    own = _Member(Actor(ANSWERS), {})
    job = _Job(step, Terms(engine=engine), "a1", own, members, 100.0, SILENT, answered=1e9, progressed=1e9)
    made._running[step.label] = job
    return job


@pytest.mark.parametrize(
    ("execution", "engine", "held"),
    [
        ({}, "warm", 1.0),
        ({"gpus": 0.25}, "warm", 0.25),
        ({"gpus": 0.25, "ranks": 4}, "ray_train", 4.0),  # each rank has one to itself
        ({"gpus": 0.25}, "ray_train", 0.25),
    ],
)
def test_a_step_holds_what_it_asked_for_once_it_has_begun(
    monkeypatch: pytest.MonkeyPatch, heard: list[Event], execution: dict[str, Any], engine: Any, held: float
) -> None:
    made = backend(monkeypatch, heard, **execution)
    job = running(made, engine=engine)
    job.started = True
    assert made.accelerators() == 0.0, "it waits for its places, which costs nothing"
    job.works = True
    assert made.accelerators() == held


def test_a_search_holds_what_its_workers_have(monkeypatch: pytest.MonkeyPatch, heard: list[Event]) -> None:
    made = backend(monkeypatch, heard)
    job = running(made, SEARCH, ((ANSWERS,), (SILENT,), (AWAY, ANSWERS)))
    job.works = job.started = True
    made._look_at_places(job, 101.0)
    assert made.accelerators() == 0.0, "nobody has answered yet"
    made._look_at_places(job, 103.0)
    assert job.placed == 1 and made.accelerators() == 1.0, "one that died has no place"
    made._look_at_places(job, 105.0)
    assert made.accelerators() == 2.0


def test_a_search_some_of_whose_workers_wait_says_so_once_and_when_that_ends(
    monkeypatch: pytest.MonkeyPatch, heard: list[Event]
) -> None:
    made = backend(monkeypatch, heard)
    job = running(made, SEARCH, ((ANSWERS,), (SILENT,)))
    for now in (101.0, 103.0, 119.0, 121.0, 123.0):
        made._look_at_places(job, now)
    (event,) = heard
    assert event.text == "waits for a place for 1 of its 2 workers: no node with 1 GPU is free"
    job.crew[1].asked = ANSWERS
    made._look_at_places(job, 125.0)
    assert heard[-1].text == "has its place now" and len(heard) == 2


@pytest.mark.parametrize(("engine", "left"), [("ray_train", 1), ("warm", 2)])
def test_idle_workers_leave_their_places_to_processes_that_train_together(
    monkeypatch: pytest.MonkeyPatch, heard: list[Event], engine: Any, left: int
) -> None:
    """On a machine of one's own too, where they would stay for ever and the others wait for ever."""
    made = backend(monkeypatch, heard, shared=False, ranks=2)
    running(made, engine=engine).waits_since = 1e9
    made._idle = [_Member(Actor(ANSWERS), {"GPU": 1.0}), _Member(Actor(ANSWERS), {})]
    made._look()
    assert len(made._idle) == left and len(made._ray.killed) == 2 - left


@pytest.mark.parametrize(
    ("shape", "count", "free", "said"),
    [
        ({}, 1, {}, ""),
        ({"GPU": 0.0}, 1, {}, ""),
        ({"CPU": 1.0, "GPU": 1.0}, 1, {"CPU": 4.0, "GPU": 0.0}, "no node with 1 CPU and 1 GPU is free"),
        ({"CPU": 1.0, "GPU": 1.0}, 1, {"CPU": 4.0, "GPU": 1.0}, ""),
        ({"CPU": 1.0, "GPU": 1.0}, 3, {"CPU": 4.0, "GPU": 2.0}, "2 of 3 places of 1 CPU and 1 GPU are free"),
        ({"GPU": 0.25}, 3, {"CPU": 4.0, "GPU": 0.7499}, "2 of 3 places of 0.25 GPU are free"),
        ({"GPU": 5.0}, 1, {"GPU": 2.0}, "no node of this cluster has 5 GPU, and it launches none"),
    ],
)  # fmt: skip
def test_shortages_in_words(
    monkeypatch: pytest.MonkeyPatch, shape: Mapping[str, float], count: int, free: dict[str, float], said: str
) -> None:
    from xstilts.execute import cluster

    class Nodes:
        @staticmethod
        def nodes() -> list[dict[str, Any]]:
            return [{"Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0}}]

    state = type("state", (), {"available_resources_per_node": staticmethod(lambda: {"node1": free})})
    monkeypatch.setattr(cluster.importlib, "import_module", lambda name: state)
    monkeypatch.setattr(cluster, "_autoscaling", lambda ray: None)
    assert shortage(Nodes, shape, count) == said
