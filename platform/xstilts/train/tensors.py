"""The rest of what a run is made of: weights, random generators, batches on a device, and threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from xstilts.families.base import Batch


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, of tied ones only the first (safetensors refuses shared memory)."""
    seen: set[int] = set()
    kept = {}
    for name, tensor in model.state_dict().items():
        if tensor.numel() and tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())
        kept[name] = tensor
    return kept


def load_weights(model: nn.Module, saved: Mapping[str, Tensor]) -> None:
    """Puts back what `weights_of` gave.

    Raises:
        ValueError: it was of another model.
    """
    if different := sorted(set(saved) ^ set(weights_of(model))):
        raise ValueError(f"weights of another model: {different[0]} and {len(different) - 1} more differ")
    model.load_state_dict(saved, strict=False)  # tied names are absent; the rest was just compared


def generators(device: torch.device) -> dict[str, Tensor]:
    """State of the generators that dropout draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def load_generators(device: torch.device, saved: Mapping[str, Tensor]) -> None:
    """Puts back what `generators` gave; a run that moved to a GPU begins that one's stream anew."""
    torch.set_rng_state(saved["cpu"])
    if device.type == "cuda" and "cuda" in saved:
        torch.cuda.set_rng_state(saved["cuda"], device)


def on_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on `device`; to a GPU through pinned memory, so that the copy does not wait for it."""
    if device.type != "cuda":
        return batch
    return {name: tensor.pin_memory().to(device, non_blocking=True) for name, tensor in batch.items()}


def indices(device: torch.device) -> list[int]:
    """CUDA devices whose generators are ours, for `torch.random.fork_rng`."""
    if device.type != "cuda":
        return []
    return [torch.cuda.current_device() if device.index is None else device.index]


@contextmanager
def settled(device: torch.device, threads: int) -> Iterator[None]:
    """With so many CPU threads; thread count and generators are the caller's again afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=indices(device)):
            yield
    finally:
        torch.set_num_threads(before)
