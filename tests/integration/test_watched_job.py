"""`xstilts dashboard` beside a job of the generated world that really runs, from nothing to its table."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from small_job import COMMAND, SMALL, environment

JOB = SMALL.replace("[world_paraphrase, world_tagging, world_retrieval]", "[world_tagging, world_retrieval]")
JOB = JOB.replace("seeds: [1, 2]", "seeds: [1]").replace("epochs: 2", "epochs: 0.5")


@contextmanager
def dashboard(*words: str | Path) -> Iterator[str]:
    """The command on a free port; what it serves at. Ended by Ctrl-C, which is no error."""
    process = subprocess.Popen(
        [*COMMAND, "dashboard", *map(str, words), "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("http://127.0.0.1:"), line
        yield line.split()[0]
    finally:
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0 and said == "", said


def asked(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=60) as reply:
        return json.load(reply)


def tree(store: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in [store, *store.rglob("*")]}


@pytest.mark.slow
def test_a_job_is_watched_from_nothing_to_its_table(tmp_path: Path) -> None:
    job, store = tmp_path / "job.yaml", tmp_path / "store"
    job.write_text(JOB)
    usual = Path(os.getcwd()) / "xstilts-store"  # of `make quickstart`, where that was run before
    there = usual.exists()
    with dashboard(job, "--store", store) as url:
        first = asked(f"{url}data/progress/small")
        assert first["progress"]["state"] == "waiting" and not store.exists()
        run = subprocess.Popen(
            [*COMMAND, "run", str(job), "--store", str(store), "--no-mlflow"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(),
        )  # fmt: skip
        seen: list[dict[str, Any]] = []
        while run.poll() is None:
            found = asked(f"{url}data/progress/small")
            seen += [found["progress"]] if found["progress"] else []
            time.sleep(0.3)
        assert run.returncode == 0, run.communicate()[1].decode()
        states = [told["state"] for told in seen]
        assert "running" in states and states == sorted(states, key="waiting running done".split().index)
        assert any(told["counts"]["running"] for told in seen), "no step was seen at work"
        before = tree(store)
        for _ in range(100):
            found, table = asked(f"{url}data/progress/small"), asked(f"{url}data/transfer/small")
            if found["progress"]["state"] == "done" and sum(_is_gain(row) for row in table["rows"]) == 2:
                break
            time.sleep(0.3)
        told = found["progress"]
        assert told["scored"] == told["cells"] == 4 and not found["problem"] and not table["problem"]
        assert sum(_is_gain(row) for row in table["rows"]) == 2, "one row on two targets"
        assert all(row["seconds"] is not None for row in told["rows"])
    with dashboard("--store", store) as url:
        assert asked(f"{url}data/jobs")["jobs"] == ["small"]
        with urllib.request.urlopen(f"{url}transfer/small?target=world_tagging", timeout=60) as reply:
            assert b"By language family" in reply.read()
    assert tree(store) == before
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("xstilts")] == []
    assert usual.exists() == there


def _is_gain(row: dict[str, Any]) -> bool:
    main = "all" if row["target"] == "world_retrieval" else "zero_shot"
    return row["intermediate"] == "world_nli" and row["language"] == main and row["gain"] is not None
