"""`xstilts store` on a folder: what it holds, what may go, what is damaged. In a bucket: tests/contracts."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from made_up_store import MadeUpStore
from xstilts.cli.store import commands
from xstilts.errors import StoreError, XstiltsError
from xstilts.record import checking, cleaning, contents
from xstilts.record.artifacts import StepPaths
from xstilts.record.dropped import check_kept, dropped, is_whole, remade, set_aside, stored_inputs
from xstilts.record.lease import Lease
from xstilts.record.local import LocalStore
from xstilts.record.schema import StepRecord, read_record


@pytest.fixture
def made(tmp_path: Path) -> MadeUpStore:
    return MadeUpStore(LocalStore(tmp_path / "store"))


def xstilts(made: MadeUpStore, *words: str) -> tuple[int, Any]:
    """Exit code and what `--json` says."""
    result = CliRunner().invoke(commands, [*words, "--store", made.store.location, "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, json.loads(result.stdout)


def damaged(store: LocalStore, key: str) -> list[str]:
    return sorted(each.problem for each in checking.verify(store).damage if each.key == key)


# ------------------------------------------------------------------------------------------------ ls and du


def test_ls_tells_states(made: MadeUpStore) -> None:
    done = made.train("train-a-s1--1")
    made.train("train-b-s1--2", recorded=False)
    made.store.put(StepPaths("train-b-s1--2").attempt("x"), b"{}")
    made.train("train-c-s1--3", recorded=False)
    Lease.take(made.store, StepPaths("train-d-s1--4"), "a1", "driver")
    made.store.put(StepPaths("train-e-s1--5").record, b"{")
    gone = Lease.take(made.store, StepPaths("train-f-s1--6"), "a1", "driver")
    assert gone is not None
    left = json.dumps(json.loads(gone.claim.to_json()) | {"pid": 5_000_000})
    made.store.put(StepPaths("train-f-s1--6").lease, left.encode())
    code, words = xstilts(made, "ls")
    assert code == 0
    states = {each["key"]: each["state"] for each in words}
    assert states == {
        "train-a-s1--1": "recorded",
        "train-b-s1--2": "failed",
        "train-c-s1--3": "stopped",
        "train-d-s1--4": "running",
        "train-e-s1--5": "damaged",
        "train-f-s1--6": "stopped",
    }
    first = words[0]
    assert first["finished"] == done.finished
    assert first["bytes"] == sum(size for _, size in made.store.sizes("steps/train-a-s1--1/"))
    assert [each["key"] for each in xstilts(made, "ls", "--state", "failed")[1]] == ["train-b-s1--2"]
    assert xstilts(made, "ls", "--kind", "score")[1] == []


def test_ls_refuses_what_is_no_kind_or_state(made: MadeUpStore) -> None:
    made.train("train-a--1")
    with pytest.raises(XstiltsError, match="did you mean 'train'"):
        xstilts(made, "ls", "--kind", "trains")
    with pytest.raises(XstiltsError, match="no state of steps named 'x'"):
        xstilts(made, "ls", "--state", "x")


@pytest.mark.parametrize("command", ["ls", "du", "gc", "verify"])
def test_no_store_is_said_and_none_is_made(tmp_path: Path, command: str) -> None:
    result = CliRunner().invoke(commands, [command, "--store", str(tmp_path / "none")])
    assert isinstance(result.exception, StoreError)
    assert "there is no store" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_du_counts_every_byte_once(made: MadeUpStore) -> None:
    made.train("train-a-s1--1", losing=True)
    made.predict("predict-a--2", "train-a-s1--1")
    made.train("train-b-s1--3", recorded=False)
    made.store.put("jobs/j/job.yaml", b"x" * 7)
    made.store.put("mirror/manifest.json", b"x" * 11)
    made.store.put("mlflow.db", b"x" * 13)
    _, words = xstilts(made, "du")
    sizes = dict(made.store.sizes(""))
    assert words["bytes"] == sum(sizes.values()) == sum(each["bytes"] for each in words["what"].values())
    assert words["files"] == len(sizes)
    assert {what: words["what"][what]["bytes"] for what in ("jobs", "mirror", "mlflow")} == {
        "jobs": 7, "mirror": 11, "mlflow": 13,
    }  # fmt: skip
    assert words["what"]["models"] == {"bytes": 300 + 20 + 40, "files": 3}
    assert words["what"]["losing attempts"]["bytes"] == 1000
    assert words["what"]["predictions"] == {"bytes": 50, "files": 1}
    assert words["what"]["checkpoints"]["bytes"] == 2 * 500
    assert set(words["kinds"]) == {"train", "predict"}
    assert sum(words["kinds"].values()) == sum(size for name, size in sizes.items() if name[:6] == "steps/")


# ------------------------------------------------------------------------------------------------------- gc


def test_gc_says_first_and_removes_then(made: MadeUpStore) -> None:
    record = made.train("train-a-s1--1", losing=True)
    made.train("train-b-s1--2", recorded=False)
    paths = StepPaths("train-a-s1--1")
    made.store.put(paths.taken("0" * 64), b"{}")
    made.store.put(paths.lease, b"left behind")
    made.store.put(paths.attempt("lost"), b"{}")
    before = dict(made.store.sizes(""))
    code, words = xstilts(made, "gc")
    assert code == 0
    assert dict(made.store.sizes("")) == before
    assert {each["what"] for each in words["steps"]} == {"losing attempts", "checkpoints", "leases"}
    assert not words["removed"]
    _, done = xstilts(made, "gc", "--yes")
    assert (done["removed"], done["files"], done["bytes"]) == (True, words["files"], words["bytes"])
    after = dict(made.store.sizes(""))
    gone = set(before) - set(after)
    assert gone == {name for each in words["steps"] for name in each["files"]}
    assert sum(before[name] for name in gone) == words["bytes"]
    assert set(after) - set(before) == {paths.dropped}
    assert paths.attempt("lost") in after
    assert [name for name in after if "train-b" in name] == [name for name in before if "train-b" in name]
    assert checking.verify(made.store).damage == []
    assert dropped(made.store, record.key) is None, "all that its record names is there"
    note = json.loads(made.store.read(paths.dropped) or b"")
    assert {each["what"]: each["files"] for each in note["removed"]} == {
        "losing attempts": 2, "checkpoints": 1, "leases": 2,
    }  # fmt: skip
    assert xstilts(made, "gc", "--yes")[1]["files"] == 0


def test_gc_removes_nothing_that_a_record_names(made: MadeUpStore) -> None:
    record = made.train("train-a-s1--1", losing=True)
    names = ("runs/win/checkpoints/00000010/model.safetensors", "runs/lost/model/model.safetensors")
    outputs = {name: {"path": name, "bytes": 500, "sha256": "0"} for name in names}
    paths = StepPaths(record.key)
    made.store.put(paths.record, json.dumps(json.loads(record.to_json()) | {"outputs": outputs}).encode())
    xstilts(made, "gc", "--yes")
    assert all(made.store.exists(f"{paths.root}/{name}") for name in names)
    assert not made.store.exists(f"{paths.root}/runs/lost/checkpoints/00000010/model.safetensors")


def test_gc_leaves_a_step_that_somebody_works_on(made: MadeUpStore) -> None:
    made.train("train-a-s1--1", losing=True)
    lease = Lease.take(made.store, StepPaths("train-a-s1--1"), "orphan", "driver-7")
    before = dict(made.store.sizes(""))
    _, words = xstilts(made, "gc", "--yes", "--unused")
    assert words["skipped"] == {"train-a-s1--1": "driver-7 works on it"}
    assert words["files"] == 0
    assert dict(made.store.sizes("")) == before
    assert lease is not None
    lease.release()
    assert xstilts(made, "gc", "--yes", "--unused")[1]["files"] == 6


@pytest.mark.parametrize(
    "change", [{"pid": 5_000_000}, {"heartbeat": "2020-01-01T00:00:00+00:00", "boot": ""}]
)
def test_gc_removes_leases_of_who_is_gone(made: MadeUpStore, change: dict[str, Any]) -> None:
    made.train("train-a-s1--1")
    paths = StepPaths("train-a-s1--1")
    lease = Lease.take(made.store, paths, "a9", "driver")
    assert lease is not None
    made.store.put(paths.lease, json.dumps(json.loads(lease.claim.to_json()) | change).encode())
    xstilts(made, "gc", "--yes")
    assert not made.store.exists(paths.lease)


def test_gc_looks_again_before_it_removes(made: MadeUpStore) -> None:
    made.train("train-a-s1--1", losing=True)
    made.train("train-b-s1--2", losing=True)
    found = cleaning.look(made.store)
    assert Lease.take(made.store, StepPaths("train-a-s1--1"), "a9", "driver")
    made.store.delete(StepPaths("train-b-s1--2").record)
    made.train("train-b-s1--2", attempt="other")
    done = cleaning.carry_out(made.store, found)
    assert done.doomed == []
    assert done.skipped == {
        "train-a-s1--1": "driver works on it",
        "train-b-s1--2": "it has been made again meanwhile",
    }


def test_gc_removes_weights_that_no_plan_needs(made: MadeUpStore) -> None:
    for key in ("train-a-s1--1", "train-b-s1--2", "train-c-s1--3", "pretrain-x--4"):
        made.train(key)
    made.predict("predict-a--5", "train-a-s1--1")
    made.plan("j", ("predict-a--5", ["train-a-s1--1"]), ("train-b-s1--2", ["pretrain-x--4"]))
    made.plan("other", ("predict-c--6", ["train-c-s1--3"]))
    _, words = xstilts(made, "gc", "--yes", "--unused")
    models = {each["key"] for each in words["steps"] if each["what"] == "models"}
    assert models == {"train-a-s1--1", "train-b-s1--2", "pretrain-x--4"}
    assert words["needed"] == {"train-c-s1--3": "predict-c--6 of job other needs it"}
    found = dropped(made.store, "train-a-s1--1")
    assert found is not None
    assert found.outputs == ("head.safetensors", "model/config.json", "model/model.safetensors")
    left = list(made.store.list("steps/train-a-s1--1/runs/"))
    assert left == ["steps/train-a-s1--1/runs/win/history.jsonl"]
    assert checking.verify(made.store).damage == [], "what was dropped is not damaged"
    states = {each.key: each.state for each in contents.holdings(made.store)}
    assert states["train-a-s1--1"] == "dropped"
    assert states["train-c-s1--3"] == "recorded"


def test_gc_takes_a_pattern_of_keys(made: MadeUpStore) -> None:
    for key in ("train-a-s1--1", "train-b-s1--2"):
        made.train(key)
    _, words = xstilts(made, "gc", "--models", "train-b-*", "--yes")
    assert {each["key"] for each in words["steps"] if each["what"] == "models"} == {"train-b-s1--2"}


def test_gc_keeps_all_weights_when_a_plan_cannot_be_read(made: MadeUpStore) -> None:
    made.train("train-a-s1--1")
    made.store.put("jobs/j/plan-0.json", b"{]")
    with pytest.raises(StoreError, match=r"jobs/j/plan-0.json.*cannot be read.*remove the file"):
        xstilts(made, "gc", "--unused")
    assert xstilts(made, "gc")[0] == 0


def test_gc_keeps_what_a_dropped_step_needs_to_be_made_again(made: MadeUpStore) -> None:
    for key in ("train-mid-s1--1", "train-end-s1--2"):
        made.train(key)
    made.plan("j", ("train-end-s1--2", ["train-mid-s1--1"]))
    xstilts(made, "gc", "--models", "train-end-*", "--yes")
    made.plan("j", ("train-end-s1--2", ["train-mid-s1--1"]), ("predict-x--3", ["train-end-s1--2"]))
    _, words = xstilts(made, "gc", "--unused", "--yes")
    assert words["files"] == 0
    assert words["needed"] == {"train-mid-s1--1": "train-end-s1--2 of job j needs it"}


def test_gc_that_was_killed_goes_on(made: MadeUpStore, monkeypatch: pytest.MonkeyPatch) -> None:
    made.train("train-a-s1--1")
    delete = made.store.delete

    def killed(name: str) -> None:
        if name.endswith("model.safetensors"):
            raise KeyboardInterrupt
        delete(name)

    monkeypatch.setattr(made.store, "delete", killed)
    with pytest.raises(KeyboardInterrupt):
        cleaning.carry_out(made.store, cleaning.look(made.store, "*"))
    monkeypatch.undo()
    assert dropped(made.store, "train-a-s1--1") is not None, "said before it was done"
    assert checking.verify(made.store).damage == []
    cleaning.carry_out(made.store, cleaning.look(made.store, "*"))
    assert list(made.store.list("steps/train-a-s1--1/runs/")) == [
        "steps/train-a-s1--1/runs/win/history.jsonl"
    ]


def test_gc_removes_temporary_files_of_yesterday(made: MadeUpStore) -> None:
    made.train("train-a-s1--1", checkpoints=False)
    root = Path(made.store.location)
    old, new = root / "steps" / ".writing-1-a", root / "mirror" / ".writing-2-b"
    for path in (old, new):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"12345")
    os.utime(old, (time.time() - 90_000,) * 2)
    assert xstilts(made, "gc")[1]["unfinished"] == [{"name": "steps/.writing-1-a", "bytes": 5}]
    assert old.exists()
    xstilts(made, "gc", "--yes")
    assert not old.exists()
    assert new.exists()


def test_gc_goes_on_where_it_may_not_look_for_leftovers(
    made: MadeUpStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.train("train-a-s1--1")

    def refuse(seconds: float) -> Any:
        raise StoreError("access denied", "ask")

    monkeypatch.setattr(made.store, "leftovers", refuse)
    found = cleaning.look(made.store)
    assert found.files == 1
    assert found.notes == ["unfinished uploads are left out (access denied: ask)"]


# ------------------------------------------------------------------------------------- dropped and made again


def test_reading_a_dropped_output_says_what_to_do(made: MadeUpStore) -> None:
    record = made.train("train-a-s1--1")
    check_kept(made.store, record, "model/")
    assert is_whole(made.store, record.key)
    cleaning.carry_out(made.store, cleaning.look(made.store, "*"))
    assert not is_whole(made.store, record.key)
    assert not is_whole(made.store, "train-none--0")
    check_kept(made.store, record, "history")
    with pytest.raises(StoreError, match=r"of train-a-s1--1 were dropped by store gc \(20.*xstilts run"):
        check_kept(made.store, record, "model/")


def test_a_dropped_step_is_set_aside_and_made_again(made: MadeUpStore) -> None:
    record = made.train("train-a-s1--1")
    cleaning.carry_out(made.store, cleaning.look(made.store, "*"))
    name = set_aside(made.store, record.key, "dropped")
    assert name.startswith("steps/train-a-s1--1/dropped-20")
    assert StepRecord.from_json(made.store.read(name) or b"") == record
    assert read_record(made.store, record.key) is None
    assert dropped(made.store, record.key) is None
    again = made.train(record.key, attempt="again")
    assert dropped(made.store, record.key) is None
    check_kept(made.store, again)
    assert checking.verify(made.store).damage == []


def test_what_was_dropped_of_an_older_record_does_not_count(made: MadeUpStore) -> None:
    record = made.train("train-a-s1--1")
    cleaning.carry_out(made.store, cleaning.look(made.store, "*"))
    note = made.store.read(StepPaths(record.key).dropped)
    set_aside(made.store, record.key, "dropped")
    again = made.train(record.key, attempt="again")
    made.store.put(StepPaths(record.key).dropped, note or b"")  # set_aside was killed
    assert dropped(made.store, record.key) is None
    check_kept(made.store, again)


def test_steps_are_made_again_only_for_steps_to_run() -> None:
    inputs = [("pre", []), ("mid", ["pre"]), ("end", ["mid"]), ("p1", ["end"]), ("p2", ["mid"])]
    gone = {"pre", "mid", "end"}
    asked: list[str] = []

    def was_dropped(step: str) -> bool:
        asked.append(step)
        return step in gone

    def again(recorded: set[str]) -> set[str]:
        return remade(inputs, recorded, was_dropped)

    assert again({"pre", "mid", "end", "p1", "p2"}) == set()
    assert asked == []
    assert again({"pre", "mid", "end", "p2"}) == {"pre", "mid", "end"}
    assert again({"pre", "mid", "end", "p1"}) == {"pre", "mid"}
    gone.discard("mid")
    assert again({"pre", "mid", "end", "p1"}) == set()
    assert again({"pre", "mid", "end", "p2"}) == {"end"}


@pytest.mark.parametrize(
    "plan", [{}, {"steps": 3}, {"steps": [{}]}, {"steps": [{"label": "a", "key": None}]}]
)
def test_what_is_no_plan_is_refused(plan: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no plan"):
        stored_inputs(plan)


# --------------------------------------------------------------------------------------------------- verify


def test_verify_finds_nothing_in_a_whole_store(made: MadeUpStore) -> None:
    made.train("train-a-s1--1", losing=True)
    made.predict("predict-a--2", "train-a-s1--1")
    code, words = xstilts(made, "verify")
    assert (code, words["whole"], words["right"], words["outputs"], words["steps"]) == (0, True, 5, 5, 2)
    assert [(each["attempt"], each["bytes"]) for each in words["orphans"]] == [("lost", 1000)]
    made.store.put(StepPaths("train-a-s1--1").attempt("lost"), b"{}")
    assert xstilts(made, "verify")[1]["orphans"] == []


def test_verify_lists_all_that_is_wrong_at_once(made: MadeUpStore) -> None:
    for number in range(5):
        made.train(f"train-{number}-s1--1")
    root = "steps/train-{}-s1--1/runs/win/"
    flipped = bytearray(made.store.read(root.format(0) + "model/model.safetensors") or b"")
    flipped[17] ^= 1
    made.store.put(root.format(0) + "model/model.safetensors", bytes(flipped))
    made.store.put(root.format(1) + "model/model.safetensors", b"short")
    made.store.delete(root.format(2) + "head.safetensors")
    made.store.put("steps/train-3-s1--1/record.json", b'{"schema": 1}')
    made.store.put(
        "steps/train-5-s1--1/record.json", made.store.read("steps/train-4-s1--1/record.json") or b""
    )
    made.store.put("jobs/j/plan-0.json", b"[]")
    code, words = xstilts(made, "verify")
    assert (code, words["whole"]) == (1, False)
    problems = {each["name"].removeprefix("steps/"): each["problem"] for each in words["damage"]}
    assert problems.pop("train-3-s1--1/record.json").startswith("the record cannot be used: ")
    assert problems == {
        "train-0-s1--1/runs/win/model/model.safetensors": "its bytes are not those that were recorded",
        "train-1-s1--1/runs/win/model/model.safetensors": "it has 5 bytes, and 300 were recorded",
        "train-2-s1--1/runs/win/head.safetensors": "it is missing",
        "train-5-s1--1/record.json": "the record cannot be used: it is the record of train-4-s1--1",
        "jobs/j/plan-0.json": "the plan cannot be read",
    }
    assert (words["outputs"], words["right"]) == (16, 13)
    code, quick = xstilts(made, "verify", "--quick")
    assert code == 1
    assert len(quick["damage"]) == len(words["damage"]) - 1, (
        "a folder notes no checksums: a flipped byte passes"
    )


def test_repair_has_damaged_steps_made_again(made: MadeUpStore) -> None:
    for number in range(4):
        made.train(f"train-{number}-s1--1")
    made.store.delete("steps/train-0-s1--1/runs/win/head.safetensors")
    made.store.put("steps/train-1-s1--1/record.json", b"\0")
    made.store.delete("steps/train-2-s1--1/runs/win/head.safetensors")
    lease = Lease.take(made.store, StepPaths("train-2-s1--1"), "a9", "driver")
    assert lease is not None
    code, words = xstilts(made, "verify", "--repair")
    assert (code, words["busy"]) == (1, ["train-2-s1--1"])
    assert set(words["repaired"]) == {"train-0-s1--1", "train-1-s1--1"}
    for key, name in words["repaired"].items():
        assert name.startswith(f"steps/{key}/damaged-20")
        assert made.store.exists(name)
        assert not made.store.exists(StepPaths(key).record)
        assert not made.store.exists(StepPaths(key).lease)
    assert made.store.read(words["repaired"]["train-1-s1--1"]) == b"\0"
    lease.release()
    assert xstilts(made, "verify", "--repair")[0] == 0
    assert xstilts(made, "verify")[0] == 0
    made.train("train-1-s1--1", attempt="again")
    assert xstilts(made, "verify")[0] == 0
    assert xstilts(made, "gc", "--yes")[0] == 0
    assert not list(made.store.list("steps/train-1-s1--1/runs/win/")), "the old attempt is a losing one now"


@pytest.mark.parametrize(
    "change",
    [
        {"outputs": {"model": {"path": "../../../etc/passwd", "bytes": 1, "sha256": "0"}}},
        {"outputs": {"model": {"path": "/etc/passwd", "bytes": 1, "sha256": "0"}}},
        {"outputs": {"model": {"path": "runs/../../other/x", "bytes": 1, "sha256": "0"}}},
        {"outputs": {"model": {"path": "a\nb", "bytes": 1, "sha256": "0"}}},
        {"inputs": {"encoder": "../x"}},
        {"inputs": {"encoder": "a/b"}},
        {"attempt": "../../x"},
        {"key": ".."},
    ],
)
def test_a_record_that_points_elsewhere_is_refused(made: MadeUpStore, change: dict[str, Any]) -> None:
    record = made.train("train-a-s1--1")
    words = json.loads(record.to_json()) | change
    made.store.put(StepPaths(record.key).record, json.dumps(words).encode())
    with pytest.raises(StoreError, match="the record of train-a-s1--1 is damaged"):
        read_record(made.store, record.key)
    assert len(damaged(made.store, record.key)) == 1
    assert cleaning.look(made.store, "*").files == 0


@pytest.mark.parametrize("data", [b"", b"\xff", b"null", b"3", b'"x"', b"[]", b"{}", b'{"schema": 1}'])
def test_a_record_that_is_none_is_a_sentence(made: MadeUpStore, data: bytes) -> None:
    made.store.put(StepPaths("train-a--1").record, data)
    with pytest.raises(StoreError, match="the record of train-a--1 is damaged"):
        read_record(made.store, "train-a--1")
    assert len(damaged(made.store, "train-a--1")) == 1


def test_people_read_it_too(made: MadeUpStore) -> None:
    made.train("train-a-s1--1", losing=True)
    said = {}
    for words in (["ls"], ["du"], ["gc"], ["verify"], ["gc", "--yes", "--unused"], ["ls"]):
        result = CliRunner().invoke(commands, [*words, "--store", made.store.location])
        assert result.exit_code == 0, result.output
        said[" ".join(words)] = result.stdout
    assert "train-a-s1--1\nsteps: 1, 2 kB\n" in said["ls"]
    assert "would go; --yes removes them" in said["gc"]
    assert "4 of 4 files are as their records say" in said["verify"]
    assert "removed" in said["gc --yes --unused"]
    assert "dropped" in said["ls"]
