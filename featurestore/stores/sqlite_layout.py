"""Where things lie in the online store's SQLite file: Feast's own tables, and ours beside them.

Each view has Feast's table ``<project>_<view>`` with one row an entity and feature, its value a
``Value`` message, and our table ``headrace_<project>_<view>`` with one packed row an entity
(``packed``). Both change in one transaction. The packed row counts only while Feast's
event time, which has whole seconds, agrees with it: where Feast has written since, Feast's table is
the truth. ``headrace_views`` holds the record of each view (``StoredView`` as JSON).

The seconds are since 1970 in UTC. Feast reads and writes them in the time zone of its process, so
the times it reports are right where ``TZ`` is UTC; values are right everywhere.

Feast's table of a view that has numbers alone is made ``WITHOUT ROWID``: one tree instead of two,
and a third of the time. One with text or lists keeps the row ids that Feast's document search
reads. Feast's index of the entity keys is left out, since the primary key begins with them.

Source of the tables: feast 0.67, ``infra/online_stores/sqlite.py``.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from featurestore.errors import OnlineStoreFailed

BUSY_SECONDS = 30.0
"""How long anyone waits for the file's lock."""

SELECT_VIEWS = "SELECT view, record FROM headrace_views WHERE project = ?"
SELECT_VIEW = "SELECT record FROM headrace_views WHERE project = ? AND view = ?"
PUT_VIEW = "INSERT OR REPLACE INTO headrace_views (project, view, record) VALUES (?, ?, ?)"


def table_of(project: str, view: str) -> str:
    """The name of Feast's table of a view, quoted for SQL."""
    return _quoted(f"{project}_{view}")


def packed_table_of(project: str, view: str) -> str:
    """The name of our table of a view, quoted for SQL."""
    return _quoted(f"headrace_{project}_{view}")


def create_views_table(db: sqlite3.Connection) -> None:
    """Make the table of the views' records."""
    columns = {row[1] for row in db.execute("PRAGMA table_info(headrace_views)")}
    if columns and "record" not in columns:
        # Made by a version of Headrace that packed no rows: every view is written from the start.
        db.execute("DROP TABLE headrace_views")
    db.execute(
        "CREATE TABLE IF NOT EXISTS headrace_views "
        "(project TEXT, view TEXT, record TEXT NOT NULL, PRIMARY KEY (project, view))"
    )


def create_tables(db: sqlite3.Connection, project: str, view: str, *, numbers_only: bool) -> None:
    """Make a view's table as Feast does, and ours."""
    db.execute(
        f"CREATE TABLE IF NOT EXISTS {table_of(project, view)} "
        "(entity_key BLOB, feature_name TEXT, value BLOB, value_text TEXT, vector_value BLOB, "
        "event_ts timestamp, created_ts timestamp, PRIMARY KEY(entity_key, feature_name))"
        + (" WITHOUT ROWID" if numbers_only else "")
    )
    db.execute(
        f"CREATE TABLE IF NOT EXISTS {packed_table_of(project, view)} "
        "(entity_key BLOB PRIMARY KEY, row BLOB NOT NULL) WITHOUT ROWID"
    )


def insert_rows(table: str, features: Sequence[str]) -> str:
    """The statement that writes all features of one entity.

    Its variables: entity key, event and created seconds, a value for each feature. One statement an
    entity costs half of one a feature.
    """
    rows = ", ".join(
        f"(?1, {_text(name)}, ?{number}, ?2, ?3)" for number, name in enumerate(features, 4)
    )
    return (
        f"INSERT INTO {table} (entity_key, feature_name, value, event_ts, created_ts) "  # noqa: S608 - quoted
        f"VALUES {rows} ON CONFLICT (entity_key, feature_name) DO UPDATE SET "
        "value = excluded.value, value_text = NULL, vector_value = NULL, "
        "event_ts = excluded.event_ts, created_ts = excluded.created_ts"
    )


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
def naming(action: str, path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into one that names the file."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise OnlineStoreFailed(action, path, error) from error


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
