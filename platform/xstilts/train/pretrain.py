"""Masked-LM pretraining from nothing: a Unigram vocabulary, a small XLM-R-shaped encoder, the same loop.

Everything is a function of the texts and the spec, so a resumed run makes the same vocabulary again.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import sentencepiece
import torch
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaForMaskedLM

from xstilts.errors import DataError, JobFileError
from xstilts.families import masked_lm
from xstilts.families.base import Batch
from xstilts.families.encoder import TaskModel
from xstilts.families.heads import encoded as encoded_states
from xstilts.frozen import stream
from xstilts.spec.experiment import PretrainSpec
from xstilts.train.batches import Pretraining
from xstilts.train.checkpoint import Checkpoints
from xstilts.train.loop import ALONE, Layout, Optimisation, Outcome, Reporter, run
from xstilts.train.team import Team

log = logging.getLogger(__name__)

SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
"""Ids 0 to 4; the first four are XLM-R's."""

UNKNOWN = 3

VOCABULARY_TEXTS = 60_000
"""Texts that the vocabulary is learned from, spread evenly over all: 12 s on one core, 180,000 took 31 s."""

POSITIONS = 514
"""Position embeddings, as XLM-R's: inputs of up to 512 sub-words (those past `length` are never trained)."""

DECODED_TOGETHER = 256
"""Masked positions decoded at a time on a CPU. With 900 of them and 12,000 sub-words, on one core, the loss
and its gradient took 220 ms whole (43 MB of logits, paged in anew each time), 126 ms in parts of 256."""

_CHUNK = 10_000


@dataclass(frozen=True, slots=True)
class Pretrained:
    """What pretraining leaves, to be saved with `families.encoder.save`."""

    encoder: XLMRobertaForMaskedLM
    tokenizer: PreTrainedTokenizerFast
    outcome: Outcome


