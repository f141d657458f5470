"""Every architecture that is promised, tiny: loads, trains, predicts, saves, and starts the next phase."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tiny_encoders import CORPUS, KINDS, made, saved, tiny, words_of
from torch import nn
from transformers import AutoModelForMaskedLM

from xstilts.errors import ModelError
from xstilts.families import batching, code_of, encoder, masked_lm, snapshot, subwords
from xstilts.families.base import Feature, Length
from xstilts.tasks.task import Family, Task


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """One architecture."""
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its checkpoint, published as such are: with the head of masked language modelling."""
    return saved(made(kind), kind, tmp_path_factory.mktemp(kind) / "model")


def task(family: Family, metric: str, columns: dict[str, str], labels: tuple[str, ...] = ()) -> Task:
    """A made-up task."""
    return Task(
        name=f"made_up_{family.value}", family=family, roles=("target",), metric=metric, languages=("en",),
        columns=columns, labels=labels, source="made up", licence="none",
    )  # fmt: skip


LONG = "the cat sat on the mat in Paris who is Ñandú 東京 \u200b กรุงเทพ".split() * 4
PASSAGE = "the cat sat on the mat . who is in London ? a cat is in Paris . " * 3
ANSWERS = {"text": ["London"], "answer_start": [PASSAGE.index("London")]}
TASKS: dict[str, tuple[Task, list[dict[str, Any]]]] = {
    "pairs": (
        task(Family.CLASSIFICATION, "accuracy", {"text": "a", "pair": "b", "label": "y"}, ("no", "yes")),
        [{"a": "the cat", "b": "a mat", "y": 0}, {"a": "who is in Paris ? " * 9, "b": "the Cat", "y": 1}],
    ),
    "choices": (
        task(
            Family.MULTIPLE_CHOICE, "accuracy", {"first": "a", "choices": "c", "label": "y"}, ("0", "1", "2")
        ),
        [{"a": "the cat", "c": ["sat", "is in Paris ."], "y": 1}, {"a": "who", "c": ["a", "b", "c"], "y": 2}],
    ),
    "spans": (
        task(Family.SPAN_QA, "squad", {"question": "q", "context": "c", "answers": "a", "item": "i"}),
        [{"i": "1", "q": "who is in London ?", "c": PASSAGE, "a": ANSWERS}],
    ),
    "tags": (
        task(Family.TAGGING, "chunk_f1", {"words": "w", "tags": "t"}, ("NOUN", "VERB", "DET")),
        [{"w": LONG, "t": [place % 3 for place in range(len(LONG))]}, {"w": ["cat"], "t": [0]}],
    ),
    "texts": (task(Family.MASKED_LM, "accuracy", {"text": "x"}), [{"x": "the cat sat"}, {"x": CORPUS[2]}]),
    "sentences": (
        task(Family.RETRIEVAL, "accuracy", {"query": "q", "document": "d"}),
        [{"q": "the cat", "d": "a cat"}, {"q": "who is in Paris ?", "d": "London"}],
    ),
}


def encoded(name: str, words: Any, training: bool) -> tuple[Any, list[Any], list[Feature]]:
    """Family code, examples and features of one of TASKS, at most 40 sub-words long."""
    made_up, rows = TASKS[name]
    code = code_of(made_up.family)
    examples = code.examples(made_up, rows)
    return code, examples, code.encode(made_up, examples, words, Length(40, 16), training)


def model_of(name: str, model: Any, seed: int = 1) -> encoder.TaskModel:
    """`model` with a fresh head for one of TASKS."""
    if name == "texts":
        return encoder.TaskModel(model, masked_lm.head_for(model))
    made_up = TASKS[name][0]
    return encoder.TaskModel(
        model, encoder.fresh_head(code_of(made_up.family), made_up, model, seed), layer=1
    )


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of all weights."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether names and every bit agree."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def step(name: str, model: encoder.TaskModel, words: Any) -> float:
    """One optimiser step on one of TASKS; its loss."""
    code, _, features = encoded(name, words, True)
    batch = code.collate(features, words.pad_token_id)
    if name == "texts":
        batch = masked_lm.mask(
            batch, torch.Generator().manual_seed(1), special_ids=words.all_special_ids,
            mask_id=words.mask_token_id, vocabulary=len(words), share=0.5,
        )  # fmt: skip
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    total, count = code.loss(model.train(), batch)
    (total / count).backward()
    optimiser.step()
    return float((total / count).detach())


