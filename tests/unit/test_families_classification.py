"""Classification and multiple choice: labels, encodings, masked choices, losses that add up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_encoder import Model, tokenizer
from torch.nn import functional

from xstilts.errors import DataError
from xstilts.families import batching, code_of
from xstilts.families.base import Length
from xstilts.tasks.task import Family, Task

NLI = Task(
    name="nli", family=Family.CLASSIFICATION, roles=("target",), metric="accuracy", languages=("en",),
    columns={"text": "p", "pair": "h", "label": "y", "cluster": "p"}, labels=("yes", "maybe", "no"),
    parallel=True, source="-", licence="-",
)  # fmt: skip
CHOICE = Task(
    name="csqa", family=Family.MULTIPLE_CHOICE, roles=("intermediate",), metric="accuracy", languages=("en",),
    columns={"item": "id", "first": "q", "choices": "c.text", "label": "key"}, labels=("A", "B", "C"),
    source="-", licence="-",
)  # fmt: skip
SINGLE, MULTIPLE = code_of(Family.CLASSIFICATION), code_of(Family.MULTIPLE_CHOICE)


def pair(premise: str, hypothesis: str, label: Any) -> dict[str, Any]:
    return {"p": premise, "h": hypothesis, "y": label}


def choice(item: str, choices: list[str], key: str) -> dict[str, Any]:
    return {"id": item, "q": "who sat on the mat", "c": {"text": choices}, "key": key}


def test_rows_become_examples_whose_clusters_are_named_by_their_first_row() -> None:
    found = SINGLE.examples(NLI, [pair("a", "b", 2), pair("c", "b", "yes"), pair("a", "d", -1)])
    assert [one.gold for one in found] == [2, 0, None]
    assert [one.cluster for one in found] == ["0", "1", "0"] and found[2].parallel_id == found[2].item == "2"


@pytest.mark.parametrize("label", [3, "perhaps", -2, 1.5])
def test_a_label_outside_the_set_is_refused(label: Any) -> None:
    with pytest.raises(DataError, match=r"row 1 of nli has the label .*outside the set: the labels are yes"):
        SINGLE.examples(NLI, [pair("a", "b", 0), pair("a", "b", label)])


def test_missing_columns_empty_text_and_repeated_ids_are_refused() -> None:
    with pytest.raises(DataError, match="row 0 of nli has no column 'h': it has p, y"):
        SINGLE.examples(NLI, [{"p": "a", "y": 0}])
    with pytest.raises(DataError, match="row 0 of nli has None in 'h' where text belongs"):
        SINGLE.examples(NLI, [{"p": "a", "h": None, "y": 0}])
    with pytest.raises(DataError, match="rows 0 and 1 of csqa share the id 'x'"):
        MULTIPLE.examples(CHOICE, [choice("x", ["a"], "A"), choice("x", ["a"], "A")])
    with pytest.raises(DataError, match="row 0 of csqa has the label 'C' and only 2 choices"):
        MULTIPLE.examples(CHOICE, [choice("x", ["a", "b"], "C")])
    unlabelled = SINGLE.examples(NLI, [pair("a", "b", -1)])
    with pytest.raises(DataError, match="no gold label to train on"):
        SINGLE.encode(NLI, unlabelled, tokenizer(), Length(), True)
    with pytest.raises(DataError, match="no gold label to score"):
        SINGLE.items(NLI, unlabelled, {}, "en")


def test_pairs_lose_the_end_of_the_longer_and_types_are_kept_for_encoders_that_read_them() -> None:
    examples = SINGLE.examples(NLI, [pair("the cat " * 20, "a mat", 0)])
    words = tokenizer()
    (feature,) = SINGLE.encode(NLI, examples, words, Length(max_length=14), True)
    text = words.decode(feature.input_ids[0])
    assert feature.length == 14 and text.endswith("</s></s> a mat</s>") and feature.keep == {}
    (typed,) = SINGLE.encode(NLI, examples, tokenizer(types=True), Length(max_length=14), True)
    assert sum(typed.keep["types"][0]) == 4  # </s>, a, mat, </s>
    model = Model(SINGLE.head(NLI, 16, 0.0)).eval()
    outputs = [SINGLE.forward(model, SINGLE.collate([one], 1)) for one in (feature, typed)]
    assert not torch.equal(*outputs), "two types: the second segment's embedding counts"
    model.encoder.config.type_vocab_size = 1
    outputs = [SINGLE.forward(model, SINGLE.collate([one], 1)) for one in (feature, typed)]
    assert torch.equal(*outputs), "one type: an index of 1 would be outside the table"


def test_losses_of_micro_batches_add_up_to_the_batch() -> None:
    rows = [pair("the cat " * n, "a mat", n % 3) for n in range(1, 5)]
    features = SINGLE.encode(NLI, SINGLE.examples(NLI, rows), tokenizer(), Length(), True)
    model = Model(SINGLE.head(NLI, 16, 0.0)).eval()
    total, count = SINGLE.loss(model, SINGLE.collate(features, 1))
    parts = [SINGLE.loss(model, SINGLE.collate(features[at : at + 2], 1)) for at in (0, 2)]
    torch.testing.assert_close(total, parts[0][0] + parts[1][0])
    assert float(count) == 4 == float(parts[0][1] + parts[1][1]) and total.requires_grad


def test_the_first_of_equal_labels_wins_and_a_missing_prediction_is_wrong() -> None:
    examples = SINGLE.examples(NLI, [pair("a", "b", 0), pair("c", "d", 1)])
    features = SINGLE.encode(NLI, examples, tokenizer(), Length(), False)
    said = SINGLE.decode(NLI, examples, features, [torch.zeros(3), torch.tensor([0.0, 9.0, 9.0])])
    assert [one.prediction for one in said] == ["yes", "maybe"] and said[0].score == pytest.approx(1 / 3)
    items = SINGLE.items(NLI, examples, {"0": "yes"}, "en")
    assert [row["correct"] for row in items] == [1, 0]
    assert SINGLE.score(NLI, {"items": 2, "correct": 1}) == {"accuracy": 50.0}


def test_rows_with_fewer_choices_are_padded_with_masked_ones() -> None:
    rows = [
        choice("x", ["the cat", "a mat", "Paris"], "B"),
        choice("y", ["the cat", "London in London"], "A"),
    ]
    examples = MULTIPLE.examples(CHOICE, rows)
    assert [one.gold for one in examples] == [1, 0]
    features = MULTIPLE.encode(CHOICE, examples, tokenizer(), Length(), True)
    model = Model(MULTIPLE.head(CHOICE, 16, 0.0)).eval()
    batch = MULTIPLE.collate(features, 1)
    assert batch["input_ids"].shape[0] == 6 and batch["choice_mask"].tolist()[1] == [True, True, False]
    together, (total, count) = MULTIPLE.forward(model, batch), MULTIPLE.loss(model, batch)
    alone = MULTIPLE.forward(model, MULTIPLE.collate(features[1:], 1))
    torch.testing.assert_close(together[1, :2], alone[0])
    wanted = functional.cross_entropy(together[:1], torch.tensor([1])) + functional.cross_entropy(
        alone, torch.tensor([0])
    )
    torch.testing.assert_close(total, wanted)
    total.backward()
    assert float(count) == 2 and all(
        bool(part.grad.isfinite().all()) for part in model.parameters() if part.grad is not None
    )
    outputs = batching.outputs_of(model, MULTIPLE, features, 1, 8, "cpu", "fp32")
    assert [len(one) for one in outputs] == [3, 2]
    said = MULTIPLE.decode(CHOICE, examples, features, [torch.tensor([0.0, 1.0, 0.0]), torch.zeros(2)])
    assert [(one.item, one.prediction) for one in said] == [("x", "B"), ("y", "A")]
    right = MULTIPLE.items(CHOICE, examples, {one.item: one.prediction for one in said}, "en")
    assert [row["correct"] for row in right] == [1, 1]


def test_choices_may_lie_in_columns_of_their_own_after_a_question() -> None:
    columns = {"first": "ctx", "second": "q", "choices": "c1, c2", "label": "y"}
    task = CHOICE.model_copy(update={"columns": columns, "labels": ()})
    row = {"ctx": "the cat sat", "q": "who is on", "c1": "cat", "c2": "mat", "y": 1}
    examples = MULTIPLE.examples(task, [row])
    words = tokenizer()
    (feature,) = MULTIPLE.encode(task, examples, words, Length(), False)
    assert words.decode(feature.input_ids[1]) == "<s> the cat sat</s></s> who is on mat</s>"
    assert feature.target is None
    (said,) = MULTIPLE.decode(task, examples, [feature], [torch.tensor([0.0, 5.0])])
    assert said.prediction == "1"
    assert MULTIPLE.items(task, examples, {"0": "1"}, "en")[0]["correct"] == 1
