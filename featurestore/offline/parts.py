"""Add rows to an offline table: one part file a push, whole or absent, named by what it holds.

A part lies beside its table, ``<root>/<table>.pushed/<content hash>.parquet``, and is never changed
or deleted: pushing the same rows twice finds the part there and adds nothing. There is no
compaction; how many parts there are is decided by how rarely a writer flushes. To fold parts into
a table, write ``<table>.parquet`` anew with their rows and delete the folder while nobody reads.
"""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featurestore.columns import check_timestamps
from featurestore.offline.tables import (
    PUSHED,
    SUFFIX,
    check_same_columns,
    scan_table,
    table_names,
    table_schema,
)
from headrace import storage
from headrace.bundle import arrow_bytes

_NAME_DIGITS = 32  # 128 bits of SHA-256
_ROW_GROUP_ROWS = 1 << 17


@dataclass(frozen=True)
class Part:
    """A part file that holds the rows of a push."""

    uri: str
    rows: int
    was_there: bool
    """The same rows had been pushed before: nothing was written."""


def add_part(root_uri: str, table: str, rows: pa.Table, *, timestamp: str) -> Part:
    """Write rows as one part of a table, unless a part of exactly these rows is there.

    Args:
        root_uri: folder or fsspec URL with the tables.
        table: the table's name; its first part makes it, where it is not there.
        rows: at least one row, with the table's columns in any order.
        timestamp: the event timestamp, by which the part is sorted.

    Raises:
        SchemaMismatch: naming a column that is missing, unknown, or of another type.
        StorageFailed: if the part cannot be written.
    """
    ordered = _as_in_table(root_uri, table, rows, timestamp)
    name = storage.sha256(arrow_bytes(ordered))[:_NAME_DIGITS]
    uri = f"{root_uri}/{table}{PUSHED}/{name}{SUFFIX}"
    if storage.exists(uri):
        return Part(uri, rows.num_rows, was_there=True)
    sink = pa.BufferOutputStream()
    pq.write_table(
        ordered, sink, compression="zstd", write_page_checksum=True, row_group_size=_ROW_GROUP_ROWS
    )
    storage.write_atomic(uri, sink.getvalue().to_pybytes())
    return Part(uri, rows.num_rows, was_there=False)


def not_yet_there(root_uri: str, table: str, rows: pa.Table, *, timestamp: str) -> pa.Table:
    """The rows of which the table has no equal one, in their order.

    For rows that may have been pushed before in other company, as after a crash: ``add_part`` knows
    only whole parts again. Reads what the table holds of the time that the rows span.

    Raises:
        SchemaMismatch, StorageFailed: as ``add_part``.
    """
    asked = _as_in_table(root_uri, table, rows, timestamp)
    if table not in table_names(root_uri):
        return asked
    ends, field = pc.min_max(asked[timestamp]), pc.field(timestamp)
    where = (field >= ends["min"]) & (field <= ends["max"])
    there: set[str] = set()
    for found in scan_table(root_uri, table, columns=asked.column_names, where=where):
        there.update(_texts(found))
    return asked.filter(pa.array([text not in there for text in _texts(asked)], pa.bool_()))


def _as_in_table(root_uri: str, table: str, rows: pa.Table, timestamp: str) -> pa.Table:
    """The rows by event time, with the columns in the table's order and no metadata."""
    check_timestamps(table, rows.schema, [timestamp])
    names = sorted(rows.column_names)
    if table in table_names(root_uri):
        schema = table_schema(root_uri, table)
        check_same_columns(f"rows pushed to {table}", rows.schema, schema)
        names = schema.names
    # A stable sort: of equal rows the one pushed last stays last.
    by_time = rows.select(names).sort_by(timestamp)
    return by_time.combine_chunks().replace_schema_metadata(None)


def _texts(rows: pa.Table) -> list[str]:
    # Equal texts for equal rows, also where a value is NaN or a list.
    return [repr(row) for row in zip(*(c.to_pylist() for c in rows.columns), strict=True)]
