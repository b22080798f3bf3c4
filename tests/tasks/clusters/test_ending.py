"""However a process with a cluster ends, its workers end too."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.settings import Settings
from tasks.clusters import cluster

pytestmark = pytest.mark.slow

SCRIPT = """
import os, sys, time
from headrace.settings import Settings
from tasks.clusters import cluster

if __name__ == "__main__":
    with cluster(Settings(home=sys.argv[1], workers=1)) as compute:
        print(compute.submit(os.getpid).result(), flush=True)
        {then}
"""


@pytest.fixture
def started(tmp_path):
    """Starts a process with a cluster of one worker; gives it and its worker's process id."""
    processes = []

    def start(then):
        script = tmp_path / "script.py"
        script.write_text(SCRIPT.format(then=then))
        process = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path.cwd())},
        )
        processes.append(process)
        return process, int(process.stdout.readline())

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def is_gone(pid, seconds=15):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def leaves_no_worker(started, number, codes):
    process, worker = started("time.sleep(60)")
    process.send_signal(number)
    assert process.wait(20) in codes
    assert is_gone(worker)


def test_a_process_that_is_told_to_end_leaves_no_worker_behind(started):
    leaves_no_worker(started, signal.SIGTERM, {143})


@pytest.mark.soak
@pytest.mark.parametrize(
    ("number", "codes"), [(signal.SIGINT, {1, 130, -2}), (signal.SIGKILL, {-9})]
)
def test_nor_does_one_that_is_interrupted_or_killed(started, number, codes):
    leaves_no_worker(started, number, codes)


def break_in(settings):
    with cluster(settings) as compute:
        raise ValueError(str(compute.submit(os.getpid).result()))


@pytest.mark.soak
def test_an_error_in_the_block_ends_the_workers_and_comes_through(tmp_path):
    with pytest.raises(ValueError, match=r"^[0-9]+$") as raised:
        break_in(Settings(home=tmp_path, workers=1))
    assert is_gone(int(str(raised.value)))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
