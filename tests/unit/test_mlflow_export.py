"""Runs made again from the store alone, with links both ways and encoders that load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow_kit import curve, database, planned, runs_of
from small_encoder import Model, tokenizer

from xstilts.errors import StoreError
from xstilts.families import encoder as encoders
from xstilts.record import mlflow as view
from xstilts.record.artifacts import StepPaths
from xstilts.record.local import LocalStore
from xstilts.record.mlflow import LiveView, models, read_links, rebuild
from xstilts.record.mlflow.runs import Runs
from xstilts.record.mlflow.words import cut, named, params_of, step_words
from xstilts.record.schema import Output, read_record


def test_rebuilds_a_job_from_its_store(tmp_path: Path) -> None:
    uri, root = database(tmp_path)
    plan = planned(LocalStore(tmp_path), "rebuilt")
    assert rebuild(plan, LocalStore(tmp_path), uri, root) == 2
    first = runs_of(uri, "rebuilt")
    assert set(first) == {"rebuilt", "train xnli", "none > xnli · seed 1"}
    train = first["train xnli"]
    assert len(curve(uri, train, "loss")) == 1500
    assert train.info.status == "FINISHED"
    assert train.info.end_time - train.info.start_time == 60_000
    assert train.data.params == {"settings.epochs": "3", "settings.learning_rate": "1e-05", "seed": "1"}
    assert train.data.metrics["final/final_loss"] == 0.25
    assert {
        "intermediate": "none",
        "target": "xnli",
        "seed": "1",
        "kind": "train",
    }.items() <= train.data.tags.items()
    assert train.data.tags["flags"] == "collapsed"
    assert first["none > xnli · seed 1"].data.metrics == {"accuracy/de": 61.5}
    assert first["rebuilt"].data.params["model.name"] == "mini"
    report = Path(root) / "rebuilt" / first["rebuilt"].info.run_id / "artifacts" / "report" / "report.html"
    assert report.read_bytes() == b"<html>"

    assert rebuild(plan, LocalStore(tmp_path), uri, root) == 2
    second = runs_of(uri, "rebuilt")
    assert {run.info.run_id for run in first.values()} == {run.info.run_id for run in second.values()}
    assert len(curve(uri, second["train xnli"], "loss")) == 1500
    assert len(curve(uri, second["train xnli"], "final/final_loss")) == 1


def test_rebuilding_fills_what_the_live_view_lost(tmp_path: Path) -> None:
    uri, root = database(tmp_path)
    plan = planned(LocalStore(tmp_path), "filled")
    shown = LiveView(uri, root, "filled")
    shown.job_started(*view.job_words(plan))
    shown.step_started("t--1", *step_words(plan, "train xnli"), {})
    shown.points("t--1", [("loss", 1.0 / step, step, 1_800_000_000_000) for step in (1, 2, 1400)])
    name, tags = view.cell_words(plan["cells"][0])
    shown.cell(name, tags, {"accuracy/de": 61.5})
    assert shown.close(60) == []
    assert rebuild(plan, LocalStore(tmp_path), uri, root) == 2
    runs = runs_of(uri, "filled")
    assert len(runs) == 3
    steps = [step for step, _ in curve(uri, runs["train xnli"], "loss")]
    assert sorted(steps) == list(range(1, 1501))


def test_params_and_names_fit_mlflow() -> None:
    assert params_of({"a": {"b": {"c": 1}, "d": []}, "e": None}) == {"a.b.c": "1", "a.d": "[]", "e": "None"}
    assert cut("x" * 10, 5) == "xxxx…"
    assert named("../f1 (é)/x") == "f1 _é_/x"
    assert named("") == "_"


def test_a_shared_step_has_no_target() -> None:
    steps = [
        {"label": "intermediate", "kind": "train", "inputs": {}},
        {"label": "a", "kind": "train", "inputs": {"model": "intermediate"}},
        {"label": "b", "kind": "train", "inputs": {"model": "intermediate"}},
    ]
    cells = [{"intermediate": "mnli", "target": target, "seed": 1, "train": target} for target in ("a", "b")]
    plan = {"steps": steps, "cells": cells}
    tags = {"step": "intermediate", "kind": "train", "intermediate": "mnli", "seed": "1"}
    assert step_words(plan, "intermediate") == ("intermediate", tags)
    assert step_words(plan, "a")[1]["target"] == "a"


def test_runs_say_where_records_are_and_the_store_says_where_runs_are(tmp_path: Path) -> None:
    uri, root = database(tmp_path)
    store = LocalStore(tmp_path)
    plan = planned(store, "linked", trainings=2)
    rebuild(plan, store, uri, root)
    runs = runs_of(uri, "linked")
    tags = runs["train xnli2"].data.tags
    assert tags["store"] == store.location
    assert json.loads(Path(tags["record"]).read_text())["key"] == "t--2"
    assert Path(runs["none > xnli2 · seed 1"].data.tags["record"]).parts[-2:] == ("s--2", "record.json")
    parent = runs["linked"]
    assert parent.data.tags["record"] == f"{store.location}/jobs/linked/plan-d1.json"
    assert "jobs/linked/report" in parent.data.tags["mlflow.note.content"]
    assert read_links(store, "linked") == {
        "tracking": uri,
        "experiment": parent.info.experiment_id,
        "parent": parent.info.run_id,
        "runs": {
            f"t--{number}": runs[name].info.run_id for number, name in ((1, "train xnli"), (2, "train xnli2"))
        },
        "cells": {name: run.info.run_id for name, run in runs.items() if ">" in name},
    }
    assert b"mlflow" not in (store.read(StepPaths("t--1").record) or b"")


def test_links_that_are_damaged_are_said(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert read_links(store, "job") is None
    store.put(view.mlflow_file("job"), b"{")
    with pytest.raises(StoreError, match="damaged"):
        read_links(store, "job")


def with_model(store: LocalStore) -> dict[str, Any]:
    """The plan of `planned`, its training with an encoder; returns what the encoder says of a sentence."""
    plan = planned(store, "modelled", points=3)
    folder = Path(store.location) / "made"
    model = Model(None)
    encoders.save(model.encoder, tokenizer(), folder)
    record = read_record(store, "t--1")
    assert record is not None
    outputs = dict(record.outputs)
    for file in folder.iterdir():
        store.upload(file, f"steps/t--1/runs/a1/model/{file.name}")
        outputs[f"model/{file.name}"] = Output(path=f"runs/a1/model/{file.name}", bytes=1, sha256="0")
    store.put(StepPaths("t--1").record, record.model_copy(update={"outputs": outputs}).to_json())
    return plan


LOADS = """
import sys, mlflow, torch, transformers
mlflow.set_tracking_uri(sys.argv[1])
run = mlflow.get_run(sys.argv[2])
uri = f"runs:/{sys.argv[2]}/model"
parts = mlflow.transformers.load_model(uri, return_type="components")
plain = transformers.AutoModel.from_pretrained(run.data.tags["model"])
words = parts["tokenizer"](["the cat sat on a mat"], return_tensors="pt")
with torch.inference_mode():
    one, two = parts["model"](**words).last_hidden_state, plain(**words).last_hidden_state
