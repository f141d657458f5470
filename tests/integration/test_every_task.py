"""Every entry of the registry trains where it is trained, predicts and scores, in every language it has.

On made-up rows of the published formats, and on real rows where the mirror has them.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from made_up_run import SETTINGS, Done, check_scores, losses, run, write
from safetensors.torch import load_file
from small_job import records
from typer.testing import CliRunner

import made_mirror
from made_rows import LONG_WORDS
from xstilts import api
from xstilts.cli import main as cli
from xstilts.errors import DataError
from xstilts.execute import inputs, training
from xstilts.families import code_of
from xstilts.families import encoder as encoders
from xstilts.plan.step import TrainBody
from xstilts.report.standing import standings
from xstilts.tasks import registry, suites
from xstilts.tasks.manifest import Manifest
from xstilts.tasks.task import Family, Split, Task

ROWS = 12
TASKS = made_mirror.everything()
TARGETS = [
    pytest.param(task, split, id=f"{task.name}-{split}")
    for task in TASKS
    for split in made_mirror.BOTH
    if "target" in task.roles and task.reported(split)
]
INTERMEDIATE = [task for task in TASKS if "intermediate" in task.roles]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made_mirror.make(tmp_path_factory.mktemp("every") / "mirror", rows=ROWS)
    made_mirror.encoder(folder)
    return folder


def check_training(done: Done, fittings: tuple[registry.Fitting, ...]) -> None:
    """One recorded training for each fitting: what it left, and that the loss was felt."""
    trained = {record["identity"]["task"]["name"]: record for record in done.of("train")}
    assert set(trained) == {fitting.task.name for fitting in fittings}
    for fitting in fittings:
        record = trained[fitting.task.name]
        assert {"model/config.json", "model/model.safetensors", "model/tokenizer.json", "head"} <= {
            name.removesuffix(".safetensors") if name.startswith("head") else name
            for name in record["outputs"]
        }
        assert record["selection"]["chosen_on"] == "source_dev"
        seen = losses(done, record)
        assert len(seen) > 1 and seen[-1] != seen[0] and all(loss == loss for loss in seen)


@pytest.mark.parametrize(("task", "split"), TARGETS)
def test_a_target_is_trained_predicted_and_scored(made: Path, tmp_path: Path, task: Task, split: Any) -> None:
    done = run(tmp_path, made, targets=[task.name], evaluate=evaluate(split=split))
    assert done.result.complete and not done.result.survey.plan.missing
    check_scores(done, task.name, set(task.reported(split)), ROWS)
    check_training(done, registry.fittings(task, split))
    (scored,), (predicted,) = done.of("score"), done.of("predict")
    if task.family is Family.TAGGING:
        tags = pq.read_table(done.file(predicted, "predictions/en")).column("prediction").to_pylist()
        lengths = pq.read_table(done.file(scored, "items/en")).column("n").to_pylist()
        assert max(lengths) >= LONG_WORDS and [len(each) for each in tags] == lengths, "a word has no label"
    if task.family is Family.BITEXT_MINING:
        assert set(scored["result"]["thresholds"]) == set(task.languages)


@pytest.mark.parametrize("task", INTERMEDIATE, ids=lambda task: task.name)
def test_an_intermediate_task_is_a_row(made: Path, tmp_path: Path, task: Task) -> None:
    """With a frozen target, so that what is scored is what the row has made of the encoder."""
    row: Any = {"mix": ["mnli", task.name]} if task.family is Family.MASKED_LM else task.name
    done = run(
        tmp_path, made, intermediate=["none", row], targets=["tatoeba"], languages=["de", "th"],
        mlm={"languages": ["de", "th"]},
    )  # fmt: skip
    check_scores(done, "tatoeba", {"de", "th"}, ROWS)
    assert done.frame.groupby("intermediate").size().to_dict() == {
        "none": 2, (row if isinstance(row, str) else f"{task.name}+mnli"): 2
    }  # fmt: skip
    name = task.name if isinstance(row, str) else "mnli"
    (record,) = done.of("train")
    assert record["identity"]["task"]["name"] == name
    seen = losses(done, record)
    assert len(seen) > 1 and seen[-1] != seen[0]
    assert any(record["key"] in predicted["inputs"].values() for predicted in done.of("predict"))
    if task.open_labels:
        assert len(record["result"]["labels"]) > 2


def evaluate(**changed: Any) -> dict[str, Any]:
    """The job's `evaluate` with some words changed."""
    return {"split": "test", "selection": {"first": 6}, "retrieval": {"layer": -1}, **changed}


