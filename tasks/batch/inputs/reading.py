"""The rows of a piece, batch by batch, and the proof that its file stood still meanwhile."""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.columns import TIMESTAMP
from headrace import storage
from headrace.errors import StorageFailed
from headrace.healing import GaveUp
from tasks.batch.inputs import parquet, text
from tasks.batch.inputs.dataset import Bounds, Piece
from tasks.batch.inputs.errors import InputBroken, InputChanged
from tasks.batch.inputs.text import UNREADABLE

__all__ = ["UNREADABLE", "read_batches"]


def read_batches(
    piece: Piece, columns: Sequence[str], *, batch_rows: int
) -> Iterator[tuple[int, pa.Table]]:
    """Yield (position in its file of the first row, rows) of a piece, in the file's order.

    Memory is bounded whatever the size of the file and of its row groups. Rows of text files
    (CSV, JSON lines) have one more column, last, named ``UNREADABLE``: the reason why a row's
    values do not fit their columns, or null where they do; such a row's other values are null
    where they could not be understood.

    Args:
        piece: from ``cut``.
        columns: names of the dataset, in the order in which they are wanted.
        batch_rows: how many rows a table has at most.

    Raises:
        InputChanged: if the file is not the one that was planned, before or after reading.
        InputBroken: if it is damaged; names the file, what is wrong, and the remedy.
        StorageFailed: if it cannot be asked for.
    """
    _check_stamp(piece)
    rows = 0
    with _told_as_change(piece):
        for position, batch in _batches(piece, columns, batch_rows):
            rows += batch.num_rows
            yield position, batch
    _check_stamp(piece)
    if rows != piece.rows:
        raise InputBroken(piece.uri, f"it gave {rows} rows where {piece.rows} were planned")


def _batches(
    piece: Piece, columns: Sequence[str], batch_rows: int
) -> Iterator[tuple[int, pa.Table]]:
    if piece.format != "parquet":
        for position, batch in text.iterate(piece, batch_rows=batch_rows):
            shaped = _shaped(piece, batch, columns)
            yield position, shaped.append_column(UNREADABLE, batch[UNREADABLE])
        return
    bounds = piece.reading.bounds
    wanted = list(dict.fromkeys([*columns, *([bounds.column] if bounds else [])]))
    renamed = dict(piece.reading.renamed)
    names = [renamed.get(name, name) for name in wanted]
    position = piece.first_row
    for batch in parquet.iterate(piece.uri, piece.row_groups, names, batch_rows=batch_rows):
        shaped = _shaped(piece, batch, wanted)
        for start, length in _runs_inside(shaped, bounds):
            yield position + start, shaped.slice(start, length).select(list(columns))
        position += batch.num_rows


def _shaped(piece: Piece, rows: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The columns as the dataset has them: named, typed, partition values and nulls filled in."""
    reading = piece.reading
    renamed, partition = dict(reading.renamed), dict(reading.partition)
    arrays = []
    for name in columns:
        type_ = reading.columns.field(name).type
        if name in partition:
            value = pa.scalar(partition[name], pa.string()).cast(type_)
            arrays.append(pa.repeat(value, rows.num_rows))
            continue
        found = renamed.get(name, name)
        if found in rows.column_names:
            arrays.append(_cast(piece, name, rows[found], type_))
        elif reading.fills_missing:
            arrays.append(pa.nulls(rows.num_rows, type_))
        else:
            raise InputBroken(piece.uri, f"column {name} is missing")
    return pa.table(arrays, names=list(columns))


def _cast(piece: Piece, name: str, column: pa.ChunkedArray, type_: pa.DataType) -> pa.ChunkedArray:
    if column.type == type_:
        return column
    try:
        return column.cast(type_)
    except pa.ArrowException as error:
        raise InputBroken(
            piece.uri, f"column {name} is {column.type}, which does not become {type_}: {error}"
        ) from error


def _runs_inside(rows: pa.Table, bounds: Bounds | None) -> Iterator[tuple[int, int]]:
    """(start, length) of each run of rows inside the window; one, where the file is sorted."""
    if bounds is None:
        yield 0, rows.num_rows
        return
    mask = inside(rows[bounds.column], bounds)
    edges = np.flatnonzero(np.diff(mask.astype(np.int8), prepend=0, append=0))
    for start, stop in edges.reshape(-1, 2).tolist():
        yield start, stop - start


def inside(moments: pa.ChunkedArray, bounds: Bounds) -> np.ndarray:
    """Which moments lie in the window, bool (rows,); a null does not."""
    since, until = (pa.scalar(moment, TIMESTAMP) for moment in (bounds.since, bounds.until))
    within = pc.and_(pc.greater_equal(moments, since), pc.less(moments, until))
    mask: np.ndarray = within.fill_null(False).to_numpy()
    return mask


@contextlib.contextmanager
def _told_as_change(piece: Piece) -> Iterator[None]:
    # A file replaced while it is read looks damaged; what happened is the better news.
    try:
        yield
    except (InputBroken, FileNotFoundError, StorageFailed) as error:
        if not isinstance(error.__cause__, GaveUp):  # then the stamp cannot be asked for either
            _check_stamp(piece)
        raise


def _check_stamp(piece: Piece) -> None:
    try:
        found = storage.stamp(piece.uri)
    except FileNotFoundError as error:
        raise InputChanged(piece.uri, piece.stamp, "not there any more") from error
    if found != piece.stamp:
        raise InputChanged(piece.uri, piece.stamp, found)
