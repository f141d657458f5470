"""Tagging: every word gets exactly one tag, however its sentence was cut, and whatever its characters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_encoder import Model, tokenizer

from xstilts.errors import DataError, JobFileError
from xstilts.families import batching, code_of
from xstilts.families.base import Length
from xstilts.tasks.task import Family, Task

TASK = Task(
    name="pos", family=Family.TAGGING, roles=("target",), metric="chunk_f1", languages=("en",),
    columns={"words": "w", "tags": "t"}, labels=("NOUN", "VERB", "DET"), source="-", licence="-",
)  # fmt: skip
CODE = code_of(Family.TAGGING)


def row(words: list[str], tags: list[Any] | None = None) -> dict[str, Any]:
    return {"w": words, "t": [0] * len(words) if tags is None else tags}


def test_only_first_sub_words_are_labelled() -> None:
    examples = CODE.examples(TASK, [row(["the", "sitting", "cat"], [2, "VERB", "NOUN"])])
    (feature,) = CODE.encode(TASK, examples, tokenizer(), Length(), True)
    shown = tokenizer().convert_ids_to_tokens(list(feature.input_ids[0]))
    labelled = [(piece, label) for piece, label in zip(shown, feature.target, strict=True) if label != -100]
    assert labelled == [("▁the", 2), ("▁", 1), ("▁cat", 0)] and len(shown) > 5


def test_words_that_give_no_sub_word_get_the_unknown_one() -> None:
    words = ["", "cat", "\u200b", "ก", "☃"]
    (feature,) = CODE.encode(TASK, CODE.examples(TASK, [row(words)]), tokenizer(), Length(), False)
    assert len(feature.keep["places"]) == len(set(feature.keep["places"])) == 5
    assert feature.input_ids[0][feature.keep["places"][0]] == tokenizer().unk_token_id


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(("the", "cat", "sitting", "", "กรุงเทพ", "x" * 30, "\u200b", "，")), max_size=25),
    st.integers(3, 30),
)
def test_parts_of_a_long_sentence_are_rejoined_word_by_word(words: list[str], limit: int) -> None:
    examples = CODE.examples(TASK, [row(["cat"]), row(words), row(["mat"])])
    features = CODE.encode(TASK, examples, tokenizer(), Length(max_length=limit), False)
    assert max(feature.length for feature in features) <= limit
    outputs, number = [], {0: 0, 1: 0, 2: 0}
    for feature in features:
        logits = torch.zeros(feature.length, 3)
        for place in feature.keep["places"]:
            logits[place, number[feature.example] % 3] = 5.0
            number[feature.example] += 1
        outputs.append(logits)
    said = CODE.decode(TASK, examples, features[::-1], outputs[::-1])
    assert said[1].prediction == [TASK.labels[word % 3] for word in range(len(words))]
    assert [len(one.prediction) for one in said] == [1, len(words), 1]
    trained = CODE.encode(TASK, examples, tokenizer(), Length(max_length=limit), True)
    assert sum(label != -100 for one in trained for label in one.target) == len(words) + 2


def test_loss_is_over_words_and_adds_up() -> None:
    examples = CODE.examples(TASK, [row(["the", "cat"], [2, 0]), row(["sitting"] * 5, [1] * 5)])
    features = CODE.encode(TASK, examples, tokenizer(), Length(), True)
    model = Model(CODE.head(TASK, 16, 0.0)).eval()
    total, count = CODE.loss(model, CODE.collate(features, 1))
    parts = [CODE.loss(model, CODE.collate([one], 1)) for one in features]
    torch.testing.assert_close(total, parts[0][0] + parts[1][0], atol=1e-5, rtol=1e-4)
    assert float(count) == 7 == float(parts[0][1] + parts[1][1])
    read = CODE.encode(TASK, examples, tokenizer(), Length(), False)
    outputs = batching.outputs_of(model, CODE, read, 1, 2, "cpu", "fp32")
    assert [tuple(one.shape) for one in outputs] == [(feature.length, 3) for feature in read]


def test_metric_decides_the_statistics() -> None:
    examples = CODE.examples(TASK, [row(["the", "cat"], [2, 0])])
    plain = TASK.model_copy(update={"metric": "token_accuracy"})
    (item,) = CODE.items(plain, examples, {"0": ["DET", "VERB"]}, "en")
    assert item == {"item": "0", "cluster": "0", "parallel_id": "", "correct": 1, "n": 2}
    assert CODE.score(plain, {"items": 1, "correct": 1, "n": 2})["token_accuracy"] == 50


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(DataError, match="row 0 of pos does not have one tag a word"):
        CODE.examples(TASK, [row(["a", "b"], [0])])
    with pytest.raises(DataError, match="row 0 of pos has the label 'ADJ', outside the set"):
        CODE.examples(TASK, [row(["a"], ["ADJ"])])
    examples = CODE.examples(TASK, [row(["a", "b"])])
    with pytest.raises(DataError, match="has 1 tags for 2 words: it was made from other data"):
        CODE.items(TASK, examples, {"0": ["NOUN"]}, "en")
    with pytest.raises(JobFileError, match="set max_length to 3 or more"):
        CODE.encode(TASK, examples, tokenizer(), Length(max_length=2), False)
