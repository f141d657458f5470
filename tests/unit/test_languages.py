"""The table of languages, and how an unknown one is refused."""

from __future__ import annotations

import pytest

from xstilts.errors import UnknownName
from xstilts.tasks import languages
from xstilts.tasks.languages import Language


def test_the_fifty_languages_of_the_suites():
    real = [language for language in languages.all_languages() if language.family != "World"]
    assert len(real) == 50
    assert all(len(language.script) == 4 and language.name and language.family for language in real)
    assert languages.of("sw") == Language(
        code="sw", name="Swahili", family="Atlantic-Congo", script="Latn", cc100_gib=1.6
    )
    assert languages.of("zh").cc100_gib == pytest.approx(46.9 + 16.6)


def test_a_language_that_xlmr_never_saw_has_no_size():
    unseen = {language.code for language in languages.all_languages() if language.cc100_gib is None}
    assert {"ht", "qu", "wo", "yo"} <= unseen and "my" not in unseen


def test_languages_of_the_world_know_their_distance():
    source, far = languages.of("w0"), languages.of("w5")
    assert source.distance == 0 and far.distance is not None and far.distance > 0.5
    assert far.script == "Geor"


@pytest.mark.parametrize(
    ("typed", "said"), [("German", "'de'"), ("dee", "did you mean 'de'"), ("??", "xstilts tasks")]
)
def test_an_unknown_language_says_what_to_write(typed, said):
    with pytest.raises(UnknownName, match=said):
        languages.of(typed)


def test_a_code_is_one_language():
    german = languages.of("de")
    assert languages.register(german) is german
    with pytest.raises(ValueError, match="taken by German"):
        languages.register(german.model_copy(update={"name": "Other"}))
