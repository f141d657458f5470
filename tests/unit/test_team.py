"""Several ranks: what one process gives, up to the order of sums, and checkpoints that go between layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import ranks_kit
import torch
from training_kit import same

from xstilts.train.batches import Deal, dealt

QUICK = ("plain", "half", "mixed", "paired", "pretrained")
LARGE = ("xl", "xxl")
LAYOUTS = {
    "two ranks": (2, False, QUICK),
    "two shards": (2, True, QUICK),
    "three ranks": (3, False, (*QUICK, *LARGE)),
    "three shards": (3, True, (*QUICK, *LARGE)),
}


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every training in one process."""
    return ranks_kit.alone(tmp_path_factory.mktemp("alone"), *QUICK)


@pytest.fixture(scope="module")
def once_large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The trainings of XL and XXL in one process."""
    return ranks_kit.alone(tmp_path_factory.mktemp("alone"), *LARGE)


def agree(name: str, expected: dict[str, Any], got: dict[str, Any]) -> None:
    """Whether losses, weights, the checkpoint chosen and the rungs are those of one process."""
    tolerance = 2e-2 if name == "half" else 2e-5
    assert len(got["losses"]) == len(expected["losses"]) >= 6
    assert got["losses"] == pytest.approx(expected["losses"], rel=tolerance)
    if name == "half":
        return
    assert got["weights"].keys() == expected["weights"].keys()
    for tensor, whole in expected["weights"].items():
        torch.testing.assert_close(got["weights"][tensor], whole, atol=2e-4, rtol=1e-3)
    if name == "pretrained":
        assert got["tied"]
    elif expected["rungs"]:
        one, other = expected["outcome"], got["outcome"]
        assert other.best == pytest.approx(one.best, rel=1e-4) and other.best_step == one.best_step
        assert [each.step for each in got["rungs"]] == [each.step for each in expected["rungs"]]
        assert got["rungs"][0].value == pytest.approx(expected["rungs"][0].value, rel=1e-4)


@pytest.fixture(scope="module", params=["two ranks", "two shards"])
def twice(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A folder, what one process that was stopped there left, and what two ranks make of it and of the rest:
    all in one go, since starting them takes longer than their work."""
    size, shard, names = LAYOUTS[request.param]
    root = tmp_path_factory.mktemp("twice")
    first = ranks_kit.alone(root, "stopped")["stopped"]
    return root, first, ranks_kit.together(size, shard, root, *names, "resumed", "dropped", "stopped_there")


@pytest.mark.parametrize("name", QUICK)
def test_ranks_give_what_one_process_gives(
    name: str, once: dict[str, Any], twice: tuple[Path, Any, Any]
) -> None:
    """20 steps with unequal micro-batches, steps of a single example, heads that a step does not use, weights
    that are tied, a scalar among them, and evaluations in between."""
    agree(name, once[name], twice[2][name])


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["three ranks", "three shards"])
def test_the_layouts_of_xl_and_xxl_too(
    layout: str, once: dict[str, Any], once_large: dict[str, Any], tmp_path: Path
) -> None:
    """36 and 48 layers with norms first, and three ranks, which divide neither widths nor steps evenly."""
    size, shard, names = LAYOUTS[layout]
    got = ranks_kit.together(size, shard, tmp_path, *names)
    for name in names:
        agree(name, (once | once_large)[name], got[name])


def test_a_checkpoint_goes_from_layout_to_layout(once: dict[str, Any], twice: tuple[Path, Any, Any]) -> None:
    """Stopped after 9 of 20 steps, the best weights so far among what is kept."""
    root, first, got = twice
    assert first["stopped"] and first["steps"][-1] == 9
    agree_after("resumed by two", once["plain"], got["resumed"])
    assert got["stopped_there"]["stopped"]
    agree_after("resumed by one", once["plain"], ranks_kit.alone(root / "there", "resumed")["resumed"])


def test_the_same_layout_resumes_with_the_same_bits(twice: tuple[Path, Any, Any]) -> None:
    """Dropout on, a stream for every rank."""
    whole, parts = twice[2]["dropped"]["whole"], twice[2]["dropped"]["parts"]
    assert parts["steps"][0] == 10 and same(parts["weights"], whole["weights"])


def agree_after(what: str, whole: dict[str, Any], rest: dict[str, Any]) -> None:
    """Whether a training went on from step 9 as if it had never stopped."""
    assert rest["steps"] == list(range(10, 21)), what
    assert rest["losses"] == pytest.approx(whole["losses"][9:], rel=2e-5), what
    assert rest["outcome"].best_step == whole["outcome"].best_step, what
    # Told again, since the search that listens now may not have heard it.
    assert [each.step for each in rest["rungs"]] == [5], what
    for name, expected in whole["weights"].items():
        torch.testing.assert_close(rest["weights"][name], expected, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [1, 4, 64])
@pytest.mark.parametrize("count", [1, 3, 7, 32])
def test_every_example_is_dealt_once_and_every_rank_computes_equally_often(
    count: int, size: int, ranks: int
) -> None:
    parts = [dealt(count, size, Deal(rank, ranks)) for rank in range(ranks)]
    busy = [list(range(count)[part]) for own in parts for part, idle in own if not idle]
    assert sorted(number for own in busy for number in own) == list(range(count))
    assert max(map(len, busy)) <= size and len({len(own) for own in parts}) == 1
    assert all(range(count)[part] for own in parts for part, _ in own)
