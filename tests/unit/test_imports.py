"""Describing and planning load no ML library: a plan answers in well under a second."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = "torch transformers datasets ray mlflow boto3 numpy pandas scipy sklearn pyarrow"
CHEAP = (
    "xstilts.tasks",
    "xstilts.spec.load",
    "xstilts.plan.expand",
    "xstilts.record.schema",
    "xstilts.record.artifacts",
)


@pytest.mark.parametrize("module", CHEAP)
def test_describing_loads_no_ml_library(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r}.split() if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
