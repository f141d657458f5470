"""The main job end to end: plan, run, run again, report; inline and on Ray; killed, interrupted, resumed."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from small_job import COMMAND, REPO, SMALL, environment, records, xstilts

from end_state import results

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def inline(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The job file, and a store on which it ran once, in one process, undisturbed."""
    folder = tmp_path_factory.mktemp("inline")
    job = folder / "small.yaml"
    job.write_text(SMALL)
    done = xstilts("run", job, "--store", folder / "store")
    assert done.returncode == 0, done.stderr
    return job, folder / "store"


def test_every_cell_is_scored_in_every_language(inline: tuple[Path, Path]) -> None:
    job, store = inline
    done = xstilts("results", job, "--store", store)
    lines = done.stdout.splitlines()
    assert lines[0].startswith("job,suite,model,intermediate,target,language")
    scored = {tuple(line.split(",")[3:6]) for line in lines[1:]}
    rows, targets = ("none", "world_nli"), ("world_paraphrase", "world_tagging")
    assert scored >= {
        (row, target, code) for row in rows for target in targets for code in ("w0", "w1", "w5")
    }
    assert scored >= {(row, "world_retrieval", code) for row in rows for code in ("w1", "w5")}
    assert ",missing" not in done.stdout


def test_records_keep_the_contract(inline: tuple[Path, Path]) -> None:
    for key, record in records(inline[1]).items():
        assert record["schema"] == 1 and record["key"] == key
        assert set(record["seconds"]) == {"wait", "load", "compute", "save"}
        folder = inline[1] / "steps" / key
        for output in record["outputs"].values():
            assert output["path"].startswith(f"runs/{record['attempt']}/")
            assert (folder / output["path"]).stat().st_size == output["bytes"]


def test_a_second_run_does_nothing_and_says_so(inline: tuple[Path, Path]) -> None:
    job, store = inline
    before = {path: path.stat().st_mtime_ns for path in store.glob("steps/**/*") if path.is_file()}
    done = xstilts("run", job, "--store", store)
    assert done.returncode == 0 and "nothing to do" in done.stdout
    after = {path: path.stat().st_mtime_ns for path in store.glob("steps/**/*") if path.is_file()}
    assert after == before


def test_the_plan_says_what_a_changed_setting_costs(inline: tuple[Path, Path], tmp_path: Path) -> None:
    _, store = inline
    job = tmp_path / "small.yaml"
    job.write_text(SMALL.replace("target: {learning_rate: 1.0e-3", "target: {learning_rate: 2.0e-3"))
    begin = time.monotonic()
    done = xstilts("plan", job, "--store", store)
    assert time.monotonic() - begin < 5  # 0.3 s on a quiet machine; the "well under a second"
    assert "8 train    settings.learning_rate: 0.001 -> 0.002" in done.stdout
    assert "pretrain      1         1       0" in done.stdout


