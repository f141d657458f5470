"""A whole folder of made-up labels in the benchmarks' files, two things a language, and how to change it."""

from __future__ import annotations

import json
from pathlib import Path

from xstilts.evaluate.official import layout
from xstilts.tasks.suites import suite

QUESTIONS = {"q1": "Warschau", "q2": "1897"}


def labels_of(name: str, language: str) -> str:
    """The text of one labels file."""
    form = layout.LAYOUTS[name].form
    if form == "labels":
        return "".join(f"{word}\n" for word in layout.LAYOUTS[name].words[:2])
    if form == "rows":
        return "1\n0\n"
    if form == "tags":
        return "NOUN\nVERB\n\nSYM\n" if name == "udpos" else "B-PER\nI-PER\n\nO\n"
    if form == "pairs":
        return f"{language}-1\ten-7\n{language}-2\ten-5\n"
    if form == "choices":
        return '{"label": 0}\n{"premise": "x", "label": 1}\n'
    if form == "ranked":
        return json.dumps({"m1": ["Q1"], "m2": ["Q2"]})
    asked = [{"id": name, "question": "?", "answers": [{"text": text, "answer_start": 0}]}
             for name, text in QUESTIONS.items()]  # fmt: skip
    return json.dumps({"data": [{"paragraphs": [{"context": "Warschau 1897", "qas": asked}]}]}, indent=1)


def predictions_of(name: str, language: str) -> str:
    """The text of one predictions file, all right."""
    if layout.LAYOUTS[name].form == "answers":
        return json.dumps(QUESTIONS, indent=1)
    return labels_of(name, language)


def folders(root: Path, suite_name: str) -> tuple[Path, Path]:
    """Predictions and labels of a whole suite; everything is right."""
    for name, languages in suite(suite_name).tasks.items():
        for language in languages:
            for folder, made in (("predictions", predictions_of), ("labels", labels_of)):
                put(root / folder, name, language, made(name, language))
    return root / "predictions", root / "labels"


def put(root: Path, name: str, language: str, text: str) -> Path:
    """Writes one file."""
    path = layout.place(root, name, language)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="")
    return path
