"""Features to padded batches and back: length buckets, padding, and a model's outputs feature by feature."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from xstilts.families.base import Batch, FamilyCode, Feature


def bucketed(lengths: Sequence[int], batch: int) -> list[list[int]]:
    """Indices into `lengths` in batches of like length, each index once, longest first.

    Longest first, so that a batch that does not fit the device fails at once and not at the end. Training
    has its own order (`train.batches`), which is random.
    """
    order = sorted(range(len(lengths)), key=lambda one: -lengths[one])
    return [order[at : at + batch] for at in range(0, len(order), batch)]


def padding_share(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """The part (0..1) of all positions that is padding when each batch is padded to its longest."""
    spent = sum(len(members) * max(lengths[one] for one in members) for members in batches)
    return 1.0 - sum(lengths[one] for members in batches for one in members) / spent


def padded(features: Sequence[Feature], pad_id: int) -> Batch:
    """input_ids and attention_mask (sequences, longest) int64; all sequences of a feature one after another.

    token_type_ids besides where some feature keeps types (BERT's pairs).
    """
    rows = [ids for feature in features for ids in feature.input_ids]
    batch = {
        "input_ids": filled(rows, pad_id),
        "attention_mask": filled([(1,) * len(ids) for ids in rows], 0),
    }
    if any("types" in feature.keep for feature in features):
        kinds = [
            kept for feature in features for kept in feature.keep.get("types", ((),) * len(feature.input_ids))
        ]
        batch["token_type_ids"] = filled(kinds, 0, width=batch["input_ids"].shape[1])
    return batch


def filled(rows: Sequence[Sequence[int]], value: int, width: int | None = None) -> Tensor:
    """Rows of unequal length as one int64 tensor (rows, width or the longest), filled up with `value`."""
    longest = max(map(len, rows)) if width is None else width
    return torch.tensor([[*row, *(value,) * (longest - len(row))] for row in rows], dtype=torch.int64)


def outputs_of(
    model: nn.Module,
    code: FamilyCode,
    features: Sequence[Feature],
    pad_id: int,
    batch: int,
    device: torch.device | str,
    precision: str,
    progress: Callable[[int], None] | None = None,
) -> list[Tensor]:
    """What `code.forward` says of each feature, in the features' order, float32 on the CPU, without padding.

    Runs without gradients in eval mode and leaves the model in the mode it was in. `batch` counts features;
    `precision` is "fp32" or "bf16" (autocast); `progress` is told how many features are done. Outputs are
    centred by side where `model.centre` is set (see `centred`).
    """
    found: dict[int, Tensor] = {}
    before = model.training
    kind = torch.device(device).type
    model.eval()
    try:
        with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=precision == "bf16"):
            for members in bucketed([feature.length for feature in features], batch):
                inputs = code.collate([features[one] for one in members], pad_id)
                raw = code.forward(model, {name: value.to(device) for name, value in inputs.items()})
                raw = raw.float().cpu()
                for place, one in enumerate(members):
                    found[one] = _own(raw[place], features[one], "choice_mask" in inputs)
                if progress is not None:
                    progress(len(found))
    finally:
        model.train(before)
    outputs = [found[one] for one in range(len(features))]
    return centred(features, outputs) if getattr(model, "centre", False) else outputs


def centred(features: Sequence[Feature], outputs: Sequence[Tensor]) -> list[Tensor]:
    """Each output less the mean of all outputs of its side (`keep["side"]`: query or document).

    Two languages' vectors differ by a nearly constant offset, which hides neighbours (Libovický et al. 2020);
    it needs all vectors of a side at once, and so is no part of `forward`. Features without a side stay.
    """
    sides = [feature.keep.get("side") for feature in features]
    means = {
        side: torch.stack([output for output, own in zip(outputs, sides, strict=True) if own == side]).mean(0)
        for side in set(sides) - {None}
    }
    return [
        output if side is None else output - means[side] for output, side in zip(outputs, sides, strict=True)
    ]


def _own(output: Tensor, feature: Feature, choices: bool) -> Tensor:
    """A feature's output without padding: positions (outputs of two dimensions) or choices past its own."""
    if choices:
        return output[: len(feature.input_ids)].clone()
    if output.ndim > 1:
        return output[: feature.length].clone()
    return output.clone()
