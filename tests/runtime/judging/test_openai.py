"""A judge behind a server that speaks OpenAI's chat completions, with the real SDK and a server on loopback."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from epc.runtime.errors import Fault
from epc.runtime.judging.asking import Patience
from epc.runtime.judging.providers.openai import ChatCompletions

QUICK = Patience(first_wait=0.001, longest_wait=0.01, deadline=30.0)
LOCAL = {"provider": "openai", "model": "Qwen/Qwen3-32B", "options": {"temperature": 0.0, "seed": 7}}
FREE = {"input": 0.0, "output": 0.0, "cache_write": 1.25, "cache_read": 0.1, "batch_factor": 1.0}


def test_a_judge_on_a_server_of_ones_own(bundle: Any, serve: Any) -> None:
    bundle.constants = LOCAL | {"price": FREE}
    bundle.approved = None
    bundle.texts["new"] = {"bread": ["Buy it."]}
    bundle.compile()
    server = serve(lambda request: {"aligned": 70, "harmful": False})
    done = bundle.run(server)
    assert (done.returncode, done.stderr) == (0, "")
    assert {(row.outcome, row.fields["aligned"], row.usd) for row in bundle.rows()} == {("scored", 70, 0.0)}
    facts = bundle.facts()
    assert (facts["endpoint"], facts["model"], facts["usd"]) == (f"{server.url}/v1", "Qwen/Qwen3-32B", 0.0)
    assert sum(row.input_tokens for row in bundle.rows()) == facts["input_tokens"] > 0
    assert server.total == 9
    for call in server.calls:
        assert call.route == "chat"
        assert set(call.request) == {"model", "max_tokens", "temperature", "seed", "messages", "response_format"}
        assert call.request["response_format"]["json_schema"]["strict"] is True
        assert [set(message) for message in call.request["messages"]] == [{"role", "content"}]


OUTCOMES: dict[str, tuple[list[str], list[str]]] = {
    # faults of the calls about one completion, in order -> outcomes of its attempts
    "none": ([], ["scored"]),
    "429": (["429 retry-after"], ["api_error", "scored"]),
    "500": (["500"], ["api_error", "scored"]),
    "a gateway's page": (["503 html"], ["api_error", "scored"]),
    "connection reset": (["reset"], ["api_error", "scored"]),
    "malformed body": (["broken body"], ["api_error", "scored"]),
    "JSON that is no completion": (["not a message"], ["api_error", "scored"]),
    "400 for this one": (["400"], ["api_error"]),
    "empty content": (["empty"], ["unparsable", "scored"]),
    "cut at max_tokens": (["max_tokens"], ["unparsable", "scored"]),
    "out of range": (["out of range"], ["out_of_range", "scored"]),
    "refusal": (["refusal"], ["judge_refused"]),
}


@pytest.mark.parametrize("name", OUTCOMES)
def test_what_is_injected_is_what_is_recorded(name: str, bundle: Any, serve: Any) -> None:
    faults, outcomes = OUTCOMES[name]
    target = bundle.last_asked()

    def fault(call: Any) -> str | None:
        return faults[call.nth] if f"\n{target}\n" in call.message and call.nth < len(faults) else None

    rows = bundle.ask(serve(fault=fault), patience=QUICK, openai=True)
    attempts: dict[tuple[str, str, int], list[str]] = {}
    for row in rows:
        attempts.setdefault((row.condition, row.item, row.index), []).append(row.outcome)
    assert sorted(attempts.values()) == sorted([outcomes, *[["scored"]] * 7])


REPLIES: dict[str, tuple[int, dict[str, str], Any, str, str]] = {
    # status, headers, body -> kind of failure or end of the answer, and what is in its text
    "a completion": (200, {}, {"finish_reason": "stop", "content": "{}"}, "end", "{}"),
    "cut": (200, {}, {"finish_reason": "length", "content": "{"}, "cut", "{"),
    "filtered": (200, {}, {"finish_reason": "content_filter", "content": None}, "refusal", ""),
    "refused": (200, {}, {"finish_reason": "stop", "content": None, "refusal": "I cannot."}, "refusal", "I cannot."),
    "a tool call": (200, {}, {"finish_reason": "tool_calls", "content": None}, "cut", ""),
    "half a surrogate pair": (200, {}, {"finish_reason": "stop", "content": "\ud83d"}, "end", "\\ud83d"),
    "no choices": (200, {}, '{"choices": [], "usage": {"prompt_tokens": 1}}', "unreachable", "no chat completion"),
    "a page": (200, {}, "<html>It works!</html>", "unreachable", "<html>"),
    "a wrong path": (404, {}, '{"detail": "Not Found"}', "unreachable", "Not Found"),
    "a model that is not served": (404, {}, '{"error": {"message": "no such model"}}', "denied", "no such model"),
    "vLLM of old": (404, {}, '{"object": "error", "message": "no such model"}', "denied", "no such model"),
    "a key that is not known": (401, {}, '{"error": {"message": "bad key"}}', "denied", "bad key"),
    "no money left": (429, {}, '{"error": {"message": "pay", "code": "insufficient_quota"}}', "denied", "pay"),
    "too many": (429, {"retry-after": "2"}, '{"error": {"message": "slow down"}}', "transient", "slow down"),
    "not for us": (400, {}, '{"error": {"message": "too long"}}', "rejected", "too long"),
    "broken": (500, {}, "oops", "transient", "500"),
}


@pytest.mark.parametrize("name", REPLIES)
def test_a_reply_of_the_server_is(name: str, answering: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    status, headers, body, kind, said = REPLIES[name]
    url, reply = answering
    if isinstance(body, dict):
        message = {"role": "assistant", "content": body["content"], "refusal": body.get("refusal")}
        choice = {"index": 0, "finish_reason": body["finish_reason"], "message": message}
        usage = {"prompt_tokens": 50, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 32}}
        body = json.dumps({"choices": [choice], "usage": usage})
    reply.update(status=status, headers=headers, body=body)
    monkeypatch.setenv("OPENAI_BASE_URL", f"{url}/v1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    async def ask() -> Any:
        async with ChatCompletions.connect() as server:
            request = {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "?"}]}
            return await server.ask(request, seconds=10.0)

    result = asyncio.run(ask())
    if status == 200 and kind not in ("unreachable",):
        assert (result.stop, result.text) == (kind, said)
        assert (result.input_tokens, result.output_tokens, result.cache_read_tokens) == (50, 4, 32)
    else:
        assert result.kind == kind
        assert said in result.message
        assert result.retry_after == (2.0 if headers else None)


SETTINGS: dict[str, tuple[dict[str, str], str, str]] = {
    # environment -> code, what is said
    "no address": ({}, "R0830", "no server is named"),
    "no scheme": ({"OPENAI_BASE_URL": "localhost:8000/v1"}, "R0813", "no address of a server"),
    "elsewhere without a key": ({"OPENAI_BASE_URL": "https://judge.example/v1"}, "R0812", "no API key is set"),
    "elsewhere with a blank key": (
        {"OPENAI_BASE_URL": "http://10.0.0.9/v1", "OPENAI_API_KEY": " "}, "R0812", "no API key is set",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_not_set_is_said_before_any_call(name: str, bundle: Any) -> None:
    environment, code, said = SETTINGS[name]
    bundle.constants = LOCAL
    bundle.compile()
    done = bundle.run(None, **environment)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error[{code}]: ")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 3


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://localhost:1/v1", "http://[::1]:1/v1"])
def test_a_server_on_this_machine_needs_no_key(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert ChatCompletions.connect().endpoint == url


def test_a_server_that_is_not_there_is_one_clear_error(bundle: Any, serve: Any) -> None:
    with pytest.raises(Fault) as caught:
        bundle.ask(serve(fault=lambda call: "reset"), patience=QUICK, openai=True)
    assert caught.value.code == "R0815"
    assert "OPENAI_BASE_URL" in caught.value.remedy
