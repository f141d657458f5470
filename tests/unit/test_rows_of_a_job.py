"""What phase 2 may be beside one task, what phase 3 may be made of, and languages that are not there."""

from __future__ import annotations

import pytest
from made_up_plan import labels, plan

from xstilts.errors import DataError, JobFileError, UnknownName
from xstilts.plan.step import PredictBody, ScoreBody, TrainBody, TranslateBody
from xstilts.spec.experiment import Experiment


def body_of(made, start: str) -> TrainBody:
    """The body of the one training whose label starts so."""
    (found,) = [each for each in made if each.label.startswith(start)]
    assert isinstance(found.step.body, TrainBody)
    return found.step.body


def test_a_mixture_is_one_training_whatever_the_order_of_its_tasks():
    rows = [{"mix": ["squad_v1", "mnli"]}]
    one = plan(intermediate=rows, seeds=[1], targets=["tatoeba"], languages=["de"])
    other = plan(
        intermediate=[{"mix": ["mnli", "squad_v1"]}], seeds=[1], targets=["tatoeba"], languages=["de"]
    )
    assert [each.key for each in one] == [each.key for each in other]
    body = body_of(one, "train-mix-mnli-squad_v1-")
    assert (body.task.name, [part.task.name for part in body.mixing.parts]) == ("mnli", ["squad_v1"])
    assert body.mixing.cap == 2**17 and body.mixing.mlm is None
    assert [cell.intermediate for cell in one.cells] == ["mnli+squad_v1"]


def test_parts_of_a_mixture_keep_their_own_batches():
    tasks = {
        "squad_v1": {"effective_batch": 8, "max_length": 384},
        "mix": {"epochs": 2, "learning_rate": 1e-6},
    }
    made = plan(
        intermediate=[{"mix": ["squad_v1", "mnli"]}],
        targets=["tatoeba"],
        languages=["de"],
        seeds=[1],
        train={"intermediate": {"effective_batch": 24, "tasks": tasks}},
    )
    body = body_of(made, "train-mix-")
    assert (body.settings.epochs, body.settings.learning_rate, body.settings.effective_batch) == (2, 1e-6, 24)
    assert (body.mixing.parts[0].effective_batch, body.mixing.parts[0].max_length) == (8, 384)


def test_mlm_takes_the_languages_of_the_targets_unless_it_names_its_own():
    rows = [{"mix": ["mnli", "mlm"]}]
    everywhere = plan(intermediate=rows, targets=["pawsx"], seeds=[1], languages=[])
    found = body_of(everywhere, "train-mix-").mixing.mlm.corpora
    assert [each.language for each in found] == ["de", "en", "es", "fr", "ja", "ko", "zh"]
    assert found[0].config == "20231101.de" and found[0].first == 50_000
    suite = plan(intermediate=rows, targets=[], suite="xtreme", languages=["de", "sw", "lt"], seeds=[1])
    text = body_of(suite, "train-mix-").mixing.mlm
    assert [each.language for each in text.corpora] == ["de", "sw"], "Lithuanian is not in XTREME"
    assert text.counts == (7, 7)
    named = plan(
        intermediate=rows,
        targets=["pawsx"],
        seeds=[1],
        mlm={"data": "xstilts/raw_text", "config": "{code}", "languages": ["sw"]},
    )
    assert [each.config for each in body_of(named, "train-mix-").mixing.mlm.corpora] == ["sw"]


def test_translations_of_the_hub_follow_one_another():
    made = plan(
        intermediate=[{"translated": "mnli", "languages": ["en", "de", "sw"]}],
        targets=["tatoeba"],
        languages=["de"],
        seeds=[1],
    )
    rows = body_of(made, "train-mnli-in-en-de-sw-").rows
    assert rows.path == "nyu-mll/multi_nli"
    assert [(each.path, each.config) for each in rows.more] == [
        ("facebook/xnli", "de"),
        ("facebook/xnli", "sw"),
    ]


def test_a_translation_model_is_a_step_that_every_seed_shares():
    row = {"translated": "hellaswag", "languages": ["de"], "translator": {"name": "made/opus"}}
    made = plan(intermediate=[row], targets=["tatoeba"], languages=["de"])
    (translate,) = [each for each in made if each.kind == "translate"]
    assert isinstance(translate.step.body, TranslateBody) and translate.step.body.into == "de"
    trained = [each for each in made if each.label.startswith("train-hellaswag-in-de-")]
    assert len(trained) == 2
    assert all(each.inputs["rows/de"] == translate.label for each in trained)
    assert trained[0].step.body.rows.made_by == "rows/de"


def test_a_task_without_published_translations_wants_a_translator():
    with pytest.raises(JobFileError, match="nobody publishes translations of hellaswag") as raised:
        plan(intermediate=[{"translated": "hellaswag", "languages": ["de"]}])
    assert "mnli" in raised.value.remedy and raised.value.where == ("intermediate", 0)


