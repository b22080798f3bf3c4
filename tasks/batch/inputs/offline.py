"""A window of a table of the offline store, as a dataset.

A table is its Parquet file and the parts pushed to it. Statistics tell which row groups lie in the
window as a whole and which not at all; of those in between (two a file, where it is sorted) the
timestamps are read and counted.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from featurestore.columns import check_columns, check_timestamps
from featurestore.offline.tables import table_span, table_uris, utc
from headrace.errors import DatesOutsideData
from headrace.settings import Settings
from headrace.window import Window
from tasks.batch.inputs import parquet
from tasks.batch.inputs.dataset import Bounds, Dataset, InputFile
from tasks.batch.inputs.parquet_files import BadFiles, Listed, open_files
from tasks.batch.inputs.reading import inside


def offline_table(
    settings: Settings,
    table: str,
    window: Window,
    timestamp: str,
    *,
    columns: Sequence[str] | None = None,
    bad_files: BadFiles = "stop",
    empty_ok: bool = False,
) -> Dataset:
    """Return the rows of a table with ``window.since <= timestamp < window.until``.

    Args:
        settings: says where the offline store is.
        table: the table's name.
        window: the window of time, UTC.
        timestamp: the column that the window bounds.
        columns: which columns will be read; None: all.
        bad_files: ``stop`` or ``skip``.
        empty_ok: return a dataset without rows rather than raise.

    Raises:
        UnknownName: if there is no such table.
        SchemaMismatch: if a column is missing, or ``timestamp`` is no UTC timestamp.
        DatesOutsideData: if the window has no rows, unless ``empty_ok``.
        InputBroken, StorageFailed: as ``open_dataset``.
    """
    root = settings.uri("offline")
    listed = [Listed(uri) for uri in table_uris(root, table)]
    wanted = None if columns is None else list(dict.fromkeys([*columns, timestamp]))
    whole = open_files(f"{table} {window}", listed, columns=wanted, bad_files=bad_files)
    check_columns(table, whole.schema, wanted or [timestamp])
    check_timestamps(table, whole.schema, [timestamp])
    bounds = Bounds(column=timestamp, since=utc(window.since), until=utc(window.until))
    files = tuple(_windowed(file, bounds) for file in whole.files)
    dataset = Dataset(whole.uri, whole.schema, tuple(f for f in files if f.rows), whole.quarantined)
    if not dataset.rows and not empty_ok:
        first, last = table_span(root, table, timestamp)
        raise DatesOutsideData(table, bounds.since, bounds.until, first, last)
    return dataset


def _windowed(file: InputFile, bounds: Bounds) -> InputFile:
    metadata = parquet.read_footer(file.uri, file.bytes).metadata
    counted = tuple(
        _count(file, metadata.row_group(group), group, bounds)
        for group in range(metadata.num_row_groups)
    )
    reading = file.reading
    if any(0 < counts < rows for counts, rows in zip(counted, file.row_groups, strict=True)):
        reading = reading.model_copy(update={"bounds": bounds})
    return file.model_copy(update={"counted": counted, "reading": reading})


def _count(file: InputFile, row_group: Any, group: int, bounds: Bounds) -> int:
    """How many rows of a row group are in the window."""
    ends = _ends(row_group, bounds.column)
    if ends is not None:
        first, last, nulls = ends
        if first >= bounds.until or last < bounds.since:
            return 0
        if bounds.since <= first and last < bounds.until and nulls == 0:
            return int(row_group.num_rows)
    moments = parquet.iterate(file.uri, [group], [bounds.column], batch_rows=1 << 20)
    return sum(int(inside(rows[bounds.column], bounds).sum()) for rows in moments)


def _ends(row_group: Any, column: str) -> tuple[datetime, datetime, int | None] | None:
    for index in range(row_group.num_columns):
        chunk = row_group.column(index)
        found = chunk.statistics if chunk.path_in_schema == column else None
        if found is not None and found.has_min_max:
            return found.min, found.max, found.null_count if found.has_null_count else None
    return None
