"""A connection: hot requests are answered here, before ASGI; all others by the web framework.

uvicorn brings sockets, signals, TLS and the ASGI side (``HttpToolsProtocol``); this class takes the
bytes first. It frames one request at a time, so whatever else came stays as bytes until that one is
answered: pipelined requests are answered in order, and neither lane sees a byte of the other's.

A hot request of a client that was seen before costs one look-up of its head's bytes, one decode,
``plane.submit`` and one write: no task, no future, no timer, no parser.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import httptools
import msgspec

from headrace.errors import HeadraceError
from serving.errors import (
    BodyRefused,
    BodyTooSlow,
    HeadTooSlow,
    PlaneFailed,
    TooManyConnections,
    http_status,
)
from serving.http.caller import caller
from serving.http.codec import new_request_id
from serving.http.framework import FrameworkConnection
from serving.http.heads import HotHead, RequestHead, read_head
from serving.http.lane import Lane
from serving.http.responses import error_lines, opening, response
from serving.query import Answer, Query

_BLANK_LINE = b"\r\n\r\n"
_INLINE_BYTES = 32_768
"""Bodies up to here, some hundred rows and a millisecond of work, are decoded on the loop."""
_INLINE_ROWS = 1_000


class HttpConnection(FrameworkConnection):
    """One connection. ``functools.partial(HttpConnection, lane)`` is uvicorn's ``http=``."""

    def __init__(self, lane: Lane, **given: Any) -> None:
        super().__init__(**given)
        self._lane = lane
        self._kept, self._submit = lane.heads.kept, lane.plane.submit
        self._busy = False
        """A request is being answered: what comes meanwhile waits."""
        self._pending = b""
        """A head that has not ended, or requests that wait for their turn."""
        self._since = lane.now
        """When what is being waited for began."""
        self._hot: HotHead | None = None
        self._query: Query | None = None
        self._body: list[bytes] = []
        self._framework = False
        """The web framework answers."""
        self._lingering = False
        """Refused: what still comes is thrown away."""
        self._unread: tuple[float, int] | None = None
        """Since when, and how many, bytes of answers wait for their reader."""

    # What arrives.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        super().connection_made(transport)  # type: ignore[arg-type]
        if len(self.connections) > self._lane.limits.connections:
            self._refuse(TooManyConnections(self._lane.limits.connections))

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self._busy:
            self._while_busy(data)
        elif self.missing:
            self._more_body(data)
        elif self._pending:
            data, self._pending = self._pending + data, b""
            self._advance(data)
        else:
            self._since = self._lane.now
            self._advance(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        super().connection_lost(exc)
        if self._query is not None:
            self._query.drop()
            self._query = None
        self._busy, self._pending, self._body = True, b"", []

    def resume_writing(self) -> None:  # noqa: D102
        super().resume_writing()
        if not self._busy:
            self._next()

    def _advance(self, data: bytes) -> None:
        """Begin the requests in ``data``, each when the one before it is answered."""
        while data and not self._busy and not self.flow.write_paused:
            data = self._begin(data)
        if data and not self._lingering:
            self._pending = data
            self.flow.pause_reading()

    def _begin(self, data: bytes) -> bytes:
        """Begin the request that ``data`` begins with; return what comes after it."""
        end = data.find(_BLANK_LINE) + 4
        raw = data[:end]
        hot = self._kept(raw)
        if hot is None:
            try:
                if end < 4:
                    return self._wait_for_head(data)
                request, hot = self._lane.heads.read(raw)
            except HeadraceError as error:
                self._refuse(error)
                return b""
            if hot is None:
                return self._to_framework(request, data, end)
        self._hot = hot
        stop = end + hot.length
        if stop > len(data):
            self._body, self.missing = [data[end:]], stop - len(data)
            return b""
        self._ask(data[end:stop])
        return data[stop:]

    def _wait_for_head(self, data: bytes) -> bytes:
        # Read what there is: what can never become a head is refused now, not after a deadline.
        data = data.lstrip(b"\r\n")
        self._lane.heads.check_size(data)
        read_head(data, whole=False)
        self._pending = data
        return b""

    def _more_body(self, data: bytes) -> None:
        rest = data[self.missing :]
        self._body.append(data[: self.missing] if rest else data)
        self.missing -= len(data) - len(rest)
        if not self.missing:
            body, self._body = b"".join(self._body), []
            self._ask(body)
            self._advance(rest)

    def _while_busy(self, data: bytes) -> None:
        if self._lingering:
            return
        if self._framework and not self.whole:
            data = self._guarded(self.feed_framework, data)
        if data:
            self._pending += data
            self.flow.pause_reading()

    def _to_framework(self, request: RequestHead, data: bytes, end: int) -> bytes:
        self._busy, self._framework, self._hot = True, True, None
        return self._guarded(self.begin_framework, request, data, end)

    def _guarded(self, give: Callable[..., bytes], *given: Any) -> bytes:
        try:
            return give(*given)
        except httptools.HttpParserError as error:
            self._refuse(BodyRefused(f"its chunks are malformed: {error}"))
            return b""

    def on_headers_complete(self) -> None:  # noqa: D102
        super().on_headers_complete()
        if self._lane.draining:
            self.cycle.keep_alive = False

    def on_response_complete(self) -> None:  # noqa: D102
        # Instead of uvicorn's: no timer for what comes next, and no second request waits there.
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self._framework = False
        if self.whole:
            self._next()
        else:
            self._linger()  # answered before it was read: where the next one begins is not known

    # Hot requests.

    def _ask(self, body: bytes) -> None:
        """Decode the body of ``_hot`` and hand it to the plane."""
        hot = self._hot
        assert hot is not None
        self._busy = True
        if len(body) > _INLINE_BYTES:
            self._begin_task(self._ask_on_thread(hot, body))
            return
        try:
            query = hot.codec.decode(body, hot.head)
        except HeadraceError as error:
            self._fail(error, hot.head.request_id)
        except Exception as error:  # noqa: BLE001  (a fault of ours costs its request an answer of 500)
            self._break("read the request", error, hot.head.request_id)
        else:
            self._query = query
            self._submit(query, self._answered)

    def _begin_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self.tasks.discard)

    async def _ask_on_thread(self, hot: HotHead, body: bytes) -> None:
        received = time.perf_counter()
        try:
            query = await asyncio.to_thread(hot.codec.decode, body, hot.head)
        except HeadraceError as error:
            self._fail(error, hot.head.request_id)
        except Exception as error:  # noqa: BLE001  (as above)
            self._break("read the request", error, hot.head.request_id)
        else:
            query.received = received
            if not self.transport.is_closing():
                self._query = query
                self._submit(query, self._answered)

    def _answered(self, query: Query, answer: Answer | HeadraceError) -> None:
        hot = self._hot
        if query is not self._query or hot is None:
            return  # its client has gone
        if isinstance(answer, HeadraceError):
            self._fail(answer, query.request_id)
            return
        if query.rows > _INLINE_ROWS:
            self._begin_task(self._answer_from_thread(hot, answer))
            return
        try:
            lines, body = hot.codec.encode(answer)
        except Exception as error:  # noqa: BLE001  (as above)
            self._break("write the answer", error, query.request_id)
        else:
            self._reply(hot, query, lines, body)

    async def _answer_from_thread(self, hot: HotHead, answer: Answer) -> None:
        try:
            lines, body = await asyncio.to_thread(hot.codec.encode, answer)
        except Exception as error:  # noqa: BLE001  (as above)
            self._break("write the answer", error, answer.query.request_id)
        else:
            if not self.transport.is_closing():
                self._reply(hot, answer.query, lines, body)

    def _reply(self, hot: HotHead, query: Query, lines: bytes, body: bytes) -> None:
        lane = self._lane
        opened = lane.ok if hot.keep_alive else opening(200, lane.date, close=True)
        self.transport.write(response(opened, lines, body, query.request_id))
        self._query = None
        seconds = time.perf_counter() - query.received
        if seconds > lane.slow_seconds:
            lane.watcher.answered(query.edge, seconds, self._caller(), query.request_id)
        if hot.keep_alive and not lane.draining:
            self._next()
        else:
            self.transport.close()

    def _fail(self, error: HeadraceError, request_id: str | None) -> None:
        hot, status = self._hot, http_status(error)
        assert hot is not None
        if self.transport.is_closing():
            return
        self._query = None
        keep_alive = hot.keep_alive and not self._lane.draining
        name = request_id or new_request_id()
        body = hot.codec.encode_error(error, name)
        begin = opening(status, self._lane.date, close=not keep_alive)
        self.transport.write(response(begin, error_lines(error), body, name))
        self._lane.watcher.refused(hot.codec.edge, status, self._caller(), name, error)
        if keep_alive:
            self._next()
        else:
            self.transport.close()

    def _break(self, step: str, error: Exception, request_id: str | None) -> None:
        failed = PlaneFailed(step)
        failed.__cause__ = error
        self._fail(failed, request_id)

    def _next(self) -> None:
        """Go on: the request is answered."""
        self._busy, self._since = False, self._lane.now
        if self._pending:
            data, self._pending = self._pending, b""
            self.flow.resume_reading()
            self._advance(data)

    # What is refused, and what takes too long.

    def look(self) -> None:
        """Close the connection if a deadline is over; called once a second."""
        limits, seconds = self._lane.limits, self._lane.now - self._since
        if self._reads_too_slowly():
            self.transport.abort()
        elif self._lingering:
            if seconds > limits.linger_seconds:
                self.transport.abort()
        elif self._framework:
            if not self.whole and limits.is_slow_body(seconds, self.received):
                self._refuse(BodyTooSlow(limits.body_seconds))
        elif self._busy:
            pass  # the plane has deadlines of its own
        elif self.missing:
            received = self._hot.length - self.missing if self._hot else 0
            if limits.is_slow_body(seconds, received):
                self._refuse(BodyTooSlow(limits.body_seconds))
        elif self._pending:
            if seconds > limits.header_seconds:
                self._refuse(HeadTooSlow(limits.header_seconds))
        elif seconds > limits.keep_alive_seconds:
            self.transport.close()

    def _reads_too_slowly(self) -> bool:
        waiting = self.transport.get_write_buffer_size()
        if not waiting:
            self._unread = None
            return False
        if self._unread is None or waiting > self._unread[1]:
            since = self._unread[0] if self._unread else self._lane.now
            self._unread = since, waiting
        since, most = self._unread
        return self._lane.limits.is_slow_reader(self._lane.now - since, most - waiting)

    def shutdown(self) -> None:
        """Make the answer under way the last one; a connection without one may still ask."""
        if self._framework:
            self.cycle.keep_alive = False

    def _refuse(self, error: HeadraceError) -> None:
        """Tell what is wrong and end the connection: what follows cannot be understood."""
        name, status = new_request_id(), http_status(error)
        body = msgspec.json.encode({"error": str(error), "request_id": name})
        if not (self._framework and self.response_started):
            begin = opening(status, self._lane.date, close=True)
            self.transport.write(response(begin, error_lines(error), body, name))
        self._lane.watcher.refused("http", status, self._caller(), name, error)
        self._linger()

    def _linger(self) -> None:
        """End the connection, but let its client read the answer first.

        A client that is still sending would lose it: closing a socket with unread bytes resets it.
        """
        self._busy = self._lingering = True
        self._framework, self.missing, self._pending, self._body = False, 0, b"", []
        self._since = self._lane.now
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _caller(self) -> str:
        peer = self.client[0] if self.client else "?"
        forwarded_for = self._hot.forwarded_for if self._hot else None
        return caller(peer, forwarded_for, self._lane.trusted)
