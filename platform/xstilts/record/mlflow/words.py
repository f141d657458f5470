"""Names, tags, params and metrics of runs: one rule for the live view and for the rebuilt one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from xstilts.frozen import Json, canonical
from xstilts.record.schema import Score

CURVED = ("pretrain", "train", "search")
"""Kinds of step that get a run; predictions and scores show in the cells instead."""

# MLflow 3.17: names of 250 characters, params cut at 6000 and tags at 8000 without a word.
NAME, PARAM, TAG = 250, 6000, 8000


def named(name: str) -> str:
    """`name` with only what MLflow lets a metric, param or tag be called, and not resembling a path."""
    kept = re.sub(r"[^\w.\- :/]", "_", name)
    return "/".join(part for part in kept.split("/") if part not in ("", ".", ".."))[:NAME] or "_"


def cut(value: object, limit: int) -> str:
    """`value` as text of at most `limit` characters; a cut shows as an ellipsis at the end."""
    text = canonical(value) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def params_of(identity: Mapping[str, Json], before: str = "") -> dict[str, str]:
    """The settings that decide a result, one param each: {"train": {"epochs": 3}} is train.epochs = 3."""
    flat: dict[str, str] = {}
    for key, value in identity.items():
        if isinstance(value, dict) and value:
            flat |= params_of(value, f"{before}{key}.")
        else:
            flat[f"{before}{key}"] = cut(value, PARAM)
    return flat


def metrics_of(scores: Iterable[Score]) -> dict[str, float]:
    """Scores as metrics named metric/language, which MLflow's charts group by metric."""
    return {f"{score.metric}/{score.language}": score.value for score in scores}


def job_words(plan: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Tags and params of the parent run; `digest` makes it the run of this plan and of no other."""
    tags = {"digest": str(plan["digest"]), "model": str(plan.get("model", ""))}
    return tags, params_of(plan.get("experiment") or {})


def step_words(plan: Mapping[str, Any], label: str) -> tuple[str, dict[str, str]]:
    """Name and tags of the run of the step labelled `label`.

    `intermediate target seed` are those of the cells that need the step; one that differs among them
    (the target of a shared intermediate training) has no tag.
    """
    step = next(step for step in plan["steps"] if step["label"] == label)
    cells = [cell for cell in plan["cells"] if label in _needed(plan, cell)]
    tags = {"step": label, "kind": str(step["kind"])}
    for word in ("intermediate", "target", "seed"):
        values = {str(cell[word]) for cell in cells}
        if len(values) == 1:
            tags[word] = values.pop()
    return label, tags


def cell_words(cell: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Name and tags of the run of one cell of the table."""
    tags = {word: str(cell[word]) for word in ("intermediate", "target", "seed")}
    name = f"{tags['intermediate']} > {tags['target']} · seed {tags['seed']}"
    return name, {"step": str(cell["score"]), **tags}


def _needed(plan: Mapping[str, Any], cell: Mapping[str, Any]) -> set[str]:
    """Labels of all steps that a cell stands on."""
    inputs = {step["label"]: step.get("inputs") or {} for step in plan["steps"]}
    found: set[str] = set()
    left: list[str | None] = [cell.get("train"), cell.get("predict"), cell.get("score")]
    while left:
        label = left.pop()
        if label is not None and label in inputs and label not in found:
            found.add(label)
            left.extend(inputs[label].values())
    return found
