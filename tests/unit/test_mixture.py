"""A mixture: shares, order, exact resuming, one model of many heads, masked LM beside labelled tasks."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_encoder import Model, tokenizer
from torch import nn
from training_kit import Watching, bits, checkpoints, same

from xstilts.errors import DataError, ModelError
from xstilts.families import classification, masked_lm, multiple_choice
from xstilts.families.base import Batch, Feature
from xstilts.families.batching import outputs_of
from xstilts.families.encoder import TaskModel
from xstilts.families.heads import LinearHead, SentenceHead
from xstilts.spec.experiment import Selection, TrainSettings
from xstilts.train import mixture
from xstilts.train.batches import IDLE, Deal, FineTuning
from xstilts.train.loop import MAJORITY, Layout, Optimisation, Outcome, Signal, run
from xstilts.train.mixture import Component, Ingredient, Mixture, MixtureModel, MlmComponent

TEXTS = {
    "en": ["the cat sat on the mat .", "who is in Paris ?", "a cat", "London is a mat"] * 5,
    "zh": ["東京是中国", "", " "],
}


class Killed(Exception):
    """As if the process had died there."""


def features(count: int, choices: int = 1, labels: int = 2) -> list[Feature]:
    """Sequences of 3 to 12 sub-words."""
    return [
        Feature(
            number,
            tuple((0, *(5 + (number * 7 + at + 3 * one) % 40 for at in range(1 + number * 5 % 10)), 2)
                  for one in range(choices)),
            number % labels,
        )
        for number in range(count)
    ]  # fmt: skip


def classified(count: int = 24, name: str = "nli", batch: int = 4, size: int | None = None) -> Component:
    code = classification.CODE
    own = features(count)
    return Component(name, code, own, batch, lambda chosen: code.collate(chosen, 1), size or count)


def chosen_among(count: int = 12, name: str = "a.choice", batch: int = 2) -> Component:
    code = multiple_choice.CODE
    own = features(count, choices=3)
    return Component(name, code, own, batch, lambda chosen: code.collate(chosen, 1), count)


def masked(batch: int = 4, **changes: Any) -> MlmComponent:
    return MlmComponent(TEXTS, tokenizer(), effective_batch=batch, max_length=10, **changes)


def model_of(*names: str) -> MixtureModel:
    """Encoder of width 16 with dropout; heads made in the order of the names."""
    encoder: Any = Model(None).encoder
    torch.manual_seed(2)
    kinds: dict[str, Callable[[], nn.Module]] = {
        "nli": lambda: SentenceHead(16, 2, 0.1),
        "a.choice": lambda: LinearHead(16, 1, 0.1),
        "mlm": lambda: mixture.mlm_head(encoder, 3),
    }
    return MixtureModel(encoder, {name: kinds[name]() for name in names})


def train(
    model: nn.Module,
    batches: Any,
    objective: Any,
    reporter: Watching | None = None,
    root: Path | None = None,
    attempt: str = "a",
    assess: Callable[[], dict[str, float]] | None = None,
) -> Outcome:
    return run(
        model,
        objective,
        batches,
        Optimisation.of_training(TrainSettings(learning_rate=1e-3), batches.steps),
        seed=1,
        layout=Layout(),
        assess=assess,
        selection=Selection(every=3),
        checkpoints=None if root is None else checkpoints(root, attempt),
        reporter=reporter or Watching(),
        note=lambda _: None,
        report_seconds=0,
    )


def three(epochs: float = 1, per_device_batch: int = 8) -> Mixture:
    return Mixture([masked(), classified(), chosen_among()], epochs, per_device_batch, seed=7)


def numbered(component: str, sizes: dict[str, int], epochs: float = 30) -> list[list[int]]:
    """The features of every draw of one component, in the order of draws."""

    def one(name: str, count: int) -> Component:
        collate = lambda chosen: {"number": torch.tensor([each.example for each in chosen])}  # noqa: E731
        return Component(name, classification.CODE, features(count), 4, collate, count)

    made = Mixture([one(name, count) for name, count in sizes.items()], epochs, 4, seed=5)
    steps = [step for step in range(made.steps) if made.draw(step)[0] == component]
    return [made.micro(step)[0]["number"].tolist() for step in steps]


def test_shares_are_capped_and_seen_over_20_000_steps() -> None:
    sizes = {"anli_plus": 1_104_934, "mlm": 2_000_000, "csqa": 9_741, "ccg": 38_015}
    expected = mixture.shares(sizes)
    total = 2 * 131_072 + 9_741 + 38_015
    assert expected == {
        "anli_plus": 131_072 / total,
        "mlm": 131_072 / total,
        "csqa": 9_741 / total,
        "ccg": 38_015 / total,
    }
    parts = [classified(8, name, 4, size) for name, size in sizes.items()]
    made = Mixture(parts, 1, 4, seed=3)
    count = 20_000
    seen = Counter(made.draw(step)[0] for step in range(count))
    for name, share in expected.items():
        # Four standard errors: a right sampler fails once in 4,000 of these tests.
        assert abs(seen[name] / count - share) < 4 * math.sqrt(share * (1 - share) / count), name


def test_the_draws_are_a_function_of_the_seed_and_the_step() -> None:
    def sequence(epochs: float, seed: int, turned: bool = False) -> list[tuple[str, int]]:
        parts: list[Ingredient] = [classified(), chosen_among(), masked()]
        made = Mixture(parts[::-1] if turned else parts, epochs, 4, seed)
        return [made.draw(step) for step in range(made.steps)]

    short, long = sequence(2, 1), sequence(6, 1)
    assert short == long[: len(short)] == sequence(2, 1, turned=True)
    assert short != sequence(2, 2)
    for name in ("nli", "a.choice", "mlm"):
        assert [turn for own, turn in long if own == name] == list(range(sum(n == name for n, _ in long)))


def test_an_epoch_has_the_documented_number_of_steps() -> None:
    parts = [classified(25, "nli", 4), chosen_among(13, batch=2), masked(batch=8)]
    assert masked().size == 21  # "" and " " are no sentences
    made = Mixture(parts, 1.5, 4, seed=1)
    assert made.steps_per_epoch == 7 + 7 + 3
    assert made.steps == 26
    capped = Mixture(parts, 2, 4, seed=1, cap=9)
    assert capped.steps_per_epoch == 3 + 5 + 2
    assert capped.shares == pytest.approx({"a.choice": 1 / 3, "mlm": 1 / 3, "nli": 1 / 3})


def test_the_order_of_a_task_does_not_hang_on_what_it_is_mixed_with() -> None:
    one = numbered("a", {"a": 22, "b": 400})
    other = numbered("a", {"a": 22, "c": 30, "d": 30})
    alone = numbered("a", {"a": 22})
    shared = min(map(len, (one, other, alone)))
    assert shared > 30 and one[:shared] == other[:shared] == alone[:shared]
    # Six batches are an epoch: past it comes the next one, in another order.
    assert sorted(sum(one[:6], [])) == sorted(sum(one[6:12], [])) == list(range(22))
    assert one[:6] != one[6:12]


def test_micro_batches_of_a_step_are_of_one_task_and_say_which() -> None:
    made = three(epochs=2, per_device_batch=1)
    for step in range(made.steps):
        parts = made.micro(step)
        name, _ = made.draw(step)
        assert len(parts) == made.components[name].effective_batch
        assert all(
            [key for key in part if key.startswith(mixture.MARK)] == [f"task:{name}"] for part in parts
        )


def test_batches_with_negatives_inside_are_never_split() -> None:
    class InBatch:
        whole_batches = True

    whole: Any = InBatch()
    assert mixture.whole(whole) and not mixture.whole(classification.CODE)
    part = Component(
        "dual", whole, features(10), 6, lambda chosen: classification.CODE.collate(chosen, 1), 10
    )
    own = part.batches(1, 2)
    assert [len(each["input_ids"]) for each in own.micro(0)] == [6]
    (first,), (second,) = (own.micro(0, Deal(rank, 2)) for rank in range(2))
    assert len(first["input_ids"]) == 6 and IDLE not in first and IDLE in second


def test_the_loss_is_that_of_the_family_and_reaches_its_own_head_only() -> None:
    model, made = model_of("nli", "a.choice", "mlm"), three()
    model.eval()
    for name, component in made.components.items():
        step = next(step for step in range(made.steps) if made.draw(step)[0] == name)
        (batch,) = made.micro(step)
        loss, count = made.loss(model, batch)
        plain = {key: value for key, value in batch.items() if not key.startswith("task:")}
        expected, things = component.code.loss(model.view(name), plain)
        assert torch.equal(loss, expected) and torch.equal(count, things)
        model.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        touched = {key for key, each in model.named_parameters() if each.grad is not None}
        own = {key for key in touched if key.startswith("heads.")}
        assert own == {
            key for key, each in model.named_parameters()
            if any(each is one for one in model.view(name).head.parameters())  # type: ignore[union-attr]
        }  # fmt: skip
        assert any(key.startswith("encoder.") for key in touched)


def test_views_share_weights_mode_and_names_of_any_kind() -> None:
    encoder = Model(None).encoder
    names = ["a.choice", "train", "a%2Echoice", "plain"]
    model = MixtureModel(encoder, {name: LinearHead(16, 1, 0.1) for name in names} | {"found": None})
    assert len(model.heads) == 4 and model.view("found").head is None
    assert all(key.startswith(("encoder.", "heads.task-")) for key in model.state_dict())
    assert [name for name, _ in model.named_parameters()] == list(model.state_dict())
    view = model.view("train")
    assert view.encoder is model.encoder and view.width == 16
    assert not model.eval().view("train").training and model.train().view("train").training
    other = copy.deepcopy(model)
    assert other.view("train").encoder is other.encoder is not encoder


def test_predicting_with_a_view_leaves_the_mixture_as_it_was() -> None:
    model = model_of("nli")
    model.eval()
    for training in (False, True):
        model.train(training)
        outputs_of(model.view("nli"), classification.CODE, features(3), 1, 2, "cpu", "fp32")
        assert {part.training for part in model.modules()} == {training}


def test_a_mixture_of_one_task_is_that_task_bit_for_bit() -> None:
    mixed, plain = model_of("nli"), model_of("nli")
    own = plain.view("nli")
    part = classified(22)
    first = train(mixed, Mixture([part], 3, 3, seed=7), Mixture([part], 3, 3, seed=7).loss)
    alone = FineTuning(part.features, 3, 4, 3, 7, part.collate)
    second = train(TaskModel(own.encoder, own.head), alone, classification.CODE.loss)
    assert first.steps == second.steps == 18 and first.final_loss == second.final_loss
    assert same(bits(mixed.view("nli")), bits(own))


@pytest.mark.parametrize("saved_at", [1, 4, 9])
def test_killed_and_resumed_ends_bit_equal(tmp_path: Path, saved_at: int) -> None:
    """Dropout on, micro-batches, evaluation every third step, the best weights kept."""

    def attempt(model: MixtureModel, root: Path, name: str, then: dict[int, Any] | None = None) -> Outcome:
        made = three(per_device_batch=2)
        metric = lambda: {"mean": -float(model.encoder.embeddings.LayerNorm.weight.sum())}  # type: ignore[union-attr,operator]  # noqa: E731
        return train(model, made, made.loss, Watching(then), root, name, metric)

    whole, broken, resumed = (model_of("nli", "a.choice", "mlm") for _ in range(3))
    expected = attempt(whole, tmp_path / "whole", "a")
    assert expected.steps == 18
    with pytest.raises(Killed):
        attempt(broken, tmp_path / "two", "a", {saved_at: Signal.CHECKPOINT, saved_at + 3: Killed()})
    torch.rand(5)
    outcome = attempt(resumed, tmp_path / "two", "b")
    assert outcome.resumed_at == saved_at
    assert same(bits(whole), bits(resumed))
    assert not same(bits(whole), bits(model_of("nli", "a.choice", "mlm")))
    assert (outcome.best, outcome.best_step, outcome.final_loss) == (
        expected.best,
        expected.best_step,
        expected.final_loss,
    )


def test_a_head_that_is_never_drawn_stays_and_resumes(tmp_path: Path) -> None:
    """AdamW has no moments for it, and weight decay does not shrink it."""
    parts = [classified(24, size=131_072), chosen_among(1)]
    made = Mixture(parts, 1e-4, 4, seed=1)
    assert {made.draw(step)[0] for step in range(made.steps)} == {"nli"}
    model, again = model_of("nli", "a.choice"), model_of("nli", "a.choice")
    before = bits(model.view("a.choice").head)  # type: ignore[arg-type]
    train(model, made, made.loss, Watching({2: Signal.CHECKPOINT}), tmp_path, "a")
    assert same(before, bits(model.view("a.choice").head))  # type: ignore[arg-type]
    assert train(again, made, made.loss, None, tmp_path, "b").resumed_at == 2
    assert same(bits(model), bits(again))


def test_masked_sentences_are_new_each_draw_and_the_same_again() -> None:
    part = masked()
    one, other = part.batches(3, 8), part.batches(3, 8)
    forward = [one.micro(step)[0] for step in range(40)]
    backward = [other.micro(step)[0] for step in reversed(range(40))][::-1]
    assert all(same(left, right) for left, right in zip(forward, backward, strict=True))
    targets = {batch["target"].numpy().tobytes() for batch in forward}
    assert len(targets) > 35
    assert not same(forward[0], part.batches(4, 8).micro(0)[0])


def test_masking_hides_fifteen_percent_and_restores_to_the_sentences() -> None:
    part = masked(batch=8, share=0.15)
    source = part.batches(3, 8)
    hidden = free = 0
    for step in range(300):
        (batch,) = source.micro(step)
        rows = source.rows(step)
        chosen = batch["target"] != masked_lm.IGNORED
        ids = torch.where(chosen, batch["target"], batch["input_ids"])
        assert [row[: len(own)] for row, own in zip(ids.tolist(), rows, strict=True)] == rows
        assert all(row[0] == 0 and row[-1] == 2 and len(row) <= 10 for row in rows)
        assert not torch.isin(batch["target"][chosen], torch.tensor([0, 1, 2, 3, 4])).any()
        hidden += int(chosen.sum())
        free += sum(len(row) - 2 for row in rows)
    assert hidden / free == pytest.approx(0.15, abs=0.015)


@pytest.mark.parametrize("exponent", [0.0, 0.3, 1.0])
def test_languages_are_drawn_by_the_exponent(exponent: float) -> None:
    part = masked(batch=8, exponent=exponent)
    counts = np.array([20, 1]) ** exponent
    assert part.probabilities == pytest.approx(counts / counts.sum())
    source = part.batches(1, 8)
    zh = [int(ids) for ids in tokenizer()("東京是中国").input_ids][:10]
    found = sum(row == zh for step in range(500) for row in source.rows(step)) / 4000
    assert found == pytest.approx(counts[1] / counts.sum(), abs=0.03)


def test_the_split_over_micro_batches_does_not_change_what_is_masked() -> None:
    part = masked(batch=7)
    (whole,) = part.batches(3, 7).micro(5)
    pieces = part.batches(3, 2).micro(5)
    assert [len(piece["target"]) for piece in pieces] == [2, 2, 2, 1]
    for name in ("input_ids", "target"):
        rows = [row for piece in pieces for row in piece[name]]
        assert all(torch.equal(row, own[: len(row)]) for row, own in zip(rows, whole[name], strict=True))
    assert all(piece["attention_mask"].sum(1).max() == piece["input_ids"].shape[1] for piece in pieces)


def test_a_batch_in_which_nothing_is_masked_has_no_gradient() -> None:
    model, part = model_of("mlm"), masked(share=0.0)
    loss, count = part.code.loss(model.view("mlm"), part.batches(1, 8).micro(0)[0])
    (loss / count.clamp_min(1)).backward()  # type: ignore[no-untyped-call]
    grads = [each.grad for each in model.parameters() if each.grad is not None]
    assert grads and all((grad == 0).all() for grad in grads) and float(count) == 0


def test_masked_lm_is_learned() -> None:
    parts = [masked(batch=8)]
    made = Mixture(parts, 60, 8, seed=2)
    model = model_of("mlm")
    reporter = Watching()
    outcome = train(model, made, made.loss, reporter)
    assert outcome.final_loss < 0.8 * reporter.seen[0][1]["loss"]


def test_a_fresh_head_for_masked_lm_is_the_same_for_a_seed() -> None:
    encoder = Model(None).encoder
    state = torch.get_rng_state()
    one, two, other = (mixture.mlm_head(encoder, seed) for seed in (1, 1, 2))
    assert same(bits(one), bits(two)) and not same(bits(one), bits(other))
    assert one.bias is not None and one.bias.shape == (len(tokenizer()),)
    assert torch.equal(state, torch.get_rng_state())


def test_text_that_says_nothing_and_a_tokenizer_without_mask_are_refused() -> None:
    with pytest.raises(DataError, match="no text"):
        MlmComponent({"en": ["", " "]}, tokenizer(), effective_batch=2, max_length=8)
    blind = copy.deepcopy(tokenizer())
    blind.mask_token = None
    with pytest.raises(ModelError, match="no mask"):
        MlmComponent(TEXTS, blind, effective_batch=2, max_length=8)


def test_one_task_twice_or_none_is_no_mixture() -> None:
    for parts in ([], [classified(), classified()]):
        with pytest.raises(ValueError, match="name of its own"):
            Mixture(parts, 1, 4, seed=1)


def test_assessment_is_the_mean_of_the_headlines() -> None:
    nli = lambda: {"accuracy": 80.0, "other": 1.0, MAJORITY: 40.0}  # noqa: E731
    found = mixture.mean_assessment({"nli": nli, "qa": lambda: {"f1": 50.0, "em": 30.0}})()
    assert list(found.items()) == [
        ("mean", 65.0), ("nli/accuracy", 80.0), ("nli/other", 1.0), ("qa/f1", 50.0), ("qa/em", 30.0),
    ]  # fmt: skip
    both = mixture.mean_assessment({"nli": nli, "qqp": lambda: {"accuracy": 70.0, MAJORITY: 60.0}})()
    assert both["mean"] == 75.0 and both[MAJORITY] == 50.0
    with pytest.raises(ValueError, match="cannot be assessed"):
        mixture.mean_assessment({})


@pytest.mark.gpu
def test_a_mixture_trains_on_a_gpu_and_knows_each_batch() -> None:
    made = three(epochs=1, per_device_batch=2)
    model = model_of("nli", "a.choice", "mlm")

    def objective(own: nn.Module, batch: Batch) -> Any:
        return made.loss(own, batch)

    settings = Optimisation.of_training(TrainSettings(learning_rate=1e-3), made.steps)
    outcome = run(model, objective, made, settings, seed=1, layout=Layout(device="cuda"), reporter=Watching())
    assert outcome.steps == 18 and math.isfinite(outcome.final_loss)
