"""`xstilts submit`, `status`, `logs`, `cancel`, `why`: jobs on a cluster, and what became of steps."""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from xstilts import api
from xstilts.cli.words import AsJson, Data, JobPath, Store, console
from xstilts.errors import ClusterError, XstiltsError
from xstilts.spec.experiment import BudgetSpec

Address = Annotated[
    str | None,
    typer.Option(help="The cluster's dashboard, http://HOST:8265; RAY_API_SERVER_ADDRESS, RAY_ADDRESS."),
]


Number = TypeVar("Number", int, float)


class Package(StrEnum):
    """How the cluster's nodes come by the package."""

    UPLOAD = "upload"
    HERE = "here"
    INSTALLED = "installed"


def submit(
    job: JobPath,
    address: Address = None,
    store: Store = None,
    data: Data = None,
    max_concurrent: Annotated[
        str | None,
        typer.Option(metavar="COUNT|none", help="Steps at once; none: the job file's own again."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="HOURS|none",
            help="Accelerator-hours that all runs of the job may take; none: the job file's own again.",
        ),
    ] = None,
    package: Annotated[
        Package | None,
        typer.Option(help="upload; here: nodes see this folder; installed: they have it; XSTILTS_PACKAGE."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Print its log until it ends.")] = False,
) -> None:
    """Have a cluster run the job; again to resume it, or to give a running one another limit."""
    opened = api.open_job(job, store, data)
    chosen = package or Package(os.environ.get("XSTILTS_PACKAGE", "upload"))
    workers = _limit("--max-concurrent", max_concurrent, int, 1)
    hours = _limit("--budget", budget, float, 0.001)
    limit = BudgetSpec(accelerator_hours=hours) if isinstance(hours, float) else hours
    cluster = _address(address)
    name, new = api.submit(opened, cluster, chosen.value, workers, limit, _say)
    if new:
        _say(f"submitted as {name}")
    else:
        asked = "" if workers is None and limit is None else ", with what was asked now"
        _say(f"{name} is running it already and goes on{asked}")
    if wait:
        _print_log(opened, cluster, follow=True)
        raise typer.Exit(api.exit_code(cluster, name))
    console.print(f"  xstilts status {job}      xstilts logs -f {job}", style="dim", highlight=False)


def status(job: JobPath, store: Store = None, data: Data = None, as_json: AsJson = False) -> None:
    """What runs, waits, failed and is done, by what the store says."""
    words = api.status(api.open_job(job, store, data))
    if as_json:
        print(json.dumps(words, indent=1, ensure_ascii=False))
    else:
        console.print(_status(words))


def why(
    job: JobPath,
    step: Annotated[str, typer.Argument(help="A step's label or key, or what it begins with.")],
    store: Store = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Why a step waits, is new, was tried again or failed."""
    words = api.why(api.open_job(job, store, data), step)
    if as_json:
        print(json.dumps(words, indent=1, ensure_ascii=False))
    else:
        console.print(_why(words))


def logs(
    job: JobPath,
    address: Address = None,
    store: Store = None,
    data: Data = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
) -> None:
    """What the job's driver printed on the cluster."""
    _print_log(api.open_job(job, store, data), _address(address), follow)


def cancel(
    job: JobPath,
    address: Address = None,
    store: Store = None,
    data: Data = None,
    now: Annotated[
        bool, typer.Option("--now", help="Kill running steps; they keep old checkpoints.")
    ] = False,
) -> None:
    """Stop the job: running steps write a checkpoint and end. Submit it again to go on."""
    if api.cancel(api.open_job(job, store, data), _known_address(address), now):
        said = "running steps are killed" if now else "running steps write a checkpoint and end"
        console.print(f"asked to stop; {said}", highlight=False)
    else:
        console.print("no driver of this job has been heard of lately", highlight=False)


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _limit(
    option: str, given: str | None, kind: Callable[[str], Number], least: Number
) -> Number | Literal["none"] | None:
    """What an option limits something to; "none" takes back what was asked before.

    Raises:
        XstiltsError: it is neither that nor a number of at least `least`.
    """
    if given is None:
        return None
    if given == "none":
        return "none"
    with suppress(ValueError):
        if least <= (number := kind(given)) < math.inf:
            return number
    raise XstiltsError(f"{option} {given} is no limit", f"give a number of at least {least}, or none")


def _address(given: str | None) -> str:
    found = _known_address(given)
    if not found:
        remedy = "give its dashboard's address, --address http://HOST:8265, or set RAY_API_SERVER_ADDRESS"
        raise ClusterError("no cluster is named", remedy)
    return found


def _known_address(given: str | None) -> str | None:
    """As Ray's own commands find it: named, else by either of its variables."""
    return given or os.environ.get("RAY_API_SERVER_ADDRESS") or os.environ.get("RAY_ADDRESS")


def _print_log(job: api.Job, address: str, follow: bool) -> None:
    for piece in api.logs(job, address, follow):
        print(piece, end="", flush=True)


def _status(words: dict[str, Any]) -> RenderableType:
    totals = words["totals"]
    counts = [f"{totals[word]} {word.replace('_', ' ')}" for word in STATES if totals.get(word)]
    parts: list[RenderableType] = [Text(f"{words['job']}  " + ", ".join(counts), style="bold")]
    for driver in words["drivers"][-3:]:
        parts.append(Text(_driver(driver), style="" if driver["alive"] else "dim"))
    if told := _orders(words):
        parts.append(Text(f"asked by submit or cancel: {told}"))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("step", "state", "", "by / why"):
        table.add_column(column, overflow="fold")
    for step in words["steps"]:
        if step["state"] in ("running", "failed") or step.get("note"):
            done = f"{100 * step['done']:.0f} %" if step["state"] == "running" else ""
            table.add_row(step["label"], step["state"], done, _reason(step))
    if table.row_count:
        parts.append(table)
    blocked = Counter(step["cause"] for step in words["steps"] if step["state"] == "blocked")
    parts += [Text(f"{count} steps wait in vain: {cause}") for cause, count in blocked.items()]
    return Group(*parts)


STATES = ("recorded", "running", "failed", "blocked", "to_run", "awaits")


def _driver(words: dict[str, Any]) -> str:
    spent = words.get("spent", {})
    hours = float(spent.get("accelerator_seconds", 0)) / 3600
    ago = time.time() - float(words["updated"])
    state = words["state"]
    if state == "running":
        doing = "stopping" if words.get("stopping") else "running"
        state = f"{doing}, heard {ago:.0f} s ago" if words["alive"] else f"gone: not heard for {ago:.0f} s"
    elif words.get("why"):
        state = f"{state}: {words['why']}"
    trials = sum(spent.get("trials", {}).values())
    return f"driver {words['driver']}  {state}; {hours:.2f} accelerator-hours, {trials} trials"


def _orders(words: dict[str, Any]) -> str:
    """Those that stand and mean something: a stop only while somebody could heed it."""
    orders = words["orders"]
    found = []
    if orders["stop"] and any(driver["alive"] for driver in words["drivers"]):
        found.append("stop now" if orders["stop"] == "now" else "stop")
    if orders["workers"] is not None:
        found.append(f"at most {orders['workers']} steps at once")
    limits = {word: value for word, value in (orders["budget"] or {}).items() if value is not None}
    found += [f"{word.replace('_', '-')} up to {value:g}" for word, value in limits.items()]
    return ", ".join(found)


def _reason(step: dict[str, Any]) -> str:
    if step["state"] == "running":
        return str(step["lease"].get("holder") or "")
    text = str(step.get("text") or "").strip()
    last = text.splitlines()[-1] if text else ""
    return " ".join(each for each in (step["cause"], last, step.get("note", "")) if each)


def _why(words: dict[str, Any]) -> RenderableType:
    lines = [Text(f"{words['label']}  {words['state']}", style="bold")]
    if words["key"]:
        lines.append(Text(f"  key       {words['key']}", style="dim"))
    for reason in words["why"]:
        lines.append(Text(f"  new       {reason}"))
    for label in words["awaits"]:
        lines.append(Text(f"  awaits    {label}"))
    if words.get("cause"):
        lines.append(Text(f"  cause     {words['cause']}"))
    for line in str(words.get("text") or "").strip().splitlines():
        lines.append(Text(f"            {line}"))
    if words.get("note"):
        lines.append(Text(f"  note      {words['note']}"))
    for attempt in words["attempts"]:
        first = str(attempt.get("text", "")).strip().partition("\n")[0]
        error = f" ({attempt['error']})" if attempt.get("error") else ""
        ended = f"{attempt.get('ended', '')}  {attempt.get('cause', '')}{error}"
        lines.append(Text(f"  attempt   {ended}: {first}"))
    return Group(*lines)


def drive(
    name: Annotated[str, typer.Argument(help="The job's name.")],
    store: Annotated[str, typer.Option(help="Where `submit` left its file.")],
    data: Data = None,
) -> None:
    """Drive a submitted job on the cluster that this runs on (a Ray Job calls it)."""
    from xstilts.cli.main import run_and_report
    from xstilts.execute import scratch

    if "RAY_ADDRESS" not in os.environ:
        raise XstiltsError("this is not a Ray Job", "submit the job: xstilts submit JOB --address ...")
    opened = api.open_stored(name, store, data)
    os.chdir(scratch.kept())  # the report is written here, and copied to the store
    run_and_report(opened, True, "auto", submitted=True)


def add_to(app: typer.Typer) -> None:
    """Makes these commands of `app`."""
    for command in (submit, status, why, logs, cancel):
        app.command()(command)
    app.command(hidden=True)(drive)
