"""Runs what a job with a search trains, step after step, in one process: `search_kit.py JOB STORE`.

A driver without the driver: what is tested is the search itself, on a crew of as many workers as are wanted.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from small_job import SMALL

from xstilts.execute.backends import Terms, new_attempt
from xstilts.execute.site import Site
from xstilts.execute.sources import LocalSources
from xstilts.execute.state import chosen_values
from xstilts.execute.steps import run_step
from xstilts.plan.expand import expand
from xstilts.plan.graph import Plan, Planned
from xstilts.record.artifacts import StepPaths
from xstilts.record.lease import Dead, Watch
from xstilts.record.schema import read_record
from xstilts.spec.load import load

KINDS = ("pretrain", "search", "train")

SEARCH: dict[str, Any] = {
    "trials": 3,
    "concurrent": 2,
    "learning_rate": {"low": 1e-4, "high": 1e-2},
    "epochs": [1, 2],
    "prune": "none",
}


def job(
    folder: Path,
    rows: str = "none",
    targets: str = "world_tagging",
    changes: tuple[tuple[str, str], ...] = (),
    **search: Any,
) -> Path:
    """A small job's file with a search; `changes` are made to its text."""
    text = SMALL.replace("intermediate: [none, world_nli]", f"intermediate: [{rows}]")
    text = text.replace("[world_paraphrase, world_tagging, world_retrieval]", f"[{targets}]")
    text = text.replace("seeds: [1, 2]", "seeds: [1]")
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.yaml"
    path.write_text(f"{text}search: {json.dumps(SEARCH | search)}\n")
    return path


def plan_of(path: Path, store: Path) -> Plan:
    """The job's plan with what its searches have chosen so far."""
    experiment = load(path).experiment
    sources, there = LocalSources(experiment, None), Site(str(store), None, experiment.execution).open_store()
    made, known = expand(experiment, sources), -1
    while True:
        chosen = chosen_values(made, there)
        if len(chosen) == known:
            return made
        made, known = expand(experiment, sources, chosen), len(chosen)


def run(
    path: Path,
    store: Path,
    crew: tuple[Any, ...] = (),
    should_stop: Callable[[], bool] = lambda: False,
    kinds: tuple[str, ...] = KINDS,
    engine: Literal["warm", "ray_train"] = "warm",
) -> list[Planned]:
    """Everything that trains, in the order of the plan; what ran."""
    ran: list[Planned] = []
    site = Site(str(store), None, load(path).experiment.execution)
    while True:
        for planned in plan_of(path, store):
            step = planned.step
            if planned.kind not in kinds or step is None or read_record(site.open_store(), step.key):
                continue
            hands = crew if planned.kind == "search" else ()
            found = Watch().look(site.open_store(), StepPaths(step.key))
            terms = Terms(over=found.data if isinstance(found, Dead) else None, engine=engine)
            run_step(step, site, new_attempt(), lambda event: None, should_stop, terms, hands)
            ran.append(planned)
            break
        else:
            return ran


def tables(path: Path, store: Path) -> dict[str, Any]:
    """Label of a search -> what it chose and its trial table, but for what clocks said."""
    found: dict[str, Any] = {}
    there = Site(str(store), None, load(path).experiment.execution).open_store()
    for planned in plan_of(path, store):
        record = read_record(there, planned.key) if planned.kind == "search" and planned.key else None
        if record is not None:
            rows: Any = record.result["trials"]
            trials = [{name: row[name] for name in row if name not in ("seconds", "curve")} for row in rows]
            found[planned.label] = (record.result["chosen"], trials)
    return found


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
