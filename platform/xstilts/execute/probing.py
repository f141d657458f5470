"""The body of the probe step: measures of one encoder, as a tidy table, and vectors that others compare.

Outputs: `measures`, rows of COLUMNS; and for text and gradients `embedding`, a vector a layer, which
`report/measures.py` compares with those of other tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import torch
from safetensors.torch import load_file

from xstilts.errors import DataError
from xstilts.evaluate import embeddings, probe
from xstilts.evaluate.embeddings import Array, Reader
from xstilts.evaluate.predict import save
from xstilts.execute import inputs
from xstilts.execute.machine import device_of, layout_of, prediction_batch, tidy
from xstilts.execute.steps import Outcome, Work
from xstilts.families import code_of, reading, subwords
from xstilts.families import encoder as encoders
from xstilts.families.base import Example, Feature, Length
from xstilts.families.encoder import TaskModel
from xstilts.plan.step import ProbeBody
from xstilts.tasks.task import Rows, Task
from xstilts.train.loop import Interrupted

COLUMNS = ("measure", "layer", "language", "task", "value", "n")
"""`layer`: null where a measure has none; `n`: sentences, words or examples that the value is over."""

UNITS = 4_000
"""Labelled words or spans at most; a hash chooses. LogME of so many at XLM-R Large's width, with 17 labels,
takes 1.2 s on one core, most of it the singular values; few-shot probes take as long."""

Row = dict[str, Any]


@tidy
def run_probe(work: Work) -> Outcome:
    """Measures of what the step's encoder is made of, on its rows."""
    body = work.step.body
    assert isinstance(body, ProbeBody)
    torch.set_num_threads(work.site.execution.threads)
    outcome = Outcome(layout=layout_of(work).to_record(body.precision))
    kinds = {"alignment": _alignment, "fit": _fit, "text": _text, "gradients": _gradients}
    rows = kinds[body.what](work, body, outcome)
    path = work.scratch / "measures.parquet"
    save(_table([row for row in rows if math.isfinite(row["value"])]), path)
    outcome.files["measures"] = path
    outcome.result = {
        "measures": len(rows),
        "undefined": sum(not math.isfinite(row["value"]) for row in rows),
    }
    return outcome


def _alignment(work: Work, body: ProbeBody, outcome: Outcome) -> list[Row]:
    """Translations in each language beside the source language, layer by layer."""
    model, tokenizer = _encoder(work, body)
    top = embeddings.depth(model)
    layers = embeddings.layer_numbers(body.layers, top)
    found: list[Row] = []
    known: dict[tuple[str, ...], Array] = {}
    for number, rows in enumerate(body.rows):
        with work.timed("load"):
            pairs = _pairs(work, body, rows)
        with work.timed("compute"):
            reader = _reader(work, body, model, tokenizer, number, len(body.rows))
            sides = [_sentences(tokenizer, [pair[side] for pair in pairs], body) for side in (0, 1)]
            own = embeddings.pooled(reader, sides[1], layers)
            # Every language is beside the same sentences of the source language, where all have them.
            texts = tuple(pair[0] for pair in pairs)
            if texts not in known:
                known = {texts: embeddings.pooled(reader, sides[0], layers)}
            found += _aligned(body, rows.language, layers, known[texts], own, sides)
    return found


def _aligned(
    body: ProbeBody, language: str, layers: Sequence[int], source: Array, own: Array,
    sides: Sequence[Sequence[Feature]],
) -> list[Row]:  # fmt: skip
    found: list[Row] = []

    def add(measure: str, layer: int | None, value: float) -> None:
        found.append(_row(measure, layer, language, body.task, value, own.shape[1]))

    for place, layer in enumerate(layers):
        if "cka" in body.measures:
            add("cka", layer, probe.cka(source[place], own[place]))
            add("cka_debiased", layer, probe.debiased_cka(source[place], own[place]))
        if "retrieval" in body.measures:
            add("retrieval", layer, probe.retrieval(source[place], own[place]))
    if "vocabulary" in body.measures:
        ids = [[feature.input_ids[0] for feature in side] for side in sides]
        marks = set.intersection(
            *(set(one) for side in ids for one in side)
        )  # <s> and </s>: in every sentence
        bare = [[[part for part in one if part not in marks] for one in side] for side in ids]
        add("vocabulary", None, probe.vocabulary_overlap(*bare))
    return found


