"""What a server may answer about batches, against what is made of it, with the real SDK."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from anthropic import AsyncAnthropic

from epc.runtime.judging.providers.batches import PAGE, BatchError, Batches
from epc.runtime.judging.replies import Answer, Failure

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
REQUEST = {"model": "claude-sonnet-5", "max_tokens": 5, "messages": [{"role": "user", "content": "?"}]}
Serve = Callable[[str], tuple[int, Sequence[bytes], int]]
"""Target of a request -> status, pieces of the body as they are sent, bytes that the header promises beyond them."""
SECONDS = 20.0


def from_server(serve: Serve, ask: Callable[[Batches], Awaitable[Any]]) -> Any:
    """What a call brings from a server that answers so."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.lower().split(b"\r\n")
                await reader.readexactly(next((int(line[15:]) for line in lines if line[:15] == b"content-length:"), 0))
                status, pieces, beyond = serve(head.split(b" ")[1].decode())
                size = sum(map(len, pieces)) + beyond
                writer.write(f"HTTP/1.1 {status} x\r\ncontent-type: text/x\r\ncontent-length: {size}\r\n\r\n".encode())
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.01)
                if beyond:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def main() -> Any:
        server = await asyncio.start_server(connection, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, Batches(AsyncAnthropic(api_key="sk", base_url=url, max_retries=0)) as batches:
            return await ask(batches)

    return asyncio.run(main())


def shown(name: str = "b", **changed: Any) -> dict[str, Any]:
    """A batch that has ended."""
    counts = {"processing": 0, "succeeded": 3, "errored": 1, "canceled": 0, "expired": 0}
    return {
        "id": name, "type": "message_batch", "processing_status": "ended", "request_counts": counts,
        "created_at": NOW.isoformat(), "expires_at": NOW.isoformat(), "cancel_initiated_at": None,
        "results_url": f"/v1/messages/batches/{name}/results", **changed,
    }  # fmt: skip


def body(entry: Any) -> tuple[int, Sequence[bytes], int]:
    return 200, [json.dumps(entry).encode()], 0


def message(text: str) -> dict[str, Any]:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 30, "output_tokens": 4}
    return {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "usage": usage}


def errored(kind: str, *, nested: bool = True) -> dict[str, Any]:
    inner = {"type": kind, "message": "because"}
    return {"type": "errored", "error": {"type": "error", "error": inner} if nested else inner}


LINES: dict[str, tuple[Any, str | None]] = {
    # a line of the results -> what is made of it: text of the reply, kind of the failure, None where it is no result
    "succeeded": ({"custom_id": "k", "result": {"type": "succeeded", "message": message("yes")}}, "yes"),
    "half a surrogate pair": (
        {"custom_id": "k", "result": {"type": "succeeded", "message": message("\ud83d")}},
        "\\ud83d",
    ),
    "line separators in a text": (
        {"custom_id": "k", "result": {"type": "succeeded", "message": message("a\u2028b\x85c\n")}},
        "a\u2028b\x85c\n",
    ),
    "a message without content": (
        {"custom_id": "k", "result": {"type": "succeeded", "message": {"usage": {}}}},
        "unreachable",
    ),
    "an invalid request": ({"custom_id": "k", "result": errored("invalid_request_error")}, "rejected"),
    "an invalid request, flat": ({"custom_id": "k", "result": errored("invalid_request_error", nested=False)}, "rejected"),
    "no permission": ({"custom_id": "k", "result": errored("permission_error")}, "denied"),
    "overloaded": ({"custom_id": "k", "result": errored("overloaded_error")}, "transient"),
    "an error that is not known": ({"custom_id": "k", "result": errored("new_error")}, "transient"),
    "expired": ({"custom_id": "k", "result": {"type": "expired"}}, "transient"),
    "canceled": ({"custom_id": "k", "result": {"type": "canceled"}}, "transient"),
    "no result": ({"custom_id": "k"}, None),
    "an error that is a text": ({"custom_id": "k", "result": {"type": "errored", "error": "x"}}, None),
    "no custom id": ({"result": {"type": "expired"}}, None),
    "a custom id that is a number": ({"custom_id": 3, "result": {"type": "expired"}}, None),
    "a list": ([], None),
}  # fmt: skip


async def read(batches: Batches) -> list[tuple[str, Answer | Failure]]:
    return [one async for results in batches.results("b", seconds=SECONDS) for one in results]


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("name", LINES)
def test_a_line_of_the_results(name: str, raw: bool) -> None:
    line, expected = LINES[name]
    text = json.dumps(line, ensure_ascii=not raw).encode("utf-8", "backslashreplace") + b"\n"
    other = json.dumps({"custom_id": "other", "result": {"type": "expired"}}).encode()  # last, and without its newline
    whole = b"garbage\n\n" + text + other
    pieces = [whole[start : start + 7] for start in range(0, len(whole), 7)]  # through characters of several bytes

    def serve(target: str) -> tuple[int, Sequence[bytes], int]:
        return (200, pieces, 0) if target.endswith("/results") else body(shown())

    found = dict(from_server(serve, read))
    assert set(found) == ({"k", "other"} if expected is not None else {"other"})
    if expected is not None:
        result = found["k"]
        assert (result.text if isinstance(result, Answer) else result.kind) == expected
        if isinstance(result, Answer):
            assert (result.input_tokens, result.cache_read_tokens, result.output_tokens) == (40, 30, 4)


