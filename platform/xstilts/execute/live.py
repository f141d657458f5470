"""Tells MLflow what a run does, as it does it. What it misses, `xstilts export mlflow` rebuilds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from xstilts.execute.backends import Event
from xstilts.execute.state import Survey
from xstilts.plan.graph import Planned
from xstilts.record.artifacts import ArtifactStore
from xstilts.record.mlflow import (
    CURVED,
    GAUGE,
    LiveView,
    all_step_words,
    job_store_words,
    job_words,
    params_of,
    store_words,
)


class LiveRuns:
    """An observer of a runner that writes to a `LiveView`, which never blocks and never fails.

    It asks the store nothing: records are read by the view's own thread, since a bucket takes 25 ms for each.
    """

    def __init__(self, view: LiveView, store: ArtifactStore) -> None:
        self._view = view
        self._location = store.location
        self._plan: Mapping[str, Any] = {}
        self._begun = False
        self._started: set[str] = set()
        self._nodes: dict[str, set[str]] = defaultdict(set)
        self._shown: set[str] = set()
        self._words: dict[str, tuple[str, dict[str, str]]] = {}
        self._cells: dict[str, list[dict[str, Any]]] = {}
        view.from_store(store)

    def planned(self, survey: Survey) -> None:
        """Opens the parent run, and shows what is there already."""
        self._plan = survey.to_json() | {"experiment": survey.plan.experiment, "model": survey.plan.model}
        self._words = all_step_words(self._plan)
        self._cells = {}
        for cell in self._plan["cells"]:
            self._cells.setdefault(cell["score"], []).append(cell)
        if not self._begun:
            self._begun = True
            tags, params = job_words(self._plan)
            place = job_store_words(self._location, str(self._plan["job"]), tags["digest"])
            self._view.job_started({**tags, **place}, params)
            for planned in survey.plan:
                if planned.label in survey.recorded and planned.kind in CURVED and planned.key:
                    self._view.recorded_before(planned.key, *self._step_words(planned.label, planned.key))
        for planned in survey.plan:
            if planned.label in survey.recorded:
                self._fill(planned)

    def event(self, event: Event, planned: Planned) -> None:
        """Curves of training, then what it came to."""
        if planned.step is None:
            return
        if planned.kind in CURVED:
            self._curve(event, planned, planned.step.key)
        if event.what == "done":
            self._fill(planned)

    def _curve(self, event: Event, planned: Planned, key: str) -> None:
        assert planned.step is not None
        if event.what == "started" or (event.what == "failed" and key not in self._started):
            self._started.add(key)
            words = self._step_words(planned.label, key)
            self._view.step_started(key, *words, params_of(planned.step.body.to_identity()))
        if event.what == "failed":
            self._view.step_ended(key, "FAILED", {}, {"cause": str(event.cause), "text": event.text[-2000:]})
        elif event.what == "done" and key in self._started:
            self._view.recorded_end(key)
        elif event.what == "done":
            # Another driver's worker did it: that driver writes the run, and this one only shows it.
            self._view.recorded_before(key, *self._step_words(planned.label, key))
        elif event.metrics and event.what != "rung":
            self._points(event, key)

    def _points(self, event: Event, key: str) -> None:
        """Progress of a training; or gauges of the node whose name is the event's text."""
        at = int(event.time * 1000)
        gauges = event.metrics[0][0].startswith(GAUGE)
        if gauges and event.text and event.text not in self._nodes[key]:
            self._nodes[key].add(event.text)
            self._view.step_tagged(key, {"node": " ".join(sorted(self._nodes[key]))})
        self._view.points(key, [(name, value, event.step, at) for name, value in event.metrics])

    def _step_words(self, label: str, key: str) -> tuple[str, dict[str, str]]:
        name, tags = self._words[label]
        return name, {**tags, **store_words(self._location, key)}

    def _fill(self, planned: Planned) -> None:
        """The cells that the finished score step fills."""
        label, key = planned.label, planned.key
        if label in self._cells and label not in self._shown and key is not None:
            self._shown.add(label)
            self._view.recorded_cells(key, self._cells[label], store_words(self._location, key))
