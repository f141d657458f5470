"""Every task's definition, and that looking one up costs next to nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import xstilts
from xstilts.errors import UnknownName, XstiltsError
from xstilts.tasks import kinds, languages, registry
from xstilts.tasks.task import Family, Split, Task

TASKS = registry.all_tasks()
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(xstilts.__file__).parents[1])}


def made(**changes: object) -> Task:
    """A definition that works, but for `changes`."""
    words = {
        "name": "made",
        "family": Family.CLASSIFICATION,
        "roles": ("intermediate",),
        "metric": "accuracy",
        "languages": ("en",),
        "columns": {"text": "a", "label": "b"},
        "labels": ("no", "yes"),
        "train": Split(path="x/y", split="train"),
        "source": "here",
        "licence": "CC0-1.0",
    }
    return Task.model_validate({**words, **changes})


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_definition_is_complete(task):
    assert task.languages and task.source and task.licence, "say where it comes from"
    assert len(set(task.languages)) == len(task.languages)
    assert len(set(task.labels)) == len(task.labels)
    assert set(task.codes) <= set(task.languages)
    assert all(languages.of(code) for code in task.languages)
    assert set(task.no_dev) <= set(task.languages)
    if task.stages and not kinds.of(task.family).as_it_is:
        last = registry.task(task.stages[-1])  # whose head predicts
        assert (last.family, last.labels) == (task.family, task.labels)
        assert last.columns.keys() - task.columns.keys() <= {"item", "cluster"}
    elif not kinds.of(task.family).as_it_is and task.family is not Family.MASKED_LM:
        assert task.train is not None and task.selection is not None


@pytest.mark.parametrize("reporting", ["dev", "test"])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_nothing_reported_is_selected_or_trained_on(task, reporting):
    fittings = registry.fittings(task, reporting)
    assert bool(fittings) == (not kinds.of(task.family).as_it_is or bool(task.stages))
    reported = [task.place(reporting, code) for code in task.languages]
    places = {split.place() for split in reported if split is not None}
    for fitting in fittings:
        assert fitting.selection is not None or task.family is Family.MASKED_LM
        for chosen in filter(None, (fitting.train, fitting.selection)):
            assert chosen.place() not in places
            assert "{code}" not in " ".join((*chosen.place(), *chosen.files))


def test_dev_scores_are_never_chosen_on_themselves():
    panx = registry.task("panx")
    (for_test,) = registry.fittings(panx, "test")
    assert for_test.selection == panx.selection and for_test.train.holdout is None
    (for_dev,) = registry.fittings(panx, "dev")
    assert for_dev.train.place() == for_dev.selection.place() == panx.train.place()
    assert (for_dev.train.holdout.part, for_dev.selection.holdout.part) == ("train", "select")
    assert for_dev.selection.holdout.by == "tokens"


def test_a_task_may_train_on_another():
    (xquad,) = registry.fittings(registry.task("xquad"), "test")
    assert xquad.task.name == "squad_v1" and xquad.language == "en"
    assert xquad.selection.without == "xquad"
    assert registry.fittings(registry.task("xnli"), "dev")[0].selection.split == "validation_matched"
    assert registry.fittings(registry.task("world_nli"), "dev")[0].language == "w0"
    siqa, copa = registry.fittings(registry.task("xcopa"), "test")
    assert (siqa.task.name, copa.task.name) == ("siqa", "copa")
    assert copa.selection.holdout.part == "select" and copa.selection.split == "train"


def test_a_language_may_be_reported_elsewhere():
    xcopa = registry.task("xcopa")
    assert xcopa.place("test", "en").place() == ("aps/super_glue", "copa", "validation")
    assert xcopa.place("test", "et").place() == ("cambridgeltl/xcopa", "et", "test")
    tydiqa = registry.task("tydiqa").place("test", "sw")
    assert (tydiqa.split, tydiqa.keep.prefix) == ("validation", "swahili-")


def test_languages_with_rows_of_a_split():
    udpos = registry.task("udpos")
    assert set(udpos.reported("test")) - set(udpos.reported("dev")) == {"kk", "th", "tl", "yo"}
    assert registry.task("mnli").reported("test") == ()


def test_published_names_of_languages():
    assert registry.task("udpos").dev.at(registry.task("udpos").code("de")).config == "udpos.German"
    assert registry.task("tatoeba").test.at(registry.task("tatoeba").code("zh")).config == "tatoeba.cmn"
    assert len(registry.task("tatoeba").languages) == 41
    assert len(registry.task("udpos").languages) == 38
    assert len(registry.task("panx").languages) == 48


def test_an_unknown_task_names_the_nearest():
    with pytest.raises(UnknownName, match="did you mean 'xquad'") as raised:
        registry.task("xqaud", ("targets", 1))
    assert raised.value.where == ("targets", 1)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "none"}, "taken"),
        ({"name": "mnli"}, "taken"),
        ({"columns": {"text": "a"}}, "missing"),
        ({"columns": {"text": "a", "label": "b", "pear": "c"}}, "pear"),
        ({"metric": "bleu"}, "bleu"),
        ({"labels": ()}, "labels"),
        ({"open_labels": True}, "labels"),
        ({"train": None}, "trains on nothing"),
        ({"roles": ("target",)}, "dev or test"),
    ],
)
def test_a_definition_that_cannot_work_is_refused(changes, why):
    with pytest.raises(ValueError, match=why):
        registry.register(made(**changes))


class _Plugin:
    """Stands for an installed package's entry point."""

    name, value = "mine", "mine.tasks"

    def __init__(self, load):
        self.load = load


@pytest.fixture
def plugins(monkeypatch):
    """Sets what entry points there are; what they register is forgotten afterwards."""
    monkeypatch.setattr(registry, "_tasks", dict(registry._tasks))

    def install(*loads):
        registry._load_plugins.cache_clear()
        monkeypatch.setattr(metadata, "entry_points", lambda group: [_Plugin(load) for load in loads])

    yield install
    registry._load_plugins.cache_clear()


def test_a_package_can_bring_tasks(plugins):
    plugins(lambda: registry.register(made(dev=Split(path="x/y", split="test"))))
    assert registry.task("made").labels == ("no", "yes")


def test_a_broken_plugin_is_named(plugins):
    plugins(lambda: 1 / 0)
    with pytest.raises(XstiltsError, match="'mine'.*does not load.*ZeroDivisionError"):
        registry.all_tasks()


def test_describing_imports_no_ml_library():
    heavy = "torch transformers datasets ray mlflow boto3 numpy pandas pyarrow"
    code = f"import sys, xstilts.tasks; print([m for m in '{heavy}'.split() if m in sys.modules])"
    found = subprocess.check_output([sys.executable, "-c", code], text=True, env=ENVIRONMENT)
    assert found.strip() == "[]"
