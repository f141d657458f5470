"""Of a search, what needs no cluster: the rule of pruning, the journal, and rounds that hear their trials."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from made_up_plan import plan

from xstilts.errors import StoreError, XstiltsError
from xstilts.execute.crew import DONE, ENDED, MEMBER, NUMBER, RUNG
from xstilts.execute.pruning import ENOUGH, RUNGS, floors
from xstilts.execute.rounds import TRIES, Round, Study
from xstilts.execute.site import Site
from xstilts.execute.steps import Work
from xstilts.execute.trials import Journal, Trial, attempt_mark, best_of, clean
from xstilts.plan.step import Step
from xstilts.plan.trainings import HINT, trial_of
from xstilts.record.artifacts import StepPaths
from xstilts.record.local import LocalStore
from xstilts.record.schema import StepRecord
from xstilts.spec.experiment import ExecutionSpec

SEARCH: dict[str, Any] = {
    "trials": 7, "concurrent": 3, "learning_rate": {"low": 1e-6, "high": 1e-4}, "epochs": [1, 2],
    "phases": ["target"],
}  # fmt: skip


def search_step(hinted: bool = False, **changed: Any) -> Step:
    rows = ["mnli", "none"] if hinted else ["none"]
    made = plan(search=SEARCH | changed, targets=["udpos"], intermediate=rows)
    steps = [each.step for each in made if each.kind == "search" and each.step is not None]
    (step,) = (each for each in steps if (HINT in each.inputs) == hinted)
    return step


class Member:
    """Stands in for a worker that can be asked to stop."""

    def __init__(self) -> None:
        self.stopped = 0
        self.stop = self
        """As a handle of Ray's: `member.stop.remote()`."""

    def remote(self) -> None:
        self.stopped += 1


def work_on(step: Step, store: LocalStore, told: list[Any] | None = None) -> Work:
    site = Site(store.location, None, ExecutionSpec())
    listen = (lambda event: None) if told is None else told.append
    return Work(step, site, store, "a", Path("/nowhere"), listen, lambda: False)


def record(store: LocalStore, step: Step, kept: float, **result: Any) -> None:
    made = StepRecord(
        key=step.key, kind="train", version=1, identity={}, inputs=step.inputs, attempt="a", finished="now",
        selection={"kept": kept}, result={"steps": 40, **result}, cost={"seconds": 2.5},
    )  # fmt: skip
    store.create(StepPaths(step.key).record, made.to_json())


@pytest.fixture
def store(store_root: Path) -> LocalStore:
    return LocalStore.open(str(store_root))


