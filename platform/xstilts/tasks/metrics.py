"""From column sums of item statistics to metrics: the only definitions, shared by `families` and `report`.

Pure arithmetic on numbers or on arrays of equal shape (one entry a bootstrap resample), and no import of
numpy or torch, so that reports need no torch and families no second definition.

Columns of items (one row an item), summed over items; "items" is their number:
    accuracy            correct (0 or 1)
    token_accuracy      correct, n (words)
    squad, f1           em, f1 (each 0..1, SQuAD's normalisation, best of the gold answers)
    mlqa                em, f1 (each 0..1, MLQA's normalisation of each language)
    bio_f1, chunk_f1    tp, n_pred, n_gold (chunks), and correct, n (words)
    set_f1              tp, n_pred, n_gold (pairs)
    map@20              ap (average precision of the first twenty, 0..1)
Every metric is in percent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

RANKS = 20
"""Ids of a ranking that are looked at."""

METRICS: dict[str, tuple[str, ...]] = {
    "accuracy": ("accuracy",),
    "token_accuracy": ("token_accuracy",),
    "squad": ("squad", "exact_match", "f1"),
    "mlqa": ("mlqa", "exact_match", "f1"),
    "f1": ("f1", "exact_match"),
    "bio_f1": ("bio_f1", "precision", "recall", "token_accuracy"),
    "chunk_f1": ("chunk_f1", "precision", "recall", "token_accuracy"),
    "set_f1": ("set_f1", "precision", "recall"),
    "map@20": ("map@20",),
}
"""A task's headline metric -> everything computed with it, the headline first.

squad and mlqa: mean of exact match and F1, as Phang et al. 2020 average them; f1: of span QA; bio_f1: micro
F1 of typed BIO chunks; chunk_f1: the same after seqeval's reading of tags without a prefix, as XTREME scores
UD POS; set_f1: of mined pairs (BUCC); map@20: with one right answer it is MRR@20."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "accuracy": ("correct",),
    "token_accuracy": ("correct", "n"),
    "squad": ("em", "f1"),
    "mlqa": ("em", "f1"),
    "f1": ("em", "f1"),
    "bio_f1": ("tp", "n_pred", "n_gold", "correct", "n"),
    "chunk_f1": ("tp", "n_pred", "n_gold", "correct", "n"),
    "set_f1": ("tp", "n_pred", "n_gold"),
    "map@20": ("ap",),
}
"""A task's headline metric -> the item statistics it needs."""


def from_sums(metric: str, sums: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics in percent, headline (named `metric`) first; a share of nothing is 0.

    `sums` maps columns (see the module) and "items" to numbers, or to arrays of one shape; results have
    the same shape.

    Raises:
        KeyError: an unknown metric, or a column it needs is not in `sums`.
    """
    if metric == "accuracy":
        return {"accuracy": _percent(sums["correct"], sums["items"])}
    if metric == "token_accuracy":
        return {"token_accuracy": _percent(sums["correct"], sums["n"])}
    if metric == "map@20":
        return {"map@20": _percent(sums["ap"], sums["items"])}
    if metric in ("squad", "mlqa", "f1"):
        exact, f1 = (_percent(sums[name], sums["items"]) for name in ("em", "f1"))
        found = {metric: (exact + f1) / 2, "exact_match": exact, "f1": f1}
        return {name: found[name] for name in METRICS[metric]}
    if metric in ("bio_f1", "chunk_f1", "set_f1"):
        found, predicted, gold = sums["tp"], sums["n_pred"], sums["n_gold"]
        shares = {
            metric: _percent(2 * found, predicted + gold),
            "precision": _percent(found, predicted),
            "recall": _percent(found, gold),
        }
        if metric == "set_f1":
            return shares
        return {**shares, "token_accuracy": _percent(sums["correct"], sums["n"])}
    raise KeyError(f"no metric named {metric!r}; there are {sorted(METRICS)}")


def average_precision(ranked: Sequence[str], right: Collection[str]) -> float:
    """Average precision of the first 20, 0..1, divided by the number of right ids or 20 (LAReQA's rule).

    An id counts where it is met first. With one right id it is the reciprocal rank, as Mewsli-X is scored; 0
    where nothing is right.
    """
    hits, total = 0, 0.0
    met: set[str] = set()
    for rank, one in enumerate(ranked[:RANKS], 1):
        if one in right and one not in met:
            hits += 1
            total += hits / rank
        met.add(one)
    return total / max(1, min(len(right), RANKS))


def _percent(part: Any, whole: Any) -> Any:
    """100 * part / whole, and 0 where `whole` is 0 (then `part` is 0 too); numbers and arrays alike.

    Adding (whole == 0), which is 0 or 1, replaces a zero divisor by one without a branch.
    """
    return 100.0 * part / (whole + (whole == 0))
