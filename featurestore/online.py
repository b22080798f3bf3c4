"""Read the online store for a micro-batch of entities: no Feast, no registry, no Arrow.

One SELECT a view, whatever the number of entities. A value is used by the same rule as in the
point-in-time join (``featurestore.freshness``), measured at the moment of each row.
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from featurestore.errors import FeatureNotMaterialized
from featurestore.freshness import ReadStatus, known_at, oldest_age
from featurestore.layout import CREATED, EVENT, naming, open_reader, table_of
from featurestore.wire import EntityKeyWriter, decode_numbers
from headrace.errors import SchemaMismatch
from headrace.plan import FeaturePlan, ValueType, ViewRead

_MOST_KEYS = 8192  # in one SELECT; SQLite takes 32,766 variables
_KEPT_KEYS = 65_536  # entity keys a view keeps as bytes; traffic asks for the same ones again
_NEVER, _ALWAYS = np.iinfo(np.int64).max, np.iinfo(np.int64).min


@dataclass(frozen=True)
class OnlineRows:
    """What the online store holds for each row of a micro-batch."""

    columns: dict[str, np.ndarray]
    """``<view>__<feature>``: float64, shape (rows,); NaN where there is no value."""
    status: dict[str, np.ndarray]
    """By view: uint8, shape (rows,): ``ReadStatus``."""
    event_times: dict[str, np.ndarray]
    """By view: datetime64[us], shape (rows,): of the value used; NaT where there is none."""


class OnlineReader:
    """Reads what a feature plan needs from a SQLite online store.

    Safe to use from several threads: each has its own connection. A materialisation may run at the
    same time; one call of ``read`` sees the store as it was at one moment.
    """

    def __init__(self, path: Path, plan: FeaturePlan) -> None:
        """Open the store and check that it holds every feature of the plan.

        Raises:
            FeatureNotMaterialized: if the store, a view or a feature is not there.
            OnlineStoreFailed: if the file cannot be read.
        """
        self._path = path
        self._local = threading.local()
        self._lock = threading.Lock()
        self._connections: list[Any] = []
        if not path.exists():
            names = ", ".join(view.view for view in plan.views)
            raise FeatureNotMaterialized(f"feature view {names}", path)
        self._views = [_ViewReader(self._path, plan.project, view) for view in plan.views]
        for view in plan.views:
            _check_materialized(self._connection(), path, plan.project, view)

    def read(self, keys: Mapping[str, Sequence[str | int | None]], at: np.ndarray) -> OnlineRows:
        """Return the values of each row's entities at each row's moment.

        Args:
            keys: for each join key of the plan one value a row; None: no such entity.
            at: datetime64[us], shape (rows,): the moment of prediction, in UTC. For live traffic
                that is now. A value that became known only later is FUTURE and not used.

        Raises:
            SchemaMismatch: if a join key is missing, or has another number of rows than ``at``.
            EntityKeyRefused: if a key is not of its entity's type.
            OnlineStoreFailed, StoredValueBroken: if the file or a value in it is damaged.
        """
        moments = at.astype("datetime64[us]").view(np.int64)
        self._check_keys(keys, len(moments))
        rows = OnlineRows({}, {}, {})
        with naming("read", self._path):
            db = self._connection()
            db.execute("BEGIN")  # one snapshot for all views
            try:
                for view in self._views:
                    view.read_into(rows, db, keys, moments)
            finally:
                db.execute("COMMIT")
        return rows

    def close(self) -> None:
        """Close the connections of all threads; the reader cannot be used afterwards."""
        with self._lock:
            while self._connections:
                self._connections.pop().close()

    def _connection(self) -> Any:
        if not hasattr(self._local, "db"):
            self._local.db = open_reader(self._path)
            with self._lock:
                self._connections.append(self._local.db)
        return self._local.db

    def _check_keys(self, keys: Mapping[str, Sequence[Any]], rows: int) -> None:
        names = [name for view in self._views for name in view.key_names]
        if missing := sorted(set(names) - set(keys)):
            raise SchemaMismatch("request", [f"join keys {missing} are missing"])
        if wrong := sorted({n for n in names if len(keys[n]) != rows}):
            raise SchemaMismatch("request", [f"join keys {wrong} do not have {rows} rows"])


class _ViewReader:
    """Reads one view: everything that can be made ready once is made ready here."""

    def __init__(self, path: Path, project: str, view: ViewRead) -> None:
        self._path, self._view = path, view
        self.key_names = view.key_names
        self._entity_key = lru_cache(_KEPT_KEYS)(EntityKeyWriter(view.join_keys).write)
        self._oldest_age = oldest_age(view)
        # In the order of the table's primary key, in which the rows come.
        features = sorted(view.features, key=lambda feature: feature.name)
        self._names = [feature.name for feature in features]
        self._columns = [f"{view.view}__{name}" for name in self._names]
        self._by_type: dict[ValueType, list[int]] = {}
        for position, feature in enumerate(features):
            self._by_type.setdefault(feature.dtype, []).append(position)
        self._select = (
            f"SELECT entity_key, feature_name, value, {EVENT}, {CREATED} "  # noqa: S608 - quoted
            f"FROM {table_of(project, view.view)} WHERE feature_name IN ({_marks(self._names)}) "
            "AND entity_key IN (%s) ORDER BY entity_key, feature_name"
        )

    def read_into(
        self, rows: OnlineRows, db: Any, keys: Mapping[str, Sequence[Any]], at: np.ndarray
    ) -> None:
        """Add this view's columns, status and event times to ``rows``."""
        entities = zip(*(keys[name] for name in self.key_names), strict=True)
        wanted = [self._entity_key(entity) for entity in entities]
        stored = self._fetch(db, [key for key in dict.fromkeys(wanted) if key is not None])
        places = {row[0]: i for i, row in enumerate(stored[:: len(self._names)])}
        place = np.array([places.get(key, -1) for key in wanted], dtype=np.int64)
        times = np.array([row[3:] for row in stored], dtype=np.int64)
        times = times.reshape(len(places), len(self._names), 2)
        event = times[:, :, 0].min(axis=1, initial=_NEVER)
        known = known_at(event, times.max(axis=(1, 2), initial=_ALWAYS))
        status = self._status(place, event, known, at)
        present = status == ReadStatus.PRESENT
        values = np.full((len(self._names), len(at)), np.nan)
        values[:, present] = self._values(stored, len(places))[:, place[present]]
        rows.columns.update(zip(self._columns, values, strict=True))
        rows.status[self._view.view] = status
        event_times = np.full(len(at), np.datetime64("NaT", "us"))
        event_times[present] = event[place[present]].view("datetime64[us]")
        rows.event_times[self._view.view] = event_times

    def _fetch(self, db: Any, wanted: list[bytes]) -> list[tuple[Any, ...]]:
        """The stored rows of the entities: all features of the first, of the second ..."""
        stored: list[tuple[Any, ...]] = []
        pending = iter(sorted(wanted))
        while chunk := list(islice(pending, _MOST_KEYS)):
            # A power of two, so that a few prepared statements serve batches of every size.
            size = 1 << (len(chunk) - 1).bit_length()
            chunk += chunk[-1:] * (size - len(chunk))
            found = db.execute(self._select % _marks(chunk), [*self._names, *chunk])
            stored += found.fetchall()
        entities = len(stored) // len(self._names)
        if [row[1] for row in stored] != self._names * entities:
            raise FeatureNotMaterialized(f"a feature of view {self._view.view}", self._path)
        return stored

    def _status(
        self, place: np.ndarray, event: np.ndarray, known: np.ndarray, at: np.ndarray
    ) -> np.ndarray:
        status = np.full(len(at), ReadStatus.NEVER_SEEN, dtype=np.uint8)
        seen = np.flatnonzero(place >= 0)
        found, now = place[seen], at[seen]
        expired = now - event[found] > self._oldest_age
        status[seen] = np.where(expired, ReadStatus.EXPIRED, ReadStatus.PRESENT)
        status[seen[known[found] > now]] = ReadStatus.FUTURE
        return status

    def _values(self, stored: list[tuple[Any, ...]], entities: int) -> np.ndarray:
        """The stored values as float64, shape (features, entities), features sorted by name."""
        values = np.empty((len(self._names), entities))
        for dtype, places in self._by_type.items():
            messages = [row[2] for i in places for row in stored[i :: len(self._names)]]
            found = decode_numbers(messages, dtype, f"of view {self._view.view}")
            values[places] = found.reshape(len(places), entities)
        return values


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))


def _check_materialized(db: Any, path: Path, project: str, view: ViewRead) -> None:
    with naming("read", path):
        tables = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'headrace_views'").fetchone()
        found = (
            tables
            and db.execute(
                "SELECT definition FROM headrace_views WHERE project = ? AND view = ?",
                (project, view.view),
            ).fetchone()
        )
    if not found:
        raise FeatureNotMaterialized(f"feature view {view.view}", path)
    stored = ViewRead.model_validate_json(found[0])
    missing = [f.name for f in view.features if f not in stored.features]
    if missing or stored.join_keys != view.join_keys:
        what = ", ".join(missing) or "its join keys"
        raise FeatureNotMaterialized(f"feature view {view.view} with {what}", path)
