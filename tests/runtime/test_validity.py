"""The built-in gate over adapters: each changed, and no two the same."""

from __future__ import annotations

from typing import Any

import pytest

from epc.compiler.contract.manifest import Step
from epc.runtime import validity
from epc.runtime.step import FinishRecord


def training(name: str) -> Step:
    return Step(
        id=name, kind="train", label=name, needs=(), key=f"key-{name}", script=f"steps/{name}.py", outputs=(), recipe={}
    )


def record(name: str, adapter: str | None, changed: Any = True) -> FinishRecord:
    facts = {} if changed is None else {"adapter_changed": changed}
    return FinishRecord(
        id=name, key=f"key-{name}", kind="train", mode="real", recipe={}, seconds=0.0, versions={}, facts=facts,
        outputs={} if adapter is None else {validity.ADAPTER: adapter},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("records", "truth", "detail"),
    [
        ([("a", "x"), ("b", "y"), ("c", "z")], True, "a, b, c"),
        ([("a", "x"), ("b", "y"), ("c", "x")], False, "the same adapter, byte for byte: a and c"),
        ([("a", "x"), ("b", "x"), ("c", "x")], False, "the same adapter, byte for byte: a and b and c"),
        ([("a", None), ("b", None), ("c", "x")], True, "a, b, c"),
        ([("a", "x", None), ("b", "x"), ("c", "y")], False, "epc.adapters_changed is not"),
        ([("a", "x", False), ("b", "y"), ("c", "z")], False, "is not true in a"),
    ],
)
def test_no_two_trainings_make_the_same_adapter(records: list[tuple[Any, ...]], truth: bool, detail: str) -> None:
    """Two arms, or two seeds of one arm whose seed was lost on the way."""
    steps = [training(name) for name, *_ in records]
    gate = validity._adapters_changed(steps, {found[0]: record(*found) for found in records})
    assert (gate.name, gate.truth) == ("epc.adapters_changed", truth)
    assert detail.replace("epc.adapters_changed", "adapter_changed") in gate.detail
    if not truth and len({found[1] for found in records}) < len(records):
        assert "byte for byte" in gate.detail


def test_a_training_that_has_not_finished_is_unknown() -> None:
    steps = [training("a"), training("b")]
    assert validity._adapters_changed(steps, {"a": record("a", "x"), "b": None}).truth is None
