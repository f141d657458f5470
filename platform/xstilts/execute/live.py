"""Tells MLflow what a run does, as it does it. What it misses, `xstilts export mlflow` rebuilds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xstilts.execute.backends import Event
from xstilts.execute.state import Survey
from xstilts.plan.graph import Planned
from xstilts.record.artifacts import ArtifactStore
from xstilts.record.mlflow import LiveView, cell_words, job_words, metrics_of, params_of, step_words
from xstilts.record.mlflow.export import final
from xstilts.record.mlflow.words import CURVED
from xstilts.record.schema import read_record


class LiveRuns:
    """An observer of a runner that writes to a `LiveView`, which never blocks and never fails."""

    def __init__(self, view: LiveView, store: ArtifactStore) -> None:
        self._view = view
        self._store = store
        self._plan: Mapping[str, Any] = {}
        self._begun = False
        self._cells: set[tuple[str, str, int]] = set()

    def planned(self, survey: Survey) -> None:
        """Opens the parent run, and shows what is there already."""
        self._plan = survey.to_json() | {"experiment": survey.plan.experiment, "model": survey.plan.model}
        if not self._begun:
            self._begun = True
            self._view.job_started(*job_words(self._plan))
            for planned in survey.plan:
                if planned.label in survey.recorded and planned.kind in CURVED and planned.key:
                    record = read_record(self._store, planned.key)
                    if record is not None:
                        self._view.reused(planned.key, *step_words(self._plan, planned.label), final(record))
        for label in survey.recorded:
            self._fill(label)

    def event(self, event: Event, planned: Planned) -> None:
        """Curves of training, then what it came to."""
        if planned.step is None:
            return
        if planned.kind in CURVED:
            self._curve(event, planned, planned.step.key)
        if event.what == "done":
            self._fill(planned.label)

    def _curve(self, event: Event, planned: Planned, key: str) -> None:
        assert planned.step is not None
        if event.what == "started":
            words = step_words(self._plan, planned.label)
            self._view.step_started(key, *words, params_of(planned.step.body.to_identity()))
        elif event.what == "progress":
            milliseconds = int(event.time * 1000)
            self._view.points(key, [(name, value, event.step, milliseconds) for name, value in event.metrics])
        elif event.what == "failed":
            self._view.step_ended(key, "FAILED", {}, {"cause": str(event.cause), "text": event.text[-2000:]})
        elif event.what == "done":
            record = read_record(self._store, key)
            if record is not None:
                flags = {"flags": ",".join(record.flags)} if record.flags else {}
                self._view.step_ended(key, "FINISHED", final(record), flags)

    def _fill(self, label: str) -> None:
        """The cells that the finished score step `label` fills."""
        for cell in self._plan["cells"]:
            name = (cell["intermediate"], cell["target"], cell["seed"])
            if cell["score"] != label or name in self._cells:
                continue
            key = next(step["key"] for step in self._plan["steps"] if step["label"] == label)
            record = read_record(self._store, key) if key else None
            if record is not None:
                self._cells.add(name)
                self._view.cell(*cell_words(cell), metrics_of(record.scores))
