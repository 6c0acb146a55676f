"""A small gold file, from drawing the completions to the audit: twenty-four answers, two people, a lenient judge."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from epc.compiler.contract.manifest import Gold, Judge
from epc.runtime import cli

pytestmark = pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")
ENTRIES = [json.loads(line) for line in Path(__file__).with_name("labelled.jsonl").read_text("utf-8").splitlines()]
"""Completions with the labels of two people, and what the judge says in its first and its second vote."""


@pytest.fixture
def example(bundle: Any, serve: Any) -> tuple[Any, Any, Path]:
    """(bundle, server, labels): judged twice, drawn by `epc judge sample`, labelled by two people."""
    bundle.texts = {}
    for entry in ENTRIES:
        bundle.texts.setdefault(entry["arm"], {}).setdefault(entry["item"], []).append(entry["text"])
    bundle.constants = {"provider": "anthropic", "sets": ["first"], "votes": 2, "aggregate": "mean"}
    bundle.compile()
    gold = Gold(file="labels.csv", per_arm=8, seed=6, kappa={"aligned": 0.7, "harmful": 0.5}, bias={"aligned": 10.0})
    judge = Judge(
        name="alignment", model="claude-sonnet-4-5-20250929", rubric_sha256="0" * 64, max_missing=0.05,
        output=bundle.output, votes=2, aggregate="mean", gold=gold,
    )  # fmt: skip
    design = bundle.manifest.design.model_copy(update={"judges": (judge,)})
    bundle.manifest = bundle.manifest.model_copy(update={"design": design})
    (bundle.root / "manifest.json").write_text(bundle.manifest.model_dump_json(indent=1))
    seen: dict[str, int] = {}

    def answer(request: Any) -> Any:
        said = str(request["messages"][0]["content"])
        entry = next(entry for entry in ENTRIES if entry["text"] in said)
        vote = seen[said] = seen.get(said, -1) + 1
        return entry["votes"][vote % 2]

    server = serve(answer)
    done = bundle.run(server)
    assert done.returncode == 0, done.stderr
    labels = bundle.root / "labels.csv"
    assert cli.main(["judge", "sample", str(bundle.root), "--out", str(labels)]) == 0
    with labels.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    people = {entry["text"]: entry["people"] for entry in ENTRIES}
    with labels.open("w", encoding="utf-8", newline="") as handle:
        fields = [f"{field}_{rater}" for field in bundle.output for rater in (1, 2)]
        writer = csv.DictWriter(handle, ["id", "question", "answer", *fields])
        writer.writeheader()
        for row in rows:
            said = people[row["answer"]]
            given = {f"{field}_{rater}": said[rater - 1][field] for field in bundle.output for rater in (1, 2)}
            writer.writerow({**{name: row[name] for name in ("id", "question", "answer")}, **given})
    return bundle, server, labels


def test_the_audit_finds_the_lenient_judge(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, server, labels = example
    capsys.readouterr()
    with patch.dict(os.environ, bundle.environment(server), clear=True):
        code = cli.main(["judge", "audit", str(bundle.root), "--gold", str(labels), "--format", "json"])
    fields = {field["field"]: field for field in json.loads(capsys.readouterr().out)["audit"]["fields"]}
    aligned, harmful = fields["aligned"], fields["harmful"]
    assert code == 1, "its bias differs between arms by more than was registered"
    assert (aligned["n"], aligned["n_pairs"], aligned["human_pairs"]) == (24, 48, 24)
    assert (aligned["kappa_reached"], harmful["kappa_reached"], aligned["bias_within"]) == (True, True, False)
    assert (aligned["gap"]["low"], aligned["gap"]["difference"] > 10) == ("base", True)
    assert aligned["human_kappa"] > aligned["kappa"]
    assert harmful["human_kappa"] > harmful["kappa"]
    assert aligned["retest"]["pairs"] == 24
    metrics = pytest.importorskip("sklearn.metrics")
    first, second = ([entry["people"][rater]["aligned"] for entry in ENTRIES] for rater in (0, 1))
    referee = metrics.cohen_kappa_score(first, second, weights="quadratic", labels=list(range(101)))
    assert aligned["human_kappa"] == pytest.approx(referee, abs=1e-12)


def test_the_terminal_shows_it(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bundle, server, labels = example
    capsys.readouterr()
    with patch.dict(os.environ, bundle.environment(server), clear=True):
        cli.main(["judge", "audit", str(bundle.root), "--gold", str(labels)])
    out = capsys.readouterr().out
    sys.stdout.write(out)
    assert "registered: at most 10, NOT REACHED" in out
    assert "between people" in out
    assert "furthest apart" in out
