"""What a job asks for, and what of it is recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from xstilts.errors import DataError, ModelError, XstiltsError
from xstilts.execute.jobs import Job
from xstilts.execute.sources import LocalSources
from xstilts.execute.state import Survey, chosen_values, survey
from xstilts.plan.expand import Missing, expand
from xstilts.plan.graph import Plan
from xstilts.record.artifacts import plan_file

Value = TypeVar("Value")


def plan(job: Job, failed: Missing | None = None, searched: dict[str, dict[str, Any]] | None = None) -> Plan:
    """What the job asks for, with what its searches have chosen so far and without the languages that
    `failed`. Needs no ML library. Who plans again and again gives the same `searched` each time, where the
    choices that were read are kept."""
    sources = LocalSources(job.file.experiment, job.data)

    known: dict[str, dict[str, Any]] = {} if searched is None else searched

    def made() -> Plan:
        plan = expand(job.file.experiment, sources, None, failed)
        while chosen := chosen_values(plan, job.store, known):
            again = expand(job.file.experiment, sources, chosen, failed)
            if again.steps.keys() == plan.steps.keys():
                break
            plan = again
        return plan

    return _located(job, made)


def look(job: Job, explain: bool = True) -> Survey:
    """The plan beside the store: what is recorded, what is to run and why."""
    return survey(plan(job), job.store, explain)


def plan_words(job: Job, surveyed: Survey) -> dict[str, Any]:
    """The plan as stored: what `plan --json` prints, and what a report needs beside it."""
    return surveyed.to_json() | {
        "experiment": surveyed.plan.experiment,
        "model": surveyed.plan.model,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def stored_plan(job: Job) -> dict[str, Any]:
    """The plan as it was when the job was last run here; found by the job's words where its data are gone."""
    name = job.file.experiment.name
    try:
        data = job.store.read(plan_file(name, plan(job).digest))
    except (DataError, ModelError):
        data = _plan_of_words(job)
    if data is None:
        raise XstiltsError(
            f"{name} was never run on {job.store.location} as {job.file.path} is now",
            f"xstilts run {job.file.path}",
        )
    words: dict[str, Any] = json.loads(data)
    return words


def _plan_of_words(job: Job) -> bytes | None:
    """The newest stored plan that was made from just this job file."""
    asked = job.file.experiment.model_dump(mode="json")
    found = [
        job.store.read(name)
        for name in job.store.list(plan_file(job.file.experiment.name, "")[: -len(".json")])
    ]
    plans = [(json.loads(data), data) for data in found if data is not None]
    alike = [(words["created"], data) for words, data in plans if words["experiment"] == asked]
    return max(alike)[1] if alike else None


def _located(job: Job, act: Callable[[], Value]) -> Value:
    """What `act` gives; its errors say file and line."""
    try:
        return act()
    except XstiltsError as problem:
        raise job.file.error_at(problem) from problem
