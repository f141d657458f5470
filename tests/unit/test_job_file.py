"""Every mistake in a job file is told with file, line and what to write instead."""

from __future__ import annotations

import string
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xstilts.errors import JobFileError, UnknownName
from xstilts.frozen import digest
from xstilts.spec import explain
from xstilts.spec.experiment import Experiment
from xstilts.spec.load import JobFile, load, parse

PHASE = """\
    learning_rate: 1e-5
    epochs: 3
    effective_batch: 32
    max_length: 128
    doc_stride: 64
    schedule: linear
    warmup: 0.1
    warmup_steps: 100
    weight_decay: 0.01
    adam_epsilon: 1e-8
    clip: 1.0
    precision: fp32
    fraction: 0.5
    subset_seed: 0
    select:
      rows: source_dev
      first: 500
      every: 100
      patience: 3
      keep: last
"""
MODEL = """\
model:
  name: FacebookAI/xlm-roberta-large
  revision: c23d21b0620b635a76227c604d44e43a9f0ee389
"""
PRETRAIN = """\
pretrain:
  data: world
  languages: [en, no]
  sentences: 1000
  exponent: 0.3
  vocabulary: 4000
  layers: 2
  width: 128
  heads: 4
  length: 64
  mask: 0.15
  batch: 64
  steps: 100
  learning_rate: 1e-3
  warmup: 0.06
  weight_decay: 0.01
  dropout: 0.0
  precision: fp32
  seed: 0
"""
REST = f"""\
name: full
question: Does it help?
planted: a -> b
world: {{seed: 2}}
intermediate: [none, squad_v1]
targets: [xnli]
languages: [en, no]
mlm:
  data: xstilts/raw_text
  config: "{{code}}"
  languages: [en]
  sentences: 1000
  exponent: 0.3
  mask: 0.15
seeds: [1, 2]
settings: phang2020_v1
train:
  intermediate:
{PHASE}    tasks:
      squad_v1:
{"".join("    " + line for line in PHASE.splitlines(keepends=True))}  target:
{PHASE}    tasks: {{}}
search:
  phases: [intermediate, target]
  trials: 4
  concurrent: 2
  learning_rate:
    low: 1e-6
    high: 1e-4
  epochs: [1, 3]
  space: {{clip: [1.0]}}
  prune: asha
  seed: 7
  targets: []
evaluate:
  split: test
  first: 100
  selection:
    rows: source_dev
    first: 500
    every: 100
    patience: 3
    keep: best
  retrieval:
    layer: 14
    centre: true
probe:
  measures: [cka, logme]
  parallel: tatoeba
  sentences: 100
  layers: [0, -1]
  samples: 100
  shots: [16]
  draws: 3
execution:
  backend: inline
  engine: auto
  workers: 1
  threads: 1
  per_device_batch: 8
  device: cpu
  checkpoint_seconds: 60
  hang_seconds: 600
  gpus: 0.5
  ranks: 2
  shard: true
  budget:
    trials: 100
    accelerator_hours: 10
    money: 30
    price: 3
"""
HERE = Path("job.yaml")
MINIMAL = "name: a\nmodel: {name: m}\n"


def refused(text: str) -> str:
    with pytest.raises(JobFileError) as caught:
        parse(text, HERE)
    return str(caught.value)


