"""How far languages are from the one that was trained on, and how much text of them a model has seen.

    size          log10 of the model's pretraining text, in published/tables/language_resources.csv: GiB of
                  CC-100 for XLM-R (Conneau et al. 2020), mC4 tokens for mT5, Wikipedia bytes for mBERT, XLM
    genetic       0 same genus, 0.5 same top-level family, 1 neither (WALS genera, Glottolog families)
    geographic    great circle between Glottolog's points, as a share of half the Earth's circumference
    script        1 where the script is another (Unicode CLDR)
    distance      of the generated world, by construction
    syntactic phonological inventory featural    URIEL, by choice: see below

URIEL (Littell et al. 2017) was published with lang2vec, whose code is dead: the wheel on PyPI (1.1.2, 2019)
imports `pkg_resources`, which setuptools no longer has, and never held the distances that later versions of
the repository compute. Its feature vectors are plain numpy arrays, though, so that they are read here without
running that code: `pip install --no-deps lang2vec==1.1.2` is all it takes, and nothing is fetched later. It
is CC BY-SA 4.0, so the numbers are not shipped with this package; and as a test that was stated beforehand
must not depend on what is installed, they are predictors only where a study is asked for them by name.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import pandas

from xstilts.errors import UnknownName, XstiltsError
from xstilts.report.published.published import table
from xstilts.tasks import languages

PREDICTORS = ("distance", "size", "genetic", "geographic", "script")
"""In the order in which they are taken where there are too few languages for all of them."""

URIEL = {"syntactic": "S_", "phonological": "P_", "inventory": "INV_", "featural": ""}
"""Distance -> how the names of its features begin in URIEL."""

CORPORA = {"XLM-R": "cc100_gib", "mT5": "mc4_tokens_b", "Wikipedia": "wiki_uncompressed_bytes"}
"""Pretraining corpus -> the column of language_resources.csv that has its sizes."""

ISOLATE = "(isolate)"
"""The family of languages that have none."""
FAMILIES = 3
"""The least for a random effect: two cannot be told from the languages they have."""

HALF_WAY_ROUND = 20_015.0
"""Kilometres; half of the circumference of a sphere with the Earth's mean radius, 6371 km."""

MISSING = 0.2
"""A predictor that more than this share of the languages lack is left out; else those languages are."""


def corpus_of(model: str) -> str:
    """What `model` was pretrained on, one of CORPORA, by its name; XLM-R's for what is not known."""
    name = model.lower()
    if "mt5" in name:
        return "mT5"
    plain = name.rpartition("/")[2]
    wikipedia = "mbert" in name or "bert-base-multilingual" in name or plain == "xlm"
    return "Wikipedia" if wikipedia else "XLM-R"


def distances(
    codes: Collection[str], source: str = "en", corpus: str = "XLM-R", extra: Sequence[str] = ()
) -> pandas.DataFrame:
    """One row a language (the index), one column a predictor of PREDICTORS and `extra`; NaN where unknown.

    Raises:
        UnknownName: a language, or a predictor of `extra`, is not known.
        XstiltsError: `extra` asks for URIEL, whose data are not installed.
    """
    known = (*PREDICTORS, *URIEL)
    for name in extra:
        if name not in known:
            raise UnknownName.among("language distance", name, known)
    made = pandas.DataFrame([_plain(code, source, corpus) for code in codes], index=list(codes))
    for name in extra:
        if name in URIEL:
            made[name] = _uriel(tuple(codes), source, URIEL[name])
    return made.astype("float64")


def chosen(
    table: pandas.DataFrame, most: int, asked: Sequence[str] = (), whose: str = ""
) -> tuple[list[str], list[str], list[str]]:
    """Of a table of predictors: (those that can be used, at most `most`), (languages that lack one of them),
    (what was left out, in words). Predictors keep the order of the columns; one that no language has is
    left out without a word unless it is `asked` for by name. `whose`: what carries `most`, "9 families"."""
    used: list[str] = []
    notes: list[str] = []
    for name in table.columns:
        values = table[name]
        if values.isna().mean() > MISSING:
            if values.notna().any():
                notes.append(f"{name}: unknown for {int(values.isna().sum())} of {len(values)} languages")
            elif name in asked:
                notes.append(f"{name}: unknown for these languages")
        elif values.nunique(dropna=True) < 2:
            notes.append(f"{name}: the same for all languages")
        elif len(used) == most:
            carried = f"{most} predictor{'s' if most > 1 else ''}"
            notes.append(f"{name}: {whose or f'{len(table)} languages'} carry no more than {carried}")
        else:
            used.append(name)
    lacking = [str(code) for code in table.index[table[used].isna().any(axis=1)]] if used else []
    return used, lacking, notes


