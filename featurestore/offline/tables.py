"""Read the offline store: Parquet files in a folder or at any fsspec URL.

A table is one file, ``<root>/<table>.parquet``, and the rows that were pushed since, in part files
``<root>/<table>.pushed/*.parquet`` (``parts`` writes them). Everything here sees them as one
table: first the file's rows, then the parts' in the order of their names. Each file is
sorted by its event timestamp, so a time window reads only the row groups that touch it. Page
checksums are verified while reading.
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
PUSHED = ".pushed"
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
    """Return the rows of ``table`` with ``since <= timestamp < until``, in the table's order.

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
        SchemaMismatch: if columns are missing, ``timestamp`` is no UTC timestamp, or a pushed part
            has other columns than the table.
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
    with _naming_damage(f"{root_uri}/{table}{SUFFIX}"):
        found = source.to_table(columns=list(columns) if columns else None, filter=where)
    if not found.num_rows and not empty_ok and timestamp is not None:
        raise _no_rows(root_uri, table, timestamp, since, until)
    return found


def scan_table(
    root_uri: str, table: str, *, columns: Sequence[str], where: pc.Expression
) -> Iterator[pa.Table]:
    """Yield the rows that fit ``where``, in the table's order, about a million at a time.

    Raises:
        UnknownName, SchemaMismatch, StorageFailed: as ``read_table``.
    """
    source = _open(root_uri, table)
    check_columns(table, source.schema, columns)
    with _naming_damage(f"{root_uri}/{table}{SUFFIX}"):
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
    spans = []
    with _naming_damage(f"{root_uri}/{table}{SUFFIX}"):
        for path in source.files:
            with pq.ParquetFile(path, filesystem=source.filesystem) as file:
                if file.metadata.num_rows:
                    spans.append(_span(file, table, timestamp))
    if not spans:
        raise SchemaMismatch(table, ["it has no rows"])
    return min(first for first, _ in spans), max(last for _, last in spans)


def count_rows(root_uri: str) -> int:
    """How many rows all tables at ``root_uri`` have, from the files' metadata alone.

    Raises:
        StorageFailed: if a file cannot be read or is damaged.
    """
    total = 0
    for table in table_names(root_uri):
        source = _open(root_uri, table)
        with _naming_damage(f"{root_uri}/{table}{SUFFIX}"):
            total += source.count_rows()
    return total


def table_schema(root_uri: str, table: str) -> pa.Schema:
    """The columns of a table, from one file's footer.

    Raises:
        UnknownName, StorageFailed: as ``read_table``.
    """
    first = table_uris(root_uri, table)[0]
    path, filesystem = _place(first)
    with _naming_damage(first):
        return pq.read_schema(path, filesystem=filesystem)


def table_uris(root_uri: str, table: str) -> list[str]:
    """The files that make up a table, in its order: its own, then the pushed parts by name.

    A table without parts costs the one listing that also tells whether it is there.

    Raises:
        UnknownName: if there is no such table.
    """
    names = storage.list_names(root_uri)
    uris = [f"{root_uri}/{table}{SUFFIX}"] if f"{table}{SUFFIX}" in names else []
    if f"{table}{PUSHED}" in names:
        folder = f"{root_uri}/{table}{PUSHED}"
        parts = storage.list_names(folder)
        uris += [f"{folder}/{name}" for name in parts if name.endswith(SUFFIX)]
    if not uris:
        remedy = f"Tables lie in {root_uri}; HEADRACE_STORAGE names another place."
        raise UnknownName("table", table, _names_of_tables(names), remedy=remedy)
    return uris


def table_names(root_uri: str) -> list[str]:
    """The names of the tables at ``root_uri``, sorted."""
    return _names_of_tables(storage.list_names(root_uri))


def check_same_columns(name: str, have: pa.Schema, wanted: pa.Schema) -> None:
    """Raise ``SchemaMismatch`` unless both have the same columns and types, in any order."""
    check_columns(name, have, wanted.names)
    types = {column.name: column.type for column in wanted}
    problems = [
        f"column {column.name} is {column.type}, but must be {types[column.name]}"
        if column.name in types
        else f"column {column.name} is not in the table"
        for column in have
        if column.type != types.get(column.name)
    ]
    if problems:
        raise SchemaMismatch(name, problems)


def utc(moment: datetime) -> datetime:
    """Return ``moment`` in UTC, refusing one that does not say its zone."""
    if moment.tzinfo is None:
        raise TimeWithoutZone(moment)
    return moment.astimezone(UTC)


def _open(root_uri: str, table: str) -> Any:
    uris = table_uris(root_uri, table)
    import pyarrow.dataset as ds  # it brings pandas with it: half a second for every --help

    options = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
    format_ = ds.ParquetFileFormat(default_fragment_scan_options=options)
    placed = [_place(uri) for uri in uris]
    with _naming_damage(f"{root_uri}/{table}{SUFFIX}"):
        source = ds.dataset([path for path, _ in placed], format=format_, filesystem=placed[0][1])
        if len(uris) > 1:
            _check_parts(source, uris)
        return source


def _check_parts(source: Any, uris: list[str]) -> None:
    # A dataset takes the first file's columns for all, and fills with null what a file lacks.
    for uri, fragment in zip(uris, source.get_fragments(), strict=True):
        with _naming_damage(uri):
            check_same_columns(uri, fragment.physical_schema, source.schema)


def _place(uri: str) -> tuple[str, Any]:
    import pyarrow.fs

    if storage.is_local(uri):
        return uri, pyarrow.fs.LocalFileSystem()
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(uri)
    return path, pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem))


@contextlib.contextmanager
def _naming_damage(uri: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise StorageFailed("read", uri, error) from error


def _window(timestamp: str, since: datetime | None, until: datetime | None) -> Any:
    where = None
    for moment, bound in ((since, pc.greater_equal), (until, pc.less)):
        if moment is not None:
            part = bound(pc.field(timestamp), pa.scalar(utc(moment), TIMESTAMP))
            where = part if where is None else where & part
    return where


def _names_of_tables(names: list[str]) -> list[str]:
    found = {n.removesuffix(s) for n in names for s in (SUFFIX, PUSHED) if n.endswith(s)}
    return sorted(found)


def _no_rows(
    root_uri: str, table: str, timestamp: str, since: datetime | None, until: datetime | None
) -> DatesOutsideData:
    first, last = table_span(root_uri, table, timestamp)
    return DatesOutsideData(table, since or first, until or last, first, last)


def _span(file: pq.ParquetFile, table: str, timestamp: str) -> tuple[datetime, datetime]:
    index = file.schema_arrow.names.index(timestamp)
    groups = [file.metadata.row_group(g).column(index) for g in range(file.num_row_groups)]
    statistics = [g.statistics for g in groups if g.statistics and g.statistics.has_min_max]
    if len(statistics) < len(groups):
        raise SchemaMismatch(table, [f"{timestamp} has no statistics; write it with Headrace"])
    return min(s.min for s in statistics), max(s.max for s in statistics)
