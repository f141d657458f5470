"""Intervals: the fast bootstrap equals a slow literal one, and covers the truth as often as it says."""

from __future__ import annotations

import math

import numpy
import pytest

from xstilts.report import clusters, frame, intervals
from xstilts.report.intervals import Interval
from xstilts.tasks import metrics

F1 = metrics.COLUMNS["bio_f1"]


def tagged(generator: numpy.random.Generator, items: int, parallel: bool, language: str) -> frame.Items:
    """Random tagging statistics in clusters of two items."""
    names = [str(number) for number in range(items)]
    gold = generator.integers(1, 5, items).astype(float)
    found = {"tp": generator.binomial(gold.astype(int), 0.6).astype(float), "n_pred": gold, "n_gold": gold}
    return frame.Items(
        item=numpy.array(names),
        cluster=numpy.array([f"{language}/{number // 2}" for number in range(items)]),
        parallel_id=numpy.array(names if parallel else [""] * items),
        columns={**found, "correct": found["tp"], "n": gold},
    )


def literal(runs: clusters.Runs, counts: numpy.ndarray, language: str) -> list[float]:
    """Gain of `row` over `none` in one language for each draw, one item at a time."""
    gains = []
    for draw in counts:
        differences = []
        for seed in (1, 2):
            values = []
            for row in ("row", "none"):
                items = runs[row, seed][language]
                first = list(dict.fromkeys(items.cluster))
                chosen = [
                    index
                    for unit, times in zip(first, draw, strict=True)
                    for _ in range(int(times))
                    for index in range(len(items.item))
                    if items.cluster[index] == unit
                ]
                sums = {name: sum(items.columns[name][index] for index in chosen) for name in F1}
                values.append(metrics.from_sums("bio_f1", {**sums, "items": len(chosen)})["bio_f1"])
            differences.append(values[0] - values[1])
        gains.append(sum(differences) / 2)
    return gains


@pytest.mark.parametrize("joint", [True, False])
def test_equals_a_literal_bootstrap(joint: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "CHUNK", 100)  # several chunks, so that their seams are tested too
    generator = numpy.random.default_rng(5)
    runs = {
        (row, seed): {language: tagged(generator, 12, joint, language) for language in ("en", "sw")}
        for row in ("none", "row")
        for seed in (1, 2)
    }
    samples = clusters.gather(runs, F1, ("none", "row"), (1, 2), ("en", "sw"), joint)
    fast = intervals.resample(samples, "bio_f1", joint, seed=3, resamples=40)
    for i, language in enumerate(("en", "sw")):
        start = numpy.random.default_rng([3, 0 if joint else i])
        counts = numpy.concatenate(list(intervals.draws(start, 6, 40)))
        assert fast.gains[:, 1, i] == pytest.approx(literal(runs, counts, language), abs=1e-9)
    assert (fast.gains[:, 0] == 0).all(), "`none` gains nothing over itself"


def test_parallel_items_share_units_whatever_clusters_are_called() -> None:
    generator = numpy.random.default_rng(0)
    runs = {("none", 1): {language: tagged(generator, 8, True, language) for language in ("en", "de")}}
    samples = clusters.gather(runs, F1, ("none",), (1,), ("en", "de"), joint=True)
    assert samples["en"].sums.shape == samples["de"].sums.shape == (4, 1, 1, len(F1) + 1)
    gold = runs["none", 1]["de"].columns["n_gold"]
    assert samples["de"].sums[:, 0, 0, F1.index("n_gold")].tolist() == (gold[::2] + gold[1::2]).tolist()


def test_order_of_items_does_not_matter() -> None:
    one = tagged(numpy.random.default_rng(0), 10, False, "en")
    back = frame.Items(
        one.item[::-1], one.cluster[::-1], one.parallel_id[::-1], {k: v[::-1] for k, v in one.columns.items()}
    )
    runs = {("none", 1): {"en": one}, ("row", 1): {"en": back}}
    samples = clusters.gather(runs, F1, ("none", "row"), (1,), ("en",), False)
    fast = intervals.resample(samples, "bio_f1", False, seed=0, resamples=50)
    assert fast.gain(1, ("en",)) == Interval(0.0, 0.0), "the same items in another order are no gain"


def test_draws_are_draws_with_replacement() -> None:
    counts = numpy.concatenate(list(intervals.draws(numpy.random.default_rng(1), 50, 4000)))
    assert counts.shape == (4000, 50) and (counts.sum(axis=1) == 50).all()
    assert counts.mean() == 1 and counts.var() == pytest.approx(1 - 1 / 50, abs=0.02)


