"""Dask workers killed and hung, and their scheduler killed: the cost is time, and nothing else.

R1 and R4 of the reliability table, on shards that are written and committed as batch prediction
does. Kills come at counts of recorded shards, never by the clock.
"""

import os
import signal
import threading
import time
from collections import Counter

import pyarrow.parquet as pq
import pytest

from headrace.settings import Settings
from tasks.batch.commit import Manifest, commit, read_predictions
from tasks.batch.lease import held
from tasks.clusters import Call, cluster
from tasks.clusters.compute import Here
from tasks.clusters.config import Local
from tests.faults import shard_work
from tests.tasks.clusters.supervised import Supervised

pytestmark = pytest.mark.slow


class Killer(threading.Thread):
    """Does something at rising counts of recorded shards, until there are no more."""

    def __init__(self, output, points, act):
        super().__init__()
        self.output, self.points, self.act = output, points, act
        self.acts, self.last = 0, 0.0
        self.stop = threading.Event()

    def run(self):
        for point in self.points:
            while shard_work.recorded(self.output) < point and not self.stop.is_set():
                time.sleep(0.001)
            while not self.stop.is_set() and not self.act():
                time.sleep(0.005)
            if self.stop.is_set():
                return
            self.acts, self.last = self.acts + 1, time.monotonic()

    def __exit__(self, *_):
        self.stop.set()
        self.join()

    def __enter__(self):
        self.start()
        return self


def calls(function, output, shards, seconds):
    return [Call(f"{number:04}", function, (output, number, seconds)) for number in range(shards)]


def score(compute, output, shards, seconds=0.02) -> tuple[Manifest, float]:
    """Score and commit; the manifest, and the longest time without a shard done."""
    records, longest, last = {}, 0.0, time.monotonic()
    for done in compute.run(calls(shard_work.write, output, shards, seconds)):
        assert done.error is None
        records[done.key] = done.result
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    with held(output, owner="a test", seconds=2) as lease:
        manifest = commit(
            output,
            lease=lease,
            run="0a1b",
            model="flight_delay",
            bundle="0" * 64,
            input="a table",
            rows=shards * shard_work.ROWS,
            shards=[records[key] for key in sorted(records)],
        )
    return manifest, longest


def unbroken(folder, shards) -> Manifest:
    """The manifest of the same job where nothing dies."""
    manifest, _ = score(Here(), str(folder / "unbroken" / "output"), shards, seconds=0)
    return manifest


def rows_of(output, shards):
    """(rows lost, rows doubled) in what a reader gets."""
    found = Counter(read_predictions(output)["row"].to_pylist())
    wanted = Counter(range(shards * shard_work.ROWS))
    return (wanted - found).total(), (found - wanted).total()


def pids(compute):
    """The process ids of the workers of a local cluster that are alive."""
    return [nanny.pid for nanny in compute.client.cluster.workers.values() if nanny.pid]


def kill_one(compute, random):
    """Kill a worker by chance; False while there is none."""
    alive = pids(compute)
    try:
        os.kill(random.choice(alive), signal.SIGKILL)
    except (IndexError, ProcessLookupError):  # the one that was killed last has just gone
        return False
    return True


def seconds_until_back(compute, workers):
    begun = time.monotonic()
    while compute.workers < workers:
        assert time.monotonic() - begun < 60, f"{compute.workers} of {workers} workers came back"
        time.sleep(0.05)
        compute.look()
    return time.monotonic() - begun


def survive(tmp_path, killing, scorecard, *, kills, shards):
    """Kill workers while they score; say what it cost in R1 and R4's terms."""
    output = str(tmp_path / "killed" / "output")
    with cluster(Settings(home=tmp_path, workers=2)) as compute:
        points = killing.points(shards - 6, kills)
        with Killer(output, points, lambda: kill_one(compute, killing.random)) as killer:
            manifest, longest = score(compute, output, shards)
        compute.look()
        back = seconds_until_back(compute, 2)
    lost, doubled = rows_of(output, shards)
    same = manifest.digest == unbroken(tmp_path, shards).digest
    scorecard(
        "R1",
        passed=same and lost == doubled == 0 and longest < 60,
        figure=f"{killer.acts} kills: {lost} rows lost, {doubled} doubled, digest "
        f"{'identical' if same else 'differs'}, {longest:.1f} s the longest stand",
        seed=killing.seed,
        begun_twice=shard_work.begun(output) - shards,
    )
    scorecard(
        "R4",
        passed=back <= 15,
        figure=f"after {killer.acts} kills both workers back within {back:.1f} s",
        seed=killing.seed,
    )
    assert killer.acts == kills
    assert (same, lost, doubled) == (True, 0, 0)
    assert longest < 60
    assert back <= 15


