"""The dashboard: what its pages say, what it refuses, what it asks of a store, and that it writes nothing."""

from __future__ import annotations

import http.client
import json
import os
import re
import secrets
import threading
import time
import tomllib
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from dashboard_kit import HOSTILE, LABELS, Half, get, serving, tree, until
from made_up_endpoint import endpoint
from made_up_job import MadeUpJob
from test_render import Shape

from xstilts import api
from xstilts.dashboards import watched
from xstilts.dashboards.kept import Kept
from xstilts.dashboards.links import Links
from xstilts.dashboards.progress import Row, seconds_left
from xstilts.dashboards.watched import Asked, Watched
from xstilts.errors import StoreError, XstiltsError
from xstilts.record.artifacts import StepPaths, driver_file, plan_file
from xstilts.record.local import LocalStore
from xstilts.record.s3 import S3Store
from xstilts.report.transfer import tidy, transfer

REPO = Path(__file__).resolve().parents[2]

PAGES = (
    "", "progress/made_up", "transfer/made_up", "transfer/made_up?target=xnli",
    "transfer/made_up?intermediate=mnli&target=xnli",
)  # fmt: skip


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Half:
    monkeypatch.setattr(watched, "STATE_SECONDS", 0.2)
    monkeypatch.setattr(watched, "TABLE_SECONDS", 0.2)
    return Half(tmp_path, {"question": f"{HOSTILE} & more"})


def test_progress_tells_what_runs_waits_and_failed_and_why(half: Half) -> None:
    with serving(half.store) as dashboard:
        told = until(dashboard, "data/progress/made_up", lambda found: found["progress"])["progress"]
        page = unescape(get(dashboard, "progress/made_up").text)
    assert told["state"] == "running" and told["retries"] == 1 and told["causes"] == {"lost worker": 1}
    counts = told["counts"]
    assert (counts["running"], counts["failed"], counts["blocked"], counts["to_run"]) == (1, 1, 2, 2)
    assert sum(counts.values()) == len(half.plan["steps"]) and told["hours"] == 1.5
    rows = {row["label"]: row for row in told["rows"]}
    assert rows[LABELS["runs"]]["done"] == 0.25 and rows[LABELS["runs"]]["by"] == "driver-1"
    assert rows[LABELS["fails"]]["cause"] == "bug" and "ValueError" in rows[LABELS["fails"]]["text"]
    assert f"Running: {counts['recorded']} of {len(rows)} steps done" in page
    for said in ("lost worker", "waits for a place", "because train-panx-s2-after-mnli-s2 failed", "25 %"):
        assert said in page, said


def test_the_table_is_the_reports(half: Half) -> None:
    """The same numbers by the same code: not a second computation that might differ."""
    with serving(half.store) as dashboard:
        found = until(dashboard, "data/transfer/made_up", lambda found: found["rows"])
    wanted = tidy(transfer(half.plan, half.store))
    assert found["rows"] == json.loads(wanted.to_json(orient="records"))
    assert any(row["items_low"] is not None for row in found["rows"])