@pytest.fixture(scope="module")
def checkpoint(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of the user's own."""
    return made_mirror.encoder(tmp_path_factory.mktemp("own"), "my/checkpoint")


def rows_of_every_kind(checkpoint: Path) -> list[Any]:
    """A row of each kind that a job file may name, and tasks of several families."""
    return [
        "none", "untrained", "mnli", "squad_v2", "panx", "csqa", "ccg",
        {"mix": ["squad_v1", "mnli", "mlm"], "name": "mixture"},
        {"translated": "mnli", "languages": ["en", "th"], "name": "translated"},
        {"checkpoint": {"name": str(checkpoint)}, "name": "own"},
    ]  # fmt: skip


def test_rows_of_every_kind(made: Path, tmp_path: Path, checkpoint: Path) -> None:
    """And the target phase starts from each with the encoder as it was left and a head of its own."""
    captured: list[tuple[Any, dict[str, torch.Tensor], dict[str, torch.Tensor]]] = []
    course = training._course

    def watched(work: Any, body: TrainBody, lessons: Any, *rest: Any) -> Any:
        found = course(work, body, lessons, *rest)
        if body.mixing is None:
            captured.append((work.step, copied(found.model.encoder), copied(found.model.head)))
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training, "_course", watched)
        done = run(
            tmp_path, made, intermediate=rows_of_every_kind(checkpoint), targets=["xnli", "tatoeba"],
            languages=["en", "th"], mlm={"languages": ["en", "th"]},
        )  # fmt: skip
    assert done.frame.intermediate.nunique() == 10
    check_scores(done, "xnli", {"en", "th"}, ROWS)
    check_scores(done, "tatoeba", {"th"}, ROWS)
    encoder = load_file(made / f"models/{made_mirror.ENCODER}/model.safetensors")
    own = load_file(checkpoint / "model.safetensors")
    from_steps = 0
    for step, begun, head in captured:
        body = step.body
        if "encoder" in step.inputs:
            record = done.records[step.inputs["encoder"]]
            left = load_file(done.file(record, "model/model.safetensors"))
            from_steps += 1
            for name in (name for name in record["outputs"] if name.startswith("head")):
                assert not same(head, load_file(done.file(record, name))), "the head was taken over"
            assert not same(begun, encoder), "phase 2 left the encoder as it was"
        elif body.untrained:
            assert not same(begun, encoder)
            continue
        else:
            left = own if "checkpoint" in step.label else encoder
        assert same(begun, left), step.label
        model, _ = encoders.load(made / f"models/{made_mirror.ENCODER}")
        labelled = body.task if not body.task.open_labels else None
        if labelled is not None:
            fresh = encoders.fresh_head(code_of(body.task.family), labelled, model, body.seed)
            assert same(head, copied(fresh)), step.label
    # mnli, squad_v2, panx, csqa, ccg, the mixture and the translated row
    assert from_steps == 7


def copied(module: Any) -> dict[str, torch.Tensor]:
    """Its tensors as they are now."""
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether every tensor of `one` is in `other`, bit for bit; a pooler that `other` has too is not used."""
    rest = {name for name in other.keys() - one.keys() if not name.startswith("pooler.")}
    return not rest and all(name in other and torch.equal(one[name], other[name]) for name in one)


def test_stages_follow_one_another(made: Path, tmp_path: Path) -> None:
    """XCOPA is reached by SocialIQA, then COPA, which starts from SocialIQA's encoder."""
    done = run(tmp_path, made, intermediate=["mnli"], targets=["xcopa"], languages=["en", "th"])
    trained = {record["identity"]["task"]["name"]: record for record in done.of("train")}
    assert trained["siqa"]["inputs"] == {"encoder": trained["mnli"]["key"]}
    assert trained["copa"]["inputs"] == {"encoder": trained["siqa"]["key"]}
    assert done.of("predict")[0]["inputs"] == {"model": trained["copa"]["key"]}
    splits = done.frame.groupby("language").split.unique()
    assert (list(splits["en"]), list(splits["th"])) == (["validation"], ["test"])


def test_what_was_chosen_on_the_target_is_marked(made: Path, tmp_path: Path) -> None:
    marked = evaluate(selection={"rows": "target_dev", "first": 6})
    done = run(tmp_path, made, targets=["xnli", "udpos", "tatoeba"], languages=["en", "th"], evaluate=marked)
    found = done.frame.groupby("target").selection.unique().to_dict()
    # POS has no Thai dev: English dev alone chooses.
    assert {name: list(words) for name, words in found.items()} == {
        "tatoeba": [""], "udpos": ["target_dev"], "xnli": ["target_dev"]
    }  # fmt: skip
    for record in done.of("train"):
        assert record["selection"]["chosen_on"] == "target_dev"
    plain = run(tmp_path / "plain", made, targets=["xnli"], languages=["en"])
    assert set(plain.frame.selection) == {"source_dev"}


