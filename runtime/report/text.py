"""Text from models and specs, made safe to show: it is data, never markup."""

from __future__ import annotations

import re
from collections.abc import Sequence

LIMITS = (20_000, 10_000, 5_000, 2_000, 1_000, 500, 200)
"""Characters of a prompt or completion that a report may show; the rows keep all of it."""
BUDGET = 250_000
"""Characters of one kind of transcripts together, of two: below 3 MB even where each character is escaped as five."""

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls but tab and newline; most are not allowed in XML
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction controls reorder the text around them
    "\ufeff\ufffe\uffff\ud800-\udfff]"  # byte order mark, non-characters, lone surrogates
)
_MARKDOWN = re.compile(r"[\\`*\[<|~$]|(?<!\w)_|_(?!\w)|&(?=#?\w+;)|^[#>]|(?<=^\d)[.)](?=\s)|^[-+=](?=[-+=\s]|$)")
_AUTOLINK = re.compile(r"(?i)(https?|ftp|mailto)(?=:)|(www)(?=\.)|(@)(?=\w)")


def visible(text: str) -> str:
    """`text` with every character that could not be seen, or would hide others, spelt out as ⟨U+202E⟩."""
    if text.isprintable():  # then there is none, as nearly always
        return text
    unified = text.replace("\r\n", "\n")
    return _HIDDEN.sub(lambda match: f"⟨U+{ord(match.group()):04X}⟩", unified)


def limit_for(texts: Sequence[str]) -> int:
    """The highest of LIMITS under which `texts` stay within BUDGET together, or the lowest."""
    within = (limit for limit in LIMITS if sum(min(len(text), limit) for text in texts) <= BUDGET)
    return next(within, LIMITS[-1])


def clipped(text: str, limit: int) -> str:
    """`text`, visible, and cut after `limit` characters with a word on how many follow."""
    if len(text) <= limit:
        return visible(text)
    return f"{visible(text[:limit])}\n[… {len(text) - limit:,} more characters are in the stored rows]"


def one_line(text: str) -> str:
    """`text`, visible, with every run of white space as one space."""
    return visible(" ".join(text.split()))


def paragraphs(text: str) -> tuple[str, ...]:
    """`text`, visible, at its blank lines."""
    parts = re.split(r"\n[ \t]*\n", visible(text))
    return tuple(part.strip() for part in parts if part.strip())


def md(text: str) -> str:
    """Plain text as one line of GitHub-flavoured Markdown: no markup in it takes effect."""
    escaped = _MARKDOWN.sub(r"\\\g<0>", one_line(text))
    return _AUTOLINK.sub(r"\g<0><!-- -->", escaped)


def md_code(text: str) -> str:
    """A code span, also inside a table cell."""
    line = one_line(text).replace("|", "\\|")
    ticks = "`" * (_longest_run(line) + 1)
    pad = " " if line.startswith("`") or line.endswith("`") or not line else ""
    return f"{ticks}{pad}{line}{pad}{ticks}"


def md_block(text: str) -> str:
    """A fenced code block that no text can close early."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}text\n{text.removesuffix(chr(10))}\n{fence}"


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
