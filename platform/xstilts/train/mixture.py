"""Training on several tasks at once: one task is drawn for every optimiser step, a head each, one encoder.

The draw is p proportional to min(examples, 2^17) (Phang et al. 2020, 3.1; Raffel et al. 2020) and a function
of (seed, step) alone; so is what each draw gives, and resuming needs only the step's number.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from xstilts.errors import DataError, ModelError
from xstilts.families import batching, masked_lm, subwords
from xstilts.families.base import Batch, FamilyCode, Feature
from xstilts.families.encoder import TaskModel
from xstilts.frozen import stream
from xstilts.train.batches import ALL, Deal, FineTuning, Ints, dealt, marked, steps_of
from xstilts.train.loop import MAJORITY

CAP = 2**17
"""Examples beyond these do not make a task likelier (Phang et al. 2020, 3.1: K = 131,072)."""

MARK = "task:"
"""Begins the one key of a batch that is no input of its model: it names the task. A name in a key travels to
a GPU with the batch and is read without waiting for that GPU; its tensor is never looked at."""

_ENCODED_TOGETHER = 10_000
"""Texts whose sub-words are Python integers at one time: those of 2 million would be some 2 GB."""


class Source(Protocol):
    """The batches of one component, without end: after an epoch comes the next."""

    def micro(self, step: int, deal: Deal = ALL) -> list[Batch]:
        """The micro-batches that the component's `step`-th draw (from 0) gives, on the CPU."""
        ...


class Ingredient(Protocol):
    """What a mixture is made of: `Component` for tasks with labels, `MlmComponent` for raw text."""

    @property
    def name(self) -> str:
        """The task's name."""
        ...

    @property
    def code(self) -> FamilyCode:
        """Whose `loss` its batches are for."""
        ...

    @property
    def size(self) -> int:
        """Its examples: what it is drawn by."""
        ...

    @property
    def effective_batch(self) -> int:
        """Examples an optimiser step."""
        ...

    def batches(self, seed: int, per_device_batch: int) -> Source:
        """Its batches, whatever it is mixed with."""
        ...


@dataclass(frozen=True, slots=True)
class Component:
    """One task with labels."""

    name: str
    code: FamilyCode
    features: Sequence[Feature]
    effective_batch: int
    collate: Callable[[Sequence[Feature]], Batch]
    size: int
    """Examples; a long one makes several features."""

    def batches(self, seed: int, per_device_batch: int) -> FineTuning:
        """As the task alone would be trained with this seed, so that a mixture's row and the task's own are
        paired: the k-th batch of one is the k-th batch of the other."""
        return FineTuning(
            self.features, 1, self.effective_batch, per_device_batch, seed, self.collate, whole(self.code)
        )


class MlmComponent:
    """Masked language modelling on sentences in many languages, one line one example.

    Languages are drawn with p proportional to n^exponent (Conneau & Lample 2019), a sentence uniformly among
    its language's, with replacement.
    """

    code: FamilyCode = masked_lm.CODE

    def __init__(
        self,
        texts: Mapping[str, Sequence[str]],
        tokenizer: Any,
        *,
        effective_batch: int,
        max_length: int,
        exponent: float = 0.3,
        counts: Mapping[str, int] | None = None,
        share: float = 0.15,
        name: str = "mlm",
    ) -> None:
        """`texts`: language -> sentences, cut to `max_length` sub-words; empty ones are left out. `counts`:
        language -> n, where `texts` is only a part of what there is.

        Raises:
            DataError: there is no text.
            ModelError: the tokenizer has no mask.
        """
        if tokenizer.mask_token_id is None:
            raise ModelError(
                "the tokenizer has no mask", "take `mlm` out of the mixture, or take a masked-LM encoder"
            )
        every = {code: Sentences(each, tokenizer, max_length) for code, each in sorted(texts.items())}
        self.sentences = {code: each for code, each in every.items() if len(each)}
        if not self.sentences:
            raise DataError("there is no text for `mlm`", "check `mlm.data` and its languages")
        self.name, self.effective_batch = name, effective_batch
        self.pad_id, self.mask_id = int(tokenizer.pad_token_id), int(tokenizer.mask_token_id)
        self.special_ids, self.vocabulary = list(tokenizer.all_special_ids), len(tokenizer)
        self.share = share
        known = counts or {code: len(each) for code, each in self.sentences.items()}
        n = np.array([known[code] for code in self.sentences], np.float64)
        self.probabilities: NDArray[np.float64] = n**exponent / (n**exponent).sum()

    @property
    def size(self) -> int:
        """Sentences in all languages."""
        return sum(len(each) for each in self.sentences.values())

    def batches(self, seed: int, per_device_batch: int) -> MlmBatches:
        """See `Ingredient`."""
        return MlmBatches(self, seed, min(per_device_batch, self.effective_batch))


