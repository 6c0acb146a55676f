"""What trackers are told of parameters and facts."""

from __future__ import annotations

from typing import Any

import pytest

from epc.runtime.trackers.jobs import LONGEST, compact, figures_of, flat
from epc.runtime.trackers.tracker import without_secret


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"lora": {"r": 16, "alpha": 32}, "epochs": 1}, {"lora.r": 16, "lora.alpha": 32, "epochs": 1}),
        ({"seeds": [1, 2]}, {"seeds": "[1, 2]"}),
        ({"prompts": ["How do I bake bread?"] * 24}, {"prompts": "24 entries"}),
        ({"verdicts": [{"if": "a"}, {"otherwise": "b"}]}, {"verdicts.0.if": "a", "verdicts.1.otherwise": "b"}),
        ({"system": None, "fill": {}, "turns": []}, {}),
        ({"packing": False, "seed": 0}, {"packing": False, "seed": 0}),
        ({"say": "x" * 1000}, {"say": "x" * (LONGEST - 1) + "…"}),
    ],
    ids=["nested", "short list", "long list", "rules", "empty", "false and zero", "long text"],
)
def test_parameters(given: dict[str, Any], told: dict[str, Any]) -> None:
    assert dict(flat(compact(given))) == told


@pytest.mark.parametrize(
    ("entry", "figures"),
    [
        ({"step": 1, "loss": "1.5", "epoch": 0.1}, {"loss": 1.5}),  # the trainer may hand over formatted text
        ({"loss": 1, "grad_norm": float("nan"), "num_tokens": 9}, {"loss": 1.0, "num_tokens": 9.0}),
        ({"train_runtime": 3.0}, {}),
    ],
)
def test_figures_of_a_log_entry(entry: dict[str, Any], figures: dict[str, float]) -> None:
    assert figures_of(entry) == figures


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://ada:pw@mlflow.lab.org/x", "https://***@mlflow.lab.org/x"),
        ("https://mlflow.lab.org/@x", "https://mlflow.lab.org/@x"),
        ("cannot reach postgresql://u:p@db/runs (refused)", "cannot reach postgresql://***@db/runs (refused)"),
    ],
)
def test_no_credentials_are_printed(text: str, shown: str) -> None:
    assert without_secret(text) == shown
