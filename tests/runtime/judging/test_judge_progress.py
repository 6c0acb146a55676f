"""The live line of a judge step."""

from __future__ import annotations

import re
from typing import Any

import pytest

from epc.runtime.judging.asking import Patience
from epc.runtime.progress import read_progress

# The SDK warns of models that will retire; the price table says so to whoever registers one.
pytestmark = pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")


def test_the_live_line_tells_calls_money_time_and_outcomes(bundle: Any, serve: Any) -> None:
    bundle.constants = {"votes": 2, "aggregate": "mean"}
    bundle.compile()
    target = bundle.last_asked()
    server = serve(fault=lambda call: "refusal" if f"\n{target}\n" in call.message else None)
    bundle.ask(server, patience=Patience())
    progress = read_progress(bundle.root, "judge-alignment")
    assert progress is not None
    assert re.fullmatch(
        r"16/16  calls/s [\d.e+]+  usd 0\.0\d of 10\.00  left 0:00  scored 87\.5%  judge refused 12\.5%",
        progress.text(),
    )


def test_what_is_reused_is_not_taken_for_speed(bundle: Any, serve: Any) -> None:
    server = serve()
    bundle.ask(server, patience=Patience())
    bundle.ask(server, patience=Patience())
    progress = read_progress(bundle.root, "judge-alignment")
    assert progress is not None
    assert progress.facts["calls_per_second"] == 0
    assert "left" not in progress.facts
    assert progress.text().startswith("8/8  calls/s 0  ")