class Sentences:
    """Sub-word ids of many texts in one array, special tokens around each; texts that give nothing else are
    left out."""

    def __init__(self, texts: Sequence[str], tokenizer: Any, max_length: int) -> None:
        special = np.array(list(tokenizer.all_special_ids))
        flat: list[NDArray[np.int32]] = [np.zeros(0, np.int32)]
        lengths: list[Ints] = [np.zeros(0, np.int64)]
        for start in range(0, len(texts), _ENCODED_TOGETHER):
            some = [text for text in texts[start : start + _ENCODED_TOGETHER] if text.strip()]
            encoded = subwords.encode_texts(tokenizer, some, None, max_length)
            rows = [ids for ids, _ in encoded if ids]
            long: Ints = np.array([len(ids) for ids in rows], np.int64)
            ids = np.fromiter(itertools.chain.from_iterable(rows), np.int32, int(long.sum()))
            said = np.add.reduceat(~np.isin(ids, special), np.cumsum(long) - long, dtype=np.int64) > 0
            flat.append(ids[np.repeat(said, long)])
            lengths.append(long[said])
        self._flat = np.concatenate(flat)
        self._ends: Ints = np.cumsum(np.concatenate(lengths))

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, number: int) -> list[int]:
        """Ids of one sentence."""
        start = int(self._ends[number - 1]) if number else 0
        ids: list[int] = self._flat[start : int(self._ends[number])].tolist()
        return ids


class MlmBatches:
    """The k-th batch: other sentences and other masks for each k, a function of (seed, k)."""

    def __init__(self, text: MlmComponent, seed: int, per_device_batch: int) -> None:
        self.text, self.seed, self.per_device_batch = text, seed, per_device_batch
        self._sentences = list(text.sentences.values())

    def micro(self, step: int, deal: Deal = ALL) -> list[Batch]:
        """Masked as a whole, so that the split over micro-batches changes nothing; each part is as wide as
        its longest sentence."""
        text = self.text
        rows = self.rows(step)
        whole = {
            "input_ids": batching.filled(rows, text.pad_id),
            "attention_mask": batching.filled([(1,) * len(ids) for ids in rows], 0),
        }
        masked = masked_lm.mask(
            whole,
            torch.Generator().manual_seed(stream(self.seed, f"mask/{step}")),
            special_ids=text.special_ids,
            mask_id=text.mask_id,
            vocabulary=text.vocabulary,
            share=text.share,
        )
        return [
            marked(
                {name: one[part, : len(rows[part.start])].contiguous() for name, one in masked.items()}, idle
            )
            for part, idle in dealt(len(rows), self.per_device_batch, deal)
        ]

    def rows(self, step: int) -> list[list[int]]:
        """Unmasked ids of the sentences of one batch, longest first."""
        draw = np.random.default_rng([stream(self.seed, "order"), step])
        size = self.text.effective_batch
        languages = draw.choice(len(self._sentences), size, p=self.text.probabilities).tolist()
        where = draw.random(size).tolist()
        rows = []
        for language, share in zip(languages, where, strict=True):
            own = self._sentences[language]
            rows.append(own[int(share * len(own))])
        return sorted(rows, key=len, reverse=True)


class MixtureModel(nn.Module):
    """One encoder and the heads of several tasks; `view` shows it as the model of one of them."""

    def __init__(
        self,
        encoder: nn.Module,
        heads: Mapping[str, nn.Module | None],
        layer: int | None = None,
        centre: bool = False,
    ) -> None:
        """`heads`: task -> head, None for a task that has none."""
        super().__init__()
        self.encoder = encoder
        named = {_module_name(task): head for task, head in sorted(heads.items()) if head is not None}
        self.heads = nn.ModuleDict(named)
        # In a plain dictionary they are no sub-modules: every weight has one name.
        self._views = {task: TaskModel(encoder, head, layer, centre) for task, head in heads.items()}

    def view(self, task: str) -> TaskModel:
        """Encoder and head of one task, as its family wants them; the weights are this model's own."""
        return self._views[task]

    def train(self, mode: bool = True) -> MixtureModel:
        """As any module's; views are in the same mode."""
        super().train(mode)
        for view in self._views.values():
            view.training = mode
        return self


