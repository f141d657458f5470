"""Settings presets: published hyper-parameters as data, each value with its source.

A preset lies beneath what a job file says under `train`. Sources: Phang et al. 2020 v1 (arXiv 2005.13013v1),
nyu-mll/jiant@daa5a258, and the scripts of google-research/xtreme (838c13b, and 1a82bf90 for 2020-05), all for
XLM-R Large. A preset is a list of lines (phase, tasks, source, values); task "" is all tasks of the phase,
task "mix" the mixture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from typing import Any

from xstilts.errors import UnknownName
from xstilts.frozen import Frozen

MIX, MIX_MLM = "mix", "mix_mlm"
"""Mixtures of tasks, and those with masked language modelling in them, where a task's name stands."""

Line = tuple[str, str, str, dict[str, Any]]
"""Phase, tasks (words; "" for all), source, values; "select.first" is the field `first` of `select`."""


class Preset(Frozen):
    """Published settings of both phases."""

    name: str
    source: str
    notes: tuple[str, ...]
    """What the source does not state, and what stands there instead."""
    intermediate: dict[str, dict[str, Any]]
    """Task -> field of TrainSettings -> value; task "" holds what all have in common."""
    target: dict[str, dict[str, Any]]
    """The same for the target phase."""
    sources: dict[str, str]
    """Where each value is from: "target/xnli/epochs", "intermediate//select.first"."""
    mlm_learning_rate: float | None = None
    """Of the intermediate phase where masked language modelling is co-trained; None: the same as without."""


PHANG = "Phang et al. 2020 v1, App. A.1-A.2"
PHANG_3 = "Phang et al. 2020 v1, Table 3"
PHANG_4 = "Phang et al. 2020 v1, Table 4"
JIANT = "nyu-mll/jiant@daa5a258, benchmarks/xtreme subscripts, xtreme_runconfig_writer.py, model_setup.py"
SIMPLE = "nyu-mll/jiant, jiant/proj/simple/runscript.py, which guides/projects/xstilts.md runs"
XTREME = "google-research/xtreme@838c13b, scripts/"
QA_2020 = "google-research/xtreme@1a82bf90, scripts/train_qa.sh"
OURS = "not in the source: "


def _silent(source: str) -> str:
    """The source of a value that the paper does not state and its released code does."""
    return f"{OURS}{source}"


_PHANG_LINES: tuple[Line, ...] = (
    ("intermediate", "", PHANG, {"learning_rate": 1e-5, "warmup": 0.1, "select.first": 500}),
    ("intermediate", "anli_plus", PHANG_3, {"effective_batch": 24, "epochs": 2}),
    ("intermediate", "ccg", PHANG_3, {"effective_batch": 24, "epochs": 15}),
    ("intermediate", "csqa", PHANG_3, {"effective_batch": 4, "epochs": 10}),
    ("intermediate", "cosmosqa", PHANG_3, {"effective_batch": 4, "epochs": 15}),
    ("intermediate", "hellaswag", PHANG_3, {"effective_batch": 24, "epochs": 7}),
    ("intermediate", "qqp", PHANG_3, {"effective_batch": 24, "epochs": 3}),
    ("intermediate", "squad_v1", PHANG_3, {"effective_batch": 8, "epochs": 3}),
    ("intermediate", "mlm", PHANG_3, {"effective_batch": 8}),
    ("intermediate", "mix", PHANG_3, {"epochs": 3}),
    ("intermediate", "mnli", OURS + "as ANLI+, of which it is a part", {"effective_batch": 24, "epochs": 2}),
    ("intermediate", "squad_v2", OURS + "as SQuAD v1.1", {"effective_batch": 8, "epochs": 3}),
    ("intermediate", "siqa copa", OURS + "as CommonsenseQA", {"effective_batch": 4, "epochs": 10}),
    ("intermediate", "mrpc", OURS + "as QQP", {"effective_batch": 24, "epochs": 3}),
    ("target", "", PHANG, {"learning_rate": 3e-6, "warmup": 0.1, "select.first": 500}),
    ("target", "xnli", PHANG_4, {"effective_batch": 4, "epochs": 2}),
    ("target", "pawsx", PHANG_4, {"effective_batch": 32, "epochs": 5}),
    ("target", "xquad mlqa tydiqa", PHANG_4, {"effective_batch": 16, "epochs": 2}),
    ("target", "udpos panx", PHANG_4, {"effective_batch": 32, "epochs": 10}),
)

