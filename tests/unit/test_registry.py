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
from xstilts.tasks import languages, registry
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
    if task.trains_on:
        other = registry.task(task.trains_on)
        assert (other.family, other.labels, other.columns.keys() - task.columns.keys()) == (
            task.family,
            task.labels,
            set(),
        )
    elif task.family is not Family.RETRIEVAL:
        assert task.train is not None and task.selection is not None


@pytest.mark.parametrize("reporting", ["dev", "test"])
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_nothing_reported_is_selected_or_trained_on(task, reporting):
    fitting = registry.fitting(task, reporting)
    if task.family is Family.RETRIEVAL:
        assert fitting is None
        return
    assert fitting is not None and fitting.selection is not None
    reported = task.dev if reporting == "dev" else task.test
    places = set() if reported is None else {reported.at(task.code(code)).place() for code in task.languages}
    for chosen in (fitting.train, fitting.selection):
        assert chosen.place() not in places
        assert "{code}" not in " ".join(chosen.place())


def test_dev_scores_are_never_chosen_on_themselves():
    panx = registry.task("panx")
    for_test = registry.fitting(panx, "test")
    assert for_test.selection == panx.selection and for_test.train.holdout is None
    for_dev = registry.fitting(panx, "dev")
    assert for_dev.train.place() == for_dev.selection.place() == panx.train.place()
    assert (for_dev.train.holdout.part, for_dev.selection.holdout.part) == ("train", "select")
    assert for_dev.selection.holdout.by == "tokens"


def test_a_task_may_train_on_another():
    xquad = registry.fitting(registry.task("xquad"), "test")
    assert xquad.task.name == "squad_v1" and xquad.language == "en"
    assert xquad.selection.exclude_contexts_of == "google/xtreme/XQuAD.en/validation"
    assert registry.fitting(registry.task("xnli"), "dev").selection.split == "validation_matched"
    assert registry.fitting(registry.task("world_nli"), "dev").language == "w0"


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
