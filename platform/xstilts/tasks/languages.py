"""The languages of XTREME and XTREME-R, and those that others register (the generated world's).

Name and top-level family: Glottolog. Genus: WALS Online (Dryer & Haspelmath), cldf-datasets/wals@45af87c,
cldf/genealogy.nex; WALS has its own families and puts Haitian among creoles. Script: the likely script of
Unicode CLDR 45 (likelySubtags), ISO 15924. Size: GiB of CC-100, on which XLM-R was trained (Conneau et al.
2020, Table 6; Ukrainian as corrected by its authors; Chinese is simplified 46.9 + traditional 16.6; empty
where the table does not list the language), and Wikipedia articles as mayhewsw/multilingual-data-stats has
collected them.
"""

from __future__ import annotations

from xstilts.errors import UnknownName
from xstilts.frozen import Frozen, late


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
    genus: str = late("")
    """WALS genus: a group of obvious relatives; "" where there is none."""
    wiki_articles: int | None = late(None)
    """Articles of its Wikipedia; None where they were not counted."""
    distance: float | None = None
    """From the source, 0 to 1, where it is known by construction: in the generated world."""


_TABLE = """
af | Afrikaans | Indo-European | Germanic | Latn | 1.3 | 94457
ar | Standard Arabic | Afro-Asiatic | Semitic | Arab | 28 | 1069379
az | North Azerbaijani | Turkic | Turkic | Latn | 6.5 | 173715
bg | Bulgarian | Indo-European | Slavic | Cyrl | 57.5 | 266159
bn | Bengali | Indo-European | Indic | Beng | 8.4 | 95617
de | German | Indo-European | Germanic | Latn | 66.6 | 2488262
el | Modern Greek | Indo-European | Greek | Grek | 46.9 | 182546
en | English | Indo-European | Germanic | Latn | 300.8 | 6171405
es | Spanish | Indo-European | Romance | Latn | 53.3 | 1631829
et | Estonian | Uralic | Finnic | Latn | 6.1 | 212406
eu | Basque | (isolate) | Basque | Latn | 2 | 365301
fa | Western Farsi | Indo-European | Iranian | Arab | 111.6 | 748384
fi | Finnish | Uralic | Finnic | Latn | 54.3 | 494487
fr | French | Indo-European | Romance | Latn | 56.8 | 2255469
gu | Gujarati | Indo-European | Indic | Gujr | 1.9 | 29133
he | Modern Hebrew | Afro-Asiatic | Semitic | Hebr | 31.6 | 277732
hi | Hindi | Indo-European | Indic | Deva | 20.2 | 142300
ht | Haitian | Indo-European | Creoles and Pidgins | Latn |  | 60033
hu | Hungarian | Uralic | Ugric | Latn | 58.4 | 476628
id | Standard Indonesian | Austronesian | Malayo-Sumbawan | Latn | 148.3 | 547825
it | Italian | Indo-European | Romance | Latn | 30.2 | 1640420
ja | Japanese | Japonic | Japanese | Jpan | 69.3 | 1232093
jv | Javanese | Austronesian | Javanese | Latn | 0.2 | 58343
ka | Georgian | Kartvelian | Kartvelian | Geor | 9.1 | 142966
kk | Kazakh | Turkic | Turkic | Cyrl | 6.4 | 227182
ko | Korean | Koreanic | Korean | Kore | 54.2 | 522723
lt | Lithuanian | Indo-European | Baltic | Latn | 13.7 | 201087
ml | Malayalam | Dravidian | Dravidian | Mlym | 7.6 | 70636
mr | Marathi | Indo-European | Indic | Deva | 2.8 | 63033
ms | Standard Malay | Austronesian | Malayo-Sumbawan | Latn | 8.5 | 343638
my | Burmese | Sino-Tibetan | Burmese-Lolo | Mymr | 0.4 | 47843
nl | Dutch | Indo-European | Germanic | Latn | 29.3 | 2034988
pa | Eastern Panjabi | Indo-European | Indic | Guru | 0.8 | 34799
pl | Polish | Indo-European | Slavic | Latn | 44.6 | 1430688
pt | Portuguese | Indo-European | Romance | Latn | 49.1 | 1043975
qu | Cusco Quechua | Quechuan | Quechuan | Latn |  | 22701
ro | Romanian | Indo-European | Romance | Latn | 61.4 | 412469
ru | Russian | Indo-European | Slavic | Cyrl | 278 | 1666830
sw | Swahili | Atlantic-Congo | Bantu | Latn | 1.6 | 59645
ta | Tamil | Dravidian | Dravidian | Taml | 12.2 | 131527
te | Telugu | Dravidian | Dravidian | Telu | 4.7 | 69706
th | Thai | Tai-Kadai | Kam-Tai | Thai | 71.7 | 139917
tl | Tagalog | Austronesian | Greater Central Philippine | Latn | 3.1 | 67581
tr | Turkish | Turkic | Turkic | Latn | 20.9 | 367896
uk | Ukrainian | Indo-European | Slavic | Cyrl | 84.6 | 1047938
ur | Urdu | Indo-European | Indic | Arab | 5.7 | 157572
vi | Vietnamese | Austroasiatic | Vietic | Latn | 137.3 | 1256994
wo | Wolof | Atlantic-Congo | Wolof | Latn |  | 1422
yo | Yoruba | Atlantic-Congo | Defoid | Latn |  | 32748
zh | Mandarin Chinese | Sino-Tibetan | Chinese | Hans | 63.5 | 1151113
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
        raise UnknownName.among("language", code, _languages, "xstilts tasks --json", where)
    return _languages[code]


def all_languages() -> tuple[Language, ...]:
    """Every language, in the order of registration."""
    return tuple(_languages.values())


def _read(line: str) -> Language:
    code, name, family, genus, script, size, articles = (word.strip() for word in line.split("|"))
    return Language(
        code=code,
        name=name,
        family=family,
        genus=genus,
        script=script,
        cc100_gib=float(size) if size else None,
        wiki_articles=int(articles),
    )


for _line in _TABLE.strip().splitlines():
    register(_read(_line))
