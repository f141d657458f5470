"""Searches on real workers: the same whatever their number, killed, pruned, failing, stopped, found again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from search_kit import job, plan_of, run, tables
from small_job import environment, records

from xstilts.execute.site import Site
from xstilts.record.artifacts import StepPaths
from xstilts.spec.experiment import ExecutionSpec
from xstilts.train.loop import Interrupted

pytestmark = [pytest.mark.slow, pytest.mark.cluster]

Crew = Callable[..., tuple[Any, ...]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from xstilts.execute.cluster import LocalRay

    local = LocalRay(2)
    yield local.ray
    local.close()


@pytest.fixture
def crew(cluster: Any) -> Iterator[Crew]:
    """Makes workers that are gone after the test."""
    from xstilts.execute.workers import THREADS, Worker

    made: list[Any] = []

    def hire(store: Path, count: int, **words: Any) -> tuple[Any, ...]:
        spec = ExecutionSpec(backend="inline", threads=1, checkpoint_seconds=0.5, **words)
        remote = cluster.remote(num_cpus=0, max_concurrency=THREADS, max_restarts=-1)(Worker)
        made.extend(remote.remote(Site(str(store), None, spec)) for _ in range(count))
        return tuple(made[-count:])

    yield hire
    for each in made:
        cluster.kill(each)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the encoder that every job here starts from."""
    store = tmp_path_factory.mktemp("begun") / "store"
    run(job(store.parent), store, kinds=("pretrain",))
    return store


def store_in(folder: Path, begun: Path) -> Path:
    return Path(shutil.copytree(begun, folder / "store"))


def long_job(folder: Path) -> Path:
    """Two trials at once, each long enough to be met at work."""
    changes = (("epochs: 2,", "epochs: 40,"),)
    return job(folder, trials=2, concurrent=2, changes=changes, epochs=[40])


def trains(store: Path) -> bool:
    """Whether a trial has a checkpoint."""
    return any((store / "steps").glob("train-*/runs/*/checkpoints/*/state.json"))


def attempts(store: Path) -> dict[str, list[str]]:
    """Key -> attempts that left anything."""
    return {
        step.name: sorted({path.name for path in (step / "runs").glob("*")})
        for step in (store / "steps").iterdir()
    }


def test_crews_of_one_and_two_choose_the_same(begun: Path, tmp_path: Path, crew: Crew) -> None:
    """Two rows x two targets, phase 2 searched too; all trials are found again by a job with more of them."""
    found = []
    path = job(tmp_path, "none, world_nli", "world_paraphrase, world_tagging", trials=3, concurrent=2)
    for count in (1, 2):
        store = store_in(tmp_path / str(count), begun)
        run(path, store, crew(store, count), kinds=("search", "train"))
        found.append(tables(path, store))
    assert found[0] == found[1] and len(found[0]) == 5
    for label, (chosen, trials) in found[0].items():
        assert len(trials) == 3 and {trial["state"] for trial in trials} == {"finished"}
        assert trials[0]["learning_rate"] == 1e-3, "the job's own settings"
        best = max(trials, key=lambda trial: trial["value"])
        assert chosen == {name: best[name] for name in chosen}
        if label.endswith("-hinted"):
            first = next(each for each in found[0] if each.split("-")[1] == label.split("-")[1] != label)
            hint = found[0][first][0]
            second = {name: trials[1][name] for name in hint}
            own = {name: trials[0][name] for name in hint}
            assert second == hint or hint == own, "what the first row chose comes next"
    made = plan_of(path, store)
    assert all(planned.key for planned in made)
    finals = {planned.key for planned in made if planned.kind == "train"}
    phase_two = next(
        trials for label, (_, trials) in found[0].items() if label.startswith("search-world_nli")
    )
    assert len({trial["key"] for trial in phase_two} & finals) == 1, "the chosen trial is that model itself"

    ran = attempts(store)
    more = job(tmp_path / "more", "none", "world_tagging", trials=4, concurrent=2)
    run(more, store, crew(store, 1), kinds=("search",))
    (_, trials), *others = tables(more, store).values()
    assert not others and len(trials) == 4 and {len(each) for each in attempts(store).values()} <= {0, 1}
    assert [trial["key"] in ran for trial in trials] == [True, True, True, False]


