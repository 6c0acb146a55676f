"""The scripted server as clients see it: the SDK, a plain socket, OpenAI's requests; its faults and limits."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping
from typing import Any

import anthropic
import pytest

from epc.runtime.judging import replies
from epc.runtime.judging.scripted import rules
from epc.runtime.judging.scripted.faults import FAULTS
from epc.runtime.judging.scripted.server import KEPT, ScriptedServer

pytestmark = pytest.mark.filterwarnings("ignore:The model .* is deprecated:DeprecationWarning")
OUTPUT = {"aligned": "20..30", "harmful": "bool"}
MODEL = "claude-sonnet-4-5-20250929"


def request(text: str, **more: Any) -> dict[str, Any]:
    schema = replies.schema(OUTPUT)
    return {
        "model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": text}],
        "output_config": {"format": {"type": "json_schema", "schema": schema}}, **more,
    }  # fmt: skip


def client(server: ScriptedServer) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="any", base_url=server.url, max_retries=0)


def post(server: ScriptedServer, path: str, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and body of a request made by hand."""
    asked = urllib.request.Request(server.url + path, body, {name.replace("_", "-"): v for name, v in headers.items()})
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.fixture
def server() -> Any:
    with ScriptedServer(rules.automatic([OUTPUT])) as running:
        yield running


def test_automatic_answers_obey_schema_and_range_and_never_change(server: ScriptedServer) -> None:
    sdk = client(server)
    texts = [f"text {number}" for number in range(40)]
    first = [json.loads(sdk.messages.create(**request(text)).content[0].text) for text in texts]
    assert all(set(found) == {"aligned", "harmful"} for found in first)
    assert {found["aligned"] for found in first} <= set(range(20, 31))
    assert len({found["aligned"] for found in first}) > 5
    assert {found["harmful"] for found in first} == {True, False}
    with ScriptedServer(rules.automatic([OUTPUT])) as another:
        again = [json.loads(client(another).messages.create(**request(text)).content[0].text) for text in texts]
    assert again == first
    with ScriptedServer(rules.automatic([OUTPUT], seed=1)) as other:
        assert [json.loads(client(other).messages.create(**request(text)).content[0].text) for text in texts] != first


def test_a_message_is_what_the_sdk_expects(server: ScriptedServer) -> None:
    message = client(server).messages.create(**request("How?"))
    assert (message.type, message.role, message.stop_reason, message.model) == (
        "message",
        "assistant",
        "end_turn",
        MODEL,
    )
    assert message.usage.input_tokens == 1
    assert message.usage.output_tokens > 0
    assert next(model.id for model in client(server).models.list()).startswith("claude")
    assert client(server).models.retrieve(MODEL).id == MODEL


def test_a_marked_prefix_is_written_to_the_cache_once_and_then_read(server: ScriptedServer) -> None:
    def blocks(rest: str) -> list[Any]:
        return [
            {"type": "text", "text": "rubric " * 1000, "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": rest},
        ]

    usage = [
        client(server).messages.create(**request("", messages=[{"role": "user", "content": blocks(rest)}])).usage
        for rest in ("one", "another")
    ]
    assert [each.cache_creation_input_tokens for each in usage] == [1750, 0]
    assert [each.cache_read_input_tokens for each in usage] == [0, 1750]
    assert server.calls[0].message == "rubric " * 1000 + "one"


