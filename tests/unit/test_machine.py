"""What a warm worker keeps of a step that failed: nothing."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from xstilts.execute.backends import Terms, classify, failure
from xstilts.execute.machine import layout_of, prediction_batch, tidy
from xstilts.execute.site import Site
from xstilts.execute.state import Cause
from xstilts.execute.steps import Outcome, Work
from xstilts.plan.step import PretrainBody, Step
from xstilts.record.local import LocalStore
from xstilts.spec.experiment import ExecutionSpec, PretrainSpec


def work(root: Path, terms: Terms = Terms(), **words: Any) -> Work:  # noqa: B008 (frozen)
    """A step that is being done on the CPU."""
    step = Step(label="pretrain", body=PretrainBody(spec=PretrainSpec(data="world"), corpora=()))
    site = Site(str(root), None, ExecutionSpec(device="cpu", **words))
    store = LocalStore(root / "store")
    return Work(step, site, store, "a", root, lambda _: None, lambda: False, terms)


def test_a_device_that_is_full_rises_as_it_is_and_the_model_is_free(tmp_path: Path) -> None:
    """Though whoever tells of it still holds the exception, and though another one came of it."""
    models: list[weakref.ref[nn.Module]] = []

    def inner(model: nn.Module) -> None:
        kept = [model]
        try:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")
        finally:
            assert kept

    @tidy
    def body(work: Work) -> Outcome:
        return train(work)

    def train(work: Work) -> Outcome:
        model = nn.Linear(2, 2)
        models.append(weakref.ref(model))
        inner(model)
        return Outcome()

    gc.disable()
    try:
        with pytest.raises(torch.OutOfMemoryError, match="20.00 MiB") as caught:
            body(work(tmp_path))
        assert models[0]() is None
    finally:
        gc.enable()
    assert classify(caught.value) is Cause.DEVICE_MEMORY
    told = failure("pretrain", "a", caught.value)
    assert told.cause is Cause.DEVICE_MEMORY and "20.00 MiB" in told.text


def test_predicting_shrinks_with_training(tmp_path: Path) -> None:
    assert prediction_batch(work(tmp_path)) == 64
    assert prediction_batch(work(tmp_path, per_device_batch=128)) == 64
    assert prediction_batch(work(tmp_path, per_device_batch=4)) == 8
    halved = work(tmp_path, Terms(per_device_batch=2), per_device_batch=4)
    assert prediction_batch(halved) == 4 and layout_of(halved).per_device_batch == 2