def simulated(generator: numpy.random.Generator, gain: float) -> dict[str, clusters.Sample]:
    """120 clusters of three items, two seeds; what is shared in a cluster makes items alike."""
    sums = numpy.zeros((120, 2, 2, 2))
    sums[..., 1] = 3
    cluster = 0.2 * generator.standard_normal(120)
    own = 0.15 * generator.standard_normal(120)
    for seed in range(2):
        for row, chance in enumerate((0.5 + cluster, 0.5 + cluster + gain + own)):
            sums[:, row, seed, 0] = generator.binomial(3, numpy.clip(chance, 0.02, 0.98))
    return {"en": clusters.Sample(sums, numpy.ones((2, 2), dtype=bool))}


def test_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = numpy.random.default_rng(11)
    truth = float(numpy.mean([_gain(simulated(generator, 0.05)) for _ in range(1500)]))
    held = 0
    for trial in range(300):
        sample = simulated(generator, 0.05)
        interval = intervals.resample(sample, "accuracy", False, trial, 400).gain(1, ("en",))
        held += interval is not None and interval.holds(truth)
    # 95 % of 300 is 285 with a standard deviation of 3.8; percentile intervals run a little narrow.
    assert 270 <= held <= 297, held


def _gain(sample: dict[str, clusters.Sample]) -> float:
    right = sample["en"].sums[..., 0].sum(axis=0).mean(axis=1) / 3.6
    return float(right[1] - right[0])


def test_the_same_data_give_the_same_interval() -> None:
    sample = simulated(numpy.random.default_rng(2), 0.1)
    one, two = (intervals.resample(sample, "accuracy", False, 9, 300).gain(1, ("en",)) for _ in range(2))
    assert one == two != intervals.resample(sample, "accuracy", False, 10, 300).gain(1, ("en",))


def test_missing_runs_leave_the_others() -> None:
    sample = simulated(numpy.random.default_rng(2), 0.1)["en"]
    half = clusters.Sample(sample.sums, numpy.array([[True, True], [True, False]]))
    none = clusters.Sample(sample.sums, numpy.array([[True, True], [False, False]]))
    again = intervals.resample({"en": half, "de": none}, "accuracy", False, 1, 200)
    assert again.gain(1, ("de",)) is None
    assert again.gain(1, ("en", "de")) == again.gain(1, ("en",)) is not None


def test_t_interval_over_seeds() -> None:
    assert intervals.over_seeds([1.0, 2.0]) is None
    found = intervals.over_seeds([1.0, 2.0, 3.0])
    assert found is not None and found.low == pytest.approx(2 - 4.302653 / math.sqrt(3), abs=1e-5)
    assert intervals.over_seeds([2.0, 2.0, 2.0]) == Interval(2.0, 2.0)


def test_an_interval_says_on_which_side_of_zero_it_is() -> None:
    assert [Interval(*ends).side for ends in ((0.1, 2), (-1, 1), (-2, -0.1), (0, 0))] == [1, 0, -1, 0]
    assert str(Interval(-1.26, -0.01)) == "[\u22121.3, 0.0]"


@pytest.mark.parametrize("metric", sorted(metrics.METRICS))
def test_metrics_are_the_same_for_numbers_and_arrays(metric: str) -> None:
    numbers = {
        "correct": 3,
        "n": 4,
        "em": 1.0,
        "f1": 2.5,
        "tp": 2,
        "n_pred": 3,
        "n_gold": 5,
        "ap": 0.5,
        "items": 4,
    }
    one = metrics.from_sums(metric, numbers)
    many = metrics.from_sums(metric, {name: numpy.array([value, 0.0]) for name, value in numbers.items()})
    assert tuple(one) == metrics.METRICS[metric] and next(iter(one)) == metric
    for name, value in one.items():
        assert many[name].tolist() == pytest.approx([value, 0.0])


def test_metrics_by_hand() -> None:
    f1 = metrics.from_sums("bio_f1", {"tp": 2, "n_pred": 3, "n_gold": 5, "correct": 3, "n": 4, "items": 1})
    assert f1 == {"bio_f1": 50.0, "precision": pytest.approx(200 / 3), "recall": 40.0, "token_accuracy": 75.0}
    qa = metrics.from_sums("squad", {"em": 1.0, "f1": 2.0, "items": 4})
    assert qa == {"squad": 37.5, "exact_match": 25.0, "f1": 50.0}
    with pytest.raises(KeyError, match="bleu"):
        metrics.from_sums("bleu", {})
