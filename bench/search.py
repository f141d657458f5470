"""Exact search over a million candidates: `families.nearest` beside faiss, in seconds and peak memory.

Made-up unit vectors, 1,000,000 candidates of 256 numbers and 1,000 queries, twenty neighbours each. They come
block by block, as an encoder makes them; making them is not counted. Each way has a process of its own, so
that its peak memory is its own. faiss is no dependency: without it its lines are left out. On one core of an
AMD EPYC, in seconds and MB: ours 6.0 and 358, doubles 16.1 and 441, faiss_whole 8.6 and 1361, faiss_blocks
5.8 and 434: faiss wins nothing worth a dependency, and its ties and last digits vary with the block.
    python bench/search.py
    python bench/search.py --candidates 200000 --threads 2
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

RANKS = 20
BLOCK = 16_384

Block = tuple[int, Any]
"""First row, and vectors (rows, width) float32."""


def vectors(rows: int, width: int, seed: int, collapsed: bool = False) -> Any:
    """Unit vectors; `collapsed`: all the same, as from an encoder whose training failed."""
    import torch

    draw = torch.randn(1 if collapsed else rows, width, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(draw, dim=1).repeat(rows if collapsed else 1, 1)


def ours(queries: Any, blocks: Iterator[Block]) -> tuple[Any, float]:
    """`families.nearest`."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))
    from xstilts.families.nearest import Nearest

    search = Nearest(queries, RANKS)
    return _fed(blocks, lambda row, block: search.add(block, row), lambda: search.result()[0])


def doubles(queries: Any, blocks: Iterator[Block]) -> tuple[Any, float]:
    """Plain matrix products in double precision and torch.topk: what is exact without further thought."""
    import torch

    precise = queries.double()
    best = [torch.full((len(queries), RANKS), -torch.inf, dtype=torch.float64)]
    rows = [torch.zeros((len(queries), RANKS), dtype=torch.int64)]

    def add(row: int, block: Any) -> None:
        found = (precise @ block.double().T).round_(decimals=7).topk(RANKS, dim=1)
        both = torch.cat([best[0], found.values], 1).topk(RANKS, dim=1)
        rows[0] = torch.cat([rows[0], found.indices + row], 1).gather(1, both.indices)
        best[0] = both.values

    return _fed(blocks, add, lambda: rows[0])


def faiss_whole(queries: Any, blocks: Iterator[Block]) -> tuple[Any, float]:
    """One flat index of all candidates, as the benchmark's own code searches."""
    import faiss

    index = faiss.IndexFlatIP(queries.shape[1])
    return _fed(
        blocks,
        lambda _, block: index.add(block.numpy()),
        lambda: index.search(queries.numpy(), RANKS)[1],
    )


def faiss_blocks(queries: Any, blocks: Iterator[Block]) -> tuple[Any, float]:
    """faiss's exhaustive search of each block, merged into running lists."""
    import faiss

    heap = faiss.ResultHeap(len(queries), RANKS, keep_max=True)

    def add(row: int, block: Any) -> None:
        values, rows = faiss.knn(queries.numpy(), block.numpy(), RANKS, metric=faiss.METRIC_INNER_PRODUCT)
        heap.add_result(values, rows + row)

    def result() -> Any:
        heap.finalize()
        return heap.I

    return _fed(blocks, add, result)


WAYS: dict[str, Callable[[Any, Iterator[Block]], tuple[Any, float]]] = {
    "ours": ours,
    "doubles": doubles,
    "faiss_whole": faiss_whole,
    "faiss_blocks": faiss_blocks,
}


def _fed(
    blocks: Iterator[Block], add: Callable[[int, Any], None], result: Callable[[], Any]
) -> tuple[Any, float]:
    """The result, and seconds spent in `add` and `result`."""
    spent = 0.0
    for row, block in blocks:
        begin = time.perf_counter()
        add(row, block)
        spent += time.perf_counter() - begin
    begin = time.perf_counter()
    found = result()
    return found, spent + time.perf_counter() - begin


def measure(words: argparse.Namespace) -> None:
    """One way, in this process: prints its seconds, its memory and a checksum of what it found."""
    import torch

    torch.set_num_threads(words.threads)
    queries = vectors(words.queries, words.width, 0)

    def blocks() -> Iterator[Block]:
        for row in range(0, words.candidates, BLOCK):
            size = min(BLOCK, words.candidates - row)
            yield row, vectors(size, words.width, 1 if words.collapsed else 1 + row, words.collapsed)

    found, seconds = WAYS[words.way](queries, blocks())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{words.way:13} {seconds:8.2f} s   peak {peak:6.0f} MB   rows summed {int(found.sum())}")


def main() -> None:
    """Each way in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1_000)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--collapsed", action="store_true", help="all candidates are one vector")
    parser.add_argument("--way", choices=WAYS, help="only this one, in this process")
    words = parser.parse_args()
    if words.way:
        measure(words)
        return
    for way in WAYS:
        if way.startswith("faiss") and importlib.util.find_spec("faiss") is None:
            print(f"{way:13} left out: faiss is not installed")
            continue
        environment = os.environ | {"OMP_NUM_THREADS": str(words.threads)}
        subprocess.run([sys.executable, __file__, *sys.argv[1:], f"--way={way}"], env=environment, check=True)


if __name__ == "__main__":
    main()
