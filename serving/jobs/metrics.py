"""What is counted of jobs: how many wait, how long they waited, and how they ended."""

from collections import deque
from collections.abc import Callable

from serving.jobs.job import Job
from serving.jobs.queue import JobEvents
from serving.metrics import Metrics

_WAITS = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
"""Buckets in seconds: from a queue that is empty to one of an hour."""


class JobMetrics(JobEvents):
    """Takes events in on any thread, and counts them when the metrics are refreshed."""

    def __init__(self) -> None:
        self._events: deque[Callable[[Metrics], None]] = deque()
        self._queued: dict[str, int] = {}

    def began(self, job: Job, waited_seconds: float) -> None:
        """See ``JobEvents``."""
        told = "How long jobs waited before they were first claimed."

        def count(metrics: Metrics) -> None:
            labels = {"model": job.model, "priority": str(job.priority)}
            metrics.histogram("job_wait_seconds", told, _WAITS, **labels).add(waited_seconds)

        self._events.append(count)

    def ended(self, job: Job) -> None:
        """See ``JobEvents``."""

        def count(metrics: Metrics) -> None:
            labels = {"model": job.model, "state": str(job.state)}
            metrics.counter("jobs_ended_total", "Jobs that ended, by how.", **labels).add(1)
            for outcome, rows in (("predicted", job.predicted), ("refused", job.refused)):
                labels = {"model": job.model, "outcome": outcome}
                metrics.counter("job_rows_total", "Rows of jobs that ended.", **labels).add(rows)

        self._events.append(count)

    def queued(self, model: str, jobs: int) -> None:
        """See ``JobEvents``."""
        self._queued[model] = jobs

    def put(self, metrics: Metrics) -> None:
        """Count what has happened since the last call; for ``Metrics.follow``."""
        while self._events:
            self._events.popleft()(metrics)
        for model, jobs in list(self._queued.items()):
            # All processes see the same queue: their numbers are not added up.
            metrics.gauge("jobs_queued", "Jobs that wait.", "highest", model=model).put(jobs)
