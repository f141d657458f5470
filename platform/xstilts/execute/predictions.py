"""The bodies of steps that predict and score: a target in all its languages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from safetensors.torch import load_file

from xstilts.errors import DataError, LanguageError
from xstilts.evaluate import dense
from xstilts.evaluate import predict as predicting
from xstilts.evaluate import score as scoring
from xstilts.execute import inputs
from xstilts.execute.machine import device_of, layout_of, prediction_batch, tidy
from xstilts.execute.steps import Outcome, Work
from xstilts.families import bitext_mining, code_of
from xstilts.families import encoder as encoders
from xstilts.families.base import Example, FamilyCode, Length, Prediction
from xstilts.families.encoder import TaskModel
from xstilts.plan.step import PredictBody, ScoreBody
from xstilts.record.schema import Score
from xstilts.tasks.task import Family, Rows, Task
from xstilts.train import loop

CALIBRATION = "calibration/"
"""Before the language, in the names of predictions that only a threshold is found on."""


@tidy
def run_predict(work: Work) -> Outcome:
    """Predictions in every language of the task, and in dev where test is cut at a threshold found there."""
    body = work.step.body
    assert isinstance(body, PredictBody)
    code = code_of(body.task.family)
    execution = work.site.execution
    torch.set_num_threads(execution.threads)
    with work.timed("load"):
        model, tokenizer = _trained_model(work, body, code)
        encoders.check_length(model.encoder, body.max_length)
        model.to(device_of(execution.device))
    outcome = Outcome(layout=layout_of(work).to_record(body.precision))
    asked = [(f"predictions/{rows.language}", rows) for rows in body.rows]
    asked += [(f"{CALIBRATION}{rows.language}", rows) for rows in body.calibration]
    make = _searched if body.candidates else _one_by_one
    for name, predictions in make(work, body, code, model, tokenizer, asked):
        path = work.scratch / f"{name}.parquet"
        predicting.write_predictions(path, predictions)
        outcome.files[name] = path
    return outcome


Asked = Sequence[tuple[str, Rows]]


def _one_by_one(
    work: Work, body: PredictBody, code: FamilyCode, model: TaskModel, tokenizer: Any, asked: Asked
) -> Iterator[tuple[str, list[Prediction]]]:
    """Predictions of one language after another."""
    length = Length(body.max_length, body.doc_stride)
    device = device_of(work.site.execution.device)
    for number, (name, rows) in enumerate(asked):
        with work.timed("load"):
            examples = _examples(work, body.task, rows)
            features = inputs.features(body.task, rows, tokenizer, length, False, work.site.data_root)
        with work.timed("compute"):
            predictions = predicting.predict(
                model, code, body.task, examples, tokenizer, length,
                prediction_batch(work), device, body.precision, _told(work, number, len(asked)), features,
            )  # fmt: skip
        yield name, predictions


def _searched(
    work: Work, body: PredictBody, code: FamilyCode, model: TaskModel, tokenizer: Any, asked: Asked
) -> Iterator[tuple[str, list[Prediction]]]:
    """Predictions of all languages in one pass over the candidates, which are encoded once."""
    length = Length(body.max_length, body.doc_stride)
    with work.timed("load"):
        queries = {name: _examples(work, body.task, rows) for name, rows in asked}
        candidates = inputs.examples(body.task, body.candidates[0], work.site.data_root)
    with work.timed("compute"):
        found = dense.search(
            model, code, body.task, queries, candidates, tokenizer, length,
            prediction_batch(work), device_of(work.site.execution.device), body.precision, _told(work, 0, 1),
        )  # fmt: skip
    yield from found.items()


def run_score(work: Work) -> Outcome:
    """Item statistics and metrics of every language."""
    body = work.step.body
    assert isinstance(body, ScoreBody)
    code = code_of(body.task.family)
    files = work.input_files("predictions", "predictions/")
    outcome = Outcome()
    scores: list[Score] = []
    thresholds = _thresholds(work, body) if body.task.family is Family.BITEXT_MINING else {}
    for rows in body.rows:
        with work.timed("load"):
            examples = _examples(work, body.task, rows)
            if rows.language in thresholds:
                mined = predicting.read_scored(files[rows.language])
                predictions = bitext_mining.kept(mined, thresholds[rows.language])
            else:
                predictions = predicting.read_predictions(files[rows.language])
        with work.timed("compute"):
            items, metrics = _scored(code, body.task, examples, predictions, rows.language)
        path = work.scratch / "items" / f"{rows.language}.parquet"
        scoring.write_items(path, items)
        outcome.files[f"items/{rows.language}"] = path
        scores += [
            Score(
                task=body.task.name,
                language=rows.language,
                split=rows.split,
                metric=metric,
                value=value,
                n=len(items),
            )
            for metric, value in metrics.items()
        ]
    outcome.scores = tuple(scores)
    if thresholds:
        outcome.result["thresholds"] = {language: value for language, value in sorted(thresholds.items())}
    return outcome


def _scored(
    code: FamilyCode, task: Task, examples: Sequence[Example], predictions: dict[str, Any], language: str
) -> tuple[list[dict[str, Any]], dict[str, float]]:
    try:
        return scoring.score(code, task, examples, predictions, language)
    except DataError as problem:
        raise LanguageError.of(task.name, language, problem) from problem


def _thresholds(work: Work, body: ScoreBody) -> dict[str, float]:
    """Where mined pairs are cut: on dev, or on what is reported where that is dev."""
    prefix = CALIBRATION if body.calibration else "predictions/"
    files = work.input_files("predictions", prefix)
    found = {}
    for rows in body.calibration or body.rows:
        examples = _examples(work, body.task, rows)
        found[rows.language] = bitext_mining.threshold(examples, predicting.read_scored(files[rows.language]))
    return found


def _examples(work: Work, task: Task, rows: Rows) -> list[Example]:
    """The rows of one language; what is wrong with them is wrong with this language alone."""
    try:
        return inputs.examples(task, rows, work.site.data_root)
    except DataError as problem:
        raise LanguageError.of(task.name, rows.language, problem) from problem


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


def _told(work: Work, number: int, languages: int) -> Callable[[int, int], None]:
    def told(done: int, total: int) -> None:
        work.tell((number + done / max(total, 1)) / languages)
        if work.should_stop():
            raise loop.Interrupted(f"stopped in language {number + 1} of {languages}")

    return told
