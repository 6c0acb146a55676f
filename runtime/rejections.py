"""What `reject` says once other tests count too: the rule of a multiplicity family, and planned looks at the results.

p stays that of the test alone. A result is the same whichever order it is decided in, and deciding twice changes
nothing, since `reject` is always made from p.

Unknowns. Adjusted p-values only grow with the p-values that they are made from, so a rejection that holds with every
unknown p at 1 stands, one that fails with every unknown p at 0 is excluded, and between them `reject` is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Final

from epc.compiler.contract.decision import AnalysisResult
from epc.compiler.contract.manifest import Design, Family, Interim
from epc.runtime.statistics.estimate import exact
from epc.runtime.statistics.multiplicity import Adjusted, benjamini_hochberg, fixed_sequence, holm

_RULES: Final[Mapping[str, tuple[Callable[[Sequence[Fraction], Fraction], list[Adjusted]], str]]] = {
    "holm": (holm, "Holm's rule (1979)"),
    "benjamini_hochberg": (
        benjamini_hochberg,
        "Benjamini and Hochberg's rule (1995), which bounds the false discovery rate,",
    ),
    "fixed_sequence": (fixed_sequence, "a fixed sequence (Maurer, Hothorn and Lehmacher 1995)"),
}
_SPENDING: Final = {
    "obrien_fleming": "an O'Brien-Fleming spending function",
    "pocock": "a Pocock spending function",
}


def decided(design: Design, results: Mapping[str, AnalysisResult]) -> dict[str, AnalysisResult]:
    """Results by analysis, with `reject` as the design means it. Members of a family that are not there are unknown."""
    found = dict(results)
    if design.interim is not None and design.interim.levels:
        for analysis in design.analyses:
            if analysis.confirmatory and analysis.name in found:
                found[analysis.name] = _at_last_look(found[analysis.name], design.interim)
    for family in design.families:
        found |= _in_family(family, found)
    return found


def adjusted(family: Family, ps: Sequence[Fraction | None]) -> list[tuple[float | None, bool | None]]:
    """Adjusted p and rejection of each member from the raw ps in the family's order; None for what is unknown."""
    rule, _ = _RULES[family.method]
    alpha = exact(family.alpha)
    best, worst = (rule([at if p is None else p for p in ps], alpha) for at in (Fraction(0), Fraction(1)))
    return [
        (float(low.p) if low.p == high.p else None, low.reject if low.reject == high.reject else None)
        for low, high in zip(best, worst, strict=True)
    ]


def _in_family(family: Family, results: Mapping[str, AnalysisResult]) -> dict[str, AnalysisResult]:
    raw = [results[name].statistics.get("p") if name in results else None for name in family.analyses]
    found = adjusted(family, [None if p is None else exact(p) for p in raw])
    _, rule = _RULES[family.method]
    said = f"reject is the adjusted p < {family.alpha:g} by {rule} over {', '.join(family.analyses)} (family {family.name})."
    return {
        name: _deciding(results[name], said, reject, family=family.name, p_adjusted=p)
        for name, (p, reject) in zip(family.analyses, found, strict=True)
        if name in results
    }


def _at_last_look(result: AnalysisResult, interim: Interim) -> AnalysisResult:
    level, p = interim.levels[-1], result.statistics.get("p")
    said = (
        f"reject is p < {level:g}, what {_SPENDING[interim.spending]} leaves of {result.alpha:g} for the last of"
        f" {len(interim.looks)} looks (Lan and DeMets 1983); bounds are not adjusted for the looks."
    )
    return _deciding(result, said, None if p is None else exact(p) < exact(level), level=level)


def _deciding(result: AnalysisResult, said: str, reject: bool | None, **update: str | float | None) -> AnalysisResult:
    alone = f"reject is p < {result.alpha:g}."
    return result.model_copy(
        update={
            "statistics": {**result.statistics, "reject": None if reject is None else float(reject)},
            "definition": result.definition.replace(alone, said), **update,
        }
    )  # fmt: skip
