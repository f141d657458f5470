"""Vectors of a frozen encoder, layer by layer or for single words; and the gradients of a trained model.

Texts go through an encoder as the task's family encodes them for training, pairs as pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from xstilts.errors import ModelError
from xstilts.families import batching, heads
from xstilts.families.base import Example, FamilyCode, Feature, Length
from xstilts.families.tagging import IGNORED
from xstilts.tasks.task import Family, Task

Array = np.ndarray[Any, Any]
Progress = Callable[[int, int], None]
"""Called with sequences done and sequences in all, once a batch."""


@dataclass(frozen=True, slots=True)
class Reader:
    """How sequences go through the encoder."""

    model: nn.Module
    pad_id: int
    batch: int
    device: torch.device | str
    precision: str
    """fp32 or bf16."""
    progress: Progress | None = None

    def states(self, sequences: Sequence[Feature]) -> Iterator[tuple[list[int], tuple[Tensor, ...], Tensor]]:
        """(which sequences, hidden states from the embeddings up, mask), batch by batch."""
        self.model.eval()
        kind = torch.device(self.device).type
        done = 0
        for members in batching.bucketed([one.length for one in sequences], self.batch):
            padded = batching.padded([sequences[one] for one in members], self.pad_id)
            inputs = {name: value.to(self.device) for name, value in padded.items()}
            with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bf16"):
                states = heads.encoded(self.model, inputs, every_layer=True).hidden_states
            yield members, states, inputs["attention_mask"]
            done += len(members)
            if self.progress is not None:
                self.progress(done, len(sequences))


@dataclass(frozen=True, slots=True)
class Unit:
    """What a label is of: a sequence, or some positions of it."""

    sequence: int
    positions: tuple[int, ...]
    """() for all that are attended."""
    label: int


def sequences(features: Sequence[Feature]) -> list[Feature]:
    """One feature a sequence: each choice of a multiple-choice feature by itself."""
    found = []
    for feature in features:
        types = feature.keep.get("types")
        for place, ids in enumerate(feature.input_ids):
            keep = {} if types is None else {"types": (types[place],)}
            found.append(Feature(feature.example, (ids,), None, keep))
    return found


def pooled(reader: Reader, own: Sequence[Feature], layers: Sequence[int]) -> Array:
    """(layers, sequences, width) float32: the mean over attended positions, <s> and </s> included, of hidden
    states; `layers` as `layer_numbers` gives them."""
    found: Array = np.zeros((0,))
    for members, states, mask in reader.states(own):
        if not found.size:
            found = np.zeros((len(layers), len(own), states[0].shape[-1]), np.float32)
        shares = (mask / mask.sum(1, keepdim=True))[:, :, None].float()
        for place, layer in enumerate(layers):
            found[place, members] = (states[layer].float() * shares).sum(1).cpu().numpy()
    return found


def of_units(reader: Reader, own: Sequence[Feature], units: Sequence[Unit]) -> Array:
    """(units, width) float32: the mean of the last hidden state over the positions of each."""
    by_sequence: dict[int, list[int]] = {}
    for number, unit in enumerate(units):
        by_sequence.setdefault(unit.sequence, []).append(number)
    wanted = sorted(by_sequence)
    found: Array = np.zeros((0,))
    for members, states, mask in reader.states([own[one] for one in wanted]):
        last = states[-1].float()
        if not found.size:
            found = np.zeros((len(units), last.shape[-1]), np.float32)
        for row, member in enumerate(members):
            for number in by_sequence[wanted[member]]:
                places = list(units[number].positions) or mask[row].nonzero()[:, 0].tolist()
                found[number] = last[row, places].mean(0).cpu().numpy()
    return found


def depth(model: nn.Module) -> int:
    """The number of the last hidden state; the embeddings are 0."""
    encoder: Any = cast(Any, model).encoder
    return int(encoder.config.num_hidden_layers)


def layer_numbers(asked: Sequence[int], top: int) -> tuple[int, ...]:
    """Which of the hidden states 0 to `top` are asked for, ascending; () asks for all, -1 for the last.

    Raises:
        ModelError: there is no such layer.
    """
    for layer in asked:
        if not -top - 1 <= layer <= top:
            raise ModelError(
                f"the encoder has hidden states 0 (embeddings) to {top}, and layer {layer} was asked for",
                f"set probe.layers in the job file to at most {top}, or leave it out for all",
                ("probe", "layers"),
            )
    return tuple(sorted({layer % (top + 1) for layer in asked})) or tuple(range(top + 1))


def labelled(
    code: FamilyCode, task: Task, examples: Sequence[Example], tokenizer: Any, length: Length
) -> tuple[list[Feature], list[Unit]]:
    """Sequences of examples, and what of them has a label.

    classification: the sequence | multiple choice: each choice, 1 for the right one | tagging: the first
    sub-word of each word | span QA: the answer (1) and as long a piece of the same passage beside it (0).

    Raises:
        DataError: an example has no gold label. ValueError: a kind of task without labels.
    """
    features = code.encode(task, examples, tokenizer, length, True)
    if task.family is Family.SPAN_QA:
        plain = code.encode(task, examples, tokenizer, length, False)
        return features, [
            unit
            for number, (feature, window) in enumerate(zip(features, plain, strict=True))
            for unit in _spans(number, feature.target, window.keep["begin"], window.keep["count"])
        ]
    if task.family is Family.TAGGING:
        words = ((n, place, tag) for n, one in enumerate(features) for place, tag in enumerate(one.target))
        return features, [Unit(n, (place,), tag) for n, place, tag in words if tag != IGNORED]
    if task.family is Family.MULTIPLE_CHOICE:
        rights = [int(place == one.target) for one in features for place in range(len(one.input_ids))]
        return sequences(features), [Unit(number, (), right) for number, right in enumerate(rights)]
    if task.family is Family.CLASSIFICATION:
        return features, [Unit(number, (), one.target) for number, one in enumerate(features)]
    raise ValueError(f"a probe has no labels to fit for {task.family}")


def gradients(
    model: nn.Module, code: FamilyCode, features: Sequence[Feature], pad_id: int, batch: int,
    device: torch.device | str, progress: Progress | None = None,
) -> Array:  # fmt: skip
    """(hidden states, width) float64: the squared gradient of the loss of one example, with its gold label,
    with respect to every hidden state, by position, averaged over positions and examples.

    It is the diagonal of the empirical Fisher information of the outputs of layers: the task embedding of Vu
    et al. 2020 (section 3.2). `model` has the head that the task was trained with.
    """
    holder: Any = model
    inner, watched = holder.encoder, _Watched(holder.encoder)
    total: Array = np.zeros((0,))
    count = 0
    model.eval()
    try:
        holder.encoder = watched
        for members in batching.bucketed([feature.length for feature in features], batch):
            inputs = code.collate([features[one] for one in members], pad_id)
            inputs = {name: value.to(device) for name, value in inputs.items()}
            loss, _ = code.loss(model, inputs)
            given = torch.autograd.grad(loss, watched.states)
            mask = inputs["attention_mask"][:, :, None].double()
            own = [((one.double() ** 2 * mask).sum(1) / mask.sum(1)).sum(0) for one in given]
            summed = torch.stack(own).cpu().numpy()
            total = summed if not total.size else total + summed
            count += int(inputs["input_ids"].shape[0])
            if progress is not None:
                progress(count, len(features))
    finally:
        holder.encoder = inner
    return total / max(count, 1)


class _Watched(nn.Module):
    """An encoder that keeps its hidden states, so that gradients can be asked of them."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.config = inner.config
        self.states: tuple[Tensor, ...] = ()

    def forward(self, **inputs: Any) -> Any:
        """As the encoder; the last hidden state that a head reads is the last of `states`."""
        inputs["output_hidden_states"] = True
        made = self.inner(**inputs)
        self.states = (*made.hidden_states[:-1], made.last_hidden_state)
        return made


def _spans(number: int, target: tuple[int, int], begin: int, count: int) -> Iterator[Unit]:
    """The answer of a window, and a piece of the passage as long that shares nothing with it; nothing where
    the window has no answer, or no room for such a piece. Which piece, a hash says: the same everywhere."""
    first, last = target
    size = last - first + 1
    places = [
        place for place in range(begin, begin + count - size + 1) if place + size <= first or place > last
    ]
    if last == 0 or not places:
        return
    drawn = hashlib.sha256(f"span/{number}/{first}/{last}".encode()).digest()
    other = places[int.from_bytes(drawn[:8], "big") % len(places)]
    yield Unit(number, tuple(range(first, last + 1)), 1)
    yield Unit(number, tuple(range(other, other + size)), 0)
