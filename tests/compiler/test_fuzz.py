"""No traceback, ever: whatever a file holds, the front end says something that can be shown, soon."""

from __future__ import annotations

import copy
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support import fuzzing

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.predicate import MAX_LENGTH
from epc.compiler.source import MAX_BYTES, parse

SHIPPED = ("quickstart", "minimal", "prompt_only", "two_recipes", "issue147")


@pytest.fixture(scope="module")
def spec() -> Iterator[Path]:
    """Where a spec is written, among the files that the shipped ones name."""
    with tempfile.TemporaryDirectory() as folder:
        yield fuzzing.workspace(Path(folder))


def checked(spec: Path, content: bytes, *, bundle: bool = False) -> Diagnostics:
    spec.write_bytes(content)
    return fuzzing.check(spec, bundle=bundle)


def fuzzed(examples: int) -> settings:
    """Derandomized: the same examples in every run."""
    return settings(
        max_examples=examples, derandomize=True, deadline=None, database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
    )  # fmt: skip


# ------------------------------------------------------------------------------------- any text

TOKENS = (
    "epc: 1", "id: a", "\n", "\n  ", "\n- ", ": ", "- ", "? ", "[", "]", "{", "}", ",", "'", '"', "|", ">-", "&a", "*a", "!!", "!x ",
    "---", "...", "#", "%YAML 1.2", "<<", "~", "null", "true", "1e-5", "0x1f", ".inf", "\t", " ", "\\", "\x85", "\u2028", "\ufeff",
    "gates", "verdicts", "metrics", "analyses", "conditions", "model", "train", "use", "prompts", "otherwise",
)  # fmt: skip
yaml_shaped = st.lists(st.sampled_from(TOKENS), max_size=40).map("".join)


@fuzzed(150)
@given(st.one_of(st.text(max_size=200), yaml_shaped))
def test_any_text_is_read_or_refused(spec: Path, text: str) -> None:
    checked(spec, text.encode("utf-8", "surrogatepass"))


@fuzzed(50)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(spec: Path, content: bytes) -> None:
    checked(spec, content)


# ----------------------------------------------------------------------- mutations of sound specs

EXTREMES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**18 - 1, -(10**18), 10**30, 1e308, -1e308, 5e-324, float("inf"), float("nan"), 0.5,
    "", " ", "\n", "none", "per_condition", "pending", "a" * 5000, "Ünï ☃ \u202e", "x\0y", "{prompt}", "{nobody}", "{", "{{", "a - b",
    "headline.delta", "a and b", "(" * 2000, "a{1000000000}", "0..100", "100..0", "0.." + "9" * 5000, "coherent < " + "9" * 5000,
    "../x", "/etc/passwd", ".", "b" * 300 + ".txt", [], {}, [[]], [1, 2, 3], {"a": 1}, {"": ""}, ["a"] * 200,
)  # fmt: skip
RENAMED = ("x", "", "if", "<<", "a b", "Ünï", "_", "a" * 100)


@cache
def shipped(name: str) -> Any:
    text = (fuzzing.ROOT / "specs" / f"{name}.yaml").read_text(encoding="utf-8")
    return parse(text, name, Diagnostics()).data


def places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path of a document but the root's."""
    if path:
        yield path
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from places(value, (*path, key))


def at(node: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        node = node[key]
    return node


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """A shipped spec with a few of its nodes deleted, doubled, retyped, renamed or swapped, as YAML."""
    document = copy.deepcopy(shipped(draw(st.sampled_from(SHIPPED))))
    for _ in range(draw(st.integers(1, 3))):
        paths = list(places(document))
        path = draw(st.sampled_from(paths))
        parent, key = at(document, path[:-1]), path[-1]
        match draw(st.sampled_from(("delete", "double", "replace", "replace", "rename", "wrap", "swap"))):
            case "delete":
                del parent[key]
            case "double" if isinstance(parent, list):
                parent.insert(key, copy.deepcopy(parent[key]))
            case "double":
                parent[f"{key}_2"] = copy.deepcopy(parent[key])
            case "rename" if isinstance(parent, dict):
                parent[draw(st.sampled_from((*RENAMED, f"{key}s")))] = parent.pop(key)
            case "wrap":
                parent[key] = [parent[key]]
            case "swap":
                other = draw(st.sampled_from(paths))
                if other[: len(path)] != path and path[: len(other)] != other:
                    mine, theirs = parent[key], at(document, other)
                    parent[key] = theirs
                    at(document, other[:-1])[other[-1]] = mine
            case _:
                parent[key] = copy.deepcopy(draw(st.sampled_from(EXTREMES)))
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=draw(st.sampled_from((80, 10_000))))
    return text