def test_a_checkpoint_stands_in_for_phase_two():
    made = plan(intermediate=["none", {"checkpoint": {"name": "my/model"}}], targets=["xnli"], seeds=[1])
    assert [cell.intermediate for cell in made.cells] == ["none", "model"]
    trained = labels(made, "train")
    assert len(trained) == 2 and "-after-checkpoint-" in trained[1]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"mix": ["mnli"]}, "two tasks or more"),
        ({"mix": ["mnli", "mnli"]}, "each once"),
        ({"mix": ["mnli", "squad_v1"], "translated": "mnli"}, "exactly one"),
        ({"translated": "mnli"}, "languages"),
        ({}, "exactly one"),
    ],
)
def test_a_row_is_one_thing(row, why):
    with pytest.raises(ValueError, match=why):
        Experiment.model_validate({"name": "a", "model": {"name": "b"}, "intermediate": [row]})


def test_a_misspelt_task_in_a_mixture_is_named():
    with pytest.raises(UnknownName, match="did you mean 'squad_v1'"):
        plan(intermediate=[{"mix": ["mnli", "sqaud_v1"]}])
    with pytest.raises(JobFileError, match="mlm alone"):
        plan(intermediate=["mlm"])


def test_a_target_may_be_a_sequence():
    made = plan(intermediate=["mnli"], targets=["xcopa"], languages=["et", "en"], seeds=[1])
    siqa, copa = [each for each in made if each.kind == "train" and "after" in each.label]
    assert siqa.label.startswith("train-siqa-") and copa.label.startswith("train-copa-")
    assert copa.inputs["encoder"] == siqa.label and made.cells[0].train == copa.label
    predict = next(each for each in made if each.kind == "predict").step.body
    assert isinstance(predict, PredictBody)
    assert [(rows.language, rows.path, rows.split) for rows in predict.rows] == [
        ("en", "aps/super_glue", "validation"),
        ("et", "cambridgeltl/xcopa", "test"),
    ]
    assert copa.step.body.selection_rows.holdout is not None, "its dev is the English that is reported"


def test_tatoeba_under_both_protocols():
    made = plan(
        intermediate=["none"], targets=["tatoeba", "tatoeba_after_squad_v1"], languages=["de"], seeds=[1]
    )
    frozen, tuned = made.cells
    assert frozen.train is None and tuned.train.startswith("train-squad_v1-")
    body = made.steps[tuned.predict].step.body
    assert body.retrieval is not None and made.steps[tuned.predict].inputs == {"model": tuned.train}


def test_bitext_reported_on_test_brings_dev_for_its_threshold():
    made = plan(intermediate=["none"], targets=["bucc2018"], languages=["de"], seeds=[1])
    score = made.steps[made.cells[0].score].step.body
    assert isinstance(score, ScoreBody)
    assert ([r.split for r in score.rows], [r.split for r in score.calibration]) == (["test"], ["dev"])
    on_dev = plan(
        intermediate=["none"],
        targets=["bucc2018"],
        languages=["de"],
        seeds=[1],
        evaluate={"split": "dev"},
    )
    assert on_dev.steps[on_dev.cells[0].score].step.body.calibration == ()


def test_dual_encoders_bring_their_candidates():
    made = plan(intermediate=["none"], targets=["lareqa"], languages=["de"], seeds=[1])
    body = made.steps[made.cells[0].predict].step.body
    assert [rows.reader for rows in body.candidates] == ["lareqa_candidates"]


def test_choosing_on_target_dev_is_said_in_the_key_and_refused_where_dev_is_reported():
    chosen = plan(targets=["xnli"], evaluate={"selection": "target_dev"}, seeds=[1])
    last = chosen.steps[chosen.cells[0].train]
    assert "-for-xnli-" in last.label
    assert [rows.config for rows in last.step.body.target_dev] == ["de", "en"]
    usual = plan(targets=["xnli"], seeds=[1])
    assert last.key != usual.steps[usual.cells[0].train].key
    two = chosen.steps[chosen.cells[2].train].inputs["encoder"]
    assert two in usual.steps, "phase 2 is chosen on English as ever"
    with pytest.raises(JobFileError, match="none of the targets has dev rows apart"):
        plan(targets=["xquad"], evaluate={"selection": "target_dev"})
    with pytest.raises(JobFileError, match="rows that are reported"):
        plan(targets=["xnli"], evaluate={"selection": "target_dev", "split": "dev"})


def test_targets_without_a_dev_of_their_own_are_chosen_on_the_source():
    made = plan(targets=["xnli", "xquad", "xcopa"], evaluate={"selection": "target_dev"}, seeds=[1])
    watched = {
        cell.target: bool(made.steps[cell.train].step.body.target_dev)
        for cell in made.cells
        if cell.intermediate == "none"
    }
    # XCOPA's dev is a translation of COPA's, which is its English and reported.
    assert watched == {"xnli": True, "xquad": False, "xcopa": False}


