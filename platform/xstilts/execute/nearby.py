"""Data that lie in a bucket, brought to this machine: of a mirror only what is read, each file once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from xstilts.errors import DataError, StoreError
from xstilts.execute.scratch import kept
from xstilts.execute.site import Site, is_bucket, open_store
from xstilts.frozen import Frozen
from xstilts.plan.step import EncoderRef, Step
from xstilts.tasks.manifest import FILE, PULL, paths_of
from xstilts.tasks.task import Rows


def manifest_folder(location: str) -> Path:
    """A local folder with the manifest of the mirror at `location`, and nothing else yet.

    Raises:
        DataError: there is no manifest. StoreError: the bucket cannot be read.
    """
    store = open_store(location, checked=True)
    if not store.exists(FILE):
        raise DataError(f"{location} holds no {FILE}", PULL)
    return store.local(FILE, kept()).parent


def brought(step: Step, site: Site) -> Site:
    """`site` with a local data folder that has what `step` reads; itself where its data are local.

    Raises:
        DataError: a file of the manifest is not in the bucket. StoreError: the bucket cannot be read.
    """
    if site.data is None or not is_bucket(site.data):
        return site
    store = open_store(site.data, checked=True)
    folder = manifest_folder(site.data)
    for value in _within(step.body):
        if isinstance(value, Rows) and value.world is None and not value.made_by:
            wanted = [path.relative_to(folder).as_posix() for path in paths_of(value, folder)]
        elif isinstance(value, EncoderRef) and not Path(value.name).is_dir():
            wanted = list(store.list(f"models/{value.name}/"))
        else:
            continue
        for name in wanted:
            try:
                store.local(name, kept())
            except StoreError as problem:
                if store.exists(name):
                    raise
                raise DataError(f"{name} is missing in {site.data}", PULL) from problem
    return replace(site, data=str(folder))


def _within(value: object) -> list[object]:
    """Every description inside a description, itself included."""
    found: list[object] = []
    if isinstance(value, Frozen):
        found.append(value)
        for name in type(value).model_fields:
            found += _within(getattr(value, name))
    elif isinstance(value, tuple | list):
        for each in value:
            found += _within(each)
    return found
