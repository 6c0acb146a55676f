"""What a judge may answer, how it is asked for it, and what each answer counts as.

A score is taken only from a reply that is exactly what was asked for. Nothing is repaired, guessed or
replaced by a number that stands for an error.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, assert_never

from epc.compiler.contract.replies import ends
from epc.compiler.contract.rows import Outcome

Output = Mapping[str, str]
"""Field of the reply -> `bool`, or an integer range such as `0..100`."""

SUCCESSES: Final[tuple[Outcome, ...]] = ("scored", "judge_refused")
"""Outcomes that settle a completion for ever and are reused."""
UNREADABLE: Final[tuple[Outcome, ...]] = ("unparsable", "out_of_range")
"""Outcomes after which the judge is asked again."""


Resource = Literal["requests", "input_tokens", "output_tokens", "tokens"]
"""What a provider grants by the minute; `tokens` are those of input and output together."""


@dataclass(frozen=True, kw_only=True)
class Grant:
    """What the headers of a reply say about one resource."""

    limit: int
    """A minute."""
    remaining: int
    reset: float
    """Seconds until all of it is there again."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A reply that the provider delivered."""

    text: str
    stop: Literal["end", "refusal", "cut"]
    """Whether the judge finished, declined, or was cut off by a limit."""
    input_tokens: int
    """All that were sent, cached ones among them."""
    output_tokens: int
    cache_write_tokens: int = 0
    cache_read_tokens: int = 0
    grants: Mapping[Resource, Grant] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A call that brought no reply."""

    message: str
    kind: Literal["transient", "unreachable", "rejected", "denied"]
    """transient: worth asking again later. unreachable: nobody who
    speaks the protocol was there. rejected: the provider does not
    take this request. denied: it takes none of ours, because of key, model, permission or account."""
    retry_after: float | None = None
    """Seconds that the provider asks to wait."""
    grants: Mapping[Resource, Grant] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Typed:
    """A reply or failure as it is recorded."""

    outcome: Outcome
    fields: dict[str, int | bool | str]
    raw: str
    input_tokens: int = 0
    output_tokens: int = 0
    cache_write_tokens: int = 0
    cache_read_tokens: int = 0


@functools.cache
def bounds(kind: str) -> tuple[int, int] | None:
    """Ends of an integer range such as `0..100`, None for `bool`. Raises ValueError for anything else."""
    found = ends(kind)
    if found is not None and found[0] > found[1]:
        raise ValueError(f"{kind} is neither bool nor a range such as 0..100")
    return found


def schema(output: Output) -> dict[str, Any]:
    """JSON Schema of the reply: every field required, no other allowed.

    Ranges are left out, because the interface refuses `minimum` and `maximum` of integers; `read` checks them.
    """
    return {
        "type": "object",
        "properties": {name: {"type": "integer" if bounds(kind) else "boolean"} for name, kind in output.items()},
        "required": list(output),
        "additionalProperties": False,
    }


def read(result: Answer | Failure, output: Output) -> Typed:
    """The outcome of a call.

    scored: a JSON object with exactly the declared fields, `true` or `false` for a bool and an integer
    within its range for a range. judge_refused: the judge declined. out_of_range: well-formed, but an
    integer lies outside. unparsable: everything else, namely text around the object, an object that was
    cut off or is followed by another, a missing, additional or repeated field, a bool where an integer
    belongs or the reverse, a number with a point or an exponent (85.0 is no integer here), a number in
    quotes. api_error: there was no reply.
    """
    match result:
        case Failure():
            return Typed(outcome="api_error", fields={}, raw=result.message)
        case Answer():
            outcome, fields = _content(result, output)
            return Typed(
                outcome=outcome, fields=fields, raw=result.text, input_tokens=result.input_tokens,
                output_tokens=result.output_tokens, cache_write_tokens=result.cache_write_tokens,
                cache_read_tokens=result.cache_read_tokens,
            )  # fmt: skip
        case _:
            assert_never(result)


def _content(answer: Answer, output: Output) -> tuple[Outcome, dict[str, int | bool | str]]:
    match answer.stop:
        case "refusal":
            return "judge_refused", {}
        case "cut":
            return "unparsable", {}
        case "end":
            pass
        case _:
            assert_never(answer.stop)
    try:
        value = _STRICT.decode(answer.text)
    except (ValueError, RecursionError):
        return "unparsable", {}
    if not isinstance(value, dict) or value.keys() != output.keys():
        return "unparsable", {}
    inside = True
    for name, kind in output.items():
        ends = bounds(kind)
        if type(value[name]) is not (bool if ends is None else int):
            return "unparsable", {}
        inside = inside and (ends is None or ends[0] <= value[name] <= ends[1])
    return ("scored", {name: value[name] for name in output}) if inside else ("out_of_range", {})


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a field appears twice")
    return dict(pairs)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


_STRICT: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse)
