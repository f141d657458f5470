"""The loop: exact resuming, one clipping a step, selection, and what it says."""

from __future__ import annotations

import copy
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from small_encoder import Model
from torch import nn
from training_kit import Toy, Watching, bits, checkpoints, finetuning, objective, same, train

from xstilts.errors import StoreError, TrainingError
from xstilts.families import classification
from xstilts.families.heads import SentenceHead
from xstilts.spec.experiment import PretrainSpec, Selection, TrainSettings
from xstilts.train.batches import FineTuning
from xstilts.train.loop import Interrupted, Layout, Optimisation, Outcome, Rung, Signal, run


class Killed(Exception):
    """As if the process had died there."""


def scores(values: list[float], majority: float | None = None) -> Callable[[], dict[str, float]]:
    """An `assess` that gives these one after another, and draws from the global generator."""
    rest: Iterator[float] = iter(values)

    def assess() -> dict[str, float]:
        torch.rand(3)
        found = {"accuracy": next(rest), "f1": 1.0}
        return found if majority is None else {**found, "majority": majority}

    return assess


@pytest.mark.parametrize("saved_at", range(1, 9))
def test_killed_at_any_step_and_resumed_ends_bit_equal(tmp_path: Path, saved_at: int) -> None:
    """8 steps over two epochs, dropout on, checkpoint after `saved_at`, death at each step from there on."""
    whole = Toy()
    first = train(whole, finetuning())
    assert first.steps == 8
    for died_at in range(saved_at + 1, 9):
        root = tmp_path / str(died_at)
        plan: dict[int, Signal | Exception] = {saved_at: Signal.CHECKPOINT, died_at: Killed()}
        with pytest.raises(Killed):
            train(Toy(), finetuning(), Watching(plan), saved=checkpoints(root))
        resumed = Toy()
        torch.rand(11)  # whatever else the new process drew
        outcome = train(resumed, finetuning(), saved=checkpoints(root, "a2"))
        assert outcome.resumed_at == saved_at
        assert same(bits(resumed), bits(whole))
        assert outcome.final_loss == first.final_loss


def test_stopped_again_and_again_with_selection_ends_as_if_never_stopped(tmp_path: Path) -> None:
    def assess_of(model: nn.Module) -> Callable[[], dict[str, float]]:
        return lambda: {"accuracy": -abs(float(model.out.weight.sum()) - 0.1)}  # type: ignore[union-attr,arg-type,operator]

    selection = Selection(every=1)
    whole = Toy()
    expected = train(whole, finetuning(epochs=3), assess=assess_of(whole), selection=selection)
    for stop in range(1, 12):
        model = Toy()
        with pytest.raises(Interrupted, match=f"step {stop} of 12"):
            train(
                model,
                finetuning(epochs=3),
                Watching({stop: Signal.STOP}),
                saved=checkpoints(tmp_path, f"a{stop:02d}"),
                assess=assess_of(model),
                selection=selection,
            )
    last = Toy()
    got = train(
        last,
        finetuning(epochs=3),
        saved=checkpoints(tmp_path, "z"),
        assess=assess_of(last),
        selection=selection,
    )
    assert same(bits(last), bits(whole))
    assert (got.best, got.best_step, got.final_loss) == (
        expected.best,
        expected.best_step,
        expected.final_loss,
    )
    assert [row["step"] for row in got.history] == list(range(1, 13))


def encoder_run(model: nn.Module, root: Path, attempt: str, reporter: Watching) -> Outcome:
    """A real encoder and family, dropout 0.1, micro-batches, through a checkpoint."""
    parts = finetuning(20, epochs=1, effective=6, micro=4)
    batches = FineTuning(parts.features, 1, 6, 4, 3, lambda chosen: classification.CODE.collate(chosen, 1))
    return run(
        model,
        classification.CODE.loss,
        batches,
        Optimisation.of_training(TrainSettings(learning_rate=1e-3), batches.steps),
        seed=1,
        layout=Layout(per_device_batch=4),
        checkpoints=checkpoints(root, attempt),
        reporter=reporter,
        report_seconds=0,
    )


