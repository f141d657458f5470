"""`xstilts study`: a question, one of the five or of those that follow, answered from jobs or from print."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from xstilts import api
from xstilts.cli.words import AsJson, Data, Store, console, errors, here
from xstilts.errors import XstiltsError


class Listing(TyperCommand):
    """A command whose help ends with the options of every study."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Reads them from the studies, which takes seconds, only where help is asked for."""
        from xstilts.report.studies import catalogue

        listed = [f"{name}: {catalogue.defaults(name)}" for name in catalogue.STUDIES]
        head = "What --set takes, and what it is otherwise; lists are joined by commas:"
        self.epilog = "\n".join([head, *listed])
        super().format_help(ctx, formatter)


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
        str | None,
        typer.Option("--to", metavar="DIR", help="Folder; STORE/jobs/JOB/studies/NAME, or NAME-study here."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="Such as margin=0.5, see below; repeat it."),
    ] = None,
    published: Annotated[bool, typer.Option("--published", help="Ask published tables instead.")] = False,
    as_json: AsJson = False,
) -> None:
    """Answer a question: a sentence, a table, a figure. Exit 1: too little data, and how much is missing."""
    if published == bool(jobs):
        raise XstiltsError("a study is of jobs or of published tables", "give JOB files, or --published")
    folder = here(to)
    opened = [api.open_job(job, store, data) for job in jobs or ()]
    made = api.study(name, opened, folder, settings or ())
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
