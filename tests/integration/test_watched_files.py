"""What training and choosing open: no file with reported rows, none with labels in other languages.

The kernel tells (inotify): pyarrow opens files without Python, so that audit hooks see none of it.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_run import JOB, write

import made_mirror
from xstilts import api
from xstilts.errors import JobFileError
from xstilts.execute import inputs
from xstilts.execute.backends import Event
from xstilts.execute.state import Survey
from xstilts.plan.graph import Planned
from xstilts.tasks import registry
from xstilts.tasks.manifest import FILE, Manifest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")

TARGETS = [task for task in made_mirror.everything() if "target" in task.roles]
TRAINED = [task.name for task in TARGETS if registry.fittings(task, "test")]
ROWS = [task.name for task in made_mirror.everything() if "intermediate" in task.roles and task.metric]
LANGUAGES = ["en", "de", "th", "zh", "ar"]
CHOOSING = ("train", "search", "translate", "pretrain")

IN_OPEN, IN_Q_OVERFLOW = 0x20, 0x4000


class Opened:
    """Files of a folder that any process opens, since the last time it was asked."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.folder = folder
        self._fd = libc.inotify_init1(os.O_NONBLOCK)
        assert self._fd >= 0, os.strerror(ctypes.get_errno())
        self._of: dict[int, Path] = {}
        for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
            number = libc.inotify_add_watch(self._fd, os.fsencode(path), IN_OPEN)
            assert number >= 0, os.strerror(ctypes.get_errno())
            self._of[number] = path

    def take(self) -> set[str]:
        """Their paths below the folder."""
        found = set()
        for number, mask, name in self._events():
            assert not mask & IN_Q_OVERFLOW, "more was opened than could be told"
            path = self._of[number] / name
            if path.is_file():
                found.add(path.relative_to(self.folder).as_posix())
        return found

    def close(self) -> None:
        os.close(self._fd)

    def _events(self) -> Iterator[tuple[int, int, str]]:
        while True:
            try:
                data = os.read(self._fd, 1 << 16)
            except BlockingIOError:
                return
            at = 0
            while at < len(data):
                number, mask, _, length = struct.unpack_from("iIII", data, at)
                name = data[at + 16 : at + 16 + length].rstrip(b"\0")
                yield number, mask, os.fsdecode(name)
                at += 16 + length


class Watching:
    """An observer that notes which files each step opens. Every step begins knowing nothing: rows that the
    process has read before would be opened no more."""

    def __init__(self, folder: Path, forget: Callable[[], None]) -> None:
        self.opened = Opened(folder)
        self.between: set[str] = set()
        self.of: dict[str, tuple[str, set[str]]] = {}
        """Label -> kind, and what was opened."""
        self._forget = forget

    def planned(self, survey: Survey) -> None:
        """Planning is between steps."""

    def event(self, event: Event, planned: Planned) -> None:
        """A step began or ended."""
        if event.what == "started":
            self.between |= self.opened.take()
            self._forget()
        elif event.what in ("done", "failed"):
            self.of[event.label] = (planned.kind, self.opened.take())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made_mirror.make(tmp_path_factory.mktemp("watched") / "mirror", rows=8, languages=LANGUAGES)
    made_mirror.encoder(folder)
    return folder


@pytest.fixture
def watch(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Watching]]:
    """Runs a job and says what was opened meanwhile."""
    all_watching = []

    def forget() -> None:
        monkeypatch.setattr(inputs, "_examples", inputs.Kept(64))
        monkeypatch.setattr(inputs, "_features", inputs.Kept(64))

    def run(**changed: Any) -> Watching:
        watching = Watching(made, forget)
        all_watching.append(watching)
        job = api.open_job(write(tmp_path, **changed), str(tmp_path / "store"), str(made))
        result, _ = api.run(job, [watching], live=False)
        assert not result.failed, result.failed[0].text
        watching.between |= watching.opened.take()
        return watching

    yield run
    for watching in all_watching:
        watching.opened.close()


def files_of(made: Path, languages: Callable[[str, str], bool], splits: tuple[Any, ...]) -> set[str]:
    """Files with rows of any target in the languages that `languages(language, split)` says."""
    manifest = Manifest.load(made)
    found = set()
    for task in TARGETS:
        for split in splits:
            places = [(code, task.place(split, code)) for code in task.reported(split) if code in LANGUAGES]
            for code, place in places:
                if place is not None and languages(code, split):
                    found |= {entry.path for entry in manifest.files(place)}
    return found


def forbidden(made: Path, reporting: str) -> set[str]:
    """Files with labels in other languages, or with rows that are reported."""
    return files_of(made, lambda code, split: code != "en" or split == reporting, made_mirror.BOTH)


