"""A SQLite file that is locked, broken, read-only or made by others."""

import contextlib
import os
import sqlite3

import pytest

from featurestore.errors import OnlineStoreFailed
from featurestore.stores import sqlite_layout
from featurestore.stores.sqlite_store import SqliteStore
from featurestore.stores.stored import StoredView, stored_view


@pytest.fixture
def path(tmp_path):
    return tmp_path / "online.db"


@pytest.fixture
def view(read):
    return StoredView(view=stored_view(read()))


@pytest.fixture
def filled(path, view, values):
    with contextlib.closing(SqliteStore(path, "tiny")) as store:
        store.put_view(view)
        store.write(view, values(("JFK", 0, 0, 1.0)))
    return path


def test_a_store_that_somebody_else_holds_is_named(filled, view, values, monkeypatch):
    monkeypatch.setattr(sqlite_layout, "BUSY_SECONDS", 0.05)
    with contextlib.closing(sqlite3.connect(filled)) as other:
        other.execute("BEGIN IMMEDIATE")
        with contextlib.closing(SqliteStore(filled, "tiny")) as store:
            with pytest.raises(OnlineStoreFailed, match=r"online\.db: database is locked"):
                store.write(view, values(("JFK", 9, 9, 2.0)))
            other.execute("ROLLBACK")
            assert store.write(view, values(("JFK", 9, 9, 2.0))) == 1


@pytest.mark.parametrize("kind", ["not a database", "a folder", "below a file"])
def test_a_place_that_cannot_be_a_store_is_named(path, kind):
    if kind == "not a database":
        path.write_bytes(b"no database, but long enough " * 100)
    elif kind == "a folder":
        path.mkdir()
    else:
        path.symlink_to(path.parent / "nothing" / "there")
    with pytest.raises(OnlineStoreFailed, match=r"online\.db"):
        SqliteStore(path, "tiny")


def test_a_damaged_page_is_named(filled, view, values):
    for suffix in ("-wal", "-shm"):
        assert not filled.with_name(filled.name + suffix).exists()
    data = bytearray(filled.read_bytes())
    data[4096:] = b"\xa5" * (len(data) - 4096)
    filled.write_bytes(data)
    named = pytest.raises(OnlineStoreFailed, match=r"online\.db.*(malformed|not a database)")
    with named, contextlib.closing(SqliteStore(filled, "tiny")) as store:
        store.write(view, values(("JFK", 9, 9, 2.0)))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_read_only_file_is_named(filled):
    filled.chmod(0o400)
    with pytest.raises(OnlineStoreFailed, match="readonly"):
        SqliteStore(filled, "tiny")


def test_a_record_that_is_no_record_is_named(filled):
    with contextlib.closing(sqlite3.connect(filled)) as db:
        db.execute("UPDATE headrace_views SET record = '{'")
        db.commit()
    named = pytest.raises(OnlineStoreFailed, match=r"online\.db.*record of view hourly")
    with contextlib.closing(SqliteStore(filled, "tiny")) as store, named:
        store.views()


def test_a_file_of_an_earlier_version_is_written_from_the_start(path, view):
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE headrace_views (project, view, until_us, definition)")
        db.execute("INSERT INTO headrace_views VALUES ('tiny', 'hourly', 5, '{}')")
        db.commit()
    with contextlib.closing(SqliteStore(path, "tiny")) as store:
        assert store.views() == {}
        assert store.put_view(view)


def test_a_rebuild_that_fails_leaves_the_old_rows(filled, view, values, held, at_home):
    anew = view.model_copy(update={"generation": 2, "loading": True})
    with contextlib.closing(SqliteStore(filled, "tiny")) as store:
        with contextlib.suppress(ZeroDivisionError), store.anew(anew):
            store.write(anew, values(("LGA", 0, 0, 1.0)))
            1 / 0  # noqa: B018
        assert store.views()["hourly"] == view
    settings = at_home.model_copy(update={"online_store": str(filled)})
    assert [key[-3:] for key in held(settings, view.view)] == [b"JFK"]


def test_a_view_whose_name_needs_quotes(path, view, values):
    odd = view.model_copy(update={"view": view.view.model_copy(update={"view": 'a"b'})})
    with contextlib.closing(SqliteStore(path, "it's")) as store:
        store.put_view(odd)
        assert store.write(odd, values(("JFK", 0, 0, 1.0))) == 1