features = mlflow.pyfunc.load_model(uri).predict(["the cat sat on a mat"])
print(torch.equal(one, two), type(parts["model"]).__name__, tuple(one.shape), one.sum().item())
print("xstilts" in sys.modules, len(str(features)) > 100)
"""


@pytest.mark.slow
@pytest.mark.parametrize("served", [False, True])
def test_a_kept_encoder_is_loaded_by_mlflow_and_by_transformers(tmp_path: Path, served: bool) -> None:
    """Without this package. A server's artifacts hold the weights, a store's own name their place."""
    uri, root = database(tmp_path)
    store = LocalStore(tmp_path)
    plan = with_model(store)
    Runs(uri, root, "modelled")  # the experiment, with the root that a server would choose
    root = None if served else root
    assert rebuild(plan, store, uri, root) == 2
    run = runs_of(uri, "modelled")["train xnli"].info
    assert not any(Path(run.artifact_uri).rglob("MLmodel")), "only when asked"
    for _ in range(2):
        assert rebuild(plan, store, uri, root, models=True) == 2
    files = [path.relative_to(run.artifact_uri).as_posix() for path in Path(run.artifact_uri).rglob("*.*")]
    assert ("model/model/model.safetensors" in files) is served
    assert any(file.startswith("model/components/tokenizer/tokenizer") for file in files)

    command = [sys.executable, "-c", LOADS, uri, run.run_id]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    words = tokenizer()(["the cat sat on a mat"], return_tensors="pt")
    with torch.inference_mode():
        own = Model(None).encoder.eval()(**words).last_hidden_state
    first, second = done.stdout.strip().splitlines()
    assert first.split()[:2] == ["True", "XLMRobertaModel"]
    assert float(first.split()[-1]) == pytest.approx(own.sum().item(), abs=1e-4)
    assert second == "False True"


def test_a_model_that_was_removed_to_make_room_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, root = database(tmp_path)
    store = LocalStore(tmp_path)
    plan = with_model(store)
    monkeypatch.setattr(models, "dropped", lambda store, key: "a note")
    assert rebuild(plan, store, uri, root, models=True) == 2
    run = runs_of(uri, "modelled")["train xnli"].info
    assert not any(Path(run.artifact_uri).rglob("MLmodel"))


def test_what_mlflow_says_when_it_refuses_has_no_password(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(StoreError) as caught:
        rebuild(planned(store, "away"), store, "http://me:pl4nted-secret@127.0.0.1:9", None)
    assert "127.0.0.1:9" in str(caught.value)
    assert caught.value.__cause__ is None
    assert "pl4nted" not in str(caught.value)
