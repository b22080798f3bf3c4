"""Calls that arrive one after the other, held for a few turns of the event loop to be one batch.

gRPC's server takes one new call a turn of the loop, so that the data plane, which makes a batch of
what arrives in one turn, would compute every call alone. Here calls wait for each other as long as
some turn in the last few brought another one: no timer, and a lone call waits for those turns only,
some ten microseconds.
"""

import asyncio

_QUIET_TURNS = 4
_MOST_CALLS = 64


class Gathering:
    """Lets calls go on together. Of one event loop."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []
        self._seen = self._quiet = 0

    async def join(self) -> None:
        """Return when no more calls seem to come; those that joined return in the same turn."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            self._seen = self._quiet = 0
            loop.call_soon(self._look, loop)
        waiter = loop.create_future()
        self._waiting.append(waiter)
        await waiter

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        arrived = len(self._waiting)
        self._quiet = self._quiet + 1 if arrived == self._seen else 0
        self._seen = arrived
        if self._quiet < _QUIET_TURNS and arrived < _MOST_CALLS:
            loop.call_soon(self._look, loop)
            return
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():  # a caller may have left
                waiter.set_result(None)
