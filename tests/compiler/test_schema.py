"""The published schema: up to date, described throughout, and of one mind with the compiler."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from epc.compiler import schema as published
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.source import parse
from epc.compiler.surface import load

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = published.schema()
VALIDATOR = Draft202012Validator(SCHEMA)
BASE = Path(__file__).parent / "explain/base.yaml"


def test_the_committed_file_is_what_epc_schema_prints() -> None:
    """`epc schema > generated/schema/spec.schema.json` renews it."""
    committed = (ROOT / "generated/schema/spec.schema.json").read_text(encoding="utf-8")
    assert committed == published.schema_text()


def definitions() -> Iterator[tuple[str, Any]]:
    yield "Spec", SCHEMA
    yield from SCHEMA["$defs"].items()


def test_it_is_a_schema_that_names_itself() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert SCHEMA["$id"] == "urn:epc:schema:spec:1"
    assert list(SCHEMA)[:2] == ["$schema", "$id"]


@pytest.mark.parametrize("name", [name for name, _ in definitions()])
def test_everything_is_described(name: str) -> None:
    definition = dict(definitions())[name]
    assert definition["description"], f"{name} has no docstring"
    assert definition["title"]
    undescribed = [key for key, value in definition["properties"].items() if not value.get("description")]
    assert not undescribed, f"{name}: write a line under {undescribed}"


def test_tables_speak_of_fields_that_exist_and_of_all_their_values() -> None:
    fields = {
        (name, key): value for name, definition in definitions() for key, value in definition["properties"].items()
    }
    for (name, key), meanings in published.MEANINGS.items():
        assert set(fields[name, key]["enum"]) == set(meanings)
        assert fields[name, key]["enumDescriptions"] == [meanings[value] for value in fields[name, key]["enum"]]
    for (name, key), examples in published.EXAMPLES.items():
        whole = {**fields[name, key], "$defs": SCHEMA["$defs"]}
        for example in examples:
            Draft202012Validator(whole).validate(example)
    for name, keys in [*published.EXACTLY_ONE.items(), *published.TOGETHER.items()]:
        assert set(keys) <= set(SCHEMA["$defs"][name]["properties"])
    assert set(published.TITLES) <= {name for name, _ in definitions()}
    assert set(published.SNIPPETS) <= set(SCHEMA["properties"])


# -------------------------------------------------- agreement with the compiler


def read(path: Path) -> Any:
    return parse(path.read_text(encoding="utf-8"), path.name, Diagnostics()).data


def refused_by_compiler(document: Any, folder: Path) -> list[str]:
    file = folder / "spec.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")
    sink = Diagnostics()
    load(file, "spec.yaml", sink)
    return [found.code for found in sink]


def refused_by_schema(document: Any) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(document)]


@pytest.mark.parametrize("path", sorted(ROOT.glob("specs/**/*.yaml")), ids=lambda path: path.name)
def test_every_shipped_spec_is_valid(path: Path) -> None:
    document = read(path)
    if "epc" in document:  # not a recipe or a task
        assert refused_by_schema(document) == []


def changed(path: str, value: Any) -> Any:
    """The base of the explanations with one value replaced; `...` removes it."""
    document = copy.deepcopy(read(BASE))
    *parents, last = path.split("/")
    node = document
    for part in parents:
        node = node[int(part)] if isinstance(node, list) else node[part]
    key = int(last) if isinstance(node, list) else last
    if value is ...:
        del node[key]
    else:
        node[key] = value
    return document


REASON = "it is sampled to be read by people"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("allow", [{"code": "W1302", "reason": REASON}]),
        ("lineage", [{"cites": "x", "relation": "parent", "note": "n", "varies": ["data"]}]),
        ("claims", [{"text": "t", "quantity": "judge_calls", "value": v} for v in (1, 1.5, [1, 2], "< 5")]),
        ("conditions/base", {"phases": [], "system": "none"}),
        ("train/attack", {"use": "recipes/attack.yaml", "data": "bad_only", "lora": {"r": 4}}),
        ("gates/able/say", "words"),
        ("seeds", [0]),
        ("budget/usd", 0.5),
        ("reporting", {"transcripts": 0}),
        ("metrics/alignment/noise", 2.5),
        ("judges/grader/options", {"effort": "low", "temperature": 0.5, "seed": 1, "thinking": True}),
        ("judges/grader/votes", 1), ("judges/grader/batch_from", None), ("judges/grader/limits", {"requests": 5}),
        ("judges/grader", {"provider": "patterns", "output": {"a": "bool"}, "patterns": {"a": "x"}}),
        ("judges/grader", {"provider": "python", "output": {"a": "0..5"}, "function": "j/f.py:score", "max_missing": 0.1}),
        ("judges/grader", {"provider": "openai", "model": "m", "rubric": "r.txt", "output": {"a": "bool"}, "votes": 3, "aggregate": "mean"}),
        ("judges/grader/gold", {"file": "g.csv", "per_arm": 5, "seed": 1, "kappa": {"aligned": 0.5}, "bias": {"aligned": 2.0}}),
    ],
)  # fmt: skip
def test_both_accept(path: str, value: Any, tmp_path: Path) -> None:
    document = changed(path, value)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/attack.yaml").write_bytes((BASE.parent / "recipes/attack.yaml").read_bytes())
    assert refused_by_compiler(document, tmp_path) == []
    assert refused_by_schema(document) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("epc", 2), ("epc", ...), ("id", "Not An Id"), ("title", ""), ("hypothesis/then", ...), ("unheard_of", 1),
        ("seeds", []), ("seeds", [-1]), ("seeds", [2**31]), ("sampler", "ollama"),
        ("model/from", "org/name"), ("model/dtype", "int8"),
        ("prompts/part_a", {"count": 8}), ("prompts/part_a", {"file": "a.txt", "items": ["x"], "count": 8}),
        ("prompts/part_a/count", 0), ("prompts/heldout/union", ["part_a"]), ("prompts/Part", {"items": ["x"], "count": 1}),
        ("data/chats/sha256", "abc"), ("data/chats/rows", ...), ("data/traces/turns/0", {"user": "a", "assistant": "b"}),
        ("data/traces/turns/0", {}), ("data/traces/turns", [{"user": "a"}]), ("data/traces/fill/bad", {"generated": "bad"}),
        ("train/catch/method", "full_sft"), ("train/catch/lora/r", 0), ("train/catch/learning_rate", 0), ("train/catch/epoch", 3),
        ("train/attack/epoch", 3), ("train/catch/data", ...),
        ("conditions", {}), ("conditions/base", "none"), ("conditions/base", {"phase": []}),
        ("sample/first/n", 0), ("sample/first/top_p", 0), ("sample/first/system", ...), ("sample/first/temperature", -0.1),
        ("judges/grader/provider", "openia"), ("judges/grader/output", {}), ("judges/grader/output", {"x": "0-100"}),
        ("judges/grader/max_missing", 1), ("judges/grader/provider", "patterns"), ("judges/grader/patterns", {"aligned": "x"}),
        ("judges/grader/votes", 3), ("judges/grader/votes", 0), ("judges/grader/aggregate", "mean"), ("judges/grader/aggregate", "mode"),
        ("judges/grader/batch_from", 0), ("judges/grader/limits", {"request": 5}), ("judges/grader/limits", {"requests": 0}),
        ("judges/grader/options", {"effort": ["low"]}), ("judges/grader/options", "low"), ("judges/grader/rubric", ...),
        ("judges/grader/gold", {"file": "g.csv", "per_arm": 5, "seed": 1, "kappa": {}}),
        ("judges/grader/gold", {"file": "g.csv", "per_arm": 0, "seed": 1, "kappa": {"aligned": 0.5}}),
        ("judges/grader/gold", {"file": "g.csv", "per_arm": 5, "seed": 1, "kappa": {"aligned": 1.5}}),
        ("judges/grader", {"provider": "python", "output": {"a": "bool"}, "function": "score"}),
        ("judges/grader", {"provider": "patterns", "output": {"a": "bool"}, "patterns": {}}),
        ("metrics/alignment/empty", ...), ("metrics/alignment/keep", ...), ("metrics/alignment/contains", "x"),
        ("metrics/alignment/beter", "higher"), ("metrics/caught/regex", "x"), ("metrics/caught/contains", ...), ("metrics/quiz/value", "acc,none,none"), ("metrics/quiz/revision", "main"), ("metrics/quiz/fewshot", -1),
        ("analyses/headline/arm", "base"), ("analyses/headline/contrast", "treated-attacked"), ("analyses/headline/alpha", 1),
        ("analyses/headline/p", "bayes"), ("analyses/headline/side", "above"),
        ("gates/able/when", "x.y > 1"), ("gates/able/require", ...), ("gates/able/role", "veto"),
        ("verdicts", []), ("verdicts/0/then", "INVALID"), ("verdicts/0/than", "KILL"), ("verdicts/2/if", "able"),
        ("allow", [{"code": "E0501", "reason": REASON}]), ("allow", [{"code": "W1302", "reason": "short"}]),
        ("lineage", [{"cites": "x", "relation": "parent", "note": "n", "varies": ["weather"]}]),
        ("claims", [{"text": "t", "quantity": "judge_calls", "value": [1, 2, 3]}]),
        ("budget/usd", -1), ("reporting", {"transcripts": 21}),
    ],
)  # fmt: skip
def test_both_refuse(path: str, value: Any, tmp_path: Path) -> None:
    document = changed(path, value)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/attack.yaml").write_bytes((BASE.parent / "recipes/attack.yaml").read_bytes())
    assert refused_by_compiler(document, tmp_path)
    assert refused_by_schema(document)


def test_the_text_is_plain_ascii_json() -> None:
    text = published.schema_text()
    assert text.isascii()
    assert text.endswith("}\n")
    assert json.loads(text) == SCHEMA
