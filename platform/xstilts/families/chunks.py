"""Spans of a tagged sentence, as the field counts them: two readings, and the statistics of a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence

Chunk = tuple[str, int, int]
"""Type, first word, last word."""


def bio_chunks(tags: Sequence[str]) -> set[Chunk]:
    """Chunks of one sentence as conlleval and seqeval's default mode read them (get_entities of 1.2.2).

    Lenient: an I- that continues nothing begins a chunk, as does a change of type; E- and S- are read too.
    """
    found: set[Chunk] = set()
    before, kind, begin = "O", "_", 0
    for place, tag in enumerate([*tags, "O"]):
        mark, own = tag[0], tag[1:].split("-", maxsplit=1)[-1] or "_"
        if _ends(before, mark, kind != own):
            found.add((kind, begin, place - 1))
        if _begins(before, mark, kind != own):
            begin = place
        before, kind = mark, own
    return found


def _ends(before: str, mark: str, changed: bool) -> bool:
    """Whether a chunk ends before this word."""
    if before in "ES" or (before in "BI" and mark in "BSO"):
        return True
    return changed and before not in "O."


def _begins(before: str, mark: str, changed: bool) -> bool:
    """Whether a chunk begins with this word."""
    if mark in "BS" or (before in "ESO" and mark in "EI"):
        return True
    return changed and mark not in "O."


def run_chunks(tags: Sequence[str]) -> set[Chunk]:
    """Chunks of one sentence of tags without prefixes: maximal runs of one tag.

    What seqeval (0.0.12, of XTREME's time) makes of UPOS tags, and so how XTREME scores POS: F1 over runs.
    It takes the S of SCONJ and SYM for "single", hence these two never merge with their like.
    """
    found: set[Chunk] = set()
    begin = 0
    for place in range(1, len(tags) + 1):
        if place == len(tags) or tags[place] != tags[begin] or tags[begin].startswith("S"):
            found.add((tags[begin], begin, place - 1))
            begin = place
    return found


READINGS: dict[str, Callable[[Sequence[str]], set[Chunk]]] = {"bio_f1": bio_chunks, "chunk_f1": run_chunks}
"""A task's metric -> how it reads chunks."""


def compare(metric: str, said: Sequence[str] | None, wanted: Sequence[str]) -> dict[str, int]:
    """correct and n (words) of one sentence, and for metrics over chunks tp, n_pred and n_gold.

    `said` is None where there is no prediction: nothing found, all wrong.
    """
    correct = 0 if said is None else sum(a == b for a, b in zip(said, wanted, strict=True))
    words = {"correct": correct, "n": len(wanted)}
    if metric not in READINGS:
        return words
    gold = READINGS[metric](wanted)
    found = set() if said is None else READINGS[metric](said)
    return {"tp": len(gold & found), "n_pred": len(found), "n_gold": len(gold), **words}
