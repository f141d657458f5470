"""A model that trains in microseconds, with dropout, and reporters that stop, checkpoint or die when told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from xstilts.families.base import Batch, Feature
from xstilts.families.batching import padded
from xstilts.record.artifacts import StepPaths
from xstilts.record.local import LocalStore
from xstilts.spec.experiment import Selection, TrainSettings
from xstilts.train.batches import FineTuning
from xstilts.train.checkpoint import Checkpoints
from xstilts.train.loop import Layout, Optimisation, Outcome, Progress, Rung, Signal, run

torch.set_num_threads(1)

KEY = "train-toy-s1--0123456789abcdef"


class Toy(nn.Module):
    """Mean of embeddings, dropout, a layer norm, two labels."""

    def __init__(self, dropout: float = 0.3) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            self.table = nn.Embedding(20, 8)
            self.norm = nn.LayerNorm(8)
            self.dropout = nn.Dropout(dropout)
            self.out = nn.Linear(8, 2)

    def forward(self, batch: Batch) -> Tensor:
        """Logits (n, 2)."""
        mask = batch["attention_mask"].unsqueeze(-1)
        mean = (self.table(batch["input_ids"]) * mask).sum(1) / mask.sum(1)
        logits: Tensor = self.out(self.dropout(self.norm(mean)))
        return logits


def objective(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Cross-entropy summed, and the number of features."""
    loss = functional.cross_entropy(model(batch), batch["target"], reduction="sum")
    return loss, torch.tensor(float(len(batch["target"])))


def features(count: int) -> list[Feature]:
    """Lengths from 1 to 7, ids from 2 to 19, targets 0 and 1."""
    return [
        Feature(index, (tuple(2 + (index * 7 + at) % 18 for at in range(1 + index * 5 % 7)),), index % 2)
        for index in range(count)
    ]


def collate(chosen: Sequence[Feature]) -> Batch:
    """Padded ids, mask, target and the features' numbers."""
    numbers = torch.tensor([each.example for each in chosen])
    return {**padded(chosen, 1), "target": torch.tensor([each.target for each in chosen]), "number": numbers}


def finetuning(
    count: int = 21, epochs: float = 2, effective: int = 6, micro: int = 6, seed: int = 3
) -> FineTuning:
    """Batches over `count` features."""
    return FineTuning(features(count), epochs, effective, micro, seed, collate)


class Watching:
    """Answers `then[step]` (GO where it says nothing); an exception there is raised instead."""

    def __init__(self, then: dict[int, Signal | Exception] | None = None) -> None:
        self.then = then or {}
        self.seen: list[tuple[Progress, dict[str, float]]] = []

    def report(self, progress: Progress, metrics: dict[str, float]) -> Signal:
        """Remembers the report."""
        self.seen.append((progress, metrics))
        answer = self.then.get(progress.step, Signal.GO)
        if isinstance(answer, Exception):
            raise answer
        return answer


def checkpoints(root: Path, attempt: str = "a1") -> Checkpoints:
    """Checkpoints in a folder store under `root`."""
    return Checkpoints(LocalStore(root / "store"), StepPaths(KEY), attempt, root / f"scratch-{attempt}")


def train(
    model: nn.Module,
    batches: FineTuning,
    reporter: Watching | None = None,
    *,
    saved: Checkpoints | None = None,
    assess: Callable[[], dict[str, float]] | None = None,
    selection: Selection | None = None,
    settings: TrainSettings | None = None,
    note: Callable[[str], None] = lambda _: None,
    report_seconds: float = 0.0,
    rungs: Sequence[float] = (),
    on_rung: Callable[[Rung], None] = lambda _: None,
) -> Outcome:
    """`loop.run` with a report after every step."""
    chosen = settings or TrainSettings(learning_rate=0.05)
    return run(
        model,
        objective,
        batches,
        Optimisation.of_training(chosen, batches.steps),
        seed=7,
        layout=Layout(),
        assess=assess,
        selection=selection,
        checkpoints=saved,
        reporter=reporter or Watching(),
        note=note,
        report_seconds=report_seconds,
        rungs=rungs,
        on_rung=on_rung,
    )


def bits(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all weights."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether every bit agrees."""
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
