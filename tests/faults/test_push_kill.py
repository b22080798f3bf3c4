"""kill -9 of a consumer of events, again and again: nothing lost or doubled, the latest won."""

import json
import random
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from featurestore.offline.tables import read_table, table_uris
from featurestore.push.consume import read_rejected
from featurestore.stores import redis_layout, sqlite_layout
from featurestore.stores.packed import HEADER_BYTES
from featurestore.stores.resp import Connection, command
from featurestore.wire.entity_key import EntityKeyWriter
from headrace.errors import UnknownName
from headrace.plan import FeatureRead, JoinKey, ViewRead
from headrace.settings import Settings

START = datetime(2013, 1, 1, tzinfo=UTC)
VIEW = ViewRead(
    view="hourly",
    table="hourly",
    join_keys=(JoinKey(name="origin"),),
    event_timestamp="event_timestamp",
    created_timestamp="created_timestamp",
    ttl_seconds=None,
    features=(FeatureRead(name="x", dtype="DOUBLE"),),
)
AIRPORTS = [f"A{n:02d}" for n in range(40)]

_CONSUME = """
import os
import sys
from pathlib import Path
from featurestore.push.consume import Consumer, Pace
from featurestore.push.events import FileEvents
from featurestore.push.push import pushed_schema
from featurestore.push.redis_events import RedisEvents
from featurestore.stores.open_store import open_store
from headrace.plan import ViewRead
from headrace.settings import Settings
home, online, source, view, naive = sys.argv[1:]
settings, view = Settings(home=Path(home), online_store=online), ViewRead.model_validate_json(view)
if "://" in source:
    events = RedisEvents(source, consumer="c")
else:
    events = FileEvents(Path(source), settings.uri("event_positions", "hourly"))
flushes = []
def naive_write(found):  # commits what it has not written, and dies in between
    events.commit(found)
    flushes.append(found)
    if len(flushes) == 2:
        os.kill(os.getpid(), 9)
if naive == "naive":
    events.begin_write = naive_write
pace = Pace(batch_events=50, batch_seconds=0.02, flush_events=200)
consumer = Consumer(
    settings, view, events, schema=pushed_schema(settings, view),
    store=open_store(settings, "tiny"), pace=pace,
)
print("ready", flush=True)
consumer.run(stop=lambda: False, idle_seconds=0.2)
"""


class Case:
    """One stream of events, its consumer, and what both stores must hold at the end."""

    def __init__(self, settings, source, events):
        self.kind = "honest"
        self.settings, self.source = settings, source
        self.rows = [json.loads(text) for text in events if text.startswith(b"{")]
        self.bad = sum(not text.startswith(b"{") for text in events)

    def start(self):
        command_ = [
            *(sys.executable, "-c", _CONSUME, str(self.settings.home)),
            *(self.settings.online_store, self.source, VIEW.model_dump_json(), self.kind),
        ]
        process = subprocess.Popen(command_, stdout=subprocess.PIPE, text=True)
        assert process.stdout.readline() == "ready\n"
        return process

    def run_until(self, flushed):
        """Run the consumer, kill it once so many parts are there; whether it was still at work."""
        with self.start() as process:
            while self.parts() < flushed and process.poll() is None:
                time.sleep(0.0005)
            time.sleep(random.random() * 0.01)
            killed = process.poll() is None
            process.send_signal(signal.SIGKILL)
        return killed

    def run(self):
        with self.start() as process:
            assert process.wait(timeout=60) == 0

    def parts(self):
        try:
            return len(table_uris(self.settings.uri("offline"), "hourly"))
        except UnknownName:
            return 0

    def offline(self):
        table = read_table(self.settings.uri("offline"), "hourly")
        return Counter(table["x"].to_pylist())

    def online(self):
        return {origin: self._value(origin) for origin in AIRPORTS}

    def latest(self):
        """What the online store must hold, by a loop a child could check."""
        best = {}
        for row in self.rows:
            key = (row["event_timestamp"], row["created_timestamp"])
            if row["origin"] not in best or key > best[row["origin"]][0]:
                best[row["origin"]] = (key, row["x"])
        return {origin: best[origin][1] for origin in AIRPORTS}

    def _value(self, origin):
        key = EntityKeyWriter(VIEW.join_keys).write((origin,))
        if "://" in self.settings.online_store:
            asked = command(
                b"HGET", redis_layout.entity_hash(key, "tiny"), redis_layout.packed_field("hourly")
            )
            connection = Connection(self.settings.online_store, timeout_seconds=10)
            (row,) = connection.ask(asked, replies=1)
            connection.close()
        else:
            table = sqlite_layout.packed_table_of("tiny", "hourly")
            with sqlite3.connect(self.settings.online_path) as db:
                query = f"SELECT row FROM {table} WHERE entity_key = ?"
                ((row,),) = db.execute(query, [key]).fetchall()
            db.close()
        return struct.unpack("<d", row[HEADER_BYTES:])[0]


def events_of(count, picked):
    """Events out of order, no two of an entity at the same times, and a bad one now and then."""
    times = picked.sample(range(count * 10), count)
    events = []
    for number, minute in enumerate(times):
        event = START + timedelta(minutes=minute // 2)
        created = event + timedelta(minutes=minute % 2)
        row = {
            "origin": picked.choice(AIRPORTS),
            "event_timestamp": event.isoformat(),
            "created_timestamp": created.isoformat(),
            "x": float(number),
        }
        events.append(json.dumps(row).encode())
        if number % 97 == 5:
            events.append(b"broken %d" % number)
    return events


@pytest.fixture(params=["file", "stream"])
def case_of(request, tmp_path):
    """A case of so many events: of a file into SQLite, or of a stream into Redis."""

    def make(count, picked):
        events = events_of(count, picked)
        if request.param == "file":
            path = tmp_path / "events.jsonl"
            path.write_bytes(b"".join(event + b"\n" for event in events))
            online = str(tmp_path / "online.db")
            return Case(Settings(home=tmp_path / "home", online_store=online), str(path), events)
        url = request.getfixturevalue("redis_url")
        connection = Connection(url, timeout_seconds=10)
        added = [command(b"XADD", b"delays", b"*", b"event", event) for event in events]
        connection.ask(added, replies=len(added))
        connection.close()
        settings = Settings(home=tmp_path / "home", online_store=url)
        return Case(settings, f"{url}?stream=delays", events)

    return make


def prove(case, killing_points):
    kills = sum(case.run_until(point) for point in killing_points)
    case.run()
    assert case.offline() == Counter(row["x"] for row in case.rows)
    assert case.online() == case.latest()
    assert len(read_rejected(case.settings.storage_uri, "hourly")) == case.bad
    return kills


@pytest.mark.slow
def test_a_consumer_killed_twice_loses_and_doubles_nothing(case_of):
    case = case_of(3_000, random.Random(9))
    assert prove(case, [1, 6]) >= 1


@pytest.mark.soak
def test_a_consumer_killed_at_every_other_part_loses_and_doubles_nothing(case_of):
    case = case_of(20_000, random.Random(10))
    assert prove(case, range(1, 90, 2)) >= 30


@pytest.mark.soak
def test_a_consumer_that_commits_before_it_writes_is_found_out(case_of):
    case = case_of(3_000, random.Random(11))
    case.kind = "naive"
    with case.start() as process:
        assert process.wait(timeout=60) == -signal.SIGKILL
    case.kind = "honest"
    with pytest.raises(AssertionError):
        prove(case, [])
    assert case.offline().total() < len(case.rows)
