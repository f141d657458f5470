"""The training loop. It knows no cluster and no tracker: it sees batches, an objective and a reporter.

Resuming is exact: batches and schedule are functions of the step, and everything else that a step depends on
(weights, AdamW's moments, the dropout generators, what was best so far) is in the checkpoint.

Several ranks run it together (`team.py`), each over its part of every step's examples: sums of losses and
gradients are divided by the number of things on all ranks, so a step is what one process makes of it.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import astuple, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from xstilts.errors import TrainingError
from xstilts.families.base import Batch
from xstilts.frozen import stream
from xstilts.spec.experiment import Selection
from xstilts.train import tensors
from xstilts.train.batches import IDLE, Batches
from xstilts.train.checkpoint import Checkpoints
from xstilts.train.optimisation import Optimisation, adamw, moments
from xstilts.train.progress import Interrupted, Layout, Outcome, Progress, Reporter, Rung, Signal
from xstilts.train.team import Team

__all__ = [
    "Interrupted",
    "Layout",
    "Objective",
    "Optimisation",
    "Outcome",
    "Progress",
    "Reporter",
    "Rung",
    "Signal",
    "run",
]

log = logging.getLogger(__name__)

Objective = Callable[[nn.Module, Batch], tuple[Tensor, Tensor]]
"""(model, batch) -> sum of losses, number of things summed over; a family's `loss`."""

RECENT = 50
"""Steps that a reported loss is the mean of; one loss of 32 examples is too noisy to read."""

MAJORITY = "majority"
"""What `assess` may return beside its metrics: the first metric's value for always saying the commonest."""

ALONE = Team.alone()

COLLAPSE_MARGIN = 1.0
"""Percent points above the majority value below which a run counts as collapsed. A collapsed classifier says
one class and gets the majority value exactly; of 500 examples one point is five."""


@dataclass(slots=True)
class _Memory:
    """What the loop must know beside tensors; all of it goes into the checkpoint's state."""

    step: int = 0
    metric: str | None = None
    best: float | None = None
    best_step: int | None = None
    last: float | None = None
    majority: float | None = None
    since_best: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    rungs: list[Any] = field(default_factory=list)
    """Values of every `Rung` that was told."""


def run(
    model: nn.Module,
    objective: Objective,
    batches: Batches,
    settings: Optimisation,
    *,
    seed: int,
    layout: Layout,
    assess: Callable[[], dict[str, float]] | None = None,
    selection: Selection | None = None,
    checkpoints: Checkpoints | None = None,
    reporter: Reporter,
    note: Callable[[str], None] = log.warning,
    report_seconds: float = 1.0,
    team: Team = ALONE,
    rungs: Sequence[float] = (),
    on_rung: Callable[[Rung], None] = lambda _: None,
) -> Outcome:
    """Trains `model` in place, from the newest whole checkpoint if there is one.

    `assess` evaluates the model as it is (higher is better, its first metric decides) at the end of each
    epoch, or every `selection.every` steps, and after the last step. With `keep: best` (the default) the
    model ends with the best weights, the earlier ones of equals. `note` hears of torn checkpoints. At
    `rungs`, shares of the steps, `on_rung` is told what `assess` says, and nothing else changes; a resumed
    run tells again what was told before it.

    Of a team every rank calls this with the same words; all evaluate, and only rank 0's reporter, notes and
    checkpoints are used and only its model and outcome are those of the training.

    Raises:
        TrainingError: a loss or gradient is not finite.
        Interrupted: the reporter said STOP; a checkpoint was written first, where there are checkpoints.
        StoreError: a checkpoint could not be written; told at the report after it.
    """
    saved = checkpoints if team.first else None
    with tensors.settled(torch.device(layout.device), layout.threads):
        trainer = _Trainer(
            model, objective, batches, settings, layout, selection or Selection(), assess, team
        )
        trainer.begin(seed)
        resumed_at = trainer.resume(saved, note)
        ladder = _Ladder(trainer, rungs, on_rung if team.first else lambda _: None)
        try:
            _train(trainer, ladder, _Watch(trainer, reporter, saved, report_seconds))
            return trainer.finish(resumed_at)
        finally:
            if saved is not None and (problem := saved.wait()) is not None:
                # What has ended needs it no longer, and what failed has a reason of its own.
                note(f"the last checkpoint could not be written ({problem})")


