"""What suites, tasks and jobs read, as values."""

from __future__ import annotations

from pathlib import Path

import pytest

from xstilts.errors import JobFileError, UnknownName
from xstilts.execute.wanted import wanted
from xstilts.plan import needs
from xstilts.spec.experiment import Experiment, ModelSpec
from xstilts.spec.load import parse
from xstilts.tasks import registry, suites

REPO = Path(__file__).resolve().parents[2]


def places(splits):
    """Hub id, config and split of each."""
    return {split.place() for split in splits}


def of(*names: str, **words):
    """The splits of tasks by name."""
    return needs.of_tasks(map(registry.task, names), **words)


def never(path: str) -> tuple[str, ...]:
    """For jobs that read no raw text."""
    raise AssertionError(path)


def test_a_target_needs_its_training_task_and_both_splits_of_every_language():
    found = of("xnli")
    own = {
        ("facebook/xnli", code, split)
        for code in registry.task("xnli").languages
        for split in ("validation", "test")
    }
    mnli = {("nyu-mll/multi_nli", "default", split) for split in ("train", "validation_matched")}
    assert places(found) == own | mnli
    assert len(found) == len(set(found)), "each once"


def test_of_a_held_out_part_the_whole_published_split_is_needed_once():
    """PAN-X on dev selects on a part of its training rows."""
    train = [split for split in of("panx", reporting=("dev",)) if split.split == "train"]
    assert len(train) == 1 and train[0].holdout is None


def test_all_stages_what_lies_elsewhere_and_the_candidates_are_needed():
    assert {("allenai/social_i_qa", "default", "train"), ("aps/super_glue", "copa", "validation")} <= places(
        of("xcopa")
    )
    files = {name for split in of("mewslix") for name in split.files}
    task = registry.task("mewslix")
    assert set(task.candidates.files) <= files and set(task.place("test", "ta").files) <= files


def test_a_task_of_several_data_sets_needs_all_of_them():
    assert {path for path, *_ in places(of("anli_plus"))} == {
        "facebook/anli", "nyu-mll/multi_nli", "stanfordnlp/snli",
    }  # fmt: skip


def test_translations_are_needed_when_asked_for():
    german = ("facebook/xnli", "de", "train")
    assert german not in places(of("xnli")) and german in places(of("xnli", translations=True))


def test_the_generated_world_needs_nothing():
    world = [task.name for task in registry.all_tasks() if task.name.startswith("world")]
    assert world and of(*world) == ()


@pytest.mark.parametrize("suite", [suite.name for suite in suites.all_suites()])
def test_a_suite_holds_what_any_job_on_it_reads(suite):
    """Whatever a job reports, `data pull SUITE` brought the rows of its targets."""
    brought = places(wanted(suite, never).splits)
    for split in ("dev", "test"):
        for name in suites.suite(suite).tasks:
            words = {"name": "a", "model": {"name": "a/b"}, "targets": [name], "evaluate": {"split": split}}
            if not registry.task(name).reported(split):
                continue
            asked = needs.of_job(Experiment.model_validate(words), never)
            assert places(asked.splits) <= brought, f"{name} on {split}"
            assert {file for each in asked.splits for file in each.files} <= {
                file for each in wanted(suite, never).splits for file in each.files
            }


JOB = """
name: a
model: {name: a/encoder}
intermediate:
  - none
  - {mix: [squad_v1, mlm]}
  - {translated: mnli, languages: [de], translator: {name: a/translator}}
  - {checkpoint: {name: a/checkpoint}}
targets: [xnli]
languages: [en, sw]
mlm: {data: some/text, config: "{code}", languages: [en, de]}
"""


def test_a_job_needs_what_its_plan_asks_for_and_every_model_it_names():
    asked = needs.of_job(parse(JOB, Path("job.yaml")).experiment, never)
    assert set(asked.models) == {
        ModelSpec(name="a/encoder"), ModelSpec(name="a/translator"), ModelSpec(name="a/checkpoint"),
    }  # fmt: skip
    assert places(asked.splits) == {
        ("facebook/xnli", "en", "test"), ("facebook/xnli", "sw", "test"),
        ("nyu-mll/multi_nli", "default", "train"), ("nyu-mll/multi_nli", "default", "validation_matched"),
        ("rajpurkar/squad", "plain_text", "train"), ("rajpurkar/squad", "plain_text", "validation"),
        ("some/text", "en", "train"), ("some/text", "de", "train"),
    }  # fmt: skip


def test_a_job_that_reads_all_raw_text_asks_which_languages_there_are():
    words = "name: a\npretrain: {data: some/text}\n"
    asked = needs.of_job(parse(words, Path("job.yaml")).experiment, lambda path: ("sw", "yo"))
    assert places(asked.splits) == {("some/text", "sw", "train"), ("some/text", "yo", "train")}


def test_a_mistake_in_a_job_file_has_its_line(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text("name: a\nmodel: {name: a/b}\ntargets:\n  - xnlii\n")
    with pytest.raises(UnknownName, match=r"job.yaml:4: no target task named 'xnlii'"):
        wanted(str(path), never)
    with pytest.raises(JobFileError, match="no job file"):
        wanted(str(tmp_path / "none.yaml"), never)
    with pytest.raises(UnknownName, match="did you mean 'xtreme'"):
        wanted("xtrem", never)
