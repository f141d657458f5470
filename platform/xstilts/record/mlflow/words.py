"""Names, tags, params and metrics of runs: one rule for the live view and for the rebuilt one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from xstilts.frozen import Json, canonical
from xstilts.record.artifacts import StepPaths, plan_file, report_file
from xstilts.record.schema import Score, StepRecord

CURVED = ("pretrain", "train", "search")
"""Kinds of step that get a run; predictions and scores show in the cells instead."""

GAUGE = "system/"
"""Start of the names of what a machine does; MLflow's page shows these apart."""

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


def store_words(location: str, key: str) -> dict[str, str]:
    """The way from a run to the store: where the record of its step is."""
    return {"store": location, "record": f"{location}/{StepPaths(key).record}"}


def job_store_words(location: str, job: str, digest: str) -> dict[str, str]:
    """The way from a job's run to the store, also in the words that MLflow's page shows beside it."""
    note = (
        f"Everything here is also in the store `{location}`, which is the truth: "
        f"`{report_file(job, '').rstrip('/')}` has the report, "
        f"and `xstilts export mlflow` makes these runs again."
    )
    plan = f"{location}/{plan_file(job, digest)}"
    return {"store": location, "record": plan, "mlflow.note.content": note}


def step_words(plan: Mapping[str, Any], label: str) -> tuple[str, dict[str, str]]:
    """Name and tags of the run of the step labelled `label`."""
    return all_step_words(plan)[label]


def all_step_words(plan: Mapping[str, Any]) -> dict[str, tuple[str, dict[str, str]]]:
    """Name and tags of the run of every step, by label: one pass over the plan, 2 ms for 600 steps.

    `intermediate target seed` are those of the cells that need the step; one that differs among them
    (the target of a shared intermediate training) has no tag.
    """
    inputs = {step["label"]: step.get("inputs") or {} for step in plan["steps"]}
    found: dict[str, dict[str, set[str]]] = {label: {} for label in inputs}
    for cell in plan["cells"]:
        for label in _needed(inputs, cell):
            for word in ("intermediate", "target", "seed"):
                found[label].setdefault(word, set()).add(str(cell[word]))
    words = {}
    for step in plan["steps"]:
        tags = {"step": step["label"], "kind": str(step["kind"])}
        several = found[step["label"]]
        tags |= {word: next(iter(values)) for word, values in several.items() if len(values) == 1}
        words[step["label"]] = (str(step["label"]), tags)
    return words


def cell_words(cell: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """Name and tags of the run of one cell of the table."""
    tags = {word: str(cell[word]) for word in ("intermediate", "target", "seed")}
    name = f"{tags['intermediate']} > {tags['target']} · seed {tags['seed']}"
    return name, {"step": str(cell["score"]), **tags}


def final(record: StepRecord) -> dict[str, float]:
    """The numbers of a record that belong to the whole step."""
    spent = {f"seconds/{part}": value for part, value in record.seconds.model_dump().items()}
    chosen = {
        f"final/{name}": float(value)
        for name, value in record.result.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return {**spent, **chosen}


def outcome_words(record: StepRecord, location: str) -> dict[str, str]:
    """Tags that a finished step's run gets: flags, and the folder that `AutoModel.from_pretrained` loads."""
    words = {"flags": ",".join(record.flags)} if record.flags else {}
    if folder := model_folder(record):
        words["model"] = f"{location}/{folder}"
    return words


def model_folder(record: StepRecord) -> str | None:
    """Where in the store the encoder of a training is, as transformers saves one; None when it has none."""
    output = record.outputs.get("model/config.json")
    return f"{StepPaths(record.key).root}/{output.path.rpartition('/')[0]}" if output else None


def milliseconds(time: str | float | None) -> int:
    """Milliseconds since 1970 of an ISO 8601 time, or of seconds since 1970; 0 for none."""
    if not time:
        return 0
    seconds = datetime.fromisoformat(time).timestamp() if isinstance(time, str) else float(time)
    return int(seconds * 1000)


def _needed(inputs: Mapping[str, Mapping[str, str]], cell: Mapping[str, Any]) -> set[str]:
    """Labels of all steps that a cell stands on."""
    found: set[str] = set()
    left: list[str | None] = [cell.get("train"), cell.get("predict"), cell.get("score")]
    while left:
        label = left.pop()
        if label is not None and label in inputs and label not in found:
            found.add(label)
            left.extend(inputs[label].values())
    return found
