"""What a scripted server is asked: the request, its text, and the fields that it wants to have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Request = Mapping[str, Any]
"""Body of a request to /v1/messages or /v1/chat/completions, or `params` of one in a batch."""
Route = Literal["messages", "chat", "item", "create", "retrieve", "list", "results", "cancel", "models"]
"""What is asked for. `item` is one request of a batch, `create` to `cancel` are of the batch itself."""
ASKED: tuple[Route, ...] = ("messages", "chat", "item")
"""Routes of the requests that a judge answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A request as it came."""

    number: int
    """Of all requests, from 0."""
    nth: int
    """Of the requests with this same body, from 0."""
    digest: int
    """Of the body, or of the address where there is none: 64 bits."""
    route: Route
    request: Request
    headers: Mapping[str, str]
    """Names in lower case."""

    @property
    def message(self) -> str:
        return text(self.request)


def text(request: Request) -> str:
    """Everything that a request says: system prompt and messages."""
    return "\n".join("".join(blocks) for blocks in _texts(request))


def _texts(request: Request) -> Iterator[list[str]]:
    contents = [message.get("content", "") for message in request.get("messages", ())]
    for content in ([request["system"]] if request.get("system") else []) + contents:
        yield [content] if isinstance(content, str) else [str(block.get("text", "")) for block in content]


def cached_prefix(request: Request) -> str:
    """Text up to the last block that is marked for the prompt cache, empty where none is."""
    seen: list[str] = []
    cached = 0
    contents = [message.get("content", "") for message in request.get("messages", ())]
    for content in ([request["system"]] if request.get("system") else []) + contents:
        for block in [{"text": content}] if isinstance(content, str) else content:
            seen.append(str(block.get("text", "")))
            cached = len(seen) if block.get("cache_control") else cached
    return "".join(seen[:cached])


def schema(request: Request) -> Mapping[str, Any] | None:
    """JSON Schema that the reply must obey, None where the request names none."""
    form = (request.get("output_config") or {}).get("format") or request.get("response_format") or {}
    wanted = form.get("schema") or (form.get("json_schema") or {}).get("schema")
    return wanted if isinstance(wanted, Mapping) else None


def fields(request: Request) -> list[str]:
    """Names of the fields that the reply must have."""
    wanted = schema(request) or {}
    return list(wanted.get("properties", ()))
