"""Write feature values that are no numbers as Feast stores them (``values`` reads them).

``encode_objects`` gives the bytes that Feast's own write path stores. Where protobuf leaves freedom
(the order of a map or a set), Feast decodes both alike. Feast changes three things silently that
are kept or refused here:

- a null inside a list: Feast stores 0, ``False`` or an empty text; here it is refused, but for
  times and floats, which have a null;
- an empty list inside a list: Feast gives back None, here it stays an empty list;
- a column of nothing but empty bytes: Feast stores nulls.

Source: feast 0.67, ``type_map.py``.
"""

import json
import struct
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.wire.protowire import SIZED, VARINT, WireValue, field
from featurestore.wire.values import FIELD_NUMBERS, MAP_KEYS, NULL_MOMENT, WIRE_TYPES
from headrace.errors import SchemaMismatch

_REFUSED = (ValueError, TypeError, ArithmeticError, struct.error)
_CAN_BE_NULL = {"FLOAT": float("nan"), "DOUBLE": float("nan"), "UNIX_TIMESTAMP": NULL_MOMENT}
_WHOLE = {"INT32": 1 << 31, "INT64": 1 << 63}


def encode_objects(column: pa.ChunkedArray, dtype: str, feature: str = "") -> list[bytes]:
    """A column of feature values as Feast's ``Value`` messages; null is an empty message.

    Args:
        column: values of any Arrow type that can hold them; shape (rows,).
        dtype: Feast's name of the type.
        feature: named in the error.

    Raises:
        SchemaMismatch: naming the first value that is not of the type.
    """
    if dtype == "ZONED_TIMESTAMP":
        return _encode_zoned(column, feature)
    if dtype == "UNIX_TIMESTAMP" and pa.types.is_temporal(column.type):
        column = _seconds_of(column)
    elif dtype.startswith("UNIX_TIMESTAMP") and pa.types.is_timestamp(
        getattr(column.type, "value_type", None)
    ):
        # Nanoseconds have no Python object; Feast keeps whole seconds anyhow.
        column = pc.cast(column, pa.list_(pa.timestamp("us", "UTC")), safe=False)
    values = column.to_pylist(maps_as_pydicts=None if dtype == "SCALAR_MAP" else "strict")
    encoded = []
    for value in values:
        try:
            encoded.append(encode_object(value, dtype))
        except _REFUSED as error:
            what = f"feature {feature} = {value!r:.80} is no {dtype}: {error}"
            raise SchemaMismatch("feature values", [what]) from error
    return encoded


def encode_object(value: Any, dtype: str) -> bytes:
    """One value as a ``Value`` message; None is an empty message.

    Raises:
        ValueError, TypeError, ArithmeticError, struct.error: if it is not of the type.
    """
    if value is None:
        return b""
    return field(FIELD_NUMBERS[dtype], WIRE_TYPES.get(dtype, SIZED), _content(value, dtype))


def _content(value: Any, dtype: str) -> WireValue:
    if dtype in WIRE_TYPES:
        return _SCALARS[dtype](value)
    if dtype in _COMPOUNDS:
        return _COMPOUNDS[dtype](value)
    element, _, kind = dtype.rpartition("_")
    if isinstance(value, str | bytes | dict):
        raise TypeError(f"write a list, not {type(value).__name__}")
    return _elements(dict.fromkeys(value) if kind == "SET" else value, element)


def _elements(values: Iterable[Any], dtype: str) -> bytes:
    wire, convert = WIRE_TYPES[dtype], _SCALARS[dtype]
    null = _CAN_BE_NULL.get(dtype)
    contents = [convert(null if value is None else value) for value in values]
    if wire == SIZED:
        return b"".join(field(1, SIZED, content) for content in contents)
    # Numbers are packed: one field with all of them, each without its tag of one byte.
    packed = b"".join(field(1, wire, content)[1:] for content in contents)
    return field(1, SIZED, packed) if packed else b""


def _encode_zoned(column: pa.ChunkedArray, feature: str) -> list[bytes]:
    if not pa.types.is_timestamp(column.type):
        what = f"feature {feature} is {column.type}, but a ZONED_TIMESTAMP must be a timestamp"
        raise SchemaMismatch("feature values", [what])
    number, zone = FIELD_NUMBERS["ZONED_TIMESTAMP"], (column.type.tz or "").encode()
    said = field(2, SIZED, zone) if zone else b""
    return [
        b"" if s is None else field(number, SIZED, (field(1, VARINT, s) if s else b"") + said)
        for s in _seconds_of(column).to_pylist()
    ]


