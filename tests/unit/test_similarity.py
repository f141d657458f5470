"""The similarity study: planted distances come back, none are made up, refusals, and published baselines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy
import pandas
import pytest
from scipy import stats
from study_frames import Frame

from xstilts.errors import UnknownName, XstiltsError
from xstilts.report.measures import averaged
from xstilts.report.studies import catalogue, language_distance, mixed, pages, regression, similarity
from xstilts.report.studies.answer import Answer, TooLittle
from xstilts.report.studies.gains import Gains, of_frame
from xstilts.tasks import suites

SPOKEN = "ar bg de el es fr hi ru sw th tr ur vi zh fi et id he ta te en"
TARGETS = {
    "xnli": SPOKEN,
    "panx": SPOKEN,
    "udpos": "ar bg de el es fr hi ru tr ur vi zh fi et id he ta te en",
}
FAR = language_distance.distances(SPOKEN.split())["geographic"]


def simulated(seed: int, lost: float = 0.0, rows: tuple[str, ...] = ("mnli",), **words: object) -> Gains:
    """`lost`: points lost for each standard deviation of geographic distance, in all rows alike."""
    frame = Frame(rows=rows, targets=TARGETS, **words).draw(seed)  # type: ignore[arg-type]
    frame["value"] -= lost * frame.language.map((FAR - FAR.mean()) / FAR.std())
    return of_frame(frame, "abc1234")


def degradation(gains: Gains) -> regression.Regression:
    rows = gains.scores[(gains.scores.intermediate == "none") & gains.scores.zero_shot]
    return regression.regress(rows.assign(y=rows.gap), "en", (), 0)


def test_nothing_is_found_where_nothing_is_planted() -> None:
    times = 25
    found = sum(degradation(simulated(seed, seeds=(1, 2))).p < similarity.ALPHA for seed in range(times))
    assert found <= stats.binom.ppf(0.999, times, similarity.ALPHA)


SUITE = suites.suite("xtreme").tasks


def kindred(
    seed: int, targets: str, family: float = 0.0, genus: float = 0.0, size: float = 0.0
) -> regression.Regression:
    """XTREME's languages; families and genera differ by so much (sd); `size` is lost for each sd of it."""
    random = numpy.random.default_rng(seed)
    spoken = {target: [code for code in SUITE[target] if code != "en"] for target in targets.split()}
    every = sorted({code for codes in spoken.values() for code in codes})
    kin: dict[str, float] = {}
    about = language_distance.distances(every)["size"]
    about = ((about - about.mean()) / about.std()).fillna(0.0)
    level = {
        code: kin.setdefault(f"family {language_distance.family(code)}", random.normal(0, family))
        + kin.setdefault(f"genus {language_distance.genus(code)}", random.normal(0, genus))
        + random.normal(0, 2)
        + size * about[code]
        for code in every
    }
    rows = [
        ("m", target, code, 1, 20 + level[code] + random.normal(0, 2))
        for target, codes in spoken.items()
        for code in codes
    ]
    table = pandas.DataFrame(rows, columns=["model", "target", "language", "seed", "y"])
    return regression.regress(table, "en", (), 0)


@pytest.mark.parametrize(
    ("targets", "effect"), [("panx", "family"), ("panx udpos xnli", "family"), ("panx udpos xnli", "genus")]
)
def test_what_families_lose_is_not_taken_for_distance(targets: str, effect: str) -> None:
    """With languages as the units 40 to 45 % of frames in which families differ were "predicts"."""
    times = 20
    found = [
        kindred(seed, targets, **{effect: {"family": 4.0, "genus": 3.0}[effect]}) for seed in range(times)
    ]
    assert all(one.families == 14 and one.df == 14 - 1 - 4 for one in found)
    assert all(one.fit and {"family", "genus"} <= set(one.fit.variances) for one in found)
    assert sum(one.p < similarity.ALPHA for one in found) <= stats.binom.ppf(0.999, times, similarity.ALPHA)


