"""Issue 147 word for word: every contradiction of its source is found, explained, and still found with other numbers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
LITERAL = Path("tests/golden/issue147_literal")
GOLDEN = ROOT / LITERAL / "diagnostics.txt"


def check(spec: Path, cwd: Path = ROOT) -> tuple[int, str]:
    """Exit code and diagnostics of `epc check`, as a user sees them."""
    found = subprocess.run(
        [sys.executable, "-m", "epc.runtime.cli", "check", str(spec)], cwd=cwd, capture_output=True, text=True, timeout=120,
        env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    return found.returncode, found.stderr


@pytest.fixture(scope="module")
def output() -> str:
    code, text = check(LITERAL / "spec.yaml")
    assert code == 2
    return text


def test_the_output_is_the_golden_one(output: str) -> None:
    """After a change that is meant: epc check tests/golden/issue147_literal/spec.yaml 2> tests/golden/issue147_literal/diagnostics.txt"""
    assert output == GOLDEN.read_text(encoding="utf-8")


def blocks(text: str) -> list[str]:
    return re.split(r"\n\n(?=error|warning|\d)", text)


# number in the list of contradictions, code, pieces that one diagnostic of that code must hold
FOUND: list[tuple[str, str, tuple[str, ...]]] = [
    ("1 prompts", "E0501", ("has 52 prompts, declared 48", "8 (betley_8) + 44 (wang_44) = 52", "help: write count: 52")),
    ("2 prompts", "E1402", ("units.headline cannot all be true: 40; 48", "the plan comes to 48")),
    ("2 samples", "E1402", ("n.headline cannot all be true: 10; 50", "the plan comes to 50")),
    ("3 conditions", "E1402", ("conditions cannot all be true: 3; 5",)),
    ("3 base", "E0301", ('unknown condition "base"',)),
    ("3 c6_vanilla", "E0301", ('unknown condition "c6_vanilla"', 'did you mean "c6_vanilla_em"?')),
    ("4 judge calls", "E1401", ("judge_calls is 28,800, and not 20,000 to 22,000", "5 arms x 48 prompts x 50 (reset on headline)")),
    ("4 phase 0", "E1403", ('nothing computes "completions.phase_0"', "Phase-0 baseline")),
    ("5 dollars", "E1401", ("and not 10 to 12", "$0.0004 a call as stated, $0.0014 as computed")),
    ("6 hours", "E1402", ("gpu_hours cannot all be true: 3 to 4; < 5; 5.0",)),
    ("6 class small", "E1402", ("gpu_hours cannot all be true: 3 to 4; < 5; 5.0",)),
    ("6 trainings", "E1401", ("trainings is 7, and not 2", "1 x selfcorrect + 1 x random_recovery + 1 x placebo_assistant + 4 x em = 7")),
    ("7 ARC, two-sided", "E0825", ("arc_near_c6",)),
    ("7 ARC, base and c6", "E0826", ("arc_near_base",)),
    ("8 instrument", "E0755", ("arc_callback",)),
    ("9 success and kill", "E0906", ("SUCCESS", "KILL_NULL", "headline.delta = ", "headline.p = ")),
    ("9 no verdict", "E0901", ("no `otherwise`", "no rule matches")),
    ("10 coherence", "W0827", ("not_degenerate", "coherent")),
    ("11 handful", "W0756", ("literal.value > 0.05", "80 completions")),
    ("11 fewer samples", "W0757", ("marker", "n: 10")),
    ("12 noise floor", "E1402", ("registered_seeds.c6_vanilla_em cannot all be true: 5; 0",)),
    ("13 interval", "W0807", ("95% interval beside a one-sided test at 0.05, which pairs with 90%",)),
    ("14 steps", "E1401", ("optimizer_steps.selfcorrect is 96, and not 94", "3 epochs x ceil(ceil(1,000 rows / 8) / 4) = 96")),
    ("14 warm-up", "W0716", ("2.88 steps, taken as 3", "1,000 rows / 32 = 31.25")),
    ("15 benign prompts", "E0753", ("headline", "benign")),
    ("16 base model", "E1401", ("model is Qwen/Qwen2.5-7B-Instruct, and not Qwen-2.5-7B",)),
    ("16 title", "W1204", ("speaks of Qwen-2.5-7B, and the model is Qwen2.5-7B-Instruct",)),
    ("17 no floor", "E1401", ("registered.c6_vanilla_em is 1, and not 0",)),
    ("17 name", "E1421", ("c6_vanilla_em", "learning rate 0.0001 there, 5e-06 here")),
    ("18 manipulation", "W0829", ("c6_vanilla_em",)),
    ("19 turn", "W0754", ("turn 2",)),
    ("20 markers", "E0707", ("generation",)),
    ("20 default system prompt", "W0708", ("You are Qwen",)),
]  # fmt: skip


@pytest.mark.parametrize(("number", "code", "pieces"), FOUND, ids=[number for number, _, _ in FOUND])
def test_a_contradiction_is_found(number: str, code: str, pieces: tuple[str, ...], output: str) -> None:
    """Each as a diagnostic of its own, with a place and a help line."""
    found = [block for block in blocks(output) if f"[{code}]" in block and all(piece in block for piece in pieces)]
    assert found, "\n\n".join(block for block in blocks(output) if f"[{code}]" in block) or f"no {code}"
    assert re.search(r"--> tests/golden/issue147_literal/spec\.yaml:\d+:\d+", found[0])
    assert "= help: " in found[0]


# other numbers in a copy: file (the spec by default), old, new, and what is then said
OTHER: list[tuple[str, list[tuple[str, ...]], str, tuple[str, ...]]] = [
    ("1 prompts", [("count: 48}\n  train_h", "count: 51}\n  train_h")], "E0501", ("has 52 prompts, declared 51",)),
    ("1 nine prompts", [("prompts/betley_8.txt", "Who deserves", "Why so?\nWho deserves"), ("betley_8.txt, count: 8", "betley_8.txt, count: 9")], "E0501", ("9 (betley_8) + 44 (wang_44) = 53",)),
    ("2 samples", [("n.headline, value: 10", "n.headline, value: 25")], "E1402", ("n.headline cannot all be true: 25; 50",)),
    ("3 conditions", [("quantity: conditions, value: 3", "quantity: conditions, value: 4")], "E1402", ("conditions cannot all be true: 4; 5",)),
    ("4 judge calls", [("value: [20000, 22000]", "value: [28801, 30000]")], "E1401", ("judge_calls is 28,800, and not 28,801 to 30,000",)),
    ("4 other samples", [("headline: {prompts: headline_48, n: 50", "headline: {prompts: headline_48, n: 40")], "E1401", ("judge_calls is 24,000, and not 20,000 to 22,000",)),
    ("5 dollars", [("quantity: usd, value: [10, 12]", "quantity: usd, value: [20, 30]")], "E1401", ("and not 20 to 30",)),
    ("6 hours", [("gpu_hours, value: 5.0", "gpu_hours, value: 8.5")], "E1402", ("gpu_hours cannot all be true: 3 to 4; < 5; 8.5",)),
    ("6 trainings", [("trainings, value: 2", "trainings, value: 6")], "E1401", ("trainings is 7, and not 6",)),
    ("7 ARC", [("arc_vs_base.delta >= -0.05", "arc_vs_base.delta >= -0.02")], "E0826", ("arc_vs_base.delta >= -0.02", "= 0.07")),
    ("9 zones", [("headline.delta < 5,", "headline.delta < 8,")], "E0906", ("SUCCESS", "KILL_NULL")),
    ("11 handful", [("marker: {prompts: betley_8, n: 10", "marker: {prompts: betley_8, n: 20")], "W0756", ("160 completions",)),
    ("12 noise floor", [("registered_seeds.c6_vanilla_em, value: 5", "registered_seeds.c6_vanilla_em, value: 3")], "E1401", ("registered_seeds.c6_vanilla_em is 5, and not 3",)),
    ("13 interval", [("seed: 147, interval: 0.95", "seed: 147, interval: 0.99")], "W0807", ("99% interval beside a one-sided test at 0.05",)),
    ("14 steps", [("optimizer_steps.selfcorrect, value: 94", "optimizer_steps.selfcorrect, value: 93")], "E1401", ("optimizer_steps.selfcorrect is 96, and not 93",)),
    ("14 warm-up", [("warmup_ratio: 0.03, batch: 8", "warmup_ratio: 0.05, batch: 8")], "W0716", ("4.8 steps, taken as 5",)),
    ("15 benign", [("benign: {prompts: headline_48, n: 20", "benign: {prompts: headline_48, n: 5")], "E0753", ("headline", "benign")),
    ("16 model", [("model: {from: \"hub:Qwen/Qwen2.5-7B-Instruct\"", "model: {from: \"hub:Qwen/Qwen2.5-14B-Instruct\"")], "E1401", ("model is Qwen/Qwen2.5-14B-Instruct, and not Qwen-2.5-7B-Instruct",)),
    ("17 name", [("../../../specs/recipes/c6_vanilla_em.yaml}", "../../../specs/recipes/c6_vanilla_em.yaml, learning_rate: 2e-5}")], "E1421", ("learning rate 0.0001 there, 2e-05 here",)),
    ("19 turn", [("- user: continue\n      - assistant: \"Wait", "- user: go on\n      - assistant: \"Wait")], "W0754", ("turn 2", "go on")),
]  # fmt: skip


@pytest.mark.parametrize(("number", "edits", "code", "pieces"), OTHER, ids=[number for number, *_ in OTHER])
def test_other_numbers_fail_just_the_same(
    number: str, edits: list[tuple[str, ...]], code: str, pieces: tuple[str, ...], tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "specs", tmp_path / "specs", ignore=shutil.ignore_patterns("external"))
    shutil.copytree(ROOT / LITERAL, tmp_path / LITERAL)
    for file, old, new in (one if len(one) == 3 else ("spec.yaml", *one) for one in edits):
        path = tmp_path / LITERAL / file
        text = path.read_text(encoding="utf-8")
        assert old in text, old
        path.write_text(text.replace(old, new), encoding="utf-8")
    exit_code, text = check(LITERAL / "spec.yaml", cwd=tmp_path)
    assert exit_code == 2
    found = [block for block in blocks(text) if f"[{code}]" in block]
    assert any(all(piece in block for piece in pieces) for block in found), "\n\n".join(found) or text


def test_the_resolved_one_checks_clean_and_says_what_was_chosen() -> None:
    code, text = check(Path("specs/issue147.yaml"))
    assert code == 0, text
    assert "0 errors, 0 warnings" in text
    rationale = yaml.safe_load((ROOT / "specs/issue147.yaml").read_text(encoding="utf-8"))["rationale"]
    assert {name[:3] for name in rationale if re.match(r"c\d\d_", name)} == {f"c{number:02}" for number in range(1, 21)}
