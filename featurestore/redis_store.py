"""The online store in Redis: Feast's layout and the packed rows beside it (``redis_layout``).

Rows are compared and written by a script inside Redis, a batch at a time, so no other writer can
come between the two. While Redis works on one batch, the next one is encoded.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore import redis_layout as layout
from featurestore.encode import BYTES, constant, join, timestamps, whole
from featurestore.errors import OnlineStoreFailed, ViewReplaced
from featurestore.redis_scripts import PUT_VIEW, SWEEP, WRITE
from featurestore.resp import Connection, command, shown
from featurestore.rows import EncodedRows, encode_rows
from featurestore.stored import StoredView
from featurestore.wire import EntityKeyWriter

TIMEOUT_SECONDS = 30.0
"""The longest wait for Redis to answer."""
_ENCODED_ROWS = 16_384  # at a time, while the ones before are under way
_SCRIPT_ROWS = 256  # in one call: Redis serves nobody else meanwhile, some 3 ms
_SCAN_KEYS = 1000
_HEADS = pa.array([b"$%d\r\n" % length for length in range(4096)], BYTES)
_END = constant(b"\r\n")


class RedisStore:
    """The online store of one Feast project in one Redis database. For one thread at a time."""

    def __init__(self, url: str, project: str) -> None:
        """Connect.

        Raises:
            OnlineStoreFailed: if the server cannot be reached, or refuses.
        """
        self._url, self._project = url, project
        self.place = shown(url)
        self._connection: Connection | None = None
        self._scripts: dict[bytes, bytes] = {}
        self._connect()

    def views(self) -> dict[str, StoredView]:
        """See ``OnlineStore``."""
        (found,) = self._ask(command(b"HGETALL", layout.views_hash(self._project)))
        pairs = zip(found[::2], found[1::2], strict=True)
        return {name.decode(): StoredView.model_validate_json(record) for name, record in pairs}

    def put_view(self, stored: StoredView) -> bool:
        """See ``OnlineStore``."""
        keys = [layout.views_hash(self._project), layout.tags_hash(self._project)]
        record = stored.model_dump_json().encode()
        words = [stored.view.view.encode(), stored.tag, record]
        (written,) = self._ask(self._call(PUT_VIEW, keys, words))
        return bool(written)

    def write(
        self,
        stored: StoredView,
        rows: pa.Table,
        *,
        then: Callable[[int], StoredView] | None = None,
    ) -> int:
        """See ``OnlineStore``. A killed write leaves each entity's row whole, old or new."""
        written = 0
        under_way: Future[int] | None = None
        with ThreadPoolExecutor(1) as sender:
            for start in range(0, len(rows), _ENCODED_ROWS):
                encoded = encode_rows(stored, rows.slice(start, _ENCODED_ROWS))
                commands = self._commands(stored, encoded)
                written += under_way.result() if under_way else 0
                under_way = sender.submit(self._write, stored, commands)
            written += under_way.result() if under_way else 0
        if then is not None:
            self.put_view(then(written))
        return written

    @contextlib.contextmanager
    def anew(self, stored: StoredView) -> Iterator[None]:
        """See ``OnlineStore``."""
        if not self.put_view(stored):
            raise ViewReplaced(stored.view.view, self.place)
        yield

    def sweep(self, stored: StoredView) -> None:
        """See ``OnlineStore``."""
        view = stored.view.view
        names = {feature.name for feature in stored.view.features}.union(stored.replaced)
        fields = [layout.packed_field(view), layout.timestamp_field(view)]
        fields += [layout.feature_field(view, name) for name in sorted(names)]
        pattern = _escaped(EntityKeyWriter(stored.view.join_keys).head) + b"*"
        pattern += _escaped(self._project.encode())
        cursor, tags = b"0", layout.tags_hash(self._project)
        while True:
            scan = (b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % _SCAN_KEYS)
            ((cursor, keys),) = self._ask(command(*scan))
            if keys:
                words = [view.encode(), stored.tag, *fields]
                (swept,) = self._ask(self._call(SWEEP, [tags, *keys], words))
                if swept == -1:
                    raise ViewReplaced(view, self.place)
            if cursor == b"0":
                return

    def close(self) -> None:
        """See ``OnlineStore``."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> Connection:
        if self._connection is None:
            self._connection = Connection(self._url, timeout_seconds=TIMEOUT_SECONDS)
            scripts = (WRITE, PUT_VIEW, SWEEP)
            loads = [command(b"SCRIPT", b"LOAD", script) for script in scripts]
            try:
                hashes = self._connection.ask(loads, replies=len(loads))
            except OnlineStoreFailed:
                self.close()
                raise
            self._scripts = dict(zip(scripts, hashes, strict=True))
        return self._connection

    def _ask(self, *commands: bytes) -> list[Any]:
        connection = self._connect()
        try:
            return connection.ask(commands, replies=len(commands))
        except OnlineStoreFailed:
            self.close()  # answers may still be under way; the next call connects again
            raise

    def _call(self, script: bytes, keys: list[bytes], words: list[bytes]) -> bytes:
        self._connect()
        return command(b"EVALSHA", self._scripts[script], str(len(keys)).encode(), *keys, *words)

    def _commands(self, stored: StoredView, rows: EncodedRows) -> list[bytes]:
        """Calls of ``WRITE`` for some rows, ready to be sent."""
        head = self._write_words(stored)
        keys = _Words([join(rows.keys, constant(self._project.encode()))])
        values = _Words([*rows.messages, timestamps(rows.event_us), whole(rows.packed)])
        calls = []
        for start in range(0, len(rows.keys), _SCRIPT_ROWS):
            end = min(start + _SCRIPT_ROWS, len(rows.keys))
            words = 3 + (1 + end - start) + len(head) + values.columns * (end - start)
            first = command(b"EVALSHA", self._scripts[WRITE], b"%d" % (1 + end - start))
            calls.append(
                b"".join(
                    [
                        b"*%d" % words + first[first.index(b"\r\n") :],
                        _bulk([layout.tags_hash(self._project)]),
                        keys.of(start, end),
                        _bulk(head),
                        values.of(start, end),
                    ]
                )
            )
        return calls

    def _write_words(self, stored: StoredView) -> list[bytes]:
        view, features = stored.view.view, stored.view.features
        fields = [layout.feature_field(view, feature.name) for feature in features]
        removed = [layout.feature_field(view, name) for name in stored.replaced]
        stamps = [layout.timestamp_field(view), layout.packed_field(view)]
        counted = [b"%d" % len(removed), *removed, b"%d" % len(fields), *fields]
        return [view.encode(), stored.tag, *stamps, *counted]

    def _write(self, stored: StoredView, calls: list[bytes]) -> int:
        written = self._ask(*calls)
        if -1 in written:
            raise ViewReplaced(stored.view.view, self.place)
        return sum(written)


class _Words:
    """Columns of bytes as the words of commands, cut by rows without touching them again."""

    def __init__(self, columns: Sequence[pa.LargeBinaryArray]) -> None:
        self.columns = len(columns)
        parts = [part for column in columns for part in (_heads(column), column, _END)]
        joined = join(*parts)
        _, offsets, data = joined.buffers()
        self._offsets = np.frombuffer(offsets, dtype=np.int64)[: len(joined) + 1]
        self._data = memoryview(data) if data is not None else memoryview(b"")

    def of(self, start: int, end: int) -> memoryview:
        """The words of some rows."""
        return self._data[self._offsets[start] : self._offsets[end]]


def _heads(column: pa.LargeBinaryArray) -> pa.LargeBinaryArray:
    """What stands before each value in a command: ``$<length>``."""
    lengths = pc.binary_length(column)
    if len(column) and pc.max(lengths).as_py() < len(_HEADS):
        return _HEADS.take(lengths)
    digits = lengths.cast(pa.large_string()).cast(BYTES)
    return join(constant(b"$"), digits, _END)


def _bulk(words: Sequence[bytes]) -> bytes:
    return b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])


def _escaped(text: bytes) -> bytes:
    """Bytes as a pattern of SCAN that means just them."""
    return re.sub(rb"([*?\[\]\\^])", rb"\\\1", text)
