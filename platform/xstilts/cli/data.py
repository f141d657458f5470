"""`xstilts data`: mirrors what suites, tasks and jobs read, and checks a mirror.

Exit codes: 0 all of it is there; 1 some is not, and a list says what to do; 2 fixable by the user.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.text import Text

from xstilts.errors import XstiltsError
from xstilts.execute.wanted import Failure, Tally, missing, verify, wanted
from xstilts.tasks.manifest import Manifest

data = typer.Typer(help="Mirror data and models, and check a mirror.", no_args_is_help=True)

What = Annotated[str, typer.Argument(metavar="SUITE|JOB", help="xtreme, xtreme-r, a task, or a job file.")]

SHOWN = 30
"""Things with one and the same problem that are named; more would not be read."""


@data.command()
def pull(
    what: What,
    to: Annotated[str, typer.Option("--to", metavar="DIR|s3://...", help="Where the mirror is or will be.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Another mirror to copy from first; XSTILTS_DATA when left out."),
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Files at once.")] = 8,
    translations: Annotated[
        bool, typer.Option("--translations", help="Of a suite, machine-translated training rows too.")
    ] = False,
) -> None:
    """Mirror the rows and models that a suite or a job reads. Running it again goes on where it ended."""
    from xstilts.execute.hub import Hub  # the hub client takes 0.3 s to import
    from xstilts.execute.pull import pull as fill
    from xstilts.execute.pull import text_languages

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it tells of every try; we tell of the last
    console, errors = Console(), Console(stderr=True)
    named = source or os.environ.get("XSTILTS_DATA")
    other = Path(named).expanduser().absolute() if named else None
    hub = Hub()
    needed = wanted(what, text_languages(hub, to, other), translations)
    with Progress(console) as progress:
        outcome = fill(needed, to, other, parallel, progress.tell, hub)
    counts = {
        "fetched": outcome.fetched, "copied": outcome.copied, "listed": outcome.entered, "kept": outcome.kept,
    }  # fmt: skip
    told = ", ".join(f"{count} {way}" for way, count in counts.items() if count) or "nothing"
    console.print(f"{to}: {told}; {size(outcome.bytes)} came", highlight=False, soft_wrap=True, markup=False)
    for note in outcome.notes:
        errors.print(f"[yellow]note[/yellow] {escape(note)}", highlight=False, soft_wrap=True)
    _tell_failures(errors, outcome.failures)
    if not outcome.complete:
        raise typer.Exit(1)


@data.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A mirror: a folder with a manifest.json.")],
    what: Annotated[
        str | None, typer.Argument(metavar="[SUITE|JOB]", help="Also say what is missing for it.")
    ] = None,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Files at once.")] = 4,
) -> None:
    """Read every file of a mirror and compare it with the manifest."""
    console, errors = Console(), Console(stderr=True)
    found = Manifest.load(folder)
    lacking = missing(wanted(what, found.configs), found) if what else []
    with Progress(console) as progress:
        problems = verify(found, parallel, progress.tell)
    for problem in problems:
        errors.print(f"[red]wrong[/red] {escape(problem)}", highlight=False, soft_wrap=True)
    if problems:
        errors.print("remove these files and run `xstilts data pull` again", highlight=False)
    _tell_failures(errors, lacking)
    right = len(found.entries) - len(problems)
    console.print(f"{right} of {len(found.entries)} files are as the manifest says", highlight=False)
    if what and not lacking:
        console.print(f"all that {what} reads is listed", highlight=False, markup=False)
    if problems or lacking:
        raise typer.Exit(1)


class Progress:
    """How far it is: one line that is drawn anew in a terminal, a line every 10 s in a log."""

    EVERY = 10.0

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._told = self._began = time.monotonic()

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def tell(self, tally: Tally) -> None:
        """Called as often as anything changes."""
        now = time.monotonic()
        if self._live is not None:
            self._live.update(Text(self._line(tally)))
        elif now - self._told >= self.EVERY:
            self._told = now
            self._console.print(self._line(tally), highlight=False, soft_wrap=True)

    def _line(self, tally: Tally) -> str:
        line = f"{tally.doing}: {tally.done} of {tally.of}"
        if tally.bytes:
            speed = tally.bytes / max(time.monotonic() - self._began, 1e-3)
            line += f", {size(tally.bytes)} of {size(tally.of_bytes)}, {size(speed)}/s"
        return f"{line}, {tally.failed} could not be had" if tally.failed else line


def _tell_failures(errors: Console, failures: Sequence[Failure]) -> None:
    """Each problem once, with what has it."""
    grouped: dict[str, tuple[XstiltsError, list[str]]] = {}
    for failure in failures:
        grouped.setdefault(str(failure.error), (failure.error, []))[1].append(failure.what)
    for error, whats in grouped.values():
        more = f" and {len(whats) - SHOWN} more" if len(whats) > SHOWN else ""
        errors.print(f"[red]missing[/red] {escape(str(error))}", highlight=False, soft_wrap=True)
        if len(whats) > 1 or whats[0] not in error.problem:
            needed = "; ".join(sorted(whats)[:SHOWN])
            errors.print(f"  needed: {escape(needed)}{more}", highlight=False, soft_wrap=True, style="dim")
    if failures:
        errors.print(f"{len(failures)} of what is needed is not there", highlight=False)


def size(count: float) -> str:
    """Bytes for people: "1.2 GB"."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
