"""Whole hashes as the payloads that Redis's ``RESTORE`` takes: the fastest way to make new keys.

``RESTORE`` without ``REPLACE`` makes a key that is not there, atomically, from the bytes that the
key will have in memory (a listpack). It costs Redis less than half of an ``HSET`` of the same
fields, and the hash takes less than half the memory that it has after one.

A payload is a type byte, the listpack with its length, the format's version, and a CRC-64. Version
10 is that of Redis 7.0; later servers read it, earlier ones refuse it, and callers then use
``HSET``.

Source: redis 7.0, ``listpack.c``, ``rdb.c``, ``cluster.c`` (``createDumpPayload``), ``crc64.c``.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from featurestore.stores.encode import BYTES, bytes_of, constant, join, lengths_of, whole

MOST_BYTES = 4095
"""The longest single value that fits here."""
_HASH_OF_A_LISTPACK = b"\x10"
_END_AND_VERSION = b"\xff" + (10).to_bytes(2, "little")
_LISTPACK_HEAD, _LISTPACK_END = 6, 1
_POLYNOMIAL = np.uint64(0x95AC9329AC4BC9B5)  # Jones, bits reversed


def hashes(fields: Sequence[bytes], values: Sequence[pa.LargeBinaryArray]) -> pa.LargeBinaryArray:
    """One payload a row: a hash with these fields.

    Args:
        fields: the names of the fields.
        values: a column for each of them; no value longer than ``MOST_BYTES``.
    """
    fixed, parts = [], []
    for field, column in zip(fields, values, strict=True):
        lengths = lengths_of(column)
        if (lengths == lengths[:1]).all():
            fixed.append((field, column, int(lengths[0])))
        else:
            places = pa.array(lengths)
            parts += [constant(_entry(field)), _HEADS.take(places), column, _TAILS.take(places)]
    entries = join(*parts, whole(_block(len(values[0]), fixed)))
    total = lengths_of(entries) + _LISTPACK_HEAD + _LISTPACK_END
    count = (2 * len(fields)).to_bytes(2, "little")
    sizes = whole(total.astype("<u4").view(np.uint8).reshape(len(total), 4))
    lengths = whole(_rdb_lengths(total))
    head = constant(_HASH_OF_A_LISTPACK)
    payloads = join(head, lengths, sizes, constant(count), entries, constant(_END_AND_VERSION))
    checksums = crc64(payloads).astype("<u8")
    return join(payloads, whole(checksums.view(np.uint8).reshape(len(checksums), 8)))


def _block(rows: int, columns: Sequence[tuple[bytes, pa.LargeBinaryArray, int]]) -> np.ndarray:
    """The elements of fields whose values are all of one length: uint8, shape (rows, width)."""
    blank = [_entry(field) + _entry(bytes(length)) for field, _, length in columns]
    block = np.empty((rows, sum(map(len, blank))), dtype=np.uint8)
    block[:] = np.frombuffer(b"".join(blank), dtype=np.uint8)
    end = 0
    for (_, column, length), element in zip(columns, blank, strict=True):
        end += len(element)
        start = end - len(_tail(length)) - length
        block[:, start : start + length] = bytes_of(column).reshape(rows, length)
    return block


def crc64(column: pa.LargeBinaryArray) -> np.ndarray:
    """Redis's CRC-64 of each value: uint64, shape (rows,).

    The checksum is linear: each byte adds what its value and its distance from the end say. So the
    rows are aligned at their ends, and a column of bytes is looked up at once.
    """
    if not len(column):
        return np.empty(0, dtype=np.uint64)
    lengths = lengths_of(column)
    width = int(lengths.max())
    padded = np.concatenate([np.zeros(width, np.uint8), bytes_of(column)])
    rows = np.lib.stride_tricks.sliding_window_view(padded, width)[np.cumsum(lengths)]
    ragged = width - int(lengths.min())
    rows[:, :ragged][np.arange(ragged) < (width - lengths)[:, None]] = 0
    tables = _tables(width)[::-1]
    varies = (rows != rows[0]).any(axis=0)  # names and lengths are the same in all rows
    same = np.bitwise_xor.reduce(tables[~varies, rows[0, ~varies]])
    checksums = np.full(len(rows), same, dtype=np.uint64)
    for table, bytes_ in zip(tables[varies], rows.T[varies], strict=True):
        checksums ^= table.take(bytes_)
    return checksums


def _entry(value: bytes) -> bytes:
    """One element of a listpack; integers may be kept as the text they are."""
    return _head(len(value)) + value + _tail(len(value))


def _head(length: int) -> bytes:
    if length < 64:
        return bytes([0x80 | length])
    return bytes([0xE0 | length >> 8, length & 0xFF])


def _tail(length: int) -> bytes:
    """The length of an element with its head, written so that it can be read from behind."""
    size = length + len(_head(length))
    return bytes([size]) if size < 128 else bytes([size >> 7, size & 0x7F | 0x80])


def _rdb_lengths(total: np.ndarray) -> np.ndarray:
    """Lengths as an RDB file has them, in the form of five bytes: uint8, shape (rows, 5)."""
    lengths = np.empty((len(total), 5), dtype=np.uint8)
    lengths[:, 0] = 0x80
    lengths[:, 1:] = total.astype(">u4").view(np.uint8).reshape(len(total), 4)
    return lengths


def _tables(count: int) -> np.ndarray:
    """What each byte adds at each distance from the end: uint64, shape (count, 256)."""
    global _known_tables  # noqa: PLW0603  (grown for greater lengths, and kept)
    have = len(_known_tables)
    if count > have:
        first, more = _known_tables[0], np.empty((max(count, 2 * have), 256), dtype=np.uint64)
        more[:have] = _known_tables
        for place in range(have, len(more)):
            last = more[place - 1]
            more[place] = (last >> np.uint64(8)) ^ first[(last & np.uint64(0xFF)).astype(np.intp)]
        _known_tables = more
    return _known_tables[:count]


def _first_table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint64)
    for _ in range(8):
        odd = (table & np.uint64(1)).astype(bool)
        table = np.where(odd, (table >> np.uint64(1)) ^ _POLYNOMIAL, table >> np.uint64(1))
    return table[None]


_known_tables = _first_table()
_HEADS = pa.array([_head(length) for length in range(MOST_BYTES + 1)], BYTES)
_TAILS = pa.array([_tail(length) for length in range(MOST_BYTES + 1)], BYTES)
