"""Statements about the experiment, recomputed: what somebody wrote down is a claim, and the plan is the fact.

E1401: a statement is not what the plan comes to
Why: in the source document of issue 147 the cost gate said 20,000 to 22,000 judge calls for $10 to $12; the plan
beneath it comes to 33,600, and a call to several times that price. Nobody multiplied. A number that is typed is
recomputed here each time the spec changes.
Example:
    claims: [{text: "about 2,000 judge calls", quantity: judge_calls, value: 2000}]
Fix:
    claims: [{text: "13 models x 24 prompts x 25 completions", quantity: judge_calls, value: 7800}]

E1402: statements about one quantity cannot all be true
Why: the source document of issue 147 says "3-4 GPU-hours" in its body and "5.0 GPU-hours" in its cost gate, and
both survived four reviews because they stand pages apart.
Example:
    claims:
      - {text: about 3-4 GPU-hours, quantity: gpu_hours, value: [3, 4]}
      - {text: estimated 5.0 GPU-hours, quantity: gpu_hours, value: 5.0}
Fix:
    claims:
      - {text: less than an hour, quantity: gpu_hours, value: "< 1"}
      - {text: compute class small, quantity: gpu_hours, value: "< 5"}

E1403: a statement about something that cannot be computed
Why: a claim that nothing recomputes looks checked and is not. A misspelt quantity would pass for ever, and be quoted
as verified by whoever reads the spec after its author.
Example:
    claims: [{text: 48 prompts, quantity: prompt.heldout, value: 24}]
Fix:
    claims: [{text: 24 prompts, quantity: prompts.heldout, value: 24}]

E1404: a statement of the wrong kind, such as a name where there is a number
Why: it could neither be true nor false, so that it would never be caught.
Example:
    claims: [{text: a few hours, quantity: gpu_hours, value: a few}]
Fix:
    claims: [{text: less than an hour, quantity: gpu_hours, value: "< 1"}]
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final

from epc.compiler.diagnostics import Diagnostics, Label, did_you_mean
from epc.compiler.predicate import number_text
from epc.compiler.quantities import Quantity, quantities
from epc.compiler.resolve import Experiment
from epc.compiler.spec import Claim

_BOUND: Final = re.compile(r"\s*(<=|>=|<|>)\s*(\d[\d,]*(?:\.\d+)?(?:e-?\d+)?)\s*")
_KINDS: Final = 'write a number, [low, high] or a bound such as "< 5"'


@dataclass(frozen=True, kw_only=True)
class Stated:
    """The numbers that a statement admits."""

    low: float
    high: float
    low_open: bool = False
    high_open: bool = False

    def admits(self, value: float) -> bool:
        above = value > self.low or (value == self.low and not self.low_open)
        below = value < self.high or (value == self.high and not self.high_open)
        return above and below

    def meets(self, other: Stated) -> bool:
        """Whether some number is admitted by both."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return low < high or (low == high and self.admits(low) and other.admits(low))


def stated(claim: Claim) -> Stated | None:
    """What a claim admits; None when it states a name, or a range upside down."""
    match claim.value:
        case [low, high]:
            return Stated(low=low, high=high) if low <= high else None
        case str() as text:
            found = _BOUND.fullmatch(text)
            if found is None:
                return None
            bound, strict = float(found[2].replace(",", "")), found[1] in ("<", ">")
            if found[1].startswith("<"):
                return Stated(low=-math.inf, high=bound, high_open=strict)
            return Stated(low=bound, high=math.inf, low_open=strict)
        case int() | float() as value:
            return Stated(low=value, high=value)
        case _:
            return None


def _rounded(claim: Claim, found: Stated, actual: float) -> Stated:
    """A single number stands for what rounds to it where the quantity is no whole number: 0.8 for .75 to .85."""
    if isinstance(claim.value, int | float) and not float(actual).is_integer():
        decimals = len(repr(claim.value).partition(".")[2]) if isinstance(claim.value, float) else 0
        half = 0.5 * 10.0**-decimals
        return Stated(low=claim.value - half, high=claim.value + half)
    return found


def _shown(value: float | str) -> str:
    if isinstance(value, str):
        return value
    if float(value).is_integer() or abs(value) >= 100:
        return f"{value:,.0f}"
    return number_text(float(f"{value:.3g}"))


