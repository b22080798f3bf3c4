"""kill -9 of Dask workers while they score, by the number of shards that are done."""

import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tasks.batch import commit


def workers_of_this_process():
    """The process ids of our Dask workers, as the system knows them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            command = (process / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        if parent == os.getpid() and b"spawn_main" in command:
            found.append(int(process.name))
    return found


def kill_workers(batch, killing, points, stop):
    """Kill a worker each time the batch has come to the next point."""
    for point in points:
        while batch.progress() < point and not stop.is_set():
            time.sleep(0.001)
        while not (workers := workers_of_this_process()) and not stop.is_set():
            time.sleep(0.001)
        if stop.is_set():
            return
        os.kill(killing.random.choice(workers), signal.SIGKILL)
        killing.kills += 1


@pytest.mark.slow
def test_two_killed_workers_cost_time_and_nothing_else(killing, batch, unkilled, monkeypatch):
    points = killing.points(batch.shards - 2, 2)
    stop = threading.Event()
    killer = threading.Thread(target=kill_workers, args=(batch, killing, points, stop))
    killer.start()
    try:
        assert batch.run() == 0
    finally:
        stop.set()
        killer.join()
    assert killing.kills == 2
    assert commit.read_manifest(batch.output).digest == unkilled.digest
    assert Counter(batch.read()) == Counter(batch.rows)
