"""The tidy table of a job: one row a score, from a stored plan joined to the records of its steps.

Reads nothing but `jobs/<name>/plan-<digest>.json` and `steps/*/record.json`; never plans again.

    table = frame(plan, store)
    table[(table.metric == "accuracy") & (table.intermediate == "none")]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pandas
from numpy.typing import NDArray
from pyarrow import ArrowException, parquet

from xstilts.errors import StoreError, UnknownName
from xstilts.record.artifacts import ArtifactStore, StepPaths
from xstilts.record.schema import StepRecord, read_record
from xstilts.tasks import languages, registry, suites

COLUMNS = [
    *("job", "suite", "model", "intermediate", "target", "language", "family", "script", "split", "metric"),
    *("value", "n", "seed", "key", "selection", "fraction", "status"),
]
"""`value` is in percent; `status` is ok, collapsed (scored, but a run behind it collapsed) or missing."""

Records = Mapping[str, StepRecord]
"""Label -> record, of the plan's steps that are done."""

Run = tuple[str, str, int]
"""A cell of the table: intermediate, target, seed."""

IDENTIFIERS = ("item", "cluster", "parallel_id")


@dataclass(frozen=True, slots=True)
class Items:
    """Item statistics of one run in one language; every array has one entry an item."""

    item: NDArray[Any]
    cluster: NDArray[Any]
    parallel_id: NDArray[Any]
    """"" where items are not parallel."""
    columns: Mapping[str, NDArray[numpy.float64]]


def records(plan: Mapping[str, Any], store: ArtifactStore) -> dict[str, StepRecord]:
    """The records of the plan's finished steps, by label.

    Raises:
        StoreError: a record is damaged.
    """
    found = ((step["label"], read_record(store, step["key"])) for step in plan["steps"] if step["key"])
    return {label: record for label, record in found if record is not None}


def frame(plan: Mapping[str, Any], store: ArtifactStore, known: Records | None = None) -> pandas.DataFrame:
    """One row a score, with exactly COLUMNS; a cell that is not scored yet gives one row with no value.

    `known` saves reading the records again.

    Raises:
        StoreError: a record is damaged.
    """
    known = records(plan, store) if known is None else known
    starts = {step["label"]: tuple(step["inputs"].values()) for step in plan["steps"]}
    rows = [row for cell in plan["cells"] for row in _rows_of(plan, cell, known, starts)]
    table = pandas.DataFrame(rows, columns=COLUMNS)
    return table.astype({"value": "float64", "n": "Int64", "seed": "int64", "fraction": "float64"})


def items(
    plan: Mapping[str, Any], store: ArtifactStore, scratch: Path, known: Records
) -> dict[Run, dict[str, Items]]:
    """Item statistics of every scored cell by language; cells of one score step share one copy.

    Raises:
        StoreError: a file that a record names is gone or unreadable.
    """
    loaded: dict[str, dict[str, Items]] = {}
    found: dict[Run, dict[str, Items]] = {}
    for cell in plan["cells"]:
        label = cell["score"]
        if label not in known:
            continue
        if label not in loaded:
            loaded[label] = _items_of(known[label], store, scratch)
        found[cell["intermediate"], cell["target"], cell["seed"]] = loaded[label]
    return found


def provenance(known: Records) -> dict[str, list[str]]:
    """What the records say of where they come from: field -> its different values, sorted."""
    seen: dict[str, set[str]] = {}
    for record in known.values():
        for name, value in record.provenance.items():
            if value not in (None, "", [], {}) and not isinstance(value, list | dict):
                seen.setdefault(name, set()).add(str(value))
    return {name: sorted(values) for name, values in sorted(seen.items())}


def commit(known: Iterable[Records]) -> str:
    """The commits of the code that made the records of jobs, sorted; "-" where they tell none."""
    return ", ".join(sorted({one for each in known for one in provenance(each).get("commit", [])})) or "-"


