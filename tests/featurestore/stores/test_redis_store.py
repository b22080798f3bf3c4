"""Redis that is down, slow, full, or holds something else: an error that names the place."""

import contextlib
import socket
import threading

import pyarrow as pa
import pytest
import redis

from featurestore.errors import OnlineStoreFailed
from featurestore.stores import redis_calls, redis_dump, redis_store
from featurestore.stores.redis_store import RedisStore
from featurestore.stores.stored import StoredView, stored_view


@pytest.fixture
def server(redis_url):
    with contextlib.closing(redis.Redis.from_url(redis_url)) as connected:
        yield connected


@pytest.fixture
def store(redis_url):
    with contextlib.closing(RedisStore(redis_url, "tiny")) as opened:
        yield opened


@pytest.fixture
def view(read):
    return StoredView(view=stored_view(read()), loading=True)


def test_a_server_that_is_away_is_named_without_its_password():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(OnlineStoreFailed, match=f"redis://{address}/0: .*refused") as failed:
        RedisStore(f"redis://user:secret@{address}/0", "tiny")
    assert "secret" not in str(failed.value)


def test_a_wrong_password_is_told_and_not_shown(redis_url):
    url = redis_url.replace("redis://", "redis://:secret@")
    with pytest.raises(OnlineStoreFailed, match="without any password configured") as failed:
        RedisStore(url, "tiny")
    assert "secret" not in str(failed.value)


