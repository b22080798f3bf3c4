"""Columns of an Arrow table as columns of Feast's messages, all rows at once.

Made with NumPy and Arrow, not value by value: a materialisation spends its time here. Every result
is an Arrow column of bytes, one value a row.
"""

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.columns import check_columns, feature_column
from featurestore.wire.entity_key import KEY_TYPES, EntityKeyWriter
from featurestore.wire.numbers import TAGS
from headrace.errors import SchemaMismatch
from headrace.plan import NUMBERS, FeatureRead, JoinKey, ViewRead

BYTES = pa.large_binary()
ENCODED = {b"headrace": b"Value"}
"""Metadata of a column that holds ``Value`` messages already, as Feast's own client made them."""
_FIXED: dict[str, np.dtype[Any]] = {"DOUBLE": np.dtype("<f8"), "FLOAT": np.dtype("<f4")}
_ARROW = {"STRING": pa.large_string(), "INT32": pa.int32(), "INT64": pa.int64()}


def entity_keys(rows: pa.Table, view: ViewRead) -> pa.LargeBinaryArray:
    """The entity key of each row, as ``EntityKeyWriter`` writes it.

    Raises:
        SchemaMismatch: if a join key is missing, null, or not of its entity's type.
    """
    keys = sorted(view.join_keys, key=lambda key: key.name)
    parts: list[Any] = [constant(EntityKeyWriter(view.join_keys).head)]
    for key in keys:
        parts += _key_parts(rows, view.table, key)
    joined = join(*parts)
    # Without join keys all parts are constants, and so is the join.
    return joined if isinstance(joined, pa.Array) else pa.array([joined.as_py()] * len(rows), BYTES)


def messages(rows: pa.Table, table: str, feature: FeatureRead) -> pa.LargeBinaryArray:
    """A feature's values as Feast's ``Value`` messages; null is the empty message.

    Raises:
        SchemaMismatch: if the column is missing, or its values do not fit the feature's type.
    """
    if feature.dtype not in NUMBERS:
        from featurestore.wire.value_encoding import encode_objects

        check_columns(table, rows.schema, [feature.name])
        if rows.schema.field(feature.name).metadata == ENCODED:
            return rows[feature.name].cast(BYTES).combine_chunks()
        return pa.array(encode_objects(rows[feature.name], feature.dtype), BYTES)
    column = feature_column(rows, table, feature)
    missing = column.is_null().to_numpy()
    zero = pa.scalar(False if feature.dtype == "BOOL" else 0).cast(column.type)
    numbers = column.fill_null(zero).to_numpy()
    if feature.dtype in _FIXED:
        kind = _FIXED[feature.dtype]
        matrix = np.empty((len(numbers), 1 + kind.itemsize), dtype=np.uint8)
        matrix[:, 1:] = _bytes_of(numbers.astype(kind, copy=False))
        lengths = np.full(len(numbers), matrix.shape[1])
    else:
        digits, lengths = _varints(numbers.astype(np.int64).view(np.uint64))
        matrix = np.empty((len(numbers), 1 + digits.shape[1]), dtype=np.uint8)
        matrix[:, 1:] = digits
        lengths += 1
    matrix[:, 0] = TAGS[feature.dtype]
    return ragged(matrix, np.where(missing, 0, lengths))


def timestamps(us: np.ndarray) -> pa.LargeBinaryArray:
    """Moments (int64 microseconds since 1970) as protobuf's ``Timestamp`` messages."""
    seconds, micros = np.divmod(us, 1_000_000)
    parts = []
    for tag, numbers in ((0x08, seconds), (0x10, micros * 1000)):
        digits, lengths = _varints(numbers.view(np.uint64))
        matrix = np.empty((len(us), 1 + digits.shape[1]), dtype=np.uint8)
        matrix[:, 0], matrix[:, 1:] = tag, digits
        parts.append(ragged(matrix, np.where(numbers == 0, 0, lengths + 1)))  # zero is left out
    return join(*parts)


