import sqlite3
import subprocess
import sys
import threading
import time
from datetime import UTC

import numpy as np
import pytest

from featurestore.catalog.catalog import Catalog
from featurestore.errors import (
    EntityKeyRefused,
    FeatureNotMaterialized,
    OnlineStoreFailed,
    StoredValueBroken,
)
from featurestore.online.reader import OnlineReader, ReaderOptions, ReadStatus
from featurestore.stores.materialize import materialize
from headrace.errors import SchemaMismatch
from headrace.plan import FeaturePlan, FeatureRead

START = np.datetime64("2013-01-01T00:00", "us")


def plan_of(*views):
    return FeaturePlan(
        project="tiny",
        feature_service="both",
        definitions_sha256="",
        event_timestamp="at",
        views=views,
        request=(),
        inputs_from_request=(),
        transforms=(),
    )


def minutes(*numbers):
    return START + (np.array(numbers) * 60_000_000).astype("timedelta64[us]")


def moment(number):
    return minutes(number)[0].item().replace(tzinfo=UTC)


@pytest.fixture
def store(at_home, values, put_table, read):
    """Materialise rows of view hourly until a minute, and open a reader."""
    opened = []

    def make(*rows, until=1000, view=None):
        view = view or read()
        put_table(at_home.uri("offline"), "hourly", values(*rows))
        catalog = Catalog(project="tiny", definitions_sha256="", views=(view,), services={})
        materialize(at_home, catalog, until=moment(until))
        opened.append(OnlineReader(at_home.online_path, plan_of(view)))
        return opened[-1]

    yield make
    for reader in opened:
        reader.close()


def test_each_row_gets_the_value_of_its_entity(store):
    reader = store(("JFK", 0, 0, 1.0), ("JFK", 10, 10, 2.0), ("LGA", 5, 5, None))
    rows = reader.read({"origin": ["LGA", "JFK", "EWR", None, "JFK"]}, minutes(*[20] * 5))
    np.testing.assert_array_equal(rows.columns["hourly__x"], [np.nan, 2, np.nan, np.nan, 2])
    assert [ReadStatus(s).name for s in rows.status["hourly"]] == [
        "PRESENT", "PRESENT", "NEVER_SEEN", "NEVER_SEEN", "PRESENT",
    ]  # fmt: skip
    expected = [minutes(5)[0], minutes(10)[0], None, None, minutes(10)[0]]
    np.testing.assert_array_equal(
        rows.event_times["hourly"], np.array(expected, dtype="datetime64[us]")
    )


def test_age_is_measured_at_each_rows_own_moment_with_the_ttl_itself_allowed(store):
    reader = store(("JFK", 10, 10, 2.0))
    at = minutes(9, 10, 70, 70 + 1e-6 / 60 * 10)
    rows = reader.read({"origin": ["JFK"] * 4}, at)
    names = [ReadStatus(s).name for s in rows.status["hourly"]]
    assert names == ["FUTURE", "PRESENT", "PRESENT", "EXPIRED"]
    np.testing.assert_array_equal(rows.columns["hourly__x"], [np.nan, 2, 2, np.nan])
    assert np.isnat(rows.event_times["hourly"]).tolist() == [True, False, False, True]


def test_a_value_written_after_the_moment_is_not_used(store):
    reader = store(("JFK", 10, 30, 2.0))
    rows = reader.read({"origin": ["JFK", "JFK"]}, minutes(20, 30))
    assert rows.status["hourly"].tolist() == [ReadStatus.FUTURE, ReadStatus.PRESENT]


def test_an_empty_batch_gives_empty_columns(store):
    rows = store(("JFK", 0, 0, 1.0)).read({"origin": []}, minutes())
    assert rows.columns["hourly__x"].shape == rows.status["hourly"].shape == (0,)