def test_what_a_task_teaches_is_learnt(made: Path, tmp_path: Path) -> None:
    """Meanings decide tags, so that a trained tagger knows its English training words and an untrained one
    does not: what is trained is what predicts."""
    settings = SETTINGS | {"epochs": 40, "learning_rate": 1.0e-2}
    done = run(tmp_path, made, targets=["udpos"], languages=["en", "th"], train={"target": settings})
    frame = done.frame[done.frame.metric == "token_accuracy"].set_index("language")
    assert frame.value["en"] > 60 > 30 > frame.value["th"], "1 of 17 tags is 6 %"


def _gone(folder: Path, path: str) -> None:
    made_mirror.without(folder, path)


def _cut(folder: Path, path: str) -> None:
    (folder / path).write_bytes((folder / path).read_bytes()[:-9])


def _other_bytes(folder: Path, path: str) -> None:
    data = (folder / path).read_bytes()
    (folder / path).write_bytes(data[:40] + bytes([data[40] ^ 255]) + data[41:])


def _label_outside_the_set(folder: Path, path: str) -> None:
    table = pq.read_table(folder / path, partitioning=None)
    rows = table.to_pylist()
    rows[3] |= {"label": 3} if "label" in rows[3] else {"pos_tags": [17] * len(rows[3]["tokens"])}
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), folder / path)
    made_mirror.enter(folder)


def command(*words: str | Path) -> Any:
    """The command, in this process, wide enough that no line is broken."""
    wide = {"COLUMNS": "4000"}
    return CliRunner().invoke(cli.app, [str(word) for word in words], env=wide)