_RELEASED = {
    "schedule": "linear",
    "adam_epsilon": 1e-8,
    "clip": 1.0,
    "weight_decay": 0.01,
    "max_length": 256,
    "select.every": 1000,
    "select.patience": 30,
    "select.keep": "best",
}
"""Of all that jiant's XTREME scripts run."""

_SQUADS = "squad_v1 squad_v2"
_PHANG_SILENT: tuple[Line, ...] = (
    ("intermediate", "", _silent(JIANT), _RELEASED),
    ("intermediate", _SQUADS, _silent(JIANT), {"max_length": 384, "doc_stride": 128}),
    ("target", "", _silent(JIANT), _RELEASED),
    ("target", "xquad mlqa tydiqa", _silent(JIANT), {"max_length": 384, "doc_stride": 128}),
)

_JIANT_LINES: tuple[Line, ...] = (
    ("intermediate", "", SIMPLE, {"learning_rate": 1e-5, "epochs": 3, "max_length": 256}),
    ("intermediate", "", SIMPLE, {"adam_epsilon": 1e-8, "clip": 1.0}),
    ("intermediate", "", "nyu-mll/jiant, guides/projects/xstilts.md", {"effective_batch": 4}),
    ("intermediate", "", JIANT, {"schedule": "linear", "warmup": 0.1, "weight_decay": 0.01}),
    ("intermediate", "", _silent(JIANT + " for targets"), {"select.first": 500, "select.every": 1000}),
    ("intermediate", "", _silent(JIANT + " for targets"), {"select.patience": 30, "select.keep": "best"}),
    ("intermediate", _SQUADS, _silent(JIANT + " for SQuAD"), {"max_length": 384, "doc_stride": 128}),
    ("target", "", JIANT, {"learning_rate": 1e-5, "warmup": 0.1, "select.first": 500, **_RELEASED}),
    ("target", "xnli", JIANT, {"effective_batch": 32, "epochs": 2}),
    ("target", "pawsx", JIANT, {"effective_batch": 32, "epochs": 5}),
    ("target", "udpos panx", JIANT, {"effective_batch": 32, "epochs": 10}),
    (
        "target",
        "xquad mlqa tydiqa",
        JIANT,
        {"effective_batch": 16, "epochs": 2, "max_length": 384, "doc_stride": 128},
    ),
)

_COMMON = {
    "effective_batch": 32,
    "warmup": 0.0,
    "weight_decay": 0.0,
    "adam_epsilon": 1e-8,
    "clip": 1.0,
    "schedule": "linear",
    "max_length": 128,
}
"""Of XTREME's training programs, where their scripts do not say otherwise."""

_QA_2021 = {
    "learning_rate": 3e-5,
    "epochs": 3,
    "effective_batch": 32,
    "max_length": 384,
    "doc_stride": 128,
    "warmup_steps": 500,
    "weight_decay": 0.0001,
    "select.keep": "last",
}
_QA_2020 = {**_QA_2021, "epochs": 2, "effective_batch": 16}
_WHOLE = {"select.first": 10_000, "select.keep": "best"}
"""The scripts choose on the whole English dev set; 10,000 holds the largest, PAN-X's."""


def _shared(xnli: float) -> tuple[Line, ...]:
    """What both generations of XTREME's scripts say of classification and tagging."""
    pairs = {"epochs": 5, **_WHOLE}
    tags = {"learning_rate": 2e-5, "epochs": 10, **_WHOLE}
    return (
        ("target", "", XTREME + "train_*.sh, defaults of third_party/run_*.py", _COMMON),
        ("target", "xnli", XTREME + "train_xnli.sh", {"learning_rate": xnli, **pairs, "select.every": 100}),
        ("target", "pawsx", XTREME + "train_pawsx.sh", {"learning_rate": 2e-5, **pairs, "select.every": 200}),
        ("target", "udpos", XTREME + "train_udpos.sh", {**tags, "select.every": 500}),
        ("target", "panx", XTREME + "train_panx.sh", {**tags, "select.every": 1000}),
    )


