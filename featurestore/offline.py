"""Read the offline store: one Parquet file a table, in a folder or at any fsspec URL.

Tables are sorted by their event timestamp, so a time window reads only the row groups that touch
it. Page checksums are verified while reading.
"""

import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featurestore.columns import TIMESTAMP, check_columns, check_timestamps
from featurestore.errors import TimeWithoutZone
from headrace import storage
from headrace.errors import DatesOutsideData, SchemaMismatch, StorageFailed, UnknownName

SUFFIX = ".parquet"
_BATCH_ROWS = 1 << 20


def read_table(
    root_uri: str,
    table: str,
    *,
    columns: Sequence[str] | None = None,
    timestamp: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    empty_ok: bool = False,
) -> pa.Table:
    """Return the rows of ``table`` with ``since <= timestamp < until``, in the file's order.

    Args:
        root_uri: folder or fsspec URL with the tables.
        table: the table's name, without ``.parquet``.
        columns: which columns, in this order; None: all.
        timestamp: column that ``since`` and ``until`` bound.
        since: first moment of the window, timezone-aware; None: from the start.
        until: first moment after the window, timezone-aware; None: to the end.
        empty_ok: return a table without rows where the window has none, rather than raise.

    Raises:
        UnknownName: if there is no such table.
        SchemaMismatch: if columns are missing, or ``timestamp`` is no UTC timestamp.
        DatesOutsideData: if the window has no rows.
        TimeWithoutZone: if ``since`` or ``until`` has no time zone.
        StorageFailed: if the file cannot be read or is damaged.
    """
    source = _open(root_uri, table)
    check_columns(table, source.schema, columns or ())
    where = None
    if timestamp is not None:
        check_timestamps(table, source.schema, [timestamp])
        where = _window(timestamp, since, until)
    elif since is not None or until is not None:
        raise SchemaMismatch(table, ["a window needs the name of the timestamp column it bounds"])
    with _naming_damage(root_uri, table):
        found = source.to_table(columns=list(columns) if columns else None, filter=where)
    if not found.num_rows and not empty_ok and timestamp is not None:
        raise _no_rows(root_uri, table, timestamp, since, until)
    return found


def scan_table(
    root_uri: str, table: str, *, columns: Sequence[str], where: pc.Expression
) -> Iterator[pa.Table]:
    """Yield the rows that fit ``where``, in the file's order, about a million at a time.

    Raises:
        UnknownName, SchemaMismatch, StorageFailed: as ``read_table``.
    """
    source = _open(root_uri, table)
    check_columns(table, source.schema, columns)
    with _naming_damage(root_uri, table):
        held: list[pa.RecordBatch] = []
        for batch in source.to_batches(columns=list(columns), filter=where):
            held.append(batch)
            if sum(b.num_rows for b in held) >= _BATCH_ROWS:
                yield pa.Table.from_batches(held)
                held = []
        if held:
            yield pa.Table.from_batches(held)


def table_span(root_uri: str, table: str, timestamp: str) -> tuple[datetime, datetime]:
    """The first and the last ``timestamp`` of a table, UTC, from the file's statistics alone.

    Raises:
        UnknownName, SchemaMismatch, StorageFailed: as ``read_table``; a table without rows is a
            ``SchemaMismatch`` too.
    """
    source = _open(root_uri, table)
    check_timestamps(table, source.schema, [timestamp])
    with _naming_damage(root_uri, table):
        file = pq.ParquetFile(source.files[0], filesystem=source.filesystem)
        with file:
            return _span(file, table, timestamp)


def count_rows(root_uri: str) -> int:
    """How many rows all tables at ``root_uri`` have, from the files' metadata alone.

    Raises:
        StorageFailed: if a file cannot be read or is damaged.
    """
    total = 0
    for table in table_names(root_uri):
        source = _open(root_uri, table)
        with _naming_damage(root_uri, table):
            total += source.count_rows()
    return total


def table_names(root_uri: str) -> list[str]:
    """The names of the tables at ``root_uri``, sorted."""
    names = storage.list_names(root_uri)
    return [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX)]


def utc(moment: datetime) -> datetime:
    """Return ``moment`` in UTC, refusing one that does not say its zone."""
    if moment.tzinfo is None:
        raise TimeWithoutZone(moment)
    return moment.astimezone(UTC)


def _open(root_uri: str, table: str) -> Any:
    uri = f"{root_uri}/{table}{SUFFIX}"
    if not storage.exists(uri):
        remedy = f"Tables lie in {root_uri}; HEADRACE_STORAGE names another place."
        raise UnknownName("table", table, table_names(root_uri), remedy=remedy)
    import pyarrow.dataset as ds  # it brings pandas with it: half a second for every --help

    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    format_ = ds.ParquetFileFormat(default_fragment_scan_options=options)
    path, filesystem = _place(uri)
    with _naming_damage(root_uri, table):
        return ds.dataset(path, format=format_, filesystem=filesystem)


def _place(uri: str) -> tuple[str, Any]:
    import pyarrow.fs

    if storage.is_local(uri):
        return uri, pyarrow.fs.LocalFileSystem()
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(uri)
    return path, pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem))


@contextlib.contextmanager
def _naming_damage(root_uri: str, table: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise StorageFailed("read", f"{root_uri}/{table}{SUFFIX}", error) from error


def _window(timestamp: str, since: datetime | None, until: datetime | None) -> Any:
    where = None
    for moment, bound in ((since, pc.greater_equal), (until, pc.less)):
        if moment is not None:
            part = bound(pc.field(timestamp), pa.scalar(utc(moment), TIMESTAMP))
            where = part if where is None else where & part
    return where


def _no_rows(
    root_uri: str, table: str, timestamp: str, since: datetime | None, until: datetime | None
) -> DatesOutsideData:
    first, last = table_span(root_uri, table, timestamp)
    return DatesOutsideData(table, since or first, until or last, first, last)


def _span(file: pq.ParquetFile, table: str, timestamp: str) -> tuple[datetime, datetime]:
    index = file.schema_arrow.names.index(timestamp)
    groups = [file.metadata.row_group(g).column(index) for g in range(file.num_row_groups)]
    statistics = [g.statistics for g in groups if g.statistics and g.statistics.has_min_max]
    if file.metadata.num_rows == 0:
        raise SchemaMismatch(table, ["it has no rows"])
    if len(statistics) < len(groups):
        raise SchemaMismatch(table, [f"{timestamp} has no statistics; write it with Headrace"])
    return min(s.min for s in statistics), max(s.max for s in statistics)
