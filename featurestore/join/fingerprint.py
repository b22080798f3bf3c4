"""The fingerprint of a table: a SHA-256 of what its columns say, however they are stored.

It does not depend on how the rows are cut into chunks, on compression or dictionaries, on the
width of string offsets, or on the order of the columns; it does depend on the order of the rows,
on every value and every null, and on the columns' names and types. It is fed piece by piece, so a
table need not fit in memory, and costs little more than the hash of its bytes.
"""

import hashlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from featurestore.columns import is_text


class Fingerprint:
    """The running fingerprint of the rows seen so far."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}

    def update(self, rows: pa.Table) -> None:
        """Add rows; all pieces have the same columns."""
        for name in rows.column_names:
            for chunk in rows[name].chunks or [pa.array([], rows[name].type)]:
                self._feed(name, chunk)

    def hexdigest(self) -> str:
        """The fingerprint, 64 hexadecimal digits."""
        columns = [[name, *self._columns[name].parts()] for name in sorted(self._columns)]
        return hashlib.sha256(json.dumps(columns).encode()).hexdigest()

    def _feed(self, name: str, array: pa.Array) -> None:
        column = self._columns.setdefault(name, _Column(_kind(array.type)))
        array = _plain(array)
        column.add_nulls(array)
        if pt.is_struct(array.type):
            for field, child in zip(array.type, array.flatten(), strict=True):
                self._feed(f"{name}.{field.name}", child)
        elif _is_list(array.type):
            column.add_lengths(pc.list_value_length(array))
            self._feed(f"{name}[]", array.flatten())
        elif _is_bytes(array.type):
            column.add_bytes(array)
        elif not pt.is_null(array.type):
            column.add_numbers(array)


def fingerprint(table: pa.Table) -> str:
    """The fingerprint of a whole table.

    >>> few = pa.table({"x": [1.5, None], "name": ["a", "b"]})
    >>> same = pa.concat_tables([few.slice(0, 1), few.slice(1)]).select(["name", "x"])
    >>> fingerprint(few) == fingerprint(same)
    True
    """
    running = Fingerprint()
    running.update(table)
    return running.hexdigest()


class _Column:
    """The hashes of one column, or of one part of a nested one."""

    def __init__(self, kind: str) -> None:
        self._kind, self._rows = kind, 0
        self._nulls, self._lengths, self._data = (hashlib.sha256() for _ in range(3))

    def parts(self) -> list[Any]:
        hashes = [h.hexdigest() for h in (self._nulls, self._lengths, self._data)]
        return [self._kind, self._rows, *hashes]

    def add_nulls(self, array: pa.Array) -> None:
        # Positions rather than a bitmap: a bitmap depends on where the pieces begin.
        if array.null_count:
            null = array.is_null().to_numpy(zero_copy_only=False)
            self._nulls.update((np.flatnonzero(null) + self._rows).tobytes())
        self._rows += len(array)

    def add_lengths(self, lengths: pa.Array) -> None:
        filled = lengths.fill_null(0) if lengths.null_count else lengths
        self._lengths.update(np.ascontiguousarray(filled.to_numpy(), dtype="<u4").data)

    def add_bytes(self, array: pa.Array) -> None:
        array = array.cast(pa.large_string() if is_text(array.type) else pa.large_binary())
        if array.null_count:
            array = array.fill_null("" if is_text(array.type) else b"")
        self.add_lengths(pc.binary_length(array))
        offsets = np.frombuffer(array.buffers()[1], np.int64)[array.offset :]
        data = array.buffers()[2]
        if data is not None and len(array):
            self._data.update(memoryview(data)[offsets[0] : offsets[len(array)]])

    def add_numbers(self, array: pa.Array) -> None:
        if pt.is_temporal(array.type):
            array = array.view(pa.int32() if array.type.bit_width == 32 else pa.int64())
        if array.null_count:  # what lies under a null is anybody's guess
            array = array.fill_null(pa.scalar(0).cast(array.type))
        numbers = array.to_numpy(zero_copy_only=False)
        self._data.update(np.ascontiguousarray(numbers).view(np.uint8).data)


def _kind(of: pa.DataType) -> str:
    if pt.is_dictionary(of):
        return _kind(of.value_type)
    if is_text(of):
        return "string"
    if _is_bytes(of):
        return "binary"
    if pt.is_struct(of):
        return "struct"
    return "list" if _is_list(of) else str(of)


def _plain(array: pa.Array) -> pa.Array:
    """The same values in the plainest type that holds them."""
    if pt.is_dictionary(array.type):
        return array.cast(array.type.value_type)
    if pt.is_map(array.type):
        pair = pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])
        return array.cast(pa.list_(pair))
    return array.cast(pa.string()) if pt.is_decimal(array.type) else array


def _is_list(of: pa.DataType) -> bool:
    return bool(pt.is_list(of) or pt.is_large_list(of) or pt.is_fixed_size_list(of))


def _is_bytes(of: pa.DataType) -> bool:
    return is_text(of) or bool(
        pt.is_binary(of) or pt.is_large_binary(of) or pt.is_fixed_size_binary(of)
    )
