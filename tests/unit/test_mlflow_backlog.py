"""What waits for MLflow: in order, bounded, in nobody's way."""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from xstilts.record.mlflow import backlog
from xstilts.record.mlflow.backlog import Backlog, News, weight


def point(step: int, key: str = "a") -> News:
    return {"what": "points", "key": key, "points": [("loss", 0.5, step, 1_000 + step)]}


def event(number: int) -> News:
    return {"what": "step", "key": str(number), "name": "é\n\u2028", "tags": {}, "params": {}}


def steps(news: list[News]) -> list[int]:
    return [each["points"][0][2] for each in news]


def wait_for_spill(waiting: Backlog, least: int = 1) -> None:
    until = time.monotonic() + 10
    while waiting.spilled < least and time.monotonic() < until:
        time.sleep(0.01)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "MEMORY", 1_000)
    monkeypatch.setattr(backlog, "SEGMENT_BYTES", 4_000)
    monkeypatch.setattr(backlog, "SPILL_BYTES", 60_000)
    monkeypatch.setattr(backlog, "PAUSE", 0.0)


def test_what_does_not_fit_in_memory_goes_to_files_and_comes_back_in_order(
    small: None, tmp_path: Path
) -> None:
    waiting = Backlog(tmp_path)
    for number in range(900):
        waiting.add(point(number) if number % 50 else event(number))
        time.sleep(0.0002)
    wait_for_spill(waiting, 10_000)
    assert waiting.spilled > 10_000
    assert len(waiting._segments) > 2
    assert list(tmp_path.iterdir()) == [], "a file that a killed process would leave"
    for number in range(900, 1_000):
        waiting.add(point(number) if number % 50 else event(number))
    found = []
    while taken := waiting.take(70):
        assert sum(map(weight, taken)) < 70 + backlog.EVENT
        found += [int(each["key"]) if each["what"] == "step" else each["points"][0][2] for each in taken]
    assert found == list(range(1_000))
    assert waiting.spilled == 0
    assert waiting.waiting == {"points": 980, "events": 20}, "they wait until they were told"
    waiting.told("points", 980)
    waiting.told("events", 20)
    assert waiting.waiting.total() == waiting.dropped.total() == 0
    waiting.close()


def test_memory_and_files_are_bounded_and_what_is_dropped_is_counted(small: None) -> None:
    waiting = Backlog()
    for number in range(20_000):
        waiting.add(point(number))
        if number % 100 == 0:
            time.sleep(0.001)
    time.sleep(0.2)
    assert waiting.spilled <= 60_000 + 200
    assert waiting._weight <= 1_000
    kept = steps([news for _ in range(20_000) for news in waiting.take(1)])
    assert kept == sorted(set(kept))
    assert 500 < len(kept) < 2_500
    assert waiting.dropped["points"] == 20_000 - len(kept)
    waiting.close()


def test_points_leave_room_for_events(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "SPILL_BYTES", 0)
    waiting = Backlog()
    for number in range(1_100):
        waiting.add(point(number))
    for number in range(100):
        waiting.add(event(number))
    assert waiting.dropped == {"points": 100, "events": 60}
    waiting.close()


def test_a_disk_that_hangs_or_is_full_holds_up_nobody(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()

    def pwrite(*_: Any) -> int:
        hangs.wait(20)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", pwrite)
    waiting, slowest = Backlog(), 0.0
    for number in range(3_000):
        began = time.perf_counter()
        waiting.add(point(number))
        slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 5.0, "it hangs for 20 s"
    assert waiting.dropped == {"points": 2_000}
    hangs.set()
    time.sleep(0.1)
    assert steps(waiting.take(10_000)) == list(range(1_000)), "nothing is lost by the write that failed"
    began = time.perf_counter()
    waiting.close()
    assert time.perf_counter() - began < 2


def test_a_disk_with_no_room_for_a_whole_line(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel writes what fits, and says how much."""
    real, short = os.pwrite, random.Random(1)

    def pwrite(file: int, data: bytes, at: int) -> int:
        return real(file, data[: len(data) // 2] if short.random() < 0.5 else data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    waiting = Backlog()
    for number in range(900):
        waiting.add(point(number))
        time.sleep(0.0002)
    wait_for_spill(waiting)
    assert steps([each for _ in range(1_000) for each in waiting.take(5)]) == list(range(900))
    waiting.close()


def test_adding_and_taking_at_once_keeps_the_order(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "SPILL_BYTES", 10_000_000)
    waiting, found = Backlog(), []  # type: tuple[Backlog, list[int]]
    over = threading.Event()

    def take() -> None:
        while not over.is_set() or waiting.waiting["points"]:
            taken = waiting.take(37)
            waiting.told("points", len(taken))
            found.extend(steps(taken))
            time.sleep(0.0005)

    taker = threading.Thread(target=take)
    taker.start()
    for number in range(8_000):
        waiting.add(point(number))
        if number % 20 == 0:
            time.sleep(0.001)
    over.set()
    taker.join(30)
    assert found == sorted(found)
    assert len(found) + waiting.dropped["points"] == 8_000
    assert waiting.waiting.total() == 0
    waiting.close()


def test_values_that_json_has_no_word_for_survive(small: None) -> None:
    waiting = Backlog()
    for number in range(900):
        waiting.add(
            {
                "what": "points",
                "key": "a",
                "points": [("x", float("nan"), number, 1), ("y", float("inf"), 1, 1)],
            }
        )
    wait_for_spill(waiting)
    (news,) = waiting.take(1)
    (_, first, *_), (_, second, *_) = backlog.points_of(news)
    assert first != first
    assert second == float("inf")
    waiting.close()