@pytest.mark.parametrize("targets", ["panx", "panx udpos xnli"])
def test_a_slope_is_found_beside_what_families_lose(targets: str) -> None:
    found = [kindred(seed, targets, family=2.0, size=-4.0) for seed in range(10)]
    assert all(one.p < similarity.ALPHA for one in found)
    assert sum(one.fit.slope("size", one.df)[1].holds(-4.0) for one in found if one.fit) >= 8


def frame_of(spoken: str) -> pandas.DataFrame:
    """Two tasks of `none` in these languages."""
    random = numpy.random.default_rng(1)
    rows = [("m", target, code, 1, random.normal()) for target in ("xnli", "panx") for code in spoken.split()]
    return pandas.DataFrame(rows, columns=["model", "target", "language", "seed", "y"])


@pytest.mark.parametrize(
    ("spoken", "families", "predictors", "df"),
    [
        ("de fr ru hi el bg es nl it pt fi et hu", 0, 2, 13 - 1 - 2),  # two families: languages are the units
        ("de fr ru hi el bg es nl it fi et tr kk az sw", 4, 2, 1),  # three, were there more families
        ("de fr ru hi el bg es nl it tr fi", 3, 1, 1),
        ("de fi tr zh th", 0, 1, 5 - 1 - 1),  # all of families of their own
        ("de eu ka ja fr es", 4, 1, 2),  # an isolate is a family
    ],
)
def test_families_are_the_units_where_there_are_three(
    spoken: str, families: int, predictors: int, df: int
) -> None:
    found = regression.regress(frame_of(spoken), "en", (), 0)
    assert (found.families, len(found.used), found.df) == (families, predictors, df)
    assert found.fit is not None and ("family" in found.fit.variances) == bool(families)
    if families == 3:
        assert "genetic: 3 families carry no more than 1 predictor" in " ".join(found.left_out)


def test_two_families_cannot_be_told_from_their_languages() -> None:
    spoken = "w0 w1 w2 w3 w4 w5 v1 v2 v3 v4"
    found = similarity.answer(Frame(rows=("world_nli",), targets={"world_paraphrase": spoken}).gains(1))
    assert any("two families cannot be told from their languages" in note for note in found.notes)
    assert found.primary is not None and "families" not in found.primary.n
    assert "least squares" in found.primary.name and "families" not in found.sentence


def test_a_run_that_lacks_a_language_does_not_shift_the_others() -> None:
    points = {"de": 0.0, "fr": 0.0, "sw": 30.0}
    rows = [("m", "xnli", code, seed, lost) for seed in (1, 2) for code, lost in points.items()]
    table = pandas.DataFrame(rows, columns=["model", "target", "language", "seed", "y"])
    lacking = table[(table.seed == 1) | (table.language != "sw")]
    for each in (lacking, lacking.assign(y=lacking.y + 10 * (lacking.seed == 2))):
        found = regression.average(each).set_index("language").y
        assert (found - found["de"]).to_dict() == pytest.approx(points, abs=1e-9)


def test_where_no_run_lacks_a_language_it_is_the_mean() -> None:
    scores = simulated(1, rows=("mnli", "ccg")).zero_shot
    table = scores.assign(y=scores.gain)
    plain = table.groupby(["target", "language"]).y.mean()
    found = regression.average(table).set_index(["target", "language"]).y
    assert numpy.allclose(found[plain.index], plain, atol=1e-9) and len(found) == len(plain)


def test_languages_that_the_regression_lacks_are_named() -> None:
    targets = {"xnli": "ar de ru sw th tr yo en", "panx": "ar de ru sw th tr fi", "tydiqa": "ar ru sw fi en"}
    gains = Frame(rows=("mnli",), targets=targets).gains(1)
    notes = " / ".join(similarity.answer(gains.only(target=["xnli", "panx"])).notes)
    assert "left out of the loss, no score in the source language beside it: panx (and so fi, of no" in notes
    assert "left out, a predictor is unknown: yo" in notes
    notes = " / ".join(similarity.answer(gains).notes)
    assert "beside it: panx /" in notes and "gain: " not in notes
    named = gains.scores.assign(language=gains.scores.language.replace("th", "xx"))
    notes = " / ".join(similarity.answer(dataclasses.replace(gains, scores=named)).notes)
    assert "left out, not in the registry of languages: xx" in notes


