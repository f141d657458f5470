"""What several commands share: arguments and options by one wording, and where output goes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from xstilts.errors import XstiltsError

JobPath = Annotated[Path, typer.Argument(metavar="JOB", help="A job file, such as jobs/quickstart.yaml.")]
Store = Annotated[
    str | None,
    typer.Option(help="Folder or s3://bucket/prefix; XSTILTS_STORE, else ./xstilts-store."),
]
Data = Annotated[str | None, typer.Option(help="Folder of data and models; XSTILTS_DATA, else STORE/mirror.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

console = Console()
errors = Console(stderr=True)


def here(to: str | None) -> Path | None:
    """Where `--to` is on this machine; None where it was not given.

    Raises:
        XstiltsError: it is empty, or an address, of which Path would make a folder called `s3:`.
    """
    if to is None:
        return None
    if not to.strip():
        raise XstiltsError("--to is empty", "name where to write, or leave --to out")
    if re.match(r"[A-Za-z][\w+.-]+:/", to):
        raise XstiltsError(f"--to writes to this machine, and {to} is an address", "name a path here")
    return Path(to)
