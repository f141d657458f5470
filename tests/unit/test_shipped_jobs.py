"""Every job file that comes with the project plans: whole, the same each time, nothing trained twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pandas
import pytest
from made_up_plan import Made

from xstilts import api
from xstilts.execute.sources import LocalSources
from xstilts.execute.state import survey
from xstilts.plan.expand import Chosen, expand
from xstilts.plan.graph import Plan
from xstilts.plan.settle import settled
from xstilts.plan.step import PredictBody, ScoreBody, TrainBody
from xstilts.record.local import LocalStore
from xstilts.report.published import published as papers
from xstilts.report.studies.strata import STRATA, by_suites
from xstilts.spec.load import load
from xstilts.tasks import kinds, registry, suites

REPO = Path(__file__).resolve().parents[2]
JOBS = sorted((REPO / "jobs").glob("*.yaml"))
NAMES = (
    "cluster_look first_look main_grid mini_encoder mlm_look quickstart search translated with_mlm xtreme_r"
)
STUDIES = sorted((REPO / "jobs/studies").glob("*.yaml"))
PARTS, SIZES = (64, 32, 16, 8, 4, 2, 1), ("base", "large", "xl", "xxl", "mbert")

DIGESTS = """
import json, pathlib, sys
from made_up_plan import Made
from xstilts.plan.expand import expand
from xstilts.spec.load import load
made = {path: expand(load(path).experiment, Made()) for path in sys.argv[1:]}
found = {pathlib.Path(path).stem: [plan.digest, *(each.key for each in plan)] for path, plan in made.items()}
print(json.dumps(found))
"""


def made_anew(name: str, chosen: Chosen | None = None) -> Plan:
    """The plan of a job where every data set and encoder is there."""
    folder = "jobs" if name in NAMES.split() else "jobs/studies"
    return expand(load(REPO / f"{folder}/{name}.yaml").experiment, Made(), chosen)


@cache
def plan_of(name: str) -> Plan:
    """The same, made once: the large ones take half a second."""
    return made_anew(name)


def test_there_are_no_others() -> None:
    assert [path.stem for path in JOBS] == NAMES.split()


@pytest.mark.parametrize("path", [*JOBS, *STUDIES], ids=lambda path: path.stem)
def test_every_cell_of_the_table_is_filled(path: Path) -> None:
    experiment = load(path).experiment
    assert experiment.name == path.stem and experiment.question.endswith("?")
    plan = plan_of(path.stem)
    meant = settled(experiment)
    wanted = {
        (row.label, target, seed)
        for row in meant.intermediate
        for target in meant.targets
        for seed in meant.seeds
    }
    assert {(cell.intermediate, cell.target, cell.seed) for cell in plan.cells} == wanted and wanted
    assert not plan.missing
    for cell in plan.cells:
        task = registry.task(cell.target)
        trained = cell.train is not None
        assert trained == bool(registry.fittings(task, experiment.evaluate.split))
        for label, kind in ((cell.train, "train"), (cell.predict, "predict"), (cell.score, "score")):
            assert label is None or plan.steps[label].kind == kind
        assert plan.steps[cell.score].inputs == {"predictions": cell.predict}
        if trained:
            assert plan.steps[cell.predict].inputs == {"model": cell.train}
    before: set[str] = set()
    for planned in plan:
        assert {*planned.inputs.values(), *planned.awaits} <= before, "a step comes before what it needs"
        before.add(planned.label)


@pytest.mark.parametrize("name", ["main_grid", "xtreme_r", "with_mlm", "translated"])
def test_a_suite_is_reported_in_all_its_languages(name: str) -> None:
    plan = plan_of(name)
    suite = suites.suite("xtreme-r" if name == "xtreme_r" else "xtreme")
    assert {cell.target for cell in plan.cells} == {*suite.tasks, *suite.also}
    for cell in plan.cells:
        task = registry.task(cell.target)
        wanted = set(suite.tasks[task.variant_of or task.name])
        for label in (cell.predict, cell.score):
            step = plan.steps[label].step
            assert step is not None and isinstance(step.body, PredictBody | ScoreBody)
            assert wanted <= {rows.language for rows in step.body.rows}, cell.target
            if kinds.of(task.family).as_it_is and task.family == "bitext_mining":
                assert {rows.split for rows in step.body.calibration} == {"dev"}


def test_a_plan_is_the_same_each_time_and_in_every_process() -> None:
    here = {path.stem: plan_of(path.stem) for path in JOBS}
    again = {path.stem: made_anew(path.stem).digest for path in JOBS}
    assert again == {name: plan.digest for name, plan in here.items()}
    places = os.pathsep.join(str(REPO / each) for each in ("platform", "tests/unit"))
    environment = {**os.environ, "PYTHONPATH": places, "PYTHONHASHSEED": "3"}
    words = [sys.executable, "-c", DIGESTS, *map(str, JOBS)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
    assert json.loads(done.stdout) == {
        name: [plan.digest, *(planned.key for planned in plan)] for name, plan in here.items()
    }
    assert len({plan.digest for plan in here.values()}) == len(here)


def test_main_grid_trains_nothing_twice(tmp_path: Path) -> None:
    """Counted by hand. Phase 2: ten trained rows x 3 seeds = 30, each needed by 9 targets. Phase 3: of the
    nine targets BUCC and Tatoeba train nothing, and XQuAD and MLQA are one training on SQuAD; so 6 trainings
    for each of 11 rows x 3 seeds = 198, where cell by cell it would be 7. Cell by cell there would be
    30 x 9 + 33 x 7 = 501 trainings; there are 228, and 273 are saved."""
    plan = plan_of("main_grid")
    trained = [planned.label for planned in plan if planned.kind == "train"]
    assert len(plan.cells) == 11 * 9 * 3 and len(trained) == 30 + 198
    totals = survey(plan, LocalStore(tmp_path / "store")).to_json()["totals"]
    assert totals["trainings_saved_by_sharing"] == 501 - 228 == 273
    chains = 0
    for cell in plan.cells:
        label = cell.train or plan.steps[cell.predict].inputs.get("model")
        while label is not None:
            chains += 1
            label = plan.steps[label].inputs.get("encoder")
    assert chains == 501
    squad = [cell.train for cell in plan.cells if cell.target in ("xquad", "mlqa")]
    assert len(squad) == 2 * 33 and len(set(squad)) == 33


def test_main_grid_is_the_papers() -> None:
    """Nine tasks and the mixture of all of them; settings as published, target phase apart from phase 2."""
    plan = plan_of("main_grid")
    bodies = [each.step.body for each in plan if each.step and isinstance(each.step.body, TrainBody)]
    (mixture, *others) = [body for body in bodies if body.mixing is not None]
    assert len(others) == 2 and mixture.mixing is not None
    mixed = {mixture.task.name, *(part.task.name for part in mixture.mixing.parts)}
    alone = {row for row in dict.fromkeys(cell.intermediate for cell in plan.cells)} - {"none", "all_nine"}
    assert mixed == alone and len(alone) == 9
    assert mixture.mixing.cap == 2**17 and mixture.mixing.mlm is None
    rates = {(body.encoder is None, body.settings.learning_rate) for body in bodies if body.seed == 1}
    assert {rate for later, rate in rates if later} == {3e-6}, "the target phase"
    assert {body.seed for body in bodies} == {1, 2, 3}


def trainings(name: str) -> set[str | None]:
    """Keys of what a job trains."""
    return {planned.key for planned in plan_of(name) if planned.kind == "train"}


def test_data_scaling_differs_in_the_share_of_the_rows_alone() -> None:
    """So that the encoder after `none` is trained once, and the whole data where main_grid trains them."""
    wanted = {f"data_scaling_{part}" for part in PARTS}
    made = {path.stem: load(path).experiment for path in STUDIES if path.stem in wanted}
    assert set(made) == wanted
    phases = {name: experiment.train.intermediate for name, experiment in made.items()}
    assert {name: phase.fraction for name, phase in phases.items()} == {
        f"data_scaling_{part}": 1 / part for part in PARTS
    }
    assert {phase.subset_seed for phase in phases.values()} == {0}, "nested"
    apart = {"name", "question", "train"}
    assert len({each.model_dump_json(exclude=apart) for each in made.values()}) == 1
    assert len({phase.model_dump_json(exclude={"fraction", "tasks"}) for phase in phases.values()}) == 1
    (shared,) = {frozenset(trainings("data_scaling_64") & trainings(f"data_scaling_{n}")) for n in PARTS[1:]}
    assert len(shared) == 4 * 3, "four trained targets after none, three seeds"
    assert trainings("data_scaling_1") <= trainings("main_grid")


def test_model_scaling_differs_in_the_encoder_alone() -> None:
    made = [load(REPO / f"jobs/studies/model_scaling_{size}.yaml").experiment for size in SIZES]
    assert (
        len({each.model_dump_json(exclude={"name", "question", "model", "execution"}) for each in made}) == 1
    )
    assert trainings("model_scaling_large") <= trainings("main_grid")
    assert all(each.model and each.model.name in papers.parameters() for each in made)


def test_the_other_studies_share_what_the_grids_train() -> None:
    assert trainings("similarity") <= trainings("main_grid")
    assert {planned.kind for planned in plan_of("similarity")} >= {"probe"}
    assert trainings("xtreme_r") <= trainings("persistence")


def test_persistence_has_every_stratum() -> None:
    read = [
        (body.task.name, rows.language)
        for planned in plan_of("persistence")
        if planned.step and isinstance(body := planned.step.body, ScoreBody)
        for rows in body.rows
    ]
    table = pandas.DataFrame(list(dict.fromkeys(read)), columns=["target", "language"])
    strata = by_suites(table, "xtreme", "xtreme-r")
    assert {place: sorted(set(table.target[strata == place])) for place in STRATA} == {
        "dropped tasks": ["bucc2018", "pawsx"],
        "old languages": ["mlqa", "panx", "tatoeba", "tydiqa", "udpos", "xnli", "xquad"],
        "new languages": ["panx", "tatoeba", "udpos", "xquad"],
        "new tasks": ["lareqa", "mewslix", "xcopa"],
    }


def test_a_search_decides_every_step_and_not_the_plans_name() -> None:
    before = plan_of("search")
    searches = [planned for planned in before if planned.kind == "search"]
    suite = suites.suite("xtreme").tasks
    trained = [name for name in suite if registry.fittings(registry.task(name), "test")]
    # XQuAD and MLQA are one training, so one search; of four rows three have a phase 2.
    assert len(searches) == 4 * (len(trained) - 1) + 3
    chosen: dict[str, dict[str, float]] = {}
    after = before
    for _ in range(4):  # phase 2, then the targets of the first row, then those that take it as a hint
        met = [planned for planned in after if planned.kind == "search" and planned.key is not None]
        chosen |= {str(planned.key): {"learning_rate": 1e-5, "epochs": 2} for planned in met}
        after = made_anew("search", chosen)
    assert after.digest == before.digest
    assert any(planned.awaits for planned in before) and not any(planned.awaits for planned in after)
    assert all(planned.key for planned in after)


def test_quickstart_needs_no_data() -> None:
    experiment = load(REPO / "jobs/quickstart.yaml").experiment
    assert len(expand(experiment, LocalSources(experiment, None)).cells) == 27


@pytest.mark.parametrize("name", ["first_look", "mini_encoder"])
def test_what_the_mirror_is_for_plans_on_it(mirror: Path, tmp_path: Path, name: str) -> None:
    plan = api.plan(api.open_job(REPO / f"jobs/{name}.yaml", str(tmp_path / "store"), str(mirror)))
    assert not plan.missing and plan.cells