def test_what_a_job_says_of_selection_goes_before_its_preset():
    words = {"targets": ["pawsx"], "seeds": [1], "intermediate": ["none"], "settings": "phang2020_v1"}
    made = plan(**words, evaluate={"selection": {"rows": "target_dev", "first": 100}})
    body = made.steps[made.cells[0].train].step.body
    assert [rows.language for rows in body.target_dev] == ["de", "en"]
    assert (body.selection.first, body.selection.every) == (100, 1000)


def test_one_rows_rate_is_its_own_whatever_other_rows_there_are():
    mixed = {"mix": ["squad_v1", "mnli"]}
    words = {"targets": ["tatoeba"], "languages": ["de"], "seeds": [1], "settings": "phang2020_v1"}
    alone = plan(intermediate=[mixed], **words)
    beside = plan(intermediate=[mixed, {"mix": ["squad_v1", "mnli", "mlm"]}], **words)
    assert {each.key for each in alone if each.kind == "train"} < {each.key for each in beside}
    assert body_of(beside, "train-mix-mlm-").settings.learning_rate == 5e-6


def test_a_share_of_warm_up_goes_before_a_presets_number_of_steps():
    words = {"targets": ["xquad"], "intermediate": ["none"], "seeds": [1], "settings": "xtreme_r2021"}
    assert body_of(plan(**words), "train-squad_v1-").settings.warmup_steps == 500
    own = plan(**words, train={"target": {"warmup": 0.2}})
    settings = body_of(own, "train-squad_v1-").settings
    assert (settings.warmup, settings.warmup_steps) == (0.2, None)


def test_retrieval_is_read_at_its_own_length():
    targets = ["tatoeba", "tatoeba_after_squad_v1"]
    made = plan(targets=targets, languages=["de"], intermediate=["none"], seeds=[1], settings="xtreme2020")
    assert {made.steps[cell.predict].step.body.max_length for cell in made.cells} == {512}


def test_translations_by_the_hub_and_by_a_model_are_two_rows():
    row = {"translated": "mnli", "languages": ["de"]}
    made = plan(
        intermediate=[row, {**row, "translator": {"name": "made/opus"}, "name": "ours"}],
        targets=["tatoeba"],
        languages=["de"],
        seeds=[1],
    )
    assert sum(each.startswith("train-mnli-in-de-") for each in labels(made, "train")) == 2


def test_a_language_without_rows_is_left_out_and_named():
    whole = plan(targets=["xnli"], seeds=[1])
    made = plan(targets=["xnli"], seeds=[1], absent=["de"])
    assert made.missing == {("xnli", "de"): "there is no de"}
    assert [rows.language for rows in made.steps[made.cells[0].predict].step.body.rows] == ["en"]
    assert whole.missing == {}
    with pytest.raises(DataError, match="there is no de"):
        plan(targets=["xnli"], seeds=[1], absent=["de", "en"])


def test_a_language_that_failed_leaves_the_plan_what_it_was():
    whole = plan(targets=["xnli"], seeds=[1])
    made = plan(targets=["xnli"], seeds=[1], failed={("xnli", "de"): "damaged"})
    assert made.digest == whole.digest and made.missing == {("xnli", "de"): "damaged"}
    assert made.steps[made.cells[0].predict].key != whole.steps[whole.cells[0].predict].key


def test_a_preset_lies_beneath_the_jobs_own_words():
    made = plan(
        intermediate=["none", "squad_v1"],
        targets=["xnli"],
        seeds=[1],
        settings="phang2020_v1",
        train={"target": {"learning_rate": 7e-6}},
    )
    assert made.steps[made.cells[0].train].step.body.settings.learning_rate == 7e-6
    assert made.steps[made.cells[0].train].step.body.settings.effective_batch == 4
    phase_two = body_of(made, made.steps[made.cells[1].train].inputs["encoder"])
    assert (phase_two.settings.learning_rate, phase_two.settings.effective_batch) == (1e-5, 8)
    assert phase_two.selection.first == 500 and phase_two.settings.select is None


def test_a_suite_stands_for_its_targets():
    made = plan(intermediate=["none"], targets=[], suite="xtreme", languages=[], seeds=[1])
    names = {cell.target for cell in made.cells}
    assert names == set("xnli pawsx udpos panx xquad mlqa tydiqa bucc2018 tatoeba".split())
    romanian = plan(
        intermediate=["none"], targets=[], suite="xtreme", languages=[], seeds=[1], absent=["XQuAD.ro"]
    )
    assert romanian.missing == {}, "XTREME has no Romanian: that it is not there is nobody's loss"
    with pytest.raises(UnknownName, match="xtreme"):
        plan(targets=[], suite="xtrem")
    with pytest.raises(ValueError, match="not both"):
        plan(suite="xtreme")
