"""Reads one file of predictions beside its labels and lists everything that is wrong with either, at once.

Lines and JSON are read as XTREME's evaluator reads them, so that what it takes is taken here: lines are
stripped, several blank lines between tags are sentences without words, SQuAD's JSON may begin at its `data`.
What it would fail on, or would count as wrong without a word, is a problem here: another number of lines, an
id that the labels do not have, a value that no label can be.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xstilts.evaluate.official import layout
from xstilts.tasks.task import Task

Unit = tuple[Any, Any]
"""What is right and what was said, of one thing that is compared: label | tags of a sentence | gold answers
and answer | right ids and ranked ids (said is None where nothing was) | the whole sets of pairs."""

_ROW = re.compile(r"0|[1-9][0-9]*")


@dataclass(slots=True)
class Findings:
    """What a reader has to be told, collected over all files."""

    problems: list[str] = field(default_factory=list)
    """Malformed things, each with file and line: while there is one, there are no scores."""
    warnings: list[str] = field(default_factory=list)

    def wrong(self, path: Path, line: int | None, what: str) -> None:
        """Notes a malformed thing."""
        self.problems.append(f"{path}: {what}" if line is None else f"{path}:{line}: {what}")


@dataclass(frozen=True, slots=True)
class Files:
    """One language of one task."""

    task: Task
    language: str
    predictions: Path
    labels: Path


def units(files: Files, found: Findings) -> list[Unit]:
    """What is to be compared, in the order of the labels; of no meaning once `found` has problems.

    A question without prediction is a warning in `found`.
    """
    form = layout.LAYOUTS[layout.folder(files.task)].form
    return _READERS[form](files, found)


def _of_labels(files: Files, found: Findings) -> list[Unit]:
    words = layout.LAYOUTS[layout.folder(files.task)].words
    expected = "one of " + ", ".join(words)
    gold, said = _lines(files.labels, found), _lines(files.predictions, found)
    for path, lines in ((files.labels, gold), (files.predictions, said)):
        _check_values(path, lines, lambda line: line in words, expected, found)
    return _aligned(files, gold, said, "lines", found)


def _of_rows(files: Files, found: Findings) -> list[Unit]:
    """Rows are compared as text. Whole labels name each row once, and so bound what a row can be."""
    gold, said = _lines(files.labels, found), _lines(files.predictions, found)
    rows = {str(row) for row in range(len(gold))}
    whole = rows == set(gold)
    expected = f"a row, 0 to {len(gold) - 1}" if whole else "a row, a number from 0"
    for path, lines in ((files.labels, gold), (files.predictions, said)):
        _check_values(path, lines, lambda line: bool(_ROW.fullmatch(line)), expected, found)
    if whole:
        _check_values(
            files.predictions, said, lambda line: not _ROW.fullmatch(line) or line in rows, expected, found
        )
    return _aligned(files, gold, said, "lines", found)


def _of_choices(files: Files, found: Findings) -> list[Unit]:
    count = len(files.task.labels)
    gold, said = (_choices(path, count, found) for path in (files.labels, files.predictions))
    return _aligned(files, gold, said, "lines", found)


def _choices(path: Path, count: int, found: Findings) -> list[Any]:
    labels = []
    for number, line in enumerate(_lines(path, found), 1):
        try:
            label = json.loads(line)["label"]
        except (ValueError, KeyError, TypeError):
            found.wrong(path, number, f"{_shown(line)} is no JSON object with a `label`")
            label = None
        else:
            if type(label) is not int or not 0 <= label < count:
                found.wrong(path, number, f"the label is {_shown(label)}, and not 0 to {count - 1}")
        labels.append(label)
    return labels


def _of_tags(files: Files, found: Findings) -> list[Unit]:
    gold, said = (_sentences(path, found) for path in (files.labels, files.predictions))
    known = {*files.task.labels, *(tag for _, tags in gold for tag in tags)}
    for path, sentences in ((files.labels, gold), (files.predictions, said)):
        for begin, tags in sentences:
            for number, tag in enumerate(tags, begin):
                if tag not in known or len(tag.split()) > 1:
                    found.wrong(path, number, f"{_shown(tag)} is no tag of {files.task.name}")
    if len(gold) == len(said):
        for number, ((_, wanted), (begin, tags)) in enumerate(zip(gold, said, strict=True), 1):
            if len(wanted) != len(tags):
                what = f"sentence {number} has {len(tags)} tags, and its labels are {len(wanted)}"
                found.wrong(files.predictions, begin, what)
    bare = ([tags for _, tags in gold], [tags for _, tags in said])
    return _aligned(files, *bare, "sentences", found)


def _sentences(path: Path, found: Findings) -> list[tuple[int, list[str]]]:
    """Sentences, each with the number of the line that it begins on."""
    sentences: list[tuple[int, list[str]]] = []
    begin, tags = 1, list[str]()
    for number, line in enumerate(_lines(path, found), 1):
        if line:
            tags.append(line)
        else:
            sentences.append((begin, tags))
            begin, tags = number + 1, []
    if tags:
        sentences.append((begin, tags))
    return sentences


def _of_pairs(files: Files, found: Findings) -> list[Unit]:
    """One unit: both sets. The labels name only sentences that have a pair; where their ids begin with the
    languages, as BUCC's do (de-000000001), so must those of the predictions, each on its side."""
    gold, said = (_pairs(path, found) for path in (files.labels, files.predictions))
    if not gold:
        found.wrong(files.labels, None, "has no labels")
    sides = (f"{files.language}-", "en-")
    if all(_on_sides(ids, sides) for _, ids in gold):
        for number, ids in said:
            if len(ids) == len(sides) and not _on_sides(ids, sides):
                what = f"{_shown(chr(9).join(ids))} has unknown ids: not {sides[0]}... and {sides[1]}..."
                found.wrong(files.predictions, number, what)
    return [({ids for _, ids in gold}, {ids for _, ids in said})]


