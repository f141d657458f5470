"""Several drivers that show one job at once, and what a driver tells of its steps."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from mlflow_kit import curve, database, planned, runs_of

from xstilts.execute.backends import Event
from xstilts.execute.live import LiveRuns
from xstilts.execute.state import Cause
from xstilts.record.local import LocalStore
from xstilts.record.mlflow import LiveView, live, rebuild
from xstilts.record.mlflow.runs import PARENT, Runs


def test_a_run_that_another_driver_made_meanwhile_is_found(tmp_path: Path) -> None:
    uri, root = database(tmp_path)
    one, two = Runs(uri, root, "job"), Runs(uri, root, "job")
    assert two.ids == {}, "read before there was anything"
    parent = one.parent("d1", {"digest": "d1"}, 1_000)
    made = one.step("it's--1", "t", parent, {}, 1_000)
    one.points(made, [("loss", 1.0, 1, 1_001), ("loss", 0.5, 2, 1_002)])
    assert two.parent("d1", {}, 2_000).id == parent.id
    found = two.step("it's--1", "t", parent, {}, 2_000)
    assert found.id == made.id
    two.reopen(found)
    two.points(found, [("loss", 9.0, 2, 2_000), ("loss", 0.2, 3, 2_001)])
    assert curve(uri, runs_of(uri, "job")["t"], "loss") == [(1, 1.0), (2, 0.5), (3, 0.2)]


def twice(uri: str, root: str) -> tuple[Runs, Runs]:
    """Two drivers that both found nothing, and each made a parent, a step and a cell."""
    both = (Runs(uri, root, "job"), Runs(uri, root, "job"))
    for number, runs in enumerate(both):
        runs._find = lambda *_: None  # type: ignore[method-assign, assignment, return-value]
        parent = runs.parent("d1", {"digest": "d1", "only": str(number)}, 1_000 + number)
        step = runs.step("t--1", "t", parent, {}, 1_000)
        runs.params(step, {"same": "1", f"only{number}": "1"})
        runs.points(step, [("loss", 1.0, 1, 1_001), ("loss", 0.5, 2 + number, 1_002)])
        cell = runs.step("job@d1/none > xnli", "none > xnli", parent, {"kind": "cell"}, 1_000)
        runs.metrics(cell, {"accuracy/de": 61.5}, 1_005)
        runs.reused("u--1", "u", parent, {}, 1_000)
        del runs._find  # type: ignore[method-assign]
    return both


def test_runs_that_two_drivers_made_at_once_become_one(tmp_path: Path) -> None:
    uri, root = database(tmp_path)
    one, two = twice(uri, root)
    one.settle()
    two.settle()
    runs = runs_of(uri, "job")
    assert set(runs) == {"job", "t", "none > xnli", "u"}
    parent = runs.pop("job")
    assert {run.data.tags[PARENT] for run in runs.values()} == {parent.info.run_id}
    assert parent.data.tags["only"] == "0"
    assert curve(uri, runs["t"], "loss") == [(1, 1.0), (2, 0.5), (3, 0.5)]
    assert runs["t"].data.params == {"same": "1", "only0": "1", "only1": "1"}
    assert len(curve(uri, runs["none > xnli"], "accuracy/de")) == 1
    # And each goes on with the one that stays.
    for runs_ in (one, two):
        assert runs_.parent("d1", {}, 5_000).id == parent.info.run_id
        assert runs_.step("t--1", "t", runs_.parent("d1", {}, 5_000), {}, 1).id == runs["t"].info.run_id


def test_what_was_hung_under_a_run_that_is_gone_comes_under_the_one_that_stays(tmp_path: Path) -> None:
    """The slower driver did not hear that its parent was merged; MLflow takes runs under a deleted one."""
    uri, root = database(tmp_path)
    one, two = twice(uri, root)
    gone = two.parent("d1", {}, 1_001)
    one.settle()
    late = two.step("job@d1/none > panx", "none > panx", gone, {"kind": "cell"}, 1_010)
    assert late.tags[PARENT] == gone.id
    two.settle()
    runs = runs_of(uri, "job")
    stays = runs.pop("job").info.run_id
    assert stays != gone.id and set(runs) == {"t", "none > xnli", "none > panx", "u"}
    assert {run.data.tags[PARENT] for run in runs.values()} == {stays}


def test_a_driver_whose_run_was_merged_away_goes_on_in_the_other(tmp_path: Path) -> None:
    uri, root = database(tmp_path)
    first = Runs(uri, root, "job")
    parent = first.parent("d1", {"digest": "d1"}, 1_000)
    view = LiveView(uri, root, "job")
    view.job_started({"digest": "d1"}, {})
    view.step_started("t--1", "t", {}, {})
    view.points("t--1", [("loss", 1.0, 1, 1_001)])
    wait_until_told(view)
    mine = first.step("t--1", "t", parent, {}, 1)
    twin = first._make("t", {"key": "t--1", PARENT: parent.id}, 1)  # older, so it is the one that stays
    first._find = lambda *_: None  # type: ignore[method-assign, assignment, return-value]
    first.settle()
    view.points("t--1", [("loss", 0.5, 2, 1_002)])
    view.step_ended("t--1", "FINISHED", {"final/loss": 0.5})
    assert view.close(30) == []
    runs = runs_of(uri, "job")
    assert runs["t"].info.run_id == twin.id != mine.id
    assert curve(uri, runs["t"], "loss") == [(1, 1.0), (2, 0.5)]
    assert runs["t"].info.status == "FINISHED"


def test_a_run_that_somebody_deleted_is_made_again(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    uri, root = database(tmp_path)
    view = LiveView(uri, root, "job")
    view.job_started({"digest": "d1"}, {})
    view.step_started("t--1", "t", {"kind": "train"}, {})
    wait_until_told(view)
    MlflowClient(uri).delete_run(runs_of(uri, "job")["t"].info.run_id)
    view.points("t--1", [("loss", 0.5, 2, 1_002)])
    view.step_ended("t--1", "FINISHED", {})
    assert view.close(30) == []
    assert runs_of(uri, "job")["t"].data.tags["kind"] == "train"


def wait_until_told(view: LiveView) -> None:
    until = time.monotonic() + 30
    while view._backlog.waiting.total():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_gauges_lie_on_seconds_since_the_run_began(tmp_path: Path) -> None:
    """A counter of samples would begin anew with each attempt, and its points be taken for known ones."""
    uri, root = database(tmp_path)
    for number in range(2):
        runs = Runs(uri, root, "job")
        parent = runs.parent("d1", {}, 1_000)
        run = runs.step("t--1", "t", parent, {}, 100_000)
        runs.reopen(run)
        at = 110_000 + 60_000 * number
        runs.points(run, [("system/cpu_utilization_percentage", 50.0, 0, at + add) for add in (0, 10_000)])
    found = curve(uri, runs_of(uri, "job")["t"], "system/cpu_utilization_percentage")
    assert [step for step, _ in found] == [10, 20, 70, 80]


class Told:
    """A view that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *words, **named: self.calls.append((name, words))

    def of(self, name: str) -> list[Any]:
        return [words for called, words in self.calls if called == name]


