"""What the store says of a plan: why steps are new, what exit code a run deserves, how a stop is heard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from xstilts.cli.show import exit_code
from xstilts.execute.backends import Event, InlineBackend, Terms
from xstilts.execute.runner import Failure, Result, Runner
from xstilts.execute.site import Site
from xstilts.execute.state import Cause, Survey, chosen_values, engine_of, survey
from xstilts.plan import fingerprint
from xstilts.plan.graph import Plan, Planned
from xstilts.plan.step import EncoderRef, Step, TrainBody
from xstilts.record.artifacts import StepPaths
from xstilts.record.local import LocalStore
from xstilts.record.schema import StepRecord
from xstilts.spec.experiment import ExecutionSpec, Selection, TrainSettings
from xstilts.tasks import registry
from xstilts.tasks.task import Rows

ENCODER = EncoderRef(name="made/encoder", weights={"model.safetensors": "aa"})


def rows(sha256: str = "bb") -> Rows:
    return Rows(path="made", config="en", split="train", language="en", sha256=(sha256,))


def training(
    settings: TrainSettings, seed: int = 1, sha256: str = "bb", start: Planned | None = None
) -> Planned:
    """A train step as `expand` labels it: the four digits in the middle stand for its settings."""
    body = TrainBody(
        task=registry.task("mnli"),
        rows=rows(sha256),
        selection_rows=rows(),
        selection=Selection(),
        settings=settings,
        seed=seed,
        encoder=None if start else ENCODER,
    )
    digits = "beef" if settings.learning_rate > 1e-5 else "cafe"
    label = f"train-mnli-{digits}-s{seed}" + (f"-after-{start.label}" if start else "")
    inputs = {"encoder": start.key} if start and start.key else {}
    named = {"encoder": start.label} if start else {}
    return Planned(label, "train", Step(label=label, body=body, inputs=inputs), named)


def plan_of(*steps: Planned) -> Plan:
    return Plan("job", "0", {each.label: each for each in steps}, (), {}, "model")


def record(store: LocalStore, step: Step | None, **more: Any) -> None:
    assert step is not None
    made = StepRecord(
        key=step.key,
        version=1,
        identity=step.body.to_identity(),
        inputs=step.inputs,
        attempt="a",
        finished="",
        **{"kind": "train", **more},
    )
    assert store.create(StepPaths(step.key).record, made.to_json())


@pytest.fixture
def store(store_root: Path) -> LocalStore:
    return LocalStore(store_root)


def why(store: LocalStore, *steps: Planned) -> tuple[str, ...]:
    """Why the last of the steps is to run."""
    return survey(plan_of(*steps), store, explain=True).why[steps[-1].label]


def test_a_changed_learning_rate_is_named_although_the_label_changed_too(store: LocalStore) -> None:
    record(store, training(TrainSettings(learning_rate=1e-5)).step)
    assert why(store, training(TrainSettings(learning_rate=3e-5))) == (
        "settings.learning_rate: 1e-05 -> 3e-05",
    )


def test_the_nearest_of_many_records_is_compared_with(store: LocalStore) -> None:
    record(store, training(TrainSettings(learning_rate=1e-5, epochs=1, max_length=64)).step)
    record(store, training(TrainSettings(learning_rate=1e-5, epochs=2)).step)
    assert why(store, training(TrainSettings(learning_rate=1e-5, epochs=3))) == (
        "settings.epochs: 2.0 -> 3.0",
    )


def test_other_seeds_and_tasks_are_no_reason(store: LocalStore) -> None:
    record(store, training(TrainSettings(), seed=1).step)
    assert why(store, training(TrainSettings(), seed=2)) == ("never run",)


def test_changed_data_and_a_changed_start_are_named(store: LocalStore) -> None:
    before = training(TrainSettings())
    after = training(TrainSettings(), sha256="cc")
    record(store, before.step)
    record(store, training(TrainSettings(), start=before).step)
    assert why(store, after) == ("rows.sha256[0]: bb -> cc",)
    (said,) = why(store, after, training(TrainSettings(), start=after))
    assert said.startswith("from.encoder: ")


def test_a_bumped_version_is_named(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    record(store, training(TrainSettings()).step)
    monkeypatch.setitem(fingerprint.STEP_VERSION, "train", 2)
    assert why(store, training(TrainSettings())) == ("a VERSION was bumped",)


def test_what_awaits_a_search_says_so(store: LocalStore) -> None:
    waiting = Planned("train-mnli-searched-s1", "train", None, {}, ("search-mnli",))
    assert why(store, waiting) == ("its settings await search-mnli",)
    assert survey(plan_of(waiting), store).to_json()["totals"]["awaits"] == 1


def test_only_finished_searches_have_chosen(store: LocalStore) -> None:
    made = training(TrainSettings())
    search = Planned("search", "search", made.step, {})
    assert chosen_values(plan_of(search), store) == {}
    record(store, made.step, kind="search", result={"chosen": {"learning_rate": 1e-4, "epochs": 2}})
    assert chosen_values(plan_of(search), store) == {search.key: {"learning_rate": 1e-4, "epochs": 2}}


def test_what_stands_on_a_failed_step_is_blocked_however_far() -> None:
    a = training(TrainSettings())
    b = training(TrainSettings(), start=a)
    c = Planned("predict", "predict", None, {"model": b.label})
    d = Planned("train-searched", "train", None, {}, (b.label,))
    other = training(TrainSettings(), seed=2)
    blocked = plan_of(a, b, c, d, other).blocked_by({a.label})
    assert set(blocked) == {b.label, "predict", "train-searched"} and set(blocked.values()) == {a.label}


@pytest.mark.parametrize(
    ("causes", "code"),
    [
        ([Cause.FIXABLE], 2),
        ([Cause.FIXABLE, Cause.FIXABLE], 2),
        ([Cause.FIXABLE, Cause.BUG], 1),
        ([Cause.LOST_WORKER], 1),
        ([], 1),
    ],
)
def test_exit_codes(causes: list[Cause], code: int) -> None:
    made = training(TrainSettings())
    failed = tuple(Failure("a", cause, "text", None) for cause in causes)
    unfinished = Survey(plan_of(made), frozenset())
    assert exit_code(Result(unfinished, (), failed, {}, False)) == code
    finished = Survey(plan_of(made), frozenset({made.label}))
    assert exit_code(Result(finished, (), (), {}, False)) == 0


def test_a_stop_between_submitting_and_starting_is_heard_and_ends_the_run(store: LocalStore) -> None:
    made = training(TrainSettings())
    site = Site(store.location, None, ExecutionSpec())
    backends: list[InlineBackend] = []
    heard: list[Event] = []

    class Stopped(InlineBackend):
        """Ctrl-C comes just after a step was queued; waiting for it would never end."""

        def submit(self, step: Step, terms: Terms) -> None:
            super().submit(step, terms)
            driver.stopping = True
            self.stop()

    def start(listen: Any) -> InlineBackend:
        backends.append(Stopped(site, lambda event: (heard.append(event), listen(event))[0]))
        return backends[0]

    driver = Runner(store, lambda failed: plan_of(made), start)
    result = driver.run()
    assert result.interrupted and not result.ran and not result.failed
    assert [(event.what, event.cause) for event in heard] == [("failed", Cause.INTERRUPTED)]


@pytest.mark.parametrize(
    ("kind", "words", "on_cluster", "expected"),
    [
        ("search", {}, True, "warm"),  # its trials are many and short
        ("search", {"ranks": 2}, True, "ray_train"),
        ("search", {"engine": "ray_train"}, True, "ray_train"),
        ("search", {"engine": "warm", "ranks": 2}, True, "warm"),
        ("train", {}, True, "warm"),  # nothing is trained from it
        ("train", {"ranks": 2}, False, "ray_train"),
        ("pretrain", {}, True, "ray_train"),
        ("pretrain", {}, False, "warm"),
        ("predict", {"ranks": 2}, True, "warm"),
    ],
)
def test_engines(kind: Any, words: dict[str, Any], on_cluster: bool, expected: str) -> None:
    planned = Planned("it", kind, None, {})
    assert engine_of(planned, plan_of(planned), ExecutionSpec(**words), on_cluster) == expected
