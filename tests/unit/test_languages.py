"""The table of languages, and how an unknown one is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from xstilts.errors import UnknownName
from xstilts.tasks import languages
from xstilts.tasks.languages import Language


def test_the_fifty_languages_of_the_suites():
    real = [language for language in languages.all_languages() if not language.family.startswith("World")]
    assert len(real) == 50
    assert all(len(language.script) == 4 and language.name and language.family for language in real)
    assert languages.of("sw") == Language(
        code="sw",
        name="Swahili",
        family="Atlantic-Congo",
        genus="Bantu",
        script="Latn",
        cc100_gib=1.6,
        wiki_articles=59645,
    )
    assert languages.of("zh").cc100_gib == pytest.approx(46.9 + 16.6)


WALS = {
    "Baltic": "lt", "Bantu": "sw", "Basque": "eu", "Burmese-Lolo": "my", "Chinese": "zh",
    "Creoles and Pidgins": "ht", "Defoid": "yo", "Dravidian": "ml ta te", "Finnic": "et fi",
    "Germanic": "af de en nl", "Greater Central Philippine": "tl", "Greek": "el",
    "Indic": "bn gu hi mr pa ur", "Iranian": "fa", "Japanese": "ja", "Javanese": "jv", "Kam-Tai": "th",
    "Kartvelian": "ka", "Korean": "ko", "Malayo-Sumbawan": "id ms", "Quechuan": "qu",
    "Romance": "es fr it pt ro", "Semitic": "ar he", "Slavic": "bg pl ru uk", "Turkic": "az kk tr",
    "Ugric": "hu", "Vietic": "vi", "Wolof": "wo",
}  # fmt: skip
"""Genera of cldf-datasets/wals@45af87c, cldf/genealogy.nex, read there under WALS's own codes."""


def test_genera_are_those_of_wals():
    expected = {code: genus for genus, codes in WALS.items() for code in codes.split()}
    real = [language for language in languages.all_languages() if not language.family.startswith("World")]
    assert {language.code: language.genus for language in real} == expected


def test_a_genus_lies_within_one_family():
    real = [language for language in languages.all_languages() if not language.family.startswith("World")]
    families = {genus: {each.family for each in real if each.genus == genus} for genus in WALS}
    assert all(len(found) == 1 for found in families.values())


def test_sizes_and_names_are_those_of_the_reference():
    table = Path(__file__).resolve().parents[3] / "shared" / "reference" / "language_resources.csv"
    if not table.is_file():
        pytest.skip("no reference tables beside the repository")
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert len(rows) == 50
    for row in rows:
        found = languages.of(row["code"])
        size = float(row["cc100_gib"]) if row["cc100_gib"] else None
        said = (found.name, found.family, found.cc100_gib, found.wiki_articles)
        assert said == (row["name"], row["family"], size, int(row["wiki_articles"]))


def test_what_is_not_known_of_a_language_is_no_part_of_its_identity():
    bare = Language(code="xx", name="X", family="World", script="Latn")
    assert "genus" not in bare.to_identity() and "wiki_articles" not in bare.to_identity()


def test_a_language_that_xlmr_never_saw_has_no_size():
    unseen = {language.code for language in languages.all_languages() if language.cc100_gib is None}
    assert {"ht", "qu", "wo", "yo"} <= unseen and "my" not in unseen


def test_languages_of_the_world_know_their_distance():
    source, far = languages.of("w0"), languages.of("w5")
    assert source.distance == 0 and far.distance is not None and far.distance > 0.5
    assert far.script == "Geor"


@pytest.mark.parametrize(
    ("typed", "said"),
    [("German", "'de'"), ("dee", "did you mean 'de'"), ("??", "`xstilts tasks --json` shows")],
)
def test_an_unknown_language_says_what_to_write(typed, said):
    with pytest.raises(UnknownName, match=said):
        languages.of(typed)


def test_a_code_is_one_language():
    german = languages.of("de")
    assert languages.register(german) is german
    with pytest.raises(ValueError, match="taken by German"):
        languages.register(german.model_copy(update={"name": "Other"}))
