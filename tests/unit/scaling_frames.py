"""Simulated gains by share of the intermediate data, with planted effects or none."""

from __future__ import annotations

from collections.abc import Callable

import numpy
import pandas
from study_frames import Frame

from xstilts.report.studies.gains import Gains, of_frame
from xstilts.tasks import languages

SPOKEN = "ar bg de el es fr hi ru sw th tr ur vi zh"
SHARES = (1 / 64, 1 / 16, 1 / 4, 1.0)

Fractions = dict[tuple[str, str], float]


def scaled(
    seed: int,
    rule: Callable[[float, float], float] = lambda share, level: 0.0,
    shares: tuple[float, ...] = SHARES,
    rows: tuple[str, ...] = ("mnli",),
    spoken: str = SPOKEN,
    slope: float = 0.2,
    tilt: float = 0.2,
    seeds: tuple[int, ...] = (1, 2, 3),
) -> tuple[Gains, Fractions]:
    """Gains of one job a share, and the shares. `rule`: the gain planted for a share and log10 CC-100 GiB.
    `slope`: sd of a language's own slope per doubling; `tilt`: sd of how a run treats resources."""
    random = numpy.random.default_rng([seed, 1])
    codes = spoken.split()
    own = dict(zip(codes, random.normal(0, slope, len(codes)), strict=True))
    level = {code: float(numpy.log10(languages.of(code).cc100_gib or 1)) for code in codes}
    middle = float(numpy.mean(list(level.values())))
    base = Frame(rows=rows, targets={"xnli": f"{spoken} en"}, seeds=seeds)
    parts, fractions = [], {}
    for i, share in enumerate(shares):
        job = f"share-{i}"
        part = base.draw(seed * 100 + i).assign(job=job)
        part["key"] = part.key + f"-{i}"
        likes = {run: random.normal(0, tilt) for run in seeds}
        for at in part.index[(part.intermediate != "none") & (part.language != "en")]:
            code, run = str(part.language[at]), int(part.seed[at])
            grown = rule(share, level[code]) + own[code] * numpy.log2(share)
            part.loc[at, "value"] += grown + likes[run] * (level[code] - middle)
        parts.append(part)
        fractions |= {(job, row): share for row in rows}
    return of_frame(pandas.concat(parts, ignore_index=True), "abc1234"), fractions
