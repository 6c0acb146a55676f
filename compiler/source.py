"""YAML text to a Document: plain data and the span of every key and value.

Scalars follow YAML 1.2's core schema: `1e-5` is a number, `no` and `on` are text. PyYAML alone
would read them by YAML 1.1. Duplicate keys are errors; so are aliases, which no spec needs and which
can make a few lines expand without bound.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from epc.compiler.diagnostics import Diagnostics, Label, Span, did_you_mean

PathKey = tuple[str | int, ...]

MAX_BYTES = 4_000_000
MAX_DEPTH = 60

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INT = re.compile(r"[-+]?[0-9]+")
_OCT = re.compile(r"0o[0-7]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+")
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
    if _INT.fullmatch(text):
        return int(text) if len(text) < 400 else text
    if _OCT.fullmatch(text):
        return int(text, 8)
    if _HEX.fullmatch(text):
        return int(text, 16) if len(text) < 400 else text
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INF.fullmatch(text):
        return -math.inf if text.startswith("-") else math.inf
    if text in {".nan", ".NaN", ".NAN"}:
        return math.nan
    return text


class _Builder:
    def __init__(self, document: Document, sink: Diagnostics) -> None:
        self.document = document
        self.sink = sink

    def span(self, node: yaml.Node) -> Span:
        start, end = node.start_mark, node.end_mark
        length = end.column - start.column if end.line == start.line else 1
        return Span(file=self.document.file, line=start.line + 1, column=start.column + 1, length=max(1, length))

    def build(self, node: yaml.Node, path: PathKey) -> Any:
        self.document.spans[path] = self.span(node)
        if len(path) > MAX_DEPTH:
            self.sink.error(
                "E0105", f"nested deeper than {MAX_DEPTH} levels", self.span(node), help="flatten this part of the file"
            )
            return None
        if isinstance(node, yaml.ScalarNode):
            if not node.style and (node.tag is None or node.tag.startswith("tag:yaml.org,2002:")):
                return _scalar(node.value)
            return node.value
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*path, index)) for index, child in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            span = self.span(key_node)
            if not isinstance(key_node, yaml.ScalarNode):
                self.sink.error("E0104", "a mapping key must be a plain name", span, help="use text as the key")
                continue
            key = key_node.value
            if key in result:
                first = self.document.key_spans[(*path, key)]
                self.sink.error(
                    "E0103", f'the key "{key}" is given twice', span,
                    help="keep one of them; plain YAML would silently use the last",
                    labels=[Label(span=first, text="first given here")],
                )  # fmt: skip
                continue
            self.document.key_spans[(*path, key)] = span
            result[key] = self.build(value_node, (*path, key))
        return result


def read_text(path: Path, file: str, sink: Diagnostics, *, at: Span | None = None) -> str | None:
    """Text of a file as UTF-8 with any newline style, or None with a diagnostic."""
    place = at or Span(file=file, line=1, column=1)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        if not path.parent.is_dir():
            advice = f"the folder of {file} does not exist"
        else:
            known = [entry.name for entry in path.parent.iterdir()]
            advice = did_you_mean(path.name, known) if known else f"the folder of {file} is empty"
        sink.error("E0401", f"file not found: {file}", place, help=advice)
        return None
    except OSError as error:
        sink.error("E0402", f"cannot read {file}: {error.strerror}", place, help="check the path and its permissions")
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


def _at(file: str, mark: Any) -> Span:
    """The place of a PyYAML mark; the start of the file when there is none."""
    return Span(file=file, line=mark.line + 1, column=mark.column + 1) if mark else Span(file=file, line=1, column=1)


def parse(text: str, file: str, sink: Diagnostics) -> Document:
    """Parse one YAML document. On a syntax error `data` is None and the sink has the place."""
    sink.sources[file] = _BREAK.split(text)
    document = Document(file=file, text=text, data=None)
    try:
        # composing recurses in C once per level, so the depth is bounded before it
        depth = 0
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                sink.error(
                    "E0102",
                    "YAML anchors and aliases are not part of the language",
                    _at(file, event.start_mark),
                    help="compose shared parts with `use: file.yaml`",
                )
                return document
            if isinstance(event, yaml.DocumentStartEvent) and document.spans:
                sink.error(
                    "E0107", "a second YAML document starts here", _at(file, event.start_mark), help="one spec a file"
                )
                return document
            if isinstance(event, yaml.DocumentEndEvent):
                document.spans[()] = _at(file, event.start_mark)  # seen one; replaced when the nodes are built
            if isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    sink.error(
                        "E0105",
                        f"nested deeper than {MAX_DEPTH} levels",
                        _at(file, event.start_mark),
                        help="flatten this part of the file",
                    )
                    return document
            elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                depth -= 1
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        line = sink.sources[file][mark.line] if mark else ""
        tabbed = "\t" in line[: len(line) - len(line.lstrip())]
        hint = "indent with spaces, not tabs" if tabbed else "check indentation, quotes and brackets around this place"
        sink.error("E0101", f"this is not valid YAML: {problem}", _at(file, mark), help=hint)
        return document
    except yaml.YAMLError as error:
        sink.error(
            "E0101",
            f"this is not valid YAML: {str(error).splitlines()[0]}",
            Span(file=file, line=1, column=1),
            help="remove control characters",
        )
        return document
    if node is None:
        sink.error(
            "E0106", f"{file} is empty", Span(file=file, line=1, column=1), help="start from a minimal spec: epc init"
        )
        return document
    document.data = _Builder(document, sink).build(node, ())
    return document
