"""The files behind a path, a folder or a glob, and the values that their folders' names hold.

A folder may be partitioned as Hive, Spark and Arrow do it, ``month=2013-01/origin=JFK/x.parquet``;
what is hidden (``.x``) or bookkeeping (``_x``) is no data.
"""

import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

import pyarrow as pa

from headrace import storage
from headrace.backends.found import Found
from tasks.batch.inputs.errors import InputBroken, InputNotFound

_NULL = "__HIVE_DEFAULT_PARTITION__"
Partition = tuple[tuple[str, str | None], ...]
"""(column, value) of each folder on the way to a file, outermost first."""


def files_at(uri: str) -> list[Found]:
    """The data files at a path, below a folder, or that fit a glob, sorted by name.

    Raises:
        InputNotFound: if there is none.
        StorageFailed: if the place cannot be asked.
    """
    if is_glob(uri):
        found = storage.find_matching(uri)
        missing = "no file matches this glob (in a shell, put it in quotes)"
    else:
        found = storage.find_below(uri)
        missing = "nothing is there" if not found else "the folder holds no data files"
    root = folder_of(uri)
    data = [file for file in found if not _is_hidden(file.uri[len(root) :])]
    if not data:
        raise InputNotFound(uri, missing)
    return data


def is_glob(uri: str) -> bool:
    """True if ``uri`` has a wildcard."""
    return bool(re.search(r"[*?\[]", uri))


def folder_of(uri: str) -> str:
    """The part of a path or glob below which folders' names are values.

    >>> folder_of("s3://b/flights/month=*/x-*.parquet"), folder_of("/data/flights")
    ('s3://b/flights', '/data/flights')
    """
    fixed = re.split(r"[*?\[]", uri, maxsplit=1)[0]
    return uri.rstrip("/") if fixed == uri else fixed.rsplit("/", 1)[0]


def partition_of(root: str, uri: str) -> Partition:
    """The values in the names of the folders between ``root`` and the file.

    >>> partition_of("/data", "/data/month=2013-01/carrier=__HIVE_DEFAULT_PARTITION__/x.parquet")
    (('month', '2013-01'), ('carrier', None))
    """
    folders = uri[len(root) :].split("/")[:-1]
    pairs = [folder.split("=", 1) for folder in folders if "=" in folder]
    return tuple((unquote(name), None if v == _NULL else unquote(v)) for name, v in pairs)


def partition_fields(partitions: Iterable[tuple[str, Partition]]) -> list[pa.Field]:
    """The columns that folders' names make, int64 where every value is a whole number.

    Args:
        partitions: (URI, partition) of each file.

    Raises:
        InputBroken: naming a file whose folders have other names than the first one's.
    """
    values: dict[str, list[str | None]] | None = None
    first = ""
    for uri, partition in partitions:
        names = [name for name, _ in partition]
        if values is None:
            values, first = {name: [] for name in names}, uri
        if names != list(values):
            raise InputBroken(
                uri, f"its folders are named {names}, those of {first} {list(values)}"
            )
        for name, value in partition:
            values[name].append(value)
    return [pa.field(name, _type_of(found)) for name, found in (values or {}).items()]


def _type_of(values: Sequence[str | None]) -> pa.DataType:
    known = [value for value in values if value is not None]
    whole = bool(known) and all(re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", v) for v in known)
    return pa.int64() if whole else pa.string()


def _is_hidden(relative: str) -> bool:
    return any(
        name.startswith((".", "_")) and "=" not in name for name in relative.split("/") if name
    )
