"""R23: clients that send or read slowly are closed in time, and others do not notice.

The negative control is uvicorn as it comes, which keeps all of them.
"""

import contextlib
import socket
import sys
import time
from pathlib import Path

import pytest

from tests.faults.load import Load, Process, request, serving
from tests.faults.serving_home import write_home

NAIVE = Path(__file__).parent / "naive" / "stock_uvicorn.py"
SLOW_HEAD = b"POST /v2/models/flights/infer HTTP/1.1\r\nHost: here\r\nContent-Le"
SLOW_BODY = request()[:-20]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    write_home(home)
    return home


def connected(port, *, window=0):
    client = socket.socket()
    if window:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    client.settimeout(10)
    client.connect(("127.0.0.1", port))
    return client


def slow_clients(port, each, stack):
    """So many of each kind: half a head, half a body, answers that nobody reads; their addresses.

    As the server's side sees them: its own address and theirs.
    """
    addresses = []
    for sent, window in ((SLOW_HEAD, 0), (SLOW_BODY, 0), (request() * 40, 2048)):
        for _ in range(each):
            client = stack.enter_context(connected(port, window=window))
            client.sendall(sent)
            addresses.append((_hex(client.getpeername()), _hex(client.getsockname())))
    return addresses


def still_open(clients):
    """Those whose connection the server's side has not ended.

    The kernel is asked, and not the client: to find out it would have to read, and one that reads
    is not slow; and where the server's kernel gives up on it, it is not told.
    """
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    established = {(line[1], line[2]) for line in lines if line[3] == "01"}
    return [pair for pair in clients if pair in established]


def _hex(address):
    host, port = address
    return f"{socket.inet_aton(host)[::-1].hex().upper()}:{port:04X}"


def ended_after(clients, seconds):
    """How long until all were ended; more than ``seconds`` where some never were."""
    begun = time.monotonic()
    while still_open(clients) and time.monotonic() - begun < seconds:
        time.sleep(0.05)
    return time.monotonic() - begun


def crowd(home, each, **settings):
    """Slow clients beside good ones: how long they lasted, and the load without and with them."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(home, **settings))
        with Load(server.port, connections=8) as quiet:
            time.sleep(1.0)
        with Load(server.port, connections=8) as crowded:
            clients = slow_clients(server.port, each, stack)
            seconds = ended_after(clients, 20)
            left = len(still_open(clients))
    return seconds, left, quiet, crowded


def test_slow_clients_are_closed_in_time_beside_good_ones(home, scorecard):
    limits = dict.fromkeys(("header_seconds", "body_seconds", "write_seconds"), 1)
    seconds, left, _, crowded = crowd(home, 40, **limits)
    figure = (
        f"3 x 40 slow clients closed after {seconds:.1f} s; others failed {crowded.failed or 0}"
    )
    scorecard("R23", passed=left == 0 and not crowded.failed, figure=figure, seed=0)
    assert (left, crowded.failed) == (0, {})
    assert seconds < 10


@pytest.mark.soak
def test_nine_hundred_slow_clients_are_closed_within_fifteen_seconds(home, scorecard):
    seconds, left, quiet, crowded = crowd(home, 300)
    slower = crowded.p95 / quiet.p95
    figure = (
        f"3 x 300 slow clients closed after {seconds:.1f} s; others failed {crowded.failed or 0}, "
        f"p95 {1e3 * quiet.p95:.1f} ms without them, {1e3 * crowded.p95:.1f} ms with them"
    )
    scorecard("R23", passed=left == 0 and seconds <= 15, figure=figure, seed=0)
    assert (left, crowded.failed) == (0, {})
    assert seconds <= 15, slower


def test_uvicorn_as_it_comes_keeps_slow_heads():
    server = Process([sys.executable, str(NAIVE)])
    with contextlib.ExitStack() as stack:
        clients = slow_clients(server.port, 7, stack)
        time.sleep(3.0)
        kept = len(still_open(clients))
    server.end()
    assert kept == 21
