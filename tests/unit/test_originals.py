"""Original files to rows: made-up files of the published formats, packed or not, and real ones."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xstilts.errors import DataError
from xstilts.families import sentences
from xstilts.families.originals import READERS

LANGUAGES = "ar de el en es hi ru th tr vi zh".split()


def write(path: Path, text: str, packed: bool = False) -> Path:
    if packed:
        path = path.with_name(path.name + ".gz")
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8", newline="")
    return path


def lines(objects: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in objects)


@pytest.mark.parametrize("packed", [False, True])
def test_bucc_puts_foreign_sentences_first_with_their_gold(tmp_path: Path, packed: bool) -> None:
    foreign = write(tmp_path / "de-en.dev.de", "de-1\tEins\u2028zwei \r\nde-2\tDrei\tvier\n", packed)
    english = write(tmp_path / "de-en.dev.en", "en-1\tOne two\nen-2\tThree", packed)
    gold = write(tmp_path / "de-en.dev.gold", "de-1\ten-2\nde-1\ten-1\n\n", packed)
    assert READERS["bucc"]([foreign, english, gold]) == [
        {"side": "foreign", "id": "de-1", "text": "Eins\u2028zwei", "gold": ["en-2", "en-1"]},
        {"side": "foreign", "id": "de-2", "text": "Drei\tvier", "gold": []},
        {"side": "english", "id": "en-1", "text": "One two", "gold": None},
        {"side": "english", "id": "en-2", "text": "Three", "gold": None},
    ]


def test_bucc_complaints_name_file_and_line(tmp_path: Path) -> None:
    foreign = write(tmp_path / "de", "de-1\tEins\n")
    english = write(tmp_path / "en", "en-1\tOne\n")
    gold = write(tmp_path / "gold", "de-1\ten-1\nde-1\ten-9\n")
    with pytest.raises(DataError, match=r"gold, line 2: no english sentence has the id 'en-9'"):
        READERS["bucc"]([foreign, english, gold])
    with pytest.raises(DataError, match=r"de, line 2: no two fields"):
        READERS["bucc"]([write(tmp_path / "torn-de", "de-1\tEins\nnothing\n"), english, gold])
    with pytest.raises(DataError, match="a foreign, an English and a gold file belong together"):
        READERS["bucc"]([foreign, english])
    with pytest.raises(DataError, match="missing cannot be read"):
        READERS["bucc"]([tmp_path / "missing", english, gold])
    cut = write(tmp_path / "cut", "en-1\tOne\n" * 999, packed=True)
    cut.write_bytes(cut.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"cut\.gz cannot be read"):
        READERS["bucc"]([foreign, cut, gold])


def test_bucc_as_published(mirror: Path) -> None:
    files = [mirror / "files/bucc2018" / f"zh-en.dev.{kind}.gz" for kind in ("zh", "en", "gold")]
    rows = READERS["bucc"](files)
    assert len(rows) == 8624 + 13589 and len({row["id"] for row in rows}) == len(rows)
    assert sum(len(row["gold"]) for row in rows[:8624]) == 257
    assert rows[8624]["side"] == "english" and rows[56]["gold"] == ["en-000008530"]


def xquad_r(
    context: str, breaks: list[list[int]], questions: Mapping[str, int], title: str = "T"
) -> dict[str, Any]:
    asked = [
        {"id": name, "question": f"{name}?", "answers": [{"answer_start": start, "text": "x"}]}
        for name, start in questions.items()
    ]
    return {"title": title, "paragraphs": [{"context": context, "sentence_breaks": breaks, "qas": asked}]}


def test_lareqa_names_candidates_and_finds_targets_in_every_language(tmp_path: Path) -> None:
    de = [
        xquad_r("Ja. Nein. Ja.", [[0, 3], [4, 9], [10, 13]], {"q1": 0, "q2": 4}, "A"),
        xquad_r("Da.", [[0, 3]], {}),
    ]
    en = [
        xquad_r("Yes. No.", [[0, 4], [5, 8]], {"q2": 5, "q1": 0}, "A"),
        xquad_r("Here.", [[0, 5]], {"q3": 2}),
    ]
    files = [
        write(tmp_path / "de.json", json.dumps({"data": de}), packed=True),
        write(tmp_path / "en.json", json.dumps({"data": en})),
    ]
    candidates = READERS["lareqa_candidates"](files)
    assert [(each["item"], each["document"], each["context"]) for each in candidates] == [
        ("de_1_0", "Ja.", "Ja. Nein. Ja."), ("de_1_1", "Nein.", "Ja. Nein. Ja."),
        ("de_1_2", "Ja.", "Ja. Nein. Ja."), ("de_2_0", "Da.", "Da."),
        ("en_1_0", "Yes.", "Yes. No."), ("en_1_1", "No.", "Yes. No."), ("en_2_0", "Here.", "Here."),
    ]  # fmt: skip
    asked = READERS["lareqa_queries"]([files[0], *files])
    assert asked[0] == {
        "item": "q1", "query": "q1?", "targets": ["de_1_0", "de_1_2", "en_1_0"], "cluster": "A"
    }  # fmt: skip
    assert asked[1]["targets"] == ["de_1_1", "en_1_1"] and len(asked) == 2
    assert (
        READERS["lareqa_queries"]([files[1], files[0]])[2]["targets"] == []
    )  # of q3 no German answer is known


def test_lareqa_complaints(tmp_path: Path) -> None:
    data = {"data": [xquad_r("Yes.", [[0, 2]], {"q1": 3})]}
    path = write(tmp_path / "en.json", json.dumps(data))
    with pytest.raises(DataError, match="the answer of question q1 begins in no sentence"):
        READERS["lareqa_queries"]([path, path])
    del data["data"][0]["paragraphs"][0]["sentence_breaks"]
    with pytest.raises(DataError, match="paragraph 1: there are no sentence_breaks"):
        READERS["lareqa_candidates"]([write(path, json.dumps(data))])
    with pytest.raises(DataError, match=r"en\.json, line 2: no JSON"):
        READERS["lareqa_candidates"]([write(path, "{\n}}")])
    with pytest.raises(DataError, match="has no `data`"):
        READERS["lareqa_candidates"]([write(path, "[]")])


def test_lareqa_as_published(mirror: Path) -> None:
    """13,090 questions and 13,014 candidates (the data set's README), one right answer a language."""
    files = [mirror / f"files/lareqa/xquad-r/{code}.json.gz" for code in LANGUAGES]
    items = [each["item"] for each in READERS["lareqa_candidates"](files)]
    assert len(items) == len(set(items)) == 13_014
    asked = {path.name[:2]: READERS["lareqa_queries"]([path, *files]) for path in (files[0], files[-1])}
    assert [len(rows) * 11 for rows in asked.values()] == [13_090, 13_090]
    for rows in asked.values():
        assert all(len(row["targets"]) == 11 and set(row["targets"]) <= set(items) for row in rows)
        assert len({row["cluster"] for row in rows}) == 48
    assert {row["item"] for row in asked["ar"]} == {row["item"] for row in asked["zh"]}


def test_squad_becomes_question_and_sentence(tmp_path: Path) -> None:
    context = "It began at 9 p.m. in Rome. Dr. Smith saw it."
    rows = [
        {"id": "a", "title": "T", "question": "When?", "context": context,
         "answers": {"text": ["9 p.m."], "answer_start": [12]}},
        {"id": "b", "title": "T", "question": "Who?", "context": context,
         "answers": {"text": ["Dr. Smith", "Rome"], "answer_start": [28, 22]}},
        {"id": "c", "title": "T", "question": "Why?", "context": context,
         "answers": {"text": [], "answer_start": []}},
    ]  # fmt: skip
    path = tmp_path / "train.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    found = READERS["squad_sentences"]([path])
    assert [(row["item"], row["query"], row["document"]) for row in found] == [
        ("a", "When?", "It began at 9 p.m. in Rome."),
        ("b", "Who?", "Dr. Smith saw it."),
    ]
    assert found[0]["context"] == context and found[0]["title"] == "T"


def test_squad_as_served(mirror: Path) -> None:
    path = mirror / "datasets/rajpurkar/squad/plain_text/train.parquet"
    rows = READERS["squad_sentences"]([path])
    assert len(rows) == 8430 and all(row["document"] in row["context"] for row in rows)


def test_sentences_by_rule() -> None:
    for text, wanted in {
        "": [],
        " \n": [],
        "One": ["One"],
        "  One. Two! Three? ": ["One.", "Two!", "Three?"],
        'He said "No." Then (in 1999.) It was over.': ['He said "No."', "Then (in 1999.)", "It was over."],
        "By J. R. R. Tolkien, No. 5 of vol. 2. He won.": ["By J. R. R. Tolkien, No. 5 of vol. 2.", "He won."],
        "He said no. Five came.": ["He said no.", "Five came."],
        "Shown.[3][note 1] Here e.g. Rome is.": ["Shown.[3][note 1]", "Here e.g. Rome is."],
        "At 3.5 km. it ends ... Done": ["At 3.5 km. it ends ...", "Done"],
    }.items():
        assert [text[begin:end] for begin, end in sentences.split(text)] == wanted


def test_sentences_agree_with_those_of_xquad_r(mirror: Path) -> None:
    """F1 of spans 0.991 over 1,180 English sentences, and 99 % of answers lie in the same sentence."""
    packed = mirror / "files/lareqa/xquad-r/en.json.gz"
    data = json.loads(gzip.decompress(packed.read_bytes()))["data"]
    paragraphs = [paragraph for article in data for paragraph in article["paragraphs"]]
    both = ours = theirs = 0
    for paragraph in paragraphs:
        gold = {(begin, end) for begin, end in paragraph["sentence_breaks"]}
        found = set(sentences.split(paragraph["context"]))
        both, ours, theirs = both + len(gold & found), ours + len(found), theirs + len(gold)
    assert theirs == 1180 and 2 * both / (ours + theirs) > 0.99


TEXT = "Strike in Rome\n\nBuses of {the}  city stop.\nMayor Neri\nof Rome {said} so. Nobody came."
SENTENCES = ("Strike in Rome", "Buses of {the}  city stop.", "Mayor Neri\nof Rome {said} so.", "Nobody came.")


def span(part: str, text: str = TEXT) -> dict[str, Any]:
    begin = text.rindex(part)
    return {"start": begin, "end": begin + len(part), "text": part}


def context(language: str = "it") -> dict[str, Any]:
    return {
        "document_id": f"{language}-1",
        "language": language,
        "text": TEXT,
        "sentence_spans": [{name: span(one)[name] for name in ("start", "end")} for one in SENTENCES],
    }


def mention(name: str, entity: str, part: str) -> dict[str, Any]:
    return {"example_id": name, "entity_id": entity, "mention_span": span(part)}


def test_mewslix_marks_the_mention_in_its_sentence(tmp_path: Path) -> None:
    said = {"context": context(), "mentions": [mention("m1", "Q220", "Rome")]}
    across = {"context": context("ro"), "mentions": [mention("m2", "Q5", "stop.\nMayor")]}
    path = write(tmp_path / "wikinews_mentions-dev.jsonl", lines([said, across]), packed=True)
    assert READERS["mewslix_queries"]([path]) == [
        {
            "item": "m1",
            "query": "Rome: Mayor Neri of { Rome } (said) so.",
            "targets": ["Q220"],
            "language": "it",
            "cluster": "it-1",
        },
        {
            "item": "m2",
            "query": "stop. Mayor: Buses of (the) city { stop. Mayor } Neri of Rome (said) so.",
            "targets": ["Q5"],
            "language": "ro",
            "cluster": "ro-1",
        },
    ]


def test_mewslix_entities_are_their_description(tmp_path: Path) -> None:
    entity = {"entity_id": "Q220", "description": "Rome is old.\nIt  is big.  -", "title": "Rome"}
    entity["sentence_spans"] = [{"start": 0, "end": 12}, {"start": 13, "end": 24}]
    candidates = write(tmp_path / "candidate_set_entities.jsonl", lines([entity]))
    assert READERS["mewslix_candidates"]([candidates]) == [
        {"item": "Q220", "document": "Rome is old. It is big."}
    ]
    pair = {
        "contextual_mention": {"context": context("en"), "mention": mention("w1", "Q220", "Rome")},
        "entity": entity,
    }
    pairs = write(tmp_path / "wikipedia_pairs-train.jsonl", lines([pair]))
    assert READERS["mewslix_pairs"]([pairs]) == [
        {
            "item": "w1",
            "query": "Rome: Mayor Neri of { Rome } (said) so.",
            "document": "Rome is old. It is big.",
            "entity": "Q220",
        }
    ]


def test_mewslix_complaints(tmp_path: Path) -> None:
    without = {"context": {**context(), "text": ""}, "mentions": [mention("m1", "Q220", "Rome")]}
    path = tmp_path / "wikinews_mentions-dev.jsonl"
    with pytest.raises(
        DataError, match=r"line 1: the text lacks the mention 'Rome': run the owner's get-mews"
    ):
        READERS["mewslix_queries"]([write(path, lines([without]))])
    with pytest.raises(DataError, match=r"jsonl, line 2: there is no field 'mentions'"):
        READERS["mewslix_queries"]([write(path, lines([{"context": {}, "mentions": []}, {"context": {}}]))])
    with pytest.raises(DataError, match=r"jsonl, line 1: no JSON"):
        READERS["mewslix_pairs"]([write(path, "{\n")])
    with pytest.raises(DataError, match=r"jsonl, line 1: a field has another form"):
        READERS["mewslix_candidates"]([write(path, "[1]\n")])


def test_ccgbank_leaves_are_words_and_categories(tmp_path: Path) -> None:
    text = (
        "ID=wsj_0001.1 PARSER=GOLD NUMPARSE=1\n"
        "(<T S[dcl] 0 2> (<T NP 0 1> (<L N NNP NNP Ann N>) ) (<T S[dcl]\\NP 0 2> "
        "(<L (S[dcl]\\NP)/NP VBZ VBZ sees (S[dcl]\\NP_1)/NP_2>) (<L NP PRP PRP -LRB- NP>) ) )\n"
        "ID=wsj_0001.2 PARSER=GOLD NUMPARSE=1\n"
        "(<L S[intj] UH UH Oh> S[intj]>)\n"
    )
    rows = READERS["ccgbank"]([write(tmp_path / "wsj_0001.auto", text)])
    assert rows[0] == {
        "item": "wsj_0001.1",
        "words": ["Ann", "sees", "-LRB-"],
        "tags": ["N", "(S[dcl]\\NP)/NP", "NP"],
    }
    assert rows[1]["words"] == ["Oh>"]
    with pytest.raises(DataError, match=r"bad\.auto, line 2: no tree whose leaves"):
        READERS["ccgbank"]([write(tmp_path / "bad.auto", "ID=a P\n(<L N NNP NNP N>)\n")])
    with pytest.raises(DataError, match=r"line 1: no tree"):
        READERS["ccgbank"]([write(tmp_path / "bad.auto", "(<L N NNP NNP Ann N>)\n")])