def test_a_published_checkpoint_loads_and_comes_back_from_save(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    loaded, words = encoder.load(folder)
    assert same(bits(loaded), bits(made(kind).base_model)) and loaded.dtype == torch.float32
    encoder.save(loaded, words, tmp_path / "again")
    again, words_again = encoder.load(tmp_path / "again")
    assert same(bits(again), bits(loaded)) and type(again) is type(loaded)
    for text in CORPUS[:3]:
        assert words_again(text, text).input_ids == words_of(kind)(text, text).input_ids
    assert words_again.pad_token_id is not None and words_again.unk_token_id is not None


def test_frames_are_those_of_the_tokenizer(kind: str, folder: Path) -> None:
    words = encoder.load(folder)[1]
    first, second = (words(text, add_special_tokens=False).input_ids for text in CORPUS[:2])
    for frame, texts in (
        (subwords.Frame.of(words, False), (first,)),
        (subwords.Frame.of(words, True), (first, second)),
    ):
        whole = words(*CORPUS[: len(texts)]).encodings[0]
        assert frame.around(*texts) == (tuple(whole.ids), tuple(whole.type_ids))
        assert frame.size == len(whole.ids) - sum(map(len, texts))


@pytest.mark.parametrize("name", [name for name in TASKS if name != "sentences"])
def test_every_family_trains(kind: str, folder: Path, name: str) -> None:
    model, words = encoder.load(folder)
    whole = model_of(name, model)
    before = bits(whole)
    assert 0 < step(name, whole, words) < 100
    after = bits(whole)
    assert all(tensor.isfinite().all() for tensor in after.values())
    changed = {key.split(".")[0] for key in after if not torch.equal(before[key], after[key])}
    assert changed == {"encoder", "head"}


@pytest.mark.parametrize("name", [name for name in TASKS if name != "texts"])
def test_every_family_predicts_the_same_alone_and_in_a_padded_batch(
    kind: str, folder: Path, name: str
) -> None:
    model, words = encoder.load(folder)
    code, examples, features = encoded(name, words, False)
    whole = model_of(name, model)
    alone, together, again = (
        batching.outputs_of(whole, code, features, words.pad_token_id, batch, "cpu", "fp32")
        for batch in (1, 16, 16)
    )
    assert len({feature.length for feature in features}) > 1 or name == "spans"
    for one, other, repeated in zip(alone, together, again, strict=True):
        assert torch.allclose(one, other, atol=1e-5) and torch.equal(other, repeated)
    said = code.decode(TASKS[name][0], examples, features, together)
    assert [each.item for each in said] == [example.item for example in examples]
    if name == "tags":
        assert len(features) > 2 and [len(each.prediction) for each in said] == [len(LONG), 1]


def test_retrieval_reads_the_layer_that_is_named(kind: str, folder: Path) -> None:
    model, words = encoder.load(folder)
    code, _, features = encoded("sentences", words, False)
    layers = int(model.config.num_hidden_layers)
    pooled = []
    for layer in (0, 1, layers, -1):
        whole = encoder.TaskModel(model, layer=layer).eval()
        pooled.append(code.forward(whole, code.collate(features, words.pad_token_id)))
    assert torch.equal(pooled[2], pooled[3])
    assert not torch.allclose(pooled[0], pooled[1]) and not torch.allclose(pooled[1], pooled[2])
    with pytest.raises(ModelError, match=f"to {layers}, and layer {layers + 1}"):
        code.forward(encoder.TaskModel(model, layer=layers + 1), code.collate(features[:1], 0))


def test_a_phase_starts_from_the_encoder_and_a_new_head(kind: str, folder: Path, tmp_path: Path) -> None:
    model, words = encoder.load(folder)
    trained = model_of("tags", model)
    step("tags", trained, words)
    encoder.save(trained.encoder, words, tmp_path / "phase2")  # type: ignore[arg-type]
    following, words_after = encoder.load(tmp_path / "phase2")
    assert same(bits(following), bits(trained.encoder))
    assert not same(bits(following), bits(encoder.load(folder)[0]))
    fresh = model_of("tags", following).head
    assert fresh is not None and trained.head is not None
    assert same(bits(fresh), bits(model_of("tags", encoder.load(folder)[0]).head))  # type: ignore[arg-type]
    assert not same(bits(fresh), bits(trained.head))
    assert words_after.backend_tokenizer.to_str() == words.backend_tokenizer.to_str()


HEADS = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice")


@pytest.mark.parametrize("head", HEADS)
def test_a_users_checkpoint_with_a_head_is_its_encoder(kind: str, head: str, tmp_path: Path) -> None:
    auto = f"AutoModelFor{head}"
    if getattr(transformers, auto)._model_mapping.get(type(tiny(kind)), None) is None:
        pytest.skip(f"transformers has no {auto} of {kind}")
    original = made(kind, auto)
    place = saved(original, kind, tmp_path / "theirs")
    loaded, words = encoder.load(place)
    expected = {key: value for key, value in bits(original.base_model).items() if "pooler." not in key}
    assert same(bits(loaded), expected)
    assert 0 < step("pairs", model_of("pairs", loaded), words) < 100
    assert snapshot.unlike(place, place) == {}


def test_dropout_is_set_wherever_the_architecture_has_it(kind: str, folder: Path) -> None:
    config = encoder.load(folder, dropout=0.25)[0].config.to_dict()
    unread = {"pooler_dropout", "qa_dropout", "seq_classif_dropout"}
    found = {name: value for name, value in config.items() if "dropout" in name and name not in unread}
    assert {value for value in found.values() if value is not None} == {0.25}
    expected = 0.0 if kind == "eurobert" else 0.25
    assert encoder.dropout_of(encoder.load(folder, dropout=0.25)[0].config) == expected


def test_the_limit_on_length_is_the_architectures(kind: str, folder: Path) -> None:
    model = encoder.load(folder)[0]
    if kind == "deberta-v2":
        encoder.check_length(model, 10_000)
        return
    encoder.check_length(model, 80)
    with pytest.raises(ModelError, match="at most 80"):
        encoder.check_length(model, 81)


def altered(folder: Path, place: Path, **fields: Any) -> Path:
    """A copy of a model folder with other words in its config.json."""
    shutil.copytree(folder, place)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps({**config, **fields}))
    return place


