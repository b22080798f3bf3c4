"""Redis killed, hung, slow and started empty under a reader that goes on asking."""

import contextlib
import signal
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from featurestore.errors import FeatureNotMaterialized, OnlineStoreFailed
from featurestore.online.reader import OnlineReader, ReaderOptions, ReadStatus
from featurestore.stores.redis_store import RedisStore
from featurestore.stores.stored import StoredView, stored_view
from headrace.plan import FeaturePlan, FeatureRead, JoinKey, ViewRead
from tests.faults.redis_server import RedisServer, SlowProxy

NOW = np.datetime64("2013-06-01T00:00", "us")
ENTITIES = 500
DEADLINE = 0.05
VIEW = ViewRead(
    view="hourly",
    table="hourly",
    join_keys=(JoinKey(name="origin"),),
    event_timestamp="event_timestamp",
    created_timestamp=None,
    ttl_seconds=3600.0,
    features=(FeatureRead(name="x", dtype="DOUBLE"),),
)
PLAN = FeaturePlan(
    project="tiny", feature_service="s", definitions_sha256="", event_timestamp="at",
    views=(VIEW,), request=(), inputs_from_request=(), transforms=(),
)  # fmt: skip


class Redis(RedisServer):
    """With rows of the view."""

    def write(self):
        store = RedisStore(self.url, "tiny")
        stored = StoredView(view=stored_view(VIEW), loading=True)
        store.put_view(stored)
        times = [datetime(2013, 5, 31, 23, 30, tzinfo=UTC)] * ENTITIES
        rows = {
            "origin": [f"A{n}" for n in range(ENTITIES)],
            "event_timestamp": pa.array(times, pa.timestamp("us", tz="UTC")),
            "x": [float(n) for n in range(ENTITIES)],
        }
        done = stored.model_copy(update={"loading": False, "until_us": 0})
        store.write(stored, pa.table(rows))
        store.put_view(done)
        store.close()


@pytest.fixture
def redis(tmp_path):
    server = Redis(tmp_path)
    try:
        server.write()
        yield server
    finally:
        server.kill()


@dataclass
class Load:
    """Requests of several threads, one after the other, until told to stop."""

    reader: OnlineReader
    threads: int = 3
    answers: list = field(default_factory=list)
    """(moment, seconds, what): ``present``, ``unavailable``, ``never seen``, ``wrong`` or the
    class of an error."""

    def __enter__(self):
        self._stop = threading.Event()
        self._running = [threading.Thread(target=self._ask, args=(n,)) for n in range(self.threads)]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._running:
            thread.join()

    def _ask(self, seed):
        random = np.random.default_rng(seed)
        while not self._stop.is_set():
            picked = random.integers(0, ENTITIES, 4)
            begun = time.monotonic()
            try:
                what = self._judge(picked)
            except (OnlineStoreFailed, FeatureNotMaterialized) as error:
                what = type(error).__name__
            now = time.monotonic()
            self.answers.append((now, now - begun, what))
            time.sleep(0.002)

    def _judge(self, picked):
        at = np.full(len(picked), NOW)
        rows = self.reader.read({"origin": [f"A{n}" for n in picked]}, at)
        x, status = rows.columns["hourly__x"], rows.status["hourly"]
        unavailable = status == ReadStatus.UNAVAILABLE
        if (status == ReadStatus.NEVER_SEEN).any():
            return "never seen"
        right = np.where(unavailable, np.isnan(x), (x == picked) & (status == 0))
        if not right.all():
            return "wrong"
        return "unavailable" if unavailable.any() else "present"

    def between(self, begun, ended):
        return [(seconds, what) for now, seconds, what in self.answers if begun < now < ended]

    def first(self, what, since):
        return next(now for now, _, found in self.answers if now > since and found == what) - since


def words(answers):
    return {answer[-1] for answer in answers}


def p95(answers):
    return float(np.quantile([answer[-2] for answer in answers], 0.95))


def reader_of(url, **options):
    return OnlineReader(url, PLAN, ReaderOptions(**{"deadline_seconds": DEADLINE} | options))


