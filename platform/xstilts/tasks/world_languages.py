"""The languages of a generated world: knobs that set their distance, words, and how a meaning is said.

In the spirit of the "fake English" of K et al. 2020 (arXiv 1912.07840) and Dufter & Schütze 2020
(arXiv 2005.00396): languages that differ from the source in known ways and in nothing else.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from random import Random
from typing import Literal

from xstilts.frozen import Frozen, stream
from xstilts.tasks.world_meanings import Fact, concepts, meanings

Script = Literal["Latin", "Greek", "Georgian"]
LATIN = "abcdefghijklmnopqrstuvwxyz"
SCRIPTS: dict[Script, str] = {
    "Latin": LATIN,
    "Greek": "αβγδεφχηιξκλμνοπψρστυωθζςϊ",
    "Georgian": "აბგდეფღჰიჯკლმნოპქრსტუვწხყზ",
}
"""One letter each for a to z: a bijection, so that script alone hides what words share."""


class Language(Frozen):
    """One language of the world. The knobs decide everything in which it differs from the source."""

    code: str
    name: str
    shared: float = 1.0
    """Part of the words that are the source's own (cognates); names are always the source's."""
    respelt: float = 0.0
    """Part of the cognates that end in another vowel."""
    order: Literal["SVO", "SOV", "VSO"] = "SVO"
    adjective_first: bool = True
    postpositions: bool = False
    articles: bool = True
    cases: bool = False
    """Whether objects carry an accusative suffix."""
    script: Script = "Latin"
    family: str = "World"

    @property
    def distance(self) -> float:
        """From the source, 0 to 1: half of it words, the rest order, morphology and script.

        Words weigh most because shared vocabulary is what carries a model of this size across. In
        another script no word is shared, cognate or not.
        """
        words = 1.0 if self.script != "Latin" else 1.0 - self.shared * (1.0 - self.respelt)
        order = (self.order != "SVO") / 2 + (not self.adjective_first) / 4 + self.postpositions / 4
        morphology = (self.cases + (not self.articles)) / 2
        return round(0.5 * words + 0.2 * order + 0.1 * morphology + 0.2 * (self.script != "Latin"), 3)


SOURCE = "w0"
LANGUAGES: dict[str, Language] = {
    language.code: language
    for language in (
        Language(code="w0", name="World source"),
        Language(code="w1", name="World near", shared=0.9, respelt=0.1),
        Language(code="w2", name="World cousin", shared=0.7, respelt=0.15, adjective_first=False),
        Language(
            code="w3", name="World verb-first", shared=0.5, respelt=0.2, order="VSO", adjective_first=False
        ),
        Language(
            code="w4", name="World verb-last", shared=0.3, respelt=0.2, order="SOV", postpositions=True,
            articles=False, cases=True,
        ),
        Language(
            code="w5", name="World far", shared=0.1, respelt=0.3, order="SOV", postpositions=True,
            articles=False, cases=True, script="Georgian",
        ),
    )
}  # fmt: skip
OTHERS: dict[str, Language] = {
    code: Language(
        code=code, name=f"World two, {name}", shared=shared, respelt=respelt, order="VSO",
        adjective_first=False, articles=False, family="World two",
    )
    for code, name, shared, respelt in (
        ("v1", "near", 0.9, 0.1), ("v2", "cousin", 0.7, 0.15),
        ("v3", "half", 0.5, 0.2), ("v4", "far", 0.3, 0.2),
    )
}  # fmt: skip
"""A second family, for studies that ask for several: one grammar (verb first, adjectives last, no articles),
words as far away as those of w1 to w4. A job reads and reports them only where it names them, so that results
of jobs that do not are what they were."""
EVERY = LANGUAGES | OTHERS
ENGLISH = {
    "the": "the", "will": "will", "who": "who", "what": "what", "where": "where", "when": "when",
    "past": "ed", "plural": "s", "accusative": "um", "citation": "al",
    "adposition/0": "in", "adposition/1": "near", "adposition/2": "behind", "adposition/3": "above",
}  # fmt: skip
"""The source's grammar words are English; its content words are the seed's."""


def _word(rng: Random, consonants: str, vowels: str, syllables: int) -> str:
    body = "".join(rng.choice(consonants) + rng.choice(vowels) for _ in range(syllables))
    return body + rng.choice(("", rng.choice(consonants)))


def _fresh(rng: Random, consonants: str, vowels: str, syllables: int, taken: set[str]) -> str:
    while True:
        word = _word(rng, consonants, vowels, syllables)
        if word not in taken:
            taken.add(word)
            return word


@functools.lru_cache(maxsize=64)
def lexicon(seed: int, code: str) -> dict[str, str]:
    """Concept -> stem, in Latin letters (`written` changes the script). No word means two things."""
    rng = Random(stream(seed, f"world/lexicon/{code}"))
    if code == SOURCE:
        taken = set(ENGLISH.values())
        words = dict(ENGLISH)
        for concept in (c for group in concepts().values() for c in group if c not in words):
            word = _fresh(rng, "bdfgklmnprst", "aeiou", 2, taken)
            words[concept] = word.capitalize() if concept.startswith("name/") else word
        return words
    language, source = EVERY[code], lexicon(seed, SOURCE)
    # Its own sounds: a few letters more, others fewer, so that new words look like the language's own.
    consonants = "".join(rng.sample("bdfgklmnprstvzhjwcqx", 12))
    taken = {word.lower() for word in source.values()}
    words = {concept: word for concept, word in source.items() if concept.startswith("name/")}
    for group, members in concepts().items():
        if group == "name":
            continue
        order = rng.sample(members, len(members))
        cognates = order[: round(language.shared * len(order))]
        for concept in members:
            if concept not in cognates:
                short = group in ("function", "suffix", "adposition")
                words[concept] = _fresh(rng, consonants, "aeiouy", 1 if short else 2, taken)
            else:
                words[concept] = source[concept]
        if group in ("noun", "place", "verb", "adjective", "time"):
            for concept in cognates[: round(language.respelt * len(cognates))]:
                words[concept] = _respelt(rng, source[concept], taken)
    return words


def _respelt(rng: Random, word: str, taken: set[str]) -> str:
    """The word with another last vowel: near enough to see, far enough to be another sub-word."""
    at = max(i for i, letter in enumerate(word) if letter in "aeiou")
    vowels = [v for v in "aeiouy" if v != word[at]]
    options = [word[:at] + v + word[at + 1 :] for v in rng.sample(vowels, len(vowels))]
    new = next((option for option in options if option not in taken), word)
    taken.add(new)
    return new


def written(word: str, script: Script) -> str:
    """`word` in another alphabet; digits and punctuation stay. Neither of the two alphabets has case here."""
    if script == "Latin":
        return word
    return word.lower().translate(str.maketrans(LATIN, SCRIPTS[script]))


@dataclass(frozen=True, slots=True)
class Word:
    """One word of a sentence: its form, its part of speech, and which slot of the meaning it tells."""

    form: str
    tag: str
    slot: str


class Speaker:
    """Says meanings in one language of one world."""

    def __init__(self, seed: int, code: str) -> None:
        self.language = EVERY[code]
        self.adposition = meanings(seed).adposition
        script = self.language.script
        self.words = {c: written(word, script) for c, word in lexicon(seed, code).items()}

    def sentence(self, fact: Fact, front: str | None = None) -> list[Word]:
        """The meaning, told; `front` (place or time) is said first."""
        return [*self._clause(fact, front, without=None), Word(".", "PUNCT", "stop")]

    def question(self, fact: Fact, asked: str) -> list[Word]:
        """The meaning asked for one slot: subject, object, place or time."""
        person = asked in ("subject", "object") and not getattr(fact, asked).startswith(_THINGS)
        ask = {"place": "where", "time": "when"}.get(asked, "who" if person else "what")
        first = Word(self.words[ask], "ADV" if ask in ("where", "when") else "PRON", "ask")
        return [first, *self._clause(fact, None, without=asked), Word("?", "PUNCT", "stop")]

    def _clause(self, fact: Fact, front: str | None, without: str | None) -> list[Word]:
        verb = self._verb(fact)
        parts = {
            "subject": self._noun_phrase(fact.subject, fact.subject_adjective, None, "subject"),
            "object": self._noun_phrase(fact.object, fact.object_adjective, fact.number, "object"),
            "place": self._place(fact.place),
            "time": [Word(self.words[fact.time], "ADV", "time")] if fact.time else [],
        }
        if without:
            parts[without] = []
        order = {
            "SVO": ["subject", "verb", "object", "place", "time"],
            "VSO": ["verb", "subject", "object", "place", "time"],
            "SOV": ["subject", "time", "place", "object", "verb"],
        }[self.language.order]
        if front:
            order = [front, *(name for name in order if name != front)]
        return [word for name in order for word in (verb if name == "verb" else parts[name])]

    def _verb(self, fact: Fact) -> list[Word]:
        stem = self.words[fact.verb]
        if fact.tense == "future":
            pair = [Word(self.words["will"], "AUX", "tense"), Word(stem, "VERB", "verb")]
            return pair[::-1] if self.language.order == "SOV" else pair
        return [Word(stem + (self.words["past"] if fact.tense == "past" else ""), "VERB", "verb")]

    def _noun_phrase(self, noun: str, adjective: str | None, number: int | None, slot: str) -> list[Word]:
        case = self.words["accusative"] if self.language.cases and slot == "object" else ""
        if noun.startswith("name/"):
            return [Word(self.words[noun] + case, "PROPN", slot)]
        plural = self.words["plural"] if number else ""
        core = [Word(self.words[noun] + plural + case, "NOUN", slot)]
        if adjective:
            side = [Word(self.words[adjective], "ADJ", slot)]
            core = side + core if self.language.adjective_first else core + side
        if number:
            return [Word(str(number), "NUM", slot), *core]
        return [Word(self.words["the"], "DET", slot), *core] if self.language.articles else core

    def _place(self, place: str | None) -> list[Word]:
        if not place:
            return []
        adposition = Word(self.words[self.adposition[place]], "ADP", "where")
        phrase = [Word(self.words[place], "NOUN", "place")]
        if self.language.articles:
            phrase = [Word(self.words["the"], "DET", "place"), *phrase]
        return [*phrase, adposition] if self.language.postpositions else [adposition, *phrase]


_THINGS = ("noun/animal", "noun/food", "noun/tool")


@functools.lru_cache(maxsize=64)
def speaker(seed: int, code: str) -> Speaker:
    """The speaker of one language in the world of this seed."""
    return Speaker(seed, code)


def said(words: list[Word]) -> str:
    """Words as text. Punctuation stands apart, as in a treebank, so that a word has one form only."""
    return " ".join(word.form for word in words)
