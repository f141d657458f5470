"""Sentences as vectors of a frozen encoder: the mean of one hidden state, as Tatoeba and BUCC use it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from xstilts.errors import ModelError
from xstilts.families import heads
from xstilts.families.base import Batch


def mean_of_layer(model: nn.Module, batch: Batch) -> Tensor:
    """Vectors (n, width): mean of hidden states `model.layer` (None: the last) over all attended positions,
    <s> and </s> included, as XTREME's and jiant's code do.

    Raises:
        ModelError: the encoder has no layer `model.layer`.
    """
    layer: int | None = cast(Any, model).layer
    states = heads.encoded(model, batch, every_layer=True).hidden_states
    layer = -1 if layer is None else layer
    if not -len(states) <= layer < len(states):
        top = len(states) - 1
        raise ModelError(
            f"the encoder has hidden states 0 (embeddings) to {top}, and layer {layer} was asked for",
            f"set evaluate.retrieval.layer in the job file to at most {top}, or to -1 for the last",
            ("evaluate", "retrieval", "layer"),
        )
    mask = batch["attention_mask"][:, :, None].float()
    pooled: Tensor = (states[layer].float() * mask).sum(1) / mask.sum(1)
    return pooled


def unit(vectors: Sequence[Tensor]) -> np.ndarray[Any, Any]:
    """Vectors of one width as one array (n, width) float64, each scaled to length 1 (0 stays 0)."""
    stacked = torch.stack(list(vectors)).double().numpy()
    lengths = np.linalg.norm(stacked, axis=1, keepdims=True)
    scaled: np.ndarray[Any, Any] = stacked / np.maximum(lengths, 1e-12)
    return scaled
