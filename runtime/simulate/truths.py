"""The truths that are simulated: declared ones completed, or standard ones derived from the gates.

A truth that leaves out a metric has the baseline's; the baseline is made from the gates:

- every arm at the middle of the scale (a metric that measures a filter: 0.05 dropped), the control of a
  confirmatory contrast half the largest effect before it;
- moved until every comparison of validity and sanity gates, and of guardrails that no difference would fail, holds
  by COMFORT of the scale's range;
- metrics that are one another's twins (with and without a filter) alike; the arms of a confirmatory contrast equal.

Derived truths change the baseline in one respect each: `null` in nothing; `kill_margin`, `success_threshold` and
`predicted` put the effect of the confirmatory contrasts exactly there; `harm`, one for each override, and
`damage`, one for each guardrail and for each kill of another contrast, put that contrast exactly on its margin, the
effect being the largest of the above; `broken_filter`, one for each switch, drops so much more of the treatment
that the switch must fire, with the largest effect in what is kept and none in all scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from epc.compiler.contract.logic import Atom, Direction, Predicate, leaves, required
from epc.compiler.contract.manifest import Analysis, Design, Metric, Truth, TruthOf
from epc.runtime.simulate.draws import largest_sd
from epc.runtime.simulate.model import Scale, Size, instruments

COMFORT: Final = 0.25
UNIT_SD: Final = 0.2
CORRELATION: Final = 0.5
ITEM_SD: Final = 0.4
ITEM_CORRELATION: Final = 0.9
"""Of units with one sample: at a mean of 0.5 two arms then disagree on 21% of them."""
DROPPED: Final = 0.05
EDGE: Final = 0.02
"""Derived means stay this share of the range away from the ends of the scale."""
SIZES: Final = ("delta", "value", "lower", "upper", "ci_low", "ci_high")


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How units vary, of one metric."""

    unit_sd: float
    correlation: float
    missing: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Named:
    """A truth with what is said of it."""

    truth: Truth
    describe: str
    declared: bool


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a finished run tells: spreads by metric, means by metric and arm."""

    spreads: Mapping[str, Spread]
    means: Mapping[tuple[str, str], float]


NOTHING: Final = Known(spreads={}, means={})


@dataclass(frozen=True, kw_only=True)
class _Need:
    """One comparison of true values that is to hold: treatment - control (or the level), on a side of a constant."""

    metric: str
    treatment: str
    control: str | None
    direction: Direction
    bound: float


def direction_of(analysis: Analysis, metric: Metric) -> Direction:
    """The side on which a confirmatory contrast succeeds."""
    match analysis.side:
        case "greater":
            return 1
        case "less":
            return -1
        case "two_sided":
            return 1 if metric.better == "higher" else -1


class Deriver:
    """Baseline and derived truths of a design."""

    def __init__(self, design: Design, sizes: Mapping[str, Size], known: Known = NOTHING) -> None:
        self.design = design
        self._sizes = sizes
        self._known = known
        self._metrics = {metric.name: metric for metric in design.metrics}
        self._analyses = {analysis.name: analysis for analysis in design.analyses}
        self._arms = [condition.name for condition in design.conditions]
        self._twins = {
            metric.name: twin.name
            for instrument in instruments(design)
            for metric in instrument.metrics
            if (twin := instrument.twin(metric)) is not None
        }
        self._measures = {
            found[0].name: found[1]
            for instrument in instruments(design)
            for metric in instrument.metrics
            if metric.filter is not None and (found := instrument.measures(metric.filter)) is not None
        }
        """Metric that measures a filter -> whether it counts what is kept."""

    @property
    def confirmatory(self) -> list[Analysis]:
        return [a for a in self.design.analyses if a.confirmatory and a.contrast is not None]

    # ------------------------------------------------------------------ effects

    def _constants(self, roles: Sequence[str], analysis: str) -> list[float]:
        """What gates of these roles compare the size of a contrast with."""
        return [
            leaf.constant
            for gate in self.design.gates
            if gate.role in roles
            for leaf in leaves(gate.predicate)
            if isinstance(leaf, Atom) and leaf.analysis == analysis and leaf.statistic in SIZES
        ]

    def effects(self, analysis: Analysis) -> dict[str, float]:
        """Named effects of a confirmatory contrast, in the order in which they are simulated."""
        way = direction_of(analysis, self._metrics[analysis.metric])
        found = {"null": 0.0}
        for name, roles in (
            ("kill_margin", ("kill",)), ("success_threshold", ("success",)), ("predicted", ("prediction",)),
        ):  # fmt: skip
            ahead = [way * constant for constant in self._constants(roles, analysis.name)]
            if ahead and max(ahead) > max(way * effect for effect in found.values()):
                found[name] = way * max(ahead)
        return found

    def _largest(self, analysis: Analysis) -> float:
        """The largest named effect; COMFORT of the range where none but 0 is named."""
        effect = max(self.effects(analysis).values(), key=abs)
        metric = self._metrics[analysis.metric]
        return effect or direction_of(analysis, metric) * COMFORT * (metric.scale[1] - metric.scale[0])

    # ----------------------------------------------------------------- baseline

    def _spread(self, metric: Metric) -> Spread:
        if metric.name in self._known.spreads:
            return self._known.spreads[metric.name]
        single = self._sizes[metric.name].samples == 1 and Scale.of(metric).two_valued
        sd, correlation = (ITEM_SD, ITEM_CORRELATION) if single else (UNIT_SD, CORRELATION)
        return Spread(unit_sd=sd * (metric.scale[1] - metric.scale[0]), correlation=correlation)

    def baseline(self) -> dict[str, TruthOf]:
        """Every metric; see the module."""
        means = {
            (metric.name, arm): self._known.means.get((metric.name, arm), self._anchor(metric))
            for metric in self.design.metrics
            for arm in self._arms
        }
        for analysis in self.confirmatory:
            assert analysis.contrast is not None
            metric = self._metrics[analysis.metric]
            if (metric.name, analysis.contrast.control) not in self._known.means:
                centre = self._anchor(metric) - self._largest(analysis) / 2
                means[metric.name, analysis.contrast.control] = self._inside(metric, centre)
        self._settle(means)
        for name, twin in self._twins.items():
            # A twin that no gate reads has the means of the one that gates read.
            if name in self._needy and twin not in self._needy:
                means |= {(twin, arm): means[name, arm] for arm in self._arms}
        for analysis in self.confirmatory:
            assert analysis.contrast is not None
            self._shift(means, analysis, 0.0)
        found = {}
        for metric in self.design.metrics:
            spread = self._spread(metric)
            found[metric.name] = TruthOf(
                means={arm: means[metric.name, arm] for arm in self._arms}, unit_sd=spread.unit_sd,
                correlation=spread.correlation, missing=spread.missing,
            )  # fmt: skip
        return found

    def _anchor(self, metric: Metric) -> float:
        low, high = metric.scale
        if metric.name in self._measures:
            return 1 - DROPPED if self._measures[metric.name] else DROPPED
        return (low + high) / 2

    def _inside(self, metric: Metric, value: float) -> float:
        low, high = metric.scale
        edge = EDGE * (high - low)
        return round(min(max(value, low + edge), high - edge), 6)

    @property
    def _needs(self) -> list[_Need]:
        return [need for gate in self.design.gates for need in self._needs_of(gate.role, gate.predicate)]

    @property
    def _needy(self) -> set[str]:
        """Metrics with a need, or with a confirmatory contrast where no twin has a need."""
        found = {need.metric for need in self._needs}
        return found | {a.metric for a in self.confirmatory if self._twins.get(a.metric) not in found}

    def _needs_of(self, role: str, predicate: Predicate) -> Iterator[_Need]:
        if role not in ("validity", "sanity", "guardrail"):
            return
        for atom, way in required(predicate, alternatives=True):
            analysis = self._analyses[atom.analysis]
            metric = self._metrics[analysis.metric]
            comfort = COMFORT * (metric.scale[1] - metric.scale[0])
            constant = atom.constant
            if atom.statistic in ("p", "reject"):
                way, constant = direction_of(analysis, metric), 0.0
            elif atom.statistic not in SIZES:
                continue
            if role == "guardrail" and analysis.contrast is not None and way * (0 - constant) > 0:
                continue
            pair = analysis.contrast
            yield _Need(
                metric=metric.name, treatment=pair.treatment if pair else analysis.arm or "",
                control=pair.control if pair else None, direction=way, bound=constant + way * comfort,
            )  # fmt: skip

    def _settle(self, means: dict[tuple[str, str], float]) -> None:
        """Move means until every need holds, each by as little as its turn asks for."""
        for _ in range(200):
            moved = False
            for need in self._needs:
                metric = self._metrics[need.metric]
                other = 0.0 if need.control is None else means[need.metric, need.control]
                gap = need.bound - (means[need.metric, need.treatment] - other)
                if need.direction * gap <= 1e-6:
                    continue
                if need.control is None:
                    # The level of one arm: all go with it, so that no contrast changes.
                    for arm in self._arms:
                        means[need.metric, arm] = self._inside(metric, means[need.metric, arm] + gap)
                    moved = True
                    continue
                before = means[need.metric, need.treatment]
                means[need.metric, need.treatment] = self._inside(metric, before + gap / 2)
                rest = gap - (means[need.metric, need.treatment] - before)
                means[need.metric, need.control] = self._inside(metric, other - rest)
                moved |= means[need.metric, need.control] != other
                moved |= means[need.metric, need.treatment] != before
            if not moved:
                return

    # ------------------------------------------------------------------- truths

    def _shift(
        self, means: dict[tuple[str, str], float], analysis: Analysis, effect: float, *, twins: bool = True
    ) -> None:
        """Put the treatment of a contrast `effect` above its control."""
        assert analysis.contrast is not None
        names = [analysis.metric]
        if twins and analysis.metric in self._twins:
            names.append(self._twins[analysis.metric])
        for name in names:
            low, high = self._metrics[name].scale
            control = means[name, analysis.contrast.control]
            means[name, analysis.contrast.treatment] = round(min(max(control + effect, low), high), 9)

    def at(
        self, baseline: Mapping[str, TruthOf], effects: Mapping[str, float], *, twins: bool = True
    ) -> dict[str, TruthOf]:
        """The baseline with some contrasts, by analysis, at other effects."""
        means = {(name, arm): mean for name, of in baseline.items() for arm, mean in of.means.items()}
        for name, effect in effects.items():
            self._shift(means, self._analyses[name], effect, twins=twins)
        return {
            name: of.model_copy(update={"means": {arm: means[name, arm] for arm in of.means}})
            for name, of in baseline.items()
        }

    def derived(self) -> Iterator[Named]:
        """The standard truths of a design."""
        base = self.baseline()
        tests = self.confirmatory
        names = list(dict.fromkeys(name for test in tests for name in self.effects(test)))
        for name in names:
            effects = {test.name: self.effects(test).get(name, self._below(test, name)) for test in tests}
            told = ", ".join(f"{test} {effect:+g}" for test, effect in effects.items())
            yield self._named(name, self.at(base, effects), told)
        best = {test.name: self._largest(test) for test in tests}
        seen: set[tuple[str, float]] = set()
        for role, name in (("override", "harm"), ("guardrail", "damage"), ("kill", "damage")):
            gates = [gate for gate in self.design.gates if gate.role == role]
            for gate in gates:
                margins = self._margins(gate.predicate, set(best))
                margins = {key: value for key, value in margins.items() if (key, value) not in seen}
                seen |= set(margins.items())
                if margins:
                    told = ", ".join(
                        f"{analysis} {margin:+g}, its margin in {gate.name}" for analysis, margin in margins.items()
                    )
                    label = name if role == "override" and len(gates) == 1 else f"{name}_{gate.name}"
                    yield self._named(label, self.at(base, {**best, **margins}), told)
        yield from self._broken(base, best)

    def _below(self, test: Analysis, name: str) -> float:
        """The effect of a contrast that has none of a name: the last named one before it."""
        order = ("null", "kill_margin", "success_threshold", "predicted")
        found = self.effects(test)
        return next(found[other] for other in reversed(order[: order.index(name) + 1]) if other in found)

    def _margins(self, predicate: Predicate, tests: set[str]) -> dict[str, float]:
        """Contrast, other than a confirmatory one -> the margin that a gate puts on its size."""
        return {
            leaf.analysis: leaf.constant
            for leaf in leaves(predicate)
            if isinstance(leaf, Atom)
            and leaf.statistic in SIZES
            and leaf.analysis not in tests
            and self._analyses[leaf.analysis].contrast is not None
        }

    def _broken(self, base: Mapping[str, TruthOf], best: Mapping[str, float]) -> Iterator[Named]:
        switches = [gate for gate in self.design.gates if gate.role == "switch" and gate.analysis in best]
        for gate in switches:
            margins = self._margins(gate.predicate, set(best))
            assert gate.analysis is not None
            metric = self._analyses[gate.analysis].metric
            twin = self._twins.get(metric)
            beyond = {
                name: constant + (1 if constant > 0 else -1) * COMFORT
                for name, constant in margins.items()
                if self._analyses[name].metric in self._measures
            }
            if twin is None or not beyond:
                continue
            # Of alternatives such as > 0.20 or < -0.20, the one in which the treatment loses more.
            name = next(iter(beyond))
            lost = abs(beyond[name]) * (-1 if self._measures[self._analyses[name].metric] else 1)
            of = self.at(self.at(base, {name: lost}), best, twins=False)
            told = f"the filter drops {abs(lost):g} more of the treatment: what it keeps shows {best[gate.analysis]:+g}, all scores 0"
            label = "broken_filter" if len(switches) == 1 else f"broken_filter_{gate.name}"
            yield self._named(label, of, told)

    def _named(self, name: str, metrics: Mapping[str, TruthOf], describe: str) -> Named:
        return Named(truth=Truth(name=name, metrics=dict(metrics)), describe=describe, declared=False)

    def declared(self) -> Iterator[Named]:
        """Declared truths, with the baseline where they say nothing."""
        base = self.baseline()
        for truth in self.design.truths:
            metrics = {**base, **truth.metrics}
            told = []
            for test in self.confirmatory:
                assert test.contrast is not None
                means = metrics[test.metric].means
                told.append(f"{test.name} {means[test.contrast.treatment] - means[test.contrast.control]:+g}")
            yield Named(truth=truth.model_copy(update={"metrics": metrics}), describe=", ".join(told), declared=True)


def effect_of(analysis: Analysis, truth: Truth) -> float:
    """The true value of an analysis: of a contrast the difference, of one arm its mean."""
    means = truth.metrics[analysis.metric].means
    if analysis.contrast is None:
        return means[analysis.arm or ""]
    return round(means[analysis.contrast.treatment] - means[analysis.contrast.control], 9)


def impossible_sd(metric: Metric, of: TruthOf) -> bool:
    """Whether no arm's mean allows the declared standard deviation."""
    return of.unit_sd > max(largest_sd(mean, *metric.scale) for mean in of.means.values()) * (1 + 1e-9)


def widened(truth: Truth, spreads: Mapping[str, Spread]) -> Truth:
    """A truth with other spreads, where a pilot tells them."""
    metrics = {
        name: of.model_copy(update=asdict(spreads[name])) if name in spreads else of
        for name, of in truth.metrics.items()
    }
    return truth.model_copy(update={"metrics": metrics})