def test_what_a_config_says_of_flash_attention_or_code_of_its_own_is_not_done(
    folder: Path, tmp_path: Path
) -> None:
    code = {"AutoConfig": "theirs.Config", "AutoModel": "theirs.Model"}
    place = altered(folder, tmp_path / "m", _attn_implementation="flash_attention_2", auto_map=code)
    (place / "theirs.py").write_text("raise SystemExit('their code ran')")
    loaded = encoder.load(place)[0]
    assert loaded.config._attn_implementation in ("sdpa", "eager")
    assert same(bits(loaded), bits(encoder.load(folder)[0]))


def test_layers_that_the_config_does_not_count_are_refused(kind: str, folder: Path, tmp_path: Path) -> None:
    fewer = {"n_layers": 1} if kind == "distilbert" else {"num_hidden_layers": 1}
    place = altered(
        folder, tmp_path / "m", **fewer, **({"layer_types": None} if kind == "modernbert" else {})
    )
    with pytest.raises(ModelError, match="does not count"):
        encoder.load(place)
    with pytest.raises(ModelError, match=r"lacks \d+ tensors"):
        more = {name: 9 for name in fewer}
        encoder.load(
            altered(folder, tmp_path / "n", **more, **({"layer_types": None} if kind == "modernbert" else {}))
        )


def test_weights_in_several_files_load_and_a_missing_one_is_said(
    kind: str, folder: Path, tmp_path: Path
) -> None:
    model, words = encoder.load(folder)
    model.save_pretrained(tmp_path / "m", max_shard_size="8KB")
    words.save_pretrained(tmp_path / "m")
    parts = sorted((tmp_path / "m").glob("model-*.safetensors"))
    assert len(parts) > 1 and same(bits(encoder.load(tmp_path / "m")[0]), bits(model))
    assert {"model.safetensors.index.json", parts[0].name} <= set(snapshot.weights(tmp_path / "m"))
    parts[0].unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        encoder.load(tmp_path / "m")


def test_words_are_read_as_in_running_text(kind: str, folder: Path) -> None:
    words = encoder.load(folder)[1]
    sentence = ["the", "cat", "sat", "on", "Ñandú"]
    (found,) = subwords.words(words, [sentence])
    assert [one for part in found for one in part] == words(
        " ".join(sentence), add_special_tokens=False
    ).input_ids
    (found, none) = subwords.words(words, [["", "cat", ""], []])
    assert found[0] == found[2] == (words.unk_token_id,) and none == []
    assert subwords.words(words, []) == []


def test_texts_lose_their_end_whatever_the_tokenizer_saved_says(tmp_path: Path) -> None:
    place = saved(made("bert"), "bert", tmp_path / "m")
    said = json.loads((place / "tokenizer_config.json").read_text())
    (place / "tokenizer_config.json").write_text(json.dumps({**said, "truncation_side": "left"}))
    words = encoder.load(place)[1]
    ((ids, _),) = subwords.encode_texts(words, ["the cat sat on the mat"], None, 5)
    assert ids[1] == words("the").input_ids[1]


@pytest.mark.parametrize("kind_of_reader", ["gpt2", "llama", "t5"])
def test_what_does_not_read_in_both_directions_is_refused(kind_of_reader: str, tmp_path: Path) -> None:
    place = saved(made("bert"), "bert", tmp_path / "m")
    (place / "config.json").write_text(json.dumps({"model_type": kind_of_reader}))
    with pytest.raises(ModelError, match=f"holds a {kind_of_reader}, which is no encoder"):
        encoder.load(place)


