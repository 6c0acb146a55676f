"""What the judges' protocols look like on the wire: replies, errors and checks of a request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from epc.runtime.judging.scripted.calls import Request, text

CHARACTERS = 4
"""Of a text that count as a token."""
_TYPES: Mapping[int, str] = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    405: "invalid_request_error", 413: "request_too_large", 429: "rate_limit_error", 500: "api_error", 529: "overloaded_error",
}  # fmt: skip
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
"""Keywords of numbers that the structured outputs of Claude refuse."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """A reply of the judge."""

    text: str
    stop: Literal["end_turn", "max_tokens", "refusal"] = "end_turn"
    blocks: bool = True
    """Whether there is any content at all."""
    cut: int | None = None
    """Bytes of the body that arrive; all of them by default."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """An error of the interface."""

    status: int
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A body that is none of the interface's."""

    body: str
    status: int = 200
    content_type: str = "text/html"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gone:
    """No reply. reset: the connection is reset before anything is done; lost: after it is done; silent: nothing comes."""

    how: Literal["reset", "lost", "silent"]


Result = Said | Problem | Page | Gone


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens of a request; `input` are those that the prompt cache has nothing to do with."""

    input: int
    cache_write: int = 0
    cache_read: int = 0


def tokens(said: str) -> int:
    return max(1, len(said) // CHARACTERS)


def message(said: Said, request: Request, usage: Usage, number: int) -> dict[str, Any]:
    """A reply of the Messages API."""
    return {
        "id": f"msg_{number:024d}", "type": "message", "role": "assistant", "model": request.get("model", ""),
        "content": [{"type": "text", "text": said.text}] if said.blocks else [],
        "stop_reason": said.stop, "stop_sequence": None,
        "usage": {
            "input_tokens": usage.input, "cache_creation_input_tokens": usage.cache_write,
            "cache_read_input_tokens": usage.cache_read, "output_tokens": output_tokens(said), "service_tier": "standard",
        },
    }  # fmt: skip


_FINISH = {"end_turn": "stop", "max_tokens": "length", "refusal": "content_filter"}


def completion(said: Said, request: Request, usage: Usage, number: int) -> dict[str, Any]:
    """A reply of the chat completions API."""
    sent, came = usage.input + usage.cache_write + usage.cache_read, output_tokens(said)
    refused = said.stop == "refusal"
    content = said.text if said.blocks and not refused else None
    return {
        "id": f"chatcmpl-{number}", "object": "chat.completion", "created": 0, "model": request.get("model", ""),
        "choices": [
            {
                "index": 0, "finish_reason": _FINISH[said.stop], "logprobs": None,
                "message": {"role": "assistant", "content": content, "refusal": said.text if refused else None},
            }
        ],
        "usage": {
            "prompt_tokens": sent, "completion_tokens": came, "total_tokens": sent + came,
            "prompt_tokens_details": {"cached_tokens": usage.cache_read},
        },
    }  # fmt: skip


def output_tokens(said: Said) -> int:
    """Tokens of a reply."""
    return tokens(said.text) if said.blocks else 0


def error(problem: Problem, number: int, *, openai: bool = False) -> dict[str, Any]:
    """The body of an error."""
    kind = _TYPES.get(problem.status, "api_error")
    if openai:
        return {"error": {"message": problem.message, "type": kind, "param": None, "code": None}}
    return {
        "type": "error", "error": {"type": kind, "message": problem.message}, "request_id": f"req_{number:024d}",
    }  # fmt: skip


def models(names: tuple[str, ...]) -> dict[str, Any]:
    """The list of models, readable as Anthropic's and as OpenAI's."""
    rows = [
        {
            "type": "model", "object": "model", "id": name, "display_name": name, "created_at": "2025-01-01T00:00:00Z",
            "created": 0, "owned_by": "epc",
        }
        for name in names
    ]  # fmt: skip
    return {
        "object": "list", "data": rows, "has_more": False, "first_id": names[0] if names else None,
        "last_id": names[-1] if names else None,
    }  # fmt: skip


def flaw(request: Any, *, openai: bool = False) -> str | None:
    """What the real interface would refuse about a request, None where it is sound."""
    if not isinstance(request, dict):
        return "the body is no JSON object"
    for name, kind in (("model", str), ("messages", list), *(() if openai else (("max_tokens", int),))):
        if name not in request:
            return f"{name}: Field required"
        if not isinstance(request[name], kind) or isinstance(request[name], bool) or not request[name]:
            return f"{name}: Input should be a valid {kind.__name__}"
    for number, turn in enumerate(request["messages"]):
        if not isinstance(turn, dict) or turn.get("role") not in (
            "user",
            "assistant",
            *(("system",) if openai else ()),
        ):
            return f"messages.{number}.role: Input should be 'user' or 'assistant'"
        if not _is_content(turn.get("content")):
            return f"messages.{number}.content: Input should be a valid string or list of blocks"
    if not _is_content(request.get("system") or ""):
        return "system: Input should be a valid string or list of blocks"
    if not text(request).strip():
        return "messages: text content blocks must be non-empty"
    for name in ("output_config", "response_format"):
        if not isinstance(request.get(name) or {}, dict):
            return f"{name}: Input should be an object"
    form = (request.get("response_format" if openai else "output_config") or {}).get(
        "json_schema" if openai else "format"
    )
    return None if form is None else _schema_flaw(form, openai=openai)


def _is_content(content: Any) -> bool:
    return isinstance(content, str) or (isinstance(content, list) and all(isinstance(block, dict) for block in content))


def _schema_flaw(form: Any, *, openai: bool) -> str | None:
    """What structured outputs refuse in a schema of flat fields; servers of the OpenAI kind take bounds."""
    at = "response_format.json_schema" if openai else "output_config.format"
    if not isinstance(form, dict) or not (openai or form.get("type") == "json_schema"):
        return f"{at}: Input should be a json_schema"
    wanted = form.get("schema")
    properties = wanted.get("properties", {}) if isinstance(wanted, dict) else None
    if not isinstance(wanted, dict) or not isinstance(properties, dict):
        return f"{at}.schema: Input should be a JSON Schema"
    if openai:
        return None
    if wanted.get("type") == "object" and wanted.get("additionalProperties") is not False:
        return f"{at}.schema: For 'object' type, 'additionalProperties' must be explicitly set to false"
    for kind in properties.values():
        for name in _BOUNDS:
            if name in kind:
                return f"{at}.schema: For '{kind.get('type')}' type, property '{name}' is not supported"
    return None


def encode(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode("ascii")
