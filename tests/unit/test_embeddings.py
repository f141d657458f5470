"""Vectors and gradients of a small encoder beside the same worked out sentence by sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from small_encoder import Model, tokenizer

from xstilts.errors import ModelError
from xstilts.evaluate import embeddings
from xstilts.evaluate.embeddings import Reader, Unit
from xstilts.families import code_of
from xstilts.families.base import Length
from xstilts.tasks import registry
from xstilts.tasks.task import Task

TEXTS = ["the cat", "the cat sat on a mat", "who is in Paris", "London"]
LENGTH = Length(32, 16)


def reader(model: Any, batch: int = 3) -> Reader:
    return Reader(model, tokenizer().pad_token_id, batch, "cpu", "fp32")


def features() -> Any:
    task = registry.task("world_nli").model_copy(update={"columns": {"text": "t", "label": "l"}})
    code = code_of(task.family)
    rows = [{"t": text, "l": number % 3} for number, text in enumerate(TEXTS)]
    return code.encode(task, code.examples(task, rows), tokenizer(), LENGTH, False)


def alone(model: Any, text: str) -> Any:
    ids = torch.tensor([tokenizer()(text).input_ids])
    with torch.no_grad():
        return model.encoder(input_ids=ids, output_hidden_states=True).hidden_states


def test_every_layer_is_pooled_without_padding() -> None:
    model = Model(None).eval()
    found = embeddings.pooled(reader(model), features(), (0, 2))
    assert found.shape == (2, 4, 16)
    for number, text in enumerate(TEXTS):
        states = alone(model, text)
        for place, layer in enumerate((0, 2)):
            assert found[place, number] == pytest.approx(states[layer][0].mean(0).numpy(), abs=1e-5)


def test_positions_are_pooled_where_they_are_named() -> None:
    model = Model(None).eval()
    units = [Unit(1, (2, 3), 0), Unit(3, (), 1), Unit(1, (1,), 0)]
    found = embeddings.of_units(reader(model), features(), units)
    long, short = alone(model, TEXTS[1])[-1][0], alone(model, TEXTS[3])[-1][0]
    assert found[0] == pytest.approx(long[2:4].mean(0).numpy(), abs=1e-5)
    assert found[1] == pytest.approx(short.mean(0).numpy(), abs=1e-5)
    assert found[2] == pytest.approx(long[1].numpy(), abs=1e-5)


def test_layers_are_counted_from_both_ends() -> None:
    assert embeddings.layer_numbers((), 2) == (0, 1, 2)
    assert embeddings.layer_numbers((-1, 0, 2), 2) == (0, 2)
    with pytest.raises(ModelError, match="at most 2"):
        embeddings.layer_numbers((3,), 2)


def qa() -> tuple[Task, Any]:
    task = registry.task("world_qa")
    context = "the cat sat on a mat in Paris"
    answers = {"text": ["a mat"], "answer_start": [context.index("a mat")]}
    row = {"id": "q", "context": context, "question": "who sat", "answers": answers}
    return task, code_of(task.family).examples(task, [row])


def test_an_answer_is_beside_as_long_a_piece_of_its_passage() -> None:
    task, examples = qa()
    code = code_of(task.family)
    own, units = embeddings.labelled(code, task, examples, tokenizer(), LENGTH)
    (right, wrong) = units
    first, last = own[0].target
    assert (right.label, wrong.label) == (1, 0) and right.positions == tuple(range(first, last + 1))
    assert len(wrong.positions) == len(right.positions) and not {*wrong.positions} & {*right.positions}
    begin = code.encode(task, examples, tokenizer(), LENGTH, False)[0].keep["begin"]
    assert min(wrong.positions) >= begin


def test_words_have_tags_and_choices_are_right_or_wrong() -> None:
    tagging = registry.task("world_tagging")
    code = code_of(tagging.family)
    examples = code.examples(tagging, [{"tokens": ["the", "cat"], "tags": [5, 7]}])
    own, units = embeddings.labelled(code, tagging, examples, tokenizer(), LENGTH)
    assert [unit.label for unit in units] == [5, 7]
    assert [own[0].target[unit.positions[0]] for unit in units] == [5, 7]
    copa = registry.task("copa")
    code = code_of(copa.family)
    row = {
        "premise": "the cat sat",
        "choice1": "a mat",
        "choice2": "in Paris",
        "question": "cause",
        "label": 1,
        "idx": 0,
    }
    examples = code.examples(copa, [row])
    own, units = embeddings.labelled(code, copa, examples, tokenizer(), LENGTH)
    assert len(own) == 2 and [(unit.sequence, unit.label) for unit in units] == [(0, 0), (1, 1)]


@pytest.mark.parametrize("name", ["world_nli", "world_tagging", "world_qa"])
def test_gradients_are_those_of_one_example_after_another(name: str) -> None:
    task = registry.task(name)
    code = code_of(task.family)
    if name == "world_qa":
        examples = qa()[1] * 3
    elif name == "world_nli":
        rows = [{"premise": text, "hypothesis": TEXTS[0], "label": n % 3} for n, text in enumerate(TEXTS)]
        examples = code.examples(task, rows)
    else:
        rows = [{"tokens": text.split(), "tags": [n] * len(text.split())} for n, text in enumerate(TEXTS)]
        examples = code.examples(task, rows)
    torch.manual_seed(0)
    model = Model(code.head(task, 16, 0.0)).eval()
    own = code.encode(task, examples, tokenizer(), LENGTH, True)
    found = embeddings.gradients(model, code, own, tokenizer().pad_token_id, 3, "cpu")
    assert found.shape == (3, 16) and (found > 0).any(1).all()
    one_by_one = [embeddings.gradients(model, code, [one], tokenizer().pad_token_id, 1, "cpu") for one in own]
    assert found == pytest.approx(np.mean(one_by_one, axis=0), rel=1e-4, abs=1e-9)


def test_the_last_gradient_is_what_a_head_says_by_hand() -> None:
    task = registry.task("world_tagging")
    code = code_of(task.family)
    examples = code.examples(task, [{"tokens": ["cat"], "tags": [3]}])
    torch.manual_seed(0)
    model = Model(code.head(task, 16, 0.0)).eval()
    own = code.encode(task, examples, tokenizer(), LENGTH, True)
    found = embeddings.gradients(model, code, own, tokenizer().pad_token_id, 1, "cpu")
    states = alone(model, "cat")[-1][0]
    head: Any = model.head
    with torch.no_grad():
        shares = head(states[1]).softmax(-1)
        shares[3] -= 1
        wanted = (shares @ head.out_proj.weight) ** 2 / len(states)  # softmax less one-hot, through the layer
    assert found[-1] == pytest.approx(wanted.numpy(), rel=1e-4)
