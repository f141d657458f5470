"""Averages of a suite: what they are over, and what is said of them when something lacks or is special."""

from __future__ import annotations

from typing import Any

import pandas
import pytest

from xstilts.report.standing import standings
from xstilts.tasks import registry, suites


def frame(**special: dict[str, Any]) -> pandas.DataFrame:
    """Every task of XTREME in every language at 50, one row and seed; `special`: task -> changed columns."""
    rows = []
    for name, languages in suites.suite("xtreme").tasks.items():
        for language in languages:
            row = {"intermediate": "none", "target": name, "language": language, "value": 50.0, "seed": 1}
            row |= {"metric": registry.task(name).metric, "status": "ok", "selection": "source_dev"}
            rows.append(row | special.get(name, {}))
    return pandas.DataFrame(rows)


def plan(split: str = "test") -> dict[str, Any]:
    cell = {"intermediate": "none", "target": "xnli", "seed": 1}
    return {"experiment": {"suite": "xtreme", "evaluate": {"split": split}}, "cells": [cell]}


def test_a_whole_suite_is_the_plain_mean_over_tasks() -> None:
    (one,) = standings(plan(), frame(xnli={"value": 59.0}))
    assert one.overall.value == pytest.approx(51.0) and one.overall.complete and not one.overall.noted
    assert one.groups["classification"].value == pytest.approx(54.5)
    assert str(one.tasks["xnli"]) == "59.0" and one.missing == () and one.notes == ()


def test_a_missing_language_marks_every_average_it_is_in() -> None:
    table = frame()
    (one,) = standings(plan(), table[(table.target != "mlqa") | (table.language != "hi")])
    assert one.missing == ("mlqa: hi",)
    assert str(one.tasks["mlqa"]) == str(one.groups["qa"]) == str(one.overall) == "50.0*"
    assert str(one.groups["tagging"]) == "50.0"


def test_collapsed_runs_and_choosing_on_the_target_are_said() -> None:
    (one,) = standings(plan(), frame(xnli={"selection": "target_dev"}, panx={"status": "collapsed"}))
    assert set(one.notes) == {"xnli: chosen on target dev", "panx: 1 seeds collapsed"}
    assert [name for name, task in one.tasks.items() if task.noted] == ["xnli", "panx"]
    assert one.overall.noted and not one.groups["qa"].noted


def test_languages_that_never_had_dev_rows_are_not_missed_on_dev() -> None:
    table = frame()
    table = table[(table.target != "udpos") | ~table.language.isin(["th", "tl", "yo", "kk"])]
    assert standings(plan("dev"), table)[0].missing == ()
    assert standings(plan("test"), table)[0].missing == ("udpos: kk th tl yo",)


def test_no_suite_no_averages() -> None:
    assert standings({"experiment": {"suite": None}, "cells": []}, frame()) == ()
