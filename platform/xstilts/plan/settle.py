"""A job as it is meant: its suite as targets, its preset beneath its own settings."""

from __future__ import annotations

from typing import Any

from xstilts.spec import presets
from xstilts.spec.experiment import Experiment, PhaseSettings, TrainSpec
from xstilts.spec.presets import MIX, MIX_MLM
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
    """What settings of phase 2 may be given for: the tasks of its rows, `mix` for what mixtures share, and
    `mix_mlm` for mixtures with masked language modelling in them."""
    names = [name for row in experiment.intermediate for name in row.tasks]
    mixed = [MIX_MLM if "mlm" in row.mix else MIX for row in experiment.intermediate if row.mix]
    return tuple(dict.fromkeys([*names, *mixed]))


def _with_preset(experiment: Experiment, name: str, targets: tuple[str, ...]) -> TrainSpec:
    below = presets.words(name, trained_on(experiment), targets)
    own, chosen = experiment.train, experiment.evaluate.selection.model_dump(exclude_unset=True)
    return TrainSpec(
        intermediate=_over(below["intermediate"], own.intermediate, chosen),
        target=_over(below["target"], own.target, chosen),
    )


def _over(below: dict[str, Any], own: PhaseSettings, chosen: dict[str, Any]) -> PhaseSettings:
    """A phase's own words over a preset's; what it says for all tasks goes before the preset's for one.
    `chosen`: what the job says of selection, which goes before what the preset does."""
    said = own.model_dump(exclude_unset=True)
    common = _warm({word: value for word, value in said.items() if word != "tasks"})
    named = {task: _warm(words) for task, words in said.get("tasks", {}).items()}
    preset = {task: {**_choosing(words, chosen), **common} for task, words in below.get("tasks", {}).items()}
    tasks = {task: {**preset.get(task, {}), **named.get(task, {})} for task in (*preset, *named)}
    shared = _choosing({word: value for word, value in below.items() if word != "tasks"}, chosen)
    return PhaseSettings.model_validate({**shared, **common, "tasks": tasks})


def _choosing(words: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    return {**words, "select": {**words["select"], **chosen}} if "select" in words else words


def _warm(words: dict[str, Any]) -> dict[str, Any]:
    """A share of the steps, where it is given, is not overruled by a number of steps that is not."""
    return {"warmup_steps": None, **words} if "warmup" in words else words
