"""Calls kept within a provider's limits: against servers that count in every way that providers do."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from epc.compiler.contract.draws import draw
from epc.runtime.judging.asking import Patience
from epc.runtime.judging.limits import Limits, Meter, Weight
from epc.runtime.judging.providers import messages, openai
from epc.runtime.judging.replies import Answer, Failure, Grant, Resource

LIMIT = 300
"""A minute."""


class FixedWindow:
    """So much in every whole minute of the clock."""

    def __init__(self, limit: int) -> None:
        self.limit, self.window, self.used = limit, -1, 0

    def take(self, now: float, weight: int) -> bool:
        window = int(now // 60)
        if window != self.window:
            self.window, self.used = window, 0
        if self.used + weight > self.limit:
            return False
        self.used += weight
        return True

    def grant(self, now: float) -> Grant:
        return Grant(limit=self.limit, remaining=self.limit - self.used, reset=60 - now % 60)


class SlidingWindow:
    """So much in any 60 seconds."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.taken: deque[tuple[float, int]] = deque()

    def take(self, now: float, weight: int) -> bool:
        while self.taken and self.taken[0][0] <= now - 60:
            self.taken.popleft()
        if sum(weight for _, weight in self.taken) + weight > self.limit:
            return False
        self.taken.append((now, weight))
        return True

    def grant(self, now: float) -> Grant:
        return Grant(limit=self.limit, remaining=self.limit - sum(weight for _, weight in self.taken), reset=60.0)


class Bucket:
    """Fills all the time; holds what comes in in so many seconds."""

    def __init__(self, limit: int, seconds: float = 60.0) -> None:
        self.limit, self.size = limit, limit * seconds / 60
        self.level, self.filled = self.size, 0.0

    def take(self, now: float, weight: int) -> bool:
        self.level = min(self.size, self.level + (now - self.filled) * self.limit / 60)
        self.filled = now
        if self.level < weight:
            return False
        self.level -= weight
        return True

    def grant(self, now: float) -> Grant:
        return Grant(limit=self.limit, remaining=int(self.level), reset=(self.size - self.level) * 60 / self.limit)


SERVERS: dict[str, Callable[[int], Any]] = {
    "a fixed minute": FixedWindow,
    "any sixty seconds": SlidingWindow,
    "a bucket of a minute": Bucket,
    "a bucket of two seconds": lambda limit: Bucket(limit, 2.0),
}


