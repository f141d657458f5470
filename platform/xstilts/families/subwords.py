"""Text to sub-word ids with a model's own special tokens around them, whatever its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

TOGETHER = 1000
"""Texts that a tokenizer is given at once: it holds all that it knows of each until the last is done."""

Marks = tuple[tuple[int, int], ...]
"""Special tokens as (id, token type)."""


@dataclass(frozen=True, slots=True)
class Frame:
    """The special tokens around one sequence or a pair, learnt from the tokenizer's own output.

    Learnt, because tokenizers of transformers 5 have no `build_inputs_with_special_tokens` any more, and
    windows and split sentences are made of ids, which the tokenizer's call does not take.
    """

    before: Marks
    between: Marks
    after: Marks
    second_type: int

    @classmethod
    def of(cls, tokenizer: Any, pair: bool) -> Frame:
        """The frame that `tokenizer` (a fast one) puts around one text, or around two."""
        probe = (tokenizer("a", "a") if pair else tokenizer("a")).encodings[0]
        sides = probe.sequence_ids
        marks = tuple(zip(probe.ids, probe.type_ids, strict=True))
        first = [place for place, side in enumerate(sides) if side == 0]
        last = [place for place, side in enumerate(sides) if side == (1 if pair else 0)]
        return cls(
            before=marks[: first[0]],
            between=marks[first[-1] + 1 : last[0]] if pair else (),
            after=marks[last[-1] + 1 :],
            second_type=marks[last[0]][1],
        )

    @property
    def size(self) -> int:
        """Special tokens in all."""
        return len(self.before) + len(self.between) + len(self.after)

    def around(
        self, first: Sequence[int], second: Sequence[int] = ()
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids and token types of the whole sequence."""
        marks = [
            *self.before,
            *((one, 0) for one in first),
            *self.between,
            *((one, self.second_type) for one in second),
            *self.after,
        ]
        return tuple(one for one, _ in marks), tuple(kind for _, kind in marks)


def encode_texts(
    tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Ids and token types of each text (or pair), cut to `max_length`: the longer of a pair first.

    Cut here and not by the tokenizer, which keeps what it cuts off in every combination of two parts: 8,192
    pairs of sentence and paragraph at 47 sub-words took more than 20 GB.
    """
    if not texts:
        return []
    frame = Frame.of(tokenizer, pair=pairs is not None)
    room = max(0, max_length - frame.size)
    firsts = _distinct(tokenizer, texts)
    if pairs is None:
        return [frame.around(firsts[text][:room]) for text in texts]
    seconds = _distinct(tokenizer, pairs)
    found = []
    for text, other in zip(texts, pairs, strict=True):
        first, second = firsts[text], seconds[other]
        one, two = _longest_first(len(first), len(second), room)
        found.append(frame.around(first[:one], second[:two]))
    return found


def _distinct(tokenizer: Any, texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Each distinct text to its ids, without special tokens: a passage of SQuAD serves five questions."""
    every = list(dict.fromkeys(texts))
    found: dict[str, tuple[int, ...]] = {}
    for begin in range(0, len(every), TOGETHER):
        some = every[begin : begin + TOGETHER]
        encoded = tokenizer(some, add_special_tokens=False, verbose=False).encodings
        found.update((text, tuple(one.ids)) for text, one in zip(some, encoded, strict=True))
    return found


def _longest_first(one: int, two: int, room: int) -> tuple[int, int]:
    """How much of two sequences is kept, so that together they fill `room`: as tokenizers' "longest_first",
    which cuts the longer alone while it stays the longer, and else leaves both a half."""
    if one + two <= room:
        return one, two
    short, long = min(one, two), max(one, two)
    long = max(short, room - short) if short <= room else short
    if short + long > room:
        short, long = room // 2, room - room // 2
    return (short, long) if one <= two else (long, short)


def completed(tokenizer: Any, pad_id: int | None) -> Any:
    """`tokenizer` itself, with the padding and the unknown sub-word that batches and tagging take from it.

    Byte-level tokenizers (EuroBERT's) know every string and have no unknown sub-word: the mask stands for a
    word that gives nothing (""). `pad_id` is the encoder's own. Texts over the limit lose their end whatever
    was saved: a tokenizer that cuts at the left would lose the question and keep the passage.
    """
    if tokenizer.pad_token_id is None:
        known = None if pad_id is None else tokenizer.convert_ids_to_tokens(pad_id)
        tokenizer.pad_token = known or tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    if tokenizer.unk_token_id is None:
        tokenizer.unk_token = tokenizer.mask_token or tokenizer.pad_token
    tokenizer.truncation_side = "right"
    return tokenizer


def words(tokenizer: Any, sentences: Sequence[Sequence[str]]) -> list[list[tuple[int, ...]]]:
    """Sub-words of every word of every sentence, read as in running text.

    The unknown one for a word that gives none ("", a control character), so that each word has a first
    sub-word. Tokenizers that mark a space only where they see one (byte-level ones; Gemma's, which is
    mmBERT's) are given it before all words but the first: without, "the cat" would be read as "thecat".
    """
    if not sentences:
        return []
    spaced = _needs_space(tokenizer)
    texts = [
        [f" {word}" if spaced and place and word else word for place, word in enumerate(sentence)]
        for sentence in sentences
    ]
    encoded = tokenizer(texts, is_split_into_words=True, add_special_tokens=False, verbose=False)
    found = []
    for sentence, one in zip(sentences, encoded.encodings, strict=True):
        parts: list[list[int]] = [[] for _ in sentence]
        for place, word in zip(one.ids, one.word_ids, strict=True):
            parts[word].append(place)
        found.append([tuple(part) or (tokenizer.unk_token_id,) for part in parts])
    return found


def _needs_space(tokenizer: Any) -> bool:
    """Whether two words given apart are not read as the same two in one text."""
    apart = tokenizer(["a", "a"], is_split_into_words=True, add_special_tokens=False)
    return bool(apart.input_ids != tokenizer("a a", add_special_tokens=False).input_ids)


def types_kept(types: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """What a feature keeps of token types: nothing where all are 0, as in XLM-R, so they cost no memory."""
    return {"types": tuple(types)} if any(any(kinds) for kinds in types) else {}
