"""`xstilts compare` and `xstilts power`: a job beside published numbers, and the seeds that a gain needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from xstilts import api
from xstilts.cli.words import AsJson, Data, JobPath, Store, console, errors, here
from xstilts.errors import StoreError, XstiltsError

if TYPE_CHECKING:
    from xstilts.report.studies.power import Need


def compare(
    job: JobPath,
    beside: Annotated[
        str, typer.Option("--with", help="phang2020, phang2020_v2 or xtreme_baselines.")
    ] = "phang2020",
    store: Store = None,
    data: Data = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="FILE", help="CSV file to write the whole table to.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Set scores and gains beside published ones. Exit 1: scores are missing, or nothing can be compared."""
    file = here(to)
    made = api.compare(api.open_job(job, store, data), beside)
    if file is not None:
        try:
            made.table.to_csv(file, index=False)
        except OSError as problem:
            what = f"the table cannot be written to {file} ({problem})"
            raise StoreError(what, "name a CSV file in a folder that is there: --to FILE.csv") from problem
    if as_json:
        print(json.dumps(made.to_json(), indent=1, ensure_ascii=False))
    else:
        console.print(made.sentence, style="bold", highlight=False, markup=False)
        console.print(_beside(made.table))
        for text, mark in _reasons(made.table).items():
            console.print(f"{mark} {text}", highlight=False, markup=False, soft_wrap=True)
        for note in made.notes:
            console.print(f"  {note}", style="dim", highlight=False, markup=False)
    raise typer.Exit(1 if made.incomplete or not made.compared else 0)


def power(
    job: Annotated[
        Path | None, typer.Argument(metavar="[JOB]", help="A job whose gains were measured; else --sd.")
    ] = None,
    gain: Annotated[float, typer.Option(help="The gain to be shown, in points.")] = 1.0,
    sd: Annotated[
        float | None, typer.Option(help="Spread of gains over seeds, in points; no JOB then.")
    ] = None,
    how_often: Annotated[float, typer.Option("--power", help="How often it is to be shown.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="How often a gain that is not there may be.")] = 0.05,
    store: Store = None,
    data: Data = None,
    as_json: AsJson = False,
) -> None:
    """Say how many seeds show a gain of a given size. Exit 1: too few seeds to measure their spread."""
    from xstilts.report.studies.answer import TooLittle
    from xstilts.report.studies.power import of_sd

    if (job is None) == (sd is None):
        raise XstiltsError("the spread of gains comes from a job or is stated", "give JOB, or --sd 1.2")
    try:
        if sd is not None:
            need = of_sd(sd, gain, how_often, alpha)
        else:
            assert job is not None
            need = api.power([api.open_job(job, store, data)], gain, how_often, alpha)
    except TooLittle as why:
        errors.print(f"not enough data: {why}", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from why
    if as_json:
        print(json.dumps(need.to_json(), indent=1, ensure_ascii=False))
        return
    console.print(need.sentence, style="bold", highlight=False, markup=False)
    if sd is None:
        console.print(_needs(need))
        console.print(need.caption, style="dim", highlight=False, markup=False)


def _beside(table: Any) -> Table:
    """The rows, by the targets' own metrics; signs on differences."""
    drawn = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("intermediate", "target", "lang"):
        drawn.add_column(name, no_wrap=True)
    for name in ("score", "paper's", "diff", "gain", "paper's", "diff"):
        drawn.add_column(name, justify="right", no_wrap=True, min_width=5)
    drawn.add_column("", style="dim", no_wrap=True, min_width=4)
    reasons = _reasons(table)
    for row in table.itertuples(index=False):
        numbers = (_plain(row.score), _plain(row.published), _signed(row.difference))
        gains = (_signed(row.gain), _signed(row.published_gain), _signed(row.gain_difference))
        words = (row.intermediate, row.target, row.language)
        drawn.add_row(*words, *numbers, *gains, Text(reasons.get(row.why or row.note, "")))
    return drawn


def _reasons(table: Any) -> dict[str, str]:
    """What is said of rows -> the mark that they have in the table."""
    said = dict.fromkeys(row.why or row.note for row in table.itertuples(index=False))
    return {text: f"[{i}]" for i, text in enumerate((text for text in said if text), 1)}


def _needs(need: Need) -> Table:
    from xstilts.report.studies.power import COLUMNS, MOST, SURE

    drawn = Table(box=None, pad_edge=False, header_style="dim", caption_justify="left")
    drawn.caption = f"at most: with the upper {SURE:.0%} bound of the measured spread"
    for name in COLUMNS:
        drawn.add_column(name, justify="left" if name in ("intermediate", "target") else "right")
    for row in need.table.to_dict("records"):
        seeds = [
            f"> {MOST:,}" if _absent(row[name]) else str(row[name]) for name in ("needed", "needed at most")
        ]
        drawn.add_row(
            row["intermediate"], row["target"], _signed(row["gain"]), str(row["seeds"]),
            f"{row['sd']:.2f}", f"{row['sd at most']:.2f}", *seeds, f"{row['power now']:.0%}",
        )  # fmt: skip
    return drawn


def _absent(value: Any) -> bool:
    return value is None or value != value or str(value) == "<NA>"


def _plain(value: Any) -> str:
    return "" if _absent(value) else f"{value:.1f}"


def _signed(value: Any) -> str:
    from xstilts.report.verdict import points

    return "" if _absent(value) else points(float(value))
