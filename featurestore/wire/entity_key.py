"""Feast's entity keys (serialisation version 3) without Feast, byte for byte.

Whole columns are written by ``featurestore.stores.encode``.

Source: feast 0.67, ``infra/key_encoding_utils.py``.
"""

import struct
from collections.abc import Sequence
from typing import Any

from featurestore.errors import EntityKeyRefused
from headrace.plan import JoinKey, KeyType

# Feast's ValueType numbers, and struct formats of what follows the length.
KEY_TYPES: dict[KeyType, tuple[int, str]] = {
    "STRING": (2, ""),
    "INT32": (3, "<i"),
    "INT64": (4, "<q"),
}


class EntityKeyWriter:
    """Writes the keys of one entity, or of a combination of entities, as Feast does."""

    def __init__(self, join_keys: Sequence[JoinKey]) -> None:
        # Feast sorts the keys by name; requests name them in the view's order.
        self._order = sorted(range(len(join_keys)), key=lambda i: join_keys[i].name)
        self._keys = [join_keys[i] for i in self._order]
        names = b"".join(_sized(2, key.name.encode()) for key in self._keys)
        self.head = struct.pack("<I", len(join_keys)) + names
        """What every key of these entities begins with: the names of the join keys."""

    def write(self, values: Sequence[Any]) -> bytes | None:
        """The key of ``values``, in the order of the join keys; None if one of them is null.

        Raises:
            EntityKeyRefused: if a value is not of its key's type, or too large for it.
        """
        parts = [self.head]
        for position, key in zip(self._order, self._keys, strict=True):
            value = values[position]
            if value is None:
                return None
            parts.append(_key_value(key, value))
        return b"".join(parts)


def _sized(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data


def _key_value(key: JoinKey, value: Any) -> bytes:
    kind, layout = KEY_TYPES[key.dtype]
    try:
        return _sized(kind, struct.pack(layout, value) if layout else value.encode())
    except (struct.error, AttributeError, UnicodeEncodeError) as error:
        raise EntityKeyRefused(key.name, value, key.dtype) from error
