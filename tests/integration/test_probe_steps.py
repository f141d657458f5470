"""A job of the generated world with probes, end to end: what is measured, and that nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas
import pytest
import yaml
from made_up_run import run
from small_job import SMALL, records

import made_mirror
from xstilts import api
from xstilts.report import frame
from xstilts.report.measures import averaged, measures

pytestmark = [pytest.mark.slow]

PROBE = {"sentences": 60, "samples": 60, "shots": [4, 8], "draws": 2}


def job_file(folder: Path, **changed: Any) -> Path:
    words = yaml.safe_load(SMALL)
    words |= {"seeds": [1], "intermediate": ["none", "untrained", "world_nli", "world_qa"]}
    words["pretrain"] |= {"steps": 30}
    words["train"]["intermediate"]["epochs"], words["train"]["target"]["epochs"] = 0.05, 0.5
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(words | changed))
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> api.Job:
    """The job with probes, run after the same job without them."""
    folder = tmp_path_factory.mktemp("probes")
    bare = api.open_job(job_file(folder), str(folder / "store"))
    result, _ = api.run(bare, live=False)
    assert result.complete
    before = set(records(folder / "store"))
    job = api.open_job(job_file(folder, probe=PROBE), str(folder / "store"))
    result, _ = api.run(job, live=True)
    assert result.complete and not result.failed
    ran = {result.survey.plan.steps[label].kind for label in result.ran}
    assert ran == {"probe"}, "models, predictions and scores of the job without probes are used"
    assert before < set(records(folder / "store"))
    return job


@pytest.fixture(scope="module")
def table(done: api.Job, tmp_path_factory: pytest.TempPathFactory) -> pandas.DataFrame:
    return measures(stored(done), done.store, tmp_path_factory.mktemp("scratch"))


def stored(job: api.Job) -> dict[str, Any]:
    """The plan as it lies in the store."""
    folder = Path(job.store.location, "jobs", "small")
    plans = [json.loads(path.read_bytes()) for path in folder.glob("plan-*.json")]
    (found,) = [plan for plan in plans if plan["experiment"]["probe"]]
    return dict(found)


def test_every_measure_is_there(table: pandas.DataFrame) -> None:
    rows = {"none", "untrained", "world_nli", "world_qa"}
    found = {name: mine for name, mine in table.groupby("measure")}
    assert set(found) == {
        *("cka", "cka_debiased", "retrieval", "vocabulary", "logme", "few_shot_4", "few_shot_8"),
        *("text_embedding", "task_embedding"),
    }
    for name in ("cka", "retrieval"):
        assert set(found[name].intermediate) == rows and set(found[name].language) == {"w1", "w5"}
        assert set(found[name].layer) == {0, 1, 2} and len(found[name]) == 4 * 2 * 3
    assert found["cka"].value.between(0, 1).all() and found["retrieval"].value.between(0, 100).all()
    assert found["vocabulary"].layer.isna().all()
    targets = {"world_paraphrase", "world_tagging"}
    assert set(found["logme"].target) == targets and set(found["logme"].intermediate) == rows
    pairs = {(one.intermediate, one.target) for one in found["task_embedding"].itertuples()}
    assert pairs == {(row, target) for row in ("world_nli", "world_qa") for target in targets}


def test_a_close_language_is_aligned_better_than_a_far_one(table: pandas.DataFrame) -> None:
    mean = averaged(table[table.intermediate == "none"]).set_index(["measure", "language"]).value
    for name in ("cka", "cka_debiased", "retrieval", "vocabulary"):
        assert mean[name, "w1"] > mean[name, "w5"], name


def test_the_same_texts_are_more_alike(table: pandas.DataFrame) -> None:
    """world_nli and world_paraphrase are pairs of sentences of one kind; world_tagging has single ones."""
    text = averaged(table[table.measure == "text_embedding"]).set_index(["intermediate", "target"]).value
    assert text["world_nli", "world_paraphrase"] > text["world_nli", "world_tagging"]


def test_cells_reports_and_views_are_what_they_were(done: api.Job) -> None:
    plan = stored(done)
    assert {cell["target"] for cell in plan["cells"]} == {
        *("world_paraphrase", "world_tagging", "world_retrieval"),
    }
    scores = frame.frame(plan, done.store)
    assert "missing" not in set(scores.status) and scores.key.str.startswith("score-").all()
    page = next(file for file in api.report(done).files if file.name == "report.html").read_text()
    assert "world_nli" in page and "probe-" not in page
    looked = api.look(done).to_json()
    assert {step["kind"] for step in looked["steps"] if step["state"] == "recorded"} >= {"probe", "score"}
    assert api.export_mlflow(done) > 0


def test_a_second_run_does_nothing(done: api.Job) -> None:
    again, _ = api.run(done, live=False)
    assert again.complete and not again.ran


def test_another_way_of_measuring_runs_that_alone(done: api.Job) -> None:
    folder = Path(done.store.location).parent / "more"
    folder.mkdir()
    more = api.open_job(job_file(folder, probe=PROBE | {"shots": [4]}), done.store.location)
    left = api.look(more).to_run
    assert {planned.kind for planned in left} == {"probe"}
    assert {planned.label.split("-")[1] for planned in left} == {"fit"}


def test_published_tasks_of_every_kind_are_measured(tmp_path: Path) -> None:
    """On made-up rows in the published formats: choices, open labels, answers, pairs, documents."""
    data = made_mirror.make(tmp_path / "mirror", rows=12)
    made_mirror.encoder(data)
    done = run(
        tmp_path / "run",
        data,
        intermediate=["none", "ccg", "siqa", {"mix": ["mnli", "squad_v1"]}],
        targets=["xnli", "xquad", "udpos", "lareqa", "tatoeba"],
        languages=["en", "de"],
        probe={"parallel": "xnli", "sentences": 10, "samples": 10, "shots": [1], "draws": 2},
    )
    assert done.result.complete
    plan = done.result.survey.to_json() | {"model": "made"}
    table = measures(plan, done.job.store, tmp_path / "scratch")
    pairs = {(one.intermediate, one.target) for one in table[table.measure == "task_embedding"].itertuples()}
    assert pairs == {(row, target) for row in ("ccg", "siqa") for target in ("xnli", "xquad", "udpos")}
    text = table[table.measure == "text_embedding"]
    assert set(text.intermediate) == {"ccg", "siqa", "mnli+squad_v1"} and "lareqa" in set(text.target)
    assert set(table[table.measure == "logme"].target) == {"xnli", "xquad", "udpos"}
    assert set(table[table.measure == "cka"].language) == {"de"}
