"""Predicates of gates and verdict rules, bound to analyses, statistics and gates.

E0308: a statistic that the analysis does not have
Why: In one lab a stop rule read a key that nobody wrote and defaulted to "pass". The level of one arm has a value and
bounds, a contrast has a delta, a p-value and bounds, and nothing else can be asked of them.
Example:
    gates: {not_at_chance: {require: base_quiz.delta > 0.3}}     # one arm: there is nothing to subtract
Fix:
    gates: {not_at_chance: {require: base_quiz.lower > 0.3}}

E0312: a predicate that cannot be read
Why: Gates compare one statistic with one number, and verdict rules join gates by and, or, not. There is no arithmetic
and no comparison of two statistics, which is what makes it possible to prove a verdict table before anything is run.
Example:
    gates: {survives: {require: headline.reject and headline.delta - 5 > 0}}
Fix:
    gates: {survives: {require: headline.reject and headline.delta > 5}}
"""

from __future__ import annotations

from difflib import get_close_matches

from epc.compiler.contract.logic import Atom, Name, Predicate
from epc.compiler.diagnostics import did_you_mean, sentence
from epc.compiler.predicate import Parsed, parse
from epc.compiler.resolve.context import Context
from epc.compiler.resolve.names import known
from epc.compiler.source import PathKey
from epc.compiler.spec import Otherwise

CONTRAST_STATISTICS = ("delta", "p", "reject", "lower", "upper", "ci_low", "ci_high")
ARM_STATISTICS = ("value", "lower", "upper", "ci_low", "ci_high")


def _problems(context: Context, parsed: Parsed, path: PathKey) -> None:
    for problem in parsed.errors:
        context.sink.error(
            "E0312", problem.message, context.part(path, problem.offset, problem.length), help=problem.help
        )


def gate_predicates(context: Context) -> dict[str, Parsed]:
    """Gate -> predicate, of the gates whose every name was found."""
    found: dict[str, Parsed] = {}
    for name, gate in context.spec.gates.items():
        path: PathKey = ("gates", name, "require" if gate.require is not None else "when")
        parsed = parse(gate.text, allow_names=False)
        _problems(context, parsed, path)
        good = parsed.predicate is not None
        for leaf, start, end in parsed.leaf_spans:
            if not isinstance(leaf, Atom):
                continue
            at = context.part(path, start, end - start)
            if not known(context, "analyses", leaf.analysis, context.within(at, leaf.analysis)):
                good = False
                continue
            statistics = ARM_STATISTICS if context.spec.analyses[leaf.analysis].arm is not None else CONTRAST_STATISTICS
            if leaf.statistic not in statistics:
                what = "the level of one arm" if statistics is ARM_STATISTICS else "a contrast"
                context.sink.error(
                    "E0308", f'analysis "{leaf.analysis}" has no statistic "{leaf.statistic}"', at,
                    help=f"{sentence(did_you_mean(leaf.statistic, statistics))} These are the statistics of {what}"
                    if not get_close_matches(leaf.statistic, statistics, n=1)
                    else f"{did_you_mean(leaf.statistic, statistics)} Statistics of {what}: {', '.join(statistics)}",
                )  # fmt: skip
                good = False
        if good:
            found[name] = parsed
    return found


def rule_predicates(context: Context) -> tuple[tuple[Predicate | None, ...], bool]:
    """Predicates of the verdict rules, None for `otherwise` and an unreadable one; whether all could be read."""
    found: list[Predicate | None] = []
    complete = True
    for index, rule in enumerate(context.spec.verdicts):
        if isinstance(rule, Otherwise):
            found.append(None)
            continue
        path: PathKey = ("verdicts", index, "if")
        parsed = parse(rule.if_, allow_names=True)
        _problems(context, parsed, path)
        for leaf, start, end in parsed.leaf_spans:
            if isinstance(leaf, Name):
                complete &= known(context, "gates", leaf.name, context.part(path, start, end - start))
        if parsed.predicate is None:
            complete = False
        found.append(parsed.predicate)
    return tuple(found), complete and not context.surface.lacks("gates")
