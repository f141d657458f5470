"""The model-scaling study: descriptive however many languages there are, and never with a p-value."""

from __future__ import annotations

import json

import pandas
import pytest
from study_frames import Frame

from xstilts.report.studies import model_scaling
from xstilts.report.studies.answer import TooLittle
from xstilts.report.studies.gains import Gains, of_frame

XLMR = {
    "FacebookAI/xlm-roberta-base": 1.0,
    "FacebookAI/xlm-roberta-large": 2.0,
    "facebook/xlm-roberta-xl": 4.0,
    "facebook/xlm-roberta-xxl": 5.0,
}
CONTROL = {"google/mt5-small": 1.0, "google/mt5-base": 1.0, "google/mt5-large": 1.0}


def simulated(planted: dict[str, float], rows: tuple[str, ...] = ("mnli", "ccg")) -> Gains:
    parts = [
        Frame(rows=rows, main={"mnli": gain}).draw(i).assign(model=model, job=model)
        for i, (model, gain) in enumerate(planted.items())
    ]
    frames = pandas.concat(parts, ignore_index=True)
    return of_frame(frames.assign(key=frames.model + frames.key), "abc1234")


def test_gain_and_errors_removed_are_told_by_size_and_tested_nowhere() -> None:
    found = model_scaling.answer(simulated(XLMR | CONTROL, rows=("mnli",)))
    assert found.verdict == "descriptive" and "descriptive" in found.sentence
    assert '"p": null' in json.dumps(found.to_json()) and found.primary is not None
    assert found.primary.p is None and found.primary.interval is None
    assert found.robustness is not None and found.robustness.p is None
    sizes = found.tables[0].data
    assert sizes[sizes.family == "XLM-R"]["parameters, millions"].tolist() == [250, 560, 3500, 10700]
    assert 1.5 < (found.primary.value or 0) < 3.5, "planted: 4 points over a factor of 43"
    for row in sizes.to_dict("records"):
        assert row["errors removed, %"] == pytest.approx(100 * row["gain"] / (100 - row["none"]))
        assert row["low"] < row["gain"] < row["high"]
    assert any("control" in note and "mT5" in note for note in found.notes)
    assert all(figure.chart.to_dict() for figure in found.figures)


def test_what_is_redrawn_is_said() -> None:
    gains = simulated(XLMR, rows=("mnli",))
    assert "languages and seeds redrawn" in model_scaling.answer(gains).tables[0].note
    one = model_scaling.answer(gains.only(seed=[1])).tables[0].note
    assert "seeds redrawn" not in one and "one seed" in one


def test_only_nli_counts_and_only_what_every_size_has() -> None:
    gains = simulated(XLMR)
    pairs = model_scaling.answer(gains).tables[1].data
    assert {(row.intermediate, row.target) for row in pairs.itertuples()} == {
        *(("mnli", target) for target in ("xnli", "panx", "udpos", "tatoeba")),
        ("ccg", "xnli"),
    }
    table = gains.table
    fewer = table[~((table.model == "facebook/xlm-roberta-xl") & (table.language == "sw"))]
    found = model_scaling.answer(type(gains)(fewer, gains.scores))
    assert any("not scored with every model" in note for note in found.notes)
    assert found.tables[0].data.languages.nunique() == 1


def test_too_few_sizes_are_refused() -> None:
    two = dict(list(XLMR.items())[:2])
    with pytest.raises(TooLittle, match="too few sizes of one family: 2 of XLM-R.*three sizes"):
        model_scaling.answer(simulated(two | {"google/mt5-small": 1.0}))
    with pytest.raises(TooLittle, match="none of known parameters"):
        model_scaling.answer(simulated({"mine/encoder": 1.0}))
    with pytest.raises(TooLittle, match="no gain of or on an NLI task"):
        model_scaling.answer(simulated(XLMR, rows=("ccg",)).only(target=["panx"]))


def test_encoders_made_here_are_sized_by_how_they_are_made() -> None:
    experiment = {"pretrain": {"width": 96, "layers": 2, "vocabulary": 1000, "length": 24}}
    plans = [{"job": "small", "model": "small (pretrained here)", "experiment": experiment},
             {"job": "hub", "model": "hub/model", "experiment": {}}]  # fmt: skip
    found = model_scaling.options(plans)["sizes"]
    assert found == {"small (pretrained here)": ("encoders made here", pytest.approx(0.32, abs=0.02))}


def test_published_sizes_are_told_and_gains_are_refused() -> None:
    found = model_scaling.published()
    sizes = found.tables[0].data.set_index("model")
    assert sizes.loc["mT5-XXL", "mean of others"] == pytest.approx(84.3, abs=0.1)
    assert (sizes.family == "mT5").sum() == 5 and found.primary is not None and found.primary.p is None
    assert any(note.startswith("gains and relative error reduction: refused") for note in found.notes)
    assert found.to_json() and found.figures[0].chart.to_dict()
    for said in ("n 7 models", "14 languages", "selection", "commit", "collapsed runs"):
        assert said in found.caption
