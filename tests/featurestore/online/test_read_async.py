"""Reading on the loop gives what reading on a thread gives, whoever else reads or has gone."""

import asyncio
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from featurestore.online.reader import OnlineReader, ReaderOptions
from featurestore.stores.redis_store import RedisStore
from featurestore.stores.sqlite_store import SqliteStore
from featurestore.stores.stored import StoredView, stored_view
from headrace.plan import FeaturePlan, FeatureRead, JoinKey, ViewRead

NOW = np.datetime64("2013-06-01T00:00", "us")
ENTITIES = 300


def view_of(name, key):
    return ViewRead(
        view=name, table=name, join_keys=(JoinKey(name=key),), event_timestamp="event",
        created_timestamp=None, ttl_seconds=3600.0,
        features=(FeatureRead(name="x", dtype="DOUBLE"),),
    )  # fmt: skip


VIEWS = view_of("first", "origin"), view_of("second", "origin"), view_of("third", "dest")
PLAN = FeaturePlan(
    project="tiny", feature_service="s", definitions_sha256="", event_timestamp="at",
    views=VIEWS, request=(), inputs_from_request=(), transforms=(),
)  # fmt: skip


@pytest.fixture(params=["redis", "sqlite"])
def place(request, tmp_path):
    redis = request.param == "redis"
    place = request.getfixturevalue("redis_url") if redis else tmp_path / "online.db"
    store = RedisStore(place, "tiny") if redis else SqliteStore(place, "tiny")
    for offset, view in enumerate(VIEWS):
        stored = StoredView(view=stored_view(view), until_us=0)
        store.put_view(stored)
        ages = [datetime(2013, 5, 31, 22 + n % 2, 30, tzinfo=UTC) for n in range(ENTITIES)]
        rows = {
            view.key_names[0]: [f"A{n}" for n in range(ENTITIES)],
            "event": pa.array(ages, pa.timestamp("us", tz="UTC")),
            "x": [float(n + 1000 * offset) for n in range(ENTITIES)],
        }
        store.write(stored, pa.table(rows))
    store.close()
    return place


def keys_of(random):
    names = [None, *(f"A{n}" for n in range(ENTITIES + 20))]
    rows = int(random.integers(1, 40))
    return {
        key: [names[n] for n in random.integers(0, len(names), rows)] for key in ("origin", "dest")
    }


def same(one, other):
    for ours, theirs in zip(one, other, strict=True):
        assert list(ours) == list(theirs)
        for name in ours:
            np.testing.assert_array_equal(ours[name], theirs[name])


@pytest.mark.parametrize("cache_seconds", [0.0, 60.0])
def test_many_reads_at_once_each_give_what_a_thread_reads(place, cache_seconds):
    random = np.random.default_rng(4)
    options = ReaderOptions(deadline_seconds=5, cache_seconds=cache_seconds, cache_rows=200)
    on_thread, reader = OnlineReader(place, PLAN, options), OnlineReader(place, PLAN, options)
    asked = [keys_of(random) for _ in range(200)]
    gone = set(random.choice(200, 80, replace=False).tolist())

    async def work():
        tasks = []
        for number, keys in enumerate(asked):
            at = np.full(len(keys["dest"]), NOW)
            tasks.append(asyncio.ensure_future(reader.read_async(keys, at)))
            if number % 7 == 0:
                await asyncio.sleep(0)
            if number in gone:
                tasks[-1].cancel()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        reader.close()
        await asyncio.sleep(0)
        return found

    found = asyncio.run(work())
    compared = 0
    for keys, rows in zip(asked, found, strict=True):
        if not isinstance(rows, asyncio.CancelledError):
            same(rows, on_thread.read(keys, np.full(len(keys["dest"]), NOW)))
            compared += 1
    on_thread.close()
    assert compared >= 120
