"""Both pages in a real browser: drawn, filtered, opened, refreshed while a job runs, in light and dark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_kit import Browser
from dashboard_kit import HOSTILE, LABELS, Half, serving, until

from xstilts.dashboards import pages, watched
from xstilts.dashboards.server import Dashboard

pytestmark = pytest.mark.browser

SHOWN = "[...document.querySelectorAll('{}')].filter((one) => one.getClientRects().length).length"
LIGHT = """['backgroundColor', 'color'].map((name) => getComputedStyle(document.body)[name]
  .match(/\\d+/g).slice(0, 3).reduce((sum, one) => sum + Number(one), 0) > 384)"""


@pytest.fixture
def half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Half:
    monkeypatch.setattr(watched, "STATE_SECONDS", 0.2)
    monkeypatch.setattr(watched, "TABLE_SECONDS", 0.2)
    monkeypatch.setattr(pages, "EVERY", 0.3)
    return Half(tmp_path, {"question": f"{HOSTILE} & more"})


@pytest.fixture
def dashboard(half: Half) -> Iterator[Dashboard]:
    with serving(half.store) as made:
        until(made, "data/transfer/made_up", lambda found: found["rows"])
        yield made


def clean(browser: Browser, dashboard: Dashboard) -> None:
    """No complaint, and nothing asked of anybody else."""
    assert browser.errors == []
    assert {
        url for url in browser.requested if not url.startswith((dashboard.url, "data:", "about:"))
    } == set()


def text(browser: Browser, selector: str = "main") -> str:
    return re.sub(r"\s+", " ", browser.ask(f"document.querySelector('{selector}').innerText"))


@pytest.mark.parametrize("dark", [False, True])
def test_progress_refreshes_while_a_job_runs(
    half: Half, dashboard: Dashboard, chromium: str, tmp_path: Path, dark: bool
) -> None:
    with Browser(chromium, tmp_path / "profile", dark) as browser:
        browser.open(dashboard.url + "progress/made_up")
        assert "25 %" in text(browser) and "1 running" in text(browser)
        browser.ask("document.querySelector('details.failure summary').click()")
        half.drive(0.75)
        browser.until("document.querySelector('progress').value === 0.75")
        assert browser.ask("document.querySelector('details.failure').open"), "what was opened stays open"
        assert HOSTILE in text(browser), "shown as text, not run"
        half.finish(LABELS["runs"])
        half.store.delete(f"steps/{half.key(LABELS['runs'])}/lease.json")
        browser.until("!document.querySelector('progress')")
        assert re.match(r"refreshed \d+ s ago", text(browser, "#refreshed"))
        browser.ask("document.getElementById('pause').click()")
        assert "paused" in text(browser, "#refreshed")
        looked = browser.ask("document.body.dataset.looked")
        browser.ask("new Promise((done) => setTimeout(done, 1000))")
        assert browser.ask("document.body.dataset.looked") == looked
        assert browser.ask(LIGHT) == [not dark, dark]
        assert browser.shot(tmp_path / "progress.png") > 30_000, "an empty page"
        clean(browser, dashboard)


@pytest.mark.parametrize("dark", [False, True])
def test_the_heat_map_is_drawn_filtered_and_opened(
    half: Half, dashboard: Dashboard, chromium: str, tmp_path: Path, dark: bool
) -> None:
    with Browser(chromium, tmp_path / "profile", dark) as browser:
        browser.open(dashboard.url + "transfer/made_up")
        assert browser.ask(SHOWN.format(".heat .tile a")) == 2
        tile = "getComputedStyle(document.querySelector('.heat .tile')).backgroundColor"
        assert browser.ask(tile) not in ("", "rgba(0, 0, 0, 0)"), "no colour"
        _press(browser, "target", "tatoeba")
        assert browser.ask(SHOWN.format(".heat .tile a")) == 1
        for label in (LABELS["runs"], *LABELS["waits"]):
            half.finish(label)
        browser.until("document.querySelectorAll('.heat .tile a').length === 3")
        assert browser.ask(SHOWN.format(".heat .tile a")) == 2, "a filter outlives a refresh"

        browser.ask("document.querySelector('td[data-target=xnli] a').click()")
        opened = "document.querySelectorAll('.spread tbody tr').length === 7"
        browser.until(f"document.readyState === 'complete' && {opened}")
        assert browser.ask("location.search") == "?intermediate=mnli&target=xnli"
        assert browser.ask(SHOWN.format(".spread circle.seed")) == 14
        _press(browser, "family", "Indo-European")
        assert browser.ask(SHOWN.format(".spread circle.seed")) == 6, "all, one family, its language"
        assert browser.ask(SHOWN.format(".strip[data-language]")) == 1, "in the plot too"
        assert browser.ask(LIGHT) == [not dark, dark]
        assert browser.shot(tmp_path / "transfer.png") > 50_000, "an empty page"
        clean(browser, dashboard)


def test_a_dashboard_that_ends_is_told(half: Half, chromium: str, tmp_path: Path) -> None:
    with Browser(chromium, tmp_path / "profile") as browser:
        with serving(half.store) as dashboard:
            browser.open(dashboard.url + "progress/made_up")
        browser.until("document.getElementById('trouble').textContent.includes('does not answer')")
        assert "steps done" in text(browser), "what was seen last stays"


def _press(browser: Browser, kind: str, value: str) -> Any:
    chip = f'button[data-kind="{kind}"][data-value="{value}"]'
    browser.ask(f"document.querySelector('{chip}').click()")
    return browser.until(f"document.querySelector('{chip}').getAttribute('aria-pressed') === 'false'")