def bert_of(vocabulary: list[str], place: Path) -> Path:
    """BERT as first published: a bare vocab.txt, and layer norms whose weights are gamma and beta."""
    config = tiny("bert")
    config.vocab_size = len(vocabulary)
    torch.manual_seed(4)
    model = AutoModelForMaskedLM.from_config(config)
    for norm in (part for part in model.modules() if isinstance(part, nn.LayerNorm)):
        nn.init.normal_(norm.weight)
    model.save_pretrained(place)
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = load_file(place / "model.safetensors")
    for new, name in old.items():
        tensors = {key.replace(new, name): tensor for key, tensor in tensors.items()}
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    (place / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    loaded, _ = encoder.load(place)
    assert same(bits(loaded), {k: v for k, v in bits(model.bert).items() if "pooler." not in k})
    return place


def test_a_bare_cased_vocabulary_keeps_its_case_and_an_uncased_one_does_not(tmp_path: Path) -> None:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    cased = encoder.load(bert_of([*special, "The", "the", "cat"], tmp_path / "cased"))[1]
    assert cased.tokenize("The cat the") == ["The", "cat", "the"]
    plain = encoder.load(bert_of([*special, "the", "cat"], tmp_path / "uncased"))[1]
    assert plain.tokenize("The Cat") == ["the", "cat"]


def test_mberts_own_vocabulary(mirror: Path, tmp_path: Path) -> None:
    listed = mirror / "models" / "google-bert" / "bert-base-multilingual-cased" / "vocab.txt"
    place = bert_of(listed.read_text(encoding="utf-8").splitlines(), tmp_path / "mbert")
    model, words = encoder.load(place)
    assert len(words) == 119_547 and words.pad_token_id == 0
    assert words.tokenize("Die Katze sitzt in Zürich.")[0] == "Die"
    assert "[UNK]" not in words.tokenize("Zürich, القاهرة 東京 กรุงเทพ Москва")
    assert 0 < step("spans", model_of("spans", model), words) < 100


def test_a_sentencepiece_model_alone_is_a_tokenizer(tmp_path: Path) -> None:
    trainer = pytest.importorskip("sentencepiece").SentencePieceTrainer
    place = saved(made("deberta-v2"), "deberta-v2", tmp_path / "m")
    (place / "tokenizer.json").unlink()
    (place / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "vocab_type": "spm"}))
    (tmp_path / "corpus.txt").write_text("\n".join(CORPUS[:2] * 20), encoding="utf-8")
    trainer.train(
        input=str(tmp_path / "corpus.txt"), model_prefix=str(place / "spm"), vocab_size=22, minloglevel=2,
        pad_id=0, bos_id=1, eos_id=2, unk_id=3, pad_piece="[PAD]", bos_piece="[CLS]", eos_piece="[SEP]",
        unk_piece="[UNK]",
    )  # fmt: skip
    words = encoder.load(place)[1]
    shown = words.convert_ids_to_tokens(words("the cat", "sat").input_ids)
    assert (shown[0], shown[-1], shown.count("[SEP]")) == ("[CLS]", "[SEP]", 2) and "[UNK]" not in shown


def test_rotary_bases_of_older_configurations_are_kept(tmp_path: Path) -> None:
    euro = saved(made("eurobert"), "eurobert", tmp_path / "e")
    said = json.loads((euro / "config.json").read_text())
    said.pop("rope_parameters")
    (euro / "config.json").write_text(json.dumps({**said, "rope_theta": 250_000, "rope_scaling": None}))
    assert encoder.load(euro)[0].config.rope_parameters["rope_theta"] == 250_000


def test_descent_is_compared_by_shape(tmp_path: Path) -> None:
    one = saved(made("bert"), "bert", tmp_path / "one")
    other = altered(one, tmp_path / "other", num_hidden_layers=3, vocab_size=7)
    assert snapshot.unlike(one, other) == {
        "vocab_size": (tiny("bert").vocab_size, 7),
        "num_hidden_layers": (2, 3),
    }
    sparse = json.loads((other / "config.json").read_text())
    sparse.pop("num_hidden_layers")
    (other / "config.json").write_text(json.dumps(sparse))
    assert set(snapshot.unlike(one, other)) == {"vocab_size"}


def test_texts_are_cut_as_the_tokenizer_itself_would(kind: str) -> None:
    draw, tokenizer = Random(0), words_of(kind)
    texts = [" ".join(draw.choices(LONG, k=draw.randrange(30))) for _ in range(80)]
    firsts, seconds = texts[:40], texts[40:]
    for limit in (8, 13, 30, 200):
        for pairs in (None, seconds):
            cut = {"truncation": "longest_first", "max_length": limit}
            wanted = tokenizer(firsts, pairs, **cut).encodings
            mine = subwords.encode_texts(tokenizer, firsts, pairs, limit)
            assert mine == [(tuple(one.ids), tuple(one.type_ids)) for one in wanted]
