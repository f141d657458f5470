"""Consistency: a planted change comes back, none is made up, kappas are a library's, and the command."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow
import pytest
from made_up_job import made, opens
from pyarrow import parquet
from scipy import stats
from sklearn.metrics import cohen_kappa_score
from typer.testing import CliRunner

from xstilts.cli.main import app
from xstilts.errors import StoreError, XstiltsError
from xstilts.record.artifacts import StepPaths
from xstilts.record.local import LocalStore
from xstilts.record.schema import Output, read_record
from xstilts.report import frame
from xstilts.report.studies import catalogue, consistency, parallel
from xstilts.report.studies.agreement import agreement
from xstilts.report.studies.answer import TooLittle
from xstilts.report.studies.gains import Gains, of_frame
from xstilts.report.studies.parallel import Paired
from xstilts.tasks import registry

LABELS = registry.task("xnli").labels


def simulated(
    generator: numpy.random.Generator,
    change: float = 0.0,
    better: float = 0.0,
    rows: tuple[str, ...] = ("none", "mnli"),
    target: str = "xnli",
    size: tuple[int, int, int] = (50, 3, 3),
) -> Paired:
    """(clusters, items of each, seeds). Items and clusters are hard in all languages alike, runs differ by
    chance, `none` too. Logits: `change` in other languages, `better` in all, of every row but `none`."""
    clusters, each, seeds = size
    number = numpy.repeat(numpy.arange(clusters), each)
    hard = generator.normal(0, 0.8, clusters)[number] + generator.normal(0, 0.8, len(number))
    run = generator.normal(0, 0.25, (len(rows), seeds, 1, 1))
    spoken = run + generator.normal(0, 0.15, (len(rows), seeds, 3, 1)) + numpy.array([1.5, 0.8, 0.3])[:, None]
    logits = spoken + hard
    logits[1:] += better
    logits[1:, :, 1:] += change
    right = generator.random(logits.shape) < 1 / (1 + numpy.exp(-logits))
    present = numpy.ones((len(rows), seeds), dtype=bool)
    return Paired(
        "job", "m", target, rows, tuple(range(1, seeds + 1)), ("en", "de", "sw"), right, present, number
    )


def gains(paired: list[Paired]) -> Gains:
    """Of the same runs."""
    made = []
    for one in paired:
        for i, j, k in numpy.ndindex(*one.right.shape[:3]):
            words = dict.fromkeys(frame.COLUMNS, "") | {"status": "ok" if one.present[i, j] else "missing"}
            words |= {"job": one.job, "model": one.model, "intermediate": one.rows[i], "target": one.target}
            words |= {
                "language": one.languages[k],
                "metric": registry.task(one.target).metric,
                "fraction": 1.0,
            }
            value = 100 * one.right[i, j, k].mean() if one.present[i, j] else None
            made.append(words | {"value": value, "n": one.right.shape[3], "seed": one.seeds[j]})
    return of_frame(pandas.DataFrame(made, columns=frame.COLUMNS), "abc1234")


def answered(*paired: Paired, **options: Any) -> consistency.Answer:
    return consistency.answer(gains(list(paired)), paired=paired, draws=200, **options)


def p_of(value: float, error: float, df: float) -> float:
    return 2 * float(stats.t.sf(abs(value) / error, df))


@pytest.mark.parametrize("rows", [("none", "mnli"), ("none", "mnli", "ccg")])
def test_nothing_is_found_where_nothing_is_planted(rows: tuple[str, ...]) -> None:
    """300 clusters, where chance between runs outweighs that between items, and three seeds to know it by."""
    times, found = 200, [0, 0]
    for trial in range(times):
        one = simulated(numpy.random.default_rng([7, trial]), rows=rows, size=(300, 2, 3))
        changes = consistency.change([one], 100, trial)
        for i, change in enumerate((changes.every, changes.both)):
            found[i] += p_of(change.value, change.error, change.df) < consistency.ALPHA
    assert all(one <= stats.binom.ppf(0.999, times, consistency.ALPHA) for one in found), found
    assert found[0] > 0, "never is not 5 % either"


def test_a_planted_change_comes_back() -> None:
    """The truth is what many more items and seeds would show."""
    wide = simulated(numpy.random.default_rng(1), 0.9, size=(4_000, 1, 12))
    lost = wide.right[:, :, :1] & ~wide.right[:, :, 1:]
    truth = 100 * (lost[1].mean() - lost[0].mean())
    assert truth < -5
    held, sure = 0, 0
    for trial in range(60):
        one = simulated(numpy.random.default_rng([2, trial]), 0.9, size=(100, 3, 3))
        changes = consistency.change([one], 150, trial)
        held += changes.every.interval.holds(truth)
        sure += changes.every.interval.side < 0
    assert held >= stats.binom.ppf(0.001, 60, 0.95) and sure >= 45, (held, sure)


def test_an_answer_is_whole() -> None:
    random = numpy.random.default_rng(3)
    one = simulated(random, 1.2, rows=("none", "mnli", "ccg"), size=(80, 3, 3))
    two = simulated(random, 1.2, target="pawsx", size=(120, 1, 3))
    two = replace(two, labels=two.right.astype(numpy.int16))
    found = answered(one, two)
    assert found.verdict == consistency.FEWER and found.primary is not None and found.robustness is not None
    assert (found.primary.p or 1) < 0.05 and (found.robustness.value or 0) < 0
    assert dict(found.primary.n) == {
        "intermediate tasks": 2, "targets": 2, "languages": 2, "seeds": 3, "items": 360, "clusters": 200
    }  # fmt: skip
    main = found.tables[0].data.set_index(["target", "intermediate"])
    lost = one.right[:, :, :1] & ~one.right[:, :, 1:]
    assert main.loc[("xnli", "ccg"), "lost %"] == pytest.approx(100 * lost[2].mean())
    assert main.loc[("xnli", "ccg"), "change"] == pytest.approx(100 * (lost[2].mean() - lost[0].mean()))
    cells = main.drop(index="none", level="intermediate").change
    assert found.primary.value == pytest.approx(cells.mean()) and len(cells) == 3
    assert numpy.isnan(main.loc[("xnli", "none"), "change"])
    assert main["label kappa"].notna().sum() == 2 and "no label kappa" in " ".join(found.notes)
    assert (
        "English" in found.sentence
        and consistency.FEWER in found.sentence
        and "seeds 1, 2, 3" in found.caption
    )
    assert found.to_json() and all(figure.chart.to_dict() and figure.alt for figure in found.figures)


def test_being_better_in_english_alone_is_told_apart() -> None:
    """More is right in English and X as it was: more is lost; of what both get right, nothing."""
    one = simulated(numpy.random.default_rng(5), -1.2, better=1.2, size=(300, 2, 4))
    found = answered(one)
    assert found.verdict == consistency.MORE and found.robustness is not None
    assert found.robustness.interval is not None and found.robustness.interval.side == 0


def test_a_verdict_that_the_robustness_check_does_not_bear_out_says_so() -> None:
    random = numpy.random.default_rng
    odd = answered(simulated(random(5), -1.2, better=1.2, size=(300, 2, 4)))
    assert odd.verdict == consistency.MORE
    assert "which does not bear out 'more lost'" in odd.sentence
    same, borne = answered(simulated(random(1))), answered(simulated(random(3), 1.2, size=(300, 2, 5)))
    assert same.verdict == consistency.SAME and borne.verdict == consistency.FEWER
    assert all("bear out" not in one.sentence and "near chance" not in one.sentence for one in (same, borne))


def test_a_base_near_chance_is_in_the_sentence() -> None:
    one = simulated(numpy.random.default_rng(14), size=(90, 1, 3))
    right = one.right.copy()
    right[0] = numpy.arange(90) % 3 == 0
    found = answered(replace(one, right=right))
    assert "`none` is near chance in English on xnli, where it has little to lose." in found.sentence


def test_a_row_that_guesses_is_named() -> None:
    """One label for everything is right in all languages alike: kappa 1, nothing lost, nothing known."""
    one = simulated(numpy.random.default_rng(14), rows=("none", "mnli", "ccg"), size=(90, 1, 3))
    right = one.right.copy()
    right[2] = numpy.arange(90) % 3 == 0
    found = answered(replace(one, right=right))
    assert found.tables[0].data.set_index("intermediate").kappa["ccg"] == 1
    assert [note for note in found.notes if "near chance" in note][0].endswith(": ccg on xnli")


def test_robustness_by_hand() -> None:
    one = simulated(numpy.random.default_rng(6), 0.5, size=(30, 2, 3))
    both = one.right[1, :, 0] & one.right[0, :, 0]
    wrong = (~one.right[:, :, 1:]).mean(axis=2)
    by_hand = 100 * (wrong[1] - wrong[0])[both].mean()
    assert consistency.change([one], 50).both.value == pytest.approx(by_hand)


def test_whole_clusters_are_redrawn() -> None:
    """Copies of items are no evidence: nine of each leave the interval by items as wide as it was."""
    one = simulated(numpy.random.default_rng(8), size=(60, 1, 3))
    many = replace(one, right=one.right.repeat(9, axis=3), clusters=one.clusters.repeat(9))
    few, more = consistency.change([one], 400), consistency.change([many], 400)
    assert more.clusters == few.clusters == 60 and more.items == 540
    assert more.every.value == pytest.approx(few.every.value)
    assert more.every.error == pytest.approx(few.every.error, rel=0.15)
    alone, again = agreement(one, 1), agreement(many, 1)
    assert again.lost == pytest.approx(alone.lost) and again.lost_ends == pytest.approx(alone.lost_ends)


def test_kappas_are_those_of_another_library() -> None:
    one = simulated(numpy.random.default_rng(9), size=(100, 2, 3))
    random = numpy.random.default_rng(10)
    one = replace(one, labels=random.integers(-1, 3, one.right.shape).astype(numpy.int16))
    found = agreement(one, resamples=200)
    for k in (0, 1):
        right = [cohen_kappa_score(one.right[1, j, 0], one.right[1, j, k + 1]) for j in range(3)]
        said = [cohen_kappa_score(one.labels[1, j, 0], one.labels[1, j, k + 1]) for j in range(3)]  # type: ignore[index]
        assert found.kappa[1, k] == pytest.approx(numpy.mean(right))
        assert found.labels[1, k] == pytest.approx(numpy.mean(said))
        assert found.kappa_ends[0, 1, k] < found.kappa[1, k] < found.kappa_ends[1, 1, k]
    assert found.source[0, 0] - found.lost[0, 0] + found.won[0, 0] == pytest.approx(found.here[0, 0])


def test_independent_models_have_kappa_zero_whatever_their_accuracy() -> None:
    random = numpy.random.default_rng(11)
    chances = numpy.array([0.9, 0.6, 0.3])[:, None]
    one = simulated(random, size=(20_000, 1, 3))
    one = replace(one, right=random.random(one.right.shape) < chances)
    found = agreement(one, resamples=50)
    assert numpy.abs(found.kappa).max() < 0.02 and found.lost == pytest.approx(found.alone, abs=0.5)
    same = replace(one, right=one.right[:, :, :1].repeat(3, axis=2))
    assert agreement(same, resamples=50).kappa == pytest.approx(1)
    perfect = agreement(replace(one, right=numpy.ones_like(one.right)), resamples=2)
    assert numpy.isnan(perfect.kappa).all() and (perfect.lost == 0).all()


def test_seeds_that_a_row_lacks_are_paired_with_nothing() -> None:
    one = simulated(numpy.random.default_rng(12), rows=("none", "mnli", "ccg", "qqp"), size=(40, 1, 4))
    present = one.present.copy()
    present[1, 3], present[2, 1:] = False, False
    right = one.right & present[:, :, None, None]
    found = answered(replace(one, right=right, present=present))
    main = found.tables[0].data.set_index("intermediate")
    assert list(main.index) == ["none", "mnli", "qqp"] and list(main.seeds) == [4, 3, 4]
    lost = (one.right[:, :, :1] & ~one.right[:, :, 1:]).mean(axis=(2, 3))
    assert main.change["mnli"] == pytest.approx(100 * (lost[1, :3] - lost[0, :3]).mean())
    assert main["lost %"]["mnli"] == pytest.approx(100 * lost[1, :3].mean())
    assert any("ccg (1)" in note for note in found.notes)


def test_too_few_are_refused() -> None:
    random = numpy.random.default_rng(13)
    for one, said in (
        (simulated(random, size=(40, 1, 2)), r"fewer than 3 seeds: mnli \(2\)"),
        (simulated(random, size=(19, 5, 3)), "19 clusters of items, 20 needed"),
    ):
        with pytest.raises(TooLittle, match=said):
            answered(one)
    fine = simulated(random)
    with pytest.raises(TooLittle, match="no target has parallel items"):
        consistency.answer(gains([fine]), paired=())
    with pytest.raises(XstiltsError, match="several jobs"):
        consistency.answer(gains([fine]), paired=(fine, replace(fine, job="other")))
    assert catalogue.published("consistency").refused
    with pytest.raises(XstiltsError, match="not set by hand"):
        catalogue.options("consistency", ["paired=x"])


@pytest.fixture
def job(tmp_path: Path) -> tuple[dict[str, Any], LocalStore]:
    """A job without and with labels: xnli's are written as predictions of three classes."""
    spoken = ("en", "de", "ru", "sw")
    words = {"intermediates": ("none", "untrained", "mnli"), "languages": spoken, "seed_noise": 0.01}
    return made(tmp_path, **words, gains={("mnli", "xnli"): 0.15})