def _pairs(path: Path, found: Findings) -> list[tuple[int, tuple[str, ...]]]:
    """The ids of each line, with its number."""
    pairs = [(number, tuple(line.split("\t"))) for number, line in enumerate(_lines(path, found), 1)]
    for number, ids in pairs:
        if len(ids) != 2 or not all(ids):
            found.wrong(path, number, f"{_shown(chr(9).join(ids))} is not <foreign id>TAB<english id>")
    return pairs


def _on_sides(ids: Sequence[str], sides: Sequence[str]) -> bool:
    return all(one.startswith(side) for one, side in zip(ids, sides, strict=False))


def _of_answers(files: Files, found: Findings) -> list[Unit]:
    said = _entries(files.predictions, "a text", lambda value: isinstance(value, str), found)
    gold = _questions(files.labels, found)
    _check_ids(files, [name for name, _ in gold], said, found)
    return [(answers, said.get(name)) for name, answers in gold]


def _questions(path: Path, found: Findings) -> list[tuple[str, list[str]]]:
    """Id and gold answers of each question of SQuAD's JSON, in order."""
    words, text = _json(path, found)
    questions = []
    try:
        for article in words["data"] if isinstance(words, dict) and "data" in words else words or ():
            for paragraph in article["paragraphs"]:
                for question in paragraph["qas"]:
                    answers = [str(answer["text"]) for answer in question["answers"]]
                    questions.append((str(question["id"]), answers))
    except (KeyError, TypeError) as problem:
        found.wrong(path, None, f"is not SQuAD's JSON ({problem!r})")
    for name, answers in questions:
        if not answers:
            found.wrong(path, _line_of(text, name), f"question {name} has no gold answer")
    return questions


def _of_ranked(files: Files, found: Findings) -> list[Unit]:
    """Mewsli-X has one right id a mention, as the first of a list; its evaluator reads no other."""
    said = _entries(files.predictions, "a list of ids", _is_ids, found)
    gold = _entries(files.labels, "a list of ids, not empty", lambda ids: bool(ids) and _is_ids(ids), found)
    _check_ids(files, list(gold), said, found)
    for name, ids in said.items():
        if _is_ids(ids) and len(ids) > layout.RANKS:
            more = f"{name} lists {len(ids)} ids, and the first {layout.RANKS} count"
            found.warnings.append(f"{files.predictions}: {more}")
    alone = files.task.name == "mewslix"
    return [
        (frozenset({ids[0].strip()} if alone else ids), said.get(name))
        for name, ids in gold.items()
        if ids and _is_ids(ids)
    ]


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


