"""What Messages answers, shape by shape, and what each counts as."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from epc.runtime.judging.providers.messages import Messages
from epc.runtime.judging.replies import Grant

TEXT = {"type": "text", "text": "{}"}
USAGE = {"input_tokens": 20, "output_tokens": 4}
LIMITS = {
    "date": "Sat, 21 Nov 2026 12:00:00 GMT", "anthropic-ratelimit-requests-limit": "50",
    "anthropic-ratelimit-requests-remaining": "49", "anthropic-ratelimit-requests-reset": "2026-11-21T12:00:01Z",
}  # fmt: skip


def message(stop: str | None = "end_turn", *blocks: Any, **usage: Any) -> str:
    return json.dumps({"content": list(blocks), "stop_reason": stop, "usage": USAGE | usage})


def error(text: str) -> str:
    return json.dumps({"type": "error", "error": {"type": "some_error", "message": text}})


ANSWERS: dict[str, tuple[str, str, str, tuple[int, int, int]]] = {
    # body -> end, text, (tokens sent, of those written to the cache, and read from it)
    "a text": (message("end_turn", TEXT), "end", "{}", (20, 0, 0)),
    "two texts": (message("end_turn", TEXT, TEXT), "end", "{}{}", (20, 0, 0)),
    "thinking before it": (
        message("end_turn", {"type": "thinking", "thinking": "?", "signature": "s"}, TEXT), "end", "{}", (20, 0, 0),
    ),
    "a stop sequence": (message("stop_sequence", TEXT), "end", "{}", (20, 0, 0)),
    "a refusal": (message("refusal"), "refusal", "", (20, 0, 0)),
    "cut at max_tokens": (message("max_tokens", TEXT), "cut", "{}", (20, 0, 0)),
    "cut at the end of the window": (message("model_context_window_exceeded", TEXT), "cut", "{}", (20, 0, 0)),
    "no reason": (message(None, TEXT), "cut", "{}", (20, 0, 0)),
    "written to the cache": (message("end_turn", TEXT, cache_creation_input_tokens=1500), "end", "{}", (1520, 1500, 0)),
    "read from the cache": (
        message("end_turn", TEXT, cache_read_input_tokens=1500, cache_creation_input_tokens=None), "end", "{}", (1520, 0, 1500),
    ),
    "half a surrogate pair": (message("end_turn", {"type": "text", "text": "\ud83d"}), "end", "\\ud83d", (20, 0, 0)),
}  # fmt: skip
FAILURES: dict[str, tuple[int, dict[str, str], str, str, str, float | None]] = {
    # status, headers, body -> kind, what is said, seconds to wait
    "another server": (200, {}, "<html>It works!</html>", "unreachable", "It works!", None),
    "JSON of another server": (200, {}, '{"ok": true}', "unreachable", '{"ok": true}', None),
    "a list": (200, {}, "[]", "unreachable", "no message", None),
    "no tokens": (
        200,
        {},
        '{"content": [], "stop_reason": "end_turn", "usage": {}}',
        "unreachable",
        "no message",
        None,
    ),
    "a path that another server lacks": (404, {}, "<html>\n not\n here", "unreachable", "404: <html> not here", None),
    "a proxy's refusal": (403, {}, "Blocked by policy", "unreachable", "Blocked by policy", None),
    "an error of another shape": (401, {}, '{"error": {"message": ["no"]}}', "unreachable", "401", None),
    "no such model": (404, {}, error("model: claude-9"), "denied", "HTTP 404: model: claude-9", None),
    "no such key": (401, {}, error("invalid x-api-key"), "denied", "invalid x-api-key", None),
    "no permission": (403, {}, error("not allowed"), "denied", "not allowed", None),
    "not this request": (400, {}, error("too long"), "rejected", "too long", None),
    "too large": (413, {}, error("too large"), "rejected", "too large", None),
    "too many": (429, {"retry-after": "7"}, error("slow down"), "transient", "slow down", 7.0),
    "overloaded": (529, {}, error("overloaded"), "transient", "overloaded", None),
    "a gateway": (502, {}, "<html>bad gateway</html>", "transient", "bad gateway", None),
}


def ask(answering: Any, monkeypatch: pytest.MonkeyPatch, **reply: Any) -> Any:
    url, said = answering
    said.update(reply)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")

    async def one() -> Any:
        async with Messages.connect() as claude:
            request = {"model": "claude-opus-5", "max_tokens": 5, "messages": [{"role": "user", "content": "?"}]}
            return await claude.ask(request, seconds=10.0)

    return asyncio.run(one())


@pytest.mark.parametrize("name", ANSWERS)
def test_a_message_is_an_answer(name: str, answering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    body, stop, text, tokens = ANSWERS[name]
    answer = ask(answering, monkeypatch, status=200, headers=LIMITS, body=body)
    assert (answer.stop, answer.text, answer.output_tokens) == (stop, text, 4)
    assert (answer.input_tokens, answer.cache_write_tokens, answer.cache_read_tokens) == tokens
    assert answer.grants["requests"].limit == 50


@pytest.mark.parametrize("name", FAILURES)
def test_anything_else_is_a_failure(name: str, answering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    status, headers, body, kind, said, wait = FAILURES[name]
    failure = ask(answering, monkeypatch, status=status, headers=headers, body=body)
    assert (failure.kind, failure.retry_after) == (kind, wait)
    assert said in failure.message
    assert "\n" not in failure.message


def test_a_refusal_for_the_rate_tells_of_the_limits_too(answering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    failure = ask(answering, monkeypatch, status=429, headers=LIMITS, body=error("slow down"))
    assert failure.grants["requests"].limit == 50
    assert isinstance(failure.grants["requests"], Grant)
