"""The online store's SQLite file: Feast's own tables, and one more that says how far they reach.

Each view has Feast's table ``<project>_<view>`` with one row an entity and feature. Feast keeps
times there in whole seconds; two more columns, which Feast ignores, keep the microseconds that
ages and the order of values need. ``headrace_views`` holds the watermark of each view, changed in
the same transaction as the view's rows.

The seconds are since 1970 in UTC. Feast reads and writes them in the time zone of its process, so
the times it reports are right where ``TZ`` is UTC; values are right everywhere.

Source of the tables: feast 0.67, ``infra/online_stores/sqlite.py``.
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from featurestore.errors import OnlineStoreFailed
from headrace.plan import ViewRead

BUSY_SECONDS = 30.0
"""How long a writer waits for another one."""

WATERMARKS = """CREATE TABLE IF NOT EXISTS headrace_views (
    project TEXT, view TEXT, until_us INTEGER NOT NULL, definition TEXT NOT NULL,
    PRIMARY KEY (project, view))"""

# Where Feast itself has written a row since, its seconds are the truth and our column is stale.
EVENT = "CASE WHEN event_us / 1000000 IS event_ts THEN event_us ELSE event_ts * 1000000 END"
CREATED = (
    "coalesce(CASE WHEN created_us / 1000000 IS created_ts THEN created_us"
    f" ELSE created_ts * 1000000 END, {EVENT})"
)


def table_of(project: str, view: str) -> str:
    """The name of a view's table, quoted for SQL."""
    return _quoted(f"{project}_{view}")


def create_table(db: sqlite3.Connection, project: str, view: str) -> None:
    """Make a view's table as Feast does, and add the columns that keep microseconds."""
    table = table_of(project, view)
    db.execute(
        f"CREATE TABLE IF NOT EXISTS {table} (entity_key BLOB, feature_name TEXT, value BLOB, "
        "value_text TEXT, vector_value BLOB, event_ts timestamp, created_ts timestamp, "
        "event_us INTEGER, created_us INTEGER, PRIMARY KEY(entity_key, feature_name))"
    )
    index = _quoted(f"{project}_{view}_ek")
    db.execute(f"CREATE INDEX IF NOT EXISTS {index} ON {table} (entity_key)")
    have = {row[1] for row in db.execute(f"PRAGMA table_info({table})")}
    for column in ("event_us", "created_us"):
        if column not in have:
            db.execute(f"ALTER TABLE {table} ADD COLUMN {column} INTEGER")


def stored_definition(read: ViewRead) -> str:
    """What of a view's definition its stored rows depend on; a change asks for a rebuild.

    The TTL is not part of it: it is applied when values are read.
    """
    return read.model_copy(update={"ttl_seconds": None}).model_dump_json()


def open_writer(path: Path) -> sqlite3.Connection:
    """Open the file for writing, making it and its folder if need be.

    The write-ahead log lets servers read while a materialisation writes.
    """
    with naming("open", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(WATERMARKS)
        except sqlite3.Error:
            db.close()
            raise
        return db


def open_reader(path: Path) -> sqlite3.Connection:
    """Open the file read-only; the connection may be closed from another thread."""
    with naming("open", path):
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
        )


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All writes inside become visible together, or not at all; one writer at a time."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


@contextlib.contextmanager
def naming(action: str, path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into one that names the file."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise OnlineStoreFailed(action, path, error) from error


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
