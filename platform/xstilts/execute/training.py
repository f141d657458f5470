"""The bodies of steps that train: pretraining, and fine-tuning on one task or on a mixture of them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from xstilts.evaluate import predict as predicting
from xstilts.evaluate import score as scoring
from xstilts.execute import inputs
from xstilts.execute.backends import Event
from xstilts.execute.machine import Paced, checkpoints_of, device_of, layout_of, prediction_batch, tidy
from xstilts.execute.steps import Outcome, Work
from xstilts.families import code_of, columns, reading
from xstilts.families import encoder as encoders
from xstilts.families.base import Batch, Example, FamilyCode, Feature, Length
from xstilts.families.encoder import TaskModel
from xstilts.frozen import Json
from xstilts.plan.step import MlmPart, PretrainBody, TrainBody
from xstilts.tasks.task import Family, Rows, Task
from xstilts.train import loop, mixture, pretrain
from xstilts.train.batches import Batches, FineTuning


@tidy
def run_pretrain(work: Work) -> Outcome:
    """Tokenizer and encoder from raw text."""
    body = work.step.body
    assert isinstance(body, PretrainBody)
    with work.timed("load"):
        texts = {
            rows.language: [row["text"] for row in reading.read(rows, work.site.data_root)]
            for rows in body.corpora
        }
    with work.timed("compute"):
        made = pretrain.pretrain(
            texts,
            body.spec,
            layout=layout_of(work),
            reporter=Paced(work),
            checkpoints=checkpoints_of(work),
            note=work.note,
            team=work.team,
        )
    if not work.team.first:
        return Outcome()
    with work.timed("save"):
        folder = work.scratch / "model"
        encoders.save(made.encoder, made.tokenizer, folder)
        outcome = _trained(work, made.outcome, body.spec.precision)
        outcome.files |= _model_files(folder)
    return outcome


@dataclass(frozen=True, slots=True)
class Lesson:
    """One task of a training, ready to be learnt: its rows in the family's words and as features."""

    task: Task
    """With its labels settled."""
    rows: Rows
    selection_rows: Rows
    watched: tuple[Rows, ...]
    """Rows that choose instead of `selection_rows`, where there are any."""
    length: Length
    effective_batch: int
    fraction: float = 1.0
    subset_seed: int = 0

    @property
    def code(self) -> FamilyCode:
        """Of the task's family."""
        return code_of(self.task.family)


@tidy
def run_train(work: Work) -> Outcome:
    """A whole encoder and a fresh head for every task, fine-tuned."""
    body = work.step.body
    assert isinstance(body, TrainBody)
    layout = layout_of(work)
    with work.timed("load"):
        folder = inputs.model_folder(work, "encoder", body.encoder)
        make = encoders.load if not body.untrained else lambda where: encoders.untrained(where, body.seed)
        encoder, tokenizer = make(folder)
        lessons = _lessons(work, body)
        encoders.check_length(encoder, max(lesson.length.max_length for lesson in lessons))
        course = _course(work, body, lessons, encoder, tokenizer, layout)
    met: list[Json] = []
    with work.timed("compute"):
        done = loop.run(
            course.model,
            course.objective,
            course.batches,
            loop.Optimisation.of_training(body.settings, course.batches.steps),
            seed=body.seed,
            layout=layout,
            assess=course.assess,
            selection=body.selection,
            checkpoints=checkpoints_of(work),
            reporter=Paced(work),
            note=work.note,
            team=work.team,
            rungs=work.terms.rungs,
            on_rung=lambda rung: _tell_rung(work, rung, met),
        )
    if not work.team.first:
        return Outcome()
    with work.timed("save"):
        outcome = _trained(work, done, body.settings.precision)
        encoders.save(encoder, tokenizer, work.scratch / "model")
        outcome.files |= _model_files(work.scratch / "model")
        for name, head in course.heads.items():
            path = work.scratch / f"{name}.safetensors"
            save_file(head.state_dict(), path)
            outcome.files[path.name] = path
    if lessons[0].task.open_labels:
        outcome.result["labels"] = list(lessons[0].task.labels)
    if met:  # a search that goes on after its process died prunes by them
        outcome.result["rungs"] = met
    outcome.selection = _selection(body, done)
    return outcome


def _tell_rung(work: Work, rung: loop.Rung, met: list[Json]) -> None:
    met.append([rung.fraction, rung.value])
    metrics = ((rung.metric, rung.value),)
    label, attempt = work.step.label, work.attempt
    work.listen(Event(label, "rung", attempt, rung.fraction, metrics, rung.step, time.time()))