def keys(text: str) -> list[tuple[int, int, str]]:
    """Line (from 1), column and name of every key but the names of tasks."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        name, colon, _ = line.partition(":")
        if colon and name.strip() != "squad_v1":
            found.append((number, len(name) - len(name.lstrip()), name.strip()))
    return found


FULL = {"model": MODEL + REST, "pretrain": REST + PRETRAIN}
PLACES = [(which, *key) for which, text in FULL.items() for key in keys(text)]


@pytest.mark.parametrize("which", FULL)
def test_the_full_job_is_valid_and_has_every_key(which: str) -> None:
    job = parse(FULL[which], HERE)
    written = {tuple("<task>" if part == "squad_v1" else part for part in path) for path in job.lines}
    other = {"model": "pretrain", "pretrain": "model"}[which]
    for section, kind in explain.sections():
        # `tasks` of one phase stands for both; of a row's keys one is written, and of suite and targets one.
        # A setting is searched between two ends or among choices, never both.
        if other in section or section[-3:-1] == ("target", "tasks") or {"<row>", "space"} & {*section}:
            continue
        if "target" in section and "<task>" in section:
            continue
        assert {(*section, name) for name in kind.model_fields} - written <= {(other,), ("suite",)}


@st.composite
def misspellings(draw: st.DrawFn) -> tuple[str, int, str, str]:
    """A full job with one letter of one key dropped, doubled, swapped, replaced or added."""
    which, number, column, name = draw(st.sampled_from(PLACES))
    at = draw(st.integers(0, len(name) - 1))
    letter = draw(st.sampled_from(string.ascii_lowercase))
    wrong = draw(
        st.sampled_from(
            [
                name[:at] + name[at + 1 :],
                name[: at + 1] + name[at:],
                name[:at] + name[at : at + 2][::-1] + name[at + 2 :],
                name[:at] + letter + name[at + 1 :],
                name[:at] + letter + name[at:],
            ]
        )
    )
    lines = FULL[which].splitlines()
    line = lines[number - 1]
    lines[number - 1] = line[:column] + wrong + line[column + len(name) :]
    return "\n".join(lines), number, name, wrong


@settings(max_examples=300, deadline=None)
@given(misspellings())
def test_any_single_misspelling_is_told_with_its_line_and_the_nearest_name(
    case: tuple[str, int, str, str],
) -> None:
    text, number, name, wrong = case
    if wrong == name:
        return
    told = refused(text)
    assert told.startswith(f"job.yaml:{number}: no key {wrong!r} "), told
    assert told.endswith(f"did you mean {name!r}?"), told


def test_every_pattern_has_words() -> None:
    patterns = set()
    for _, kind in explain.sections():
        for field in kind.model_fields.values():
            inside = [meta for arg in get_args(field.annotation) for meta in getattr(arg, "__metadata__", ())]
            patterns |= {getattr(meta, "pattern", None) for meta in unpacked([*field.metadata, *inside])}
    assert patterns - {None} == set(explain.PATTERNS)


def unpacked(metadata: list[Any]) -> list[Any]:
    """Pydantic keeps what it was told in a FieldInfo of its own inside `X | None`."""
    return [each for meta in metadata for each in (meta, *getattr(meta, "metadata", ()))]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("targest: [a]", "no key 'targest' at the top level: did you mean 'targets'?"),
        ("epochs: 3", "no key 'epochs' at the top level: it belongs in train.intermediate or"),
        ("<<: {seeds: [1]}", "no key '<<' at the top level: the keys there are name, "),
        ("seeds: 3", "seeds is 3: write a list, such as [a, b]"),
        ("seeds: []", "seeds is []: write a list with at least one item"),
        ("seeds: [1, two]", "seeds[1] is 'two': write a whole number"),
        ("seeds:", "seeds is empty: write a list, such as [a, b], or leave the key out"),
        ("train: {target: {epochs: three}}", "train.target.epochs is 'three': write a number"),
        ("train: {target: {epochs: 0}}", "train.target.epochs is 0: write a number above 0"),
        ("train: {target: {warmup: 1}}", "train.target.warmup is 1: write a number below 1"),
        (
            "train: {target: {learning_rate: .nan}}",
            "train.target.learning_rate is nan: write a finite number",
        ),
        ("train: {target: {tasks: [xnli]}}", "target.tasks is ['xnli']: write a section with a key for each"),
        ("train: {target: [a]}", "train.target is ['a']: write a section with keys among learning_rate, "),
        ("execution: {workers: 1.5}", "execution.workers is 1.5: write a whole number"),
        ("evaluate: {split: tset}", "evaluate.split is 'tset': did you mean 'test'? write one of 'dev' or"),
        ("evaluate: {retrieval: {centre: maybe}}", "centre is 'maybe': write true or false"),
        ("languages: [5]", "languages[0] is 5: write text, in quotes when it looks like a number"),
        ("search: {learning_rate: {low: 2, high: 1}, epochs: [1]}", "low 2.0 must be below high 1.0"),
        ("search: {learning_rate: {low: 1, high: 2}}", "search.epochs is missing: add `epochs: ...`"),
        ("seeds: [1]\nseeds: [2]", "seeds is given twice, first in line 3: keep one of them"),
        (
            "question: !!python/name:os.system x",
            "question has the tag !!python/name:os.system: leave the tag",
        ),
        ("targets: &t [*t]", "targets[0] contains itself: write it out without the alias"),
        ("targets: [a", "this is not YAML ("),
        ("\ttargets: [a]", "this is not YAML ("),
        ("? [a]\n: b", "a key is one word"),
    ],
)
def test_mistakes_are_told_in_one_sentence(line: str, told: str) -> None:
    message = refused(MINIMAL + line + "\n")
    first = 4 if line.startswith("seeds: [1]\n") else 3
    assert message.startswith(f"job.yaml:{first}: ") and told in message
    assert "\n" not in message
    assert not any(word in message.lower() for word in ("pydantic", "http", "validation", "input should"))


def test_a_wrong_setting_that_tasks_inherit_is_told_once() -> None:
    told = refused(MINIMAL + "train:\n  target:\n    epochs: 0\n    tasks: {a: {clip: 1}, b: {clip: 2}}\n")
    assert told.startswith("job.yaml:5: train.target.epochs is 0: ")


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    told = refused("model: {nmae: m}\nseeds: x\nname: Upper Case\n").splitlines()
    assert told[0] == "job.yaml has 3 problems: mend each of them"
    assert [line.split(": ")[0].strip() for line in told[1:]] == ["job.yaml:1", "job.yaml:2", "job.yaml:3"]


def test_a_job_starts_from_exactly_one_beginning() -> None:
    assert "`model` or from `pretrain`" in refused("name: a\n")
    assert "`model` or from `pretrain`" in refused(MINIMAL + "pretrain: {data: world}\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "job.yaml is empty"),
        ("# only a comment\n", "job.yaml is empty"),
        ("- a\n- b\n", "job.yaml:1: a job file is a list of `key: value`"),
        ("just words\n", "job.yaml:1: a job file is a list of `key: value`"),
        ("name: a\x00\n", "job.yaml: this is not YAML"),
        ("name: a\n---\nname: b\n", "job.yaml:2: this is not YAML"),
    ],
)
def test_files_that_hold_no_job(text: str, told: str) -> None:
    assert refused(text).startswith(told)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "quickstart.yaml").write_text(MINIMAL)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    for name, told in {
        "quickstrat.yaml": f"did you mean {tmp_path / 'quickstart.yaml'}?",
        "zzz": "has binary.yaml, quickstart.yaml",
        "binary.yaml": "is not text in UTF-8",
        ".": "is a folder, not a job file",
        "nowhere/a.yaml": "check the path",
    }.items():
        with pytest.raises(JobFileError) as caught:
            load(tmp_path / name)
        assert told in str(caught.value)


def test_norwegian_is_a_language_and_numbers_agree() -> None:
    def job(rate: str) -> JobFile:
        return parse(
            f"{MINIMAL}languages: [no, on, y, en]\ntrain: {{target: {{learning_rate: {rate}}}}}\n", HERE
        )

    assert job("1e-5").experiment.languages == ("no", "on", "y", "en")
    assert len({digest(job(rate).experiment) for rate in ("1e-5", '"1e-5"', "0.00001", "1.0E-5")}) == 1
    assert digest(job("1e-5").experiment) != digest(job("2e-5").experiment)


def test_later_problems_get_the_line_of_their_field() -> None:
    job = parse(MINIMAL + "targets:\n  - xnli\n  - xqaud\n", HERE)
    problem = UnknownName.among("task", "xqaud", ["xnli", "xquad"], "xstilts tasks", ("targets", 1))
    told = job.error_at(problem)
    assert isinstance(told, UnknownName)
    assert str(told) == "job.yaml:5: no task named 'xqaud': did you mean 'xquad'?"
    assert job.error_at(UnknownName("a", "b")).args == ("a", "b", ())
    assert str(job.error_at(UnknownName("a", "b", ("targets", 9)))) == "job.yaml:3: a: b"
    assert str(job.error_at(UnknownName("a", "b", ("seeds",)))) == "job.yaml: a: b"


@pytest.mark.parametrize("path", sorted(Path("jobs").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_jobs_of_this_repository_are_valid_and_named_by_their_file(path: Path) -> None:
    assert load(path).experiment.name == path.stem


def test_no_word_of_the_model_is_unreachable() -> None:
    assert explain.allowed(()) == tuple(Experiment.model_fields)
    assert "epochs" in explain.allowed(("train", "target", "tasks", "anything"))
    assert explain.allowed(("seeds", 0)) == ()


def test_reading_a_job_is_quick(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(FULL["model"])
    code = (
        "import sys, time; start = time.process_time(); from xstilts.spec.load import load\n"
        "load(sys.argv[1]); print(time.process_time() - start)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "job.yaml")]
    best = min(float(subprocess.check_output(command, text=True)) for _ in range(3))
    # 0.13 s of processor time on the slower of the two machines this was written on, pydantic included.
    assert best < 0.5


def test_a_wrong_short_form_is_told() -> None:
    said = refused(MINIMAL + "evaluate: {selection: target_de}\n")
    assert "job.yaml:3: evaluate.selection.rows is 'target_de': did you mean 'target_dev'?" in said
