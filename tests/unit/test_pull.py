"""`xstilts data pull` and `data check`, against a hub on the loopback that fails in every way."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub, commit_of, parquet, serving
from typer.testing import CliRunner, Result

from xstilts.cli.data import Progress, data
from xstilts.errors import DataError, StoreError, UnknownName
from xstilts.execute import hub as hub_module
from xstilts.execute import pull as pull_module
from xstilts.execute.hub import Hub
from xstilts.execute.pull import pull
from xstilts.execute.wanted import Tally
from xstilts.families import reading
from xstilts.plan.needs import Needs
from xstilts.spec.experiment import ModelSpec
from xstilts.tasks import registry
from xstilts.tasks.manifest import Manifest
from xstilts.tasks.task import Family, Split, Task

PAIRS = [{"premise": f"p{i}", "hypothesis": f"h{i}", "label": i % 3} for i in range(30)]
TRAIN = Split(path="made/pairs", config="en", split="train")
TEST = Split(path="made/pairs", config="{code}", split="test")
ORIGINAL = Split(
    path="made/mined", config="de", split="dev", files=("files/mined/de.gold", "files/mined/de.*.txt"),
    owner="https://example.org/mined",
)  # fmt: skip


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub with one data set of two languages, and one model."""
    import huggingface_hub.constants as constants

    made = FakeHub()
    made.dataset(
        "made/pairs",
        {
            "license": "cc-by-4.0",
            "configs": [
                {"config_name": "en", "data_files": [{"split": "train", "path": "en/train-*"}]},
                {"config_name": "odd", "data_files": [{"split": "train", "path": "odd/*.jsonl"}]},
            ],
        },
        main={
            "README.md": b"card",
            "en/train-00000-of-00002.parquet": parquet(PAIRS[:20]),
            "en/train-00001-of-00002.parquet": parquet(PAIRS[20:]),
            "en/train-deep/x.parquet": parquet(PAIRS),
            "odd/train.jsonl": b"{}",
        },
        converted={
            "de/test/0000.parquet": parquet(PAIRS[:7]),
            "fr/test/0000.parquet": parquet(PAIRS[7:9]),
            "odd/train/0000.parquet": parquet(PAIRS[:3]),
            "big/partial-train/0000.parquet": parquet(PAIRS[:1]),
        },
    )
    made.model(
        "made/encoder",
        {"license": ["mit", "other"]},
        main={
            "config.json": b"{}", "tokenizer.json": b'{"a": 1}', "model.safetensors": b"weights" * 9,
            "pytorch_model.bin": b"no", "onnx/model.safetensors": b"no",
        },
    )  # fmt: skip
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("XSTILTS_DATA", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub_module, "WAITS", (0.0, 0.0))
    monkeypatch.setattr(pull_module, "TICK", 0.05)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    with serving(made):
        monkeypatch.setenv("HF_ENDPOINT", made.url)
        monkeypatch.setattr(constants, "ENDPOINT", made.url)
        template = made.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield made


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Task:
    """A task on that data set, by name."""
    made = Task(
        name="pairs", family=Family.CLASSIFICATION, roles=("target",), metric="accuracy",
        languages=("de", "fr"), columns={"text": "premise", "pair": "hypothesis", "label": "label"},
        labels=("0", "1", "2"), train=TRAIN, test=TEST, source="made up", licence="none",
    )  # fmt: skip
    monkeypatch.setitem(registry._tasks, "pairs", made)
    return made


def cli(*words: str | Path) -> Result:
    """`xstilts data ...` in this process."""
    return CliRunner().invoke(data, [str(word) for word in words], env={"COLUMNS": "200"})


def manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """Path -> what the manifest says."""
    return {each["path"]: each for each in json.loads((folder / "manifest.json").read_bytes())["files"]}


def needing(*needs: Split | ModelSpec) -> Needs:
    """Needs of splits and models."""
    splits = tuple(each for each in needs if isinstance(each, Split))
    return Needs(splits, tuple(each for each in needs if isinstance(each, ModelSpec)))


def problems(folder: Path) -> list[str]:
    """What the reader of manifests finds wrong."""
    return list(Manifest.load(folder).problems())