_READERS: dict[layout.Form, Callable[[Files, Findings], list[Unit]]] = {
    "labels": _of_labels,
    "rows": _of_rows,
    "tags": _of_tags,
    "pairs": _of_pairs,
    "answers": _of_answers,
    "choices": _of_choices,
    "ranked": _of_ranked,
}


def _aligned(
    files: Files, gold: Sequence[Any], said: Sequence[Any], what: str, found: Findings
) -> list[Unit]:
    """Pairs of gold and prediction; a problem where their numbers differ."""
    if not gold:
        found.wrong(files.labels, None, "has no labels")
    if len(gold) != len(said):
        more = f"has {len(said)} {what}, and the labels ({files.labels}) have {len(gold)}"
        found.wrong(files.predictions, None, more)
    return list(zip(gold, said, strict=False))


def _check_ids(files: Files, gold: Sequence[str], said: dict[str, Any], found: Findings) -> None:
    """Ids that the labels do not have are problems; those that the predictions do not have are warnings."""
    if not gold:
        found.wrong(files.labels, None, "has no labels")
    known = set(gold)
    unknown = [name for name in said if name not in known]
    text = (_text(files.predictions, found) or "") if unknown else ""
    for name in unknown:
        found.wrong(files.predictions, _line_of(text, name), f"the labels have no id {_shown(name)}")
    for name in dict.fromkeys(gold):
        if name not in said:
            found.warnings.append(f"{files.predictions}: {name} has no prediction and counts 0")


def _check_values(
    path: Path, lines: Sequence[str], fits: Callable[[str], bool], expected: str, found: Findings
) -> None:
    for number, line in enumerate(lines, 1):
        if not fits(line):
            found.wrong(path, number, f"{_shown(line)} is not {expected}")


def _entries(path: Path, expected: str, fits: Callable[[Any], bool], found: Findings) -> dict[str, Any]:
    """The JSON object of a file, every value checked."""
    words, text = _json(path, found)
    if words is None:
        return {}
    if not isinstance(words, dict):
        found.wrong(path, 1, "is no JSON object")
        return {}
    for name, value in words.items():
        if not fits(value):
            found.wrong(path, _line_of(text, name), f"{name} has {_shown(value)}, and not {expected}")
    return words


def _json(path: Path, found: Findings) -> tuple[Any, str]:
    """What a file holds, and its text; None where it is no JSON. A key that is there twice is a problem."""
    text = _text(path, found)
    if text is None:
        return None, ""
    repeated: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        repeated.extend(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        return dict(pairs)

    try:
        words = json.loads(text, object_pairs_hook=once)
    except ValueError as problem:
        line = problem.lineno if isinstance(problem, json.JSONDecodeError) else None
        found.wrong(path, line, f"is no JSON ({getattr(problem, 'msg', problem)})")
        return None, text
    for name in repeated:
        found.wrong(path, _line_of(text, name), f"{_shown(name)} is there more than once")
    return words, text


def _lines(path: Path, found: Findings) -> list[str]:
    """Stripped lines. Only line feeds end one: U+2028 and its like are part of a line, as they are for
    Python's own files."""
    lines = (_text(path, found) or "").split("\n")
    return [line.strip() for line in (lines[:-1] if lines[-1] == "" else lines)]


def _text(path: Path, found: Findings) -> str | None:
    """A file's text, all line ends made line feeds; None where it cannot be read, which is a problem."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        found.wrong(path, None, f"is not UTF-8 (byte {problem.start})")
    except OSError as problem:
        found.wrong(path, None, f"cannot be read ({problem.strerror or problem})")
    return None


def _line_of(text: str, name: str) -> int | None:
    """The line on which a key of JSON stands; None where it is written in another way."""
    for written in (json.dumps(name), json.dumps(name, ensure_ascii=False)):
        place = text.find(written)
        if place >= 0:
            return text.count("\n", 0, place) + 1
    return None


def _shown(value: Any) -> str:
    """A value as it is shown in a sentence, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
