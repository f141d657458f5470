"""The quickstart as it ships, on a local Ray: it ends in time and finds what is planted."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pandas
import pytest

from xstilts.tasks import languages

REPO = Path(__file__).resolve().parents[2]
JOB = "jobs/quickstart.yaml"
MINUTES = 8
"""What the issue allows on two cores; some 5 on a quiet machine."""

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1500)]


def xstilts(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from xstilts.cli.main import main; main()", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=REPO, timeout=1400, check=False)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float, str]:
    """The store, how long it took in seconds, and what was printed."""
    store = tmp_path_factory.mktemp("quickstart") / "store"
    begin = time.monotonic()
    done = xstilts("run", JOB, "--store", store)
    assert done.returncode == 0, done.stderr
    return store, time.monotonic() - begin, done.stdout


@pytest.fixture(scope="module")
def scores(ran: tuple[Path, float, str]) -> pandas.DataFrame:
    """Mean over seeds: one row a (target, intermediate), one column a language."""
    table = pandas.read_csv(ran[0] / "jobs/quickstart/report/report.csv")
    assert (table.status != "missing").all()
    headline = table[table.metric.isin(["accuracy", "token_accuracy"])]
    return headline.pivot_table(index=["target", "intermediate"], columns="language", values="value")


def test_ends_within_eight_minutes(ran: tuple[Path, float, str]) -> None:
    assert ran[1] < MINUTES * 60


def test_the_planted_gain_is_found(ran: tuple[Path, float, str]) -> None:
    said = " ".join(ran[2].split())
    assert "planted gain world_nli -> world_paraphrase" in said
    assert "its interval excludes zero" in said


def test_zero_shot_is_far_above_chance_near_the_source_and_falls_with_distance(
    scores: pandas.DataFrame,
) -> None:
    tagging = scores.loc[("world_tagging", "none")]
    distance = pandas.Series({code: languages.of(code).distance for code in tagging.index}, dtype=float)
    assert tagging["w1"] > 75 and tagging["w2"] > 70, "out of 17 tags"
    assert tagging.corr(distance, method="spearman") < -0.8
    paraphrase = scores.loc[("world_paraphrase", "world_nli")]
    assert paraphrase["w1"] > 60, "chance is 50"
    assert paraphrase[["w1", "w2"]].mean() > paraphrase[["w4", "w5"]].mean() + 5


def test_a_second_run_has_nothing_to_do(ran: tuple[Path, float, str]) -> None:
    again = xstilts("run", JOB, "--store", ran[0])
    assert again.returncode == 0 and "nothing to do" in again.stdout
