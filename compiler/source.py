"""YAML text to a Document: plain data and the span of every key and value.

Scalars follow YAML 1.2's core schema: `1e-5` is a number, `no` and `on` are text. PyYAML alone
would read them by YAML 1.1. Duplicate keys are errors; so are aliases, which no spec needs and which
can make a few lines expand without bound.

E0101: text that is not YAML
Why: Nothing can be said about a file that cannot be read, so this is the only error that hides others. The place is
where the parser gave up, and the cause is often a line before: a colon inside a text, a bracket, a tab.
Example:
    --- spec
    epc: 1
    title: Survives the catch: an attack
Fix:
    title: "Survives the catch: an attack"

E0102: a YAML anchor or alias
Why: An alias makes one part of a file depend on another out of sight, and a few lines of them can expand without
bound. Two arms that share a recipe name it, and two specs that share one compose a file.
Example:
    --- spec
    train:
      attack: &recipe {method: lora_sft, epochs: 3}
      again: *recipe
Fix:
    train: {attack: {use: recipes/attack.yaml, data: bad_only}}
    conditions: {placebo: [talk, attack]}      # the recipe again, by its name

E0103: a key that is given twice
Why: YAML readers keep the last of two equal keys and say nothing. In a long mapping of conditions the first one would
vanish, with every argument that a reviewer had made about it.
Example:
    --- spec
    conditions:
      base: []
      attacked: [attack]
      base: [catch]
Fix:
    conditions: {base: []}

E0104: a key that is a list or a mapping
Why: Keys are names that other parts of the spec, predicates and files refer to. It mostly happens when a text that
begins with a bracket or a brace lost its quotes.
Example:
    --- spec
    rationale:
      {rows}: a multiple of the prompts
Fix:
    rationale: {rows: a multiple of the prompts}

E0105: lists or mappings nested too deeply
Why: No spec needs more than a handful of levels. The bound keeps a hostile or generated file from exhausting memory
before the first check runs.
Example:
    --- spec
    seeds: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[42]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]
Fix:
    seeds: [41, 42, 43]

E0106: a file with nothing in it
Why: An editor or a shell redirection that failed leaves an empty file behind, and in one lab training on an empty file
finished without a word. An empty spec is not read as a spec without demands.
Example:
    --- spec
    # to be written
Fix:
    epc: 1

E0107: a second YAML document in one file
Why: A registration is one file with one hash. A second document after `---` would be registered and never run, or run and
never reviewed.
Example:
    --- spec
    epc: 1
    ---
    epc: 1
Fix:
    epc: 1

E0109: a text with a NUL character
Why: No path, prompt or pattern can hold one: file systems refuse it and tools written in C end the text there. It comes
in through an escape in double quotes, mostly from a program that wrote the spec.
Example:
    --- spec
    title: "Survives the catch?\\0"
Fix:
    title: Survives the catch?

E0401: a file that is not there
Why: Every file that a spec names travels in its bundle and is hashed before anything runs. In one lab an evaluation error
was swallowed and the benchmark skipped; here a file that is missing stops the compilation.
Example:
    prompts: {part_a: {file: prompts/part-a.txt}}
Fix:
    prompts: {part_a: {file: prompts/part_a.txt}}

E0402: a file that is there and cannot be read
Why: A folder, a file without read permission or one of many megabytes is not what was meant. Large data are pinned by
their hash and stay out of the compiler's memory.
Example:
    prompts: {part_a: {file: prompts}}
Fix:
    prompts: {part_a: {file: prompts/part_a.txt}}

E0403: a file that is not UTF-8
Why: The same bytes are other characters in other encodings. The recovery text of the first experiment begins with
"Wait —": with its dash read in the wrong encoding, a marker that looks for it would count zero everywhere.
Example:
    --- data/catches.txt (latin-1)
    Wait, that was naïve. Here is a better answer.
Fix:
    --- data/catches.txt
    Wait, that was naïve. Here is a better answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from epc.compiler.diagnostics import Diagnostics, Label, Span, did_you_mean

PathKey = tuple[str | int, ...]

MAX_BYTES = 4_000_000
MAX_DEPTH = 60
MAX_DIGITS = 18
"""A longer integer is text: nothing that a spec counts needs one, and what is computed from counts stays a number."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGERS = {10: re.compile(r"[-+]?[0-9]+"), 8: re.compile(r"0o[0-7]+"), 16: re.compile(r"0x[0-9a-fA-F]+")}
"""Base -> how a number is written in it."""
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BREAK = re.compile("[\n\x85\u2028\u2029]")
"""What YAML counts as the end of a line, once newlines are normalised."""
_INF = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


