"""What several commands share: arguments and options by one wording, and where output goes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

JobPath = Annotated[Path, typer.Argument(metavar="JOB", help="A job file, such as jobs/quickstart.yaml.")]
Store = Annotated[
    str | None,
    typer.Option(help="Folder or s3://bucket/prefix; XSTILTS_STORE, else ./xstilts-store."),
]
Data = Annotated[str | None, typer.Option(help="Folder of data and models; XSTILTS_DATA, else STORE/mirror.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

console = Console()
errors = Console(stderr=True)
