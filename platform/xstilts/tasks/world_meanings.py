"""What is true in a generated world: entities, what they do where and when, and which meanings are held out.

A meaning has no words; `world_languages` puts it into any of the world's languages.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from random import Random

from xstilts.frozen import stream

KINDS = {"person": 5, "animal": 5, "food": 5, "tool": 5}
"""Common nouns of each kind; 61 content words in all. With 128, and one part of up to eight changed, two
layers of width 96 did not learn to compare sentences from 40,000 NLI pairs (55 % of three labels)."""
NAMES, PLACES, VERBS, TIMES, ADPOSITIONS = 10, 8, 10, 5, 4
ADJECTIVES = {"colour": 4, "size": 4}
SUBJECTS, OBJECTS, TRAITS, HAUNTS = 10, 12, 4, 5
"""How many nouns a verb takes on either side, adjectives a noun has, places where a verb happens: 1,200
possible events, told in three tenses, five or so places and with other modifiers."""
TENSES = ("past", "present", "future")
MODIFIERS = ("subject_adjective", "object_adjective", "number", "place", "time")
"""Parts that a meaning can lack; the others (subject, verb, object) are always there."""
HELD_OUT = ("selection", "validation", "test")
"""One tenth of all events each; the other seven tenths are for training."""


def concepts() -> dict[str, tuple[str, ...]]:
    """Every concept that has a word, by class; `Language.shared` holds within each class but names."""
    nouns = tuple(f"noun/{kind}/{i}" for kind, count in KINDS.items() for i in range(count))
    adjectives = tuple(f"adjective/{kind}/{i}" for kind, count in ADJECTIVES.items() for i in range(count))
    return {
        "noun": nouns,
        "place": tuple(f"place/{i}" for i in range(PLACES)),
        "verb": tuple(f"verb/{i}" for i in range(VERBS)),
        "adjective": adjectives,
        "time": tuple(f"time/{i}" for i in range(TIMES)),
        "adposition": tuple(f"adposition/{i}" for i in range(ADPOSITIONS)),
        "function": ("the", "will", "who", "what", "where", "when"),
        "suffix": ("past", "plural", "accusative", "citation"),
        "name": tuple(f"name/{i}" for i in range(NAMES)),
    }


@dataclass(frozen=True, slots=True)
class Fact:
    """One event: who does what to what, and, where told, which ones, how many, where and when."""

    subject: str
    verb: str
    object: str
    tense: str
    subject_adjective: str | None = None
    object_adjective: str | None = None
    number: int | None = None
    """Of the object; None is one."""
    place: str | None = None
    time: str | None = None

    def told(self) -> list[str]:
        """The modifiers that are there."""
        return [name for name in MODIFIERS if getattr(self, name) is not None]

    def with_only(self, kept: list[str]) -> Fact:
        """The same event, told with these modifiers only: it follows from the whole."""
        dropped: dict[str, None] = {name: None for name in MODIFIERS if name not in kept}
        return replace(self, **dropped)  # type: ignore[arg-type]


class Meanings:
    """The facts of one world: what each verb, noun and place goes with. All of it follows from the seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._parts: dict[tuple[str, str, str], str] = {}
        rng = Random(stream(seed, "world/facts"))
        every = concepts()
        actors = [n for n in every["noun"] if n.split("/")[1] in ("person", "animal")] + list(every["name"])
        things = list(every["noun"]) + list(every["name"])
        self.subjects = {verb: rng.sample(actors, SUBJECTS) for verb in every["verb"]}
        self.objects = {verb: rng.sample(things, OBJECTS) for verb in every["verb"]}
        self.haunts = {verb: rng.sample(every["place"], HAUNTS) for verb in every["verb"]}
        self.traits = {noun: rng.sample(every["adjective"], TRAITS) for noun in every["noun"]}
        self.adposition = {place: rng.choice(every["adposition"]) for place in every["place"]}
        self.verbs, self.times = list(every["verb"]), list(every["time"])

    def part(self, fact: Fact) -> str:
        """train, selection, validation or test: decided by subject, verb and object alone."""
        event = (fact.subject, fact.verb, fact.object)
        if event not in self._parts:
            tenth = stream(self.seed, "world/part/" + "/".join(event)) % 10
            self._parts[event] = HELD_OUT[tenth] if tenth < len(HELD_OUT) else "train"
        return self._parts[event]

    def options(self, fact: Fact, slot: str) -> list[str] | list[int]:
        """What may stand in a slot of this event, so that no filler gives a false sentence away."""
        if slot == "subject_adjective":
            return self.traits.get(fact.subject, [])
        if slot == "object_adjective":
            return self.traits.get(fact.object, [])
        if slot == "number":
            return list(range(2, 10)) if fact.object in self.traits else []
        fixed = {
            "subject": self.subjects[fact.verb],
            "object": self.objects[fact.verb],
            "verb": self.verbs,
            "place": self.haunts[fact.verb],
            "time": self.times,
        }
        return fixed[slot]

    def draw(
        self, rng: Random, part: str, modifiers: int = 0, *, told: tuple[str, ...] = (), subject: str = ""
    ) -> Fact:
        """A new meaning of this part, with the modifiers of `told`, and then others up to so many."""
        while True:
            verb = rng.choice(self.verbs)
            who = subject if subject in self.subjects[verb] else rng.choice(self.subjects[verb])
            fact = Fact(who, verb, rng.choice(self.objects[verb]), rng.choice(TENSES))
            if fact.object != fact.subject and self.part(fact) == part:
                break
        for slot in told:
            fact = self.fill(rng, fact, slot)
        for slot in rng.sample(MODIFIERS, len(MODIFIERS)):
            if getattr(fact, slot) is None and len(fact.told()) < modifiers and self.options(fact, slot):
                fact = self.fill(rng, fact, slot)
        return fact

    def fill(self, rng: Random, fact: Fact, slot: str) -> Fact:
        """The same meaning with another filler in one slot."""
        old = getattr(fact, slot)
        taken = {old, fact.subject, fact.object}
        fresh = [value for value in self.options(fact, slot) if value not in taken]
        return replace(fact, **{slot: rng.choice(fresh)})  # type: ignore[arg-type]

    def alter(self, rng: Random, fact: Fact, count: int) -> Fact:
        """A meaning that differs in so many of subject, verb, object and place; training stays training."""
        while True:
            other = fact
            for slot in rng.sample(("subject", "verb", "object", "place"), count):
                other = self.fill(rng, other, slot)
            if self.part(fact) != "train" or self.part(other) == "train":
                return other


@functools.lru_cache(maxsize=4)
def meanings(seed: int) -> Meanings:
    """The world of this seed."""
    return Meanings(seed)
