"""The files of a Delta table: its log says which ones, and what their partition values are.

A reader of ours opens the files itself, so what the log cannot say by files alone is refused:
deletion vectors and renamed physical columns.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from headrace import storage
from headrace.errors import StorageFailed
from tasks.batch.inputs.dataset import Dataset
from tasks.batch.inputs.errors import InputNotFound, InputRefused
from tasks.batch.inputs.parquet_files import BadFiles, Listed, TableColumns, open_files

_PARTITION = "partition."
_NOT_READ = {
    "columnMapping": "its columns have other names in its files",
    "variantType": "it has columns of type variant",
    "typeWidening": "the types of its columns were widened",
}
"""Features of a table that change what its files mean."""


def open_table(uri: str, *, columns: Sequence[str] | None, bad_files: BadFiles) -> Dataset:
    """Return the newest version of a Delta table.

    Raises:
        InputNotFound: if there is no table.
        InputRefused: if the table uses what cannot be read by its files alone.
        InputBroken, StorageFailed: as ``open_files``.
    """
    table = _load(uri)
    _check_features(uri, table)
    schema = pa.schema(table.schema().to_arrow())
    actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    partition = table.metadata().partition_columns
    listed = [
        Listed(
            uri=_place(uri, action["path"]),
            partition=tuple((name, _text(action[_PARTITION + name])) for name in partition),
        )
        for action in actions
    ]
    return open_files(uri, listed, columns=columns, bad_files=bad_files, table=TableColumns(schema))


def _load(uri: str) -> Any:
    import deltalake
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        return deltalake.DeltaTable(uri, storage_options=storage.object_store_options(uri))
    except TableNotFoundError as error:
        raise InputNotFound(uri, "the folder has no Delta log") from error
    except (DeltaError, OSError) as error:
        raise StorageFailed("read the Delta log of", uri, error) from error


def _check_features(uri: str, table: Any) -> None:
    features = set(table.protocol().reader_features or ())
    for feature in sorted(features & set(_NOT_READ)):
        raise InputRefused(
            uri,
            f"{_NOT_READ[feature]} (Delta feature {feature})",
            remedy="Write the rows to score to a plain table or to Parquet, and score that.",
        )
    if "deletionVectors" in features and any(b.num_rows for b in table.deletion_vectors()):
        raise InputRefused(
            uri,
            "it has deletion vectors: rows that lie in its files and are deleted",
            remedy="Run REORG TABLE ... APPLY (PURGE) or OPTIMIZE on it, which writes them out.",
        )


def _place(root: str, path: str) -> str:
    # The log keeps paths as URLs: relative to the table, or absolute after a shallow clone.
    found = unquote(path)
    if "://" in found or found.startswith("/"):
        return found.removeprefix("file://")
    return f"{root.rstrip('/')}/{found}"


def _text(value: object) -> str | None:
    return None if value is None else str(value)
