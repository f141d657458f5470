"""Scores of official files against values by hand, and against the public evaluators' rules told another way.

The rules are XTREME's evaluate.py, SQuAD's evaluate-v1.1.py, MLQA's mlqa_evaluation_v1.py, seqeval's
get_entities and Mewsli-X's reciprocal rank; their values below were worked out from them by hand.
"""

from __future__ import annotations

import itertools
import json
import re
import string
import sys
import unicodedata
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from seqeval.metrics import f1_score, precision_score, recall_score

from xstilts.evaluate.official import checking, layout, scores
from xstilts.families import answers
from xstilts.tasks import metrics, registry

UPOS = registry.task("udpos").labels
FEW = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def scored(root: Path, name: str, language: str, predictions: str, labels: str) -> dict[str, float]:
    """One language of one task, from the text of both files."""
    task = registry.task(name)
    files = checking.Files(task, language, root / "said", root / "gold")
    files.predictions.write_text(predictions, encoding="utf-8")
    files.labels.write_text(labels, encoding="utf-8")
    found = checking.Findings()
    units = checking.units(files, found)
    assert found.problems == []
    return scores.of_language(task, language, units)


def squad(golds: dict[str, list[str]]) -> str:
    """Labels in SQuAD's JSON."""
    asked = [{"id": name, "answers": [{"text": text} for text in texts]} for name, texts in golds.items()]
    return json.dumps({"version": "1.1", "data": [{"paragraphs": [{"qas": asked}]}]})


# --- tags ------------------------------------------------------------------------------------------------


def test_pos_as_xtreme_scores_it(tmp_path: Path) -> None:
    """XTREME's own example has this: gold SYM SYM are two chunks, predicted NUM NUM are one."""
    gold = "PRON\nPRON\nNOUN\n\nADV\nSYM\nSYM\nNOUN\n"  # 2 + 4 chunks
    said = "PRON\nPRON\nNOUN\n\nADV\nNUM\nNUM\nNOUN\n"  # 2 + 3, of which 4 are right
    found = scored(tmp_path, "udpos", "af", said, gold)
    assert found["precision"] == pytest.approx(100 * 4 / 5)
    assert found["recall"] == pytest.approx(100 * 4 / 6)
    assert found["f1"] == pytest.approx(100 * 8 / 11)
    assert found["token_accuracy"] == pytest.approx(100 * 5 / 7)


@pytest.mark.parametrize(
    ("gold", "said", "f1"),
    [
        ("SCONJ SCONJ", "SCONJ SCONJ", 100),
        ("SCONJ SCONJ", "SCONJ SYM", 50),
        ("SYM SYM", "SYM NOUN", 50),  # merged, none would be right
        ("NOUN NOUN", "NOUN VERB", 0),  # a run is right only as a whole
        ("CCONJ", "SCONJ", 0),  # seqeval 1.2.2 reads both as the type CONJ
        ("CCONJ CCONJ SCONJ", "CCONJ CCONJ CCONJ", 0),
        ("NOUN | NOUN", "NOUN | NOUN", 100),  # no run crosses a sentence's end
        ("NOUN | NOUN", "NOUN | VERB", 50),
        ("X X", "X X", 100),
        ("INTJ PRON PROPN PUNCT", "INTJ PRON PRON PUNCT", 100 * 4 / 7),
    ],
)
def test_pos_by_hand(gold: str, said: str, f1: float, tmp_path: Path) -> None:
    files = ("\n".join(" ".join(tags.split()).replace(" ", "\n").replace("|", "").split("\n")) + "\n"
             for tags in (said, gold))  # fmt: skip
    assert scored(tmp_path, "udpos", "de", *files)["f1"] == pytest.approx(f1)


def tag_files(tags: tuple[str, ...]) -> Any:
    pair = st.integers(1, 8).flatmap(
        lambda n: st.tuples(*(st.lists(st.sampled_from(tags), min_size=n, max_size=n) for _ in range(2)))
    )
    return st.lists(pair, min_size=1, max_size=4)


def written(sentences: list[list[str]]) -> str:
    return "\n\n".join("\n".join(tags) for tags in sentences) + "\n"


