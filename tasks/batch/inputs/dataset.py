"""A dataset as it was found, a file of it, and the piece of a file that one shard reads.

All of it is small and travels to workers; none of it grows with the rows.
"""

import base64
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import PlainSerializer, PlainValidator

from headrace.spec import Part

Format = Literal["parquet", "csv", "jsonl"]
"""How the rows lie in a file. Delta and Iceberg tables are lists of Parquet files."""


def _schema(value: object) -> pa.Schema:
    if isinstance(value, pa.Schema):
        return value
    if isinstance(value, str):
        return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(value)))
    raise ValueError("a schema, or one as base64 of Arrow's IPC form")


def _text(schema: pa.Schema) -> str:
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


Schema = Annotated[pa.Schema, PlainValidator(_schema), PlainSerializer(_text, return_type=str)]
"""An Arrow schema inside a ``Part``; in JSON it is base64 of its IPC form."""


class Bounds(Part):
    """A window of time: the rows with ``since <= column < until`` count."""

    column: str
    since: datetime
    until: datetime


class Reading(Part):
    """How the rows of a file become rows of its dataset; equal for all its pieces."""

    columns: Schema
    """The columns of the dataset, the partition's at the end."""
    partition: tuple[tuple[str, str | None], ...] = ()
    """Columns that have one value for the file, as the text of its folder's name or log."""
    renamed: tuple[tuple[str, str], ...] = ()
    """(name in the dataset, name in the file), where a table renamed a column."""
    fills_missing: bool = False
    """A column that the file lacks is null: a table that grew a column says so."""
    bounds: Bounds | None = None
    """Rows outside are not there."""


class InputFile(Part):
    """A file of a dataset."""

    uri: str
    format: Format
    stamp: str
    """Size and time, or ETag: changes whenever the file does."""
    bytes: int
    row_groups: tuple[int, ...]
    """How many rows each row group has; a text file is one row group."""
    counted: tuple[int, ...] | None = None
    """How many rows of each row group are in the window; None: all of them."""
    reading: Reading

    @property
    def rows(self) -> int:
        """How many rows the dataset has of this file."""
        return sum(self.row_groups if self.counted is None else self.counted)


class Quarantined(Part):
    """A file that is left out, and why."""

    uri: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Files whose rows are to be scored, in sorted order."""

    uri: str
    """What was asked for: a path, a URL, a glob, or the name of a table and its window."""
    schema: pa.Schema
    """The columns of every file, with the partition's at the end."""
    files: tuple[InputFile, ...]
    quarantined: tuple[Quarantined, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows all files have."""
        return sum(file.rows for file in self.files)

    @property
    def bytes(self) -> int:
        """How many bytes all files have."""
        return sum(file.bytes for file in self.files)


class Piece(Part):
    """What one shard reads: some row groups of one file."""

    uri: str
    format: Format
    stamp: str
    row_groups: tuple[int, ...]
    """Which row groups, in their order; a text file has the one row group 0."""
    first_row: int
    """Position in its file of the first row of the first row group, from 0."""
    rows: int
    """How many rows the piece has; with bounds, those inside them."""
    reading: Reading
