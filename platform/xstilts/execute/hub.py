"""The Hugging Face hub as a source of files: what it serves, at which commit, fetched whole and compared.

Rows are taken where the data set's own card says that they lie as parquet, else from the revision
`refs/convert/parquet`, where the hub keeps its own conversion as `<config>/<split>/0000.parquet`.
Messages hold no answer of a server and no address with a signature: either could carry a token.
"""

from __future__ import annotations

import difflib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from xstilts.errors import DataError, StoreError, XstiltsError
from xstilts.families import snapshot
from xstilts.tasks.manifest import sha256_of

CONVERTED = "refs/convert/parquet"
WAITS = (1.0, 4.0, 15.0)
"""Seconds before each further try. The hub client tries for itself inside each of them."""
PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers that another try may not get."""
LOGIN = "`hf auth login` (`huggingface-cli login` in older versions) or set HF_TOKEN"
LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
BESIDE = ("*.spm", "generation_config.json", "README.md")
"""Files of a model that come beside those of `families.snapshot`: what MarianMT needs, and the card."""

Kind = Literal["dataset", "model"]
Value = TypeVar("Value")


def of_model(name: str) -> bool:
    """Whether a file of a model folder is one to have."""
    return snapshot.decides(name) or any(fnmatchcase(name, each) for each in BESIDE)


def last_config(file: HubFile | Path) -> tuple[bool, str]:
    """Sorts the files of a model: `config.json`, by which a model folder is known, comes last."""
    return file.name == "config.json", file.name


class Stopped(Exception):
    """The user wants no more of it."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository at one commit."""

    repo: str
    kind: Kind
    commit: str
    name: str
    size: int
    sha256: str
    """"" where the hub knows only git's own sum."""
    blob: str
    """Git's sum of the file, or of its pointer where `sha256` is known."""

    @property
    def origin(self) -> str:
        """As a manifest says it."""
        return f"{self.repo}@{self.commit}"

    def same(self, path: Path, sha256: str) -> bool:
        """Whether the file at `path`, whose SHA-256 is given, is this one."""
        return sha256 == self.sha256 if self.sha256 else self.blob in ("", _git_sum(path))


@dataclass(frozen=True, slots=True)
class Published:
    """The files of one split or one model, in order."""

    files: tuple[HubFile, ...]
    licence: str
    note: str = ""


class Hub:
    """A hub that is asked a few times before it counts as out of reach. Safe among threads."""

    def __init__(self) -> None:
        """HF_ENDPOINT names another hub than the public one; HF_TOKEN or a login opens what is not public."""
        from huggingface_hub import HfApi, constants

        self.endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT).rstrip("/")
        self._api = HfApi(endpoint=self.endpoint, library_name="xstilts")
        self.stop = threading.Event()
        """Set from outside: whatever is under way ends at the next chunk."""

    def dataset(self, path: str) -> Dataset:
        """The data set `path`; asked for when something of it is."""
        return Dataset(self, path)

    def model(self, name: str, revision: str | None) -> Published:
        """Weights, configuration and vocabulary of a model, at `revision` or at its newest commit.

        Raises:
            DataError: it cannot be had, or has no safetensors.
        """
        listing = self.listing(name, "model", revision)
        kept = [file for file in listing.files if "/" not in file.name and of_model(file.name)]
        if not any(file.name.endswith(".safetensors") for file in kept):
            remedy = (
                "load it once in a place that you trust, write it with save_pretrained, and name that folder"
            )
            raise DataError(f"{name} has no safetensors weights, and nothing is unpickled", remedy)
        return Published(tuple(sorted(kept, key=last_config)), listing.licence)

    def listing(self, repo: str, kind: Kind, revision: str | None) -> Listing:
        """All files of a repository at the commit that `revision` stands for now.

        Raises:
            DataError: it cannot be had.
        """

        def ask() -> Any:
            about = self._api.dataset_info if kind == "dataset" else self._api.model_info
            return about(repo, revision=revision, files_metadata=True, timeout=30)

        found = self._try(ask, repo, kind)
        card: Mapping[str, Any] = found.card_data.to_dict() if found.card_data else {}
        files = [_file(repo, kind, found.sha, sibling) for sibling in found.siblings or ()]
        return Listing(found.sha, _licence(card), tuple(sorted(files, key=lambda file: file.name)), card)

    def fetch(self, file: HubFile, folder: Path, seen: Callable[[int], None]) -> tuple[Path, str]:
        """Fetches `file` into `folder`: where it lies now, and its SHA-256. `seen` is told of bytes.

        Raises:
            DataError: it cannot be had, or what came is not what the hub lists. StoreError: the disk is full.
        """

        def act() -> tuple[Path, str]:
            got = self._api.hf_hub_download(
                file.repo,
                file.name,
                repo_type=file.kind,
                revision=file.commit,
                local_dir=folder,
                tqdm_class=_counter(seen, self.stop),
            )
            path = Path(got)
            sha256 = sha256_of(path)
            if not file.same(path, sha256):
                path.unlink()  # else the client takes it for the file that it was asked for
                raise ConnectionError("other bytes came than the hub lists")
            return path, sha256

        return self._try(act, file.repo, file.kind)

    def page(self, repo: str, kind: Kind) -> str:
        """Where people read about it and accept its terms."""
        return f"{self.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo}"

    def _try(self, act: Callable[[], Value], repo: str, kind: Kind) -> Value:
        """What `act` gives, tried again where that may help."""
        from huggingface_hub.errors import HfHubHTTPError

        # The client lets errors of its HTTP library through, and which library that is changes with its
        # version; the base of its own error tells. hf_xet raises RuntimeError.
        known = cast(
            tuple[type[Exception], ...], (*HfHubHTTPError.__bases__, OSError, ValueError, RuntimeError)
        )
        for wait in (*WAITS, None):
            if self.stop.is_set():
                raise Stopped
            try:
                return act()
            except known as problem:
                if wait is None or not _passing(problem):
                    raise _sentence(problem, repo, self.page(repo, kind)) from problem
            self.stop.wait(wait)
        raise AssertionError("the last try returns or raises")


