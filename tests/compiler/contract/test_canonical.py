"""Hashing and line splitting."""

from __future__ import annotations

import json
import math

import pytest

from epc.compiler.contract.canonical import canonical_json, content_key, json_lines, sha256_json


def test_key_order_and_spacing_do_not_matter() -> None:
    assert sha256_json({"b": 1, "a": [1.5, "ü"]}) == sha256_json(json.loads('{ "a": [1.5, "\\u00fc"], "b": 1 }'))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_carry_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"value": value})


@pytest.mark.parametrize(
    ("one", "other"), [({"a": 1}, {"a": 1.0}), ({"a": 1}, {"a": "1"}), ({"a": None}, {}), ([1, 2], [2, 1])]
)
def test_different_recipes_have_different_keys(one: object, other: object) -> None:
    assert content_key(one) != content_key(other)


@pytest.mark.parametrize(
    ("text", "count"),
    [("", 0), ("{}\n", 1), ("{}\n{}\n", 2), ("{}\n{}", 2), ('{"t": "a\u2028b\u0085c"}\n{}\n', 2), ("\n", 1)],
)
def test_only_newlines_end_a_json_line(text: str, count: int) -> None:
    assert len(json_lines(text)) == count