def test_a_new_score_appears_and_only_its_target_is_made_anew(
    half: Half, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[set[str]] = []
    real = watched.transfer

    def counted(plan: Any, *more: Any, **words: Any) -> Any:
        made.append({cell["target"] for cell in plan["cells"]})
        return real(plan, *more, **words)

    monkeypatch.setattr(watched, "transfer", counted)
    with serving(half.store) as dashboard:
        until(dashboard, "data/transfer/made_up", lambda found: found["rows"])
        assert sorted(map(list, made)) == [["panx"], ["tatoeba"], ["xnli"]]
        for label in (LABELS["runs"], *LABELS["waits"]):
            half.finish(label)
        until(
            dashboard,
            "data/transfer/made_up",
            lambda found: any(
                row["target"] == "panx" and row["intermediate"] == "mnli" and row["seeds"] == 1
                for row in found["rows"]
            ),
        )
    assert len(made) == 4 and made[-1] == {"panx"}


def test_a_target_opens_by_family_and_language_and_a_cell_by_seed(half: Half) -> None:
    half.put("jobs/made_up/mlflow.json", {
        "tracking": "http://me:hunter22@127.0.0.1:5000/", "experiment": "7", "parent": "p1",
        "runs": {half.key(LABELS["runs"]): "run1"}, "cells": {"mnli > xnli · seed 2": "cell2"},
    })  # fmt: skip
    with serving(half.store) as dashboard:
        until(dashboard, "data/transfer/made_up", lambda found: found["rows"])
        by_target = get(dashboard, "transfer/made_up?target=xnli").text
        cell = unescape(get(dashboard, "transfer/made_up?intermediate=mnli&target=xnli").text)
        progress = get(dashboard, "progress/made_up").text
        nobody = get(dashboard, "transfer/made_up?intermediate=nobody&target=nothing")
    assert 'data-family="Atlantic-Congo"' in by_target and 'data-language="sw"' in by_target
    assert cell.count('class="seed ') == 2 * (1 + 2 + 4), "two seeds: the mean, two families, four languages"
    assert "seed 1: +" in cell and "http://127.0.0.1:5000/#/experiments/7/runs/cell2" in cell
    assert "hunter22" not in cell + progress and "runs/run1" in progress and "runs/p1" in progress
    assert nobody.status == 200 and "Nothing on nothing can be compared yet" in nobody.text


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_well_formed_escaped_and_fetch_only_from_here(half: Half, path: str) -> None:
    with serving(half.store, Asked("made_up")) as dashboard:
        until(dashboard, "data/transfer/made_up", lambda found: found["rows"])
        got = get(dashboard, path)
    assert got.status == 200 and HOSTILE not in got.text
    shape = Shape()
    shape.feed(got.text)
    assert shape.open == []
    assert all(link.startswith(("/", "#", "data:,")) for link in shape.fetched), shape.fetched
    policy = got.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "<script>" not in got.text
    assert got.headers["X-Content-Type-Options"] == "nosniff" and "Python" not in got.headers["Server"]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"])
def test_only_reading_is_answered(half: Half, method: str) -> None:
    with serving(half.store) as dashboard:
        got = get(dashboard, "progress/made_up", method)
    assert got.status == 405 and got.headers["Allow"] == "GET, HEAD"


def test_head_has_no_body(half: Half) -> None:
    with serving(half.store) as dashboard:
        got = get(dashboard, "progress/made_up", "HEAD")
    assert got.status == 200 and got.text == "" and int(got.headers["Content-Length"]) > 1000


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "[", ""])
def test_another_name_is_not_answered(half: Half, host: str) -> None:
    """A page of another site whose name was made to mean this machine."""
    with serving(half.store) as dashboard:
        got = get(dashboard, "data/progress/made_up", Host=host)
        here = [get(dashboard, "data/jobs", Host=name).status for name in ("localhost:9", "[::1]:9")]
    assert got.status == 403 and "made_up" not in got.text and here == [200, 200]


@pytest.mark.parametrize(
    "path",
    [
        "../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "progress/..", "progress/%2e%2e%2fmade_up",
        "progress/made_up%2f..%2f..%2fsecret", "progress/made_up/job.yaml", "steps", "jobs/made_up/job.yaml",
        "progress/made_up%00", "progress/", "progress", "look/nothing/made_up", "http://evil.example/",
        "data/progress/%F0%9F", "//evil.example/%2e%2e", "dashboard.css/../progress.html.j2",
    ],
)  # fmt: skip
def test_no_address_leads_elsewhere(half: Half, path: str) -> None:
    (half.folder / "secret").write_text("planted")
    with serving(half.store) as dashboard:
        connection = http.client.HTTPConnection(*dashboard.server_address[:2], timeout=20)
        connection.request("GET", "/" + path)
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
    assert reply.status == 404 and "planted" not in text and "root:" not in text


