"""Presets: every number is the source's, every value has one, and a job file can say what they say."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import pytest

from xstilts.errors import UnknownName
from xstilts.spec.experiment import TrainSpec
from xstilts.spec.presets import PRESETS, words
from xstilts.tasks import registry

INTERMEDIATE = "anli_plus mnli qqp squad_v2 squad_v1 hellaswag ccg cosmosqa csqa siqa copa mrpc".split()
TRAINED = "xnli pawsx udpos panx xquad mlqa tydiqa xcopa mewslix lareqa".split()
NAMES = {
    "ANLI+": "anli_plus", "CCG": "ccg", "CommonsenseQA": "csqa", "Cosmos QA": "cosmosqa", "QQP": "qqp",
    "HellaSwag": "hellaswag", "SQuAD": "squad_v1", "MLM": "mlm", "Multi-task": "mix", "XNLI (MNLI)": "xnli",
    "PAWS-X": "pawsx", "XQuAD (SQuAD)": "xquad", "MLQA (SQuAD)": "mlqa", "TyDiQA": "tydiqa", "POS": "udpos",
    "NER": "panx",
}  # fmt: skip
"""Phang et al.'s names of tasks."""


def settings(preset: str, phase: str, task: str) -> dict[str, Any]:
    """What `task` trains with, as a job file would say it."""
    said = words(preset, (task,), (task,))
    found = getattr(TrainSpec.model_validate(said), phase).for_task(task)
    return dict(found.model_dump())


def brief(preset: str, phase: str, task: str) -> tuple[float, ...]:
    """Batch, epochs, learning rate, length."""
    own = settings(preset, phase, task)
    return own["effective_batch"], own["epochs"], own["learning_rate"], own["max_length"]


PINNED = {
    ("phang2020_v1", "intermediate"): {
        "anli_plus": (24, 2, 1e-5, 256), "mnli": (24, 2, 1e-5, 256), "qqp": (24, 3, 1e-5, 256),
        "squad_v2": (8, 3, 1e-5, 384), "squad_v1": (8, 3, 1e-5, 384), "hellaswag": (24, 7, 1e-5, 256),
        "ccg": (24, 15, 1e-5, 256), "cosmosqa": (4, 15, 1e-5, 256), "csqa": (4, 10, 1e-5, 256),
        "siqa": (4, 10, 1e-5, 256), "copa": (4, 10, 1e-5, 256), "mrpc": (24, 3, 1e-5, 256),
    },
    ("phang2020_v1", "target"): {
        "xnli": (4, 2, 3e-6, 256), "pawsx": (32, 5, 3e-6, 256), "udpos": (32, 10, 3e-6, 256),
        "panx": (32, 10, 3e-6, 256), "xquad": (16, 2, 3e-6, 384), "mlqa": (16, 2, 3e-6, 384),
        "tydiqa": (16, 2, 3e-6, 384), "xcopa": (32, 5, 3e-5, 128), "mewslix": (32, 2, 1e-5, 64),
        "lareqa": (16, 3, 2e-5, 352),
    },
    ("jiant2", "intermediate"): {
        **dict.fromkeys(INTERMEDIATE, (4, 3, 1e-5, 256)), "squad_v1": (4, 3, 1e-5, 384),
        "squad_v2": (4, 3, 1e-5, 384),
    },
    ("jiant2", "target"): {
        "xnli": (32, 2, 1e-5, 256), "pawsx": (32, 5, 1e-5, 256), "udpos": (32, 10, 1e-5, 256),
        "panx": (32, 10, 1e-5, 256), "xquad": (16, 2, 1e-5, 384), "mlqa": (16, 2, 1e-5, 384),
        "tydiqa": (16, 2, 1e-5, 384), "xcopa": (32, 5, 3e-5, 128), "mewslix": (32, 2, 1e-5, 64),
        "lareqa": (16, 3, 2e-5, 352),
    },
    ("xtreme2020", "intermediate"): {
        "anli_plus": (32, 5, 2e-5, 128), "mnli": (32, 5, 2e-5, 128), "qqp": (32, 5, 2e-5, 128),
        "squad_v2": (16, 2, 3e-5, 384), "squad_v1": (16, 2, 3e-5, 384), "hellaswag": (32, 5, 3e-5, 128),
        "ccg": (32, 10, 2e-5, 128), "cosmosqa": (32, 5, 3e-5, 128), "csqa": (32, 5, 3e-5, 128),
        "siqa": (32, 5, 3e-5, 128), "copa": (32, 5, 3e-5, 128), "mrpc": (32, 5, 2e-5, 128),
    },
    ("xtreme2020", "target"): {
        "xnli": (32, 5, 2e-5, 128), "pawsx": (32, 5, 2e-5, 128), "udpos": (32, 10, 2e-5, 128),
        "panx": (32, 10, 2e-5, 128), "xquad": (16, 2, 3e-5, 384), "mlqa": (16, 2, 3e-5, 384),
        "tydiqa": (16, 2, 3e-5, 384), "xcopa": (32, 5, 3e-5, 128), "mewslix": (32, 2, 1e-5, 64),
        "lareqa": (16, 3, 2e-5, 352),
    },
    ("xtreme_r2021", "target"): {
        "xnli": (32, 5, 3e-5, 128), "pawsx": (32, 5, 2e-5, 128), "udpos": (32, 10, 2e-5, 128),
        "panx": (32, 10, 2e-5, 128), "xquad": (32, 3, 3e-5, 384), "mlqa": (32, 3, 3e-5, 384),
        "tydiqa": (32, 3, 3e-5, 384), "xcopa": (32, 5, 3e-5, 128), "mewslix": (32, 2, 1e-5, 64),
        "lareqa": (16, 3, 2e-5, 352), "tatoeba_after_squad_v1": (32, 3, 3e-5, 384),
    },
}  # fmt: skip
"""Batch, epochs, learning rate, length, typed from the sources."""


