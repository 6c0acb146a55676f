"""The prompt of a judge, filled with one question and one answer.

What is judged is data. A completion may try to close the place that the rubric gives it and to write
instructions after it. So the rubric's own delimiters are looked up, and wherever one of them occurs in
a filled text, a backslash goes behind its first character: `</answer>` reaches the judge as `<\\/answer>`.
The same happens to what only looks like one: in another case or width, with letters of another alphabet, with
characters in it that are not seen. A reader sees what stood there; the stored completion is left as it is.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from epc.compiler.contract import chat
from epc.compiler.contract.canonical import sha256_text
from epc.runtime.errors import Fault

NAMES = ("question", "answer")
"""Placeholders that a rubric may use; {answer} must be there."""

_ALIKE = str.maketrans(
    "‹〈⟨❬❮ᐸ˂≺›〉⟩❭❯ᐳ˃≻⁄∕╱⧸∖⧵" + "аеорсхуіјѕһԁԛԝѵкмтнвгп" + "αεορνικυωτηχ" + "ıɡɑᴀᴇᴏʀꜱ" + "【】［］〔〕",
    "<<<<<<<<>>>>>>>>////\\\\" + "aeopcxyijshdqwvkmthbrn" + "aeopvikuwtnx" + "igaaeors" + "[][][]",
)
"""Look-alikes in lower case that no compatibility mapping of Unicode knows -> what they look like (after UTS #39, Unicode
Security Mechanisms, 2024)."""
_PLAIN = re.compile(r"[\t-\r -~]*")
"""Text in which nothing is hidden and no letter looks like another."""
_TAG = re.compile(r"</?\s*([A-Za-z][\w:.-]*)")


@dataclass(frozen=True, kw_only=True)
class Rubric:
    """A judge's prompt."""

    text: str
    sha256: str
    place: str
    """For errors."""

    @property
    def asks_question(self) -> bool:
        return "question" in chat.placeholders(self.text)

    def fill(self, *, question: str, answer: str) -> str:
        """The message: each placeholder replaced once, filled text never scanned again."""
        guard = _guard(self.text)
        return chat.fill_text(self.text, {"question": _guarded(question, guard), "answer": _guarded(answer, guard)})

    @functools.cached_property
    def start(self) -> str:
        """How every message begins: what stands before the first placeholder, less its last word.

        That word begins the rest, which therefore is never blank: the interface takes no blank block of text.
        """
        words = chat.before_placeholders(self.text).rstrip()
        return words[: len(words) - len(words.split()[-1])] if words else ""

    def rest(self, *, question: str, answer: str) -> str:
        """The message after `start`."""
        return self.fill(question=question, answer=answer)[len(self.start) :]


def read(file: Path, *, sha256: str) -> Rubric:
    """A rubric file as registered.

    Raises Fault R0801 when it is missing or no text, R0802 when it is not the registered one, R0803 for a
    placeholder that nothing fills or when {answer} is not there.
    """
    place = str(file)
    try:
        text = file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise Fault("R0801", place, "the rubric is missing", "compile the spec again") from None
    except UnicodeDecodeError:
        raise Fault("R0801", place, "the rubric is not UTF-8 text", "save it as UTF-8 and compile again") from None
    if sha256_text(text) != sha256:
        raise Fault(
            "R0802", place, f"this is not the registered rubric: its SHA-256 begins {sha256_text(text)[:12]}, not {sha256[:12]}",
            "an input file of the bundle was changed: compile the spec again",
        )  # fmt: skip
    found = chat.placeholders(text)
    unknown = [name for name in found if name not in NAMES]
    if unknown:
        raise Fault(
            "R0803", place, f"nothing fills {{{unknown[0]}}}",
            "a rubric may use {question} and {answer}; write {{ and }} for braces",
        )  # fmt: skip
    if "answer" not in found:
        raise Fault("R0803", place, "{answer} is nowhere in the rubric", "say where the completion goes: {answer}")
    return Rubric(text=text, sha256=sha256, place=place)


@functools.cache
def _guard(rubric: str) -> re.Pattern[str] | None:
    """Matches what delimits a filled text in this rubric, in texts as `_folded` gives them.

    Delimiters are the tags that the rubric uses, in any spelling, and the text after a placeholder up to
    the end of its line or, where nothing follows there, the next line with text. Bare punctuation is too
    common to be one.
    """
    found: dict[str, None] = {}
    for match in _TAG.finditer(rubric):
        found[rf"<\s*/?\s*{re.escape(_folded(match[1])[0])}(?![\w:.-])"] = None
    for name in NAMES:
        for after in rubric.split("{" + name + "}")[1:]:
            words = next((line.split() for line in after.split("\n") if line.strip()), [])
            if any(character.isalnum() for word in words for character in word):
                found[r"\s+".join(re.escape(_folded(word)[0]) for word in words)] = None
    return re.compile("|".join(found)) if found else None


def _folded(text: str) -> tuple[str, list[int] | range]:
    """What a text looks like, in plain lower-case letters, and where in the text each character of that stands.

    Compatibility decomposition, then case folding, then look-alikes; accents and what is not seen (control and
    format characters, joiners, variation selectors) are left out.
    """
    if _PLAIN.fullmatch(text):
        return text.lower(), range(len(text))
    folded: list[str] = []
    places: list[int] = []
    for place, character in enumerate(text):
        for part in unicodedata.normalize("NFKD", character).casefold().translate(_ALIKE):
            unseen = unicodedata.category(part) in ("Cf", "Cc", "Mn", "Me", "Cn", "Co", "Cs")
            if part.isspace() or not unseen:
                folded.append(part)
                places.append(place)
    return "".join(folded), places


def _guarded(text: str, guard: re.Pattern[str] | None) -> str:
    if guard is None:
        return text
    folded, places = _folded(text)
    pieces: list[str] = []
    end = 0
    for match in guard.finditer(folded):
        after = places[match.start()] + 1
        pieces += [text[end:after], "\\"]
        end = after
    return "".join([*pieces, text[end:]])
