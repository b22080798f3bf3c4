"""R19: a server that answers and changes models for long does not grow.

The negative control is the same server with a handler that keeps a little of every request.
"""

import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.faults.load import Load, Process, request, serving
from tests.faults.models import ROW, Models, train

LEAKING = Path(__file__).parent / "naive" / "leaking_server.py"
SETTINGS = {"poll_seconds": 0.05, "max_wait_seconds": 30, "log_flush_seconds": 0.2}
"""Overload is another row's. The log is written at once, because the first file of a process takes
17 MB for Arrow's writer, which belongs to the warm-up."""
LATE_THREADS = 6
"""Threads of pools that are made when they are first needed, which may be after the warm-up: four
that compute batches, and some that wait for files. A leak would be one for each swap or request."""


@dataclass(frozen=True)
class Used:
    """What a process holds."""

    resident_mb: float
    files: int
    threads: int

    @classmethod
    def by(cls, pid):
        status = Path(f"/proc/{pid}/status").read_text()
        resident_kb, threads = (
            int(re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[1])
            for name in ("VmRSS", "Threads")
        )
        return cls(resident_kb / 1000, len(list(Path(f"/proc/{pid}/fd").iterdir())), threads)


@dataclass(frozen=True)
class World:
    """A home whose release moves between models."""

    home: Path
    models: Models
    digests: list

    def move(self, port, number):
        """Move the release on, and wait until the server answers with it."""
        digest = self.digests[number % len(self.digests)]
        self.models.release(digest)
        deadline = time.monotonic() + 20
        while httpx.get(f"http://127.0.0.1:{port}/v2/models/flights").json()["versions"] != [
            digest[:12]
        ]:
            assert time.monotonic() < deadline, f"{digest[:12]} never answered"
            time.sleep(0.01)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    models = Models(str(home / "storage"), endpoint="flights")
    digests = [models.bundle(train(seed, trees=40, depth=5)) for seed in (1, 2)]
    models.release(digests[0])
    return World(home, models, digests)


@pytest.fixture(scope="module")
def sent():
    tensor = {"name": "features", "shape": [1, len(ROW)], "datatype": "FP32", "data": ROW}
    return request(json.dumps({"inputs": [tensor]}).encode(), "/v2/models/flights/infer")


def growth(world, server, sent, *, requests, swaps):
    """What the server holds after a warm-up, and after many requests and swaps more."""
    _work(world, server, sent, requests=requests // 2, swaps=max(8, swaps // 10))
    before = Used.by(server.pid)
    asked = _work(world, server, sent, requests=requests, swaps=swaps)
    return before, Used.by(server.pid), asked


def _work(world, server, sent, *, requests, swaps):
    with Load(server.port, connections=16, sent=sent) as load:
        for number in range(1, swaps + 1):
            world.move(server.port, number)
            while sum(load.outcomes.values()) < requests * number // swaps:
                time.sleep(0.005)
    assert not load.failed
    time.sleep(1.2)  # until the last connections are closed, and the last model is freed
    return sum(load.outcomes.values())


@pytest.mark.parametrize(
    ("requests", "swaps", "most_mb"),
    [(6_000, 8, 5.0), pytest.param(1_000_000, 1_000, 10.0, marks=pytest.mark.soak)],
)
def test_a_server_does_not_grow(world, sent, requests, swaps, most_mb, scorecard):
    with serving(world.home, **SETTINGS) as server:
        before, after, asked = growth(world, server, sent, requests=requests, swaps=swaps)
    grown = after.resident_mb - before.resident_mb
    figure = (
        f"{asked:,} requests and {swaps} swaps: {grown:+.1f} MB of {after.resident_mb:.0f} MB, "
        f"{after.files - before.files:+d} files, {after.threads - before.threads:+d} threads"
    )
    print(figure)
    few_threads = after.threads <= before.threads + LATE_THREADS
    held = grown <= most_mb and after.files <= before.files and few_threads
    scorecard("R19", passed=held, figure=figure)
    assert held, figure


def test_a_handler_that_leaks_is_found_out(world, sent):
    environment = {f"HEADRACE_SERVER_{name.upper()}": str(v) for name, v in SETTINGS.items()}
    command = [sys.executable, str(LEAKING), "--endpoint", "flights", "--port", "0"]
    server = Process(command, HEADRACE_HOME=str(world.home), **environment)
    try:
        before, after, _ = growth(world, server, sent, requests=4_000, swaps=2)
    finally:
        server.end()
    assert after.resident_mb - before.resident_mb > 10.0
