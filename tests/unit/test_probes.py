"""Which probe steps a job has, and what its table of measures is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow
import pytest
from made_up_job import QuickStore
from made_up_plan import JOB, labels, plan
from pyarrow import parquet

from xstilts.errors import JobFileError, StoreError, UnknownName
from xstilts.execute.state import survey
from xstilts.plan.graph import Plan
from xstilts.plan.needs import of_job
from xstilts.plan.step import ProbeBody
from xstilts.record.artifacts import StepPaths
from xstilts.record.schema import Output, StepRecord
from xstilts.report.measures import COLUMNS, averaged, measures
from xstilts.spec.experiment import Experiment

ALL: dict[str, Any] = {"probe": {}}
SEEDS = 2


def bodies(made: Plan, what: str) -> dict[str, ProbeBody]:
    """The bodies of one kind of probe, by label."""
    found = {each.label: each.step.body for each in made if each.kind == "probe" and each.step}
    return {label: body for label, body in found.items() if isinstance(body, ProbeBody) and body.what == what}


def test_a_job_without_probes_is_what_it_was() -> None:
    before, after = plan(), plan(**ALL)
    assert not labels(before, "probe") and not before.probed
    others = [each for each in after if each.kind != "probe"]
    assert {each.label: each.key for each in others} == {each.label: each.key for each in before}
    assert after.cells == before.cells and after.digest != before.digest
    assert plan(probe=None).digest == before.digest
    assert "probe" not in Experiment.model_validate(JOB).to_identity()


def test_every_encoder_is_aligned_once() -> None:
    found = bodies(plan(**ALL), "alignment")
    # Pretrained, and two intermediate tasks with two seeds each.
    assert len(found) == 1 + 2 * SEEDS
    body = next(iter(found.values()))
    assert body.task.name == "tatoeba" and [rows.language for rows in body.rows] == ["de"]
    assert body.source is None and body.measures == ("cka", "retrieval", "vocabulary")
    assert body.encoder is not None and body.encoder.name == "made/encoder"


def test_other_translations_stand_beside_the_source_language() -> None:
    made = plan(probe={"parallel": "xnli", "measures": ["cka"], "layers": [-1, 0, 0], "sentences": 9})
    (body, *_) = bodies(made, "alignment").values()
    assert body.source is not None and (body.source.language, body.source.split) == ("en", "validation")
    assert [rows.language for rows in body.rows] == ["de"]
    assert (body.layers, body.samples) == ((-1, 0), 9)
    assert not bodies(made, "fit") and not bodies(made, "text") and not bodies(made, "gradients")


def test_targets_that_train_on_one_task_share_their_probes() -> None:
    made = plan(**ALL, targets=["xquad", "mlqa", "xnli", "tatoeba"])
    tasks = {body.task.name for body in bodies(made, "fit").values()}
    assert tasks == {"squad_v1", "mnli"} and len(bodies(made, "fit")) == 2 * (1 + 2 * SEEDS)
    one = {each.step for each in made.probed if each.what == "fit" and each.target == "xquad"}
    assert one == {each.step for each in made.probed if each.what == "fit" and each.target == "mlqa"}
    fit = next(iter(bodies(made, "fit").values()))
    assert (fit.shots, fit.draws, fit.samples) == ((16, 64), 5, 1_000)


def test_texts_are_read_by_the_pretrained_encoder_and_gradients_by_trained_models() -> None:
    made = plan(**ALL)
    texts = [made.steps[label] for label in bodies(made, "text")]
    assert {each.step.body.task.name for each in texts if each.step} == {"squad_v1", "mnli", "udpos"}
    assert all(not each.inputs for each in texts)
    trained = [made.steps[label].inputs["model"] for label in bodies(made, "gradients")]
    # Phase 2 of squad_v1 and mnli; udpos, squad_v1 and mnli as targets, at another learning rate.
    assert len(trained) == 5 * SEEDS and all("after" not in label for label in trained)


def test_untrained_checkpoints_and_mixtures_have_what_they_can_have() -> None:
    rows = ["none", "untrained", {"checkpoint": {"name": "my/model"}}, {"mix": ["mnli", "squad_v1", "mlm"]}]
    made = plan(intermediate=rows, seeds=[7], probe={}, targets=["udpos", "tatoeba"])
    align = bodies(made, "alignment")
    assert sorted(body.untrained_seed or 0 for body in align.values()) == [0, 0, 0, 7]
    assert sum("-after-checkpoint-" in label for label in align) == 1
    told = {(each.intermediate, each.what) for each in made.probed if each.intermediate}
    assert ("mlm+mnli+squad_v1", "text") in told and ("mlm+mnli+squad_v1", "gradients") not in told
    mixed = [each for each in made.probed if each.what == "text" and each.intermediate]
    assert len(mixed) == 2, "mnli and squad_v1; mlm has no texts of its own"


def test_without_translations_into_these_languages_the_rest_is_measured() -> None:
    made = plan(**ALL, targets=["udpos", "xnli"], languages=["en"])
    assert bodies(made, "fit") and {body.task.name for body in bodies(made, "alignment").values()} == set()


def test_probes_await_a_search() -> None:
    search = {"trials": 4, "learning_rate": {"low": 1e-6, "high": 1e-4}, "epochs": [1, 2]}
    made = plan(search=search, probe={}, intermediate=["none", "mnli"], targets=["udpos", "tatoeba"])
    waiting = [each for each in made if each.kind == "probe" and each.key is None]
    assert waiting and all(each.awaits for each in waiting)


def test_languages_without_rows_are_named() -> None:
    made = plan(probe={"measures": ["retrieval"]}, languages=["de", "fr"], absent=["tatoeba.fra"])
    assert made.missing["probe-tatoeba", "fr"] == "there is no tatoeba.fra"
    (body, *_) = bodies(made, "alignment").values()
    assert [rows.language for rows in body.rows] == ["de"]


@pytest.mark.parametrize(
    ("changed", "where", "said"),
    [
        ({"probe": {"parallel": "udpos"}}, ("probe", "parallel"), "translations"),
        ({"probe": {"parallel": "tatoebaa"}}, ("probe", "parallel"), "did you mean 'tatoeba'?"),
        ({"probe": {"measures": ["cka"]}, "targets": ["udpos"]}, ("probe", "parallel"), "tatoeba or xnli"),
        (
            {"probe": {"measures": ["task_embedding"]}, "intermediate": ["mnli"]},
            ("probe", "measures"),
            "add the row none",
        ),
        (
            {"probe": {"measures": ["logme"]}, "targets": ["tatoeba"], "languages": []},
            ("probe",),
            "nothing to",
        ),
        (
            {"probe": {"parallel": "pawsx"}, "targets": ["udpos"], "languages": ["en"]},
            ("probe", "parallel"),
            "it has de en es",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(changed: dict[str, Any], where: Any, said: str) -> None:
    with pytest.raises((UnknownName, JobFileError)) as caught:
        plan(**changed)
    assert caught.value.where == where and said in str(caught.value)


def test_data_are_pulled_for_probes_too() -> None:
    job = Experiment.model_validate(JOB | {"probe": {"parallel": "pawsx"}})
    assert "google-research-datasets/paws-x" in {split.path for split in of_job(job, lambda path: ()).splits}


def filled(folder: Path, **changed: Any) -> tuple[dict[str, Any], QuickStore]:
    """A stored plan and records of its probe steps: vectors are random, by label."""
    made = plan(**{"probe": {}, "seeds": [1, 2], "targets": ["udpos", "xnli", "tatoeba"], **changed})
    store = QuickStore(folder / "store")
    for planned in made:
        if planned.kind != "probe" or planned.step is None:
            continue
        body = planned.step.body
        assert isinstance(body, ProbeBody)
        rng = numpy.random.default_rng(len(planned.label))
        rows: list[dict[str, Any]] = []
        if body.what == "alignment":
            rows = [row("cka", layer, "de", body, layer / 10) for layer in (0, 1, 2)]
        elif body.what == "fit":
            rows = [row("logme", 2, "en", body, float(rng.random()))]
        files = {
            "measures": pyarrow.Table.from_pylist(rows or [row("x", 0, "", body, 0.0)]).slice(0, len(rows))
        }
        if body.what in ("text", "gradients"):
            vectors = [[1.0, 2.0, 0.0], [0.0, float(len(body.task.name)), 1.0]]
            files["embedding"] = pyarrow.table({"layer": [0, 1], "vector": vectors, "n": [9, 9]})
        outputs = {}
        for name, table in files.items():
            path = f"runs/a1/{name}.parquet"
            buffer = pyarrow.BufferOutputStream()
            parquet.write_table(table, buffer)
            store.put(f"{StepPaths(planned.step.key).root}/{path}", buffer.getvalue().to_pybytes())
            outputs[name] = Output(path=path, bytes=1, sha256="0" * 64)
        record = StepRecord(
            key=planned.step.key, kind="probe", version=1, identity={}, outputs=outputs, attempt="a1",
            finished="2026-01-01T00:00:00+00:00",
        )  # fmt: skip
        store.create(StepPaths(planned.step.key).record, record.to_json())
    return survey(made, store).to_json() | {"model": made.model}, store


def row(measure: str, layer: int, language: str, body: ProbeBody, value: float) -> dict[str, Any]:
    words = {"measure": measure, "layer": layer, "language": language, "task": body.task.name}
    return {**words, "value": value, "n": 9}


@pytest.fixture
def table(tmp_path: Path) -> pandas.DataFrame:
    stored, store = filled(tmp_path)
    return measures(stored, store, tmp_path / "scratch")


def test_the_table_says_whose_each_measure_is(table: pandas.DataFrame) -> None:
    assert list(table.columns) == COLUMNS and set(table.model) == {"made/encoder"}
    cka = table[table.measure == "cka"]
    assert set(cka.target) == {""} and set(cka.language) == {"de"}
    assert len(cka) == 3 * (1 + 2 * SEEDS), "three layers of the pretrained encoder and of four others"
    assert cka[cka.intermediate == "none"].seed.isna().all(), "one step serves all seeds"
    assert set(cka[cka.intermediate == "mnli"].seed) == {1, 2}
    logme = table[table.measure == "logme"]
    assert set(logme.target) == {"udpos", "xnli"} and set(logme.language) == {""}
    assert set(logme.intermediate) == {"none", "squad_v1", "mnli"}


def test_similarity_is_of_pairs(table: pandas.DataFrame) -> None:
    text = table[table.measure == "text_embedding"]
    assert {(one.intermediate, one.target) for one in text.itertuples()} == {
        (row, target) for row in ("mnli", "squad_v1") for target in ("udpos", "xnli")
    }
    assert text.seed.isna().all() and set(text.n) == {9}
    same = text[(text.intermediate == "mnli") & (text.target == "xnli")]
    assert list(same.value) == pytest.approx([1.0, 1.0]), "xnli trains on mnli"
    other = text[(text.intermediate == "mnli") & (text.target == "udpos") & (text.layer == 1)]
    assert other.value.item() == pytest.approx((4 * 5 + 1) / (17 * 26) ** 0.5)
    task = table[table.measure == "task_embedding"]
    assert len(task) == 2 * 2 * 2 * SEEDS, "pairs and layers, each with models of its own seed"
    for one in task.itertuples():
        assert all(f"-s{one.seed}--" in key for key in one.key.split()), one.key


def test_layers_are_averaged_or_one_is_chosen(table: pandas.DataFrame) -> None:
    mean = averaged(table)
    assert mean[mean.measure == "cka"].value.unique() == pytest.approx([0.1])
    assert len(mean[mean.measure == "cka"]) == 1 + 2 * SEEDS
    top = averaged(table, layer=2)
    assert top[top.measure == "cka"].value.unique() == pytest.approx([0.2])
    assert len(top[top.measure == "logme"]) == len(table[table.measure == "logme"])


def test_jobs_without_probes_and_unfinished_ones_have_fewer_rows(tmp_path: Path) -> None:
    stored, store = filled(tmp_path)
    empty = QuickStore(tmp_path / "other")
    assert (
        list(measures(stored, empty, tmp_path).columns) == COLUMNS and measures(stored, empty, tmp_path).empty
    )
    del stored["probed"]  # as plans were stored before
    assert measures(stored, store, tmp_path).empty


def test_a_lost_file_is_told(tmp_path: Path) -> None:
    stored, store = filled(tmp_path)
    key = next(step["key"] for step in stored["steps"] if step["label"].startswith("probe-text-"))
    (Path(store.location) / f"steps/{key}/runs/a1/embedding.parquet").unlink()
    with pytest.raises(StoreError, match=key):
        measures(stored, store, tmp_path / "scratch")
