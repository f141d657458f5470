"""The `xstilts` command: words to `xstilts.api`, and what people read while it works.

Exit codes: 0 done; 1 some steps failed or scores are incomplete; 2 fixable by the user; 130 interrupted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from xstilts import __version__, api
from xstilts.cli import compare, dashboard, data, jobs, official, show, study
from xstilts.cli import store as stores
from xstilts.cli.words import AsJson, Data, JobPath, Store, console, errors
from xstilts.errors import XstiltsError

app = typer.Typer(
    name="xstilts",
    help="Does an English intermediate task improve zero-shot cross-lingual transfer?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
export = typer.Typer(help="Write what the store holds in other tools' forms.", no_args_is_help=True)
app.add_typer(export, name="export")
app.add_typer(data.data, name="data")
app.add_typer(stores.commands, name="store")
app.command()(official.evaluate)
app.command()(compare.compare)
app.command()(compare.power)
app.command(cls=study.Listing)(study.study)
app.command()(dashboard.dashboard)
jobs.add_to(app)


class Format(StrEnum):
    """How `results` are written."""

    CSV = "csv"
    PARQUET = "parquet"
    JSON = "json"


def _version(wanted: bool) -> None:
    if wanted:
        print(f"xstilts {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Does an English intermediate task improve zero-shot cross-lingual transfer?"""


@app.command()
def plan(job: JobPath, store: Store = None, data: Data = None, as_json: AsJson = False) -> None:
    """What is recorded, what is to run, and why it is new. Runs nothing."""
    surveyed = api.look(api.open_job(job, store, data))
    if as_json:
        print(json.dumps(surveyed.to_json(), indent=1))
    else:
        console.print(show.plan(surveyed))


@app.command()
def run(
    job: JobPath,
    store: Store = None,
    data: Data = None,
    backend: Annotated[str | None, typer.Option(help="ray or inline; the job file's when left out.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Steps at once, on this machine.")] = None,
    live: Annotated[bool, typer.Option("--mlflow/--no-mlflow", help="Show it live in MLflow.")] = True,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster to run on, such as auto; none: on this machine alone.")
    ] = None,
) -> None:
    """Run what is missing, then report. Running it again does only what is still missing."""
    asked: dict[str, Any] = {"backend": backend, "workers": workers}
    if backend not in (None, "ray", "inline"):
        raise XstiltsError(f"no backend named {backend!r}", "choose ray or inline")
    opened = api.open_job(
        job, store, data, **{word: value for word, value in asked.items() if value is not None}
    )
    run_and_report(opened, live, address)


def run_and_report(opened: api.Job, live: bool, address: str | None, submitted: bool = False) -> None:
    """Runs a job to its end, says what it came to, writes the report; ends with the exit code.

    Raises:
        typer.Exit: always.
    """
    with show.Progress(console) as progress:
        result, notes = api.run(opened, [progress], live, address, submitted)
    for note in notes:
        errors.print(f"[yellow]note[/yellow] {escape(note)}", highlight=False)
    show.outcome(console, errors, result)
    if result.interrupted:
        raise typer.Exit(130)
    if any(cell.score in result.survey.recorded for cell in result.survey.plan.cells):
        _report(opened, None, live)
    raise typer.Exit(show.exit_code(result))


@app.command()
def report(
    job: JobPath,
    store: Store = None,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write to; STORE/jobs/NAME/report when left out.")
    ] = None,
) -> None:
    """Transfer table with intervals, in the terminal and as one HTML page."""
    _report(api.open_job(job, store, data), out)


def _report(job: api.Job, out: Path | None, live: bool = True) -> None:
    made = api.report(job, out, live)
    console.print(made.terminal)
    for file in made.files:
        console.print(f"  {file}", style="dim", highlight=False, soft_wrap=True, markup=False)


