"""One fine-tuning on its way to a step: its name for people, its settings, and those that a search tries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from xstilts.frozen import digest
from xstilts.plan.graph import Planned
from xstilts.plan.step import SearchBody, Step, TrainBody
from xstilts.spec.experiment import TrainSettings

HINT = "hint"
"""The input of a search whose choice is its second trial."""

_HINTED = "-hinted"


@dataclass(frozen=True, slots=True)
class Training:
    """A fine-tuning, and what its label says of it."""

    name: str
    """What is trained: a task, a mixture, a task in other languages."""
    body: TrainBody
    inputs: dict[str, Planned]
    after: str = ""
    """What it starts from, as labels end."""

    @property
    def label(self) -> str:
        """Of the step."""
        return f"train-{self.name}-{tag(self.body)}-s{self.body.seed}{self.after}"

    def with_values(self, values: Mapping[str, Any]) -> Training:
        """The same with what a search has chosen."""
        return replace(self, body=with_values(self.body, values))

    def search_label(self, hinted: bool) -> str:
        """Of the search whose trials are this training."""
        return f"search-{self.label.removeprefix('train-')}{_HINTED if hinted else ''}"

    def waiting_label(self, hinted: bool) -> str:
        """Of the step while its search has not chosen."""
        searched = f"{tag(self.body)}{_HINTED if hinted else ''}-searched"
        return f"train-{self.name}-{searched}-s{self.body.seed}{self.after}"


def tag(body: TrainBody) -> str:
    """Four digits that tell one set of settings from another in a label; two phases may train one task."""
    settings = digest({"settings": body.settings, "selection": body.selection})[:4]
    return settings if body.mixing is None else digest({"settings": settings, "mixing": body.mixing})[:4]


def with_values(body: TrainBody, values: Mapping[str, Any]) -> TrainBody:
    """`body` with some of its settings replaced."""
    words = {**body.settings.model_dump(), **values}
    return body.model_copy(update={"settings": TrainSettings.model_validate(words)})


def trial_of(search: Step, values: Mapping[str, Any]) -> Step:
    """The train step that a point of a search's space stands for: in label and key the very step that any
    plan has which trains so, which is how trials are found again.

    Raises:
        pydantic.ValidationError: a value that no training has.
    """
    body = search.body
    assert isinstance(body, SearchBody)
    trained = with_values(body.trial, values)
    named = search.label.removeprefix("search-").removesuffix(_HINTED)
    # The first of them: what stands after it names what the training starts from.
    named = named.replace(f"-{tag(body.trial)}-s", f"-{tag(trained)}-s", 1)
    inputs = {role: key for role, key in search.inputs.items() if role != HINT}
    return Step(label=f"train-{named}", body=trained, inputs=inputs)


def own_values(body: SearchBody) -> dict[str, Any]:
    """The point of the space that the job's own settings are, or what they are where it lies outside."""
    return {name: getattr(body.trial.settings, name) for name in body.space}
