"""What people ask of a running driver, and what it has spent: values, and the file that orders lie in."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from xstilts.errors import StoreError
from xstilts.record.artifacts import ArtifactStore, driver_file, orders_file
from xstilts.spec.experiment import BudgetSpec

Stop = Literal["", "checkpoint", "now"]


@dataclass(frozen=True, slots=True)
class Orders:
    """What is asked; the empty one asks for nothing."""

    stop: Stop = ""
    workers: int | None = None
    """Steps at once."""
    budget: BudgetSpec | None = None

    def to_words(self) -> dict[str, Any]:
        """As `status --json` tells it."""
        budget = self.budget.model_dump(mode="json") if self.budget else None
        return {"stop": self.stop, "workers": self.workers, "budget": budget}

    def to_json(self) -> bytes:
        """As stored; never the same bytes twice."""
        return json.dumps({**self.to_words(), "written": time.time()}).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Orders:
        """Reads what `to_json` wrote; nothing is asked by what cannot be understood."""
        try:
            words = json.loads(data)
            stop: Stop = words["stop"] if words["stop"] in ("checkpoint", "now") else ""
            budget = BudgetSpec.model_validate(words["budget"]) if words["budget"] else None
            return cls(stop, words["workers"] and int(words["workers"]), budget)
        except (ValueError, KeyError, TypeError):
            return cls()


def order(store: ArtifactStore, job: str, **changed: Any) -> None:
    """Asks something of whoever drives `job`, by fields of `Orders`; what was asked before of other things
    stays asked, but an order to stop is for once. None takes a limit back."""
    before = asked_of(store, job)
    store.put(orders_file(job), replace(before, **{"stop": "", **changed}).to_json())


def asked_of(store: ArtifactStore, job: str) -> Orders:
    """The orders that stand; of a stop, also one that was heeded, until something else is asked."""
    return Orders.from_json(store.read(orders_file(job)) or b"")


class Inbox:
    """The orders of one job, as one driver reads them."""

    def __init__(self, store: ArtifactStore, job: str, submitted: bool, workers: int | None = None) -> None:
        """`submitted`: what was asked before the driver began is meant for it, a stop too, since submitting
        takes older ones back; else only what is asked from now on. `workers`: the job's own number of steps
        at once, for when an order of another is taken back."""
        self._store, self._name, self._workers = store, orders_file(job), workers
        self._old = None if submitted else store.read(self._name)
        self._last, self._limited = Orders(), False

    def __call__(self) -> Orders:
        """What is asked now; while the store is away what was asked last, or a budget that was made larger
        would be the job file's again."""
        with suppress(StoreError):
            data = self._store.read(self._name)
            self._last = Orders() if data is None or data == self._old else Orders.from_json(data)
        if self._last.workers is not None:
            self._limited = True
        elif self._limited:
            return replace(self._last, workers=self._workers)
        return self._last


@dataclass(slots=True)
class Spending:
    """What a job has spent, this run and those before."""

    before: float = 0.0
    """Accelerator-seconds of earlier drivers."""
    seconds: float = 0.0
    """Accelerator-seconds of this one."""
    trials: dict[str, int] = field(default_factory=dict)
    """Search -> its trials that have ended, by whichever driver: one that goes on counts those before too."""
    _at: float | None = None

    def count(self, held: float) -> None:
        """Adds the time since the last call, in which so many accelerators were held."""
        now = time.monotonic()
        self.seconds += held * (0.0 if self._at is None else now - self._at)
        self._at = now

    def over(self, budget: BudgetSpec, searching: bool = True) -> str:
        """Which budget is spent, in words; "" while none is. Trials count while a search is `searching`."""
        hours = (self.before + self.seconds) / 3600
        trials = sum(self.trials.values())
        if budget.accelerator_hours is not None and hours >= budget.accelerator_hours:
            return f"its budget of {budget.accelerator_hours:g} accelerator-hours is spent"
        if budget.money is not None and hours * (budget.price or 0.0) >= budget.money:
            return f"its budget of {budget.money:g} is spent"
        if searching and budget.trials is not None and trials >= budget.trials:
            return f"its budget of {budget.trials} trials is spent"
        return ""

    def to_json(self) -> dict[str, Any]:
        """As a driver's file has it: seconds of this driver alone."""
        return {"accelerator_seconds": round(self.seconds, 1), "trials": dict(self.trials)}

    @classmethod
    def of_job(cls, store: ArtifactStore, job: str) -> Spending:
        """What earlier drivers of the job spent."""
        told = [_spent(store.read(name)) for name in store.list(driver_file(job))]
        seconds = sum(float(each.get("accelerator_seconds", 0.0)) for each in told)
        trials: dict[str, int] = {}
        for each in told:
            for search, count in dict(each.get("trials") or {}).items():
                trials[search] = max(trials.get(search, 0), int(count))
        return cls(before=seconds, trials=trials)


def _spent(data: bytes | None) -> Mapping[str, Any]:
    with suppress(ValueError, AttributeError):
        found = json.loads(data or b"{}").get("spent", {})
        return found if isinstance(found, dict) else {}
    return {}
