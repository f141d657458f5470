"""What a job with a search plans: which searches, what they start from, who waits for whom, refusals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from made_up_plan import JOB, Made, labels, plan

from xstilts.errors import JobFileError, UnknownName, XstiltsError
from xstilts.plan.expand import expand
from xstilts.plan.graph import Plan, Planned
from xstilts.plan.step import PredictBody, SearchBody, Step, TrainBody
from xstilts.plan.trainings import HINT, own_values, trial_of
from xstilts.spec.load import parse

SEARCH: dict[str, Any] = {"trials": 4, "learning_rate": {"low": 1e-6, "high": 1e-4}, "epochs": [1, 2]}
VALUES = {"learning_rate": 5e-5, "epochs": 2}


def searches(made: Plan) -> list[Planned]:
    return [planned for planned in made if planned.kind == "search"]


def steps_of(made: Plan, kind: str) -> list[Step]:
    return [planned.step for planned in made if planned.kind == kind and planned.step is not None]


def settled(values: Mapping[str, Any] = VALUES, **changed: Any) -> tuple[Plan, list[Plan]]:
    """The plan when every search has chosen `values`, and the plans on the way."""
    chosen: dict[str, dict[str, Any]] = {}
    way = [plan(chosen=chosen, **changed)]
    while any(planned.key is None for planned in way[-1]):
        known = {planned.key: dict(values) for planned in searches(way[-1]) if planned.key}
        assert known.keys() - chosen.keys(), "nobody waits for nothing"
        chosen |= known
        way.append(plan(chosen=chosen, **changed))
    return way[-1], way


def test_phase_two_is_searched_once_a_row_and_the_target_phase_on_its_best_model() -> None:
    before = plan(search=SEARCH, targets=["udpos", "tatoeba"], intermediate=["none", "mnli"])
    phase_two = [each for each in searches(before) if each.label.startswith("search-mnli-")]
    assert len(phase_two) == 1 and phase_two[0].key is not None and not phase_two[0].inputs
    (target,) = (each for each in searches(before) if "after-mnli" in each.label)
    assert target.key is None and target.awaits == (phase_two[0].label,)
    frozen = [planned for planned in before if planned.label.startswith("predict-tatoeba-after")]
    assert len(frozen) == 2 and all(each.awaits == (phase_two[0].label,) for each in frozen)
    assert not any("tatoeba" in each.label for each in searches(before)), "frozen retrieval has no search"

    made, way = settled(search=SEARCH, targets=["udpos", "tatoeba"], intermediate=["none", "mnli"])
    assert len(way) == 3, "phase 2 and the first row; then the other rows; then everything"
    assert {each.digest for each in way} == {made.digest}
    models = [step for step in steps_of(made, "train") if step.label.startswith("train-mnli-")]
    assert {step.body.seed for step in models if isinstance(step.body, TrainBody)} == {1, 2, 1000}
    assert all(
        step.body.settings.learning_rate == 5e-5 for step in models if isinstance(step.body, TrainBody)
    )


def test_the_chosen_trial_of_phase_two_is_that_training_itself() -> None:
    made, _ = settled(search=SEARCH, targets=["udpos"], intermediate=["none", "mnli"])
    (search,) = (step for step in steps_of(made, "search") if step.label.startswith("search-mnli-"))
    model = trial_of(search, VALUES)
    assert model.key in {step.key for step in steps_of(made, "train")}
    assert model.label.endswith("-s1000") and model.inputs == {}


def test_a_trial_of_the_target_phase_is_keyed_as_any_plan_would_that_trains_so() -> None:
    made, _ = settled(search=SEARCH, targets=["udpos"], intermediate=["mnli"])
    (search,) = (step for step in steps_of(made, "search") if step.label.startswith("search-udpos-"))
    same = plan(
        targets=["udpos"], intermediate=["mnli"], seeds=[1000],
        train={"intermediate": VALUES, "target": {**VALUES, "epochs": 1}},
    )  # fmt: skip
    assert trial_of(search, VALUES | {"epochs": 1}).key in {step.key for step in steps_of(same, "train")}
    assert HINT not in trial_of(search, VALUES).inputs


def test_phases_name_what_is_searched() -> None:
    only_target = plan(search=SEARCH | {"phases": ["target"]}, targets=["udpos"], intermediate=["mnli"])
    assert [each.label[:13] for each in searches(only_target)] == ["search-udpos-"]
    only_two = plan(search=SEARCH | {"phases": ["intermediate"]}, targets=["udpos"], intermediate=["mnli"])
    assert [each.label[:12] for each in searches(only_two)] == ["search-mnli-"]


def test_other_rows_await_the_first_rows_search_of_their_target() -> None:
    words = {"targets": ["udpos", "xnli"], "intermediate": ["none", "mnli", "untrained"]}
    made, way = settled(search=SEARCH, **words)
    first = {each.label: each for each in searches(way[0]) if each.label.split("-")[1] in ("udpos", "mnli")}
    hints = {each.label: each.inputs.get(HINT) for each in searches(made)}
    assert {hint for hint in hints.values() if hint} <= first.keys()
    assert {label for label, hint in hints.items() if hint is None} == {
        each.label for each in searches(way[0]) if "hinted" not in each.label
    }
    hinted = [label for label, hint in hints.items() if hint]
    assert len(hinted) == 4 and all(label.endswith("-hinted") for label in hinted), "two targets, two rows"
    keyed = {each.label: each.step for each in searches(made) if each.step}
    assert all(keyed[label].inputs[HINT] == keyed[hints[label] or ""].key for label in hinted)
    trained = {step.key for step in steps_of(made, "train")}
    for trial in (trial_of(keyed[label], VALUES) for label in hinted):
        assert HINT not in trial.inputs and "hinted" not in trial.label and trial.key not in trained
        final = Step(label="", body=trial.body.model_copy(update={"seed": 1}), inputs=trial.inputs)
        assert "after" in trial.label or final.digest in {key[-16:] for key in trained}, (
            "where it starts alike"
        )


def test_xquad_and_mlqa_share_model_and_search() -> None:
    made, way = settled(search=SEARCH, targets=["xquad", "mlqa"], intermediate=["none", "mnli"])
    for each in (way[0], made):
        squad = [found for found in searches(each) if found.label.startswith("search-squad_v1")]
        assert len(squad) == 2, "one a row"
        # Two targets, two seeds; the other row's too stand on the first, which is its hint.
        assert [each.uses[found.label] for found in squad] == [8, 4]


def test_a_phase_two_and_a_target_that_train_one_task_do_not_clash() -> None:
    """SQuAD is a row of its own and what XQuAD trains on, with equal settings and with others."""
    for rows in (["none", "squad_v1"], ["squad_v1", "none"]):
        for train in ({}, JOB["train"]):
            made, _ = settled(search=SEARCH, targets=["xquad"], intermediate=rows, train=train)
            assert all(planned.key for planned in made)
    same = plan(search=SEARCH, targets=["xquad"], intermediate=["none", "squad_v1"], train={})
    assert len([each for each in searches(same) if "after" not in each.label]) == 1


def test_mixtures_and_translated_rows_are_searched_too() -> None:
    rows = [
        "none",
        {"mix": ["mnli", "squad_v1"]},
        {"translated": "mnli", "languages": ["en", "de"], "translator": {"name": "made/translator"}},
    ]
    made, _ = settled(search=SEARCH, targets=["udpos"], intermediate=rows)
    for name in ("search-mix-", "search-mnli-in-"):
        (search,) = (step for step in steps_of(made, "search") if step.label.startswith(name))
        assert trial_of(search, VALUES).key in {step.key for step in steps_of(made, "train")}


def test_every_setting_of_training_can_be_searched_by_name() -> None:
    space = {
        "warmup": {"low": 0, "high": 0.2},
        "effective_batch": [16, 32],
        "weight_decay": {"low": 1e-3, "high": 0.1, "scale": "log"},
        "max_length": [64, 128],
        "schedule": ["linear", "constant"],
    }
    values = VALUES | {"warmup": 0.05, "effective_batch": 16, "weight_decay": 0.1, "max_length": 64}
    values["schedule"] = "constant"
    made, _ = settled(values, search=SEARCH | {"space": space}, targets=["udpos"], intermediate=["mnli"])
    for step in steps_of(made, "search"):
        assert isinstance(step.body, SearchBody)
        assert step.body.space["weight_decay"].scale == "log" and set(step.body.space) == set(values)
        assert own_values(step.body)["effective_batch"] == 32
    final = made.steps[made.cells[0].train or ""].step
    assert final is not None and isinstance(final.body, TrainBody)
    assert final.body.settings.model_dump() | values == final.body.settings.model_dump()
    read = made.steps[made.cells[0].predict].step
    assert read is not None and isinstance(read.body, PredictBody) and read.body.max_length == 64


def test_what_is_searched_is_part_of_the_key() -> None:
    def keys(**changed: Any) -> set[str | None]:
        made = plan(search=SEARCH | changed, targets=["udpos"], intermediate=["none"])
        return {each.key for each in searches(made)}

    assert keys() == keys(targets=["udpos"]) == keys(phases=["target"])
    for changed in ({"prune": "none"}, {"trials": 5}, {"concurrent": 3}, {"space": {"clip": [1, 2]}}):
        assert keys() != keys(**changed)


JOB_FILE = """\
name: job
model: {name: made/encoder}
intermediate: [none]
targets: [udpos]
seeds: [1, 2]
train: {target: {warmup_steps: 100}}
search:
  learning_rate: {low: 1.0e-6, high: 1.0e-4}
  epochs: [1, 2]
  SPACE