def predict(plan: dict[str, Any], store: LocalStore) -> None:
    """Writes what was predicted: gold by the item's number, the next label where wrong; last item first."""
    known = frame.records(plan, store)
    for cell in plan["cells"]:
        if cell["target"] != "xnli":
            continue
        outputs = {}
        for name, output in known[cell["score"]].outputs.items():
            table = parquet.read_table(
                store.local(f"{StepPaths(known[cell['score']].key).root}/{output.path}", Path())
            )
            items, right = (table.column(one).to_pylist()[::-1] for one in ("item", "correct"))
            said = [LABELS[(int(item) + 1 - ok) % 3] for item, ok in zip(items, right, strict=True)]
            buffer = io.BytesIO()
            parquet.write_table(
                pyarrow.table({"item": items, "prediction": said, "score": [0.5] * len(said)}), buffer
            )
            path = f"runs/a1/predictions/{name.rpartition('/')[2]}.parquet"
            key = known[cell["predict"]].key
            store.put(f"{StepPaths(key).root}/{path}", buffer.getvalue())
            outputs[f"predictions/{name.rpartition('/')[2]}"] = Output(path=path, bytes=9, sha256="0" * 64)
        record = read_record(store, known[cell["predict"]].key)
        assert record is not None
        told = record.model_copy(update={"outputs": outputs})
        store.create(StepPaths(record.key).record, told.to_json())


