"""Urgent jobs overtake, and no job starves: by the rule, and on a real scheduler."""

import heapq
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.clusters.priorities import PATIENCE_SECONDS, Ranks, rank

KINDS = ("urgent", "normal", "low")


@given(st.lists(st.tuples(st.floats(0, 20_000), st.sampled_from(KINDS)), min_size=2, max_size=60))
def test_nobody_is_overtaken_by_what_comes_after_its_patience_has_ended(arrivals):
    queued = sorted((-rank(moment, kind), moment, kind) for moment, kind in arrivals)
    for place, (_, moment, kind) in enumerate(queued):
        for _, later, _ in queued[:place]:
            assert later <= moment + PATIENCE_SECONDS[kind]


@given(st.floats(0, 1e6), st.floats(0, 3599))
def test_an_urgent_shard_overtakes_others_that_are_not_old(now, age):
    assert rank(now, "urgent") > rank(now - age, "low")
    assert (rank(now, "urgent") > rank(now - age, "normal")) == (age < 600)


def served(seconds, *, key):
    """Simulate a worker that can do half of what comes: each second an urgent and a normal shard.

    Returns the second in which the low shard of second 0 was served, or None.
    """
    waiting = [(key(0, "low"), 0, "low")]
    for now in range(seconds):
        for kind in ("urgent", "normal"):
            heapq.heappush(waiting, (key(now, kind), now, kind))
        _, _, kind = heapq.heappop(waiting)
        if kind == "low":
            return now
    return None


def test_a_low_shard_is_served_even_by_a_worker_that_can_do_half_of_what_comes():
    # After the urgent shards of its hour, and the normal ones of the first 50 minutes.
    assert served(7000, key=lambda now, kind: -rank(now, kind)) == 3600 + 3000
    fixed = {"urgent": 0, "normal": 1, "low": 2}
    assert served(100_000, key=lambda _, kind: fixed[kind]) is None  # what fixed priorities do


@pytest.fixture(scope="module")
def client():
    """A client of a scheduler with one worker, in threads of this process: it starts at once."""
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def rush(client, priority_of, *, seconds):
    """A low job beside urgent shards that never stop coming. How many of its 5 were done?"""
    stop = threading.Event()

    def urgent():
        flying = []
        while not stop.is_set():
            flying = [future for future in flying if not future.done()]
            while len(flying) < 60:  # more than a busy machine gets done before the next look
                work = client.submit(time.sleep, 0.01, pure=False, priority=priority_of("urgent"))
                flying.append(work)
            time.sleep(0.002)
        client.cancel(flying)

    crowd = threading.Thread(target=urgent)
    crowd.start()
    time.sleep(0.1)
    low = [
        client.submit(time.sleep, 0.01, pure=False, priority=priority_of("low")) for _ in range(5)
    ]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not all(future.done() for future in low):
        time.sleep(0.01)
    stop.set()
    crowd.join()
    done = sum(future.done() for future in low)
    client.cancel(low)
    return done


def test_on_a_real_scheduler_a_low_job_finishes_although_urgent_ones_keep_coming(client):
    patience = {"urgent": 0.0, "normal": 0.2, "low": 0.5}
    ranks = Ranks(client.run_on_scheduler(time.monotonic), patience)
    assert rush(client, ranks.rank, seconds=20) == 5


def test_with_fixed_priorities_of_dask_it_starves(client):
    fixed = {"urgent": 10, "low": -10}
    assert rush(client, fixed.__getitem__, seconds=1.5) == 0
