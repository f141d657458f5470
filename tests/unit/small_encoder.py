"""A tokenizer and an encoder small enough for unit tests: XLM-R's shape, made in a tenth of a second."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789.,?!'Ñéالقاهرةمدينةกรุงเทพ東京是中国"
WORDS = ("▁the", "▁a", "▁cat", "▁sat", "▁on", "▁mat", "▁who", "ing", "▁Paris", "▁in", "▁London", "▁is")


@cache
def tokenizer(types: bool = False) -> Any:
    """Unigram over words and characters, XLM-R's special tokens; `types` tells pairs apart as BERT does."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("<mask>", 0.0), ("▁", -3.0)]
    pieces += [(word, -2.0) for word in WORDS]
    pieces += [(letter, -4.0) for letter in dict.fromkeys(CHARACTERS)]
    inner = Tokenizer(models.Unigram(pieces, unk_id=3))
    inner.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\u200b", "")])
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Metaspace()
    second = 1 if types else 0
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair=f"<s> $A </s> </s>:{second} $B:{second} </s>:{second}",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    )


class Model(nn.Module):
    """An encoder of width 16 with a head, as `families.encoder.TaskModel` is one."""

    def __init__(self, head: nn.Module | None, layer: int | None = None, centre: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            config = XLMRobertaConfig(
                vocab_size=len(tokenizer()),
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=140,
                type_vocab_size=2,
                pad_token_id=1,
            )
            self.encoder = XLMRobertaModel(config, add_pooling_layer=False)
        self.head = head
        self.layer = layer
        self.centre = centre
