"""A small world of meanings told in languages of known distance: data for jobs that download nothing.

Everything follows from one seed: words, facts and every row; another seed is another world. Rows have the
columns of published data sets (raw text, XNLI, SQuAD, UD, PAWS-X, Tatoeba). Dev and test rows are the same
meanings in every language, in the same order; training and selection rows exist in the source language only
and tell no event that another split tells first.

Two tasks share a skill by construction: `world_nli` and `world_paraphrase` both compare two sentences part by
part (who, what, how many, where, when). NLI has thousands of pairs, paraphrase a few hundred.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from pydantic import Field, ValidationError

from xstilts.errors import DataError, UnknownName
from xstilts.frozen import Frozen, Json, canonical, stream
from xstilts.tasks.task import Family, Split, Task
from xstilts.tasks.world_languages import (
    EVERY,
    LANGUAGES,
    OTHERS,
    SOURCE,
    Language,
    Speaker,
    Word,
    said,
    speaker,
)
from xstilts.tasks.world_meanings import Fact, Meanings, meanings

__all__ = ["EVERY", "LANGUAGES", "SOURCE", "TASKS", "Language", "World", "generator_identity", "rows"]

VERSION = 1
"""Bumped whenever the same seed would give other rows: it is part of every key made from them."""
UPOS = tuple("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X".split())
NLI = ("entailment", "neutral", "contradiction")
PARAPHRASE = ("different", "same")
CHANGED = {"entailment": 0, "contradiction": 2, "neutral": 4, "same": 0, "different": 2}
"""Parts of four (subject, verb, object, place) in which the second sentence differs from the first."""

QA_SLOTS = ("subject", "object", "place", "time")
FRONTED = 0.15
"""Sentences that begin with the place or the time, where they tell one."""
RETOLD, ASKED = 0.6, 0.2
"""Passages of raw text that tell an event three times, or tell it and ask for a part; the rest tell two."""

Row = dict[str, Any]


class World(Frozen):
    """What decides every row: the generator's version, the seed and how much there is of everything."""

    version: int = VERSION
    seed: int = 1
    text: int = Field(default=8_000, ge=1)
    """Sentences of raw text, in each language."""
    nli: int = Field(default=5_000, ge=1)
    qa: int = Field(default=3_000, ge=1)
    tagging: int = Field(default=600, ge=1)
    paraphrase: int = Field(default=100, ge=1)
    """Few on purpose: alone, they do not teach a fresh model to compare."""
    selection: int = Field(default=200, ge=1)
    """Rows of the split that chooses checkpoints, source language only."""
    heldout: int = Field(default=300, ge=1)
    """Rows of validation and of test, in every language."""


def generator_identity(seed: int) -> dict[str, Json]:
    """What goes to `Rows.world`: version, seed and sizes."""
    return World(seed=seed).to_identity()


def rows(world: dict[str, Json], config: str, split: str) -> list[Row]:
    """The rows of one split, e.g. ("nli.w1", "test"); the list is memoised: do not change it.

    Raises:
        DataError: a world of another version, or training rows asked for in another language.
        UnknownName: no such kind of data, language or split.
    """
    return _rows(canonical(world), config, split)


@functools.lru_cache(maxsize=128)
def _rows(identity: str, config: str, split: str) -> list[Row]:
    try:
        world = World(**json.loads(identity))
    except ValidationError as wrong:
        raise DataError(f"no world is described by {identity}", "use the words of tasks/world.py") from wrong
    if world.version != VERSION:
        raise DataError(
            f"rows of world version {world.version} cannot be made by version {VERSION}", "plan the job again"
        )
    kind, _, code = config.partition(".")
    if kind not in (*KINDS, RAW):
        raise UnknownName.among("kind of world data", kind, (*KINDS, RAW), "xstilts tasks")
    if code not in EVERY:
        raise UnknownName.among("world language", code, EVERY, "xstilts tasks")
    if split not in SPLITS:
        raise UnknownName.among("split of the world", split, SPLITS, "xstilts tasks")
    if kind == RAW:
        if split != "train":
            raise DataError(f"world text has no {split} rows", "raw text is for pretraining: ask for train")
        return _text(world, code)
    if code != SOURCE and split in ("train", "selection"):
        raise DataError(
            f"world {kind} has no {split} rows in {code}",
            f"only {SOURCE} is trained on; ask for {kind}.{SOURCE}",
        )
    # Without the language in the seed, the rows are the same meanings in every language.
    rng = Random(stream(world.seed, f"world/{kind}/{split}"))
    trained = {"nli": world.nli, "qa": world.qa, "tagging": world.tagging, "paraphrase": world.paraphrase}
    count = {"train": trained.get(kind, 0), "selection": world.selection}.get(split, world.heldout)
    draw = _Draw(meanings(world.seed), speaker(world.seed, code), rng, split)
    return [KINDS[kind](draw, i) for i in range(count)]