_XCOPA = {"learning_rate": 3e-5, "epochs": 5, "max_length": 128, "effective_batch": 32, "select.keep": "last"}
_LAREQA = {"learning_rate": 2e-5, "epochs": 3, "max_length": 352, "effective_batch": 16, **_WHOLE}
_MEWSLIX = {"learning_rate": 1e-5, "epochs": 2, "max_length": 64, "effective_batch": 32, **_WHOLE}
_XTREME_R: tuple[Line, ...] = (
    ("target", "xcopa", XTREME + "train_xcopa.sh, third_party/run_xcopa.py", _XCOPA),
    ("target", "lareqa", XTREME + "train_lareqa.sh", _LAREQA),
    ("target", "mewslix", XTREME + "train_mewslix.sh", _MEWSLIX),
    ("target", "tatoeba_after_squad_v1", XTREME + "train_qa.sh", _QA_2021),
)
"""XTREME-R's own targets, complete but for `_COMMON`."""
_NO_STOP = {"select.every": None, "select.patience": None}


_RETRIEVED: Line = ("target", "tatoeba bucc2018", XTREME + "run_{tatoeba,bucc2018}.sh", {"max_length": 512})
"""Nothing is trained; the scripts and jiant's read 512 sub-words."""


def _borrowed() -> tuple[Line, ...]:
    """XTREME-R's own targets for a preset whose source does not know them: whole, so that nothing mixes."""
    return tuple(
        (phase, task, _silent(source), {**_COMMON, **_NO_STOP, **values})
        for phase, task, source, values in _XTREME_R
    )


def _likewise(xnli: float, qa: dict[str, Any]) -> tuple[Line, ...]:
    """XTREME has no intermediate phase: its tasks of the same kind lend their settings, lengths included."""
    return (
        ("intermediate", "", _silent(XTREME + "train_*.sh"), {**_COMMON, "learning_rate": 2e-5, "epochs": 5}),
        ("intermediate", "", _silent("the whole selection set"), _WHOLE),
        ("intermediate", "anli_plus mnli", OURS + "as XNLI", {"learning_rate": xnli, "select.every": 100}),
        ("intermediate", "qqp mrpc", OURS + "as PAWS-X", {"select.every": 200}),
        ("intermediate", "ccg", OURS + "as UD POS", {"epochs": 10, "select.every": 500}),
        ("intermediate", "hellaswag cosmosqa csqa siqa copa", OURS + "as XCOPA's SocialIQA", _XCOPA),
        ("intermediate", _SQUADS, OURS + "as the question answering targets", qa),
    )


def _fold(lines: Iterable[Line], phase: str) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """The values of one phase by task and field, and where each is from; later lines win."""
    values: dict[str, dict[str, Any]] = {"": {}}
    sources: dict[str, str] = {}
    for _, tasks, source, given in (line for line in lines if line[0] == phase):
        for task in tasks.split() or [""]:
            own = values.setdefault(task, {})
            for field, value in given.items():
                sources[f"{phase}/{task}/{field}"] = source
                group, _, part = field.partition(".")
                if part:
                    own[group] = {**own.get(group, {}), part: value}
                else:
                    own[field] = value
    return values, sources


def _preset(
    name: str, source: str, notes: Sequence[str], lines: Sequence[Line], mlm: float | None = None
) -> Preset:
    intermediate, where = _fold(lines, "intermediate")
    target, there = _fold(lines, "target")
    return Preset(
        name=name,
        source=source,
        notes=tuple(notes),
        intermediate=intermediate,
        target=target,
        sources={**where, **there},
        mlm_learning_rate=mlm,
    )