@pytest.mark.parametrize("reporting", ["test", "dev"])
def test_no_reported_row_and_no_other_language_is_opened_to_train(
    made: Path, watch: Callable[..., Watching], reporting: Any
) -> None:
    """All targets that are trained, after every intermediate task; TyDiQA's dev is one file with all
    languages. What is reported elsewhere is not opened either: every target's rows are watched."""
    targets = [name for name in TRAINED if registry.task(name).reported(reporting)]
    evaluate = {**JOB["evaluate"], "split": reporting}
    mixture = {"mix": ["mnli", "squad_v1"]}
    watching = watch(
        intermediate=["none", mixture], targets=targets, languages=["en", "th"], evaluate=evaluate
    )
    phase_two = watch(intermediate=ROWS, targets=["tatoeba"], languages=["th"], evaluate=evaluate)
    watching.of |= phase_two.of
    kept_away = forbidden(made, reporting)
    english = "test" if reporting == "test" else "validation"
    assert {
        "datasets/google/xtreme/tydiqa/validation.parquet",
        "datasets/google/xtreme/XQuAD.en/validation.parquet",
        "datasets/facebook/xnli/th/validation.parquet",
        "files/lareqa/xquad-r/en.json.gz",
        f"datasets/google/xtreme/PAN-X.en/{english}.parquet",
    } <= kept_away
    seen = set()
    for label, (kind, opened) in watching.of.items():
        if kind in CHOOSING:
            assert not opened & kept_away, label
            assert any(path.startswith(("datasets/", "files/")) for path in opened), "nothing was watched"
            seen |= opened
        elif kind == "score":
            assert opened & kept_away, "the watch is blind"
    manifest = Manifest.load(made)
    for task in (registry.task(name) for name in (*targets, *ROWS)):
        for fitting in registry.fittings(task, reporting):
            assert seen >= {entry.path for entry in manifest.files(fitting.train)}, task.name
    between = watching.between | phase_two.between
    assert not [path for path in between if path.startswith(("datasets/", "files/"))], "planning reads no row"


def test_target_dev_opens_dev_in_all_languages_and_test_in_none(
    made: Path, watch: Callable[..., Watching]
) -> None:
    watching = watch(
        targets=["xnli", "panx", "mlqa"], languages=LANGUAGES,
        evaluate={**JOB["evaluate"], "selection": {"rows": "target_dev", "first": 4}},
    )  # fmt: skip
    trained = [(label, opened) for label, (kind, opened) in watching.of.items() if kind == "train"]
    tested = files_of(made, lambda code, split: split == "test", ("test",))
    for label, opened in trained:
        assert not opened & tested, label
    opened = {path for _, found in trained for path in found}
    assert {f"datasets/facebook/xnli/{code}/validation.parquet" for code in LANGUAGES} <= opened
    assert "datasets/google/xtreme/MLQA.zh.zh/validation.parquet" in opened
    assert {kind for label, (kind, _) in watching.of.items()} == {"train", "predict", "score"}


@pytest.mark.parametrize("target", ["xquad", "tydiqa"])
def test_target_dev_is_refused_where_dev_is_what_is_reported(made: Path, tmp_path: Path, target: str) -> None:
    job = write(tmp_path, targets=[target], evaluate={**JOB["evaluate"], "selection": "target_dev"})
    with pytest.raises(
        JobFileError,
        match="has dev rows apart from what is reported|would be chosen on the rows that are reported",
    ):
        api.plan(api.open_job(job, str(tmp_path / "store"), str(made)))


@pytest.mark.slow
@pytest.mark.cluster
def test_a_search_opens_what_training_opens(made: Path, watch: Callable[..., Watching]) -> None:
    """Trials run in processes of Ray's; the kernel tells of those too."""
    search = {"trials": 2, "concurrent": 2, "learning_rate": {"low": 1e-4, "high": 1e-2}, "epochs": [1, 2]}
    watching = watch(targets=["tydiqa", "panx"], languages=["en", "th"], search=search)
    found = {label: opened for label, (kind, opened) in watching.of.items() if kind == "search"}
    assert len(found) == 2
    for label, opened in found.items():
        assert opened - {FILE} and not opened & forbidden(made, "test"), label
        assert any(path.endswith("train.parquet") for path in opened), label


def test_the_watch_sees_what_python_and_pyarrow_open(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "a/b").mkdir(parents=True)
    pq.write_table(pa.table({"x": [1]}), tmp_path / "a/b/c.parquet")
    (tmp_path / "d.txt").write_text("d")
    opened = Opened(tmp_path)
    assert opened.take() == set()
    pq.read_table(tmp_path / "a/b/c.parquet")
    assert opened.take() == {"a/b/c.parquet"}
    assert (tmp_path / "d.txt").read_text() == "d"
    assert opened.take() == {"d.txt"} and opened.take() == set()
    opened.close()
