"""What users get wrong: one sentence with what is wrong and what to do, exit code 2, no record."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from small_job import records
from transformers import XLMRobertaConfig, XLMRobertaModel
from typer.testing import CliRunner

from xstilts.cli import main as cli
from xstilts.train.pretrain import train_tokenizer

JOB = """\
name: bad
model: {name: made/encoder}
targets: [xnli, tatoeba]
languages: [en, de]
seeds: [1]
train:
  target: {learning_rate: 1.0e-3, epochs: 1, max_length: 32}
evaluate: {selection: {first: 20}, retrieval: {layer: -1}}
execution: {backend: inline}
"""

PAIRS = [
    {"premise": f"a man of {i} years eats", "hypothesis": f"somebody of {i} eats", "label": i % 3}
    for i in range(48)
]


class Place:
    """A mirror of a few made-up rows in the published formats, a tiny encoder, a store, and the command."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data, self.store = folder, folder / "mirror", folder / "store"
        self.files: list[dict[str, Any]] = []
        self.put("nyu-mll/multi_nli", "default", "train", PAIRS)
        self.put("nyu-mll/multi_nli", "default", "validation_matched", PAIRS[:24])
        for language in ("en", "de"):
            self.put("facebook/xnli", language, "test", PAIRS[:12])
        lines = [{"source_sentence": f"{i} Hunde", "target_sentence": f"{i} dogs"} for i in range(12)]
        self.put("google/xtreme", "tatoeba.deu", "validation", lines)
        encoder = XLMRobertaModel(
            XLMRobertaConfig(
                vocab_size=200,
                hidden_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=66,
                pad_token_id=1,
            )
        )
        encoder.save_pretrained(self.model)
        train_tokenizer([row["premise"] for row in PAIRS], 60).save_pretrained(self.model)

    @property
    def model(self) -> Path:
        return self.data / "models/made/encoder"

    @property
    def training(self) -> Path:
        return self.data / "datasets/nyu-mll/multi_nli/default/train.parquet"

    def put(self, dataset: str, config: str, split: str, rows: list[dict[str, Any]]) -> None:
        """Writes rows and lists them in the manifest, in place of what was there."""
        path = f"datasets/{dataset}/{config}/{split}.parquet"
        file = self.data / path
        file.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        entry = {
            "path": path,
            "dataset": dataset,
            "config": config,
            "split": split,
            "rows": len(rows),
            "bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        self.files = [each for each in self.files if each["path"] != path] + [entry]
        (self.data / "manifest.json").write_text(json.dumps({"version": 1, "files": self.files}))

    def run(self, text: str = JOB, store: Path | None = None, data: Path | None = None) -> str:
        """Runs a job in this process, expects exit code 2, and returns what was said."""
        job = self.folder / "bad.yaml"
        job.write_text(text)
        words = ["run", str(job), "--no-mlflow", "--store", str(store or self.store)]
        words += ["--data", str(data or self.data)]
        done = CliRunner().invoke(cli.app, words)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            assert isinstance(done.exception, cli.XstiltsError), done.exception
            return str(done.exception)
        assert done.exit_code == 2, done.output
        assert "Traceback" not in done.output
        return done.output.replace("\n", " ")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(cli.console, "_width", 4000)
    monkeypatch.setattr(cli.errors, "_width", 4000)
    yield Place(tmp_path)


def _empty(place: Place) -> None:
    place.training.write_bytes(b"")


def _truncated(place: Place) -> None:
    place.training.write_bytes(place.training.read_bytes()[:700])


def _changed(place: Place) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(PAIRS[:40]), place.training)


def _label(place: Place) -> None:
    place.put("nyu-mll/multi_nli", "default", "train", [*PAIRS, PAIRS[0] | {"label": 7}])


def _missing(place: Place) -> None:
    place.training.unlink()


def _no_weights(place: Place) -> None:
    (place.model / "model.safetensors").unlink()


def _no_model(place: Place) -> None:
    shutil.rmtree(place.model)


