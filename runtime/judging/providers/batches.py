"""Claude through Anthropic's Message Batches: many requests at once, answered within a day, at half price.

Source: the interface's reference, `/v1/messages/batches` (create, retrieve, list, results). Bodies are read without
the SDK's classes, so that no shape of them can raise anything but BatchError.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from epc.runtime.judging.providers import SHOWN, readable
from epc.runtime.judging.providers.messages import Messages, failed, reply
from epc.runtime.judging.replies import Answer, Failure

PAGE: Final = 1000
"""Batches listed in one call, the most that the interface gives."""
TOO_LARGE: Final = 413
NOT_FOUND: Final = 404
CERTAIN: Final = frozenset({429, 529})
"""Statuses that say, as all others below 500, that nothing was done."""
_REJECTED: Final = frozenset({"invalid_request_error", "request_too_large"})
"""Errors of one request: asking the same again brings the same."""
_DENIED: Final = frozenset({"authentication_error", "billing_error", "permission_error", "not_found_error"})
"""Errors that tell of the key, the account or the model."""


class BatchError(Exception):
    """A call about a batch that brought nothing."""

    def __init__(self, failure: Failure, *, status: int | None = None, in_doubt: bool = False) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.status = status
        """HTTP status, None where there was none."""
        self.in_doubt = in_doubt
        """Whether the server may have done what it was asked for."""


@dataclass(frozen=True, kw_only=True)
class State:
    """A batch as the provider shows it."""

    id: str
    created_at: datetime
    status: Literal["in_progress", "canceling", "ended"]
    cancelled: bool
    counts: Mapping[str, int]
    """processing, succeeded, errored, canceled, expired; all but the first may be 0 until the batch has ended."""
    results: bool
    """Whether there are results to be read: from the end of the batch until they are archived."""

    @property
    def ended(self) -> bool:
        return self.status == "ended"

    @property
    def requests(self) -> int:
        return sum(self.counts.values())


class Batches(Messages):
    """The Message Batches API. Every method raises BatchError, and nothing else, for what the API does."""

    async def greet(self, *, seconds: float) -> None:
        """Return when the server speaks this interface and takes the key."""
        with _translated(seconds):
            async with asyncio.timeout(seconds):
                response = await self._batches.with_raw_response.list(limit=1, timeout=seconds)
            _decoded(response.http_response.text)["data"]

    async def create(self, requests: Sequence[tuple[str, Mapping[str, Any]]], *, seconds: float) -> str:
        """Submit (custom id, what `messages.create` takes) of each request; the id of the batch."""
        entries: Any = [{"custom_id": name, "params": params} for name, params in requests]
        with _translated(seconds):
            async with asyncio.timeout(seconds):
                response = await self._batches.with_raw_response.create(requests=entries, timeout=seconds)
            return _state(_decoded(response.http_response.text)).id

    async def state(self, batch_id: str, *, seconds: float) -> State:
        """How far a batch is."""
        with _translated(seconds):
            async with asyncio.timeout(seconds):
                response = await self._batches.with_raw_response.retrieve(batch_id, timeout=seconds)
            return _state(_decoded(response.http_response.text))

    async def listed(self, since: datetime, *, seconds: float) -> list[State]:
        """The batches of the workspace that were created then or later."""
        found: list[State] = []
        with _translated(seconds):
            async with asyncio.timeout(seconds):
                after: dict[str, Any] = {}
                while True:
                    response = await self._batches.with_raw_response.list(limit=PAGE, timeout=seconds, **after)
                    page = _decoded(response.http_response.text)
                    states = [_state(entry) for entry in page["data"]]
                    found += [state for state in states if state.created_at >= since]
                    if not page["has_more"] or not states or states[-1].created_at < since:  # newest first
                        return found
                    after = {"after_id": states[-1].id}

    async def results(
        self, batch_id: str, *, seconds: float
    ) -> AsyncGenerator[list[tuple[str, Answer | Failure]], None]:
        """(custom id, result) of each request, in any order, as many at a time as have arrived.

        `seconds` bounds the time until the next of them arrives. A line that is no result is left out.
        """
        with _translated(seconds):
            async with self._batches.with_streaming_response.results(batch_id, timeout=seconds) as response:
                rest = b""
                async for chunk in response.iter_bytes():
                    *lines, rest = (rest + chunk).split(b"\n")
                    yield [result for line in lines for result in _result(line)]
                yield list(_result(rest))

    @property
    def _batches(self) -> Any:
        return self._client.messages.batches


@contextmanager
def _translated(seconds: float) -> Iterator[None]:
    import anthropic
    import httpx2

    try:
        yield
    except anthropic.APIStatusError as error:
        status = error.status_code
        in_doubt = status >= 500 and status not in CERTAIN
        raise BatchError(failed(error), status=status, in_doubt=in_doubt) from None
    except (anthropic.APITimeoutError, httpx2.TimeoutException, TimeoutError):
        raise BatchError(Failure(message=f"no reply within {seconds:.0f} s", kind="transient"), in_doubt=True) from None
    except (anthropic.AnthropicError, httpx2.HTTPError) as error:
        cause = error.__cause__ or ""
        failure = Failure(message=readable(f"{error} {cause}".strip())[:SHOWN], kind="unreachable")
        raise BatchError(failure, in_doubt=not isinstance(cause, httpx2.ConnectError)) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        failure = Failure(message=f"the body of the reply is not about a batch: {error}"[:SHOWN], kind="unreachable")
        raise BatchError(failure, in_doubt=True) from None


def _decoded(body: str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        raise ValueError(readable(body)) from None


def _state(entry: Any) -> State:
    """Raises ValueError, KeyError, TypeError or AttributeError for what is no batch."""
    status = entry["processing_status"]
    if status not in ("in_progress", "canceling", "ended") or not isinstance(entry["id"], str):
        raise ValueError(json.dumps(entry))
    return State(
        id=entry["id"], created_at=datetime.fromisoformat(entry["created_at"]), status=status,
        cancelled=entry.get("cancel_initiated_at") is not None, results=entry.get("results_url") is not None,
        counts={str(name): int(number) for name, number in entry["request_counts"].items()},
    )  # fmt: skip


def _result(line: bytes) -> Iterator[tuple[str, Answer | Failure]]:
    """The result on a line, none where it is no result."""
    try:
        entry = json.loads(line)
        name, result = entry["custom_id"], entry["result"]
        match result["type"]:
            case "succeeded":
                read = reply(result["message"])
            case "errored":
                read = _errored(result["error"])
            case other:
                read = Failure(message=f"{other}: the batch ended before this request was answered", kind="transient")
    except (ValueError, KeyError, TypeError, AttributeError):
        return
    if isinstance(name, str):
        yield name, read


def _errored(error: Any) -> Failure:
    inner = error.get("error", error)
    kind, said = str(inner["type"]), readable(str(inner.get("message", "")))
    return Failure(
        message=f"{kind}: {said}"[:SHOWN],
        kind="rejected" if kind in _REJECTED else "denied" if kind in _DENIED else "transient",
    )
