"""What a test has to pass beyond its own alpha: the rule of its family, and looks at the results that were planned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from epc.compiler.contract.decision import AnalysisResult, Decision
from epc.compiler.contract.manifest import Design, Family
from epc.runtime.report import numbers
from epc.runtime.report.anchors import analysis_anchor
from epc.runtime.report.text import one_line

_RULES: Final[Mapping[str, str]] = {
    "holm": "Holm's rule: the chance of any false rejection is at most α",
    "benjamini_hochberg": "Benjamini and Hochberg's rule: the expected share of false rejections among all is at most α",
    "fixed_sequence": "fixed sequence: each is tested at α as long as all before it rejected",
}
_SPENDING: Final[Mapping[str, str]] = {"obrien_fleming": "O'Brien and Fleming", "pocock": "Pocock"}


@dataclass(frozen=True, kw_only=True)
class MemberView:
    name: str
    anchor: str
    p: str
    adjusted: str
    outcome: str


@dataclass(frozen=True, kw_only=True)
class FamilyView:
    name: str
    rule: str
    alpha: str
    members: tuple[MemberView, ...]
    """In the order of the registration, which a fixed sequence depends on."""


@dataclass(frozen=True, kw_only=True)
class LooksView:
    sentence: str
    looks: tuple[tuple[str, str, str], ...]
    """(number, share of the units, level of p)"""


def p_text(analysis: AnalysisResult, *, phrase: bool = False) -> str:
    """`.0249`, in a family `.0249, adjusted .0498`; with `phrase`, `p = .0249`. Empty where there is no p.

    What decides is printed with the decimals that the decision needs.
    """
    p, write = analysis.statistics.get("p"), numbers.p_phrase if phrase else numbers.p_value
    if p is None:
        return ""
    if analysis.family is None:
        return write(p, analysis.level or analysis.alpha)
    return f"{write(p, analysis.alpha)}, adjusted {_adjusted(analysis)}"


def _adjusted(analysis: AnalysisResult) -> str:
    if analysis.p_adjusted is None:
        return numbers.unknown("it depends on a p that is unknown")
    return numbers.p_value(analysis.p_adjusted, analysis.alpha)


def family_views(decision: Decision, design: Design) -> tuple[FamilyView, ...]:
    """Every family of which the decision holds a member."""
    results = {analysis.name: analysis for analysis in decision.analyses}
    views = []
    for family in design.families:
        members = tuple(_member(results[name], family) for name in family.analyses if name in results)
        if members:
            views.append(
                FamilyView(
                    name=one_line(family.name), rule=_RULES[family.method], alpha=numbers.compact(family.alpha), members=members
                )
            )  # fmt: skip
    return tuple(views)


def _member(result: AnalysisResult, family: Family) -> MemberView:
    p, reject = result.statistics.get("p"), result.statistics.get("reject")
    outcomes = {True: "rejected", False: "not rejected", None: "unknown whether rejected"}
    return MemberView(
        name=one_line(result.name),
        anchor=analysis_anchor(result.name),
        p=numbers.unknown(result.unknown_because) if p is None else numbers.p_value(p, family.alpha),
        adjusted=_adjusted(result),
        outcome=outcomes[None if reject is None else bool(reject)],
    )


def looks_view(design: Design) -> LooksView | None:
    """The looks that were registered; None where none was."""
    interim = design.interim
    if interim is None:
        return None
    n = len(interim.looks)
    return LooksView(
        sentence=(
            f"{numbers.count(n, 'look')} at the confirmatory test {'was' if n == 1 else 'were'} registered, with α spent after "
            f"{_SPENDING[interim.spending]} (Lan and DeMets, 1983). The last is this decision; the journal names those that were taken."
        ),
        looks=tuple(
            (f"{number} of {n}", f"{numbers.compact(100 * share)}% of the units", numbers.compact(level))
            for number, (share, level) in enumerate(zip(interim.looks, interim.levels, strict=True), start=1)
        ),
    )
