"""Which function does which kind of step."""

from __future__ import annotations

from collections.abc import Callable

from xstilts.execute.predictions import run_predict, run_score
from xstilts.execute.probing import run_probe
from xstilts.execute.steps import Outcome, Work
from xstilts.execute.training import run_pretrain, run_train
from xstilts.execute.translation import run_translate


def run_search(work: Work) -> Outcome:
    """Chosen settings, by Ray Tune and Optuna."""
    from xstilts.execute.cluster import import_ray

    import_ray()  # before `search` does: what its processes know each other by is read at the first import
    from xstilts.execute import search

    return search.run(work)


BODIES: dict[str, Callable[[Work], Outcome]] = {
    "pretrain": run_pretrain,
    "translate": run_translate,
    "train": run_train,
    "search": run_search,
    "probe": run_probe,
    "predict": run_predict,
    "score": run_score,
}
