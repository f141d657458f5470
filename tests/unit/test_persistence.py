"""Non-inferiority of new strata: planted losses are found, the level is kept at the margin itself."""

from __future__ import annotations

import dataclasses
import math

import pytest
from scipy import stats
from study_frames import Frame

from xstilts.report.studies import persistence, strata
from xstilts.report.studies.answer import REFUSED, TooLittle
from xstilts.report.studies.catalogue import options, run
from xstilts.report.studies.crossed import Estimate, redraw

TASKS = {
    "pawsx": "de es fr ja ko zh",
    "xnli": "ar bg de el es fr hi ru sw th tr ur vi zh",
    "panx": "ar he vi id jv ms tl eu ml ta te af nl de qu pl uk az lt pa gu ro",
    "tatoeba": "ar he vi id tl eu ml ta te af nl de el bn hi az lt pl uk ro",
    "xcopa": "et ht id it qu sw ta th tr vi zh",
    "lareqa": "ar de el es hi ru th tr vi zh",
}
NEW = "qu pl uk az lt pa gu ro"
GAIN = {"mnli": 2.0, "squad_v1": 2.0}
PLAIN = Frame(rows=("mnli", "squad_v1"), targets=TASKS, main=GAIN)
FRAMES = 200
MOST = int(stats.binom.ppf(0.999, FRAMES, 0.025))
"""False alarms of a one-sided test that keeps 2.5 %, but for once in a thousand."""


def lower(languages: float = 0.0, tasks: float = 0.0, **words: object) -> Frame:
    """Gains that are so much lower in new languages of shared tasks, and on new tasks."""
    places = {(task, code): -languages for task in ("panx", "tatoeba") for code in NEW.split()}
    places |= {(task, "*"): -tasks for task in ("xcopa", "lareqa")}
    return dataclasses.replace(PLAIN, by_place=places, **words)  # type: ignore[arg-type]


def contrasts(frame: Frame, seed: int, margin: float = 1.0) -> tuple[strata.Contrast, ...]:
    table = frame.gains(seed).zero_shot
    table = table.assign(stratum=strata.by_suites(table, "xtreme", "xtreme-r").to_numpy())
    cells = strata.cells_of(table, frame.rows)
    again = redraw(cells.values, strata.each(cells), cells.fresh.astype(int), seed, draws=300)
    return strata.contrasts(cells, again, margin)


NOISE = {
    "mixed": {},
    "languages": {"language": 1.5, "place": 0.8, "run": 0.1, "seed": 0.1},
    "seeds": {"run": 1.2, "seed": 0.8, "language": 0.1, "place": 0.1},
}


@pytest.mark.parametrize("noise", NOISE)
def test_the_level_is_kept_at_the_margin(noise: str) -> None:
    """Both new strata are lower by just the margin: each bound, and so the answer, errs in 2.5 % at most."""
    frame = lower(1.0, 1.0, **NOISE[noise])
    found = [contrasts(frame, seed) for seed in range(FRAMES)]
    for which in (0, 1):
        assert sum(pair[which].bound() > -1.0 for pair in found) <= MOST
    assert sum(all(one.bound() > -1.0 for one in pair) for pair in found) <= MOST


def test_equal_gains_persist_and_lost_ones_do_not() -> None:
    calm = {"language": 0.3, "run": 0.2, "seed": 0.2}
    kept = [persistence.answer(lower(**calm).gains(seed), draws=300).verdict for seed in range(8)]
    lost = [persistence.answer(lower(tasks=4.0, **calm).gains(seed), draws=300).verdict for seed in range(8)]
    assert kept.count(persistence.PERSISTS) >= 7 and lost.count(persistence.LESS) >= 7
    few = persistence.answer(lower(languages=4.0, **calm).gains(1), draws=300)
    assert few.verdict == persistence.LESS and "does not persist" in few.sentence


def test_no_gain_persists_nowhere() -> None:
    frame = dataclasses.replace(PLAIN, main={}, language=0.2, run=0.1, seed=0.1)
    said = [persistence.answer(frame.gains(seed), margin=2.0, draws=300) for seed in range(5)]
    assert {answer.verdict for answer in said} == {persistence.NOTHING}
    lost = lower(languages=8.0, tasks=8.0, main={}, language=0.2, run=0.1, seed=0.1)
    answer = persistence.answer(lost.gains(1), draws=300)
    assert answer.verdict == persistence.NOTHING and "holds zero" in answer.sentence


def test_a_margin_as_large_as_the_gain_shows_nothing() -> None:
    """All of a gain of 0.6 is lost, within a margin of 1; with gains of 3, or 0.6 everywhere, it persists."""
    calm = {"language": 0.1, "place": 0.05, "run": 0.05, "seed": 0.05, "noise": 0.1}
    small = {"mnli": 0.6, "squad_v1": 0.6}
    said = [
        persistence.answer(frame.gains(2), draws=300)
        for frame in (
            lower(0.6, 0.6, main=small, **calm),
            lower(main=small, **calm),
            lower(0.6, 0.6, main={"mnli": 3.0, "squad_v1": 3.0}, **calm),
        )
    ]
    assert [one.verdict for one in said] == [persistence.SMALL, *[persistence.PERSISTS] * 2]
    assert "as large as the gain" in said[0].sentence