def _no_manifest(place: Place) -> None:
    (place.data / "manifest.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "problem", "remedy"),
    [
        (_empty, "train.parquet is empty", "pull the data again"),
        (_truncated, "train.parquet is truncated", "pull the data again"),
        (_changed, "changed since it was pulled", "pull the data again"),
        (_label, "row 48 of mnli has the label 7, outside the set", "entailment, neutral, contradiction"),
        (_missing, "train.parquet is missing", "xstilts data pull"),
        (_no_weights, "has no safetensors weights", "put model.safetensors there"),
        (_no_model, "no encoder named 'made/encoder' here", "give a folder"),
        (_no_manifest, "holds no manifest.json", "xstilts data pull"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_spoilt_data(place: Place, spoil: Callable[[Place], None], problem: str, remedy: str) -> None:
    spoil(place)
    said = place.run(JOB.replace("[xnli, tatoeba]", "[xnli]"))
    assert problem in said and remedy in said
    assert not records(place.store)


@pytest.mark.parametrize(
    ("old", "new", "problem", "remedy"),
    [
        ("[xnli, ", "[xnlii, ", "bad.yaml:3: no target task named 'xnlii'", "did you mean 'xnli'?"),
        (
            "[en, de]",
            "[en, dee]",
            "bad.yaml:4: no language of these targets named 'dee'",
            "did you mean 'de'?",
        ),
        ("epochs", "epohcs", "bad.yaml:7: no key 'epohcs' in train.target", "did you mean 'epochs'?"),
        ("max_length: 32", "max_length: 65", "the encoder has 64 positions", "at most 64"),
        ("learning_rate: 1.0e-3", "learning_rate: 1.0e+12", "not finite", "lower learning_rate"),
    ],
)
def test_wrong_words(place: Place, old: str, new: str, problem: str, remedy: str) -> None:
    text = JOB if "xnli" in old else JOB.replace("[xnli, tatoeba]", "[xnli]")
    said = place.run(text.replace(old, new))
    assert problem in said and remedy in said
    assert not records(place.store)


def test_a_layer_that_does_not_exist(place: Place) -> None:
    said = place.run(JOB.replace("layer: -1", "layer: 14").replace("[xnli, ", "[").replace("[en, ", "["))
    assert "layer 14 was asked for" in said and "set evaluate.retrieval.layer" in said
    assert not records(place.store)


def test_a_failed_target_leaves_the_others_and_what_is_mended_runs(place: Place) -> None:
    said = place.run(JOB.replace("layer: -1", "layer: 14"))
    assert "layer 14" in said
    kinds = sorted(record["kind"] for record in records(place.store).values())
    assert kinds == ["predict", "score", "train"], "XNLI is done"


def test_a_cut_off_file_is_met_before_anything_runs_not_hours_later(place: Place) -> None:
    last = place.data / "datasets/google/xtreme/tatoeba.deu/validation.parquet"
    last.write_bytes(last.read_bytes()[:-1])
    said = place.run()
    assert "validation.parquet is truncated" in said and "pull the data again" in said
    assert not list(place.store.glob("steps/*"))


def test_what_is_finished_can_be_read_where_its_data_are_gone(place: Place) -> None:
    text = JOB.replace("[xnli, tatoeba]", "[tatoeba]").replace("[en, de]", "[de]")
    job = place.folder / "good.yaml"
    job.write_text(text)
    words = [str(job), "--store", str(place.store), "--data", str(place.data)]
    assert CliRunner().invoke(cli.app, ["run", *words, "--no-mlflow"]).exit_code == 0
    shutil.rmtree(place.data / "datasets")
    again = CliRunner().invoke(cli.app, ["run", *words, "--no-mlflow"])
    assert again.exit_code == 0 and "nothing to do" in again.stdout
    assert "tatoeba" in CliRunner().invoke(cli.app, ["results", *words]).stdout


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("heads: 2", "heads: 3", "width 16 must be a multiple of heads 3"),
        ("length: 16", "length: 2", "at least 8"),
        ("seeds: [1]", "seeds: [1, 1]", "seeds holds a number twice"),
    ],
)
def test_numbers_that_cannot_be(place: Place, old: str, new: str, said: str) -> None:
    text = """\
name: bad
world: {seed: 1}
pretrain: {data: world, width: 16, heads: 2, length: 16}
targets: [world_tagging]
seeds: [1]
execution: {backend: inline}
"""
    assert old in text
    told = place.run(text.replace(old, new))
    assert said in told and "bad.yaml:" in told


def test_a_store_that_is_a_file(place: Place) -> None:
    file = place.folder / "file"
    file.write_text("")
    assert "is not a folder" in place.run(store=file)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a small file system in memory; needs root."""
    made: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"mounted{len(made)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("a file system of its own needs root")
        made.append(folder)
        return folder

    yield mount
    for folder in made:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_store_that_is_read_only(place: Place, mounted: Callable[[str], Path]) -> None:
    said = place.run(store=mounted("size=1m,ro") / "store")
    assert "cannot be written" in said and "--store" in said


def test_a_full_disk_leaves_no_half_file_and_the_next_run_goes_on(
    place: Place, mounted: Callable[[str], Path]
) -> None:
    folder = mounted("size=60k")
    said = place.run(store=folder / "store")
    assert "the disk is full" in said and "free some space" in said
    assert not records(folder / "store") and not list(folder.rglob(".writing-*"))


def test_the_command_itself_exits_with_2_and_one_sentence(place: Place) -> None:
    # Brackets are marks of the terminal library's: unescaped, this name vanished from the sentence.
    (place.folder / "[old]").mkdir()
    job = place.folder / "[old]/bad.yaml"
    job.write_text(JOB.replace("seeds", "seed"))
    command = [sys.executable, "-c", "from xstilts.cli.main import main; main()", "plan", str(job)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place.folder)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.splitlines() == [
        f"error {job}:5: no key 'seed' at the top level: did you mean 'seeds'?"
    ]
