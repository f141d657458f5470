"""Studies of the generated world: what ships plans, and a shortened one is run and asked by the command."""

from __future__ import annotations

import json
from pathlib import Path

import pandas
import pytest
import yaml
from small_job import xstilts

from xstilts.execute.sources import LocalSources
from xstilts.plan.expand import expand
from xstilts.plan.graph import Plan
from xstilts.report.studies import catalogue
from xstilts.spec.load import load

STUDIED = Path(__file__).resolve().parents[2] / "jobs" / "studies"
WORLDS = sorted(STUDIED.glob("world_*.yaml"))
SPOKEN = ["w0", "w1", "w2", "w3", "w4", "v1", "v2", "v3", "v4"]
FILES = {"study.html", "study.svg", "study.png", "study.tex", "study.json", "ranks.csv", "concordance.csv"}


def plan_of(path: Path) -> Plan:
    """The plan of a job file, which needs nothing but itself."""
    experiment = load(path).experiment
    return expand(experiment, LocalSources(experiment, None))


def test_every_study_has_a_world() -> None:
    told = "\n".join(path.read_text() for path in WORLDS)
    assert all(f"xstilts study {name} jobs/studies/world_" in told for name in catalogue.STUDIES)


@pytest.mark.parametrize("path", WORLDS, ids=lambda path: path.stem)
def test_a_world_study_plans_whole(path: Path) -> None:
    experiment = load(path).experiment
    assert experiment.name == path.stem and experiment.question.endswith("?")
    first = path.read_text().partition("\nname:")[0]
    assert "xstilts study " in first and all(line.startswith("#") for line in first.splitlines())
    plan = plan_of(path)
    assert not plan.missing and "none" in {cell.intermediate for cell in plan.cells}
    assert not any(planned.awaits for planned in plan)


def test_subsets_of_the_data_are_one_chain_and_sizes_differ_in_width_alone() -> None:
    asked = [load(path).experiment for path in WORLDS if "data_scaling" in path.stem]
    phases = [each.train.intermediate for each in asked]
    assert (
        len({phase.fraction for phase in phases}) >= 4 and len({phase.subset_seed for phase in phases}) == 1
    )
    made = [load(path).experiment.pretrain for path in WORLDS if "model_scaling" in path.stem]
    assert len({spec.width for spec in made if spec}) >= 3
    assert len({spec.model_copy(update={"width": 0}) for spec in made if spec}) == 1


def test_studies_share_what_they_can() -> None:
    """All files together pretrain once a width, and the whole NLI phase once a seed."""
    every = {planned.key: planned for path in WORLDS for planned in plan_of(path)}
    assert sum(planned.kind == "pretrain" for planned in every.values()) == 3
    own = {planned.key for planned in plan_of(STUDIED / "world_model_scaling_96.yaml")}
    assert own <= {planned.key for planned in plan_of(STUDIED / "world_hierarchy.yaml")}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A job file and its store: world_hierarchy with little of everything, run."""
    folder = tmp_path_factory.mktemp("world")
    words = yaml.safe_load((STUDIED / "world_hierarchy.yaml").read_text())
    words |= {"languages": SPOKEN, "intermediate": words["intermediate"][:4], "seeds": [1, 2, 3]}
    words |= {"targets": ["world_tagging", "world_retrieval"]}
    words["pretrain"] |= {"languages": SPOKEN, "width": 32, "steps": 60, "sentences": 500, "vocabulary": 800}
    for task in (words["train"]["intermediate"], *words["train"]["intermediate"]["tasks"].values()):
        task["epochs"] = 0.1
    words["train"]["target"]["epochs"] = 1
    words["evaluate"] |= {"first": 40, "selection": {"first": 40}}
    path = folder / "world_hierarchy.yaml"
    path.write_text(yaml.safe_dump(words))
    done = xstilts("run", path, "--store", folder / "store")
    assert done.returncode == 0, done.stderr
    return path, folder / "store"


@pytest.mark.slow
def test_a_small_world_is_asked_for_its_hierarchy(ran: tuple[Path, Path], tmp_path: Path) -> None:
    job, store = ran
    done = xstilts("study", "hierarchy", job, "--store", store)
    assert done.returncode == 0, done.stderr
    folder = store / "jobs/world_hierarchy/studies/hierarchy"
    assert {path.name for path in folder.iterdir()} >= FILES
    assert all(path.stat().st_size for path in folder.iterdir())
    told = json.loads((folder / "study.json").read_text())
    assert " ".join(told["sentence"].split()) in " ".join(done.stdout.split())
    assert told["verdict"] in ("consistent", "not consistent", "cannot tell")
    counted = told["primary"]["n"]
    assert (counted["intermediate tasks"], counted["languages"], counted["families"]) == (3, 8, 2)
    assert counted["seeds"] == 3 and 0 < told["primary"]["p"] <= 1
    ranks = pandas.read_csv(folder / "ranks.csv")
    assert set(ranks.intermediate) == {"world_nli", "world_qa", "both"} and {"World", "World two"} <= {*ranks}
    assert r"\toprule" in (folder / "study.tex").read_text()
    assert "http://" not in (folder / "study.svg").read_text().replace("http://www.w3.org", "")


@pytest.mark.slow
def test_too_few_languages_are_refused_with_how_many_lack(ran: tuple[Path, Path], tmp_path: Path) -> None:
    job, store = ran
    groups = "by=near=w1+w2 far=v1+v2"
    done = xstilts("study", "hierarchy", job, "--store", store, "--to", tmp_path, "--set", groups)
    assert done.returncode == 1 and "in 3 ways only" in done.stderr and "21 ways" in done.stderr
    told = json.loads((tmp_path / "study.json").read_text())
    assert told["refused"] and told["primary"] is None and "p =" not in done.stdout