def _said(claim: Claim) -> str:
    match claim.value:
        case [low, high]:
            return f"{_shown(low)} to {_shown(high)}"
        case str() as text:
            return text
        case int() | float() as value:
            return f"{value:,}"
        case _:
            return ""


def same_name(stated: str, actual: str) -> bool:
    """Whether a name is that of a model, judge or engine, punctuation, case and owner aside."""

    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9]", "", text.lower())

    return plain(stated) in (plain(actual), plain(actual.rpartition("/")[2]))


def check(experiment: Experiment, sink: Diagnostics) -> None:
    claims = experiment.spec.claims
    if not claims or _incomplete(experiment):
        return
    known = quantities(experiment)
    earlier: dict[str, list[tuple[int, Stated]]] = {}
    for index, claim in enumerate(claims):
        at = experiment.at("claims", index, "value")
        if claim.quantity not in known:
            sink.error(
                "E1403", f'nothing computes "{claim.quantity}"', experiment.at("claims", index, "quantity"),
                help=_meant(claim.quantity, known), notes=[f'"{claim.text}"'],
            )  # fmt: skip
            continue
        actual, found = known[claim.quantity], stated(claim)
        if isinstance(actual.value, str):
            if not isinstance(claim.value, str):
                sink.error(
                    "E1404", f"{claim.quantity} is a name: {actual.value}", at, help="write the name that is stated"
                )
            elif not same_name(claim.value, actual.value):
                _wrong(experiment, sink, index, actual)
            continue
        if found is None:
            sink.error("E1404", f"{claim.quantity} is a number, and {_said(claim)} is none", at, help=_KINDS)
            continue
        rivals = [other for other, admitted in earlier.get(claim.quantity, []) if not admitted.meets(found)]
        if rivals:
            said = "; ".join(_said(claims[other]) for other in (*rivals, index))
            sink.error(
                "E1402", f"statements about {claim.quantity} cannot all be true: {said}", at,
                help="keep one; the plan decides which",
                labels=[Label(span=experiment.at("claims", other, "value"), text="another statement") for other in rivals],
                notes=[*(f'"{claims[other].text}"' for other in (*rivals, index)), f"the plan comes to {_shown(actual.value)}"],
            )  # fmt: skip
        earlier.setdefault(claim.quantity, []).append((index, found))
        if not _rounded(claim, found, actual.value).admits(actual.value):
            _wrong(experiment, sink, index, actual, rate=_per_call(claim, known))


def _wrong(experiment: Experiment, sink: Diagnostics, index: int, actual: Quantity, *, rate: str = "") -> None:
    claim = experiment.spec.claims[index]
    sink.error(
        "E1401", f"{claim.quantity} is {_shown(actual.value)}, and not {_said(claim)}", experiment.at("claims", index, "value"),
        help="correct the statement, or change the plan until it is true",
        notes=[f'"{claim.text}"', *([f"computed: {actual.arithmetic}"] if actual.arithmetic else []), *([rate] if rate else [])],
    )  # fmt: skip


def _per_call(claim: Claim, known: dict[str, Quantity]) -> str:
    """What a stated sum of dollars means for one judge call."""
    calls, each = known.get("judge_calls"), known.get("usd_per_call")
    found = stated(claim)
    if claim.quantity != "usd" or calls is None or each is None or found is None or not math.isfinite(found.high):
        return ""
    return f"${found.high / float(calls.value):.4f} a call as stated, ${float(each.value):.4f} as computed"


def _incomplete(experiment: Experiment) -> bool:
    """Whether an error elsewhere would make sums come out wrong: then that error is the finding."""
    spec = experiment.spec
    return experiment.surface.lacks(
        "model", "data", "train", "conditions", "prompts", "generate", "sample", "judges", "metrics"
    ) or any(entry.prompts not in spec.prompts for entry in spec.sample.values())


def _meant(quantity: str, known: dict[str, Quantity]) -> str:
    """A close name, or the quantities of the same entry or kind, or those of the whole: the full list is long."""
    kind, _, entry = quantity.partition(".")
    related = [name for name in known if "." in name and (name.endswith(f".{entry}") or name.startswith(f"{kind}."))]
    close = did_you_mean(quantity, known)
    return (
        close
        if close.startswith("did you mean")
        else did_you_mean(quantity, related or [n for n in known if "." not in n])
    )
