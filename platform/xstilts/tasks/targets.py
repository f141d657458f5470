"""Target tasks in many languages, with the columns and configs that the Hugging Face hub serves.

Languages are the union of what XTREME and XTREME-R score (google-research/xtreme, evaluate.py). `dev` is what
is published as validation and `test` what is published as test; XQuAD and Tatoeba have one labelled split,
published as validation, which XTREME calls test and Phang et al. 2020 report in both of their tables.
"""

from __future__ import annotations

from xstilts.tasks.intermediate import MNLI, SQUAD_V1
from xstilts.tasks.registry import register
from xstilts.tasks.task import Family, Split, Task

XTREME = "google/xtreme"


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


UDPOS_CODES = {
    "af": "Afrikaans", "ar": "Arabic", "bg": "Bulgarian", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "he": "Hebrew", "hi": "Hindi", "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese",
    "kk": "Kazakh", "ko": "Korean", "lt": "Lithuanian", "mr": "Marathi", "nl": "Dutch", "pl": "Polish",
    "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "ta": "Tamil", "te": "Telugu", "th": "Thai",
    "tl": "Tagalog", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "wo": "Wolof",
    "yo": "Yoruba", "zh": "Chinese",
}  # fmt: skip
"""Configs are English names: `udpos.German`."""

TATOEBA_CODES = {
    "af": "afr", "ar": "ara", "az": "aze", "bg": "bul", "bn": "ben", "de": "deu", "el": "ell", "es": "spa",
    "et": "est", "eu": "eus", "fa": "pes", "fi": "fin", "fr": "fra", "he": "heb", "hi": "hin", "hu": "hun",
    "id": "ind", "it": "ita", "ja": "jpn", "jv": "jav", "ka": "kat", "kk": "kaz", "ko": "kor", "lt": "lit",
    "ml": "mal", "mr": "mar", "nl": "nld", "pl": "pol", "pt": "por", "ro": "ron", "ru": "rus", "sw": "swh",
    "ta": "tam", "te": "tel", "th": "tha", "tl": "tgl", "tr": "tur", "uk": "ukr", "ur": "urd", "vi": "vie",
    "zh": "cmn",
}  # fmt: skip
"""Configs are ISO 639-3 codes: `tatoeba.deu`."""


UDPOS = register(
    Task(
        name="udpos",
        family=Family.TAGGING,
        roles=("intermediate", "target"),
        metric="chunk_f1",
        languages=tuple(UDPOS_CODES),
        codes=UDPOS_CODES,
        columns={"words": "tokens", "tags": "pos_tags"},
        labels=_words("ADJ ADP ADV AUX CCONJ DET INTJ NOUN NUM PART PRON PROPN PUNCT SCONJ SYM VERB X"),
        train=Split(path=XTREME, config="udpos.English", split="train"),
        selection=Split(path=XTREME, config="udpos.English", split="validation"),
        dev=Split(path=XTREME, config="udpos.{code}", split="validation"),
        test=Split(path=XTREME, config="udpos.{code}", split="test"),
        no_dev=("kk", "th", "tl", "yo"),
        source="Nivre et al. 2018, UD v2.5 (XTREME-R's new languages v2.7); hub google/xtreme, udpos.*",
        licence="by treebank, mostly CC BY-SA 4.0 or CC BY-NC-SA",
    )
)

PANX = register(
    Task(
        name="panx",
        family=Family.TAGGING,
        roles=("intermediate", "target"),
        metric="bio_f1",
        languages=_words(
            "af ar az bg bn de el en es et eu fa fi fr gu he hi hu id it ja jv ka kk ko lt ml mr ms my nl pa "
            "pl pt qu ro ru sw ta te th tl tr uk ur vi yo zh"
        ),
        columns={"words": "tokens", "tags": "ner_tags"},
        labels=("O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"),
        train=Split(path=XTREME, config="PAN-X.en", split="train"),
        selection=Split(path=XTREME, config="PAN-X.en", split="validation"),
        dev=Split(path=XTREME, config="PAN-X.{code}", split="validation"),
        test=Split(path=XTREME, config="PAN-X.{code}", split="test"),
        source="Pan et al. 2017, splits of Rahimi et al. 2019; hub google/xtreme, PAN-X.*",
        licence="Wikipedia text CC BY-SA 3.0; the data set states none",
    )
)

XNLI = register(
    Task(
        name="xnli",
        family=Family.CLASSIFICATION,
        roles=("target",),
        metric="accuracy",
        languages=_words("ar bg de el en es fr hi ru sw th tr ur vi zh"),
        columns=MNLI.columns,
        labels=MNLI.labels,
        trains_on=MNLI.name,
        dev=Split(path="facebook/xnli", config="{code}", split="validation"),
        test=Split(path="facebook/xnli", config="{code}", split="test"),
        parallel=True,
        chance=100 / 3,
        source="Conneau et al. 2018 (arXiv 1809.05053): 2,490 and 5,010 pairs a language; hub facebook/xnli",
        licence="CC BY-NC 4.0",
    )
)

PAWSX = register(
    Task(
        name="pawsx",
        family=Family.CLASSIFICATION,
        roles=("intermediate", "target"),
        metric="accuracy",
        languages=_words("de en es fr ja ko zh"),
        columns={"text": "sentence1", "pair": "sentence2", "label": "label", "item": "id"},
        labels=("different", "paraphrase"),
        train=Split(path="google-research-datasets/paws-x", config="en", split="train"),
        selection=Split(path="google-research-datasets/paws-x", config="en", split="validation"),
        dev=Split(path="google-research-datasets/paws-x", config="{code}", split="validation"),
        test=Split(path="google-research-datasets/paws-x", config="{code}", split="test"),
        parallel=True,
        source="Yang et al. 2019 (arXiv 1908.11828): 2,000 and 2,000 pairs a language; hub paws-x",
        licence="free for any purpose, acknowledgement requested (Google)",
    )
)

XQUAD = register(
    Task(
        name="xquad",
        family=Family.SPAN_QA,
        roles=("target",),
        metric="squad",
        languages=_words("ar de el en es hi ro ru th tr vi zh"),
        columns={
            "id": "id",
            "question": "question",
            "context": "context",
            "answers": "answers",
            # 240 paragraphs of 48 articles, five each, in order (as XQuAD-R's titles show).
            "cluster": "context/5",
        },
        trains_on=SQUAD_V1.name,
        dev=Split(path=XTREME, config="XQuAD.{code}", split="validation"),
        test=Split(path=XTREME, config="XQuAD.{code}", split="validation"),
        parallel=True,
        source="Artetxe et al. 2020 (arXiv 1910.11856): 1,190 questions on 240 paragraphs; hub google/xtreme",
        licence="CC BY-SA 4.0",
    )
)

TATOEBA = register(
    Task(
        name="tatoeba",
        family=Family.RETRIEVAL,
        roles=("target",),
        metric="accuracy",
        languages=tuple(TATOEBA_CODES),
        codes=TATOEBA_CODES,
        columns={"query": "target_sentence", "document": "source_sentence"},
        dev=Split(path=XTREME, config="tatoeba.{code}", split="validation"),
        test=Split(path=XTREME, config="tatoeba.{code}", split="validation"),
        source="Artetxe & Schwenk 2019 (arXiv 1812.10464): up to 1,000 pairs; English queries, as in XTREME",
        licence="CC BY 2.0 FR",
    )
)
