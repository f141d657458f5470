"""English text to sentences by rule: what answers are looked for in when SQuAD becomes question and sentence.

A sentence ends at . ? or !, and what closes quotes or brackets after it, where white space and a capital, a
digit or an opening quote or bracket follow. It goes on after an initial, a title or another of the
abbreviations below, and after "No." and the like before a digit.
"""

from __future__ import annotations

import re

END = re.compile(r"""[.?!]+['"\u2019\u201d)\]]*(?:\[[^\[\]]{1,20}\])*\s+(?=['"\u2018\u201c(\[]*[A-Z0-9])""")
"""Possible ends, with white space after them; "[3]" and "[note 1]" after the stop belong to its sentence."""

TITLES = frozenset(
    """
    Mr Mrs Ms Dr Prof Fr Rev Msgr St Sta Mt Ft Lt Gen Col Maj Adm Capt Sgt Rep Gov Sen Pres Hon Jan Feb Aug
    Sept Oct Nov Dec e.g i.e vs cf approx ca c b d fl et al Inc Bros
    """.split()
)
"""Words before a stop that ends no sentence."""

NUMBERED = frozenset("No no Nos Art art Vol vol p pp ch Sec sec Op op Fig fig".split())
"""Words before a stop that ends no sentence where a digit follows."""

INITIAL = re.compile(r"(?:^|[\s(.])[A-Z]$")


def split(text: str) -> list[tuple[int, int]]:
    """Begin and end of each sentence, in code points, without the white space between them.

    Every other character of the text is in exactly one sentence.
    """
    found = []
    begin = len(text) - len(text.lstrip())
    for end in END.finditer(text, begin):
        if not _goes_on(text, begin, end):
            found.append((begin, end.start() + len(end.group().rstrip())))
            begin = end.end()
    last = len(text.rstrip())
    return [*found, (begin, last)] if begin < last else found


def _goes_on(text: str, begin: int, end: re.Match[str]) -> bool:
    """Whether the stop at `end` belongs to an abbreviation of the sentence begun at `begin`."""
    if text[end.start()] != "." or end.group().startswith(".."):
        return False
    before = text[begin : end.start()]
    word = before.rsplit(None, 1)[-1].lstrip("(['\"\u201c\u2018") if before.strip() else ""
    if INITIAL.search(before) or word in TITLES:
        return True
    return word in NUMBERED and text[end.end()].isdigit()
