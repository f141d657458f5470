"""From a job's recorded predictions to the files of a benchmark: one row of its table, one seed.

A submission needs predictions and the rows they were made of: their order, and for Tatoeba their text. It
needs no model. Scored by `xstilts evaluate`, it gives the scores that the job has.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from xstilts.errors import DataError, UnknownName, XstiltsError
from xstilts.evaluate.official import formats, layout
from xstilts.evaluate.predict import read_predictions, read_scored
from xstilts.execute import inputs
from xstilts.families import bitext_mining
from xstilts.plan.graph import Plan
from xstilts.plan.step import PredictBody
from xstilts.record.artifacts import ArtifactStore, StepPaths
from xstilts.record.schema import StepRecord, read_record
from xstilts.tasks.suites import Suite
from xstilts.tasks.task import Family, Rows, Task

Named = TypeVar("Named", str, int)


@dataclass(frozen=True, slots=True)
class Part:
    """One target of a submission."""

    task: Task
    rows: tuple[Rows, ...]
    """What was predicted, one a language."""
    predict_key: str | None
    """The step with the predictions; None while a search has yet to decide it."""
    threshold: Mapping[str, float] = field(default_factory=dict)
    """Bitext mining: where mined pairs are cut, by language."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What was written."""

    files: tuple[Path, ...]
    missing: tuple[tuple[str, str], ...]
    """(task, language) of the suite that the job has no predictions for."""


def only(what: str, asked: Named | None, known: Sequence[Named], option: str) -> Named:
    """The one of `known` that is meant: `asked`, or the only one there is.

    Raises:
        UnknownName: there is no such one.
        XstiltsError: there are several and none was asked for; lists them.
    """
    if asked is not None:
        if asked not in known:
            listed = ", ".join(map(str, known))
            raise UnknownName(f"the job has no {what} {asked!r}", f"it has {listed}: {option} NAME")
        return asked
    if len(known) != 1:
        listed = ", ".join(map(str, known)) or "none"
        raise XstiltsError(
            f"a submission is one {what}, and the job has {listed}", f"choose one: {option} NAME"
        )
    return known[0]


def parts_of(plan: Plan, store: ArtifactStore, intermediate: str | None, seed: int | None) -> list[Part]:
    """The parts of one row and one seed of a plan; either may be left out where the job has only one.

    Raises:
        UnknownName, XstiltsError: as `only`.
        StoreError: a record is damaged.
    """
    row = only(
        "row", intermediate, list(dict.fromkeys(cell.intermediate for cell in plan.cells)), "--intermediate"
    )
    chosen = only("seed", seed, list(dict.fromkeys(cell.seed for cell in plan.cells)), "--seed")
    found = []
    for cell in plan.cells:
        if (cell.intermediate, cell.seed) != (row, chosen):
            continue
        step = plan.steps[cell.predict].step
        if step is not None and isinstance(step.body, PredictBody):
            cuts = _thresholds(store, plan.steps[cell.score].key)
            found.append(Part(step.body.task, step.body.rows, step.key, cuts))
    return found


def write_submission(
    parts: Sequence[Part],
    store: ArtifactStore,
    data_root: Path | None,
    to: Path,
    suite: Suite,
    labels: Path | None = None,
) -> Submission:
    """Writes what `parts` have of the suite's tasks and languages below `to`, and their gold below `labels`.

    A variant of a task (Tatoeba after SQuAD) takes the task's folder only where the task itself is no part.

    Raises:
        DataError: rows are not those that were predicted; none of the parts belongs to the suite.
        StoreError: the store cannot be read, or a folder not written to.
    """
    chosen = {
        layout.folder(part.task): part for part in sorted(parts, key=lambda one: not one.task.variant_of)
    }
    if not chosen.keys() & suite.tasks.keys():
        remedy = f"its tasks are {', '.join(suite.tasks)}; choose another --suite"
        raise DataError(f"none of the job's targets is a task of {suite.name}", remedy)
    files: list[Path] = []
    missing: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="xstilts-export-") as scratch:
        for name, languages in suite.tasks.items():
            made: dict[str, list[Path]] = {}
            if name in chosen:
                own = Path(scratch, name)
                made = dict(_written(chosen[name], languages, store, data_root, to, labels, own))
            files += [path for paths in made.values() for path in paths]
            missing += [(name, language) for language in languages if language not in made]
    return Submission(tuple(files), tuple(missing))


def _written(
    part: Part,
    languages: Sequence[str],
    store: ArtifactStore,
    data_root: Path | None,
    to: Path,
    labels: Path | None,
    scratch: Path,
) -> Iterator[tuple[str, list[Path]]]:
    """Language -> files, for each language that has predictions."""
    record = read_record(store, part.predict_key) if part.predict_key else None
    rows = {each.language: each for each in part.rows}
    for language in languages:
        output = f"predictions/{language}"
        if record is None or output not in record.outputs or language not in rows:
            continue
        predictions = _predictions(part, record, language, store, scratch)
        if predictions is None:
            continue
        examples = inputs.examples(part.task, rows[language], data_root)
        made = [formats.write_predictions(part.task.name, language, examples, predictions, to)]
        if labels is not None:
            made.append(formats.write_labels(part.task.name, language, examples, labels))
        yield language, made


def _predictions(
    part: Part, record: StepRecord, language: str, store: ArtifactStore, scratch: Path
) -> Mapping[str, Any] | None:
    """Item -> prediction. Mined pairs are cut; None where it is not known yet at which margin."""
    name = f"{StepPaths(record.key).root}/{record.outputs[f'predictions/{language}'].path}"
    path = store.local(name, scratch)
    if part.task.family is not Family.BITEXT_MINING:
        return read_predictions(path)
    if language not in part.threshold:
        return None
    return bitext_mining.kept(read_scored(path), part.threshold[language])


def _thresholds(store: ArtifactStore, key: str | None) -> dict[str, float]:
    """The thresholds that a score step found, by language; {} where there are none."""
    record = read_record(store, key) if key else None
    found = record.result.get("thresholds") if record else None
    return {name: float(str(value)) for name, value in found.items()} if isinstance(found, dict) else {}