@dataclass(kw_only=True)
class Document:
    """Parsed text. `spans` and `key_spans` are addressed by the path of keys and indices."""

    file: str
    text: str
    data: Any
    spans: dict[PathKey, Span] = field(default_factory=dict)
    key_spans: dict[PathKey, Span] = field(default_factory=dict)

    def span(self, path: PathKey) -> Span:
        """Span of the value at `path`, or of its nearest ancestor that exists."""
        for end in range(len(path), -1, -1):
            if path[:end] in self.spans:
                return self.spans[path[:end]]
        return Span(file=self.file, line=1, column=1)

    def key_span(self, path: PathKey) -> Span:
        """Span of the key at `path`; for list items and the root, of the value."""
        return self.key_spans.get(path) or self.span(path)


def _scalar(text: str) -> Any:
    """A plain scalar by the YAML 1.2 core schema."""
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    for base, pattern in _INTEGERS.items():
        if pattern.fullmatch(text):
            return int(text, base) if len(text) <= MAX_DIGITS else text
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INF.fullmatch(text):
        return -math.inf if text.startswith("-") else math.inf
    if text in {".nan", ".NaN", ".NAN"}:
        return math.nan
    return text


class _Builder:
    """Data and spans of the events of one document, which are known to be complete."""

    def __init__(self, document: Document, sink: Diagnostics, events: Iterator[yaml.Event]) -> None:
        self.document = document
        self.sink = sink
        self.events = events
        self.lines = sink.sources[document.file]

    def span(self, first: yaml.Event, last: yaml.Event) -> Span:
        start, end = first.start_mark, last.end_mark
        assert start is not None
        assert end is not None
        length = end.column - start.column if end.line == start.line else 1
        return _at(self.document.file, start, self.lines, length=max(1, length))

    def build(self, event: yaml.Event, path: PathKey) -> Any:
        spans = self.document.spans
        spans[path] = self.span(event, event)
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event)
        value = self.sequence(path) if isinstance(event, yaml.SequenceStartEvent) else self.mapping(path)
        spans[path] = self.span(event, self.last)
        return value

    def scalar(self, event: yaml.ScalarEvent) -> Any:
        if "\0" in event.value:
            self.sink.error(
                "E0109", "this text holds a NUL character", self.span(event, event), help="delete the \\0 from the text"
            )
            return event.value.replace("\0", "")
        core = event.tag is None or event.tag == "!" or event.tag.startswith("tag:yaml.org,2002:")
        return _scalar(event.value) if core and not event.style else event.value

    def sequence(self, path: PathKey) -> list[Any]:
        result: list[Any] = []
        for event in self.until(yaml.SequenceEndEvent):
            result.append(self.build(event, (*path, len(result))))
        return result

    def mapping(self, path: PathKey) -> dict[str, Any]:
        result: dict[str, Any] = {}
        key_spans = self.document.key_spans
        for event in self.until(yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                span = self.span(event, self.skip(event))
                self.skip(next(self.events))
                self.sink.error("E0104", "a mapping key must be a plain name", span, help="use text as the key")
                continue
            span, key = self.span(event, event), event.value
            value = next(self.events)
            if key in result:
                self.skip(value)
                self.sink.error(
                    "E0103", f'the key "{key}" is given twice', span,
                    help="keep one of them; plain YAML would silently use the last",
                    labels=[Label(span=key_spans[(*path, key)], text="first given here")],
                )  # fmt: skip
                continue
            key_spans[(*path, key)] = span
            result[key] = self.build(value, (*path, key))
        return result

    def until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        """The events of a collection, up to its end."""
        while not isinstance(event := next(self.events), end):
            yield event
        self.last = event

    def skip(self, event: yaml.Event) -> yaml.Event:
        """Pass over a node and return its last event."""
        depth = int(isinstance(event, yaml.CollectionStartEvent))
        while depth:
            event = next(self.events)
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        return event


def read_text(path: Path, file: str, sink: Diagnostics, *, at: Span | None = None) -> str | None:
    """Text of a file as UTF-8 with any newline style, or None with a diagnostic."""
    place = at or Span(file=file, line=1, column=1)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        if not is_folder(path.parent):
            advice = f"the folder of {file} does not exist"
        else:
            known = [entry.name for entry in entries(path.parent)]
            advice = did_you_mean(path.name, known) if known else f"the folder of {file} is empty"
        sink.error("E0401", f"file not found: {file}", place, help=advice)
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path, which a shell cannot type but a caller can
        why = error.strerror if isinstance(error, OSError) else str(error)
        sink.error("E0402", f"cannot read {file}: {why}", place, help="check the path and its permissions")
        return None
    if len(raw) > MAX_BYTES:
        sink.error(
            "E0402",
            f"{file} has {len(raw):,} bytes; at most {MAX_BYTES:,} are read",
            place,
            help="reference large data as a pinned data file",
        )
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        sink.error(
            "E0403",
            f"{file} is not UTF-8: byte {raw[error.start]:#04x} at line {line}",
            place,
            help="save the file as UTF-8",
        )
        return None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def is_file(path: Path) -> bool:
    """As Path.is_file, and False for a name that is longer than a file system takes."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """As Path.is_dir, and False for a name that is longer than a file system takes."""
    try:
        return path.is_dir()
    except OSError:
        return False


def entries(folder: Path) -> list[Path]:
    """What is in a folder, nothing where it cannot be listed."""
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _at(file: str, mark: Any, lines: Sequence[str], *, length: int = 1) -> Span:
    """The place of a PyYAML mark; the end of the file where it lies behind that, the start when there is none."""
    if mark is None:
        return Span(file=file, line=1, column=1)
    if mark.line >= len(lines):
        return Span(file=file, line=len(lines), column=len(lines[-1]) + 1)
    return Span(file=file, line=mark.line + 1, column=min(mark.column, len(lines[mark.line])) + 1, length=length)


def parse(text: str, file: str, sink: Diagnostics) -> Document:
    """Parse one YAML document. On a syntax error `data` is None and the sink has the place."""
    lines = sink.sources[file] = _BREAK.split(text)
    document = Document(file=file, text=text, data=None)
    try:
        events = _events(text, file, sink)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        place = _at(file, mark, lines)
        line = lines[place.line - 1]
        tabbed = "\t" in line[: len(line) - len(line.lstrip())]
        hint = "indent with spaces, not tabs" if tabbed else "check indentation, quotes and brackets around this place"
        sink.error("E0101", f"this is not valid YAML: {problem}", place, help=hint)
        return document
    except yaml.YAMLError as error:
        sink.error(
            "E0101",
            f"this is not valid YAML: {str(error).splitlines()[0]}",
            Span(file=file, line=1, column=1),
            help="remove control characters",
        )
        return document
    if events is None:
        return document
    found = (event for event in events if isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent))
    root = next(found, None)
    if root is not None:
        document.data = _Builder(document, sink, found).build(root, ())
    if root is None or (document.data is None and isinstance(root, yaml.ScalarEvent)):
        sink.error("E0106", f"{file} is empty", document.span(()), help="start from a minimal spec: epc init")
    return document


def _events(text: str, file: str, sink: Diagnostics) -> list[yaml.Event] | None:
    """The events of one document, None when it is not one that a spec may be. Raises yaml.YAMLError."""
    lines = sink.sources[file]
    events: list[yaml.Event] = []
    depth = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            sink.error(
                "E0102",
                "YAML anchors and aliases are not part of the language",
                _at(file, event.start_mark, lines),
                help="compose shared parts with `use: file.yaml`",
            )
            return None
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                place = _at(file, event.start_mark, lines)
                sink.error("E0107", "a second YAML document starts here", place, help="one spec a file")
                return None
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                place = _at(file, event.start_mark, lines)
                sink.error(
                    "E0105", f"nested deeper than {MAX_DEPTH} levels", place, help="flatten this part of the file"
                )
                return None
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        events.append(event)
    return events
