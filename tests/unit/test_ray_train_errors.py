"""What a Ray Train run that failed is said to have failed of, from what its ranks and Train say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from xstilts.errors import StoreError
from xstilts.execute.backends import WorkersLost, classify
from xstilts.execute.ray_train import Preempted, _cause
from xstilts.execute.state import Cause
from xstilts.train.loop import Interrupted

RESET = RuntimeError("[gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:1: Connection reset by peer")
RAY: Any = SimpleNamespace(
    exceptions=SimpleNamespace(
        OutOfMemoryError=type("OutOfMemoryError", (Exception,), {}),
        RayTaskError=type("RayTaskError", (Exception,), {"__module__": "ray.exceptions"}),
    )
)


def gone(text: str = "The actor died.", **words: Any) -> Exception:
    """An error of Ray's, as Train wraps it."""
    inner = type("ActorDiedError", (Exception,), {"__module__": "ray.exceptions", **words})(text)
    outer = type("WorkerHealthCheckFailedError", (Exception,), {"__module__": "ray.train"})("Worker info ...")
    outer.health_check_failure = inner
    return outer


def failed(*said: Exception) -> Any:
    """A run whose ranks say these."""
    problem = RuntimeError("Training failed due to worker errors: traceback of rank 0")
    problem.worker_failures = dict(enumerate(said))  # type: ignore[attr-defined]
    return problem


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        ((RESET, gone()), Cause.LOST_WORKER),
        ((RESET,), Cause.LOST_WORKER),
        ((RESET, torch.OutOfMemoryError("CUDA out of memory")), Cause.DEVICE_MEMORY),
        ((StoreError("full", "make room"), gone()), Cause.FIXABLE),
        ((Interrupted("stopped after step 3 of 9"),), Cause.INTERRUPTED),
        ((RESET, gone("Task was killed due to the node running low on memory.")), Cause.HOST_MEMORY),
        ((RESET, KeyError("x")), Cause.BUG),
    ],
)
def test_the_first_cause_is_told(said: tuple[Exception, ...], cause: Cause) -> None:
    assert classify(_cause(RAY, failed(*said))) is cause


def test_a_node_that_was_taken_is_nobodys_fault() -> None:
    problem = _cause(RAY, failed(RESET, gone(preempted=True)))
    assert isinstance(problem, Preempted) and problem.preempted


def test_a_set_up_that_went_wrong_would_go_wrong_again() -> None:
    outer = type("ControllerError", (Exception,), {"__module__": "ray.train"})("controller error")
    outer.controller_failure = RAY.exceptions.RayTaskError("no NCCL built in")  # type: ignore[attr-defined]
    assert classify(_cause(RAY, outer)) is Cause.BUG


def test_what_train_itself_failed_of_is_a_loss_and_a_bug_keeps_its_traceback() -> None:
    assert isinstance(_cause(RAY, gone()), WorkersLost)
    problem = _cause(RAY, failed(RESET, KeyError("x")))
    assert isinstance(problem, KeyError) and "traceback of rank 0" in str(problem.__notes__)
