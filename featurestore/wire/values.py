"""Read feature values that are no numbers as Feast stores them, without Feast or protobuf.

Feast keeps each value as a ``Value`` message with one field set; the field's number says the type.
``decode_object`` gives the Python object that Feast's ``to_dict`` gives.
``featurestore.wire.value_encoding`` writes them.

Source: feast 0.67, ``type_map.py`` and ``protos/feast/types/Value.proto``.
"""

import json
import re
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from featurestore.errors import StoredValueBroken, WireBroken
from featurestore.wire.protowire import (
    FIXED32,
    FIXED64,
    SIZED,
    VARINT,
    WireValue,
    fields,
    read_varint,
    signed,
)

NULL_MOMENT = -(1 << 63)
"""Feast's null among the seconds of a list of times."""

FIELD_NUMBERS: dict[str, int] = {
    "BYTES": 1, "STRING": 2, "INT32": 3, "INT64": 4, "DOUBLE": 5, "FLOAT": 6, "BOOL": 7,
    "UNIX_TIMESTAMP": 8, "BYTES_LIST": 11, "STRING_LIST": 12, "INT32_LIST": 13, "INT64_LIST": 14,
    "DOUBLE_LIST": 15, "FLOAT_LIST": 16, "BOOL_LIST": 17, "UNIX_TIMESTAMP_LIST": 18, "MAP": 20,
    "MAP_LIST": 21, "BYTES_SET": 22, "STRING_SET": 23, "INT32_SET": 24, "INT64_SET": 25,
    "DOUBLE_SET": 26, "FLOAT_SET": 27, "BOOL_SET": 28, "UNIX_TIMESTAMP_SET": 29, "JSON": 32,
    "JSON_LIST": 33, "STRUCT": 34, "STRUCT_LIST": 35, "UUID": 36, "TIME_UUID": 37,
    "UUID_LIST": 38, "TIME_UUID_LIST": 39, "UUID_SET": 40, "TIME_UUID_SET": 41, "VALUE_LIST": 42,
    "VALUE_SET": 43, "DECIMAL": 44, "DECIMAL_LIST": 45, "DECIMAL_SET": 46, "SCALAR_MAP": 47,
    "ZONED_TIMESTAMP": 48,
}  # fmt: skip
"""The field of the ``Value`` message for each of Feast's types."""

WIRE_TYPES: dict[str, int] = {
    "BYTES": SIZED, "STRING": SIZED, "JSON": SIZED, "UUID": SIZED, "TIME_UUID": SIZED,
    "DECIMAL": SIZED, "INT32": VARINT, "INT64": VARINT, "BOOL": VARINT, "UNIX_TIMESTAMP": VARINT,
    "DOUBLE": FIXED64, "FLOAT": FIXED32,
}  # fmt: skip
"""The wire type of each single value, and of each element of a list or set of them."""

MAP_KEYS: dict[str, int] = {
    "INT32": 1, "INT64": 2, "FLOAT": 3, "DOUBLE": 4, "BOOL": 5, "UNIX_TIMESTAMP": 6, "BYTES": 7,
    "UUID": 8, "TIME_UUID": 9, "DECIMAL": 10,
}  # fmt: skip
"""The field of the ``MapKey`` message for each type that may be a key of a ``SCALAR_MAP``."""

_TYPES = {number: dtype for dtype, number in FIELD_NUMBERS.items()}
_KEY_TYPES = {number: dtype for dtype, number in MAP_KEYS.items()}
_BROKEN = (WireBroken, ValueError, ArithmeticError, OSError, struct.error, KeyError, TypeError)


def decode_object(message: bytes, dtype: str, feature: str) -> Any:
    """The Python object of one stored value; null is None.

    Args:
        message: a ``Value`` message.
        dtype: Feast's name of the declared type.
        feature: named in the error.

    Returns:
        ``str``, ``bytes``, ``datetime`` (timezone-aware), ``UUID``, ``Decimal``, ``list``, ``set``,
        ``dict`` or what the JSON text says, as Feast's ``to_dict`` would give it.

    Raises:
        StoredValueBroken: if the bytes are neither null nor a value of the type.
    """
    if not message:
        return None
    try:
        stored, value = _one_field(message)
        # Feast once kept UUIDs as text, and still reads those.
        if stored != dtype and stored != dtype.replace("TIME_", "").replace("UUID", "STRING"):
            raise WireBroken(f"it is a {stored}")
        return _python(dtype, value)
    except _BROKEN as error:
        raise StoredValueBroken(feature, dtype, message) from error


