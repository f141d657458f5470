"""`xstilts dashboard`: how far jobs are, and their transfer tables, as pages in a browser on this machine."""

from __future__ import annotations

import signal
from typing import Annotated

import typer

from xstilts import api
from xstilts.cli.words import Data, Store, console
from xstilts.errors import XstiltsError


def dashboard(
    jobs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[JOB]...", help="Job files, or names of jobs in the store; all by default."),
    ] = None,
    store: Store = None,
    data: Data = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On this machine; 0: any free one.")] = 8200,
    mlflow: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where `xstilts ui` shows the runs, for links to them.")
    ] = "",
) -> None:
    """Show how far jobs are and what they found so far. Reads the store, writes nothing; Ctrl-C ends it."""
    if mlflow and not mlflow.startswith(("http://", "https://")):
        raise XstiltsError(f"{mlflow!r} is no address of MLflow", "give one such as http://127.0.0.1:5000")
    # What a script starts with `&` ignores it otherwise, and would serve on until it is killed.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with api.dashboard(jobs or (), store, data, port, mlflow) as serving:
        console.print(f"{serving.url}   (on this machine only; Ctrl-C ends it)", highlight=False)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            raise typer.Exit(0) from None
