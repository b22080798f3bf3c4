"""Calls of the scripts in ``redis_scripts``, built for many rows at once without touching each.

A column of bytes becomes words of commands (length, bytes, line end) by one Arrow join; a batch of
rows is then a slice of the result.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.stores import redis_dump
from featurestore.stores import redis_layout as layout
from featurestore.stores.encode import BYTES, constant, join, timestamps, whole
from featurestore.stores.redis_scripts import WRITE
from featurestore.stores.resp import command
from featurestore.stores.rows import EncodedRows
from featurestore.stores.stored import StoredView

BATCH_ROWS = 256
"""Rows in one call: Redis serves nobody else meanwhile, about 3 ms."""
TRANSACTION_ROWS = 1024
"""Rows made in one transaction; about as long."""
_HEADS = pa.array([b"$%d\r\n" % length for length in range(4096)], BYTES)
_END = constant(b"\r\n")
_RESTORE, _NO_TTL = constant(b"*4\r\n$7\r\nRESTORE\r\n"), constant(b"$1\r\n0\r\n")


def call(script: bytes, keys: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """One call of a script that the server has loaded."""
    return command(b"EVALSHA", _sha1(script), b"%d" % len(keys), *keys, *words)


def write_calls(project: str, stored: StoredView, rows: EncodedRows) -> list[bytes]:
    """Calls of ``WRITE``, ``BATCH_ROWS`` rows each."""
    view, names = stored.view.view, [feature.name for feature in stored.view.features]
    fields = [layout.feature_field(view, name) for name in names]
    removed = [layout.feature_field(view, name) for name in stored.replaced if name not in names]
    stamps = [layout.timestamp_field(view), layout.packed_field(view)]
    words = [view.encode(), stored.tag, *stamps, b"%d" % len(removed), *removed]
    words += [b"%d" % len(fields), *fields]
    return list(_calls(project, rows, words, _values(rows)))


def create_transactions(
    project: str, stored: StoredView, rows: EncodedRows
) -> list[tuple[bytes, int]] | None:
    """Transactions that make the hashes of rows, each with the number of its rows.

    ``RESTORE`` in a transaction costs Redis a third less than in a script. None where a value is
    too long for that.
    """
    view, values = stored.view.view, _values(rows)
    if any(pc.max(pc.binary_length(v)).as_py() > redis_dump.MOST_BYTES for v in values):
        return None
    fields = [layout.feature_field(view, feature.name) for feature in stored.view.features]
    fields += [layout.timestamp_field(view), layout.packed_field(view)]
    keys = as_words(join(rows.keys, constant(project.encode())))
    restores = _Rows([_RESTORE, *keys, _NO_TTL, *as_words(redis_dump.hashes(fields, values))])
    transactions = []
    for start in range(0, len(rows.keys), TRANSACTION_ROWS):
        end = min(start + TRANSACTION_ROWS, len(rows.keys))
        parts = [command(b"MULTI"), restores.between(start, end), command(b"EXEC")]
        transactions.append((b"".join(parts), end - start))
    return transactions


def _values(rows: EncodedRows) -> list[pa.LargeBinaryArray]:
    return [*rows.messages, timestamps(rows.event_us), whole(rows.packed)]


def _calls(
    project: str,
    rows: EncodedRows,
    words: Sequence[bytes],
    values: Sequence[pa.LargeBinaryArray],
) -> Iterator[bytes]:
    keys_of = _Rows(as_words(join(rows.keys, constant(project.encode()))))
    values_of = _Rows([part for column in values for part in as_words(column)])
    constants, tags = _bulk(words), _bulk([layout.tags_hash(project)])
    for start in range(0, len(rows.keys), BATCH_ROWS):
        end = min(start + BATCH_ROWS, len(rows.keys))
        keys = 1 + end - start
        count = 3 + keys + len(words) + len(values) * (end - start)
        head = b"*%d\r\n" % count + _bulk([b"EVALSHA", _sha1(WRITE), b"%d" % keys])
        parts = [head, tags, keys_of.between(start, end), constants, values_of.between(start, end)]
        yield b"".join(parts)


class _Rows:
    """Columns of bytes joined row by row."""

    def __init__(self, parts: Sequence[Any]) -> None:
        _, offsets, data = join(*parts).buffers()
        self._offsets = np.frombuffer(offsets, dtype=np.int64)
        self._data = memoryview(data)

    def between(self, start: int, end: int) -> bytes:
        """The bytes of some rows, one after the other."""
        return bytes(self._data[self._offsets[start] : self._offsets[end]])


def as_words(column: pa.LargeBinaryArray) -> list[Any]:
    """The parts that make a column of bytes words of commands, to be joined with others."""
    return [_heads(column), column, _END]


def _heads(column: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    """What stands before each value in a command: ``$<length>``."""
    lengths = pc.binary_length(column)
    if pc.max(lengths).as_py() < len(_HEADS):
        return _HEADS.take(lengths)
    digits = lengths.cast(pa.large_string()).cast(BYTES)
    return join(constant(b"$"), digits, _END)


def _bulk(words: Sequence[bytes]) -> bytes:
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def _sha1(script: bytes) -> bytes:
    return hashlib.sha1(script, usedforsecurity=False).hexdigest().encode()
