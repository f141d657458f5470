"""What each kind of step does, given its `Work`: each reads as the list of its parts."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from xstilts.errors import DataError
from xstilts.evaluate import predict as predicting
from xstilts.evaluate import score as scoring
from xstilts.execute import inputs
from xstilts.execute.steps import Outcome, Work
from xstilts.families import code_of, columns, reading
from xstilts.families import encoder as encoders
from xstilts.families.base import Example, FamilyCode, Length
from xstilts.families.encoder import TaskModel
from xstilts.plan.step import PredictBody, PretrainBody, ScoreBody, TrainBody
from xstilts.record.schema import Score
from xstilts.tasks.task import Family, Task
from xstilts.train import loop, pretrain
from xstilts.train.batches import FineTuning
from xstilts.train.checkpoint import Checkpoints

PREDICTION_BATCH = 64
"""Features at a time when predicting; no gradients are kept, so twice the training batch fits."""


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
        )
    with work.timed("save"):
        folder = work.scratch / "model"
        encoders.save(made.encoder, made.tokenizer, folder)
        outcome = _trained(work, made.outcome, body.spec.precision)
        outcome.files |= _model_files(folder)
    return outcome


def run_train(work: Work) -> Outcome:
    """A whole encoder and a fresh head, fine-tuned on the source language."""
    body = work.step.body
    assert isinstance(body, TrainBody)
    code = code_of(body.task.family)
    with work.timed("load"):
        folder = inputs.model_folder(work, "encoder", body.encoder)
        make = encoders.load if not body.untrained else lambda where: encoders.untrained(where, body.seed)
        encoder, tokenizer = make(folder)
        encoders.check_length(encoder, body.settings.max_length)
        model = TaskModel(encoder, encoders.fresh_head(code, body.task, encoder, body.seed))
        features = _training_features(work, body, tokenizer)
    layout = layout_of(work)
    batches = FineTuning(
        features,
        body.settings.epochs,
        body.settings.effective_batch,
        layout.per_device_batch,
        body.seed,
        lambda chosen: code.collate(chosen, tokenizer.pad_token_id),
    )
    with work.timed("compute"):
        done = loop.run(
            model,
            code.loss,
            batches,
            loop.Optimisation.of_training(body.settings, batches.steps),
            seed=body.seed,
            layout=layout,
            assess=_assessment(work, body, model, tokenizer),
            selection=body.selection,
            checkpoints=checkpoints_of(work),
            reporter=Paced(work),
            note=work.note,
        )
    with work.timed("save"):
        outcome = _trained(work, done, body.settings.precision)
        encoders.save(encoder, tokenizer, work.scratch / "model")
        outcome.files |= _model_files(work.scratch / "model")
        if model.head is not None:
            save_file(model.head.state_dict(), work.scratch / "head.safetensors")
            outcome.files["head.safetensors"] = work.scratch / "head.safetensors"
    outcome.selection = {
        "split": f"{body.selection_rows.path}/{body.selection_rows.config}/{body.selection_rows.split}",
        "held_out_of_training": body.selection_rows.holdout is not None,
        "first": body.selection.first,
        "keep": body.selection.keep,
        "metric": done.metric,
        "best": done.best,
        "best_step": done.best_step,
        "kept": done.kept,
    }
    return outcome


def run_predict(work: Work) -> Outcome:
    """Predictions in every language of the task."""
    body = work.step.body
    assert isinstance(body, PredictBody)
    code = code_of(body.task.family)
    execution = work.site.execution
    device = device_of(execution.device)
    torch.set_num_threads(execution.threads)
    with work.timed("load"):
        model, tokenizer = _trained_model(work, body, code)
        encoders.check_length(model.encoder, body.max_length)
        model.to(device)
    outcome = Outcome(layout=layout_of(work).to_record(body.precision))
    length = Length(body.max_length, body.doc_stride)
    for number, rows in enumerate(body.rows):
        with work.timed("load"):
            examples = inputs.examples(body.task, rows, work.site.data_root)
            features = inputs.features(body.task, rows, tokenizer, length, False, work.site.data_root)
        with work.timed("compute"):
            predictions = predicting.predict(
                model,
                code,
                body.task,
                examples,
                tokenizer,
                length,
                PREDICTION_BATCH,
                device,
                body.precision,
                _told(work, number, len(body.rows)),
                features,
            )
        path = work.scratch / "predictions" / f"{rows.language}.parquet"
        predicting.write_predictions(path, predictions)
        outcome.files[f"predictions/{rows.language}"] = path
    return outcome


def run_score(work: Work) -> Outcome:
    """Item statistics and metrics of every language; a language without predictions is left out and noted."""
    body = work.step.body
    assert isinstance(body, ScoreBody)
    code = code_of(body.task.family)
    files = work.input_files("predictions", "predictions/")
    outcome = Outcome()
    scores: list[Score] = []
    for rows in body.rows:
        if rows.language not in files:
            work.note(f"no predictions in {rows.language}")
            continue
        with work.timed("load"):
            examples = inputs.examples(body.task, rows, work.site.data_root)
            predictions = predicting.read_predictions(files[rows.language])
        with work.timed("compute"):
            items, metrics = scoring.score(code, body.task, examples, predictions, rows.language)
        path = work.scratch / "items" / f"{rows.language}.parquet"
        scoring.write_items(path, items)
        outcome.files[f"items/{rows.language}"] = path
        scores += [
            Score(
                task=body.task.name,
                language=rows.language,
                split=body.split,
                metric=metric,
                value=value,
                n=len(items),
            )
            for metric, value in metrics.items()
        ]
    outcome.scores = tuple(scores)
    return outcome


def run_search(work: Work) -> Outcome:
    """Chosen settings, by Ray Tune and Optuna."""
    from xstilts.execute.ray_backend import import_ray

    import_ray()  # before `search` does: what its processes know each other by is read at the first import
    from xstilts.execute import search

    return search.run(work)


BODIES: dict[str, Callable[[Work], Outcome]] = {
    "pretrain": run_pretrain,
    "train": run_train,
    "search": run_search,
    "predict": run_predict,
    "score": run_score,
}


class Paced:
    """A reporter that passes progress on and asks for a checkpoint every so many seconds."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._every = work.site.execution.checkpoint_seconds
        self._last: float | None = None

    def report(self, progress: loop.Progress, metrics: dict[str, float]) -> loop.Signal:
        """STOP when the driver wants it, CHECKPOINT when it is time, else GO."""
        signal = self._work.report(progress, metrics)
        if self._last is None:
            self._last = progress.seconds
        if signal is loop.Signal.GO and progress.seconds - self._last >= self._every:
            self._last = progress.seconds
            return loop.Signal.CHECKPOINT
        return signal


