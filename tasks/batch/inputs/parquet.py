"""Parquet files: their footers, and their rows in bounded memory.

A footer is read from the end of the file alone. Rows are decoded page by page, whatever the size
of the row groups; page checksums are verified where a file has them; and what a page or a
dictionary would become in memory is looked at before it is decoded, because 200 kB of Parquet can
hold 2 GB of values.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pyarrow.types as pt

from headrace import storage
from headrace.errors import StorageFailed
from tasks.batch.inputs.errors import InputBroken
from tasks.batch.inputs.pages import largest_pages
from tasks.batch.inputs.source import opened

DECODED_BYTES = 64 << 20
"""What one batch of rows may take in memory, and what the pages decoded at one time may."""

_MAGIC = b"PAR1"
_TAIL_BYTES = 64 << 10
_BUFFER_BYTES = 1 << 20
_DELTA_ROWS = 1_024  # texts by what they share with the one before: what they become is not told
_ENDING = struct.Struct("<I4s")  # the footer's length and the magic


@dataclass(frozen=True)
class Footer:
    """What a Parquet file says about itself."""

    metadata: Any
    schema: pa.Schema

    @property
    def row_groups(self) -> tuple[int, ...]:
        """How many rows each row group has."""
        count = self.metadata.num_row_groups
        return tuple(self.metadata.row_group(g).num_rows for g in range(count))


def read_footer(uri: str, size: int) -> Footer:
    """Read a file's footer: one read of its last bytes, or two where the footer is long.

    Args:
        uri: the file.
        size: its length in bytes.

    Raises:
        InputBroken: if it is no whole Parquet file.
        FileNotFoundError, StorageFailed: if it cannot be read.
    """
    if size < len(_MAGIC) + _ENDING.size:
        raise InputBroken(uri, f"it has {size} bytes, too few for a Parquet file")
    tail = storage.read_range(uri, max(0, size - _TAIL_BYTES), size)
    length, magic = _ENDING.unpack(tail[-_ENDING.size :])
    if magic != _MAGIC:
        raise InputBroken(uri, "it does not end as Parquet does: cut short, or no Parquet file")
    needed = length + _ENDING.size
    if needed + len(_MAGIC) > size:
        raise InputBroken(uri, f"its footer claims {length} bytes, the file has {size}")
    if needed > len(tail):
        tail = storage.read_range(uri, size - needed, size)
    try:
        metadata = pq.read_metadata(pa.BufferReader(tail))
        footer = Footer(metadata, metadata.schema.to_arrow_schema())
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputBroken(uri, f"its footer is damaged: {error}") from error
    _check_places(uri, footer, size - needed)
    return footer


def iterate(
    uri: str, row_groups: Sequence[int], columns: Sequence[str], *, batch_rows: int
) -> Iterator[pa.Table]:
    """Yield the rows of some row groups in their order, in bounded memory.

    Args:
        uri: the file.
        row_groups: which ones, rising.
        columns: names in the file; those that it lacks are left out.
        batch_rows: how many rows a table has at most; fewer where they would take more than
            ``DECODED_BYTES``.

    Raises:
        InputBroken: if the file is damaged, or its pages or rows are beyond the budget.
        FileNotFoundError, StorageFailed: if it cannot be read.
    """
    with opened(uri) as source:
        try:
            file = pq.ParquetFile(
                source,
                pre_buffer=False,  # it would hold whole column chunks
                buffer_size=_BUFFER_BYTES,
                page_checksum_verification=True,
            )
            columns = [name for name in columns if name in file.schema_arrow.names]
            chunks = _Chunks(file, row_groups, columns)
            chunks.check_pages(uri, source)
            dictionaries = chunks.dictionary_columns()
            if dictionaries:
                source.seek(0)
                file = pq.ParquetFile(
                    source,
                    metadata=file.metadata,
                    read_dictionary=dictionaries,
                    pre_buffer=False,
                    buffer_size=_BUFFER_BYTES,
                    page_checksum_verification=True,
                )
            batches = file.iter_batches(
                batch_size=max(1, min(batch_rows, chunks.rows_within(DECODED_BYTES))),
                row_groups=list(row_groups),
                columns=list(columns),
                use_threads=False,
            )
            for batch in batches:
                yield from _decoded(uri, pa.Table.from_batches([batch]))
        except (pa.ArrowException, ValueError) as error:
            raise InputBroken(uri, f"it is damaged: {error}") from error
        except OSError as error:
            if error.errno is not None:  # the system's: the place, not the file, is at fault
                raise StorageFailed("read", uri, error) from error
            raise InputBroken(uri, f"it is damaged: {error}") from error


class _Chunks:
    """The column chunks that a read goes through."""

    def __init__(
        self, file: pq.ParquetFile, row_groups: Sequence[int], columns: Sequence[str]
    ) -> None:
        self._rows = 0
        self._by_column: dict[str, list[Any]] = {}
        wanted = set(columns)
        for group in row_groups:
            metadata = file.metadata.row_group(group)
            self._rows += metadata.num_rows
            for index in range(metadata.num_columns):
                chunk = metadata.column(index)
                name = chunk.path_in_schema
                if name in wanted or name.split(".", 1)[0] in wanted:
                    self._by_column.setdefault(name, []).append(chunk)

    def rows_within(self, budget: int) -> int:
        """How many rows take no more than ``budget`` bytes, by what the footer says of them."""
        if any("DELTA_BYTE_ARRAY" in chunk.encodings for chunk in self._all()):
            return _DELTA_ROWS
        total = sum(chunk.total_uncompressed_size for chunk in self._all())
        return budget * self._rows // total if total and self._rows else budget

    def check_pages(self, uri: str, source: Any) -> None:
        """Refuse pages that would take more than the budget at one time.

        A page is decoded as a whole, one a column at a time. Only where the chunks are large
        enough to hold such pages are the pages' headers looked at.
        """
        largest = 0
        for chunks in self._by_column.values():
            if max(chunk.total_uncompressed_size for chunk in chunks) * len(self._by_column) > (
                DECODED_BYTES
            ):
                largest += max(largest_pages(source, chunk) for chunk in chunks)
        if largest > DECODED_BYTES:
            raise InputBroken(
                uri,
                f"its pages become {largest / 1e6:.0f} MB in memory at one time, more than "
                f"{DECODED_BYTES / 1e6:.0f} MB",
                remedy="Write it with data pages of the usual 1 MB.",
            )

    def dictionary_columns(self) -> list[str]:
        """Text columns that are encoded by a dictionary in every chunk.

        They are read as dictionaries first: one long text that a million rows share takes no
        memory until it is written out for each.
        """
        return [
            name
            for name, chunks in self._by_column.items()
            if all(
                chunk.physical_type == "BYTE_ARRAY"
                and {"RLE_DICTIONARY", "PLAIN_DICTIONARY"} & set(chunk.encodings)
                for chunk in chunks
            )
        ]

    def _all(self) -> Iterator[Any]:
        for chunks in self._by_column.values():
            yield from chunks


def _decoded(uri: str, rows: pa.Table) -> Iterator[pa.Table]:
    """Write dictionaries out, in as many tables as the budget asks for."""
    bytes_ = rows.nbytes + sum(_text_bytes(column) for column in rows.columns)
    if bytes_ > DECODED_BYTES and rows.num_rows > 1:
        half = rows.num_rows // 2
        yield from _decoded(uri, rows.slice(0, half))
        yield from _decoded(uri, rows.slice(half))
        return
    if bytes_ > DECODED_BYTES:
        raise InputBroken(
            uri,
            f"one of its rows takes {bytes_ / 1e6:.0f} MB, more than {DECODED_BYTES / 1e6:.0f} MB",
            remedy="Leave that column out of the input.",
        )
    for index, column in enumerate(rows.columns):
        if pt.is_dictionary(column.type):
            rows = rows.set_column(
                index, rows.field(index).name, column.cast(column.type.value_type)
            )
    yield rows


def _text_bytes(column: pa.ChunkedArray) -> int:
    """How many bytes a dictionary column's texts take once each row has its own."""
    if not pt.is_dictionary(column.type):
        return 0
    return sum(
        pc.sum(pc.binary_length(chunk.dictionary).take(chunk.indices)).as_py() or 0
        for chunk in column.chunks
    )


def _check_places(uri: str, footer: Footer, end: int) -> None:
    # A file cut in the middle and glued to its footer, or a footer of another file.
    metadata = footer.metadata
    if sum(footer.row_groups) != metadata.num_rows:
        raise InputBroken(uri, "its row groups do not add up to its rows")
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for index in range(row_group.num_columns):
            chunk = row_group.column(index)
            begin = chunk.dictionary_page_offset or chunk.data_page_offset
            if begin < len(_MAGIC) or begin + chunk.total_compressed_size > end:
                raise InputBroken(
                    uri, f"column {chunk.path_in_schema} reaches beyond the end of the file"
                )
