"""Encoders: loading, making untrained, saving; and an encoder with a head as one module.

Any `AutoModel` encoder in safetensors works, also as part of a model with a head (its keys then begin with
"roberta." or the like, and the head is left out); nothing is unpickled and no code of a model's is run.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import logging as chatter

from xstilts.errors import ModelError
from xstilts.families.base import FamilyCode
from xstilts.families.snapshot import cased_without_saying, check, hub, weights
from xstilts.families.subwords import completed
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

DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
    "embedding_dropout",
    "mlp_dropout",
    "classifier_dropout",
)
"""What architectures call them: BERT, RoBERTa and DeBERTa the first two, DistilBERT the next two, ModernBERT
all but the first three, EuroBERT only attention_dropout. Those that a config has are set."""

LOCAL = {"local_files_only": True, "trust_remote_code": False}
"""Said aloud, because unsaid transformers asks in the terminal whether it may run a model's own code."""


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
        with quiet():
            encoder, found = AutoModel.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                **_no_pooler(config),
                **LOCAL,
            )
    except (OSError, ValueError, RuntimeError, KeyError) as problem:
        raise ModelError(
            f"{folder} cannot be loaded", f"fetch or save it again ({first_line(problem)})"
        ) from problem
    except Exception as problem:
        if type(problem).__module__.startswith("safetensors"):
            remedy = f"its weights are damaged, fetch them again ({first_line(problem)})"
            raise ModelError(f"{folder} cannot be loaded", remedy) from problem
        raise
    wrong = sorted({*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])})
    if wrong:
        # transformers fills what it does not find with random numbers and only warns.
        remedy = f"its weights are of another architecture than {config.model_type}: fetch or save it again"
        raise ModelError(f"{folder} lacks {len(wrong)} tensors, {wrong[0]} first", remedy)
    if uncounted := _uncounted(encoder, found["unexpected_keys"]):
        # transformers leaves out what the config does not count, and the encoder would be shallower.
        remedy = "put the config.json there that belongs to its weights"
        raise ModelError(f"{folder} has weights that its config.json does not count, {uncounted}", remedy)
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
    with quiet():
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

    RoBERTa's positions begin after the padding id, so 514 of them hold 512 sub-words. Distances alone
    (DeBERTa-v3) set no limit; rotary positions (ModernBERT, EuroBERT) are held to what the config says.

    Raises:
        ModelError: `max_length` is too long; says how long it may be.
    """
    config: Any = encoder.config
    positions = getattr(config, "max_position_embeddings", None)
    relative = getattr(config, "relative_attention", False)
    if not positions or (relative and not getattr(config, "position_biased_input", True)):
        return
    usable = positions - _reserved_positions(encoder)
    if max_length > usable:
        remedy = f"set max_length in the job file to at most {usable}"
        raise ModelError(
            f"the encoder has {usable} positions and max_length is {max_length}", remedy, ("train",)
        )


def dropout_of(config: Any) -> float:
    """Dropout of hidden states, whatever the architecture calls it; 0 where it has none."""
    names = ("hidden_dropout_prob", "dropout", "classifier_dropout")
    return float(next((own for name in names if (own := getattr(config, name, None)) is not None), 0.0))


def _reserved_positions(encoder: nn.Module) -> int:
    """Rows of the table of positions that no sub-word uses: those up to the padding row, where it has one."""
    for name, part in encoder.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, nn.Embedding):
            return 0 if part.padding_idx is None else part.padding_idx + 1
    return 0


def _uncounted(encoder: PreTrainedModel, unexpected: Iterable[str]) -> str:
    """The first of the unexpected tensors that looks like one of the encoder's own but for its numbers."""
    own = {re.sub(r"\d+", "#", key) for key in encoder.state_dict()}
    prefix = f"{encoder.base_model_prefix}."
    return next(
        (
            key
            for key in sorted(unexpected)
            if "#" in (kind := re.sub(r"\d+", "#", key.removeprefix(prefix))) and kind in own
        ),
        "",
    )


def _config(folder: Path, dropout: float | None) -> PreTrainedConfig:
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(folder, **LOCAL)
    except (OSError, ValueError, KeyError) as problem:
        remedy = f"give an encoder that transformers knows ({first_line(problem)})"
        raise ModelError(f"{folder} has a config.json of no known architecture", remedy) from problem
    masked: Any = AutoModelForMaskedLM._model_mapping
    if masked.get(type(config), None) is None or getattr(config, "is_encoder_decoder", False):
        # GPT-2 would load, and its first position, which heads read, has seen nothing of the sentence.
        remedy = (
            "give a model that reads in both directions, such as XLM-R, mBERT, mDeBERTa, mmBERT, EuroBERT"
        )
        raise ModelError(f"{folder} holds a {config.model_type}, which is no encoder", remedy)
    # Saved where flash attention was installed, it would be demanded here; and results should not hang on it.
    config._attn_implementation = None
    if dropout is not None:
        for name in DROPOUTS:
            if getattr(config, name, None) is not None:
                setattr(config, name, dropout)
    return config


def _tokenizer(folder: Path, config: PreTrainedConfig) -> Any:
    # A bare vocab.txt says nothing of case, and transformers then lowers texts: mBERT would never see "The".
    case = {"do_lower_case": False} if cased_without_saying(folder) else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **LOCAL, **case)
    except (OSError, ValueError, KeyError, TypeError) as problem:
        remedy = f"put the tokenizer.json there that belongs to its weights ({first_line(problem)})"
        raise ModelError(f"the tokenizer in {folder} cannot be loaded", remedy) from problem
    if not getattr(tokenizer, "is_fast", False):
        remedy = "put a tokenizer.json there: offsets of sub-words are needed, which only the fast kind has"
        raise ModelError(f"the tokenizer in {folder} is not a fast one", remedy)
    if len(tokenizer) > config.vocab_size:
        remedy = "put the tokenizer there that belongs to its weights"
        sizes = f"{len(tokenizer)} sub-words, its weights {config.vocab_size}"
        raise ModelError(f"the tokenizer in {folder} has {sizes}", remedy)
    return completed(tokenizer, config.pad_token_id)


def _no_pooler(config: PreTrainedConfig) -> dict[str, Any]:
    """BERT's pooler is a layer that MLM pretraining never trains; some architectures have none."""
    mapping: Any = AutoModel._model_mapping
    made = mapping.get(type(config), None)
    made = made[0] if isinstance(made, tuple) else made
    known = made is not None and "add_pooling_layer" in inspect.signature(made).parameters
    return {"add_pooling_layer": False} if known else {}


def first_line(problem: BaseException) -> str:
    return (str(problem).strip() or type(problem).__name__).split("\n", 1)[0]


@contextmanager
def quiet() -> Iterator[None]:
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
