"""Results from elsewhere: what a spec says about them, and what it compiles to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from epc.compiler.contract.manifest import Manifest

SPEC = """\
epc: 1
id: own
title: Which prompt is better?
hypothesis: {if: the prompt is rewritten, then: answers are graded higher}
results:
  own: {file: data/own.csv, format: csv, mapping: {unit: question, condition: prompt}}
metrics:
  quality: {results: own, score: grade, scale: [0, 100], better: higher, missing: drop}
analyses:
  gap: {metric: quality, contrast: new - old, method: paired_t, side: greater, alpha: 0.025}
  level: {metric: quality, arm: older, method: bootstrap, side: two_sided, alpha: 0.05, resamples: 1000, seed: 1}
gates:
  dead: {role: kill, when: gap.upper < 5}
  works: {role: success, require: gap.reject and gap.delta >= 5}
  room: {role: sanity, require: level.upper < 90}
verdicts:
  - {if: dead, then: KILL}
  - {if: works, then: SUCCESS}
  - {otherwise: INCONCLUSIVE}
"""
Compile = Callable[..., Any]


@pytest.fixture
def own(tmp_path: Path, compile_spec: Compile) -> Compile:
    """Compile SPEC with pieces replaced."""

    def run(*edits: tuple[str, str]) -> Any:
        text = SPEC
        for old, new in edits:
            assert old in text, old
            text = text.replace(old, new, 1)
        file = tmp_path / "specs" / "own.yaml"
        file.parent.mkdir(exist_ok=True)
        file.write_text(text, encoding="utf-8")
        return compile_spec(file)

    return run


def manifest(compiled: Any) -> Manifest:
    assert not compiled.sink.errors, compiled.text
    return Manifest.model_validate_json(compiled.files["manifest.json"])


def test_a_spec_of_results_alone_compiles_to_a_design_without_a_step(own: Compile) -> None:
    """The file need not be there: it is read when it is decided. The arms are those that analyses name."""
    compiled = own()
    assert not compiled.codes, compiled.text
    made = manifest(compiled)
    assert made.steps == ()
    assert [(c.name, c.phases, c.seeds) for c in made.design.conditions] == [
        ("new", (), (0,)),
        ("old", (), (0,)),
        ("older", (), (0,)),
    ]
    assert len({condition.key for condition in made.design.conditions}) == 3
    (entry,) = made.design.results
    assert entry.mapping is not None
    assert (entry.file, entry.format, entry.scores) == ("data/own.csv", "csv", {"quality": "grade"})
    assert (entry.mapping.unit, entry.mapping.condition, entry.mapping.sample) == ("question", "prompt", None)
    (metric,) = made.design.metrics
    assert (metric.kind, metric.source, metric.unit, metric.scale) == ("results", "own", "item", (0, 100))
    assert [path for path in compiled.files if path.startswith("steps/")] == []


def test_the_registration_holds_where_the_scores_come_from(own: Compile) -> None:
    lock = yaml.safe_load(own().files["spec.lock.yaml"])
    assert lock["results"]["own"]["mapping"]["unit"] == "question"
    assert list(lock["conditions"]) == ["new", "old", "older"]
    before, after = own().plan.lock_sha256, own(("score: grade", "score: other")).plan.lock_sha256
    assert before != after


def test_training_seeds_elsewhere_are_seeds_of_every_arm(own: Compile) -> None:
    compiled = own(("results:", "seeds: [1, 2, 3]\nresults:"), ("condition: prompt}", "condition: prompt, seed: run}"))
    assert not compiled.codes, compiled.text
    assert {condition.seeds for condition in manifest(compiled).design.conditions} == {(1, 2, 3)}
    # a reader of the design takes an arm with phases for a trained one
    assert {condition.phases for condition in manifest(compiled).design.conditions} == {("elsewhere",)}


MISTAKES: list[tuple[str, list[tuple[str, str]], str, str]] = [
    ("a name that no entry has", [("results: own,", "results: owns,")], "E1601", 'did you mean "own"?'),
    ("no mapping", [(", mapping: {unit: question, condition: prompt}", "")], "E1602", "no mapping"),
    ("a mapping of a log", [("format: csv", "format: inspect")], "E1602", "inspect logs need no mapping"),
    ("nothing names the arm", [(", condition: prompt}", "}")], "E1603", "nothing says"),
    ("two things name the arm", [("format: csv,", "format: csv, condition: old,")], "E1603", "two things say"),
    ("a scale the wrong way round", [("scale: [0, 100]", "scale: [100, 0]")], "E1604", "from 100 to 0"),
    ("a scale without width", [("scale: [0, 100]", "scale: [1, 1]")], "E1604", "from 1 to 1"),
    ("a scale beyond exact sums", [("scale: [0, 100]", "scale: [0, 1e16]")], "E1604", "within 10^15"),
    ("a pending hash", [("format: csv,", "format: csv, sha256: pending,")], "E1607", "leave it out"),
    ("an arm that nobody declared", [("format: csv,", "format: csv, conditions: {v1: odl},")], "E0301", 'did you mean "old"?'),
    ("an absolute path", [("file: data/own.csv", "file: /data/own.csv")], "E0404", "relative"),
    ("a subset of prompts", [("contrast: new - old,", "contrast: new - old, on: some,"), ("metrics:", "prompts: {some: {items: [a, b], count: 2}}\nmetrics:")], "E0873", "no prompts of this spec"),
    ("a method for rates", [("method: paired_t", "method: newcombe_paired")], "E0804", "is a score from 0 to 100"),
    ("a system prompt without a model", [("results:", "conditions: {new: {system: Be kind.}, old: [], older: []}\nresults:")], "E1605", "conditions.new"),
    ("an entry that no metric reads", [("results:\n", "results:\n  more: {file: data/more.csv, format: csv, mapping: {unit: a, condition: b}}\n")], "W1301", '"more" in `results`'),
]  # fmt: skip


@pytest.mark.parametrize(("edits", "code", "said"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_reported_once(own: Compile, edits: list[tuple[str, str]], code: str, said: str) -> None:
    compiled = own(*edits)
    assert compiled.codes.count(code) == 1, compiled.text
    assert said in compiled.text


def test_seeds_of_an_arm_need_a_column(own: Compile) -> None:
    """In a spec that trains, too: its arms have seeds, whoever scored them."""
    seeded = [("results:", "seeds: [1, 2]\nresults:"), ("condition: prompt}", "condition: prompt, seed: run}")]
    other = ("metrics:", "  more: {file: data/more.csv, format: csv, mapping: {unit: q, condition: p}}\nmetrics:")
    metric = (
        "analyses:",
        "  care: {results: more, score: care, scale: [0, 1], better: higher, missing: drop}\nanalyses:\n  mild: {metric: care, contrast: new - old, method: paired_t, side: greater, alpha: 0.05}",
    )
    compiled = own(*seeded, other, metric)
    assert "E1606" in compiled.codes, compiled.text
    assert 'no column of "more" tells them apart' in compiled.text