@dataclass(frozen=True)
class Listing:
    """A repository at one commit."""

    commit: str
    licence: str
    files: tuple[HubFile, ...]
    card: Mapping[str, Any]

    @cached_property
    def configs(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """(config, split) -> patterns of its files, as the card declares them."""
        found: dict[tuple[str, str], tuple[str, ...]] = {}
        declared = self.card.get("configs")
        for config in declared if isinstance(declared, list) else ():
            if isinstance(config, dict) and "data_files" in config:
                name = str(config.get("config_name", "default"))
                found |= {(name, split): at for split, at in _data_files(config["data_files"])}
        return found


@dataclass
class Dataset:
    """A data set of the hub; used by one thread."""

    hub: Hub
    path: str

    @cached_property
    def own(self) -> Listing:
        """What its owner uploaded."""
        return self.hub.listing(self.path, "dataset", None)

    @cached_property
    def converted(self) -> dict[tuple[str, str], list[HubFile]]:
        """(config, split) -> files of the hub's conversion; a part of a split is called `partial-<split>`."""
        found: dict[tuple[str, str], list[HubFile]] = {}
        for file in self._conversion():
            config, _, rest = file.name.partition("/")
            split, _, shard = rest.partition("/")
            if shard.endswith(".parquet") and "/" not in shard:
                found.setdefault((config, split), []).append(file)
        return found

    def configs(self) -> tuple[str, ...]:
        """Every config, sorted."""
        return tuple(sorted({config for config, _ in (*self.own.configs, *self.converted)}))

    def split(self, config: str, split: str) -> Published:
        """The files of one split.

        Raises:
            DataError: it cannot be had, or there is no such split.
        """
        patterns = self.own.configs.get((config, split), ())
        files = [file for file in self.own.files if any(_matches(file.name, each) for each in patterns)]
        if files and all(file.name.endswith(".parquet") for file in files):
            return Published(tuple(files), self.own.licence)
        if (config, split) in self.converted:
            converted = tuple(self.converted[config, split])
            return Published(converted, self.own.licence, "as the hub converted it to parquet")
        raise self._none(config, split)

    def _conversion(self) -> tuple[HubFile, ...]:
        try:
            return self.hub.listing(self.path, "dataset", CONVERTED).files
        except DataError as problem:
            if problem.__cause__ is not None and _status(problem.__cause__) == 404:
                return ()  # the data set itself was found, so that it is the conversion that is not there
            raise

    def _none(self, config: str, split: str) -> DataError:
        cause = f"the hub serves no parquet of {self.path}, config {config}, split {split}"
        if (config, f"partial-{split}") in self.converted:
            return DataError(
                f"{cause}: it converted only the beginning of it", "put the whole of it into the data folder"
            )
        known = {f"config {each[0]}, split {each[1]}" for each in (*self.own.configs, *self.converted)}
        near = difflib.get_close_matches(f"config {config}, split {split}", known, n=1, cutoff=0.8)
        hint = f"; the nearest there is {near[0]}" if near else ""
        return DataError(cause, f"look at {self.hub.page(self.path, 'dataset')}{hint}")


def _file(repo: str, kind: Kind, commit: str, sibling: Any) -> HubFile:
    lfs = sibling.lfs
    size, sha256 = (lfs.size, lfs.sha256) if lfs else (sibling.size or 0, "")
    return HubFile(repo, kind, commit, sibling.rfilename, size, sha256, sibling.blob_id or "")


def _licence(card: Mapping[str, Any]) -> str:
    stated = card.get("license") or ""
    return ", ".join(map(str, stated)) if isinstance(stated, list) else str(stated)


def _data_files(declared: Any) -> Iterable[tuple[str, tuple[str, ...]]]:
    """(split, patterns) of a card's `data_files`: one path, some, or some for each split."""
    if isinstance(declared, dict):
        declared = [{"split": split, "path": path} for split, path in declared.items()]
    if isinstance(declared, str):
        declared = [declared]
    if isinstance(declared, list) and all(isinstance(each, str) for each in declared):
        declared = [{"split": "train", "path": declared}]
    for each in declared if isinstance(declared, list) else ():
        if isinstance(each, dict) and each.get("path"):
            path = each["path"]
            yield str(each.get("split", "train")), tuple(path) if isinstance(path, list) else (str(path),)


def _matches(name: str, pattern: str) -> bool:
    """A star stands for no slash, two for any number."""
    return fnmatchcase(name, pattern) and ("**" in pattern or name.count("/") == pattern.count("/"))


def _git_sum(path: Path) -> str:
    head = f"blob {path.stat().st_size}\0".encode()
    return hashlib.sha1(head + path.read_bytes(), usedforsecurity=False).hexdigest()


def _counter(seen: Callable[[int], None], stop: threading.Event) -> Any:
    """A progress bar class for the hub client that shows nothing, counts bytes and can be stopped."""
    from huggingface_hub.utils.tqdm import tqdm

    class Counter(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> None:
            if stop.is_set():
                raise Stopped
            seen(int(n or 0))

        def update_transfer(self, n: float) -> None:
            """Bytes on the wire; those that were written are told to `update`."""

    return Counter


def _chain(problem: BaseException) -> list[BaseException]:
    """`problem` and what it came of: the client wraps a failed look at a file into "no such local file"."""
    found = [problem]
    while found[-1].__cause__ is not None:
        found.append(found[-1].__cause__)
    return found


def _status(problem: BaseException) -> int | None:
    answers = [getattr(each, "response", None) for each in _chain(problem)]
    return next((answer.status_code for answer in answers if answer is not None), None)


def _passing(problem: BaseException) -> bool:
    """Whether another try may do better."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    status = _status(problem)
    if status is not None:
        return status in PASSING
    lasting = (OfflineModeIsEnabled, ValueError)
    return not any(isinstance(each, lasting) or _on_disk(each) for each in _chain(problem))


def _on_disk(problem: BaseException) -> bool:
    return isinstance(problem, OSError) and problem.errno in LOCAL


def _sentence(problem: BaseException, repo: str, page: str) -> XstiltsError:
    """What went wrong, in words of our own."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    chain, status = _chain(problem), _status(problem)

    def met(*kinds: type[BaseException]) -> bool:
        return any(isinstance(each, kinds) for each in chain)

    if any(_on_disk(each) for each in chain):
        reason = next(each.strerror for each in chain if isinstance(each, OSError) and _on_disk(each))
        return StoreError(
            f"what came of {repo} cannot be written ({reason})", "free some space, or choose another --to"
        )
    if met(OfflineModeIsEnabled):
        return DataError(
            f"{repo} is needed and HF_HUB_OFFLINE is set", "unset it, or name a mirror that holds it: --from"
        )
    if met(GatedRepoError) or status == 403:
        return DataError(
            f"{repo} is gated", f"accept its terms at {page}, then {LOGIN}, and run the same command again"
        )
    if met(RevisionNotFoundError):
        return DataError(f"{repo} has no such revision", f"look at {page}")
    if met(EntryNotFoundError) and status == 404:
        return DataError(f"{repo} lost a file while it was fetched", "run the same command again")
    if met(RepositoryNotFoundError) or status == 404:
        return DataError(
            f"the hub has no {repo}, or it is private", f"look at {page}; if it is private, {LOGIN}"
        )
    if status == 401:
        return DataError(f"the hub refuses the token that it was shown for {repo}", f"renew it: {LOGIN}")
    if met(HFValidationError):
        return DataError(f"{repo!r} is no name of the hub", "names are `owner/name`")
    reason = f"HTTP {status}" if status else type(chain[-1]).__name__
    again = "check the network (proxy, HF_ENDPOINT) and run the same command again: what is there is kept"
    return DataError(f"{repo} could not be fetched from the hub ({reason})", again)
