"""The point-in-time join: for each row the latest value that was known at the row's time.

One row comes out for each row that goes in, in the same order: nothing is dropped, doubled or
reordered. All work is done on whole columns; strings never leave Arrow.

``history`` finds the values, ``keys`` says which entity a row is of.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from featurestore.columns import feature_column, floats, microseconds
from featurestore.freshness import ReadStatus, oldest_age
from featurestore.join.history import History
from featurestore.join.keys import EntityNumbers, RowKeys
from headrace.plan import NUMBERS, ViewRead

Column: TypeAlias = "np.ndarray | pa.Array"
"""A joined feature: float64 with NaN for none where it is a number, else an Arrow column."""


class NullReason(IntEnum):
    """Why a row got its value of a view, or none. The first four agree with ``ReadStatus``."""

    PRESENT = ReadStatus.PRESENT
    NEVER_SEEN = ReadStatus.NEVER_SEEN
    EXPIRED = ReadStatus.EXPIRED
    FUTURE = ReadStatus.FUTURE
    WRITTEN_LATE = 4
    """A value was true by the time, but none had been written by then."""
    NULL_KEY = 5
    """The row does not say which entity it is about."""
    LAST_KNOWN = ReadStatus.LAST_KNOWN


@dataclass(frozen=True)
class JoinedView:
    """The values of one view for each row."""

    columns: dict[str, Column]
    """``<view>__<feature>``, shape (rows,)."""
    event_times: np.ndarray
    """datetime64[us], shape (rows,): the event time of the value used; NaT where there is none."""
    reasons: np.ndarray
    """uint8, shape (rows,): ``NullReason``."""

    @property
    def counts(self) -> dict[str, int]:
        """How many rows have each ``NullReason``, by its name; ``LAST_KNOWN`` where there are."""
        counts = np.bincount(self.reasons, minlength=NullReason.LAST_KNOWN + 1).tolist()
        used = [r for r in NullReason if r != NullReason.LAST_KNOWN or counts[r]]
        return {reason.name: counts[reason] for reason in used}


def point_in_time_join(
    rows: pa.Table, values: pa.Table, read: ViewRead, *, timestamp: str
) -> JoinedView:
    """Return the values of a view that each row may use.

    Of the values of the row's entity with ``event <= t`` and ``created <= t`` the one with the
    latest event time is taken; of equal event times the one created last; of those the one that
    stands last in ``values``. It is used if its age is at most the TTL. A value written late never
    hides an older one that was written in time. A null key has no value. A view without a created
    column is known at its event times.

    Where the view says ``last_known``, an older value is used too, with reason ``LAST_KNOWN``.

    Args:
        rows: has the join keys and ``timestamp``, in any order, with any duplicates.
        values: the view's table: join keys, event and created timestamps, features; any order.
        read: which columns these are, and the TTL.
        timestamp: column of ``rows`` with the moment of each row.

    Raises:
        SchemaMismatch: if a column is missing or has the wrong type, or a timestamp is null.
    """
    at = microseconds(rows, "rows", timestamp)
    return ViewValues.of(values, read).join(RowKeys(rows), at)


def latest_values(values: pa.Table, read: ViewRead) -> np.ndarray:
    """The position of each entity's latest value, int64, ascending; null keys have none.

    Latest by event time, then created time, then position: the same order as in the join.
    """
    return _history(values, read, EntityNumbers.of(values, read)[1]).last


@dataclass(frozen=True)
class ViewValues:
    """A view's table, ordered once, to be joined to any number of tables of rows."""

    read: ViewRead
    numbers: EntityNumbers
    history: History
    columns: Mapping[str, Column]

    @classmethod
    def of(cls, values: pa.Table, read: ViewRead, *, as_arrow: bool = False) -> "ViewValues":
        """Order the values of a view's table; it may be in any order.

        Args:
            values: as for ``point_in_time_join``.
            read: the view.
            as_arrow: keep numbers too as Arrow columns, in the types that the view declares.

        Raises:
            SchemaMismatch: if a column is missing or has the wrong type, or a timestamp is null.
        """
        numbers, entity = EntityNumbers.of(values, read)
        columns: dict[str, Column] = {}
        for name, feature in zip(read.columns, read.features, strict=True):
            column = feature_column(values, read.table, feature)
            is_float = feature.dtype in NUMBERS and not as_arrow
            columns[name] = floats(column) if is_float else _one_chunk(column)
        return cls(read, numbers, _history(values, read, entity), columns)

    def join(self, keys: RowKeys, at: np.ndarray) -> JoinedView:
        """Return the values that each row may use: see ``point_in_time_join``.

        Args:
            keys: the rows' join keys.
            at: int64, shape (rows,): the moment of each row, microseconds since 1970.
        """
        entity = self.numbers.of_rows(keys)
        found = self.history.latest(entity, at)
        event = _taken(self.history.event, found)
        fresh = (found >= 0) & (at - event <= oldest_age(self.read))
        usable = found >= 0 if self.read.last_known else fresh
        lost = np.flatnonzero(~usable)
        event[lost] = _NOT_A_TIME
        reasons = self._reasons(keys, entity, at, lost)
        reasons[usable & ~fresh] = NullReason.LAST_KNOWN
        return JoinedView(
            columns=self._columns(found, lost),
            event_times=event.view("datetime64[us]"),
            reasons=reasons,
        )

    def _columns(self, found: np.ndarray, lost: np.ndarray) -> dict[str, Column]:
        taken: dict[str, Column] = {}
        places = None
        for name, column in self.columns.items():
            if isinstance(column, np.ndarray):
                taken[name] = _taken(column, found)
                taken[name][lost] = np.nan
                continue
            if places is None:
                none = np.zeros(len(found), dtype=bool)
                none[lost] = True
                places = pa.array(found, mask=none)
            taken[name] = column.take(places)
        return taken

    def _reasons(
        self, keys: RowKeys, entity: np.ndarray, at: np.ndarray, lost: np.ndarray
    ) -> np.ndarray:
        reasons = np.full(len(at), NullReason.PRESENT, dtype=np.uint8)
        null = keys.are_null(self.read.join_keys)[lost]
        reasons[lost] = np.where(null, NullReason.NULL_KEY, NullReason.NEVER_SEEN)
        seen = lost[entity[lost] >= 0]
        reasons[seen] = why_none(*self.history.firsts, entity[seen], at[seen])
        return reasons