_BORROWS = "XCOPA, LAReQA, Mewsli-X and Tatoeba after SQuAD v1.1 are not in it: as in xtreme_r2021."
_LENGTH = "LAReQA: 352 is 96 of a question and 256 of an answer with its paragraph."
_NO_PHASE = "There is no intermediate phase in it: tasks train as its target of the same kind does."
_ON_SELECTION = (
    "The scripts choose on the whole English dev set; here the task's selection rows stand for it, since "
    "English items that are reported are never chosen on."
)

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        _preset(
            "phang2020_v1",
            "Phang et al. 2020, arXiv 2005.13013v1, Tables 3 and 4 and App. A",
            (
                "Lengths, schedule, decay, clipping, interval and patience are not stated: as in jiant2.",
                "MNLI and SQuAD v2.0 are no intermediate tasks of v1: as ANLI+ and SQuAD v1.1. SocialIQA and "
                "COPA as CommonsenseQA, MRPC as QQP.",
                'In the mixture batches are "mixed": each task keeps its own.',
                _BORROWS,
            ),
            (*_PHANG_SILENT, *_PHANG_LINES, _RETRIEVED, *_borrowed()),
            mlm=5e-6,
        ),
        _preset(
            "jiant2",
            "nyu-mll/jiant@daa5a258, the code released with the paper",
            (
                "Its guide trains intermediate tasks with its simple interface's defaults and batch 4, and "
                "stops none early; selection is that of its XTREME scripts, in both phases.",
                "SQuAD as intermediate task is 384 long, as in its XTREME scripts.",
                _BORROWS,
            ),
            (*_JIANT_LINES, _RETRIEVED, *_borrowed()),
        ),
        _preset(
            "xtreme2020",
            "google-research/xtreme, scripts of 2020-05 (Hu et al. 2020), XLM-R Large",
            (_NO_PHASE, _ON_SELECTION, _BORROWS),
            (
                *_likewise(2e-5, _QA_2020),
                *_shared(2e-5),
                ("target", "xquad mlqa tydiqa", QA_2020, _QA_2020),
                _RETRIEVED,
                *_borrowed(),
            ),
        ),
        _preset(
            "xtreme_r2021",
            "google-research/xtreme@838c13b, scripts of 2021-08 (Ruder et al. 2021), XLM-R Large",
            (
                "mBERT differs: XNLI and XCOPA at 2e-5, Mewsli-X at 2e-5 in batches of 256.",
                _NO_PHASE,
                _ON_SELECTION,
                _LENGTH,
                "XCOPA: SocialIQA and COPA with the same settings, the last weights of each.",
            ),
            (
                *_likewise(3e-5, _QA_2021),
                *_shared(3e-5),
                ("target", "xquad mlqa tydiqa", XTREME + "train_qa.sh", _QA_2021),
                _RETRIEVED,
                *_XTREME_R,
            ),
        ),
    )
}


def words(name: str, intermediates: Sequence[str], targets: Sequence[str]) -> dict[str, Any]:
    """What the preset would say under `train:` of a job file, for these tasks only.

    Tasks that it does not know get what all of a phase have in common. A mixture with masked language
    modelling (`mix_mlm`) has a learning rate of its own where the preset has one.

    Raises:
        UnknownName: no such preset; names the nearest.
    """
    if name not in PRESETS:
        raise UnknownName.among("preset", name, PRESETS, where=("settings",))
    preset = PRESETS[name]
    known = preset.intermediate
    if preset.mlm_learning_rate is not None:
        mixed = {**known.get(MIX, {}), "learning_rate": preset.mlm_learning_rate}
        known = {**known, MIX_MLM: mixed}
    intermediate = _phase(known, intermediates)
    return {"intermediate": intermediate, "target": _phase(preset.target, targets)}


def _phase(known: dict[str, dict[str, Any]], tasks: Sequence[str]) -> dict[str, Any]:
    """The common words and those of `tasks`; a task's `select` is whole, since a job file's is one value."""
    common = known[""]
    own = {
        task: {
            field: {**common.get(field, {}), **value} if isinstance(value, dict) else value
            for field, value in known[task].items()
        }
        for task in dict.fromkeys(tasks)
        if task and task in known
    }
    return deepcopy({**common, "tasks": own} if own else common)
