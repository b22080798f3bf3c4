"""A worker that is told to end: by SIGTERM, by its machine, by the command that started it."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from headrace.settings import Settings
from tasks.clusters import Call, cluster
from tasks.clusters.config import Local
from tests.tasks.clusters import work

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Three workers on a machine that says by a file that it will be taken away."""
    folder = tmp_path_factory.mktemp("machine")
    config = Local(name="spot", workers=3, notice=str(folder / "notice"))
    with cluster(Settings(home=folder), config=config) as compute:
        yield compute, folder / "notice"


def when(folder: Path, name: str, act) -> threading.Thread:
    """Do something with the process id of whoever begins the call of that name."""

    def wait():
        while not (begun := list(folder.glob(f"began-{name}.*"))):
            time.sleep(0.005)
        act(int(begun[0].read_text()))

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def counts(folder, names):
    return [(work.traces(folder, f"began-{n}"), work.traces(folder, f"ended-{n}")) for n in names]


def test_a_worker_that_gets_sigterm_finishes_its_shard_once_and_hands_back_the_rest(
    machine, tmp_path
):
    compute, _ = machine
    told = []

    def terminate(pid):
        told.append(pid)
        os.kill(pid, signal.SIGTERM)

    thread = when(tmp_path, "3", terminate)
    calls = [Call(str(n), work.noted, (str(tmp_path), n, 0.25)) for n in range(20)]
    outcomes = list(compute.run(calls))
    thread.join()
    assert counts(tmp_path, range(20)) == [(1, 1)] * 20
    by = {done.key: done.result for done in outcomes}
    assert by["3"] == told[0]
    assert sum(pid == told[0] for pid in by.values()) <= 2  # the one it was at, and one before
    compute.look()
    assert compute.workers == 2


def test_the_notice_of_a_machine_drains_all_its_workers(machine, tmp_path):
    compute, notice = machine
    calls = [Call(str(n), work.noted, (str(tmp_path), n, 0.4)) for n in range(60)]
    results = compute.run(calls)
    done = [next(results)]
    notice.touch()
    deadline = time.monotonic() + 30
    while compute.workers and time.monotonic() < deadline:
        compute.look()
        time.sleep(0.05)
    assert compute.workers == 0
    begun = {path.name.split(".")[0].removeprefix("began-") for path in tmp_path.glob("began-*")}
    assert counts(tmp_path, begun) == [(1, 1)] * len(begun)
    assert len(begun) < 60
    assert not done[0].error
    results.close()