@dataclass(kw_only=True)
class Run:
    """Calls on a clock that jumps from event to event."""

    meter_of: Callable[[Callable[[], float]], Meter]
    server: Any
    resource: Resource
    told: bool
    """Whether replies carry headers."""
    others: float = 0.0
    """Calls a minute of somebody else on the same account."""
    seconds: float = 300.0
    workers: int = 16
    now: float = 0.0
    accepted: Counter[int] = field(default_factory=Counter)
    refused: int = 0

    def run(self) -> None:
        meter, numbers = self.meter_of(lambda: self.now), itertools.count()
        events: list[tuple[float, int, str, Any]] = []

        def later(seconds: float, kind: str, what: Any = None) -> None:
            heapq.heappush(events, (self.now + seconds, next(numbers), kind, what))

        waiting: deque[tuple[Weight, int]] = deque()

        def call() -> None:
            sent = 200 + draw("sent", next(numbers)) % 400
            waiting.append((Weight(input_tokens=2 * sent, output_tokens=64), sent))
            if len(waiting) == 1:
                later(0.0, "turn")

        call()
        if self.others:
            later(0.0, "others")
        alone = True
        while events and (event := heapq.heappop(events))[0] < self.seconds:
            self.now, _, kind, what = event
            match kind:
                case "others":
                    self.server.take(self.now, 1)
                    later(60 / self.others, "others")
                case "turn":
                    wait = meter.take(waiting[0][0])
                    if wait == 0:
                        later(draw("way", self.now.hex()) % 50 / 1000, "arrives", waiting.popleft())
                    if waiting:
                        later(wait, "turn")
                case "arrives":
                    reserved, sent = what
                    taken = self.server.take(self.now, sent if self.resource == "input_tokens" else 1)
                    grants = {self.resource: self.server.grant(self.now)} if self.told else {}
                    result: Answer | Failure = (
                        Answer(text="", stop="end", input_tokens=sent, output_tokens=20, grants=grants)
                        if taken
                        else Failure(message="429", kind="transient", grants=grants)
                    )
                    self.refused += not taken
                    self.accepted[int(self.now // 60)] += taken * (sent if self.resource == "input_tokens" else 1)
                    later(0.3 + draw("latency", self.now.hex()) % 2000 / 1000, "ends", (reserved, result))
                case _:
                    reserved, result = what
                    meter.settle(reserved, result)
                    for _ in range(self.workers if alone else 1):
                        call()
                    alone = False


HOW = [(server, told) for server in SERVERS for told in (False, True) if not (told and server == "any sixty seconds")]
"""Which server, and whether its headers tell: who counts any sixty seconds has no point in time to tell."""


@pytest.mark.parametrize(("server", "told"), HOW)
def test_calls_a_minute_are_never_exceeded_and_nearly_used(server: str, told: bool) -> None:
    declared = Limits() if told else Limits(requests=LIMIT)
    run = Run(
        meter_of=lambda now: Meter(declared, now=now), server=SERVERS[server](LIMIT), resource="requests", told=told
    )
    run.run()
    assert run.refused == 0
    assert min(run.accepted[minute] for minute in range(1, 5)) >= 0.9 * LIMIT


@pytest.mark.parametrize(("server", "told"), [how for how in HOW if how[0] != "a bucket of two seconds"])
def test_tokens_a_minute_are_never_exceeded_and_nearly_used(server: str, told: bool) -> None:
    limit = 60_000
    declared = Limits() if told else Limits(input_tokens=limit)
    run = Run(
        meter_of=lambda now: Meter(declared, now=now), server=SERVERS[server](limit), resource="input_tokens", told=told,
    )  # fmt: skip
    run.run()
    assert run.refused == 0
    assert min(run.accepted[minute] for minute in range(1, 5)) >= 0.85 * limit


@pytest.mark.parametrize("server", ["a fixed minute", "a bucket of a minute"])
def test_what_others_use_is_left_to_them(server: str) -> None:
    run = Run(
        meter_of=lambda now: Meter(Limits(requests=LIMIT), now=now), server=SERVERS[server](LIMIT), resource="requests",
        told=True, others=0.6 * LIMIT,
    )  # fmt: skip
    run.run()
    assert run.refused <= 0.01 * sum(run.accepted.values())
    assert sum(run.accepted.values()) >= 0.3 * LIMIT * 5


def test_what_is_declared_is_tightened_and_never_widened() -> None:
    clock = [0.0]
    meter = Meter(Limits(requests=60), now=lambda: clock[0])
    weight = Weight(input_tokens=1, output_tokens=1)

    def rate_after(limit: int) -> float:
        reply = Answer(
            text="", stop="end", input_tokens=1, output_tokens=1,
            grants={"requests": Grant(limit=limit, remaining=limit, reset=1.0)},
        )  # fmt: skip
        meter.settle(weight, reply)
        clock[0] += 1000
        assert meter.take(weight) == 0
        calls = 0
        for _ in range(6000):
            clock[0] += 0.01
            calls += meter.take(weight) == 0
        return calls

    assert rate_after(600) == pytest.approx(60, rel=0.05)
    assert rate_after(30) == pytest.approx(30, rel=0.1)
    assert rate_after(50) == pytest.approx(50, rel=0.05)


def test_nothing_waits_where_no_limit_is_known() -> None:
    meter = Meter(Limits())
    assert {meter.take(Weight(input_tokens=10**6, output_tokens=10**6)) for _ in range(100)} == {0.0}
    assert not meter.limited


HEADERS: dict[str, tuple[Callable[[dict[str, str]], dict[Resource, Grant]], dict[str, str], dict[Resource, Grant]]] = {
    "Anthropic": (
        messages.grants,
        {
            "date": "Sat, 21 Nov 2026 12:00:00 GMT",
            "anthropic-ratelimit-requests-limit": "4000", "anthropic-ratelimit-requests-remaining": "3990",
            "anthropic-ratelimit-requests-reset": "2026-11-21T12:00:02Z",
            "anthropic-ratelimit-input-tokens-limit": "400000", "anthropic-ratelimit-input-tokens-remaining": "0",
            "anthropic-ratelimit-input-tokens-reset": "2026-11-21T12:01:00Z",
        },
        {
            "requests": Grant(limit=4000, remaining=3990, reset=3.0),
            "input_tokens": Grant(limit=400_000, remaining=0, reset=61.0),
        },
    ),
    "Anthropic, nothing told": (messages.grants, {"date": "Sat, 21 Nov 2026 12:00:00 GMT"}, {}),
    "Anthropic, nonsense": (
        messages.grants,
        {
            "anthropic-ratelimit-requests-limit": "many", "anthropic-ratelimit-input-tokens-limit": "5",
            "anthropic-ratelimit-output-tokens-limit": "5", "anthropic-ratelimit-output-tokens-remaining": "5",
            "anthropic-ratelimit-output-tokens-reset": "soon",
        },
        {},
    ),
    "OpenAI": (
        openai.grants,
        {
            "x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59", "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-limit-tokens": "150000", "x-ratelimit-remaining-tokens": "149984",
            "x-ratelimit-reset-tokens": "6m0.5s",
        },
        {
            "requests": Grant(limit=60, remaining=59, reset=1.0),
            "tokens": Grant(limit=150_000, remaining=149_984, reset=360.5),
        },
    ),
    "OpenAI, milliseconds and a bare number": (
        openai.grants,
        {
            "x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-reset-requests": "17ms", "x-ratelimit-limit-tokens": "9", "x-ratelimit-remaining-tokens": "8",
            "x-ratelimit-reset-tokens": "2",
        },
        {"requests": Grant(limit=60, remaining=59, reset=0.017), "tokens": Grant(limit=9, remaining=8, reset=2.0)},
    ),
    "OpenAI, nonsense": (openai.grants, {"x-ratelimit-limit-requests": "60"}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_what_the_headers_of_a_reply_tell(name: str) -> None:
    read, headers, found = HEADERS[name]
    assert read(headers) == found


@pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("declared", [True, False])
def test_a_server_with_limits_never_has_to_refuse(declared: bool, bundle: Any, serve: Any) -> None:
    bundle.texts["base"]["bread"] = [f"text {number}" for number in range(60)]
    bundle.compile()
    limits = {"requests": 3000, "output_tokens": 100_000}
    server = serve(limits=limits)
    rows = bundle.ask(server, patience=Patience(), limits=Limits(**limits) if declared else Limits())
    assert server.limited == 0
    assert Counter(row.outcome for row in rows) == {"scored": 66}
    assert server.total == 66
