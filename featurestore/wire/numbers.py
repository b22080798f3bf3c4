"""Numbers as Feast stores them, read without Feast or protobuf.

Each is a ``Value`` message with one field; ``featurestore.stores.encode`` writes whole columns.

Source: feast 0.67, ``protos/feast/types/Value.proto``.
"""

import struct
from collections.abc import Iterable, Sequence

import numpy as np

from featurestore.errors import StoredValueBroken
from headrace.plan import ValueType

NULL = b""
"""A null feature value: a ``Value`` message with no field set."""

# Tag of each field of the Value message: field number * 8 + protobuf's wire type.
TAGS: dict[str, int] = {
    "INT32": 0x18,
    "INT64": 0x20,
    "DOUBLE": 0x29,
    "FLOAT": 0x35,
    "BOOL": 0x38,
}
_FIXED = {"DOUBLE": np.dtype("<f8"), "FLOAT": np.dtype("<f4")}
_NAN = {"DOUBLE": b"\x29" + struct.pack("<d", np.nan), "FLOAT": b"\x35" + struct.pack("<f", np.nan)}


def decode_numbers(values: Sequence[bytes], dtype: ValueType, feature: str) -> np.ndarray:
    """Feast's ``Value`` messages of a number type as float64, shape (rows,); null is NaN.

    Args:
        values: one message a row.
        dtype: Feast's name of the type.
        feature: named in the error.

    Raises:
        StoredValueBroken: if a message is neither null nor a value of the type.
    """
    if dtype in _FIXED:
        return _decode_fixed(values, dtype, feature)
    tag = TAGS[dtype]
    return np.array([_decode_integer(v, tag, dtype, feature) for v in values], dtype=np.float64)


def _decode_fixed(values: Sequence[bytes], dtype: ValueType, feature: str) -> np.ndarray:
    kind = _FIXED[dtype]
    packed = np.dtype([("tag", "u1"), ("value", kind)])
    null = _NAN[dtype]
    data = b"".join([v or null for v in values])
    if len(data) == packed.itemsize * len(values):
        rows = np.frombuffer(data, dtype=packed)
        if (rows["tag"] == TAGS[dtype]).all():
            return rows["value"].astype(np.float64)
    raise StoredValueBroken(feature, dtype, _first_broken(values, packed.itemsize, TAGS[dtype]))


def _first_broken(values: Iterable[bytes], size: int, tag: int) -> bytes:
    return next(v for v in values if v and (len(v) != size or v[0] != tag))


def _decode_integer(value: bytes, tag: int, dtype: str, feature: str) -> float:
    if value == NULL:
        return float("nan")
    number, end = _read_varint(value, 1) if value[0] == tag else (0, 0)
    if end != len(value):
        raise StoredValueBroken(feature, dtype, value)
    return float(number - (1 << 64) if number >> 63 else number)


def _read_varint(data: bytes, start: int) -> tuple[int, int]:
    """The number and the position after it; position -1 if the data ends inside it."""
    number = shift = 0
    for position in range(start, min(len(data), start + 10)):
        number |= (data[position] & 0x7F) << shift
        shift += 7
        if data[position] < 0x80:
            return number, position + 1
    return 0, -1