@FEW
@given(tag_files(UPOS))
def test_pos_is_seqevals_f1_of_xtremes_time(tmp_path: Path, pairs: list[tuple[list[str], list[str]]]) -> None:
    """0.0.12 took a tag's first letter as mark and all of it as type; "V-VERB" makes 1.2.2 do so."""
    gold, said = [list(one) for one, _ in pairs], [list(two) for _, two in pairs]
    found = scored(tmp_path, "udpos", "de", written(said), written(gold))
    marked = [[[f"{tag[0]}-{tag}" for tag in tags] for tags in side] for side in (gold, said)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found["f1"] == pytest.approx(100 * f1_score(*marked), abs=1e-9)
        assert found["precision"] == pytest.approx(100 * precision_score(*marked), abs=1e-9)
        assert found["recall"] == pytest.approx(100 * recall_score(*marked), abs=1e-9)


@FEW
@given(tag_files(registry.task("panx").labels))
def test_panx_is_seqevals_f1(tmp_path: Path, pairs: list[tuple[list[str], list[str]]]) -> None:
    gold, said = [list(one) for one, _ in pairs], [list(two) for _, two in pairs]
    found = scored(tmp_path, "panx", "de", written(said), written(gold))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found["f1"] == pytest.approx(100 * f1_score(gold, said), abs=1e-9)


def test_panx_by_hand(tmp_path: Path) -> None:
    """An I- without its B- begins a chunk; nothing predicted is 0, not an error."""
    gold = "B-PER\nI-PER\nO\nB-LOC\n"
    assert scored(tmp_path, "panx", "yo", "I-PER\nI-PER\nO\nI-LOC\n", gold)["f1"] == 100
    assert scored(tmp_path, "panx", "yo", "B-PER\nI-LOC\nO\nB-LOC\n", gold)["f1"] == pytest.approx(40)
    assert scored(tmp_path, "panx", "yo", "O\nO\nO\nO\n", gold)["f1"] == 0
    assert scored(tmp_path, "panx", "yo", "O\n\nO\n", "O\n\nO\n")["f1"] == 0  # no chunk anywhere


# --- answers ---------------------------------------------------------------------------------------------

MLQA = [
    ("en", "The Cat.", "cat", 1, 1),
    ("en", "«the» cat’s", "cats", 1, 1),
    ("en", "", "cat", 0, 0),
    ("en", "the", "a", 1, 0),  # nothing is left of either: exact match, and no F1
    ("en", "$5", "5", 1, 1),  # $ is a symbol to Unicode, and punctuation to Python
    ("en", "€5", "5", 0, 0),  # € is a symbol to both
    ("es", "Los gatos", "gatos", 1, 1),
    ("es", "¿el gato?", "gato", 1, 1),
    ("es", "the gato", "gato", 0, 2 / 3),
    ("de", "in dem Haus", "Haus", 0, 2 / 3),
    ("de", "einen Hund", "der Hund", 1, 1),
    ("de", "eins Hund", "Hund", 0, 2 / 3),
    ("vi", "của những con mèo", "con mèo", 1, 1),
    ("hi", "एक बिल्ली।", "एक बिल्ली", 1, 1),
    ("hi", "the बिल्ली", "बिल्ली", 0, 2 / 3),
    ("ar", "القاهرة،", "قاهرة", 1, 1),  # article and Arabic comma go
    ("ar", "سالم", "س م", 1, 1),  # the two letters go inside a word too
    ("ar", "مدينة القاهرة", "قاهرة", 0, 2 / 3),
    ("zh", "在北京。", "北京", 0, 4 / 5),
    ("zh", "NBA 总决赛", "nba总决赛", 1, 1),
    ("zh", "1997年", "1997 年", 1, 1),
    ("zh", "the北京", "北京", 0, 4 / 5),  # no English articles
    ("zh", "「北京」", "北京", 1, 1),
    ("zh", "㐀北", "北", 0, 2 / 3),  # beyond U+4E00 to U+9FA5, split at spaces only
]


@pytest.mark.parametrize(("language", "said", "gold", "exact", "f1"), MLQA)
def test_mlqa_by_hand(language: str, said: str, gold: str, exact: float, f1: float, tmp_path: Path) -> None:
    found = scored(tmp_path, "mlqa", language, json.dumps({"q": said}), squad({"q": [gold]}))
    assert found == pytest.approx({"exact_match": 100 * exact, "f1": 100 * f1})


PATTERNS = {
    "en": r"\b(a|an|the)\b",
    "es": r"\b(un|una|unos|unas|el|la|los|las)\b",
    "vi": r"\b(của|là|cái|chiếc|những)\b",
    "de": r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b",
    "ar": r"\sال^|ال",
}
"""As MLQA's script has them, its Arabic one with the half that never matches."""
PUNCTUATION = {chr(n) for n in range(sys.maxunicode) if unicodedata.category(chr(n))[0] == "P"}
PUNCTUATION |= set(string.punctuation)


def mlqa_rule(text: str, language: str) -> list[str]:
    """MLQA's normalisation told character by character."""
    kept = "".join(itertools.filterfalse(PUNCTUATION.__contains__, text.lower()))
    if language in PATTERNS:
        kept = re.sub(PATTERNS[language], " ", kept)
    words = [""]
    for one in kept:
        alone = language == "zh" and "\u4e00" <= one <= "\u9fa5"
        if alone or one.isspace():
            words += [one, ""] if alone else [""]
        else:
            words[-1] += one
    return [word for word in words if word]


ALPHABET = st.sampled_from(
    [
        *"athe n.,'-$€۔،؟।。「」ال北京龥㐀ไทย\u00a0\u3000\u2028\x1c\t",
        "der ",
        "el ",
        "la ",
        "của ",
        " ال",
        "İ",
        "ß",
    ]
)
ANSWER = st.lists(ALPHABET, max_size=10).map("".join)


@settings(max_examples=200, deadline=None)
@given(ANSWER, st.sampled_from("en es de ar hi vi zh".split()))
def test_mlqa_is_the_scripts_rule(text: str, language: str) -> None:
    assert answers.mlqa_tokens(text, language) == mlqa_rule(text, language)


@FEW
@given(st.dictionaries(st.sampled_from("abcd"), st.tuples(ANSWER, st.lists(ANSWER, min_size=1)), min_size=1))
def test_questions_are_averaged_as_the_scripts_do(tmp_path: Path, asked: dict[str, Any]) -> None:
    """XQuAD and TyDiQA: English rules for Thai, the best of the gold answers, the mean over all questions."""

    def rule(text: str) -> list[str]:
        plain = "".join(one for one in text.lower() if one not in string.punctuation)
        return re.sub(PATTERNS["en"], " ", plain).split()

    exact = f1 = 0.0
    for said, golds in asked.values():
        exact += max(rule(said) == rule(gold) for gold in golds)
        best = 0.0
        for gold in golds:
            same = sum((Counter(rule(said)) & Counter(rule(gold))).values())
            if same:
                precision, recall = same / len(rule(said)), same / len(rule(gold))
                best = max(best, 2 * precision * recall / (precision + recall))
        f1 += best
    said = json.dumps({name: one for name, (one, _) in asked.items()})
    found = scored(tmp_path, "xquad", "th", said, squad({name: golds for name, (_, golds) in asked.items()}))
    assert found == pytest.approx(
        {"exact_match": 100 * exact / len(asked), "f1": 100 * f1 / len(asked)}, abs=1e-9
    )


@pytest.mark.parametrize(
    ("said", "gold", "exact", "f1"),
    [
        ("กรุงเทพมหานคร", "กรุงเทพ", 0, 0),  # Thai has no spaces: half right is all wrong
        ("การ a ทดสอบ", "การ ทดสอบ", 100, 100),  # an English article goes in Thai too
        ("“การ”", "การ", 0, 0),  # typographic quotes stay
        ("القاهرة", "قاهرة", 0, 0),  # and Arabic articles
        ("在北京", "北京", 0, 0),
    ],
)
def test_xquad_has_english_rules_everywhere(
    said: str, gold: str, exact: float, f1: float, tmp_path: Path
) -> None:
    for name in ("xquad", "tydiqa"):
        found = scored(tmp_path, name, "th", json.dumps({"q": said}), squad({"q": [gold]}))
        assert found == {"exact_match": exact, "f1": f1}


def test_questions_without_prediction_and_repeated_ids(tmp_path: Path) -> None:
    """Every question of the labels counts, also one that is listed twice; SQuAD's data may stand alone."""
    gold = json.loads(squad({"q": ["x"], "r": ["y"]}))["data"]
    gold.append(gold[0])
    found = scored(tmp_path, "xquad", "de", '{"q": "x"}', json.dumps(gold))
    assert found == {"exact_match": 50, "f1": 50}
    assert scored(tmp_path, "xquad", "de", "{}", json.dumps(gold)) == {"exact_match": 0, "f1": 0}


# --- labels, pairs, rows and ranks -----------------------------------------------------------------------


def test_accuracies(tmp_path: Path) -> None:
    gold = "entailment\nneutral\ncontradiction\n"
    said = "entailment\nentailment\ncontradiction"
    assert scored(tmp_path, "xnli", "sw", said, gold) == {"accuracy": pytest.approx(200 / 3)}
    assert scored(tmp_path, "pawsx", "ko", "1\n0\n", "1\n1\n") == {"accuracy": 50}
    assert scored(tmp_path, "tatoeba", "ko", "2\n2\n0\n", "2\n1\n0\n") == {"accuracy": pytest.approx(200 / 3)}
    said, gold = '{"label": 1}\n{"label": 1}\n', '{"label": 0, "premise": "x"}\n{"label": 1}\n'
    assert scored(tmp_path, "xcopa", "qu", said, gold) == {"accuracy": 50}


@pytest.mark.parametrize(
    ("said", "precision", "recall", "f1"),
    [
        ("", 0, 0, 0),
        ("de-1\ten-1\n", 100, 50, 200 / 3),
        ("de-1\ten-1\nde-1\ten-1\n", 100, 50, 200 / 3),  # a set: said twice is said once
        ("de-2\ten-2\nde-1\ten-1\n", 100, 100, 100),
        ("de-1\ten-2\nde-2\ten-1\n", 0, 0, 0),
        ("de-1\ten-1\nde-1\ten-9\nde-3\ten-3\n", 100 / 3, 50, 40),
    ],
)
def test_bucc_by_hand(said: str, precision: float, recall: float, f1: float, tmp_path: Path) -> None:
    found = scored(tmp_path, "bucc2018", "de", said, "de-1\ten-1\nde-2\ten-2\n")
    assert found == pytest.approx({"f1": f1, "precision": precision, "recall": recall})


@pytest.mark.parametrize(
    ("ranked", "right", "wanted"),
    [
        ("a b c", "a", 1),
        ("b a c", "a", 1 / 2),
        ("b c", "a", 0),
        ("", "a", 0),
        ("b b a a", "a", 1 / 3),  # what is said twice keeps its rank and counts once
        ("a b c", "a c", (1 + 2 / 3) / 2),
        ("x a y b", "a b", (1 / 2 + 2 / 4) / 2),
        (" ".join(f"c{n}" for n in range(20)), " ".join(f"c{n}" for n in range(30)), 1),  # divided by 20
        (" ".join(f"x{n}" for n in range(19)) + " a", "a", 1 / 20),
        (" ".join(f"x{n}" for n in range(20)) + " a", "a", 0),
    ],
)
def test_average_precision_by_hand(ranked: str, right: str, wanted: float, tmp_path: Path) -> None:
    made = metrics.average_precision(ranked.split(), set(right.split()))
    assert made == pytest.approx(wanted)
    said, gold = ({"q": ids.split(), "r": []} for ids in (ranked, right))
    gold["r"] = ["never"]
    found = scored(tmp_path, "lareqa", "el", json.dumps(said), json.dumps(gold))
    assert found == {"map@20": pytest.approx(100 * wanted / 2)}


def test_mewslix_takes_the_first_gold_id(tmp_path: Path) -> None:
    found = scored(tmp_path, "mewslix", "ar", '{"m": ["Q3", "Q1", "Q2"]}', '{"m": [" Q1 ", "Q2"]}')
    assert found == {"map@20": 50}


def test_every_form_is_tried_here() -> None:
    assert {how.form for how in layout.LAYOUTS.values()} == set(scores.HEADLINES)
