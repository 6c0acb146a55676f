"""Warm-up, capacity and seeds: what is reported, with which arithmetic, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Case = tuple[str, str | None, str]

STACKED = "attack: {on_top: stack}"

WARMUP: list[Case] = [
    # 5 epochs x 8 steps = 40
    ("train: {attack: {warmup_ratio: 0.03}}", "W0716", "the warm-up of attack is 1.2 steps, taken as 2"),
    ("train: {attack: {warmup_ratio: 0.03}}", "W0716", "0.03 x 40 steps = 1.2, taken as 2"),
    ("train: {attack: {warmup_ratio: 0.03}}", "W0716", "write warmup_steps: 2"),
    ("train: {attack: {warmup_ratio: 0.21}}", "W0716", "0.21 x 40 steps = 8.4, taken as 9"),
    ("train: {attack: {warmup_ratio: 0.23}}", None, ""),  # 9.2, taken as 10: of ten steps a fraction is little
    ("train: {attack: {warmup_ratio: 0.1}}", None, ""),
    ("train: {attack: {warmup_ratio: 0.05}}", None, ""),
    ("train: {attack: {warmup_ratio: 0.0}}", None, ""),
    ("train: {attack: {warmup_steps: 3}}", None, ""),
    # 0.07 x 100 is 7.000000000000001 in floating point
    ("train: {talk: {epochs: 100, warmup_ratio: 0.07}}", "W0716", "0.07 x 100 steps = 7, in floating point 7.000000000000001, taken as 8"),
    ("train: {talk: {epochs: 50, warmup_ratio: 0.08}}", None, ""),
    # 32 rows in steps of 12: 8 micro-steps of 4, three a step
    ("train: {attack: {accumulation: 3, epochs: 4, warmup_ratio: 0.3}}", "W0716", "32 rows / 12 = 2.66667: the last step of every epoch has 8 rows, so 12 steps and not 10.6667"),
    # each recipe has its own arithmetic
    ("train: {attack: {warmup_ratio: 0.03}, talk: {warmup_ratio: 0.03}}", "W0716", "the warm-up of talk is 1.2 steps"),
    # a warm-up that is too long is another matter
    ("train: {attack: {warmup_ratio: 0.99}}", "E0712", "40 of them warm-up"),
]  # fmt: skip

CAPACITY: list[Case] = [
    ("train: {catch: {lora: {r: 8}}, attack: {lora: {r: 8}}}", "W0717", "placebo: rank 16 x 7 projections (talk) = 112"),
    (f"train: {{catch: {{lora: {{r: 8}}}}, {STACKED}}}", "W0717", "treated: rank 8 x 7 projections (catch) + rank 16 x 7 projections (attack) = 168"),
    (f"train: {{catch: {{lora: {{target_modules: [q_proj, v_proj]}}}}, {STACKED}}}", "W0717", "rank 16 x 2 projections (catch)"),
    # twice the rank on half of the projections is another adapter, though the products agree
    (f"train: {{catch: {{lora: {{r: 32, target_modules: [q_proj]}}}}, talk: {{lora: {{r: 16, target_modules: [q_proj, v_proj]}}}}, {STACKED}}}", "W0717", "unequal capacity"),
    (f"train: {{{STACKED}}}", None, ""),  # both arms stack it
    ("train: {catch: {lora: {alpha: 64}}, attack: {on_top: stack}}", None, ""),  # a scale, not a size
    ("conditions: {placebo: [catch]}\ntrain: {catch: {lora: {r: 8}}, attack: {on_top: stack}}", None, ""),  # a whole phase more
    ("analyses: {against_placebo: {contrast: treated - treated}}\ntrain: {attack: {on_top: stack}}", None, ""),
    ("conditions: {placebo: [tlak, attack]}\ntrain: {catch: {lora: {r: 8}}, attack: {on_top: stack}}", None, ""),
]  # fmt: skip

SEEDS: list[Case] = [
    ("seeds: [7]", "W0718", '"survives" decides on one training seed'),
    ("seeds: [7]", "W0718", "treated, attacked: one checkpoint each"),
    ("seeds: [7]", "W0718", "one gives LOW, or MODERATE"),
    ("seeds: [7, 8]", None, ""),
    ("seeds: null", "W0718", "one training seed"),  # [42] by default
    # nothing that is trained, or nothing that succeeds
    ("seeds: [7]\nconditions: {attacked: [], treated: []}", None, ""),
    ("seeds: [7]\ngates: {survives: {role: prediction}}", None, ""),
    ("seeds: [7]\nconditions: {attacked: []}", "W0718", "treated: one checkpoint only"),
    ("seeds: many", None, ""),  # one mistake, one finding
]


UNREADABLE = {"E01", "E02", "E03"}
"""Where a spec could not be read, silence would say nothing."""


def cases(table: list[Case], code: str) -> list[Any]:
    return [pytest.param(*case, code, id=f"{index}-{case[1]}") for index, case in enumerate(table)]


@pytest.mark.parametrize(
    ("fragment", "code", "says", "silent"), [*cases(WARMUP, "W0716"), *cases(CAPACITY, "W0717"), *cases(SEEDS, "W0718")]
)
def test_finding(over: Callable[..., Any], fragment: str, code: str | None, says: str, silent: str) -> None:
    compiled = over(fragment)
    if code is None:
        assert silent not in compiled.codes, compiled.text
        assert "tlak" in fragment or "many" in fragment or not UNREADABLE & {found[:3] for found in compiled.codes}, (
            compiled.text
        )
        return
    assert code in compiled.codes, compiled.text
    assert says in compiled.text


def test_phases_of_one_recipe_file_are_one_finding(over: Callable[..., Any]) -> None:
    again = "train: {attack: {use: recipes/attack.yaml}, again: {use: recipes/attack.yaml, data: bad_only}}\nconditions: {twice: [again]}"
    compiled = over(again, ("recipes/attack.yaml", "method: lora_sft\ntrain_on: every_assistant_turn\nlora: {r: 16, alpha: 32}\nlearning_rate: 1e-4\nepochs: 5\nbatch: 4\nwarmup_ratio: 0.03\n"))  # fmt: skip
    (found,) = [d for d in compiled.sink if d.code == "W0716"]
    assert found.message == "the warm-up of attack, again is 1.2 steps, taken as 2"
    assert found.span.file.endswith("recipes/attack.yaml")
    assert not found.labels


def test_a_single_seed_is_pointed_at_where_it_is_declared(over: Callable[..., Any]) -> None:
    line = {}
    for seeds in ("[7]", "null"):
        (found,) = [d for d in over(f"seeds: {seeds}").sink if d.code == "W0718"]
        lines = over(f"seeds: {seeds}").sink.sources[found.span.file]
        line[seeds] = lines[found.span.line - 1] + lines[found.span.line - 2]
    assert "7" in line["[7]"]
    assert "survives" in line["null"]


def test_each_two_arms_are_compared_once(over: Callable[..., Any]) -> None:
    """Two analyses of one contrast, and its reverse, give one finding."""
    compiled = over(
        "train: {catch: {lora: {r: 8}}, attack: {on_top: stack}}\n"
        "analyses:\n"
        "  other: {metric: caught, contrast: placebo - treated, method: paired_t, side: two_sided, alpha: 0.05}\n"
    )
    assert compiled.codes.count("W0717") == 1