class TestPruning:
    def test_the_better_half_goes_on(self) -> None:
        low, middle = RUNGS
        values = [10.0, 20.0, 30.0, 40.0]
        assert floors({low: value} for value in values) == {low: 20.0}, "3 of 5 places, its own among them"
        assert floors({low: value} for value in [*values, 50.0]) == {low: 30.0}, "3 of 6"
        assert floors({low: 1.0, middle: value} for value in values)[middle] == 20.0

    def test_what_a_floor_means_for_every_new_value(self) -> None:
        for count in range(ENOUGH, 9):
            values = [float(value) for value in range(count)]
            floor = floors({RUNGS[0]: value} for value in values)[RUNGS[0]]
            for own in [value + 0.5 for value in values] + [-1.0]:
                better = sum(value > own for value in values)
                assert (own >= floor) == (better < (count + 2) // 2), (count, own, floor)

    def test_few_values_prune_nothing_and_equal_ones_nobody(self) -> None:
        assert floors({RUNGS[0]: 1.0} for _ in range(ENOUGH - 1)) == {}
        assert floors({RUNGS[0]: 0.0} for _ in range(ENOUGH)) == {RUNGS[0]: 0.0}, "0 is not below 0"

    def test_the_order_of_trials_does_not_matter(self) -> None:
        values = [{RUNGS[0]: float(n), **({RUNGS[1]: float(n)} if n > 1 else {})} for n in range(6)]
        found = {tuple(sorted(floors(each).items())) for each in itertools.permutations(values)}
        assert len(found) == 1


class TestJournal:
    def test_what_was_written_is_read_again(self, store: LocalStore) -> None:
        journal = Journal(store, "search--0123456789abcdef", ("learning_rate", "schedule"))
        trial = Trial(
            3, {"learning_rate": 1e-5, "schedule": "linear"}, "train--aa", "pruned", None,
            ((0.25, 41.5),), 10, 1.5, ((0.1, 2.0),), "",
        )  # fmt: skip
        assert journal.write(trial) == trial and journal.read_all(9) == {3: trial}

    def test_the_first_word_is_the_last(self, store: LocalStore) -> None:
        journal = Journal(store, "search--0123456789abcdef", ("epochs",))
        first = Trial(0, {"epochs": 1}, "train--aa", "pruned")
        journal.write(first)
        assert journal.write(Trial(0, {"epochs": 1}, "train--aa", "finished", 90.0)) == first

    @pytest.mark.parametrize("data", [b"{", b"[]", b'{"number": 0}', b'{"state": "lost"}'])
    def test_a_damaged_file_is_named(self, store: LocalStore, data: bytes) -> None:
        journal = Journal(store, "search--0123456789abcdef", ("epochs",))
        store.put("steps/search--0123456789abcdef/trials/0002.json", data)
        with pytest.raises(StoreError, match=r"0002\.json"):
            journal.read_all(3)

    def test_of_equal_trials_the_earliest_is_best(self) -> None:
        trials = [
            Trial(0, {}, "a", "failed"),
            Trial(1, {}, "b", "finished", 50.0),
            Trial(2, {}, "c", "finished", 50.0),
            Trial(3, {}, "d", "pruned", None, ((0.25, 99.0),)),
        ]
        assert best_of(trials) == trials[1] and best_of(trials[:1]) is None

    def test_only_what_this_search_left_of_a_pruned_trial_is_removed(self, store: LocalStore) -> None:
        key, search = "train--aa", "search--0123456789abcdef"
        mine, other = f"1{attempt_mark(search)}", "2-somebody"
        for attempt in (mine, other):
            store.put(StepPaths(key).run(attempt, "checkpoints/00000001/state.json"), b"x")
            store.put(StepPaths(key).attempt(attempt), b"x")
        clean(store, Trial(0, {}, key, "failed"), search)
        assert {name for name in store.list(f"steps/{key}/") if mine in name} == {
            StepPaths(key).attempt(mine)
        }
        clean(store, Trial(0, {}, key, "pruned"), search)
        assert [name for name in store.list(f"steps/{key}/") if mine in name] == []
        assert len(list(store.list(f"steps/{key}/"))) == 2


class TestRounds:
    def open(self, store: LocalStore, **changed: Any) -> tuple[Study, list[Any]]:
        told: list[Any] = []
        return Study.of(work_on(search_step(**changed), store, told)), told

    def round(self, study: Study, begin: int = 0) -> tuple[Round, list[Member]]:
        members = [Member(), Member()]
        made = Round(study.work, study, members, study.floors(begin))
        made.points = {
            number: {"learning_rate": 1e-5 * (number + 1), "epochs": 1}
            for number in study.round_numbers(begin)
        }
        return made, members

    def end(self, made: Round, number: int, value: float) -> None:
        record(made.work.store, trial_of(made.work.step, made.points[number]), value)  # type: ignore[arg-type]
        made.hear({NUMBER: number, MEMBER: 0}, {ENDED: "finished"})

    def test_the_jobs_own_settings_come_first_and_the_hint_next(self, store: LocalStore) -> None:
        study, _ = self.open(store)
        assert study.first == ({"learning_rate": 3e-6, "epochs": 3},), (
            "though 3 epochs are none of the choices"
        )
        step = search_step(hinted=True)
        hint = StepRecord(
            key=step.inputs[HINT], kind="search", version=2, identity={}, attempt="a", finished="now",
            result={"chosen": {"learning_rate": 2e-5, "epochs": 1.0}},
        )  # fmt: skip
        store.create(StepPaths(hint.key).record, hint.to_json())
        assert Study.of(work_on(step, store)).first[1] == {"learning_rate": 2e-5, "epochs": 1.0}

    def test_a_hint_that_is_the_jobs_own_settings_is_not_tried_twice(self, store: LocalStore) -> None:
        step = search_step(hinted=True)
        hint = StepRecord(
            key=step.inputs[HINT], kind="search", version=2, identity={}, attempt="a", finished="now",
            result={"chosen": {"learning_rate": 3e-6, "epochs": 3.0}},
        )  # fmt: skip
        store.create(StepPaths(hint.key).record, hint.to_json())
        assert len(Study.of(work_on(step, store)).first) == 1

    def test_rounds_go_on_where_a_killed_search_was(self, store: LocalStore) -> None:
        study, told = self.open(store)
        assert study.round_begin() == 0 and list(study.round_numbers(6)) == [6]
        made, _ = self.round(study)
        for number in (0, 2):
            self.end(made, number, 50.0 + number)
        assert [event.step for event in told] == [1, 2] and told[-1].metrics == (("best_dev", 52.0),)
        again, _ = self.open(store)
        assert again.round_begin() == 0 and again.trials == study.trials and again.is_open
        self.end(self.round(again)[0], 1, 40.0)
        assert again.round_begin() == 3 and [trial.value for trial in again.ended(3)] == [50.0, 40.0, 52.0]

    def four_ended(self, store: LocalStore, **changed: Any) -> Study:
        study, _ = self.open(store, concurrent=4, trials=8, **changed)
        made, _ = self.round(study)
        for number, value in enumerate((10.0, 20.0, 30.0, 40.0)):
            made.hear({NUMBER: number, MEMBER: 0}, {RUNG: 0.25, "value": value, "step": 10})
            self.end(made, number, value)
        assert study.trials[1].rungs == ((0.25, 20.0),) and study.trials[1].steps == 40
        return study

    def test_a_trial_below_the_floor_is_pruned_whatever_its_worker_does_then(self, store: LocalStore) -> None:
        study = self.four_ended(store)
        made, members = self.round(study, 4)
        made.hear({NUMBER: 4, MEMBER: 1}, {RUNG: 0.25, "value": 20.0, "step": 10})
        assert 4 not in study.trials and members[1].stopped == 0
        said = {RUNG: 0.2501, "value": 19.9, "step": 10, "curve": [[0.1, 3.0]]}
        made.hear({NUMBER: 5, MEMBER: 1}, said)
        assert members[1].stopped == 1 and members[0].stopped == 0
        pruned = study.trials[5]
        assert (pruned.state, pruned.value, pruned.rungs, pruned.steps, pruned.curve) == (
            "pruned", None, ((0.25, 19.9),), 10, ((0.1, 3.0),),
        )  # fmt: skip
        self.end(made, 5, 99.0)
        assert study.trials[5] == pruned, "it reached its end before it heard: the rule is what counts"
        assert Study.of(study.work).trials[5] == pruned

    def test_without_pruning_nothing_is_asked_and_nothing_ends(self, store: LocalStore) -> None:
        study = self.four_ended(store, prune="none")
        made, members = self.round(study, 4)
        assert made.rungs == () and made.floors == {}
        made.hear({NUMBER: 4, MEMBER: 0}, {RUNG: 0.25, "value": 0.0, "step": 10})
        assert 4 not in study.trials and members[0].stopped == 0

    def test_a_trial_that_any_job_has_run_is_not_run_again(self, store: LocalStore) -> None:
        study, _ = self.open(store)
        made, _ = self.round(study)
        record(store, trial_of(study.work.step, made.points[1]), 77.0, rungs=[[0.25, 70.0], [0.5, 75.0]])
        made.keep_what_is_recorded()
        assert study.trials.keys() == {1} and study.trials[1].value == 77.0
        assert study.trials[1].rungs == ((0.25, 70.0), (0.5, 75.0)), "they count for those that come later"

    def test_training_that_fails_is_an_answer(self, store: LocalStore) -> None:
        study, _ = self.open(store)
        made, _ = self.round(study)
        made.hear({NUMBER: 1, MEMBER: 0}, {ENDED: "failed", "why": "the loss was not finite", "curve": []})
        assert study.trials[1].state == "failed" and study.trials[1].why == "the loss was not finite"
        made.check([])

    def test_what_is_no_answer_ends_the_search_with_its_cause(self, store: LocalStore) -> None:
        study, _ = self.open(store)
        made, members = self.round(study)
        made.hear({NUMBER: 1, MEMBER: 0}, {ENDED: "broken", "why": "the disk is full", "remedy": "free some"})
        assert made.is_stopping() and not study.trials
        made.ask_all_to_stop()
        made.ask_all_to_stop()
        assert [member.stopped for member in members] == [1, 1], "once a second"
        with pytest.raises(XstiltsError, match="the disk is full: free some"):
            made.check([])

    def test_a_trial_that_strangers_stop_is_begun_again_but_not_for_ever(self, store: LocalStore) -> None:
        study, _ = self.open(store)
        for _ in range(TRIES - 1):
            made, _ = self.round(study)
            made.hear({NUMBER: 0, MEMBER: 0}, {ENDED: "stopped"})
            made.check([])
        with pytest.raises(XstiltsError, match="by nobody here"):
            made.check([])

    def test_an_error_of_a_trials_process_is_told(self, store: LocalStore) -> None:
        made, _ = self.round(self.open(store)[0])
        with pytest.raises(XstiltsError, match=r"did not end \(ValueError: x\)"):
            made.check(["Traceback\nValueError: x\n"])

    def test_progress_counts_what_runs(self, store: LocalStore) -> None:
        study, told = self.open(store)
        made, _ = self.round(study)
        made.hear({NUMBER: 0, MEMBER: 0}, {DONE: 0.5})
        made.hear({NUMBER: 1, MEMBER: 1}, {DONE: 0.2})
        assert told[-1].done == pytest.approx(0.7 / 7) and told[-1].step == 0
