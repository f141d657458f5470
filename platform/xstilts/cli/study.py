"""`xstilts study`: a question, one of the five or of those that follow, answered from jobs or from print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from xstilts import api
from xstilts.cli.words import AsJson, Data, Store, console, errors
from xstilts.errors import XstiltsError


def study(
    name: Annotated[
        str,
        typer.Argument(
            help="persistence, data_scaling, model_scaling, similarity, hierarchy, select or consistency."
        ),
    ],
    jobs: Annotated[
        list[Path] | None, typer.Argument(metavar="[JOB]...", help="Job files; none with --published.")
    ] = None,
    store: Store = None,
    data: Data = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder to write to; STORE/jobs/JOB/studies/NAME by default.")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="OPTION=VALUE", help="Such as margin=0.5; repeat it.")
    ] = None,
    published: Annotated[bool, typer.Option("--published", help="Ask published tables instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Answer a question: a sentence, a table, a figure. Exit 1: too little data, and how much is missing."""
    if published == bool(jobs):
        raise XstiltsError("a study is of jobs or of published tables", "give JOB files, or --published")
    if published and settings:
        raise XstiltsError("published tables have no options", "leave --set out")
    opened = [api.open_job(job, store, data) for job in jobs or ()]
    made = api.study(name, opened, to, settings or ())
    if as_json:
        print(json.dumps(made.answer.to_json(), indent=1, ensure_ascii=False))
    else:
        from xstilts.report.studies.pages import terminal

        console.print(terminal(made.answer))
        for file in made.files:
            console.print(f"  {file}", style="dim", highlight=False, soft_wrap=True, markup=False)
    if made.answer.refused:
        errors.print(f"not enough data: {made.answer.refused}", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1)
