"""Published numbers: every value with its source, and averages that follow from the cells."""

from __future__ import annotations

import pytest

from xstilts.errors import UnknownName
from xstilts.report.published import published as papers
from xstilts.tasks import languages, registry
from xstilts.tasks.task import Family

ROUNDING = 0.06
"""A printed average of numbers with one decimal, which was itself computed from unrounded ones."""


def test_every_number_has_a_source_and_names_of_this_package() -> None:
    for name in papers.names():
        frame = papers.published(name)
        assert list(frame.columns) == papers.COLUMNS
        assert not frame.isna().any().any() and (frame.source != "").all()
        for target in set(frame.target) - {papers.AVERAGE}:
            task = registry.task(target)
            spans = {"f1", "exact_match"} if task.family is Family.SPAN_QA else set()
            assert set(frame[frame.target == target].metric) <= {task.metric, *spans}, "F1 is not one thing"
        assert all(languages.of(code) for code in set(frame.language) - {papers.MEAN})


def test_averages_are_those_of_the_cells_but_for_the_row_that_is_known() -> None:
    found = papers.averages(papers.published("phang2020"))
    assert len(found) == 20 and found.printed.notna().all()
    differs = (found.recomputed - found.printed).abs() > ROUNDING
    assert found[differs].intermediate.tolist() == ["mlm+qqp"]
    wrong = found[differs].iloc[0]
    assert (wrong.printed, round(wrong.recomputed, 1)) == (72.3, 74.3)
    assert "+7.1" in wrong.note and found[~differs].note.eq("").all()


def test_means_over_languages_are_those_of_the_cells_but_for_mt5s_paws_x() -> None:
    scores = papers.published("xtreme_baselines")
    keys = ["model", "system", "target", "setting", "metric", "source"]
    cells = scores[scores.language != papers.MEAN].groupby(keys).value.mean().rename("recomputed")
    joined = scores[scores.language == papers.MEAN].merge(cells.reset_index(), on=keys)
    differs = joined[(joined.value - joined.recomputed).abs() > 0.1]
    assert len(joined) > 80
    assert set(differs.model) == {"mT5-Base", "mT5-Large", "mT5-XL"} and set(differs.target) == {"pawsx"}
    assert differs.note.str.contains("mean of its cells").all()


def test_gains_are_the_printed_differences() -> None:
    scores = papers.published("phang2020")
    gains = papers.gains(scores).set_index(["intermediate", "target", "split"]).gain
    assert gains["squad_v1", "tatoeba", "dev"] == 46.9
    assert gains["ccg+mlm", "bucc2018", "dev"] == -10.1
    assert gains["squad_v1", "tydiqa", "dev"] == pytest.approx((5.6 + 7.4) / 2)
    assert gains["best of each target on dev", "tydiqa", "test"] == pytest.approx(
        (5.7 + 7.4) / 2, abs=0.01
    ), "over the authors' own baseline, not over that of Hu et al."


def test_the_mean_of_the_per_language_baseline_is_the_papers_cell() -> None:
    scores = papers.published("phang2020")
    retrieval = scores[scores.target.isin(["bucc2018", "tatoeba"]) & (scores.intermediate == "none")]
    dev = retrieval[retrieval.split == "dev"]
    means = dev[dev.language != papers.MEAN].groupby("target").value.mean()
    printed = dev[dev.language == papers.MEAN].set_index("target").value
    assert means.round(1).to_dict() == printed.to_dict() == {"bucc2018": 71.5, "tatoeba": 31.0}


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(UnknownName, match="phang2020"):
        papers.published("phang2002")
    with pytest.raises(UnknownName, match="language_resources"):
        papers.table("language_resource")


def test_language_resources_agree_with_the_registry() -> None:
    for row in papers.table("language_resources").itertuples(index=False):
        known = languages.of(row.code)
        assert (known.name, known.family) == (row.name, row.family)
        assert known.wiki_articles == row.wiki_articles
        assert known.cc100_gib is None if row.cc100_gib != row.cc100_gib else known.cc100_gib == row.cc100_gib


def test_sizes_of_models_are_known_by_hub_id_and_by_name() -> None:
    known = papers.parameters()
    assert known["XLM-R Large"] == known["FacebookAI/xlm-roberta-large"] == ("XLM-R", 560.0)
    assert len({size for family, size in known.values() if family == "XLM-R"}) == 4