def made_contrast(old: tuple[float, float], *difference: tuple[float, float]) -> list[strata.Contrast]:
    """Contrasts of these (value, standard error)."""

    def told(pair: tuple[float, float]) -> Estimate:
        return Estimate(*pair, df=1e6, languages=pair[1], seeds=0.0)

    made = [(told((old[0] + one[0], 0.1)), told(old), told(one)) for one in difference]
    return [strata.Contrast("new", *three, three[2].below(-1.0), ("xnli",)) for three in made]


def test_of_two_contrasts_each_has_half_of_the_level() -> None:
    """z = -2.1 is below 2.5 % once, and not when it was looked for twice."""
    low, fine = (-3.1, 1.0), (0.0, 0.2)
    assert persistence._verdict(made_contrast((9.0, 0.5), low), 1.0) == persistence.LESS
    assert persistence._verdict(made_contrast((9.0, 0.5), low, fine), 1.0) == persistence.OPEN
    assert persistence._verdict(made_contrast((9.0, 0.5), (-3.4, 1.0), fine), 1.0) == persistence.LESS


@pytest.mark.parametrize("spoken", ["sw", "sw th"])
def test_a_new_task_in_one_or_two_languages_is_in_no_contrast(spoken: str) -> None:
    """One Swahili XCOPA, with a true loss of just the margin, was told to persist in 16 of 60 frames."""
    old = {name: TASKS[name] for name in ("xnli", "panx")}
    with pytest.raises(TooLittle, match="3 languages"):
        few = dict(old, panx="de fr nl he af te", xcopa=spoken)
        persistence.answer(dataclasses.replace(PLAIN, targets=few).gains(1))
    answer = persistence.answer(
        dataclasses.replace(PLAIN, targets=old | {"xcopa": spoken}).gains(1), draws=200
    )
    assert list(answer.tables[0].data["new against old"]) == ["new languages of the same tasks"]
    line = answer.tables[1].data.set_index("task").loc["xcopa"]
    assert math.isnan(line.low) and math.isnan(line.high) and not math.isnan(line.gain)
    assert any("xcopa (new tasks)" in note for note in answer.notes)


def test_a_language_is_one_however_many_seeds() -> None:
    """Twice the seeds of the very same models leave the error that languages make."""
    frame = lower(**NOISE["languages"])
    few, many = (
        contrasts(dataclasses.replace(frame, seeds=seeds), 4)[0] for seeds in ((1, 2, 3), range(1, 13))
    )
    assert many.difference.error > 0.6 * few.difference.error


def test_strata_are_the_suites() -> None:
    answer = persistence.answer(PLAIN.gains(1), draws=200)
    table = answer.tables[1].data
    told = {(row.stratum, row.task): row.languages for row in table.itertuples()}
    assert told["dropped tasks", "pawsx"] == 6 and told["new tasks", "xcopa"] == 11
    assert told["new languages", "panx"] == 8 and told["old languages", "panx"] == 14
    assert ("new languages", "xnli") not in told
    assert "no inference over tasks" in " ".join(answer.notes)
    assert answer.primary is not None and answer.primary.n == {"tasks": 6, "languages": 39, "seeds": 3}
    assert (table.low < table.gain).all() and (table.gain < table.high).all()


def test_one_new_language_is_shown_and_not_compared() -> None:
    frame = dataclasses.replace(PLAIN, targets=TASKS | {"xquad": "de es ru ar ro"})
    answer = persistence.answer(frame.gains(1), draws=200)
    told = set(zip(answer.tables[1].data.stratum, answer.tables[1].data.task, strict=True))
    assert ("new languages", "xquad") in told
    assert "xquad" not in answer.tables[0].data.tasks.iloc[0]
    assert any("fewer than 3 languages" in note and "xquad (new languages)" in note for note in answer.notes)


def test_strata_of_other_tasks_are_named() -> None:
    chosen = options("persistence", ["new-tasks=xnli", "new_languages=qu,pl,uk", "margin=0.5"])
    assert chosen == {"new_tasks": ("xnli",), "new_languages": ("qu", "pl", "uk"), "margin": 0.5}
    answer = run("persistence", PLAIN.gains(1), {**chosen, "draws": 200})
    told = set(zip(answer.tables[1].data.stratum, answer.tables[1].data.task, strict=True))
    assert (
        ("new tasks", "xnli") in told and ("new languages", "panx") in told and answer.facts["margin"] == 0.5
    )


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (dataclasses.replace(PLAIN, seeds=(1, 2)), "1 more, 3 in all"),
        (dataclasses.replace(PLAIN, targets={"xnli": TASKS["xnli"]}), "XCOPA"),
        (dataclasses.replace(PLAIN, targets={"xcopa": TASKS["xcopa"]}), "at least one task of XTREME"),
        (dataclasses.replace(PLAIN, targets={"xnli": "de fr", "xcopa": "et ht id"}), "1 more, 3 in all"),
        (dataclasses.replace(PLAIN, targets={"panx": "de fr he nl qu pl"}), "3 new languages"),
    ],
)
def test_too_little_is_refused_without_a_p(frame: Frame, words: str) -> None:
    with pytest.raises(TooLittle, match=words):
        persistence.answer(frame.gains(1))
    answer = run("persistence", frame.gains(1))
    assert answer.verdict == REFUSED and words in answer.sentence and answer.primary is None
    assert "p =" not in answer.sentence


def test_nothing_is_published_to_answer_it() -> None:
    with pytest.raises(TooLittle):
        persistence.published()
