"""Reports in headless Chromium, on a phone and on a desk, light and dark, printed, and by keyboard."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support import report_cases
from tests.support.browser import CHROMIUM, Page, browser

from epc.runtime import report
from epc.runtime.decide import decide

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]

PHONE, TABLET, DESK = 390, 820, 1280
PAPER = 718
"""A4 between Chromium's margins, px."""
NAMES = ["whole", "several", "invalid", "rehearsal", "issue147", "elsewhere"]

WIDE = """(() => {
  const root = document.documentElement, found = [];
  for (const element of document.querySelectorAll("body *:not(.skip):not(thead *):not(thead):not(.overlay *):not(.hidden *)")) {
    const box = element.getBoundingClientRect();
    if (box.width && box.height && (box.right > root.clientWidth + 1 || box.left < -1) && !element.closest(".scroll"))
      found.push(element.tagName + " " + (element.textContent || "").slice(0, 60));
  }
  return [root.scrollWidth - root.clientWidth, found];
})()"""

OVERLAPS = """(() => {
  const found = [];
  for (const drawing of document.querySelectorAll("svg.plot")) {
    const texts = [...drawing.querySelectorAll("text")].map(t => [t.textContent, t.getBoundingClientRect()]);
    texts.forEach(([name, a], i) => texts.slice(i + 1).forEach(([other, b]) => {
      if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3)
        found.push(name + " / " + other);
    }));
  }
  return found;
})()"""

CROWDED = """(() => {
  const found = [];
  for (const cell of document.querySelectorAll("td, th")) {
    const edge = cell.getBoundingClientRect().right, range = document.createRange();
    range.selectNodeContents(cell);
    for (const box of range.getClientRects())
      if (edge && box.width && box.right > edge + 1) { found.push(cell.textContent.trim().slice(0, 60)); break; }
  }
  return found;
})()"""

CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const over = (top, below) => top.slice(0, 3).map((v, i) => v * top[3] / 255 + below[i] * (1 - top[3] / 255));
  const light = rgb => { const [r, g, b] = rgb.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = element => {
    const stack = [];
    for (let at = element; at; at = at.parentElement) stack.push(rgba(getComputedStyle(at).backgroundColor));
    return stack.reverse().reduce((below, top) => over(top, below), [255, 255, 255]);
  };
  const found = {};
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    const style = getComputedStyle(element);
    if (!own || style.visibility === "hidden" || style.display === "none" || element.closest("svg.patterns") || element.tagName.toLowerCase() === "title") continue;
    const drawn = element.namespaceURI.endsWith("svg");
    const below = behind(element), ink = over(rgba(drawn ? style.fill : style.color), below);
    const [a, b] = [light(ink), light(below)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05), size = parseFloat(style.fontSize);
    const least = size >= 24 || (size >= 18.66 && +style.fontWeight >= 700) ? 3 : 4.5;
    if (ratio < least) found[element.tagName + "." + (element.getAttribute("class") || "") + ": " + ratio.toFixed(2)] = element.textContent.slice(0, 40);
  }
  return found;
})()"""

FOCUSED = """(() => { const e = document.activeElement; return [e.className && e.className.baseVal === undefined ? e.className : "", e.getAttribute("href") || "", e.tagName]; })()"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Page]:
    with browser() as page:
        yield page


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Report of every case as a file."""
    folder = tmp_path_factory.mktemp("pages")
    own = report_cases.elsewhere(folder / "own")
    reports = {name: report_cases.CASES[name]().render() for name in ("whole", "several", "invalid", "rehearsal")}
    reports |= {
        "issue147": report_cases.issue147(folder / "issue147").render(), "elsewhere": report.rendered(own, decide(own)),
    }  # fmt: skip
    for name, made in reports.items():
        (folder / f"{name}.html").write_text(made.html, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in reports}


@pytest.mark.parametrize("width", [PHONE, TABLET, DESK])
@pytest.mark.parametrize("name", NAMES)
def test_the_page_fits_says_nothing_and_asks_for_nothing(
    chromium: Page, pages: dict[str, Path], name: str, width: int
) -> None:
    chromium.open(pages[name], width=width)
    chromium.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    overflow, wide = chromium.run(WIDE)
    assert overflow == 0
    assert wide == []
    assert chromium.run(OVERLAPS) == []
    assert chromium.run(CROWDED) == []
    assert chromium.console == []
    assert chromium.requests == [pages[name].as_uri()]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", NAMES)
def test_every_text_can_be_read(chromium: Page, pages: dict[str, Path], name: str, dark: bool) -> None:
    """WCAG 2.2, 1.4.3: 4.5 to 1, and 3 to 1 for large text."""
    chromium.open(pages[name], dark=dark)
    chromium.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert chromium.run(CONTRAST) == {}
    background, ink = chromium.run("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (background, ink)]
    assert (brightness[0] < brightness[1]) == dark


def test_the_tab_key_reaches_points_and_transcripts(chromium: Page, pages: dict[str, Path]) -> None:
    chromium.open(pages["whole"])
    seen: list[Any] = []
    while not seen or seen[-1][2] != "BODY":
        chromium.press("Tab")
        seen.append(chromium.run(FOCUSED))
        assert len(seen) < 400
    assert seen[0][:2] == ["skip", "#gates"]
    points = [index for index, (name, _, _) in enumerate(seen) if name == "column"]
    assert len(points) == 24
    assert points == list(range(points[0], points[0] + 24)), "one after the other"
    assert seen[points[0] - 1][0] == "skip", "and all of them can be skipped"
    summaries = [index for index, (_, _, tag) in enumerate(seen) if tag == "SUMMARY"]
    assert len(summaries) == chromium.run(
        "[...document.querySelectorAll('summary')].filter(s => s.checkVisibility()).length"
    )
    assert max(summaries) > points[-1]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_what_has_the_focus_can_be_seen_and_is_in_reading_order(
    chromium: Page, pages: dict[str, Path], dark: bool
) -> None:
    """WCAG 2.2, 2.4.3 and 2.4.7: each stop has an outline, and none lies above the one before it."""
    chromium.open(pages["several"], dark=dark)
    before = -1.0
    for _ in range(400):
        chromium.press("Tab")
        tag, outline, colour, page, top = chromium.run(
            """(() => { const e = document.activeElement, s = getComputedStyle(e), b = e.getBoundingClientRect();
            return [e.tagName, s.outlineStyle, s.outlineColor, getComputedStyle(document.body).backgroundColor, b.bottom + scrollY]; })()"""
        )
        if tag == "BODY":
            break
        assert outline not in ("none", "")
        assert colour != page
        assert top >= before - 30, "lines of one row may differ a little"
        before = top
    assert tag == "BODY"


@pytest.mark.parametrize(("name", "width"), [("whole", DESK), ("issue147", PHONE)])
def test_a_point_shows_its_transcripts_and_leads_to_them(
    chromium: Page, pages: dict[str, Path], name: str, width: int
) -> None:
    chromium.open(pages[name], width=width)
    shown = "[...document.querySelectorAll('.peek')].filter(p => p.checkVisibility()).map(p => p.textContent)"
    assert chromium.run(shown) == []
    chromium.run("document.querySelectorAll('.column')[7].focus({focusVisible: true})")
    (text,) = chromium.run(shown)
    target = chromium.run("document.activeElement.getAttribute('href')")
    label = chromium.run("document.activeElement.getAttribute('aria-label')")
    assert text.startswith(label.partition(":")[0])
    transcripts = chromium.run(
        f"[...document.querySelector('{target}').querySelectorAll('.completion')].map(p => p.textContent)"
    )
    assert len(transcripts) == 2
    for transcript in transcripts:
        assert " ".join(transcript.split())[:40] in text
    chromium.press("Enter")
    assert chromium.run("location.hash") == target
    assert chromium.run("document.querySelector(':target').closest('details').open")
    assert chromium.run("document.querySelector(':target').checkVisibility({contentVisibilityAuto: true})")


def test_pointing_shows_one_unit_at_a_time(chromium: Page, pages: dict[str, Path]) -> None:
    chromium.open(pages["whole"])
    chromium.run("document.querySelector('.columns').scrollIntoView({block: 'center', behavior: 'instant'})")
    chromium.run("document.querySelectorAll('.column')[2].focus({focusVisible: true})")
    x, y = chromium.run(
        "(b => [b.x + b.width / 2, b.y + b.height / 2])(document.querySelectorAll('.column')[9].getBoundingClientRect())"
    )
    chromium.point(x, y)
    shown = chromium.run(
        "[...document.querySelectorAll('.peek')].map((p, i) => p.checkVisibility() ? i : -1).filter(i => i >= 0)"
    )
    assert shown == [9]
    left, right = chromium.run(
        "(b => [b.left, b.right])(document.querySelectorAll('.peek')[9].getBoundingClientRect())"
    )
    assert 0 <= left < right <= DESK


@pytest.mark.parametrize("name", ["whole", "issue147"])
def test_print_leaves_out_what_paper_cannot_do(chromium: Page, pages: dict[str, Path], name: str) -> None:
    chromium.open(pages[name], width=PAPER, dark=True, media="print")
    hidden = chromium.run(
        "[...document.querySelectorAll('.contents, .skip, .hint, .overlay, .screen')].filter(e => e.checkVisibility()).length"
    )
    assert hidden == 0
    assert chromium.run("document.querySelector('.printed').checkVisibility()")
    assert chromium.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert chromium.run(CONTRAST) == {}
    assert chromium.run(CROWDED) == []
    folded = "document.querySelector('#transcripts details .completion')"
    assert chromium.run(f"{folded}.checkVisibility({{contentVisibilityAuto: true}})"), "folded transcripts are printed"
    pdf = chromium.pdf()
    assert pdf.startswith(b"%PDF-")
    assert 5 < len(re.findall(rb"/Type\s*/Page\b", pdf)) < 60
    links = set(re.findall(rb"/URI \(([^)]*)\)", pdf)) | {part for part in _streams(pdf) if b"http" in part}
    assert not [link for link in links if link.startswith(b"http")]


def _streams(pdf: bytes) -> Iterator[bytes]:
    for found in re.finditer(rb"stream\r?\n(.*?)endstream", pdf, re.DOTALL):
        try:
            yield zlib.decompress(found[1])
        except zlib.error:
            continue


def test_nothing_in_a_completion_runs(chromium: Page, tmp_path: Path) -> None:
    case = report_cases.success()
    attack = "</pre><script>window.owned = true</script><img src=x onerror='window.owned = true'><svg onload='window.owned=true'>"
    samples = tuple(row.model_copy(update={"text": attack, "prompt": attack}) for row in case.samples)
    file = tmp_path / "attacked.html"
    file.write_text(replace(case, samples=samples).render().html, encoding="utf-8")
    chromium.open(file)
    assert chromium.run("window.owned === undefined")
    assert chromium.console == []
    assert chromium.requests == [file.as_uri()]
    file.write_text(f"<title>bare</title><pre>{attack}", encoding="utf-8")
    chromium.open(file)
    assert chromium.run("window.owned"), "the test must notice a script that runs"
    assert len(chromium.requests) == 2, "and a request"


def test_the_policy_of_the_page_stops_a_script_that_got_in(
    chromium: Page, pages: dict[str, Path], tmp_path: Path
) -> None:
    source = pages["rehearsal"].read_text(encoding="utf-8")
    file = tmp_path / "injected.html"
    inserted = "<script>window.owned = true</script><img src='https://x.example/pixel.png'></main>"
    file.write_text(source.replace("</main>", inserted), encoding="utf-8")
    chromium.open(file)
    assert chromium.run("window.owned === undefined")
    assert any("Content Security Policy" in line for line in chromium.console), json.dumps(chromium.console)
