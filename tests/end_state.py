"""What must be equal wherever and however often a job ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

KEPT = ("model/model.safetensors", "head.safetensors", "predictions/", "items/")
"""Outputs, or how their names begin, that are bit-equal on one kind of machine."""


def results(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Scores, weights and predictions by key, of records by key."""
    return {
        key: (
            record["scores"],
            {name: file["sha256"] for name, file in record["outputs"].items() if name.startswith(KEPT)},
        )
        for key, record in found.items()
    }
