"""Questions that take a while, asked seldom: whoever asks meanwhile shares the answer."""

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

Found = TypeVar("Found")


class Probe(Generic[Found]):
    """Asks on a thread, at most once in so many seconds; for one event loop."""

    def __init__(self, ask: Callable[[], Found], *, seconds: float = 1.0) -> None:
        """Ask nothing yet.

        Args:
            ask: the question; it may block.
            seconds: how old an answer may be.
        """
        self._ask, self._seconds = ask, seconds
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[Found] | None = None

    async def answer(self) -> Found:
        """Return the answer, which is at most so many seconds old.

        Raises:
            Exception: whatever asking raised.
        """
        if self._asking is None or self._is_old():
            self._asking = asyncio.create_task(asyncio.to_thread(self._ask))
            self._asked_at = time.monotonic()
        # Shielded: a caller that leaves takes the answer from nobody else.
        return await asyncio.shield(self._asking)

    def _is_old(self) -> bool:
        assert self._asking is not None
        return self._asking.done() and time.monotonic() - self._asked_at >= self._seconds
