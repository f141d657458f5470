"""A submission from a store: one row and one seed of a plan, cut pairs, variants, and what it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xstilts.errors import DataError, UnknownName, XstiltsError
from xstilts.evaluate.official.evaluator import evaluate
from xstilts.evaluate.predict import write_predictions
from xstilts.execute.submission import Part, only, parts_of, write_submission
from xstilts.families.base import Prediction
from xstilts.plan.graph import Cell, Plan, Planned
from xstilts.plan.step import PredictBody, ScoreBody, Step
from xstilts.record.artifacts import StepPaths
from xstilts.record.local import LocalStore
from xstilts.record.schema import Output, StepRecord
from xstilts.tasks import registry
from xstilts.tasks.manifest import sha256_of
from xstilts.tasks.suites import suite
from xstilts.tasks.task import Rows

XTREME = suite("xtreme")


def hub_rows(data: Path, name: str, language: str, columns: dict[str, list[Any]]) -> Rows:
    """One language of a task's test rows, written as the hub serves them."""
    split = registry.task(name).place("test", language)
    assert split is not None
    path = data / "datasets" / split.path / split.config / f"{split.split}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return Rows(
        path=split.path, config=split.config, split=split.split, language=language, sha256=(sha256_of(path),)
    )


def bucc_rows(data: Path) -> Rows:
    """BUCC's files with two German and three English sentences."""
    split = registry.task("bucc2018").place("test", "de")
    assert split is not None
    texts = [
        "de-1\tHund\nde-2\tKatze\nde-3\tMaus\n",
        "en-1\tdog\nen-2\tcat\nen-3\tbird\n",
        "de-1\ten-1\nde-2\ten-2\n",
    ]
    for name, text in zip(split.files, texts, strict=True):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text(text, encoding="utf-8")
    return Rows(
        path=split.path, config=split.config, split=split.split, language="de", reader=split.reader,
        files=split.files, sha256=tuple(sha256_of(data / name) for name in split.files),
    )  # fmt: skip


def predicted(name: str, rows: tuple[Rows, ...], seed: int = 1) -> Step:
    """A predict step of a task."""
    body = PredictBody(task=registry.task(name), rows=rows, max_length=128, doc_stride=128, precision="fp32")
    return Step(label=f"predict-{name}-{seed}", body=body, inputs={"model": f"train-{seed}"})


def recorded(store: LocalStore, tmp: Path, step: Step, made: dict[str, list[Prediction]]) -> None:
    """The record of a predict step, with its files."""
    outputs = {}
    for language, predictions in made.items():
        local = tmp / f"{step.label}-{language}.parquet"
        write_predictions(local, predictions)
        store.upload(local, StepPaths(step.key).run("a", f"{language}.parquet"))
        outputs[f"predictions/{language}"] = Output(
            path=f"runs/a/{language}.parquet", bytes=local.stat().st_size, sha256=sha256_of(local)
        )
    record = StepRecord(
        key=step.key, kind="predict", version=1, identity={}, outputs=outputs, attempt="a", finished="-"
    )
    assert store.create(StepPaths(step.key).record, record.to_json())


def told(values: dict[str, Any], score: float = 1.0) -> list[Prediction]:
    return [Prediction(item, value, score) for item, value in values.items()]


def test_what_is_exported_evaluates(tmp_path: Path) -> None:
    data, store = tmp_path / "data", LocalStore(tmp_path / "store")
    xnli = predicted("xnli", (
        hub_rows(data, "xnli", "de", {"premise": ["a", "b"], "hypothesis": ["c", "d"], "label": [2, 0]}),
        hub_rows(data, "xnli", "sw", {"premise": ["a"], "hypothesis": ["c"], "label": [1]}),
    ))  # fmt: skip
    recorded(store, tmp_path, xnli, {"de": told({"0": "contradiction", "1": "neutral"})})
    english = ["b", "a", "b"]
    tatoeba = predicted(
        "tatoeba",
        (hub_rows(data, "tatoeba", "fr", {"source_sentence": ["x", "y", "z"], "target_sentence": english}),),
    )
    recorded(store, tmp_path, tatoeba, {"fr": told({"0": ["0"], "1": ["1"], "2": ["0", "2"]})})
    bucc = predicted("bucc2018", (bucc_rows(data),))
    mined = told({"de-1": ["en-1"]}, 1.2) + told({"de-2": ["en-3"]}, 1.1) + told({"de-3": ["en-2"]}, 0.9)
    recorded(store, tmp_path, bucc, {"de": mined})
    parts = [
        Part(step.body.task, step.body.rows, step.key, {"de": 1.0})
        for step in (xnli, tatoeba, bucc)
        if isinstance(step.body, PredictBody)
    ]
    made = write_submission(parts, store, data, tmp_path / "to", XTREME, tmp_path / "labels")
    assert {str(path.relative_to(tmp_path)) for path in made.files} == {
        f"{folder}/{name}"
        for folder in ("to", "labels")
        for name in ("xnli/test-de.tsv", "tatoeba/test-fr.tsv", "bucc2018/test-de.tsv")
    }
    assert (tmp_path / "to/tatoeba/test-fr.tsv").read_text() == "1\n0\n0\n"
    assert (tmp_path / "to/bucc2018/test-de.tsv").read_text() == "de-1\ten-1\nde-2\ten-3\n"
    assert ("xnli", "sw") in made.missing and ("udpos", "de") in made.missing and len(made.missing) == 159
    outcome = evaluate("xtreme", tmp_path / "to", tmp_path / "labels")
    assert outcome.problems == [] and outcome.missing == made.missing
    assert outcome.tasks["xnli"].languages["de"] == {"accuracy": 50}
    assert outcome.tasks["tatoeba"].languages["fr"] == {"accuracy": pytest.approx(200 / 3)}
    assert outcome.tasks["bucc2018"].languages["de"] == {"f1": 50, "precision": 50, "recall": 50}


