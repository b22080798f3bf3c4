"""Numbers as Feast stores them, read without Feast or protobuf.

Each is a ``Value`` message with one field; ``featurestore.stores.encode`` writes whole columns.

Source: feast 0.67, ``protos/feast/types/Value.proto``.
"""

import struct
from collections.abc import Iterable, Sequence

import numpy as np

from featurestore.errors import StoredValueBroken, WireBroken
from featurestore.wire.protowire import read_varint, signed
from featurestore.wire.values import FIELD_NUMBERS, WIRE_TYPES
from headrace.plan import NUMBERS, ValueType

NULL = b""
"""A null feature value: a ``Value`` message with no field set."""

TAGS = {dtype: FIELD_NUMBERS[dtype] << 3 | WIRE_TYPES[dtype] for dtype in sorted(NUMBERS)}
"""The byte before each number: the field of the message and its wire type."""
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
    try:
        number, end = read_varint(value, 1) if value[0] == tag else (0, 0)
    except WireBroken as error:
        raise StoredValueBroken(feature, dtype, value) from error
    if end != len(value):
        raise StoredValueBroken(feature, dtype, value)
    return float(signed(number))