def _fit(work: Work, body: ProbeBody, outcome: Outcome) -> list[Row]:
    """How well frozen vectors tell a task's labels."""
    model, tokenizer = _encoder(work, body)
    with work.timed("load"):
        task, examples = _sample(work, body)
        length = Length(body.max_length, body.doc_stride)
        own, units = embeddings.labelled(code_of(task.family), task, examples, tokenizer, length)
        units = [units[one] for one in reading.nested_subset(len(units), UNITS / max(len(units), 1), 0)]
    with work.timed("compute"):
        vectors = embeddings.of_units(_reader(work, body, model, tokenizer, 0, 1), own, units)
        labels = torch.tensor([unit.label for unit in units]).numpy()
        layer, language = embeddings.depth(model), body.rows[0].language
        found = []
        if "logme" in body.measures:
            value = probe.logme(vectors, labels)
            found.append(_row("logme", layer, language, task, value, len(units)))
        for shots in body.shots:
            value, n = probe.few_shot(vectors, labels, shots, body.draws)
            found.append(_row(f"few_shot_{shots}", layer, language, task, value, n))
    return found


def _text(work: Work, body: ProbeBody, outcome: Outcome) -> list[Row]:
    """The mean over examples of the mean last hidden state (TextEmb of Vu et al. 2020)."""
    model, tokenizer = _encoder(work, body)
    with work.timed("load"):
        task, examples = _sample(work, body)
        length = Length(body.max_length, body.doc_stride)
        features = code_of(task.family).encode(task, examples, tokenizer, length, False)
        own = embeddings.sequences(features)
    with work.timed("compute"):
        top = embeddings.depth(model)
        reader = _reader(work, body, model, tokenizer, 0, 1)
        vector = embeddings.pooled(reader, own, (top,)).astype("float64").mean(1)
    _keep(work, outcome, [top], vector, len(examples))
    return []


def _gradients(work: Work, body: ProbeBody, outcome: Outcome) -> list[Row]:
    """What a trained model's loss wants changed in every hidden state (TaskEmb of Vu et al. 2020)."""
    device = device_of(work.site.execution.device)
    with work.timed("load"):
        task, examples = _sample(work, body)
        code = code_of(task.family)
        encoder, tokenizer = encoders.load(inputs.model_folder(work, "model", None))
        model = TaskModel(encoder, encoders.fresh_head(code, task, encoder, 0))
        kept = work.input_files("model", "head.")
        if model.head is None or "safetensors" not in kept:
            remedy = "remove that step from the store and run again"
            raise DataError(f"the model that {work.step.label} reads has no head", remedy)
        model.head.load_state_dict(load_file(kept["safetensors"]))
        model.to(device)
        length = Length(body.max_length, body.doc_stride)
        features = code.encode(task, examples, tokenizer, length, True)
    with work.timed("compute"):
        # Gradients are kept as in training, so a training's batch is what fits.
        batch = layout_of(work).per_device_batch
        found = embeddings.gradients(
            model, code, features, tokenizer.pad_token_id, batch, device, _told(work, 0, 1)
        )
    _keep(work, outcome, range(len(found)), found, len(examples))
    return []


def _encoder(work: Work, body: ProbeBody) -> tuple[TaskModel, Any]:
    """The encoder that is measured, on its device, and its tokenizer."""
    with work.timed("load"):
        folder = inputs.model_folder(work, "encoder", body.encoder)
        if body.untrained_seed is not None:
            encoder, tokenizer = encoders.untrained(folder, body.untrained_seed)
        else:
            encoder, tokenizer = encoders.load(folder)
        encoders.check_length(encoder, body.max_length)
        model = TaskModel(encoder)
        model.to(device_of(work.site.execution.device))
    return model, tokenizer


