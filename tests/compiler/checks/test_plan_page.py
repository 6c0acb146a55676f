"""plan.md says how trainings are carried out, apart from the recipe, and that this does not change what is computed."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import pytest

from epc.compiler.contract.training import rate
from epc.compiler.plan_page import ways_in_short

SAME = "do not change what is computed"
SMALL = "model: {parameters: 135000000}\n"
FAST = "end to end, no padding | flash attention over rows of several lengths | Liger's fused | kept |"
PLAIN = "padded to the longest | PyTorch's (SDPA) | those of the model | {} |"


def section(page: str, name: str) -> str:
    """The text under a heading, up to the next one."""
    return page.partition(f"# {name}\n")[2].partition("\n#")[0]


@pytest.mark.parametrize(
    ("fragment", "rows"),
    [
        (
            "train: {catch: {batch: 2, accumulation: 8}}",
            [
                f"| `catch` | first choice | 16 x 1 | {FAST}", f"|  | fallback 1 | 8 x 2 | {FAST}", f"|  | fallback 2 | 4 x 4 | {FAST}",
                f"|  | fallback 3 | 2 x 8 | {PLAIN.format('recomputed in the backward pass')}",
            ],
        ),
        (f"{SMALL}train: {{catch: {{batch: 2}}}}", [f"| `catch` | first choice | 2 x 1 | {PLAIN.format('kept')}"]),
        (SMALL, [f"| `catch`, `attack`, `talk` | first choice | 4 x 1 | {FAST}", f"|  | fallback 1 | 4 x 1 | {PLAIN.format('kept')}"]),
    ],
    ids=["a large model", "a batch too small to lay end to end", "phases that are carried out alike"],
)  # fmt: skip
def test_every_way_is_told_the_first_choice_first(over: Callable[..., Any], fragment: str, rows: list[str]) -> None:
    found = section(over(fragment).files["plan.md"], "How it is carried out")
    lines = found.splitlines()
    place = lines.index(rows[0])
    assert lines[place : place + len(rows)] == rows
    assert SAME in found
    assert "not part of the recipe" in found


def test_the_ways_are_those_of_the_scripts(over: Callable[..., Any]) -> None:
    result = over("train: {catch: {batch: 2, accumulation: 8}}")
    script = next(text for path, text in result.files.items() if path.endswith("-catch.py") and "train-" in path)
    plans: list[dict[str, Any]] = ast.literal_eval(script.partition("\nPLANS = ")[2].partition("\n\n")[0])
    told = [line for line in section(result.files["plan.md"], "How it is carried out").splitlines() if " x " in line]
    of_catch = told[: len(plans)]
    assert [f"{plan['micro_batch']} x {plan['accumulation']}" for plan in plans] == [
        line.split(" | ")[2] for line in of_catch
    ]
    assert ["Liger" in line for line in of_catch] == [plan.get("liger", False) for plan in plans]


@pytest.mark.parametrize(
    ("fragment", "words", "absent"),
    [
        ("", "in bfloat16, under autocast to it; the weights of the adapter and the moments of the optimizer are in float32", "Dropout"),
        ("model: {dtype: float32}", "All weights are in float32;", "autocast"),
        ("train: {catch: {lora: {dropout: 0.1}}}", "Dropout (`catch`) is drawn anew by each way, from the same distribution.", "`talk`)"),
    ],
)  # fmt: skip
def test_precision_and_dropout_are_told(over: Callable[..., Any], fragment: str, words: str, absent: str) -> None:
    found = section(over(fragment).files["plan.md"], "How it is carried out")
    assert words in found
    assert absent not in found
    assert "Nothing is compiled (`torch.compile`)" in found


@pytest.mark.parametrize(
    ("fragment", "lines"),
    [
        (
            "train: {catch: {batch: 2, accumulation: 8}}",
            ["catch in 16 x 1, 8 x 2, 4 x 4 rows end to end, else 2 x 8 rows padded", "attack, talk in 4 x 1 rows end to end, else 4 x 1 rows padded"],
        ),
        (f"{SMALL}train: {{catch: {{batch: 2}}}}", ["catch in 2 x 1 rows padded", "attack, talk in 4 x 1 rows end to end, else 4 x 1 rows padded"]),
    ],
)  # fmt: skip
def test_the_ways_in_short(over: Callable[..., Any], fragment: str, lines: list[str]) -> None:
    """As `epc compile` says them."""
    assert list(ways_in_short(over(fragment).plan)) == lines


def test_the_recipe_stands_apart_and_is_whole(over: Callable[..., Any]) -> None:
    found = section(over("train: {catch: {lora: {dropout: 0.1}, max_length: 512}}").files["plan.md"], "Training")
    row = next(line for line in found.splitlines() if line.startswith("| `catch`"))
    assert "r=16, alpha=32, dropout 0.1, on q_proj, " in row
    assert row.endswith("| 512 tokens |")
    assert "betas 0.9 and 0.999, epsilon 1e-08, weight decay 0, gradients clipped to norm 1" in found
    assert "Liger" not in found


def test_a_plan_without_training_tells_of_no_way_to_train(specs: Any, compile_spec: Callable[..., Any]) -> None:
    assert SAME not in compile_spec(specs / "prompt_only.yaml").files["plan.md"]


@pytest.mark.parametrize(
    ("schedule", "warmup_steps", "expected"),
    [
        ("constant", 0, [8.0, 8.0, 8.0, 8.0]),
        ("constant", 2, [0.0, 4.0, 8.0, 8.0]),
        ("linear", 0, [8.0, 6.0, 4.0, 2.0]),
        ("linear", 2, [0.0, 4.0, 8.0, 4.0]),
        ("cosine", 0, [8.0, 4 + 4 * 0.5**0.5, 4.0, 4 - 4 * 0.5**0.5]),
        ("cosine", 3, [0.0, 8 / 3, 16 / 3, 8.0]),
    ],
)
def test_the_schedule_by_hand(schedule: str, warmup_steps: int, expected: list[float]) -> None:
    found = [rate(i, peak=8.0, schedule=schedule, warmup_steps=warmup_steps, optimizer_steps=4) for i in range(4)]
    assert found == pytest.approx(expected, abs=1e-12)