def test_a_server_that_does_not_answer_in_time_is_named(monkeypatch):
    monkeypatch.setattr(redis_store, "TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"redis://127.0.0.1:{mute.getsockname()[1]}/0"
        with pytest.raises(OnlineStoreFailed, match="timed out"):
            RedisStore(url, "tiny")


def test_a_server_that_goes_away_is_named_and_found_again(store, server, view, values):
    store.put_view(view)
    server.client_kill_filter(_type="normal", skipme=True)
    with pytest.raises(OnlineStoreFailed, match="cannot ask the online store redis://127"):
        store.write(view, values(("JFK", 0, 0, 1.0)))
    assert store.write(view, values(("JFK", 0, 0, 1.0))) == 1


def test_a_full_server_refuses_and_nothing_is_half_written(store, server, view, values):
    store.put_view(view)
    server.config_set("maxmemory", "1")
    try:
        with pytest.raises(OnlineStoreFailed, match="OOM"):
            store.write(view, values(("JFK", 0, 0, 1.0)))
    finally:
        server.config_set("maxmemory", "0")
    assert store.write(view, values(("JFK", 0, 0, 1.0))) == 1


def test_a_key_of_another_kind_is_told(store, server, view, values):
    store.put_view(view)
    store.write(view, values(("JFK", 0, 0, 1.0)))
    (key,) = [k for k in server.scan_iter() if k.endswith(b"tiny") and b"JFK" in k]
    server.set(key, "not a hash")
    with pytest.raises(OnlineStoreFailed, match="WRONGTYPE"):
        store.write(view, values(("JFK", 9, 9, 1.0)))


def test_a_server_that_takes_no_payloads_gets_plain_commands(
    store, server, view, values, held, redis_url, at_home, monkeypatch
):
    monkeypatch.setattr(redis_dump, "_END_AND_VERSION", b"\xff\xff\xff")  # a version of the future
    store.put_view(view)
    assert store.write(view, values(("JFK", 0, 0, 1.0), ("LGA", 0, 0, 2.0))) == 2
    found = held(at_home.model_copy(update={"online_store": redis_url}), view.view)
    assert sorted(row[2] for row in found.values()) == [1.0, 2.0]


def test_a_first_load_beside_another_view_of_the_same_entities_keeps_both(
    store, view, values, held, redis_url, at_home
):
    other = StoredView(view=view.view.model_copy(update={"view": "daily"}), loading=True)
    for stored in (view, other):
        store.put_view(stored)
    assert store.write(view, values(("JFK", 0, 0, 1.0))) == 1
    assert store.write(other, values(("JFK", 0, 0, 2.0), ("LGA", 0, 0, 3.0))) == 2
    settings = at_home.model_copy(update={"online_store": redis_url})
    assert [row[2] for row in held(settings, view.view).values()] == [1.0]
    assert sorted(row[2] for row in held(settings, other.view).values()) == [2.0, 3.0]


def test_a_row_pushed_during_the_first_load_is_not_overwritten_by_an_older_one(
    store, view, values, held, redis_url, at_home
):
    store.put_view(view)
    assert store.write(view, values(("JFK", 9, 9, 9.0))) == 1
    assert store.write(view, values(("JFK", 5, 5, 5.0), ("LGA", 5, 5, 5.0))) == 1
    settings = at_home.model_copy(update={"online_store": redis_url})
    assert sorted(row[2] for row in held(settings, view.view).values()) == [5.0, 9.0]


@pytest.mark.parametrize("loading", [True, False])
def test_more_rows_than_one_call_takes(store, view, held, redis_url, at_home, values, loading):
    view = view.model_copy(update={"loading": loading})
    store.put_view(view)
    many = values(*((f"{n:05}", n % 50, n % 50, n / 7) for n in range(9_000)))
    assert store.write(view, many) == 9_000
    assert store.write(view, many) == 9_000
    found = held(at_home.model_copy(update={"online_store": redis_url}), view.view)
    assert sorted(row[2] for row in found.values()) == [n / 7 for n in range(9_000)]


def test_entities_of_another_project_are_left_alone(redis_url, view, values, held, at_home):
    settings = at_home.model_copy(update={"online_store": redis_url})
    for project, x in (("tiny", 1.0), ("other", 2.0)):
        with contextlib.closing(RedisStore(redis_url, project)) as store:
            store.put_view(view)
            store.write(view, values(("JFK", 0, 0, x)))
    anew = view.model_copy(update={"generation": 2})
    with contextlib.closing(RedisStore(redis_url, "tiny")) as store, store.anew(anew):
        store.sweep(anew)
    assert held(settings, view.view, "tiny") == {}
    assert [row[2] for row in held(settings, view.view, "other").values()] == [2.0]


@pytest.mark.parametrize("length", [0, 1, 63, 64, 125, 126, 127, 128, 4095])
def test_a_payload_makes_the_hash_that_it_says(server, length):
    value, number = b"v" * length, b"12345"
    columns = [pa.array([v, b"-7"], pa.large_binary()) for v in (value, number)]
    fields = [b"1234", b"f" * 100]
    for key, payload in zip(
        ("a", "b"), redis_dump.hashes(fields, columns).to_pylist(), strict=True
    ):
        server.restore(key, 0, payload)
    assert server.hgetall("a") == {fields[0]: value, fields[1]: number}
    assert server.hmget("b", fields) == [b"-7", b"-7"]
    server.hset("a", fields[0], b"x" * 70)
    assert server.hget("a", fields[0]) == b"x" * 70


def test_values_too_long_for_a_payload_are_written_by_hset(store, server, view):
    feature = view.view.features[0].model_copy(update={"dtype": "STRING"})
    text = view.model_copy(update={"view": view.view.model_copy(update={"features": (feature,)})})
    store.put_view(text)
    clock = pa.array([0], pa.timestamp("us", tz="UTC"))
    rows = {"origin": ["JFK"], "event_timestamp": clock, "created_timestamp": clock}
    assert store.write(text, pa.table(rows | {"x": ["x" * 10_000]})) == 1
    (key,) = [k for k in server.scan_iter() if b"JFK" in k]
    assert max(map(len, server.hvals(key))) == 10_003


def test_redis_answers_others_while_a_long_write_runs(store, server, view, values):
    store.put_view(view)
    many = values(*((f"{n:05}", 0, 0, 1.0) for n in range(20_000)))
    writing = threading.Thread(target=store.write, args=(view, many))
    writing.start()
    answers = 0
    while writing.is_alive():
        answers += server.ping()
    writing.join()
    assert answers > 3
    assert redis_calls.BATCH_ROWS <= 1024
