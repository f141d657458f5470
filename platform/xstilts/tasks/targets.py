"""Target tasks in many languages, with the columns and configs that the Hugging Face hub serves.

Languages are the union of what XTREME and XTREME-R score (google-research/xtreme, evaluate.py). `dev` is what
is published as validation and `test` what is published as test; XQuAD and Tatoeba have one labelled split,
published as validation, which XTREME calls test and Phang et al. 2020 report in both of their tables.
"""

from __future__ import annotations

from xstilts.tasks.intermediate import COPA, MNLI, SIQA, SQUAD_V1
from xstilts.tasks.registry import register
from xstilts.tasks.task import Family, Holdout, Keep, Split, Task

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
        size="21,253 English train",
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
        size="20,000 English train; 100 to 10,000 test a language",
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
        stages=(MNLI.name,),
        dev=Split(path="facebook/xnli", config="{code}", split="validation"),
        test=Split(path="facebook/xnli", config="{code}", split="test"),
        parallel=True,
        chance=100 / 3,
        size="2,490 dev, 5,010 test a language",
        source="Conneau et al. 2018 (arXiv 1809.05053); hub facebook/xnli",
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
        size="2,000 dev, 2,000 test a language",
        source="Yang et al. 2019 (arXiv 1908.11828); hub paws-x",
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
        stages=(SQUAD_V1.name,),
        dev=Split(path=XTREME, config="XQuAD.{code}", split="validation"),
        test=Split(path=XTREME, config="XQuAD.{code}", split="validation"),
        parallel=True,
        size="1,190 a language",
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
        size="205 to 1,000 pairs a language",
        source="Artetxe & Schwenk 2019 (arXiv 1812.10464): up to 1,000 pairs; English queries, as in XTREME",
        licence="CC BY 2.0 FR",
    )
)

TATOEBA_AFTER_SQUAD = register(
    TATOEBA.model_copy(
        update={
            "name": "tatoeba_after_squad_v1",
            "stages": (SQUAD_V1.name,),
            "variant_of": TATOEBA.name,
            "source": "Tatoeba under XTREME-R's protocol: the encoder is fine-tuned on SQuAD v1.1 first",
        }
    )
)

MLQA = register(
    Task(
        name="mlqa",
        family=Family.SPAN_QA,
        roles=("target",),
        metric="mlqa",
        languages=_words("ar de en es hi vi zh"),
        columns=SQUAD_V1.columns,
        stages=(SQUAD_V1.name,),
        dev=Split(path=XTREME, config="MLQA.{code}.{code}", split="validation"),
        test=Split(path=XTREME, config="MLQA.{code}.{code}", split="test"),
        size="500 to 1,148 dev, 4,918 to 11,590 test a language",
        source="Lewis et al. 2020 (arXiv 1910.07475); hub google/xtreme",
        licence="CC BY-SA 3.0",
    )
)

TYDIQA_CODES = {
    "ar": "arabic", "bn": "bengali", "en": "english", "fi": "finnish", "id": "indonesian", "ko": "korean",
    "ru": "russian", "sw": "swahili", "te": "telugu",
}  # fmt: skip
"""Ids begin with the language's name; all languages share one split."""

TYDIQA = register(
    Task(
        name="tydiqa",
        family=Family.SPAN_QA,
        roles=("intermediate", "target"),
        metric="squad",
        languages=tuple(TYDIQA_CODES),
        codes=TYDIQA_CODES,
        columns=SQUAD_V1.columns,
        # Its test is its dev file, English included, so a part of English train is held out, by article.
        train=Split(
            path=XTREME,
            config="tydiqa",
            split="train",
            keep=Keep(column="id", prefix="{code}-"),
            holdout=Holdout(part="train", by="title"),
        ),
        selection=Split(
            path=XTREME,
            config="tydiqa",
            split="train",
            keep=Keep(column="id", prefix="{code}-"),
            holdout=Holdout(part="select", by="title"),
        ),
        dev=Split(path=XTREME, config="tydiqa", split="validation", keep=Keep(column="id", prefix="{code}-")),
        test=Split(
            path=XTREME, config="tydiqa", split="validation", keep=Keep(column="id", prefix="{code}-")
        ),
        size="3,696 English train, 5,077 test in all",
        source="Clark et al. 2020, gold passage task: 3,696 English questions to train on, 5,077 in nine "
        "languages; hub google/xtreme, config tydiqa",
        licence="Apache-2.0",
    )
)

BUCC_OWNER = "https://comparable.limsi.fr/bucc2018/ (sample-gold as dev, training-gold as test)"


def _bucc(split: str) -> Split:
    names = tuple(f"files/bucc2018/{{code}}-en.{split}.{kind}" for kind in ("{code}", "en", "gold"))
    return Split(
        path="bucc2018", config="{code}-en", split=split, files=names, reader="bucc", owner=BUCC_OWNER
    )


