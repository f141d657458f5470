"""Published scores as one tidy frame, every value with its source: what runs and studies are set beside.

    published("phang2020")           Phang et al. 2020 (arXiv v1), dev and test, per intermediate x target
    published("phang2020_v2")        what is known of the second version, whose tables could not be had
    published("xtreme_baselines")    baselines of XTREME per task and, where printed, per language
    table("language_resources")      a shipped table as it is

Intermediate and target tasks and metrics have the names of this package; a mixture is named as a job's row
without a name of its own is. Question answering is printed as F1 and EM; their mean, which the papers
average and this package reports, is added here and says so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import resources
from io import StringIO
from typing import Any

import pandas

from xstilts.errors import UnknownName
from xstilts.tasks import registry, suites
from xstilts.tasks.task import Family

COLUMNS = [
    *("paper", "system", "model", "intermediate", "target", "split", "setting", "language", "metric"),
    *("value", "source", "note"),
]
"""`language` is a code or "mean"; `setting` is zero-shot, translate-train, ...; `target` "average" is the
mean over XTREME's nine tasks as printed."""

MEAN = "mean"
AVERAGE = "average"
UNTOLD = "selection as the paper had it \u00b7 commit - (printed) \u00b7 collapsed runs not told"
"""What a caption of printed numbers says where one of runs says how they were chosen and made."""
HELD_OUT = "test"
"""Split of the papers' final numbers: test, or dev where nothing is held out (Hu et al. 2020)."""

TARGETS = {
    "XNLI": "xnli",
    "PAWS-X": "pawsx",
    "POS": "udpos",
    "UDPOS": "udpos",
    "NER": "panx",
    "NER(WikiANN)": "panx",
    "WikiANN": "panx",
    "XQuAD": "xquad",
    "MLQA": "mlqa",
    "TyDiQA": "tydiqa",
    "TyDiQA-GoldP": "tydiqa",
    "BUCC": "bucc2018",
    "Tatoeba": "tatoeba",
    "XCOPA": "xcopa",
    "Mewsli-X": "mewslix",
    "LAReQA": "lareqa",
}
"""What papers call a target -> its name here."""

INTERMEDIATES = {
    "ANLI+": "anli_plus",
    "QQP": "qqp",
    "SQuAD": "squad_v1",
    "HellaSwag": "hellaswag",
    "CCG": "ccg",
    "CosmosQA": "cosmosqa",
    "CSQA": "csqa",
}
"""What Phang et al. 2020 call an intermediate task -> its name here."""

INCONSISTENT = {("mlm+qqp", AVERAGE): "printed +5.1 over 67.2; the mean of its nine cells is +7.1"}
"""(intermediate, target) -> what is wrong with a printed number. The one row of Phang et al. 2020, Table 2,
whose printed average is not that of its cells: its cells are used, never its average."""

INCONSISTENT_MEANS = {
    ("mT5-Base", 87.4): "the mean of its cells is 86.4, which the final README of mT5 prints",
    ("mT5-Large", 89.6): "the mean of its cells is 88.9, which the final README of mT5 prints",
    ("mT5-XL", 90.2): "the mean of its cells is 89.6, which the final README of mT5 prints",
}
"""(model, printed mean over languages) -> the same of mT5's first PDF, zero-shot PAWS-X."""

_PHANG = "Phang et al. 2020 (arXiv v1)"
_LARGE = "XLM-R Large"
_SPAN = {"F1": "f1", "EM": "exact_match"}
_COMPUTED = "; mean of F1 and EM computed here"
_MODELS = {
    "XLM-R": _LARGE,
    "XLM-R (Hu et al. 2020)": _LARGE,
    "XLM-R Large (Hu et al. 2020)": _LARGE,
    "xlmr.large (Conneau et al.)": _LARGE,
    "XLM-R-base": "XLM-R Base",
    "mBERT-base": "mBERT",
    "Filter+Self-Teaching": "FILTER+Self-Teaching",
}
_MT5 = re.compile(r"mT5-(small|base|large|xl|xxl)( ?\(?75%.*)?$", re.IGNORECASE)
_SIZES = {"small": "Small", "base": "Base", "large": "Large", "xl": "XL", "xxl": "XXL"}


@lru_cache
def table(name: str) -> pandas.DataFrame:
    """A shipped table by its file's name without ".csv"; a copy is yours to change, this one is shared.

    Raises:
        UnknownName: no such table.
    """
    known = tables()
    if name not in known:
        raise UnknownName.among("published table", name, known)
    text = resources.files(__package__).joinpath("tables", f"{name}.csv").read_text(encoding="utf-8")
    return pandas.read_csv(StringIO(text))


def tables() -> tuple[str, ...]:
    """Names of the shipped tables."""
    files = resources.files(__package__).joinpath("tables").iterdir()
    return tuple(sorted(file.name.removesuffix(".csv") for file in files if file.name.endswith(".csv")))


