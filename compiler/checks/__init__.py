"""Design rules, one a file. The docstring of a rule is its explanation: what, why, example, fix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from epc.compiler.checks import (
    analysis,
    arms,
    confirmatory,
    conversation,
    counts,
    overlap,
    pinned_model,
    reporting,
    roles,
    training,
    unused,
    verdict_table,
)
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment

CHECKS: Final[tuple[Callable[[Experiment, Diagnostics], None], ...]] = (
    pinned_model.check,
    conversation.check,
    training.check,
    arms.check,
    counts.check,
    overlap.check,
    analysis.check,
    confirmatory.check,
    roles.check,
    verdict_table.check,
    reporting.check,
    unused.check,
)