def test_more_entities_than_one_statement_takes_are_all_read(store):
    rows = [(f"N{i}", 0, 0, float(i)) for i in range(10_000)]
    found = store(*rows).read({"origin": [r[0] for r in rows]}, minutes(*[1] * len(rows)))
    np.testing.assert_array_equal(found.columns["hourly__x"], np.arange(10_000.0))


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [({}, r"join keys \['origin'\] are missing"), ({"origin": ["JFK"]}, "do not have 2 rows")],
)
def test_keys_that_do_not_fit_the_rows_are_refused(store, keys, sentence):
    with pytest.raises(SchemaMismatch, match=sentence):
        store(("JFK", 0, 0, 1.0)).read(keys, minutes(1, 1))


def test_a_key_of_a_wrong_type_is_refused_and_the_reader_goes_on(store):
    reader = store(("JFK", 0, 0, 1.0))
    with pytest.raises(EntityKeyRefused, match="key origin = 5 is refused"):
        reader.read({"origin": [5]}, minutes(1))
    assert reader.read({"origin": ["JFK"]}, minutes(1)).columns["hourly__x"].tolist() == [1]


def test_a_store_that_is_not_there_names_the_view_and_the_command(tmp_path, read):
    with pytest.raises(FeatureNotMaterialized, match=r"view hourly .* python -m flows.materialize"):
        OnlineReader(tmp_path / "online.db", plan_of(read()))
    assert not (tmp_path / "online.db").exists()


def test_a_view_or_feature_never_materialised_is_named(store, at_home, read):
    store(("JFK", 0, 0, 1.0))
    with pytest.raises(FeatureNotMaterialized, match="feature view daily is not in"):
        OnlineReader(at_home.online_path, plan_of(read(), read(view="daily")))
    more = (FeatureRead(name="y", dtype="DOUBLE"),)
    with pytest.raises(FeatureNotMaterialized, match="feature view hourly with y"):
        OnlineReader(at_home.online_path, plan_of(read(features=more)))


def test_a_feature_that_vanished_from_the_store_is_an_error_and_not_a_null(
    store, at_home, read, values, put_table
):
    view = read(features=tuple(FeatureRead(name=n, dtype="DOUBLE") for n in ("x", "y")))
    rows = values(("JFK", 0, 0, 1.0))
    put_table(at_home.uri("offline"), "hourly", rows.append_column("y", rows["x"]))
    catalog = Catalog(project="tiny", definitions_sha256="", views=(view,), services={})
    materialize(at_home, catalog, until=moment(1))
    with sqlite3.connect(at_home.online_path) as db:
        db.execute("DELETE FROM tiny_hourly WHERE feature_name = 'y'")
        db.execute("DELETE FROM headrace_tiny_hourly")
    reader = OnlineReader(at_home.online_path, plan_of(view))
    with pytest.raises(FeatureNotMaterialized, match="feature y of view hourly"):
        reader.read({"origin": ["JFK"]}, minutes(1))
    reader.close()


def test_a_broken_value_is_refused(store, at_home):
    reader = store(("JFK", 0, 0, 1.0))
    with sqlite3.connect(at_home.online_path) as db:
        db.execute("UPDATE tiny_hourly SET value = x'20ff01', event_ts = event_ts + 1")
    with pytest.raises(StoredValueBroken, match="x of view hourly is no DOUBLE"):
        reader.read({"origin": ["JFK"]}, minutes(1))


@pytest.mark.parametrize(
    "broken", [lambda row: row[:3], lambda row: row + bytes(8), lambda row: row[:24], lambda _: "x"]
)
def test_a_broken_packed_row_is_refused(store, at_home, broken):
    reader = store(("JFK", 0, 0, 1.0), ("LGA", 0, 0, 2.0))
    with sqlite3.connect(at_home.online_path) as db:
        (row,) = db.execute("SELECT row FROM headrace_tiny_hourly LIMIT 1").fetchone()
        db.execute("UPDATE headrace_tiny_hourly SET row = ?", [broken(row)])
    with pytest.raises(StoredValueBroken, match="a row of view hourly is no packed row of 32"):
        reader.read({"origin": ["LGA", "JFK"]}, minutes(1, 1))


