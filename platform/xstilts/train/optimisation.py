"""What an optimiser step does with gradients: learning rate, decay, AdamW and its state by parameter name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from xstilts.spec.experiment import PretrainSpec, TrainSettings

Named = Sequence[tuple[str, nn.Parameter]]


@dataclass(frozen=True, slots=True)
class Optimisation:
    """What pretraining and fine-tuning settings have in common."""

    learning_rate: float
    steps: int
    warmup: float
    """Share of all steps."""
    schedule: Literal["linear", "constant"]
    weight_decay: float
    adam_epsilon: float
    clip: float
    """Largest gradient norm."""
    precision: Literal["fp32", "bf16"]
    betas: tuple[float, float] = (0.9, 0.999)

    @classmethod
    def of_training(cls, settings: TrainSettings, steps: int) -> Optimisation:
        """Of fine-tuning for `steps` optimiser steps (`FineTuning.steps`)."""
        rising = settings.warmup_steps
        return cls(
            learning_rate=settings.learning_rate,
            steps=steps,
            warmup=settings.warmup if rising is None else rising / steps,
            schedule=settings.schedule,
            weight_decay=settings.weight_decay,
            adam_epsilon=settings.adam_epsilon,
            clip=settings.clip,
            precision=settings.precision,
        )

    @classmethod
    def of_pretraining(cls, spec: PretrainSpec) -> Optimisation:
        """Of masked-LM pretraining; beta2 and epsilon as RoBERTa's (Liu et al. 2019, section 3.1)."""
        return cls(
            learning_rate=spec.learning_rate,
            steps=spec.steps,
            warmup=spec.warmup,
            schedule="linear",
            weight_decay=spec.weight_decay,
            adam_epsilon=1e-6,
            clip=1.0,
            precision=spec.precision,
            betas=(0.9, 0.98),
        )

    def rate(self, step: int) -> float:
        """Learning rate of step `step` (from 0): up over the warm-up, then level or down to 0 after the last.

        No step has rate 0, which in a run of six would be a sixth of the training done for nothing.
        """
        rising = math.ceil(round(self.warmup * self.steps, 9))
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (self.steps - step) / max(1, self.steps - rising)


def adamw(named: Named, settings: Optimisation) -> torch.optim.AdamW:
    """Fused AdamW; vectors (biases and the weights of normalisation) are not decayed."""
    matrices = [each for _, each in named if each.ndim > 1]
    vectors = [each for _, each in named if each.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.adam_epsilon,
        fused=True,
    )


def moments(named: Named, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """AdamW's state as "<parameter>/<exp_avg, exp_avg_sq or step>" -> tensor."""
    return {
        f"{name}/{kind}": tensor
        for name, parameter in named
        for kind, tensor in optimizer.state.get(parameter, {}).items()
    }


def load_moments(named: Named, optimizer: torch.optim.AdamW, saved: Mapping[str, Tensor]) -> None:
    """Puts back what `moments` gave; a parameter that never had a gradient has none."""
    by_parameter: dict[str, dict[str, Tensor]] = {}
    for key, tensor in saved.items():
        name, kind = key.rsplit("/", 1)
        by_parameter.setdefault(name, {})[kind] = tensor
    for name, parameter in named:
        if name in by_parameter:
            state: dict[str, Any] = {
                kind: tensor.to(parameter.device, copy=True) for kind, tensor in by_parameter[name].items()
            }
            optimizer.state[parameter] = state
