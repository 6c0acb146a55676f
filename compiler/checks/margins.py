"""Margins: which side they are on, which arm they are measured from, and whether noise is smaller.

E0825: a margin on both sides, so that improvement is punished
Why: the source document of issue 147 lets a model keep its capability "within 0.05": a model that gained six points
would fail. Harm has one side. Where sameness is really meant, it is a claim of its own, with a bound on either side
(two one-sided tests) and not a point estimate.
Example:
    gates: {able: {require: quizzed.delta >= -0.05 and quizzed.delta <= 0.05}}
Fix:
    gates: {able: {require: quizzed.lower > -0.05}}

E0826: one arm is held close to two references that may lie apart
Why: the source document of issue 147 holds capability within 0.05 of the attacked control and within 0.05 of the
untouched base. If the attack itself costs 0.10, no number is close to both, and nothing passes, whatever the treatment
does. One reference is enough: the arm that shares everything but the treatment.
Example:
    analyses:
      from_base: {metric: quiz, contrast: treated - base, method: paired_t, side: two_sided, alpha: 0.05}
    gates: {able: {require: quizzed.lower > -0.05 and quizzed.upper < 0.05 and from_base.lower > -0.05}}
Fix:
    gates: {able: {require: quizzed.lower > -0.05 and quizzed.upper < 0.05}}

W0826: one arm is held to a reference that did not go through what it went through
Why: beside a margin from the attacked control, the source document of issue 147 asks for a margin from the untouched
base. What the attack costs everybody is then charged to the treatment: it must not only be harmless but undo the
attack. A gate that bounds what the attack costs would settle it.
Example:
    analyses:
      from_base: {metric: quiz, contrast: treated - base, method: paired_t, side: two_sided, alpha: 0.05}
    gates: {able: {require: quizzed.lower > -0.05 and from_base.lower > -0.05}}
Fix:
    gates: {able: {require: quizzed.lower > -0.05}}

W0828: a margin that is smaller than the noise between trainings
Why: in one lab thresholds were smaller than the noise from one training seed to the next, five to eight points, so
that a gate was decided by the seed. Two arms of k seeds each differ by chance with a standard deviation of
noise x sqrt(2 / k). The prompts' interval does not hold that.
Example:
    seeds: [1]
    metrics: {alignment: {noise: 6}}      # 6 x sqrt(2) = 8.5, and the threshold is 5
Fix:
    metrics: {alignment: {noise: 6}}      # three seeds: 4.9
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final

from epc.compiler.contract.logic import Atom, Direction, leaves, required
from epc.compiler.decision import confirmatory
from epc.compiler.diagnostics import Diagnostics, Label, Span
from epc.compiler.resolve import Experiment, arms

REQUIRED: Final = ("success", "guardrail", "sanity")
"""Roles whose predicate must hold for SUCCESS."""
JUDGED: Final = (*REQUIRED, "override", "kill", "validity", "prediction")
"""Roles whose thresholds mean something."""
SIZES: Final = ("delta", "lower", "upper", "ci_low", "ci_high")


@dataclass(frozen=True, kw_only=True)
class _Bound:
    """What a gate requires of a contrast: `treatment - control` above (up) or below (down) a constant."""

    gate: str
    atom: Atom
    direction: Direction
    metric: str
    treatment: str
    control: str

    @property
    def text(self) -> str:
        return f"{self.atom.analysis}.{self.atom.statistic} {self.atom.operator} {self.atom.constant:g}"


def check(experiment: Experiment, sink: Diagnostics) -> None:
    bounds = list(_bounds(experiment))
    _both_sides(experiment, sink, bounds)
    _two_references(experiment, sink, bounds)
    _noise(experiment, sink)


def _bounds(experiment: Experiment) -> Iterator[_Bound]:
    spec = experiment.spec
    for gate, parsed in experiment.gates.items():
        if spec.gates[gate].role not in REQUIRED or parsed.predicate is None:
            continue
        for atom, direction in required(parsed.predicate):
            analysis = spec.analyses[atom.analysis]
            pair = arms(analysis)
            if len(pair) == 2 and atom.statistic in SIZES and analysis.metric in spec.metrics:
                yield _Bound(
                    gate=gate, atom=atom, direction=direction, metric=analysis.metric, treatment=pair[0], control=pair[1]
                )  # fmt: skip


def _at(experiment: Experiment, gate: str) -> Span:
    return experiment.at("gates", gate, "require" if experiment.spec.gates[gate].require is not None else "when")


def _both_sides(experiment: Experiment, sink: Diagnostics, bounds: list[_Bound]) -> None:
    """A point estimate held between two bounds, where one side of them is better."""
    spec = experiment.spec
    treated = {arms(spec.analyses[name])[0] for name in confirmatory(experiment)}
    grouped: dict[tuple[str, ...], dict[Direction, _Bound]] = {}
    for bound in bounds:
        # a sanity gate may ask that arms which are no treatment are alike
        if bound.atom.statistic == "delta" and (spec.gates[bound.gate].role != "sanity" or bound.treatment in treated):
            ways = grouped.setdefault((bound.gate, bound.metric, bound.treatment, bound.control), {})
            ways.setdefault(bound.direction, bound)
    for (gate, metric, treatment, control), ways in grouped.items():
        if len(ways) < 2:
            continue
        upward = (spec.metrics[metric].better == "higher") != (control in treated and treatment not in treated)
        punishing, kept = (ways[-1], ways[1]) if upward else (ways[1], ways[-1])
        larger, beyond = ("larger", "above") if upward else ("smaller", "below")
        side = "lower" if upward else "upper"
        operator = ">" if upward else "<"
        sink.error(
            "E0825", f'{spec.gates[gate].role} gate "{gate}" holds "{metric}" on both sides, so an improvement fails it',
            _at(experiment, gate),
            help=f"keep `{kept.text}`, or better {kept.atom.analysis}.{side} {operator} {kept.atom.constant:g};"
            " if sameness is meant, require lower above one margin and upper below the other",
            labels=[Label(span=experiment.at("metrics", metric, "better"), text="which side is better")],
            notes=[f"a {larger} delta is better, and one {beyond} {punishing.atom.constant:g} fails `{punishing.text}`"],
        )  # fmt: skip


def _two_references(experiment: Experiment, sink: Diagnostics, bounds: list[_Bound]) -> None:
    """One metric of one arm bounded against two arms that nothing compares; once for each metric and arm."""
    spec = experiment.spec
    settled = {
        (spec.analyses[leaf.analysis].metric, frozenset(arms(spec.analyses[leaf.analysis])))
        for parsed in experiment.gates.values()
        if parsed.predicate is not None
        for leaf in leaves(parsed.predicate)
        if isinstance(leaf, Atom)
    }
    grouped: dict[tuple[str, str], list[_Bound]] = {}
    for bound in bounds:
        if not _misspelt(experiment, bound.control):
            grouped.setdefault((bound.metric, bound.treatment), []).append(bound)
    for (metric, treatment), found in grouped.items():

        def apart(ones: list[_Bound], others: list[_Bound], metric: str = metric) -> tuple[_Bound, _Bound] | None:
            """The first two with references that differ and that no gate compares."""
            pairs = ((one, other) for one in ones for other in others if one.control != other.control)
            return next((pair for pair in pairs if (metric, frozenset(b.control for b in pair)) not in settled), None)

        # above the reference that went through less: what lies between the two is what the other went through
        above = sorted((b for b in found if b.direction == 1), key=lambda b: len(_phases(experiment, b.control)))
        below = [b for b in found if b.direction == -1]
        opposed = apart(above, below)
        if opposed is not None:
            _empty(experiment, sink, treatment, *opposed)
            continue
        worse = [
            b for b in (above if spec.metrics[metric].better == "higher" else below) if b.control in spec.conditions
        ]
        for phase in _phases(experiment, treatment):
            without = [b for b in worse if phase not in spec.phases(b.control)]
            charged = apart(without, [b for b in worse if phase in spec.phases(b.control)])
            if charged is not None:
                _charged(experiment, sink, phase, *charged)
                break


def _misspelt(experiment: Experiment, arm: str) -> bool:
    """Whether an arm that nobody declared was probably meant to be one that somebody did."""
    conditions = experiment.surface.declared("conditions")
    return arm not in conditions and bool(get_close_matches(arm, conditions, n=1, cutoff=0.6))


def _phases(experiment: Experiment, arm: str) -> list[str]:
    """Phases of an arm; none where it is not declared."""
    return experiment.spec.phases(arm) if arm in experiment.spec.conditions else []


def _empty(experiment: Experiment, sink: Diagnostics, treatment: str, above: _Bound, below: _Bound) -> None:
    """`above` keeps the arm over one reference, `below` under another."""
    low, high = above.atom.constant, below.atom.constant
    sink.error(
        "E0826", f'"{treatment}" is held above "{above.control}" and below "{below.control}" in "{above.metric}", and nothing compares these two',
        _at(experiment, above.gate),
        help="keep one reference, the arm that shares everything but the treatment; or add a gate that bounds how far the two are apart",
        labels=[
            Label(span=experiment.at("analyses", above.atom.analysis, "contrast"), text="one reference"),
            Label(span=experiment.at("analyses", below.atom.analysis, "contrast"), text=f'the other, in "{below.gate}"'),
        ],
        notes=[
            f"`{above.text}` and `{below.text}` need {above.control} - {below.control} to be at most {high:g} - ({low:g}) = {high - low:g};"
            " where the two lie further apart, no result passes"
        ],
    )  # fmt: skip


def _charged(experiment: Experiment, sink: Diagnostics, phase: str, untouched: _Bound, shared: _Bound) -> None:
    """Both bounds keep the arm from being worse, and one reference did not go through what the arm and the other did."""
    treatment, margin = untouched.treatment, abs(untouched.atom.constant)
    sink.warning(
        "W0826", f'"{treatment}" is held to "{shared.control}" and to "{untouched.control}" in "{untouched.metric}", and only the latter did without "{phase}"',
        _at(experiment, untouched.gate),
        help=f'keep the margin from "{shared.control}"; or add a gate that bounds {shared.control} - {untouched.control}, what "{phase}" costs',
        labels=[Label(span=experiment.at("analyses", untouched.atom.analysis, "contrast"), text=f"this reference: `{untouched.text}`")],
        notes=[f'where "{phase}" costs more than {margin:g}, `{untouched.text}` asks "{treatment}" to be better than "{shared.control}", not only no worse'],
    )  # fmt: skip


def _noise(experiment: Experiment, sink: Diagnostics) -> None:
    """Thresholds on a difference that another training seed could cross; once for each of a contrast."""
    spec = experiment.spec
    found: dict[tuple[str, tuple[str, ...], float], list[tuple[str, Atom]]] = {}
    for gate, parsed in experiment.gates.items():
        if spec.gates[gate].role not in JUDGED or parsed.predicate is None:
            continue
        for atom in leaves(parsed.predicate):
            if isinstance(atom, Atom) and atom.statistic in SIZES:
                analysis = spec.analyses[atom.analysis]
                quantity = (analysis.metric, arms(analysis), abs(atom.constant))
                found.setdefault(quantity, []).append((gate, atom))
    seeds = len(spec.seeds)
    for (name, pair, margin), readers in found.items():
        metric = spec.metrics.get(name)
        trained = sum(arm in spec.conditions and bool(spec.phases(arm)) for arm in pair)
        if metric is None or metric.noise is None or len(pair) != 2:
            continue
        noise = metric.noise * math.sqrt(trained / seeds)
        if not 0 < margin < noise:
            continue
        (gate, atom), *others = readers
        enough = math.ceil(trained * (metric.noise / margin) ** 2)
        counted = f"{trained} trained arm{'s' if trained > 1 else ''} / {seeds} seed{'s' if seeds > 1 else ''}"
        sink.warning(
            "W0828", f'gate "{gate}" compares {atom.analysis}.{atom.statistic} with {atom.constant:g}, and trainings differ by {noise:.3g} by chance',
            _at(experiment, gate),
            help=f"train {enough} seeds of each arm, or widen the margin; a margin below the noise is decided by the seed",
            labels=[
                Label(span=experiment.at("metrics", name, "noise"), text="the standard deviation between seeds"),
                *(Label(span=_at(experiment, other), text="the same margin") for other in dict.fromkeys(g for g, _ in others) if other != gate),
            ],
            notes=[f"{metric.noise:g} x sqrt({counted}) = {noise:.3g}, above {margin:g}"],
        )  # fmt: skip
