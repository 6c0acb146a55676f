"""What a scripted judge answers: automatically by the schema of the reply, or by the rules of a file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.draws import draw
from epc.runtime.judging.replies import Output, bounds
from epc.runtime.judging.scripted.calls import Request, fields, schema, text
from epc.runtime.judging.scripted.faults import FAULTS, by_rate
from epc.runtime.judging.scripted.server import Answer, Injected, Rules, ScriptedServer

SCALE = (0, 100)
"""Range of an integer that nothing is known about."""
NO_FIELDS = "A scripted reply: the request asks for no fields."
_RANGE = r"^(bool|-?\d{1,18}\.\.-?\d{1,18})$"
Value = bool | int | float | str
Ranges = Mapping[str, tuple[int, int]]
Pick = Callable[..., int]
"""(size, *path of a field) -> a number below the size."""


def automatic(outputs: Iterable[Output] = (), *, seed: int = 0) -> Rules:
    """Rules that answer any schema with values drawn from (seed, message, field), so always the same.

    A schema names no ranges, so an integer lies in the range that its field has in the one of `outputs` with
    just the fields asked for, where there is none in SCALE. A request without a schema gets a sentence.
    """
    known = {frozenset(output): _ranges(output) for output in outputs}

    def answer(request: Request) -> Answer:
        return _reply(request, text(request), seed, known.get(frozenset(fields(request)), {}), {})

    return answer


def _ranges(output: Output) -> Ranges:
    return {name: ends for name, kind in output.items() if (ends := bounds(kind)) is not None}


def _reply(request: Request, said: str, seed: int, ranges: Ranges, given: Mapping[str, Value]) -> Answer:
    """What the schema asks for, each field as given or drawn."""

    message = sha256_text(said)

    def pick(size: int, *path: str) -> int:
        return draw("reply", seed, message, *path) % size

    wanted = schema(request)
    if wanted is None:
        return {name: _given(kind, pick, name) for name, kind in given.items()} or NO_FIELDS
    value = _value(wanted, pick, ranges)
    if not isinstance(value, dict):
        return json.dumps(value)
    return value | {name: _given(kind, pick, name) for name, kind in given.items() if name in value}


def _given(value: Value, pick: Pick, name: str) -> Value:
    """A value as it is, or drawn where it is a range."""
    if not isinstance(value, str) or not re.fullmatch(_RANGE, value):
        return value
    ends = bounds(value)
    return bool(pick(2, name)) if ends is None else ends[0] + pick(ends[1] - ends[0] + 1, name)


def _value(kind: Mapping[str, Any], pick: Pick, ranges: Ranges, *path: str) -> Any:
    """A value of a JSON Schema; `pick` draws below a number for a path of names."""
    if "const" in kind:
        return kind["const"]
    if kind.get("enum"):
        return kind["enum"][pick(len(kind["enum"]), *path)]
    for several in ("anyOf", "oneOf"):
        if kind.get(several):
            return _value(kind[several][0], pick, ranges, *path)
    match kind.get("type"):
        case "object":
            below = kind.get("properties", {})
            return {name: _value(inner, pick, ranges, *path, name) for name, inner in below.items()}
        case "array":
            return [_value(kind.get("items", {}), pick, ranges, *path, "0")]
        case "integer" | "number":
            low, high = (ranges.get(path[0]) if len(path) == 1 else None) or SCALE
            low, high = int(kind.get("minimum", low)), int(kind.get("maximum", high))
            return low + pick(high - low + 1, *path)
        case "boolean":
            return bool(pick(2, *path))
        case "null":
            return None
        case _:
            return "scripted"


# ---------------------------------------------------------------------- a file of rules

Text = Annotated[str, Field(min_length=1)]
Fields = Annotated[dict[str, Value], Field(min_length=1)]


def _known_fault(name: str) -> str:
    if name not in FAULTS:
        raise ValueError(f"no fault is called {name}")
    return name


FaultName = Annotated[str, AfterValidator(_known_fault)]


def _check(given: Mapping[str, Value]) -> None:
    """Raises ValueError for a range whose ends are the wrong way round."""
    for value in given.values():
        if isinstance(value, str) and re.fullmatch(_RANGE, value):
            bounds(value)


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class When(_Part):
    """Which requests a rule answers: those that fit everything given here."""

    contains: Text | None = None
    """Text that the message holds."""
    regex: Text | None = None
    """Pattern (Python's) that is found in the message."""
    asks: Annotated[list[str], Field(min_length=1)] | None = None
    """Fields that the reply must have."""
    model: Text | None = None
    """Model that is asked."""

    @field_validator("regex")
    @classmethod
    def _readable(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"the pattern cannot be read: {error}") from None
        return pattern

    @model_validator(mode="after")
    def _something(self) -> When:
        if not self.model_fields_set:
            raise ValueError("give at least one of contains, regex, asks, model")
        return self

    def matcher(self) -> Callable[[Request, str], bool]:
        pattern = None if self.regex is None else re.compile(self.regex)

        def matches(request: Request, said: str) -> bool:
            return (
                (self.contains is None or self.contains in said)
                and (pattern is None or pattern.search(said) is not None)
                and (self.model is None or request.get("model") == self.model)
                and (self.asks is None or set(self.asks) <= set(fields(request)))
            )

        return matches


class Rule(_Part):
    """What is answered to which requests: one of reply, text and fault."""

    when: When
    reply: Fields | None = None
    """Field -> value, or a range such as 0..10 of which one is drawn; a field that is asked for and not named is drawn."""
    text: str | None = None
    """The reply as it is, JSON or not."""
    fault: FaultName | None = None
    """What these requests meet, such as refusal or 529."""

    @field_validator("reply")
    @classmethod
    def _ordered(cls, given: dict[str, Value] | None) -> dict[str, Value] | None:
        _check(given or {})
        return given

    @model_validator(mode="after")
    def _one(self) -> Rule:
        if [self.reply, self.text, self.fault].count(None) != 2:
            raise ValueError("give one of reply, text and fault")
        return self


class RateLimits(_Part):
    """At most so much a minute; what exceeds it is answered 429."""

    requests: Annotated[int, Field(ge=1)] | None = None
    input_tokens: Annotated[int, Field(ge=1)] | None = None
    output_tokens: Annotated[int, Field(ge=1)] | None = None


class RulesFile(_Part):
    """A file of rules, as `epc judge serve --scripted FILE` reads it."""

    seed: int = 0
    """Of the values and faults that are drawn; the same requests get the same ones."""
    rules: list[Rule] = Field(default_factory=list)
    """The first that fits a request answers it."""
    otherwise: Literal["automatic"] | Fields = "automatic"
    """What answers where no rule does: automatic draws every field, see `ranges`."""
    ranges: dict[str, Annotated[str, Field(pattern=_RANGE)]] = Field(default_factory=dict)
    """Field -> range such as 1..5 for what is drawn; without it an integer lies in 0..100."""
    faults: dict[FaultName, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)
    """Fault -> share of the requests that meet it."""
    limits: RateLimits = RateLimits()
    latency_ms: Annotated[float, Field(ge=0, le=600_000)] = 0
    """Before every reply of a judge."""
    batch_seconds: Annotated[float, Field(ge=0, le=86_400)] = 5
    """Until a batch has ended."""

    @field_validator("ranges", "otherwise")
    @classmethod
    def _ordered(cls, given: Any) -> Any:
        _check(given if isinstance(given, dict) else {})
        return given

    @field_validator("faults")
    @classmethod
    def _drawable(cls, faults: dict[str, float]) -> dict[str, float]:
        by_rate(faults)
        return faults

    def answers(self) -> Rules:
        """The rules as a server takes them."""
        chosen = [(rule.when.matcher(), rule) for rule in self.rules]
        ranges = _ranges(self.ranges)
        otherwise = {} if self.otherwise == "automatic" else self.otherwise

        def answer(request: Request) -> Answer:
            said = text(request)
            rule = next((rule for matches, rule in chosen if matches(request, said)), None)
            if rule is not None and rule.text is not None:
                return rule.text
            given = otherwise if rule is None else rule.reply or {}
            reply = _reply(request, said, self.seed, ranges, given)
            if rule is None or rule.fault is None:
                return reply
            return Injected(fault=rule.fault, text=reply if isinstance(reply, str) else json.dumps(reply))

        return answer

    def server(self, port: int) -> ScriptedServer:
        """A server that obeys the file. Raises OSError when the port is taken."""
        limits = {name: limit for name, limit in self.limits.model_dump().items() if limit is not None}
        return ScriptedServer(
            self.answers(), port=port, faults=self.faults, seed=self.seed, delay=self.latency_ms / 1000,
            batch_seconds=self.batch_seconds, limits=limits,
        )  # fmt: skip