def _one_field(message: bytes) -> tuple[str, WireValue]:
    (number, wire, value), *more = fields(message)
    dtype = _TYPES[number]
    if more or wire != WIRE_TYPES.get(dtype, SIZED):
        raise WireBroken("not one value")
    return dtype, value


def _python(dtype: str, value: Any) -> Any:
    if dtype in WIRE_TYPES:
        return _SCALARS[dtype](value)
    if dtype in _COMPOUNDS:
        return _COMPOUNDS[dtype](value)
    element, _, kind = dtype.rpartition("_")
    elements = _elements(element, value)
    return set(elements) if kind == "SET" else list(elements)


def _elements(dtype: str, message: bytes) -> Iterator[Any]:
    wanted, convert = WIRE_TYPES[dtype], _SCALARS[dtype]
    for value in _repeated(message):
        if wanted != SIZED and isinstance(value, bytes):  # packed: all numbers in one field
            yield from map(convert, _unpacked(wanted, value))
        else:
            yield convert(value)


def _unpacked(wire: int, data: bytes) -> Iterator[WireValue]:
    position, size = 0, {FIXED64: 8, FIXED32: 4}.get(wire, 0)
    while position < len(data):
        if size:
            value: WireValue = data[position : position + size]
            position += size
        else:
            value, position = read_varint(data, position)
        yield value


def _repeated(message: bytes) -> Iterator[Any]:
    """The values of field 1, which all of Feast's collections are made of."""
    for number, _, value in fields(message):
        if number != 1:
            raise WireBroken(f"field {number} in a collection")
        yield value


def _any_value(message: bytes) -> Any:
    return _python(*_one_field(message)) if message else None


def _map(message: bytes) -> dict[str, Any]:
    entries = (_entry(entry) for entry in _repeated(message))
    return {key.decode(): _any_value(value) for key, value in entries}


def _scalar_map(message: bytes) -> dict[Any, Any]:
    entries = (_entry(entry) for entry in _repeated(message))
    return {_map_key(key): _any_value(value) for key, value in entries}


def _map_key(message: bytes) -> Any:
    if not message:
        return None
    ((number, _, value),) = fields(message)
    return _SCALARS[_KEY_TYPES[number]](value)


def _entry(message: bytes) -> tuple[bytes, bytes]:
    found: dict[int, Any] = {1: b"", 2: b""}
    found.update((number, value) for number, _, value in fields(message))
    return found[1], found[2]


def _moment(unsigned: int) -> datetime | None:
    seconds = signed(unsigned)
    return None if seconds == NULL_MOMENT else datetime.fromtimestamp(seconds, tz=UTC)


def _zoned_moment(message: bytes) -> datetime | None:
    found: dict[int, Any] = {1: 0, 2: b""}  # protobuf leaves zeros and empty texts out
    found.update((number, value) for number, _, value in fields(message))
    moment = _moment(found[1])
    return moment and moment.astimezone(_zone(found[2].decode()))


def _zone(name: str) -> tzinfo:
    """The zone that Feast's writer named: IANA's name, or an offset such as ``UTC-07:00``."""
    if name in ("", "UTC", "GMT"):
        return UTC
    if offset := re.fullmatch(r"(?:UTC|GMT)?([+-])(\d\d):?(\d\d)", name):
        sign, hours, minutes = offset.groups()
        size = timedelta(hours=int(hours), minutes=int(minutes))
        return timezone(-size if sign == "-" else size)
    return ZoneInfo(name)


_SCALARS: dict[str, Callable[[Any], Any]] = {
    "BYTES": bytes,
    "STRING": bytes.decode,
    "INT32": signed,
    "INT64": signed,
    "BOOL": bool,
    "UNIX_TIMESTAMP": _moment,
    "DOUBLE": lambda data: struct.unpack("<d", data)[0],
    "FLOAT": lambda data: struct.unpack("<f", data)[0],
    "JSON": json.loads,
    "UUID": lambda data: UUID(data.decode()),
    "TIME_UUID": lambda data: UUID(data.decode()),
    "DECIMAL": lambda data: Decimal(data.decode()),
}
_COMPOUNDS: dict[str, Callable[[bytes], Any]] = {
    "MAP": _map,
    "STRUCT": _map,
    "MAP_LIST": lambda message: [_map(m) for m in _repeated(message)],
    "STRUCT_LIST": lambda message: [_map(m) for m in _repeated(message)],
    "VALUE_LIST": lambda message: [_any_value(m) for m in _repeated(message)],
    "VALUE_SET": lambda message: [_any_value(m) for m in _repeated(message)],
    "SCALAR_MAP": _scalar_map,
    "ZONED_TIMESTAMP": _zoned_moment,
}