def test_workers_killed_at_four_points_leave_no_trace(tmp_path, killing, scorecard):
    survive(tmp_path, killing, scorecard, kills=4, shards=80)


@pytest.mark.soak
def test_two_hundred_kills_of_workers_leave_no_trace(tmp_path, killing, scorecard):
    survive(tmp_path, killing, scorecard, kills=200, shards=3_000)


def test_an_append_writer_on_workers_that_are_killed_doubles_rows(tmp_path, killing):
    output = tmp_path / "appended"
    with (
        cluster(Settings(home=tmp_path, workers=1)) as compute,
        Killer(output, [4], lambda: kill_one(compute, killing.random)) as killer,
    ):
        list(compute.run(calls(shard_work.append, str(output), 12, 0.1)))
    rows = [
        row for path in output.glob("*.parquet") for row in pq.read_table(path)["row"].to_pylist()
    ]
    assert killer.acts == 1
    assert len(rows) > len(set(rows)) == 12 * shard_work.ROWS


@pytest.mark.soak
def test_with_the_settings_of_dask_alone_a_killed_worker_is_lost_for_good(tmp_path, killing):
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as own,
        Client(own, set_as_default=False) as client,
    ):
        for _ in range(40):
            alive = [nanny.pid for nanny in own.workers.values() if nanny.pid]
            os.kill(killing.random.choice(alive), signal.SIGKILL)
            time.sleep(killing.random.uniform(1.0, 4.0))
            if len(own.workers) < 2:
                break
        assert len(own.workers) < 2
        client.close()


def hang(tmp_path, killing, scorecard, *, ttl, limit):
    """SIGSTOP a worker in the middle of a shard: how long until all is done?"""
    output, shards = str(tmp_path / "hung" / "output"), 60
    stopped = []

    def stop():
        stopped.append(killing.random.choice(pids(compute)))
        os.kill(stopped[0], signal.SIGSTOP)
        return True

    config = Local(name="local", workers=2, ttl_seconds=ttl)
    with cluster(Settings(home=tmp_path), config=config) as compute:
        with Killer(output, [10], stop) as killer:
            manifest, _ = score(compute, output, shards, seconds=0.05)
        seconds = time.monotonic() - killer.last
        back = seconds_until_back(compute, 2)
        compute.look()
        assert stopped[0] not in pids(compute)
    same = manifest.digest == unbroken(tmp_path, shards).digest
    scorecard(
        "R4",
        passed=same and seconds < limit,
        figure=f"worker stopped: done after {seconds:.1f} s at ttl {ttl:g} s, replaced "
        f"{back:.1f} s later",
        seed=killing.seed,
    )
    assert same
    assert seconds < limit


def test_a_worker_that_hangs_is_given_up_and_replaced(tmp_path, killing, scorecard):
    hang(tmp_path, killing, scorecard, ttl=5, limit=30)


@pytest.mark.soak
def test_a_worker_that_hangs_costs_less_than_half_a_minute(tmp_path, killing, scorecard):
    hang(tmp_path, killing, scorecard, ttl=10, limit=30)


def lose_scheduler(tmp_path, killing, scorecard, *, kills, shards):
    """Kill -9 a scheduler of somebody else's again and again; recorded shards are not redone."""
    output = str(tmp_path / "lost" / "output")
    with Supervised(tmp_path, workers=2) as others:
        settings = Settings(home=tmp_path, cluster=others.address)
        points = killing.points(shards - 4, kills)

        def kill():
            others.signal("scheduler")
            return True

        with cluster(settings) as compute, Killer(output, points, kill) as killer:
            manifest, longest = score(compute, output, shards, seconds=0.1)
        restarts = others.started["scheduler"] - 1
    again = shard_work.begun(output) - shards
    same = manifest.digest == unbroken(tmp_path, shards).digest
    scorecard(
        "R4",
        passed=same and again <= 4 * kills,
        figure=f"scheduler killed {killer.acts} times: digest "
        f"{'identical' if same else 'differs'}, {again} shards begun twice, {longest:.1f} s the "
        "longest stand",
        seed=killing.seed,
    )
    assert (killer.acts, restarts, same) == (kills, kills, True)
    # Never more than what each of the two workers was at, and had just got, at each kill.
    assert again <= 4 * kills


def test_a_scheduler_that_is_killed_costs_only_what_was_under_way(tmp_path, killing, scorecard):
    lose_scheduler(tmp_path, killing, scorecard, kills=1, shards=30)


@pytest.mark.soak
def test_ten_kills_of_a_scheduler_cost_only_what_was_under_way(tmp_path, killing, scorecard):
    lose_scheduler(tmp_path, killing, scorecard, kills=10, shards=300)
