"""Explanations of diagnostic codes, read from the docstrings of the modules that report them.

A section of a docstring begins with `E0501: what is reported` and holds `Why:`, `Example:` and `Fix:`. Example
and Fix are fragments of a spec that are laid over a sound one; a test does that, and demands that the first is
refused with the code and the second is not.
"""

from __future__ import annotations

import ast
import functools
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import groupby, zip_longest
from typing import Any, Final

WIDTH: Final = 100
"""Columns of a page."""
GROUPS: Final[Mapping[str, str]] = {
    "01": "YAML",
    "02": "Shape of the spec",
    "03": "Names, placeholders and predicates",
    "04": "Files and hashes",
    "05": "Counts",
    "06": "Training data that is also evaluated",
    "07": "Conversations, training and sampling",
    "08": "Judges, analyses, gates and switches",
    "09": "The verdict table",
    "10": "Reporting",
    "11": "Cost",
    "12": "The model",
    "13": "Declared and not used",
    "14": "Stated figures and lineage",
    "15": "Accepted warnings",
    "16": "Results from elsewhere",
    "17": "Truths and simulation",
    "18": "Labels of people",
    "19": "Trackers and capability tasks",
}
"""First two digits of a code -> what these codes are about."""
_CODES: Final = r"[EW]\d{4}(?:, [EW]\d{4})*"
_HEADING: Final = re.compile(rf"^({_CODES}): (\S.*)$", re.MULTILINE)
_HEADING_IN_SOURCE: Final = re.compile(rf'^ *(?:r?""")?({_CODES}): \S', re.MULTILINE)
_WORD: Final = re.compile(r"^(?:a|[a-z]{2,})(?=[ ,'])")
"""A first word that is written small, and is neither code nor a symbol."""
_FILE: Final = re.compile(r"^--- (\S+)")
_MARKS: Final = {
    r"^--- (?!spec\b)": "`--- FILE` begins the text of a file, which lies where the path says, seen from the spec.",
    r"^--- spec\b": "`--- spec` begins the text of a whole spec.",
    r": null\b": "`null` stands for a key that is left out.",
}
"""Mark in an example -> what it means to a reader."""
_PART: Final = re.compile(r"^(Why|Example|Fix):[ \t]*", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What one code, or an error and a warning that share an explanation, means."""

    codes: tuple[str, ...]
    what: str
    why: str
    example: str
    fix: str
    module: str
    """Path below the compiler of the module that reports it."""

    def text(self, code: str) -> str:
        """The page that `epc explain` prints."""
        verb = "refused" if severity(code) == "error" else "warned about"
        parts = [
            _fill(f"{severity(code)}[{code}]: {self.what}"), _fill(_WORD.sub(lambda found: found[0].capitalize(), self.why)),
            f"In a spec that is otherwise sound, this is {verb}:", _indented(self.example),
            "and this is not:", _indented(self.fix),
        ]  # fmt: skip
        notes = [note for mark, note in _MARKS.items() if re.search(mark, f"{self.example}\n{self.fix}", re.MULTILINE)]
        parts += [_fill(" ".join(notes))] if notes else []
        if severity(code) == "warning":
            accepted = f"allow: [{{code: {code}, reason: <why it does not matter here>}}]"
            parts.append(f"To accept it, with a reason that is registered:\n\n  {accepted}")
        return "\n\n".join(parts)

    def record(self, code: str) -> dict[str, Any]:
        """The same for a program."""
        return {
            "code": code, "severity": severity(code), "group": GROUPS.get(code[1:3], ""), "what": self.what,
            "why": self.why, "example": self.example, "fix": self.fix, "module": self.module,
        }  # fmt: skip


def severity(code: str) -> str:
    return "error" if code.startswith("E") else "warning"


def _fill(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _indented(block: str) -> str:
    """An example on a page: long lines of YAML are broken where it allows that, other files stay as they are."""
    lines: list[str] = []
    yaml = True
    for line in block.splitlines():
        file = _FILE.match(line)
        yaml = file[1].endswith((".yaml", ".yml")) if file is not None else yaml
        lines += _broken(line, WIDTH - 2) if yaml else [line]
    return textwrap.indent("\n".join(lines), "  ")


def _broken(line: str, width: int) -> Iterator[str]:
    """A line of YAML in lines of at most `width` columns, as far as its comment and its flow collections allow."""
    if len(line) <= width:
        yield line
        return
    margin = " " * (len(line) - len(line.lstrip()))
    code, _, comment = line.partition("  # ") if not line.lstrip().startswith("#") else ("", "", line.lstrip(" #"))
    if comment:
        yield from textwrap.wrap(comment, width, initial_indent=f"{margin}# ", subsequent_indent=f"{margin}# ")
    code = code.rstrip()
    opened: tuple[int, ...] = ()
    while len(code) > width:
        cut, opened = _break(code, width, opened)
        if cut == 0:
            break
        yield code[:cut].rstrip()
        code = " " * opened[-1] + code[cut:].lstrip()
    if code:
        yield code


def _break(line: str, width: int, opened: tuple[int, ...]) -> tuple[int, tuple[int, ...]]:
    """Where a line of YAML may be broken, 0 for nowhere, and the columns at which the flow collections open there begin.

    After the last comma of a collection that fits, else before an `and` or an `or` of a predicate in one; never where
    the rest would begin in the right half of the page. `opened` are the collections that earlier lines opened.
    """
    comma, word, quote = (0, opened), (0, opened), ""
    for place, character in enumerate(line[:width]):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'" and line[place - 1] in " [{":
            quote = character
        elif character in "[{":
            opened = (*opened, place + 1)
        elif character in "]}":
            opened = opened[:-1]
        elif opened and opened[-1] <= width // 2:
            if line.startswith(", ", place):
                comma = place + 1, opened
            elif line.startswith((" and ", " or "), place):
                word = place + 1, opened
    return comma if comma[0] else word


def sections(docstring: str, module: str = "") -> Iterator[Explanation]:
    """Explanations of a docstring; a section that lacks a part has it empty."""
    found = list(_HEADING.finditer(docstring))
    for heading, following in zip_longest(found, found[1:]):
        body = docstring[heading.end() : following.start() if following else len(docstring)]
        first = _PART.search(body)
        lead = body[: first.start()] if first else body
        pieces = _PART.split(body[first.start() :])[1:] if first else []
        parts = dict(zip(pieces[::2], pieces[1::2], strict=True))
        yield Explanation(
            codes=tuple(heading[1].split(", ")), what=" ".join((heading[2] + lead).split()), why=" ".join(parts.get("Why", "").split()),
            example=_block(parts.get("Example", "")), fix=_block(parts.get("Fix", "")), module=module,
        )  # fmt: skip


def _block(text: str) -> str:
    return textwrap.dedent(text).strip("\n").rstrip()


@functools.cache
def _all_modules() -> tuple[tuple[str, str, set[str]], ...]:
    """(path, source, explained codes) of every module of the compiler that explains one, in order of path."""
    return tuple(_modules(resources.files("epc.compiler")))


def _modules(folder: Traversable, path: str = "") -> Iterator[tuple[str, str, set[str]]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            yield from _modules(entry, f"{path}{entry.name}/")
        elif entry.name.endswith(".py"):
            source = entry.read_text(encoding="utf-8")
            headings = {code for found in _HEADING_IN_SOURCE.finditer(source) for code in found[1].split(", ")}
            if headings:
                yield path + entry.name, source, headings


def _documented(
    node: ast.Module | ast.FunctionDef | ast.ClassDef,
) -> Iterator[ast.Module | ast.FunctionDef | ast.ClassDef]:
    """A module and its functions and classes: what has a docstring."""
    yield node
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield from _documented(child)


@functools.cache
def _of_source(path: str, source: str) -> dict[str, Explanation]:
    return {
        code: section
        for node in _documented(ast.parse(source))
        for section in sections(ast.get_docstring(node) or "", path)
        for code in section.codes
    }


def explanations(wanted: Iterable[str] | None = None) -> dict[str, Explanation]:
    """Code -> explanation, of every code or of the wanted ones that exist, in order.

    Only modules that explain a wanted code are parsed.
    """
    codes = None if wanted is None else set(wanted)
    found: dict[str, Explanation] = {}
    for path, source, headings in _all_modules():
        if codes is None or codes & headings:
            found |= {code: entry for code, entry in _of_source(path, source).items() if codes is None or code in codes}
    return dict(sorted(found.items(), key=lambda entry: _order(entry[0])))


def known_codes() -> list[str]:
    """Every explained code, in order; nothing is parsed."""
    return sorted((code for _, _, headings in _all_modules() for code in headings), key=_order)


def _order(code: str) -> tuple[str, str]:
    return code[1:], code


def listing(found: Mapping[str, Explanation]) -> str:
    """All codes in groups, a line each."""
    lines: list[str] = []
    for digits, codes in groupby(found, key=lambda code: code[1:3]):
        lines += ["", GROUPS.get(digits, f"Codes {digits}xx")]
        lines += [f"  {code}  {textwrap.shorten(found[code].what, WIDTH - 9, placeholder=' ...')}" for code in codes]
    return "\n".join(lines[1:])
