"""Historical features of more rows than memory holds: Parquet in, Parquet out, in order.

Rows pass through in chunks of one size, however the input is cut, so the same rows give the same
bytes; only the views' values in reach stay in memory. Where even these are too many,
``featurestore.join.by_entity`` gives the same bytes from one share of the entities after another.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from featurestore.columns import check_timestamps
from featurestore.join.certificate import Certificate, CertificateMaker, SourceRead, span_of
from featurestore.join.historical import with_features
from featurestore.join.joining import ServiceJoin
from featurestore.join.pit import JoinedView
from featurestore.join.reach import Span
from featurestore.offline.tables import SUFFIX, scan_table, table_schema
from headrace import storage
from headrace.plan import ViewRead

CHUNK_ROWS = 131_072
"""Rows in memory at once, and in a row group of the result."""


def write_historical_features(
    rows_uri: str,
    views: Sequence[ViewRead],
    offline_uri: str,
    out_uri: str,
    *,
    timestamp: str,
    chunk_rows: int = CHUNK_ROWS,
) -> Certificate:
    """Write each row of a Parquet file with its features as they were known at its moment.

    Memory holds the views' values in reach and some chunks. ``out_uri`` is written whole or not at
    all; a repeated run writes the same bytes.

    Args:
        rows_uri: ``<folder>/<name>.parquet``; has the join keys and ``timestamp``, in any order.
        views: what to read.
        offline_uri: where the tables lie; ``settings.uri("offline")``.
        out_uri: the Parquet file to write: the same rows in the same order.
        timestamp: the column of the rows with the moment of each, ``timestamp[us, tz=UTC]``.
        chunk_rows: rows at once; other sizes cut other row groups.

    Raises:
        SchemaMismatch, UnknownName, StorageFailed: as ``historical_features``; the rows are a table
            to which the same applies.
    """
    span = span_of_rows(rows_uri, timestamp)
    service = ServiceJoin.open(offline_uri, views, span, as_arrow=True)
    joined = ((rows, service.join(rows, timestamp)) for rows in chunks(rows_uri, chunk_rows))
    sources = [view.source for view in service.views]
    return write_joined(joined, views, out_uri, sources=sources, timestamp=timestamp)


def span_of_rows(rows_uri: str, timestamp: str) -> Span | None:
    """The first and the last moment of the rows of a file; None: it has none.

    Raises:
        SchemaMismatch: if ``timestamp`` is missing or no UTC timestamp.
        UnknownName, StorageFailed: if the file is not there, or cannot be read.
    """
    root, name = _table(rows_uri)
    check_timestamps(name, table_schema(root, name), [timestamp])
    ends = [
        end
        for piece in scan_table(root, name, columns=[timestamp], where=pc.scalar(True))
        for end in span_of(piece[timestamp]) or ()
    ]
    return (min(ends), max(ends)) if ends else None


def chunks(
    rows_uri: str, chunk_rows: int = CHUNK_ROWS, *, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The rows of a file in order, cut into chunks of one size; of no rows, one empty chunk."""
    root, name = _table(rows_uri)
    schema = table_schema(root, name).remove_metadata()
    held = pa.schema([schema.field(c) for c in columns or schema.names]).empty_table()
    some = False  # for a file without rows one chunk without rows, which has its columns
    for piece in scan_table(root, name, columns=held.column_names, where=pc.scalar(True)):
        held = pa.concat_tables([held, piece.replace_schema_metadata(None)])
        while held.num_rows >= chunk_rows:
            yield held.slice(0, chunk_rows)
            held, some = held.slice(chunk_rows), True
    if held.num_rows or not some:
        yield held


def write_joined(
    joined: Iterable[tuple[pa.Table, Sequence[JoinedView]]],
    views: Sequence[ViewRead],
    out_uri: str,
    *,
    sources: Sequence[SourceRead],
    timestamp: str,
) -> Certificate:
    """Write rows and what was found for them, a row group a chunk, and return the certificate.

    Raises:
        StorageFailed: if the file cannot be written.
    """
    maker = CertificateMaker(views, timestamp)

    def tables() -> Iterator[pa.Table]:
        for rows, found in joined:
            table = with_features(rows, views, found, explain=False)
            maker.count(rows, found)
            maker.count_result(table)
            yield table

    write_parquet(tables(), out_uri)
    return maker.certificate(sources)


def write_parquet(tables: Iterator[pa.Table], uri: str) -> None:
    """Write tables to one Parquet file, a row group each; the file appears whole or not at all.

    Raises:
        StorageFailed: if it cannot be written.
    """
    with storage.written_whole(uri) as path:
        first = next(tables)
        with pq.ParquetWriter(
            path, first.schema, compression="zstd", write_page_checksum=True
        ) as writer:
            for table in itertools.chain([first], tables):
                writer.write_table(table, row_group_size=max(1, table.num_rows))


def _table(uri: str) -> tuple[str, str]:
    root, name = uri.rsplit("/", 1)
    return root, name.removesuffix(SUFFIX)
