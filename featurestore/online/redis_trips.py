"""Trips to Redis: on connections that threads share, and on connections of each event loop."""

import asyncio
from typing import Any

from featurestore.errors import OnlineStoreFailed
from featurestore.online.loop_connection import LoopConnection
from featurestore.online.trips import Trip
from featurestore.stores.resp import Connection, shown

_SECONDS_A_REPLY = 50e-6  # some five times what an entity takes: large reads may take longer
_MANY_REPLIES = 1024
"""Trips of an event loop that are longer have a connection of their own: none waits behind them."""


class RedisTrips:
    """Makes trips to one server; connections are kept."""

    def __init__(self, url: str, *, deadline_seconds: float) -> None:
        """Connect at the first trip.

        Args:
            url: as ``featurestore.stores.resp.Connection`` takes it.
            deadline_seconds: how long one trip may take; 50 microseconds a reply are added.
        """
        self._url, self._deadline = url, deadline_seconds
        self._idle: list[Connection] = []
        self._of_loops: dict[asyncio.AbstractEventLoop, tuple[LoopConnection, LoopConnection]] = {}
        self._closed = False
        self.connections = 0
        """See ``Trips``."""

    def make(self, trip: Trip) -> list[Any]:
        """See ``Trips``: on a connection that no other thread uses meanwhile.

        A kept connection that the server has closed meanwhile, as when it was started again, is
        not the server's failure: the trip is made once more on a new one. A connection with an
        error is closed, so that no late answer can be taken for that of another request.
        """
        while self._idle:
            try:
                return self._make_on(self._idle.pop(), trip)
            except OnlineStoreFailed as error:
                if not isinstance(error.reason, ConnectionError):
                    raise
            except IndexError:  # another thread took the last one
                break
        return self._make_on(self._connect(), trip)

    async def make_soon(self, trip: Trip) -> list[Any]:
        """See ``Trips``."""
        loop = asyncio.get_running_loop()
        few, many = self._of_loops.get(loop) or self._begin_on(loop)
        connection = many if trip.replies > _MANY_REPLIES else few
        return await connection.make(trip, within_seconds=self._within(trip))

    def close(self) -> None:
        """See ``Trips``; safe on any thread."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
        while self._of_loops:
            loop, connections = self._of_loops.popitem()
            for connection in connections:
                try:
                    loop.call_soon_threadsafe(connection.close)
                except RuntimeError:  # the loop has ended
                    connection.close_after_loop()

    def _begin_on(self, loop: asyncio.AbstractEventLoop) -> tuple[LoopConnection, LoopConnection]:
        for other in [other for other in list(self._of_loops) if other.is_closed()]:
            for connection in self._of_loops.pop(other, ()):
                connection.close_after_loop()
        pair = (self._of_loop(), self._of_loop())
        if self._closed:
            for connection in pair:
                connection.close()
        else:
            self._of_loops[loop] = pair
        return pair

    def _of_loop(self) -> LoopConnection:
        return LoopConnection(shown(self._url), self._connect)

    def _connect(self) -> Connection:
        self.connections += 1
        return Connection(self._url, timeout_seconds=self._deadline)

    def _make_on(self, connection: Connection, trip: Trip) -> list[Any]:
        try:
            answers = connection.ask(
                trip.commands, replies=trip.replies, within_seconds=self._within(trip)
            )
        except BaseException:
            connection.close()
            raise
        if self._closed:
            connection.close()
        else:
            self._idle.append(connection)
        return answers

    def _within(self, trip: Trip) -> float:
        return self._deadline + trip.replies * _SECONDS_A_REPLY