def _rows_of(
    plan: Mapping[str, Any], cell: Mapping[str, Any], known: Records, starts: Mapping[str, tuple[str, ...]]
) -> list[dict[str, Any]]:
    record = known.get(cell["score"])
    common = {
        "job": plan["job"],
        "suite": _inner(plan, "experiment").get("suite") or "",
        "model": plan["model"],
        "intermediate": cell["intermediate"],
        "target": cell["target"],
        "seed": cell["seed"],
        **_training(plan, cell, known),
    }
    keys = {step["label"]: step["key"] for step in plan["steps"]}
    nothing = {"split": "", "metric": "", "value": None, "n": None, "key": keys.get(cell["score"]) or ""}
    lacking = [
        {**common, **_tongue(language), **nothing, "status": "missing"}
        for language in missing_languages(plan, cell["target"])
    ]
    if record is None:
        blank = dict.fromkeys(("language", "family", "script"), "")
        return [{**common, **blank, **nothing, "status": "missing"}, *lacking]
    status = "collapsed" if _collapsed(cell["score"], known, starts) else "ok"
    return lacking + [
        {
            **common,
            **_tongue(score.language),
            "split": score.split,
            "metric": score.metric,
            "value": score.value,
            "n": score.n,
            "key": record.key,
            "status": status,
        }
        for score in record.scores
        if _reported(plan, cell["target"], score.language)
    ]


def missing_languages(plan: Mapping[str, Any], target: str) -> dict[str, str]:
    """Language -> why it is left out, of the languages that the job wants of a target."""
    return {one["language"]: one["why"] for one in plan.get("missing", ()) if one["target"] == target}


def _reported(plan: Mapping[str, Any], target: str, language: str) -> bool:
    """Whether a job that asks for a suite reports this language: predictions cover those of all suites."""
    suite = _inner(plan, "experiment").get("suite")
    if not suite:
        return True
    task = registry.task(target)
    return language in task.elsewhere or language in suites.suite(suite).tasks[task.variant_of or target]


def _tongue(code: str) -> dict[str, str]:
    """A language that is not in the registry is shown without a family: a report must not fail on it."""
    try:
        language = languages.of(code)
    except UnknownName:
        return {"language": code, "family": "", "script": ""}
    return {"language": code, "family": language.family, "script": language.script}


def _collapsed(label: str, known: Records, starts: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether any training behind a score collapsed: the target's own, or the intermediate one."""
    record = known.get(label)
    own = record is not None and "collapsed" in record.flags
    return own or any(_collapsed(start, known, starts) for start in starts.get(label, ()))


def _training(plan: Mapping[str, Any], cell: Mapping[str, Any], known: Records) -> dict[str, Any]:
    """How the model of a cell was chosen, and on which share of the last phase's training rows."""
    phase, task = ("target", cell["target"]) if cell["train"] else ("intermediate", cell["intermediate"])
    asked = plan["experiment"]
    trained = cell["train"] is not None or task not in ("none", "untrained")
    settings = _inner(asked, "train", phase)
    said = _inner(asked, "evaluate", "selection")
    on, keep = said.get("rows", "source_dev"), said.get("keep", "best")
    fraction = _inner(settings, "tasks", task).get("fraction", settings.get("fraction", 1.0))
    record = known.get(cell["train"] or "")
    if record is not None:
        fraction = _inner(record.identity, "settings").get("fraction", fraction)
        on, keep = _chosen(record.identity, on, keep)
    if not cell["train"]:
        on = "source_dev"  # a phase-2 model is chosen on the source whatever the target's is chosen on
    chosen = on if keep == "best" else "last"
    return {"selection": chosen if trained else "", "fraction": float(fraction) if trained else 1.0}


def _chosen(identity: Mapping[str, Any], on: str, keep: str) -> tuple[str, str]:
    """What the record of a training says of how its checkpoint was chosen, else what the job file says."""
    own = _inner(identity, "selection")
    return own.get("rows", "source_dev" if own else on), own.get("keep", keep)


def _inner(words: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """A mapping inside others, {} where it is left out."""
    for name in path:
        inner = words.get(name)
        words = inner if isinstance(inner, Mapping) else {}
    return words


def _items_of(record: StepRecord, store: ArtifactStore, scratch: Path) -> dict[str, Items]:
    found = {}
    for name, output in record.outputs.items():
        role, _, language = name.partition("/")
        if role == "items":
            place = f"{StepPaths(record.key).root}/{output.path}"
            found[language] = _read(store.local(place, scratch), record.key, store.location)
    return found


def _read(path: Path, key: str, location: str) -> Items:
    try:
        table = parquet.read_table(path)
        names = {name: table.column(name).to_numpy(zero_copy_only=False).astype(str) for name in IDENTIFIERS}
    except (ArrowException, OSError, KeyError) as problem:
        remedy = f"move {StepPaths(key).root} out of {location} and run again ({problem})"
        raise StoreError(f"item statistics of {key} cannot be read", remedy) from problem
    numbers = {
        name: table.column(name).to_numpy(zero_copy_only=False).astype(numpy.float64)
        for name in table.column_names
        if name not in IDENTIFIERS
    }
    return Items(**names, columns=numbers)
