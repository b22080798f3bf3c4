"""Materialise: copy the latest value of each entity from the offline to the online store.

A watermark for each view says until when the online store holds everything that was known. The
next run reads only what became known since, late writes included. Rows and watermark change in one
transaction: a run that is killed leaves the old state, and a repeated run writes nothing.
"""

import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from featurestore.catalog import Catalog
from featurestore.columns import TIMESTAMP, feature_column, microseconds
from featurestore.layout import (
    CREATED,
    EVENT,
    create_table,
    naming,
    open_writer,
    stored_definition,
    table_of,
    transaction,
)
from featurestore.offline import scan_table, utc
from featurestore.pit import latest_values
from featurestore.wire import EntityKeyWriter, encode_values
from headrace.plan import ViewRead
from headrace.settings import Settings

_log = logging.getLogger(__name__)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Target = tuple[str, ViewRead]  # the Feast project and the view


@dataclass(frozen=True)
class ViewMaterialized:
    """What a run did for one view."""

    view: str
    since: datetime | None
    """The watermark before the run; None: the view was written from the start."""
    until: datetime
    """The watermark after the run."""
    keys_written: int
    """Entities whose values changed; 0 if nothing was new."""
    rows_read: int
    """Rows of the offline table that became known between the two."""


def materialize(
    settings: Settings, catalog: Catalog, *, until: datetime, rebuild: bool = False
) -> tuple[ViewMaterialized, ...]:
    """Bring every view of the online store up to ``until``.

    Safe to run twice, at once with another run, and to kill. A view whose features, keys or table
    have changed is written from the start. Otherwise an ``until`` before the watermark writes
    nothing: an older value never replaces a newer one.

    Args:
        settings: where the two stores are.
        catalog: the compiled feature definitions.
        until: values that were true and written by then count; timezone-aware.
        rebuild: forget what is there and write every view from the start.

    Returns:
        What was done, one entry a view, in the catalog's order.

    Raises:
        OnlineStoreFailed: if the file is locked, damaged or cannot be written.
        UnknownName, SchemaMismatch, StorageFailed: for an offline table, as ``read_table``.
        TimeWithoutZone: if ``until`` does not say its time zone.
    """
    until = utc(until)
    path, root = settings.online_path, settings.uri("offline")
    db = open_writer(path)
    try:
        with naming("write", path):
            return tuple(
                _materialize_view(db, root, (catalog.project, read), until=until, rebuild=rebuild)
                for read in catalog.views
            )
    finally:
        db.close()


def _materialize_view(
    db: sqlite3.Connection, root: str, target: _Target, *, until: datetime, rebuild: bool
) -> ViewMaterialized:
    project, read = target
    with transaction(db):
        since = None if rebuild else _watermark(db, project, read)
        if since is not None and until <= since:
            _log.info("%s: nothing to do, it reaches %s", read.view, since)
            return ViewMaterialized(read.view, since, since, 0, 0)
        create_table(db, project, read.view)
        if since is None:
            db.execute(f"DELETE FROM {table_of(project, read.view)}")  # noqa: S608 - quoted name
        latest, rows_read = _latest_known(root, read, since, until)
        written = _write(db, project, read, latest) if latest is not None else 0
        _move_watermark(db, project, read, until)
    _log.info("%s: %d rows read, %d keys written, until %s", read.view, rows_read, written, until)
    return ViewMaterialized(read.view, since, until, written, rows_read)


def _watermark(db: sqlite3.Connection, project: str, read: ViewRead) -> datetime | None:
    found = db.execute(
        "SELECT until_us, definition FROM headrace_views WHERE project = ? AND view = ?",
        (project, read.view),
    ).fetchone()
    if found is None or found[1] != stored_definition(read):
        return None
    return _EPOCH + timedelta(microseconds=found[0])


def _move_watermark(db: sqlite3.Connection, project: str, read: ViewRead, until: datetime) -> None:
    microsecond = (until - _EPOCH) // timedelta(microseconds=1)
    db.execute(
        "INSERT OR REPLACE INTO headrace_views VALUES (?, ?, ?, ?)",
        (project, read.view, microsecond, stored_definition(read)),
    )


def _latest_known(
    root: str, read: ViewRead, since: datetime | None, until: datetime
) -> tuple[pa.Table | None, int]:
    """The latest row of each entity that became known in ``(since, until]``, and the rows read.

    Held in memory: the latest rows so far, and about a million more.
    """
    times = [read.event_timestamp, read.created_timestamp]
    columns = [*read.key_names, *times, *(feature.name for feature in read.features)]
    latest, rows_read = None, 0
    for part in scan_table(root, read.table, columns=columns, where=_known(read, since, until)):
        rows_read += part.num_rows
        both = part if latest is None else pa.concat_tables([latest, part])
        latest = both.take(pa.array(latest_values(both, read)))
    return latest, rows_read


def _known(read: ViewRead, since: datetime | None, until: datetime) -> pc.Expression:
    event, created = pc.field(read.event_timestamp), pc.field(read.created_timestamp)
    end = pa.scalar(until, TIMESTAMP)
    known = (event <= end) & (created <= end)
    if since is not None:
        start = pa.scalar(since, TIMESTAMP)
        known &= (event > start) | (created > start)
    return known


def _write(db: sqlite3.Connection, project: str, read: ViewRead, latest: pa.Table) -> int:
    """Put the rows of ``latest`` where they are newer than what is there; how many keys changed."""
    before = db.total_changes
    db.executemany(
        f"INSERT INTO {table_of(project, read.view)} (entity_key, feature_name, value, "  # noqa: S608 - quoted name
        "event_ts, created_ts, event_us, created_us) "
        "VALUES (?1, ?2, ?3, ?4 / 1000000, ?5 / 1000000, ?4, ?5) "
        "ON CONFLICT (entity_key, feature_name) DO UPDATE SET value = excluded.value, "
        "value_text = NULL, event_ts = excluded.event_ts, created_ts = excluded.created_ts, "
        "event_us = excluded.event_us, created_us = excluded.created_us "
        f"WHERE (excluded.event_us, excluded.created_us) >= ({EVENT}, {CREATED})",
        _stored_rows(read, latest),
    )
    return (db.total_changes - before) // len(read.features)


def _stored_rows(read: ViewRead, latest: pa.Table) -> Iterator[tuple[Any, ...]]:
    """Yield the stored rows in the order of the primary key, which SQLite writes fastest."""
    writer = EntityKeyWriter(read.join_keys)
    entities = zip(*(latest[key].to_pylist() for key in read.key_names), strict=True)
    keys = [writer.write(entity) or b"" for entity in entities]  # none is null: see latest_values
    event = microseconds(latest, read.table, read.event_timestamp).tolist()
    created = microseconds(latest, read.table, read.created_timestamp).tolist()
    features = sorted(read.features, key=lambda feature: feature.name)
    values = [_encoded(feature_column(latest, read.table, f), f.dtype) for f in features]
    for row in sorted(range(len(keys)), key=keys.__getitem__):
        for feature, column in zip(features, values, strict=True):
            yield keys[row], feature.name, column[row], event[row], created[row]


def _encoded(column: pa.ChunkedArray, dtype: str) -> list[bytes]:
    missing = column.is_null().to_numpy()
    zero = pa.scalar(False if dtype == "BOOL" else 0).cast(column.type)
    return encode_values(column.fill_null(zero).to_numpy(), dtype, missing)