class Plan(list[Any]):
    experiment: dict[str, Any] = {"seeds": [1]}
    model = "mini"


class Kept:
    """A survey of the plan of the kit."""

    def __init__(self, words: dict[str, Any], recorded: set[str]) -> None:
        self.words, self.recorded = words, recorded
        self.plan = Plan(step_of(step) for step in words["steps"])

    def to_json(self) -> dict[str, Any]:
        return self.words


class Step:
    def __init__(self, words: dict[str, Any]) -> None:
        self.key, self.label, self.kind = words["key"], words["label"], words["kind"]
        self.step = self if self.key else None
        self.body = self

    def to_identity(self) -> dict[str, Any]:
        return {"seed": 1}


def step_of(words: dict[str, Any]) -> Step:
    return Step(words)


@pytest.fixture
def observed(tmp_path: Path) -> tuple[LiveRuns, Told, dict[str, Step], Any]:
    store = LocalStore(tmp_path)
    words = planned(store, "job", trainings=2, points=2)
    told = Told()
    survey: Any = Kept(words, {"train xnli", "predict xnli", "score xnli"})
    store.read = None  # type: ignore[method-assign, assignment]  # the driver must ask the store nothing
    return LiveRuns(told, store), told, {step.label: step for step in survey.plan}, survey  # type: ignore[arg-type]


