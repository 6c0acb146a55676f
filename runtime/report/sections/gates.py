"""Gates and the verdict table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, assert_never, get_args

from epc.compiler.contract.decision import AnalysisResult, Decision, GateResult, Observation
from epc.compiler.contract.logic import Operator, Truth
from epc.compiler.contract.manifest import Manifest
from epc.runtime.report import numbers
from epc.runtime.report.anchors import analysis_anchor
from epc.runtime.report.sections import multiplicity
from epc.runtime.report.text import one_line

Tone = Literal["good", "bad", "unknown", "plain"]

_ATOM = re.compile(
    r"(?P<analysis>\w+(?:\.(?:filtered|unfiltered))?)\.(?P<statistic>\w+)(?: *(?P<operator><=|>=|==|!=|<|>) *(?P<constant>\S+))?"
)
_OPERATORS: Mapping[str, Operator] = {operator: operator for operator in get_args(Operator)}


@dataclass(frozen=True, kw_only=True)
class AtomView:
    statistic: str
    anchor: str
    """Of the analysis, empty where the report has none."""
    observed: str
    threshold: str
    n: str
    word: str
    tone: Tone


@dataclass(frozen=True, kw_only=True)
class GateView:
    name: str
    role: str
    text: str
    say: str
    detail: str
    atoms: tuple[AtomView, ...]
    word: str
    tone: Tone
    flip: str


@dataclass(frozen=True, kw_only=True)
class RuleView:
    number: int
    text: str
    label: str
    say: str
    state: str
    matched: bool


def truth_word(gate: GateResult) -> tuple[str, Tone]:
    """The word for a gate's truth in its role, and how it should look."""
    role, truth = gate.role, gate.truth
    if role == "follow_up" and not gate.observations:
        return "NOT READ", "plain"
    if truth is None:
        return "UNKNOWN", "unknown"
    match role:
        case "validity" | "sanity" | "success" | "guardrail":
            return ("PASS", "good") if truth else ("FAIL", "bad")
        case "override" | "kill":
            return ("FIRED", "bad") if truth else ("NOT FIRED", "plain")
        case "switch":
            return ("UNFILTERED", "plain") if truth else ("FILTERED", "plain")
        case "follow_up":
            return ("FIRED", "plain") if truth else ("NOT FIRED", "plain")
        case "prediction":
            return ("HIT", "good") if truth else ("MISS", "plain")
        case "descriptive":
            return ("TRUE", "plain") if truth else ("FALSE", "plain")
        case _:
            assert_never(role)


def gate_view(gate: GateResult, results: Mapping[str, AnalysisResult]) -> GateView:
    """`results` are the decision's analyses by name."""
    word, tone = truth_word(gate)
    if gate.role in ("prediction", "descriptive", "follow_up"):
        flip = "never decides"
    elif gate.would_flip is None:
        flip = "no"
    else:
        flip = f"yes, to {one_line(gate.would_flip)}"
    return GateView(
        name=one_line(gate.name),
        role=gate.role.replace("_", "-"),
        text=one_line(gate.text),
        say=one_line(gate.say),
        detail=_detail(gate, word),
        atoms=tuple(_atom(observation, results) for observation in gate.observations),
        word=word,
        tone=tone,
        flip=flip,
    )


def _detail(gate: GateResult, word: str) -> str:
    """The gate's detail, less what its result and its observations already say."""
    parts = [part for part in one_line(gate.detail).split("; ") if part != word]
    if gate.observations:
        parts = [part for part in parts if " is unknown: " not in part]
    return "; ".join(parts)


def _atom(observation: Observation, results: Mapping[str, AnalysisResult]) -> AtomView:
    words: dict[Truth, tuple[str, Tone]] = {
        True: ("holds", "good"), False: ("does not hold", "plain"), None: ("unknown", "unknown"),
    }  # fmt: skip
    word, tone = words[observation.truth]
    parsed = _ATOM.fullmatch(observation.text.strip())
    statistic, threshold, constant = one_line(observation.text), "is true", 0.0
    operator: Operator | None = None
    result: AnalysisResult | None = None
    if parsed:
        statistic = f"{parsed['analysis']}.{parsed['statistic']}"
        result = results.get(parsed["analysis"])
        if parsed["operator"]:
            threshold = f"{numbers.operator(parsed['operator'])} {parsed['constant'].replace('-', numbers.MINUS)}"
            operator, constant = _OPERATORS[parsed["operator"]], float(parsed["constant"])
    if observation.value is None:
        observed = numbers.unknown(result.unknown_because if result else "not measured")
    else:
        name = parsed["statistic"] if parsed else ""
        observed = _observed(observation.value, name, operator, constant, result)
    return AtomView(
        statistic=statistic,
        anchor="" if result is None else analysis_anchor(result.name),
        observed=observed,
        threshold=threshold,
        n=numbers.unknown("no unit count") if observation.n is None else _units(observation.n, result),
        word=word,
        tone=tone,
    )


def _units(n: int, result: AnalysisResult | None) -> str:
    return numbers.count(n, result.unit if result else "unit")


def _observed(
    value: float, statistic: str, operator: Operator | None, constant: float, result: AnalysisResult | None
) -> str:
    """A statistic with the decimals that its comparison needs, and what else helps to read it."""
    if statistic == "reject":
        told = "" if result is None else multiplicity.p_text(result, phrase=True)
        return ("rejected" if value else "not rejected") + (f" ({told})" if told else "")
    if statistic == "p":
        return numbers.p_value(value)
    scale = result.scale if result else (0.0, 1.0)
    sign = result is not None and result.contrast is not None
    digits = numbers.digits_for(scale)
    if operator is not None:
        digits = numbers.deciding_digits(value, operator, constant, digits)
    text = numbers.fixed(value, digits, sign=sign)
    if result is None or not numbers.is_share(scale):
        return text
    share = numbers.fixed(100 * value, digits - 2, sign=sign)
    return f"{text} ({share} pp)" if sign else f"{text} ({share}%)"


def fired(name: str, gates: Sequence[GateResult]) -> str:
    """A fired override or kill in one line."""
    for gate in gates:
        if gate.name == name:
            said = f": {one_line(gate.say)}" if gate.say else ""
            return f"{one_line(name)} ({gate.role}, {one_line(gate.text)}){said}"
    return one_line(name)


def rule_views(decision: Decision, manifest: Manifest) -> tuple[RuleView, ...]:
    matched = decision.verdict.rule
    says = [rule.say for rule in manifest.design.verdicts]
    views = []
    for index, (text, label) in enumerate(decision.verdict_table):
        if matched is None:
            state = "not applied"
        elif index == matched:
            state = "matched"
        else:
            state = "did not match" if index < matched else "not reached"
        say = one_line(says[index]) if index < len(says) else ""
        views.append(
            RuleView(
                number=index + 1, text=one_line(text), label=one_line(label), say=say, state=state,
                matched=index == matched,
            )
        )  # fmt: skip
    return tuple(views)


def no_rule(decision: Decision) -> str:
    """Why no rule of the table decided, empty where one did."""
    if decision.verdict.rule is not None:
        return ""
    why = one_line(decision.verdict.rule_text) or "what every run must pass comes before the table"
    return f"No rule of the table decided: {why}."