@dataclass(frozen=True, slots=True)
class Course:
    """What the loop is given."""

    model: nn.Module
    objective: loop.Objective
    batches: Batches
    assess: Callable[[], dict[str, float]]
    heads: Mapping[str, nn.Module]
    """File name, without its ending -> a head to be kept."""


def _course(
    work: Work, body: TrainBody, lessons: Sequence[Lesson], encoder: Any, tokenizer: Any, layout: loop.Layout
) -> Course:
    if body.mixing is not None:
        return _mixed(work, body, lessons, encoder, tokenizer, layout)
    (lesson,) = lessons
    code = lesson.code
    model = TaskModel(encoder, encoders.fresh_head(code, lesson.task, encoder, body.seed))
    batches = FineTuning(
        _features(work, lesson, tokenizer),
        body.settings.epochs,
        lesson.effective_batch,
        layout.per_device_batch,
        body.seed,
        _collated(code, tokenizer.pad_token_id),
        mixture.whole(code),
    )
    heads = {} if model.head is None else {"head": model.head}
    assess = _assessment(work, lesson, model, tokenizer, body.selection.first, body.settings.precision)
    return Course(model, code.loss, batches, assess, heads)


def _mixed(
    work: Work, body: TrainBody, lessons: Sequence[Lesson], encoder: Any, tokenizer: Any, layout: loop.Layout
) -> Course:
    """Several tasks, one of them drawn for every optimiser step; the checkpoint is chosen by their mean."""
    assert body.mixing is not None
    heads = {
        lesson.task.name: encoders.fresh_head(lesson.code, lesson.task, encoder, body.seed)
        for lesson in lessons
    }
    features = {lesson.task.name: _features(work, lesson, tokenizer) for lesson in lessons}
    components: list[mixture.Ingredient] = [
        mixture.Component(
            name=lesson.task.name,
            code=lesson.code,
            features=features[lesson.task.name],
            effective_batch=lesson.effective_batch,
            collate=_collated(lesson.code, tokenizer.pad_token_id),
            size=len({feature.example for feature in features[lesson.task.name]}),
        )
        for lesson in lessons
    ]
    if body.mixing.mlm is not None:
        components.append(_mlm(work, body.mixing.mlm, tokenizer))
        heads[components[-1].name] = mixture.mlm_head(encoder, body.seed)
    model = mixture.MixtureModel(encoder, heads)
    made = mixture.Mixture(
        components, body.settings.epochs, layout.per_device_batch, body.seed, body.mixing.cap
    )
    first, precision = body.selection.first, body.settings.precision
    parts = {
        name: _assessment(work, lesson, model.view(name), tokenizer, first, precision)
        for name, lesson in ((lesson.task.name, lesson) for lesson in lessons)
    }
    kept = {f"head.{name}": head for name, head in heads.items() if head is not None}
    return Course(model, made.loss, made, mixture.mean_assessment(parts), kept)


def _mlm(work: Work, part: MlmPart, tokenizer: Any) -> mixture.MlmComponent:
    texts = {}
    for rows in part.corpora:
        # An article of Wikipedia is many lines; one line is one example.
        lines = (line for row in reading.read(rows, work.site.data_root) for line in row["text"].splitlines())
        texts[rows.language] = list(islice((line for line in lines if line.strip()), rows.first))
    return mixture.MlmComponent(
        texts,
        tokenizer,
        effective_batch=part.effective_batch,
        max_length=part.max_length,
        exponent=part.exponent,
        counts=dict(zip(texts, part.counts, strict=True)) if part.counts else None,
        share=part.mask,
    )


def _collated(code: FamilyCode, pad_id: int) -> Callable[[Sequence[Feature]], Batch]:
    return lambda chosen: code.collate(chosen, pad_id)


def _lessons(work: Work, body: TrainBody) -> list[Lesson]:
    """The body's own task first, then those that it is mixed with."""
    settings, data = body.settings, work.site.data_root
    own = Lesson(
        task=inputs.settled(body.task, (body.rows, body.selection_rows), data),
        rows=body.rows,
        selection_rows=body.selection_rows,
        watched=body.target_dev,
        length=Length(settings.max_length, settings.doc_stride),
        effective_batch=settings.effective_batch,
        fraction=settings.fraction,
        subset_seed=settings.subset_seed,
    )
    parts = () if body.mixing is None else body.mixing.parts
    others = [
        Lesson(
            task=inputs.settled(part.task, (part.rows, part.selection_rows), data),
            rows=part.rows,
            selection_rows=part.selection_rows,
            watched=(),
            length=Length(part.max_length, part.doc_stride),
            effective_batch=part.effective_batch,
            fraction=part.fraction,
            subset_seed=part.subset_seed,
        )
        for part in parts
    ]
    return [own, *others]


