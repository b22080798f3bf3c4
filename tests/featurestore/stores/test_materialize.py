import contextlib
import threading
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from featurestore.catalog.catalog import Catalog
from featurestore.errors import TimeWithoutZone, ViewReplaced
from featurestore.stores import latest
from featurestore.stores import materialize as module
from featurestore.stores.materialize import materialize
from featurestore.stores.open_store import open_store
from featurestore.stores.redis_store import RedisStore
from featurestore.stores.sqlite_store import SqliteStore
from featurestore.stores.stored import StoredView, stored_view
from headrace.errors import SchemaMismatch, UnknownName
from headrace.plan import FeatureRead, JoinKey

START = datetime(2013, 1, 1, tzinfo=UTC)


def minute(n):
    return START + timedelta(minutes=n)


def catalog_of(*views):
    return Catalog(project="tiny", definitions_sha256="", views=views, services={})


@pytest.fixture
def run(any_store, values, put_table, read):
    """Write the rows of table hourly and materialise until a minute; what was done."""

    def go(*rows, until, view=None, **options):
        put_table(any_store.uri("offline"), "hourly", values(*rows))
        go.settings_and_catalog = any_store, catalog_of(view or read())
        return materialize(any_store, catalog_of(view or read()), until=minute(until), **options)[0]

    return go


@pytest.fixture
def record(any_store):
    """The store's record of the view."""

    def look():
        with contextlib.closing(open_store(any_store, "tiny")) as store:
            return store.views()["hourly"]

    return look


def us(n):
    return int((minute(n) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))


