"""Where the runs of a job are in MLflow's own pages, as far as that is known; nothing is asked of MLflow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xstilts.record.mlflow import cell_words
from xstilts.record.mlflow.hidden import address

_ID = re.compile(r"[0-9A-Za-z_-]{1,64}\Z")


@dataclass(frozen=True)
class Links:
    """By what `record.mlflow.read_links` read; `server`, if named, is where a browser finds MLflow.

    A store can be written by others: what is no address of the web, or no id, gives no link.
    """

    words: Mapping[str, Any] = field(default_factory=dict)
    server: str = ""

    def step(self, key: str) -> str:
        """The run of a step; "" where none is known."""
        return self._run(self._ids("runs").get(key))

    def cell(self, intermediate: str, target: str, seed: int) -> str:
        """The run of one cell of the table; "" where none is known."""
        name, _ = cell_words({"intermediate": intermediate, "target": target, "seed": seed, "score": ""})
        return self._run(self._ids("cells").get(name))

    def job(self) -> str:
        """The job's own run; "" where none is known."""
        return self._run(self.words.get("parent"))

    def _ids(self, kind: str) -> Mapping[str, Any]:
        found = self.words.get(kind)
        return found if isinstance(found, dict) else {}

    def _run(self, run: Any) -> str:
        experiment, told = str(self.words.get("experiment", "")), str(self.words.get("tracking", ""))
        web = told.startswith(("http://", "https://"))
        server = self.server or (address(told) if web else "")
        if not server or not _ID.match(experiment) or not _ID.match(str(run or "")):
            return ""
        return f"{server.rstrip('/')}/#/experiments/{experiment}/runs/{run}"
