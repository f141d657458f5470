"""Retrieval: pooling of a layer, neighbours, ties, centring. Masked LM: what is hidden, and the head."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_encoder import Model, tokenizer
from torch.nn import functional

from xstilts.errors import JobFileError, ModelError
from xstilts.families import batching, code_of, masked_lm, retrieval
from xstilts.families.base import Feature, Length
from xstilts.tasks.task import Family, Task

TASK = Task(
    name="tatoeba", family=Family.RETRIEVAL, roles=("target",), metric="accuracy", languages=("de",),
    columns={"query": "en", "document": "de"}, source="-", licence="-",
)  # fmt: skip
TEXT = Task(
    name="text", family=Family.MASKED_LM, roles=("intermediate",), metric="none", languages=("en",),
    columns={"text": "text"}, source="-", licence="-",
)  # fmt: skip
CODE, MLM = code_of(Family.RETRIEVAL), code_of(Family.MASKED_LM)


def pairs(count: int) -> list[dict[str, Any]]:
    return [{"en": f"the cat {n} sat", "de": "a mat in Paris " * (1 + n % 3) + str(n)} for n in range(count)]


def by_side(vectors: torch.Tensor, side: str) -> tuple[list[Feature], list[torch.Tensor]]:
    return [Feature(n, ((0,),), keep={"side": side}) for n in range(len(vectors))], list(vectors)


def test_vectors_are_the_mean_over_attended_positions_of_the_layer_asked_for() -> None:
    examples = CODE.examples(TASK, pairs(3))
    features = CODE.encode(TASK, examples, tokenizer(), Length(), False)
    assert [(one.example, one.keep["side"]) for one in features[2:4]] == [(2, "query"), (0, "document")]
    model = Model(None, layer=1).eval()
    found = CODE.forward(model, CODE.collate(features, 1))
    with torch.no_grad():
        alone = model.encoder(torch.tensor([features[3].input_ids[0]]), output_hidden_states=True)
    torch.testing.assert_close(found[3], alone.hidden_states[1][0].mean(0), atol=1e-5, rtol=1e-4)
    model.layer = None
    torch.testing.assert_close(
        CODE.forward(model, CODE.collate(features, 1))[3],
        alone.last_hidden_state[0].mean(0),
        atol=1e-5,
        rtol=1e-4,
    )


@pytest.mark.parametrize("layer", [3, 14, -4])
def test_a_layer_that_is_not_there_says_how_many_there_are(layer: int) -> None:
    features = CODE.encode(TASK, CODE.examples(TASK, pairs(1)), tokenizer(), Length(), False)
    with pytest.raises(ModelError, match=r"0 \(embeddings\) to 2, .* set evaluate.retrieval.layer") as caught:
        CODE.forward(Model(None, layer=layer), CODE.collate(features, 1))
    assert caught.value.where == ("evaluate", "retrieval", "layer")


def test_ranks_are_those_of_a_full_sort_and_the_lowest_of_equals_wins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retrieval, "BLOCK", 7)
    draw = torch.Generator().manual_seed(0)
    queries = torch.randn(40, 8, generator=draw)
    documents = torch.randn(40, 8, generator=draw)
    documents[30] = documents[5]
    documents[20] = 3 * documents[5]  # cosine knows no length
    queries[20] = documents[20]
    examples = CODE.examples(TASK, pairs(40))
    one, two = by_side(queries, "query"), by_side(documents, "document")
    said = CODE.decode(TASK, examples, one[0] + two[0], one[1] + two[1])
    cosines = functional.cosine_similarity(
        queries[:, None].double(), documents[None].double(), dim=-1
    ).numpy()
    wanted = np.argsort(-np.round(cosines, 7), axis=1, kind="stable")[:, :10]
    assert [[int(item) for item in made.prediction] for made in said] == wanted.tolist()
    assert said[20].prediction[:3] == ["5", "20", "30"] and said[20].score == pytest.approx(1)
    items = CODE.items(TASK, examples, {made.item: made.prediction for made in said[:39]}, "de")
    assert items[20]["correct"] == 0 == items[39]["correct"]


def test_centring_undoes_an_offset_between_languages() -> None:
    draw = torch.Generator().manual_seed(0)
    meaning = torch.randn(30, 8, generator=draw)
    one, two = by_side(meaning, "query"), by_side(meaning + 50 * torch.randn(8, generator=draw), "document")
    features, outputs = one[0] + two[0], one[1] + two[1]
    examples = CODE.examples(TASK, pairs(30))
    right = [
        sum(made.prediction[0] == made.item for made in CODE.decode(TASK, examples, features, vectors))
        for vectors in (outputs, batching.centred(features, outputs))
    ]
    assert right[0] < 25 and right[1] == 30


def test_the_whole_way_with_fewer_documents_than_ranks() -> None:
    examples = CODE.examples(TASK, pairs(3))
    features = CODE.encode(TASK, examples, tokenizer(), Length(), False)
    outputs = batching.outputs_of(Model(None, layer=1, centre=True), CODE, features, 1, 2, "cpu", "fp32")
    said = CODE.decode(TASK, examples, features, outputs)
    assert all(sorted(made.prediction) == ["0", "1", "2"] for made in said)
    assert torch.stack(outputs[:3]).mean(0).abs().max() < 1e-6
    assert CODE.decode(TASK, [], [], []) == [] and CODE.head(TASK, 16, 0.1) is None
    with pytest.raises(JobFileError, match="tatoeba has nothing to train"):
        CODE.encode(TASK, examples, tokenizer(), Length(), True)


def masked(batch: dict[str, torch.Tensor], seed: int, share: float = 0.15) -> dict[str, torch.Tensor]:
    words = tokenizer()
    return masked_lm.mask(
        batch, torch.Generator().manual_seed(seed), special_ids=words.all_special_ids,
        mask_id=words.mask_token_id, vocabulary=len(words), share=share,
    )  # fmt: skip


def test_masking_hides_the_share_80_10_10_and_never_special_tokens() -> None:
    ids = torch.randint(6, 60, (200, 50), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, 40], ids[:, 41:] = 0, 2, 1
    batch = {"input_ids": ids, "attention_mask": (ids != 1).long()}
    found = masked(batch, 3)
    chosen = found["target"] != -100
    assert not chosen[:, 0].any() and not chosen[:, 40:].any()
    assert float(chosen[:, 1:40].float().mean()) == pytest.approx(0.15, abs=0.02)
    assert torch.equal(found["target"][chosen], ids[chosen])
    assert torch.equal(found["input_ids"][~chosen], ids[~chosen])
    hidden = (found["input_ids"] == tokenizer().mask_token_id)[chosen].float().mean()
    kept = (found["input_ids"] == ids)[chosen].float().mean()
    assert float(hidden) == pytest.approx(0.8, abs=0.04) and float(kept) == pytest.approx(0.1, abs=0.04)
    assert torch.equal(masked(batch, 3)["input_ids"], found["input_ids"])
    assert not torch.equal(masked(batch, 4)["input_ids"], found["input_ids"])
    assert torch.equal(batch["input_ids"], ids) and not (masked(batch, 3, 1e-9)["target"] != -100).any()


def test_masked_lm_loss_is_that_of_the_full_logits_and_trains_the_embeddings() -> None:
    examples = MLM.examples(TEXT, [{"text": "the cat sat on the mat"}, {"text": "Paris is in London"}])
    features = MLM.encode(TEXT, examples, tokenizer(), Length(), True)
    batch = masked(MLM.collate(features, 1), 0, 0.4)
    model = Model(None).eval()
    for head in (MLM.head(TEXT, 16, 0.0), masked_lm.head_for(model.encoder)):
        model.head = head
        logits = MLM.forward(model, batch)
        assert logits.shape == (*batch["input_ids"].shape, len(tokenizer()))
        total, count = MLM.loss(model, batch)
        wanted = functional.cross_entropy(logits.flatten(0, 1), batch["target"].flatten(), reduction="sum")
        torch.testing.assert_close(total, wanted)
        assert float(count) == float((batch["target"] != -100).sum()) > 0
        model.zero_grad()
        total.backward()
        assert model.encoder.get_input_embeddings().weight.grad[7:].abs().sum() > 0
    with pytest.raises(JobFileError, match="text is only trained on"):
        MLM.items(TEXT, examples, {}, "en")
