"""The blocked search finds what a full sort finds, whatever the blocks, and holds no more than a block."""

from __future__ import annotations

import resource

import numpy as np
import pytest
import torch
from torch.nn import functional

from xstilts.families import nearest
from xstilts.families.nearest import Nearest


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    return functional.normalize(
        torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)), dim=1
    )


def searched(
    queries: torch.Tensor, documents: torch.Tensor, k: int, block: int, backwards: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    search = Nearest(queries, k)
    begins = range(0, len(documents), block)
    for begin in reversed(begins) if backwards else begins:
        search.add(documents[begin : begin + block], begin)
    return search.result()


def sorted_fully(queries: torch.Tensor, documents: torch.Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    products = np.round((queries.double() @ documents.double().T).numpy(), 7)
    rows = np.argsort(-products, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(products, rows, 1)


@pytest.mark.parametrize("block", [1, 7, 100, 1000])
@pytest.mark.parametrize("backwards", [False, True])
def test_the_result_is_that_of_a_full_sort_whatever_the_blocks(
    block: int, backwards: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "BLOCK", 64)
    monkeypatch.setattr(nearest, "CELLS", 64 * 9)
    monkeypatch.setattr(nearest, "PAIRS", 24 * 5)
    queries, documents = unit(30, 24, 0), unit(301, 24, 1)
    documents[200] = documents[17]
    documents[100:110] = documents[17]
    queries[3] = documents[17]
    rows, values = searched(queries, documents, 20, block, backwards)
    wanted = sorted_fully(queries, documents, 20)
    assert rows.tolist() == wanted[0].tolist()
    np.testing.assert_allclose(values, wanted[1], rtol=0, atol=1e-12)
    assert rows[3, :12].tolist() == [17, *range(100, 110), 200]


@pytest.mark.parametrize("block", [3, 50])
def test_an_encoder_that_collapsed_gives_the_lowest_rows(block: int) -> None:
    documents = unit(1, 16, 3).repeat(50, 1)
    rows, values = searched(unit(4, 16, 4), documents, 5, block)
    assert rows.tolist() == [[0, 1, 2, 3, 4]] * 4
    assert all(len(set(line)) == 1 for line in values.tolist())


def test_few_pairs_are_computed_again_and_none_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies that differ by less than float32 can say; each list is cut in the middle of them."""
    documents = unit(8192, 24, 5).double()
    for begin in (0, 4096):
        first, second = documents[begin : begin + 2048], documents[begin + 2048 : begin + 4096]
        second[:] = functional.normalize(first + 1e-8, dim=1)
    queries = unit(60, 24, 6)
    again: list[int] = []
    real = nearest._again

    def counted(*given: torch.Tensor) -> torch.Tensor:
        again.append(len(given[-1]))
        return real(*given)

    monkeypatch.setattr(nearest, "_again", counted)
    rows, values = searched(queries, documents, 3, 8192)
    wanted = sorted_fully(queries, documents, 3)
    assert rows.tolist() == wanted[0].tolist() and 0 < sum(again) < 60 * 1000
    np.testing.assert_allclose(values, wanted[1], rtol=0, atol=1e-12)


def test_single_precision_decides_nothing() -> None:
    """Products that differ by less than float32 tells apart, and more than the rounding, are told apart."""
    queries = torch.ones(1, 1, dtype=torch.float64)
    documents = torch.tensor([[0.9], [0.9 + 3e-7], [0.9 - 3e-7], [0.9 + 2e-9]], dtype=torch.float64)
    rows, values = searched(queries, documents, 4, 2)
    assert rows.tolist() == [[1, 0, 3, 2]]
    assert values[0].tolist() == pytest.approx([0.9000003, 0.9, 0.9, 0.8999997], abs=1e-12)


def test_fewer_candidates_than_asked_for_and_none() -> None:
    rows, values = searched(unit(3, 8, 0), unit(2, 8, 1), 5, 2)
    assert rows.shape == values.shape == (3, 2) and sorted(rows[0].tolist()) == [0, 1]
    assert Nearest(unit(3, 8, 0), 5).result()[0].shape == (3, 0)
    assert Nearest(unit(0, 8, 0), 5).result()[0].shape == (0, 0)


def test_what_is_no_number_comes_last() -> None:
    documents = unit(6, 8, 0)
    documents[2] = torch.nan
    queries = unit(2, 8, 1)
    queries[1] = torch.nan
    rows, values = searched(queries, documents, 6, 4)
    assert rows[0, -1] == 2 and values[0, -1] == nearest.FARTHEST
    assert rows[1].tolist() == [0, 1, 2, 3, 4, 5]
    assert searched(queries, documents, 3, 4)[0][0].tolist() == rows[0, :3].tolist()
    many = unit(40, 8, 2)
    many[7] = torch.nan
    assert searched(many, unit(2570, 8, 3), 3, 2570)[0][7].tolist() == [0, 1, 2]


def test_memory_stays_that_of_a_block() -> None:
    """A quarter of a million candidates of 64 numbers would be 64 MB, and their products 512 MB."""
    search = Nearest(unit(256, 64, 0), 20)
    block = unit(nearest.BLOCK, 64, 1)
    search.add(block, 0)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(1, 16):
        search.add(block, number * nearest.BLOCK)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KB
    first, second = search.result()[0][:, 0], search.result()[0][:, 1]
    assert (first < nearest.BLOCK).all() and (second == first + nearest.BLOCK).all()


@pytest.mark.gpu
def test_a_gpu_finds_the_same() -> None:
    queries, documents = unit(50, 256, 0), unit(5000, 256, 1)
    documents[4000:4100] = documents[:100]
    found = Nearest(queries, 20, "cuda")
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        for begin in range(0, 5000, 999):
            found.add(documents[begin : begin + 999], begin)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    for one, other in zip(found.result(), searched(queries, documents, 20, 5000), strict=True):
        np.testing.assert_array_equal(one, other)