@pytest.mark.parametrize(("preset", "phase"), PINNED)
def test_batch_epochs_rate_and_length_are_pinned(preset: str, phase: str) -> None:
    expected = PINNED[preset, phase]
    assert {task: brief(preset, phase, task) for task in expected} == expected


def test_the_four_presets_know_every_task_that_is_trained() -> None:
    assert set(PRESETS) == {"phang2020_v1", "jiant2", "xtreme2020", "xtreme_r2021"}
    known = {task.name for task in registry.all_tasks()} | {"mix", ""}
    for preset in PRESETS.values():
        assert set(TRAINED) <= set(preset.target) <= known
        assert set(preset.intermediate) <= known
        assert preset.source and preset.notes


def test_warm_up_decay_and_selection() -> None:
    paper = settings("phang2020_v1", "target", "xnli")
    assert (paper["warmup"], paper["warmup_steps"], paper["weight_decay"]) == (0.1, None, 0.01)
    chosen = paper["select"]
    assert (chosen["first"], chosen["every"], chosen["patience"], chosen["keep"]) == (500, 1000, 30, "best")
    for task, steps, decay, keep in (("xquad", 500, 0.0001, "last"), ("panx", None, 0.0, "best")):
        own = settings("xtreme2020", "target", task)
        assert (own["warmup_steps"], own["weight_decay"], own["select"]["keep"]) == (steps, decay, keep)
    every = {task: settings("xtreme2020", "target", task)["select"]["every"] for task in TRAINED[:4]}
    assert every == {"xnli": 100, "pawsx": 200, "udpos": 500, "panx": 1000}
    borrowed = settings("phang2020_v1", "target", "mewslix")
    assert (borrowed["warmup"], borrowed["select"]["every"], borrowed["select"]["patience"]) == (
        0,
        None,
        None,
    )


@pytest.mark.parametrize("name", PRESETS)
def test_every_value_has_one_source_and_no_source_is_left_over(name: str) -> None:
    preset = PRESETS[name]
    values = {}
    for phase in ("intermediate", "target"):
        for task, own in getattr(preset, phase).items():
            for field, value in own.items():
                parts = value if isinstance(value, dict) else {"": value}
                values.update({f"{phase}/{task}/{field}{part and '.' + part}": 0 for part in parts})
    assert set(preset.sources) == set(values) and all(preset.sources.values())


def test_masked_language_modelling_has_its_own_rate() -> None:
    named = ("qqp", "mix", "mix_mlm")
    mixed = TrainSpec.model_validate(words("phang2020_v1", named, ("xnli",)))
    rates = {task: mixed.intermediate.for_task(task).learning_rate for task in named}
    assert rates == {"qqp": 1e-5, "mix": 1e-5, "mix_mlm": 5e-6}
    assert mixed.intermediate.for_task("mix_mlm").epochs == 3
    assert mixed.target.for_task("xnli").learning_rate == 3e-6
    assert words("phang2020_v1", ("mix",), ())["intermediate"]["tasks"]["mix"] == {"epochs": 3}