def test_items_and_labels_are_read_from_a_job(job: tuple[dict[str, Any], LocalStore], tmp_path: Path) -> None:
    plan, store = job
    (blank,) = parallel.read(plan, store, tmp_path, frame.records(plan, store))
    assert (
        blank.labels is None
        and blank.rows == ("none", "mnli")
        and blank.languages == ("en", "de", "ru", "sw")
    )
    assert blank.right.shape == (2, 3, 4, 240) and blank.present.all() and blank.clusters.max() == 79
    predict(plan, store)
    known = frame.records(plan, store)
    (one,) = parallel.read(plan, store, tmp_path, known)
    assert one.labels is not None and one.target == "xnli"
    gold = numpy.arange(240) % 3
    assert ((one.labels == gold) == one.right).all(), "predictions are joined by item, not by place"
    table = frame.frame(plan, store, known)
    score = table[(table.target == "xnli") & (table.intermediate == "mnli") & (table.seed == 2)]
    expected = score.set_index("language").value
    for k, code in enumerate(one.languages):
        assert 100 * one.right[1, 1, k].mean() == pytest.approx(expected[code])


def rewritten(plan: dict[str, Any], store: LocalStore, language: str, change: Any) -> None:
    """Item statistics of xnli in one language, changed."""
    known = frame.records(plan, store)
    for cell in plan["cells"]:
        if cell["target"] == "xnli":
            record = known[cell["score"]]
            place = f"{StepPaths(record.key).root}/{record.outputs[f'items/{language}'].path}"
            table = change(parquet.read_table(store.local(place, Path())), cell)
            buffer = io.BytesIO()
            parquet.write_table(table, buffer)
            store.put(place, buffer.getvalue())