class Mixture:
    """`train.batches.Batches` of several tasks, and the loss of each. Every optimiser step is of one task.

    An epoch has sum over tasks of ceil(min(size, cap) / effective batch) steps. A task that is drawn more
    often than it has batches goes on with its next epoch.
    """

    def __init__(
        self,
        components: Sequence[Ingredient],
        epochs: float,
        per_device_batch: int,
        seed: int,
        cap: int = CAP,
    ) -> None:
        self.components = {each.name: each for each in sorted(components, key=lambda one: one.name)}
        if not components or len(self.components) < len(components):
            raise ValueError("a mixture has at least one component, each with a name of its own")
        self.shares = shares({name: each.size for name, each in self.components.items()}, cap)
        """Task -> probability of being drawn."""
        per_epoch = sum(
            math.ceil(min(each.size, cap) / each.effective_batch) for each in self.components.values()
        )
        self.steps, self.steps_per_epoch = steps_of(per_epoch, epochs, 1)
        self._names = list(self.components)
        self._drawn, self._turn = _draws(list(self.shares.values()), self.steps, seed)
        self._sources = {name: each.batches(seed, per_device_batch) for name, each in self.components.items()}

    def draw(self, step: int) -> tuple[str, int]:
        """The task of optimiser step `step`, and how often it was drawn before."""
        return self._names[int(self._drawn[step])], int(self._turn[step])

    def micro(self, step: int, deal: Deal = ALL) -> list[Batch]:
        """The micro-batches of optimiser step `step`, all of one task, which a key of theirs names."""
        name, turn = self.draw(step)
        return [{**batch, MARK + name: torch.zeros(1)} for batch in self._sources[name].micro(turn, deal)]

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loop's objective: the loss of the family whose batch it is. `model`: a `MixtureModel`."""
        assert isinstance(model, MixtureModel)
        name = next(key for key in batch if key.startswith(MARK)).removeprefix(MARK)
        inputs = {key: tensor for key, tensor in batch.items() if not key.startswith(MARK)}
        return self.components[name].code.loss(model.view(name), inputs)


def shares(sizes: Mapping[str, int], cap: int = CAP) -> dict[str, float]:
    """Task -> probability of being drawn, proportional to min(size, cap); sizes are of one or more."""
    total = sum(min(size, cap) for size in sizes.values())
    return {name: min(size, cap) / total for name, size in sizes.items()}


def whole(code: FamilyCode) -> bool:
    """Whether a step's examples are never split: families that say `whole_batches` compare them with each
    other (in-batch negatives), and half a batch is another loss."""
    return bool(getattr(code, "whole_batches", False))


def mlm_head(encoder: nn.Module, seed: int) -> masked_lm.MaskedLmHead:
    """A fresh masked-LM head, from the stream that all fresh heads of a seed come from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, "head"))
        return masked_lm.head_for(encoder)


def mean_assessment(parts: Mapping[str, Callable[[], dict[str, float]]]) -> Callable[[], dict[str, float]]:
    """What chooses a mixture's checkpoint: `mean`, of the tasks' headline metrics (each one's first), and
    beside it every metric as "<task>/<metric>".

    The majority value is the mean of theirs, and absent where one of them has none.
    """
    if not parts:
        raise ValueError("a mixture without a labelled task cannot be assessed")

    def assess() -> dict[str, float]:
        found = {task: dict(part()) for task, part in parts.items()}
        majorities = [metrics.pop(MAJORITY, None) for metrics in found.values()]
        mean = sum(next(iter(metrics.values())) for metrics in found.values()) / len(found)
        named = {f"{task}/{metric}": value for task, own in found.items() for metric, value in own.items()}
        known = [each for each in majorities if each is not None]
        whole = {MAJORITY: sum(known) / len(known)} if len(known) == len(found) else {}
        return {"mean": mean, **named, **whole}

    return assess


def _draws(probabilities: Sequence[float], steps: int, seed: int) -> tuple[Ints, Ints]:
    """For each step the number of its task, and how often that was drawn before.

    Step t takes the t-th number of the stream, whatever comes after: more epochs have the same beginning.
    """
    edges = np.cumsum(probabilities)
    uniform = np.random.default_rng(stream(seed, "mixture")).random(steps)
    drawn: Ints = np.searchsorted(edges / edges[-1], uniform, side="right").astype(np.int64)
    turn: Ints = np.empty(steps, np.int64)
    for number in range(len(probabilities)):
        places = np.flatnonzero(drawn == number)
        turn[places] = np.arange(len(places))
    return drawn, turn


def _module_name(task: str) -> str:
    """A name that `ModuleDict` takes: it refuses dots, and names of its own methods ("train", "half")."""
    return "task-" + task.replace("%", "%25").replace(".", "%2E")