def test_words_are_those_of_the_tasks_named_and_a_copy() -> None:
    said = words("phang2020_v1", ("qqp", "none", "w_nli"), ("w_tagging", "xnli"))
    assert set(said["intermediate"]["tasks"]) == {"qqp"} and set(said["target"]["tasks"]) == {"xnli"}
    said["target"]["select"]["first"] = 1
    said["target"]["tasks"]["xnli"]["epochs"] = 99
    assert settings("phang2020_v1", "target", "xnli")["epochs"] == 2
    assert words("phang2020_v1", (), ("xnli",))["target"]["select"]["first"] == 500


def test_an_unknown_preset_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'phang2020_v1'") as caught:
        words("phang2020", (), ())
    assert caught.value.where == ("settings",)


@pytest.fixture
def reference() -> Path:
    """Published hyper-parameters as tables."""
    folder = Path(__file__).resolve().parents[3] / "shared" / "reference"
    if not (folder / "phang2020_v1_hparams.csv").is_file():
        pytest.skip("no reference tables beside the repository")
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def test_the_papers_tables_are_met_row_by_row(reference: Path) -> None:
    preset, seen = PRESETS["phang2020_v1"], 0
    for row in rows(reference / "phang2020_v1_hparams.csv"):
        if not row["batch_size"]:  # BUCC and Tatoeba are not trained
            continue
        own = {**getattr(preset, row["phase"])[""], **getattr(preset, row["phase"])[NAMES[row["task"]]]}
        assert str(own.get("effective_batch", "Mixed")) == row["batch_size"], row["task"]
        assert str(own.get("epochs", "")) == row["epochs"], row["task"]
        rates = [float(word) for word in re.findall(r"\d+e-\d", row["learning_rate"])]
        expected = [own["learning_rate"]]
        assert rates == (
            expected + [preset.mlm_learning_rate] if row["phase"] == "intermediate" else expected
        )
        seen += 1
    assert seen == 16


def test_the_scripts_tables_are_met_row_by_row(reference: Path) -> None:
    seen = 0
    for row in rows(reference / "xtreme_script_hparams.csv"):
        if not row["learning_rate"] or row["model"] == "mBERT":
            continue
        preset = "jiant2" if "jiant" in row["benchmark"] else "xtreme_r2021"
        for task in row["task"].split("+"):
            own = settings(preset, "target", task)
            assert own["learning_rate"] == float(row["learning_rate"].split()[0]), task
            assert own["epochs"] == float(row["epochs"].split()[0]), task
            assert str(own["max_length"]) in re.findall(r"\d+", row["max_seq_len"]), task
            parts = re.findall(r"(\d+)x(\d+)", row["per_step_batch x grad_acc"])
            batches = {int(size) * int(steps) for size, steps in parts}
            assert {own["effective_batch"]} == batches, task
            if row["warmup"].endswith("steps") and "%" not in row["warmup"]:
                assert own["warmup_steps"] == int(row["warmup"].split()[0])
            if re.match(r"[\d.]+", row["weight_decay"]):
                assert own["weight_decay"] == float(row["weight_decay"].split()[0])
            if found := re.search(r"every (\d+) steps", row["selection"]):
                assert own["select"]["every"] == int(found[1]), task
            seen += 1
    assert seen == 17


def test_the_earlier_generation_differs_where_the_table_says_so(reference: Path) -> None:
    found = rows(reference / "xtreme_script_hparams.csv")
    table = {(row["task"], row["model"]): row for row in found if row["benchmark"] == "xtreme"}
    early = re.search(r"(\S+) in 2020-05", table["xnli", "xlm-roberta-large"]["learning_rate"])
    assert early and settings("xtreme2020", "target", "xnli")["learning_rate"] == float(early[1])
    epochs = re.search(r"([\d.]+) \(2020-05", table["xquad+mlqa", "all"]["epochs"])
    assert epochs and settings("xtreme2020", "target", "mlqa")["epochs"] == float(epochs[1])
    for task in ("pawsx", "udpos", "panx"):
        assert brief("xtreme2020", "target", task) == brief("xtreme_r2021", "target", task)
