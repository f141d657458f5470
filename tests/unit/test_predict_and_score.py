"""From a model to predictions, and from predictions to scores, for every family that a job can name."""

from __future__ import annotations

from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

from xstilts.errors import DataError, StoreError
from xstilts.evaluate.predict import by_item, predict, read_predictions, write_predictions
from xstilts.evaluate.score import read_items, score, sums, write_items
from xstilts.families import code_of
from xstilts.families.base import Length, Prediction
from xstilts.families.encoder import TaskModel, fresh_head
from xstilts.families.reading import read
from xstilts.tasks import registry
from xstilts.tasks.metrics import COLUMNS, METRICS
from xstilts.tasks.task import Family, Rows, Task
from xstilts.tasks.world import generator_identity

COUNT = 24
NAMES = ("world_nli", "world_qa", "world_tagging", "world_retrieval", "made_choice")
CHOICE = Task(
    name="made_choice",
    family=Family.MULTIPLE_CHOICE,
    roles=("intermediate",),
    metric="accuracy",
    languages=("w0",),
    columns={"first": "premise", "choices": "hypothesis,premise", "label": "label"},
    labels=("0", "1"),
    source="here",
    licence="CC0-1.0",
)


def examples_of(name: str) -> tuple[Any, Task, list[Any]]:
    """Family code, task and some rows of the generated world in the family's words."""
    task = CHOICE if name == CHOICE.name else registry.task(name)
    config = (
        "nli.w0" if task is CHOICE else task.test.at("w1" if task.family is Family.RETRIEVAL else "w0").config
    )
    rows = Rows(
        path="world", config=config, split="test", language="w0", world=generator_identity(1), first=COUNT
    )
    found = read(rows, None)
    if task is CHOICE:
        found = [{**row, "label": row["label"] % 2} for row in found]
    code = code_of(task.family)
    return code, task, code.examples(task, found)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    """One sub-word a character, with XLM-R's special tokens; any text of the world can be read."""
    marks = ["<s>", "<pad>", "</s>", "<unk>"]
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789.?,▁", "<mask>"]
    pieces = [(piece, -1.0) for piece in (*marks, *letters)]
    made = Tokenizer(models.Unigram(pieces, unk_id=3))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    names = dict(bos="<s>", eos="</s>", cls="<s>", sep="</s>", pad="<pad>", unk="<unk>", mask="<mask>")
    return PreTrainedTokenizerFast(
        tokenizer_object=made, **{f"{name}_token": token for name, token in names.items()}
    )


def model_for(task: Task, code: Any, tokenizer: Any) -> TaskModel:
    """A tiny encoder with fresh weights and the task's head, in training mode."""
    torch.manual_seed(0)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=260,
        pad_token_id=tokenizer.pad_token_id,
        type_vocab_size=1,
    )
    encoder = XLMRobertaModel(config, add_pooling_layer=False)
    head = fresh_head(code, task, encoder, 1)
    return TaskModel(encoder, head, layer=-1 if task.family is Family.RETRIEVAL else None).train()


def said(name: str, tokenizer: Any, **more: Any) -> tuple[Any, Task, list[Any], list[Prediction]]:
    """The tiny model's predictions."""
    code, task, examples = examples_of(name)
    model = model_for(task, code, tokenizer)
    made = predict(model, code, task, examples, tokenizer, Length(200, 64), 5, "cpu", "fp32", **more)
    assert model.training, "the model is left in the mode it was in"
    return code, task, examples, made


@pytest.mark.parametrize("name", NAMES)
def test_from_model_to_scores_and_back_from_disk(name, tokenizer, tmp_path):
    steps: list[tuple[int, int]] = []
    code, task, examples, made = said(
        name, tokenizer, progress=lambda done, every: steps.append((done, every))
    )
    assert [one.item for one in made] == [example.item for example in examples]
    assert steps[-1][0] == steps[-1][1] and len(steps) >= COUNT // 5
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)

    write_predictions(tmp_path / "deep" / "p.parquet", made)
    stored = read_predictions(tmp_path / "deep" / "p.parquet")
    assert stored == by_item(made)
    assert pq.read_schema(tmp_path / "deep" / "p.parquet").names == ["item", "prediction", "score"]

    items, metrics = score(code, task, examples, stored, "w0")
    assert list(metrics)[0] == task.metric and set(metrics) == set(METRICS[task.metric])
    assert all(0 <= value <= 100 for value in metrics.values())
    assert {"item", "cluster", "parallel_id", *COLUMNS[task.metric]} <= set(items[0])
    write_items(tmp_path / "i.parquet", items)
    assert read_items(tmp_path / "i.parquet") == items
    assert code.score(task, sums(read_items(tmp_path / "i.parquet"))) == metrics


def test_features_that_a_caller_keeps_give_the_same(tokenizer):
    code, task, examples, made = said("world_nli", tokenizer)
    kept = code.encode(task, examples, tokenizer, Length(200, 64), False)
    assert said("world_nli", tokenizer, features=kept)[3] == made


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_prediction_counts_as_wrong(name, tokenizer):
    code, task, examples, made = said(name, tokenizer)
    one = {examples[0].item: made[0].prediction}
    items, metrics = score(code, task, examples, one, "w0")
    assert len(items) == len(examples)
    assert all(not items[-1][column] for column in ("correct", "em", "tp") if column in items[-1])
    assert metrics[task.metric] <= 100 / len(examples) * 2


def test_predictions_of_other_data_are_refused(tokenizer):
    code, task, examples, _ = said("world_nli", tokenizer)
    with pytest.raises(DataError, match="of none of its 24 items"):
        score(code, task, examples, {"somewhere else": "neutral"}, "w0")


def test_sums_do_not_depend_on_the_order_of_items():
    items = [
        {"item": str(i), "cluster": "", "parallel_id": "", "f1": 0.1 * i, "em": i % 2} for i in range(50)
    ]
    assert sums(items) == sums(items[::-1])
    assert sums(items)["items"] == 50 and sums(items)["em"] == 25


def test_lists_and_texts_keep_their_kind(tmp_path):
    path = tmp_path / "p.parquet"
    write_predictions(path, [Prediction("a", ["NOUN"], 0.5), Prediction("b", (), 0.1)])
    assert read_predictions(path) == {"a": ["NOUN"], "b": []}
    write_predictions(path, [])
    assert read_predictions(path) == {}


def test_a_file_that_cannot_be_written_or_read(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_predictions(blocked / "p.parquet", [])
    for path in (tmp_path / "nowhere.parquet", blocked):
        with pytest.raises(DataError, match="cannot be read"):
            read_predictions(path)


def test_neighbouring_paragraphs_of_one_article_are_one_cluster() -> None:
    """XQuAD has no titles: five paragraphs, in published order, are an article."""
    from xstilts.families import columns
    from xstilts.tasks import registry

    rows = [
        {"id": str(i), "context": f"paragraph {i // 3}", "question": "q", "answers": {}} for i in range(36)
    ]
    clusters = [name.cluster for name in columns.identities(registry.task("xquad"), rows)]
    assert clusters == ["0"] * 15 + ["15"] * 15 + ["30"] * 6