"""


@pytest.mark.parametrize(
    ("words", "kind", "said"),
    [
        ("space: {warm_up: [0.1]}", UnknownName, "did you mean 'warmup'?"),
        ("space: {learning_rate: [0.1]}", JobFileError, "learning_rate is searched as search.learning_rate"),
        ("space: {select: [best]}", UnknownName, "select"),
        ("space: {fraction: [0.5, 2]}", JobFileError, "fraction is 2: write a number of at most 1"),
        ("space: {effective_batch: [8, x]}", JobFileError, "effective_batch is 'x': write a whole number"),
        ("space: {effective_batch: {low: 1.5, high: 8}}", JobFileError, "a whole number"),
        ("space: {schedule: {low: 1, high: 2}}", JobFileError, "list the choices"),
        ("space: {schedule: [linear, cosine]}", JobFileError, "one of 'linear' or 'constant'"),
        ("space: {warmup: [0, 0.1]}", JobFileError, "its warmup_steps go before it"),
        ("seed: 2", JobFileError, "search.seed 2 is among `seeds`"),
        ("space: {clip: {low: 2, high: 1}}", JobFileError, "low 2.0 must be below high 1.0"),
        ("space: {clip: {low: 0, high: 1, scale: log}}", JobFileError, "a log scale has no 0"),
        ("space: {clip: {low: 1}}", JobFileError, "give `low` and `high`, or a list of choices"),
        ("space: {clip: 3}", JobFileError, "low, high, scale, choices"),
        ("space: {clip: {lo: 3, high: 4}}", JobFileError, "did you mean 'low'?"),
        ("prune: ash", JobFileError, "did you mean 'asha'?"),
        ("phases: [intermediat]", JobFileError, "did you mean 'intermediate'?"),
        ("phases: []", JobFileError, "at least one item"),
    ],
)
def test_what_cannot_be_searched_is_told_with_its_line(
    words: str, kind: type[XstiltsError], said: str
) -> None:
    with pytest.raises(kind) as caught:
        file = parse(JOB_FILE.replace("SPACE", words), Path("job.yaml"))
        try:
            expand(file.experiment, Made())
        except XstiltsError as problem:
            raise file.error_at(problem) from problem
    assert said in str(caught.value) and "job.yaml:10: " in str(caught.value), caught.value


def test_a_log_scaled_rate_has_no_zero() -> None:
    with pytest.raises(JobFileError, match="which has no 0"):
        parse(JOB_FILE.replace("low: 1.0e-6", "low: 0").replace("SPACE", "trials: 2"), Path("job.yaml"))


def test_labels_of_searches_do_not_depend_on_the_order_of_what_waits() -> None:
    made = plan(search=SEARCH)
    assert len(labels(made, "search")) == len({each.label for each in searches(made)})
    seen: set[str] = set()
    for planned in made:
        assert {*planned.inputs.values(), *planned.awaits} <= seen, "inputs come first"
        seen.add(planned.label)
