"""Message Batches: requests that are taken at once and answered after a while.

As with the real interface, the counts of a batch stay at `processing` until all of it has ended, results come
in another order than the requests, and cancelling leaves those that were answered until then.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from epc.compiler.contract.draws import draw
from epc.runtime.judging.scripted import wire
from epc.runtime.judging.scripted.wire import Problem

MAX_REQUESTS = 100_000
MAX_PAGE = 1000
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
KINDS = ("succeeded", "errored", "canceled", "expired")
Answer = Callable[[Mapping[str, Any]], dict[str, Any]]
"""`params` of a request -> its result."""


@dataclass(kw_only=True, slots=True)
class Batch:
    """A batch; `lines` are the results that it has so far."""

    id: str
    seconds: float
    """Until all is answered."""
    waiting: list[tuple[str, dict[str, Any]]]
    """Requests that are not answered yet, the next one last."""
    size: int
    began: float
    created_at: datetime
    lines: list[bytes] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    cancelled_at: datetime | None = None
    ended_at: datetime | None = None

    def advance(self, answer: Answer) -> None:
        """Answer what is due by now: as large a share of the requests as of the time has passed."""
        if self.ended_at is not None:
            return
        passed = time.monotonic() - self.began
        share = 1.0 if passed >= self.seconds else passed / self.seconds
        if self.cancelled_at is None:
            self._answer(self.size - int(self.size * share), answer)
        else:
            self._answer(0, lambda params: {"type": "canceled"})
        if not self.waiting:
            self.ended_at = datetime.now(UTC)

    def _answer(self, left: int, answer: Answer) -> None:
        while len(self.waiting) > left:
            custom_id, params = self.waiting.pop()
            result = answer(params)
            self.counts[result["type"]] += 1
            self.lines.append(wire.encode({"custom_id": custom_id, "result": result}) + b"\n")

    def cancel(self, answer: Answer) -> None:
        self.advance(answer)
        if self.ended_at is None and self.cancelled_at is None:
            self.cancelled_at = datetime.now(UTC)

    def shown(self, url: str) -> dict[str, Any]:
        ended = self.ended_at is not None
        counts = {kind: self.counts[kind] if ended else 0 for kind in KINDS}
        status = "ended" if ended else "canceling" if self.cancelled_at else "in_progress"
        return {
            "id": self.id, "type": "message_batch", "processing_status": status,
            "request_counts": {"processing": 0 if ended else self.size, **counts},
            "created_at": _time(self.created_at), "expires_at": _time(self.created_at + timedelta(hours=24)),
            "ended_at": _time(self.ended_at), "cancel_initiated_at": _time(self.cancelled_at), "archived_at": None,
            "results_url": f"{url}/v1/messages/batches/{self.id}/results" if ended else None,
        }  # fmt: skip


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


class Batches:
    """All batches of a server, the newest last."""

    def __init__(self, seconds: float, *, seed: int) -> None:
        self.seconds, self._seed = seconds, seed
        self._batches: dict[str, Batch] = {}

    def create(self, body: Any) -> Batch | Problem:
        requests = body.get("requests") if isinstance(body, dict) else None
        if not isinstance(requests, list) or not 0 < len(requests) <= MAX_REQUESTS:
            return Problem(status=400, message=f"requests: between 1 and {MAX_REQUESTS} are taken")
        seen: set[str] = set()
        for number, request in enumerate(requests):
            custom_id = request.get("custom_id") if isinstance(request, dict) else None
            if not isinstance(custom_id, str) or not _CUSTOM_ID.fullmatch(custom_id):
                return Problem(status=400, message=f"requests.{number}.custom_id: up to 64 letters, digits, - and _")
            if custom_id in seen:
                return Problem(status=400, message=f"requests.{number}.custom_id: {custom_id} is not unique")
            seen.add(custom_id)
            if not isinstance(request.get("params"), dict):
                return Problem(status=400, message=f"requests.{number}.params: Field required")
        number = len(self._batches)
        pairs = [(request["custom_id"], request["params"]) for request in requests]
        pairs.sort(key=lambda pair: draw("batch", self._seed, number, pair[0]))
        batch = Batch(
            id=f"msgbatch_{number:024d}", seconds=self.seconds, waiting=pairs, size=len(pairs),
            began=time.monotonic(), created_at=datetime.now(UTC),
        )  # fmt: skip
        self._batches[batch.id] = batch
        return batch

    def find(self, name: str) -> Batch | Problem:
        return self._batches.get(name) or Problem(status=404, message=f"no batch {name} exists")

    def page(self, query: Mapping[str, str]) -> tuple[list[Batch], bool] | Problem:
        """Newest first: a page of `limit` (20) after or before a batch, and whether more lie that way."""
        limit, after, before = query.get("limit", "20"), query.get("after_id"), query.get("before_id")
        if not limit.isdigit() or not 1 <= int(limit) <= MAX_PAGE:
            return Problem(status=400, message=f"limit: between 1 and {MAX_PAGE}")
        for name in (after, before):
            if name is not None and name not in self._batches:
                return Problem(status=400, message=f"no batch {name} exists")
        rows = list(reversed(self._batches.values()))
        names = [batch.id for batch in rows]
        if before is not None:
            rows = rows[: names.index(before)]
            return rows[-int(limit) :], len(rows) > int(limit)
        if after is not None:
            rows = rows[names.index(after) + 1 :]
        return rows[: int(limit)], len(rows) > int(limit)