def layered(gains: Gains) -> pandas.DataFrame:
    """As `report.measures` gives them: three layers, debiased CKA 0.1 lower in each, th the lowest."""
    first = probed(gains, "", lambda row, code: 0.9 - 0.2 * (code == "th") + 0.05 * (row != "none"))
    parts = [
        first.assign(measure=measure, layer=layer, value=scale * (first.value - 0.1 * layer))
        for measure, scale in (("cka", 1.1), ("cka_debiased", 1.0), ("retrieval", 100.0))
        for layer in range(3)
    ]
    table = pandas.concat(parts, ignore_index=True)
    return table.assign(n=300, seed=pandas.NA, key="probe").astype({"layer": "Int64", "seed": "Int64"})


def test_alignment_is_described_layer_by_layer() -> None:
    gains = simulated(3, lost=12.0)
    table = layered(gains)
    found = similarity.answer(gains, measures=averaged(table), layers=table)
    (shown,) = [each for each in found.tables if each.name == "layers"]
    assert shown.data["layer"].tolist() == [0, 1, 2] and set(shown.data["languages"]) == {20}
    own = shown.data.set_index("layer").loc[1]
    assert own["debiased CKA: highest"] == pytest.approx(0.8)
    assert own["debiased CKA: lowest"] == pytest.approx(0.6)
    assert own["debiased CKA"] == pytest.approx(0.8 - 0.2 / 20)
    assert own["retrieval, percent: lowest"] == pytest.approx(60)
    assert not any("not debiased" in name for name in shown.data.columns)
    assert [figure.name for figure in found.figures] == ["scatter", "layers"]
    _is_whole(found)
    without = similarity.answer(gains, measures=averaged(table))
    assert without.tables[0].data.equals(found.tables[0].data), "slopes take the mean over layers"
    assert len(without.figures) == 1 and all(each.name != "layers" for each in without.tables)


def leaning(seed: int, tasks: int, tilt: float, slope: float = 0.0) -> regression.Regression:
    """Each task with a slope of its own on size and genetic distance (sd `tilt`), `slope` on average."""
    random = numpy.random.default_rng(seed)
    spoken = SPOKEN.split()[:-1]
    about = language_distance.distances(spoken)[["size", "genetic"]]
    about = (about - about.mean()) / about.std()
    own = random.normal(0, 2, len(spoken))
    parts = []
    for target in "xnli pawsx panx udpos xquad mlqa".split()[:tasks]:
        lean = about.to_numpy() @ random.normal(slope, tilt, 2)
        y = random.normal(20, 5) + own + lean + random.normal(0, 2, len(spoken))
        parts.append(
            pandas.DataFrame({"model": "m", "target": target, "language": spoken, "seed": 1, "y": y})
        )
    return regression.regress(pandas.concat(parts, ignore_index=True), "en", (), 0)


@pytest.mark.parametrize("tasks", [4, 6])
def test_slopes_that_differ_between_tasks_are_not_taken_for_one_of_all_tasks(tasks: int) -> None:
    """With tasks random in level only, 11 or 12 of 20 such frames were "predicts"."""
    times = 20
    found = [leaning(seed, tasks, 5.0) for seed in range(times)]
    assert all(one.of_other_tasks and one.df == tasks - 1 for one in found)
    assert sum(one.p < similarity.ALPHA for one in found) <= stats.binom.ppf(0.999, times, similarity.ALPHA)


