"""Keys of probe steps are pinned, apart from the others: they came later and changed none of them."""

from __future__ import annotations

from typing import Any

import pytest
from test_keys import ENCODER, TASK, rows

from xstilts.plan import fingerprint
from xstilts.plan.step import ProbeBody, Step


def probe(**changed: Any) -> Step:
    words: dict[str, Any] = {
        "task": TASK,
        "what": "fit",
        "rows": (rows("train"),),
        "measures": ("few_shot", "logme"),
        "samples": 100,
        "shots": (16,),
        "draws": 5,
        "max_length": 128,
        "doc_stride": 128,
        "precision": "fp32",
        "encoder": ENCODER,
    }
    return Step(label="probe-fit-nli", body=ProbeBody(**(words | changed)))


PINNED = {(2, 1): "probe-fit-nli--c080dd39b2211a36"}
"""Versions of fingerprint and step -> key. Add an entry when one is bumped; never edit one."""


def test_the_key_is_pinned() -> None:
    assert probe().key == PINNED[fingerprint.VERSION, fingerprint.STEP_VERSION["probe"]]


@pytest.mark.parametrize(
    "changed",
    [
        {"what": "text"},
        {"rows": (rows("train", sha256="ee"),)},
        {"source": rows("test")},
        {"measures": ("logme",)},
        {"layers": (1,)},
        {"samples": 99},
        {"shots": (16, 64)},
        {"draws": 6},
        {"max_length": 64},
        {"precision": "bf16"},
        {"untrained_seed": 1},
        {"encoder": None},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_whatever_changes_a_measure_changes_the_key(changed: dict[str, Any]) -> None:
    assert probe(**changed).digest != probe().digest
