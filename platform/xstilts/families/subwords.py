"""Text to sub-word ids with a model's own special tokens around them, whatever its kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    """Ids and token types of each text (or pair), cut to `max_length`: the longer of a pair first."""
    if not texts:
        return []
    encoded = tokenizer(
        list(texts),
        None if pairs is None else list(pairs),
        truncation="longest_first",
        max_length=max_length,
        verbose=False,
    )
    return [(tuple(one.ids), tuple(one.type_ids)) for one in encoded.encodings]


def types_kept(types: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """What a feature keeps of token types: nothing where all are 0, as in XLM-R, so they cost no memory."""
    return {"types": tuple(types)} if any(any(kinds) for kinds in types) else {}