def test_a_real_encoder_resumes_bit_equal(tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = SentenceHead(16, 2, 0.1)
    models = [Model(copy.deepcopy(head)) for _ in range(3)]
    encoder_run(models[0], tmp_path / "whole", "a", Watching())
    with pytest.raises(Interrupted):
        encoder_run(models[1], tmp_path / "two", "a", Watching({2: Signal.STOP}))
    encoder_run(models[2], tmp_path / "two", "b", Watching())
    assert same(bits(models[0]), bits(models[2])) and not same(bits(models[0]), bits(models[1]))


CHILD = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import training_kit as kit
class Dies(kit.Watching):
    def report(self, progress, metrics):
        if progress.step == 6: os.kill(os.getpid(), signal.SIGKILL)
        return kit.Signal.CHECKPOINT
kit.train(kit.Toy(), kit.finetuning(), Dies(), saved=kit.checkpoints(Path(sys.argv[2])))
"""


def test_a_process_killed_for_real_is_resumed_bit_equal(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", CHILD, here, str(tmp_path)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    whole, resumed = Toy(), Toy()
    train(whole, finetuning())
    outcome = train(resumed, finetuning(), saved=checkpoints(tmp_path, "a2"))
    # The one of step 5 may still have been on its way.
    assert outcome.resumed_at in (4, 5) and same(bits(resumed), bits(whole))


def test_a_torn_newest_checkpoint_costs_steps_not_bits(tmp_path: Path) -> None:
    plan: dict[int, Signal | Exception] = {3: Signal.CHECKPOINT, 5: Signal.CHECKPOINT, 6: Killed()}
    with pytest.raises(Killed):
        train(Toy(), finetuning(), Watching(plan), saved=checkpoints(tmp_path))
    torn = next((tmp_path / "store").rglob("00000005/optimizer.safetensors"))
    torn.write_bytes(torn.read_bytes()[:-7])
    said: list[str] = []
    whole, resumed = Toy(), Toy()
    train(whole, finetuning())
    outcome = train(resumed, finetuning(), saved=checkpoints(tmp_path, "a2"), note=said.append)
    assert outcome.resumed_at == 3 and same(bits(resumed), bits(whole))
    assert "checkpoint 5 of attempt a1 is torn" in said[0]


@pytest.mark.parametrize("clip", [0.05, 1e9])
@pytest.mark.parametrize("micro", [1, 2, 3, 4])
def test_k_micro_batches_equal_one_batch(micro: int, clip: float) -> None:
    """Dropout off; 0.05 clips every step, and steps of 12 and 9 features take turns: a mean of means,
    clipping twice or a forgotten division would show."""
    settings = TrainSettings(learning_rate=0.01, clip=clip)
    one, many = Toy(0), Toy(0)
    train(one, finetuning(effective=12, micro=12), settings=settings)
    train(many, finetuning(effective=12, micro=micro), settings=settings)
    for name, tensor in bits(one).items():
        torch.testing.assert_close(bits(many)[name], tensor, atol=1e-6, rtol=0)


def test_gradients_are_clipped_once_an_optimiser_step(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    real = nn.utils.clip_grad_norm_
    monkeypatch.setattr(nn.utils, "clip_grad_norm_", lambda *a, **k: calls.append(1) or real(*a, **k))
    outcome = train(Toy(), finetuning(effective=6, micro=1))
    assert len(calls) == outcome.steps == 8


def test_a_step_is_adamw_as_written_down() -> None:
    """One step by hand: decay on matrices only, AdamW's first step is learning rate times the sign."""
    model = Toy(0)
    before = bits(model)
    batches = finetuning(6, epochs=1, effective=6)
    settings = TrainSettings(learning_rate=0.1, weight_decay=0.5, warmup=0, clip=1e9)
    loss, count = objective(model, batches.micro(0)[0])
    (loss / count).backward()
    grads = {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}
    model.zero_grad()
    train(model, batches, settings=settings)
    for name, old in before.items():
        decay = 1 - 0.1 * 0.5 if old.ndim > 1 else 1
        expected = old * decay - 0.1 * grads[name] / (grads[name].abs() + 1e-8)
        torch.testing.assert_close(bits(model)[name], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
        ("constant", [0.5, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_the_schedule(schedule: str, expected: list[float]) -> None:
    words = TrainSettings(learning_rate=1, warmup=0.2, schedule=schedule)
    settings = Optimisation.of_training(words, 10)
    assert [settings.rate(step) for step in range(10)] == pytest.approx(expected)
    # 0.1 * 30 is 3.0000000000000004, which must not become four warm-up steps.
    assert Optimisation.of_training(TrainSettings(learning_rate=1), 30).rate(2) == 1


def test_pretraining_settings_are_taken_over() -> None:
    spec = PretrainSpec(data="world", steps=10, learning_rate=2e-3, precision="bf16")
    settings = Optimisation.of_pretraining(spec)
    assert (settings.steps, settings.learning_rate, settings.precision) == (10, 2e-3, "bf16")


def test_best_weights_are_kept_and_ties_go_to_the_earlier() -> None:
    trail: dict[int, dict[str, torch.Tensor]] = {}
    model = Toy()

    class Tracing(Watching):
        def report(self, progress, metrics):  # type: ignore[no-untyped-def]
            trail[progress.step] = bits(model)
            return super().report(progress, metrics)

    outcome = train(model, finetuning(epochs=3), Tracing(), assess=scores([50, 70, 70]))
    assert (outcome.metric, outcome.best, outcome.best_step) == ("accuracy", 70, 8)
    assert same(bits(model), trail[8]) and not same(trail[8], trail[12]) and not model.training
    keep_last = Selection(keep="last")
    train(model := Toy(), finetuning(epochs=3), assess=scores([50, 70, 60]), selection=keep_last)
    assert same(bits(model), trail[12])


def test_evaluating_changes_nothing_of_the_training() -> None:
    quiet, watched = Toy(), Toy()
    train(quiet, finetuning())
    selection = Selection(every=1, keep="last")
    train(watched, finetuning(), assess=scores([1.0] * 8), selection=selection, report_seconds=100)
    assert same(bits(quiet), bits(watched))


def test_patience_ends_it_and_the_end_is_evaluated() -> None:
    values = [50.0, 60, 59, 60, 80]
    outcome = train(Toy(), finetuning(epochs=9), assess=scores(values), selection=Selection(patience=2))
    assert (outcome.steps, outcome.best_step) == (16, 8)
    reporter = Watching()
    train(
        Toy(), finetuning(epochs=2), reporter, assess=scores([1.0, 2, 3]), selection=Selection(every=3),
        report_seconds=100,
    )  # fmt: skip
    assert [progress.step for progress, _ in reporter.seen] == [3, 6, 8]


def test_a_collapsed_run_is_flagged() -> None:
    assert train(Toy(), finetuning(), assess=scores([33.0, 33.4], 33.0)).flags == ("collapsed",)
    assert train(Toy(), finetuning(), assess=scores([33.0, 40.0], 33.0)).flags == ()
    assert train(Toy(), finetuning(), assess=scores([33.0, 33.0])).flags == ()


def test_a_loss_that_is_not_finite_ends_it_at_once() -> None:
    model = Toy()
    with torch.no_grad():
        model.out.bias.fill_(float("inf"))
    reporter = Watching()
    with pytest.raises(TrainingError, match="not finite by step 1"):
        train(model, finetuning(), reporter)
    assert not reporter.seen


def test_reports_come_by_the_clock_not_by_the_step() -> None:
    reporter = Watching()
    outcome = train(Toy(), finetuning(2000, epochs=1), reporter, report_seconds=1000)
    assert outcome.steps == 334 and len(reporter.seen) == 1
    progress, metrics = reporter.seen[0]
    assert (progress.step, progress.steps, progress.epoch) == (334, 334, 1.0)
    assert set(metrics) == {"loss", "learning_rate"} and metrics["loss"] == outcome.final_loss


def test_it_learns_and_leaves_the_process_as_it_was() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    model = Toy(0)
    outcome = train(model, finetuning(40, epochs=40))
    assert outcome.final_loss < 0.2 and torch.equal(torch.rand(2), expected)
    assert torch.get_num_threads() == 1


def test_bf16_trains() -> None:
    settings = TrainSettings(learning_rate=0.05, precision="bf16")
    outcome = train(Toy(0), finetuning(40, epochs=20), settings=settings)
    assert outcome.final_loss < 0.4


def test_memory_is_flat_over_epochs() -> None:
    """Live tensors and their bytes after 3 and after 30 epochs."""

    def alive() -> tuple[int, int]:
        gc.collect()
        tensors = [each for each in gc.get_objects() if type(each) in (torch.Tensor, nn.Parameter)]
        return len(tensors), sum(each.numel() for each in tensors)

    seen: dict[int, tuple[int, int]] = {}

    class Counting(Watching):
        def report(self, progress, metrics):  # type: ignore[no-untyped-def]
            if progress.step in (12, 120):
                seen[progress.step] = alive()
            return Signal.GO

    train(Toy(), finetuning(epochs=30), Counting(), assess=scores([1.0] * 30), report_seconds=1000)
    assert seen[12] == seen[120]


def test_a_schedule_of_another_length_is_a_bug() -> None:
    settings = Optimisation.of_training(TrainSettings(), 5)
    with pytest.raises(ValueError, match="5 of the schedule"):
        run(Toy(), objective, finetuning(), settings, seed=1, layout=Layout(), reporter=Watching())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_it_trains_on_a_gpu(tmp_path: Path) -> None:
    batches = finetuning(40, epochs=20, effective=8, micro=4)
    settings = Optimisation.of_training(TrainSettings(learning_rate=0.05, precision="bf16"), batches.steps)
    outcome = run(
        Toy(0), objective, batches, settings, seed=1, layout=Layout(device="cuda"), reporter=Watching(),
        checkpoints=checkpoints(tmp_path),
    )  # fmt: skip
    assert outcome.final_loss < 0.4


def test_keep_last_is_judged_by_the_weights_that_are_kept() -> None:
    """A run that was good once and then fell to one class has collapsed, if its last weights are kept."""
    last = train(Toy(), finetuning(epochs=2), assess=scores([75, 33], 33.0), selection=Selection(keep="last"))
    best = train(Toy(), finetuning(epochs=2), assess=scores([75, 33], 33.0))
    assert (last.kept, last.best, last.flags) == (33.0, 75.0, ("collapsed",))
    assert (best.kept, best.flags) == (75.0, ())


def weighed(model: nn.Module) -> Callable[[], dict[str, float]]:
    """An `assess` that looks at the weights, and draws from the global generator."""

    def assess() -> dict[str, float]:
        torch.rand(3)
        return {"accuracy": float(model.out.weight.sum()), "majority": 0.0}  # type: ignore[union-attr,arg-type,operator]

    return assess


def test_rungs_are_told_and_nothing_else_changes() -> None:
    """12 steps, evaluated after 5, 10 and 12, rungs after 3, 6, 10 and 11: bits and history as without."""
    told: list[Rung] = []
    plain, climbed = Toy(), Toy()
    selection = Selection(every=5, patience=9)
    expected = train(plain, finetuning(epochs=3), assess=weighed(plain), selection=selection)
    rungs = (0.9, 0.25, 0.5, 0.8)
    got = train(
        climbed, finetuning(epochs=3), assess=weighed(climbed), selection=selection, rungs=rungs,
        on_rung=told.append,
    )  # fmt: skip
    assert same(bits(plain), bits(climbed))
    assert [(each.fraction, each.step, each.metric) for each in told] == [
        (0.25, 3, "accuracy"), (0.5, 6, "accuracy"), (0.8, 10, "accuracy"), (0.9, 11, "accuracy"),
    ]  # fmt: skip
    by_step = {row["step"]: row for row in got.history}
    assert told[2].value == by_step[10]["accuracy"] and "accuracy" not in by_step[6]
    without = [{name: value for name, value in row.items() if name != "seconds"} for row in expected.history]
    assert [{n: v for n, v in row.items() if n != "seconds"} for row in got.history] == without
    chosen = (expected.best, expected.best_step, expected.kept, expected.metric, expected.flags)
    assert (got.best, got.best_step, got.kept, got.metric, got.flags) == chosen


def test_a_resumed_run_tells_its_rungs_again_and_evaluates_them_once(tmp_path: Path) -> None:
    first: list[Rung] = []
    second: list[Rung] = []
    model = Toy()
    with pytest.raises(Interrupted):
        train(
            model, finetuning(), Watching({5: Signal.STOP}), saved=checkpoints(tmp_path),
            assess=weighed(model), rungs=(0.25, 0.5), on_rung=first.append,
        )  # fmt: skip
    assert [each.step for each in first] == [2, 4]
    resumed, calls = Toy(), list[int]()

    def counted() -> dict[str, float]:
        calls.append(1)
        return weighed(resumed)()

    train(
        resumed, finetuning(), saved=checkpoints(tmp_path, "a2"), assess=counted,
        rungs=(0.25, 0.5, 0.75), on_rung=second.append,
    )  # fmt: skip
    assert second[:2] == first and [each.step for each in second] == [2, 4, 6]
    assert len(calls) == 2  # after 6 steps for the rung, and after 8


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    """What is written is what was there at the time, however long it takes."""
    saved, gate = checkpoints(tmp_path), threading.Event()
    upload = saved.store.upload

    def slow(source: Path, name: str) -> None:
        assert gate.wait(20)
        upload(source, name)

    saved.store.upload = slow  # type: ignore[method-assign]

    class Opening(Watching):
        def report(self, progress, metrics):  # type: ignore[no-untyped-def]
            if progress.step == 7:
                gate.set()
            return super().report(progress, metrics)

    whole = Toy()
    train(whole, finetuning(), Opening({2: Signal.CHECKPOINT}), saved=saved)
    resumed = Toy()
    outcome = train(resumed, finetuning(), saved=checkpoints(tmp_path, "a2"))
    assert outcome.resumed_at == 2 and same(bits(resumed), bits(whole))


def test_a_checkpoint_that_cannot_be_written_ends_training_at_the_next_report(tmp_path: Path) -> None:
    saved = checkpoints(tmp_path)
    failed = threading.Event()

    def full(source: Path, name: str) -> None:
        failed.set()
        raise StoreError("the store is full", "make room")

    saved.store.upload = full  # type: ignore[method-assign]

    class Waiting(Watching):
        def report(self, progress, metrics):  # type: ignore[no-untyped-def]
            if progress.step == 3:
                assert failed.wait(20)
                time.sleep(0.05)
            return super().report(progress, metrics)

    reporter = Waiting({2: Signal.CHECKPOINT})
    with pytest.raises(StoreError, match="make room"):
        train(Toy(), finetuning(), reporter, saved=saved)
    assert reporter.seen[-1][0].step in (2, 3)
    # The last one is not needed any more: that it failed is a note.
    notes: list[str] = []
    train(Toy(), finetuning(), Watching({8: Signal.CHECKPOINT}), saved=saved, note=notes.append)
    assert len(notes) == 1 and "could not be written" in notes[0]


def test_steps_of_warm_up_go_before_a_share() -> None:
    words = TrainSettings(learning_rate=1, warmup=0.5, warmup_steps=3)
    settings = Optimisation.of_training(words, 7)
    assert [settings.rate(step) for step in range(4)] == pytest.approx([1 / 3, 2 / 3, 1, 1])
    none = Optimisation.of_training(words.model_copy(update={"warmup_steps": 0}), 7)
    assert none.rate(0) == 1
