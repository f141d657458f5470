"""Made-up rows with the columns and types that the hub serves, for every data set of the registry.

Texts are nonsense that can be learnt: 64 words a language, one for each meaning, in the language's script;
labels follow from meanings. What is awkward in the real data is here too: Thai and Chinese without spaces,
Arabic with its article, sentences far over any limit, questions without an answer, SNLI's -1, languages that
only an id tells, duplicate sentences. A row is a function of a seed, a language and a number.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import pyarrow as pa

from xstilts.tasks import languages as tongues
from xstilts.tasks import registry

Row = dict[str, Any]
Maker = Callable[[str, str, int], Row]
"""(seed, language, index) -> a row; rows of one seed and index are translations of each other."""

MEANINGS = 64
LONG = 3
"""Which sentence of a tagging split is far over any limit."""
LONG_WORDS = 150

SYLLABLES = {
    "Latn": "ba ko mi tu re la so né",
    "Cyrl": "ба ко ми ту ре ла со жа",
    "Grek": "βα κο μι του ρε λα σο ξή",
    "Arab": "با كو مي تو را لا سو نه",
    "Hebr": "בא קו מי תו רא לא סו נה",
    "Deva": "बा को मी तू रे ला सो ने",
    "Thai": "กา โค มี ตู เร ลา โส นำ",
    "Hans": "天 地 人 山 水 火 日 月",
    "Jpan": "か の み つ れ ラ ソ 日",
    "Kore": "가 코 미 투 레 라 소 네",
    "Taml": "பா கோ மீ தூ ரே லா சோ நே",
    "Telu": "బా కో మీ తూ రే లా సో నే",
    "Beng": "বা কো মী তূ রে লা সো নে",
    "Geor": "ბა კო მი ტუ რე ლა სო ნე",
    "Gujr": "બા કો મી તૂ રે લા સો ને",
    "Guru": "ਬਾ ਕੋ ਮੀ ਤੂ ਰੇ ਲਾ ਸੋ ਨੇ",
    "Mlym": "ബാ കോ മീ തൂ രേ ലാ സോ നേ",
    "Mymr": "ဗာ ကို မီ တူ ရေ လာ စို နဲ",
}
UNSPACED = {"Thai", "Hans", "Jpan", "Mymr"}
"""Scripts that put no spaces between words."""


@cache
def _syllables(language: str) -> tuple[str, ...]:
    found = SYLLABLES[tongues.of(language).script].split()
    Random(language).shuffle(found)
    return tuple(found)


def word(language: str, meaning: int) -> str:
    """What `language` calls one of the meanings; no two of a language are alike."""
    high, low = divmod(meaning, 8)
    article = "ال" if language == "ar" and meaning % 5 == 0 else ""
    return article + _syllables(language)[high] + _syllables(language)[low]


def said(language: str, meanings: Sequence[int]) -> str:
    """A sentence: the words in order, with a capital and a stop where the script has them."""
    script = tongues.of(language).script
    joined = ("" if script in UNSPACED else " ").join(word(language, meaning) for meaning in meanings)
    return joined[:1].upper() + joined[1:] + {"Thai": "", "Hans": "。", "Jpan": "。"}.get(script, ".")


def draw_of(seed: str, index: int) -> Random:
    """Chance of its own for each row, whatever else is drawn."""
    return Random(f"{seed}/{index}")


def some(draw: Random, number: int) -> list[int]:
    """So many different meanings; 0 is kept for "not"."""
    return draw.sample(range(1, MEANINGS), number)


def _nli(seed: str, language: str, index: int) -> Row:
    """The hypothesis repeats a part of the premise, adds to it, or denies it."""
    draw = draw_of(seed, index)
    *premise, other = some(draw, 7)
    label = index % 3
    claim = {0: premise[:3], 1: [*premise[:2], other], 2: [0, *premise[:3]]}[label]
    return {"premise": said(language, premise), "hypothesis": said(language, claim), "label": label}


def _snli(seed: str, language: str, index: int) -> Row:
    """Every fifth pair without a label that annotators agreed on."""
    row = _nli(seed, language, index)
    return {**row, "label": -1 if index % 5 == 4 else row["label"]}


def _anli(seed: str, language: str, index: int) -> Row:
    name = hashlib.md5(f"{seed}/{index}".encode()).hexdigest()
    return {"uid": name, **_nli(seed, language, index), "reason": ""}


def _pair(first: str, second: str, **more: str) -> Maker:
    """Sentence pairs in columns `first` and `second`: the same words reversed, or one changed."""

    def row(seed: str, language: str, index: int) -> Row:
        draw = draw_of(seed, index)
        *words, other = some(draw, 6)
        label = index % 2
        same = words[::-1] if label else [*words[:-1], other]
        numbers = {name: index if kind == "int" else str(index) for name, kind in more.items()}
        return {first: said(language, words), second: said(language, same), "label": label, **numbers}

    return row


def _choices(draw: Random, language: str, number: int, right: int) -> tuple[list[int], list[str]]:
    """Words, and sentences of which the right one has some of them."""
    words = some(draw, 8)
    wrong = [some(draw, 3) for _ in range(number)]
    chosen = [[*words[:2], each[0]] if place == right else each for place, each in enumerate(wrong)]
    return words, [said(language, each) for each in chosen]


def _hellaswag(seed: str, language: str, index: int) -> Row:
    words, endings = _choices(draw_of(seed, index), language, 4, index % 4)
    return {
        "ind": index, "activity_label": word(language, words[0]), "ctx": said(language, words),
        "endings": endings, "label": str(index % 4), "source_id": f"made~{index}", "split": "made",
        "split_type": "indomain",
    }  # fmt: skip


def _cosmosqa(seed: str, language: str, index: int) -> Row:
    words, answers = _choices(draw_of(seed, index), language, 4, index % 4)
    context = f"{said(language, words)} {said(language, words[::-1])}"
    named = {f"answer{place}": text for place, text in enumerate(answers)}
    asked = {"id": f"made##{seed}##{index}", "context": context, "question": said(language, words[4:6])}
    return {**asked, **named, "label": index % 4}


def _csqa(seed: str, language: str, index: int) -> Row:
    words, texts = _choices(draw_of(seed, index), language, 5, index % 5)
    return {
        "id": hashlib.md5(f"{seed}/{index}".encode()).hexdigest(), "question": said(language, words),
        "question_concept": word(language, words[0]), "choices": {"label": list("ABCDE"), "text": texts},
        "answerKey": "ABCDE"[index % 5],
    }  # fmt: skip


def _siqa(seed: str, language: str, index: int) -> Row:
    words, texts = _choices(draw_of(seed, index), language, 3, index % 3)
    named = {f"answer{letter}": text for letter, text in zip("ABC", texts, strict=True)}
    asked = {"context": said(language, words), "question": said(language, words[2:4])}
    return {**asked, **named, "label": str(index % 3 + 1)}


def _copa(seed: str, language: str, index: int) -> Row:
    words, (one, other) = _choices(draw_of(seed, index), language, 2, index // 2 % 2)
    return {
        "premise": said(language, words), "choice1": one, "choice2": other,
        "question": ("cause", "effect")[index % 2], "idx": index, "label": index // 2 % 2,
    }  # fmt: skip


def _xcopa(seed: str, language: str, index: int) -> Row:
    return {**_copa(seed, language, index), "changed": False}


@dataclass(frozen=True, slots=True)
class Passage:
    """Three sentences, and for each a question whose answer is its third word."""

    context: str
    breaks: list[list[int]]
    questions: list[tuple[str, str, int]]
    """Question, answer, where it begins."""


def passage_of(seed: str, language: str, number: int) -> Passage:
    """Equal seeds and numbers say the same in every language."""
    draw, context, breaks, questions = draw_of(seed, number), "", [], []
    for words in (some(draw, 7) for _ in range(3)):
        begin = len(context)
        sentence = said(language, words)
        answer = word(language, words[2])
        starts = [at for at in range(len(sentence)) if sentence.startswith(answer, at)]
        questions.append((said(language, words[1:2]) + "?", answer, begin + starts[0]))
        breaks.append([begin, begin + len(sentence)])
        context += sentence + " "
    return Passage(context.rstrip(), breaks, questions)


def _asked(seed: str, language: str, index: int) -> Row:
    """Two questions a passage, two passages a title."""
    passage = passage_of(seed, language, index // 2)
    question, answer, start = passage.questions[index % 2]
    return {
        "id": hashlib.sha1(f"{seed}/{index}".encode()).hexdigest()[:24],
        "title": f"Made_up_{index // 4}", "context": passage.context, "question": question,
        "answers": {"text": [answer], "answer_start": [start]},
    }  # fmt: skip


def _unanswerable(seed: str, language: str, index: int) -> Row:
    """Every third question of SQuAD v2.0 has no answer."""
    row = _asked(seed, language, index)
    return {**row, "answers": {"text": [], "answer_start": []}} if index % 3 == 2 else row


def _untitled(seed: str, language: str, index: int) -> Row:
    row = _asked(seed, language, index)
    del row["title"]
    return row


def _tydiqa(seed: str, language: str, index: int) -> Row:
    """The language is told by the id alone; of two answers either is right, as in its dev."""
    row = _asked(f"{seed}/{language}", language, index)
    name = registry.task("tydiqa").code(language)
    minus = "-" if index % 2 else ""
    said_twice = {each: values * (1 + index % 2) for each, values in row["answers"].items()}
    return {**row, "id": f"{name}-{minus}{7_000_000 + index}-{index % 3}", "answers": said_twice}


def _tagged(seed: str, index: int) -> list[int]:
    draw = draw_of(seed, index)
    return [draw.randrange(MEANINGS) for _ in range(LONG_WORDS if index == LONG else 4 + index % 6)]


def _udpos(seed: str, language: str, index: int) -> Row:
    meanings = _tagged(f"{seed}/{language}", index)
    return {
        "tokens": [word(language, each) for each in meanings],
        "pos_tags": [each % 17 for each in meanings],
    }


def _panx(seed: str, language: str, index: int) -> Row:
    """Every fourth meaning begins a name, of a kind of its own; some names have two words."""
    tokens, tags = [], []
    for meaning in _tagged(f"{seed}/{language}", index):
        tokens.append(word(language, meaning))
        kind = meaning // 4 % 3
        tags.append(1 + 2 * kind if meaning % 4 == 0 else 0)
        if meaning % 8 == 0:
            tokens.append(word(language, (meaning + 1) % MEANINGS))
            tags.append(2 + 2 * kind)
    return {"tokens": tokens, "ner_tags": tags, "langs": [language] * len(tokens)}


def _tatoeba(seed: str, language: str, index: int) -> Row:
    """In no order; the last sentence is the first again."""
    meanings = some(draw_of(f"{seed}/{language}", 0 if index == 11 else index), 5)
    code = registry.task("tatoeba").code(language)
    return {
        "source_sentence": said(language, meanings), "target_sentence": said("en", meanings),
        "source_lang": code, "target_lang": "eng",
    }  # fmt: skip


def _text(seed: str, language: str, index: int) -> Row:
    draw = draw_of(f"{seed}/{language}", index)
    sentences = [said(language, some(draw, 6)) for _ in range(2)]
    page = {"id": str(index), "url": f"https://{language}.example.org/{index}"}
    return {**page, "title": sentences[0], "text": " ".join(sentences)}


def _schema(words: str) -> pa.Schema:
    """ "name:type ..." with s string, i int64, b bool and [] around what is a list."""
    plain = {"s": pa.string(), "i": pa.int64(), "b": pa.bool_()}
    kinds = {**plain, **{f"[{name}]": pa.list_(each) for name, each in plain.items()}}
    kinds["answers"] = pa.struct([("text", kinds["[s]"]), ("answer_start", kinds["[i]"])])
    kinds["choices"] = pa.struct([("label", kinds["[s]"]), ("text", kinds["[s]"])])
    return pa.schema(
        [(name, kinds[kind]) for name, _, kind in (each.partition(":") for each in words.split())]
    )


NLI = _schema("premise:s hypothesis:s label:i")
SQUAD = _schema("id:s title:s context:s question:s answers:answers")
COPA = _schema("premise:s choice1:s choice2:s question:s idx:i label:i")

HUB: dict[str, tuple[Maker, pa.Schema]] = {
    "facebook/xnli": (_nli, NLI),
    "nyu-mll/multi_nli": (_nli, NLI),
    "stanfordnlp/snli": (_snli, NLI),
    "facebook/anli": (_anli, _schema("uid:s premise:s hypothesis:s label:i reason:s")),
    "nyu-mll/glue/qqp": (
        _pair("question1", "question2", idx="int"), _schema("question1:s question2:s label:i idx:i")
    ),
    "nyu-mll/glue/mrpc": (
        _pair("sentence1", "sentence2", idx="int"), _schema("sentence1:s sentence2:s label:i idx:i")
    ),
    "google-research-datasets/paws-x": (
        _pair("sentence1", "sentence2", id="int"), _schema("id:i sentence1:s sentence2:s label:i")
    ),
    "rajpurkar/squad": (_asked, SQUAD),
    "rajpurkar/squad_v2": (_unanswerable, SQUAD),
    "Rowan/hellaswag": (
        _hellaswag,
        _schema("ind:i activity_label:s ctx:s endings:[s] label:s source_id:s split:s split_type:s"),
    ),
    "allenai/cosmos_qa": (
        _cosmosqa, _schema("id:s context:s question:s answer0:s answer1:s answer2:s answer3:s label:i")
    ),
    "allenai/social_i_qa": (_siqa, _schema("context:s question:s answerA:s answerB:s answerC:s label:s")),
    "tau/commonsense_qa": (
        _csqa, _schema("id:s question:s question_concept:s choices:choices answerKey:s")
    ),
    "aps/super_glue/copa": (_copa, COPA),
    "cambridgeltl/xcopa": (
        _xcopa, _schema("premise:s choice1:s choice2:s question:s label:i idx:i changed:b")
    ),
    "google/xtreme/udpos": (_udpos, _schema("tokens:[s] pos_tags:[i]")),
    "google/xtreme/PAN-X": (_panx, _schema("tokens:[s] ner_tags:[i] langs:[s]")),
    "google/xtreme/XQuAD": (_untitled, _schema("id:s context:s question:s answers:answers")),
    "google/xtreme/MLQA": (_asked, SQUAD),
    "google/xtreme/tydiqa": (_tydiqa, SQUAD),
    "google/xtreme/tatoeba": (
        _tatoeba, _schema("source_sentence:s target_sentence:s source_lang:s target_lang:s")
    ),
    "wikimedia/wikipedia": (_text, _schema("id:s url:s title:s text:s")),
}  # fmt: skip
"""Hub id, with the config up to its first dot where one hub id is several data sets -> rows and columns."""
