"""An encoder of width 16 of every architecture that is promised, with a tokenizer of the matching kind."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from small_encoder import tokenizer as xlmr_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoConfig, PreTrainedTokenizerFast

CORPUS = [
    "the cat sat on the mat .",
    "who is in Paris ?",
    "a Cat is in London , Ñandú 東京 กรุงเทพ القاهرة",
] * 9


def wordpiece() -> Any:
    """BERT's kind: types tell pairs apart."""
    inner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=90, special_tokens=special))
    return framed(inner, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", *special)


def unigram() -> Any:
    """DeBERTa-v3's kind: SentencePiece with BERT's frame."""
    inner = Tokenizer(models.Unigram())
    inner.normalizer = normalizers.NFKC()
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    train: Any = trainers.UnigramTrainer
    inner.train_from_iterator(CORPUS, train(vocab_size=90, special_tokens=special, unk_token="[UNK]"))
    return framed(inner, "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", *special)


def spaced_bpe() -> Any:
    """mmBERT's kind (Gemma's): a space is a character, and a text does not begin with one."""
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.normalizer = normalizers.Replace(" ", "▁")
    inner.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    inner.decoder = decoders.Replace("▁", " ")
    special = ["<pad>", "<unk>", "<bos>", "<eos>", "<mask>"]
    inner.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=110, special_tokens=special))
    return framed(inner, "<bos> $A <eos>", "<bos> $A <eos> $B <eos>", *special)


def byte_bpe() -> Any:
    """EuroBERT's kind (Llama's): bytes, no unknown sub-word, and here no padding either."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|end|>", "<|mask|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    train = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    inner.train_from_iterator(CORPUS, train)
    inner.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A <|end|>",
        pair="<|begin|> $A <|end|> <|begin|>:1 $B:1 <|end|>:1",
        special_tokens=[(token, inner.token_to_id(token)) for token in special[:2]],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<|begin|>", eos_token="<|end|>", mask_token="<|mask|>"
    )


def framed(
    inner: Tokenizer, single: str, pair: str, pad: str, unk: str, cls: str, sep: str, mask: str
) -> Any:
    """A fast tokenizer that puts special tokens around its texts."""
    inner.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[(token, inner.token_to_id(token)) for token in (cls, sep)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token=pad, unk_token=unk, cls_token=cls, sep_token=sep, mask_token=mask
    )


KINDS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "xlm-roberta": (xlmr_tokenizer, {"type_vocab_size": 1, "max_position_embeddings": 82}),
    "xlm-roberta-xl": (xlmr_tokenizer, {"type_vocab_size": 1, "max_position_embeddings": 82}),
    "bert": (wordpiece, {"type_vocab_size": 2}),
    "deberta-v2": (
        unigram,
        {"type_vocab_size": 0, "relative_attention": True, "position_buckets": 16, "share_att_key": True}
        | {"norm_rel_ebd": "layer_norm", "pos_att_type": "p2c|c2p", "position_biased_input": False},
    ),
    "modernbert": (spaced_bpe, {"num_hidden_layers": 4, "local_attention": 16, "reference_compile": True}),
    "eurobert": (byte_bpe, {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 1, "mask_token_id": 2}),
    "distilbert": (wordpiece, {}),
}
"""Architecture to its tokenizer and what its tiny configuration says besides sizes."""


@cache
def words_of(kind: str) -> Any:
    """The tokenizer of an architecture, trained once."""
    return KINDS[kind][0]()


def tiny(kind: str) -> Any:
    """A configuration of width 16 and two layers."""
    words = words_of(kind)
    pad = 1 if words.pad_token_id is None else words.pad_token_id
    sizes = {"vocab_size": len(words) + 3, "pad_token_id": pad, "max_position_embeddings": 80}
    named = (
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
        if kind == "distilbert"
        else {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    )
    special = {"bos_token_id": 0, "eos_token_id": 1, "cls_token_id": 2, "sep_token_id": 3}
    return AutoConfig.for_model(kind, **{**named, **sizes, **special, **KINDS[kind][1]})


def saved(model: Any, kind: str, folder: Path) -> Path:
    """A folder as a user's `save_pretrained` of model and tokenizer leaves it."""
    model.save_pretrained(folder)
    words_of(kind).save_pretrained(folder)
    return folder


def made(kind: str, auto: str = "AutoModelForMaskedLM") -> Any:
    """A model with random weights, whose layer norms are not all ones, so that lost weights are seen."""
    torch.manual_seed(3)
    model = getattr(transformers, auto).from_config(tiny(kind))
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model.eval()
