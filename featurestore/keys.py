"""Entity keys of two tables as small integers: equal keys have equal numbers.

Strings are compared once, in Arrow's hash tables, and never again.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.columns import check_columns
from headrace.errors import SchemaMismatch
from headrace.plan import JoinKey, ViewRead

_ARROW = {"STRING": pa.string(), "INT32": pa.int32(), "INT64": pa.int64()}


def encode_keys(rows: pa.Table, values: pa.Table, read: ViewRead) -> tuple[np.ndarray, np.ndarray]:
    """Number the entities of ``values`` from 0 and return the numbers of both tables' rows.

    Returns:
        Two int64 arrays, shapes (rows,) and (values,). -1 stands for a null in any key, and for an
        entity of ``rows`` that ``values`` does not have.

    Raises:
        SchemaMismatch: if a key is missing, or cannot be what its entity's type says.
    """
    codes = [_codes(rows, values, read, key) for key in read.join_keys]
    of_rows, of_values, _ = codes[0]
    for row_codes, value_codes, more in codes[1:]:
        of_rows, of_values = _renumber(
            _combine(of_rows, row_codes, more), _combine(of_values, value_codes, more)
        )
    return of_rows, of_values


def _codes(
    rows: pa.Table, values: pa.Table, read: ViewRead, key: JoinKey
) -> tuple[np.ndarray, np.ndarray, int]:
    known = _typed(values, read.table, key)
    distinct = known.unique().drop_null()
    row_codes = _positions(_typed(rows, "rows", key), distinct)
    return row_codes, _positions(known, distinct), len(distinct)


def _typed(table: pa.Table, name: str, key: JoinKey) -> pa.ChunkedArray:
    check_columns(name, table.schema, [key.name])
    column, wanted = table[key.name], _ARROW[key.dtype]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    same_kind = pa.types.is_integer if pa.types.is_integer(wanted) else _is_text
    if not same_kind(column.type) and not pa.types.is_null(column.type):
        raise SchemaMismatch(name, [f"key {key.name} is {column.type}, but must be {wanted}"])
    try:
        return column.cast(wanted)
    except pa.ArrowInvalid as error:
        raise SchemaMismatch(name, [f"key {key.name} does not fit {wanted}: {error}"]) from error


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _positions(column: pa.ChunkedArray, distinct: pa.Array) -> np.ndarray:
    found = pc.fill_null(pc.index_in(column, value_set=distinct), -1)
    return np.asarray(found).astype(np.int64)


def _combine(so_far: np.ndarray, codes: np.ndarray, width: int) -> np.ndarray:
    return np.where((so_far < 0) | (codes < 0), -1, so_far * width + codes)


def _renumber(of_rows: np.ndarray, of_values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    # Dense again after each key: the product of two numbers of rows always fits 64 bits.
    distinct, values = np.unique(of_values, return_inverse=True)
    nulls = int(len(distinct) > 0 and distinct[0] < 0)
    rows = np.searchsorted(distinct, of_rows)
    known = (of_rows >= 0) & (np.append(distinct, -1)[rows] == of_rows)
    return np.where(known, rows - nulls, -1), values - nulls