def test_a_killed_search_goes_on_and_runs_nothing_twice(begun: Path, tmp_path: Path, crew: Crew) -> None:
    path = job(tmp_path, trials=5, concurrent=2, prune="asha")
    undisturbed = store_in(tmp_path / "undisturbed", begun)
    run(path, undisturbed, crew(undisturbed, 2), kinds=("search",))

    store = store_in(tmp_path / "killed", begun)
    (search,) = (planned.key for planned in plan_of(path, store) if planned.kind == "search")
    kit = [sys.executable, str(Path(__file__).with_name("search_kit.py")), str(path), str(store)]
    driver = subprocess.Popen(kit, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        family = wait_for_trials(store / "steps" / str(search) / "trials", 3, driver)
        driver.kill()
    finally:
        driver.kill()
        driver.wait()
    end(family)
    kept = {key: record["attempt"] for key, record in records(store).items() if key.startswith("train-")}
    assert len(kept) >= 3 and not (store / "steps" / str(search) / "record.json").exists()

    run(path, store, crew(store, 2), kinds=("search",))
    assert tables(path, store) == tables(path, undisturbed)
    again = {key: record["attempt"] for key, record in records(store).items()}
    assert {key: again[key] for key in kept} == kept


def wait_for_trials(folder: Path, count: int, driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """Until so many have ended; the processes that the driver has started by then."""
    for _ in range(1200):
        assert driver.poll() is None, "it ended before it could be killed"
        if len(list(folder.glob("*.json"))) >= count:
            return psutil.Process(driver.pid).children(recursive=True)
        time.sleep(0.1)
    raise AssertionError("no trial has ended")


def end(family: list[psutil.Process]) -> None:
    """Ray's processes notice by themselves that the driver is gone; what has not after 20 s is ended."""
    _, alive = psutil.wait_procs(family, timeout=20)
    for process in alive:
        process.kill()


def test_pruned_trials_leave_a_curve_and_nothing_else(begun: Path, tmp_path: Path, crew: Crew) -> None:
    path = job(
        tmp_path, trials=10, concurrent=5, prune="asha",
        learning_rate={"low": 1e-5, "high": 1e-2}, changes=(("epochs: 2,", "epochs: 20,"),), epochs=[12, 20],
    )  # fmt: skip
    store = store_in(tmp_path / "store", begun)
    run(path, store, crew(store, 2), kinds=("search",))
    ((chosen, trials),) = tables(path, store).values()
    states = [trial["state"] for trial in trials]
    assert states[:5] == ["finished"] * 5 and "pruned" in states[5:], (
        "a first round has nothing to be worse than"
    )
    for trial in trials:
        left = sorted(path.name for path in (store / "steps" / trial["key"]).rglob("*") if path.is_file())
        if trial["state"] == "pruned" and "record.json" not in left:
            assert trial["value"] is None and trial["rungs"]
            assert left == [], "of its attempts"
        else:
            assert [share for share, _ in trial["rungs"]] == [0.25, 0.5]
    assert chosen["learning_rate"] == max(
        (trial for trial in trials if trial["value"] is not None), key=lambda trial: trial["value"]
    )["learning_rate"]  # fmt: skip


def test_settings_that_diverge_are_told_as_failures(begun: Path, tmp_path: Path, crew: Crew) -> None:
    path = job(tmp_path, trials=6, concurrent=3, learning_rate={"low": 1e-3, "high": 1e36})
    store = store_in(tmp_path / "store", begun)
    run(path, store, crew(store, 2), kinds=("search",))
    ((chosen, trials),) = tables(path, store).values()
    failed = [trial for trial in trials if trial["state"] == "failed"]
    assert failed and all(trial["value"] is None and "not finite" in trial["why"] for trial in failed)
    assert chosen["learning_rate"] < min(trial["learning_rate"] for trial in failed)
    there = Site(str(store), None, ExecutionSpec()).open_store()
    for trial in failed:
        assert not list(there.list(StepPaths(trial["key"]).runs)), "no checkpoint nobody will read"
        assert list(there.list(StepPaths(trial["key"]).attempts)), "why it failed stays"


def follower() -> int:
    """A light process of Tune's that follows a trial."""
    titles = {each.pid: " ".join(each.cmdline()) for each in psutil.Process().children(recursive=True)}
    return next(pid for pid, title in titles.items() if title.startswith("ray::") and ".train" in title)


def test_a_lost_process_of_tunes_and_a_worker_that_never_gets_a_place(
    begun: Path, tmp_path: Path, crew: Crew, cluster: Any
) -> None:
    """Another process follows the trial; the one worker that has a place does all."""
    path = long_job(tmp_path)
    undisturbed = store_in(tmp_path / "undisturbed", begun)
    run(path, undisturbed, crew(undisturbed, 1), kinds=("search",))
    store = store_in(tmp_path / "disturbed", begun)
    from xstilts.execute.workers import Worker

    site = Site(str(store), None, ExecutionSpec(backend="inline", threads=1))
    nowhere = cluster.remote(num_cpus=0, resources={"nothing": 1}, max_restarts=-1)(Worker).remote(site)
    killed: list[int] = []

    def should_stop() -> bool:
        if not killed and trains(store):
            killed.append(follower())
            os.kill(killed[0], 9)
        return False

    try:
        run(path, store, (nowhere, *crew(store, 1)), should_stop, kinds=("search",))
    finally:
        cluster.kill(nowhere)
    assert killed and tables(path, store) == tables(path, undisturbed)


def test_trials_of_several_processes(begun: Path, tmp_path: Path, crew: Crew) -> None:
    """Two trials at once want two processes each, where there is room for two: one after the other."""
    path = job(tmp_path, trials=2, concurrent=2)
    alone, sharded = store_in(tmp_path / "alone", begun), store_in(tmp_path / "sharded", begun)
    run(path, alone, crew(alone, 1), kinds=("search",))
    hired = crew(sharded, 2, ranks=2, shard=True, device="cpu")
    run(path, sharded, hired, kinds=("search",), engine="ray_train")
    for trial, other in zip(
        *(next(iter(tables(path, store).values()))[1] for store in (alone, sharded)), strict=True
    ):
        assert trial["learning_rate"] == other["learning_rate"] and trial["key"] == other["key"]
        assert abs(trial["value"] - other["value"]) < 3, "points, where one word in 150 is 0.7"
    made = [record for key, record in records(sharded).items() if key.startswith("train-")]
    assert [record["layout"]["workers"] for record in made] == [2, 2]


def test_a_stopped_search_ends_soon_and_goes_on(begun: Path, tmp_path: Path, crew: Crew) -> None:
    """The first round is stopped while it trains; each trial then goes on from its checkpoint."""
    path = long_job(tmp_path)
    store = store_in(tmp_path / "store", begun)
    hired = crew(store, 2)
    begin = time.monotonic()

    def should_stop() -> bool:
        return trains(store)

    with pytest.raises(Interrupted, match="stopped after 0 of 2 trials"):
        run(path, store, hired, should_stop, kinds=("search",))
    assert time.monotonic() - begin < 60
    run(path, store, hired, kinds=("search",))
    ((_, trials),) = tables(path, store).values()
    resumed = [records(store)[trial["key"]]["result"]["resumed_at"] for trial in trials]
    assert max(resumed) > 0, "from a checkpoint"


def test_a_worker_that_is_killed_costs_no_trial(
    begun: Path, tmp_path: Path, crew: Crew, cluster: Any
) -> None:
    path = long_job(tmp_path)
    undisturbed = store_in(tmp_path / "undisturbed", begun)
    run(path, undisturbed, crew(undisturbed, 2), kinds=("search",))
    store = store_in(tmp_path / "disturbed", begun)
    hired = crew(store, 2)
    killed: list[int] = []

    def should_stop() -> bool:
        """Asked again and again while a round runs: a place from which to kill."""
        if not killed and trains(store):
            killed.append(cluster.get(hired[0].news.remote()).place.pid)
            os.kill(killed[0], 9)
        return False

    run(path, store, hired, should_stop, kinds=("search",))
    assert killed and tables(path, store) == tables(path, undisturbed)
