"""Exact search for the nearest vectors, block by block: a million candidates need the memory of one block.

Products of single precision only say which pairs may matter; those are computed again in double precision and
rounded, so that a result depends on the vectors alone: not on block size, order of blocks or device.
`bench/search.py` measures it beside faiss.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Array = np.ndarray[Any, Any]

BLOCK = 4096
"""Candidates compared at a time, whatever number `add` is given."""
CELLS = 2**22
"""Products held at a time: 16 MB in single precision; for more queries the block is gone through again."""
CHUNK = 64
"""Products of which only the greatest is looked at first: one cheap pass instead of four dear ones."""
PAIRS = 2**21
"""Numbers gathered at a time to compute chosen pairs again: 16 MB a side in double precision."""
MANY = 8
"""Where more than one of so many chunks may matter (an encoder that collapsed to one vector), all products
are computed again, which then is the faster way."""
DIGITS = 7
"""Products are rounded to float32's own resolution: a matrix product gives equal columns sums that differ in
the last bit, which would break ties by chance."""
FARTHEST = -100.0
"""The value of a product that is no number."""

_ROWS = 2**31
_EMPTY = -(2**62)


class Nearest:
    """The k nearest candidates of each query by inner product; of equals the lowest row.

    Both sides have at most unit length. A candidate is known by its row, below 2^31. A vector that is not a
    number is farther than any other.
    """

    def __init__(self, queries: Tensor | Array, k: int, device: torch.device | str = "cpu") -> None:
        """`queries` (queries, width), float32 or float64; the search runs on `device`."""
        self._queries = torch.as_tensor(queries).to(device)
        self._seen = 0
        # Value and row in one number: unique, so that the k greatest are the same in any order of adding.
        self._keys = torch.full((len(self._queries), k), _EMPTY, dtype=torch.int64, device=device)
        # Single precision is off by width * 2^-24 at most for unit vectors, TF32 on a GPU by 2^-10.
        error = (self._queries.shape[1] + 4) * 2.0**-24 + (2.0**-10 if self._queries.is_cuda else 0.0)
        self._slack = 2 * error + 10.0**-DIGITS

    @torch.no_grad()
    def add(self, block: Tensor | Array, first_row: int) -> None:
        """Compares every query with `block` (candidates, width), whose first candidate is row `first_row`."""
        whole = torch.as_tensor(block)
        self._seen += len(whole)
        for begin in range(0, len(whole), BLOCK):
            part = whole[begin : begin + BLOCK].to(self._queries.device)
            rows = torch.arange(len(part), device=part.device) + (first_row + begin)
            step = max(1, CELLS // len(part))
            for start in range(0, len(self._queries), step):
                self._compare(slice(start, start + step), part, rows)

    def result(self) -> tuple[Array, Array]:
        """Rows (queries, k) int64 and their products, float64, best first; fewer columns than k where fewer
        candidates were added."""
        keys = self._keys[:, : self._seen].cpu()
        values = torch.div(keys, _ROWS, rounding_mode="floor")
        rows = (_ROWS - 1) - (keys - values * _ROWS)
        return rows.numpy(), values.double().numpy() / 10**DIGITS

    def _compare(self, which: slice, block: Tensor, rows: Tensor) -> None:
        """Merges the candidates of one block into the lists of some queries."""
        queries, kept = self._queries[which], self._keys[which]
        near = queries.float() @ block.float().T
        if len(block) % CHUNK:
            near = functional.pad(near, (0, -len(block) % CHUNK), value=-torch.inf)
        chunks = near.view(len(queries), -1, CHUNK)
        tops = chunks.amax(2)
        floor = self._floor(kept, tops)
        query, chunk = (~(tops < floor[:, None])).nonzero(as_tuple=True)  # a NaN is not below it
        if len(query) * MANY > tops.numel():
            _merge_all(kept, queries, block, rows)
        elif len(query):
            place, column = (~(chunks[query, chunk] < floor[query, None])).nonzero(as_tuple=True)
            query, column = query[place], chunk[place] * CHUNK + column
            real = column < len(block)  # below a NaN, what fills the last chunk is chosen as well
            query, column = query[real], column[real]
            _merge_pairs(kept, query, _again(queries, block, rows, query, column))

    def _floor(self, kept: Tensor, tops: Tensor) -> Tensor:
        """Below it no candidate of the block can enter a list: one number a query."""
        last = kept[:, -1]
        floor = torch.div(last, _ROWS, rounding_mode="floor").float() / 10**DIGITS
        floor = torch.where(last == _EMPTY, -torch.inf, floor)
        if tops.shape[1] >= kept.shape[1] and bool((last == _EMPTY).any()):
            floor = torch.maximum(floor, tops.topk(kept.shape[1], dim=1).values[:, -1])
        return floor - self._slack


def _keys(products: Tensor, rows: Tensor) -> Tensor:
    """Rounded products and rows as integers that are greater for a greater product, then for a lower row."""
    bounded = torch.nan_to_num_(products, nan=FARTHEST).clamp_(FARTHEST, -FARTHEST)
    whole = bounded.mul_(10**DIGITS).round_().long()
    return whole.mul_(_ROWS).add_(_ROWS - 1 - rows)


def _again(queries: Tensor, block: Tensor, rows: Tensor, query: Tensor, column: Tensor) -> Tensor:
    """Keys of pairs, each given by its query and its column in the block."""
    found = torch.empty(len(query), dtype=torch.int64, device=block.device)
    step = max(1, PAIRS // block.shape[1])
    for begin in range(0, len(query), step):
        part = slice(begin, begin + step)
        products = queries[query[part]].double() * block[column[part]].double()
        found[part] = _keys(products.sum(1), rows[column[part]])
    return found


def _merge_pairs(kept: Tensor, query: Tensor, keys: Tensor) -> None:
    """Puts `keys` into the lists `kept` (queries, k) of their queries, which are in ascending order."""
    own, counts = torch.unique(query, sorted=True, return_counts=True)
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(keys), device=keys.device) - starts.repeat_interleave(counts)
    packed = torch.full((len(own), int(counts.max())), _EMPTY, device=keys.device)
    packed[torch.arange(len(own), device=keys.device).repeat_interleave(counts), place] = keys
    kept[own] = torch.cat([kept[own], packed], 1).topk(kept.shape[1], dim=1).values


def _merge_all(kept: Tensor, queries: Tensor, block: Tensor, rows: Tensor) -> None:
    """Puts every candidate of the block into the lists of all queries, in double precision throughout."""
    precise = block.double().T
    step = max(1, CELLS // 4 // len(block))
    for begin in range(0, len(queries), step):
        own = kept[begin : begin + step]
        found = _keys(queries[begin : begin + step].double() @ precise, rows)
        found = found.topk(min(own.shape[1], len(block)), dim=1).values
        own[:] = torch.cat([own, found], 1).topk(own.shape[1], dim=1).values
