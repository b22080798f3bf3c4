import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from featurestore.offline.tables import read_table, table_uris
from featurestore.push.consume import Consumer, Pace, read_rejected
from featurestore.push.events import EventSourceFailed, FileEvents, StandardInput
from featurestore.push.push import pushed_schema
from featurestore.push.redis_events import RedisEvents, StreamUnnamed
from featurestore.stores.open_store import open_store
from featurestore.stores.resp import Connection, command
from headrace.errors import UnknownName

START = datetime(2013, 1, 1, tzinfo=UTC)


def event(origin, minute, x, **changes):
    at = (START + timedelta(minutes=minute)).isoformat()
    fields = {"origin": origin, "event_timestamp": at, "created_timestamp": at, "x": x}
    return json.dumps(fields | changes)


@pytest.fixture
def lines(tmp_path):
    """A file of events."""
    path = tmp_path / "events.jsonl"

    def write(*events, mode="w"):
        with path.open(mode) as file:
            file.writelines(f"{text}\n" for text in events)
        return path

    return write


@pytest.fixture
def ask(redis_url):
    """Send one command to Redis."""
    connection = Connection(redis_url, timeout_seconds=10)
    yield lambda *words: connection.ask(
        command(*(w if isinstance(w, bytes) else str(w).encode() for w in words)), replies=1
    )[0]
    connection.close()


@pytest.fixture
def stream(ask, redis_url):
    """A stream of events; its address."""

    def add(*events):
        for text in events:
            ask("XADD", "delays", "*", "event", text)
        return f"{redis_url}?stream=delays"

    return add


@pytest.fixture
def consume(at_home, read):
    """Consume a source until it ends or is idle."""
    view = read(ttl_minutes=None)

    def go(source, *, to="both", idle_seconds=0.0, stop=lambda: False, **pace):
        fast = {"batch_seconds": 0.05, "flush_seconds": 60}
        store = open_store(at_home, "tiny") if to != "offline" else None
        consumer = Consumer(
            at_home,
            view,
            source,
            schema=pushed_schema(at_home, view),
            store=store,
            to=to,
            pace=Pace(**(fast | pace)),
        )
        try:
            return consumer.run(stop=stop, idle_seconds=idle_seconds)
        finally:
            source.close()
            if store is not None:
                store.close()

    return go


@pytest.fixture
def positions(at_home):
    return at_home.uri("event_positions", "hourly")


def offline(settings):
    return read_table(settings.uri("offline"), "hourly")["x"].to_pylist()


def test_a_file_is_consumed_once_and_gone_on_with(consume, lines, positions, at_home):
    path = lines(event("JFK", 1, 1.0), event("LGA", 2, 2.0))
    first = consume(FileEvents(path, positions))
    assert (first.events, first.entities_written, first.rows_added) == (2, 2, 2)
    assert consume(FileEvents(path, positions)).events == 0
    lines(event("JFK", 3, 3.0), mode="a")
    assert consume(FileEvents(path, positions)).events == 1
    assert sorted(offline(at_home)) == [1, 2, 3]


def test_many_batches_make_one_part(consume, lines, positions, at_home):
    path = lines(*[event("JFK", n, float(n)) for n in range(20)])
    done = consume(FileEvents(path, positions), batch_events=3, flush_events=12)
    assert (done.events, done.flushes) == (20, 2)
    assert len(table_uris(at_home.uri("offline"), "hourly")) == 2
    assert sorted(offline(at_home)) == list(range(20))


def test_old_events_are_flushed_by_time(consume, lines, positions):
    path = lines(*[event("JFK", n, float(n)) for n in range(6)])
    assert consume(FileEvents(path, positions), batch_events=2, flush_seconds=0).flushes == 3


def test_bad_events_are_kept_with_their_reason_and_counted(consume, lines, positions, at_home):
    path = lines(event("JFK", 1, 1.0), "{", "", event("LGA", 2, "much"), event("LGA", 3, 3.0))
    done = consume(FileEvents(path, positions))
    assert (done.events, done.rejected, done.rows_added) == (4, 2, 2)
    broken, mistyped = sorted(
        read_rejected(at_home.storage_uri, "hourly"), key=lambda e: int(e["position"])
    )
    assert (broken["event"], broken["source"]) == ("{", str(path))
    assert "not JSON" in broken["reason"]
    assert "x = 'much' does not fit double" in mistyped["reason"]


class Killed(Exception):
    """Stands for a kill."""


@pytest.mark.parametrize("moment", ["begin_write", "commit"])
def test_what_was_written_before_a_kill_is_not_written_twice(
    consume, lines, positions, at_home, moment
):
    path = lines(*[event("JFK", n, float(n)) for n in range(10)], "{")
    source = FileEvents(path, positions)

    def killed(_):
        raise Killed

    setattr(source, moment, killed)
    with pytest.raises(Killed):
        consume(source)
    if moment == "commit":
        assert sorted(offline(at_home)) == list(range(10))
    done = consume(FileEvents(path, positions), batch_events=3, flush_events=4)
    assert done.events == 11
    assert sorted(offline(at_home)) == list(range(10))
    assert len(read_rejected(at_home.storage_uri, "hourly")) == 1


