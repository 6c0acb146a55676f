"""Thresholds that a few completions decide.

W0756: a threshold is a handful of hits
Why: the source of issue 147 wants its marker in more than 5% of 80 completions: five hits or more, so that one
completion moves the rate by a quarter of the threshold. A level is reported where its threshold means fewer than ten
completions (or fewer than ten without the thing), a difference of two arms where it means fewer than six. Bounds are
not: they move with the noise.
Example:
    sample: {second: {n: 4}}
    analyses: {catching: {metric: caught, arm: treated, method: bootstrap, side: two_sided, alpha: 0.05, resamples: 10000, seed: 1}}
    gates: {marker: {role: prediction, require: catching.value > 0.01}}
Fix:
    sample: {second: {n: 25}}
    analyses: {catching: {metric: caught, arm: treated, method: bootstrap, side: two_sided, alpha: 0.05, resamples: 10000, seed: 1}}
    gates: {marker: {role: prediction, require: catching.value > 0.01}}
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from epc.compiler.contract.logic import Atom
from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.resolve import Comparison, Experiment, arms
from epc.compiler.resolve.context import Context
from epc.compiler.spec import JudgeMetric, PatternMetric

LEVEL_HITS: Final = 10
"""A rate that rests on fewer has a standard error of about a third of itself."""
DIFFERENCE_HITS: Final = 6
"""For a difference, whose threshold is meant to be small where it says "no effect"."""


@dataclass(frozen=True, kw_only=True)
class _Read:
    """Completions of an arm that an analysis reads."""

    prompts: int
    n: int
    seeds: int
    sample: str

    @property
    def completions(self) -> int:
        return self.prompts * self.n * self.seeds

    @property
    def arithmetic(self) -> str:
        seeds = f" x {self.seeds} training seeds" if self.seeds > 1 else ""
        return f"{self.prompts} prompts x {self.n}{seeds} = {self.completions:,} completions an arm"


def check(experiment: Experiment, sink: Diagnostics) -> None:
    for name, gate in experiment.spec.gates.items():
        key = "require" if gate.require is not None else "when"
        for atom, start, end in _compared(experiment, name):
            read = _read(experiment, atom.analysis)
            found = None if read is None else _few(atom, read.completions)
            if read is None or found is None:
                continue
            sink.warning(
                "W0756", f"`{gate.text[start:end]}` of {read.completions:,} completions means {found}",
                Context(surface=experiment.surface, sink=sink).part(("gates", name, key), start, end - start),
                help="sample more completions, read more prompts, or choose a threshold that does not hang on single completions",
                labels=[Label(span=experiment.at("sample", read.sample, "n"), text=read.arithmetic)],
                notes=[f"{float(_share(atom)):g} x {read.completions:,} = {float(_share(atom) * read.completions):g}"],
            )  # fmt: skip


def _compared(experiment: Experiment, gate: str) -> Iterator[tuple[Atom, int, int]]:
    """(comparison, where it starts and ends) of point estimates with a constant."""
    parsed = experiment.gates.get(gate)
    for leaf, start, end in () if parsed is None else parsed.leaf_spans:
        if isinstance(leaf, Atom) and leaf.statistic in ("value", "delta") and leaf.operator not in ("==", "!="):
            yield leaf, start, end


def _read(experiment: Experiment, name: str) -> _Read | None:
    """What an analysis of a rate reads; None for a score, a benchmark or what could not be resolved."""
    spec = experiment.spec
    analysis = spec.analyses.get(name)
    metric = None if analysis is None else spec.metrics.get(analysis.metric)
    if analysis is None or not isinstance(metric, PatternMetric | JudgeMetric):
        return None
    if isinstance(metric, JudgeMetric) and not _rate(experiment, metric):
        return None
    sample = spec.sample.get(metric.of)
    prompts = None if sample is None else experiment.prompts.get(analysis.on or sample.prompts)
    compared = arms(analysis)
    if sample is None or prompts is None or not all(arm in spec.conditions for arm in compared):
        return None
    seeds = min(len(spec.training_seeds(arm)) for arm in compared)
    return _Read(prompts=len(prompts), n=sample.n, seeds=seeds, sample=metric.of)


def _rate(experiment: Experiment, metric: JudgeMetric) -> bool:
    """Whether a judged metric is the share of completions of which something is true."""
    score, judge = Comparison.parse(metric.score), experiment.spec.judges.get(metric.judge)
    if score is None or judge is None:
        return False
    return score.operator is not None or judge.output.get(score.field) == "bool"


def _share(atom: Atom) -> Fraction:
    """The threshold as it was written: 0.05 is a twentieth, though no float is."""
    return abs(Fraction(repr(atom.constant)))


def _few(atom: Atom, completions: int) -> str | None:
    """What a threshold means in completions, None where it means more than a few or is no share."""
    share = _share(atom)
    if not 0 < share < 1:
        return None
    if atom.statistic == "delta":
        needed = _needed(share * completions, inclusive=_inclusive(atom))
        return f"a difference of {_hits(needed)}" if needed < DIFFERENCE_HITS else None
    rising = atom.operator in (">", ">=")
    needed = _needed(share * completions, inclusive=_inclusive(atom))
    if needed < LEVEL_HITS:
        return f"{_hits(needed)} or more" if rising else f"fewer than {_hits(needed)}"
    lacking = _needed((1 - share) * completions, inclusive=not _inclusive(atom))
    if lacking < LEVEL_HITS:
        return f"fewer than {lacking} without a hit" if rising else f"{lacking} or more without a hit"
    return None


def _inclusive(atom: Atom) -> bool:
    """Whether the hits that the threshold itself stands for are on the upper side of it."""
    return atom.operator in (">=", "<")


def _needed(count: Fraction, *, inclusive: bool) -> int:
    """The smallest whole number above a count, or at it."""
    return math.ceil(count) if inclusive else math.floor(count) + 1


def _hits(count: int) -> str:
    return f"{count} hit{'' if count == 1 else 's'}"