@pytest.fixture
def stored(any_store, held, read):
    """What the online store holds: (key, event minute, x), by key."""

    def look(view=None):
        epoch = int(START.timestamp()) * 1_000_000
        found = held(any_store, view or read())
        return [
            (k[-3:].decode(), (row[0] - epoch) / 60e6, row[2]) for k, row in sorted(found.items())
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


def test_a_time_without_a_zone_is_refused(at_home, read):
    with pytest.raises(TimeWithoutZone):
        materialize(at_home, catalog_of(read()), until=datetime(2013, 1, 1))  # noqa: DTZ001


def test_a_missing_table_is_named(at_home, read):
    with pytest.raises(UnknownName, match="no table is named 'hourly'"):
        materialize(at_home, catalog_of(read()), until=minute(1))


def test_a_failed_view_leaves_no_watermark(run, read):
    wrong = read(features=(FeatureRead(name="x", dtype="INT64"),))
    with pytest.raises(SchemaMismatch, match="x is double, which does not fit int64"):
        run(("JFK", 0, 0, 1.5), until=10, view=wrong)
    assert run(("JFK", 0, 0, 1.0), until=10, view=wrong).since is None


def test_two_runs_at_once_leave_what_one_would(run, stored, any_store, read):
    rows = [(f"{o:03}", o % 7, o % 7, float(o)) for o in range(50)]
    run(*rows, until=-1)
    threads = [
        threading.Thread(
            target=materialize, args=(any_store, catalog_of(read())), kwargs={"until": minute(n)}
        )
        for n in (3, 9, 6, 9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stored() == [(f"{o:03}", o % 7, float(o)) for o in range(50)]


class Interrupted(Exception):
    """Stands for a kill: nothing after it runs."""


@pytest.fixture
def interrupt(monkeypatch):
    """Chunks of four entities; a run ends before it writes its n-th. Counts what is written."""
    for store_class in (RedisStore, SqliteStore):
        monkeypatch.setattr(store_class, "chunk_rows", 4)
    written = []
    honest = module._write_chunk

    def before(number):
        written.clear()

        def write_chunk(store, begin, rows, progress):
            if len(written) == number:
                raise Interrupted
            written.append(len(rows))
            return honest(store, begin, rows, progress)

        monkeypatch.setattr(module, "_write_chunk", write_chunk)
        return written

    return before


ROWS = [(f"{o:03}", o % 7, o % 7, float(o)) for o in range(20)]
WANTED = [(f"{o:03}", o % 7, float(o)) for o in range(20)]


def test_a_run_goes_on_where_one_was_interrupted(run, stored, interrupt):
    run(("000", -10, -10, 9.0), until=-5)
    interrupt(3)
    with pytest.raises(Interrupted):
        run(*ROWS, until=10)
    assert len(stored()) == 12
    written = interrupt(-1)
    done = materialize_again(run, until=10)
    assert (done.keys_written, done.since) == (20, minute(-5))
    assert written == [4, 4]
    assert stored() == WANTED


def materialize_again(run, *, until, **options):
    """The same without writing the offline table anew: its time is part of what a run goes by."""
    settings, catalog = run.settings_and_catalog
    return materialize(settings, catalog, until=minute(until), **options)[0]


def test_a_run_over_other_rows_starts_over(run, stored, interrupt):
    interrupt(3)
    with pytest.raises(Interrupted):
        run(*ROWS, until=10)
    written = interrupt(-1)
    run(("00", 0, 0, 5.0), *ROWS, until=10)
    assert written == [4, 4, 4, 4, 4, 1]
    assert len(stored()) == 21


def test_an_earlier_until_after_an_interrupted_run_leaves_nothing_of_it(run, stored, interrupt):
    interrupt(3)
    with pytest.raises(Interrupted):
        run(*ROWS, until=10)
    interrupt(-1)
    materialize_again(run, until=2)
    assert stored() == [row for row in WANTED if row[1] <= 2]


def test_an_interrupted_rebuild_is_finished_by_the_next_run(run, stored, interrupt):
    run(*ROWS, ("020", 20, 20, 1.0), until=30)
    interrupt(2)
    with pytest.raises(Interrupted):
        materialize_again(run, until=10, rebuild=True)
    interrupt(-1)
    materialize_again(run, until=10, rebuild=True)
    assert stored() == WANTED


def test_a_view_says_that_it_is_loading_until_it_is_whole(run, interrupt, record):
    interrupt(2)
    with pytest.raises(Interrupted):
        run(*ROWS, until=10)
    assert record().loading
    interrupt(-1)
    materialize_again(run, until=10)
    assert not record().loading
    assert record().until_us == us(10)


def test_the_record_says_how_fresh_the_view_is(run, record):
    run(("JFK", 3, 5, 1.0), ("JFK", 2, 6, 1.0), ("LGA", 1, 1, None), until=10)
    assert (record().newest_event_us, record().rows_read, record().keys_written) == (us(3), 3, 2)
    done = run(("JFK", 3, 5, 1.0), ("LGA", 2, 12, 1.0), until=20)
    assert done.newest == minute(3)
    assert (record().newest_event_us, record().rows_read, record().keys_written) == (us(3), 1, 1)


def test_a_changed_view_leaves_no_row_of_the_old_one(run, stored, read, any_store, held):
    run(("JFK", 5, 5, 1.0), ("LGA", 5, 5, 2.0), until=10)
    changed = read(features=(FeatureRead(name="x", dtype="FLOAT"),))
    run(("JFK", 0, 0, 0.5), until=10, view=changed)
    assert stored(changed) == [("JFK", 0, 0.5)]


def test_a_push_and_a_materialisation_go_by_one_rule(run, stored, any_store, read, values):
    view = StoredView(view=stored_view(read()))
    with contextlib.closing(open_store(any_store, "tiny")) as store:
        assert store.put_view(view)
        assert store.write(view, values(("JFK", 8, 8, 8.0), ("LGA", 2, 2, 2.0))) == 2
        run(("JFK", 5, 5, 5.0), ("LGA", 5, 5, 5.0), until=10)
        assert stored() == [("JFK", 8, 8), ("LGA", 5, 5)]
        there = store.views()["hourly"]
        assert store.write(there, values(("JFK", 9, 9, 9.0), ("LGA", 4, 4, 4.0))) == 1
    assert stored() == [("JFK", 9, 9), ("LGA", 5, 5)]


def test_a_run_that_another_definition_overtakes_is_told(run, any_store, read, values):
    run(("JFK", 5, 5, 1.0), until=10)
    with contextlib.closing(open_store(any_store, "tiny")) as store:
        old = store.views()["hourly"]
        run(("JFK", 5, 5, 1.0), until=10, rebuild=True)
        with pytest.raises(ViewReplaced, match="hourly"):
            store.write(old, values(("JFK", 9, 9, 9.0)))
        assert not store.put_view(old)


@pytest.mark.parametrize("page", [1, 3, 7, 100])
def test_pages_make_no_difference(run, any_store, put_table, read, held, monkeypatch, page):
    keys = (JoinKey(name="gate", dtype="INT64"), JoinKey(name="origin"))
    entities = [(g, o) for g in (3, -1, 200, None) for o in ("b", "a", "", None)] * 2
    n = len(entities)
    clock = pa.array([minute(i % 5) for i in range(n)], pa.timestamp("us", tz="UTC"))
    gates, origins = zip(*entities, strict=True)
    columns = {"gate": gates, "origin": origins, "event_timestamp": clock}
    table = pa.table(columns | {"created_timestamp": clock, "x": [float(i) for i in range(n)]})
    put_table(any_store.uri("offline"), "hourly", table)
    view = read(keys=keys)

    def state():
        done = materialize(any_store, catalog_of(view), until=minute(60), rebuild=True)[0]
        assert (done.keys_written, done.rows_read) == (9, 32)
        return held(any_store, view)

    whole = state()
    monkeypatch.setattr(latest, "PAGE_ENTITIES", page)
    assert state() == whole


def test_a_view_without_a_created_column_is_known_at_its_event_time(run, stored, read):
    plain = read(created_timestamp=None)
    assert run(("JFK", 5, 50, 1.0), ("LGA", 20, 1, 2.0), until=10, view=plain).keys_written == 1
    assert stored(plain) == [("JFK", 5, 1)]