def _train(trainer: _Trainer, ladder: _Ladder, watch: _Watch) -> None:
    ladder.tell_again()
    while trainer.goes_on():
        trainer.step()
        metrics = trainer.evaluate() if trainer.due() else {}
        ladder.tell(metrics)
        if metrics or trainer.memory.step == trainer.settings.steps or watch.waited():
            watch.tell(metrics)


class _Trainer:
    """The state of one training run and what one step does to it."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        batches: Batches,
        settings: Optimisation,
        layout: Layout,
        selection: Selection,
        assess: Callable[[], dict[str, float]] | None,
        team: Team,
    ) -> None:
        if batches.steps != settings.steps:
            raise ValueError(f"{batches.steps} steps of batches, {settings.steps} of the schedule")
        self.device = torch.device(layout.device)
        self.model, self.team = model, team
        self.body = team.body(model, self.device)
        self.objective, self.batches, self.settings = objective, batches, settings
        self.selection, self.assess = selection, assess
        self.optimizer = adamw(self.body.named, settings)
        self.recent = torch.zeros(RECENT, device=self.device)
        self.norm = torch.zeros((), device=self.device)
        self.best_weights: dict[str, Tensor] | None = None
        self.memory = _Memory()
        self.began = time.monotonic()

    def begin(self, seed: int) -> None:
        """Dropout from its own stream, whatever was drawn before."""
        torch.manual_seed(stream(seed, self.team.dropout))
        self.model.train()

    def goes_on(self) -> bool:
        """Whether there is another step to do."""
        patience = self.selection.patience
        stopped = patience is not None and self.memory.since_best >= patience
        return self.memory.step < self.settings.steps and not stopped

    def step(self) -> None:
        """One optimiser step: gradients of all micro-batches, clipped once."""
        step = self.memory.step
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(step)
        loss = self._backward(self.batches.micro(step, self.team.deal))
        self.recent[step % RECENT] = loss
        # On a CPU looking costs 2 microseconds; a GPU would have to be waited for, so `check` looks.
        if self.device.type == "cpu" and not (math.isfinite(loss.item()) and math.isfinite(self.norm.item())):
            raise _not_finite(step + 1)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.memory.step = step + 1

    def _backward(self, micro: list[Batch]) -> Tensor:
        """Gradients of the mean loss over all micro-batches and ranks, clipped; that loss, on the device."""
        if len(micro) == 1 and self.team.size == 1:
            loss, count = self._losses(micro[0])
            loss = loss / count.detach().clamp_min(1)
            loss.backward()  # type: ignore[no-untyped-call]
            self.norm = self.body.clip(self.settings.clip)
            return loss.detach().float()
        sums = torch.zeros(2, device=self.device)
        for number, batch in enumerate(micro):
            with self.body.pending() if number + 1 < len(micro) else nullcontext():
                loss, count = self._losses(batch)
                if IDLE in batch:
                    loss, count = loss * 0, count * 0
                loss.backward()  # type: ignore[no-untyped-call]
            sums[0] += loss.detach()
            sums[1] += count.detach()
        # How many things there are is known only after the last micro-batch: sums first, then one division.
        sums = self.body.total(sums)
        share = 1 / sums[1].clamp_min(1)
        self.body.settle()
        torch._foreach_mul_(self.body.gradients(), share * self.body.scale)
        self.norm = self.body.clip(self.settings.clip)
        return sums[0] * share

    def _losses(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Sum of losses of a micro-batch, and the number of things summed over."""
        inputs = tensors.on_device(batch, self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            return self.body.run(lambda model: self.objective(model, inputs))

    def check(self) -> float:
        """Mean loss of the last 50 steps.

        Raises:
            TrainingError: it is not finite.
        """
        loss = self.recent[: min(self.memory.step, RECENT)].mean().item()
        if not (math.isfinite(loss) and math.isfinite(self.norm.item())):
            raise _not_finite(self.memory.step)
        return loss

    def due(self) -> bool:
        """Whether to evaluate now."""
        every = self.selection.every or self.batches.steps_per_epoch
        step = self.memory.step
        return self.assess is not None and (step % every == 0 or step == self.settings.steps)

    def evaluate(self) -> dict[str, float]:
        """Evaluates, remembers the best; draws nothing from the dropout stream."""
        metrics, memory = self.assessed(), self.memory
        memory.majority = metrics.pop(MAJORITY, memory.majority)
        memory.metric, value = next(iter(metrics.items()))
        memory.last = value
        if memory.best is None or value > memory.best:
            memory.best, memory.best_step, memory.since_best = value, memory.step, 0
            if self.selection.keep == "best":
                self.best_weights = self.body.weights()
        else:
            memory.since_best += 1
        return metrics

    def assessed(self) -> dict[str, float]:
        """What `assess` says on rank 0. Every rank computes it: with shared out weights none can alone."""
        assess = self.assess
        assert assess is not None
        self.check()
        self.model.eval()
        with torch.random.fork_rng(devices=tensors.indices(self.device)), torch.no_grad():
            metrics: Any = self.body.run(lambda _: dict(assess()))
        self.model.train()
        return dict(*self.heard(metrics))

    def progress(self) -> Progress:
        """How far it is."""
        step = self.memory.step
        seconds = self.memory.seconds + time.monotonic() - self.began
        return Progress(step, self.settings.steps, step / self.batches.steps_per_epoch, seconds)

    def snapshot(self) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
        """Everything that the next step depends on, as a checkpoint holds it; copies on the CPU, on rank 0.

        They cost 12 bytes a weight of host memory (weights and two moments) until they are written.
        """
        self.check()
        files = {
            "model": self.body.weights(),
            "optimizer": self.body.copied(moments(self.body.named, self.optimizer)),
            "rng": {"recent": self.recent.clone(), **self.body.generators()},
        }
        if self.best_weights is not None:
            files["best"] = self.best_weights
        memory = self.memory
        state = {name: copy.copy(getattr(memory, name)) for name in _Memory.__slots__}
        state["seconds"] = self.progress().seconds
        return files, state

    def resume(self, checkpoints: Checkpoints | None, note: Callable[[str], None]) -> int:
        """Goes on from the newest whole checkpoint of the same step, whatever its layout; its step, or 0."""
        found = None if checkpoints is None else checkpoints.latest(note)
        recent = None if found is None else found.tensors["rng"].pop("recent").tolist()
        state, losses = self.heard(None if found is None else found.state, recent)
        if state is None:
            return 0
        self.recent.copy_(torch.tensor(losses))
        self.body.load(None if found is None else found.tensors, self.optimizer)
        best = None if found is None else found.tensors.get("best")
        self.best_weights = None if best is None else {name: each.clone() for name, each in best.items()}
        self.memory = _Memory(**state)
        if found is not None:
            note(f"resumed at step {found.step} of {self.settings.steps} (attempt {found.attempt})")
        return self.memory.step

    def heard(self, *words: Any) -> Any:
        """What rank 0 says; `words` themselves where there is only one."""
        return self.team.hear(list(words), self.device)

    def finish(self, resumed_at: int) -> Outcome:
        """Puts the kept weights into the model."""
        loss, seconds, memory = self.check(), self.progress().seconds, self.memory
        self.body.leave(self.best_weights if memory.best_step != memory.step else None)
        self.model.eval()
        kept = memory.best if self.selection.keep == "best" else memory.last
        flags: tuple[str, ...] = ()
        if kept is not None and memory.majority is not None:
            flags = ("collapsed",) if kept < memory.majority + COLLAPSE_MARGIN else ()
        return Outcome(
            steps=memory.step,
            final_loss=loss,
            metric=memory.metric,
            best=memory.best,
            best_step=memory.best_step,
            kept=kept,
            history=memory.history,
            flags=flags,
            seconds=seconds,
            resumed_at=resumed_at,
        )


class _Ladder:
    """Tells what a run is worth at shares of its steps, and changes nothing of it."""

    def __init__(self, trainer: _Trainer, rungs: Sequence[float], on_rung: Callable[[Rung], None]) -> None:
        self.trainer, self.on_rung = trainer, on_rung
        steps = trainer.settings.steps
        self.rungs = [(share, math.ceil(round(share * steps, 9))) for share in sorted(rungs)]

    def tell_again(self) -> None:
        """What was told before a checkpoint: whoever listens now may not have heard it."""
        wanted = [share for share, _ in self.rungs]
        for each in self.trainer.memory.rungs:
            if each[0] in wanted:
                self.on_rung(Rung(*each))

    def tell(self, metrics: dict[str, float]) -> None:
        """The rungs of this step: by `metrics` where it was evaluated, else by an evaluation of their own."""
        here = [share for share, step in self.rungs if step == self.trainer.memory.step]
        if not here or self.trainer.assess is None:
            return
        metric, value = next(iter((metrics or self.trainer.assessed()).items()))
        for share in here:
            rung = Rung(share, self.trainer.memory.step, metric, value)
            self.trainer.memory.rungs.append(astuple(rung))
            self.on_rung(rung)


class _Watch:
    """Tells the reporter now and then, and does what it answers.

    Rank 0's clock and reporter decide for all. So that nobody has to ask at every step, rank 0 says each
    time at which step it will report again: the one after `seconds` at the pace of late.
    """

    def __init__(
        self, trainer: _Trainer, reporter: Reporter, checkpoints: Checkpoints | None, seconds: float
    ) -> None:
        self.trainer, self.reporter, self.checkpoints, self.seconds = trainer, reporter, checkpoints, seconds
        self.last = time.monotonic()
        self.told = trainer.memory.step
        self.next = self.told + 1

    def waited(self) -> bool:
        """Whether it is time for another report."""
        if self.trainer.team.size > 1:
            return self.trainer.memory.step >= self.next
        return time.monotonic() - self.last >= self.seconds

    def tell(self, metrics: dict[str, float]) -> None:
        """One report, and one row of the history.

        Raises:
            Interrupted: the answer was STOP.
            StoreError: the checkpoint before could not be written.
        """
        trainer, step = self.trainer, self.trainer.memory.step
        loss = trainer.check()
        if self.checkpoints is not None:
            self.checkpoints.check()
        answer = self._report(loss, metrics).value if trainer.team.first else ""
        saves = answer != Signal.GO.value and self.checkpoints is not None
        pace = (time.monotonic() - self.last) / max(1, step - self.told)
        ahead = max(1, int(self.seconds / pace)) if pace > 0 else 1
        answer, saves, self.next = trainer.heard(answer, saves, step + ahead)
        signal = Signal(answer)
        if saves:
            self._save(signal)
            if signal is Signal.STOP:
                trainer.heard()  # a rank that ends may end the others, and rank 0 is not to end in writing
        self.last, self.told = time.monotonic(), step
        if signal is Signal.STOP:
            raise Interrupted(f"stopped after step {step} of {trainer.settings.steps}")

    def _report(self, loss: float, metrics: dict[str, float]) -> Signal:
        progress = self.trainer.progress()
        row = {"loss": loss, "learning_rate": self.trainer.settings.rate(progress.step - 1), **metrics}
        epoch, seconds = round(progress.epoch, 4), round(progress.seconds, 2)
        history = self.trainer.memory.history
        history.append({"step": progress.step, "epoch": epoch, "seconds": seconds, **row})
        return self.reporter.report(progress, row)

    def _save(self, signal: Signal) -> None:
        """Who is to stop writes at once; who goes on, in the background."""
        if self.checkpoints is not None:
            # Before copies are made, or there would be two sets of them in memory.
            problem = self.checkpoints.wait()
            if problem is not None and signal is not Signal.STOP:
                raise problem
        files, state = self.trainer.snapshot()
        if self.checkpoints is not None:
            save = self.checkpoints.save if signal is Signal.STOP else self.checkpoints.save_soon
            save(self.trainer.memory.step, files, state)


def _not_finite(step: int) -> TrainingError:
    remedy = "lower learning_rate, or use precision fp32; else look for a broken row in the training data"
    return TrainingError(f"the loss or its gradient was not finite by step {step}", remedy)
