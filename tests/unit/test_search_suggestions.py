"""What Optuna suggests for a round, and what it is told of the past. Ray is imported, not started."""

from __future__ import annotations

import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState
from test_search_trials import search_step, work_on

from xstilts.execute import search
from xstilts.execute.crew import MEMBER, NUMBER
from xstilts.execute.rounds import Study
from xstilts.execute.search import _Suggestions, distribution, holds
from xstilts.execute.trials import Trial
from xstilts.record.local import LocalStore
from xstilts.spec.experiment import Values

PAST = [
    Trial(0, {"learning_rate": 3e-6, "epochs": 3.0}, "a", "finished", 60.0),
    Trial(1, {"learning_rate": 1e-5, "epochs": 1.0}, "b", "finished", 70.0, ((0.25, 5.0), (0.5, 6.0))),
    Trial(2, {"learning_rate": 2e-5, "epochs": 2.0}, "c", "pruned", None, ((0.25, 3.0),)),
    Trial(3, {"learning_rate": 9e-5, "epochs": 2.0}, "d", "failed"),
    Trial(4, {"learning_rate": 5e-6, "epochs": 2.0}, "e", "finished", 65.0),
    Trial(5, {"learning_rate": 7e-6, "epochs": 2.0}, "f", "finished", 68.0),
]


@pytest.fixture
def study(store_root: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(search, "ray", Hand)
    made = Study.of(work_on(search_step(trials=9), LocalStore.open(str(store_root))))
    made.trials |= {trial.number: trial for trial in PAST}
    return made


class Hand:
    """A worker that answers or has no place, and a Ray that says so."""

    exceptions = ray.exceptions

    def __init__(self, placed: bool = True) -> None:
        self.placed = placed
        self.__ray_ready__ = self

    def remote(self) -> tuple[Hand, float]:
        return self, random.random()

    @staticmethod
    def wait(asked: list[tuple[Hand, float]], timeout: float) -> tuple[list[tuple[Hand, float]], None]:
        return [each for each in asked if each[0].placed][:1], None

    @staticmethod
    def get(asked: tuple[Hand, float]) -> None:
        """It answered."""


class Watch:
    """A round that goes on until told; counts how often it was told that the search lives."""

    def __init__(self, stopping: bool = False) -> None:
        self.stopping, self.signed = stopping, 0

    def is_stopping(self) -> bool:
        return self.stopping

    def sign(self) -> None:
        self.signed += 1


def suggestions(study: Study, begin: int, watch: Any = None, hands: Any = None) -> _Suggestions:
    return _Suggestions(study, begin, watch or Watch(), hands or (Hand(), Hand()))


def asked(study: Study, begin: int = 6) -> _Suggestions:
    made = suggestions(study, begin)
    made.begin()
    return made


def test_pruned_and_failed_trials_are_told_as_such(study: Study) -> None:
    told = asked(study)._ot_study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL))
    assert [(each.state, each.value) for each in told] == [
        (TrialState.COMPLETE, 70.0),  # the first of the past lies outside the space: 3 epochs
        (TrialState.PRUNED, None),
        (TrialState.FAIL, None),
        (TrialState.COMPLETE, 65.0),
        (TrialState.COMPLETE, 68.0),
    ]
    assert told[0].intermediate_values == {0: 5.0, 1: 6.0} and told[1].intermediate_values == {0: 3.0}


def test_a_round_is_the_same_each_time_and_lies_in_the_space(study: Study) -> None:
    points = asked(study).points
    assert points == asked(study).points
    for point in points.values():
        assert 1e-6 <= point["learning_rate"] <= 1e-4 and point["epochs"] in (1, 2)
    assert len({point["learning_rate"] for point in points.values()}) == 3
    other = Study.of(work_on(study.work.step, study.work.store))
    other.trials |= study.trials | {1: Trial(1, PAST[1].values, "b", "failed")}
    assert asked(other).points != points, "the past decides"


def test_points_known_before_go_before_suggestions(study: Study) -> None:
    found = asked(study, 0).points
    assert found[0] == {"learning_rate": 3e-6, "epochs": 3}, "outside the space, and tried all the same"


def test_each_trial_has_a_worker_to_itself_until_it_ends(study: Study) -> None:
    searcher = asked(study)
    first, second = searcher.suggest("x"), searcher.suggest("y")
    assert [each[NUMBER] for each in (first, second)] == [6, 7] and {first[MEMBER], second[MEMBER]} == {0, 1}
    assert {name: first[name] for name in ("learning_rate", "epochs")} == searcher.points[6]
    study.trials[7] = Trial(7, searcher.points[7], "g", "pruned")
    searcher.on_trial_complete("y", {})
    third = searcher.suggest("z")
    assert (third[NUMBER], third[MEMBER]) == (8, second[MEMBER])
    states = [each.state for each in searcher._ot_study.trials]
    assert states.count(TrialState.PRUNED) == 2 and states.count(TrialState.RUNNING) == 2
    assert searcher.suggest("none left") == searcher.FINISHED


def test_what_has_ended_runs_no_more_and_changes_no_suggestion(study: Study) -> None:
    points = asked(study).points
    study.trials[7] = Trial(7, points[7], "g", "finished", 99.0)
    again = suggestions(study, 6)
    assert again.begin() == (6, 8) and again.points == points


def test_a_search_that_stops_begins_no_trial(study: Study) -> None:
    searcher = suggestions(study, 6, Watch(stopping=True))
    searcher.begin()
    assert searcher.suggest("x") == searcher.FINISHED


def test_only_a_worker_that_has_a_place_gets_a_trial(study: Study) -> None:
    """Two searches that each hold some of the nodes both go on with those."""
    hands, watch = (Hand(placed=False), Hand()), Watch()
    searcher = suggestions(study, 6, watch, hands)
    searcher.begin()
    assert searcher.suggest("x")[MEMBER] == 1 and watch.signed == 0
    assert searcher.suggest("y") is None and watch.signed == 1, "it waits, and says that it lives"
    hands[0].placed = True
    assert searcher.suggest("y") == {**searcher.points[7], NUMBER: 7, MEMBER: 0}


def test_nothing_of_a_search_is_pickled_into_tunes_files(study: Study, tmp_path: Path) -> None:
    searcher = asked(study)
    assert b"learning_rate" not in pickle.dumps(searcher)
    searcher.save(str(tmp_path / "state"))
    assert (tmp_path / "state").read_bytes() == b""


@pytest.mark.parametrize(
    ("name", "words", "expected", "inside", "outside"),
    [
        ("warmup", {"low": 0, "high": 0.2}, FloatDistribution(0, 0.2), 0.2, 0.21),
        ("clip", {"low": 0.1, "high": 1, "scale": "log"}, FloatDistribution(0.1, 1, log=True), 1, 0.05),
        ("effective_batch", {"low": 8, "high": 64}, IntDistribution(8, 64), 8, 65),
        ("warmup_steps", {"low": 0, "high": 10}, IntDistribution(0, 10), 0, None),
        (
            "schedule",
            ["linear", "constant"],
            CategoricalDistribution(("linear", "constant")),
            "linear",
            "cosine",
        ),
    ],
)
def test_spaces(name: str, words: Any, expected: Any, inside: Any, outside: Any) -> None:
    found = distribution(name, Values.model_validate(words))
    assert found == expected and holds(found, inside) and not holds(found, outside)


def test_a_process_of_tunes_loads_no_torch() -> None:
    code = "import sys, xstilts.execute.search; print('torch' in sys.modules, 'ray.tune' in sys.modules)"
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert said.split() == ["False", "True"]
