"""Computes jobs beside the online requests of a process, one part at a time.

A part is a query like any other, small enough that an online request of the same batch hardly
waits for it, and after each the runner pauses for as long as the part took: the busier the server,
the slower its jobs. A job of a better rank goes in between, and the one it overtakes keeps its
claim meanwhile.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from headrace.errors import HeadraceError
from serving.errors import http_status
from serving.http.codec import Head
from serving.jobs import body
from serving.jobs.claim import Claim, ClaimLost, patiently
from serving.jobs.job import State
from serving.jobs.queue import JobQueue
from serving.jobs.results import encode_part
from serving.plain.asked import Asked
from serving.plain.part import Part, Plane, answer_part
from serving.plain.response import Wording
from serving.served import ServedModel

if TYPE_CHECKING:
    from serving.repository import ModelRepository

PATH = "/api/v1/jobs"
_POLL_SECONDS = 0.5  # how soon a process sees a job that another one took in
_SWEEP_SECONDS = 2.0
_LONGEST_REST = 0.5  # seconds; a part that waited for a store was no work
_LOOK_SECONDS = 0.5  # how often a running job lets a better one pass
_PAUSES = (0.1, 5.0)  # seconds between tries of what heals by itself: the first, up to the last
_logger = logging.getLogger(__name__)


class JobRunner:
    """Computes the jobs of one process."""

    def __init__(self, queue: JobQueue, plane: Plane, models: "ModelRepository") -> None:
        self._queue, self._plane, self._models = queue, plane, models
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Compute jobs from now on."""
        self._tasks = [asyncio.create_task(_always(work)) for work in (self._run, self._sweep)]

    def wake(self) -> None:
        """Look for a job now: one was submitted."""
        self._woken.set()

    async def stop(self) -> None:
        """Stop after the query under way; what is not done is put back for another process."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        self._woken.clear()
        if not await self._next():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._woken.wait()

    async def _sweep(self) -> None:
        await patiently(lambda: self._queue.sweep(self._names()))
        await asyncio.sleep(_SWEEP_SECONDS)

    async def _next(self, *, before: float = float("inf")) -> bool:
        """Compute the job that comes next; False where none waits."""
        job = await patiently(lambda: self._queue.claim(self._names(), before=before))
        if job is None:
            return False
        claim = Claim(self._queue, job)
        try:
            async with claim.renewed():
                await self._compute(claim)
        except ClaimLost:
            _logger.info("job=%s is not ours any more", job.id)
        except asyncio.CancelledError:
            with contextlib.suppress(ClaimLost):
                await claim.change(self._queue.put_back)
            raise
        except Exception:
            # A fault of ours must not end the other jobs: this one's lease runs out, and it is
            # tried again, as if the process had died; MOST_ATTEMPTS times.
            _logger.exception("job=%s failed", job.id)
        return True

    async def _compute(self, claim: Claim) -> None:
        try:
            model = self._models.served(claim.job.model)
            digest, revision = model.predictor.digest, model.release.revision
            await claim.change(partial(self._queue.begin, digest=digest, revision=revision))
            looked = time.monotonic()
            while claim.job.parts_done < claim.job.parts:
                if self._queue.seconds_left(claim.job) < 0:
                    await self._end(claim, State.EXPIRED)
                    return
                computed = await self._part(claim, model)
                await asyncio.sleep(min(computed, _LONGEST_REST))
                if time.monotonic() - looked > _LOOK_SECONDS:
                    while await self._next(before=claim.job.rank):
                        pass
                    looked = time.monotonic()
        except HeadraceError as error:
            late = self._queue.seconds_left(claim.job) < 0
            await self._end(claim, State.EXPIRED if late else State.FAILED, str(error))
            return
        await self._end(claim, State.DONE)

    async def _part(self, claim: Claim, model: ServedModel) -> float:
        """Compute the next part and keep its answer; return the seconds that it computed."""
        job = claim.job
        request = await patiently(lambda: self._queue.store.request(job, job.parts_done))
        asked, places, unread = body.read(request, model)
        began = time.monotonic()
        part = await self._answer(claim, asked) if asked else Part([], 0, degraded=False)
        seconds = time.monotonic() - began
        items = dict(zip(places, part.items, strict=True))
        kept = encode_part(model, job.parts_done * job.part_rows, items, unread)
        refused = part.failed + len(unread)
        predicted = len(items) - part.failed
        await claim.change(
            partial(self._queue.keep, answer=kept, predicted=predicted, refused=refused)
        )
        return seconds

    async def _answer(self, claim: Claim, asked: Asked) -> Part:
        pause, last = _PAUSES
        wording, span = Wording(asked.model), range(len(asked.rows))
        while True:
            left = self._queue.seconds_left(claim.job)
            timeout = None if left == float("inf") else max(0.0, left)
            head = Head(PATH, request_id=claim.job.request_id or None, timeout=timeout)
            try:
                return await answer_part(self._plane, wording, asked, span, edge="job", head=head)
            except HeadraceError as error:
                # A store that does not answer or a server that is too busy heals by itself.
                if http_status(error) != 503 or self._queue.seconds_left(claim.job) < 0:
                    raise
                _logger.info("job=%s waits: %s", claim.job.id, error)
            await asyncio.sleep(pause)
            pause = min(2 * pause, last)
            if claim.is_lost:
                raise ClaimLost

    async def _end(self, claim: Claim, state: State, reason: str | None = None) -> None:
        await claim.change(lambda job: self._queue.end(job, state, reason))

    def _names(self) -> list[str]:
        return list(self._models.endpoints)


async def _always(work: Callable[[], Awaitable[None]]) -> None:
    """Do ``work`` again and again; a fault of ours is told, and ends nothing."""
    while True:
        try:
            await work()
        except Exception:
            _logger.exception("jobs: a fault; trying again in %g s", _PAUSES[-1])
            await asyncio.sleep(_PAUSES[-1])
