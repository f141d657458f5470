"""The generated world: everything from one seed, parallel where it says so, distances as its knobs say."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from xstilts.errors import DataError, UnknownName
from xstilts.frozen import digest
from xstilts.tasks import world
from xstilts.tasks.world_languages import LANGUAGES, OTHERS, SCRIPTS, SOURCE, lexicon, said, speaker, written
from xstilts.tasks.world_meanings import Fact, concepts, meanings

SMALL = world.World(
    seed=5, text=60, nli=60, qa=40, tagging=30, paraphrase=40, selection=20, heldout=40
).to_identity()
COMPARING = {"nli": ("premise", "hypothesis"), "paraphrase": ("sentence1", "sentence2")}

PINNED = {1: "2c7c00ee76b7e965"}
"""Generator version -> digest of a small world. Add a line when VERSION is bumped; never edit one."""


def every_split(identity: dict[str, Any]) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    for code in LANGUAGES:
        yield f"text.{code}", "train", world.rows(identity, f"text.{code}", "train")
        for kind in world.KINDS:
            for split in ("train", "selection") if code == SOURCE else ():
                yield f"{kind}.{code}", split, world.rows(identity, f"{kind}.{code}", split)
            for split in ("validation", "test"):
                yield f"{kind}.{code}", split, world.rows(identity, f"{kind}.{code}", split)


def test_rows_of_a_version_never_change() -> None:
    assert digest([list(part) for part in every_split(SMALL)]) == PINNED[world.VERSION]


def test_another_seed_is_another_world() -> None:
    other = {**SMALL, "seed": 6}
    assert lexicon(5, SOURCE) != lexicon(6, SOURCE)
    for config in ("text.w2", "nli.w0", "retrieval.w1"):
        assert world.rows(SMALL, config, "test" if config[0] != "t" else "train") != world.rows(
            other, config, "test" if config[0] != "t" else "train"
        )


def test_made_twice_is_the_same() -> None:
    once = [row for _, _, rows in every_split(SMALL) for row in rows]
    world._rows.cache_clear()
    lexicon.cache_clear()
    speaker.cache_clear()
    meanings.cache_clear()
    assert once == [row for _, _, rows in every_split(SMALL) for row in rows]


def test_sizes_are_as_asked() -> None:
    full = world.generator_identity(1)
    assert full["version"] == world.VERSION and full["seed"] == 1
    assert len(world.rows(SMALL, "nli.w0", "train")) == 60
    assert len(world.rows(SMALL, "text.w5", "train")) == 60
    assert len(world.rows(SMALL, "qa.w0", "selection")) == 20
    assert len(world.rows(SMALL, "tagging.w3", "test")) == 40


@pytest.mark.parametrize("split", ["validation", "test"])
def test_heldout_items_are_parallel(split: str) -> None:
    for code in LANGUAGES:
        assert [row["label"] for row in world.rows(SMALL, f"nli.{code}", split)] == [
            row["label"] for row in world.rows(SMALL, f"nli.{SOURCE}", split)
        ]
        pairs = world.rows(SMALL, f"retrieval.{code}", split)
        source = world.rows(SMALL, f"retrieval.{SOURCE}", split)
        assert [row["target_sentence"] for row in pairs] == [row["source_sentence"] for row in source]
        ids = [row["id"] for row in world.rows(SMALL, f"qa.{code}", split)]
        assert ids == [row["id"] for row in world.rows(SMALL, f"qa.{SOURCE}", split)]
        tags = [sorted(row["tags"]) for row in world.rows(SMALL, f"tagging.{code}", split)]
        without_articles = [
            sorted(tag for tag in row["tags"] if world.UPOS[tag] != "DET" or LANGUAGES[code].articles)
            for row in world.rows(SMALL, f"tagging.{SOURCE}", split)
        ]
        assert tags == without_articles


def test_splits_tell_different_events() -> None:
    truth = meanings(5)
    parts = {
        split: {(f.subject, f.verb, f.object) for f in (truth.draw(Random(i), split, 2) for i in range(300))}
        for split in ("train", "selection", "validation", "test")
    }
    names = list(parts)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            assert not parts[first] & parts[second]
    firsts = {split: _firsts(split) for split in names}
    assert not firsts["train"] & (firsts["test"] | firsts["validation"] | firsts["selection"])
    assert not firsts["test"] & (firsts["validation"] | firsts["selection"])


def _firsts(split: str) -> set[str]:
    """First sentences of pairs: those are what a split must have to itself."""
    return {
        row[names[0]]
        for kind, names in COMPARING.items()
        for row in world.rows(SMALL, f"{kind}.{SOURCE}", split)
    }


def test_retrieval_has_one_right_answer() -> None:
    for code in LANGUAGES:
        rows = world.rows(world.generator_identity(1), f"retrieval.{code}", "test")
        assert len({row["source_sentence"] for row in rows}) == len(rows)


def test_answers_are_where_they_say() -> None:
    for code in LANGUAGES:
        for row in world.rows(SMALL, f"qa.{code}", "test"):
            text, start = row["answers"]["text"][0], row["answers"]["answer_start"][0]
            assert row["context"][start : start + len(text)] == text and row["question"].endswith("?")


def test_tags_are_one_a_word_and_in_the_set() -> None:
    for code in LANGUAGES:
        for row in world.rows(SMALL, f"tagging.{code}", "test"):
            assert len(row["tokens"]) == len(row["tags"])
            assert all(0 <= tag < len(world.UPOS) for tag in row["tags"])
            assert row["tokens"][-1] == "." and world.UPOS[row["tags"][-1]] == "PUNCT"


@pytest.mark.parametrize("kind", COMPARING)
def test_labels_follow_the_meaning(kind: str) -> None:
    """In the source, sentences of one meaning have the same words; others do not. No label is rarer."""
    first, second = COMPARING[kind]
    labels = world.NLI if kind == "nli" else world.PARAPHRASE
    rows = world.rows(SMALL, f"{kind}.{SOURCE}", "test")
    for row in rows:
        same = sorted(row[first].split()) == sorted(row[second].split())
        assert same == (world.CHANGED[labels[row["label"]]] == 0)
    counts = [sum(row["label"] == label for row in rows) for label in range(len(labels))]
    assert max(counts) - min(counts) <= 1


def test_shared_words_are_the_knob() -> None:
    source = lexicon(5, SOURCE)
    for code, language in LANGUAGES.items():
        words = lexicon(5, code)
        assert len(set(words.values())) == len(words), "no word means two things"
        assert all(words[name] == source[name] for name in concepts()["name"]), "names are shared"
        for group in ("noun", "verb", "adjective"):
            members = concepts()[group]
            cognates = round(language.shared * len(members))
            same = sum(words[concept] == source[concept] for concept in members)
            assert same == cognates - round(language.respelt * cognates), (code, group)


def test_distance_grows_from_the_source() -> None:
    distances = [language.distance for language in LANGUAGES.values()]
    assert distances[0] == 0 and distances == sorted(distances) and distances[-1] <= 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_is_a_bijection(script: Any) -> None:
    assert len(set(SCRIPTS[script])) == 26
    assert len({written(letter, script) for letter in SCRIPTS["Latin"]}) == 26
    assert written("3 .", script) == "3 ."


FACT = Fact(
    "noun/person/0", "verb/0", "noun/animal/0", "past", subject_adjective="adjective/size/0", place="place/0"
)


def test_word_order_follows_the_knobs() -> None:
    slots = {code: [word.tag for word in speaker(5, code).sentence(FACT)] for code in LANGUAGES}
    assert " ".join(slots["w0"]) == "DET ADJ NOUN VERB DET NOUN ADP DET NOUN PUNCT"
    assert " ".join(slots["w2"]) == "DET NOUN ADJ VERB DET NOUN ADP DET NOUN PUNCT"
    assert " ".join(slots["w3"]) == "VERB DET NOUN ADJ DET NOUN ADP DET NOUN PUNCT"
    assert " ".join(slots["w4"]) == "ADJ NOUN NOUN ADP NOUN VERB PUNCT"


def test_cases_mark_objects_only() -> None:
    words = speaker(5, "w4").sentence(FACT)
    accusative = speaker(5, "w4").words["accusative"]
    nouns = {word.slot: word.form for word in words if word.tag == "NOUN"}
    assert nouns["object"].endswith(accusative) and not nouns["subject"].endswith(accusative)


def test_questions_leave_out_what_they_ask() -> None:
    for code in LANGUAGES:
        asked = speaker(5, code).question(FACT, "place")
        assert all(word.slot != "place" for word in asked)
        assert said(asked).split()[0] == speaker(5, code).words["where"]


@pytest.mark.parametrize(
    ("config", "split", "error", "says"),
    [
        ("nil.w0", "test", UnknownName, "nli"),
        ("nli.w9", "test", UnknownName, "world language"),
        ("nli.w0", "tset", UnknownName, "test"),
        ("nli.w1", "train", DataError, "nli.w0"),
        ("text.w1", "test", DataError, "train"),
    ],
)
def test_what_does_not_exist_is_said(config: str, split: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        world.rows(SMALL, config, split)


def test_a_world_of_another_version_is_refused() -> None:
    with pytest.raises(DataError, match="version"):
        world.rows({**SMALL, "version": world.VERSION + 1}, "nli.w0", "test")
    with pytest.raises(DataError, match="no world"):
        world.rows({**SMALL, "sede": 1}, "nli.w0", "test")


def test_tasks_name_rows_that_exist() -> None:
    for task in world.TASKS.values():
        for language in task.languages:
            for split in (task.dev, task.test):
                assert split is not None
                place = split.at(language)
                rows = world.rows(SMALL, place.config, place.split)
                assert set(task.columns.values()) <= set(rows[0])
        if task.train is not None:
            assert world.rows(SMALL, task.train.at(SOURCE).config, task.train.split)


def test_the_second_family_is_reported_only_where_it_is_named() -> None:
    for task in world.TASKS.values():
        assert not {*task.reported("test")} & {*OTHERS} and {*OTHERS} <= {*task.languages}
        assert task.reported("test", ["v2", "w1"]) == ("w1", "v2")


def test_the_second_family_has_one_grammar_and_the_same_meanings() -> None:
    for code, language in OTHERS.items():
        assert "DET" not in (tags := [word.tag for word in speaker(5, code).sentence(FACT)])
        assert tags[:3] == ["VERB", "NOUN", "ADJ"] and language.family == "World two"
        ours, theirs = (world.rows(SMALL, f"nli.{each}", "test") for each in (SOURCE, code))
        assert [row["label"] for row in ours] == [row["label"] for row in theirs]
        assert ours[0]["premise"] != theirs[0]["premise"]
        source, words = lexicon(5, SOURCE), lexicon(5, code)
        nouns = concepts()["noun"]
        cognates = round(language.shared * len(nouns))
        same = sum(words[noun] == source[noun] for noun in nouns)
        assert same == cognates - round(language.respelt * cognates)
