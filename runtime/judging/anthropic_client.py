"""Claude through Anthropic's Messages API and the official SDK.

The SDK's own retries are switched off: they obey `retry-after` without a limit, and what they swallow
could not be kept. ANTHROPIC_API_KEY is required; ANTHROPIC_BASE_URL may name another server.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from epc.runtime.errors import Fault
from epc.runtime.judging.replies import Answer, Failure

if TYPE_CHECKING:
    from anthropic import APIStatusError, AsyncAnthropic

API_VERSION: Final = "2026-10-21"
"""Sent with every call: an SDK of another day would otherwise choose another version of the interface."""
PUBLIC_URL: Final = "https://api.anthropic.com"
TRANSIENT: Final = frozenset({408, 409, 429})
"""Statuses below 500 that may pass: timeout, conflict, rate limit."""
DENIED: Final = frozenset({401, 402, 403, 404})
"""Statuses that tell of the key, the account, the permission or the model, and so of every request."""
SHOWN: Final = 500
"""Characters of an error or of a broken body that are kept."""


class Claude:
    """The Messages API behind the interface that every provider has: `ask`, and what names the one asked."""

    provider = "anthropic"
    version = API_VERSION

    def __init__(self, client: AsyncAnthropic) -> None:
        self._client = client
        self.endpoint = str(client.base_url).rstrip("/")

    @classmethod
    def connect(cls) -> Self:
        """A client for the server that the environment names.

        Raises Fault R0811 without the SDK, R0812 without a key, R0813 for a base URL that is none.
        """
        key = os.environ.get("ANTHROPIC_API_KEY", "").strip()
        if not key:
            raise Fault(
                "R0812", "ANTHROPIC_API_KEY", "no API key is set, so no judge can be asked",
                "export ANTHROPIC_API_KEY=... and run again; nothing was sent",
            )  # fmt: skip
        url = os.environ.get("ANTHROPIC_BASE_URL", "").strip() or PUBLIC_URL
        if not url.startswith(("https://", "http://")):
            raise Fault(
                "R0813", "ANTHROPIC_BASE_URL", f"{url} is no address of a server",
                f"write it with its scheme, such as {PUBLIC_URL}, or unset it",
            )  # fmt: skip
        try:
            from anthropic import AsyncAnthropic
        except ImportError as error:
            raise Fault(
                "R0811", "anthropic", f"the Anthropic SDK cannot be imported: {error}",
                "install it: pip install 'epc-prereg[judge]'",
            ) from None  # fmt: skip
        headers = {"anthropic-version": API_VERSION}
        return cls(AsyncAnthropic(api_key=key, base_url=url, max_retries=0, default_headers=headers))

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
            return _failed(error)
        except (anthropic.APITimeoutError, TimeoutError):
            return Failure(message=f"no reply within {seconds:.0f} s", kind="transient")
        except anthropic.APIConnectionError as error:
            cause = error.__cause__
            return Failure(message=f"{error.message} {cause or ''}".strip()[:SHOWN], kind="unreachable")
        return _reply(response.http_response.text)


def _reply(body: str) -> Answer | Failure:
    """A message of the API, read without its classes, so that no shape of it can raise."""
    try:
        message = json.loads(body)
        blocks, usage = message["content"], message["usage"]
        text = "".join(block["text"] for block in blocks if block["type"] == "text")
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")  # half a surrogate pair is no text
        cached = (usage.get(name) or 0 for name in ("cache_creation_input_tokens", "cache_read_input_tokens"))
        return Answer(
            text=text, stop=_stop(message["stop_reason"]), output_tokens=int(usage["output_tokens"]),
            input_tokens=int(usage["input_tokens"]) + sum(cached),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError):
        return Failure(message=f"the body of the reply is no message: {body[:SHOWN]}", kind="unreachable")


def _stop(reason: str | None) -> Literal["end", "refusal", "cut"]:
    match reason:
        case "end_turn" | "stop_sequence":
            return "end"
        case "refusal":
            return "refusal"
        case _:
            return "cut"


def _failed(error: APIStatusError) -> Failure:
    status = error.status_code
    kind: Literal["transient", "rejected", "denied"] = (
        "denied" if status in DENIED else "transient" if status in TRANSIENT or status >= 500 else "rejected"
    )
    said = error.api_message or error.message
    return Failure(message=f"HTTP {status}: {said}"[:SHOWN], kind=kind, retry_after=retry_after(error.response.headers))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a reply asks to wait: `retry-after-ms`, or `retry-after` in seconds or as a date."""
    try:
        if "retry-after-ms" in headers:
            return max(0.0, float(headers["retry-after-ms"]) / 1000)
        value = headers.get("retry-after", "")
        if not value:
            return None
        if value.replace(".", "", 1).isdigit():
            return float(value)
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
