"""The benchmarks whose overall scores are reported: which tasks, in which languages, in which groups.

Tasks, languages and groups are those of the benchmark's own evaluator (google-research/xtreme, evaluate.py),
in its order. It names no languages for LAReQA, which it never scored: they are XQuAD-R's. It lists XCOPA in
a second group as well, which no published table has.
"""

from __future__ import annotations

from xstilts.errors import UnknownName
from xstilts.frozen import Frozen


class Suite(Frozen):
    """One benchmark."""

    name: str
    tasks: dict[str, tuple[str, ...]]
    """Task -> the languages that its score is the mean over."""
    groups: dict[str, tuple[str, ...]]
    """Group -> its tasks; every task is in one."""
    also: tuple[str, ...] = ()
    """Variants of its tasks that are reported beside it and are in no average."""


def suite(name: str, where: tuple[str | int, ...] = ()) -> Suite:
    """The suite called `name`; `where` is the field of the job file that named it.

    Raises:
        UnknownName: no such suite; names the nearest.
    """
    if name not in _SUITES:
        raise UnknownName.among("suite", name, _SUITES, "xstilts evaluate --help", where)
    return _SUITES[name]


def all_suites() -> tuple[Suite, ...]:
    """Every suite."""
    return tuple(_SUITES.values())


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_XNLI = _words("ar bg de el en es fr hi ru sw th tr ur vi zh")
_PANX = _words(
    "ar he vi id jv ms tl eu ml ta te af nl en de el bn hi mr ur fa fr it pt es bg ru ja ka ko th sw yo my "
    "zh kk tr et fi hu"
)
_UDPOS = _words(
    "af ar bg de el en es et eu fa fi fr he hi hu id it ja kk ko mr nl pt ru ta te th tl tr ur vi yo zh"
)
_TATOEBA = _words(
    "ar he vi id jv tl eu ml ta te af nl de el bn hi mr ur fa fr it pt es bg ru ja ka ko th sw zh kk tr et "
    "fi hu"
)
_XQUAD = _words("en es de el ru tr ar vi th zh hi")
_MLQA = _words("en es de ar hi vi zh")
_TYDIQA = _words("en ar bn fi id ko ru sw te")

XTREME = Suite(
    name="xtreme",
    tasks={
        "pawsx": _words("de en es fr ja ko zh"),
        "xnli": _XNLI,
        "panx": _PANX,
        "udpos": _UDPOS,
        "bucc2018": _words("de fr ru zh"),
        "tatoeba": _TATOEBA,
        "xquad": _XQUAD,
        "mlqa": _MLQA,
        "tydiqa": _TYDIQA,
    },
    groups={
        "classification": ("pawsx", "xnli"),
        "tagging": ("udpos", "panx"),
        "qa": ("xquad", "mlqa", "tydiqa"),
        "retrieval": ("bucc2018", "tatoeba"),
    },
)

XTREME_R = Suite(
    name="xtreme-r",
    tasks={
        "xnli": _XNLI,
        "xcopa": _words("et ht id it qu sw ta th tr vi zh"),
        "panx": (*_PANX, *_words("qu pl uk az lt pa gu ro")),
        "udpos": (*_UDPOS, *_words("lt pl uk wo ro")),
        "xquad": (*_XQUAD, "ro"),
        "mlqa": _MLQA,
        "tydiqa": _TYDIQA,
        "tatoeba": (*_TATOEBA, *_words("az lt pl uk ro")),
        "mewslix": _words("ar de en es fa ja pl ro ta tr uk"),
        "lareqa": _words("ar de el en es hi ru th tr vi zh"),
    },
    groups={
        "classification": ("xnli", "xcopa"),
        "tagging": ("udpos", "panx"),
        "qa": ("xquad", "mlqa", "tydiqa"),
        "retrieval": ("tatoeba", "mewslix", "lareqa"),
    },
    also=("tatoeba_after_squad_v1",),
)

_SUITES = {each.name: each for each in (XTREME, XTREME_R)}