def _features(work: Work, lesson: Lesson, tokenizer: Any) -> list[Any]:
    data, made = work.site.data_root, work.made()
    features = inputs.features(lesson.task, lesson.rows, tokenizer, lesson.length, True, data, made)
    if lesson.fraction == 1:
        return features
    count = len(inputs.examples(lesson.task, lesson.rows, data, made))
    chosen = set(reading.nested_subset(count, lesson.fraction, lesson.subset_seed))
    return [feature for feature in features if feature.example in chosen]


def _assessment(
    work: Work, lesson: Lesson, model: nn.Module, tokenizer: Any, first: int, precision: str
) -> Callable[[], dict[str, float]]:
    """Evaluation on the selection rows: the task's metrics, and what the commonest label would get. Where
    several languages are watched, the mean over them."""
    several = [
        _assess_rows(work, lesson, rows.model_copy(update={"first": first}), model, tokenizer, precision)
        for rows in lesson.watched or (lesson.selection_rows,)
    ]
    if len(several) == 1:
        return several[0]

    def assess() -> dict[str, float]:
        found = [one() for one in several]
        return {name: sum(each[name] for each in found) / len(found) for name in found[0]}

    return assess


def _assess_rows(
    work: Work, lesson: Lesson, rows: Rows, model: nn.Module, tokenizer: Any, precision: str
) -> Callable[[], dict[str, float]]:
    code, task, language = lesson.code, lesson.task, rows.language
    examples = inputs.examples(task, rows, work.site.data_root)
    features = inputs.features(task, rows, tokenizer, lesson.length, False, work.site.data_root)
    device, batch = device_of(work.site.execution.device), prediction_batch(work)
    majority = majority_of(code, task, examples, language)

    def assess() -> dict[str, float]:
        predictions = predicting.predict(
            model, code, task, examples, tokenizer, lesson.length,
            batch, device, precision, None, features,
        )  # fmt: skip
        _, metrics = scoring.score(code, task, examples, predicting.by_item(predictions), language)
        return metrics if majority is None else {**metrics, loop.MAJORITY: majority}

    return assess


def majority_of(code: FamilyCode, task: Task, examples: Sequence[Example], language: str) -> float | None:
    """The headline metric of always predicting the commonest label; None where there is no such thing."""
    if task.family not in (Family.CLASSIFICATION, Family.MULTIPLE_CHOICE, Family.TAGGING):
        return None
    tagging = task.family is Family.TAGGING
    golds = [
        gold
        for example in examples
        for gold in (columns.require_gold(task, example, "score") if tagging else [example.gold])
    ]
    label = task.labels[Counter(golds).most_common(1)[0][0]]
    constant = {
        example.item: [label] * len(example.inputs["words"]) if tagging else label for example in examples
    }
    _, metrics = scoring.score(code, task, examples, constant, language)
    return next(iter(metrics.values()))


def _selection(body: TrainBody, done: loop.Outcome) -> dict[str, Json]:
    """What the record says of how the checkpoint was chosen."""
    rows = body.target_dev or (body.selection_rows,)
    places = [f"{each.path}/{each.config}/{each.split}" for each in rows]
    return {
        "chosen_on": body.selection.rows,
        "split": ", ".join(dict.fromkeys(places)),
        "held_out_of_training": any(each.holdout is not None for each in rows),
        "first": body.selection.first,
        "keep": body.selection.keep,
        "metric": done.metric,
        "best": done.best,
        "best_step": done.best_step,
        "kept": done.kept,
    }


def _trained(work: Work, done: loop.Outcome, precision: str) -> Outcome:
    """What every training leaves beside its model."""
    history = work.scratch / "history.jsonl"
    began = time.time() - done.seconds
    lines = []
    for row in done.history:
        metrics = {name: value for name, value in row.items() if name not in ("step", "epoch", "seconds")}
        at = round(began + row["seconds"], 2)
        lines.append({"step": int(row["step"]), "epoch": row["epoch"], "time": at, "metrics": metrics})
    history.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return Outcome(
        files={"history": history},
        result={
            "steps": done.steps,
            "final_loss": done.final_loss,
            "resumed_at": done.resumed_at,
            "train_seconds": round(done.seconds, 3),
        },
        layout=layout_of(work).to_record(precision),
        flags=done.flags,
    )


def _model_files(folder: Path) -> dict[str, Path]:
    return {f"model/{path.name}": path for path in sorted(folder.iterdir()) if path.is_file()}