class _Draw:
    """What one split is made with; one random stream, used in the same order in every language."""

    def __init__(self, world: Meanings, speaker: Speaker, rng: Random, part: str) -> None:
        self.world, self.speaker, self.rng, self.part = world, speaker, rng, part
        self.told: set[Fact] = set()
        """For retrieval, where a meaning told twice would have two right answers."""

    def fact(self, low: int, high: int, subject: str = "") -> Fact:
        """A meaning with `low` to `high` modifiers."""
        return self.world.draw(self.rng, self.part, self.rng.randint(low, high), subject=subject)

    def tell(self, fact: Fact) -> list[Word]:
        """The meaning in one of its two or three orders, by chance."""
        fronts = [name for name in ("place", "time") if getattr(fact, name) is not None]
        front = self.rng.choice(fronts) if fronts and self.rng.random() < FRONTED else None
        return self.speaker.sentence(fact, front)


def _text(world: World, code: str) -> list[Row]:
    """A word list, then sentences that belong together, one a row; other meanings in each language.

    One event told three times, or told and asked about, or two events of one subject. Rows keep their order
    in pretraining, and the retellings are what teaches a masked LM to look back at the same word.
    """
    rng = Random(stream(world.seed, f"world/text/{code}"))
    draw = _Draw(meanings(world.seed), speaker(world.seed, code), rng, "train")
    made = list(_glossary(draw.speaker))
    while len(made) < world.text:
        first = draw.fact(1, 3)
        chance = rng.random()
        if chance < RETOLD:
            told = [first.with_only([name for name in first.told() if rng.random() < 0.7]) for _ in range(2)]
            more = [draw.tell(fact) for fact in told]
        elif chance < RETOLD + ASKED:
            slots = [slot for slot in QA_SLOTS if getattr(first, slot) is not None]
            more = [draw.speaker.question(first, rng.choice(slots))]
        else:
            more = [draw.tell(draw.fact(0, 3, first.subject))]
        made += [{"text": said(words)} for words in (draw.tell(first), *more)]
    return made[: world.text]


def _glossary(speaker: Speaker) -> Iterator[Row]:
    """All words of the language in a form that sentences do not use, ten a row, as a dictionary has them.

    Unigram trainers seed their pieces by counting over distinct words (SentencePiece and `tokenizers` alike),
    so a word with one form would never be a piece: "the" was "t he", 1.8 to 2.3 pieces a word.
    """
    ending = speaker.words["citation"]
    every = [word + ending for word in speaker.words.values()]
    for start in range(0, len(every), 10):
        yield {"text": " ".join(every[start : start + 10])}


def _nli(draw: _Draw, number: int) -> Row:
    """Who does what to whom, where: all the same, two of the four parts another, or all four.

    Both sentences are drawn alike whatever the label, so neither gives anything away alone.
    """
    label = number % 3
    premise = draw.world.draw(draw.rng, draw.part, told=("place",))
    hypothesis = draw.world.alter(draw.rng, premise, CHANGED[NLI[label]])
    return {"premise": said(draw.tell(premise)), "hypothesis": said(draw.tell(hypothesis)), "label": label}


