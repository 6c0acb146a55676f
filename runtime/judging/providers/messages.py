"""Claude through Anthropic's Messages API and the official SDK.

The SDK's own retries are switched off: they obey `retry-after` without a limit, and what they swallow
could not be kept. ANTHROPIC_API_KEY is required; ANTHROPIC_BASE_URL may name another server.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import time
from collections.abc import Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from epc.compiler.contract.judge_models import API_VERSION
from epc.runtime.errors import Fault
from epc.runtime.judging.providers import (
    SHOWN,
    VARIABLES,
    kind_of,
    one_line,
    readable,
    require_address,
    retry_after,
    setting,
)
from epc.runtime.judging.replies import Answer, Failure, Grant, Resource

if TYPE_CHECKING:
    from anthropic import APIStatusError, AsyncAnthropic

PROVIDER: Final = "anthropic"
PUBLIC_URL: Final = "https://api.anthropic.com"
METERED: Final[Mapping[Resource, str]] = {
    name: f"anthropic-ratelimit-{name.replace('_', '-')}" for name in ("requests", "input_tokens", "output_tokens")
}
"""Resource -> beginning of the headers that tell of it. Tokens read from the cache are none of its input tokens."""


def client() -> AsyncAnthropic:
    """A client for the server that the environment names.

    Raises Fault R0811 without the SDK, R0812 without a key, R0813 for a base URL that is none.
    """
    variables = VARIABLES[PROVIDER]
    key = setting(variables.key)
    if not key:
        raise Fault(
            "R0812", variables.key, "no API key is set, so no judge can be asked",
            f"export {variables.key}=... and run again; nothing was sent",
        )  # fmt: skip
    url = setting(variables.url) or PUBLIC_URL
    require_address(url, variable=variables.url, example=PUBLIC_URL)
    try:
        from anthropic import AsyncAnthropic, DefaultAioHttpClient

        many = DefaultAioHttpClient()  # the SDK's own for many calls at once: half the work of its default
    except (ImportError, RuntimeError) as error:  # RuntimeError: aiohttp is not installed
        raise Fault(
            "R0811", "anthropic", f"the Anthropic SDK cannot be imported: {error}",
            "install it: pip install 'epc-prereg[judge]'",
        ) from None  # fmt: skip
    headers = {"anthropic-version": API_VERSION}
    return AsyncAnthropic(api_key=key, base_url=url, max_retries=0, default_headers=headers, http_client=many)


class Messages:
    """The Messages API behind the interface that every provider has: `ask`, and what names the one asked."""

    provider = PROVIDER
    version = API_VERSION

    def __init__(self, client: AsyncAnthropic) -> None:
        self._client = client
        self.endpoint = str(client.base_url).rstrip("/")

    @classmethod
    def connect(cls) -> Self:
        """Raises what `client` raises."""
        return cls(client())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def ask(self, request: Mapping[str, Any], *, seconds: float) -> Answer | Failure:
        """One call of at most that many seconds; `request` is what `messages.create` takes. Never raises for the API."""
        import anthropic

        try:
            async with asyncio.timeout(seconds):  # the SDK's own limit is one for each read
                response = await self._client.messages.with_raw_response.create(**request, timeout=seconds)
        except anthropic.APIStatusError as error:
            return failed(error)
        except (anthropic.APITimeoutError, TimeoutError):
            return Failure(message=f"no reply within {seconds:.0f} s", kind="transient")
        except anthropic.APIConnectionError as error:
            cause = error.__cause__
            return Failure(message=f"{error.message} {cause or ''}".strip()[:SHOWN], kind="unreachable")
        try:
            message = json.loads(response.http_response.content)  # its text would be guessed from the bytes, slowly
        except ValueError:
            return reply(None, body=response.http_response.text, headers=response.headers)
        return reply(message, headers=response.headers)


def reply(message: Any, *, body: str | None = None, headers: Mapping[str, str] | None = None) -> Answer | Failure:
    """A message of the API as it was decoded, read without the SDK's classes, so that no shape of it can raise."""
    try:
        blocks, usage = message["content"], message["usage"]
        written, found = (int(usage.get(f"cache_{name}_input_tokens") or 0) for name in ("creation", "read"))
        return Answer(
            text=readable("".join(block["text"] for block in blocks if block["type"] == "text")),
            stop=_stop(message["stop_reason"]), output_tokens=int(usage["output_tokens"]),
            input_tokens=int(usage["input_tokens"]) + written + found, cache_write_tokens=written, cache_read_tokens=found,
            grants=grants(headers or {}),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError):
        shown = json.dumps(message, ensure_ascii=False) if body is None else body
        return Failure(message=f"the body of the reply is no message: {readable(shown)[:SHOWN]}", kind="unreachable")


def _stop(reason: str | None) -> Literal["end", "refusal", "cut"]:
    match reason:
        case "end_turn" | "stop_sequence":
            return "end"
        case "refusal":
            return "refusal"
        case _:
            return "cut"


def failed(error: APIStatusError) -> Failure:
    """An error status of the API."""
    status, headers = error.status_code, error.response.headers
    said = error.api_message if isinstance(error.api_message, str) else None
    return Failure(
        message=f"HTTP {status}: {one_line(error.response.text) if said is None else one_line(said)}",
        kind=kind_of(status, spoken=said is not None),
        retry_after=retry_after(headers), grants=grants(headers),
    )  # fmt: skip


def grants(headers: Mapping[str, str]) -> dict[Resource, Grant]:
    """The rate limits that a reply tells of: `anthropic-ratelimit-requests-limit`, `-remaining`, `-reset` and so on."""
    found: dict[Resource, Grant] = {}
    for resource, name in METERED.items():
        try:
            if f"{name}-limit" in headers:
                found[resource] = Grant(
                    limit=int(headers[f"{name}-limit"]), remaining=int(headers[f"{name}-remaining"]),
                    reset=_until(headers[f"{name}-reset"], headers.get("date")),
                )  # fmt: skip
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _until(reset: str, date: str | None) -> float:
    """Seconds until a point in time (RFC 3339), by the clock of the server where it shows it."""
    now = email.utils.parsedate_to_datetime(date).timestamp() if date else time.time()
    return max(0.0, datetime.fromisoformat(reset).timestamp() - now) + 1  # both may be told in whole seconds
