"""What a success and a non-inferiority claim rest on: units, number of tests, and which of them may win.

E0811: a confirmatory test on too few units
Why: below 20 units the bootstrap rejects a true null far too often: at 8 units and alpha .05, 8.7% of the time in
simulations, and 25.5% where the scores are skewed to the left. More samples of the same prompts do not help: the
prompts are what the test resamples.
Example:
    sample: {first: {prompts: part_b}}      # 16 prompts
    analyses: {part: {on: null}}
Fix:
    sample: {first: {prompts: heldout}}     # 24 prompts

E0812: several confirmatory tests and no rule for them
Why: k tests at alpha each give one false success with a probability of up to k x alpha. A registration announces one
test, or a family whose rule divides one alpha; everything else is a guardrail with a margin, a prediction or a
description.
Example:
    gates: {survives: {require: headline.reject and attack_effect.reject}}
Fix:
    gates: {survives: {require: headline.reject and attack_effect.reject}}
    families: {primary: {method: holm, analyses: [headline, attack_effect], alpha: 0.025}}

E0813: whichever test succeeds is the success
Why: with `a.reject or b.reject` the headline is chosen after the fact: whichever of the two came out becomes the
finding, and a false success is up to twice as likely as alpha says. Choosing the better one of two is choosing the
winner, and must be paid for in the test or not be done.
Example:
    gates: {survives: {require: headline.reject or against_placebo.reject}}
Fix:
    gates:
      survives: {require: headline.reject}
      beyond_placebo: {role: prediction, require: against_placebo.reject}

E0814: a guardrail that passes because a test did not reject
Why: "no significant drop" is not "no drop". The smaller the sample, the surer it passes: with three questions every
model is undamaged. Non-inferiority needs a margin, and a bound on the right side of it.
Example:
    gates: {able: {require: not quizzed.reject}}
Fix:
    gates: {able: {require: quizzed.lower > -0.1}}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, assert_never

from epc.compiler.contract.logic import And, Atom, Name, Not, Or, Predicate, Truth, compare, evaluate, leaves
from epc.compiler.diagnostics import Diagnostics, Label
from epc.compiler.resolve import Experiment
from epc.compiler.spec import Analysis, JudgeMetric, LmEvalMetric, PatternMetric, ResultMetric, Rule

MINIMUM_UNITS: Final = 20
EXACT: Final = ("sign_flip", "sign_test")
TESTS: Final = ("reject", "p")
BOUNDS: Final = ("lower", "upper", "ci_low", "ci_high")


def units(experiment: Experiment, analysis: Analysis) -> int | None:
    """How many units an analysis has; None when that could not be resolved."""
    match experiment.spec.metrics.get(analysis.metric):
        case LmEvalMetric(items=items):
            return items
        case PatternMetric(of=source) | JudgeMetric(of=source):
            sample = experiment.spec.sample.get(source)
            name = analysis.on or (None if sample is None else sample.prompts)
            found = None if name is None else experiment.prompts.get(name)
            return None if found is None else len(found)
        case ResultMetric() | None:
            return None  # counted when it is decided


def resampled_units(experiment: Experiment, analysis: Analysis) -> int | None:
    """How many independent ones a test rests on: training seeds where it resamples nothing else, otherwise units."""
    if analysis.method == "cluster_bootstrap" and analysis.levels == ["seed"]:
        return len(set(experiment.spec.seeds))
    return units(experiment, analysis)


def exact(analysis: Analysis) -> bool:
    """Whether the level of the test holds for any number of units."""
    return analysis.method in EXACT or (analysis.method == "mcnemar" and analysis.p == "exact")


def check(experiment: Experiment, sink: Diagnostics) -> None:
    if not _winner(experiment, sink):
        _several(experiment, sink)
    for name in tested(experiment, TESTS):
        analysis = experiment.spec.analyses[name]
        count = resampled_units(experiment, analysis)
        if count is not None and count < MINIMUM_UNITS and not exact(analysis):
            what = "training seeds to resample" if analysis.levels == ["seed"] else "units"
            sink.error(
                "E0811", f'confirmatory analysis "{name}" has {count} {what}, fewer than {MINIMUM_UNITS}',
                experiment.key_at("analyses", name), help="add units, or use method: sign_flip, which is exact for small samples",
            )  # fmt: skip
    _no_margin(experiment, sink)


def tested(experiment: Experiment, statistics: tuple[str, ...]) -> dict[str, str]:
    """Analysis -> success gate that reads one of these statistics of it."""
    found: dict[str, str] = {}
    for gate, parsed in experiment.gates.items():
        if experiment.spec.gates[gate].role == "success" and parsed.predicate is not None:
            for leaf in leaves(parsed.predicate):
                if isinstance(leaf, Atom) and leaf.statistic in statistics:
                    found.setdefault(leaf.analysis, gate)
    return found


def _several(experiment: Experiment, sink: Diagnostics) -> None:
    found = tested(experiment, TESTS)
    groups = _groups(experiment, found)
    if len(groups) < 2:
        return
    analyses = experiment.spec.analyses
    sink.error(
        "E0812", f"{len(found)} confirmatory tests without a multiplicity rule: {', '.join(found)}",
        experiment.key_at("gates", found[groups[1][0]]),
        help="put them in one family under `families`, or keep one as the success test and make the others predictions, or"
        " guardrails with a margin",
        notes=[f"at alpha each, at least one rejects falsely with probability up to {sum(analyses[group[0]].alpha for group in groups):g}"],
    )  # fmt: skip


def _groups(experiment: Experiment, names: Iterable[str]) -> list[list[str]]:
    """Analyses that share one alpha: those of a family together, every other by itself."""
    family_of = {name: family for family, entry in experiment.spec.families.items() for name in entry.analyses}
    found: dict[tuple[str, str], list[str]] = {}
    for name in names:
        key = ("family", family_of[name]) if name in family_of else ("analysis", name)
        found.setdefault(key, []).append(name)
    return list(found.values())


def _winner(experiment: Experiment, sink: Diagnostics) -> bool:
    """Report tests of which any one would do for SUCCESS; whether there were several.

    The members of a family count once where they succeed by `reject`: the family pays for the choice.
    """
    spec = experiment.spec
    gates = {
        name: parsed.predicate
        for name, parsed in experiment.gates.items()
        if parsed.predicate is not None and spec.gates[name].role == "success"
    }
    read = tested(experiment, (*TESTS, *BOUNDS))
    in_family = frozenset(name for family in spec.families.values() for name in family.analyses)
    wins = [
        predicate
        for rule, predicate in zip(spec.verdicts, experiment.rules, strict=True)
        if predicate is not None and isinstance(rule, Rule) and rule.then.startswith("SUCCESS")
    ]

    def sufficient(adjusted: frozenset[str]) -> list[str]:
        return [name for name in read if any(_succeeds(rule, gates, name, frozenset(read), adjusted) for rule in wins)]

    enough = sufficient(frozenset())
    unpaid = [name for name in sufficient(in_family) if name in in_family]
    if len(_groups(experiment, [name for name in enough if name not in unpaid])) + len(unpaid) < 2:
        return False
    first, second, *_ = (read[name] for name in enough)
    alphas = [spec.analyses[name].alpha for name in enough]
    sink.error(
        "E0813", f"SUCCESS depends on which of {', '.join(enough)} succeeds", experiment.key_at("gates", second),
        help="name one of them the test, and make the others predictions",
        labels=[Label(span=experiment.key_at("gates", first), text="the other way to succeed")] if first != second else [],
        notes=[f"any one of them is enough, so a false success has probability up to {' + '.join(f'{a:g}' for a in alphas)} = {sum(alphas):g}"],
    )  # fmt: skip
    return True


def _succeeds(
    rule: Predicate, gates: Mapping[str, Predicate], only: str, read: frozenset[str], adjusted: frozenset[str]
) -> bool:
    """Whether a rule can hold while only one analysis shows what the success gates ask; other gates are left open.

    The rejections of `adjusted` do not count.
    """

    def leaf(node: Atom | Name) -> Truth:
        if isinstance(node, Name):
            return evaluate(gates[node.name], leaf) if node.name in gates else None
        if node.analysis not in read or node.statistic not in (*TESTS, *BOUNDS):
            return None
        if node.statistic == "reject" and node.analysis in adjusted:
            return False
        return node.analysis == only

    return evaluate(rule, leaf) is not False


def _no_margin(experiment: Experiment, sink: Diagnostics) -> None:
    """Guardrails for which it is enough that a test finds nothing."""
    for name, parsed in experiment.gates.items():
        gate = experiment.spec.gates[name]
        if gate.role != "guardrail" or parsed.predicate is None:
            continue
        sized = {
            leaf.analysis for leaf in leaves(parsed.predicate) if isinstance(leaf, Atom) and leaf.statistic not in TESTS
        }
        for analysis in dict.fromkeys(_unrejected(parsed.predicate)):
            if analysis in sized:
                continue
            sink.error(
                "E0814", f'guardrail "{name}" passes when "{analysis}" does not reject',
                experiment.at("gates", name, "require" if gate.require is not None else "when"),
                help="require a bound beyond a margin instead: lower > -margin where higher is better, upper < margin where lower is",
                notes=["a test that finds nothing may only have had too few units; the fewer there are, the surer this passes"],
            )  # fmt: skip


def _unrejected(predicate: Predicate, *, negated: bool = False) -> list[str]:
    """Analyses whose test must not reject for a predicate to hold."""
    match predicate:
        case Atom(statistic="reject", operator=operator, constant=constant):
            if_not, if_so = compare(0, operator, constant), compare(1, operator, constant)
            return [predicate.analysis] if if_not != if_so and if_so == negated else []
        case Atom(statistic="p", operator=operator):
            return [predicate.analysis] if (operator in (">", ">=")) != negated and operator not in ("==", "!=") else []
        case Atom() | Name():
            return []
        case Not(operand=operand):
            return _unrejected(operand, negated=not negated)
        case And(operands=operands) | Or(operands=operands):
            return [name for operand in operands for name in _unrejected(operand, negated=negated)]
        case _:
            assert_never(predicate)
