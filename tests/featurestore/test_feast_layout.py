"""What we write Feast reads, and what Feast writes we respect: both stores, byte for byte."""

import contextlib
import sqlite3
import warnings
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
import redis

from featurestore.catalog.catalog import Catalog
from featurestore.stores.materialize import materialize
from featurestore.stores.open_store import open_store
from featurestore.stores.stored import StoredView, stored_view
from headrace.plan import FeatureRead, JoinKey, ViewRead

START = datetime(2013, 1, 1, tzinfo=UTC)
TYPES = {
    "amount": ("DOUBLE", "Float64", [0.1, None, float("nan"), -1e300]),
    "share": ("FLOAT", "Float32", [0.1, None, float("inf"), -0.0]),
    "count": ("INT64", "Int64", [2**40, None, -7, 0]),
    "rank": ("INT32", "Int32", [2**31 - 1, None, -(2**31), 0]),
    "open": ("BOOL", "Bool", [True, None, False, True]),
    "name": ("STRING", "String", ["Zürich", None, "", "x" * 5000]),
}
KEYS = [("JFK", 1), ("JFK", -2), ("LGA", 3), ("", 2**40)]


def moment(minutes):
    return START + timedelta(minutes=minutes)


@pytest.fixture
def view():
    return ViewRead(
        view="gates",
        table="gates",
        join_keys=(JoinKey(name="origin"), JoinKey(name="gate", dtype="INT64")),
        event_timestamp="event_timestamp",
        created_timestamp="created_timestamp",
        ttl_seconds=None,
        features=tuple(FeatureRead(name=n, dtype=t) for n, (t, _, _) in TYPES.items()),
    )


@pytest.fixture
def rows():
    """Rows of all types, all of one minute."""

    def make(minutes, *, created=None, only=slice(None)):
        keys, clock = KEYS[only], pa.timestamp("us", tz="UTC")
        columns = {"origin": [k[0] for k in keys], "gate": [k[1] for k in keys]}
        columns["event_timestamp"] = pa.array([moment(minutes)] * len(keys), clock)
        at = moment(minutes if created is None else created)
        columns["created_timestamp"] = pa.array([at] * len(keys), clock)
        return pa.table(columns | {n: values[only] for n, (_, _, values) in TYPES.items()})

    return make


@pytest.fixture
def feast_store(any_store, tmp_path):
    """A Feast store over the same online store, with a view of all number types and text."""
    import feast
    from feast import types

    entities = [
        feast.Entity(name="airport", join_keys=["origin"], value_type=feast.ValueType.STRING),
        feast.Entity(name="gate", join_keys=["gate"], value_type=feast.ValueType.INT64),
    ]
    source = feast.FileSource(
        path=str(tmp_path / "gates.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
    fields = [feast.Field(name=n, dtype=getattr(types, t)) for n, (_, t, _) in TYPES.items()]
    definition = feast.FeatureView(
        name="gates", entities=entities, ttl=timedelta(0), schema=fields, source=source
    )
    online = {"type": "sqlite", "path": str(any_store.online_path)}
    if any_store.online_uri.startswith("redis"):
        address = any_store.online_uri.removeprefix("redis://").removesuffix("/0")
        online = {"type": "redis", "connection_string": address}
    config = feast.RepoConfig(
        project="tiny",
        provider="local",
        registry=str(tmp_path / "registry.db"),
        online_store=online,
        entity_key_serialization_version=3,
    )
    any_store.online_path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = feast.FeatureStore(config=config)
        rows_of_the_source(tmp_path / "gates.parquet")
        store.apply([*entities, definition])
    return store


def rows_of_the_source(path):
    import pyarrow.parquet as pq

    clock = pa.array([], pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table({"event_timestamp": clock, "created_timestamp": clock}), path)


def asked_of(feast_store):
    found = feast_store.get_online_features(
        features=[f"gates:{name}" for name in TYPES],
        entity_rows=[{"origin": origin, "gate": gate} for origin, gate in KEYS],
    ).to_dict()
    return {name: found[name] for name in TYPES}


def write(settings, view, table):
    with contextlib.closing(open_store(settings, "tiny")) as store:
        stored = store.views().get("gates") or StoredView(view=stored_view(view))
        store.put_view(stored)
        return store.write(stored, table)


def feast_writes(feast_store, minutes, amount):
    """As a Feast user pushes: one row of the first entity."""
    import pandas as pd

    row = {"origin": "JFK", "gate": 1, "event_timestamp": moment(minutes)}
    row |= {"created_timestamp": moment(minutes)}
    row |= {name: values[0] for name, (_, _, values) in TYPES.items()} | {"amount": amount}
    feast_store.write_to_online_store("gates", pd.DataFrame([row]))


WANTED = {name: values for name, (_, _, values) in TYPES.items()} | {
    "share": [np.float32(0.1), None, float("inf"), -0.0]
}


@pytest.mark.parametrize("how", ["materialised", "pushed"])
def test_feast_reads_every_value_that_we_write(any_store, feast_store, view, rows, put_table, how):
    if how == "pushed":
        assert write(any_store, view, rows(0)) == 4
    else:
        put_table(any_store.uri("offline"), "gates", rows(0))
        catalog = Catalog(project="tiny", definitions_sha256="", views=(view,), services={})
        assert materialize(any_store, catalog, until=moment(1))[0].keys_written == 4
    assert repr(asked_of(feast_store)) == repr(
        WANTED | {"share": [float(v) if v is not None else None for v in WANTED["share"]]}
    )


def test_what_feast_has_written_gives_way_to_newer_rows_only(any_store, feast_store, view, rows):
    feast_writes(feast_store, 30, 8.5)
    assert write(any_store, view, rows(20)) == 3
    assert asked_of(feast_store)["amount"][0] == 8.5
    assert write(any_store, view, rows(40)) == 4
    assert asked_of(feast_store)["amount"][0] == 0.1
    feast_writes(feast_store, 50, 9.5)
    assert write(any_store, view, rows(45)) == 3
    assert asked_of(feast_store)["amount"][0] == 9.5


def test_each_byte_is_the_one_that_feast_writes(any_store, feast_store, view, rows):
    feast_writes(feast_store, 30, 0.1)
    feasts = fields_of(any_store)
    empty(any_store)
    write(any_store, view, rows(30, only=slice(1)))
    assert fields_of(any_store) == feasts


def fields_of(settings):
    """Everything that Feast's layout holds, without what is ours beside it."""
    if settings.online_uri.startswith("redis"):
        with contextlib.closing(redis.Redis.from_url(settings.online_uri)) as server:
            keys = [key for key in server.scan_iter() if not key.startswith(b"headrace:")]
            entities = {key: server.hgetall(key) for key in keys}
        return {
            key: {field: v for field, v in fields.items() if not field.startswith(b"_hr:")}
            for key, fields in entities.items()
        }
    with contextlib.closing(sqlite3.connect(settings.online_path)) as db:
        columns = "entity_key, feature_name, value, event_ts, created_ts"
        return sorted(db.execute(f"SELECT {columns} FROM tiny_gates").fetchall())


def empty(settings):
    if settings.online_uri.startswith("redis"):
        with contextlib.closing(redis.Redis.from_url(settings.online_uri)) as server:
            server.flushall()
        return
    with contextlib.closing(sqlite3.connect(settings.online_path)) as db:
        db.execute("DELETE FROM tiny_gates")
        db.commit()
