"""R13: servers are ended and replaced under load, and no request fails.

The negative control is uvicorn as it comes: the same load must find out that it cuts connections.
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from tests.faults.load import Load, Process, request, serving
from tests.faults.serving_home import write_home

IDLE = 10
NAIVE = Path(__file__).parent / "naive" / "stock_uvicorn.py"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    write_home(home)
    return home


def idle_connections(port):
    """Accepted connections that have been answered once, and then said nothing."""
    clients = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(IDLE)]
    for client in clients:
        client.sendall(request())
        assert answer(client).startswith(b"HTTP/1.1 200")
    return clients


def answer(client):
    """The next answer to its end; nothing where the connection ends before."""
    answer = b""
    try:
        while not answer.endswith((b"}", b"ok")):
            more = client.recv(65_536)
            if not more:
                return b""
            answer += more
    except ConnectionError:
        return b""
    return answer


def answered_after_the_signal(server):
    """How many idle clients are answered that ask 0.2 s after SIGTERM, and the exit code."""
    clients = idle_connections(server.port)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    answers = []
    for client in clients:
        try:
            client.sendall(request())
        except ConnectionError:
            continue
        answers.append(answer(client))
        client.close()
    return answers, server.process.wait(30)


def rolled(home, count):
    """Roll two workers ``count`` times under 64 connections; the load, and how many were new."""
    with serving(home, "--workers", "2", drain_seconds=5) as server, Load(server.port) as load:
        first, seen = set(server.workers()), set()
        for _ in range(count):
            before = set(server.workers())
            server.process.send_signal(signal.SIGHUP)
            until(lambda: len(now := set(server.workers())) == 2 and not now & before)  # noqa: B023
            seen |= set(server.workers())
        time.sleep(0.2)
    return load, len(seen - first)


def until(holds, seconds=60):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def check_rolling(load, replaced, count, scorecard):
    figure = f"{replaced} workers replaced under 64 connections: {load.outcomes['200']:,} requests"
    scorecard("R13", passed=not load.failed, figure=f"{figure}, failed {load.failed or 0}", seed=0)
    assert (load.failed, replaced) == ({}, 2 * count)


def test_workers_are_replaced_one_by_one_and_no_request_fails(home, scorecard):
    check_rolling(*rolled(home, 1), 1, scorecard)


@pytest.mark.soak
def test_twenty_rolling_restarts_fail_no_request(home, scorecard):
    check_rolling(*rolled(home, 20), 20, scorecard)


def test_a_killed_worker_costs_what_it_had_under_way_and_another_takes_its_place(home):
    with serving(home, "--workers", "2") as server:
        with Load(server.port) as load:
            time.sleep(0.3)
            victim = server.workers()[0]
            os.kill(victim, signal.SIGKILL)
            killed = time.monotonic()
            until(lambda: len(server.workers()) == 2 and victim not in server.workers())
            time.sleep(1.0)
        assert sum(load.failed.values()) <= 64
        assert all(at - killed < 2.0 for at in load.failed_at)
        assert load.good_at > killed + 0.9
        assert server.end() == 0


def test_an_idle_client_that_asks_after_the_signal_is_answered_and_told_to_close(home):
    with serving(home) as server:
        begun = time.monotonic()
        answers, code = answered_after_the_signal(server)
        assert (len(answers), code) == (IDLE, 0)
        assert time.monotonic() - begun < 10
    assert all(one.startswith(b"HTTP/1.1 200") for one in answers)
    assert all(b"connection: close" in one for one in answers)


def test_uvicorn_as_it_comes_cuts_idle_clients_off():
    server = Process([sys.executable, str(NAIVE)])
    answers, _ = answered_after_the_signal(server)
    server.end()
    assert not any(answers)
