"""A claimed job in the process that computes it: its newest version, and a lease that is renewed.

Changes come from the computation and from the timer that renews the lease; they are made one after
the other, each from the version that the one before left. While the store cannot be reached they
are tried again and again: the job is lost only when somebody else has changed it.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from serving.errors import ServingError
from serving.jobs.errors import JobStoreFailed
from serving.jobs.job import Job
from serving.jobs.queue import JobQueue

T = TypeVar("T")
_PAUSES = (0.1, 5.0)  # seconds between tries: the first, doubled up to the last
_LAST_WORD_SECONDS = 2.0  # how long the end of a server waits for a store
_logger = logging.getLogger(__name__)


class ClaimLost(ServingError):
    """The job was cancelled, or another process has it: nothing of it may be changed any more."""


class Claim:
    """A job that this process has claimed."""

    def __init__(self, queue: JobQueue, job: Job) -> None:
        self.queue, self.job = queue, job
        self.is_lost = False
        self._changing = asyncio.Lock()

    async def change(self, how: Callable[[Job], Job | None]) -> None:
        """Change the job on a thread; ``how`` is a method of the queue.

        Raises:
            ClaimLost: if it is not ours any more.
        """
        async with self._changing:
            changing = asyncio.create_task(patiently(lambda: how(self.job)))
            try:
                self._take(await asyncio.shield(changing))
            except asyncio.CancelledError:
                # The thread goes on: without its outcome, the job could not even be put back.
                self._take(await asyncio.wait_for(changing, _LAST_WORD_SECONDS))
                raise

    @contextlib.asynccontextmanager
    async def renewed(self) -> AsyncIterator[None]:
        """Renew the lease for as long as the block runs; ``is_lost`` tells when that failed."""
        timer = asyncio.create_task(self._renew())
        try:
            yield
        finally:
            timer.cancel()
            await asyncio.wait([timer])  # unlike `await timer`, it tells our own end from its end

    def _take(self, changed: Job | None) -> None:
        if changed is None:
            self.is_lost = True
            raise ClaimLost
        self.job = changed

    async def _renew(self) -> None:
        with contextlib.suppress(ClaimLost):
            while True:
                known = self.job.version
                await asyncio.sleep(self.queue.limits.lease_seconds / 3)
                if self.job.version == known:  # else a part was kept, which renewed it
                    await self.change(self.queue.renew)


async def patiently(call: Callable[[], T]) -> T:
    """Call a store on a thread, again and again for as long as it cannot be reached."""
    pause, last = _PAUSES
    while True:
        try:
            return await asyncio.to_thread(call)
        except JobStoreFailed as error:
            _logger.warning("jobs: %s", error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, last)