def why_none(
    first_event: np.ndarray, first_known: np.ndarray, entity: np.ndarray, at: np.ndarray
) -> np.ndarray:
    """Why rows whose entities have values may use none of them: ``NullReason``, uint8.

    Args:
        first_event: int64, shape (entities,): the earliest event time of each entity.
        first_known: the same, when its first value became known.
        entity: shape (rows,): the entity of each row.
        at: int64, shape (rows,): the moment of each row.
    """
    return np.select(
        [first_known[entity] <= at, first_event[entity] <= at],
        [np.uint8(NullReason.EXPIRED), np.uint8(NullReason.WRITTEN_LATE)],
        np.uint8(NullReason.FUTURE),
    )


_NOT_A_TIME = np.datetime64("NaT", "us").view(np.int64)


def _history(values: pa.Table, read: ViewRead, entity: np.ndarray) -> History:
    event = microseconds(values, read.table, read.event_timestamp)
    created = None
    if read.created_timestamp is not None:
        created = microseconds(values, read.table, read.created_timestamp)
    return History.of(entity, event, created)


def _taken(column: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The values at ``found``; where that is -1, any."""
    return np.take(column, found) if len(column) else np.zeros(len(found), dtype=column.dtype)


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return whole if isinstance(whole, pa.Array) else pa.array([], column.type)
