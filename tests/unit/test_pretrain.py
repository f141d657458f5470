"""Pretraining: vocabulary, encoder, batches and the same exact resuming."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from training_kit import Watching, bits, checkpoints, same

from xstilts.errors import DataError, JobFileError
from xstilts.families import encoder, masked_lm
from xstilts.spec.experiment import PretrainSpec
from xstilts.train.loop import Interrupted, Layout, Signal
from xstilts.train.pretrain import (
    SPECIAL,
    Pretrained,
    batches_of,
    encoded,
    joined,
    new_encoder,
    objective,
    pretrain,
    train_tokenizer,
)

SPEC = PretrainSpec(
    data="world",
    vocabulary=120,
    layers=1,
    width=16,
    heads=2,
    length=16,
    batch=8,
    steps=6,
    dropout=0.1,
    mask=0.3,
)


def sentences(count: int, letters: str, seed: int = 0) -> list[str]:
    """Sentences over 30 words of these letters."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(letters, k=draw.randint(2, 6))) for _ in range(30)]
    return [" ".join(draw.choices(words, k=draw.randint(3, 9))) + "." for _ in range(count)]


TEXTS = {"en": sentences(300, "abcdefgh"), "xx": sentences(80, "абвгдеж", 1)}
ALL = [text for every in TEXTS.values() for text in every]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The vocabulary of TEXTS."""
    return train_tokenizer(ALL, SPEC.vocabulary)


def test_special_tokens_are_where_xlm_r_has_them(tokenizer: Any) -> None:
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL)) == [0, 1, 2, 3, 4]
    names = (tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    assert names == (0, 1, 2, 3) and tokenizer.mask_token_id == 4
    pair = tokenizer("abc", "def").input_ids
    assert pair[0] == 0 and pair[-1] == 2 and pair.count(2) == 3
    assert tokenizer("漢").input_ids[-2] == 3


def test_the_vocabulary_is_no_larger_than_asked_and_the_same_each_time(tokenizer: Any) -> None:
    assert 60 < len(tokenizer) <= SPEC.vocabulary
    again = train_tokenizer(ALL, SPEC.vocabulary)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_text_survives_the_round_trip(tokenizer: Any) -> None:
    for text in ALL[:20] + ALL[-20:]:
        assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text
    assert tokenizer("  ａbc \n def ").input_ids == tokenizer("abc def").input_ids


def test_text_that_gives_no_vocabulary_is_said() -> None:
    with pytest.raises(DataError, match="no text"):
        train_tokenizer(["", "  "], 100)
    with pytest.raises(JobFileError, match="no vocabulary of 12 sub-words"):
        train_tokenizer(ALL, 12)


def test_the_loss_is_transformers_own(tokenizer: Any) -> None:
    model = new_encoder(SPEC, len(tokenizer)).eval()
    batch = batches_of(TEXTS, tokenizer, SPEC, 8).micro(0)[0]
    assert batch["input_ids"].shape == (8, 16) and (batch["attention_mask"] == 1).all()
    total, count = objective(joined(model), batch)
    told = model(batch["input_ids"], batch["attention_mask"], labels=batch["target"])
    assert count == (batch["target"] != masked_lm.IGNORED).sum()
    torch.testing.assert_close(total / count, told.loss)
    whole, _ = masked_lm.CODE.loss(joined(model), batch)
    torch.testing.assert_close(total, whole)


def test_decoding_in_parts_gives_the_same_gradient(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = batches_of(TEXTS, tokenizer, SPEC, 8).micro(0)[0]
    found = []
    for together in (1000, 5):
        monkeypatch.setattr("xstilts.train.pretrain.DECODED_TOGETHER", together)
        model = joined(new_encoder(SPEC, len(tokenizer)).eval())
        objective(model, batch)[0].backward()
        found.append({name: each.grad for name, each in model.named_parameters() if each.grad is not None})
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, atol=1e-5, rtol=1e-4)


def test_the_mask_is_new_every_step_and_spares_special_tokens(tokenizer: Any) -> None:
    batches = batches_of(TEXTS, tokenizer, SPEC, 8)
    masked = [batches.micro(step)[0] for step in range(6)]
    hidden = torch.cat([batch["target"] for batch in masked])
    shown = torch.cat([batch["input_ids"] for batch in masked])
    assert not ((hidden >= 0) & (hidden < len(SPECIAL))).any() and (shown[:, 0] == 0).all()
    assert 0.1 < (hidden >= 0).float().mean() < 0.35
    assert not torch.equal(masked[0]["target"] >= 0, masked[1]["target"] >= 0)


def test_encoding_adds_no_special_tokens(tokenizer: Any) -> None:
    ids = encoded(["abc", ""], tokenizer)
    assert [each.tolist() for each in ids] == [tokenizer("abc").input_ids[1:-1], []]
    assert encoded([], tokenizer) == []


def made(root: Path, attempt: str, reporter: Watching, spec: PretrainSpec = SPEC) -> Pretrained:
    """One pretraining run with checkpoints."""
    return pretrain(
        TEXTS,
        spec,
        layout=Layout(),
        reporter=reporter,
        checkpoints=checkpoints(root, attempt),
        report_seconds=0,
    )


def test_pretraining_resumes_bit_equal_and_saves_a_model(tmp_path: Path) -> None:
    whole = made(tmp_path / "whole", "a", Watching())
    with pytest.raises(Interrupted):
        made(tmp_path / "parts", "a", Watching({3: Signal.STOP}))
    resumed = made(tmp_path / "parts", "b", Watching())
    assert resumed.outcome.resumed_at == 3
    assert same(bits(resumed.encoder), bits(whole.encoder))
    encoder.save(resumed.encoder, resumed.tokenizer, tmp_path / "model")
    loaded, words = encoder.load(tmp_path / "model")
    assert words("abc").input_ids == whole.tokenizer("abc").input_ids
    ids = torch.tensor([words("abc").input_ids])
    torch.testing.assert_close(
        loaded(ids).last_hidden_state, whole.encoder.roberta.eval()(ids).last_hidden_state
    )


def test_it_learns(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"steps": 150, "learning_rate": 1e-2, "dropout": 0.0})
    outcome = made(tmp_path, "a", Watching(), spec).outcome
    assert outcome.history[0]["loss"] > 4.2 and outcome.final_loss < 4.1


def test_another_seed_is_another_encoder() -> None:
    one, again, other = (new_encoder(SPEC.model_copy(update={"seed": seed}), 120) for seed in (0, 0, 1))
    assert same(bits(one), bits(again)) and not same(bits(one), bits(other))