def names() -> tuple[str, ...]:
    """What `published` knows."""
    return tuple(_PAPERS)


def published(name: str) -> pandas.DataFrame:
    """The numbers of one paper or collection, with COLUMNS.

    Raises:
        UnknownName: no such collection; names the nearest.
    """
    if name not in _PAPERS:
        raise UnknownName.among("published results", name, _PAPERS, "xstilts compare --help")
    made = pandas.DataFrame(list(_PAPERS[name]()), columns=COLUMNS)
    return _with_means_of_span_scores(made)


def headline(scores: pandas.DataFrame) -> pandas.DataFrame:
    """Only the rows of each target's own metric, which is what gains are in."""
    metrics = {name: registry.task(name).metric for name in set(scores.target) - {AVERAGE}}
    return scores[scores.metric == scores.target.map(metrics)]


def averages(scores: pandas.DataFrame) -> pandas.DataFrame:
    """XTREME's overall score recomputed from cells: one row a system, intermediate, split, setting that has
    all nine tasks; `printed` beside it where the paper prints one."""
    keys = ["paper", "system", "model", "intermediate", "split", "setting"]
    nine = list(suites.suite("xtreme").tasks)
    cells = headline(scores)
    cells = cells[(cells.language == MEAN) & cells.target.isin(nine)]
    found = cells.groupby(keys).value.agg(["count", "mean"]).rename(columns={"mean": "recomputed"})
    whole = found[found["count"] == len(nine)].drop(columns="count").reset_index()
    said = scores[scores.target == AVERAGE][[*keys, "value", "note"]].rename(columns={"value": "printed"})
    return whole.merge(said, on=keys, how="left")


def gains(scores: pandas.DataFrame) -> pandas.DataFrame:
    """Headline cells with `base`, the same cell of the row none, and `gain`, their difference in points."""
    cells = headline(scores)
    keys = ["paper", "system", "model", "target", "split", "setting", "language", "metric"]
    base = cells[cells.intermediate == "none"].drop_duplicates(keys)[[*keys, "value"]]
    joined = cells[cells.intermediate != "none"].merge(base.rename(columns={"value": "base"}), on=keys)
    return joined.assign(gain=(joined.value - joined.base).round(2))


def parameters() -> dict[str, tuple[str, float]]:
    """Model -> (family, parameters in millions), by the papers' names and by hub ids."""
    found = {}
    for row in table("model_parameters").itertuples(index=False):
        found[row.model] = found[row.hub_id] = (row.family, float(row.parameters_m))
    return found


def _phang() -> Iterator[dict[str, Any]]:
    yield from _phang_dev()
    yield from _phang_test()
    for row in table("phang2020_baseline_retrieval_per_language").to_dict("records"):
        yield _row(
            _PHANG, "X-STILTs", _LARGE, "none", row["task"], "dev", row["lang"], row["value"], row["source"]
        )


def _phang_dev() -> Iterator[dict[str, Any]]:
    """Table 2, its upper blocks: the baseline in points, the rest as differences that were added to it."""
    for row in table("phang2020_v1_table2_dev").to_dict("records"):
        intermediate = _intermediate(row["intermediate_task"], row["mlm_cotraining"] == "yes")
        cells = {name.removeprefix("abs_"): row[name] for name in row if name.startswith("abs_")}
        yield from _cells("X-STILTs", intermediate, "dev", cells, row["source"])


def _phang_test() -> Iterator[dict[str, Any]]:
    """Table 2, its lower block."""
    about = {
        "XLM-R (Hu et al. 2020)": ("XLM-R (Hu et al. 2020)", _LARGE, "none"),
        "XLM-R (Ours)": ("X-STILTs", _LARGE, "none"),
        "Our Best Models (v1, chosen per target on dev)": ("X-STILTs", _LARGE, "best of each target on dev"),
        "Human": ("human", "human", "none"),
    }
    for row in table("phang2020_v1_xtreme_test").to_dict("records"):
        system, model, intermediate = about[row["row"]]
        cells = {name: row[name] for name in row if name.partition("_")[0] in TARGETS}
        cells["Avg"] = row["Avg_printed"]
        yield from _cells(system, intermediate, HELD_OUT, cells, row["source"], model)


def _phang_v2() -> Iterator[dict[str, Any]]:
    for row in table("phang2020_v2_known_numbers").to_dict("records"):
        if row["task"] in TARGETS:
            target, metric = TARGETS[row["task"]], _SPAN.get(row["metric"], "")
            yield _row(
                "Phang et al. 2020 (AACL)", row["system"], _LARGE, "best of each target on dev", target,
                HELD_OUT, MEAN, row["value"], row["source"], _metric(target, metric),
            )  # fmt: skip


