"""What came of a job: reports, tables, studies, submissions to benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from xstilts.api.planning import plan, stored_plan
from xstilts.api.views import has_runs, tracking
from xstilts.execute.jobs import Job
from xstilts.execute.site import is_bucket
from xstilts.record.artifacts import report_file
from xstilts.tasks import suites

if TYPE_CHECKING:
    import pandas

    from xstilts.execute.submission import Submission
    from xstilts.report.published.beside import Comparison
    from xstilts.report.render import Report
    from xstilts.report.studies.pages import Study
    from xstilts.report.studies.power import Need


def report(job: Job, out: Path | None = None, live: bool = True) -> Report:
    """Writes the report of the job as far as it is done; with `live`, attaches it to the job's run in MLflow.

    Raises:
        XstiltsError: the job was never run on this store.
    """
    from xstilts.report.render import write

    words = stored_plan(job)
    name, bucket = job.file.experiment.name, is_bucket(job.store.location)
    folder = out or (Path(f"{name}-report") if bucket else Path(job.store.location) / report_file(name, ""))
    made = write(words, job.store, folder)
    if bucket and out is None:
        for file in made.files:
            job.store.upload(file, report_file(name, file.name))
    server = tracking(job) if live else None
    if server is not None and has_runs(job):
        from xstilts.record.mlflow import LiveView

        view = LiveView(*server, words["job"], words["digest"])
        for file in made.files:
            view.artifact(file, "report")
        view.close()
    return made


def results(job: Job) -> pandas.DataFrame:
    """One row a score: job suite model intermediate target language ... value n seed key ... status."""
    from xstilts.report.frame import frame

    return frame(stored_plan(job), job.store)


def compare(job: Job, name: str) -> Comparison:
    """Scores and gains beside published ones; `name` is one of `report.published.published.names()`."""
    from xstilts.report.published.beside import compare as beside

    return beside(stored_plan(job), job.store, name)


def study(name: str, jobs: Sequence[Job] = (), to: Path | None = None, settings: Sequence[str] = ()) -> Study:
    """Asks one of `report.studies.catalogue.STUDIES` of jobs together, or of published tables where there is
    no job, and writes its files; `settings` such as "margin=0.5"."""
    from xstilts.report.studies.pages import publish

    return publish(name, [(stored_plan(job), job.store) for job in jobs], to, settings)


def power(jobs: Sequence[Job], gain: float, power: float = 0.8, alpha: float = 0.05) -> Need:
    """How many seeds show a gain of that many points, by the spread that these jobs measured."""
    from xstilts.report.studies.power import of_plans

    return of_plans([(stored_plan(job), job.store) for job in jobs], gain, power, alpha)


def export_xtreme(
    job: Job,
    to: Path,
    suite: str | None = None,
    intermediate: str | None = None,
    seed: int | None = None,
    labels: Path | None = None,
) -> Submission:
    """Writes the predictions of one row and seed as XTREME (or XTREME-R) wants them; `labels`, a folder for
    the right answers in the same shape.

    Raises:
        XstiltsError: the job has several rows or seeds and none is named, or a file cannot be written.
    """
    from xstilts.execute.submission import parts_of, write_submission

    chosen = suites.suite(suite or job.file.experiment.suite or "xtreme")
    parts = parts_of(plan(job), job.store, intermediate, seed)
    return write_submission(parts, job.store, job.data, to, chosen, labels)
