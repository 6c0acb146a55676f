"""Power against the true effect, the minimum detectable effect, and the sizes that reach a declared power.

All by simulation of the whole decision with common random numbers: neighbouring points differ by their truth, not
by chance.

Sizes. The share of the expected verdict is simulated at other numbers of units of the sample set, or task, that the
confirmatory contrast reads, everything else as planned; then at other numbers of samples per unit. The number is
doubled until the share is reached, then bisected; every share that is printed was simulated at its size.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from epc.compiler.contract.logic import Atom, leaves
from epc.compiler.contract.manifest import Analysis, Design, Truth
from epc.compiler.contract.simulation import Needed, Power, PowerPoint, PowerThreshold
from epc.runtime.simulate.contrasts import Floats
from epc.runtime.simulate.experiments import Simulated, Simulator, metric_of
from epc.runtime.simulate.model import Size
from epc.runtime.simulate.outcomes import atom_text, deserved
from epc.runtime.simulate.truths import SIZES, Deriver, Named, direction_of, effect_of
from epc.runtime.simulate.verdicts import class_of
from epc.runtime.statistics.resamples import GROUPED_FROM

POWER: Final = 0.8
"""Asked for where no truth declares `at_least`."""
POINTS: Final = 13
MOST: Final = 16
"""Times the planned size, up to which more units or samples are looked for."""
FEWEST: Final = 4
MOST_EXPERIMENTS: Final = 1000
MOST_RESAMPLES: Final = 1999
"""Of a point of a curve or a size; a test with fewer resamples has the same level and a little less power."""


def curves(simulator: Simulator, deriver: Deriver, around: Named, power: float) -> Iterator[Power]:
    """One for each confirmatory contrast, all else as in the truth `around`."""
    design = simulator.design
    small = simulator.resized(simulator.sizes, min(simulator.experiments, MOST_EXPERIMENTS), MOST_RESAMPLES)
    for analysis in deriver.confirmatory:
        if analysis.name not in simulator.wanted:
            continue
        way = direction_of(analysis, metric_of(design, analysis.metric))
        thresholds = tuple(_thresholds(design, analysis))
        reach = max((abs(threshold.constant) for threshold in thresholds), default=0.0)
        at = small.simulate(_with_effect(deriver, around.truth, analysis, 0.0))
        sized = "delta" in simulator.wanted[analysis.name].statistics
        spread = max((float(np.nanstd(values)) for values in _of(at, analysis, "delta")), default=0.0) if sized else 0.0
        farthest = _room(design, around.truth, analysis, way)
        end = min(max(1.25 * reach, 4.5 * spread) or COMFORTABLE * farthest, farthest)
        effects = [round(way * end * step / (POINTS - 1), 6) for step in range(POINTS)]
        points = []
        for effect in effects:
            made = small.simulate(_with_effect(deriver, around.truth, analysis, effect))
            rejected = np.concatenate(list(_of(made, analysis, "reject")))
            points.append(
                PowerPoint(
                    effect=effect, reject=round(float(np.mean(rejected == 1)), 6), success=_success(design, made)
                )
            )
        yield Power(
            analysis=analysis.name, metric=analysis.metric, side=analysis.side, alpha=analysis.alpha,
            truth=around.truth.name, experiments=small.experiments, power=power, mde=_crossing(points, power),
            points=tuple(points), thresholds=thresholds,
        )  # fmt: skip


COMFORTABLE: Final = 0.5
"""Share of the room to the end of the scale that a curve spans where no gate compares the effect with anything."""


def _of(simulated: Simulated, analysis: Analysis, statistic: str) -> Iterator[Floats]:
    for answer in simulated.panel.answers():
        if answer.possible.any():
            yield answer.results[analysis.name][statistic][answer.possible]


def _room(design: Design, truth: Truth, analysis: Analysis, way: int) -> float:
    """How far the treatment can be from the control before the scale ends."""
    assert analysis.contrast is not None
    low, high = metric_of(design, analysis.metric).scale
    control = truth.metrics[analysis.metric].means[analysis.contrast.control]
    return high - control if way > 0 else control - low


def _with_effect(deriver: Deriver, truth: Truth, analysis: Analysis, effect: float) -> Truth:
    return truth.model_copy(update={"metrics": deriver.at(truth.metrics, {analysis.name: effect})})


def _success(design: Design, simulated: Simulated) -> float:
    won = [label for label in set(simulated.labels.tolist()) if class_of(design.verdicts, label) == "SUCCESS"]
    return round(float(np.mean(np.isin(simulated.labels, won))), 6)


def _thresholds(design: Design, analysis: Analysis) -> Iterator[PowerThreshold]:
    for gate in design.gates:
        for leaf in leaves(gate.predicate):
            shown = isinstance(leaf, Atom) and leaf.analysis == analysis.name and leaf.statistic in SIZES
            if (
                shown
                and isinstance(leaf, Atom)
                and gate.role in ("kill", "success", "prediction", "guardrail", "override")
            ):
                yield PowerThreshold(gate=gate.name, role=gate.role, text=atom_text(leaf), constant=leaf.constant)


def _crossing(points: list[PowerPoint], power: float) -> float | None:
    """Where the curve first reaches the power, linear between points."""
    for before, after in itertools.pairwise(points):
        if before.reject < power <= after.reject:
            part = (power - before.reject) / (after.reject - before.reject)
            return round(before.effect + part * (after.effect - before.effect), 6)
    return None


def needed(simulator: Simulator, deriver: Deriver, named: Named, label: str, power: float) -> Needed | None:
    """The sizes with which a truth gets a verdict as often as is asked for; None without a confirmatory contrast."""
    design, truth = simulator.design, named.truth
    tests = [test for test in deriver.confirmatory if test.name in simulator.wanted]
    if not tests:
        return None
    metric = metric_of(design, tests[0].metric)
    together = [other.name for other in design.metrics if other.source == metric.source]
    planned = simulator.sizes[metric.name]
    experiments = min(simulator.experiments, MOST_EXPERIMENTS)

    def share(units: int, samples: int) -> float:
        sizes = {
            **simulator.sizes,
            **{name: _scaled(simulator.sizes[name], planned, units, samples) for name in together},
        }
        labels = simulator.resized(sizes, experiments, MOST_RESAMPLES).simulate(truth).labels
        return round(float(np.mean(labels == label)), 6)

    at_plan = share(planned.units, planned.samples)
    said = {
        "truth": truth.name, "label": label, "power": power, "source": metric.source, "planned_units": planned.units,
        "planned_samples": planned.samples, "planned_share": at_plan,
    }  # fmt: skip
    why = _hopeless(design, tests, truth, label)
    if why is not None:
        return Needed.model_validate(
            {**said, "units": None, "units_share": None, "samples": None, "samples_share": None, "because": why}
        )
    bootstrapped = any(test.method in ("paired_bootstrap", "bootstrap") for test in tests)
    most = min(MOST * planned.units, GROUPED_FROM - 1) if bootstrapped else MOST * planned.units
    units, units_share = _fewest(lambda n: share(n, planned.samples), planned.units, at_plan, FEWEST, most, power)
    single = planned.samples == 1
    samples, samples_share = (
        (None, None)
        if single
        else _fewest(lambda n: share(planned.units, n), planned.samples, at_plan, 1, MOST * planned.samples, power)
    )
    parts = [f"simulated, {experiments:,} experiments a size with at most {MOST_RESAMPLES:,} resamples"]
    if units is None:
        parts.append(f"not with {most:,} units")
    if single:
        parts.append("one sample a unit by nature")
    elif samples is None:
        parts.append(f"not with {MOST * planned.samples:,} samples a unit: units differ more than samples do")
    return Needed.model_validate(
        {
            **said, "units": units, "units_share": units_share, "samples": samples, "samples_share": samples_share,
            "because": "; ".join(parts),
        }
    )  # fmt: skip


def _scaled(size: Size, planned: Size, units: int, samples: int) -> Size:
    """Another metric of the same sample set, which has the same units and samples."""
    return Size(units=units, samples=samples if size.samples == planned.samples else size.samples)


def _hopeless(design: Design, tests: list[Analysis], truth: Truth, label: str) -> str | None:
    """Why no size can reach a power, None where one may."""
    right = deserved(design, truth)
    if right != label:
        return f"no size does: the table says {right} of the true values themselves"
    for test in tests:
        effect = effect_of(test, truth)
        for threshold in _thresholds(design, test):
            near = abs(threshold.constant - effect) < 1e-9 * max(1.0, abs(effect))
            if near and threshold.role in ("kill", "success") and ".delta" in threshold.text:
                return f"no size does: the true effect is the threshold of {threshold.gate}, where a point is on either side half of the time"
    return None


def _fewest(
    share: Callable[[int], float], planned: int, at_plan: float, fewest: int, most: int, power: float
) -> tuple[int | None, float | None]:
    """The smallest number whose share is at least `power`, by doubling or halving and bisection."""
    seen = {planned: at_plan}
    if at_plan >= power:
        outside, inside = planned, planned
        while inside == outside and outside > fewest:
            outside = max(fewest, outside // 2)
            seen[outside] = share(outside)
            if seen[outside] >= power:
                inside = outside
        if seen[outside] >= power:
            return outside, seen[outside]
    else:
        outside = inside = planned
        while seen[inside] < power:
            if inside >= most:
                return None, None
            outside, inside = inside, min(2 * inside, most)
            seen[inside] = share(inside)
    while inside - outside > max(1, inside // 50):
        middle = (inside + outside) // 2
        seen[middle] = share(middle)
        inside, outside = (middle, outside) if seen[middle] >= power else (inside, middle)
    return inside, seen[inside]
