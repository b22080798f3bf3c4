"""UBJSON, the part of it that XGBoost writes its models in.

XGBoost sets a typed array for every list of numbers, which becomes a NumPy array in one step; the
rest is small. The bytes come from a bundle whose every byte was checked, so a broken one is a
mistake and not an attack; it is an error all the same, and never a wrong forest.

Source: https://ubjson.org, draft 12, and XGBoost's ``UBJReader``. Numbers are big-endian.
"""

import struct
from typing import Any

import numpy as np

from headrace.mapped import Data
from serving.errors import ServingError

_NUMBERS = {
    b"i": ">i1",
    b"U": ">u1",
    b"I": ">i2",
    b"l": ">i4",
    b"L": ">i8",
    b"d": ">f4",
    b"D": ">f8",
}
_DTYPES = {marker: np.dtype(name) for marker, name in _NUMBERS.items()}
_CONSTANTS = {b"T": True, b"F": False, b"Z": None}


class NotUbjson(ServingError):
    """The bytes are not a UBJSON document."""

    def __init__(self, at: int, why: str) -> None:
        super().__init__(f"byte {at}: {why}")


def read_ubjson(data: Data) -> Any:
    r"""Return the document: dicts, lists, strings, numbers, and NumPy arrays for typed lists.

    Raises:
        NotUbjson: if the bytes end early, or hold a marker that XGBoost does not write.

    >>> read_ubjson(b"{L" + bytes([0] * 7) + b"\x01ai\x05}")
    {'a': 5}
    """
    reader = _Reader(data)
    try:
        return reader.value(reader.marker())
    except (struct.error, IndexError, UnicodeDecodeError, RecursionError) as error:
        raise NotUbjson(reader.at, str(error)) from error


class _Reader:
    def __init__(self, data: Data) -> None:
        self._data, self.at = data, 0

    def marker(self) -> bytes:
        return self._take(1)

    def value(self, marker: bytes) -> Any:
        if marker == b"{":
            return self._members()
        if marker == b"[":
            return self._items()
        if marker == b"S":
            return self._take(self._length()).decode()
        if marker in _DTYPES:
            return self._array(marker, 1)[0].item()
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        raise NotUbjson(self.at - 1, f"{marker!r} is no marker that XGBoost writes")

    def _members(self) -> dict[str, Any]:
        members = {}
        while self._data[self.at : self.at + 1] != b"}":
            name = self._take(self._length()).decode()
            members[name] = self.value(self.marker())
        self.at += 1
        return members

    def _items(self) -> Any:
        marker = self.marker()
        if marker == b"$":  # one type for all: [$ type # length, then the numbers
            kind = self.marker()
            self._expect(b"#")
            return self._array(kind, self._length())
        if marker == b"#":
            return [self.value(self.marker()) for _ in range(self._length())]
        items = []
        while marker != b"]":
            items.append(self.value(marker))
            marker = self.marker()
        return items

    def _array(self, marker: bytes, length: int) -> np.ndarray:
        if marker not in _DTYPES:
            raise NotUbjson(self.at, f"{marker!r} is no type of a typed array")
        dtype = _DTYPES[marker]
        raw = self._take(dtype.itemsize * length)
        return np.frombuffer(raw, dtype).astype(dtype.newbyteorder("="))

    def _length(self) -> int:
        marker = self.marker()
        if marker not in _DTYPES or _DTYPES[marker].kind not in "iu":
            raise NotUbjson(self.at - 1, f"{marker!r} is no type of a length")
        length = int(self._array(marker, 1)[0])
        if length < 0:
            raise NotUbjson(self.at, f"a length of {length}")
        return length

    def _expect(self, marker: bytes) -> None:
        if self.marker() != marker:
            raise NotUbjson(self.at - 1, f"{marker!r} was expected")

    def _take(self, count: int) -> bytes:
        taken = self._data[self.at : self.at + count]
        if len(taken) != count:
            raise NotUbjson(self.at, f"{count} bytes were expected, {len(taken)} are left")
        self.at += count
        return taken
