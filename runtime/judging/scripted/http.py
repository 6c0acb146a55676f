"""HTTP/1.1 as judges' clients speak it: one request after the other on a connection that is kept.

Our own and small, because the server shares two cores with the client that is measured. A body comes with
its length; one in chunks is refused, as is a head or a body without end.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from http import HTTPStatus

MAX_HEAD = 64 * 1024
MAX_BODY = 256 * 1024 * 1024
"""The limit of Message Batches; of a single message the API takes less."""
_REASONS = {status.value: status.phrase for status in HTTPStatus} | {529: "Overloaded"}


class Connection(asyncio.Protocol):
    """A client. `handle` is called with each request and answers it by `send`, `reset`, or not at all."""

    def __init__(
        self, handle: Callable[[Connection, str, str, dict[str, str], bytes], None], known: set[Connection]
    ) -> None:
        self._handle, self._known = handle, known
        self._buffer = bytearray()
        self._head: tuple[str, str, dict[str, str], int] | None = None
        self._busy = self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._known.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        self._known.discard(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._next()

    def _next(self) -> None:
        """Hand the next request over, where it is there as a whole."""
        if self._busy or (self._head is None and not self._read_head()):
            return
        assert self._head is not None
        method, path, headers, length = self._head
        if len(self._buffer) < length:
            return
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        self._head, self._busy = None, True
        self._handle(self, method, path, headers, body)

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > MAX_HEAD:
                self._refuse(431)
            return False
        first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
        del self._buffer[: end + 4]
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        parts, length = first.split(" "), headers.get("content-length", "0")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1.") or not length.isdigit():
            self._refuse(400)
        elif "transfer-encoding" in headers:
            self._refuse(411)
        elif int(length) > MAX_BODY:
            self._refuse(413)
        else:
            if headers.get("expect", "").lower() == "100-continue":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._head = (parts[0], parts[1], headers, int(length))
            self._closing = headers.get("connection", "").lower() == "close"
            return True
        return False

    def _refuse(self, status: int) -> None:
        self._closing = True
        self._buffer.clear()
        self.send(status, b"", {})

    def send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Answer the request in hand."""
        if self._transport.is_closing():
            return  # the client was killed, or has given up
        head = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Scripted')}", f"content-length: {len(body)}"]
        head += [f"{name}: {value}" for name, value in headers.items()]
        if self._closing:
            head.append("connection: close")
        self._transport.write("\r\n".join(head).encode("latin-1") + b"\r\n\r\n" + body)
        self._busy = False
        if self._closing:
            self._transport.close()
        elif self._buffer:
            asyncio.get_running_loop().call_soon(self._next)

    def reset(self) -> None:
        """Cut the connection as a broken network does: the client sees ECONNRESET."""
        raw: socket.socket = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def close(self) -> None:
        self._transport.abort()