def test_a_query_of_too_many_words_is_refused_and_said(
    half: Half, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(half.store) as dashboard:
        few = get(dashboard, "progress/made_up?" + "&".join(f"w{i}=1" for i in range(8)))
        many = get(dashboard, "progress/made_up?" + "&".join(f"w{i}=1" for i in range(9)))
    assert (few.status, many.status) == (200, 400) and "more than 8" in many.text
    assert "Traceback" not in capsys.readouterr().err


def test_nothing_is_written(half: Half) -> None:
    before = tree(half.folder)
    with serving(half.store) as dashboard:
        for path in (*PAGES, "data/jobs", "data/progress/made_up", "look/transfer/made_up"):
            assert get(dashboard, path).status == 200
        until(dashboard, "data/transfer/made_up", lambda found: found["rows"])
    assert tree(half.folder) == before


def test_no_secret_is_shown(half: Half, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = {name: secrets.token_hex(12) for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PGPASSWORD")}
    for name, value in planted.items():
        monkeypatch.setenv(name, value)
    text = " ".join([*planted.values(), "http://me:hunter22@host/", "password=hunter22"])
    half.drive(0.5, text, why=text, notes={LABELS["waits"][0]: text})
    attempt = {"attempt": "y", "cause": "bug", "text": text, "ended": "then"}
    half.put(StepPaths(half.key(LABELS["runs"])).attempt("y"), attempt)
    half.store.put(StepPaths(half.key("score-xnli-s1")).record, f'{{"schema": 1, "{text}": 2}}'.encode())
    with serving(half.store) as dashboard:
        until(dashboard, "data/transfer/made_up", lambda found: found["rows"])
        answers = [get(dashboard, f"{way}{page}/made_up").text for way in ("", "look/", "data/")
                   for page in ("progress", "transfer")]  # fmt: skip
    for secret in (*planted.values(), "hunter22"):
        assert not any(secret in answer for answer in answers)
    assert "(hidden)" in answers[0]


def test_what_is_damaged_is_named_and_the_rest_is_shown(half: Half) -> None:
    bad, gone = half.key("score-xnli-s1"), half.key("score-tatoeba")
    half.store.put(StepPaths(bad).record, b"{")
    half.store.put(f"{StepPaths(gone).root}/runs/a1/items/de.parquet", b"not parquet")
    half.store.put("jobs/made_up/mlflow.json", b"{")
    half.store.put(driver_file("made_up", "torn"), b"[")
    with serving(half.store) as dashboard:
        found = until(dashboard, "data/transfer/made_up", lambda found: found["rows"])
        progress = get(dashboard, "progress/made_up").text
    told = "\n".join(found["problems"])
    assert f"the record of {bad} is damaged" in told and "mlflow.json" in told
    assert f"shown without intervals over items, item statistics of {gone} cannot be read" in told
    main = {
        (row["intermediate"], row["target"]): row for row in found["rows"] if row["language"] == "zero_shot"
    }
    assert main["mnli", "panx"]["score"] is None and main["mnli", "xnli"]["items_low"] is not None
    every = [row for row in found["rows"] if row["target"] == "tatoeba" and row["language"] == "all"]
    assert all(row["score"] is not None and row["items_low"] is None for row in every)
    assert "Left out of this page" in progress and bad in progress


def test_a_store_that_goes_away_is_told_and_what_was_seen_stays(half: Half) -> None:
    with serving(half.store) as dashboard:
        until(dashboard, "data/progress/made_up", lambda found: found["progress"])
        (half.folder / "store").rename(half.folder / "away")
        found = until(dashboard, "data/progress/made_up", lambda found: found["problem"])
        assert "there is no store at" in found["problem"] and found["progress"]["job"] == "made_up"
        assert "there is no store at" in get(dashboard, "progress/made_up").text
        (half.folder / "away").rename(half.folder / "store")
        until(dashboard, "data/progress/made_up", lambda found: not found["problem"])


@pytest.mark.parametrize("plan", [b"{", b"[]", b'{"job": "made_up"}', b'{"job": "other", "steps": 3}', None])
def test_a_job_without_a_plan_that_can_be_read_has_a_page(half: Half, plan: bytes | None) -> None:
    name = plan_file("made_up", half.plan["digest"])
    half.store.delete(name) if plan is None else half.store.put(name, plan)
    with serving(half.store, Asked("made_up")) as dashboard:
        for kind in ("progress", "transfer"):
            until(dashboard, f"data/{kind}/made_up", lambda found: found["problem"])
            got = get(dashboard, f"{kind}/made_up")
            assert got.status == 200 and ("damaged" in got.text or "has no plan" in got.text)


def test_a_job_with_nothing_yet_has_both_pages(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    plan = MadeUpJob(unfinished=tuple(f"nothing {i}" for i in range(3))).make(LocalStore(tmp_path / "other"))
    (tmp_path / "store").mkdir()
    with serving(store, Asked("made_up", plan["digest"], plan)) as dashboard:
        found = until(dashboard, "data/progress/made_up", lambda found: found["progress"])["progress"]
        until(dashboard, "data/transfer/made_up", lambda found: found["refreshed"])
        transfer_page = get(dashboard, "transfer/made_up").text
    assert found["state"] == "waiting" and found["scored"] == 0 and found["seconds_left"] is None
    assert "No cell has a score yet" in transfer_page
    assert "compared with <code>none</code> yet" in transfer_page and "`" not in transfer_page


def test_the_plan_driven_last_is_shown(half: Half) -> None:
    changed = {"created": "2026-02-02T00:00:00+00:00", "digest": "fedcba9876543210", "model": "newer"}
    half.put_plan(half.store, **changed)
    with serving(half.store) as dashboard:
        found = until(dashboard, "data/progress/made_up", lambda found: found["progress"])
        assert found["progress"]["model"] == "newer"
    with serving(half.store, Asked("made_up", half.plan["digest"])) as dashboard:
        found = until(dashboard, "data/progress/made_up", lambda found: found["progress"])
        assert found["progress"]["model"] == "made-up"


def test_many_browsers_ask_the_store_once(half: Half, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "STATE_SECONDS", 60.0)
    asked: list[str] = []
    real = LocalStore.exists
    monkeypatch.setattr(
        "xstilts.record.local.LocalStore.exists", lambda self, name: asked.append(name) or real(self, name)
    )
    with serving(half.store) as dashboard:
        threads = [
            threading.Thread(target=lambda: get(dashboard, "look/progress/made_up")) for _ in range(12)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    records = [name for name in asked if name.endswith("record.json")]
    assert len(records) == len(set(records)) == len(half.plan["steps"])


def test_what_is_recorded_is_not_asked_for_again(half: Half, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,000 steps in a bucket are 1,000 requests the first time, and then those that are left."""
    shown = Watched(half.store, Asked("made_up"))
    first = shown._look()
    asked: list[str] = []
    for method in ("exists", "read", "list"):
        real = getattr(LocalStore, method)
        monkeypatch.setattr(
            LocalStore, method,
            lambda self, name, real=real: asked.append(name) or real(self, name),
        )  # fmt: skip
    second = shown._look()
    assert second.status["totals"] == first.status["totals"] and second.records == first.records
    left = {step["key"] for step in second.status["steps"] if step["state"] != "recorded"}
    of = {name.split("/")[1] for name in asked if not name.endswith("dropped.json")}
    assert of - {"made_up"} == left, "what they start from is asked only whether `store gc` has been there"
    monkeypatch.setattr(watched, "TRUST_SECONDS", 0.0)
    half.store.delete(StepPaths(half.key("score-xnli-s1")).record)
    assert "score-xnli-s1" not in shown._look().records, "what was set aside is noticed"


def test_a_page_is_sent_only_what_changed(half: Half) -> None:
    with serving(half.store) as dashboard:
        until(dashboard, "data/progress/made_up", lambda found: found["progress"])
        parts = get(dashboard, "look/progress/made_up").json["parts"]
        assert set(parts) == {"now", "steps"}
        have = ",".join(f"{name}:{part['version']}" for name, part in parts.items())
        again = get(dashboard, f"look/progress/made_up?have={have}").json
        assert again["parts"] == {} and again["age"] is not None
        half.drive(0.75)
        changed = until(dashboard, f"look/progress/made_up?have={have}", lambda found: found["parts"])
    assert set(changed["parts"]) == {"now"} and "75 %" in changed["parts"]["now"]["html"]


def test_a_bucket_is_read_and_not_even_probed(half: Half, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    keys = {"AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "planted-secret", "AWS_REGION": "us-east-1"}
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    with endpoint() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        store = S3Store("s3://bucket/prefix")
        for name in half.store.list(""):
            store.put(name, half.store.read(name) or b"")
        server.requests.clear()
        with api.dashboard((), "s3://bucket/prefix") as dashboard:
            threading.Thread(target=dashboard.serve_forever, args=(0.05,), daemon=True).start()
            found = until(dashboard, "data/transfer/made_up", lambda found: found["rows"])
            told = until(dashboard, "data/progress/made_up", lambda found: found["progress"])["progress"]
            dashboard.shutdown()
        assert {method for method, *_ in server.requests} <= {"GET", "HEAD"}
    assert told["counts"]["failed"] == 1 and len(found["rows"]) > 10


def test_a_bucket_that_does_not_answer_is_told_of_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://me:hunter22@127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret")
    with api.dashboard(("a_job",), "s3://bucket/prefix") as dashboard:
        threading.Thread(target=dashboard.serve_forever, args=(0.05,), daemon=True).start()
        began = time.monotonic()
        page = get(dashboard, "progress/a_job")
        assert time.monotonic() - began < 5 and page.status == 200
        found = until(dashboard, "data/progress/a_job", lambda found: found["problem"], 60)
        dashboard.shutdown()
    assert "hunter22" not in str(found) + page.text and "planted-secret" not in str(found)


def test_a_value_is_made_by_one_at_a_time_and_kept_through_errors() -> None:
    made: list[int] = []
    wrong: list[Exception] = []

    def make() -> int:
        if wrong:
            raise wrong[0]
        made.append(1)
        time.sleep(0.05)
        return len(made)

    kept = Kept(make, 0.0, share=1.0)
    assert kept.look(wait=5).value == 1
    wrong[:] = [StoreError("it is away", "wait"), ValueError("password=hunter22")]
    for said in ("it is away: wait", "ValueError: password=(hidden)"):
        end = time.monotonic() + 5
        while kept.look().problem != said:
            assert time.monotonic() < end, kept.look()
            time.sleep(0.01)
        assert kept.look().value is not None and kept.look().made > 0
        wrong.pop(0)
    slow = Kept(make, 0.0, share=0.01)
    count = slow.look(wait=5).value
    for _ in range(5):
        assert slow.look().value == count == len(made), "0.05 s of work, then 5 s of rest"
        time.sleep(0.05)


def row(kind: str, state: str, seconds: float | None = None, done: float = 0.0) -> Row:
    return Row(f"{kind}-{state}", kind, state, done, seconds, "", "", "", "", (), "")


def test_time_left_is_by_kind_and_by_how_many_run() -> None:
    done = [row("train", "recorded", 100.0), row("train", "recorded", 300.0), row("score", "recorded", 2.0)]
    running = [row("train", "running", done=0.5), row("train", "running", done=0.0)]
    waiting = [
        row("train", "to_run"),
        row("score", "to_run"),
        row("predict", "awaits"),
        row("score", "blocked"),
    ]
    assert seconds_left([*done, *running, *waiting]) == (200 * (0.5 + 1 + 1) + 2 + 1) / 2
    assert seconds_left([*done, *waiting]) is None, "nobody works on it"
    assert seconds_left([*done, row("search", "to_run"), *running]) is None, "no search was timed"
    assert seconds_left(done) == 0.0


@pytest.mark.parametrize(
    ("changed", "link"),
    [
        ({}, "https://host/#/experiments/7/runs/r1"),
        ({"tracking": "sqlite:////somewhere/mlflow.db"}, ""),
        ({"tracking": "javascript:alert(1)//"}, ""),
        ({"experiment": "7/../.."}, ""),
        ({"runs": {"k": '"><script>'}}, ""),
        ({"runs": ["k"]}, ""),
    ],
)
def test_links_are_addresses_of_the_web_or_none(changed: dict[str, Any], link: str) -> None:
    words = {"tracking": "https://me:pw@host/", "experiment": "7", "runs": {"k": "r1"}, **changed}
    assert Links(words).step("k") == link
    if "tracking" in changed:
        assert (
            Links(words, "http://127.0.0.1:5000").step("k") == "http://127.0.0.1:5000/#/experiments/7/runs/r1"
        )


def test_no_store_and_no_port_are_one_sentence(tmp_path: Path, half: Half) -> None:
    with pytest.raises(StoreError, match="there is no store at"):
        api.dashboard((), str(tmp_path / "nowhere"))
    with serving(half.store) as dashboard, pytest.raises(XstiltsError, match="is taken: choose another"):
        api.dashboard((), half.store.location, port=dashboard.server_address[1])


def test_what_the_readme_says_can_be_typed_and_opened(half: Half) -> None:
    import typer.main

    from xstilts.cli.main import app

    text = (REPO / "dashboards" / "README.md").read_text(encoding="utf-8")
    command: Any = typer.main.get_command(app)
    known = {option for each in command.commands["dashboard"].params for option in each.opts}
    assert set(re.findall(r"(?<= )--[a-z]+", text)) <= known
    with serving(half.store, Asked("made_up")) as dashboard:
        for path in re.findall(r"`/([a-z/]+(?:JOB)?)`", text):
            assert get(dashboard, path.replace("JOB", "made_up")).status == 200, path


def test_the_package_carries_what_it_serves() -> None:
    carried = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    package = REPO / "platform" / "xstilts"
    found = {path for pattern in carried["xstilts"] for path in package.glob(pattern)}
    assert {path for path in package.rglob("templates/*") if path.is_file()} <= found
