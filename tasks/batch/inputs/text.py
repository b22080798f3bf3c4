"""One CSV or JSON lines file: its rows, and where they lie.

A row that cannot be read (too few fields, no JSON, bytes that are no UTF-8) is a row with a
reason, at its position; the file goes on. Memory is bounded by a batch and by the longest line.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa

from headrace import storage
from tasks.batch.inputs.dataset import Piece
from tasks.batch.inputs.errors import InputBroken, InputTooLarge
from tasks.batch.inputs.values import Column, from_json, from_texts

UNREADABLE = "__unreadable__"
"""The column that says why a row of a text file is bad; null where it is not."""
_LINE_BYTES = 4 << 20
_TEXT_BATCH_ROWS = 8_192  # Python objects are large; typed, they are joined to what was asked for


@dataclass
class Records:
    """Some rows of a text file, as they are written there."""

    columns: dict[str, list[Any]]
    reasons: list[str | None] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.reasons)


def iterate(piece: Piece, *, batch_rows: int) -> Iterator[tuple[int, pa.Table]]:
    """Yield (position of the first row, rows) of a text file, with the column ``UNREADABLE``.

    Raises:
        InputBroken: if the file as a whole cannot be read: not gzip, no header, a line too long.
    """
    schema = pa.schema(
        [f for f in piece.reading.columns if f.name not in dict(piece.reading.partition)]
    )
    position = 0
    size = min(batch_rows, _TEXT_BATCH_ROWS)
    for records in read_records(piece.uri, piece.format, schema.names, batch_rows=size):
        yield position, _typed(records, schema, is_json=piece.format == "jsonl")
        position += records.rows


def read_records(
    uri: str,
    format_: str,
    names: Sequence[str],
    *,
    batch_rows: int,
    limit_bytes: int | None = None,
) -> Iterator[Records]:
    """Yield the rows of a text file as they are written there.

    Args:
        uri: the file; a name that ends with ``.gz`` is unpacked on the way.
        format_: ``csv`` or ``jsonl``.
        names: the columns that are wanted of JSON lines (a CSV file has its own, in its header).
        batch_rows: how many rows at a time.
        limit_bytes: how much text there may be, unpacked.

    Raises:
        InputBroken, InputTooLarge: if the file as a whole cannot be read.
    """
    with storage.local_copy(uri) as path, path.open("rb") as file:
        try:
            is_packed = uri.endswith(".gz")
            lines = _lines(uri, gzip.GzipFile(fileobj=file) if is_packed else file, limit_bytes)
            if format_ == "csv":
                yield from _csv_records(uri, lines, batch_rows)
            else:
                yield from _json_records(lines, names, batch_rows)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise InputBroken(uri, f"it is no whole gzip file: {error}") from error


def csv_header(uri: str) -> list[str]:
    """The column names of a CSV file.

    Raises:
        InputBroken: if there is no header, or a name is there twice or empty.
    """
    for records in read_records(uri, "csv", (), batch_rows=1):
        return list(records.columns)
    raise InputBroken(uri, "it has no header line")


def _lines(uri: str, file: IO[bytes] | gzip.GzipFile, limit_bytes: int | None) -> Iterator[str]:
    read = 0
    first = True
    while line := file.readline(_LINE_BYTES):
        read += len(line)
        if limit_bytes is not None and read > limit_bytes:
            raise InputTooLarge(uri, limit_bytes)
        if len(line) == _LINE_BYTES:
            raise InputBroken(uri, f"a line has more than {_LINE_BYTES / 1e6:.0f} MB")
        if first:
            line, first = line.removeprefix(b"\xef\xbb\xbf"), False
        # Bytes that are no UTF-8 become lone surrogates, which no other text has: see _damaged.
        yield line.decode("utf-8", errors="surrogateescape")


def _csv_records(uri: str, lines: Iterator[str], batch_rows: int) -> Iterator[Records]:
    reader = csv.reader(lines)
    try:
        header = [name.strip() for name in next(reader, [])]
        if not header:
            return
        if "" in header or len(set(header)) < len(header):
            raise InputBroken(uri, f"its header {header} has a name twice or an empty one")
        rows: list[list[str | None]] = []
        reasons: list[str | None] = []
        for row in reader:
            if not row:
                continue
            reason = _csv_damage(row, len(header))
            reasons.append(reason)
            rows.append([None] * len(header) if reason else row)  # type: ignore[arg-type]
            if len(rows) == batch_rows:
                yield Records(dict(zip(header, zip(*rows, strict=True), strict=True)), reasons)  # type: ignore[arg-type]
                rows, reasons = [], []
        columns: Any = zip(*rows, strict=True) if rows else ([] for _ in header)
        yield Records(dict(zip(header, columns, strict=True)), reasons)
    except csv.Error as error:
        raise InputBroken(uri, f"line {reader.line_num} is no CSV: {error}") from error


def _csv_damage(row: list[str], fields: int) -> str | None:
    if len(row) != fields:
        return f"it has {len(row)} fields where the header has {fields}"
    return "it is not UTF-8" if any(_is_damaged(value) for value in row) else None


def _json_records(lines: Iterator[str], names: Sequence[str], batch_rows: int) -> Iterator[Records]:
    records = Records({name: [] for name in names})
    for line in lines:
        if not line.strip():
            continue
        row, reason = _json_row(line)
        records.reasons.append(reason)
        for name in names or row:
            # Without names every key becomes a column: that is how a sample is looked at.
            column = records.columns.setdefault(name, [None] * (records.rows - 1))
            column.append(row.get(name))
        for column in records.columns.values():
            column.extend([None] * (records.rows - len(column)))
        if records.rows == batch_rows:
            yield records
            records = Records({name: [] for name in names})
    yield records


def _json_row(line: str) -> tuple[dict[str, Any], str | None]:
    if _is_damaged(line):
        return {}, "it is not UTF-8"
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return {}, f"it is no JSON: {error}"
    if not isinstance(row, dict):
        return {}, "it is no JSON object"
    return row, None


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON number")


def _is_damaged(text: str) -> bool:
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _typed(records: Records, schema: pa.Schema, *, is_json: bool) -> pa.Table:
    reasons = list(records.reasons)
    arrays = []
    for column in schema:
        written = records.columns.get(column.name) or [None] * records.rows
        understood = (from_json if is_json else from_texts)(written, column.type)
        arrays.append(understood.values)
        _explain(reasons, column, written, understood)
    return pa.table([*arrays, pa.array(reasons, pa.string())], names=[*schema.names, UNREADABLE])


def _explain(
    reasons: list[str | None], column: pa.Field, written: Sequence[Any], understood: Column
) -> None:
    for row in understood.is_bad.nonzero()[0].tolist():
        value = repr(written[row])
        short = value if len(value) <= 40 else f"{value[:37]}..."
        reasons[row] = reasons[row] or f"{column.name} is {short}, no {column.type}"