BUCC = register(
    Task(
        name="bucc2018",
        family=Family.BITEXT_MINING,
        roles=("target",),
        metric="set_f1",
        languages=_words("de fr ru zh"),
        columns={"item": "id", "text": "text", "side": "side", "gold": "gold"},
        dev=_bucc("dev"),
        test=_bucc("test"),
        size="257 to 2,374 dev pairs, 1,899 to 14,435 test pairs",
        source="Zweigenbaum et al. 2018, in XTREME's layout (sample data as dev, training data as test): "
        "1,038, 929, 2,374 and 257 pairs in dev, 9,580, 9,086, 14,435 and 1,899 in test",
        licence="see its owner's page",
    )
)

XCOPA = register(
    Task(
        name="xcopa",
        family=Family.MULTIPLE_CHOICE,
        roles=("target",),
        metric="accuracy",
        languages=("en", *_words("et ht id it qu sw ta th tr vi zh")),
        columns=COPA.columns,
        labels=COPA.labels,
        stages=(SIQA.name, COPA.name),
        dev=Split(path="cambridgeltl/xcopa", config="{code}", split="validation"),
        test=Split(path="cambridgeltl/xcopa", config="{code}", split="test"),
        elsewhere={"en": Split(path="aps/super_glue", config="copa", split="validation")},
        chance=50.0,
        size="100 dev, 500 test a language",
        source="Ponti et al. 2020 (arXiv 2005.00333); English is COPA's "
        "dev, for reference; hub cambridgeltl/xcopa",
        licence="CC BY 4.0",
    )
)

LAREQA_LANGUAGES = _words("ar de el en es hi ru th tr vi zh")
LAREQA_OWNER = "https://github.com/google-research-datasets/lareqa (xquad-r)"
_XQUAD_R = tuple(f"files/lareqa/xquad-r/{code}.json" for code in LAREQA_LANGUAGES)

LAREQA = register(
    Task(
        name="lareqa",
        family=Family.DUAL_ENCODER,
        roles=("target",),
        metric="map@20",
        languages=LAREQA_LANGUAGES,
        columns={
            "item": "item",
            "query": "query",
            "document": "document",
            "context": "context",
            "targets": "targets",
            "cluster": "cluster",
        },
        train=Split(
            path="rajpurkar/squad",
            config="plain_text",
            split="train",
            reader="squad_sentences",
            holdout=Holdout(part="train", by="title", share=0.1),
        ),
        selection=Split(
            path="rajpurkar/squad",
            config="plain_text",
            split="train",
            reader="squad_sentences",
            holdout=Holdout(part="select", by="title", share=0.1),
        ),
        dev=Split(
            path="lareqa",
            config="{code}",
            split="test",
            reader="lareqa_queries",
            owner=LAREQA_OWNER,
            files=("files/lareqa/xquad-r/{code}.json", *_XQUAD_R),
        ),
        test=Split(
            path="lareqa",
            config="{code}",
            split="test",
            reader="lareqa_queries",
            owner=LAREQA_OWNER,
            files=("files/lareqa/xquad-r/{code}.json", *_XQUAD_R),
        ),
        candidates=Split(
            path="lareqa",
            config="all",
            split="candidates",
            reader="lareqa_candidates",
            owner=LAREQA_OWNER,
            files=_XQUAD_R,
        ),
        parallel=True,
        size="1,190 questions a language, 13,014 candidates",
        source="Roy et al. 2020, XQuAD-R; candidates of all languages together",
        licence="see its owner's page; XQuAD is CC BY-SA 4.0",
    )
)

MEWSLIX_OWNER = (
    "https://storage.googleapis.com/gresearch/mewsli/mewsli-x_20220518_6.zip; then its get-mewsli-x.sh"
)


SPOKEN = Keep(column="language", prefix="{code}")
"""Mentions in all languages are in one file."""


def _mewslix(reader: str, name: str, split: str, keep: Keep | None = None) -> Split:
    file = f"files/mewslix/{name}"
    return Split(path="mewslix", split=split, reader=reader, owner=MEWSLIX_OWNER, files=(file,), keep=keep)


MEWSLIX = register(
    Task(
        name="mewslix",
        family=Family.DUAL_ENCODER,
        roles=("target",),
        metric="map@20",
        languages=_words("ar de en es fa ja pl ro ta tr uk"),
        columns={
            "item": "item",
            "query": "query",
            "document": "document",
            "targets": "targets",
            "cluster": "cluster",
        },
        train=_mewslix("mewslix_pairs", "wikipedia_pairs-train.jsonl", split="pairs-train"),
        selection=_mewslix("mewslix_pairs", "wikipedia_pairs-dev.jsonl", split="pairs-dev"),
        dev=_mewslix("mewslix_queries", "wikinews_mentions-dev.jsonl", split="dev", keep=SPOKEN),
        test=_mewslix("mewslix_queries", "wikinews_mentions-test.jsonl", split="test", keep=SPOKEN),
        candidates=_mewslix("mewslix_candidates", "candidate_set_entities.jsonl", split="candidates"),
        size="2,991 dev and 14,624 test mentions, 1,003,893 candidates",
        source="Ruder et al. 2021, with XTREME-R; mentions in Wikinews, entities of Wikidata",
        licence="see its owner's page",
    )
)
