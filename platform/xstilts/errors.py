"""Every problem a user can fix, as one sentence: what is wrong, and what to do.

Anything that is not an XstiltsError is a bug and keeps its traceback. `args` mirror the constructor,
so that an error raised in a Ray worker arrives whole in the driver (pickle calls `cls(*args)`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Self


class XstiltsError(Exception):
    """A problem with a remedy. The command line prints it and exits with 2."""

    def __init__(self, problem: str, remedy: str, where: tuple[str | int, ...] = ()) -> None:
        super().__init__(problem, remedy, where)
        self.problem = problem
        self.remedy = remedy
        self.where = where
        """Path of the offending field in the job file, e.g. ("targets", 2); () when it is not in one."""

    def __str__(self) -> str:
        return f"{self.problem}: {self.remedy}"


class JobFileError(XstiltsError):
    """The job file does not say what can be run."""


class UnknownName(XstiltsError):
    """A task, language, setting or step that does not exist."""

    @classmethod
    def among(
        cls,
        kind: str,
        name: str,
        known: Iterable[str],
        listing: str | None = None,
        where: tuple[str | int, ...] = (),
    ) -> Self:
        """`listing` is what to type to see all of them, e.g. "xstilts tasks"; without one they are named."""
        names = list(known)
        near = difflib.get_close_matches(name, names, n=1)
        every = f"`{listing}` shows them all" if listing else f"choose among {', '.join(names)}"
        return cls(f"no {kind} named {name!r}", f"did you mean {near[0]!r}?" if near else every, where)


class DataError(XstiltsError):
    """Rows that are missing, truncated, changed since they were pulled, or labelled outside the set."""


class LanguageError(DataError):
    """One language of a target that cannot be predicted or scored; the others can. `where` ends with both."""

    @classmethod
    def of(cls, target: str, language: str, problem: DataError) -> Self:
        """`problem`, met in one language."""
        return cls(problem.problem, problem.remedy, ("languages", target, language))

    @property
    def place(self) -> tuple[str, str]:
        """Target and language."""
        return str(self.where[-2]), str(self.where[-1])


class ModelError(XstiltsError):
    """A path or name that holds no encoder this project can load."""


class StoreError(XstiltsError):
    """A store that cannot be read or written: permissions, a full disk, a damaged file."""


class TrainingError(XstiltsError):
    """Training that cannot go on, such as a loss that is not finite; never retried."""


class ClusterError(XstiltsError):
    """A Ray cluster that is not there, does not let one in, or cannot give what a job needs."""
