"""R15: Redis is killed, hung, slow and emptied while a server answers, keys and raw features.

With ``degrade`` no request fails: an answer is either whole, or says that it is degraded and why.
Requests of raw features do not notice anything.
"""

import json
import signal
import time
from datetime import timedelta

import numpy as np
import pytest

from featurestore.catalog.catalog import Catalog
from featurestore.stores.materialize import materialize
from featurestore.stores.resp import Connection, command
from headrace.settings import Settings
from tests.faults.load import Load, request, serving
from tests.faults.redis_server import RedisServer, SlowProxy
from tests.faults.serving_home import KEYED, PLAN, WRITTEN, write_home

FAULTS = ("kill", "hang", "slow", "empty")
NOTICED = 0.2
"""Seconds until every answer is degraded: the deadline of a read, and what was under way."""
HEALED = 2.0
"""Seconds within which Redis must be used again."""


class KeyedLoad(Load):
    """Requests of entity keys, and what was answered when."""

    def __init__(self, port):
        super().__init__(port, connections=4, sent=request(KEYED, "/api/v1/infer"))
        self.answers = []

    def answered(self, body):
        found = json.loads(body)
        (row,) = found["predictions"]
        kind = found["degraded"], row["features"]["weather"], row["prediction"]
        self.answers.append((time.monotonic(), kind))

    def between(self, begun, ended):
        return {kind for now, kind in self.answers if begun < now < ended}


class World:
    """A server, its Redis behind a proxy, and a load of both kinds."""

    def __init__(self, home, folder):
        self.home, self.redis = home, RedisServer(folder)
        self.proxy = SlowProxy(self.redis.port)
        self.write()

    def write(self):
        settings = Settings(home=self.home, online_store=self.redis.url)
        catalog = Catalog(
            project=PLAN.project, definitions_sha256="0" * 64, views=PLAN.views, services={}
        )
        materialize(settings, catalog, until=WRITTEN + timedelta(minutes=1))

    def begin(self, fault):
        if fault == "kill":
            self.redis.kill()
        elif fault == "hang":
            self.redis.signal(signal.SIGSTOP)
        elif fault == "slow":
            self.proxy.delay = 0.2
        else:
            connection = Connection(self.redis.url, timeout_seconds=5)
            connection.ask(command(b"FLUSHALL"), replies=1)
            connection.close()

    def end(self, fault):
        if fault == "kill":
            self.redis.start()
        elif fault == "hang":
            self.redis.signal(signal.SIGCONT)
        elif fault == "slow":
            self.proxy.delay = 0.0
        if fault in ("kill", "empty"):
            self.write()

    def close(self):
        self.redis.kill()
        self.proxy.close()


@pytest.fixture
def world(tmp_path, monkeypatch):
    home = tmp_path / "home"
    write_home(home)
    made = World(home, tmp_path)
    monkeypatch.setenv("HEADRACE_ONLINE_STORE", made.proxy.url)
    try:
        yield made
    finally:
        made.close()


def hurt(world, faults, *, lasting):
    """Do harm after harm under load; (spans of harm, keyed load, raw load)."""
    options = {"on_store_failure": "degrade", "store_retry_seconds": 0.2}
    spans = []
    with (
        serving(world.home, **options) as server,
        KeyedLoad(server.port) as keyed,
        Load(server.port, connections=4) as raw,
    ):
        time.sleep(0.7)
        for fault in faults:
            begun = time.monotonic()
            world.begin(fault)
            time.sleep(lasting)
            world.end(fault)
            spans.append((fault, begun, time.monotonic()))
            time.sleep(HEALED + 0.3)
    return spans, keyed, raw


def proved(world, faults, *, lasting, scorecard, seed):
    spans, keyed, raw = hurt(world, faults, lasting=lasting)
    whole = keyed.between(spans[0][1] - 0.3, spans[0][1])
    (normal,) = whole
    assert normal[:2] == (False, "present")
    kinds = keyed.between(0, time.monotonic())
    unmarked = {kind for kind in kinds - {normal} if kind[:2] != (True, "unavailable")}
    marked = all(
        {kind[:2] for kind in keyed.between(begun + NOTICED, ended)} == {(True, "unavailable")}
        for fault, begun, ended in spans
        if fault != "empty"  # being filled again, it is whole before it is told so
    )
    ends = [*(begun for _, begun, _ in spans[1:]), time.monotonic()]
    healed = all(
        keyed.between(ended + HEALED, following) == {normal}
        for (_, _, ended), following in zip(spans, ends, strict=True)
    )
    passed = (
        not keyed.failed
        and not raw.failed
        and not unmarked
        and marked
        and healed
        and max(keyed.p95, raw.p95) <= 0.1
    )
    figure = f"{len(keyed.answers)} by keys, p95 {keyed.p95 * 1e3:.1f} ms; raw {raw.p95 * 1e3:.1f}"
    scorecard("R15", passed=passed, figure=figure, seed=seed)
    assert not keyed.failed
    assert not raw.failed
    assert not unmarked
    assert marked
    assert healed
    assert keyed.p95 <= 0.1
    assert raw.p95 <= 0.1


def test_redis_lost_under_load_degrades_and_fails_nobody(world, scorecard):
    proved(world, ("kill", "hang"), lasting=0.7, scorecard=scorecard, seed=0)


@pytest.mark.soak
def test_every_loss_of_redis_again_and_again(world, scorecard):
    random = np.random.default_rng(5)
    faults = [str(fault) for _ in range(5) for fault in random.permutation(FAULTS)]
    proved(world, faults, lasting=1.0, scorecard=scorecard, seed=5)