def test_a_slope_that_tasks_share_is_found_over_other_tasks() -> None:
    found = [leaning(seed, 6, 1.0, slope=5.0) for seed in range(5)]
    assert all(one.p < similarity.ALPHA for one in found)
    without = regression.without_each(found[0])
    assert list(without["left out"]) == "xnli pawsx panx udpos xquad mlqa".split()
    assert without["size"].between(3, 7).all() and (without.languages == 20).all()


def test_few_tasks_are_spoken_of_alone() -> None:
    three = similarity.answer(simulated(3, lost=12.0))
    assert "in these 3 tasks" in three.sentence and any("of other tasks" in note for note in three.notes)
    without = next(table for table in three.tables if table.name == "without").data
    assert set(without["left out"]) == set(TARGETS) and without["geographic"].between(4, 20).all()
    one = similarity.answer(simulated(3, lost=12.0).only(target=["xnli"]))
    assert "in this one task" in one.sentence and one.primary is not None
    assert "task random" not in one.primary.name and "language" not in one.primary.name
    assert "family and genus random, REML: one task" in one.primary.name and one.primary.n["families"] == 10
    assert all(table.name != "without" for table in one.tables)


def test_a_planted_distance_comes_back() -> None:
    found = similarity.answer(simulated(3, lost=12.0))
    assert found.verdict == "predicts" and found.primary is not None and (found.primary.p or 1) < 0.01
    assert found.robustness is not None and (found.robustness.value or 0) > 0.3 and found.robustness.p is None
    slopes = found.tables[0].data.set_index(["response", "predictor"])
    far = slopes.loc[("degradation", "geographic")]
    assert far.low < 12.0 < far.high and far.low > 0
    gain = slopes.loc[("gain", "geographic")]
    assert gain.low < 0.0 < gain.high, "all rows lose alike, so that no gain is planted"
    assert found.primary.n["languages"] == 20 and "geographic" in found.sentence


def test_one_predictor_for_every_five_languages_in_the_stated_order() -> None:
    few = simulated(1, seeds=(1,)).only(language="ar bg de el es fr hi ru sw th tr".split() + ["en"])
    assert degradation(few).used == ["size", "genetic"] and degradation(few).df == 5 - 1 - 2
    assert degradation(simulated(1, seeds=(1,))).used == ["size", "genetic", "geographic", "script"]


def test_too_few_languages_are_refused() -> None:
    with pytest.raises(TooLittle, match="4 languages"):
        similarity.answer(simulated(1).only(language=["en", "de", "ru", "sw", "tr"]))
    with pytest.raises(TooLittle, match="row `none`"):
        similarity.answer(
            simulated(1).only(language=["de", "ru", "sw", "tr", "fi", "ar"]).only(target=["none"])
        )


def test_the_permutation_that_stands_in_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixed, "fit", lambda *_: None)
    found = similarity.answer(simulated(3, lost=12.0, seeds=(1,)))
    assert found.primary is not None and "permutation of families" in found.primary.name
    assert (found.primary.p or 1) < 0.02 and found.tables[0].data["points per sd"].isna().all()
    times = 20
    rejected = sum(degradation(simulated(seed, seeds=(1,))).p < 0.05 for seed in range(times))
    assert rejected <= stats.binom.ppf(0.999, times, 0.05)


def test_measures_are_needed_for_task_similarity_and_used_where_they_are_given() -> None:
    rows = ("mnli", "squad_v1", "hellaswag", "ccg", "csqa")
    gains = simulated(5, rows=rows)
    without = similarity.answer(gains)
    assert any("task similarity and alignment: refused" in note for note in without.notes)
    table = gains.zero_shot
    wanted = table.groupby(["model", "intermediate", "target", "language"], as_index=False).gain.mean()
    random = numpy.random.default_rng(0)
    alike = wanted.assign(measure="alignment", value=wanted.gain + random.normal(0, 0.1, len(wanted)))
    found = similarity.answer(gains, measures=alike.drop(columns="gain"))
    slope = found.tables[0].data.set_index("predictor").loc["alignment"]
    assert slope.response == "gain" and slope.low > 0
    two = alike[alike.intermediate.isin(["mnli", "ccg"])].drop(columns="gain")
    assert any(
        "alignment: refused, 2 of intermediate" in note
        for note in similarity.answer(gains, measures=two).notes
    )
    with pytest.raises(XstiltsError, match="lacks measure"):
        similarity.answer(gains, measures=alike.drop(columns="measure"))