def test_items_are_lined_up_by_parallel_id(job: tuple[dict[str, Any], LocalStore], tmp_path: Path) -> None:
    plan, store = job
    known = frame.records(plan, store)
    (before,) = parallel.read(plan, store, tmp_path, known)
    rewritten(plan, store, "de", lambda table, _: table.take(list(range(239, 9, -1))))
    (after,) = parallel.read(plan, store, tmp_path / "again", known)
    assert after.left_out == 10 and (after.right == before.right[..., 10:]).all()
    rewritten(plan, store, "de", lambda table, cell: table.slice(0, 229 if cell["seed"] == 2 else 230))
    with pytest.raises(StoreError, match="different de items"):
        parallel.read(plan, store, tmp_path / "third", known)


@pytest.fixture
def opened(job: tuple[dict[str, Any], LocalStore], monkeypatch: pytest.MonkeyPatch) -> Path:
    plan, store = job
    opens(monkeypatch, plan, store)
    return Path(store.location) / "jobs" / plan["job"] / "studies"


def test_the_command_answers(opened: Path) -> None:
    ran = CliRunner().invoke(app, ["study", "consistency", "job.yaml", "--set", "draws=100"])
    assert ran.exit_code == 0, ran.output
    folder = opened / "consistency"
    assert (folder / "study.svg").is_file() and (folder / "languages.csv").is_file()
    words = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    assert words["verdict"] == consistency.FEWER and words["primary"]["n"]["clusters"] == 80
    assert words["tables"][0]["rows"][0]["intermediate"] == "none"
