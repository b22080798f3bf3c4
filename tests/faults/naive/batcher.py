"""A batcher as it is easily written: who has left is taken off the list, and the answers are not.

It is what tests/faults/test_cancelled.py must find out.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


class Batcher:
    """Computes what has gathered, and deals the answers out to whoever still waits, in order."""

    def __init__(self, compute: Callable[[list[Any]], Awaitable[list[float]]]) -> None:
        self._compute, self._waiting = compute, []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, item: Any) -> float:
        """Return the answer for ``item``, or somebody else's."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        await asyncio.sleep(0)
        while self._waiting:
            batch, self._waiting = self._waiting, []
            answers = await self._compute([item for item, _ in batch])
            still = [future for _, future in batch if not future.cancelled()]
            for future, answer in zip(still, answers, strict=False):
                future.set_result(answer)