def device_of(word: str) -> str:
    """auto is a GPU when there is one."""
    if word == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return word


def layout_of(work: Work) -> loop.Layout:
    """Where this attempt runs."""
    execution = work.site.execution
    return loop.Layout(
        device=device_of(execution.device),
        per_device_batch=execution.per_device_batch,
        threads=execution.threads,
    )


def checkpoints_of(work: Work) -> Checkpoints:
    """The step's checkpoints, written under this attempt."""
    return Checkpoints(work.store, work.paths, work.attempt, work.scratch / "checkpoints")


def _training_features(work: Work, body: TrainBody, tokenizer: Any) -> list[Any]:
    settings = body.settings
    length = Length(settings.max_length, settings.doc_stride)
    data = work.site.data_root
    features = inputs.features(body.task, body.rows, tokenizer, length, True, data)
    if settings.fraction == 1:
        return features
    count = len(inputs.examples(body.task, body.rows, data))
    chosen = set(reading.nested_subset(count, settings.fraction, settings.subset_seed))
    return [feature for feature in features if feature.example in chosen]


def _assessment(
    work: Work, body: TrainBody, model: nn.Module, tokenizer: Any
) -> Callable[[], dict[str, float]]:
    """Evaluation on the selection rows: the task's metrics, and what the commonest label would get."""
    code = code_of(body.task.family)
    rows = body.selection_rows.model_copy(update={"first": body.selection.first})
    examples = inputs.examples(body.task, rows, work.site.data_root)
    length = Length(body.settings.max_length, body.settings.doc_stride)
    features = inputs.features(body.task, rows, tokenizer, length, False, work.site.data_root)
    language = body.selection_rows.language
    device = device_of(work.site.execution.device)
    majority = majority_of(code, body.task, examples, language)

    def assess() -> dict[str, float]:
        predictions = predicting.predict(
            model,
            code,
            body.task,
            examples,
            tokenizer,
            length,
            PREDICTION_BATCH,
            device,
            body.settings.precision,
            None,
            features,
        )
        _, metrics = scoring.score(code, body.task, examples, predicting.by_item(predictions), language)
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


def _trained_model(work: Work, body: PredictBody, code: FamilyCode) -> tuple[TaskModel, Any]:
    """The model that predicts: a trained one with its head, or an encoder used as it is."""
    folder = inputs.model_folder(work, "model", body.encoder)
    if body.untrained_seed is not None:
        encoder, tokenizer = encoders.untrained(folder, body.untrained_seed)
    else:
        encoder, tokenizer = encoders.load(folder)
    if body.retrieval is not None:
        return TaskModel(encoder, None, body.retrieval.layer, body.retrieval.centre), tokenizer
    head = encoders.fresh_head(code, body.task, encoder, 0)
    found = work.input_files("model", "head.")
    if head is None or "safetensors" not in found:
        raise DataError(
            f"the model of {work.step.label} has no head", "remove its step from the store and run again"
        )
    head.load_state_dict(load_file(found["safetensors"]))
    return TaskModel(encoder, head), tokenizer


def _model_files(folder: Path) -> dict[str, Path]:
    return {f"model/{path.name}": path for path in sorted(folder.iterdir()) if path.is_file()}


def _told(work: Work, number: int, languages: int) -> Callable[[int, int], None]:
    def told(done: int, total: int) -> None:
        work.tell((number + done / max(total, 1)) / languages)
        if work.should_stop():
            raise loop.Interrupted(f"stopped in language {number + 1} of {languages}")

    return told
