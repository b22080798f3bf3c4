"""The files of an Iceberg table, from its metadata file; no catalog is asked.

Columns are matched by Iceberg's field ids, so a column that was renamed is found under its old
name in old files, one that was added is null there, and one whose type was widened is widened.
Delete files are refused.
"""

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from headrace import storage
from headrace.errors import StorageFailed
from tasks.batch.inputs.agreement import fits
from tasks.batch.inputs.dataset import Dataset
from tasks.batch.inputs.errors import InputNotFound, InputRefused
from tasks.batch.inputs.parquet_files import (
    BadFiles,
    Listed,
    Renames,
    TableColumns,
    open_files,
)

_FIELD_ID = b"PARQUET:field_id"
_WIDENED = {
    (pa.int32(), pa.int64()),
    (pa.float32(), pa.float64()),
}
"""What Iceberg may widen; https://iceberg.apache.org/spec/#schema-evolution."""


def open_table(uri: str, *, columns: Sequence[str] | None, bad_files: BadFiles) -> Dataset:
    """Return the current snapshot of an Iceberg table.

    Args:
        uri: the table's folder (its newest metadata file counts) or a ``.metadata.json``.
        columns: which columns will be read; None: all.
        bad_files: ``stop`` or ``skip``.

    Raises:
        InputNotFound: if there is no table.
        InputRefused: if rows of it are deleted by delete files, or a file is no Parquet.
        InputBroken, StorageFailed: as ``open_files``.
    """
    location = uri if uri.endswith(".metadata.json") else _newest(uri)
    table = _load(location)
    ids = {field.field_id: field.name for field in table.schema().fields}
    schema = _arrow_schema(table)
    listed = [_listed(uri, task) for task in _tasks(location, table)]
    columns_of = TableColumns(
        schema, renames=lambda has: _renames(has, ids), may_become=_may_become
    )
    return open_files(uri, listed, columns=columns, bad_files=bad_files, table=columns_of)


def metadata_names(uri: str) -> list[str]:
    """The metadata files of a table's folder, oldest first; empty if it is no table."""
    names = storage.list_names(f"{uri.rstrip('/')}/metadata")
    return sorted((n for n in names if n.endswith(".metadata.json")), key=_version)


def _newest(uri: str) -> str:
    names = metadata_names(uri)
    if not names:
        raise InputNotFound(uri, "the folder has no metadata/*.metadata.json")
    return f"{uri.rstrip('/')}/metadata/{names[-1]}"


def _version(name: str) -> int:
    # 00003-<uuid>.metadata.json of catalogs, v3.metadata.json of Hadoop tables.
    number = re.match(r"v?(\d+)", name)
    return int(number[1]) if number else -1


def _load(location: str) -> Any:
    from pyiceberg.exceptions import NoSuchTableError
    from pyiceberg.table import StaticTable

    try:
        return StaticTable.from_metadata(location, storage.iceberg_options(location))
    except (FileNotFoundError, NoSuchTableError) as error:
        raise InputNotFound(location, "no such metadata file") from error
    except (OSError, ValueError) as error:
        raise StorageFailed("read the Iceberg metadata", location, error) from error


def _tasks(location: str, table: Any) -> list[Any]:
    try:
        return list(table.scan().plan_files())
    except (OSError, ValueError) as error:
        raise StorageFailed("read the Iceberg manifests of", location, error) from error


def _listed(uri: str, task: Any) -> Listed:
    file = task.file
    if task.delete_files:
        raise InputRefused(
            uri,
            f"rows of {file.file_path} are deleted by a delete file",
            remedy="Compact the table (rewrite_data_files), which writes them out.",
        )
    if str(file.file_format).rsplit(".", 1)[-1].lower() != "parquet":
        raise InputRefused(
            uri,
            f"{file.file_path} is {file.file_format}, no Parquet",
            remedy="Rewrite the table's data files as Parquet.",
        )
    return Listed(uri=file.file_path.removeprefix("file://"))


def _arrow_schema(table: Any) -> pa.Schema:
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    return pa.schema(schema_to_pyarrow(table.schema(), include_field_ids=False))


def _renames(has: pa.Schema, ids: dict[int, str]) -> Renames:
    """Where a file has a column's field id under another name; none if it has no ids.

    A name that the file gives to another column is mapped to no name at all: after ``b`` became
    ``c`` and a new ``b`` was added, the old file's ``b`` is ``c``, and it has no ``b``.
    """
    in_file = {_field_id(field): field.name for field in has}
    if in_file.keys() <= {None}:
        return ()
    found = {name: in_file.get(number, "") for number, name in ids.items()}
    return tuple((n, f) for n, f in found.items() if f != n and (f or n in has.names))


def _field_id(field: pa.Field) -> int | None:
    number = (field.metadata or {}).get(_FIELD_ID)
    return None if number is None else int(number)


def _may_become(have: pa.DataType, wanted: pa.DataType) -> bool:
    return fits(have, wanted) or (have, wanted) in _WIDENED
