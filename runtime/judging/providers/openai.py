"""A model behind a server that speaks OpenAI's chat completions, such as vLLM's, through the official SDK.

OPENAI_BASE_URL names the server; it is required, so that no judge is asked at a place that nobody chose.
OPENAI_API_KEY is required unless the server is on this machine. The SDK's own retries are switched off.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self
from urllib.parse import urlsplit

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
    from openai import APIStatusError, AsyncOpenAI

PROVIDER: Final = "openai"
EXAMPLE_URL: Final = "http://127.0.0.1:8000/v1"
NO_KEY: Final = "none"
"""Sent to a server on this machine where no key is set: the SDK wants one."""
NO_MONEY: Final = "insufficient_quota"
"""Code of a 429 that does not pass."""
METERED: Final[tuple[Resource, ...]] = ("requests", "tokens")
"""Resources of the headers `x-ratelimit-limit-...`, `-remaining-...` and `-reset-...`."""

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class ChatCompletions:
    """Chat completions behind the interface that every provider has: `ask`, and what names the one asked."""

    provider = PROVIDER
    version = "v1"

    def __init__(self, client: AsyncOpenAI) -> None:
        self._client = client
        self.endpoint = str(client.base_url).rstrip("/")

    @classmethod
    def connect(cls) -> Self:
        """A client for the server that the environment names.

        Raises Fault R0830 without an address, R0813 for one that is none, R0812 without a key for a
        server elsewhere, R0811 without the SDK.
        """
        variables = VARIABLES[PROVIDER]
        url, key = setting(variables.url), setting(variables.key)
        if not url:
            raise Fault(
                "R0830", variables.url, "no server is named, so no judge can be asked",
                f"export {variables.url}={EXAMPLE_URL}, the address of a server that speaks OpenAI's chat completions",
            )  # fmt: skip
        require_address(url, variable=variables.url, example=EXAMPLE_URL)
        if not key and not loopback(url):
            raise Fault(
                "R0812", variables.key, f"no API key is set for {url}, so no judge can be asked",
                f"export {variables.key}=... (`{NO_KEY}` where the server wants none) and run again; nothing was sent",
            )  # fmt: skip
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise Fault(
                "R0811", "openai", f"the OpenAI SDK cannot be imported: {error}",
                "install it: pip install 'epc-prereg[judge]'",
            ) from None  # fmt: skip
        return cls(AsyncOpenAI(api_key=key or NO_KEY, base_url=url, max_retries=0))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.close()

    async def ask(self, request: Mapping[str, Any], *, seconds: float) -> Answer | Failure:
        """One call of at most that many seconds; `request` is what `completions.create` takes. Never raises for the API."""
        import openai

        try:
            async with asyncio.timeout(seconds):  # the SDK's own limit is one for each read
                response = await self._client.chat.completions.with_raw_response.create(**request, timeout=seconds)
        except openai.APIStatusError as error:
            return _failed(error)
        except (openai.APITimeoutError, TimeoutError):
            return Failure(message=f"no reply within {seconds:.0f} s", kind="transient")
        except openai.APIConnectionError as error:
            cause = error.__cause__
            return Failure(message=f"{error.message} {cause or ''}".strip()[:SHOWN], kind="unreachable")
        return _reply(response.http_response.text, response.headers)


def loopback(url: str) -> bool:
    """Whether an address is of a server on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _reply(body: str, headers: Mapping[str, str]) -> Answer | Failure:
    """A chat completion, read without the SDK's classes, so that no shape of it can raise."""
    try:
        completion = json.loads(body)
        choice, usage = completion["choices"][0], completion["usage"]
        refusal, text = choice["message"].get("refusal"), choice["message"].get("content")
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
        return Answer(
            text=readable(refusal or text or ""), stop=_stop(choice["finish_reason"], refusal),
            input_tokens=int(usage["prompt_tokens"]), output_tokens=int(usage.get("completion_tokens") or 0),
            cache_read_tokens=int(cached), grants=grants(headers),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return Failure(
            message=f"the body of the reply is no chat completion: {readable(body)[:SHOWN]}", kind="unreachable"
        )


def _stop(reason: str | None, refusal: str | None) -> Literal["end", "refusal", "cut"]:
    if refusal or reason == "content_filter":
        return "refusal"
    return "end" if reason == "stop" else "cut"


def _failed(error: APIStatusError) -> Failure:
    status, headers = error.status_code, error.response.headers
    said = _said(error.body)
    denied = error.code == NO_MONEY
    message = f"HTTP {status}: {one_line(error.response.text) if said is None else one_line(said)}"
    if status == 404 and said is None:
        message += "; most of these addresses end in /v1"
    return Failure(
        message=message, kind="denied" if denied else kind_of(status, spoken=said is not None),
        retry_after=retry_after(headers), grants=grants(headers),
    )  # fmt: skip


def _said(body: object) -> str | None:
    """The message of an error. The SDK hands out what is under `error`, where the server has it."""
    message = body.get("message") if isinstance(body, dict) else None
    return message if isinstance(message, str) else None


def grants(headers: Mapping[str, str]) -> dict[Resource, Grant]:
    """The rate limits that a reply tells of, `reset` as in `6m0s`."""
    found: dict[Resource, Grant] = {}
    for resource in METERED:
        try:
            if f"x-ratelimit-limit-{resource}" in headers:
                found[resource] = Grant(
                    limit=int(headers[f"x-ratelimit-limit-{resource}"]),
                    remaining=int(headers[f"x-ratelimit-remaining-{resource}"]),
                    reset=_until(headers[f"x-ratelimit-reset-{resource}"]),
                )  # fmt: skip
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _until(reset: str) -> float:
    parts = _DURATION.findall(reset)
    return sum(float(number) * _SECONDS[unit] for number, unit in parts) if parts else float(reset)