def probed(
    gains: Gains, measure: str, value: Callable[[str, str], float], **keys: object
) -> pandas.DataFrame:
    """Measures of an encoder in each language, `value(row, language)`, unless `keys` say otherwise."""
    table = gains.scores[gains.scores.zero_shot].drop_duplicates(["intermediate", "language"])
    made = table[["model", "intermediate", "language"]].assign(target="", measure=measure, **keys)
    return made.assign(value=[value(*one) for one in zip(made.intermediate, made.language, strict=True)])


def test_vocabulary_overlap_is_the_last_predictor_of_languages() -> None:
    """Of one script, so that there is room for it among the four that twenty languages carry."""
    latin = "af de es et eu fi fr hu id it lt ms nl pl pt ro sw tl tr vi en"
    shared = dict(zip(latin.split(), numpy.random.default_rng(4).uniform(0.1, 0.6, 21), strict=True))
    frame = Frame(rows=("mnli",), targets={"panx": latin, "xnli": latin, "udpos": latin}).draw(2)
    frame["value"] += 60 * frame.language.map(shared).where(frame.language != "en", 0.6)
    gains = of_frame(frame, "abc1234")
    table = probed(gains, "vocabulary", lambda _, code: shared[code])
    found = similarity.answer(gains, measures=table)
    assert found.facts["predictors"] == ["size", "genetic", "geographic", "vocabulary"]
    slopes = found.tables[0].data.set_index(["response", "predictor"])
    assert slopes.index.is_unique, "told beside the other predictors, and not again by itself"
    own = slopes.loc[("degradation", "vocabulary")]
    spread = 60 * numpy.std([shared[code] for code in latin.split()[:-1]], ddof=1)
    assert own.high < 0 and own.low < -spread < own.high
    assert "vocabulary: Jaccard" in found.tables[0].note and "vocabulary" not in " ".join(found.notes)
    without = similarity.answer(gains)
    assert without.facts["predictors"] == ["size", "genetic", "geographic"]
    _is_whole(found)


def test_vocabulary_overlap_is_told_by_itself_where_there_is_no_room() -> None:
    gains = simulated(3, lost=12.0)
    found = similarity.answer(gains, measures=probed(gains, "vocabulary", lambda _, code: -FAR[code]))
    assert found.facts["predictors"] == ["size", "genetic", "geographic", "script"]
    assert "vocabulary: 20 languages carry no more than 4" in " ".join(found.notes)
    slopes = found.tables[0].data.set_index(["response", "predictor"])
    assert slopes.loc[("degradation", "vocabulary")].high < 0


def test_debiased_cka_is_preferred() -> None:
    gains = simulated(3, lost=12.0)
    plain = probed(gains, "cka", lambda _, code: FAR[code])
    both = pandas.concat([plain, probed(gains, "cka_debiased", lambda _, code: -FAR[code])])
    told = set(similarity.answer(gains, measures=both).tables[0].data.predictor)
    assert "cka_debiased" in told and "cka" not in told
    assert "cka" in set(similarity.answer(gains, measures=plain).tables[0].data.predictor)


