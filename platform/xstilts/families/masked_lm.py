"""Masked language modelling (Devlin et al. 2019; XLM-R's head): hidden sub-words guessed from the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from xstilts.errors import JobFileError
from xstilts.families import batching, columns, heads, subwords
from xstilts.families.base import Batch, Example, FamilyCode, Feature, Length, Prediction, initialise
from xstilts.tasks.task import FAMILY_VERSION, Family, Task

IGNORED = -100
"""Target of positions that are not guessed."""


class MaskedLmHead(nn.Module):
    """Hidden states (..., width) -> (..., width), to be compared with the input embeddings.

    XLM-R's lm_head: dense, gelu, layer norm, then a decoder tied to the input embeddings, which
    `MaskedLM.forward` applies. `bias` (vocabulary,) is the decoder's, absent where `vocabulary` is None.
    """

    def __init__(self, width: int, vocabulary: int | None = None, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.layer_norm = nn.LayerNorm(width, eps=epsilon)
        self.bias = None if vocabulary is None else nn.Parameter(torch.zeros(vocabulary))
        initialise(self)

    def forward(self, hidden: Tensor) -> Tensor:
        """Same shape as `hidden`."""
        states: Tensor = self.layer_norm(functional.gelu(self.dense(hidden)))
        return states


class MaskedLM:
    """Column: text. Trained, never predicted: targets come from `mask`, anew for every batch."""

    VERSION: int = FAMILY_VERSION[Family.MASKED_LM]
    metrics: tuple[str, ...] = ()

    def examples(self, task: Task, rows: Sequence[Mapping[str, Any]]) -> list[Example]:
        """See `FamilyCode`."""
        return [
            Example(
                name.item,
                {"text": columns.text(task, row, number, "text")},
                None,
                name.cluster,
                name.parallel_id,
            )
            for number, (row, name) in enumerate(zip(rows, columns.identities(task, rows), strict=True))
        ]

    def encode(
        self, task: Task, examples: Sequence[Example], tokenizer: Any, length: Length, training: bool
    ) -> list[Feature]:
        """See `FamilyCode`; features have no target yet, since what is hidden changes from epoch to epoch."""
        texts = [example.inputs["text"] for example in examples]
        encoded = subwords.encode_texts(tokenizer, texts, None, length.max_length)
        return [Feature(number, (ids,)) for number, (ids, _) in enumerate(encoded)]

    def collate(self, features: Sequence[Feature], pad_id: int) -> Batch:
        """input_ids and attention_mask; `mask` adds the target."""
        return batching.padded(features, pad_id)

    def head(self, task: Task, width: int, dropout: float) -> nn.Module:
        """Without the decoder's bias, whose size only the encoder knows: see `head_for`."""
        return MaskedLmHead(width)

    def forward(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits (n, length, vocabulary)."""
        return self._decoded(model, heads.encoded(model, batch).last_hidden_state)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Cross-entropy summed over hidden sub-words, and their number.

        Only they are decoded: with 15 % hidden, a seventh of what the vocabulary's logits cost.
        """
        chosen = batch["target"] != IGNORED
        logits = self._decoded(model, heads.encoded(model, batch).last_hidden_state[chosen])
        total = functional.cross_entropy(logits.float(), batch["target"][chosen], reduction="sum")
        return total, chosen.sum().float()

    def decode(
        self, task: Task, examples: Sequence[Example], features: Sequence[Feature], outputs: Sequence[Tensor]
    ) -> list[Prediction]:
        """Masked LM predicts nothing.

        Raises:
            JobFileError: always.
        """
        raise self._untold(task)

    def items(
        self, task: Task, examples: Sequence[Example], predictions: Mapping[str, Any], language: str
    ) -> list[dict[str, Any]]:
        """Masked LM is not scored.

        Raises:
            JobFileError: always.
        """
        raise self._untold(task)

    def score(self, task: Task, sums: Mapping[str, Any]) -> dict[str, Any]:
        """No metrics."""
        return {}

    @staticmethod
    def _decoded(model: nn.Module, hidden: Tensor) -> Tensor:
        """Logits over the vocabulary by the encoder's own input embeddings."""
        head = heads.head_of(model)
        table: Tensor = cast(Any, model).encoder.get_input_embeddings().weight
        return functional.linear(head(hidden), table, head.bias)

    @staticmethod
    def _untold(task: Task) -> JobFileError:
        return JobFileError(f"{task.name} is only trained on", "take it off the targets")


def head_for(encoder: Any) -> MaskedLmHead:
    """A fresh head with the decoder's bias, from torch's current generator; `encoder`: an AutoModel."""
    return MaskedLmHead(encoder.config.hidden_size, encoder.get_input_embeddings().weight.shape[0])


def mask(
    batch: Batch,
    generator: torch.Generator,
    *,
    special_ids: Sequence[int],
    mask_id: int,
    vocabulary: int,
    share: float = 0.15,
) -> Batch:
    """A copy of a CPU batch with `target` and with `share` of the sub-words hidden, special ones never.

    Of the hidden, 80 % become <mask>, 10 % a random sub-word, 10 % stay (Devlin et al. 2019). A function of
    the generator's state alone.
    """
    ids = batch["input_ids"]
    free = (batch["attention_mask"] == 1) & ~torch.isin(ids, torch.tensor(list(special_ids)))
    chosen = free & (torch.rand(ids.shape, generator=generator) < share)
    fate = torch.rand(ids.shape, generator=generator)
    random = torch.randint(vocabulary, ids.shape, generator=generator)
    hidden = torch.where(chosen & (fate < 0.8), mask_id, ids)
    hidden = torch.where(chosen & (fate >= 0.9), random, hidden)
    return {**batch, "input_ids": hidden, "target": torch.where(chosen, ids, IGNORED)}


CODE: FamilyCode = MaskedLM()
