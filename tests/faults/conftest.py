"""Benches for the fault tests, and the undisturbed run that all of them are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("fault_kit")

from fault_kit import Bench  # noqa: E402  (its asserts say what they compared)

from end_state import results  # noqa: E402

NewBench = Callable[..., Bench]


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Scores, weights and predictions by key of the tiny job, run once in one process, undisturbed."""
    bench = Bench(tmp_path_factory.mktemp("whole") / "bench")
    try:
        bench.run()
        found = results(bench.records())
        assert len(found) == 8
        bench.check(found)
        return found
    finally:
        bench.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[NewBench]:
    """Makes a place for a job; `bench(text=..., faults=[...])`."""
    made: list[Bench] = []

    def make(**words: Any) -> Bench:
        made.append(Bench(tmp_path / f"bench{len(made)}", **words))
        return made[-1]

    yield make
    for each in made:
        each.close()
