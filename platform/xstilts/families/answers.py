"""How an answer in words is compared with gold answers: SQuAD's rules, and MLQA's.

SQuAD v1.1's script (evaluate-v1.1.py) applies English rules to every language; XQuAD and TyDiQA-GoldP are
scored with it unchanged in XTREME. SQuAD v2.0's differs only where an answer may be empty. MLQA's script
(mlqa_evaluation_v1.py) has rules of each of its languages.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence

from xstilts.tasks.task import Task

Tokens = Callable[[str, str], list[str]]
"""(text, language) -> the words that are compared."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def squad_tokens(text: str, language: str) -> list[str]:
    """Lower case, no ASCII punctuation, no English articles, split at whitespace; in every language."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


_ARTICLES_OF = {
    "en": _ARTICLES,
    "es": re.compile(r"\b(un|una|unos|unas|el|la|los|las)\b"),
    "vi": re.compile(r"\b(của|là|cái|chiếc|những)\b"),
    "de": re.compile(r"\b(ein|eine|einen|einem|eines|einer|der|die|das|den|dem|des)\b"),
    # The script's own pattern has a first half that can never match; so the two letters go wherever they are,
    # inside words too, and leave a space.
    "ar": re.compile("ال"),
}
"""MLQA's articles; Hindi and Chinese have none, nor has any language that is not MLQA's."""

_IDEOGRAPH = re.compile(r"([\u4e00-\u9fa5])")


def mlqa_tokens(text: str, language: str) -> list[str]:
    """Lower case, no punctuation of any script, no articles of `language`, split at whitespace; in Chinese
    each ideograph (U+4E00 to U+9FA5) is a word of its own, whatever is between them is split as elsewhere."""
    kept = "".join(one for one in text.lower() if not _is_punctuation(one))
    if language in _ARTICLES_OF:
        kept = _ARTICLES_OF[language].sub(" ", kept)
    if language == "zh":
        kept = _IDEOGRAPH.sub(r" \1 ", kept)
    return kept.split()


def _is_punctuation(one: str) -> bool:
    """Unicode's categories P*, and the ASCII signs that Unicode counts as symbols ($ + < = > ^ ` | ~)."""
    return unicodedata.category(one).startswith("P") or one in string.punctuation


TOKENS: dict[str, Tokens] = {"squad": squad_tokens, "mlqa": mlqa_tokens}
"""A task's metric -> its words; a metric not named here is read as SQuAD's."""


def may_be_null(task: Task) -> bool:
    """Whether "no answer" is an answer."""
    return "unanswerable" in task.labels


def compare(task: Task, prediction: str | None, golds: Sequence[str], language: str) -> tuple[float, float]:
    """Exact match and F1, each 0..1 and each the best over `golds`; a missing prediction gets 0 and 0.

    No gold at all means that there is no answer, and "" is right.
    """
    if prediction is None:
        return 0.0, 0.0
    tokens = TOKENS.get(task.metric, squad_tokens)
    said = tokens(prediction, language)
    wanted = [tokens(gold, language) for gold in golds]
    if may_be_null(task):
        wanted = [words for words in wanted if words] or [[]]
    exact = max((float(said == words) for words in wanted), default=0.0)
    return exact, max((_f1(said, words, may_be_null(task)) for words in wanted), default=0.0)


def _f1(said: list[str], wanted: list[str], null: bool) -> float:
    """F1 of two bags of words. Of two empty ones: 1 by v2.0's rule, 0 by v1.1's."""
    if null and not (said and wanted):
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted)) if common else 0.0
