"""YAML text to data and spans."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.diagnostics import Diagnostics, render
from epc.compiler.source import MAX_DEPTH, parse, read_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1.5", 1.5),
        (".5", 0.5),
        ("12", 12),
        ("0o14", 12),
        ("0xff", 255),
        ("010", 10),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("'12'", "12"),
        ('"true"', "true"),
        (".inf", math.inf),
        ("=", "="),
        ("<<", "<<"),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: Any) -> None:
    sink = Diagnostics()
    data = parse(f"key: {text}\n", "x.yaml", sink).data
    assert not list(sink)
    assert data == {"key": value}
    assert type(data["key"]) is type(value)


@pytest.mark.parametrize(
    ("text", "code", "line", "column"),
    [
        ("a: 1\nb: [1, 2\n", "E0101", 3, 1),
        ("a: 1\n\tb: 2\n", "E0101", 2, 1),
        ("a: &x 1\nb: *x\n", "E0102", 1, 4),
        ("a: 1\nb: 2\na: 3\n", "E0103", 3, 1),
        ("a: {b: 1, b: 2}\n", "E0103", 1, 11),
        ("[1, 2]: 3\n", "E0104", 1, 1),
        ("", "E0106", 1, 1),
        ("# only a comment\n", "E0106", 1, 1),
        ("a: 1\n---\nb: 2\n", "E0107", 2, 1),
        ("a: " + "[" * 200 + "]" * 200, "E0105", 1, MAX_DEPTH + 3),
        ("a: 'open\n", "E0101", 2, 1),
        ("a: \x07\n", "E0101", 1, 1),
    ],
)
def test_unreadable_text_is_one_error_with_a_place(text: str, code: str, line: int, column: int) -> None:
    sink = Diagnostics()
    parse(text, "x.yaml", sink)
    (found,) = list(sink)
    assert (found.code, found.span.line, found.span.column) == (code, line, column)
    assert found.help


def test_a_tab_is_named_as_the_cause() -> None:
    for text in ("a: 1\n\tb: 2\n", "a:\n\t- b\n", "a: b\n\tc\n"):
        sink = Diagnostics()
        parse(text, "x.yaml", sink)
        assert [d.help for d in sink] == ["indent with spaces, not tabs"], text


def test_billion_laughs_stops_at_the_first_anchor() -> None:
    sink = Diagnostics()
    levels = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 12))
    assert parse("l0: &l0 lol\n" + levels, "x.yaml", sink).data is None
    assert [d.code for d in sink] == ["E0102"]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85"])
def test_unusual_line_breaks_keep_places_right(mark: str) -> None:
    sink = Diagnostics()
    parse(f'a: "x{mark}y"\nb: [1\n', "x.yaml", sink)
    (found,) = list(sink)
    assert found.code == "E0101"
    assert found.span.line <= len(sink.sources["x.yaml"])
    assert render(sink)


def test_spans_of_keys_and_values() -> None:
    document = parse("a:\n  - b: 12\n    c: text\n", "x.yaml", Diagnostics())
    value, key = document.span(("a", 0, "c")), document.key_span(("a", 0, "c"))
    assert (value.line, value.column, value.length) == (3, 8, 4)
    assert (key.line, key.column, key.length) == (3, 5, 1)
    assert document.span(("a", 0, "missing")) == document.span(("a", 0))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\xef\xbb\xbfa: 1\n", "a: 1\n"),
        (b"a: 1\r\nb: 2\r\n", "a: 1\nb: 2\n"),
        ("a: ü\n".encode(), "a: ü\n"),
    ],
)
def test_byte_order_mark_and_newlines(tmp_path: Path, content: bytes, text: str) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    assert read_text(file, "x.yaml", Diagnostics()) == text


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("gone.yaml", None, "E0401"),
        ("latin.yaml", b"a: \xfc\n", "E0403"),
        ("utf16.yaml", "a: 1".encode("utf-16"), "E0403"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, content: bytes | None, code: str) -> None:
    (tmp_path / "near.yaml").write_text("a: 1")
    if content is not None:
        (tmp_path / name).write_bytes(content)
    sink = Diagnostics()
    assert read_text(tmp_path / name, name, sink) is None
    assert [d.code for d in sink] == [code]


@pytest.mark.parametrize(
    ("name", "advice"),
    [("full/neer.yaml", 'did you mean "near.yaml"?'), ("empty/x.yaml", "is empty"), ("none/x.yaml", "does not exist")],
)
def test_a_missing_file_says_what_its_folder_holds(tmp_path: Path, name: str, advice: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/near.yaml").touch()
    (tmp_path / "empty").mkdir()
    sink = Diagnostics()
    assert read_text(tmp_path / name, name, sink) is None
    (found,) = list(sink)
    assert advice in found.help