def _paraphrase(draw: _Draw, number: int) -> Row:
    """The same meaning in any order, or one that differs in two of its four parts."""
    label = number % 2
    first = draw.world.draw(draw.rng, draw.part, told=("place",))
    second = draw.world.alter(draw.rng, first, CHANGED[PARAPHRASE[label]])
    return {"sentence1": said(draw.tell(first)), "sentence2": said(draw.tell(second)), "label": label}


def _qa(draw: _Draw, number: int) -> Row:
    """Three events, two of one subject; the question asks one of them for a part that it tells."""
    asked = draw.fact(1, 2)
    facts = [asked, draw.fact(1, 2, asked.subject), draw.fact(1, 2)]
    draw.rng.shuffle(facts)
    slot = draw.rng.choice([s for s in QA_SLOTS if getattr(asked, s) is not None])
    context = [word for fact in facts for word in _marked(draw.tell(fact), fact is asked)]
    at = [i for i, word in enumerate(context) if word.slot == f"!{slot}"]
    start = len(said(context[: at[0]])) + bool(at[0])
    return {
        "id": f"qa-{draw.part}-{number}",
        "title": f"passage {number}",
        "context": said(context),
        "question": said(draw.speaker.question(asked, slot)),
        "answers": {"text": [said(context[at[0] : at[-1] + 1])], "answer_start": [start]},
    }


def _marked(words: list[Word], mark: bool) -> list[Word]:
    return [Word(word.form, word.tag, "!" + word.slot) for word in words] if mark else words


def _tagging(draw: _Draw, number: int) -> Row:
    """One sentence with its parts of speech, as in UD."""
    words = draw.tell(draw.fact(1, 3))
    return {"tokens": [word.form for word in words], "tags": [UPOS.index(word.tag) for word in words]}


def _retrieval(draw: _Draw, number: int) -> Row:
    """A sentence and its source-language original; the pair's place in the split is its number."""
    while (fact := draw.fact(2, 3)) in draw.told:
        pass
    draw.told.add(fact)
    source = speaker(draw.world.seed, SOURCE)
    return {
        "source_sentence": said(draw.speaker.sentence(fact)),
        "target_sentence": said(source.sentence(fact)),
    }


KINDS: dict[str, Callable[[_Draw, int], Row]] = {
    "nli": _nli,
    "paraphrase": _paraphrase,
    "qa": _qa,
    "tagging": _tagging,
    "retrieval": _retrieval,
}
SPLITS = ("train", "selection", "validation", "test")
RAW = "text"


def _task(name: str, family: Family, roles: str, metric: str, columns: dict[str, str], **more: Any) -> Task:
    trained = family is not Family.RETRIEVAL

    def at(split: str) -> Split:
        return Split(path="world", config=f"{name}.{{code}}", split=split)

    return Task(
        name=f"world_{name}", family=family, roles=tuple(roles.split()), metric=metric, columns=columns,
        languages=tuple(code for code in EVERY if trained or code != SOURCE), by_name=tuple(OTHERS),
        train=at("train") if trained else None, selection=at("selection") if trained else None,
        dev=at("validation"), test=at("test"), parallel=True,
        source="generated by tasks/world.py in this package", licence="CC0-1.0", **more,
    )  # fmt: skip


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        _task("nli", Family.CLASSIFICATION, "intermediate target", "accuracy",
              {"text": "premise", "pair": "hypothesis", "label": "label"}, labels=NLI, chance=100 / 3),
        _task("qa", Family.SPAN_QA, "intermediate target", "squad",
              {"id": "id", "question": "question", "context": "context", "answers": "answers"}),
        _task("paraphrase", Family.CLASSIFICATION, "target", "accuracy",
              {"text": "sentence1", "pair": "sentence2", "label": "label"}, labels=PARAPHRASE, chance=50.0),
        _task("tagging", Family.TAGGING, "target", "token_accuracy", {"words": "tokens", "tags": "tags"},
              labels=UPOS),
        _task("retrieval", Family.RETRIEVAL, "target", "accuracy",
              {"query": "target_sentence", "document": "source_sentence"}, chance=100 / World().heldout),
    )
}  # fmt: skip
"""The world's tasks by name; `tasks/registry.py` lists them with the published ones."""
