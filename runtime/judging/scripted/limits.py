"""Rate limits as the real interface has them: token buckets that fill all the time, and headers that tell of them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

Kind = Literal["requests", "input_tokens", "output_tokens"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MINUTE = 60.0


@dataclass(kw_only=True, slots=True)
class _Bucket:
    size: int
    level: float
    filled: float

    def fill(self, now: float) -> None:
        self.level = min(self.size, self.level + (now - self.filled) * self.size / MINUTE)
        self.filled = now

    def seconds_until(self, wanted: float) -> float:
        return max(0.0, min(wanted, self.size) - self.level) * MINUTE / self.size


class Limits:
    """At most so much a minute: requests and input tokens are taken when a request comes, output tokens after it.

    Raises ValueError for a limit that is unknown or below 1.
    """

    def __init__(self, limits: Mapping[str, int]) -> None:
        for name, limit in limits.items():
            if name not in KINDS or limit < 1:
                raise ValueError(f"no such limit: {name} {limit}; {', '.join(KINDS)} take a number from 1 on")
        now = time.monotonic()
        self._buckets = {
            name: _Bucket(size=limits[name], level=limits[name], filled=now) for name in KINDS if name in limits
        }

    def take(self, input_tokens: int) -> float | None:
        """Count a request in; seconds until it could be, where it exceeds a limit."""
        now = time.monotonic()
        wanted: Mapping[Kind, float] = {"requests": 1, "input_tokens": input_tokens, "output_tokens": 1}
        wait = 0.0
        for name, bucket in self._buckets.items():
            bucket.fill(now)
            wait = max(wait, bucket.seconds_until(wanted[name]))
        if wait > 0:
            return wait
        self._spend("requests", 1)
        self._spend("input_tokens", input_tokens)
        return None

    def came(self, output_tokens: int) -> None:
        """Count the tokens of a reply."""
        self._spend("output_tokens", output_tokens)

    def _spend(self, name: Kind, amount: int) -> None:
        if name in self._buckets:
            self._buckets[name].level -= amount

    def headers(self) -> dict[str, str]:
        """What every reply tells: the limit, what is left of it, and when it will be whole again."""
        told: dict[str, str] = {}
        for name, bucket in self._buckets.items():
            whole = datetime.now(UTC) + timedelta(seconds=bucket.seconds_until(bucket.size))
            prefix = f"anthropic-ratelimit-{name.replace('_', '-')}"
            told[f"{prefix}-limit"] = str(bucket.size)
            told[f"{prefix}-remaining"] = str(max(0, int(bucket.level)))
            told[f"{prefix}-reset"] = whole.isoformat().replace("+00:00", "Z")
        return told