@pytest.fixture
def spoilt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder to spoil; rows that a test before has read are forgotten."""
    monkeypatch.setattr(inputs, "_examples", inputs.Kept(64))
    monkeypatch.setattr(inputs, "_features", inputs.Kept(64))
    folder = made_mirror.make(tmp_path / "mirror", ["xnli", "udpos", "mnli"], ROWS, ["en", "th", "zh"])
    made_mirror.encoder(folder)
    return folder


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_gone, "holds no"),
        (_cut, "truncated"),
        (_other_bytes, "is not the file of the manifest|is truncated or no parquet file"),
        (_label_outside_the_set, "outside the set"),
    ],
)
@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("xnli", "datasets/facebook/xnli/th/test.parquet"),
        ("udpos", "datasets/google/xtreme/udpos.Thai/test.parquet"),
    ],
)
def test_a_spoilt_language_is_listed_and_the_others_are_scored(
    spoilt: Path, tmp_path: Path, spoil: Callable[[Path, str], None], why: str, target: str, path: str
) -> None:
    spoil(spoilt, path)
    job = write(tmp_path, intermediate=["none", "mnli"], targets=[target], languages=["en", "th", "zh"])
    words = (job, "--store", tmp_path / "store", "--data", spoilt)
    done = command("run", *words, "--no-mlflow")
    assert done.exit_code == 1, done.output
    assert f"left out of {target}: th" in done.output and re.search(why, done.output), done.output
    report = tmp_path / "store/jobs/made_up/report"
    assert "incomplete" in (report / "report.html").read_text()
    table = pandas.read_csv(report / "report.csv")
    assert set(table[table.status != "missing"].language) == {"en", "zh"}
    assert set(table[table.status == "missing"].language) == {"th"}
    gains = pandas.read_csv(report / "transfer.csv")
    assert all("th" in words for words in gains[gains.target == target].incomplete)
    again = command("run", *words, "--no-mlflow")
    assert again.exit_code == 1 and "th" in again.output
    assert "ran " not in again.output, "what is done is not done again"


def test_a_language_that_is_mended_is_scored(spoilt: Path, tmp_path: Path) -> None:
    path = spoilt / "datasets/facebook/xnli/th/test.parquet"
    whole = path.read_bytes()
    _cut(spoilt, str(path.relative_to(spoilt)))
    words = (write(tmp_path, targets=["xnli"], languages=["en", "th"]), "--store", tmp_path / "store")
    assert command("run", *words, "--data", spoilt, "--no-mlflow").exit_code == 1
    trained = {key for key in records(tmp_path / "store") if key.startswith("train-")}
    path.write_bytes(whole)
    done = command("run", *words, "--data", spoilt, "--no-mlflow")
    assert done.exit_code == 0, done.output
    assert {key for key in records(tmp_path / "store") if key.startswith("train-")} == trained
    table = pandas.read_csv(tmp_path / "store/jobs/made_up/report/report.csv")
    assert set(table.language) == {"en", "th"} and "missing" not in set(table.status)


def test_spoilt_training_rows_stop_the_job(spoilt: Path, tmp_path: Path) -> None:
    _cut(spoilt, "datasets/nyu-mll/multi_nli/default/train.parquet")
    words = (write(tmp_path, targets=["xnli"], languages=["en"]), "--store", tmp_path / "store")
    failed = command("run", *words, "--data", spoilt, "--no-mlflow")
    assert failed.exit_code == 2 or isinstance(failed.exception, DataError), failed.output
    assert not records(tmp_path / "store")


def test_a_suite_that_lacks_a_language_has_incomplete_averages(made: Path, tmp_path: Path) -> None:
    """The task without it, its group and the overall score; the other groups are whole."""
    folder = tmp_path / "mirror"
    shutil.copytree(made, folder)
    _gone(folder, "datasets/google/xtreme/udpos.Thai/test.parquet")
    done = run(tmp_path, folder, targets=[], suite="xtreme")
    assert not done.result.complete
    assert done.result.survey.plan.missing.keys() == {("udpos", "th")}
    (standing,) = standings(api.stored_plan(done.job), done.frame)
    assert {name for name, average in standing.tasks.items() if not average.complete} == {"udpos"}
    assert {name for name, average in standing.groups.items() if not average.complete} == {"tagging"}
    assert not standing.overall.complete and standing.overall.value is not None
    assert standing.missing == ("udpos: th",)
    scored = done.frame[done.frame.status != "missing"]
    for name, spoken in suites.suite("xtreme").tasks.items():
        lacking = {"th"} if name == "udpos" else set()
        assert set(scored[scored.target == name].language) == set(spoken) - lacking, name


REAL_SETTINGS: dict[str, Any] = SETTINGS | {"max_length": 64, "doc_stride": 32}
"""Of mini-12, with a hundred or two of the real training rows."""
SMALL = {"mnli": 0.02, "siqa": 0.004, "squad_v1": 0.01, "udpos": 0.01, "panx": 0.005, "hellaswag": 0.01}


def there(mirror: Path, task: Task, split: Any, wanted: int = 2) -> list[str]:
    """The first languages of the task, English last, whose reported rows the mirror has."""
    manifest = Manifest.load(mirror)

    def holds(place: Split | None) -> bool:
        return place is not None and manifest.holds(place)

    found = [code for code in task.reported(split) if holds(task.place(split, code))]
    trained = all(
        holds(fitting.train) and holds(fitting.selection) for fitting in registry.fittings(task, split)
    )
    complete = trained and (task.candidates is None or holds(task.candidates))
    return sorted(found, key=lambda code: code == "en")[:wanted] if complete else []


REAL = "squad_v1 squad_v2 mnli csqa hellaswag cosmosqa siqa mrpc copa udpos panx tydiqa".split()
REAL_TARGETS = (
    "udpos panx xnli xquad tatoeba tatoeba_after_squad_v1 mlqa tydiqa xcopa bucc2018 lareqa".split()
)
"""What the mirror must have; PAWS-X lacks its English training rows."""


def fraction(task: Task, split: Any = "test") -> float:
    """A share of the training rows that comes to a hundred or two."""
    stages = [fitting.task.name for fitting in registry.fittings(task, split)]
    return min([SMALL.get(name, 0.02) for name in stages], default=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL_TARGETS)
def test_real_rows_of_a_target(mirror: Path, tmp_path: Path, name: str) -> None:
    task = registry.task(name)
    split: Any = "test" if there(mirror, task, "test") else "dev"
    languages = there(mirror, task, split)
    assert languages, "the mirror lacks it"
    first = {} if task.family is Family.BITEXT_MINING else {"first": 10}
    settings = REAL_SETTINGS | {"fraction": fraction(task)}
    done = run(
        tmp_path, mirror, model={"name": "xstilts/mini-12"}, targets=[name], languages=languages,
        train={"target": settings}, evaluate=evaluate(split=split, **first),
    )  # fmt: skip
    items = int(done.frame.n.iloc[0])
    assert items == first.get("first", 8624)
    check_scores(done, name, set(languages), items)
    if registry.fittings(task, split):
        check_training(done, registry.fittings(task, split))


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_rows_of_an_intermediate_task(mirror: Path, tmp_path: Path, name: str) -> None:
    settings = REAL_SETTINGS | {"fraction": fraction(registry.task(name))}
    done = run(
        tmp_path, mirror, model={"name": "xstilts/mini-12"}, intermediate=[name], targets=["tatoeba"],
        languages=["sw"], train={"intermediate": settings}, evaluate=evaluate(first=10),
    )  # fmt: skip
    check_scores(done, "tatoeba", {"sw"}, 10)
    assert [record["identity"]["task"]["name"] for record in done.of("train")] == [name]
