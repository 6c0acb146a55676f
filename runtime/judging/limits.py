"""Calls and tokens a minute, kept to before a provider has to refuse anything.

A call pays for its place in time before it is sent: the place of the next one is later by weight / rate.
Nothing is saved up while nobody calls, so that calls come evenly and never as many at once as a minute
grants: providers measure shorter times than a minute too. The places are such that in no stretch of 60
seconds more than 98% of the limit is used. aiolimiter's bucket starts full and so lets twice the limit
through in its first minute; it takes nothing back, and its rate cannot be changed by what a reply says.

What is granted is the least of what the spec declares and what the headers of replies tell. They also
tell how much is left to this account, which others may use: what is left is spread evenly until it is
there again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, assert_never

from epc.runtime.judging.replies import Answer, Failure, Grant, Resource

MINUTE: Final = 60.0
SHARE: Final = 0.98
"""Of a limit that is used: calls sent a minute apart may arrive a little closer."""
LATE: Final = 0.1
"""Seconds that a call which was woken late may be ahead of its next one."""
NEW: Final = 0.1
"""Weight of the last call in what is expected of the next."""
LOOK_AGAIN: Final = 1.0
"""Seconds after which whoever waits looks again: what a call did not use may have been given back."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What is declared, a minute; None where nothing is."""

    requests: int | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


UNDECLARED: Final = Limits()


@dataclass(frozen=True, kw_only=True)
class Weight:
    """What a call takes of each resource."""

    input_tokens: int
    output_tokens: int

    def of(self, resource: Resource) -> int:
        match resource:
            case "requests":
                return 1
            case "input_tokens":
                return self.input_tokens
            case "output_tokens":
                return self.output_tokens
            case "tokens":
                return self.input_tokens + self.output_tokens
            case _:
                assert_never(resource)


class Meter:
    """The limits of one model, shared by all tasks that call it, one of which waits at a time.

    >>> while (seconds := meter.take(weight)) > 0:
    ...     await asyncio.sleep(seconds)
    ... # send
    ... meter.settle(weight, result)
    """

    def __init__(self, declared: Limits, *, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._declared: dict[Resource, int | None] = {
            "requests": declared.requests, "input_tokens": declared.input_tokens,
            "output_tokens": declared.output_tokens, "tokens": None,
        }  # fmt: skip
        self._paced: dict[Resource, _Paced] = {
            resource: _Paced(limit) for resource, limit in self._declared.items() if limit is not None
        }

    @property
    def limited(self) -> bool:
        """Whether any limit is known."""
        return bool(self._paced)

    def take(self, weight: Weight) -> float:
        """Let a call through: 0 when it may be sent now, and otherwise the seconds to wait before asking again."""
        now = self._now()
        place = max((paced.next for paced in self._paced.values()), default=now)
        if place > now:
            return min(place - now, LOOK_AGAIN)
        place = max(place, now - LATE)
        for resource, paced in self._paced.items():
            paced.take(weight.of(resource), place)
        return 0.0

    def settle(self, weight: Weight, result: Answer | Failure) -> None:
        """Put right what a call took beside what it used, and learn from its headers."""
        now = self._now()
        if isinstance(result, Answer):
            for resource, paced in self._paced.items():
                bound = weight.of(resource)
                paced.put_right(bound, _used(resource, bound, result))
        for resource, grant in result.grants.items():
            if resource not in self._paced:
                self._paced[resource] = _Paced(grant.limit)
            self._paced[resource].learn(grant, declared=self._declared[resource], now=now)


def _used(resource: Resource, bound: int, answer: Answer) -> int:
    """What counts against a limit in the end."""
    match resource:
        case "requests" | "tokens":  # OpenAI counts the longest reply, whatever comes
            return bound
        case "input_tokens":  # Anthropic does not count what is read from the cache
            return answer.input_tokens - answer.cache_read_tokens
        case "output_tokens":
            return answer.output_tokens
        case _:
            assert_never(resource)


class _Paced:
    """One resource."""

    def __init__(self, limit: int) -> None:
        self.next = 0.0
        """When the next call has its place."""
        self._limit = limit
        self._share, self._first = 1.0, True
        """Of what calls may use at most what they do use."""
        self._largest = 0.0
        """Weight of a call; a stretch of a minute may hold one more call than its length says."""
        self._slower = 0.0
        """Seconds per unit that spread what is left ..."""
        self._until = 0.0
        """... until then."""

    def take(self, bound: int, place: float) -> None:
        """What a call may use at most is known; it takes what is expected of it."""
        weight = bound * self._share
        self._largest = max(self._largest, weight)
        self.next = place + weight * (max(self._unit, self._slower) if place < self._until else self._unit)

    def put_right(self, bound: int, used: int) -> None:
        self.next += (used - bound * self._share) * self._unit
        if bound:
            share = used / bound
            self._share = share if self._first else self._share + (share - self._share) * NEW
        self._first = False

    def learn(self, grant: Grant, *, declared: int | None, now: float) -> None:
        self._limit = max(1, grant.limit if declared is None else min(grant.limit, declared))
        self._until = now + grant.reset
        if grant.remaining > 0:
            self._slower = grant.reset / grant.remaining
        else:
            self.next = max(self.next, self._until)

    @property
    def _unit(self) -> float:
        """Seconds that one unit takes."""
        most = SHARE * self._limit
        return MINUTE / max(most - self._largest, most / 2)