def test_a_file_that_became_shorter_is_refused(consume, lines, positions):
    consume(FileEvents(lines(event("JFK", 1, 1.0), event("JFK", 2, 2.0)), positions))
    path = lines(event("JFK", 1, 1.0))
    with pytest.raises(EventSourceFailed, match=r"it is shorter than the .* bytes that were read"):
        FileEvents(path, positions)


def test_a_file_that_is_not_there_is_refused(positions):
    with pytest.raises(EventSourceFailed, match=r"gone\.jsonl: No such file"):
        FileEvents(Path("gone.jsonl"), positions)


def test_a_pipe_is_read_to_its_end(consume, at_home):
    reading, writing = os.pipe()
    text = "\n".join(event("JFK", n, float(n)) for n in range(5))  # the last line has no end
    os.write(writing, text.encode())
    os.close(writing)
    done = consume(StandardInput(reading), idle_seconds=None, batch_events=2)
    os.close(reading)
    assert done.events == 5
    assert sorted(offline(at_home)) == list(range(5))


def test_an_open_pipe_is_left_when_idle_or_told_to_stop(consume):
    reading, writing = os.pipe()
    os.write(writing, event("JFK", 1, 1.0).encode() + b"\n")
    assert consume(StandardInput(reading), idle_seconds=0.1).events == 1
    assert consume(StandardInput(reading), idle_seconds=None, stop=lambda: True).events == 0
    os.close(writing)
    os.close(reading)


def test_a_stream_is_consumed_and_acknowledged(consume, stream, ask, at_home):
    url = stream(*[event("JFK", n, float(n)) for n in range(7)])
    done = consume(RedisEvents(url, consumer="a"), idle_seconds=0.1, batch_events=3)
    assert (done.events, done.rows_added) == (7, 7)
    assert ask("XPENDING", "delays", "headrace")[0] == 0
    assert consume(RedisEvents(url, consumer="a"), idle_seconds=0.1).events == 0
    assert offline(at_home) == list(range(7))


def test_what_a_consumer_had_not_acknowledged_it_is_given_again(consume, stream, ask, at_home):
    url = stream(*[event("JFK", n, float(n)) for n in range(5)])
    killed = RedisEvents(url, consumer="a")
    assert len(killed.read(3, wait_seconds=0.01)) == 3
    killed.close()
    again = RedisEvents(url, consumer="a")
    assert [e.again for e in again.read(2, wait_seconds=0.01)] == [True, True]
    again.close()
    assert consume(RedisEvents(url, consumer="a"), idle_seconds=0.1).events == 5
    assert sorted(offline(at_home)) == list(range(5))
    assert ask("XPENDING", "delays", "headrace")[0] == 0


def test_what_a_dead_consumer_has_left_is_taken_over_and_not_doubled(consume, stream, at_home):
    url = stream(*[event("JFK", n, float(n)) for n in range(6)])
    dead = RedisEvents(url, consumer="dead")
    dead.commit = lambda _: None  # it dies after the write
    consume(dead, idle_seconds=0.1)
    assert offline(at_home) == list(range(6))
    alive = RedisEvents(url, consumer="alive", claim_seconds=0)
    assert consume(alive, idle_seconds=0.1, batch_events=2).events >= 6
    assert offline(at_home) == list(range(6))


def test_entries_that_are_no_events_are_rejected(consume, stream, ask, at_home):
    url = stream(event("JFK", 1, 1.0))
    ask("XADD", "delays", "*", "x", "1")
    gone = ask("XADD", "delays", "*", "event", event("JFK", 2, 2.0))
    source = RedisEvents(url, consumer="a")
    source.read(10, wait_seconds=0.01)
    source.close()
    ask("XDEL", "delays", gone)
    done = consume(RedisEvents(url, consumer="a"), idle_seconds=0.1)
    assert (done.events, done.rejected) == (3, 2)
    reasons = {entry["reason"] for entry in read_rejected(at_home.storage_uri, "hourly")}
    assert reasons == {
        "it has no field event",
        "it was trimmed from the stream before it was read",
    }


def test_a_stream_must_be_named_and_be_there(redis_url, ask):
    with pytest.raises(StreamUnnamed, match=r"write redis://host:port/database\?stream=NAME"):
        RedisEvents(redis_url)
    ask("SET", "text", "no stream")
    with pytest.raises(EventSourceFailed, match="WRONGTYPE"):
        RedisEvents(f"{redis_url}?stream=text")
    with pytest.raises(EventSourceFailed, match="refused"):
        RedisEvents("redis://127.0.0.1:1/0?stream=delays")


def test_online_alone_leaves_the_offline_store_as_it_is(consume, lines, positions, at_home):
    done = consume(FileEvents(lines(event("JFK", 1, 1.0)), positions), to="online")
    assert (done.entities_written, done.rows_added) == (1, 0)
    with pytest.raises(UnknownName):
        offline(at_home)