def test_a_task_is_pulled_and_read_by_the_program_itself(hub, task, tmp_path):
    done = cli("pull", "pairs", "--to", tmp_path / "m")
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert "3 fetched" in done.output
    names = {
        "datasets/made/pairs/de/test.parquet",
        "datasets/made/pairs/en/train-00000-of-00002.parquet",
        "datasets/made/pairs/en/train-00001-of-00002.parquet",
        "datasets/made/pairs/fr/test.parquet",
    }
    assert set(manifest(tmp_path / "m")) == names
    assert {p.relative_to(tmp_path / "m").as_posix() for p in (tmp_path / "m").rglob("*.parquet")} == names
    assert not list((tmp_path / "m").glob(".pulling-*")), "what was under way is cleared"
    found = Manifest.load(tmp_path / "m")
    assert list(found.problems()) == []
    train = found.rows(TRAIN, "en")
    assert len(train.sha256) == 2
    assert reading.read(train, tmp_path / "m") == PAIRS, "both shards, in order"
    assert reading.read(found.rows(TEST.at("fr"), "fr"), tmp_path / "m") == PAIRS[7:9]


def test_the_manifest_says_where_each_file_came_from(hub, task, tmp_path):
    cli("pull", "pairs", "--to", tmp_path)
    served = hub.repos["datasets/made/pairs"].files
    listed = manifest(tmp_path)
    one = listed["datasets/made/pairs/en/train-00000-of-00002.parquet"]
    data = served["main"]["en/train-00000-of-00002.parquet"]
    assert (tmp_path / one["path"]).read_bytes() == data, "not modified"
    assert one == {
        "path": one["path"], "dataset": "made/pairs", "config": "en", "split": "train", "rows": 20,
        "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(),
        "columns": ["premise", "hypothesis", "label"], "licence": "cc-by-4.0",
        "origin": f"made/pairs@{commit_of('made/pairs')}", "note": "",
    }  # fmt: skip
    converted = listed["datasets/made/pairs/de/test.parquet"]
    assert converted["origin"] == f"made/pairs@{commit_of('made/pairs', 'refs/convert/parquet')}"
    assert "converted" in converted["note"] and converted["licence"] == "cc-by-4.0"


def test_what_is_there_and_right_is_kept(hub, task, tmp_path):
    cli("pull", "pairs", "--to", tmp_path)
    hub.asked.clear()
    again = cli("pull", "pairs", "--to", tmp_path)
    assert again.exit_code == 0 and "3 kept" in again.output and hub.asked == []
    victim = tmp_path / "datasets/made/pairs/de/test.parquet"
    size = victim.stat().st_size
    victim.write_bytes(b"x" * size)
    (tmp_path / "datasets/made/pairs/en/train-00001-of-00002.parquet").unlink()
    third = cli("pull", "pairs", "--to", tmp_path)
    assert "2 fetched, 1 kept" in third.output
    assert problems(tmp_path) == []
    assert len(hub.gets("en/train-00000-of-00002.parquet")) == 0, "the shard that was right is not fetched"


def test_what_came_before_the_manifest_was_written_is_kept(hub, tmp_path):
    """A pull that was killed between the file and its line."""
    pull(needing(TEST.at("de")), str(tmp_path))
    (tmp_path / "manifest.json").unlink()
    hub.asked.clear()
    pull(needing(TEST.at("de")), str(tmp_path))
    assert hub.gets(".parquet") == [] and problems(tmp_path) == []


