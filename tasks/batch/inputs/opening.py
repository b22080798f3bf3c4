"""Find out what is at a path or URL, and whether it fits together, before any work starts.

Only footers (and, of text files, one pass that counts) are read here.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import pyarrow as pa

from headrace import storage
from headrace.backends.found import Found
from tasks.batch.inputs import delta, iceberg, parquet_files, text_files
from tasks.batch.inputs.dataset import Dataset, Format
from tasks.batch.inputs.errors import InputEmpty, InputRefused
from tasks.batch.inputs.listing import files_at, folder_of, is_glob, partition_of
from tasks.batch.inputs.parquet_files import BadFiles, Listed

AskedFormat = Literal["parquet", "csv", "jsonl", "delta", "iceberg"]
_ENDINGS: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".ndjson": "jsonl",
    ".ndjson.gz": "jsonl",
}


def open_dataset(
    uri: str,
    *,
    format: AskedFormat | None = None,  # noqa: A002  (the flag's name)
    columns: Sequence[str] | None = None,
    bad_files: BadFiles = "stop",
    empty_ok: bool = False,
    types: Mapping[str, pa.DataType] | None = None,
    text_limit_bytes: int = text_files.LIMIT_BYTES,
) -> Dataset:
    """Return the dataset at ``uri``: its files, their rows, and the columns they share.

    Args:
        uri: a file, a folder (partitioned as Hive does or not), a glob, a Delta table's folder, or
            an Iceberg table's folder or ``.metadata.json``; local, or any fsspec URL.
        format: how the rows lie there; None: by the ending of the names.
        columns: which columns will be read: other ones may differ between files. None: all must
            agree.
        bad_files: ``stop`` at a file that is damaged or does not fit the others, or ``skip`` it,
            named in ``Dataset.quarantined``.
        empty_ok: return a dataset without rows rather than raise.
        types: of columns of CSV and JSON lines whose type is known, as a model's inputs are; the
            others' are inferred from the first 10,000 rows.
        text_limit_bytes: how much text (uncompressed) a CSV or JSON lines file may hold.

    Raises:
        InputNotFound: if nothing is there.
        InputRefused: if the format cannot be told or read rightly.
        InputBroken: naming the first file that cannot be used, why, and the remedy.
        InputEmpty: if there is no row, unless ``empty_ok``.
        InputTooLarge: if a text file is beyond the limit.
        StorageFailed: if the place cannot be asked.
    """
    asked = format or _table_at(uri)
    if asked == "delta":
        dataset = delta.open_table(uri, columns=columns, bad_files=bad_files)
    elif asked == "iceberg":
        dataset = iceberg.open_table(uri, columns=columns, bad_files=bad_files)
    else:
        found = files_at(uri)
        root = folder_of(uri)
        listed = [Listed(one.uri, partition_of(root, one.uri), one) for one in found]
        file_format = asked or _format_of(uri, found)
        if file_format == "parquet":
            dataset = parquet_files.open_files(uri, listed, columns=columns, bad_files=bad_files)
        else:
            dataset = text_files.open_files(
                uri,
                listed,
                file_format,
                bad_files=bad_files,
                limit_bytes=text_limit_bytes,
                types=types,
            )
    if not dataset.rows and not empty_ok:
        raise InputEmpty(uri, len(dataset.files) + len(dataset.quarantined))
    return dataset


def _table_at(uri: str) -> AskedFormat | None:
    """The table format of a folder that is a table, else None."""
    if uri.endswith(".metadata.json"):
        return "iceberg"
    if is_glob(uri) or _ending_of(uri) or (storage.is_local(uri) and Path(uri).is_file()):
        return None
    names = storage.list_names(uri)
    if "_delta_log" in names:
        return "delta"
    if "metadata" in names and "data" in names and iceberg.metadata_names(uri):
        return "iceberg"
    return None


def _format_of(uri: str, found: Sequence[Found]) -> Format:
    """The one format of all files, by the ending of their names."""
    kinds: dict[Format, str] = {}
    for one in found:
        ending = _ending_of(one.uri)
        if ending is None:
            raise InputRefused(
                uri,
                f"the format of {one.uri} cannot be told by its name",
                remedy=f"Pass --format, or end names with one of {', '.join(_ENDINGS)}.",
            )
        kinds.setdefault(_ENDINGS[ending], one.uri)
    if len(kinds) > 1:
        raise InputRefused(
            uri,
            f"it mixes formats: {', '.join(kinds.values())}",
            remedy="Name the files of one format by a glob, such as 'folder/*.parquet'.",
        )
    return next(iter(kinds))


def _ending_of(uri: str) -> str | None:
    return next((ending for ending in _ENDINGS if uri.lower().endswith(ending)), None)
