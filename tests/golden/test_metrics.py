"""Metrics against the field's own implementations, and by hand where the field has none to import."""

from __future__ import annotations

import re
import string
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities

from xstilts.families import answers, chunks, code_of
from xstilts.families.base import Example
from xstilts.tasks.task import Family, Task

BIO = ("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC")
UPOS = tuple("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split())


def a_task(family: Family, metric: str, labels: tuple[str, ...] = ()) -> Task:
    return Task(
        name="t", family=family, roles=("target",), metric=metric, languages=("en",), columns={},
        labels=labels, source="-", licence="-",
    )  # fmt: skip


def sums_of(items: list[dict[str, Any]]) -> dict[str, float]:
    kept = [name for name in items[0] if name not in ("item", "cluster", "parallel_id")]
    return {"items": len(items), **{name: sum(row[name] for row in items) for name in kept}}


def scored(task: Task, gold: list[list[str]], said: list[list[str]]) -> dict[str, float]:
    code = code_of(task.family)
    examples = [Example(str(n), {}, [task.labels.index(tag) for tag in tags]) for n, tags in enumerate(gold)]
    items = code.items(task, examples, {str(n): tags for n, tags in enumerate(said)}, "en")
    return code.score(task, sums_of(items))


def sentence_pairs(tags: tuple[str, ...]) -> Any:
    pair = st.integers(1, 9).flatmap(
        lambda n: st.tuples(*(st.lists(st.sampled_from(tags), min_size=n, max_size=n) for _ in range(2)))
    )
    return st.lists(pair, min_size=1, max_size=5)


@settings(max_examples=300, deadline=None)
@given(sentence_pairs(BIO))
def test_bio_f1_is_seqevals(pairs: list[tuple[list[str], list[str]]]) -> None:
    gold, said = [list(one) for one, _ in pairs], [list(two) for _, two in pairs]
    found = scored(a_task(Family.TAGGING, "bio_f1", BIO), gold, said)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found["bio_f1"] == pytest.approx(100 * f1_score(gold, said))
        assert found["precision"] == pytest.approx(100 * precision_score(gold, said))
        assert found["recall"] == pytest.approx(100 * recall_score(gold, said))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(("O", "B", "I", "B-A", "I-A", "E-A", "S-A", "I-B", "E-B", "I-A-x")), max_size=9)
)
def test_chunks_of_any_prefixes_are_seqevals(tags: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert chunks.bio_chunks(tags) == set(get_entities(tags))


@pytest.mark.parametrize(
    ("tags", "wanted"),
    [
        ("I-PER I-PER", {("PER", 0, 1)}),
        ("O I-LOC B-LOC I-LOC", {("LOC", 1, 1), ("LOC", 2, 3)}),
        ("B-PER I-LOC I-PER", {("PER", 0, 0), ("LOC", 1, 1), ("PER", 2, 2)}),
        ("O O", set()),
        ("", set()),
    ],
)
def test_irregular_bio_by_hand(tags: str, wanted: set[tuple[str, int, int]]) -> None:
    assert chunks.bio_chunks(tags.split()) == wanted


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(UPOS), max_size=10))
def test_runs_of_upos_are_those_of_seqeval_0_0_12(tags: list[str]) -> None:
    """0.0.12 took the whole tag as type (`chunk.split('-')[-1]`); 1.2.2 cuts its first letter off, which
    would merge CCONJ with SCONJ and lose an X at a sentence's end. "A-ADJ" gives 1.2.2 the old reading."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert chunks.run_chunks(tags) == set(get_entities([f"{tag[0]}-{tag}" for tag in tags]))


def test_runs_by_hand() -> None:
    assert chunks.run_chunks("NOUN NOUN VERB SYM SYM X X".split()) == {
        ("NOUN", 0, 1), ("VERB", 2, 2), ("SYM", 3, 3), ("SYM", 4, 4), ("X", 5, 6),
    }  # fmt: skip
    task = a_task(Family.TAGGING, "chunk_f1", UPOS)
    found = scored(task, [["NOUN", "NOUN"], ["VERB"]], [["NOUN", "VERB"], ["VERB"]])
    assert found["chunk_f1"] == pytest.approx(100 * 2 * 1 / (3 + 2))  # a run is right only as a whole
    assert found["token_accuracy"] == pytest.approx(100 * 2 / 3)


def test_a_missing_sentence_counts_as_wrong() -> None:
    code, task = code_of(Family.TAGGING), a_task(Family.TAGGING, "bio_f1", BIO)
    examples = [Example("0", {}, [1, 2]), Example("1", {}, [1, 0])]
    items = code.items(task, examples, {"0": ["B-PER", "I-PER"]}, "en")
    names = {"item": "1", "cluster": "", "parallel_id": ""}
    assert items[1] == {**names, "tp": 0, "n_pred": 0, "n_gold": 1, "correct": 0, "n": 2}
    assert code.score(task, sums_of(items))["bio_f1"] == pytest.approx(200 / 3)


def official(prediction: str, gold: str) -> tuple[float, float]:
    """evaluate-v1.1.py of SQuAD, its functions word for word."""

    def normalize_answer(s: str) -> str:
        lowered = "".join(ch for ch in s.lower() if ch not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", lowered).split())

    said, wanted = normalize_answer(prediction).split(), normalize_answer(gold).split()
    num_same = sum((Counter(said) & Counter(wanted)).values())
    if num_same == 0:
        return float(normalize_answer(prediction) == normalize_answer(gold)), 0.0
    precision, recall = num_same / len(said), num_same / len(wanted)
    return float(said == wanted), 2 * precision * recall / (precision + recall)


SQUAD = a_task(Family.SPAN_QA, "squad")
WORDS = st.text(alphabet=st.sampled_from("athe n.,'-\u00a0\u3000。،؟ال北京ไทยÉ\t"), max_size=14)


@settings(max_examples=300, deadline=None)
@given(WORDS, WORDS)
def test_squad_is_the_official_script(prediction: str, gold: str) -> None:
    assert answers.compare(SQUAD, prediction, [gold], "en") == pytest.approx(official(prediction, gold))


@pytest.mark.parametrize(
    ("prediction", "golds", "exact", "f1"),
    [
        ("the Cat.", ["cat"], 1, 1),
        ("", ["cat"], 0, 0),
        ("the", ["a"], 1, 0),  # nothing is left of either: v1.1 gives exact match and no F1
        ("القاهرة،", ["القاهرة"], 0, 0),  # an Arabic comma is no ASCII punctuation
        ("القاهرة.", ["القاهرة"], 1, 1),
        ("北京 city", ["北京"], 0, 2 / 3),
        ("在北京", ["北京"], 0, 0),  # no segmentation: half right is all wrong
        ("กรุงเทพมหานคร", ["กรุงเทพ"], 0, 0),
        ("«Paris»", ["Paris"], 0, 0),
        ("1,000", ["1000", "a thousand"], 1, 1),
        ("Ñandú", ["ñandú"], 1, 1),
        ("new york city", ["york", "new york"], 0, 0.8),
    ],
)
def test_squad_by_hand(prediction: str, golds: list[str], exact: float, f1: float) -> None:
    assert answers.compare(SQUAD, prediction, golds, "th") == pytest.approx((exact, f1))


def test_no_answer_follows_version_two() -> None:
    task = a_task(Family.SPAN_QA, "squad", ("answerable", "unanswerable"))
    assert answers.compare(task, "", [], "en") == (1, 1)
    assert answers.compare(task, "x", [], "en") == (0, 0)
    assert answers.compare(task, "the", ["a"], "en") == (1, 1)
    assert answers.compare(task, "", ["x"], "en") == (0, 0)
    assert answers.compare(task, None, [], "en") == (0, 0)  # no prediction at all is never right


def test_squad_headline_is_the_mean_of_both_and_takes_arrays() -> None:
    code = code_of(Family.SPAN_QA)
    examples = [Example(str(n), {}, [{"text": "the cat", "start": 0}]) for n in range(2)]
    items = code.items(SQUAD, examples, {"0": "cat", "1": "cat sat"}, "en")
    found = code.score(SQUAD, sums_of(items))
    assert found["exact_match"] == 50 and found["f1"] == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert found["squad"] == pytest.approx((found["exact_match"] + found["f1"]) / 2)
    resampled = {name: np.array([value, 0.0]) for name, value in sums_of(items).items()}
    assert code.score(SQUAD, resampled)["squad"] == pytest.approx([found["squad"], 0.0])
