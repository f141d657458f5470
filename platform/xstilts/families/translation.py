"""Training rows in another language, by a sequence-to-sequence model: MarianMT, M2M100 or NLLB.

The same texts give the same translations on every machine of one kind: beam search in float32, nothing drawn,
and what decides it is said here, not in a model's own generation_config.json.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
)

from xstilts.errors import JobFileError, ModelError
from xstilts.families import batching, columns
from xstilts.families.encoder import LOCAL, check_length, first_line, quiet
from xstilts.families.snapshot import check
from xstilts.tasks.task import Family, Task

__all__ = ["FLORES", "Translator", "translated_rows"]

_TABLE = """
af afr_Latn   ar arb_Arab   az azj_Latn   bg bul_Cyrl   bn ben_Beng   de deu_Latn   el ell_Grek   en eng_Latn
es spa_Latn   et est_Latn   eu eus_Latn   fa pes_Arab   fi fin_Latn   fr fra_Latn   gu guj_Gujr   he heb_Hebr
hi hin_Deva   ht hat_Latn   hu hun_Latn   id ind_Latn   it ita_Latn   ja jpn_Jpan   jv jav_Latn   ka kat_Geor
kk kaz_Cyrl   ko kor_Hang   lt lit_Latn   ml mal_Mlym   mr mar_Deva   ms zsm_Latn   my mya_Mymr   nl nld_Latn
pa pan_Guru   pl pol_Latn   pt por_Latn   qu quy_Latn   ro ron_Latn   ru rus_Cyrl   sw swh_Latn   ta tam_Taml
te tel_Telu   th tha_Thai   tl tgl_Latn   tr tur_Latn   uk ukr_Cyrl   ur urd_Arab   vi vie_Latn   wo wol_Latn
yo yor_Latn   zh zho_Hans
"""

FLORES: dict[str, str] = dict(zip(_TABLE.split()[::2], _TABLE.split()[1::2], strict=True))
"""Our language code -> FLORES-200's, which NLLB's are (facebookresearch/flores@3f26fb0, flores200/README.md).
Quechua is Ayacucho's there, the only one it has; Chinese is simplified, as in the suites."""

ALSO = {"ar": ("ara",), "fa": ("fas",), "ms": ("msa",), "zh": ("cmn", "cmn_Hans")}
"""Further names of a language: FLORES-101's (same source) and, for Chinese, ISO 639-3's of Mandarin."""

MARIAN, MANY = "marian", ("m2m_100", "nllb-moe")
"""`model_type` of configs; NLLB's dense models have M2M100's."""

TRANSLATED: dict[str, tuple[str, ...]] = {
    Family.CLASSIFICATION: ("text", "pair"),
    Family.MULTIPLE_CHOICE: ("first", "second", "choices"),
}
"""What of a row is text that may be translated with its label still true."""

REFUSED: dict[str, str] = {
    Family.TAGGING: "its tags belong to the words of the original",
    Family.SPAN_QA: "its answers are places in the original passage",
    Family.RETRIEVAL: "its rows are translations already",
    Family.BITEXT_MINING: "its rows are translations already",
    Family.DUAL_ENCODER: "its answers are sentences of the original passage",
    Family.MASKED_LM: "its text is read in every language as it is",
}


