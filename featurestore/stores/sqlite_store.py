"""The online store in a SQLite file: Feast's tables and packed ones (``sqlite_layout``).

Every write is one transaction, and SQLite lets one writer in at a time: what is compared cannot
change before it is written.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featurestore.errors import ViewReplaced
from featurestore.stores import sqlite_layout as layout
from featurestore.stores.packed import HEADER, HEADER_BYTES
from featurestore.stores.rows import EncodedRows, encode_rows
from featurestore.stores.sqlite_layout import naming
from featurestore.stores.stored import StoredView, read_record
from headrace.plan import NUMBERS, ViewRead

_MOST_KEYS = 8192  # in one SELECT; SQLite takes 32,766 variables


class SqliteStore:
    """The online store of one Feast project in one SQLite file. For one thread at a time."""

    chunk_rows = 16_384  # other writers wait for the end of a transaction, about a second
    in_key_order = True

    def __init__(self, path: Path, project: str) -> None:
        """Open the file for writing, making it and its folder if need be.

        Raises:
            OnlineStoreFailed: if that cannot be done.
        """
        self._path, self._project = path, project
        self.place = str(path)
        with naming("open", path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                path, timeout=layout.BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            try:
                # Servers read on while the write-ahead log is written.
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
                layout.create_views_table(self._db)
            except sqlite3.Error:
                self._db.close()
                raise

    def views(self) -> dict[str, StoredView]:
        """See ``OnlineStore``."""
        with naming("read", self._path):
            found = self._db.execute(layout.SELECT_VIEWS, (self._project,)).fetchall()
        return {view: read_record(view, record, self.place) for view, record in found}

    def put_view(self, stored: StoredView) -> bool:
        """See ``OnlineStore``."""
        with naming("write", self._path), self._transaction():
            there = self._record(stored.view.view)
            if there is not None and _is_ahead(there, stored):
                return False
            self._create_tables(stored.view)
            self._db.execute(
                layout.PUT_VIEW, (self._project, stored.view.view, stored.model_dump_json())
            )
            return True

    def write(
        self,
        stored: StoredView,
        rows: pa.Table,
        *,
        then: Callable[[int], StoredView] | None = None,
    ) -> int:
        """See ``OnlineStore``. A killed write leaves everything as it was."""
        encoded = encode_rows(stored, rows)
        # In the order of the tables' keys SQLite writes fastest.
        encoded = encoded.take(np.asarray(pc.array_sort_indices(encoded.keys)))
        with naming("write", self._path), self._transaction():
            there = self._record(stored.view.view)
            if there is None or there.tag != stored.tag:
                raise ViewReplaced(stored.view.view, self.place)
            written = self._write(stored, encoded)
            if then is not None:
                self.put_view(then(written))
        return written

    @contextlib.contextmanager
    def anew(self, stored: StoredView) -> Iterator[None]:
        """See ``OnlineStore``. One transaction: a killed one leaves everything as it was."""
        with self._transaction():
            if not self.put_view(stored):
                raise ViewReplaced(stored.view.view, self.place)
            with naming("write", self._path):
                for table in self._tables(stored.view):
                    self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - quoted name
            yield

    def sweep(self, stored: StoredView) -> None:
        """See ``OnlineStore``. Nothing is left to do: ``anew`` began with empty tables."""

    def close(self) -> None:
        """See ``OnlineStore``."""
        self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All writes inside become visible together, or not at all; may stand in another one."""
        if self._db.in_transaction:
            yield
            return
        with naming("write", self._path):
            self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._db.in_transaction:  # SQLite itself has rolled back where the disk is full
                self._db.execute("ROLLBACK")
            raise
        with naming("write", self._path):
            self._db.execute("COMMIT")

    def _record(self, view: str) -> StoredView | None:
        found = self._db.execute(layout.SELECT_VIEW, (self._project, view)).fetchone()
        return read_record(view, found[0], self.place) if found else None

    def _create_tables(self, view: ViewRead) -> None:
        numbers_only = all(feature.dtype in NUMBERS for feature in view.features)
        layout.create_tables(self._db, self._project, view.view, numbers_only=numbers_only)

    def _tables(self, view: ViewRead) -> tuple[str, str]:
        return (
            layout.table_of(self._project, view.view),
            layout.packed_table_of(self._project, view.view),
        )

    def _write(self, stored: StoredView, rows: EncodedRows) -> int:
        """Write the rows that are not older than what is there; how many these are."""
        table, packed = self._tables(stored.view)
        keys = rows.keys.to_pylist()
        seconds = [(rows.event_us // 1_000_000).tolist(), (rows.created_us // 1_000_000).tolist()]
        columns = [column.to_pylist() for column in rows.messages]
        feast_rows: Iterable[Any] = zip(keys, *seconds, *columns, strict=True)
        copies: Iterable[Any] = zip(keys, _slices(rows.packed), strict=True)
        written = len(keys)
        if there := self._times(stored.view, keys):
            times = zip(rows.event_us.tolist(), rows.created_us.tolist(), strict=True)
            newer = [k not in there or t >= there[k] for k, t in zip(keys, times, strict=True)]
            feast_rows, copies = compress(feast_rows, newer), compress(copies, newer)
            written = sum(newer)
        features = [feature.name for feature in stored.view.features]
        self._db.executemany(layout.insert_rows(table, features), feast_rows)
        self._db.executemany(f"INSERT OR REPLACE INTO {packed} VALUES (?, ?)", copies)  # noqa: S608 - quoted name
        return written

    def _times(self, view: ViewRead, keys: list[bytes]) -> dict[bytes, tuple[int, int]]:
        """The event and created time of those of the entities that are there, microseconds.

        ``keys`` ascend. Where Feast has written since, its own times count: whole seconds, and the
        event time where it has no created time.
        """
        table, packed = self._tables(view)
        if not keys or not self._any_between(table, keys[0], keys[-1]):
            return {}
        times: dict[bytes, tuple[int, int]] = {}
        for start in range(0, len(keys), _MOST_KEYS):
            some = keys[start : start + _MOST_KEYS]
            where = f"WHERE entity_key IN ({','.join('?' * len(some))})"
            feast = self._db.execute(
                "SELECT entity_key, max(event_ts), max(coalesce(created_ts, event_ts)) "  # noqa: S608 - quoted name
                f"FROM {table} {where} GROUP BY entity_key",
                some,
            )
            for key, event, created in feast:
                times[key] = (event * 1_000_000, created * 1_000_000)
            copies = self._db.execute(
                f"SELECT entity_key, substr(row, 1, {HEADER_BYTES}) "  # noqa: S608 - quoted name
                f"FROM {packed} {where}",
                some,
            )
            for key, header in copies:
                _, event, created = HEADER.unpack(header)
                if key in times and times[key][0] == event // 1_000_000 * 1_000_000:
                    times[key] = (event, created)
        return times

    def _any_between(self, table: str, first: bytes, last: bytes) -> bool:
        query = f"SELECT 1 FROM {table} WHERE entity_key BETWEEN ? AND ? LIMIT 1"  # noqa: S608 - quoted name
        return self._db.execute(query, (first, last)).fetchone() is not None


def _is_ahead(there: StoredView, stored: StoredView) -> bool:
    if there.generation != stored.generation:
        return there.generation > stored.generation
    if there.tag != stored.tag:
        return True
    return there.until_us is not None and (
        stored.until_us is None or stored.until_us < there.until_us
    )


def _slices(packed: np.ndarray) -> list[bytes]:
    data, size = packed.tobytes(), packed.shape[1]
    return [data[start : start + size] for start in range(0, len(data), size)]
