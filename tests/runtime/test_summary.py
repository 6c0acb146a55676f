"""What `epc decide` prints: text of a spec is text, whatever rich would read into it."""

from __future__ import annotations

from io import StringIO

import pytest
from rich.console import Console

from epc.compiler.contract.decision import Confidence, Decision, Deviation, GateResult, Observation, Verdict
from epc.runtime.summary import print_summary


def printed(text: str) -> str:
    """The summary of a decision with `text` wherever a person or a model may have written it."""
    gates = tuple(
        GateResult(
            name=text, role="success", text=text, truth=False, would_flip=None, say=text, built_in=built_in, detail=text,
            observations=(Observation(text=text, value=0.5, truth=False, n=3),),
        )
        for built_in in (False, True)
    )  # fmt: skip
    decision = Decision(
        epc="0", id="x", title=text, question=text, mode="real", lock_sha256="0", spec_sha256="0", rows_sha256="0",
        verdict=Verdict(
            label="KILL", verdict_class="KILL", rule=0, rule_text=text, say=f"say {text}", because=f"because {text}"
        ),
        fired=(), gates=gates, verdict_table=(), analyses=(), arms=(),
        confidence=Confidence(label="LOW", reason=text),
        deviations=(Deviation(kind="amended", text=text, changes=(text,)),),
    )  # fmt: skip
    console = Console(file=StringIO(), width=200, force_terminal=False)
    print_summary(console, decision, {})
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize(
    "text", ["the [system] prompt", "ends with [/INST]", "[bold]b[/bold]", "[link=http://x]y", "\\[x]"]
)
def test_no_text_of_a_spec_is_markup(text: str) -> None:
    said = printed(text)
    # title, say, because, deviation, its change, gate name, its observation, built-in name and detail, confidence
    assert said.count(text) == 10
    assert f"say {text}" in said
