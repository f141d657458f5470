"""A job as it is meant: its suite as targets, its preset beneath its own settings."""

from __future__ import annotations

from typing import Any

from xstilts.spec import presets
from xstilts.spec.experiment import Experiment, PhaseSettings, TrainSpec
from xstilts.tasks import suites


def settled(experiment: Experiment) -> Experiment:
    """`experiment` with `targets` and `train` spelt out.

    Raises:
        UnknownName: no such suite or preset.
    """
    targets = experiment.targets
    if experiment.suite is not None:
        suite = suites.suite(experiment.suite, ("suite",))
        targets = (*suite.tasks, *suite.also)
    train = experiment.train
    if experiment.settings is not None:
        train = _with_preset(experiment, experiment.settings, targets)
    # model_copy, because a job that names a suite may not name targets.
    return experiment.model_copy(update={"targets": targets, "train": train})


def trained_on(experiment: Experiment) -> tuple[str, ...]:
    """What settings of phase 2 may be given for: the tasks of its rows, and `mix` for what mixtures share."""
    names = [name for row in experiment.intermediate for name in row.tasks]
    mixed = ["mix"] if any(row.mix for row in experiment.intermediate) else []
    return tuple(dict.fromkeys([*names, *mixed]))


def _with_preset(experiment: Experiment, name: str, targets: tuple[str, ...]) -> TrainSpec:
    mlm = any("mlm" in row.mix for row in experiment.intermediate)
    below = presets.words(name, trained_on(experiment), targets, mlm=mlm)
    own = experiment.train
    return TrainSpec(
        intermediate=_over(below["intermediate"], own.intermediate),
        target=_over(below["target"], own.target),
    )


def _over(below: dict[str, Any], own: PhaseSettings) -> PhaseSettings:
    """A phase's own words over a preset's; what it says for all tasks goes before the preset's for one."""
    said = own.model_dump(exclude_unset=True)
    common = {word: value for word, value in said.items() if word != "tasks"}
    named = said.get("tasks", {})
    preset = {task: {**words, **common} for task, words in below.get("tasks", {}).items()}
    tasks = {task: {**preset.get(task, {}), **named.get(task, {})} for task in (*preset, *named)}
    shared = {word: value for word, value in below.items() if word != "tasks"}
    return PhaseSettings.model_validate({**shared, **common, "tasks": tasks})
