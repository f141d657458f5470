"""Span QA: windows, offsets back to characters, the best span over windows, and no answer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_encoder import Model, tokenizer

from xstilts.errors import DataError, JobFileError
from xstilts.families import code_of, span_qa
from xstilts.families.base import Example, Feature, Length
from xstilts.tasks.task import Family, Task

TASK = Task(
    name="squad", family=Family.SPAN_QA, roles=("target",), metric="squad", languages=("en",),
    columns={"id": "id", "question": "question", "context": "context", "answers": "answers"},
    source="-", licence="-",
)  # fmt: skip
NULL = TASK.model_copy(update={"labels": ("answerable", "unanswerable")})
CODE = code_of(Family.SPAN_QA)


def row(
    context: str, answer: str | None, question: str = "who is in Paris?", item: str = "q"
) -> dict[str, Any]:
    found = [] if answer is None else [answer]
    starts = [context.index(one) for one in found]
    return {
        "id": item,
        "question": question,
        "context": context,
        "answers": {"text": found, "answer_start": starts},
    }


def peaked(
    features: list[Feature], examples: list[Example], text: str, height: float = 9.0
) -> list[torch.Tensor]:
    """Logits of a model that has found `text` in every window that holds it."""
    start = examples[0].inputs["context"].index(text)
    found = []
    for feature in features:
        logits = torch.zeros(feature.length, 2)
        keep = feature.keep
        for place in range(keep["count"]):
            left, right = keep["offsets"][keep["first"] + place]
            logits[keep["begin"] + place, 0] = height * (left <= start < right)
            logits[keep["begin"] + place, 1] = height * (left < start + len(text) <= right)
        found.append(logits)
    return found


@pytest.mark.parametrize(
    ("context", "answer"),
    [
        ("the cat sat on the mat in Paris.", "mat"),
        ("the cat  sat on\tthe mat", "cat  sat"),
        ("هذا هو القاهرة في", "القاهرة"),
        ("ไทยกรุงเทพมหานคร", "กรุงเทพ"),
        ("北京是中国的 ｐａｒｉｓ 東京。", "東京"),
        ("ｐａｒｉｓ is ﬁne in London", "London"),  # NFKC makes one character two
        ("the cat 𝔸 😀 sat", "sat"),  # beyond the basic plane: code points, not UTF-16
        ("the mat", "the mat"),
    ],
)
def test_a_span_goes_to_sub_words_and_comes_back_as_the_same_text(context: str, answer: str) -> None:
    examples = CODE.examples(TASK, [row(context, answer)])
    (trained,) = CODE.encode(TASK, examples, tokenizer(), Length(), True)
    (feature,) = CODE.encode(TASK, examples, tokenizer(), Length(), False)
    assert trained.input_ids == feature.input_ids and trained.keep == {}
    logits = torch.zeros(feature.length, 2)
    logits[trained.target[0], 0] = logits[trained.target[1], 1] = 9.0
    (said,) = CODE.decode(TASK, examples, [feature], [logits])
    assert said.prediction == answer and said.item == "q" and 0.9 < said.score <= 1


def test_windows_cover_the_passage_and_the_ones_without_the_answer_point_to_the_first_token() -> None:
    context = "the cat sat on the mat " * 12 + "in London. " + "a cat is on a mat " * 12
    examples = CODE.examples(TASK, [row(context, "London")])
    length = Length(max_length=48, doc_stride=16)
    features = CODE.encode(TASK, examples, tokenizer(), length, True)
    read = CODE.encode(TASK, examples, tokenizer(), length, False)
    assert len(features) == len(read) > 4 and max(one.length for one in features) == 48
    covered = {
        place for one in read for place in range(one.keep["first"], one.keep["first"] + one.keep["count"])
    }
    assert covered == set(range(len(read[0].keep["offsets"])))
    assert {b.keep["first"] - a.keep["first"] for a, b in zip(read, read[1:], strict=False)} == {16}
    words = tokenizer()
    for feature in features:
        first, last = feature.target
        assert (first, last) == (0, 0) or words.decode(feature.input_ids[0][first : last + 1]) == "London"
    assert sum(feature.target != (0, 0) for feature in features) >= 2
    (said,) = CODE.decode(TASK, examples, read, peaked(read, examples, "London"))
    assert said.prediction == "London"


def test_a_stride_wider_than_the_window_still_overlaps() -> None:
    examples = CODE.examples(TASK, [row("the cat sat on a mat " * 30, "sat")])
    read = CODE.encode(TASK, examples, tokenizer(), Length(max_length=40, doc_stride=128), False)
    steps = {b.keep["first"] - a.keep["first"] for a, b in zip(read, read[1:], strict=False)}
    assert steps == {read[0].keep["count"] // 2}


def test_long_questions_are_cut() -> None:
    examples = CODE.examples(TASK, [row("the cat sat", "cat", question="who is on the mat " * 40)])
    (feature,) = CODE.encode(TASK, examples, tokenizer(), Length(max_length=384), False)
    assert feature.keep["begin"] == 1 + 64 + 2
    with pytest.raises(JobFileError, match="set max_length to 12 or more"):
        CODE.encode(TASK, examples, tokenizer(), Length(max_length=9), False)


def test_the_best_span_over_windows_wins_whatever_their_order() -> None:
    examples = CODE.examples(TASK, [row("the cat sat on the mat " * 8 + "in London", "London")])
    read = CODE.encode(TASK, examples, tokenizer(), Length(max_length=40, doc_stride=16), False)
    strong, weak = peaked(read, examples, "London"), peaked(read, examples, "cat sat", 5.0)
    outputs = [a if a.max() > 0 else b for a, b in zip(strong, weak, strict=True)]
    for order in (slice(None), slice(None, None, -1)):
        assert CODE.decode(TASK, examples, read[order], outputs[order])[0].prediction == "London"


def test_no_answer_only_where_the_task_knows_it() -> None:
    rows = [row("the cat sat on the mat", None)]
    examples = CODE.examples(NULL, rows)
    (feature,) = CODE.encode(NULL, examples, tokenizer(), Length(), False)
    (logits,) = peaked([feature], examples, "cat", 3.0)
    logits[0] = 9.0
    assert CODE.decode(NULL, examples, [feature], [logits])[0].prediction == ""
    assert CODE.decode(TASK, examples, [feature], [logits])[0].prediction == "cat"
    logits[0] = 2.0
    assert CODE.decode(NULL, examples, [feature], [logits])[0].prediction == "cat"
    (trained,) = CODE.encode(NULL, examples, tokenizer(), Length(), True)
    assert trained.target == (0, 0)
    with pytest.raises(DataError, match="row q of squad has no answer"):
        CODE.encode(TASK, CODE.examples(TASK, rows), tokenizer(), Length(), True)


def test_an_answer_that_is_not_where_the_data_say_is_refused_in_training() -> None:
    bad = row("the cat sat", "cat")
    bad["answers"]["answer_start"] = [5]
    with pytest.raises(DataError, match="says that 'cat' is at character 5, and it is not"):
        CODE.encode(TASK, CODE.examples(TASK, [bad]), tokenizer(), Length(), True)


def test_a_passage_of_nothing_gets_an_empty_prediction() -> None:
    examples = CODE.examples(TASK, [row(" ", None)])
    features = CODE.encode(TASK, examples, tokenizer(), Length(), False)
    (said,) = CODE.decode(TASK, examples, features, [torch.zeros(one.length, 2) for one in features])
    assert said.prediction == "" and CODE.items(TASK, examples, {"q": ""}, "en")[0]["em"] == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(0, 10_000), st.booleans())
def test_best_spans_are_those_of_a_full_search(count: int, seed: int, ties: bool) -> None:
    logits = np.random.default_rng(seed).normal(size=(count, 2))
    logits = np.round(logits) if ties else logits
    every = [
        (-(logits[s, 0] + logits[e, 1]), s, e) for s in range(count) for e in range(s, min(count, s + 30))
    ]
    wanted = [(s, e) for _, s, e in sorted(every)[:20]]
    assert [(s, e) for _, s, e in span_qa.best_spans(logits)] == wanted


def test_loss_ignores_padding_and_counts_windows() -> None:
    rows = [row("the cat sat", "cat", item="a"), row("the cat sat on the mat in Paris", "Paris", item="b")]
    features = CODE.encode(TASK, CODE.examples(TASK, rows), tokenizer(), Length(), True)
    model = Model(CODE.head(TASK, 16, 0.1)).eval()
    total, count = CODE.loss(model, CODE.collate(features, 1))
    parts = [CODE.loss(model, CODE.collate([one], 1))[0] for one in features]
    torch.testing.assert_close(total, parts[0] + parts[1], atol=1e-5, rtol=1e-4)
    assert float(count) == 2
