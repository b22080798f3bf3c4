"""Read entities from a SQLite file: one snapshot, one statement a view.

A materialisation may run meanwhile: the write-ahead log keeps what a reader has begun to see. Each
thread has its own connection. A file that was replaced by another is noticed and opened anew.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from featurestore.errors import FeatureNotMaterialized, OnlineStoreFailed
from featurestore.online.source import NOTHING, Group, Reply, Token, numbers_of, objects_of
from featurestore.online.trips import Steps, at_once
from featurestore.stores import sqlite_layout as layout
from featurestore.stores.sqlite_layout import naming, table_of
from featurestore.stores.stored import StoredView
from headrace.plan import ViewRead

_MOST_KEYS = 8192  # in one statement; SQLite takes 32,766 variables
_STAMP = "(f.event_ts << 32) | (coalesce(f.created_ts, f.event_ts) & 4294967295)"


class SqliteSource:
    """Reads one project's views."""

    trips = None
    holds_up = False

    def __init__(
        self, path: Path, project: str, groups: Sequence[Group], *, deadline_seconds: float
    ) -> None:
        """Prepare all statements; opens the file at the first read.

        Args:
            path: the file.
            project: the Feast project.
            groups: what is read.
            deadline_seconds: how long a read may wait for the file's lock.
        """
        self._path, self._project, self._groups = path, project, groups
        self._wait = deadline_seconds
        self.place = str(path)
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[sqlite3.Connection] = []
        self._views = sorted(view.view for group in groups for view in group.views)
        self._select_records = (
            "SELECT view, record FROM headrace_views WHERE project = ? "  # noqa: S608 - only marks
            f"AND view IN ({_marks(self._views)}) ORDER BY view"
        )
        views = [view for group in groups for view in group.views]
        self._selects = {view.view: _select_of(project, view) for view in views}
        self._objects = {view.view: objects_of(view) for view in views}

    def token(self, _: int, entity_key: bytes) -> Token:
        """See ``Source``: Feast's key of the entity."""
        return entity_key

    def fetch(self, wanted: Sequence[Sequence[Token]]) -> Steps[tuple[Any, list[list[Reply]]]]:
        """See ``Source``. The signature is the records themselves."""
        return at_once(self._fetch(wanted))

    def _fetch(self, wanted: Sequence[Sequence[Token]]) -> tuple[Any, list[list[Reply]]]:
        with naming("read", self._path):
            db, local = self._connection(), self._local
            db.execute("BEGIN")  # one snapshot for all views, which the next line takes
            try:
                version = db.execute("PRAGMA data_version").fetchone()
                if version != local.version:  # somebody has written since
                    local.signature = self._records(db)
                    local.version = version
                known = {name for name, _ in local.signature}
                return local.signature, [
                    self._read_group(db, group, tokens, known)
                    for group, tokens in zip(self._groups, wanted, strict=True)
                ]
            finally:
                db.execute("COMMIT")

    def learn(self, signature: Any) -> Steps[tuple[Any, dict[str, StoredView]]]:
        """See ``Source``."""
        try:
            records = {name: StoredView.model_validate_json(text) for name, text in signature}
        except ValidationError as error:
            raise OnlineStoreFailed("read the records of", self._path, error) from error
        return at_once((signature, records))

    def stamp(self, stamp: Any) -> int:
        """See ``Source``: Feast's event and created second in one number."""
        return NOTHING if stamp is None else int(stamp)

    def stamps(self, stamps: Sequence[Any]) -> np.ndarray:
        """See ``Source``."""
        return np.array([NOTHING if stamp is None else stamp for stamp in stamps], np.int64)

    def expected_stamp(self, event: Any, created: Any) -> Any:
        """See ``Source``: Feast keeps event and created times in whole seconds."""
        return event // 1_000_000 << 32 | created // 1_000_000 & 0xFFFFFFFF

    def messages(
        self, view: ViewRead, entity_keys: Sequence[bytes]
    ) -> Steps[list[tuple[int, int, list[bytes]] | None]]:
        """See ``Source``."""
        names = numbers_of(view)
        found: dict[bytes, list[Any]] = {key: [] for key in entity_keys}
        with naming("read", self._path):
            db = self._connection()
            for row in self._feast_rows(db, view, names, sorted(found)):
                found[row[0]].append(row)
        return at_once([self._one_row(view, names, found[key]) for key in entity_keys])

    def close(self) -> None:
        """See ``Source``."""
        with self._lock:
            while self._connections:
                self._connections.pop().close()

    def _read_group(
        self, db: sqlite3.Connection, group: Group, tokens: Sequence[Token], known: set[str]
    ) -> list[Reply]:
        replies: dict[Token, Reply] = {token: [] for token in tokens}
        keys = sorted(replies)  # in the order of the tables
        for view in group.views:
            names = self._objects[view.view]
            nothing = [None] * (2 + len(names))
            rows = self._read_view(db, view, names, keys) if view.view in known else {}
            for token, reply in replies.items():
                reply += rows.get(token, nothing)
        return list(replies.values())

    def _read_view(
        self, db: sqlite3.Connection, view: ViewRead, names: Sequence[str], keys: Sequence[bytes]
    ) -> dict[bytes, Reply]:
        both, alone = self._selects[view.view]
        no_objects = [None] * len(names)
        rows: dict[bytes, Reply] = {}
        for chunk in _chunks(keys):
            for key, stamp, packed in db.execute(f"{both} ({_marks(chunk)})", chunk):
                rows[key] = [stamp, packed, *no_objects]
        if len(rows) < len(keys):
            for chunk in _chunks([key for key in keys if key not in rows]):
                for key, stamp in db.execute(f"{alone} ({_marks(chunk)})", chunk):
                    rows[key] = [stamp, None, *no_objects]
        if names and rows:
            places = {name: 2 + position for position, name in enumerate(names)}
            for key, name, message, *_ in self._feast_rows(db, view, names, keys):
                if key in rows:
                    rows[key][places[name]] = message
        return rows

    def _feast_rows(
        self, db: sqlite3.Connection, view: ViewRead, names: Sequence[str], keys: Sequence[bytes]
    ) -> Iterator[tuple[Any, ...]]:
        """Entity key, feature, message, event and created second, by key and feature."""
        select = (
            "SELECT entity_key, feature_name, value, event_ts, coalesce(created_ts, event_ts) "  # noqa: S608 - quoted
            f"FROM {table_of(self._project, view.view)} WHERE feature_name IN ({_marks(names)}) "
            "AND entity_key IN "
        )
        for chunk in _chunks(keys):
            yield from db.execute(f"{select} ({_marks(chunk)})", [*names, *chunk])

    def _one_row(
        self, view: ViewRead, names: Sequence[str], rows: Sequence[tuple[Any, ...]]
    ) -> tuple[int, int, list[bytes]] | None:
        if not rows:
            return None
        messages = {name: message for _, name, message, _, _ in rows}
        if missing := [name for name in names if name not in messages]:
            raise FeatureNotMaterialized(f"feature {missing[0]} of view {view.view}", self.place)
        event = min(row[3] for row in rows) * 1_000_000
        created = max(row[4] for row in rows) * 1_000_000
        return event, created, [messages[name] for name in names]

    def _records(self, db: sqlite3.Connection) -> list[tuple[str, str]]:
        try:
            return db.execute(self._select_records, [self._project, *self._views]).fetchall()
        except sqlite3.OperationalError as error:
            if "no such" in str(error):  # table or column: no store, or one of an older version
                raise FeatureNotMaterialized(_named(self._views), self.place) from error
            raise

    def _connection(self) -> sqlite3.Connection:
        try:
            there = self._path.stat()
        except FileNotFoundError as error:
            raise FeatureNotMaterialized(_named(self._views), self.place) from error
        file = (there.st_dev, there.st_ino)
        if getattr(self._local, "file", None) != file:
            db = layout.open_reader(self._path)
            db.execute(f"PRAGMA busy_timeout = {round(self._wait * 1000)}")
            self._local.db, self._local.file, self._local.version = db, file, None
            with self._lock:
                self._connections.append(db)
        return self._local.db  # type: ignore[no-any-return]


