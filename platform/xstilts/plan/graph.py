"""A plan: steps in an order in which they can run, and the cells of the table they fill."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from xstilts.frozen import Json
from xstilts.plan.step import Step


@dataclass(frozen=True, slots=True)
class Planned:
    """A step of a plan. Its `step` is unknown while it awaits what a search will choose."""

    label: str
    kind: str
    step: Step | None
    inputs: dict[str, str]
    """Role -> label."""
    awaits: tuple[str, ...] = ()
    """Labels of searches whose result decides this step's settings."""

    @property
    def key(self) -> str | None:
        """The store's name for the result, once it is decided."""
        return self.step.key if self.step else None


@dataclass(frozen=True, slots=True)
class Cell:
    """One place in the table: a row, a target and a seed, and the steps that fill it."""

    intermediate: str
    target: str
    seed: int
    train: str | None
    """Label; None for frozen retrieval."""
    predict: str
    score: str


@dataclass(frozen=True, slots=True)
class Probed:
    """What a probe step says something of; the same step may be said of several."""

    what: str
    """As in `plan.step.ProbeBody`."""
    intermediate: str
    """The row whose encoder was measured, or whose task; "" for a target's own text or gradients."""
    target: str
    """"" for alignment, and for an intermediate task's own text or gradients."""
    seed: int
    step: str
    """Label."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job asks for. A pure value: nothing in it depends on what has been done already."""

    job: str
    digest: str
    """Of what was asked, the data included; the same before and after a search has chosen."""
    steps: dict[str, Planned]
    """By label, inputs before what needs them."""
    cells: tuple[Cell, ...]
    experiment: dict[str, Json]
    model: str
    uses: dict[str, int] = field(default_factory=dict)
    """Label -> number of cells that stand on the step; 2 or more is work shared."""
    probed: tuple[Probed, ...] = ()
    """What the probe steps are of; they fill no cell."""
    missing: dict[tuple[str, str], str] = field(default_factory=dict)
    """(target, language) -> why it is left out: a language that the job wants and cannot be reported."""

    def __iter__(self) -> Iterator[Planned]:
        return iter(self.steps.values())

    def blocked_by(self, failed: Collection[str]) -> dict[str, str]:
        """Label -> the failed label it stands on, directly or not."""
        return blocked_by({each.label: (*each.inputs.values(), *each.awaits) for each in self}, failed)


def blocked_by(needed: Mapping[str, Collection[str]], failed: Collection[str]) -> dict[str, str]:
    """Step -> the failed step it stands on, directly or not; `needed` is what each step needs, inputs before
    what needs them."""
    blocked: dict[str, str] = {}
    for label, wanted in needed.items():
        if label in failed:
            continue
        for each in wanted:
            if each in failed or each in blocked:
                blocked[label] = blocked.get(each, each)
                break
    return blocked
