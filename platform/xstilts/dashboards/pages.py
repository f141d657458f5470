"""What the server answers with: pages, the parts of them that change, and the same as JSON for programs."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import quote, urlencode

from xstilts.dashboards import drill
from xstilts.dashboards.kept import Kept, Seen
from xstilts.dashboards.links import Links
from xstilts.dashboards.progress import WORDS, ago, duration, moment, progress
from xstilts.dashboards.watched import Asked, State, Table, Watched, check_there
from xstilts.errors import StoreError, UnknownName
from xstilts.record.artifacts import ArtifactStore, is_name
from xstilts.report import render
from xstilts.report.transfer import family_of, tidy

EVERY = 3.0
"""Seconds between two questions of a page."""

FIRST_WAIT = 2.0
"""Seconds that the first look at a job waits for its store; after that the page comes and asks again."""

LISTING_SECONDS = 30.0

KINDS = ("progress", "transfer")

FILES = {"dashboard.css": "text/css; charset=utf-8", "dashboard.js": "text/javascript; charset=utf-8"}
"""What pages load beside themselves, from this server."""

MOST_DRAWN = 32
"""Pages whose parts are remembered: a drawn page of 1,000 steps is 300 kB."""

Parts = dict[str, tuple[str, str]]
"""Name -> (version, HTML)."""

Words = Mapping[str, str]
"""What stands after the question mark of an address."""


class Pages:
    """The jobs of one store. Only names that the store or the caller gave are looked up in it."""

    def __init__(self, store: ArtifactStore, jobs: tuple[Asked, ...] = (), mlflow: str = "") -> None:
        """Without `jobs`, all that the store has. `mlflow`: where a browser finds the runs of a folder."""
        self._store, self._mlflow = store, mlflow
        self._watched = {asked.name: Watched(store, asked) for asked in jobs}
        self._listing: Kept[tuple[str, ...]] | None = None if jobs else Kept(self._list, LISTING_SECONDS)
        self._drawn: dict[tuple[str, ...], tuple[Any, Parts]] = {}
        self._environment = render.environment("xstilts.dashboards")
        self._environment.globals.update(
            duration=duration, ago=ago, moment=moment, quoted=_quoted, every=EVERY, words=WORDS
        )

    def file(self, name: str) -> str:
        """One of FILES; the report's style comes first, so that both look alike."""
        if name == "dashboard.css":
            return self._source("page.css") + self._source("dashboard.css")
        return self._source(name)

    def jobs(self) -> Seen[tuple[str, ...]]:
        """Names that can be shown."""
        if self._listing is None:
            return Seen(tuple(self._watched), time.time())
        return self._listing.look(FIRST_WAIT)

    def index(self) -> str:
        """The page that lists the jobs."""
        seen = self.jobs()
        return self._render("jobs.html.j2", jobs=seen.value or (), seen=seen, location=self._store.location)

    def page(self, kind: str, job: str, words: Words) -> str:
        """One of KINDS for a job, with what there is now.

        Raises:
            UnknownName: there is no such job. StoreError: which there are is not known.
        """
        seen, parts = self._parts(kind, self._job(job), words)
        jobs = self.jobs().value or ()
        asked = {name: words[name] for name in ("intermediate", "target") if name in words}
        look = f"/look/{kind}/{_quoted(job)}?{urlencode(asked)}"
        return self._render(
            "shell.html.j2", kind=kind, job=job, jobs=jobs, parts=parts, seen=seen, look=look,
            location=self._store.location, age=time.time() - seen.made,
        )  # fmt: skip

    def look(self, kind: str, job: str, words: Words) -> dict[str, Any]:
        """What the page asks for again and again: parts that differ from those that it `have`s.

        Raises:
            UnknownName: there is no such job. StoreError: which there are is not known.
        """
        seen, parts = self._parts(kind, self._job(job), words)
        have = dict(each.partition(":")[::2] for each in words.get("have", "").split(","))
        changed = {
            name: {"version": version, "html": html}
            for name, (version, html) in parts.items()
            if have.get(name) != version
        }
        return {**_when(seen), "parts": changed}

    def data(self, kind: str, job: str) -> dict[str, Any]:
        """The numbers behind a page, for programs.

        Raises:
            UnknownName: there is no such job. StoreError: which there are is not known.
        """
        watched = self._job(job)
        if kind == "progress":
            seen = watched.state.look(FIRST_WAIT)
            found = None if seen.value is None else asdict(progress(seen.value, self._links(seen.value)))
            return {**_when(seen), "progress": found}
        table = watched.table.look(FIRST_WAIT)
        rows = None if table.value is None else tidy(table.value.result).to_json(orient="records")
        said = [] if table.value is None else list(table.value.problems)
        return {**_when(table), "problems": said, "rows": json.loads(rows) if rows else []}

    def _parts(self, kind: str, job: Watched, words: Words) -> tuple[Seen[Any], Parts]:
        """The parts of a page; drawn once, however many browsers look at the same value."""
        kept: Kept[Any] = job.state if kind == "progress" else job.table
        seen = kept.look(FIRST_WAIT)
        target, row = words.get("target", ""), words.get("intermediate", "")
        place = (kind, job.asked.name, target, row)
        value, parts = self._drawn.get(place, (None, {}))
        if seen.value is None:
            return seen, _versions({"now": self._render("nothing.html.j2", problem=seen.problem)})
        if value is not seen.value:
            drawn = (
                self._progress(seen.value) if kind == "progress" else self._transfer(seen.value, row, target)
            )
            parts = _versions(drawn)
            while len(self._drawn) >= MOST_DRAWN:
                self._drawn.pop(next(iter(self._drawn)), None)
            self._drawn[place] = (seen.value, parts)
        return seen, parts

    def _progress(self, state: State) -> dict[str, str]:
        links = self._links(state)
        told = progress(state, links)
        return {
            "now": self._render("progress.html.j2", told=told, link=links.job()),
            "steps": self._render("steps.html.j2", told=told),
        }

    def _transfer(self, table: Table, row: str, target: str) -> dict[str, str]:
        result, links = table.result, Links(table.links, self._mlflow)

        def link(intermediate: str, target: str) -> str:
            chosen = {"intermediate": intermediate, "target": target}
            asked = urlencode({name: value for name, value in chosen.items() if value})
            return f"/transfer/{_quoted(result.job)}" + (f"?{asked}#opened" if asked else "")

        compared = [cell for cell in result.compared if (cell.intermediate, cell.target) == (row, target)]
        opened = drill.detail(result, compared[0], links) if compared else None
        cells = drill.target_cells(result, target)
        families = sorted({family_of(code) for code in result.languages} - {""})
        common = {**render.drawn(result), "table": table, "link": link}
        return {
            "now": self._render("transfer.html.j2", **common, chosen=(row, target)),
            "opened": self._render(
                "opened.html.j2", **common, target=target, cells=cells, opened=opened,
                by_language=drill.by_language(result, target) if cells else None,
                by_family=drill.by_family(result, target) if cells else None,
            ),
            "numbers": self._render("numbers.html.j2", **common),
            "filters": self._render(
                "filters.html.j2",
                shown={**common["shown"], "family": [(name, name) for name in families]},
            ),
        }  # fmt: skip

    def _job(self, name: str) -> Watched:
        seen = self.jobs()
        if seen.value is None:
            raise StoreError(seen.problem or "the store has not answered yet", "ask again")
        known = seen.value
        if name not in known:
            raise UnknownName.among("job", name, known, "xstilts dashboard")
        return self._watched.setdefault(name, Watched(self._store, Asked(name)))

    def _list(self) -> tuple[str, ...]:
        """Jobs that the store has a plan of."""
        check_there(self._store)
        names = (name.split("/") for name in self._store.list("jobs/"))
        found = {parts[1] for parts in names if len(parts) == 3 and parts[2].startswith("plan-")}
        return tuple(sorted(name for name in found if is_name(name)))

    def _links(self, state: State) -> Links:
        return Links(state.links, self._mlflow)

    def _render(self, template: str, **words: Any) -> str:
        return self._environment.get_template(template).render(**words)

    def _source(self, name: str) -> str:
        assert self._environment.loader is not None
        return self._environment.loader.get_source(self._environment, name)[0]


def _quoted(name: str) -> str:
    """As one part of an address."""
    return quote(name, safe="")


def _versions(parts: Mapping[str, str]) -> Parts:
    return {
        name: (hashlib.sha256(html.encode()).hexdigest()[:16], html.strip()) for name, html in parts.items()
    }


def _when(seen: Seen[Any]) -> dict[str, Any]:
    """When a value was made, and what went wrong since: what every answer says."""
    age = round(time.time() - seen.made, 1) if seen.made else None
    return {"refreshed": seen.made or None, "age": age, "problem": seen.problem}