def test_a_file_that_is_no_store_is_refused(tmp_path, read):
    path = tmp_path / "online.db"
    path.write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(OnlineStoreFailed, match=r"online\.db"):
        OnlineReader(path, plan_of(read()))


def test_a_locked_file_is_an_error_within_the_deadline_and_then_read_again(store, at_home, read):
    store(("JFK", 0, 0, 1.0)).close()
    writer = sqlite3.connect(at_home.online_path, isolation_level=None)
    writer.execute("PRAGMA journal_mode = DELETE")  # as a tool that copies the file may leave it
    options = ReaderOptions(deadline_seconds=0.05, retry_seconds=0.05)
    reader = OnlineReader(at_home.online_path, plan_of(read()), options)
    writer.execute("BEGIN EXCLUSIVE")
    begun = time.monotonic()
    with pytest.raises(OnlineStoreFailed, match=r"database is locked.* If it is locked, let"):
        reader.read({"origin": ["JFK"]}, minutes(1))
    assert time.monotonic() - begun < 1
    writer.execute("COMMIT")
    writer.close()
    time.sleep(0.1)
    assert reader.read({"origin": ["JFK"]}, minutes(1)).columns["hourly__x"].tolist() == [1]
    reader.close()


def test_a_file_that_was_replaced_damaged_or_taken_away_is_noticed(store, at_home):
    reader = store(("JFK", 0, 0, 1.0))
    path = at_home.online_path
    keys, at = {"origin": ["JFK"]}, minutes(1)
    assert reader.read(keys, at).columns["hourly__x"].tolist() == [1]
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    whole = path.read_bytes()
    path.rename(path.with_suffix(".old"))
    with pytest.raises(FeatureNotMaterialized, match="feature view hourly is not in"):
        reader.read(keys, at)
    path.write_bytes(b"not a database, but long enough to look like one" * 200)
    with pytest.raises(OnlineStoreFailed, match="file is not a database"):
        reader.read(keys, at)
    path.unlink()
    path.write_bytes(whole)
    time.sleep(0.6)
    assert reader.read(keys, at).columns["hourly__x"].tolist() == [1]


def test_threads_read_whole_snapshots_while_values_are_written(
    store, at_home, read, values, put_table
):
    """x equals the event minute in every state of the store, so a torn read would show."""
    first = [(o, 0, 0, 0.0) for o in ("EWR", "JFK", "LGA")]
    reader = store(*first, until=0, view=read(ttl_minutes=None))
    catalog = Catalog(
        project="tiny", definitions_sha256="", views=(read(ttl_minutes=None),), services={}
    )
    stop, seen, wrong = threading.Event(), set(), []

    def ask():
        while not stop.is_set():
            rows = reader.read({"origin": ["EWR", "JFK", "LGA"]}, minutes(99, 99, 99))
            x = rows.columns["hourly__x"]
            if len(set(x)) != 1 or (rows.event_times["hourly"] != minutes(*x)).any():
                wrong.append(rows)
            seen.add(x[0])

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for n in range(1, 15):
        newer = values(*[(o, n, n, float(n)) for o in ("EWR", "JFK", "LGA")])
        put_table(at_home.uri("offline"), "hourly", newer)
        materialize(at_home, catalog, until=moment(n))
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(seen) > 1


def test_importing_the_reader_brings_no_heavy_library():
    heavy = "'feast', 'pandas', 'pyarrow', 'prefect', 'mlflow', 'dask', 'google.protobuf'"
    code = (
        "import sys, featurestore.online.reader, featurestore.online.redis_source\n"
        "import featurestore.online.sqlite_source\n"
        f"assert not {{{heavy}}} & set(sys.modules), sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