def test_a_torn_connection_is_taken_up_where_it_broke(hub, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr(
        "huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 64
    )  # 10 MB; none is lost but the last
    hub.faults["de/test/0000.parquet"] = ["drop"]
    outcome = pull(needing(TEST.at("de")), str(tmp_path))
    assert outcome.complete and problems(tmp_path) == []
    size = len(hub.repos["datasets/made/pairs"].files["refs/convert/parquet"]["de/test/0000.parquet"])
    first, second = (each[2] for each in hub.gets("0000.parquet"))
    assert first == "" and second == f"bytes={size // 2 // 64 * 64}-"


@pytest.mark.parametrize("fault", ["500", "short", "other"])
def test_a_file_that_comes_wrong_once_is_asked_for_again(hub, tmp_path, fault):
    hub.faults["de/test/0000.parquet"] = [fault]
    outcome = pull(needing(TEST.at("de")), str(tmp_path))
    assert outcome.complete and problems(tmp_path) == []
    assert len(hub.gets("0000.parquet")) == 2


@pytest.mark.parametrize("fault", ["500", "short", "other"])
def test_a_file_that_never_comes_right_never_gets_its_name(hub, tmp_path, fault):
    hub.faults["de/test/0000.parquet"] = [fault] * 9
    outcome = pull(needing(TEST.at("de"), TEST.at("fr")), str(tmp_path))
    assert [each.what for each in outcome.failures] == ["made/pairs, config de, split test"]
    assert "run the same command again" in outcome.failures[0].error.remedy
    assert list(manifest(tmp_path)) == ["datasets/made/pairs/fr/test.parquet"]
    assert not (tmp_path / "datasets/made/pairs/de").exists()


def test_one_wrong_shard_leaves_the_split_unlisted(hub, tmp_path):
    hub.faults["en/train-00001-of-00002.parquet"] = ["500"] * 9
    assert not pull(needing(TRAIN), str(tmp_path)).complete
    assert not (tmp_path / "manifest.json").exists()
    hub.faults.clear()
    hub.asked.clear()
    assert pull(needing(TRAIN), str(tmp_path)).complete
    assert len(hub.gets(".parquet")) == 1, "the shard that had come is not fetched again"
    assert reading.read(Manifest.load(tmp_path).rows(TRAIN, "en"), tmp_path) == PAIRS


def test_a_listing_that_fails_once_is_asked_for_again(hub, tmp_path):
    hub.faults["/api/datasets/made/pairs"] = ["500"]
    assert pull(needing(TEST.at("de")), str(tmp_path)).complete


def test_what_cannot_be_had_does_not_stop_the_rest(hub, task, tmp_path, monkeypatch):
    lost = Split(path="made/lost", config="{code}", split="test")
    monkeypatch.setitem(registry._tasks, "pairs", task.model_copy(update={"train": TRAIN, "dev": lost}))
    done = cli("pull", "pairs", "--to", tmp_path)
    assert done.exit_code == 1 and "3 fetched" in done.output
    assert done.stderr.count("the hub has no made/lost, or it is private") == 1, "once for both languages"
    assert "config de" in done.stderr and "config fr" in done.stderr
    assert f"{hub.url}/datasets/made/lost" in done.stderr and "HF_TOKEN" in done.stderr


def test_a_gated_data_set_says_how_to_be_let_in_and_no_token_is_told(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_SECRETSECRETSECRET")
    hub.repos["datasets/made/pairs"].gated = True
    hub.dataset("made/other", main={})
    hub.faults["/api/datasets/made/other"] = ["echo"] * 9
    wanted = needing(TEST.at("de"), Split(path="made/other", config="x", split="y"))
    told = {each.what: str(each.error) for each in pull(wanted, str(tmp_path)).failures}
    gated = told["made/pairs, config de, split test"]
    assert "gated" in gated and f"{hub.url}/datasets/made/pairs" in gated
    assert "huggingface-cli login" in gated and "HF_TOKEN" in gated
    assert "HTTP 500" in told["made/other, config x, split y"]
    assert "SECRET" not in json.dumps(told)


@pytest.mark.parametrize(
    ("config", "split", "says"),
    [
        ("en", "validation", "no parquet of made/pairs, config en, split validation"),
        ("dee", "test", "the nearest there is config de, split test"),
        ("big", "train", "only the beginning"),
    ],
)
def test_a_split_that_is_not_served_names_what_is(hub, tmp_path, config, split, says):
    outcome = pull(needing(Split(path="made/pairs", config=config, split=split)), str(tmp_path))
    assert says in str(outcome.failures[0].error)


def test_rows_that_the_card_keeps_in_another_format_come_from_the_conversion(hub, tmp_path):
    odd = Split(path="made/pairs", config="odd", split="train")
    assert pull(needing(odd), str(tmp_path)).complete
    assert len(reading.read(Manifest.load(tmp_path).rows(odd, "en"), tmp_path)) == 3


def test_a_model_comes_without_what_could_run_code(hub, tmp_path):
    outcome = pull(needing(ModelSpec(name="made/encoder")), str(tmp_path))
    assert outcome.complete, outcome.failures
    listed = manifest(tmp_path)
    assert set(listed) == {
        f"models/made/encoder/{name}" for name in ("config.json", "tokenizer.json", "model.safetensors")
    }
    weights = listed["models/made/encoder/model.safetensors"]
    assert weights["licence"] == "mit, other" and weights["dataset"] == "" and weights["rows"] is None
    assert weights["origin"] == f"made/encoder@{commit_of('made/encoder')}"
    assert problems(tmp_path) == []


def test_a_model_of_another_commit_is_another_model(hub, tmp_path):
    pull(needing(ModelSpec(name="made/encoder")), str(tmp_path))
    here = ModelSpec(name="made/encoder", revision=commit_of("made/encoder"))
    assert pull(needing(here), str(tmp_path)).kept == 1
    other = pull(needing(ModelSpec(name="made/encoder", revision="0" * 40)), str(tmp_path))
    assert "no such revision" in str(other.failures[0].error)


def test_a_model_with_pickled_weights_only_is_refused(hub, tmp_path):
    del hub.repos["models/made/encoder"].files["main"]["model.safetensors"]
    outcome = pull(needing(ModelSpec(name="made/encoder")), str(tmp_path))
    assert "no safetensors" in str(outcome.failures[0].error)


def test_a_folder_of_the_users_is_no_model_to_pull(hub, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "config.json").write_text("{}")
    assert pull(needing(ModelSpec(name=str(tmp_path / "own"))), str(tmp_path / "m")).complete
    assert hub.asked == []


def test_a_model_that_was_put_there_by_hand_is_listed_or_copied(hub, tmp_path):
    folder = tmp_path / "one/models/made/encoder"
    folder.mkdir(parents=True)
    for name in ("config.json", "vocab.txt", "model.safetensors", "pytorch_model.bin"):
        (folder / name).write_bytes(name.encode())
    (tmp_path / "one" / "manifest.json").write_text('{"version": 1, "files": []}')
    model = needing(ModelSpec(name="made/encoder"))
    assert pull(model, str(tmp_path / "two"), tmp_path / "one").copied == 1
    assert pull(model, str(tmp_path / "one")).entered == 1
    assert hub.asked == []
    for place in ("one", "two"):
        listed = manifest(tmp_path / place)
        names = ("config.json", "model.safetensors", "vocab.txt")
        assert sorted(listed) == [f"models/made/encoder/{name}" for name in names]
        assert problems(tmp_path / place) == []
    pinned = needing(ModelSpec(name="made/encoder", revision=commit_of("made/encoder")))
    assert pull(pinned, str(tmp_path / "three"), tmp_path / "one").fetched == 1, (
        "of which commit, nobody knows"
    )


def test_half_a_model_is_no_model(hub, tmp_path):
    """Its config.json comes last: without it nothing takes the folder for a model."""
    hub.faults["config.json"] = ["500"] * 9
    model = needing(ModelSpec(name="made/encoder"))
    assert not pull(model, str(tmp_path)).complete
    there = sorted(path.name for path in (tmp_path / "models/made/encoder").iterdir())
    assert there == ["model.safetensors", "tokenizer.json"] and not (tmp_path / "manifest.json").exists()
    hub.faults.clear()
    assert pull(model, str(tmp_path)).fetched == 1 and len(hub.gets("model.safetensors")) == 1


def test_another_mirror_goes_before_the_hub(hub, task, tmp_path):
    pull(needing(TEST.at("de"), TEST.at("fr")), str(tmp_path / "one"))
    words = json.loads((tmp_path / "one" / "manifest.json").read_bytes())
    words["files"][0] |= {"note": "partial: half of it", "licence": "said by hand"}
    (tmp_path / "one" / "manifest.json").write_text(json.dumps(words))
    hub.asked.clear()
    done = cli("pull", "pairs", "--to", tmp_path / "two", "--from", tmp_path / "one")
    assert done.exit_code == 0 and "1 fetched, 2 copied" in done.output
    assert "partial: half of it" in done.stderr
    assert not hub.gets("0000.parquet") and len(hub.gets("of-00002.parquet")) == 2
    first = manifest(tmp_path / "one")["datasets/made/pairs/de/test.parquet"]
    assert manifest(tmp_path / "two")["datasets/made/pairs/de/test.parquet"] == first


def test_a_damaged_file_of_another_mirror_is_not_copied(hub, tmp_path):
    pull(needing(TEST.at("de")), str(tmp_path / "one"))
    (tmp_path / "one/datasets/made/pairs/de/test.parquet").write_bytes(b"damaged")
    outcome = pull(needing(TEST.at("de")), str(tmp_path / "two"), tmp_path / "one")
    assert "not the file that its mirror lists" in str(outcome.failures[0].error)
    assert not (tmp_path / "two/datasets").exists()


def test_original_files_are_asked_for_once_and_listed_when_they_are_there(hub, tmp_path):
    outcome = pull(needing(ORIGINAL, ORIGINAL.model_copy(update={"split": "test"})), str(tmp_path))
    told = [str(each.error) for each in outcome.failures]
    assert len(told) == 2 and all("https://example.org/mined" in each for each in told)
    assert [each.what for each in outcome.failures] == list(ORIGINAL.files) and str(tmp_path) in told[0]
    folder = tmp_path / "files/mined"
    folder.mkdir(parents=True)
    (folder / "de.gold.gz").write_bytes(b"gold")
    (folder / "de.one.txt").write_bytes(b"one")
    (folder / "de.one.txt.gz").write_bytes(b"packed")
    (folder / "de.two.txt").write_bytes(b"two")
    outcome = pull(needing(ORIGINAL), str(tmp_path))
    assert outcome.complete and outcome.entered == 3
    listed = manifest(tmp_path)
    assert sorted(listed) == [f"files/mined/de.{name}" for name in ("gold.gz", "one.txt", "two.txt")]
    gold = listed["files/mined/de.gold.gz"]
    assert gold["sha256"] == hashlib.sha256(b"gold").hexdigest() and gold["bytes"] == 4
    assert gold["origin"] == "user-supplied" and gold["dataset"] == "" and gold["rows"] is None
    assert len(Manifest.load(tmp_path).files(ORIGINAL)) == 3
    assert pull(needing(ORIGINAL), str(tmp_path)).kept == 3
    (folder / "de.two.txt").write_bytes(b"three")
    assert pull(needing(ORIGINAL), str(tmp_path)).entered == 1 and problems(tmp_path) == []
    copied = pull(needing(ORIGINAL), str(tmp_path / "other"), tmp_path)
    assert copied.complete and copied.copied == 3 and problems(tmp_path / "other") == []


def test_the_original_files_of_a_real_mirror_are_copied_and_read(hub, mirror, tmp_path):
    done = cli("pull", "lareqa", "--to", tmp_path, "--from", mirror)
    assert done.exit_code == 0 and hub.asked == [], done.output
    place = registry.task("lareqa").place("test", "de")
    assert len(reading.read(Manifest.load(tmp_path).rows(place, "de"), tmp_path)) == 1190
    assert cli("check", tmp_path, "lareqa").exit_code == 0


def test_too_little_space_is_known_before_anything_is_fetched(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(StoreError, match="1 bytes free and .* are to come"):
        pull(needing(TEST.at("de")), str(tmp_path))
    assert not hub.gets("0000.parquet")


def test_a_full_disk_ends_it_with_what_to_do(hub, tmp_path, monkeypatch):
    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(StoreError, match="No space left on device.*free some space"):
        pull(needing(TEST.at("de")), str(tmp_path))


def test_two_pulls_into_one_folder_do_not_mix(hub, tmp_path):
    begun, go_on = threading.Event(), threading.Event()

    def wait(tally: Tally) -> None:
        begun.set()
        go_on.wait(5)

    first = threading.Thread(target=pull, args=(needing(TEST.at("de")), str(tmp_path), None, 1, wait))
    first.start()
    assert begun.wait(5)
    try:
        with pytest.raises(DataError, match="another .* is writing"):
            pull(needing(TEST.at("fr")), str(tmp_path))
    finally:
        go_on.set()
        first.join()
    assert problems(tmp_path) == []


def test_what_a_killed_pull_left_is_cleared(hub, tmp_path):
    (tmp_path / ".pulling-left").mkdir()
    pull(needing(TEST.at("de")), str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [".pulling.lock", "datasets", "manifest.json"]


def test_an_interruption_ends_it_and_leaves_whole_files(hub, tmp_path):
    def interrupt(tally: Tally) -> None:
        if tally.doing == "fetching":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull(needing(*(TEST.at(code) for code in ("de", "fr")), TRAIN), str(tmp_path), None, 1, interrupt)
    if (tmp_path / "manifest.json").exists():
        assert problems(tmp_path) == []
    assert pull(needing(*(TEST.at(code) for code in ("de", "fr")), TRAIN), str(tmp_path)).complete


def test_no_network_at_all_is_said_so(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    outcome = pull(needing(TEST.at("de")), str(tmp_path))
    assert "could not be fetched from the hub (ConnectError): check the network" in str(
        outcome.failures[0].error
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    outcome = pull(needing(TEST.at("de")), str(tmp_path))
    assert "HF_HUB_OFFLINE is set" in str(outcome.failures[0].error)


def test_a_damaged_manifest_and_an_unknown_name_are_the_users_to_mend(hub, tmp_path):
    (tmp_path / "manifest.json").write_text('{"files": [{"path": "../outside"}]}')
    with pytest.raises(DataError, match=r"manifest.json is no manifest.*lies outside"):
        pull(needing(TEST.at("de")), str(tmp_path))
    done = cli("pull", "xnlii", "--to", tmp_path)
    assert isinstance(done.exception, UnknownName) and "xnli" in str(done.exception)


def test_check_finds_what_is_wrong_and_what_is_missing(hub, task, tmp_path):
    pull(needing(TRAIN, TEST.at("de")), str(tmp_path))
    assert cli("check", tmp_path).exit_code == 0
    done = cli("check", tmp_path, "pairs")
    assert done.exit_code == 1 and "holds no made/pairs, config fr, split test" in done.stderr
    assert "3 of 3 files" in done.output
    (tmp_path / "datasets/made/pairs/de/test.parquet").write_bytes(b"")
    done = cli("check", tmp_path)
    assert done.exit_code == 1 and "de/test.parquet differs" in done.stderr
    cli("pull", "pairs", "--to", tmp_path)
    done = cli("check", tmp_path, "pairs")
    assert done.exit_code == 0 and "all that pairs reads is listed" in done.output


def test_check_names_models_and_original_files(hub, tmp_path):
    from xstilts.execute.wanted import missing

    pull(needing(TRAIN), str(tmp_path))
    lacking = missing(needing(TRAIN, ORIGINAL, ModelSpec(name="made/encoder")), Manifest.load(tmp_path))
    assert [each.what for each in lacking] == [*ORIGINAL.files, "model made/encoder"]
    assert str(lacking[0].error) == str(lacking[1].error) and "example.org/mined" in str(lacking[0].error)


def test_a_bucket_gets_the_files_first_and_the_manifest_last(hub, tmp_path, monkeypatch):
    """The store's promise is tested elsewhere; here a folder stands in for the bucket."""
    from xstilts.execute import mirror
    from xstilts.record.local import LocalStore

    class Bucket(LocalStore):
        """Called by an address; remembers what was written."""

        written: list[str] = []

        def __init__(self, root: Path | str) -> None:
            super().__init__(root)
            self.location = "s3://bucket/mirror"

        def upload(self, source: Path, name: str) -> None:
            self.written.append(name)
            super().upload(source, name)

        def put(self, name: str, data: bytes) -> None:
            self.written.append(name)
            super().put(name, data)

    monkeypatch.setattr(mirror, "open_store", lambda location: Bucket(tmp_path))
    outcome = pull(needing(TRAIN), "s3://bucket/mirror")
    assert outcome.complete and Bucket.written[-1] == "manifest.json"
    assert len(Bucket.written) == 3 and problems(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["datasets", "manifest.json"]
    assert pull(needing(TRAIN), "s3://bucket/mirror").kept == 1
    (tmp_path / "files/mined").mkdir(parents=True)
    (tmp_path / "files/mined/de.gold").write_bytes(b"gold")
    pull(needing(ORIGINAL), "s3://bucket/mirror")
    assert "files/mined/de.gold" in manifest(tmp_path)


def test_a_log_gets_a_line_now_and_then(capsys):
    from rich.console import Console

    with Progress(Console()) as progress:
        progress.tell(Tally("fetching", 1, 4))
        progress._told -= 11
        progress.tell(Tally("fetching", 2, 4, 3_000_000, 12_000_000, 1))
        progress.tell(Tally("fetching", 3, 4))
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 1
    assert told[0].startswith("fetching: 2 of 4, 3 MB of 12 MB") and told[0].endswith("1 could not be had")


def test_a_card_may_name_its_files_in_several_ways():
    from xstilts.execute.hub import Listing

    def configs(data_files: Any) -> dict[tuple[str, str], tuple[str, ...]]:
        return Listing("", "", (), {"configs": [{"data_files": data_files}]}).configs

    assert configs("a.parquet") == {("default", "train"): ("a.parquet",)}
    assert configs(["a", "b"]) == {("default", "train"): ("a", "b")}
    assert configs({"test": "t/*"}) == {("default", "test"): ("t/*",)}
    assert configs([{"split": "dev", "path": ["d", "e"]}]) == {("default", "dev"): ("d", "e")}
    assert Listing("", "", (), {"configs": ["cola", {"config_name": "x"}]}).configs == {}


def test_the_command_line_loads_no_machine_learning():
    """`xstilts data` runs on a small machine that only copies."""
    code = "import sys, xstilts.cli.data; print(sorted({'torch', 'transformers', 'ray'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_the_hub_is_the_public_one_unless_told(monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://huggingface.co")
    assert Hub().page("facebook/xnli", "dataset") == "https://huggingface.co/datasets/facebook/xnli"
    assert Hub().page("a/b", "model") == "https://huggingface.co/a/b"
