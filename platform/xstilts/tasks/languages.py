"""The languages of XTREME and XTREME-R, and those that others register (the generated world's).

Name and top-level family: Glottolog. Script: the likely script of Unicode CLDR 45 (likelySubtags), ISO 15924.
Size: GiB of CC-100, on which XLM-R was trained (Conneau et al. 2020, Table 6; Ukrainian as corrected by its
authors; Chinese is simplified 46.9 + traditional 16.6). Empty: XLM-R's Table 6 does not list the language.
"""

from __future__ import annotations

from xstilts.errors import UnknownName
from xstilts.frozen import Frozen


class Language(Frozen):
    """One language; codes are those of the suites (ISO 639-1 but for the generated world's)."""

    code: str
    name: str
    family: str
    """Top-level family, "(isolate)" for none."""
    script: str
    """ISO 15924."""
    cc100_gib: float | None = None
    """Size of its pretraining text in XLM-R, in GiB; None where it is not listed."""
    distance: float | None = None
    """From the source, 0 to 1, where it is known by construction: in the generated world."""


_TABLE = """
af | Afrikaans | Indo-European | Latn | 1.3
ar | Standard Arabic | Afro-Asiatic | Arab | 28
az | North Azerbaijani | Turkic | Latn | 6.5
bg | Bulgarian | Indo-European | Cyrl | 57.5
bn | Bengali | Indo-European | Beng | 8.4
de | German | Indo-European | Latn | 66.6
el | Modern Greek | Indo-European | Grek | 46.9
en | English | Indo-European | Latn | 300.8
es | Spanish | Indo-European | Latn | 53.3
et | Estonian | Uralic | Latn | 6.1
eu | Basque | (isolate) | Latn | 2
fa | Western Farsi | Indo-European | Arab | 111.6
fi | Finnish | Uralic | Latn | 54.3
fr | French | Indo-European | Latn | 56.8
gu | Gujarati | Indo-European | Gujr | 1.9
he | Modern Hebrew | Afro-Asiatic | Hebr | 31.6
hi | Hindi | Indo-European | Deva | 20.2
ht | Haitian | Indo-European | Latn |
hu | Hungarian | Uralic | Latn | 58.4
id | Standard Indonesian | Austronesian | Latn | 148.3
it | Italian | Indo-European | Latn | 30.2
ja | Japanese | Japonic | Jpan | 69.3
jv | Javanese | Austronesian | Latn | 0.2
ka | Georgian | Kartvelian | Geor | 9.1
kk | Kazakh | Turkic | Cyrl | 6.4
ko | Korean | Koreanic | Kore | 54.2
lt | Lithuanian | Indo-European | Latn | 13.7
ml | Malayalam | Dravidian | Mlym | 7.6
mr | Marathi | Indo-European | Deva | 2.8
ms | Standard Malay | Austronesian | Latn | 8.5
my | Burmese | Sino-Tibetan | Mymr | 0.4
nl | Dutch | Indo-European | Latn | 29.3
pa | Eastern Panjabi | Indo-European | Guru | 0.8
pl | Polish | Indo-European | Latn | 44.6
pt | Portuguese | Indo-European | Latn | 49.1
qu | Cusco Quechua | Quechuan | Latn |
ro | Romanian | Indo-European | Latn | 61.4
ru | Russian | Indo-European | Cyrl | 278
sw | Swahili | Atlantic-Congo | Latn | 1.6
ta | Tamil | Dravidian | Taml | 12.2
te | Telugu | Dravidian | Telu | 4.7
th | Thai | Tai-Kadai | Thai | 71.7
tl | Tagalog | Austronesian | Latn | 3.1
tr | Turkish | Turkic | Latn | 20.9
uk | Ukrainian | Indo-European | Cyrl | 84.6
ur | Urdu | Indo-European | Arab | 5.7
vi | Vietnamese | Austroasiatic | Latn | 137.3
wo | Wolof | Atlantic-Congo | Latn |
yo | Yoruba | Atlantic-Congo | Latn |
zh | Mandarin Chinese | Sino-Tibetan | Hans | 63.5
"""

_languages: dict[str, Language] = {}


def register(language: Language) -> Language:
    """Adds `language` and returns it.

    Raises:
        ValueError: another language has this code.
    """
    if _languages.setdefault(language.code, language) != language:
        raise ValueError(f"the language code {language.code!r} is taken by {_languages[language.code].name}")
    return language


def of(code: str, where: tuple[str | int, ...] = ()) -> Language:
    """The language with this code; `where` is the field of the job file that named it.

    Raises:
        UnknownName: no such language; names the nearest.
    """
    if code not in _languages:
        named = {language.name.lower(): language.code for language in _languages.values()}
        if code.lower() in named:
            remedy = f"write its code, {named[code.lower()]!r}"
            raise UnknownName(f"no language named {code!r}", remedy, where)
        raise UnknownName.among("language", code, _languages, "xstilts tasks --languages", where)
    return _languages[code]


def all_languages() -> tuple[Language, ...]:
    """Every language, in the order of registration."""
    return tuple(_languages.values())


def _read(line: str) -> Language:
    code, name, family, script, size = (word.strip() for word in line.split("|"))
    return Language(
        code=code, name=name, family=family, script=script, cc100_gib=float(size) if size else None
    )


for _line in _TABLE.strip().splitlines():
    register(_read(_line))
