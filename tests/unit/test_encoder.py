"""Model folders: what loads, what is refused and how that is said, fresh weights and heads by seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_encoder import Model, tokenizer
from transformers import AutoModel

from xstilts.errors import ModelError
from xstilts.families import classification, encoder
from xstilts.tasks.task import Family, Task

PAIRS = Task(
    name="pairs", family=Family.CLASSIFICATION, roles=("target",), metric="accuracy", languages=("en",),
    columns={"text": "a", "label": "label"}, labels=("no", "yes"), source="made up", licence="none",
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved encoder."""
    encoder.save(Model(None).encoder, tokenizer(), tmp_path / "model")
    return tmp_path / "model"


def test_what_is_saved_loads_again_here_and_in_transformers(folder: Path) -> None:
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in folder.iterdir()}
    loaded, words = encoder.load(folder)
    original = Model(None).encoder.state_dict()
    assert all(torch.equal(original[name], each) for name, each in loaded.state_dict().items())
    assert words("the cat").input_ids == tokenizer()("the cat").input_ids
    assert loaded.dtype == torch.float32 and loaded.pooler is None
    assert isinstance(AutoModel.from_pretrained(folder), type(loaded))


def test_dropout_can_be_overridden(folder: Path) -> None:
    assert encoder.dropout_of(encoder.load(folder)[0].config) == 0.1
    config = encoder.load(folder, dropout=0.0)[0].config
    assert (config.hidden_dropout_prob, config.attention_probs_dropout_prob) == (0.0, 0.0)


def test_untrained_is_the_same_architecture_by_seed(folder: Path) -> None:
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    one, again, other = (encoder.untrained(folder, seed)[0].state_dict() for seed in (1, 1, 2))
    loaded = encoder.load(folder)[0].state_dict()
    name = "encoder.layer.0.output.dense.weight"
    assert one.keys() == loaded.keys()
    assert torch.equal(one[name], again[name])
    assert not torch.equal(one[name], other[name]) and not torch.equal(one[name], loaded[name])
    assert torch.equal(torch.rand(1), expected)


def test_a_seed_gives_one_head_whatever_the_encoder_and_generator(folder: Path) -> None:
    heads = []
    for number, model in enumerate((encoder.load(folder)[0], encoder.untrained(folder, 4)[0])):
        torch.manual_seed(number)
        head = encoder.fresh_head(classification.CODE, PAIRS, model, seed=1)
        assert head is not None
        heads.append(head.state_dict())
    assert all(torch.equal(heads[0][name], heads[1][name]) for name in heads[0])
    other = encoder.fresh_head(classification.CODE, PAIRS, encoder.load(folder)[0], seed=2)
    assert other is not None and not torch.equal(
        other.state_dict()["out_proj.weight"], heads[0]["out_proj.weight"]
    )


def test_checksums_follow_the_bytes(folder: Path) -> None:
    before = encoder.weights(folder)
    assert list(before) == sorted(before) and set(before) >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    (folder / "README.md").write_text("words decide nothing")
    assert encoder.weights(folder) == before
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    after = encoder.weights(folder)
    assert {name for name in after if after[name] != before[name]} == {"model.safetensors"}


def test_a_task_model_knows_its_width(folder: Path) -> None:
    model = encoder.TaskModel(encoder.load(folder)[0], layer=1, centre=True)
    assert (model.width, model.head, model.layer, model.centre) == (16, None, 1, True)


def damaged(folder: Path, how: str) -> Path:
    """The folder after one kind of damage."""
    config = folder / "config.json"
    if how == "absent":
        return folder / "nowhere"
    if how in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / how).unlink()
    elif how == "pickled":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif how == "not JSON":
        config.write_text("{")
    elif how == "unknown architecture":
        config.write_text(json.dumps({"model_type": "abacus"}))
    elif how == "truncated weights":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:5000])
    elif how == "other weights":
        config.write_text(json.dumps({**json.loads(config.read_text()), "num_hidden_layers": 3}))
    elif how == "other shape":
        config.write_text(json.dumps({**json.loads(config.read_text()), "intermediate_size": 48}))
    elif how == "other vocabulary":
        words = json.loads(config.read_text())
        config.write_text(json.dumps({**words, "vocab_size": words["vocab_size"] - 1}))
    return folder


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("absent", "no model folder"),
        ("config.json", "has no config.json"),
        ("tokenizer.json", "has no tokenizer"),
        ("model.safetensors", "has no safetensors weights"),
        ("pickled", "unpickling runs whatever code"),
        ("not JSON", "is not JSON"),
        ("unknown architecture", "no known architecture"),
        ("truncated weights", "cannot be loaded"),
        ("other weights", "lacks 16 tensors"),
        ("other shape", "(lacks|cannot be loaded)"),
        ("other vocabulary", "(lacks|cannot be loaded|sub-words)"),
    ],
)
def test_what_is_no_model_is_said_in_one_sentence(folder: Path, how: str, said: str) -> None:
    with pytest.raises(ModelError, match=said) as caught:
        encoder.load(damaged(folder, how))
    assert "\n" not in str(caught.value)


def test_a_hub_name_needs_a_commit() -> None:
    with pytest.raises(ModelError, match="has no revision"):
        encoder.hub("FacebookAI/xlm-roberta-large", None)


def test_a_hub_that_is_not_reached_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="cannot fetch 'no/model'") as caught:
        encoder.hub("no/model", "0" * 40)
    assert "local folder" in caught.value.remedy


def test_the_mirrors_encoder_loads_without_its_lm_head(mirror: Path) -> None:
    model, words = encoder.load(mirror / "models" / "xstilts" / "mini-12")
    assert (len(words), model.config.hidden_size) == (12_000, 128)
    assert not any("lm_head" in name for name, _ in model.named_parameters())
