import contextlib
import random
import sqlite3
import struct
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from featurestore.catalog.catalog import Catalog
from featurestore.errors import FeatureNotMaterialized
from featurestore.offline.tables import read_table
from featurestore.push.incoming import RowsRefused
from featurestore.push.push import push
from featurestore.stores import redis_layout, sqlite_layout
from featurestore.stores.open_store import open_store
from featurestore.stores.packed import HEADER_BYTES
from featurestore.stores.resp import Connection, command
from featurestore.wire.entity_key import EntityKeyWriter
from headrace.errors import SchemaMismatch, SettingRefused, UnknownName
from headrace.plan import FeatureRead
from headrace.settings import Settings

START = datetime(2013, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "redis"])
def settings(request, tmp_path):
    """An empty home on each kind of online store."""
    if request.param == "sqlite":
        return Settings(home=tmp_path / "home")
    return Settings(home=tmp_path / "home", online_store=request.getfixturevalue("redis_url"))


@pytest.fixture
def view(read):
    return read(ttl_minutes=None)


@pytest.fixture
def catalog(view):
    return Catalog(project="tiny", definitions_sha256="", views=(view,), services={})


@pytest.fixture
def pushed(settings, catalog, values):
    def go(*rows, to="online"):
        return push(settings, catalog, "hourly", values(*rows), to=to)

    return go


@pytest.fixture
def online(settings, view):
    """The value of x of each airport online, None where there is none."""

    def look(*origins):
        packed = [packed_row(settings, view, origin) for origin in origins]
        return [row and struct.unpack("<d", row[HEADER_BYTES:])[0] for row in packed]

    return look


def packed_row(settings, view, origin):
    key = EntityKeyWriter(view.join_keys).write((origin,))
    if "://" not in settings.online_uri:
        with contextlib.closing(sqlite3.connect(settings.online_path)) as db:
            table = sqlite_layout.packed_table_of("tiny", view.view)
            found = db.execute(f"SELECT row FROM {table} WHERE entity_key = ?", [key]).fetchone()
        return found and found[0]
    connection = Connection(settings.online_uri, timeout_seconds=10)
    field = redis_layout.packed_field(view.view)
    asked = command(b"HGET", redis_layout.entity_hash(key, "tiny"), field)
    (found,) = connection.ask(asked, replies=1)
    connection.close()
    return found


def offline(settings):
    return read_table(settings.uri("offline"), "hourly")["x"].to_pylist()


def test_a_view_that_was_never_materialised_can_be_pushed_to(pushed, online, settings, catalog):
    found = pushed(("JFK", 0, 0, 1.0), ("LGA", 0, 0, 2.0))
    assert (found.rows, found.entities, found.entities_written) == (2, 2, 2)
    assert online("JFK", "LGA", "EWR") == [1, 2, None]
    store = open_store(settings, catalog.project)
    assert store.views()["hourly"].until_us is None
    store.close()


def test_a_late_event_never_overwrites_a_newer_one(pushed, online):
    pushed(("JFK", 60, 60, 6.0))
    assert pushed(("JFK", 50, 70, 5.0)).entities_written == 0
    assert online("JFK") == [6]
    assert pushed(("JFK", 60, 59, 5.9)).entities_written == 0
    assert online("JFK") == [6]


def test_an_equal_event_created_later_overwrites(pushed, online):
    pushed(("JFK", 60, 60, 6.0))
    assert pushed(("JFK", 60, 61, 6.1)).entities_written == 1
    assert online("JFK") == [6.1]


def test_of_one_push_the_latest_row_goes_online_and_all_go_offline(pushed, online, settings):
    rows = [("JFK", 10, 10, 1.0), ("JFK", 30, 30, 3.0), ("JFK", 20, 20, 2.0)]
    found = pushed(*rows, to="both")
    assert (found.rows, found.rows_added, found.entities, found.entities_written) == (3, 3, 1, 1)
    assert online("JFK") == [3]
    assert offline(settings) == [1, 2, 3]


