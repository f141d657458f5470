"""A study's page in a real browser: figures drawn, a filter used, light and dark, no error, no request."""

from __future__ import annotations

import json
import re
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from study_frames import Frame

from xstilts.report.studies import hierarchy, pages

WATCH = """<script>
const seen = { errors: [], dark: matchMedia("(prefers-color-scheme: dark)").matches };
addEventListener("error", (event) => seen.errors.push(String(event.message)));
addEventListener("unhandledrejection", (event) => seen.errors.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => seen.errors.push(event.blockedURI));
for (const kind of ["error", "warn"]) console[kind] = (...words) => seen.errors.push(words.join(" "));
</script>"""
ASK = """<script>
(async () => {
  const wait = () => new Promise((resolve) => setTimeout(resolve, 50));
  while (!document.body.dataset.drawn) await wait();
  const point = "#figure-ranks .mark-symbol path[aria-roledescription='point']";
  const dots = () => document.querySelectorAll(point).length;
  const sizes = [...document.querySelectorAll(".chart svg")].map((svg) => svg.getBoundingClientRect().width);
  Object.assign(seen, { sizes, before: dots() });
  const menu = document.querySelector("#figure-ranks select");
  menu.value = [...menu.options].find((option) => option.text === "Uralic").value;
  menu.dispatchEvent(new Event("change", { bubbles: true }));
  menu.dispatchEvent(new Event("input", { bubbles: true }));
  await wait(); await wait(); await wait();
  Object.assign(seen, { after: dots(),
    fetched: performance.getEntriesByType("resource").map((one) => one.name),
    paper: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.querySelector("#figure-ranks .role-axis-label text")).fill });
  const told = document.createElement("pre");
  told.id = "told"; told.textContent = JSON.stringify(seen);
  document.body.append(told);
})();
</script>"""


@pytest.fixture(scope="module")
def page() -> str:
    frame = Frame(main={"mnli": 3.0, "squad_v1": 1.0, "ccg": -2.0}, collapsed=(("mnli", "xnli", 2),))
    return pages.page(hierarchy.answer(frame.gains(1), permutations=200, draws=5))


def looked_at(chromium: str, page: str, folder: Path, *more: str) -> dict[str, Any]:
    """What the page says of itself once it is drawn and its filter was used."""
    file = folder / "study.html"
    head, _, tail = page.rpartition("</body>")  # Vega has the word too
    watched = head.replace("<style>", WATCH + "<style>", 1) + ASK + "</body>" + tail
    file.write_text(watched, encoding="utf-8")
    command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,2200",
               f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=20000", *more]  # fmt: skip
    shot = folder / "study.png"
    subprocess.run(
        [*command, f"--screenshot={shot}", file.as_uri()], capture_output=True, timeout=120, check=True
    )
    assert shot.stat().st_size > 50_000, "an empty page"
    dumped = subprocess.run(
        [*command, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    told = re.search(r'<pre id="told">(.*?)</pre>', dumped.stdout, re.DOTALL)
    assert told, f"never drawn: {dumped.stderr[-2000:]}"
    words: dict[str, Any] = json.loads(unescape(told.group(1)))
    return words


@pytest.mark.browser
@pytest.mark.parametrize("dark", [False, True])
def test_figures_are_drawn_and_filtered(chromium: str, page: str, tmp_path: Path, dark: bool) -> None:
    seen = looked_at(chromium, page, tmp_path, *(["--blink-settings=preferredColorScheme=0"] if dark else []))
    assert seen["errors"] == [] and seen["fetched"] == []
    assert len(seen["sizes"]) == 2 and min(seen["sizes"]) > 200
    assert seen["before"] == 4 * 6 and seen["after"] == 4, "four tasks in six families, then in one"
    assert seen["dark"] is dark
    light = [sum(map(int, re.findall(r"\d+", seen[name])[:3])) > 384 for name in ("paper", "ink")]
    assert light == [not dark, dark], "text is light on dark, or dark on light"
