"""Translation models of width 16 with random weights: MarianMT for one pair and for many, M2M100, NLLB."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from tokenizers import Tokenizer, models, trainers
from transformers import M2M100Config, M2M100ForConditionalGeneration, MarianConfig, MarianMTModel
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES as M2M100_CODES
from transformers.models.nllb.tokenization_nllb import FAIRSEQ_LANGUAGE_CODES as NLLB_CODES
from transformers.models.nllb.tokenization_nllb import NllbTokenizer

LINES = ["the cat sat on the mat", "who is in Paris ?", "a dog is in London .", "東京 is not small"] * 9

SEED = 1
"""Of those tried, one with which every kind says something else to each of the lines."""

SHAPE: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    # Weights so large that translations depend on the text and do not all repeat one sub-word.
    "init_std": 0.8,
}


def marian(folder: Path, into: tuple[str, ...] = (), source: str = "en", target: str = "de") -> Path:
    """Helsinki-NLP/opus-mt's kind; with `into`, one for several languages, told apart by >>code<<."""
    folder.mkdir(parents=True)
    pieces = _sentencepiece()
    for name in ("source.spm", "target.spm"):
        (folder / name).write_bytes(pieces)
    loaded: Any = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    learned = [loaded.id_to_piece(number) for number in range(3, loaded.get_piece_size())]
    words = ["</s>", "<unk>", *learned, *(f">>{code}<<" for code in into), "<pad>"]
    _json(folder / "vocab.json", {word: number for number, word in enumerate(words)})
    about = {"tokenizer_class": "MarianTokenizer", "source_lang": source, "target_lang": target}
    _json(folder / "tokenizer_config.json", about)
    pad = len(words) - 1
    config = MarianConfig(
        vocab_size=len(words),
        max_position_embeddings=40,
        pad_token_id=pad,
        decoder_start_token_id=pad,
        eos_token_id=0,
        forced_eos_token_id=0,
        scale_embedding=True,
        **SHAPE,
    )
    torch.manual_seed(SEED)
    MarianMTModel(config).save_pretrained(folder)
    return folder


def m2m100(folder: Path) -> Path:
    """facebook/m2m100's kind: __de__ before a text and before its translation."""
    folder.mkdir(parents=True)
    pieces = _sentencepiece()
    (folder / "sentencepiece.bpe.model").write_bytes(pieces)
    loaded: Any = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    learned = [loaded.id_to_piece(number) for number in range(3, loaded.get_piece_size())]
    words = ["<s>", "<pad>", "</s>", "<unk>", *learned]
    _json(folder / "vocab.json", {word: number for number, word in enumerate(words)})
    _json(folder / "tokenizer_config.json", {"tokenizer_class": "M2M100Tokenizer", "src_lang": "en"})
    _many(folder, len(words) + len(M2M100_CODES["m2m100"]) + 8, len(words))
    return folder


def nllb(folder: Path) -> Path:
    """facebook/nllb-200's kind: M2M100's model, FLORES-200's codes, a fast tokenizer."""
    folder.mkdir(parents=True)
    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    marked = ["▁" + line.replace(" ", "▁") for line in LINES]
    inner.train_from_iterator(marked, trainers.BpeTrainer(vocab_size=70, special_tokens=special))
    learned = json.loads(inner.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    make: Any = NllbTokenizer
    tokenizer = make(vocab=learned["vocab"], merges=merges, extra_special_tokens=NLLB_CODES)
    tokenizer.save_pretrained(folder)
    _many(folder, len(tokenizer), len(learned["vocab"]))
    return folder


def _many(folder: Path, vocabulary: int, pieces: int) -> None:
    config = M2M100Config(
        vocab_size=vocabulary,
        max_position_embeddings=40,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
        tie_word_embeddings=False,
        **SHAPE,
    )
    torch.manual_seed(SEED)
    model = M2M100ForConditionalGeneration(config)
    with torch.no_grad():  # or most of what it says would be languages, which are three of four tokens
        model.lm_head.weight[pieces:] = 0
    model.save_pretrained(folder)


def _sentencepiece() -> bytes:
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=written, vocab_size=60, hard_vocab_limit=False,
        model_type="unigram", num_threads=1, minloglevel=2,
    )  # fmt: skip
    return written.getvalue()


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
