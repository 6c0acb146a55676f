"""A server on loopback that speaks Anthropic's Messages protocol: scripted answers, faults on demand.

>>> with AnthropicServer(lambda request: {"aligned": 80}) as server:
...     os.environ["ANTHROPIC_BASE_URL"] = server.url

Standard library only. Every request is logged with its headers; `at_once` is the largest number of
requests that were open together.
"""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

Request = dict[str, Any]
"""Body of a request to /v1/messages."""
Answer = Callable[[Request], Mapping[str, Any] | str]
"""Request -> fields of the reply, or its text as it is."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """A request as it came."""

    number: int
    """Of all requests, from 0."""
    nth: int
    """Of the requests with this same body, from 0."""
    request: Request
    headers: Mapping[str, str]

    @property
    def message(self) -> str:
        return str(self.request["messages"][0]["content"])


@dataclass(frozen=True, kw_only=True)
class Response:
    """What goes over the wire; status 0 resets the connection instead."""

    body: str = ""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def message(text: str, *, stop_reason: str = "end_turn", empty: bool = False, request: Request | None = None) -> str:
    """A Messages reply. Four characters count as a token."""
    asked = len(json.dumps(request or {})) // 4
    return json.dumps(
        {
            "id": "msg_scripted", "type": "message", "role": "assistant", "model": (request or {}).get("model", ""),
            "content": [] if empty else [{"type": "text", "text": text}], "stop_reason": stop_reason,
            "stop_sequence": None, "usage": {"input_tokens": asked, "output_tokens": len(text) // 4},
        }
    )  # fmt: skip


def error(status: int, kind: str, text: str, **headers: str) -> Response:
    """An error reply of the API."""
    body = json.dumps({"type": "error", "error": {"type": kind, "message": text}})
    return Response(
        body=body, status=status, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def _outside(call: Call, text: str) -> Response:
    fields = json.loads(text)
    schema = call.request["output_config"]["format"]["schema"]["properties"]
    name = next(name for name, kind in schema.items() if kind["type"] == "integer")
    return Response(body=message(json.dumps({**fields, name: 10**6}), request=call.request))


FAULTS: dict[str, Callable[[Call, str], Response]] = {
    # name -> (call, what would have been answered) -> what is sent
    "429": lambda call, text: error(429, "rate_limit_error", "slow down"),
    "429 retry-after": lambda call, text: error(429, "rate_limit_error", "slow down", retry_after="0.01"),
    "429 retry-after long": lambda call, text: error(429, "rate_limit_error", "slow down", retry_after="86400"),
    "529": lambda call, text: error(529, "overloaded_error", "overloaded"),
    "500": lambda call, text: error(500, "api_error", "internal error"),
    "503 html": lambda call, text: Response(body="<html>bad gateway</html>", status=503),
    "400": lambda call, text: error(400, "invalid_request_error", "messages: too long"),
    "401": lambda call, text: error(401, "authentication_error", "invalid x-api-key"),
    "403": lambda call, text: error(403, "permission_error", "not allowed"),
    "404": lambda call, text: error(404, "not_found_error", f"model: {call.request['model']}"),
    "reset": lambda call, text: Response(status=0),
    "broken body": lambda call, text: Response(body=message(text, request=call.request)[:40]),
    "page": lambda call, text: Response(body="<html>It works!</html>", headers={"content-type": "text/html"}),
    "not a message": lambda call, text: Response(body='{"ok": true}'),
    "empty": lambda call, text: Response(body=message("", empty=True, request=call.request)),
    "refusal": lambda call, text: Response(
        body=message("I will not rate this.", stop_reason="refusal", request=call.request)
    ),
    "refusal empty": lambda call, text: Response(
        body=message("", stop_reason="refusal", empty=True, request=call.request)
    ),
    "max_tokens": lambda call, text: Response(
        body=message(text[: len(text) // 2], stop_reason="max_tokens", request=call.request)
    ),
    "no JSON": lambda call, text: Response(body=message("It is rather aligned.", request=call.request)),
    "fenced": lambda call, text: Response(body=message(f"```json\n{text}\n```", request=call.request)),
    "out of range": _outside,
}


class AnthropicServer:
    """The server; its port is free once the `with` block ends. `fault` names the fault of a call, None for none."""

    def __init__(
        self, answer: Answer, *, fault: Callable[[Call], str | None] | None = None, delay: float = 0.0, port: int = 0
    ) -> None:
        self.answer, self.fault, self.delay = answer, fault or (lambda call: None), delay
        self.calls: list[Call] = []
        self.open = self.at_once = 0
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler(), bind_and_activate=False)
        self._server.daemon_threads = True
        self._server.request_queue_size = 256
        self._server.server_bind()
        self._server.server_activate()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def respond(self, body: bytes, headers: Mapping[str, str]) -> Response:
        """What a request is answered with; the request is logged."""
        request: Request = json.loads(body)
        with self._lock:
            known = body.decode("utf-8")
            call = Call(number=len(self.calls), nth=self._seen[known], request=request, headers=headers)
            self._seen[known] += 1
            self.calls.append(call)
            self.open += 1
            self.at_once = max(self.at_once, self.open)
        try:
            if self.delay:
                time.sleep(self.delay)
            name = self.fault(call)
            answered = self.answer(request)
            text = answered if isinstance(answered, str) else json.dumps(answered)
            return FAULTS[name](call, text) if name else Response(body=message(text, request=request))
        finally:
            with self._lock:
                self.open -= 1

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.path != "/v1/messages":
                    self._send(error(404, "not_found_error", f"no {self.path} here"))
                    return
                response = server.respond(body, {name.lower(): value for name, value in self.headers.items()})
                if response.status == 0:
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                    self.close_connection = True
                    return
                self._send(response)

            def _send(self, response: Response) -> None:
                body = response.body.encode("utf-8")
                head = {"content-type": "application/json", "content-length": str(len(body)), **response.headers}
                lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
                try:
                    self.wfile.write(f"HTTP/1.1 {response.status} scripted\r\n{lines}\r\n".encode("ascii") + body)
                except OSError:
                    self.close_connection = True  # the client was killed

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Nothing: `calls` is the log."""

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    self.close_connection = True

            def finish(self) -> None:
                try:
                    super().finish()
                except OSError:
                    self.close_connection = True

        return Handler
