"""The page of `epc mask` in headless Chromium: on a phone and on a desk, light and dark, printed, and by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.browser import CHROMIUM, Page, browser

from epc.compiler.contract.manifest import Step
from epc.runtime.errors import Fault
from epc.runtime.masks import page
from epc.runtime.masks.sources import Phase
from epc.runtime.masks.view import Piece, Row, Turn, View

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")]

PHONE, DESK = 390, 1280
WIDE = """(() => {
  const root = document.documentElement, found = [];
  for (const element of document.querySelectorAll("body *")) {
    const box = element.getBoundingClientRect();
    if (box.width && box.right > root.clientWidth + 1 && !element.closest(".scroll")) found.push(element.className);
  }
  return [root.scrollWidth - root.clientWidth, found];
})()"""
CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgb = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = c => { const [r, g, b] = c.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const found = {};
  for (const token of document.querySelectorAll(".t, .note, .eyebrow, .turn p, thead th, .alert b")) {
    let at = token, below = [0, 0, 0, 0];
    while (at && !below[3]) { below = rgb(getComputedStyle(at).backgroundColor); at = at.parentElement; }
    const [a, b] = [light(rgb(getComputedStyle(token).color)), light(below)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found[token.className || token.tagName] = ratio.toFixed(2);
  }
  return found;
})()"""


def turn(number: int, role: str, words: list[str], *, at: int, trained: bool) -> Turn:
    """Header, words and end of turn as pieces, a token each."""
    texts = ["<|im_start|>", role, "\n", *words, "<|im_end|>", "\n"]
    return Turn(
        number=number, role=role,
        pieces=tuple(
            Piece(
                text=text, index=at + i, ids=(100 + i,), trained=trained and 3 <= i < len(texts) - 1,
                special=text.startswith("<|"), stop=text == "<|im_end|>",
            )
            for i, text in enumerate(texts)
        ),
    )  # fmt: skip


def view(fault: Fault | None = None) -> View:
    step = Step(id="x", kind="data", label="x", needs=(), key="k", script="steps/x.py", outputs=(), recipe={})
    words = ["Wait", " a", "  ", "very" * 30, " <script>alert(1)</script>", ' "quoted"', " 日", "本"] * 4
    return View(
        phase=Phase(
            name="attack", data="bad_only", train_on="every_assistant_turn", system="none", max_length=2048, rows=1,
            data_step=step, model_step=step,
        ),
        facts={
            "rows": 64, "tokens": 1832, "trained_tokens": 673, "trained_tokens_by_turn": [400, 273], "longest_row": 32,
            "end_of_turn": "<|im_end|>",
        },
        rows=(
            Row(number=1, turns=(turn(1, "user", words, at=0, trained=False), turn(2, "assistant", words, at=37, trained=True))),
            Row(number=9, turns=(turn(1, "user", ["Hi"], at=0, trained=False),)),
        ),
        fault=fault,
    )  # fmt: skip


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    with browser() as found:
        yield found


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "mask.html"
    fault = Fault("R0315", "rows.jsonl:3", "trained span 1 is not the assistant turn", "mark the assistant turns")
    found.write_text(page.html("Does a reflex survive?", [view(), view(fault)]), encoding="utf-8")
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
def test_it_fits_is_read_and_asks_for_nothing(width: int, dark: bool, tab: Page, file: Path) -> None:
    tab.open(file, width=width, dark=dark)
    assert tab.run(WIDE) == [0, []]
    assert tab.run(CONTRAST) == {}
    assert tab.requests == [file.as_uri()]
    assert tab.console == []


def test_text_of_a_row_is_text(tab: Page, file: Path) -> None:
    tab.open(file)
    assert tab.run("document.scripts.length") == 1
    assert "<script>alert(1)</script>" in tab.run("document.querySelector('.row').textContent")


def test_a_trained_token_differs_by_more_than_colour(tab: Page, file: Path) -> None:
    tab.open(file)
    style = "(s => [s.fontWeight, s.borderBottomStyle, s.backgroundColor])(getComputedStyle(document.querySelector('.row {}')))"
    on, off, end = (tab.run(style.format(kind)) for kind in (".t.on", ".t:not(.on)", ".t.on.end"))
    assert on[0] != off[0]
    assert on[2] != off[2]
    assert end[1] == "double"
    assert end[2] != on[2]


def test_pointing_shows_index_and_id(tab: Page, file: Path) -> None:
    tab.open(file)
    box = tab.run(
        "(b => [b.x + b.width / 2, b.y + b.height / 2])(document.querySelector('.row .t.special').getBoundingClientRect())"
    )
    tab.point(*box)
    assert tab.run("document.getElementById('about').textContent") == 'token 0, id 100: "<|im_start|>", not trained'


def test_every_row_is_one_stop_of_the_tab_key_and_arrows_go_through_it(tab: Page, file: Path) -> None:
    tab.open(file)
    assert tab.run("document.querySelectorAll('.t[tabindex=\"0\"]').length") == tab.run(
        "document.querySelectorAll('.row').length"
    )
    tab.press("Tab")  # the table
    tab.press("Tab")
    arrow = "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true, cancelable: true}))"
    tab.run(arrow)
    assert tab.run("document.getElementById('about').textContent") == 'token 1, id 101: "user", not trained'
    assert tab.run("document.querySelectorAll('.t[tabindex=\"0\"]').length") == 4
    tab.press("Tab")
    assert tab.run("document.activeElement.closest('.row').querySelector('h3').textContent") == "Row 9"


def test_it_prints(tab: Page, file: Path) -> None:
    tab.open(file)
    assert tab.pdf().startswith(b"%PDF")
    assert tab.run("getComputedStyle(document.getElementById('about')).display") == "none"
    assert tab.run("getComputedStyle(document.querySelector('.t.on')).printColorAdjust") == "exact"