def _seconds_of(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Moments as whole seconds since 1970 in UTC, rounded down: int64, null stays null."""
    moments = column.cast(pa.timestamp("s", getattr(column.type, "tz", None)), safe=False)
    later = pc.greater(moments.cast(column.type), column)  # casts cut towards 1970
    return pc.subtract(moments.cast(pa.int64()), later.cast(pa.int64()))


def _whole(dtype: str) -> Callable[[Any], int]:
    limit = _WHOLE[dtype]

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise TypeError(f"{value!r} is no whole number")
        if not -limit <= value < limit:
            raise ValueError(f"{value} does not fit {dtype}")
        return int(value)

    return check


def _instance(*kinds: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if not isinstance(value, kinds):
            raise TypeError(f"{value!r} is {type(value).__name__}, not {kinds[0].__name__}")
        return value

    return check


def _seconds(value: Any) -> int:
    """A moment in whole seconds since 1970; one without a zone is in UTC, as in Feast."""
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime.combine(value, time(), UTC)
    if isinstance(value, datetime):
        return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())
    return _whole("INT64")(value)


def _json(value: Any) -> bytes:
    if not isinstance(value, str):
        return json.dumps(value).encode()
    json.loads(value)
    return value.encode()


def _text_of(kind: Callable[[Any], Any]) -> Callable[[Any], bytes]:
    def write(value: Any) -> bytes:
        text = str(_instance(str, UUID, Decimal)(value))
        kind(text)  # refuses what could not be read back
        return text.encode()

    return write


def _map(value: Any) -> bytes:
    if isinstance(value, str):
        value = json.loads(value)
    if not isinstance(value, dict):
        raise TypeError(f"write a mapping, not {type(value).__name__}")
    entries = [(_instance(str)(k).encode(), _any_value(v)) for k, v in value.items()]
    return _entries(entries)


def _maps(value: Any) -> bytes:
    if isinstance(value, str):
        value = json.loads(value)
    return b"".join(field(1, SIZED, _map(item)) for item in _instance(list, tuple)(value))


def _scalar_map(value: Any) -> bytes:
    entries = value.items() if isinstance(value, dict) else value  # Arrow's maps are lists of pairs
    return _entries([(_map_key(k), _any_value(v)) for k, v in entries])


def _entries(entries: Iterable[tuple[bytes, bytes]]) -> bytes:
    pairs = [field(1, SIZED, key) + field(2, SIZED, value) for key, value in entries]
    return b"".join(field(1, SIZED, pair) for pair in pairs)


def _map_key(key: Any) -> bytes:
    dtype = type_of(key)
    if dtype not in MAP_KEYS:
        raise TypeError(f"{key!r} cannot be a key of a SCALAR_MAP")
    return field(MAP_KEYS[dtype], WIRE_TYPES[dtype], _content(key, dtype))


def _collections(value: Any) -> bytes:
    return b"".join(
        field(1, SIZED, _any_value(item)) for item in _instance(list, tuple, set)(value)
    )


def _any_value(value: Any) -> bytes:
    return b"" if value is None else encode_object(value, type_of(value))


def type_of(value: Any) -> str:
    """Feast's type of a Python value inside a map or a list of lists, where none is declared.

    Raises:
        TypeError: if Feast has none, or a list has elements of several types.
    """
    for kind, dtype in _PYTHON_TYPES.items():
        if isinstance(value, kind):
            return dtype
    if isinstance(value, dict):
        return "SCALAR_MAP" if value and not isinstance(next(iter(value)), str) else "MAP"
    if not isinstance(value, list | tuple | set):
        raise TypeError(f"{value!r} ({type(value).__name__}) has no type in Feast")
    kinds = {type_of(item) for item in value if item is not None}
    if not kinds or any(kind not in WIRE_TYPES for kind in kinds - {"MAP"}):
        return "VALUE_LIST"
    if len(kinds) > 1:
        raise TypeError(f"a list of several types: {sorted(kinds)}")
    return f"{kinds.pop()}_{'SET' if isinstance(value, set) else 'LIST'}"


_PYTHON_TYPES = {
    bool: "BOOL", int: "INT64", float: "DOUBLE", str: "STRING", bytes: "BYTES",
    datetime: "UNIX_TIMESTAMP", date: "UNIX_TIMESTAMP", UUID: "UUID", Decimal: "DECIMAL",
}  # fmt: skip
_SCALARS: dict[str, Callable[[Any], WireValue]] = {
    "BYTES": _instance(bytes),
    "STRING": lambda value: _instance(str)(value).encode(),
    "INT32": _whole("INT32"),
    "INT64": _whole("INT64"),
    "BOOL": lambda value: int(_instance(bool, np.bool_)(value)),
    "UNIX_TIMESTAMP": _seconds,
    "DOUBLE": lambda value: struct.pack("<d", value),
    "FLOAT": lambda value: struct.pack("<f", value),
    "JSON": _json,
    "UUID": _text_of(UUID),
    "TIME_UUID": _text_of(UUID),
    "DECIMAL": _text_of(Decimal),
}
_COMPOUNDS: dict[str, Callable[[Any], bytes]] = {
    "MAP": _map,
    "STRUCT": _map,
    "MAP_LIST": _maps,
    "STRUCT_LIST": _maps,
    "VALUE_LIST": _collections,
    "VALUE_SET": _collections,
    "SCALAR_MAP": _scalar_map,
}
