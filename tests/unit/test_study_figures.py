"""Figures of studies: lines and points agree, and nothing that is drawn hides or overprints another."""

from __future__ import annotations

import math
from typing import Any

import numpy
import pandas
import pytest
from study_frames import Frame

from xstilts.report.studies import hierarchy, model_scaling, pages, scatter, similarity
from xstilts.report.studies.answer import Figure
from xstilts.report.studies.mixed import Fit

SPOKEN = "ar bg de el es fr hi ru sw th tr ur vi zh".split()


def layers(words: dict[str, Any], mark: str) -> list[dict[str, Any]]:
    """Layers of one kind of mark, wherever they are, with their data beside them."""
    found = []
    for part in words.get("concat", [words]):
        for layer in part["layer"]:
            if layer["mark"]["type"] == mark:
                name = (layer.get("data") or part.get("data") or words["data"])["name"]
                found.append({**layer, "rows": words["datasets"][name]})
    return found


def lost(slopes: dict[str, float], noise: float) -> tuple[pandas.DataFrame, Fit]:
    """Losses that two predictors, which go together, make in two tasks of other languages, and their fit."""
    random = numpy.random.default_rng(1)
    one = numpy.linspace(-1.5, 1.5, len(SPOKEN))
    other = 0.8 * one + random.normal(0, 0.5, len(one))
    rows = [
        {"target": task, "language": code, "near": one[i], "far": other[i],
         "y": level + slopes["near"] * one[i] + slopes["far"] * other[i] + noise * random.normal()}
        for task, level, some in (("xnli", 15.0, range(len(one))), ("panx", 25.0, range(6, len(one))))
        for i, code in enumerate(SPOKEN) if i in some
    ]  # fmt: skip
    names, values = ("1", "near", "far"), numpy.array([20.0, slopes["near"], slopes["far"]])
    return pandas.DataFrame(rows), Fit(names, values, numpy.eye(3), {}, 1.0, len(rows))


def test_points_lie_on_the_line_where_the_predictors_are_all_there_is() -> None:
    cells, fit = lost({"near": 6.0, "far": -4.0}, noise=0.0)
    words = pages.specification(scatter.figures(cells, ["near", "far"], fit, "en")[0])
    for name, points, line in zip(
        ("near", "far"), layers(words, "point"), layers(words, "line"), strict=True
    ):
        ends = pandas.DataFrame(line["rows"])
        slope, level = numpy.polyfit(ends[name], ends.lost, 1)
        assert slope == pytest.approx(fit.slopes[fit.names.index(name)])
        for row in points["rows"]:
            assert row["lost"] == pytest.approx(level + slope * row[name]), (name, row)


def test_without_a_fit_points_are_means_over_tasks() -> None:
    cells, _ = lost({"near": 6.0, "far": -4.0}, noise=1.0)
    words = pages.specification(scatter.figures(cells, ["near"], None, "en")[0])
    assert layers(words, "line") == []
    points = {row["language"]: row["lost"] for row in layers(words, "point")[0]["rows"]}
    task = cells[cells.target == "xnli"].set_index("language").y
    assert points["ar"] == pytest.approx(task["ar"] - task.mean() + cells.y.mean())


def test_names_are_few_and_do_not_lie_on_each_other() -> None:
    figure = similarity.published().figures[0]
    assert "partial" in figure.note and "Named are" in figure.note
    for layer in layers(pages.specification(figure), "point"):
        rows = pandas.DataFrame(layer["rows"])
        assert len(rows) == 38 and "name" in rows
        named = [*rows.right[rows.right != ""], *rows.left[rows.left != ""]]
        assert 3 <= len(named) <= 2 * scatter.EXTREMES and len(set(named)) == len(named)
        for side in ("right", "left"):
            own = rows[rows[side] != ""]
            x = own[layer["encoding"]["x"]["field"]].to_numpy() * 45
            y = own.lost.to_numpy() * 5
            gaps = [math.hypot(x[i] - x[j], y[i] - y[j]) for i in range(len(own)) for j in range(i)]
            assert min(gaps, default=99) > 7, "pixels, about"


def test_few_languages_are_all_named() -> None:
    cells, fit = lost({"near": 6.0, "far": -4.0}, noise=0.0)
    some = cells[cells.language.isin(SPOKEN[:5])]
    points = layers(pages.specification(scatter.figures(some, ["near"], fit, "en")[0]), "point")[0]["rows"]
    assert {row["right"] or row["left"] for row in points} == set(SPOKEN[:5])


def test_families_of_models_differ_in_shape_and_open_marks_hide_none() -> None:
    figure = model_scaling.published().figures[0]
    words = pages.specification(figure)
    point = layers(words, "point")[0]
    shapes = point["encoding"]["shape"]["scale"]
    assert len(shapes["domain"]) == 3 == len(set(shapes["range"])) and not point["mark"].get("filled")
    axis = point["encoding"]["x"]["axis"]
    assert axis["values"] == [178, 300, 560, 580, 1200, 3700, 13000] and axis["labelOverlap"] == "greedy"
    drawn = pages.svg(figure)
    assert all(f">{size}<" in drawn for size in ("178", "300", "560", "1,200", "3,700", "13,000"))


def ranks() -> Figure:
    frame = Frame(main={"mnli": 3.0, "squad_v1": 1.0, "ccg": -2.0})
    return hierarchy.answer(frame.gains(1), permutations=100, draws=3).figures[0]


def test_equal_ranks_of_groups_are_all_seen_and_bars_are_explained() -> None:
    figure = ranks()
    point = layers(pages.specification(figure), "point")[0]
    assert point["encoding"]["yOffset"]["field"] == "group"
    domains = [point["encoding"][name]["scale"]["domain"] for name in ("yOffset", "color", "shape")]
    assert domains[0] == domains[1] == domains[2] and len(domains[0]) == 6, "one legend, one place each"
    drawn = " ".join(pages.svg(figure, "n 2").split())
    assert "critical difference of" in figure.note and "Grey bars: half the critical difference" in drawn
    assert drawn.count(">family<") == 1