def pretrain(
    texts: Mapping[str, Sequence[str]],
    spec: PretrainSpec,
    *,
    layout: Layout,
    reporter: Reporter,
    checkpoints: Checkpoints | None = None,
    note: Callable[[str], None] = log.warning,
    report_seconds: float = 1.0,
    team: Team = ALONE,
) -> Pretrained:
    """Vocabulary, encoder and training, from language -> texts (at most `spec.sentences` of each are used).

    Raises:
        DataError: there is no text.
        JobFileError: the text cannot give a vocabulary of that size.
        TrainingError, Interrupted: as `loop.run`.
    """
    used = {language: list(every[: spec.sentences]) for language, every in sorted(texts.items())}
    tokenizer = train_tokenizer([text for every in used.values() for text in every], spec.vocabulary)
    encoder = new_encoder(spec, len(tokenizer))
    outcome = run(
        joined(encoder),
        objective,
        batches_of(used, tokenizer, spec, layout.per_device_batch),
        Optimisation.of_pretraining(spec),
        seed=spec.seed,
        layout=layout,
        checkpoints=checkpoints,
        reporter=reporter,
        note=note,
        report_seconds=report_seconds,
        team=team,
    )
    return Pretrained(encoder, tokenizer, outcome)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A Unigram vocabulary of at most so many sub-words with XLM-R's special tokens.

    SentencePiece learns it: on one thread it gives the same bytes each time (the trainer of `tokenizers` gave
    four vocabularies in four runs) in half the time.

    Raises:
        DataError: there is no text.
        JobFileError: the text cannot give a vocabulary of that size.
    """
    tidy = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    every = list(texts)
    # Every nth of all, so that each language keeps its share.
    some = every[:: -(-len(every) // VOCABULARY_TEXTS) or 1]
    clean = [line for line in map(tidy.normalize_str, some) if line]
    if not clean:
        raise DataError(
            "there is no text to learn a vocabulary from", "check `pretrain.data` and its languages"
        )
    pieces = _unigram(clean, vocabulary - 1)
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=UNKNOWN))
    tokenizer.normalizer = tidy
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", SPECIAL.index("<s>")), ("</s>", SPECIAL.index("</s>"))],
    )
    wrap: Any = PreTrainedTokenizerFast
    made: PreTrainedTokenizerFast = wrap(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        model_max_length=POSITIONS - 2,
    )
    return made


def new_encoder(spec: PretrainSpec, vocabulary: int) -> XLMRobertaForMaskedLM:
    """An untrained encoder with its LM head; weights from the seed's own stream."""
    config = XLMRobertaConfig(
        vocab_size=vocabulary,
        hidden_size=spec.width,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        intermediate_size=4 * spec.width,
        hidden_dropout_prob=spec.dropout,
        attention_probs_dropout_prob=spec.dropout,
        max_position_embeddings=POSITIONS,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        bos_token_id=SPECIAL.index("<s>"),
        pad_token_id=SPECIAL.index("<pad>"),
        eos_token_id=SPECIAL.index("</s>"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream(spec.seed, "weights"))
        return XLMRobertaForMaskedLM(config)


def joined(encoder: XLMRobertaForMaskedLM) -> TaskModel:
    """The same weights as one module of encoder and head, as `families.masked_lm` wants it.

    Its loss decodes masked positions only; the model's own `forward` would decode all of them.
    """
    width, vocabulary = encoder.config.hidden_size, encoder.config.vocab_size
    head = masked_lm.MaskedLmHead(width, vocabulary, encoder.config.layer_norm_eps)
    lm_head: Any = encoder.lm_head
    head.dense, head.layer_norm, head.bias = lm_head.dense, lm_head.layer_norm, lm_head.bias
    return TaskModel(encoder.roberta, head)


def objective(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """`MaskedLM.loss`, in parts small enough for a CPU's cache."""
    if batch["input_ids"].is_cuda:
        return masked_lm.CODE.loss(model, batch)
    chosen = batch["target"] != masked_lm.IGNORED
    hidden = encoded_states(model, batch).last_hidden_state[chosen]
    head: Any = model.head
    table = cast(Any, model).encoder.get_input_embeddings().weight
    total = hidden.new_zeros((), dtype=torch.float32)
    targets = batch["target"][chosen]
    # Once even where nothing is hidden: every rank must have the same gradients, if only of zero.
    for start in range(0, max(1, len(targets)), DECODED_TOGETHER):
        part = slice(start, start + DECODED_TOGETHER)
        logits = functional.linear(head(hidden[part]), table, head.bias)
        total = total + functional.cross_entropy(logits.float(), targets[part], reduction="sum")
    return total, chosen.sum().float()


def batches_of(
    texts: Mapping[str, Sequence[str]], tokenizer: Any, spec: PretrainSpec, per_device_batch: int
) -> Pretraining:
    """The pretraining batches; all texts are encoded once, into one array a language."""
    special = list(range(len(SPECIAL)))

    def mask(rows: torch.Tensor, generator: torch.Generator) -> Batch:
        whole = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
        return masked_lm.mask(
            whole,
            generator,
            special_ids=special,
            mask_id=SPECIAL.index("<mask>"),
            vocabulary=len(tokenizer),
            share=spec.mask,
        )

    return Pretraining(
        {language: encoded(every, tokenizer) for language, every in texts.items()},
        steps=spec.steps,
        batch=spec.batch,
        per_device_batch=per_device_batch,
        length=spec.length,
        exponent=spec.exponent,
        seed=spec.seed,
        begin=SPECIAL.index("<s>"),
        end=SPECIAL.index("</s>"),
        mask=mask,
    )


def encoded(texts: Sequence[str], tokenizer: Any) -> list[NDArray[np.int32]]:
    """Sub-word ids of each text, without special tokens."""
    found: list[NDArray[np.int32]] = []
    for start in range(0, len(texts), _CHUNK):  # ids as Python integers would take eight times the memory
        part = list(texts[start : start + _CHUNK])
        rows = tokenizer(part, add_special_tokens=False, verbose=False).input_ids
        found += [np.array(row, np.int32) for row in rows]
    return found


def _unigram(lines: Sequence[str], size: int) -> list[tuple[str, float]]:
    """Special tokens, then at most `size` less four learned pieces, with their log probabilities."""
    written = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=written,
            vocab_size=size,
            hard_vocab_limit=False,
            model_type="unigram",
            character_coverage=0.9995,
            normalization_rule_name="identity",
            num_threads=1,
            bos_id=0,
            pad_id=1,
            eos_id=2,
            unk_id=UNKNOWN,
            minloglevel=2,
        )
    except RuntimeError as problem:
        remedy = f"set another `vocabulary` or give more text (SentencePiece: {str(problem).strip()})"
        raise JobFileError(
            f"no vocabulary of {size + 1} sub-words can be learned", remedy, ("pretrain", "vocabulary")
        ) from problem
    made: Any = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    learned = [
        (made.id_to_piece(number), float(made.get_score(number)))
        for number in range(UNKNOWN + 1, made.get_piece_size())
        if not made.is_control(number)
    ]
    return [*((name, 0.0) for name in SPECIAL), *learned]
