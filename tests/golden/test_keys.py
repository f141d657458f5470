"""Keys are pinned: a changed key silently re-buys every training run."""

from __future__ import annotations

from typing import Any

import pytest

from xstilts.plan import fingerprint
from xstilts.plan.step import EncoderRef, PredictBody, PretrainBody, ScoreBody, SearchBody, Step, TrainBody
from xstilts.spec.experiment import PretrainSpec, RetrievalSettings, Selection, TrainSettings, Values
from xstilts.tasks import task as tasks
from xstilts.tasks.task import Family, Rows, Split, Task

TASK = Task(
    name="nli",
    family=Family.CLASSIFICATION,
    roles=("intermediate", "target"),
    metric="accuracy",
    languages=("en", "de"),
    columns={"text": "premise", "pair": "hypothesis", "label": "label"},
    labels=("yes", "maybe", "no"),
    train=Split(path="made/nli", split="train"),
    source="made up for this test",
    licence="CC0-1.0",
)
ENCODER = EncoderRef(
    name="made/encoder", weights={"config.json": "aa", "model.safetensors": "bb", "tokenizer.json": "cc"}
)


def rows(split: str, language: str = "en", sha256: str = "dd") -> Rows:
    return Rows(path="made/nli", config=language, split=split, language=language, sha256=(sha256,))


def train(**changed: Any) -> Step:
    words: dict[str, Any] = {
        "task": TASK,
        "rows": rows("train"),
        "selection_rows": rows("validation"),
        "selection": Selection(),
        "settings": TrainSettings(),
        "seed": 1,
        "encoder": ENCODER,
    }
    return Step(label="train-nli-s1", body=TrainBody(**(words | changed)))


def steps() -> dict[str, Step]:
    trained = train()
    predict = PredictBody(
        task=TASK,
        rows=(rows("test", "de"), rows("test")),
        max_length=128,
        doc_stride=128,
        precision="fp32",
    )
    frozen = predict.model_copy(update={"retrieval": RetrievalSettings(), "encoder": ENCODER})
    search = SearchBody(
        task=TASK,
        trial=trained.body,
        trials=4,
        concurrent=2,
        space={
            "learning_rate": Values(low=1e-6, high=1e-4, scale="log"),
            "epochs": Values(choices=(1, 2)),
        },
        prune="asha",
    )
    spec = PretrainSpec(data="made/text", languages=("de", "en"))
    made = {
        "pretrain": Step(
            label="pretrain", body=PretrainBody(spec=spec, corpora=(rows("train", "de"), rows("train")))
        ),
        "train": trained,
        "search": Step(label="search", body=search),
        "predict": Step(label="predict", body=predict, inputs={"model": trained.key}),
        "frozen": Step(label="frozen", body=frozen),
    }
    score = ScoreBody(task=TASK, rows=predict.rows)
    made["score"] = Step(label="score", body=score, inputs={"predictions": made["predict"].key})
    return made


PINNED = {
    1: {
        "pretrain": "pretrain--5a60ec4d46724ba6",
        "train": "train-nli-s1--3054c23035c63930",
        "search": "search--3398bf697b954fae",
        "predict": "predict--f800a5ecec774fd7",
        "frozen": "frozen--8fa2963780c7918f",
        "score": "score--7849734a0bf645d3",
    },
    2: {
        "pretrain": "pretrain--59338c390929ae5e",
        "train": "train-nli-s1--c6ed5c8c7c36bbc6",
        "search": "search--91c235f8a16d6d27",
        "predict": "predict--6a7356e9f72ddf40",
        "frozen": "frozen--d20bf6a16018aa7a",
        "score": "score--0fabe644b14b8ad1",
    },
}
"""Fingerprint version -> keys. Add an entry when VERSION is bumped; never edit one."""


def test_keys_are_pinned() -> None:
    assert {name: step.key for name, step in steps().items()} == PINNED[fingerprint.VERSION]


@pytest.mark.parametrize(
    "changed",
    [
        {"rows": rows("train", sha256="ee")},
        {"selection_rows": rows("validation", sha256="ee")},
        {"encoder": ENCODER.model_copy(update={"weights": ENCODER.weights | {"tokenizer.json": "xx"}})},
        {"encoder": ENCODER.model_copy(update={"weights": ENCODER.weights | {"model.safetensors": "xx"}})},
        {"settings": TrainSettings(max_length=64)},
        {"settings": TrainSettings(learning_rate=2e-5)},
        {"settings": TrainSettings(fraction=0.5)},
        {"settings": TrainSettings(precision="bf16")},
        {"selection": Selection(first=100)},
        {"seed": 2},
        {"untrained": True},
        {"task": TASK.model_copy(update={"labels": ("yes", "no", "maybe")})},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_whatever_changes_the_result_changes_the_key(changed: dict[str, Any]) -> None:
    assert train(**changed).digest != train().digest


@pytest.mark.parametrize(
    "changed",
    [
        {"encoder": ENCODER.model_copy(update={"name": "/elsewhere/encoder"})},
        {
            "task": TASK.model_copy(
                update={"licence": "CC BY 4.0", "source": "better known", "languages": ("en",)}
            )
        },
        {"settings": TrainSettings(learning_rate=float("0.00001"), epochs=3.0)},
        {"settings": TrainSettings.model_validate({"learning_rate": "1e-5", "epochs": 3})},
    ],
)
def test_what_changes_no_result_changes_no_key(changed: dict[str, Any]) -> None:
    assert train(**changed).key == train().key


def test_versions_and_inputs_are_in_every_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = steps()
    digests = {name: step.digest for name, step in before.items()}  # worked out now: a digest is made once
    moved = Step(label="predict", body=before["predict"].body, inputs={"model": "train-nli-s1--0000"})
    assert moved.digest != digests["predict"]
    relabelled = {"model": f"other-label--{before['train'].digest}"}
    assert Step(label="predict", body=before["predict"].body, inputs=relabelled).digest == digests["predict"]
    monkeypatch.setitem(fingerprint.STEP_VERSION, "train", 2)
    assert train().digest != digests["train"]
    monkeypatch.undo()
    monkeypatch.setitem(tasks.FAMILY_VERSION, Family.CLASSIFICATION, 2)
    assert all(steps()[name].digest != digests[name] for name in ("train", "predict", "score", "search"))
