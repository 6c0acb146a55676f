from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epc.runtime.report import text


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain\ttext\n", "plain\ttext\n"), ("a\r\nb", "a\nb"), ("bell\x07", "bell⟨U+0007⟩"), ("\x1b[31mred", "⟨U+001B⟩[31mred"),
        ("abc\u202edcba", "abc⟨U+202E⟩dcba"), ("\ud83d", "⟨U+D83D⟩"), ("zero\x00", "zero⟨U+0000⟩"), ("größer 中 😀", "größer 中 😀"),
    ],
)  # fmt: skip
def test_what_cannot_be_seen_is_spelt_out(raw: str, shown: str) -> None:
    assert text.visible(raw) == shown


def test_a_long_text_says_how_much_is_left_out() -> None:
    assert text.clipped("a" * 1234 + "b" * 1000, 1000).endswith("aaa\n[… 1,234 more characters are in the stored rows]")
    assert text.clipped("a" * 1000, 1000) == "a" * 1000


@pytest.mark.parametrize(
    ("lengths", "limit"),
    [([], 20_000), ([10**6], 20_000), ([24] * 1000, 20_000), ([20_000] * 12, 20_000), ([20_000] * 13, 10_000), ([10**6] * 200, 1_000),
     ([10**6] * 500, 500), ([10**6] * 5000, 200)],
)  # fmt: skip
def test_many_long_texts_are_cut_shorter(lengths: list[int], limit: int) -> None:
    assert text.limit_for(["a" * length for length in lengths[:1]] * len(lengths)) == limit


@pytest.mark.parametrize(
    ("raw", "escaped"),
    [
        ("reset_rate fell", "reset_rate fell"), ("_emphasis_", r"\_emphasis\_"), ("a|b", r"a\|b"), ("<script>", r"\<script>"),
        ("[link](x)", r"\[link](x)"), ("# heading", r"\# heading"), ("1. item", r"1\. item"), ("- item", r"\- item"),
        ("+0.328 (+32.8 pp)", "+0.328 (+32.8 pp)"), ("&lt;", r"\&lt;"), ("two\nlines", "two lines"), ("> quote", r"\> quote"),
        ("https://x.example", "https<!-- -->://x.example"), ("@somebody", "@<!-- -->somebody"), ("---", r"\---"),
    ],
)  # fmt: skip
def test_plain_text_stays_plain_in_markdown(raw: str, escaped: str) -> None:
    assert text.md(raw) == escaped


@given(st.text(alphabet="`ab\n|", max_size=40))
def test_a_code_span_or_block_cannot_be_closed_by_its_text(raw: str) -> None:
    span = text.md_code(raw)
    ticks = re.match("`+", span)
    assert ticks is not None
    assert span.endswith(ticks.group())
    inside = span[len(ticks.group()) : -len(ticks.group())]
    assert ticks.group() not in re.findall("`+", inside)
    assert "\n" not in span

    block = text.md_block(raw).split("\n")
    assert block[0] == block[-1] + "text"
    assert all(not line.startswith(block[-1]) for line in block[1:-1])