@pytest.mark.parametrize(("fault", "degrade"), [("kill", True), ("hang", False), ("slow", True)])
def test_a_lost_redis_costs_no_more_than_the_deadline_and_is_found_again(redis, fault, degrade):
    proxy = SlowProxy(redis.port)
    reader = reader_of(proxy.url if fault == "slow" else redis.url, degrade=degrade)
    told = "unavailable" if degrade else "OnlineStoreFailed"
    with Load(reader) as load:
        time.sleep(0.2)
        lost = time.monotonic()
        if fault == "kill":
            redis.kill()
        elif fault == "hang":
            redis.signal(signal.SIGSTOP)
        else:
            proxy.delay = 0.2
        time.sleep(0.7)
        if fault == "kill":
            redis.start()
            redis.write()
        elif fault == "hang":
            redis.signal(signal.SIGCONT)
        else:
            proxy.delay = 0.0
        found = time.monotonic()
        time.sleep(0.9)
    reader.close()
    proxy.close()
    assert not words(load.answers) - {"present", told, "FeatureNotMaterialized"}
    during = load.between(lost + 0.1, found)
    assert words(during) == {told}
    assert p95(during) < 0.1
    assert max(seconds for seconds, _ in during) < 0.5
    assert load.first("present", since=found) < 2.0
    assert words(load.between(found + 0.7, found + 9)) == {"present"}


def test_a_redis_started_empty_gives_no_nulls_until_it_is_filled(redis):
    strict, lenient = reader_of(redis.url), reader_of(redis.url, degrade=True)
    redis.kill()
    redis.start()
    keys, at = {"origin": ["A1"]}, np.array([NOW])
    with pytest.raises(FeatureNotMaterialized, match="view hourly is not in the online store"):
        strict.read(keys, at)
    assert lenient.read(keys, at).status["hourly"].tolist() == [ReadStatus.UNAVAILABLE]
    redis.write()
    for reader in (strict, lenient):
        assert reader.read(keys, at).columns["hourly__x"].tolist() == [1]
        reader.close()


def test_while_redis_is_away_the_cache_answers_for_what_it_has(redis):
    reader = reader_of(redis.url, degrade=True, cache_seconds=60)
    at = np.full(2, NOW)
    reader.read({"origin": ["A1", "A2"]}, at)
    redis.kill()
    rows = reader.read({"origin": ["A2", "A3"]}, at)
    assert rows.status["hourly"].tolist() == [ReadStatus.PRESENT, ReadStatus.UNAVAILABLE]
    np.testing.assert_array_equal(rows.columns["hourly__x"], [2, np.nan])
    assert "ask" in (reader.failure or "") or "reach" in (reader.failure or "")
    reader.close()


def test_a_reader_may_be_opened_degraded_and_finds_redis_later(redis):
    redis.kill()
    with pytest.raises(OnlineStoreFailed, match="cannot reach the online store"):
        reader_of(redis.url)
    reader = reader_of(redis.url, degrade=True, retry_seconds=0.05)
    keys, at = {"origin": ["A1"]}, np.array([NOW])
    assert reader.read(keys, at).status["hourly"].tolist() == [ReadStatus.UNAVAILABLE]
    redis.start()
    redis.write()
    time.sleep(0.1)
    assert reader.read(keys, at).columns["hourly__x"].tolist() == [1]
    reader.close()


def test_a_late_answer_is_never_taken_for_that_of_another_request(redis):
    proxy = SlowProxy(redis.port)
    reader = reader_of(proxy.url, retry_seconds=1e-6)
    at = np.array([NOW])
    for n in range(30):
        proxy.delay = 0.12 if n % 3 == 0 else 0.0
        with contextlib.suppress(OnlineStoreFailed):
            assert reader.read({"origin": [f"A{n}"]}, at).columns["hourly__x"].tolist() == [n]
    reader.close()
    proxy.close()


@pytest.mark.soak
def test_a_minute_of_faults_leaves_every_answer_right(redis):
    random = np.random.default_rng(11)
    reader = reader_of(redis.url, degrade=True)
    with Load(reader, threads=4) as load:
        begun = time.monotonic()
        while time.monotonic() - begun < 60:
            time.sleep(random.uniform(0.3, 1.5))
            fault = random.choice(["kill", "hang", "empty"])
            if fault == "hang":
                redis.signal(signal.SIGSTOP)
                time.sleep(random.uniform(0.05, 0.6))
                redis.signal(signal.SIGCONT)
                continue
            redis.kill()
            time.sleep(random.uniform(0, 0.4))
            redis.start()
            redis.write()
        healed = time.monotonic()
        time.sleep(3)
    reader.close()
    assert words(load.answers) == {"present", "unavailable"}
    assert p95(load.answers) < 0.1
    assert words(load.between(healed + 2, healed + 9)) == {"present"}
