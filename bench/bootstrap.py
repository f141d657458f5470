"""The bootstrap of a full XTREME grid: 10,000 resamples of nine tasks in all their languages.

Eight rows, three seeds; item statistics are made up in the published sizes, POS and NER in sentences and
retrieval at the largest size that it has. Parallel items (XNLI, PAWS-X, XQuAD) are drawn jointly for all
languages. On two cores of an AMD EPYC 10,000 resamples take 57 s, half of it PAN-X.
    python bench/bootstrap.py
    python bench/bootstrap.py --resamples 1000 --rows 3
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "platform"))

import numpy  # noqa: E402

from xstilts.report.clusters import Sample  # noqa: E402
from xstilts.report.intervals import RESAMPLES, resample  # noqa: E402
from xstilts.report.published.published import table  # noqa: E402
from xstilts.tasks import metrics  # noqa: E402

TASKS = {
    # name -> (metric, drawn jointly, units of one language or the name in the table of sizes)
    "xnli": ("accuracy", True, {f"l{i}": 1_670 for i in range(15)}),  # premises, three hypotheses each
    "pawsx": ("accuracy", True, {f"l{i}": 2_000 for i in range(7)}),
    "udpos": ("chunk_f1", False, "UDPOS"),
    "panx": ("bio_f1", False, "PAN-X/NER"),
    "xquad": ("squad", True, {f"l{i}": 48 for i in range(11)}),  # articles
    "mlqa": ("squad", False, {f"l{i}": 5_000 for i in range(7)}),
    "tydiqa": ("squad", False, {f"l{i}": 500 for i in range(9)}),
    "bucc2018": ("set_f1", False, {f"l{i}": 14_435 for i in range(4)}),
    "tatoeba": ("accuracy", False, {f"l{i}": 1_000 for i in range(36)}),
}


def samples(metric: str, units: dict[str, int], rows: int, seeds: int) -> dict[str, Sample]:
    """Made-up sums of every unit, row and seed."""
    random = numpy.random.default_rng(1)
    columns = len(metrics.COLUMNS[metric]) + 1
    present = numpy.ones((rows, seeds), dtype=bool)
    return {
        code: Sample(random.integers(1, 4, (count, rows, seeds, columns)).astype(float), present)
        for code, count in units.items()
    }


def main() -> None:
    """Prints a line a task, and the sum."""
    asked = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    asked.add_argument("--rows", type=int, default=8)
    asked.add_argument("--seeds", type=int, default=3)
    asked.add_argument("--resamples", type=int, default=RESAMPLES)
    words = asked.parse_args()
    sizes = table("xtreme_sizes_per_language")
    wall, used = 0.0, 0.0
    for name, (metric, joint, told) in TASKS.items():
        mine = sizes[sizes.task == str(told)]
        published = {str(lang): int(test) for lang, test in zip(mine.lang, mine.test, strict=True)}
        units = published if isinstance(told, str) else told
        made = samples(metric, units, words.rows, words.seeds)
        begin, cpu = time.perf_counter(), time.process_time()
        resample(made, metric, joint, 1, words.resamples)
        took, spent = time.perf_counter() - begin, time.process_time() - cpu
        print(f"{name:10s} {len(units):3d} languages {took:7.1f} s, {spent:7.1f} s of processors", flush=True)
        wall, used = wall + took, used + spent
    print(f"{'all':10s} {words.resamples:,} resamples {wall:7.1f} s, {used:7.1f} s of processors")


if __name__ == "__main__":
    main()
