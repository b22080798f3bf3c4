"""Where jobs are kept: records that change by compare-and-swap, with their rows and answers.

A store knows nothing of leases, deadlines or priorities; ``queue`` does. Two stores that pass the
contract of ``tests/serving/jobs/test_store.py`` can take each other's place.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from serving.jobs.job import Job, Shelf


class JobStore(Protocol):
    """A place that keeps jobs. Safe to call from several threads, and from several processes.

    Every method raises ``JobStoreFailed`` where the place cannot be read or written.
    """

    def add(self, job: Job, requests: Sequence[bytes], *, most: int) -> Job:
        """Keep a new job with its parts.

        Returns:
            The job; or the earlier one of the same model and idempotency key.

        Raises:
            QueueFull: if ``most`` jobs of its model are queued.
        """

    def get(self, job_id: str) -> Job | None:
        """Return a job; None where there is none of that id."""

    def replace(self, old: Job, new: Job, *, answer: bytes | None = None) -> bool:
        """Put ``new`` in the place of ``old``; False if that is not what is kept any more.

        ``answer`` is kept with it, as that of part ``old.parts_done``: both or neither.
        """

    def first(self, shelf: Shelf, model: str, count: int) -> list[Job]:
        """Return the ``count`` jobs of a model with the lowest scores on a shelf."""

    def count(self, shelf: Shelf, model: str, *, below: float = float("inf")) -> int:
        """How many jobs of a model lie on a shelf with a score below ``below``."""

    def page(self, count: int, *, before: str | None = None) -> list[Job]:
        """Return the ``count`` newest jobs, of those older than the one whose id is ``before``."""

    def request(self, job: Job, number: int) -> bytes:
        """Return a part as it was submitted."""

    def answers(self, job: Job) -> Iterator[bytes]:
        """The answers of a job, part after part."""

    def remove(self, job: Job) -> None:
        """Forget a job with all that belongs to it."""

    def close(self) -> None:
        """Let go of the place."""


def open_store(uri: str) -> JobStore:
    """Open the store at ``uri``: the path of a SQLite file, or ``redis://host:port/database``.

    Raises:
        JobStoreFailed: if it cannot be opened.
    """
    if uri.startswith(("redis://", "rediss://")):
        from serving.jobs.redis_store import RedisJobStore

        return RedisJobStore(uri)
    from serving.jobs.sqlite_store import SqliteJobStore

    return SqliteJobStore(Path(uri))
