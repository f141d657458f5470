"""Translators of three kinds: order, batches, languages, refusals; and rows whose texts they replace."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_encoders
import torch
from safetensors.torch import load_file, save_file
from tiny_translators import LINES, M2M100_CODES, NLLB_CODES, m2m100, marian, nllb

from xstilts.errors import DataError, JobFileError, ModelError
from xstilts.families import code_of
from xstilts.families.translation import FLORES, REFUSED, TRANSLATED, Translator, translated_rows
from xstilts.tasks import languages, registry
from xstilts.tasks.task import Family, Task

KINDS: dict[str, Callable[[Path], Path]] = {"marian": marian, "m2m100": m2m100, "nllb": nllb}

TEXTS = [*LINES[:4], "", LINES[2], "a cat is not in 東京 ?", " \n", LINES[0]]


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each kind."""
    return KINDS[request.param](tmp_path_factory.mktemp("models") / request.param)


def translate(own: Translator, texts: list[str] = TEXTS, **changes: Any) -> list[str]:
    told = {
        "source": "en",
        "target": "de",
        "batch": 3,
        "device": "cpu",
        "beams": 3,
        "max_length": 9,
        **changes,
    }
    return own.translate(texts, **told)


def test_order_is_kept_and_equal_texts_are_translated_once(kind: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = translate(Translator(kind), progress=lambda done, total: seen.append((done, total)))
    assert len(found) == len(TEXTS)
    assert (found[4], found[7]) == ("", " \n")
    assert found[2] == found[5] and found[0] == found[8]
    assert len(set(found[:4])) == 4
    assert seen == [(3, 5), (5, 5)]
    assert [translate(Translator(kind), [text])[0] for text in TEXTS] == found


@pytest.mark.parametrize("beams", [1, 4])
def test_batches_do_not_change_translations(kind: Path, beams: int) -> None:
    own = Translator(kind)
    one = translate(own, LINES[:4], batch=1, beams=beams)
    assert one == translate(own, LINES[:4], batch=4, beams=beams)
    assert one == translate(own, LINES[3::-1], batch=2, beams=beams)[::-1]


def test_nothing_is_drawn(kind: Path) -> None:
    """Not by dropout, not by sampling, whatever the folder says of generation."""
    before = translate(Translator(kind), LINES[:4])
    settings = kind / "generation_config.json"
    kept = settings.read_bytes()
    wild = {"do_sample": True, "temperature": 5.0, "num_beams": 2, "max_length": 3, "repetition_penalty": 9.0}
    try:
        settings.write_text(json.dumps(wild))
        own = Translator(kind)
        own.model.train()
        state = torch.get_rng_state()
        assert translate(own, LINES[:4]) == before
        assert torch.equal(state, torch.get_rng_state())
        settings.unlink()
        assert translate(Translator(kind), LINES[:4]) == before
    finally:
        settings.write_bytes(kept)


def asked(own: Translator, target: str = "de", beams: int = 1, length: int = 12) -> tuple[Any, Any, Any]:
    """Of "the cat": ids that the model is given, the id that it must begin with, the ids that it gives."""
    seen: list[Any] = []
    made: Any = own.model
    inner = made.generate

    def watched(**words: Any) -> Any:
        found = inner(**words)
        first = words["generation_config"].forced_bos_token_id
        seen.append((words["input_ids"][0].tolist(), first, found[0].tolist()))
        return found

    made.generate = watched
    try:
        own.translate(["the cat"], "en", target, 1, "cpu", beams, length)
    finally:
        made.generate = inner
    (one,) = seen
    return one  # type: ignore[no-any-return]


def test_padding_is_never_said(tmp_path: Path) -> None:
    """Marian's decoder has a logit for it; here the highest."""
    own = Translator(marian(tmp_path / "padding"))
    made: Any = own.model
    made.final_logits_bias[0, made.config.pad_token_id] = 1e4
    made.final_logits_bias[0, made.config.eos_token_id] = -1e4
    ids = asked(own)[2]
    assert ids[0] == made.config.pad_token_id and made.config.pad_token_id not in ids[1:]


def test_beams_and_length_are_obeyed(kind: Path) -> None:
    own = Translator(kind)
    assert len({tuple(translate(own, LINES[:4], beams=beams)) for beams in (1, 5)}) == 2
    lengths = [len(asked(own, beams=beams, length=length)[2]) for beams in (1, 3) for length in (2, 6)]
    assert all(1 < found <= length + 1 for found, length in zip(lengths, (2, 6, 2, 6), strict=True))
    assert max(lengths) == 7
    with pytest.raises(ModelError, match="40 positions"):
        translate(own, max_length=41)
    assert translate(own, ["the cat " * 60], max_length=40)


def test_languages_of_models_for_many(tmp_path: Path) -> None:
    for make, name in ((m2m100, "__{}__"), (nllb, "{}")):
        own = Translator(make(tmp_path / make.__name__))
        codes = {code: code if make is m2m100 else FLORES[code] for code in ("en", "sw", "zh")}
        token = {code: own.tokenizer.convert_tokens_to_ids(name.format(one)) for code, one in codes.items()}
        assert len(set(token.values())) == 3 and own.tokenizer.unk_token_id not in token.values()
        for target in ("sw", "zh"):
            ids, first, said = asked(own, target)
            assert ids[0] == token["en"] and ids[-1] == own.tokenizer.eos_token_id
            assert first == said[1] == token[target]
        assert translate(own, target="sw") != translate(own, target="zh")
        assert translate(own, source="sw") != translate(own, source="en")
        assert not any("__" in text or "_Latn" in text for text in translate(own, target="sw"))
        with pytest.raises(ModelError, match="no language 'w3'"):
            translate(own, target="w3")
    with pytest.raises(ModelError, match="no language 'qu'"):
        translate(Translator(tmp_path / "m2m100"), target="qu")


def test_a_marian_model_for_many_is_told_the_language(tmp_path: Path) -> None:
    own = Translator(marian(tmp_path / "many", into=("deu", "cmn_Hans", "ru", "swh"), target="mul"))
    for target, code in (("de", "deu"), ("zh", "cmn_Hans"), ("ru", "ru"), ("sw", "swh")):
        ids, first, _ = asked(own, target)
        assert own.tokenizer.convert_ids_to_tokens(ids[0]) == f">>{code}<<" and first is None
        assert own.tokenizer.decode(ids[1:], skip_special_tokens=True) == "the cat"
    with pytest.raises(ModelError, match="into deu, cmn_Hans, ru, swh$"):
        translate(own, target="fr")


def test_a_marian_model_for_another_pair_is_refused(tmp_path: Path) -> None:
    own = Translator(marian(tmp_path / "pair", source="eng", target="deu"))
    assert translate(own, LINES[:1])
    with pytest.raises(ModelError, match="no language 'fr': it translates into deu"):
        translate(own, target="fr")
    with pytest.raises(ModelError, match="no language 'fr': it translates from eng"):
        translate(own, source="fr")
    assert translate(Translator(marian(tmp_path / "group", target="gmw")), LINES[:1])


def test_loading_says_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = marian(tmp_path / "quiet")
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        translate(Translator(folder), LINES[:2])
    assert capfd.readouterr() == ("", "")


def test_what_a_config_says_of_flash_attention_is_not_done(tmp_path: Path) -> None:
    folder = marian(tmp_path / "flash")
    said = json.loads((folder / "config.json").read_text())
    before = translate(Translator(folder), LINES[:2])
    (folder / "config.json").write_text(json.dumps({**said, "_attn_implementation": "flash_attention_2"}))
    assert translate(Translator(folder), LINES[:2]) == before


def test_folders_that_hold_no_translation_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        Translator(tmp_path / "nowhere")
    folder = marian(tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no safetensors weights: convert its pickled"):
        Translator(folder)
    folder = marian(tmp_path / "short")
    weights = load_file(folder / "model.safetensors")
    del weights["model.decoder.layers.0.fc1.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks 1 tensors, model.decoder.layers.0.fc1.weight"):
        Translator(folder)
    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match="cannot be loaded"):
        Translator(folder)
    folder = marian(tmp_path / "mute")
    (folder / "source.spm").unlink()
    with pytest.raises(ModelError, match="tokenizer in .* cannot be loaded"):
        Translator(folder)
    encoder = tiny_encoders.saved(tiny_encoders.made("bert"), "bert", tmp_path / "bert")
    with pytest.raises(ModelError, match="holds a bert, which is no translation model"):
        Translator(encoder)


def test_every_language_of_the_suites_has_nllbs_code() -> None:
    own = [each for each in languages.all_languages() if each.distance is None]
    assert len(own) == 50 and {each.code for each in own} == set(FLORES)
    assert set(FLORES.values()) <= set(NLLB_CODES)
    for each in own:
        script = FLORES[each.code].partition("_")[2]
        assert script == {"Kore": "Hang"}.get(each.script, each.script), each.name
    missing = {each.code for each in own} - set(M2M100_CODES["m2m100"])
    assert missing == {"eu", "qu", "te"}


def shout(texts: list[str]) -> list[str]:
    return [text.upper() for text in texts]


CHOICE = Task(
    name="choice", family=Family.MULTIPLE_CHOICE, roles=("intermediate",), metric="accuracy",
    languages=("en",), columns={"item": "id", "first": "{context} {question}", "choices": "choices.text",
                                "label": "key", "cluster": "context"},
    labels=("A", "B"), source="made up", licence="none",
)  # fmt: skip


def test_rows_keep_all_but_their_texts() -> None:
    mnli = registry.task("mnli")
    rows = [
        {"premise": "a dog", "hypothesis": "a cat", "label": 2, "genre": "fiction"},
        {"premise": "a dog", "hypothesis": "", "label": -1, "genre": "travel"},
    ]
    given: list[list[str]] = []
    found = translated_rows(mnli, rows, lambda texts: given.append(texts) or shout(texts))  # type: ignore[func-returns-value]
    assert given == [["a dog", "a cat", "a dog", ""]]
    assert found == [
        {"premise": "A DOG", "hypothesis": "A CAT", "label": 2, "genre": "fiction"},
        {"premise": "A DOG", "hypothesis": "", "label": -1, "genre": "travel"},
    ]
    assert rows[0]["premise"] == "a dog"


def test_choices_are_translated_wherever_they_are() -> None:
    row = {
        "id": "x1",
        "context": "it rains",
        "question": "why",
        "choices": {"label": ["A", "B"], "text": ["clouds", "cats"]},
        "key": "B",
    }
    (found,) = translated_rows(CHOICE, [row], shout)
    assert found == {
        **row,
        "context": "IT RAINS",
        "question": "WHY",
        "choices": {"label": ["A", "B"], "text": ["CLOUDS", "CATS"]},
    }
    assert row["choices"] == {"label": ["A", "B"], "text": ["clouds", "cats"]}
    apart = CHOICE.model_copy(update={"columns": {**CHOICE.columns, "choices": "one, two"}})
    (found,) = translated_rows(apart, [{**row, "one": "p", "two": "q"}], shout)
    assert (found["one"], found["two"], found["choices"]) == ("P", "Q", row["choices"])
    (example,) = code_of(Family.MULTIPLE_CHOICE).examples(CHOICE, translated_rows(CHOICE, [row], shout))
    assert example.inputs == {"first": "IT RAINS WHY", "choices": ("CLOUDS", "CATS")}
    assert (example.item, example.gold) == ("x1", 1)


@pytest.mark.parametrize("name", ["squad_v1", "ccg", "mlm", "copa", "tatoeba", "udpos"])
def test_tasks_that_do_not_survive_translation_are_refused(name: str) -> None:
    with pytest.raises(JobFileError, match=f"{name} cannot be translated"):
        translated_rows(registry.task(name), [], shout)


def test_every_family_says_whether_it_can_be_translated() -> None:
    assert TRANSLATED.keys() | REFUSED.keys() == set(Family) and not TRANSLATED.keys() & REFUSED.keys()


def test_rows_without_text_are_reported_and_a_short_answer_is_a_bug() -> None:
    mnli = registry.task("mnli")
    with pytest.raises(DataError, match="row 0 of mnli has None in 'hypothesis'"):
        translated_rows(mnli, [{"premise": "a", "hypothesis": None, "label": 0}], shout)
    with pytest.raises(DataError, match="row 0 of mnli has no column 'premise'"):
        translated_rows(mnli, [{"hypothesis": "a", "label": 0}], shout)
    with pytest.raises(ValueError, match="2 texts were given and 1 came back"):
        translated_rows(mnli, [{"premise": "a", "hypothesis": "b", "label": 0}], lambda texts: texts[:1])
