"""The jobs of one process: their queue, their runner and their routes, put together."""

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from starlette.routing import Route

from serving.jobs.metrics import JobMetrics
from serving.jobs.queue import JobQueue, Limits
from serving.jobs.routes import JobRoutes
from serving.jobs.runner import JobRunner
from serving.jobs.store import open_store
from serving.metrics import Metrics
from serving.plain.part import Plane
from serving.settings import ServerSettings

if TYPE_CHECKING:
    from serving.repository import ModelRepository


class JobService:
    """Started and stopped with the server."""

    def __init__(
        self,
        uri: str,
        plane: Plane,
        models: "ModelRepository",
        settings: ServerSettings,
        metrics: Metrics,
    ) -> None:
        """Open the jobs at ``uri``; see ``open_store``.

        Raises:
            JobStoreFailed: if they cannot be opened.
        """
        limits = Limits(
            most_queued=settings.jobs_max_queued,
            lease_seconds=settings.jobs_lease_seconds,
            keep_seconds=settings.jobs_keep_seconds,
        )
        events = JobMetrics()
        metrics.follow(events.put)
        self.queue = JobQueue(open_store(uri), limits, events=events)
        self._runner = JobRunner(self.queue, plane, models)
        self._routes = JobRoutes(self.queue, self._runner, models, settings)

    def routes(self) -> list[Route]:
        """The calls under ``/api/v1/jobs``."""
        return self._routes.routes()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Compute jobs for as long as the block runs; then put back what is under way."""
        self._runner.start()
        try:
            yield
        finally:
            await self._runner.stop()

    def close(self) -> None:
        """Let go of the store."""
        self.queue.store.close()
