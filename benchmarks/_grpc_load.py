"""Calls over gRPC from a client that costs next to nothing, so that the server is what is busy.

gRPC's own Python client takes as long for a call as the server does, and would measure itself. One
fixed call needs no more of HTTP/2 than a few kinds of frames: every call is the same bytes but for
the number of its stream, and its end is a frame of trailers.

Source: RFC 9113 (frames), RFC 7541 (headers as literals),
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

import asyncio
import struct

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_MORE = 2**20  # bytes that the server may send us between two updates of the window


class Caller(asyncio.Protocol):
    """One connection that keeps some calls of one method under way until all are done."""

    def __init__(
        self, method: str, request: bytes, ending: bytes, *, calls: int, under_way: int
    ) -> None:
        """Be ready to call ``method`` with ``request``; each response must end with ``ending``."""
        headers = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
        }
        self._headers = b"".join(map(_literal, headers, headers.values()))
        self._request = b"\x00" + struct.pack(">I", len(request)) + request
        self._ending, self._left, self._under_way = ending, calls, under_way
        self._stream, self._received, self._buffer = 1, 0, b""
        self._answered: set[int] = set()
        self._done = 0
        self.finished: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]
        window = _frame(_WINDOW, 0, 0, struct.pack(">I", 2**31 - 1 - 65_535))
        transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, b"") + window)
        transport.write(b"".join(self._call() for _ in range(self._under_way)))

    def data_received(self, data: bytes) -> None:
        buffer, at, replies = self._buffer + data, 0, []
        while len(buffer) - at >= 9:
            length = int.from_bytes(buffer[at : at + 3])
            if len(buffer) - at - 9 < length:
                break
            payload = buffer[at + 9 : at + 9 + length]
            stream = int.from_bytes(buffer[at + 5 : at + 9])
            replies.append(self._frame(buffer[at + 3], buffer[at + 4], stream, payload))
            at += 9 + length
        self._buffer = buffer[at:]
        self._transport.write(b"".join(replies))
        if not self._left and self._done == self._begun and not self.finished.done():
            self.finished.set_result(self._done)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.finished.done():
            self.finished.set_exception(error or ConnectionResetError("the server hung up"))

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    @property
    def _begun(self) -> int:
        return (self._stream - 1) // 2

    def _call(self) -> bytes:
        if not self._left:
            return b""
        self._left -= 1
        stream, self._stream = self._stream, self._stream + 2
        return _frame(_HEADERS, _END_HEADERS, stream, self._headers) + _frame(
            _DATA, _END_STREAM, stream, self._request
        )

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        """Take one frame in; what to send because of it."""
        if kind == _DATA:
            if payload.endswith(self._ending):
                self._answered.add(stream)
            self._received += len(payload)
            if self._received > _MORE:
                more, self._received = self._received, 0
                return _frame(_WINDOW, 0, 0, struct.pack(">I", more))
        elif kind == _HEADERS and flags & _END_STREAM:
            if stream not in self._answered:
                raise SystemExit(f"a call was answered wrong: trailers {payload!r}")
            self._answered.remove(stream)
            self._done += 1
            return self._call()
        elif kind in (_SETTINGS, _PING) and not flags & _ACK:
            return _frame(kind, _ACK, 0, payload if kind == _PING else b"")
        elif kind in (_RESET, _GOAWAY):
            raise SystemExit(f"the server ended a call or the connection: {payload!r}")
        return b""


async def call(
    port: int,
    method: str,
    request: bytes,
    ending: bytes,
    *,
    calls: int,
    connections: int,
    under_way: int,
) -> int:
    """Make ``calls`` calls over several connections; how many were made and answered rightly."""
    loop, callers = asyncio.get_running_loop(), []
    for _ in range(connections):
        _, caller = await loop.create_connection(
            lambda: Caller(
                method, request, ending, calls=calls // connections, under_way=under_way
            ),
            "127.0.0.1",
            port,
        )
        callers.append(caller)
    done = await asyncio.gather(*(caller.finished for caller in callers))
    for caller in callers:
        caller.close()
    return sum(done)


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes((kind, flags))
        + struct.pack(">I", stream)
        + payload
    )


def _literal(name: str, value: str) -> bytes:
    """A header that neither side keeps; names and values below 127 bytes."""
    return b"\x00" + bytes((len(name),)) + name.encode() + bytes((len(value),)) + value.encode()