def test_pushing_twice_changes_nothing(pushed, online, settings):
    pushed(("JFK", 10, 10, 1.0), to="both")
    assert pushed(("JFK", 10, 10, 1.0), to="both").rows_added == 0
    assert (online("JFK"), offline(settings)) == ([1], [1])


def test_what_goes_offline_only_is_not_served(pushed, online, settings):
    pushed(("JFK", 10, 10, 1.0))
    found = pushed(("JFK", 20, 20, 2.0), to="offline")
    assert (found.rows_added, found.entities) == (1, 0)
    assert (online("JFK"), offline(settings)) == ([1], [2])


def test_bad_rows_are_refused_by_number_and_nothing_is_written(pushed, settings, catalog, values):
    with pytest.raises(RowsRefused, match=r"2 of 3 rows pushed to hourly .* row 1: origin is null"):
        pushed(("JFK", 0, 0, 1.0), (None, 0, 0, 1.0), ("LGA", 1e7, 0, 1.0), to="both")
    with pytest.raises(UnknownName, match="table"):
        offline(settings)


def test_rows_must_have_the_tables_columns(pushed, settings, catalog, values, put_table):
    wide = values(("JFK", 0, 0, 1.0)).append_column("y", pa.array([5.0]))
    put_table(settings.uri("offline"), "hourly", wide)
    assert pushed(("JFK", 10, 10, 1.0), to="online").entities_written == 1
    with pytest.raises(SchemaMismatch, match=r"\['y'\] are missing"):
        pushed(("JFK", 10, 10, 1.0), to="both")
    push(settings, catalog, "hourly", wide, to="both")


def test_a_view_that_is_not_there_is_refused(settings, catalog, values):
    with pytest.raises(UnknownName, match="did you mean 'hourly'"):
        push(settings, catalog, "hourli", values(("JFK", 0, 0, 1.0)))


def test_a_view_that_was_changed_must_be_materialised_first(pushed, settings, catalog, view):
    pushed(("JFK", 0, 0, 1.0))
    changed = view.model_copy(update={"features": (FeatureRead(name="x", dtype="INT64"),)})
    newer = catalog.model_copy(update={"views": (changed,)})
    rows = pa.table(
        {
            "origin": ["JFK"],
            "event_timestamp": pa.array([START], pa.timestamp("us", "UTC")),
            "created_timestamp": pa.array([START], pa.timestamp("us", "UTC")),
            "x": [1],
        }
    )
    with pytest.raises(FeatureNotMaterialized, match=r"hourly as it is defined now.*materialize"):
        push(settings, newer, "hourly", rows)


def test_a_store_that_only_feast_knows_is_left_to_feast(tmp_path, catalog, values):
    settings = Settings(home=tmp_path, online_store="feast")
    with pytest.raises(SettingRefused, match="use its own materialize and push"):
        push(settings, catalog, "hourly", values(("JFK", 0, 0, 1.0)))


def test_pushes_in_any_order_leave_the_latest_of_each_entity(pushed, online, settings):
    picked = random.Random(6)
    rows = [
        (picked.choice("ABCD"), picked.randrange(20), picked.randrange(20, 23), float(n))
        for n in range(200)
    ]
    # Of rows of equal times the one pushed last counts.
    latest: dict = {}
    for number, row in enumerate(rows):
        latest[row[0]] = max(latest.get(row[0], ()), (row[1], row[2], number))
    for start in range(0, 200, 7):
        pushed(*rows[start : start + 7], to="both")
    assert online(*"ABCD") == [float(latest[key][2]) for key in "ABCD"]
    assert sorted(offline(settings)) == [row[3] for row in rows]


def test_a_push_is_seen_by_the_next_training_set(pushed, settings, catalog, view, asked):
    from featurestore.join.pit import point_in_time_join

    pushed(("JFK", 10, 10, 1.0), ("JFK", 20, 40, 2.0), to="both")
    values = read_table(settings.uri("offline"), "hourly")
    joined = point_in_time_join(asked(("JFK", 30), ("JFK", 40)), values, view, timestamp="at")
    assert joined.columns["hourly__x"].tolist() == [1, 2]