def _xtreme() -> Iterator[dict[str, Any]]:
    for row in table("xtreme_baselines_per_task").to_dict("records"):
        task, _, metric = row["task_metric"].partition(" ")
        if task not in TARGETS or row["model"] == "X-STILTs":
            continue
        setting = "translate-train" if row["model"].startswith("translate-train") else "zero-shot"
        model = row["model"].removeprefix("translate-train ")
        yield from _printed(row["benchmark"], model, task, metric, setting, MEAN, row)
    for row in table("xtreme_baselines_per_language").to_dict("records"):
        language = MEAN if row["lang"] == "avg" else row["lang"]
        yield from _printed("XTREME", row["model"], row["task"], row["metric"], row["setting"], language, row)


_PAPERS = {"phang2020": _phang, "phang2020_v2": _phang_v2, "xtreme_baselines": _xtreme}


def _printed(
    paper: str, system: str, task: str, metric: str, setting: str, language: str, row: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    """The one or two values of a printed cell ("76.6/60.8" is F1 and EM)."""
    target = TARGETS[task]
    values = str(row["value"]).split("/")
    kinds = metric.split("/") if len(values) > 1 or metric in _SPAN else [""]
    for name, value in zip(kinds, values, strict=True):
        made = _row(
            paper, system, _model(system), "none", target, HELD_OUT, language, value, row["source"],
            _metric(target, _SPAN.get(name, "")),
        )  # fmt: skip
        wrong = INCONSISTENT_MEANS.get((made["model"], made["value"]), "")
        said = wrong if (target, setting, language) == ("pawsx", "zero-shot", MEAN) else ""
        yield made | {"setting": setting, "note": said}


def _cells(
    system: str, intermediate: str, split: str, cells: Mapping[str, Any], source: str, model: str = _LARGE
) -> Iterator[dict[str, Any]]:
    """The cells of one row of Phang et al. 2020, Table 2; columns are "XNLI", "XQuAD_F1", "Avg"."""
    for column, value in cells.items():
        if pandas.isna(value):
            continue
        if column == "Avg":
            yield _row(_PHANG, system, model, intermediate, AVERAGE, split, MEAN, value, source, MEAN)
            continue
        task, _, metric = column.partition("_")
        target = TARGETS[task]
        found = _metric(target, _SPAN.get(metric, ""))
        yield _row(_PHANG, system, model, intermediate, target, split, MEAN, value, source, found)


def _row(
    paper: str, system: str, model: str, intermediate: str, target: str, split: str, language: str,
    value: Any, source: str, metric: str = "",
) -> dict[str, Any]:  # fmt: skip
    return {
        "paper": paper,
        "system": system,
        "model": model,
        "intermediate": intermediate,
        "target": target,
        "split": split,
        "setting": "zero-shot",
        "language": language,
        "metric": metric or _metric(target, ""),
        "value": float(value),
        "source": source,
        "note": INCONSISTENT.get((intermediate, target), "") if split == "dev" else "",
    }


def _metric(target: str, span: str) -> str:
    """What this package calls the metric that a paper gives a target; `span` is one of question answering's
    two, and what tagging and mining call F1 as well."""
    task = registry.task(target)
    return span if span and task.family is Family.SPAN_QA else task.metric


def _model(system: str) -> str:
    """The model that a baseline's name stands for."""
    plain = system.partition(" (final README)")[0].partition(" (v1 pdf)")[0]
    sized = _MT5.match(plain)
    if sized is None:
        return _MODELS.get(plain, plain)
    return f"mT5-{_SIZES[sized[1].lower()]}" + (" (75% trained)" if sized[2] else "")


def _intermediate(printed: str, mlm: bool) -> str:
    """ "QQP" with MLM -> "mlm+qqp", as a job labels the row {mix: [qqp, mlm]}."""
    if printed.startswith("(none)"):
        return "none"
    tasks = list(INTERMEDIATES.values()) if printed == "Multi-task" else [INTERMEDIATES[printed]]
    return "+".join(sorted([*tasks, "mlm"] if mlm else tasks))


def _with_means_of_span_scores(scores: pandas.DataFrame) -> pandas.DataFrame:
    """Adds the mean of F1 and EM where both are printed."""
    keys = [name for name in COLUMNS if name not in ("metric", "value", "note")]
    span = scores[scores.metric.isin(list(_SPAN.values()))]
    paired = span.groupby(keys, sort=False, dropna=False).agg(
        value=("value", "mean"), kinds=("metric", "nunique")
    )
    made = paired[paired.kinds == 2].reset_index()
    made["metric"] = [registry.task(target).metric for target in made.target]
    made["source"], made["note"] = made.source + _COMPUTED, ""
    return pandas.concat([scores, made[COLUMNS]], ignore_index=True)