@app.command()
def results(
    job: JobPath,
    store: Store = None,
    data: Data = None,
    form: Annotated[
        Format, typer.Option("--format", help="csv and json go to standard output.")
    ] = Format.CSV,
    out: Annotated[Path | None, typer.Option(help="File to write; parquet needs it.")] = None,
) -> None:
    """One row a score, for your own analysis."""
    table = api.results(api.open_job(job, store, data))
    if form is Format.PARQUET:
        if out is None:
            raise XstiltsError("parquet is not for a terminal", "name a file: --out FILE")
        table.to_parquet(out, index=False)
        return
    text = (
        table.to_csv(index=False)
        if form is Format.CSV
        else table.to_json(orient="records", force_ascii=False)
    )
    if out is None:
        print(text, end="" if form is Format.CSV else "\n")
    else:
        out.write_text(text, encoding="utf-8")


@app.command()
def tasks(
    role: Annotated[str | None, typer.Option(help="intermediate or target.")] = None,
    family: Annotated[str | None, typer.Option(help="classification, tagging, ...")] = None,
    language: Annotated[str | None, typer.Option(help="Only tasks in this language.")] = None,
    as_json: AsJson = False,
) -> None:
    """Every task: role, family, languages, metric, source, licence."""
    found = show.choose_tasks(role, family, language)
    if as_json:
        print(json.dumps([show.task_words(task) for task in found], indent=1, ensure_ascii=False))
    else:
        console.print(show.tasks(found))


@app.command()
def ui(
    store: Store = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="On this machine only.")] = 5000,
) -> None:
    """Open the MLflow page of a store on this machine."""
    from xstilts.record.mlflow import server_address, ui_command

    named = store or os.environ.get("XSTILTS_STORE") or api.DEFAULT_STORE
    if (server := server_address()) and not (Path(named) / "mlflow.db").is_file():
        console.print(f"MLflow on {server}", highlight=False)
        return
    if "://" in named:
        raise XstiltsError(
            f"{named} has no MLflow of its own", "open the server that MLFLOW_TRACKING_URI names in a browser"
        )
    location = Path(named)
    if not (location / "mlflow.db").is_file():
        raise XstiltsError(
            f"{location} has no runs to show", "run a job on it first, or name another --store"
        )
    command, environment = ui_command(location, port)
    console.print(f"MLflow on http://127.0.0.1:{port}   (Ctrl-C ends it)", highlight=False)
    try:
        raise typer.Exit(subprocess.run(command, env=environment, check=False).returncode)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@export.command("mlflow")
def export_mlflow(
    job: JobPath,
    store: Store = None,
    data: Data = None,
    models: Annotated[bool, typer.Option("--models", help="Make kept encoders loadable by MLflow.")] = False,
) -> None:
    """Rebuild the job's MLflow runs from the store; twice makes no second ones."""
    count = api.export_mlflow(api.open_job(job, store, data), models)
    console.print(f"{count} runs are in MLflow", highlight=False)


@export.command("xtreme")
def export_xtreme(
    job: JobPath,
    to: Annotated[Path, typer.Option("--to", help="Folder to write <task>/test-<language> files to.")],
    suite: Annotated[
        str | None, typer.Option(help="xtreme or xtreme-r; the job's, else xtreme, when left out.")
    ] = None,
    intermediate: Annotated[str | None, typer.Option(help="Row of the job; the only one by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Its seed; the only one by default.")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="Write the right answers too, for `xstilts evaluate`.")
    ] = None,
    store: Store = None,
    data: Data = None,
) -> None:
    """Write the predictions of one row and seed as the benchmark wants them submitted."""
    opened = api.open_job(job, store, data)
    made = api.export_xtreme(opened, to, suite, intermediate, seed, labels)
    console.print(f"{len(made.files)} files in {to}", highlight=False)
    if opened.file.experiment.evaluate.split == "dev":
        errors.print("note: the job reports dev, and so do these files, called test", highlight=False)
    for task, language in made.missing:
        errors.print(f"missing: {task} in {language}", highlight=False)
    raise typer.Exit(1 if made.missing else 0)


def main() -> None:
    """Entry point; the one place where what a user can fix becomes a sentence and exit code 2."""
    try:
        app()
    except XstiltsError as problem:
        errors.print(f"[red]error[/red] {escape(str(problem))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("interrupted; run it again to go on", highlight=False)
        sys.exit(130)
