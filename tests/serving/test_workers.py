"""The parent of workers, with some that load nothing; tests/faults/test_drain.py has real ones."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

PARENT = """
import os, select, signal, sys, time
from serving.workers import Parent

def work(number, pair):
    {begin}
    pair.sendall(f"{{number}}".encode())
    stop = []
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
    while not stop and not select.select([pair], [], [], 0.01)[0]:
        pass
    return 0

def say(*words):
    print(*words, flush=True)

code = Parent(2, work, ready=lambda said: say("ready"), tell=lambda line: say("told", line)).run()
say("code", code)
"""


@pytest.fixture
def start():
    processes = []

    def begin(first="pass"):
        code = textwrap.dedent(PARENT).format(begin=first)
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def children(process):
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return {int(pid) for pid in path.read_text().split()}


def until(holds):
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_all_workers_answer_before_the_server_is_ready_and_sigterm_ends_them(start):
    process = start()
    assert process.stdout.readline() == "ready\n"
    workers = children(process)
    process.send_signal(signal.SIGTERM)
    assert (process.wait(10), len(workers)) == (0, 2)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)


def test_a_worker_that_dies_is_named_and_replaced(start):
    process = start()
    process.stdout.readline()
    before = children(process)
    os.kill(min(before), signal.SIGKILL)
    assert "ended with signal 9" in process.stdout.readline()
    until(lambda: len(children(process)) == 2 and children(process) != before)


def test_sighup_replaces_every_worker_each_after_its_successor_answers(start):
    process = start()
    process.stdout.readline()
    before = children(process)
    process.send_signal(signal.SIGHUP)
    told = [process.stdout.readline() for _ in range(2)]
    assert all("replaces pid" in line for line in told)
    until(lambda: len(children(process)) == 2 and not children(process) & before)


def test_workers_that_cannot_begin_end_the_server_with_their_exit_code(start):
    process = start("return 2")
    assert process.wait(10) == 0
    assert process.stdout.read() == "code 2\n"


def test_workers_end_when_their_parent_is_gone(start):
    process = start()
    process.stdout.readline()
    workers = children(process)
    process.kill()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