def test_a_driver_tells_what_is_there_what_runs_and_what_it_came_to(observed: Any) -> None:
    runs, told, steps, survey = observed
    runs.planned(survey)
    runs.planned(survey)
    assert len(told.of("job_started")) == 1
    ((key, name, tags),) = told.of("recorded_before")
    assert (key, name, tags["target"]) == ("t--1", "train xnli", "xnli")
    assert tags["record"].endswith("/steps/t--1/record.json")
    assert [words[0] for words in told.of("recorded_cells")] == ["s--1"], "once for each cell"

    step = steps["train xnli2"]
    runs.event(Event(step.label, "started", time=1.0), step)
    runs.event(Event(step.label, "progress", metrics=(("loss", 0.5),), step=7, time=2.0), step)
    runs.event(Event(step.label, "progress", done=0.5, time=2.0), step)
    runs.event(Event(step.label, "rung", metrics=(("dev", 0.5),), step=7, time=2.0), step)
    gauge = (("system/cpu_utilization_percentage", 50.0),)
    for node in ("a", "a", "b"):
        runs.event(Event(step.label, "progress", metrics=gauge, time=3.0, text=node), step)
    assert told.of("points")[0] == ("t--2", [("loss", 0.5, 7, 2_000)])
    assert [words[1][0][0] for words in told.of("points")] == ["loss"] + 3 * [gauge[0][0]]
    assert told.of("step_tagged") == [("t--2", {"node": "a"}), ("t--2", {"node": "a b"})]
    runs.event(Event(step.label, "done", time=4.0), step)
    assert told.of("recorded_end") == [("t--2",)]
    runs.event(Event("score xnli2", "done", time=4.0), steps["score xnli2"])
    assert [words[0] for words in told.of("recorded_cells")] == ["s--1", "s--2"]


def test_what_another_driver_did_is_shown_and_what_fails_says_why(observed: Any) -> None:
    runs, told, steps, survey = observed
    runs.planned(survey)
    step = steps["train xnli2"]
    runs.event(Event(step.label, "done", text="by another", time=4.0), step)
    assert [words[0] for words in told.of("recorded_before")] == ["t--1", "t--2"]
    assert told.of("recorded_end") == []
    runs.event(Event(step.label, "failed", cause=Cause.LOST_WORKER, text="x" * 9_000, time=5.0), step)
    (ended,) = told.of("step_ended")
    assert ended[1:3] == ("FAILED", {})
    assert (ended[3]["cause"], len(ended[3]["text"])) == ("lost worker", 2_000)
    assert told.of("step_started")[-1][:2] == ("t--2", "train xnli2"), "its run has its name, not its key"


def test_live_and_rebuilt_runs_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setattr(live, "PACE", 0.1)
    uri, root = database(tmp_path)
    store = LocalStore(tmp_path)
    words = planned(store, "job", points=3)
    survey: Any = Kept(words, set())
    steps = {step.label: step for step in survey.plan}
    view = LiveView(uri, root, "job")
    runs = LiveRuns(view, store)
    runs.planned(survey)
    train: Any = steps["train xnli"]
    runs.event(Event(train.label, "started", time=1.0), train)
    for step in (1, 2, 3):
        at = 1_800_000_000.0 + step
        runs.event(Event(train.label, "progress", metrics=(("loss", 1 / step),), step=step, time=at), train)
    runs.event(Event(train.label, "done", time=4.0), train)
    score: Any = steps["score xnli"]
    runs.event(Event(score.label, "done", time=4.0), score)
    view.job_ended("FINISHED")
    assert view.close(30) == []
    before = runs_of(uri, "job")
    assert set(before) == {"job", "train xnli", "none > xnli · seed 1"}
    # The time of the record: two drivers that tell of one step then write the same point, which is kept once.
    (point,) = MlflowClient(uri).get_metric_history(before["train xnli"].info.run_id, "final/final_loss")
    assert point.timestamp == 1_800_000_000_000
    assert rebuild(words, store, uri, root) == 2
    after = runs_of(uri, "job")
    for name, run in before.items():
        assert after[name].info.run_id == run.info.run_id
        assert after[name].data.metrics == run.data.metrics
        assert {**after[name].data.tags, **run.data.tags} == after[name].data.tags
        for metric in run.data.metrics:
            assert curve(uri, after[name], metric) == curve(uri, run, metric)
            assert len(curve(uri, run, metric)) == (3 if metric == "loss" else 1)
