import os
import subprocess
import sys
import time

import pytest

from tasks import background

SLEEP = ["-c", "import time; time.sleep(60)"]
FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"],
                         start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


def first_line(log):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if log.exists() and log.read_text().endswith("\n"):
            return log.read_text().strip()
        time.sleep(0.02)
    raise AssertionError(f"nothing was written to {log}")


def gone(pid):
    return pid not in background._processes()


def test_a_process_is_known_by_its_arguments_until_it_is_ended(tmp_path):
    pid = background.start(SLEEP, os.environ, log=tmp_path / "log")
    assert background.is_running(pid, SLEEP)
    assert not background.is_running(pid, ["-m", "prefect", "server", "start"])
    background.end(pid)
    assert not background.is_running(pid, SLEEP)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # it was asked for: no zombie stays


def test_children_in_sessions_of_their_own_end_too(tmp_path):
    pid = background.start(["-c", FAMILY], os.environ, log=tmp_path / "log")
    child = int(first_line(tmp_path / "log"))
    background.end(pid)
    assert gone(pid)
    assert gone(child)


def test_what_does_not_listen_is_killed(tmp_path):
    pid = background.start(["-c", STUBBORN], os.environ, log=tmp_path / "log")
    assert first_line(tmp_path / "log") == "deaf"
    background.end(pid, patience_seconds=0.5)
    assert gone(pid)


def test_a_process_that_has_ended_is_not_running_and_may_be_ended_again():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not background.is_running(ended.pid, ["-c"])
    background.end(ended.pid)


def test_ps_and_proc_tell_the_same(tmp_path):
    pid = background.start(SLEEP, os.environ, log=tmp_path / "log")
    by_ps = background._processes_by_ps()[pid]
    assert by_ps.parent == background._processes()[pid].parent == os.getpid()
    assert " ".join(SLEEP) in by_ps.command
    background.end(pid)
