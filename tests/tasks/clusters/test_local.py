"""Calls on a local cluster of two real workers, which the tests of this file share."""

import os
import threading
import time

import pytest

from headrace.settings import Settings
from tasks.clusters import Call, Needs, cluster
from tasks.clusters.config import Local
from tasks.clusters.dask_compute import DaskCompute
from tasks.clusters.dask_settings import DASK_SETTINGS
from tasks.clusters.errors import CallKillsWorkers, ClusterLost, ClusterTooSmall, SchedulerLost
from tasks.clusters.rolling import IN_FLIGHT_A_SLOT
from tests.tasks.clusters import work

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def compute(tmp_path_factory):
    with cluster(Settings(home=tmp_path_factory.mktemp("home"), workers=2)) as compute:
        yield compute


def named(function, names, *args):
    return [Call(str(name), function, (*args, name)) for name in names]


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def test_our_settings_reach_dask(compute):
    import dask

    assert {name: dask.config.get(name) for name in DASK_SETTINGS} == DASK_SETTINGS
    assert dask.config.get("distributed.deploy.lost-worker-timeout") == "1h"
    assert dask.config.get("distributed.scheduler.worker-ttl") == "30s"
    assert compute.client.cluster.scheduler.worker_ttl == 30
    assert (compute.kind, compute.workers, compute.slots) == ("local", 2, 2)


def test_single_calls_are_submitted_and_given_as_they_finish(compute):
    futures = [compute.submit(work.double, number, key=f"one-{number}") for number in range(4)]
    assert sorted(future.result() for future in compute.as_completed(futures)) == [0, 2, 4, 6]


def test_many_calls_are_read_only_as_far_as_there_is_room(compute):
    given, done = [], []

    def calls():
        for number in range(200):
            given.append(number)
            yield Call(f"number-{number}", work.double, (number,))

    for result in compute.run(calls()):
        done.append(result.result)
        assert len(given) - len(done) <= IN_FLIGHT_A_SLOT * compute.slots
    assert sorted(done) == [2 * number for number in range(200)]


def test_a_call_that_may_heal_is_tried_again_after_a_while(compute, tmp_path):
    begun = []
    (done,) = compute.run([Call("weak", work.fail_times, (str(tmp_path), 1))], began=begun.append)
    assert (done.result, done.attempts, begun) == ("healed", 2, ["weak", "weak"])


def test_a_call_that_will_not_heal_fails_at_once_and_lets_others_finish(compute, tmp_path):
    folder = str(tmp_path)
    calls = [
        *named(work.noted, range(3), folder),
        *named(work.refuse, ["bad"], folder),
        *named(work.noted, range(3, 90), folder),
    ]
    outcomes = list(compute.run(calls))
    (failed,) = [done for done in outcomes if done.error]
    assert (failed.key, str(failed.error), failed.attempts) == ("bad", "bad cannot be", 1)
    assert work.traces(folder, "refused-bad") == 1
    ended = sum(work.traces(folder, f"ended-{number}") for number in range(90))
    assert ended == len(outcomes) - 1 < 30  # what was under way, and no more


def test_a_loop_that_is_left_lets_go_of_the_rest(compute, tmp_path):
    for _ in compute.run(named(work.noted, range(300), str(tmp_path))):
        break
    time.sleep(0.3)
    assert len(list(tmp_path.glob("began-*"))) < 20


def test_a_call_whose_workers_die_is_given_up_and_its_neighbours_are_not_blamed(compute, tmp_path):
    compute.client.cluster.scheduler.allowed_failures = 0  # a death is enough: the test is short
    calls = [
        Call("poison", work.die, (str(tmp_path),)),
        *named(work.noted, range(8), str(tmp_path)),
    ]
    outcomes = {done.key: done for done in compute.run(calls)}
    compute.client.cluster.scheduler.allowed_failures = 10
    error = outcomes.pop("poison").error
    assert isinstance(error, CallKillsWorkers)
    assert str(error).startswith("poison is given up: 2 Dask workers died while they worked on it")
    assert work.traces(tmp_path, "death") == 2
    assert len(outcomes) == 8
    assert not [done for done in outcomes.values() if done.error]


def test_a_scheduler_that_is_lost_is_replaced_and_the_work_goes_on(compute, tmp_path):
    lost = compute.client.cluster.scheduler

    def lose():
        wait_for(lambda: work.traces(tmp_path, "ended-5"))
        lost.loop.add_callback(lost.close, reason="a test")

    thread = threading.Thread(target=lose)
    thread.start()
    calls = [Call(str(n), work.noted, (str(tmp_path), n, 0.05)) for n in range(40)]
    outcomes = list(compute.run(calls))
    thread.join()
    assert {done.key for done in outcomes} == {str(number) for number in range(40)}
    assert not [done for done in outcomes if done.error]
    assert compute.client.cluster.scheduler is not lost
    assert compute.workers == 2


def test_what_a_cluster_lacks_is_told_before_anything_starts(tmp_path):
    needs = Needs(gpu=True, memory=4 * 2**30, workers=3)
    settings = Settings(home=tmp_path, workers=2, worker_memory="1GiB")
    begun = time.monotonic()
    with pytest.raises(ClusterTooSmall) as told, cluster(settings, needs=needs):
        pass
    assert time.monotonic() - begun < 1
    assert "3 workers are asked for, it has 2" in str(told.value)
    assert "4.00 GiB of memory for each worker is asked for, it has 1.00 GiB" in str(told.value)
    assert "HEADRACE_WORKER_MEMORY" in str(told.value)


def test_small_work_runs_in_this_process(tmp_path):
    with cluster(Settings(home=tmp_path), small=True) as compute:
        calls = [Call("pid", os.getpid), Call("bad", work.refuse, (str(tmp_path), 1))]
        here, refused = compute.run([*calls, Call("never", work.die, (str(tmp_path),))])
        assert compute.submit(work.double, 4).result() == 8
    assert (compute.kind, here.result) == ("here", os.getpid())
    assert str(refused.error) == "1 cannot be"


class Vanishing(DaskCompute):
    """A cluster whose scheduler is lost as soon as it is there."""

    starts = 0

    def _start(self, *, again):
        self.starts += 1
        raise SchedulerLost(self.name, "gone")


def test_a_cluster_that_is_lost_again_and_again_is_given_up(tmp_path):
    config = Local(name="weak", restarts=3)
    compute = Vanishing(config, Settings(home=tmp_path), Needs())
    with pytest.raises(ClusterLost, match="cluster 'weak' was lost 4 times and finished nothing"):
        compute.renew(SchedulerLost("weak", "gone"))
    assert compute.starts == 3
