import pytest

from serving.jobs.queue import JobQueue, Limits
from serving.jobs.store import open_store


class Clock:
    """Time that passes when a test says so; seconds since 1970."""

    def __init__(self):
        self.now = 1_700_000_000.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=["sqlite", "redis"])
def jobs_uri(request, tmp_path):
    """Where jobs are kept: one address of each kind of store."""
    if request.param == "redis":
        return request.getfixturevalue("redis_url")
    return str(tmp_path / "jobs.db")


@pytest.fixture
def job_store(jobs_uri):
    store = open_store(jobs_uri)
    yield store
    store.close()


@pytest.fixture
def queue(job_store, clock):
    """A queue of at most 5 jobs, with leases of 10 s and results kept for 100 s."""
    limits = Limits(most_queued=5, lease_seconds=10, keep_seconds=100)
    return JobQueue(job_store, limits, clock=clock)


@pytest.fixture
def submit(queue):
    """A factory of jobs of three parts; another ``name``, other rows."""

    def build(name="a", **options):
        parts = [f"{name}{number}".encode() for number in range(3)]
        return queue.submit("flight_delay", parts, rows=30, part_rows=10, **options)

    return build