class Translator:
    """A translation model from a folder, for one pair of languages or for many."""

    def __init__(self, folder: Path) -> None:
        """Weights in float32 and the tokenizer; nothing is unpickled, no code of a model's is run.

        Raises:
            ModelError: the folder holds no translation model; says what is missing and what to do.
        """
        check(folder)
        self.folder = folder
        self.model = _model(folder)
        self.tokenizer = _tokenizer(folder)
        self.many = self.model.config.model_type in MANY
        # M2M100's tokenizer does not count them as special and would write "__de__" before a translation.
        self._languages = set(getattr(self.tokenizer, "lang_code_to_id", {}).values())

    def translate(
        self,
        texts: Sequence[str],
        source: str,
        target: str,
        batch: int,
        device: torch.device | str,
        beams: int,
        max_length: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[str]:
        """Each text in the language `target`, in order; equal texts are translated once, blank ones kept.

        Texts longer than `max_length` sub-words lose their end, and no translation is longer. `progress` is
        told how many different texts are done, and of how many.

        Raises:
            ModelError: the model does not translate from `source` to `target`, or has fewer positions.
        """
        check_length(self.model, max_length)
        prefix, first = self._directions(source, target)
        settings = self._generation(first, beams, max_length)
        made: Any = self.model
        made.to(device).eval()
        different = list(dict.fromkeys(text for text in texts if text.strip()))
        found: dict[str, str] = {}
        # Texts of like length together: little is padding, and a text's neighbours hang on the texts alone.
        for members in batching.bucketed([len(text) for text in different], batch):
            some = [different[one] for one in members]
            found |= zip(
                some, self._batch([prefix + text for text in some], settings, max_length), strict=True
            )
            if progress is not None:
                progress(len(found), len(different))
        return [found.get(text, text) for text in texts]

    @torch.no_grad()
    def _batch(self, texts: list[str], settings: GenerationConfig, max_length: int) -> list[str]:
        encoded = self.tokenizer(
            texts, truncation=True, max_length=max_length, padding=True, return_tensors="pt"
        )
        made: Any = self.model
        inputs = {name: encoded[name].to(self.model.device) for name in ("input_ids", "attention_mask")}
        ids = made.generate(**inputs, generation_config=settings)
        spoken = [[one for one in row if one not in self._languages] for row in ids.tolist()]
        decoded = self.tokenizer.batch_decode(
            spoken, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return [str(text).strip() for text in decoded]

    def _generation(self, first: int | None, beams: int, max_length: int) -> GenerationConfig:
        config, make = self.model.config, cast(Any, GenerationConfig)
        settings: GenerationConfig = make(
            num_beams=beams,
            do_sample=False,
            max_new_tokens=max_length,
            length_penalty=1.0,
            early_stopping=False,
            decoder_start_token_id=config.decoder_start_token_id,
            forced_bos_token_id=first,
            pad_token_id=config.pad_token_id,
            eos_token_id=config.eos_token_id,
            # Marian's decoder begins with the padding, has a logit for it and was never to say it.
            bad_words_ids=[[config.pad_token_id]],
        )
        return settings

    def _directions(self, source: str, target: str) -> tuple[str, int | None]:
        """What is written before each text, and the id that the translation begins with, if any."""
        if self.many:
            self.tokenizer.src_lang = self._spoken(source)[0]
            return "", self._spoken(target)[1]
        self._pair(source, getattr(self.tokenizer, "source_lang", None), "from")
        codes = list(getattr(self.tokenizer, "supported_language_codes", None) or ())
        if not codes:
            self._pair(target, getattr(self.tokenizer, "target_lang", None), "into")
            return "", None
        known = next((code for name in _names(target) if (code := f">>{name}<<") in codes), None)
        if known is None:
            some = ", ".join(code.strip("<>") for code in codes[:8])
            raise self._unspoken(target, f"it translates into {some}{' ...' if len(codes) > 8 else ''}")
        return f"{known} ", None

    def _spoken(self, language: str) -> tuple[str, int]:
        """What an M2M100 or NLLB tokenizer calls a language, and the id of its token."""
        vocabulary = self.tokenizer.get_vocab()
        by_name = getattr(self.tokenizer, "lang_code_to_id", {})
        for name in _names(language):
            if name in by_name:
                return name, int(by_name[name])
            if name in vocabulary and "_" in name:
                return name, int(vocabulary[name])
        raise self._unspoken(language, "take a model that has it, or leave the language out")

    def _pair(self, language: str, named: str | None, way: str) -> None:
        """Refuses a model for one pair that says it is for another; a group ("gmw") is taken at its word."""
        others = {name for code in FLORES for name in _names(code)} - set(_names(language))
        if named in others:
            raise self._unspoken(language, f"it translates {way} {named}")

    def _unspoken(self, language: str, remedy: str) -> ModelError:
        return ModelError(f"the translation model in {self.folder} has no language {language!r}", remedy)


def translated_rows(
    task: Task, rows: Sequence[Mapping[str, Any]], translate: Callable[[list[str]], list[str]]
) -> list[dict[str, Any]]:
    """Copies of published rows with their texts translated, all in one call; labels and ids are kept.

    Raises:
        JobFileError: labels of such a task do not survive translation, or a text is made of columns with
            words between them.
        DataError: a column is missing or no text.
    """
    paths = _text_columns(task)
    texts = [
        text for number, row in enumerate(rows) for path in paths for text in _texts(task, row, number, path)
    ]
    answers = translate(texts)
    if len(answers) != len(texts):
        raise ValueError(f"{len(texts)} texts were given and {len(answers)} came back")
    rest = iter(answers)
    found = []
    for row in rows:
        own = copy.deepcopy(dict(row))
        for path in paths:
            _replace(own, path, rest)
        found.append(own)
    return found


def _text_columns(task: Task) -> list[str]:
    """Published columns that hold text to translate, each once."""
    if task.family not in TRANSLATED:
        reason = REFUSED.get(task.family, f"nothing is known of the text in {task.family} tasks")
        remedy = f"{reason}; name a task of sentences or of choices as `translated`"
        raise JobFileError(f"{task.name} cannot be translated", remedy)
    found: list[str] = []
    for word in TRANSLATED[task.family]:
        path = task.columns.get(word, "")
        if "{" not in path:
            found += [part.strip() for part in path.split(",") if part.strip()]
            continue
        for words, name, *_ in Formatter().parse(path):
            if words.strip():
                remedy = f"{path!r} has words of its own, which no row holds; name another task"
                raise JobFileError(f"{task.name} cannot be translated", remedy)
            found += [name] if name else []
    return list(dict.fromkeys(found))


def _texts(task: Task, row: Mapping[str, Any], number: int, path: str) -> list[str]:
    value = columns.column(task, row, number, path)
    several = value if isinstance(value, list | tuple) else [value]
    return [columns.checked_text(task, each, number, path) for each in several]


def _replace(row: dict[str, Any], path: str, answers: Iterator[str]) -> None:
    """Puts the next of `answers` where the texts of `path` are."""
    *outer, last = path.split(".")
    place = row
    for part in outer:
        place = place[part]
    value = place[last]
    place[last] = [next(answers) for _ in value] if isinstance(value, list | tuple) else next(answers)


def _names(language: str) -> tuple[str, ...]:
    """What models call a language: our code, FLORES-200's, its ISO 639-3 part, and further ones."""
    flores = FLORES.get(language)
    own = () if flores is None else (flores, flores.partition("_")[0])
    return (language, *own, *ALSO.get(language, ()))


def _model(folder: Path) -> PreTrainedModel:
    known = (MARIAN, *MANY)
    try:
        config: Any = AutoConfig.from_pretrained(folder, **LOCAL)
    except (OSError, ValueError, KeyError) as problem:
        remedy = f"give a model that transformers knows ({first_line(problem)})"
        raise ModelError(f"{folder} has a config.json of no known architecture", remedy) from problem
    if config.model_type not in known:
        remedy = "give a MarianMT (Helsinki-NLP/opus-mt-...), M2M100 or NLLB model"
        raise ModelError(f"{folder} holds a {config.model_type}, which is no translation model", remedy)
    config._attn_implementation = None
    try:
        with quiet():
            model, found = AutoModelForSeq2SeqLM.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                output_loading_info=True,
                **LOCAL,
            )
    except Exception as problem:
        expected = isinstance(problem, OSError | ValueError | RuntimeError | KeyError)
        if not (expected or type(problem).__module__.startswith("safetensors")):
            raise
        remedy = f"fetch or save it again ({first_line(problem)})"
        raise ModelError(f"{folder} cannot be loaded", remedy) from problem
    _complete(folder, [*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])])
    # What a folder's own generation_config.json says would fill in whatever is not said in `_generation`.
    model.generation_config = cast(Any, GenerationConfig)()
    return cast(PreTrainedModel, model)


def _complete(folder: Path, wrong: Iterable[str]) -> None:
    """transformers fills what it does not find with random numbers and only warns."""
    if keys := sorted(wrong):
        remedy = "its weights are of another architecture: fetch or save it again"
        raise ModelError(f"{folder} lacks {len(keys)} tensors, {keys[0]} first", remedy)


def _tokenizer(folder: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # sacremoses is recommended for a method that encoding does not call.
            warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
            return AutoTokenizer.from_pretrained(folder, **LOCAL)
    except (OSError, ValueError, KeyError, TypeError, AssertionError, RuntimeError) as problem:
        remedy = f"put the tokenizer's files there that belong to its weights ({first_line(problem)})"
        raise ModelError(f"the tokenizer in {folder} cannot be loaded", remedy) from problem
