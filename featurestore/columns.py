"""Arrow columns, checked for what they must be, as the NumPy columns the engine works on."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from headrace.errors import SchemaMismatch

TIMESTAMP = pa.timestamp("us", tz="UTC")


def check_columns(table: str, schema: pa.Schema, wanted: Iterable[str]) -> None:
    """Raise ``SchemaMismatch`` if the schema lacks one of the ``wanted`` columns."""
    missing = sorted(set(wanted) - set(schema.names))
    if missing:
        have = ", ".join(schema.names)
        raise SchemaMismatch(table, [f"columns {missing} are missing; it has {have}"])


def check_timestamps(table: str, schema: pa.Schema, names: Iterable[str]) -> None:
    """Raise ``SchemaMismatch`` unless every column of ``names`` is ``timestamp[us, tz=UTC]``."""
    names = list(names)
    check_columns(table, schema, names)
    problems = [
        f"{name} is {schema.field(name).type}, but must be {TIMESTAMP}"
        for name in names
        if schema.field(name).type != TIMESTAMP
    ]
    if problems:
        raise SchemaMismatch(table, problems)


def microseconds(table: pa.Table, name: str, column: str) -> np.ndarray:
    """A column of UTC timestamps as int64 microseconds since 1970, shape (rows,), none null."""
    check_timestamps(name, table.schema, [column])
    if nulls := table[column].null_count:
        raise SchemaMismatch(name, [f"{column} is null in {nulls} rows"])
    return np.asarray(table[column].combine_chunks().view(pa.int64()))


def numbers(table: pa.Table, name: str, column: str) -> np.ndarray:
    """A column of numbers or booleans as float64, shape (rows,), with nulls as NaN."""
    check_columns(name, table.schema, [column])
    kind = table.schema.field(column).type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise SchemaMismatch(name, [f"{column} is {kind}, but must be a number"])
    return np.asarray(table[column].cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
