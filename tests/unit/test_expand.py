"""From a job to its steps: what is shared, what awaits, what a label says."""

from __future__ import annotations

from typing import Any

import pytest
from made_up_plan import labels, plan

from xstilts.errors import JobFileError, UnknownName
from xstilts.plan.step import PredictBody, TrainBody
from xstilts.tasks import registry


def test_one_phase_two_model_a_seed_serves_all_its_targets() -> None:
    made = plan()
    squads = [
        each for each in labels(made, "train") if each.startswith("train-squad_v1-") and "after" not in each
    ]
    # Phase 2 at 1e-5 and, in the rows `none`, phase 3 at 3e-6: two settings, two seeds.
    assert len(squads) == 4 and len(set(squads)) == 4
    phase_two = {planned.inputs["encoder"] for planned in made if planned.kind == "train" and planned.inputs}
    assert len(phase_two) == 4, "two intermediate tasks, two seeds"


def test_xquad_trains_on_squad_and_retrieval_not_at_all() -> None:
    made = plan()
    by_target = {(cell.intermediate, cell.target, cell.seed): cell for cell in made.cells}
    cell = by_target["mnli", "xquad", 1]
    assert cell.train is not None and cell.train.startswith("train-squad_v1-")
    assert by_target["mnli", "tatoeba", 1].train is None
    assert by_target["none", "tatoeba", 1].predict == by_target["none", "tatoeba", 2].predict
    assert by_target["mnli", "tatoeba", 1].predict != by_target["mnli", "tatoeba", 2].predict


def test_equal_settings_in_both_phases_are_one_step() -> None:
    made = plan(targets=["xnli"], train={})
    assert sum(each.startswith("train-mnli-") and "after" not in each for each in labels(made, "train")) == 2


def test_the_untrained_row_skips_phase_one() -> None:
    made = plan(intermediate=["none", "untrained"], targets=["udpos", "tatoeba"], seeds=[7])
    cells = {(cell.intermediate, cell.target): cell for cell in made.cells}
    train = made.steps[cells["untrained", "udpos"].train or ""].step
    frozen = made.steps[cells["untrained", "tatoeba"].predict].step
    assert train is not None and isinstance(train.body, TrainBody) and train.body.untrained
    assert frozen is not None and isinstance(frozen.body, PredictBody) and frozen.body.untrained_seed == 7


def test_every_step_comes_after_what_it_needs() -> None:
    seen: set[str] = set()
    for planned in plan():
        assert set(planned.inputs.values()) <= seen
        seen.add(planned.label)


def test_labels_do_not_depend_on_the_job() -> None:
    small = plan(intermediate=["squad_v1"], targets=["udpos"], seeds=[2], name="other")
    large = {planned.label: planned.key for planned in plan()}
    assert all(large[planned.label] == planned.key for planned in small)


def test_a_search_holds_back_what_it_decides() -> None:
    search = {
        "trials": 4,
        "learning_rate": {"low": 1e-6, "high": 1e-4},
        "epochs": [1, 2],
        "targets": ["udpos"],
        "phases": ["target"],
    }
    before = plan(search=search, targets=["udpos"], intermediate=["mnli"])
    (found,) = [planned for planned in before if planned.kind == "search"]
    assert found.key is not None and "s1000" in found.inputs["encoder"], (
        "a phase-2 model of the search's seed"
    )
    waiting = [planned for planned in before if planned.key is None]
    assert {planned.kind for planned in waiting} == {"train", "predict", "score"}
    assert all(planned.awaits == (found.label,) for planned in waiting)

    chosen = {found.key: {"learning_rate": 5e-5, "epochs": 2}}
    after = plan(search=search, targets=["udpos"], intermediate=["mnli"], chosen=chosen)
    assert all(planned.key for planned in after) and after.digest == before.digest
    final = after.steps[after.cells[0].train or ""].step
    assert final is not None and isinstance(final.body, TrainBody)
    assert (final.body.settings.learning_rate, final.body.settings.epochs) == (5e-5, 2)


def test_two_searches_that_train_one_task_are_never_taken_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    other = registry.task("xnli").model_copy(update={"name": "other_nli"})
    monkeypatch.setitem(registry._tasks, other.name, other)
    search = {"trials": 4, "learning_rate": {"low": 1e-6, "high": 1e-4}, "epochs": [1, 2]}
    words = {"targets": ["xnli", "other_nli"], "intermediate": ["none"], "search": search}
    same = plan(**words)
    assert len(labels(same, "search")) == 1, "equal settings: one search serves both"
    apart = plan(**words, train={"target": {"tasks": {"other_nli": {"max_length": 64}}}})
    assert len(labels(apart, "search")) == 2 and len(labels(apart, "train")) == 4


def test_the_plan_is_known_by_what_is_asked_and_by_its_data() -> None:
    assert plan().digest == plan(name="other", execution={"workers": 7}, question="why?").digest
    assert plan().digest != plan(sha256="cc").digest
    assert plan().digest != plan(seeds=[1]).digest


@pytest.mark.parametrize(
    ("changed", "where", "said"),
    [
        ({"targets": ["udposs"]}, ("targets", 0), "did you mean 'udpos'?"),
        ({"targets": ["csqa"]}, ("targets", 0), "csqa is no target task"),
        ({"intermediate": ["none", "xnli"]}, ("intermediate", 1), "xnli is no intermediate task"),
        ({"languages": ["en", "dee"]}, ("languages", 1), "did you mean 'de'?"),
        ({"targets": ["udpos", "udpos"]}, ("targets",), "names a task twice"),
        ({"seeds": [1, 2, 1]}, ("seeds",), "twice"),
        ({"train": {"target": {"tasks": {"panx": {}}}}}, ("train", "target", "tasks", "panx"), "panx"),
    ],
)
def test_names_are_checked_where_they_stand(
    changed: dict[str, Any], where: tuple[Any, ...], said: str
) -> None:
    with pytest.raises((UnknownName, JobFileError)) as caught:
        plan(**changed)
    assert caught.value.where == where and said in str(caught.value)
