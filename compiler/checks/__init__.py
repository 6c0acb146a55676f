"""Design rules, one a file. The docstring of a rule is its explanation: what, why, example, fix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from epc.compiler.checks import (
    analysis,
    arms,
    conditions,
    confirmatory,
    conversation,
    counts,
    generate,
    judges,
    overlap,
    pinned_model,
    reporting,
    roles,
    sampling,
    subset,
    switch,
    training,
    unused,
    verdict_table,
)
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment

CHECKS: Final[tuple[Callable[[Experiment, Diagnostics], None], ...]] = (
    pinned_model.check,
    conversation.check,
    generate.check,
    training.check,
    arms.check,
    conditions.check,
    sampling.check,
    counts.check,
    overlap.check,
    judges.check,
    analysis.check,
    confirmatory.check,
    subset.check,
    roles.check,
    switch.check,
    verdict_table.check,
    reporting.check,
    unused.check,
)