def test_pairs_without_a_threshold_are_missing(tmp_path: Path) -> None:
    data, store = tmp_path / "data", LocalStore(tmp_path / "store")
    step = predicted("bucc2018", (bucc_rows(data),))
    recorded(store, tmp_path, step, {"de": told({"de-1": ["en-1"]})})
    part = Part(registry.task("bucc2018"), (bucc_rows(data),), step.key)
    made = write_submission([part], store, data, tmp_path / "to", XTREME)
    assert made.files == () and ("bucc2018", "de") in made.missing


def test_a_variant_gives_way_to_its_task(tmp_path: Path) -> None:
    data, store = tmp_path / "data", LocalStore(tmp_path / "store")
    columns: dict[str, list[Any]] = {"source_sentence": ["x", "y"], "target_sentence": ["a", "b"]}
    rows = (hub_rows(data, "tatoeba", "fr", columns),)
    parts = []
    for name, item in (("tatoeba_after_squad_v1", "1"), ("tatoeba", "0")):
        step = predicted(name, rows)
        recorded(store, tmp_path, step, {"fr": told({"0": [item], "1": [item]})})
        parts.append(Part(registry.task(name), rows, step.key))
    for given, wanted in ((parts, "0"), (parts[::-1], "0"), (parts[:1], "1")):
        write_submission(given, store, data, tmp_path / "to", suite("xtreme-r"))
        assert (tmp_path / "to/tatoeba/test-fr.tsv").read_text() == f"{wanted}\n" * 2


def test_a_job_of_other_targets_is_no_submission(tmp_path: Path) -> None:
    part = Part(registry.task("xcopa"), (), None)
    with pytest.raises(DataError, match="none of the job's targets is a task of xtreme"):
        write_submission([part], LocalStore(tmp_path), None, tmp_path / "to", XTREME)


def a_plan(store: LocalStore, tmp: Path) -> Plan:
    """Two rows and two seeds of one target."""
    rows = (Rows(path="bucc2018", config="de-en", split="test", language="de"),)
    steps, cells = {}, []
    for number, (row, seed) in enumerate([("none", 1), ("mnli", 1), ("none", 2), ("mnli", 2)]):
        step = predicted("bucc2018", rows, number)
        scored = Step(
            label=f"score-{number}",
            body=ScoreBody(task=registry.task("bucc2018"), rows=rows),
            inputs={"predictions": step.key},
        )
        steps |= {one.label: Planned(one.label, one.kind, one, {}) for one in (step, scored)}
        cells.append(Cell(row, "bucc2018", seed, None, step.label, scored.label))
        record = StepRecord(
            key=scored.key, kind="score", version=1, identity={}, attempt="a", finished="-",
            result={"thresholds": {"de": 1.0 + number}},
        )  # fmt: skip
        store.create(StepPaths(scored.key).record, record.to_json())
    return Plan("job", "digest", steps, tuple(cells), {}, "model")


def test_parts_are_of_one_row_and_one_seed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    plan = a_plan(store, tmp_path)
    (part,) = parts_of(plan, store, "none", 2)
    assert part.predict_key == plan.steps["predict-bucc2018-2"].key and part.threshold == {"de": 3.0}
    with pytest.raises(XstiltsError, match="none, mnli: choose one: --intermediate"):
        parts_of(plan, store, None, 2)
    with pytest.raises(XstiltsError, match="1, 2: choose one: --seed"):
        parts_of(plan, store, "mnli", None)
    with pytest.raises(UnknownName, match="no row 'qqp': it has none, mnli"):
        parts_of(plan, store, "qqp", 1)
    assert only("seed", None, [7], "--seed") == 7