@fuzzed(250)
@given(mutated(), st.booleans())
def test_a_mutated_spec_is_checked(spec: Path, text: str, bundle: bool) -> None:
    checked(spec, text.encode("utf-8"), bundle=bundle)


@fuzzed(150)
@given(st.sampled_from(SHIPPED), st.data())
def test_a_spec_with_damaged_text_is_checked(spec: Path, name: str, data: st.DataObject) -> None:
    """Characters lost, doubled or put in: spans must stay inside the file."""
    text = (fuzzing.ROOT / "specs" / f"{name}.yaml").read_text(encoding="utf-8")
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 30)))
        text = text[:start] + data.draw(st.sampled_from((*TOKENS, text[start:end] * 2, ""))) + text[end:]
    checked(spec, text.encode("utf-8"))


# ---------------------------------------------------------------------------------- predicates

PIECES = (
    "headline", ".", "delta", "reject", "a.p", " and ", " or ", " not ", "(", ")", "<", "<=", "==", "!=", ">", "&&", "=", "0.15", "10pp",
    "5 %", "1e999", "-", "+", ",", "'", "−", "≥", "true", "\n", "é", "\0", "1" * 50,
)  # fmt: skip


@fuzzed(400)
@given(st.one_of(st.text(max_size=80), st.lists(st.sampled_from(PIECES), max_size=30).map("".join)))
def test_any_predicate_is_read_or_refused(text: str) -> None:
    fuzzing.predicate(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * (MAX_LENGTH - 1) + "a",
        "not " * (MAX_LENGTH // 4),
        "a and " * (MAX_LENGTH // 6) + "a",
        "(a or b) and " * (MAX_LENGTH // 13) + "a",
        "a.p < 1 and " * (MAX_LENGTH // 12) + "a.p < 1",
        "9" * MAX_LENGTH,
        "a" * MAX_LENGTH,
        "." * MAX_LENGTH,
        "<" * MAX_LENGTH,
        "f(" * (MAX_LENGTH // 2),
        "0 < a.p < 1 < a.p " * (MAX_LENGTH // 18),
    ],
    ids=lambda text: text[:12],
)
def test_long_predicates_are_read_or_refused(text: str) -> None:
    fuzzing.predicate(text)


# ------------------------------------------------------------------------------------ bad files

QUICKSTART = (fuzzing.ROOT / "specs" / "quickstart.yaml").read_text(encoding="utf-8")
DIGITS = "9" * 1_000_000
LAUGHS = "a: &a [x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

FILES: dict[str, tuple[str | bytes, set[str]]] = {
    "empty": ("", {"E0106"}),
    "comments only": ("# to be written\n", {"E0106"}),
    "blank lines": ("  \n\n", {"E0106"}),
    "null": ("~\n", {"E0106"}),
    "a tag and nothing": ("!", {"E0106"}),
    "byte order mark only": (b"\xef\xbb\xbf", {"E0106"}),
    "byte order mark": (b"\xef\xbb\xbf" + QUICKSTART.encode(), set()),
    "Windows line ends": (QUICKSTART.replace("\n", "\r\n"), set()),
    "old Mac line ends": (QUICKSTART.replace("\n", "\r"), set()),
    "UTF-16": (QUICKSTART.encode("utf-16"), {"E0403"}),
    "Latin-1": ("title: ü".encode("latin-1"), {"E0403"}),
    "surrogate": (b"title: \xed\xa0\x80", {"E0403"}),
    "escaped surrogate": (r'title: "\ud800"', {"E0101"}),
    "every byte": (bytes(range(256)), {"E0403"}),
    "NUL": (b"title: a\0b", {"E0101"}),
    "escaped NUL": (QUICKSTART.replace("title: ", r'title: "a\0" #', 1), {"E0109"}),
    "bell": ("title: \x07", {"E0101"}),
    "tab": ("epc:\n\tid: 1\n", {"E0101"}),
    "tab first": ("\tepc: 1", {"E0101"}),
    "open brace at the end, no newline": ("epc: 1\nid: {", {"E0101"}),
    "open bracket behind a line separator": ("epc: 1\u2028id: [\u0085", {"E0101"}),
    "open quote": ('title: "survives', {"E0101"}),
    "colon in a text": ("title: a: b", {"E0101"}),
    "reserved sign": ("title: @home", {"E0101"}),
    "directive": ("%YAML 9.9\n---\nepc: 1\n", {"E0101"}),
    "two documents": ("epc: 1\n---\nepc: 1\n", {"E0107"}),
    "many documents": ("--- a\n" * 100_000, {"E0107"}),
    "text": ("hello", {"E0108"}),
    "list": ("- epc: 1\n", {"E0108"}),
    "integer of a million digits": (f"epc: {DIGITS}", {"E0202", "E0204"}),
    "octal of a million digits": (f"epc: 0o{DIGITS.replace('9', '7')}", {"E0202", "E0204"}),
    "hexadecimal of a million digits": (f"epc: 0x{DIGITS}", {"E0202", "E0204"}),
    "fraction of a million digits": (f"epc: 1.{DIGITS}", {"E0202", "E0204"}),
    "exponent of a million digits": (f"epc: 1e{DIGITS}", {"E0202", "E0204"}),
    "timestamp": ("epc: 2026-11-21T10:00:00Z", {"E0202", "E0204"}),
    "merge key": ("<<: {epc: 1}\n", {"E0201", "E0202"}),
    "merged alias": ("a: &a {epc: 1}\n<<: *a\n", {"E0102"}),
    "alias of nothing": ("*a", {"E0102"}),
    "cyclic alias": ("a: &a [*a]\n", {"E0102"}),
    "billion laughs": (LAUGHS, {"E0102"}),
    "Python object": ("epc: !!python/object/apply:os.system [echo]\n", {"E0202", "E0204"}),
    "tags": ("epc: !!int '1'\nid: !!binary aGk=\ntitle: !!set {x}\nseeds: !mine [1]\n", {"E0202", "E0203", "E0204", "E0205"}),
    "key that is a mapping": ("{epc: 1}: 1\n", {"E0104", "E0202"}),
    "key that is a list": ("? [epc]\n: 1\n", {"E0104", "E0202"}),
    "keys given twice": ("a: 1\n" * 2000, {"E0103", "E0201", "E0202"}),
    "deep lists": ("[" * 100_000, {"E0105"}),
    "deep mappings": ("{a: " * 100_000, {"E0105"}),
    "deep blocks": ("\n".join(" " * depth + "a:" for depth in range(2000)), {"E0105"}),
    "deep dashes": ("- " * 100_000 + "1", {"E0105"}),
    "deep questions": ("? " * 50_000, {"E0105"}),
    "a long text": ("title: " + "a" * (MAX_BYTES - 100), {"E0202"}),
    "a huge file": ("#" * (MAX_BYTES + 1), {"E0402"}),
    "a hundred thousand reasons": ("rationale:\n" + "".join(f"  k{n}: because\n" for n in range(100_000)), {"E0202"}),
    "a hundred thousand equal seeds": ("seeds: [" + "1, " * 100_000 + "1]", {"E0202", "E0723"}),
    "twenty thousand training seeds": (QUICKSTART.replace("seeds: ", f"seeds: {list(range(20_000))} #", 1), {"E0804"}),
    "a rule many times": (QUICKSTART.replace("verdicts:", "verdicts:" + "\n  - {if: dead, then: KILL}" * 500, 1), {"E0903", "E0904", "E0908"}),
    "a range of many digits": ("judges: {a: {output: {x: 0.." + "9" * 5000 + "}}}\n", {"E0202", "E0205"}),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_bad_file_gives_its_code(spec: Path, name: str) -> None:
    content, codes = FILES[name]
    found = checked(spec, content if isinstance(content, bytes) else content.encode("utf-8"))
    assert {diagnostic.code for diagnostic in found if diagnostic.severity == "error"} == codes


LIMITED = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
from epc.runtime.cli import main
sys.argv[1:1] = ["check"]
sys.exit(main())
"""


@pytest.mark.parametrize(
    "name",
    [
        "billion laughs",
        "deep lists",
        "deep blocks",
        "a long text",
        "a hundred thousand reasons",
        "integer of a million digits",
    ],
)
def test_the_worst_files_take_bounded_time_and_memory(tmp_path: Path, name: str) -> None:
    """A process of one gibibyte of address space and twenty seconds of processor says what is wrong."""
    content, codes = FILES[name]
    file = tmp_path / "worst.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(file)], capture_output=True, text=True, check=False,
        env={"OPENBLAS_NUM_THREADS": "1", "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr[-2000:]
    assert all(f"error[{code}]" in done.stderr for code in codes)
    assert "Traceback" not in done.stderr