def ragged(matrix: np.ndarray, lengths: np.ndarray) -> pa.LargeBinaryArray:
    """The first ``lengths[i]`` bytes of each row of a uint8 matrix, shape (rows, width)."""
    offsets = np.zeros(len(matrix) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    width = matrix.shape[1]
    if offsets[-1] == matrix.size:
        data = np.ascontiguousarray(matrix).reshape(-1)
    else:
        data = matrix[np.arange(width) < lengths[:, None]]
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.Array.from_buffers(BYTES, len(matrix), buffers)


def whole(matrix: np.ndarray) -> pa.LargeBinaryArray:
    """Each row of a uint8 matrix as one value."""
    return ragged(matrix, np.full(len(matrix), matrix.shape[1]))


def lengths_of(column: pa.LargeBinaryArray) -> np.ndarray:
    """How many bytes each value has: int64, shape (rows,)."""
    return np.diff(_offsets(column))


def bytes_of(column: pa.LargeBinaryArray) -> np.ndarray:
    """All values one after the other: uint8."""
    offsets, data = _offsets(column), column.buffers()[2]
    if data is None:
        return np.empty(0, dtype=np.uint8)
    return np.frombuffer(data, dtype=np.uint8)[offsets[0] : offsets[-1]]


def constant(data: bytes) -> pa.Scalar:
    """The same bytes in every row."""
    return pa.scalar(data, BYTES)


def join(*parts: Any) -> Any:
    """Concatenate columns of bytes and constants, row by row."""
    return pc.binary_join_element_wise(*parts, constant(b""))


def _offsets(column: pa.LargeBinaryArray) -> np.ndarray:
    every = np.frombuffer(column.buffers()[1], dtype=np.int64)
    return every[column.offset : column.offset + len(column) + 1]


def _key_parts(rows: pa.Table, table: str, key: JoinKey) -> list[Any]:
    column = _key_column(rows, table, key)
    kind, layout = KEY_TYPES[key.dtype]
    if not layout:
        data = column.cast(BYTES).combine_chunks()
        lengths = np.asarray(pc.binary_length(data)).astype("<u4")
        return [constant(struct.pack("<I", kind)), whole(_bytes_of(lengths)), data]
    numbers = column.to_numpy().astype(layout, copy=False)
    return [constant(struct.pack("<II", kind, numbers.itemsize)), whole(_bytes_of(numbers))]


def _key_column(rows: pa.Table, table: str, key: JoinKey) -> pa.ChunkedArray:
    check_columns(table, rows.schema, [key.name])
    column, wanted = rows[key.name], _ARROW[key.dtype]
    if column.null_count:
        raise SchemaMismatch(table, [f"key {key.name} is null in {column.null_count} rows"])
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_integer(column.type) != pa.types.is_integer(wanted):
        raise SchemaMismatch(table, [f"key {key.name} is {column.type}, but must be {wanted}"])
    try:
        return column.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaMismatch(table, [f"key {key.name} does not fit {wanted}: {error}"]) from error


def _bytes_of(numbers: np.ndarray) -> np.ndarray:
    return numbers.view(np.uint8).reshape(len(numbers), numbers.itemsize)


def _varints(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint64 numbers as protobuf varints: uint8 (rows, longest), and the length of each."""
    lengths = np.ones(len(numbers), dtype=np.int64)
    for bits in range(7, 64, 7):
        lengths += numbers >= np.uint64(1 << bits)
    digits = np.empty((len(numbers), int(lengths.max(initial=1))), dtype=np.uint8)
    for place in range(digits.shape[1]):
        digit = (numbers >> np.uint64(7 * place)).astype(np.uint8) & 0x7F
        digits[:, place] = digit | np.where(place + 1 < lengths, 0x80, 0).astype(np.uint8)
    return digits, lengths
