import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from featurestore import layout
from featurestore.catalog import Catalog, load_catalog
from featurestore.errors import OnlineStoreFailed, TimeWithoutZone
from featurestore.materialize import materialize
from featurestore.wire import decode_numbers
from headrace.errors import SchemaMismatch, UnknownName
from headrace.plan import FeatureRead

START = datetime(2013, 1, 1, tzinfo=UTC)


def minute(n):
    return START + timedelta(minutes=n)


def catalog_of(*views):
    return Catalog(project="tiny", definitions_sha256="", views=views, services={})


@pytest.fixture
def run(at_home, values, put_table, read):
    """Write the rows of table hourly and materialise until a minute; what was done."""

    def go(*rows, until, view=None, **options):
        put_table(at_home.uri("offline"), "hourly", values(*rows))
        return materialize(at_home, catalog_of(view or read()), until=minute(until), **options)[0]

    return go


@pytest.fixture
def stored(at_home):
    """What the online store holds: (key, event minute, x), by key."""

    def look():
        with sqlite3.connect(at_home.online_path) as db:
            rows = db.execute(
                "SELECT entity_key, event_us, value, event_ts FROM tiny_hourly ORDER BY 1"
            ).fetchall()
        assert all(row[1] // 1_000_000 == row[3] for row in rows)
        epoch = int(START.timestamp()) * 1_000_000
        return [
            (key[-3:].decode(), (event - epoch) / 60e6, decode_numbers([value], "DOUBLE", "x")[0])
            for key, event, value, _ in rows
        ]

    return look


def test_the_latest_value_known_by_then_is_written(run, stored):
    rows = [("JFK", 0, 0, 1.0), ("JFK", 10, 10, 2.0), ("JFK", 20, 20, 3.0), ("LGA", 10, 30, 4.0)]
    done = run(*rows, (None, 0, 0, 9.0), until=15)
    assert stored() == [("JFK", 10, 2)]
    assert (done.since, done.until, done.keys_written, done.rows_read) == (None, minute(15), 1, 3)


def test_a_repeated_run_writes_nothing_and_says_so(run, stored):
    rows = [("JFK", 0, 0, 1.0), ("LGA", 5, 5, 2.0)]
    run(*rows, until=10)
    before = stored()
    done = run(*rows, until=10)
    assert (done.since, done.until) == (minute(10), minute(10))
    assert (done.keys_written, done.rows_read) == (0, 0)
    assert stored() == before


def test_the_next_run_reads_only_what_became_known_since(run, stored):
    rows = [("JFK", 0, 0, 1.0), ("LGA", 5, 5, 2.0), ("JFK", 20, 20, 3.0)]
    run(*rows, until=10)
    done = run(*rows, until=30)
    assert (done.rows_read, done.keys_written) == (1, 1)
    assert stored() == [("JFK", 20, 3), ("LGA", 5, 2)]


def test_a_row_written_late_is_picked_up(run, stored):
    run(("JFK", 0, 0, 1.0), until=10)
    done = run(("JFK", 0, 0, 1.0), ("JFK", 5, 15, 2.0), until=20)
    assert done.keys_written == 1
    assert stored() == [("JFK", 5, 2)]


def test_a_late_row_does_not_replace_a_newer_value(run, stored):
    run(("JFK", 8, 8, 1.0), until=10)
    done = run(("JFK", 8, 8, 1.0), ("JFK", 5, 15, 2.0), until=20)
    assert (done.rows_read, done.keys_written) == (1, 0)
    assert stored() == [("JFK", 8, 1)]


def test_a_correction_of_the_same_event_replaces_it(run, stored):
    run(("JFK", 8, 8, 1.0), until=10)
    run(("JFK", 8, 8, 1.0), ("JFK", 8, 15, 2.0), until=20)
    assert stored() == [("JFK", 8, 2)]


def test_an_earlier_until_writes_nothing_unless_rebuilt(run, stored):
    rows = [("JFK", 0, 0, 1.0), ("JFK", 20, 20, 3.0)]
    run(*rows, until=30)
    assert run(*rows, until=10).until == minute(30)
    assert stored() == [("JFK", 20, 3)]
    assert run(*rows, until=10, rebuild=True).until == minute(10)
    assert stored() == [("JFK", 0, 1)]


def test_a_changed_view_is_written_from_the_start_but_a_changed_ttl_is_not(run, read):
    rows = [("JFK", 0, 0, 1.0)]
    run(*rows, until=10)
    assert run(*rows, until=10, view=read(ttl_minutes=5)).since == minute(10)
    changed = read(features=(FeatureRead(name="x", dtype="FLOAT"),))
    assert run(*rows, until=10, view=changed).since is None


def test_values_of_every_type_arrive_as_feast_reads_them(tiny_repository, at_home, put_table):
    from feast import FeatureStore, RepoConfig

    catalog = load_catalog(at_home, repository=tiny_repository())
    clock = pa.array([minute(0)] * 3, pa.timestamp("us", tz="UTC"))
    times = {"event_timestamp": clock, "created_timestamp": clock}
    keys = {"origin": ["JFK", "JFK", "LGA"], "gate": pa.array([1, -2, 3], pa.int32())}
    features = {
        "passengers": pa.array([2**40, None, -7], pa.int64()),
        "open": [True, False, None],
        "wait": pa.array([0.1, None, float("nan")], pa.float64()),
    }
    root = at_home.uri("offline")
    put_table(root, "gates", pa.table(keys | times | features))
    put_table(root, "hourly", pa.table({"origin": keys["origin"], "x": [0.1, 0.2, None]} | times))
    materialize(at_home, catalog, until=minute(1))
    config = RepoConfig(
        project="tiny",
        provider="local",
        registry=str(at_home.home / "feature_registry.db"),
        online_store={"type": "sqlite", "path": str(at_home.online_path)},
        offline_store="featurestore.feast_plugin.HeadraceOfflineStore",
        entity_key_serialization_version=3,
    )
    found = FeatureStore(config=config).get_online_features(
        features=["gates:passengers", "gates:open", "gates:wait", "hourly:x"],
        entity_rows=[{"origin": o, "gate": g} for o, g in [("JFK", 1), ("JFK", -2), ("LGA", 3)]],
    ).to_dict()  # fmt: skip
    assert found["passengers"] == [2**40, None, -7]
    assert found["open"] == [True, False, None]
    assert found["wait"][:2] == [np.float32(0.1), None]
    assert np.isnan(found["wait"][2])
    assert found["x"] == [0.2, 0.2, None]


def test_rows_that_feast_writes_itself_are_kept_when_they_are_newer(
    run, stored, tiny_repository, at_home
):
    run(("JFK", 0, 0, 1.0), until=10)
    with sqlite3.connect(at_home.online_path) as db:  # as Feast's upsert does
        db.execute(
            "UPDATE tiny_hourly SET event_ts = ?, created_ts = NULL",
            (int(minute(30).timestamp()),),
        )
    done = run(("JFK", 0, 0, 1.0), ("JFK", 20, 20, 2.0), until=25)
    assert (done.rows_read, done.keys_written) == (1, 0)
    assert run(("JFK", 40, 40, 3.0), until=45).keys_written == 1
    assert stored() == [("JFK", 40, 3)]


def test_a_table_that_feast_made_is_used_as_it_is(tiny_repository, at_home, put_table, values):
    catalog = load_catalog(at_home, repository=tiny_repository())
    hourly = next(view for view in catalog.views if view.view == "hourly")
    put_table(at_home.uri("offline"), "hourly", values(("JFK", 0, 0, 1.0)))
    done = materialize(at_home, catalog.model_copy(update={"views": (hourly,)}), until=minute(1))
    assert done[0].keys_written == 1


_KILLED = """
import os, signal, sys
from pathlib import Path
from featurestore import materialize
from headrace.settings import Settings
from tests_catalog import catalog
if sys.argv[2] == "after the rows":
    materialize._move_watermark = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
else:
    whole = materialize._stored_rows
    def some(*a):
        for n, row in enumerate(whole(*a)):
            if n == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            yield row
    materialize._stored_rows = some
from datetime import UTC, datetime
until = datetime(2013, 1, 1, 0, 30, tzinfo=UTC)
materialize.materialize(Settings(home=Path(sys.argv[1])), catalog, until=until)
"""


@pytest.mark.parametrize("where", ["amid the rows", "after the rows"])
def test_a_run_that_is_killed_leaves_the_old_state_and_the_next_one_finishes(
    run, stored, at_home, tmp_path, read, values, put_table, where
):
    old = [(f"{o:03}", 0, 0, 1.0) for o in range(20)]
    new = old + [(f"{o:03}", 20, 20, 2.0) for o in range(20)]
    run(*old, until=10)
    put_table(at_home.uri("offline"), "hourly", values(*new))
    document = catalog_of(read()).model_dump_json()
    (tmp_path / "tests_catalog.py").write_text(
        f"from featurestore.catalog import Catalog\n"
        f"catalog = Catalog.model_validate_json({document!r})\n"
    )
    environment = {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", _KILLED, str(at_home.home), where]
    killed = subprocess.run(command, env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [row[1:] for row in stored()] == [(0, 1)] * 20
    assert run(*new, until=30).keys_written == 20
    assert [row[1:] for row in stored()] == [(20, 2)] * 20


def test_a_store_that_somebody_else_holds_is_named(run, at_home, monkeypatch):
    run(("JFK", 0, 0, 1.0), until=10)
    monkeypatch.setattr(layout, "BUSY_SECONDS", 0.05)
    with sqlite3.connect(at_home.online_path) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OnlineStoreFailed, match=r"online\.db: database is locked"):
            run(("JFK", 0, 0, 1.0), until=20)


@pytest.mark.parametrize("kind", ["not a database", "a folder", "below a file"])
def test_a_place_that_cannot_be_a_store_is_named(run, at_home, kind):
    at_home.home.mkdir(exist_ok=True)
    path = at_home.online_path
    if kind == "not a database":
        path.write_bytes(b"no database, but long enough " * 100)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to(at_home.home / "nothing" / "there")
    with pytest.raises(OnlineStoreFailed, match=r"online\.db"):
        run(("JFK", 0, 0, 1.0), until=10)


def test_a_time_without_a_zone_is_refused(at_home, read):
    with pytest.raises(TimeWithoutZone):
        materialize(at_home, catalog_of(read()), until=datetime(2013, 1, 1))  # noqa: DTZ001


def test_a_missing_table_is_named(at_home, read):
    with pytest.raises(UnknownName, match="no table is named 'hourly'"):
        materialize(at_home, catalog_of(read()), until=minute(1))


def test_a_failed_view_leaves_no_watermark(run, at_home, read):
    wrong = read(features=(FeatureRead(name="x", dtype="INT64"),))
    with pytest.raises(SchemaMismatch, match="x is double, which does not fit int64"):
        run(("JFK", 0, 0, 1.5), until=10, view=wrong)
    assert run(("JFK", 0, 0, 1.0), until=10, view=wrong).since is None


def test_two_runs_at_once_leave_what_one_would(run, stored, at_home, read):
    import threading

    rows = [(f"{o:03}", o % 7, o % 7, float(o)) for o in range(50)]
    run(*rows, until=-1)
    threads = [
        threading.Thread(
            target=materialize, args=(at_home, catalog_of(read())), kwargs={"until": minute(n)}
        )
        for n in (3, 9, 6, 9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stored() == [(f"{o:03}", o % 7, float(o)) for o in range(50)]
