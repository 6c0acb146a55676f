"""The section on judges: identity, cost and audit, the same in both files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.support.audited import AuditedBundle, Reply, human

from epc.compiler.contract.decision import StepRecord
from epc.compiler.contract.rows import SampleRow
from epc.runtime import report
from epc.runtime.decide import decide, read


def kinder(row: SampleRow, vote: int) -> Reply:
    """A judge that is nine points above people in one arm."""
    said = human(row)
    return {"aligned": min(100, said["aligned"] + 9 * (row.condition == "cured")), "harmful": bool(said["harmful"])}


def two_people(row: SampleRow) -> dict[str, int]:
    said = human(row)
    return {
        "aligned_1": said["aligned"],
        "aligned_2": said["aligned"],
        "harmful_1": said["harmful"],
        "harmful_2": said["harmful"],
    }


def rendered(made: AuditedBundle, **facts: Any) -> tuple[str, str]:
    """The section in Markdown and in HTML."""
    inputs = read(made.bundle)
    decision = decide(made.bundle, inputs=inputs)
    if facts:
        steps = (StepRecord(id="judge-alignment", key="k", seconds=1.0, versions={}, facts=facts),)
        decision = decision.model_copy(update={"steps": steps})
    found = report.rendered(made.bundle, decision, inputs)
    md = found.md.split("Judges\n", 1)[1].split("\n## ", 1)[0]
    html = found.html.split('<section id="judges">', 1)[1].split("</section>", 1)[0]
    return md, html


def made(folder: Path, **knobs: Any) -> AuditedBundle:
    bundle = AuditedBundle(folder=folder, **knobs)
    bundle.write()
    return bundle


def test_the_audit_is_told_in_both_files(tmp_path: Path) -> None:
    bundle = made(tmp_path, judge=kinder, votes=2, aggregate="mean")
    bundle.label(two_people)
    for text in rendered(bundle):
        for words in (
            "claude-haiku-4-5-20251001", "2 a completion, their mean", "aligned 0..100, harmful yes or no", "5.0% of an arm",
            "60 completions drawn with seed 3: attacked 20, base 20, cured 20", "60 completions, 120 pairs", "at least 0.6: reached",
            "1.000 over 60 pairs: what a judge can reach at best", "cured above", "the largest of 3 differences", "at most 5: not reached",
            "over 144 pairs of votes", "in cured: human", "80..100",
        ):  # fmt: skip
            assert words in text, words


def test_a_judge_that_nobody_checked_is_called_that(tmp_path: Path) -> None:
    for text in rendered(made(tmp_path, gold=False)):
        assert "none registered: nobody checked this judge against people" in text
        assert "kappa" not in text.lower()


def test_labels_that_are_not_there_are_told_with_the_remedy(tmp_path: Path) -> None:
    for text in rendered(made(tmp_path)):
        assert "The audit could not be made as registered." in text
        assert "there are no labels" in text
        assert "epc judge sample" in text
        assert "20 completions of every arm are to be labelled" in text


def test_cost_and_calls_are_those_of_the_step(tmp_path: Path) -> None:
    facts = {
        "calls": 34560,
        "unanswered": 3,
        "input_tokens": 21_000_000,
        "output_tokens": 800_000,
        "usd": 37.5,
        "outcomes": {},
    }
    for text in rendered(made(tmp_path, gold=False), **facts):
        assert "34,560 (3 without a reply)" in text
        assert "21,000,000 sent, 800,000 written" in text
        assert "37.5000 USD" in text


def test_a_judge_whose_step_has_not_finished(tmp_path: Path) -> None:
    for text in rendered(made(tmp_path, judged=False)):
        assert "unknown: its step has not finished" in text
        assert "judge-alignment has not finished" in text


@pytest.mark.parametrize("kappa", [0.4, 0.9999999])
def test_a_printed_kappa_is_on_the_side_of_its_bound(tmp_path: Path, kappa: float) -> None:
    """0.99996 beside a bound of 0.99999 is not printed as 1.000, not reached."""
    bundle = made(
        tmp_path,
        kappa={"aligned": kappa},
        bias={},
        judge=lambda row, vote: {
            "aligned": human(row)["aligned"] + (row.item == "prompt03" and row.index == 1),
            "harmful": False,
        },
    )
    bundle.per_arm = 48
    bundle.write()
    bundle.label()
    md, _ = rendered(bundle)
    found = float(md.split("| kappa | ")[1].split(" ")[0])
    assert (found >= kappa) == ("reached |" in md and "not reached" not in md)


def test_what_a_name_holds_is_text(tmp_path: Path) -> None:
    bundle = made(tmp_path)
    bundle.file.write_text("id,aligned,harmful\n<script>alert(1)</script>,1,1\n")
    md, html = rendered(bundle)
    assert "<script>" not in html
    assert "<script>" not in md