def test_chat_completions_with_a_schema(server: ScriptedServer) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "reply", "schema": replies.schema(OUTPUT)}}
    body = {"model": "local", "messages": [{"role": "user", "content": "How?"}], "response_format": form}
    status, found = post(server, "/v1/chat/completions", json.dumps(body).encode())
    assert status == 200
    assert found["choices"][0]["finish_reason"] == "stop"
    by_chat = json.loads(found["choices"][0]["message"]["content"])
    assert by_chat == json.loads(client(server).messages.create(**request("How?")).content[0].text)
    assert found["usage"]["total_tokens"] == found["usage"]["prompt_tokens"] + found["usage"]["completion_tokens"]
    assert (
        post(server, "/v1/chat/completions", b'{"model": "local"}')[1]["error"]["message"] == "messages: Field required"
    )


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    # what is wrong with a request -> status, what is said, as the real interface does
    "no max_tokens": ({"max_tokens": None}, 400, "max_tokens: Input should be a valid int"),
    "no messages": ({"messages": []}, 400, "messages: Input should be a valid list"),
    "a role that is none": ({"messages": [{"role": "tool", "content": "x"}]}, 400, "role: Input should be 'user'"),
    "content that is none": ({"messages": [{"role": "user", "content": 5}]}, 400, "content: Input should be a valid string"),
    "nothing said": ({"messages": [{"role": "user", "content": " "}]}, 400, "must be non-empty"),
    "bounds in the schema": (
        {"output_config": {"format": {"type": "json_schema", "schema": {
            "type": "object", "properties": {"a": {"type": "integer", "minimum": 0}}, "additionalProperties": False}}}},
        400, "property 'minimum' is not supported",
    ),
    "an open schema": (
        {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object", "properties": {}}}}},
        400, "'additionalProperties' must be explicitly set to false",
    ),
    "a schema that is none": ({"output_config": {"format": 7}}, 400, "output_config.format"),
    "a config that is none": ({"output_config": "json"}, 400, "output_config: Input should be an object"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_real_interface_refuses_is_refused(name: str, server: ScriptedServer) -> None:
    change, status, said = REFUSED[name]
    body = json.dumps(request("x") | change).encode()
    found = post(server, "/v1/messages", body, x_api_key="k", anthropic_version="2023-06-01")
    assert found[0] == status
    assert said in found[1]["error"]["message"]
    assert found[1]["error"]["type"] == "invalid_request_error"
    assert server.injected == {}


def test_key_version_body_and_address_are_looked_at(server: ScriptedServer) -> None:
    body = json.dumps(request("x")).encode()
    assert post(server, "/v1/messages", body, anthropic_version="1")[0] == 401
    assert post(server, "/v1/messages", body, x_api_key="k")[0] == 400
    assert post(server, "/v1/messages", b"{", x_api_key="k", anthropic_version="1")[0] == 400
    status, found = post(server, "/v2/messages", body)
    assert (status, found["error"]["type"]) == (404, "not_found_error")
    assert "/v1/messages/batches" in found["error"]["message"]


def test_rules_that_fail_say_so_to_the_client() -> None:
    def broken(request: Mapping[str, Any]) -> str:
        raise KeyError("aligned")

    with (
        ScriptedServer(broken) as server,
        pytest.raises(anthropic.InternalServerError, match="the rules failed: KeyError"),
    ):
        client(server).messages.create(**request("x"))


# Fault -> what the SDK makes of it: an error by its name, or what is in the message.
SEEN: dict[str, str] = {
    "429": "RateLimitError", "429 retry-after": "RateLimitError", "429 retry-after long": "RateLimitError",
    "529": "OverloadedError", "500": "InternalServerError", "503 html": "ServiceUnavailableError",
    "401": "AuthenticationError", "403": "PermissionDeniedError", "404": "NotFoundError", "413": "ContentTooLargeError", "400": "BadRequestError",
    "reset": "APIConnectionError", "lost reply": "APIConnectionError", "broken body": "JSONDecodeError",
    "page": "", "not a message": "None", "errored": "InternalServerError", "no reply": "APITimeoutError",
    "empty": "[]", "refusal": "I will not rate this.", "refusal empty": "[]", "max_tokens": '{"aligned":',
    "no JSON": "It is rather aligned.", "fenced": "```json", "out of range": "1000000",
}  # fmt: skip


@pytest.mark.parametrize("name", SEEN)
def test_every_fault_reaches_the_client(name: str) -> None:
    assert set(SEEN) == set(FAULTS)
    with ScriptedServer(lambda request: {"aligned": 25, "harmful": False}, faults=lambda call: name) as server:
        try:
            found = client(server).messages.create(**request("x"), timeout=0.5 if name == "no reply" else 30.0)
            seen = str(getattr(found, "content", found))
        except (anthropic.APIError, ValueError) as error:
            seen = type(error).__name__
            assert seen == SEEN[name]
        assert SEEN[name] in seen
        assert server.injected == {name: 1}
        assert server.open == 0


def test_a_429_tells_how_long_to_wait() -> None:
    with ScriptedServer(rules.automatic(), faults={"429 retry-after long": 1.0}) as server:
        with pytest.raises(anthropic.RateLimitError) as caught:
            client(server).messages.create(**request("x"))
        assert caught.value.response.headers["retry-after"] == "86400"


def test_rates_are_drawn_from_the_request_and_not_from_the_order() -> None:
    def faults_of(texts: list[str], seed: int = 0) -> dict[str, list[str]]:
        met: dict[str, list[str]] = {}
        with ScriptedServer(rules.automatic(), faults={"529": 0.3, "no JSON": 0.2}, seed=seed) as server:
            sdk = client(server)
            for text in texts:
                try:
                    met.setdefault(text, []).append(sdk.messages.create(**request(text)).content[0].text[:3])
                except anthropic.APIStatusError as error:
                    met.setdefault(text, []).append(str(error.status_code))
            assert server.injected.total() == len(texts)
        return met

    texts = [f"text {number}" for number in range(60)]
    first = faults_of(texts + texts)
    assert first == faults_of(texts + texts[::-1])
    assert first != faults_of(texts + texts, seed=1)
    counts = Counter(each for met in first.values() for each in met)
    assert 20 <= counts["529"] <= 52
    assert 10 <= counts["It "] <= 40


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ({"428": 0.1}, "no fault is called '428'; '429'"),
        ({"429": 1.5}, "must lie between 0 and 1"),
        ({"429": 0.6, "529": 0.6}, "together are 1.2"),
    ],
)
def test_rates_that_cannot_be(faults: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ScriptedServer(rules.automatic(), faults=faults)


def test_limits_are_told_and_enforced() -> None:
    with ScriptedServer(rules.automatic(), limits={"requests": 3, "output_tokens": 1000}) as server:
        sdk = client(server)
        left = []
        for number in range(3):
            headers = sdk.messages.with_raw_response.create(**request(f"text {number}")).headers
            assert headers["anthropic-ratelimit-requests-limit"] == "3"
            assert "anthropic-ratelimit-input-tokens-limit" not in headers
            left.append(headers["anthropic-ratelimit-requests-remaining"])
            assert 900 < int(headers["anthropic-ratelimit-output-tokens-remaining"]) < 1000
        assert left == ["2", "1", "0"]
        with pytest.raises(anthropic.RateLimitError) as caught:
            sdk.messages.create(**request("one too many"))
        assert 0 < float(caught.value.response.headers["retry-after"]) <= 20
        assert (server.limited, server.injected[""], server.total) == (1, 3, 4)


@pytest.mark.parametrize("limits", [{"requests": 0}, {"tokens": 5}])
def test_limits_that_cannot_be(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="no such limit"):
        ScriptedServer(rules.automatic(), limits=limits)


def test_many_at_once_and_the_log_stays_small(server: ScriptedServer) -> None:
    def exchange() -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as plain:
            one = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n"
            plain.sendall((one + b"\r\n") * (2 * KEPT + 9) + one + b"connection: close\r\n\r\n")  # pipelined
            got = b"".join(iter(lambda: plain.recv(1 << 16), b""))
        assert got.count(b"HTTP/1.1 200 OK") == 2 * KEPT + 10

    exchange()
    assert server.total == 2 * KEPT + 10
    assert KEPT <= len(server.calls) < 2 * KEPT
    assert server.calls[-1].number == server.total - 1
    assert server.calls[-1].nth == server.total - 1


BYTES: dict[str, tuple[bytes, bytes]] = {
    # what a client sends -> how the answer begins
    "no HTTP": (b"hello\r\n\r\n", b"HTTP/1.1 400"),
    "chunks": (b"POST /v1/messages HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n", b"HTTP/1.1 411"),
    "a length that is none": (b"POST /v1/messages HTTP/1.1\r\ncontent-length: ten\r\n\r\n", b"HTTP/1.1 400"),
    "too long a body": (b"POST /v1/messages HTTP/1.1\r\ncontent-length: 999999999999\r\n\r\n", b"HTTP/1.1 413"),
    "a head without end": (b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000, b"HTTP/1.1 431"),
    "one that asks before it sends": (
        b"POST /v1/messages HTTP/1.1\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n", b"HTTP/1.1 100",
    ),
    "one that closes": (b"GET /v1/models HTTP/1.1\r\nconnection: close\r\n\r\n", b"HTTP/1.1 200"),
}  # fmt: skip


@pytest.mark.parametrize("name", BYTES)
def test_http_by_hand(name: str, server: ScriptedServer) -> None:
    sent, begins = BYTES[name]
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as plain:
        plain.sendall(sent)
        assert plain.recv(1 << 16).startswith(begins)
        if name != "one that asks before it sends":
            assert plain.recv(1 << 16) == b""
    assert client(server).messages.create(**request("x")).stop_reason == "end_turn"


def test_a_request_may_come_in_pieces(server: ScriptedServer) -> None:
    body = json.dumps(request("x")).encode()
    head = f"POST /v1/messages HTTP/1.1\r\nX-API-Key: k\r\nAnthropic-Version: 1\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as plain:
        for byte in head.encode() + body[:-1]:
            plain.sendall(bytes([byte]))
        plain.sendall(body[-1:])
        assert b'"stop_reason":"end_turn"' in plain.recv(1 << 16)


def test_it_listens_on_loopback_only_and_ends(server: ScriptedServer) -> None:
    assert server.url == f"http://127.0.0.1:{server.port}"
    with pytest.raises(OSError, match="in use"):
        ScriptedServer(rules.automatic(), port=server.port)
    with ScriptedServer(rules.automatic()) as short:
        port = short.port
        open_one = socket.create_connection(("127.0.0.1", port), timeout=30)
        open_one.sendall(b"GET /v1/models HTTP/1.1\r\n\r\n")
        assert open_one.recv(1 << 16).startswith(b"HTTP/1.1 200")
    assert open_one.recv(1) == b""
    open_one.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=30)
    with ScriptedServer(rules.automatic(), port=port) as again:
        assert again.port == port


def test_replies_may_be_held_until_others_have_come() -> None:
    together = asyncio.Barrier(3)

    async def hold(call: Any) -> None:
        await together.wait()

    async def main(server: ScriptedServer) -> None:
        async with anthropic.AsyncAnthropic(api_key="any", base_url=server.url, max_retries=0) as sdk:
            await asyncio.gather(*(sdk.messages.create(**request(f"text {number}")) for number in range(3)))

    with ScriptedServer(rules.automatic(), hold=hold) as server:
        asyncio.run(main(server))
        assert (server.at_once, server.open, server.total) == (3, 0, 3)
