"""Services of a cluster for tests, from infra/local: Ray with GPU nodes on paper, PostgreSQL, MLflow.

Nothing of this goes into the environment of the test process, where Ray may have been imported with other
settings: what talks to a stack is a process of its own, started with `env=stack.shell`. Tests that use
`cluster` or `whole_stack` are to be marked `cluster` (a home of their own) and slow, and s3 with the second.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest

REPO = Path(__file__).resolve().parents[1]
if str(REPO) not in sys.path:
    sys.path.append(str(REPO))

from infra.local.postgres import Postgres  # noqa: E402
from infra.local.stack import Stack, missing  # noqa: E402
from infra.local.tracking import Tracking  # noqa: E402


class StackMaker(Protocol):
    """Starts a stack that ends with the module."""

    def __call__(self, *parts: str, **settings: Any) -> Stack:
        """Settings: those of `Stack.start`. Nodes without work go after 5 s, unless told."""
        ...


@pytest.fixture(scope="module")
def make_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackMaker]:
    """For a module that wants other nodes, or parts, than the fixtures below have."""
    made: list[Stack] = []

    def make(*parts: str, **settings: Any) -> Stack:
        if absent := missing(parts):
            pytest.skip(f"not installed: {' '.join(absent)}")
        folder = tmp_path_factory.mktemp("stack")
        made.append(Stack.at(folder))
        made[-1] = Stack.start(folder, parts, **{"idle_seconds": 5.0, **settings})
        return made[-1]

    yield make
    for stack in made:
        Stack.at(stack.folder).stop()


@contextmanager
def store_seen_here(stack: Stack) -> Iterator[None]:
    """Lets this process open the stack's store, and nothing else of it: see above."""
    before = dict(os.environ)
    os.environ.update({name: value for name, value in stack.environment.items() if name.startswith("AWS_")})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="module")
def cluster(make_stack: StackMaker) -> Stack:
    """A Ray head, and up to two nodes with 2 CPUs and a GPU on paper each; no other part. 5 s."""
    return make_stack("ray")


@pytest.fixture(scope="module")
def whole_stack(make_stack: StackMaker) -> Stack:
    """The same with the S3 endpoint, and MLflow on PostgreSQL and S3. 15 s."""
    return make_stack("s3", "postgres", "mlflow", "ray")


@pytest.fixture(scope="module")
def postgres(make_stack: StackMaker) -> Postgres:
    """A PostgreSQL server with an empty database. 2 s."""
    server = make_stack("postgres").postgres
    assert server is not None
    return server


@pytest.fixture(scope="module")
def mlflow_server(make_stack: StackMaker) -> Tracking:
    """An MLflow server on a PostgreSQL of its own; artifacts go through it. 10 s."""
    server = make_stack("postgres", "mlflow").mlflow
    assert server is not None
    return server
