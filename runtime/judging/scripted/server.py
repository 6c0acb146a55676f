"""The scripted server: routes, what is injected, and a log of what was asked."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, assert_never
from urllib.parse import parse_qsl, urlsplit

from epc.compiler.contract.prices import PRICES
from epc.runtime.judging.scripted import wire
from epc.runtime.judging.scripted.batches import Batches
from epc.runtime.judging.scripted.calls import Call, Request, Route, cached_prefix, text
from epc.runtime.judging.scripted.faults import FAULTS, by_rate
from epc.runtime.judging.scripted.http import Connection
from epc.runtime.judging.scripted.limits import Limits
from epc.runtime.judging.scripted.wire import Gone, Page, Problem, Result, Said, Usage

HOST: Final = "127.0.0.1"
KEPT: Final = 1000
CACHED_FROM: Final = 1024
"""Tokens of a marked prefix from which on it is kept in the prompt cache; models differ, this is the most common."""
ENDPOINTS: Final = (
    "/v1/messages", "/v1/messages/batches", "/v1/messages/batches/ID", "/v1/messages/batches/ID/results",
    "/v1/messages/batches/ID/cancel", "/v1/models", "/v1/chat/completions",
)  # fmt: skip
JSON: Final = "application/json"


@dataclass(frozen=True, kw_only=True)
class Injected:
    """Given by rules in place of an answer: the fault that this request meets."""

    fault: str
    text: str = "{}"
    """What would have been answered: some faults are made of it."""


Answer = Mapping[str, Any] | str | Injected
Rules = Callable[[Request], Answer]
"""Request -> fields of the reply, its text as it is, or a fault."""
Fault = Callable[[Call], str | None]
"""Call -> name of its fault, see faults.FAULTS, None for none."""


class ScriptedServer:
    """A server on loopback, on a thread of its own as long as its `with` block lasts, or `serve`d in the caller's.

    `faults` are rates by name (see faults.by_rate) or a function of the call; they meet requests about batches
    and requests in batches too. `delay` is in seconds. `hold` is awaited before a judge's request is answered.
    `limits` bound requests, input_tokens and output_tokens a minute. A batch ends after `batch_seconds`.

    `calls` are the last requests, all of them up to KEPT; `total` counts all, `injected` the faults of those
    that a judge answers, and "" those without one. `limited` counts those refused
    for a limit. `at_once` is the largest number that were open together.
    Raises OSError when the port is taken, ValueError for bad faults or limits.
    """

    def __init__(
        self, rules: Rules, *, port: int = 0, faults: Mapping[str, float] | Fault | None = None, seed: int = 0,
        delay: float = 0.0, hold: Callable[[Call], Awaitable[object]] | None = None, batch_seconds: float = 0.2,
        limits: Mapping[str, int] | None = None, models: tuple[str, ...] = tuple(PRICES),
    ) -> None:  # fmt: skip
        self.rules, self.delay, self.hold, self.models = rules, delay, hold, models
        self.fault: Fault = faults if callable(faults) else by_rate(faults or {}, seed=seed)
        self._limits = Limits(limits or {})
        self._batches = Batches(batch_seconds, seed=seed)
        self.calls: list[Call] = []
        self.injected: Counter[str] = Counter()
        self.total = self.limited = self.open = self.at_once = 0
        self._bodies: Counter[int] = Counter()
        self._cache: set[int] = set()
        self._connections: set[Connection] = set()
        self._thread: threading.Thread | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((HOST, port))
        except BaseException:
            self._socket.close()
            raise
        self.port: int = self._socket.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> Self:
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._listen(ready.set)), daemon=True)
        self._thread.start()
        ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    def serve(self, ready: Callable[[], None] = lambda: None) -> None:
        """Answer until SIGINT or SIGTERM; `ready` is called once requests are taken. Only for the main thread."""

        def listening() -> None:
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, self._stop.set)
            ready()

        asyncio.run(self._listen(listening))

    async def _listen(self, ready: Callable[[], None]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await self._loop.create_server(
            lambda: Connection(self._request, self._connections), sock=self._socket, backlog=1024
        )
        ready()
        await self._stop.wait()
        server.close()
        for _ in range(3):  # one that was just accepted appears in a later turn of the loop
            for connection in tuple(self._connections):
                connection.close()
            await asyncio.sleep(0)
        for task in tuple(self._tasks):
            task.cancel()

    # ------------------------------------------------------------------ a request

    def _request(self, connection: Connection, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        """Answer at once, or after what it has to wait for."""
        self.open += 1
        self.at_once = max(self.at_once, self.open)
        parts = urlsplit(target)
        path = parts.path.rstrip("/")
        route, name = _route(method, path)
        openai = path.startswith("/v1/chat")
        if route is None:
            problem = Problem(status=404, message=f"no {method} {path} here; there is {', '.join(ENDPOINTS)}")
            self._finish(connection, 404, wire.encode(wire.error(problem, self.total, openai=openai)))
            return
        try:
            request = json.loads(body) if body else {}
        except ValueError:
            request = None
        call = self._logged(route, request, headers, body or target.encode("utf-8"))
        if route not in ("messages", "chat"):
            self._about(connection, call, name, dict(parse_qsl(parts.query)))
        elif self.hold is not None:
            task = self._loop.create_task(self._held(self.hold, connection, call))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif self.delay:
            self._loop.call_later(self.delay, self._asked, connection, call)
        else:
            self._asked(connection, call)

    async def _held(self, hold: Callable[[Call], Awaitable[object]], connection: Connection, call: Call) -> None:
        await hold(call)
        await asyncio.sleep(self.delay)
        self._asked(connection, call)

    def _logged(self, route: Route, request: Any, headers: Mapping[str, str], body: bytes) -> Call:
        digest = int.from_bytes(hashlib.blake2b(body, digest_size=8).digest(), "big")
        call = Call(
            number=self.total, nth=self._bodies[digest], digest=digest, route=route, request=request, headers=headers
        )
        self._bodies[digest] += 1
        self.total += 1
        self.calls.append(call)
        if len(self.calls) >= 2 * KEPT:
            del self.calls[:KEPT]
        return call

    # ------------------------------------------------------------------ what a judge answers

    def _asked(self, connection: Connection, call: Call) -> None:
        refused = self._refused(call)
        usage = Usage(input=0) if refused else self._usage(call.request)
        wait = None if refused else self._limits.take(usage.input + usage.cache_write)
        if wait is not None:
            self.limited += 1
            told = {"retry-after": f"{wait:.3f}"}
            refused = Problem(status=429, message="This request would exceed a rate limit.", headers=told)
        self._send(connection, call, refused or self._result(call), lambda said: self._reply(call, said, usage))

    def _refused(self, call: Call) -> Problem | None:
        """What the real interface would refuse before it asks any model."""
        headers, openai = call.headers, call.route == "chat"
        if call.route == "messages":
            if not (headers.get("x-api-key") or headers.get("authorization")):
                return Problem(status=401, message="x-api-key header is required")
            if not headers.get("anthropic-version"):
                return Problem(status=400, message="anthropic-version: header is required")
        flaw = wire.flaw(call.request, openai=openai)
        return None if flaw is None else Problem(status=400, message=flaw)

    def _result(self, call: Call) -> Result:
        """The reply that the rules give, or the fault that meets the call."""
        try:
            name, answered = self.fault(call), self.rules(call.request)
        except Exception as error:  # of whoever wrote the rules: to be seen by the client, which waits
            return Problem(status=500, message=f"the rules failed: {type(error).__name__}: {error}")
        if isinstance(answered, Injected):
            name, said = answered.fault, answered.text
        else:
            said = answered if isinstance(answered, str) else json.dumps(answered)
        self.injected[name or ""] += 1
        return Said(text=said) if name is None else FAULTS[name](call, said)

    def _usage(self, request: Request) -> Usage:
        sent = wire.tokens(text(request))
        prefix = cached_prefix(request)
        size = wire.tokens(prefix)
        if size < CACHED_FROM:
            return Usage(input=sent)
        known = hash((request.get("model"), prefix))
        if known in self._cache:
            return Usage(input=sent - size, cache_read=size)
        self._cache.add(known)
        return Usage(input=sent - size, cache_write=size)

    def _reply(self, call: Call, said: Said, usage: Usage) -> bytes:
        make = wire.completion if call.route == "chat" else wire.message
        body = make(said, call.request, usage, call.number)
        self._limits.came(wire.output_tokens(said))
        return wire.encode(body)

    def _item(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """What becomes of one request of a batch."""
        call = self._logged("item", params, {}, wire.encode(params))
        flaw = wire.flaw(params)
        result: Result = Problem(status=400, message=flaw) if flaw else self._result(call)
        match result:
            case Said(cut=None):
                return {
                    "type": "succeeded",
                    "message": wire.message(result, params, self._usage(params), call.number),
                }
            case Gone(how="silent"):
                return {"type": "expired"}
            case Problem():
                return {"type": "errored", "error": wire.error(result, call.number)}
            case Said() | Page() | Gone():
                broken = Problem(status=500, message="internal error")
                return {"type": "errored", "error": wire.error(broken, call.number)}
            case _:
                assert_never(result)

    # ------------------------------------------------------------------ batches and models

    def _about(self, connection: Connection, call: Call, name: str, query: Mapping[str, str]) -> None:
        fault = self.fault(call)
        result: Result = Said(text="") if fault is None else FAULTS[fault](call, "")
        self._send(connection, call, result, lambda said: self._done(call, name, query))

    def _done(self, call: Call, name: str, query: Mapping[str, str]) -> bytes | Problem:
        """Do what is asked for about batches or models."""
        match call.route:
            case "models":
                found = wire.models((name,) if name else self.models)
                return wire.encode(found["data"][0] if name else found)
            case "create":
                batch = self._batches.create(call.request)
            case "list":
                page = self._batches.page(query)
                if isinstance(page, Problem):
                    return page
                rows, more = page
                for row in rows:
                    row.advance(self._item)
                ids = [row.id for row in rows]
                shown = {"data": [row.shown(self.url) for row in rows], "has_more": more}
                return wire.encode({**shown, "first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None})
            case "retrieve" | "results" | "cancel":
                batch = self._batches.find(name)
            case "messages" | "chat" | "item":
                raise AssertionError(call.route)
            case _:
                assert_never(call.route)
        if isinstance(batch, Problem):
            return batch
        if call.route == "cancel":
            batch.cancel(self._item)
        else:
            batch.advance(self._item)
        if call.route != "results":
            return wire.encode(batch.shown(self.url))
        if batch.ended_at is None:
            return Problem(status=404, message=f"batch {batch.id} has not ended")
        return b"".join(batch.lines)

    # ------------------------------------------------------------------ what goes over the wire

    def _send(
        self, connection: Connection, call: Call, result: Result, make: Callable[[Said], bytes | Problem]
    ) -> None:
        openai = call.route == "chat"
        headers: Mapping[str, str] = {}
        kind, status = JSON, 200
        match result:
            case Gone():
                if result.how == "lost":
                    make(Said(text=""))
                self.open -= 1
                if result.how != "silent":
                    connection.reset()
                return
            case Said():
                made = make(result)
                if isinstance(made, Problem):
                    status, body = made.status, wire.encode(wire.error(made, call.number, openai=openai))
                else:
                    body = made[: result.cut]
                    kind = "application/x-jsonl" if call.route == "results" else JSON
            case Problem():
                status, headers = result.status, result.headers
                body = wire.encode(wire.error(result, call.number, openai=openai))
            case Page():
                status, kind, body = result.status, result.content_type, result.body.encode("utf-8")
            case _:
                assert_never(result)
        self._finish(connection, status, body, kind, headers, number=call.number)

    def _finish(
        self, connection: Connection, status: int, body: bytes, kind: str = JSON, headers: Mapping[str, str] | None = None,
        *, number: int = 0,
    ) -> None:  # fmt: skip
        self.open -= 1
        head = {"content-type": kind, "request-id": f"req_{number:024d}", **self._limits.headers(), **(headers or {})}
        connection.send(status, body, head)


def _route(method: str, path: str) -> tuple[Route | None, str]:
    """What is asked for, and of which batch or model."""
    match method, path.split("/")[1:]:
        case "POST", ["v1", "messages"]:
            return "messages", ""
        case "POST", ["v1", "chat", "completions"]:
            return "chat", ""
        case "POST", ["v1", "messages", "batches"]:
            return "create", ""
        case "GET", ["v1", "messages", "batches"]:
            return "list", ""
        case "GET", ["v1", "messages", "batches", name]:
            return "retrieve", name
        case "GET", ["v1", "messages", "batches", name, "results"]:
            return "results", name
        case "POST", ["v1", "messages", "batches", name, "cancel"]:
            return "cancel", name
        case "GET", ["v1", "models"]:
            return "models", ""
        case "GET", ["v1", "models", *name]:
            return "models", "/".join(name)
        case _:
            return None, ""