def _reader(work: Work, body: ProbeBody, model: TaskModel, tokenizer: Any, number: int, parts: int) -> Reader:
    device = device_of(work.site.execution.device)
    told = _told(work, number, parts)
    return Reader(model, tokenizer.pad_token_id, prediction_batch(work), device, body.precision, told)


def _pairs(work: Work, body: ProbeBody, rows: Rows) -> list[tuple[str, str]]:
    """Distinct sentences of the source language and their translations; a text that stands on its side twice
    would have two right answers."""
    found, seen = [], (set[str](), set[str]())
    for pair in _translations(work, body, rows):
        if all(text.strip() and text not in known for text, known in zip(pair, seen, strict=True)):
            found.append(pair)
            for text, known in zip(pair, seen, strict=True):
                known.add(text)
            if len(found) == body.samples:
                break
    if len(found) < 2:
        place = f"{body.task.name} in {rows.language}"
        raise DataError(f"{place} has {len(found)} pairs of translations", "name another as probe.parallel")
    return found


def _translations(work: Work, body: ProbeBody, rows: Rows) -> Iterator[tuple[str, str]]:
    own = inputs.examples(body.task, rows, work.site.data_root)
    if body.source is None:
        yield from ((one.inputs["query"], one.inputs["document"]) for one in own)
        return
    source = inputs.examples(body.task, body.source, work.site.data_root)
    translated = {one.parallel_id: _sentence(one) for one in own}
    for one in source:
        if one.parallel_id in translated:
            yield _sentence(one), translated[one.parallel_id]


def _sentence(example: Example) -> str:
    """What of an example is one text: the first of a pair, the question, the words of a tagged sentence."""
    if "words" in example.inputs:
        return " ".join(example.inputs["words"])
    return str(
        next(
            example.inputs[word] for word in ("text", "question", "query", "first") if word in example.inputs
        )
    )


def _sentences(tokenizer: Any, texts: Sequence[str], body: ProbeBody) -> list[Feature]:
    encoded = subwords.encode_texts(tokenizer, texts, None, body.max_length)
    kept = (subwords.types_kept((types,)) for _, types in encoded)
    return [
        Feature(number, (ids,), None, keep)
        for number, ((ids, _), keep) in enumerate(zip(encoded, kept, strict=True))
    ]


def _sample(work: Work, body: ProbeBody) -> tuple[Task, list[Example]]:
    """The task with its labels, and training examples that a hash chooses: the same for every encoder."""
    data = work.site.data_root
    task = inputs.settled(body.task, body.rows, data)
    examples = inputs.examples(task, body.rows[0], data)
    chosen = reading.nested_subset(len(examples), body.samples / len(examples), 0)
    return task, [examples[one] for one in chosen]


def _keep(work: Work, outcome: Outcome, layers: Sequence[int], vectors: Array, n: int) -> None:
    """Leaves a vector a layer."""
    path = work.scratch / "embedding.parquet"
    columns = {
        "layer": pa.array([int(layer) for layer in layers], pa.int64()),
        "vector": pa.array([vector.tolist() for vector in vectors], pa.list_(pa.float64())),
        "n": pa.array([n] * len(vectors), pa.int64()),
    }
    save(pa.table(columns), path)
    outcome.files["embedding"] = path


def _row(measure: str, layer: int | None, language: str, task: Task, value: float, n: int) -> Row:
    return dict(zip(COLUMNS, (measure, layer, language, task.name, float(value), n), strict=True))


def _table(rows: Sequence[Row]) -> pa.Table:
    kinds = (pa.string(), pa.int64(), pa.string(), pa.string(), pa.float64(), pa.int64())
    return pa.table(
        {name: pa.array([row[name] for row in rows], kind) for name, kind in zip(COLUMNS, kinds, strict=True)}
    )


def _told(work: Work, number: int, parts: int) -> Callable[[int, int], None]:
    def told(done: int, total: int) -> None:
        work.tell((number + min(done / max(total, 1), 1.0)) / parts)
        if work.should_stop():
            raise Interrupted(f"stopped in part {number + 1} of {parts}")

    return told
