"""`xstilts store`: what a store holds, what of it may go, whether it is whole.

Exit codes: 0 done, nothing is wrong; 1 something is damaged; 2 fixable by the user.
"""

from __future__ import annotations

import json
import os
import socket
import uuid
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from xstilts.api import DEFAULT_STORE
from xstilts.cli.data import Progress, size
from xstilts.cli.words import AsJson, Store, console, errors
from xstilts.errors import StoreError, UnknownName
from xstilts.execute.site import is_bucket, open_store
from xstilts.execute.wanted import Tally
from xstilts.record import checking, cleaning, contents
from xstilts.record.artifacts import ArtifactStore
from xstilts.record.local import LocalStore

commands = typer.Typer(
    help="What a store holds, what of it may go, whether it is whole.", no_args_is_help=True
)


@commands.command()
def ls(
    store: Store = None,
    kind: Annotated[
        str | None, typer.Option(help=f"Only steps of one kind: {' '.join(contents.KINDS)}.")
    ] = None,
    state: Annotated[
        str | None, typer.Option(help=f"Only steps in one state: {' '.join(contents.STATES)}.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the steps: state, kind, bytes, number of scores, when finished, key."""
    _check("kind of step", kind, contents.KINDS)
    _check("state of steps", state, contents.STATES)
    found = [
        each
        for each in contents.holdings(_open(store))
        if kind in (None, each.kind) and state in (None, each.state)
    ]
    if as_json:
        print(json.dumps([_words(each) for each in found], indent=1))
        return
    for each in found:
        words = _words(each)
        scores, finished = words["scores"] or "", words["finished"] or ""
        _say(f"{each.state:<9} {each.kind:<9} {size(each.bytes):>7} {scores:>4}  {finished:<25}  {each.key}")
    _say(f"steps: {len(found)}, {size(sum(each.bytes for each in found))}")


@commands.command()
def du(store: Store = None, as_json: AsJson = False) -> None:
    """Count the bytes, by kind of step and by sort of file."""
    opened = _open(store)
    found = contents.usage(opened)
    if as_json:
        whats = {what: {"bytes": found.whats[what], "files": found.counts[what]} for what in found.whats}
        words = {"store": opened.location, "kinds": dict(found.kinds), "what": whats}
        print(json.dumps(words | {"bytes": found.bytes, "files": found.counts.total()}, indent=1))
        return
    for what, count in found.whats.most_common():
        _say(f"{size(count):>8}  {what} ({found.counts[what]} files)")
    _say("of steps, by kind:")
    for kind, count in found.kinds.most_common():
        _say(f"{size(count):>8}  {kind}")
    _say(f"{size(found.bytes):>8}  in all, {found.counts.total()} files")


@commands.command()
def gc(
    store: Store = None,
    models: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Also the weights of recorded train steps whose key matches, such as 'train-xnli-*', unless "
            "a stored plan needs them for a step still to run.",
        ),
    ] = None,
    unused: Annotated[bool, typer.Option("--unused", help="As --models '*'.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; else only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what recorded steps do not need: losing attempts, checkpoints, leases. Records always stay."""
    opened = _open(store, write=yes)
    found = cleaning.look(opened, models or ("*" if unused else None))
    if yes:
        with Progress(errors) as progress:
            found = cleaning.carry_out(
                opened, found, lambda done, of: progress.tell(Tally("removing", done, of))
            )
    if as_json:
        print(json.dumps({"removed": yes, **_cleaning_words(found)}, indent=1))
        return
    _tell_cleaning(found)
    told = "removed" if yes else "would go; --yes removes them"
    _say(f"{found.files} files, {size(found.bytes)} {told}" if found.files else "nothing may go")


@commands.command()
def verify(
    store: Store = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Read no file: compare sizes, and in a bucket what was noted beside it."
        ),
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Set damaged records aside, so that the next run makes the steps again."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare every output of every record with what is there, and list all that is wrong."""
    opened = _open(store, write=repair)
    with Progress(errors) as progress:
        found = checking.verify(opened, quick, lambda verdict: progress.tell(_tally(verdict)))
    if repair:
        name = uuid.uuid4().hex[:8]
        checking.repair(opened, found, f"repair-{name}", f"store verify on {socket.gethostname()}")
    left = [each for each in found.damage if each.key not in found.repaired]
    if as_json:
        print(json.dumps({"whole": not left, **asdict(found)}, indent=1))
    else:
        _tell_verdict(found)
    raise typer.Exit(1 if left else 0)


def _open(store: str | None, write: bool = False) -> ArtifactStore:
    """The store that is named, which is there; without `write`, one that can only be read will do.

    Raises:
        StoreError: there is none, or it cannot be written.
    """
    named = store or os.environ.get("XSTILTS_STORE") or DEFAULT_STORE
    if write or is_bucket(named):
        return open_store(named, checked=not write)
    if not Path(named).expanduser().is_dir():
        raise StoreError(
            f"there is no store at {named}", "name its folder or s3://bucket/prefix with --store"
        )
    return LocalStore(named)


def _words(each: contents.Holding) -> dict[str, Any]:
    record = each.record
    return {
        "key": each.key,
        "kind": each.kind,
        "state": each.state,
        "finished": record.finished if record is not None else None,
        "bytes": each.bytes,
        "files": len(each.files),
        "scores": len(record.scores) if record is not None else 0,
        "dropped": list(each.dropped.outputs) if each.dropped is not None else [],
        "damage": each.damage,
    }


def _cleaning_words(found: cleaning.Cleaning) -> dict[str, Any]:
    return {
        "steps": [
            {"key": each.key, "what": each.what, "files": list(each.files), "bytes": each.bytes}
            for each in found.doomed
        ],
        "unfinished": [{"name": each.name, "bytes": each.bytes} for each in found.leftovers],
        "skipped": found.skipped,
        "needed": found.kept,
        "notes": found.notes,
        "files": found.files,
        "bytes": found.bytes,
    }


def _tell_cleaning(found: cleaning.Cleaning) -> None:
    sorts: dict[str, list[cleaning.Doomed]] = {}
    for each in found.doomed:
        sorts.setdefault(each.what, []).append(each)
    for what, doomed in sorts.items():
        files = sum(len(each.files) for each in doomed)
        _say(f"{size(sum(each.bytes for each in doomed)):>8}  {what} of {len(doomed)} steps ({files} files)")
    if found.leftovers:
        count = sum(each.bytes for each in found.leftovers)
        _say(f"{size(count):>8}  never finished ({len(found.leftovers)} files)")
    for words in (found.skipped, found.kept):
        for key, why in words.items():
            _say(f"    kept  {key}: {why}")
    for note in found.notes:
        errors.print(f"[yellow]note[/yellow] {escape(note)}", highlight=False, soft_wrap=True)


def _tally(verdict: checking.Verdict) -> Tally:
    doing = f"compared, {len(verdict.damage)} wrong" if verdict.damage else "compared"
    return Tally(doing, verdict.checked, verdict.files, verdict.checked_bytes, verdict.bytes)


def _tell_verdict(found: checking.Verdict) -> None:
    for each in found.damage:
        errors.print(
            f"[red]wrong[/red] {escape(f'{each.name}: {each.problem}')}", highlight=False, soft_wrap=True
        )
    for remedy in dict.fromkeys(each.remedy for each in found.damage if each.key not in found.repaired):
        errors.print(escape(f"remedy: {remedy}"), highlight=False, soft_wrap=True)
    for key, name in found.repaired.items():
        _say(f"set aside {name}; the next run makes {key} again")
    for key in found.busy:
        _say(f"left alone {key}: somebody works on it")
    if found.orphans:
        count = sum(each.bytes for each in found.orphans)
        ended = f"{len(found.orphans)} attempts ended without a word ({size(count)})"
        _say(f"{ended}; `xstilts store gc` removes them once their steps are recorded")
    _say(f"{found.right} of {found.outputs} files are as their records say")


def _check(what: str, name: str | None, known: Collection[str]) -> None:
    if name is not None and name not in known:
        raise UnknownName.among(what, name, known, "xstilts store ls --help")


def _say(line: str) -> None:
    console.print(line, highlight=False, soft_wrap=True, markup=False)
