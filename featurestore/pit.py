"""The point-in-time join: for each row the latest value that was known at the row's time.

One row comes out for each row that goes in, in the same order: nothing is dropped, doubled or
reordered. All work is done on whole columns with NumPy; strings never leave Arrow.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pyarrow as pa

from featurestore.columns import feature_column, floats, microseconds
from featurestore.freshness import ReadStatus, known_at, oldest_age
from featurestore.keys import encode_keys
from headrace.plan import FeatureRead, ViewRead


class NullReason(IntEnum):
    """Why a row got its value of a view, or none. The first four agree with ``ReadStatus``."""

    PRESENT = ReadStatus.PRESENT
    NEVER_SEEN = ReadStatus.NEVER_SEEN
    EXPIRED = ReadStatus.EXPIRED
    FUTURE = ReadStatus.FUTURE
    WRITTEN_LATE = 4
    """A value was true by the time, but none had been written by then."""


@dataclass(frozen=True)
class JoinedView:
    """The values of one view for each row."""

    columns: dict[str, np.ndarray]
    """``<view>__<feature>``: float64, shape (rows,); NaN where there is none."""
    event_times: np.ndarray
    """datetime64[us], shape (rows,): the event time of the value used; NaT where there is none."""
    reasons: np.ndarray
    """uint8, shape (rows,): ``NullReason``."""


def point_in_time_join(
    rows: pa.Table, values: pa.Table, read: ViewRead, *, timestamp: str
) -> JoinedView:
    """Return the values of a view that each row may use.

    Of the values of the row's entity with ``event <= t`` and ``created <= t`` the one with the
    latest event time is taken; of equal event times the one created last; of those the one that
    stands last in ``values``. It is used if its age is at most the TTL. A value written late never
    hides an older one that was written in time. A null key has no value.

    Args:
        rows: has the join keys and ``timestamp``, in any order, with any duplicates.
        values: the view's table: join keys, event and created timestamps, features; any order.
        read: which columns these are, and the TTL.
        timestamp: column of ``rows`` with the moment of each row.

    Raises:
        SchemaMismatch: if a column is missing or has the wrong type, or a timestamp is null.
    """
    at = microseconds(rows, "rows", timestamp)
    event = microseconds(values, read.table, read.event_timestamp)
    created = microseconds(values, read.table, read.created_timestamp)
    row_keys, value_keys = encode_keys(rows, values, read)
    history = _History.of(value_keys, event, created)
    found = history.latest(row_keys, at)
    fresh = found >= 0
    fresh[fresh] = at[fresh] - event[found[fresh]] <= oldest_age(read)
    reasons = history.why_none(row_keys, at)
    reasons[found >= 0] = NullReason.EXPIRED
    reasons[fresh] = NullReason.PRESENT
    return JoinedView(
        columns={
            column: _take(values, read.table, feature, found, fresh)
            for column, feature in zip(read.columns, read.features, strict=True)
        },
        event_times=_event_times(event, found, fresh),
        reasons=reasons,
    )


def latest_values(values: pa.Table, read: ViewRead) -> np.ndarray:
    """The position of each entity's latest value, int64, ascending; null keys have none.

    Latest by event time, then created time, then position: the same order as in the join.
    """
    event = microseconds(values, read.table, read.event_timestamp)
    created = microseconds(values, read.table, read.created_timestamp)
    _, keys = encode_keys(values.slice(0, 0), values, read)
    order = np.lexsort((created, event, keys))
    last = np.append(keys[order][1:] != keys[order][:-1], True)[: len(order)]
    last &= keys[order] >= 0
    return np.sort(order[last])


@dataclass(frozen=True)
class _History:
    """The values of a view, ordered for binary search.

    Each value has a ``slot``: its key and the rank of the moment it became known, as one integer.
    """

    moments: np.ndarray  # int64, sorted and unique: all moments at which a value became known
    slots: np.ndarray  # int64, sorted, shape (values,)
    keys: np.ndarray  # int64, shape (values,): the key of each slot
    newest: np.ndarray  # int64, shape (values,): position of the newest value known by the slot
    first_event: np.ndarray  # int64, shape (keys,): the earliest event time of each key

    @classmethod
    def of(cls, keys: np.ndarray, event: np.ndarray, created: np.ndarray) -> "_History":
        usable = np.flatnonzero(keys >= 0)
        # By key, then from the oldest to the newest value; lexsort is stable, so the last wins.
        by_age = usable[np.lexsort((created[usable], event[usable], keys[usable]))]
        known = known_at(event, created)[by_age]
        moments, ranks = np.unique(known, return_inverse=True)
        slots = keys[by_age] * (len(moments) + 1) + ranks + 1
        # In order of becoming known, the newest so far is a running maximum of the rank by age:
        # ranks rise from key to key, so the maximum starts afresh at each key.
        by_known = np.argsort(slots, kind="stable")
        newest = by_age[np.maximum.accumulate(by_known)] if len(by_age) else by_age
        first = np.searchsorted(keys[by_age], np.arange(keys.max(initial=-1) + 1))
        return cls(moments, slots[by_known], keys[by_age], newest, event[by_age[first]])

    def latest(self, keys: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Position of the newest value known to each key at each time, int64; -1: none."""
        moment = np.searchsorted(self.moments, at, side="right")
        wanted = keys * (len(self.moments) + 1) + moment
        slot = np.searchsorted(self.slots, wanted, side="right") - 1
        hit = (keys >= 0) & (slot >= 0)
        hit[hit] = self.keys[slot[hit]] == keys[hit]
        found = np.full(len(keys), -1, dtype=np.int64)
        found[hit] = self.newest[slot[hit]]
        return found

    def why_none(self, keys: np.ndarray, at: np.ndarray) -> np.ndarray:
        """``NullReason`` of each row, uint8, for rows that no value was known to."""
        reasons = np.full(len(keys), NullReason.NEVER_SEEN, dtype=np.uint8)
        seen = keys >= 0
        late = self.first_event[keys[seen]] <= at[seen]
        reasons[seen] = np.where(late, NullReason.WRITTEN_LATE, NullReason.FUTURE)
        return reasons


def _take(
    values: pa.Table, table: str, feature: FeatureRead, found: np.ndarray, fresh: np.ndarray
) -> np.ndarray:
    column = np.full(len(found), np.nan)
    column[fresh] = floats(feature_column(values, table, feature))[found[fresh]]
    return column


def _event_times(event: np.ndarray, found: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    times = np.full(len(found), np.datetime64("NaT", "us"))
    times[fresh] = event[found[fresh]].view("datetime64[us]")
    return times
