"""What heads stand on, and the heads that several families share."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from xstilts.families.base import Batch, initialise


def encoded(model: nn.Module, batch: Batch, every_layer: bool = False) -> Any:
    """What `model.encoder` returns for a batch: `last_hidden_state` (sequences, length, width) and, with
    `every_layer`, `hidden_states`.

    Token types are passed on only to encoders that tell them apart: XLM-R has a single type, and index 1
    would be outside its table.
    """
    encoder: Any = cast(Any, model).encoder
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if "token_type_ids" in batch and getattr(encoder.config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = batch["token_type_ids"]
    return encoder(**inputs, output_hidden_states=every_layer)


def head_of(model: nn.Module) -> Any:
    """`model.head`, callable."""
    return cast(Any, model).head


class SentenceHead(nn.Module):
    """(n, width) first-token vectors -> (n, labels) logits: dense, tanh, linear, with dropout before each.

    As in XLM-R's own classifier (Conneau et al. 2020; RobertaClassificationHead of transformers).
    """

    def __init__(self, width: int, labels: int, dropout: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(width, labels)
        initialise(self)

    def forward(self, first: Tensor) -> Tensor:
        """Logits (n, labels)."""
        logits: Tensor = self.out_proj(self.dropout(torch.tanh(self.dense(self.dropout(first)))))
        return logits


class LinearHead(nn.Module):
    """(..., width) -> (..., outputs): dropout and one linear layer."""

    def __init__(self, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(width, outputs)
        initialise(self)

    def forward(self, vectors: Tensor) -> Tensor:
        """Logits (..., outputs)."""
        logits: Tensor = self.out_proj(self.dropout(vectors))
        return logits
