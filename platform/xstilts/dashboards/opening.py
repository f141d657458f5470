"""Which jobs a dashboard shows, and of which store: job files, names in the store, or all that it has."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xstilts.dashboards.pages import Pages
from xstilts.dashboards.server import Dashboard
from xstilts.dashboards.watched import Asked, check_there
from xstilts.errors import DataError, ModelError
from xstilts.execute.jobs import DEFAULT_STORE, Job, open_job
from xstilts.execute.site import reading_store


def opened(
    jobs: Sequence[str | Path],
    store: str | None,
    data: str | None,
    port: int,
    mlflow: str,
    planned: Callable[[Job], Mapping[str, Any]],
) -> Dashboard:
    """As `api.dashboard`; `planned` gives the words of a job's plan.

    Raises:
        XstiltsError: as there.
    """
    location = store or os.environ.get("XSTILTS_STORE") or DEFAULT_STORE
    reading = reading_store(location)
    asked = tuple(_asked(each, location, data, planned) for each in jobs)
    if not any(each.planned for each in asked):
        check_there(reading)  # a misspelt --store is told now; one that is still to be made is not missed
    return Dashboard(Pages(reading, asked, mlflow), port)


def _asked(
    job: str | Path, store: str, data: str | None, planned: Callable[[Job], Mapping[str, Any]]
) -> Asked:
    """A job file's plan as it is now: the store has its plan, or will have it. Anything else is a name."""
    if not Path(job).is_file():
        return Asked(str(job))
    found = open_job(job, store, data, write=False)
    name = found.file.experiment.name
    try:
        words = planned(found)
    except (DataError, ModelError):  # its data are elsewhere: what the store has under its name is shown
        return Asked(name)
    return Asked(name, str(words["digest"]), words)
