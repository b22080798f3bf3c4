"""Arrow columns, checked for what they must be, as the NumPy columns the engine works on."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from headrace.errors import SchemaMismatch
from headrace.plan import NUMBERS, FeatureRead

TIMESTAMP = pa.timestamp("us", tz="UTC")
_FEATURE_TYPES = {
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "INT32": pa.int32(),
    "INT64": pa.int64(),
    "BOOL": pa.bool_(),
}


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
    return floats(table[column])


def feature_column(table: pa.Table, name: str, feature: FeatureRead) -> pa.ChunkedArray:
    """A feature's column in the type that its view declares, so both stores hold the same value.

    Columns that are no numbers come as they are; one of a dictionary comes as its values.

    Raises:
        SchemaMismatch: if the column is missing, or its numbers do not fit the feature's type.
    """
    check_columns(name, table.schema, [feature.name])
    column = table[feature.name]
    if feature.dtype not in NUMBERS:
        encoded = pa.types.is_dictionary(column.type)
        return column.cast(column.type.value_type) if encoded else column
    wanted = _FEATURE_TYPES[feature.dtype]
    if pa.types.is_boolean(wanted) != pa.types.is_boolean(column.type) or is_text(column.type):
        raise SchemaMismatch(name, [f"{feature.name} is {column.type}, but must be {wanted}"])
    try:
        return column.cast(wanted, safe=not pa.types.is_floating(wanted))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        problem = f"{feature.name} is {column.type}, which does not fit {wanted}: {error}"
        raise SchemaMismatch(name, [problem]) from error


def is_text(kind: pa.DataType) -> bool:
    """Whether a column holds text, which is never taken for numbers.

    "12.5" would be cast in silence, and "12,5" fail only on the day it comes.
    """
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def floats(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers as float64, shape (rows,), with nulls as NaN."""
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