def _select_of(project: str, view: ViewRead) -> tuple[str, str]:
    """The statements for entities that have a packed row, and for those that Feast alone wrote."""
    feature = "'" + min(feature.name for feature in view.features).replace("'", "''") + "'"
    feast, packed = table_of(project, view.view), layout.packed_table_of(project, view.view)
    both = (
        f"SELECT p.entity_key, {_STAMP}, p.row FROM {packed} p LEFT JOIN {feast} f "  # noqa: S608 - quoted
        f"ON f.entity_key = p.entity_key AND f.feature_name = {feature} WHERE p.entity_key IN "
    )
    alone = f"SELECT DISTINCT f.entity_key, {_STAMP} FROM {feast} f WHERE f.entity_key IN "  # noqa: S608 - quoted
    return both, alone


def _chunks(keys: Sequence[bytes]) -> Iterator[list[bytes]]:
    if len(keys) == 1:
        yield list(keys)
        return
    pending = iter(keys)
    while chunk := list(islice(pending, _MOST_KEYS)):
        # A power of two, so that a few prepared statements serve batches of every size.
        size = 1 << (len(chunk) - 1).bit_length()
        yield chunk + chunk[-1:] * (size - len(chunk))


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))


def _named(views: Sequence[str]) -> str:
    return "feature view " + ", ".join(views)