def test_no_ml_library_is_imported_to_plan(inline: tuple[Path, Path]) -> None:
    job, store = inline
    heavy = "torch transformers datasets ray mlflow boto3 pandas scipy"
    code = (
        "import sys; from xstilts import api\n"
        f"api.look(api.open_job({str(job)!r}, {str(store)!r}))\n"
        f"print([name for name in {heavy!r}.split() if name in sys.modules])"
    )
    command = [COMMAND[0], "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.strip() == "[]"


def test_the_report_is_one_page_that_asks_nothing_of_the_network(inline: tuple[Path, Path]) -> None:
    page = (inline[1] / "jobs/small/report/report.html").read_text()
    assert "world_nli" in page and 'src="http' not in page and 'href="http' not in page


def test_mlflow_has_the_runs_and_export_makes_no_second_ones(inline: tuple[Path, Path]) -> None:
    import mlflow

    job, store = inline
    uri = f"sqlite:///{store / 'mlflow.db'}"
    client = mlflow.MlflowClient(uri)
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None

    def runs() -> list[Any]:
        return list(client.search_runs([experiment.experiment_id], max_results=500))

    before = {run.info.run_id for run in runs()}
    kinds = [run.data.tags.get("kind") for run in runs()]
    assert kinds.count("train") == 10 and kinds.count("pretrain") == 1
    assert xstilts("export", "mlflow", job, "--store", store).returncode == 0
    assert {run.info.run_id for run in runs()} == before


@pytest.fixture(scope="module")
def on_ray(inline: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store on which the same job ran on a local Ray."""
    store = tmp_path_factory.mktemp("ray") / "store"
    done = xstilts("run", inline[0], "--store", store, "--backend", "ray")
    assert done.returncode == 0, done.stderr
    return store


@pytest.mark.cluster
def test_warm_ray_workers_give_the_same_bits_as_one_process(inline: tuple[Path, Path], on_ray: Path) -> None:
    assert results(records(on_ray)) == results(records(inline[1]))


@pytest.mark.cluster
@pytest.mark.parametrize("backend", ["inline", "ray"])
def test_a_killed_driver_costs_no_finished_step_and_no_digit(
    inline: tuple[Path, Path], tmp_path: Path, backend: str
) -> None:
    store = tmp_path / "store"
    driver = _start("run", inline[0], "--store", store, "--backend", backend)
    _wait(lambda: len(_records_of(store, "train-")) >= 2, driver)
    started = _descendants(driver)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    finished = {key: record["attempt"] for key, record in records(store).items()}
    assert 0 < len(finished) < len(records(inline[1]))
    _wait(lambda: not any(_alive(process) for process in started), None)

    again = xstilts("run", inline[0], "--store", store, "--backend", backend)
    assert again.returncode == 0, again.stderr
    found = records(store)
    assert {key: found[key]["attempt"] for key in finished} == finished, "a finished step was repeated"
    assert results(found) == results(records(inline[1]))


@pytest.mark.cluster
@pytest.mark.parametrize("backend", ["inline", "ray"])
def test_ctrl_c_leaves_a_checkpoint_and_130(tmp_path: Path, backend: str) -> None:
    job, store = tmp_path / "small.yaml", tmp_path / "store"
    job.write_text(_only_pretraining(SMALL.replace("steps: 60", "steps: 1500")))
    driver = _start("run", job, "--store", store, "--backend", backend)
    _wait(lambda: any(store.glob("steps/pretrain-*/runs/*/checkpoints/*/state.json")), driver)
    started = _descendants(driver)
    driver.send_signal(signal.SIGINT)
    _, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130, errors
    assert "interrupted" in errors
    _wait(lambda: not any(_alive(process) for process in started), None)
    assert not records(store)

    again = xstilts("run", job, "--store", store, "--backend", backend)
    assert again.returncode == 0, again.stderr
    (record,) = records(store).values()
    assert 0 < record["result"]["resumed_at"] < 1500
    assert f"resumed at step {record['result']['resumed_at']}" in again.stdout


def test_first_look_runs_on_real_data(mirror: Path, tmp_path: Path) -> None:
    """The shipped job, shortened: one seed, three languages, a few dozen rows of each task."""
    text = (REPO / "jobs/first_look.yaml").read_text()
    for old, new in (
        ("seeds: [1, 2, 3]", "seeds: [1]"),
        (
            "languages: [en, de, es, fr, nl, it, pt, ru, tr, fi, id, sw, ar, el, hi, vi]",
            "languages: [en, de, ru]",
        ),
        ("first: 250 ", "first: 24 "),
        ("selection: {first: 200}", "selection: {first: 24}"),
        ("epochs: 1\n", "epochs: 0.05\n"),
        ("workers: 2, threads: 1", "workers: 1, threads: 1, backend: inline"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    job = tmp_path / "first_look.yaml"
    job.write_text(text)
    done = xstilts("run", job, "--store", tmp_path / "store", "--data", mirror)
    assert done.returncode == 0, done.stderr
    table = xstilts("results", job, "--store", tmp_path / "store", "--data", mirror).stdout
    for target in ("udpos", "panx", "xnli", "xquad", "tatoeba"):
        for row in ("none", "untrained", "squad_v1", "mnli", "csqa"):
            assert f",{row},{target},de," in table
    assert ",missing" not in table


def _only_pretraining(text: str) -> str:
    return "\n".join("targets: []" if line.startswith("targets:") else line for line in text.splitlines())


def _start(*words: str | Path) -> subprocess.Popen[str]:
    command = [*COMMAND, *map(str, words)]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )


def _wait(until: Callable[[], bool], driver: subprocess.Popen[str] | None, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        if driver is not None and driver.poll() is not None:
            pytest.fail(f"the run ended before it could be disturbed: {driver.communicate()[1]}")
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def _records_of(store: Path, label: str) -> dict[str, dict[str, Any]]:
    return {key: record for key, record in records(store).items() if key.startswith(label)}


def _descendants(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    return psutil.Process(driver.pid).children(recursive=True)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