def test_results_that_break_off_are_given_as_far_as_they_came() -> None:
    line = json.dumps({"custom_id": "k", "result": {"type": "expired"}}).encode() + b"\n"
    found: list[str] = []

    async def ask(batches: Batches) -> None:
        async for results in batches.results("b", seconds=SECONDS):
            found.extend(name for name, _ in results)

    def serve(target: str) -> tuple[int, Sequence[bytes], int]:
        return (200, [line, line[:9]], 50) if target.endswith("/results") else body(shown())

    with pytest.raises(BatchError) as caught:
        from_server(serve, ask)
    assert found == ["k"]
    assert caught.value.failure.kind == "unreachable"


STATUSES: dict[int, tuple[str, bool]] = {
    # HTTP status of an error of the API -> kind of the failure, whether a batch may have been made all the same
    400: ("rejected", False), 401: ("denied", False), 403: ("denied", False), 404: ("denied", False),
    413: ("rejected", False), 429: ("transient", False), 529: ("transient", False), 500: ("transient", True),
    502: ("transient", True), 503: ("transient", True), 504: ("transient", True),
}  # fmt: skip


@pytest.mark.parametrize("status", STATUSES)
def test_what_a_refused_create_means(status: int) -> None:
    kind, in_doubt = STATUSES[status]
    said = json.dumps({"type": "error", "error": {"type": "x", "message": "because"}}).encode()
    with pytest.raises(BatchError, match="because") as caught:
        from_server(
            lambda target: (status, [said], 0), lambda batches: batches.create([("k", REQUEST)], seconds=SECONDS)
        )
    error = caught.value
    assert (error.failure.kind, error.in_doubt, error.status) == (kind, in_doubt, status)


BODIES: dict[str, bytes] = {
    "a page": b"<html>It works!</html>",
    "nothing": b"",
    "no batch": b'{"ok": true}',
    "a list": b"[]",
    "an unknown status": json.dumps(shown(processing_status="thinking")).encode(),
    "a day that is none": json.dumps(shown(created_at="yesterday")).encode(),
    "no id": json.dumps(shown(name="b", id=None)).encode(),
    "counts that are none": json.dumps(shown(request_counts={"processing": "many"})).encode(),
    "broken off": json.dumps(shown()).encode()[:40],
}


@pytest.mark.parametrize("call", ["create", "state", "listed"])
@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_is_no_batch_is_nobody_who_speaks_the_protocol(name: str, call: str) -> None:
    calls: dict[str, Callable[[Batches], Awaitable[Any]]] = {
        "create": lambda batches: batches.create([("k", REQUEST)], seconds=SECONDS),
        "state": lambda batches: batches.state("b", seconds=SECONDS),
        "listed": lambda batches: batches.listed(NOW, seconds=SECONDS),
    }
    with pytest.raises(BatchError) as caught:
        from_server(lambda target: (200, [BODIES[name]], 0), calls[call])
    assert (caught.value.failure.kind, caught.value.in_doubt) == ("unreachable", True)


def test_nobody_there_and_nobody_who_answers() -> None:
    async def ask(batches: Batches) -> None:
        await batches.create([("k", REQUEST)], seconds=0.3)

    async def nobody() -> None:
        async with Batches(AsyncAnthropic(api_key="sk", base_url="http://127.0.0.1:9", max_retries=0)) as batches:
            await ask(batches)

    with pytest.raises(BatchError) as refused:
        asyncio.run(nobody())
    assert (refused.value.failure.kind, refused.value.in_doubt) == ("unreachable", False)
    with pytest.raises(BatchError, match="no reply within 0 s") as silent:
        from_server(lambda target: (200, [b" "] * 200, 0), ask)
    assert (silent.value.failure.kind, silent.value.in_doubt) == ("transient", True)


def test_the_list_is_read_as_far_back_as_it_must_be() -> None:
    batches = [shown(f"b{hours}", created_at=(NOW - timedelta(hours=hours)).isoformat()) for hours in range(10)]
    pages: list[str | None] = []

    def serve(target: str) -> tuple[int, Sequence[bytes], int]:
        query = parse_qs(urlsplit(target).query)
        assert query["limit"] == [str(PAGE)]
        after = query.get("after_id", [None])[0]
        pages.append(after)
        start = 0 if after is None else int(after[1:]) + 1
        return body({"data": batches[start : start + 2], "has_more": start + 2 < len(batches)})

    def listed(hours: float) -> list[str]:
        async def ask(provider: Batches) -> list[str]:
            since = NOW - timedelta(hours=hours)
            return [state.id for state in await provider.listed(since, seconds=SECONDS)]

        found: list[str] = from_server(serve, ask)
        return found

    assert listed(2.5) == ["b0", "b1", "b2"]
    assert pages == [None, "b1"]
    assert listed(1000) == [f"b{hours}" for hours in range(10)]


def test_what_is_known_of_a_batch() -> None:
    counts = {"processing": 7, "succeeded": 0, "errored": 0, "canceled": 0, "expired": 0, "of a kind to come": 2}
    entry = shown(
        processing_status="canceling", results_url=None, request_counts=counts, cancel_initiated_at=NOW.isoformat(),
        created_at="2026-11-20T12:00:00.123456Z",
    )  # fmt: skip
    state = from_server(lambda target: body(entry), lambda batches: batches.state("b", seconds=SECONDS))
    assert (state.requests, state.ended, state.cancelled, state.results) == (9, False, True, False)
    assert state.created_at - NOW == timedelta(microseconds=123456)
