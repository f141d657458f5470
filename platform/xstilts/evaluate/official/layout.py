"""Where the benchmarks keep which file, and what may stand in it.

    <root>/<task>/test-<language>.<suffix>     the same for predictions and for labels

Forms, as XTREME's evaluator reads them (google-research/xtreme, evaluate.py; LAReQA has no file of its own
and is given Mewsli-X's):
    labels   xnli, pawsx     a label a line
    rows     tatoeba         for each English line, lines in code-point order, the row of its foreign sentence
    tags     udpos, panx     a tag a line, no words; a blank line between sentences
    pairs    bucc2018        <foreign id>TAB<english id> a line, a set
    answers  xquad, mlqa, tydiqa    {question id: answer}; labels are SQuAD's JSON
    choices  xcopa           an object a line, with `label`
    ranked   mewslix, lareqa {example id: [the first 20 ids, best first]}; labels {example id: [right ids]}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from xstilts.tasks.task import Task

Form = Literal["labels", "rows", "tags", "pairs", "answers", "choices", "ranked"]

RANKS = 20
"""Ids that count of a ranked list."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How one task is written."""

    form: Form
    suffix: str
    words: tuple[str, ...] = ()
    """labels: what each of the task's labels is called in the files, in the order of `task.labels`."""


LAYOUTS: dict[str, Layout] = {
    "xnli": Layout("labels", "tsv", ("entailment", "neutral", "contradiction")),
    "pawsx": Layout("labels", "tsv", ("0", "1")),
    "udpos": Layout("tags", "tsv"),
    "panx": Layout("tags", "tsv"),
    "xquad": Layout("answers", "json"),
    "mlqa": Layout("answers", "json"),
    "tydiqa": Layout("answers", "json"),
    "bucc2018": Layout("pairs", "tsv"),
    "tatoeba": Layout("rows", "tsv"),
    "xcopa": Layout("choices", "jsonl"),
    "mewslix": Layout("ranked", "json"),
    "lareqa": Layout("ranked", "json"),
}
"""Task -> how it is written."""


def folder(task: Task) -> str:
    """The folder of a task; a variant (another protocol) has that of the task it reports."""
    return task.variant_of or task.name


def place(root: Path, name: str, language: str) -> Path:
    """The file of one language of the task whose folder is `name`."""
    return root / name / f"test-{language}.{LAYOUTS[name].suffix}"