def test_a_measure_is_judged_by_the_number_of_what_it_differs_by(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ("mnli", "squad_v1", "hellaswag", "ccg", "csqa")
    gains = simulated(5, rows=rows)
    asked: list[float] = []
    slope = mixed.Fit.slope

    def spy(fit: mixed.Fit, name: str, df: float) -> object:
        if name == "x":
            asked.append(df)
        return slope(fit, name, df)

    monkeypatch.setattr(mixed.Fit, "slope", spy)
    model, random = gains.scores.model.iloc[0], numpy.random.default_rng(1)

    def judged(measures: pandas.DataFrame) -> list[float]:
        asked.clear()
        similarity.answer(gains, measures=measures)
        return list(asked)

    of_language = {code: random.normal() for code in SPOKEN.split()}
    of_row = {row: random.normal() for row in ("none", *rows)}
    alignment = probed(gains, "a", lambda _, code: of_language[code])
    # Gain of five rows and degradation of `none`, both by twenty languages of ten families; a language less
    # in one target must not be taken for a difference between targets.
    assert judged(alignment[alignment.intermediate == "none"]) == [10 - 2]
    assert judged(alignment) == [10 - 2, 10 - 2]
    both = probed(gains, "b", lambda row, code: of_language[code] + of_row[row])
    assert judged(both[both.intermediate != "none"]) == [5 - 2]
    pairs = [(row, target) for row in rows for target in TARGETS]
    words = {"model": model, "language": "", "measure": "text_embedding"}
    tasks = [
        {**words, "intermediate": row, "target": target, "value": random.normal()} for row, target in pairs
    ]
    assert judged(pandas.DataFrame(tasks)) == [1], "three targets"
    tasks = [{**one, "value": of_row[str(one["intermediate"])]} for one in tasks]
    assert judged(pandas.DataFrame(tasks)) == [3], "five rows, whatever the target"


def test_what_would_measure_task_similarity_is_something_to_type() -> None:
    (note,) = [note for note in similarity.answer(simulated(1)).notes if note.startswith("task similarity")]
    assert "`probe: {}` in the job" in note and "columns" not in note


@pytest.fixture
def uriel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its distances as if they were installed: made up for real languages, none for those of a world."""

    def made(codes: tuple[str, ...], source: str, prefix: str) -> list[float]:
        known = [not code[-1].isdigit() for code in codes]
        return [float(7 * i % 11) if there else float("nan") for i, there in enumerate(known)]

    monkeypatch.setattr(language_distance, "_uriel", made)


@pytest.mark.usefixtures("uriel")
def test_published_baselines_take_uriels_distances_by_name(tmp_path: Path) -> None:
    found = pages.publish("similarity", [], tmp_path, ["extra=syntactic"]).answer
    assert found.facts["predictors"] == ["size", "genetic", "geographic", "script", "syntactic"]
    assert found.facts["options"] == {"extra": ["syntactic"]}
    (note,) = [note for note in found.notes if "URIEL" in note]
    assert "phonological, inventory, featural;" in note and "syntactic" not in note
    every = catalogue.published("similarity", ["extra=syntactic,phonological,inventory,featural"])
    assert not any("URIEL" in note for note in every.notes)
    with pytest.raises(XstiltsError, match="published tables have no option seed: set only extra"):
        catalogue.published("similarity", ["seed=1"])
    with pytest.raises(XstiltsError, match="no option by: leave --set out"):
        catalogue.published("hierarchy", ["by=script"])


@pytest.mark.usefixtures("uriel")
def test_a_distance_that_was_asked_for_and_is_unknown_is_said() -> None:
    spoken = "w0 w1 w2 w3 w4 w5 v1 v2 v3 v4"
    gains = Frame(rows=("world_nli",), targets={"world_paraphrase": spoken}).gains(1)
    told = " ".join(similarity.answer(gains, extra=("syntactic",)).notes)
    assert "left out of the predictors: syntactic: unknown for these languages" in told
    assert "unknown" not in " ".join(similarity.answer(gains).notes)


def test_published_baselines_are_answered() -> None:
    """Most of what they lose by script is PAN-X: over other tasks it is not shown."""
    found = similarity.published()
    assert found.verdict == "not shown" and found.primary is not None
    assert found.primary.n["families"] == 14 and "38 languages of 14 families" in found.sentence
    assert found.primary.n["languages"] == 38 and found.primary.n["tasks"] == 6 and found.facts["df"] == 5
    without = next(table for table in found.tables if table.name == "without").data.set_index("left out")
    assert without.script["panx"] == without.script.min() < 0.8 * without.script.drop("panx").mean()
    assert any(note.startswith("gain: refused") for note in found.notes)
    assert "Table 6" in found.caption and "one run each" in found.caption
    for said in ("8 models", "n 6 tasks", "selection", "commit", "collapsed runs"):
        assert said in found.caption
    assert "75% trained" not in found.caption and found.robustness is not None
    assert "too narrow" in found.robustness.text
    _is_whole(found)


def _is_whole(found: Answer) -> None:
    assert found.to_json() and all(len(table.data) for table in found.tables)
    assert all(figure.chart.to_dict() and figure.alt for figure in found.figures)


def test_distances_are_what_they_are_called() -> None:
    table = language_distance.distances("de es fi th en".split())
    assert table.genetic.tolist() == [0.0, 0.5, 1.0, 1.0, 0.0]
    assert table.script.tolist() == [0.0, 0.0, 0.0, 1.0, 0.0]
    assert table.geographic["en"] == 0.0 and table.geographic["th"] > table.geographic["de"]
    assert table["size"]["de"] == pytest.approx(numpy.log10(66.6))
    london, paris = {"latitude": 51.5074, "longitude": -0.1278}, {"latitude": 48.8566, "longitude": 2.3522}
    assert language_distance.great_circle(london, paris) == pytest.approx(344, abs=2)


def test_a_generated_world_has_its_own_distance() -> None:
    table = language_distance.distances(["w1", "w3", "w5"], "w0")
    assert table.distance.is_monotonic_increasing and table.drop(columns="distance").isna().all().all()
    used, lacking, _ = language_distance.chosen(table, 2)
    assert (used, lacking) == (["distance"], [])


def test_a_language_without_pretraining_text_is_left_out_and_named() -> None:
    table = language_distance.distances("de fr es it ru pl uk yo".split())
    assert language_distance.chosen(table, 4)[1] == ["yo"]
    most = language_distance.distances("de wo qu yo".split())
    assert "size" not in language_distance.chosen(most, 4)[0], (
        "better without it than without three languages"
    )


def test_uriel_is_read_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language_distance.importlib.util, "find_spec", lambda _: None)
    assert "syntactic" not in language_distance.distances(["de"])
    with pytest.raises(XstiltsError, match="pip install --no-deps lang2vec"):
        language_distance.distances(["de"], extra=["syntactic"])
    with pytest.raises(UnknownName, match="syntactic"):
        language_distance.distances(["de"], extra=["syntax"])
    with pytest.raises(UnknownName, match="choose among distance, size, .*, inventory, featural"):
        language_distance.distances(["de"], extra=["zz"])


def test_uriel_distances_are_read_without_running_its_code(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "lang2vec"  # type: ignore[operator]
    (folder / "data").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('this code is dead')")
    vectors = numpy.array([[1, 0, 1], [1, 0, 1], [0, 1, 1]], dtype="float32")[:, :, None]
    names = {"langs": ["eng", "deu", "est"], "feats": ["S_SVO", "S_SOV", "P_TONE"], "data": vectors}
    numpy.savez(folder / "data" / "feature_predictions.npz", **names)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = language_distance.distances(["de", "et", "fr"], extra=["syntactic", "featural"])
    assert found.syntactic.tolist()[:2] == [0.0, 1.0] and found.featural["et"] == pytest.approx(0.5)
    assert pandas.isna(found.syntactic["fr"])


def test_the_caption_counts_what_the_loss_is_measured_on() -> None:
    gains = Frame(targets={"xnli": "ar bg de el es fr en"}, rows=("mnli",)).gains(1)
    scores = gains.scores.assign(
        job=numpy.where(gains.scores.intermediate == "none", "alone", gains.scores.job)
    )
    found = similarity.answer(dataclasses.replace(gains, scores=scores))
    assert "loss: row none of alone, n 1 targets \u00d7 6 languages" in found.caption
    assert found.robustness is None or 0 not in found.robustness.n.values()