def family(code: str) -> str:
    """The top-level family of a language; an isolate, or one that is not registered, is its own."""
    try:
        found = languages.of(code).family
    except UnknownName:
        return code
    return code if found == ISOLATE else found


def genus(code: str) -> str:
    """The genus of a language, a group of obvious relatives; one that has none is its own."""
    try:
        return languages.of(code).genus or code
    except UnknownName:
        return code


def families(codes: Collection[str]) -> int:
    """How many families these languages are of, where a random effect can hold them: three or more, and fewer
    than languages; else 0."""
    found = len({family(code) for code in codes})
    return found if FAMILIES <= found < len(codes) else 0


def related(codes: Collection[str]) -> list[str]:
    """The groups of related languages that are random effects: "family", and "genus" where there are more of
    these than families and fewer than languages; nothing where families are none."""
    count, genera = families(codes), len({genus(code) for code in codes})
    return ["family", *(["genus"] if count < genera < len(codes) else [])] if count else []


def _plain(code: str, source: str, corpus: str) -> dict[str, float | None]:
    one, other = languages.of(code), languages.of(source)
    here, there = _resources().get(code), _resources().get(source)
    size = here[CORPORA[corpus]] if here else None
    if here is None or there is None:  # the generated world: nothing but its own distance is a fact of it
        by_construction = one.distance if one.distance is not None else (0.0 if code == source else None)
        return {"distance": by_construction, **dict.fromkeys(PREDICTORS[1:])}
    same_genus = bool(one.genus) and one.genus == other.genus
    return {
        "distance": None,
        "size": float(numpy.log10(size)) if size and size > 0 else None,
        "genetic": 0.0 if same_genus else 0.5 if family(code) == family(source) else 1.0,
        "geographic": great_circle(here, there) / HALF_WAY_ROUND,
        "script": float(one.script != other.script),
    }


def great_circle(here: Mapping[str, Any], there: Mapping[str, Any]) -> float:
    """Kilometres between two points with `latitude` and `longitude` in degrees (haversine)."""
    ends = ((place["latitude"], place["longitude"]) for place in (here, there))
    (south, west), (north, east) = (numpy.radians(end) for end in ends)
    half = numpy.sin((north - south) / 2) ** 2
    half += numpy.cos(south) * numpy.cos(north) * numpy.sin((east - west) / 2) ** 2
    return float(2 * 6371.0 * numpy.arcsin(numpy.sqrt(half)))


def _resources() -> dict[str, dict[str, Any]]:
    return {row["code"]: row for row in table("language_resources").to_dict("records")}


def _uriel(codes: Sequence[str], source: str, prefix: str) -> list[float]:
    """1 - cosine of the vectors that URIEL completes from near languages (`knn`)."""
    spec = importlib.util.find_spec("lang2vec")
    places = list(spec.submodule_search_locations or ()) if spec else []
    file = Path(places[0]) / "data" / "feature_predictions.npz" if places else None
    if file is None or not file.is_file():
        raise XstiltsError("URIEL's features are not installed", "pip install --no-deps lang2vec==1.1.2")
    with numpy.load(file, allow_pickle=False) as stored:
        places_of = {str(code): i for i, code in enumerate(stored["langs"])}
        wanted = numpy.array([str(name).startswith(prefix) for name in stored["feats"]])
        vectors = stored["data"][:, wanted, 0]
    found = _resources()
    rows = {code: _vector(found.get(code), places_of) for code in (*codes, source)}
    centre = rows[source]
    if centre is None:
        return [float("nan")] * len(codes)
    return [_cosine(vectors, rows[code], centre) for code in codes]


def _vector(resources: Mapping[str, Any] | None, places: Mapping[str, int]) -> int | None:
    """Where URIEL has a language: by ISO 639-3, or by the macrolanguage that it lists instead."""
    if resources is None:
        return None
    code = str(resources["iso639_3"])
    return places.get(code, places.get(_MACROLANGUAGES.get(code, "")))


_MACROLANGUAGES = {"ekk": "est", "swh": "swa", "zsm": "msa", "pes": "fas", "azj": "aze", "arb": "ara"}
"""ISO 639-3 codes of languages -> of the macrolanguages they belong to."""


def _cosine(vectors: numpy.ndarray[Any, Any], one: int | None, other: int) -> float:
    if one is None:
        return float("nan")
    a, b = vectors[one].astype("float64"), vectors[other].astype("float64")
    return float(1.0 - a @ b / numpy.sqrt((a @ a) * (b @ b)))
