"""Trips to Redis on an event loop: they are written at once and never waited for by the loop.

Several trips may be under way on one connection. Redis answers in the order in which it was asked,
so replies are counted off to the trips in that order, also to those that nobody waits for any more:
no trip can be given another's replies. A connection is made on a thread, since looking a name up,
TLS and logging in would block the loop.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import hiredis

from featurestore.errors import OnlineStoreFailed
from featurestore.online.trips import Trip
from featurestore.stores.resp import RECEIVE_BYTES, Connection

_GRACE_SECONDS = 0.005
_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class _Pending:
    """A trip under way."""

    __slots__ = ("answered", "commands", "found", "wanted")

    def __init__(self, trip: Trip, answered: "asyncio.Future[list[Any]]") -> None:
        self.commands, self.wanted = trip
        self.found: list[Any] = []
        self.answered = answered


class LoopConnection:
    """One connection of one event loop, made when it is first needed, and anew when it is lost."""

    def __init__(self, place: str, connect: Callable[[], Connection]) -> None:
        """Prepare for trips on the running loop; all methods are called on it.

        Args:
            place: what errors call the server.
            connect: makes a connection; called on a thread.
        """
        self.loop = asyncio.get_running_loop()
        self._place, self._make_connection = place, connect
        self._under_way: deque[_Pending] = deque()
        self._connection: Connection | None = None
        self._is_connecting = self._closed = False
        self._unsent = b""

    async def make(self, trip: Trip, *, within_seconds: float) -> list[Any]:
        """Return the replies of a trip.

        A connection that the server has closed meanwhile, as when it was started again, is not the
        server's failure: the trip is made once more on a new one. Where the time is over, the
        connection is closed, and what else is under way on it fails too.

        Raises:
            OnlineStoreFailed: if the server does not answer in time, or answers with an error.
        """
        ends = self.loop.time() + within_seconds
        was_connected = self._connection is not None
        try:
            return await self._try(trip, ends)
        except OnlineStoreFailed as error:
            if not was_connected or not isinstance(error.reason, ConnectionError):
                raise
        return await self._try(trip, ends)

    def close(self) -> None:
        """Close the connection; what is under way fails, and so does what is asked later."""
        self._closed = True
        self._lose(ConnectionAbortedError("the reader was closed"))

    def close_after_loop(self) -> None:
        """Close the connection of a loop that has ended; safe on any thread."""
        self._closed = True
        if self._connection is not None:
            self._connection.close()

    async def _try(self, trip: Trip, ends: float) -> list[Any]:
        if self._closed:
            raise OnlineStoreFailed("ask", self._place, "the reader was closed")
        pending = _Pending(trip, self.loop.create_future())
        self._under_way.append(pending)
        if self._connection is not None:
            self._send(trip.commands)
        elif not self._is_connecting:
            self._connect()
        timer = self.loop.call_at(ends, self._late, pending)
        try:
            return await pending.answered
        finally:
            timer.cancel()

    def _connect(self) -> None:
        self._is_connecting = True
        made = self.loop.run_in_executor(None, self._make_connection)
        made.add_done_callback(self._connected)

    def _connected(self, made: "asyncio.Future[Connection]") -> None:
        self._is_connecting = False
        if made.cancelled():  # the loop is ending
            return
        if (error := made.exception()) is not None:
            self._fail_all(error)
            return
        connection = made.result()
        if self._closed:
            connection.close()
            return
        self._connection = connection
        connection.socket.setblocking(False)
        self.loop.add_reader(connection.socket.fileno(), self._readable)
        if self._under_way:
            self._send(b"".join([pending.commands for pending in self._under_way]))

    def _send(self, commands: bytes) -> None:
        connection = self._connection
        assert connection is not None
        if self._unsent:
            self._unsent += commands
            return
        try:
            sent = connection.socket.send(commands)
        except _NOT_NOW:
            sent = 0
        except OSError as error:
            self._lose(error)
            return
        if sent < len(commands):
            self._unsent = commands[sent:]
            self.loop.add_writer(connection.socket.fileno(), self._writable)

    def _writable(self) -> None:
        connection, commands = self._connection, self._unsent
        assert connection is not None
        self.loop.remove_writer(connection.socket.fileno())
        self._unsent = b""
        self._send(commands)

    def _readable(self) -> None:
        # What TLS has decrypted already is not announced by the loop again.
        while self._receive() and self._connection and self._connection.is_encrypted:
            pass

    def _receive(self) -> bool:
        """Hand out what has come; whether there may be more."""
        connection = self._connection
        if connection is None:
            return False
        try:
            received = connection.socket.recv(RECEIVE_BYTES)
            if not received:
                raise ConnectionResetError("the server has closed the connection")
            connection.reader.feed(received)
            self._hand_out(connection.reader)
        except _NOT_NOW:
            return False
        except (OSError, hiredis.HiredisError) as error:
            self._lose(error)
            return False
        return True

    def _hand_out(self, reader: hiredis.Reader) -> None:
        next_reply, under_way = reader.gets, self._under_way
        while (reply := next_reply()) is not False:
            if not under_way:
                raise hiredis.ProtocolError("an answer that nobody asked for")
            first = under_way[0]
            first.found.append(reply)
            if len(first.found) == first.wanted:
                under_way.popleft()
                self._answer(first)

    def _answer(self, pending: _Pending) -> None:
        if pending.answered.done():  # whoever asked has gone
            return
        for reply in pending.found:
            if isinstance(reply, hiredis.ReplyError):
                pending.answered.set_exception(OnlineStoreFailed("ask", self._place, reply))
                return
        pending.answered.set_result(pending.found)

    def _late(self, pending: _Pending, *, is_last: bool = False) -> None:
        if pending.answered.done():
            return
        # The loop itself may have been busy all the time: what has come meanwhile counts, and so
        # does what the server could not send because nobody took it.
        has_come = False
        while self._receive():
            has_come = True
        if pending.answered.done():
            return
        if has_come and not is_last:
            self.loop.call_later(_GRACE_SECONDS, partial(self._late, pending, is_last=True))
            return
        if self._connection is not None:
            self._lose(TimeoutError("timed out"))
        else:  # still connecting: for others there may be time
            self._under_way.remove(pending)
            error = OnlineStoreFailed("reach", self._place, TimeoutError("timed out"))
            pending.answered.set_exception(error)

    def _lose(self, reason: Exception) -> None:
        connection, self._connection, self._unsent = self._connection, None, b""
        if connection is not None:
            number = connection.socket.fileno()
            self.loop.remove_reader(number)
            self.loop.remove_writer(number)
            connection.close()
        self._fail_all(reason)

    def _fail_all(self, reason: BaseException) -> None:
        failed, self._under_way = self._under_way, deque()
        for pending in failed:
            if pending.answered.done():
                continue
            if isinstance(reason, OnlineStoreFailed):  # of connecting, which says so
                again = OnlineStoreFailed(reason.action, reason.path, reason.reason)
                pending.answered.set_exception(again)
            else:
                pending.answered.set_exception(OnlineStoreFailed("ask", self._place, reason))
