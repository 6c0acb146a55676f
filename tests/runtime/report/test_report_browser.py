"""The page in a real browser: nothing overflows or overlaps, nothing runs. Skipped where there is no Chromium."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

PROBE = """<!doctype html><body style="margin:0"><iframe src="report.html" style="border:0;width:%dpx;height:20000px"></iframe>
<script>onload = () => {
  const page = frames[0], found = {wide: [], overlaps: [], owned: page.owned === true, title: page.document.title};
  const root = page.document.documentElement;
  found.overflow = root.scrollWidth - root.clientWidth;
  for (const element of page.document.querySelectorAll("body *:not(.skip):not(thead *):not(thead)")) {
    const box = element.getBoundingClientRect();
    if (box.width && box.right > root.clientWidth + 1) found.wide.push(element.tagName + " " + (element.textContent || "").slice(0, 60));
  }
  for (const drawing of page.document.querySelectorAll("svg.plot")) {
    const texts = [...drawing.querySelectorAll("text:not(.tip):not(.hint)")].map(t => [t.textContent, t.getBoundingClientRect()]);
    texts.forEach(([name, a], i) => texts.slice(i + 1).forEach(([other, b]) => {
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
        found.overlaps.push(name + " / " + other);
    }));
  }
  document.body.innerHTML = "<pre id=found></pre>";
  document.getElementById("found").textContent = JSON.stringify(found);
};</script></body>"""


def probe(page: str, width: int, folder: Path) -> dict[str, Any]:
    assert CHROMIUM is not None
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "probe.html").write_text(PROBE % width, encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
            f"--user-data-dir={folder / 'profile'}", "--allow-file-access-from-files", f"--window-size={max(width, 500)},1000",
            "--virtual-time-budget=4000", "--dump-dom", (folder / "probe.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr[-2000:]
    result: dict[str, Any] = json.loads(html.unescape(found[1]))
    return result


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("name", ["invalid", "rehearsal"])
def test_nothing_overflows_or_overlaps(reports: dict[str, Any], tmp_path: Path, name: str, width: int) -> None:
    found = probe(reports[name].html, width, tmp_path)
    assert found["overflow"] == 0
    assert found["wide"] == []
    assert found["overlaps"] == []


def test_nothing_in_a_completion_runs(cases: dict[str, Any], render_case: Callable[[Any], Any], tmp_path: Path) -> None:
    case = cases["success"]
    attack = "</pre><script>window.owned = true</script><img src=x onerror='window.owned = true'><svg onload='window.owned=true'>"
    samples = tuple(row.model_copy(update={"text": attack, "prompt": attack}) for row in case.samples)
    found = probe(render_case(replace(case, samples=samples)).html, 1280, tmp_path)
    assert found["title"].startswith("SUCCESS")
    assert not found["owned"]
    unescaped = probe("<title>SUCCESS</title><pre>" + attack, 1280, tmp_path)
    assert unescaped["owned"], "the probe itself must notice a script that runs"
