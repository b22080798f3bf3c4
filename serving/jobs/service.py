"""The jobs of one process: their queue, their runner and their routes, put together."""

from typing import TYPE_CHECKING

from starlette.routing import Route

from serving.jobs.queue import JobEvents, JobQueue, Limits
from serving.jobs.routes import JobRoutes
from serving.jobs.runner import JobRunner
from serving.jobs.store import open_store
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
        *,
        events: JobEvents | None = None,
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
        self.queue = JobQueue(open_store(uri), limits, events=events)
        self._runner = JobRunner(self.queue, plane, models)
        self._routes = JobRoutes(self.queue, self._runner, models, settings)

    def routes(self) -> list[Route]:
        """The calls under ``/api/v1/jobs``."""
        return self._routes.routes()

    def start(self) -> None:
        """Compute jobs from now on; needs a running event loop."""
        self._runner.start()

    async def stop(self) -> None:
        """Put back what is under way, and let go of the store."""
        await self._runner.stop()
        self.queue.store.close()
