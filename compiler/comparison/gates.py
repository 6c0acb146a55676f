"""Gates and verdict rules that became weaker or stronger, in words.

Whether a predicate holds for more or for fewer results is decided by enumeration: the constants of both texts cut
every statistic's axis into points and gaps, and within a cell neither text changes its truth. What that means follows
from the role: a success gate that holds more often is weaker, a kill gate that fires less often fires later.
Where the analysis of the same name measures something else, or its metric has turned round, thresholds are not
compared at all.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, Literal

from epc.compiler.contract.logic import And, Atom, Name, Not, Or, Predicate, compare, evaluate, leaves
from epc.compiler.predicate import BOOLEAN_STATISTICS, number_text, parse, unparse

Change = Literal["more", "less", "other", "same"]
"""A predicate holds for more results than before, for fewer, for others, or for the same ones."""
MAX_CELLS: Final = 20_000
DECIDING: Final = ("validity", "override", "kill", "success", "guardrail", "sanity", "switch")
"""Roles that a verdict depends on."""

_AROUND: Final = tuple(
    (low, high)
    for low, high in itertools.product(("lower", "ci_low", "delta", "value"), ("delta", "value", "upper", "ci_high"))
    if low != high
)
"""(low, high): a bound below never lies above the estimate or a bound above."""

_WORDS: Final[dict[str, tuple[str, str]]] = {
    "validity": ("is weaker", "is stronger"),
    "success": ("is weaker", "is stronger"),
    "guardrail": ("is weaker", "is stronger"),
    "sanity": ("is weaker", "is stronger"),
    "kill": ("fires earlier", "fires later"),
    "override": ("fires earlier", "fires later"),
    "switch": ("switches more often", "switches less often"),
    "follow_up": ("is asked for more often", "is asked for less often"),
    "prediction": ("predicts less", "predicts more"),
    "descriptive": ("holds more often", "holds less often"),
}
"""Role -> words for a predicate that holds more often, less often."""


def change(before: Predicate, after: Predicate) -> Change:
    """How the set of results for which a predicate holds has changed. `other` also where there are too many cells."""
    axes = _axes((before, after))
    cells = 1
    for values in axes.values():
        cells *= len(values)
    if cells > MAX_CELLS:
        return "other"
    gained = lost = False
    for point in itertools.product(*axes.values()):
        known = dict(zip(axes, point, strict=True))
        if not _possible(known):
            continue

        def truth(leaf: Atom | Name, known: Mapping[Any, float] = known) -> bool | None:
            if isinstance(leaf, Name):
                return bool(known[leaf.name])
            return compare(known[leaf.analysis, leaf.statistic], leaf.operator, leaf.constant)

        old, new = evaluate(before, truth), evaluate(after, truth)
        gained |= bool(new and not old)
        lost |= bool(old and not new)
    return "other" if gained and lost else "more" if gained else "less" if lost else "same"


def _axes(predicates: tuple[Predicate, ...]) -> dict[Any, list[float]]:
    """Statistic or gate -> one value of every cell of its axis. Estimate and bounds of an analysis share their cuts."""
    atoms = list(itertools.chain.from_iterable(map(leaves, predicates)))
    cuts: dict[Any, set[float]] = {}
    for leaf in atoms:
        if isinstance(leaf, Atom) and leaf.statistic not in BOOLEAN_STATISTICS:
            cuts.setdefault(_scale(leaf.analysis, leaf.statistic), set()).add(leaf.constant)
    axes: dict[Any, list[float]] = {}
    for leaf in atoms:
        if isinstance(leaf, Name):
            axes[leaf.name] = [0.0, 1.0]
        elif leaf.statistic in BOOLEAN_STATISTICS:
            axes[leaf.analysis, leaf.statistic] = [0.0, 1.0]
        else:
            axes[leaf.analysis, leaf.statistic] = _cells(sorted(cuts[_scale(leaf.analysis, leaf.statistic)]))
    return axes


def _scale(analysis: str, statistic: str) -> tuple[str, str]:
    return analysis, "p" if statistic == "p" else "estimate"


def _possible(known: Mapping[Any, float]) -> bool:
    """Whether the bounds of every analysis lie around its estimate."""
    return all(
        known[analysis, low] <= known[analysis, high]
        for analysis in {key[0] for key in known if isinstance(key, tuple)}
        for low, high in _AROUND
        if (analysis, low) in known and (analysis, high) in known
    )


def _cells(cuts: list[float]) -> list[float]:
    """Every cut, a value between each two, and one beyond each end."""
    between = [(low + high) / 2 for low, high in itertools.pairwise(cuts)]
    reach = 1 + max(abs(cut) for cut in cuts)
    return [cuts[0] - reach, *cuts, *between, cuts[-1] + reach]


def gate_change(
    name: str, before: Mapping[str, Any], after: Mapping[str, Any], other_quantities: Collection[str] = ()
) -> Iterator[tuple[str, str, bool]]:
    """(field, sentence, whether a verdict depends on it) of a gate that both have.

    `other_quantities` are analyses of the same name that measure something else.
    """
    roles = str(before.get("role")), str(after.get("role"))
    decides = any(role in DECIDING for role in roles)
    if roles[0] != roles[1]:
        yield "role", _new_role(name, *roles), decides
    texts = before.get("predicate"), after.get("predicate")
    if texts[0] != texts[1]:
        yield "predicate", _new_predicate(name, roles[1], *texts, other_quantities), decides
    for key, what in (("analysis", "the analysis that it governs"), ("on", "the verdicts after which it is read")):
        if before.get(key) != after.get(key):
            yield key, f"{name}: {what} changed from {_listed(before.get(key))} to {_listed(after.get(key))}", decides


def _listed(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _new_role(name: str, before: str, after: str) -> str:
    article = "an" if after[:1] in "aeiou" else "a"
    words = f"{name} became {article} {after.replace('_', '-')}, and was {before.replace('_', '-')}"
    if before in DECIDING and after not in DECIDING:
        return f"{words}: it no longer decides"
    return f"{words}: it decides now" if before not in DECIDING and after in DECIDING else words


def _new_predicate(name: str, role: str, before: object, after: object, other_quantities: Collection[str]) -> str:
    old, new = (parse(text, allow_names=False).predicate if isinstance(text, str) else None for text in (before, after))
    if old is None or new is None:
        return f"{name} is another: {before} became {after}"
    read = {leaf.analysis for leaf in (*leaves(old), *leaves(new)) if isinstance(leaf, Atom)}
    if read & set(other_quantities):
        return f"{name} reads another quantity: {_became(old, new)}"
    how = change(old, new)
    return f"{name} {_said(role, how)}: {_became(old, new)}"


def _said(role: str, how: Change) -> str:
    more, less = _WORDS.get(role, ("holds more often", "holds less often"))
    match how:
        case "more":
            return more
        case "less":
            return less
        case "same":
            return "says the same in other words"
        case "other":
            return "decides otherwise, neither weaker nor stronger"


def _became(before: Predicate, after: Predicate) -> str:
    """`headline.delta < 5 became < 3` where one comparison changed and nothing else; both texts otherwise."""
    old, new = list(leaves(before)), list(leaves(after))
    if len(old) == len(new):
        changed = [(one, other) for one, other in zip(old, new, strict=True) if one != other]
        if len(changed) == 1:
            one, other = changed[0]
            if isinstance(one, Atom) and isinstance(other, Atom) and _about(one) == _about(other):
                return f"{unparse(one)} became {other.operator} {number_text(other.constant)}"
    return f"`{unparse(before)}` became `{unparse(after)}`"


def _about(atom: Atom) -> tuple[str, str]:
    return atom.analysis, atom.statistic


def alpha_change(name: str, gate: Mapping[str, Any], analysis: str, before: float, after: float) -> str | None:
    """The sentence for a gate on a test that has another alpha; None where the gate does not depend on it.

    A larger alpha rejects more often and raises `lower`, the bound at level 1 - alpha, and drops `upper`.
    """
    text = gate.get("predicate")
    predicate = parse(text, allow_names=False).predicate if isinstance(text, str) else None
    if predicate is None:
        return None
    signs = {sign for sign in _alpha_signs(predicate, analysis, 1) if sign}
    if not signs:
        return None
    more = after > before
    how: Change = "other" if len(signs) > 1 else "more" if (signs == {1}) == more else "less"
    return f"{name} {_said(str(gate.get('role')), how)}: alpha {number_text(before)} -> {number_text(after)}"


def _alpha_signs(predicate: Predicate, analysis: str, polarity: int) -> Iterator[int]:
    """For every comparison with the analysis: 1 when a larger alpha makes the predicate hold more often, -1 less."""
    match predicate:
        case Atom():
            if predicate.analysis == analysis:
                yield polarity * _rises(predicate)
        case Not(operand=operand):
            yield from _alpha_signs(operand, analysis, -polarity)
        case And(operands=operands) | Or(operands=operands):
            for operand in operands:
                yield from _alpha_signs(operand, analysis, polarity)
        case Name():
            pass


def _rises(atom: Atom) -> int:
    upwards = {">": 1, ">=": 1, "<": -1, "<=": -1}.get(atom.operator, 0)
    match atom.statistic:
        case "reject":
            return int(bool(compare(1, atom.operator, atom.constant))) - int(
                bool(compare(0, atom.operator, atom.constant))
            )
        case "lower":
            return upwards
        case "upper":
            return -upwards
        case _:
            return 0


def rule_changes(before: list[Any], after: list[Any]) -> Iterator[str]:
    """Sentences on two verdict tables: rules that came, went, moved, or ask for something else."""
    old, new = _labelled(before), _labelled(after)
    for label in [*new, *(label for label in old if label not in new)]:
        if label not in old:
            yield f"a rule was added: {_shown(new[label], label[0])}"
        elif label not in new:
            yield f"a rule was removed: {_shown(old[label], label[0])}"
        elif old[label] != new[label]:
            yield _new_rule(label[0], old[label], new[label])
    kept = [label for label in old if label in new]
    order = [label for label in new if label in old]
    if kept != order:
        yield f"the rules are in another order: {', '.join(label for label, _ in order)}; the first that matches is the verdict"


def _labelled(rules: list[Any]) -> dict[tuple[str, int], str]:
    """(label, how many of that label came before) -> the condition of the rule."""
    found: dict[tuple[str, int], str] = {}
    for rule in rules:
        label = str(rule.get("then"))
        number = sum(1 for known, _ in found if known == label)
        found[label, number] = f"{rule.get('if')}"
    return found


def _shown(text: str, label: str) -> str:
    return f"otherwise {label}" if text == "otherwise" else f"if {text}, then {label}"


def _new_rule(label: str, before: str, after: str) -> str:
    old, new = (None if text == "otherwise" else parse(text, allow_names=True).predicate for text in (before, after))
    how: Change = "other" if old is None or new is None else change(old, new)
    words = {
        "more": f"{label} is reached more easily", "less": f"{label} is harder to reach",
        "same": f"the rule for {label} says the same in other words", "other": f"{label} is reached otherwise",
    }  # fmt: skip
    return f"{words[how]}: `{before}` became `{after}`"
