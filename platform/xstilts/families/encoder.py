"""Encoders: loading, making untrained, saving; and an encoder with a head as one module.

Any `AutoModel` encoder in safetensors works; nothing is unpickled.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as chatter

from xstilts.errors import ModelError
from xstilts.families.base import FamilyCode
from xstilts.families.snapshot import check, hub, weights
from xstilts.frozen import stream
from xstilts.tasks.task import Task

__all__ = [
    "TaskModel",
    "check_length",
    "dropout_of",
    "fresh_head",
    "hub",
    "load",
    "save",
    "untrained",
    "weights",
]

DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")
"""What architectures call them; those that a config has are set."""


class TaskModel(nn.Module):
    """An encoder and the head of one task; families say how a batch flows through both."""

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module | None = None,
        layer: int | None = None,
        centre: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.layer = layer
        """Hidden states that retrieval pools (0 is the embeddings); None: the last."""
        self.centre = centre
        """Whether retrieval subtracts each language's mean vector."""

    @property
    def width(self) -> int:
        """Size of one hidden state."""
        return int(self.encoder.config.hidden_size)  # type: ignore[union-attr,arg-type]


def load(folder: Path, dropout: float | None = None) -> tuple[PreTrainedModel, Any]:
    """Encoder (float32, without LM head or pooler) and tokenizer; `dropout` overrides the config's.

    Raises:
        ModelError: the folder is no encoder; says what is missing and what to do.
    """
    check(folder)
    config = _config(folder, dropout)
    try:
        with _quiet():
            encoder, found = AutoModel.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **_no_pooler(config),
            )
    except (OSError, ValueError, RuntimeError, KeyError) as problem:
        raise ModelError(
            f"{folder} cannot be loaded", f"fetch or save it again ({_line(problem)})"
        ) from problem
    except Exception as problem:
        if type(problem).__module__.startswith("safetensors"):
            remedy = f"its weights are damaged, fetch them again ({_line(problem)})"
            raise ModelError(f"{folder} cannot be loaded", remedy) from problem
        raise
    wrong = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if wrong:
        # transformers fills what it does not find with random numbers and only warns.
        remedy = f"its weights are of another architecture than {config.model_type}: fetch or save it again"
        raise ModelError(f"{folder} lacks {len(wrong)} tensors, {wrong[0]} first", remedy)
    return encoder, _tokenizer(folder, config)


def untrained(folder: Path, seed: int, dropout: float | None = None) -> tuple[PreTrainedModel, Any]:
    """The same architecture and tokenizer with fresh weights: the row that skips pretraining.

    Raises:
        ModelError: as `load`.
    """
    check(folder)
    config = _config(folder, dropout)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, "weights"))
        make: Any = AutoModel.from_config
        encoder = make(config, dtype=torch.float32, **_no_pooler(config))
    return encoder, _tokenizer(folder, config)


def save(encoder: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """Writes config.json, model.safetensors, tokenizer.json and tokenizer_config.json, as `load` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    with _quiet():
        encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def fresh_head(code: FamilyCode, task: Task, encoder: nn.Module, seed: int) -> nn.Module | None:
    """The task's head, for one seed the same in every row; the global generator stays as it was."""
    config: Any = encoder.config
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(seed, "head"))
        return code.head(task, int(config.hidden_size), dropout_of(config))


def check_length(encoder: nn.Module, max_length: int) -> None:
    """Refuses sequences longer than the encoder has positions, before anything is trained.

    RoBERTa's positions begin after the padding id, so 514 of them hold 512 sub-words.

    Raises:
        ModelError: `max_length` is too long; says how long it may be.
    """
    config: Any = encoder.config
    positions = getattr(config, "max_position_embeddings", None)
    if not positions or getattr(config, "relative_attention", False):
        return
    usable = positions - (config.pad_token_id + 1 if "roberta" in config.model_type else 0)
    if max_length > usable:
        remedy = f"set max_length in the job file to at most {usable}"
        raise ModelError(
            f"the encoder has {usable} positions and max_length is {max_length}", remedy, ("train",)
        )


def dropout_of(config: Any) -> float:
    """Dropout of hidden states, whatever the architecture calls it; 0 where it has none."""
    names = [name for name in ("hidden_dropout_prob", "dropout") if hasattr(config, name)]
    return float(getattr(config, names[0])) if names else 0.0


def _config(folder: Path, dropout: float | None) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as problem:
        remedy = f"give an encoder that transformers knows ({_line(problem)})"
        raise ModelError(f"{folder} has a config.json of no known architecture", remedy) from problem
    if dropout is not None:
        for name in DROPOUTS:
            if hasattr(config, name):
                setattr(config, name, dropout)
    return config


def _tokenizer(folder: Path, config: PreTrainedConfig) -> Any:
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as problem:
        remedy = f"put the tokenizer.json there that belongs to its weights ({_line(problem)})"
        raise ModelError(f"the tokenizer in {folder} cannot be loaded", remedy) from problem
    if len(tokenizer) > config.vocab_size:
        remedy = "put the tokenizer there that belongs to its weights"
        sizes = f"{len(tokenizer)} sub-words, its weights {config.vocab_size}"
        raise ModelError(f"the tokenizer in {folder} has {sizes}", remedy)
    return tokenizer


def _no_pooler(config: PreTrainedConfig) -> dict[str, Any]:
    """BERT's pooler is a layer that MLM pretraining never trains; some architectures have none."""
    mapping: Any = AutoModel._model_mapping
    made = mapping.get(type(config), None)
    made = made[0] if isinstance(made, tuple) else made
    known = made is not None and "add_pooling_layer" in inspect.signature(made).parameters
    return {"add_pooling_layer": False} if known else {}


def _line(problem: BaseException) -> str:
    return (str(problem).strip() or type(problem).__name__).split("\n", 1)[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bars and table of unused LM head tensors (what matters is checked)."""
    said: Any = chatter
    level, bars = said.get_verbosity(), said.is_progress_bar_enabled()
    said.set_verbosity_error()
    said.disable_progress_bar()
    try:
        yield
    finally:
        said.set_verbosity(level)
        if bars:
            said.enable_progress_bar()
