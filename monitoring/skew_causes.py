"""Why a value that a model saw online is not the one that the point-in-time join gives.

Judged for one row and one view at a time, from both sides' status and event time, and from the
versions of the two values that the offline table knows.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.plan import ViewRead

_SECOND = 1_000_000
_TIMESTAMP = pa.timestamp("us", "UTC")


class Cause(StrEnum):
    """Why two values differ."""

    STALE = "stale"
    """Online had an older value: a newer one, or a correction, had not been written there yet."""
    EXPIRED = "expired"
    """The value was too old for its TTL on one side only."""
    LATE_WRITE = "late_write"
    """The join's value became known only after the request came, or online used one that was not
    yet known at the row's moment."""
    TRANSFORM_VERSION = "transform_version"
    """A request-time transform gives another value from the same inputs."""
    CAST = "cast"
    """The same row of the offline table, but another value: converted on the way."""
    OVERTAKEN = "overtaken"
    """Online held only a value later than the row's moment: it keeps the latest one alone."""
    TIE = "tie"
    """Rows of equal event and created times contradict each other, and each side chose another."""
    MISSING = "missing"
    """Only one side has the entity, or the value, at all."""
    UNAVAILABLE = "unavailable"
    """The online store could not be asked, and the model had to answer without."""
    UNEXPLAINED = "unexplained"
    """None of these: a fault of the store, of the log or of this check."""


@dataclass(frozen=True)
class Side:
    """What one side says of a view's value for one row."""

    status: str | None
    event: int | None
    """Microseconds since 1970; None where no value was used."""
    values: np.ndarray
    """float64, the view's number features in order; NaN is null."""

    @property
    def present(self) -> bool:
        """True if a value was used."""
        return self.event is not None


@dataclass(frozen=True)
class Version:
    """One row of the offline table."""

    created: int
    values: np.ndarray

    def known(self, event: int) -> int:
        """From when on it could be known."""
        return max(event, self.created)


OfEntity = dict[int, list[Version]]
"""The versions of one entity's values, by event time."""


class Versions:
    """The rows of an offline table that two sides may have used, by entity and event time."""

    def __init__(self, by_entity: dict[tuple[Any, ...], OfEntity]) -> None:
        self._by_entity = by_entity

    @classmethod
    def of(
        cls,
        view: ViewRead,
        table: pa.Table,
        keys: Sequence[tuple[Any, ...]],
        sides: Iterable[Side],
    ) -> "Versions":
        """Take from a view's table what belongs to these entities and event times."""
        events = sorted({side.event for side in sides if side.event is not None})
        moments = pa.array(events, pa.int64()).cast(_TIMESTAMP)
        table = table.filter(pc.is_in(table[view.event_timestamp], value_set=moments))
        wanted, found = set(keys), cls(defaultdict(dict))
        entities = zip(*(table[name].to_pylist() for name in view.key_names), strict=True)
        event = table[view.event_timestamp].cast(pa.int64()).to_pylist()
        created = table[view.known_timestamp].cast(pa.int64()).to_pylist()
        names = [column.removeprefix(f"{view.view}__") for column in view.number_columns]
        values = np.array([_floats(table[name]) for name in names])
        values = values.reshape(len(names), table.num_rows).T
        for row, entity in enumerate(entities):
            if entity in wanted:
                version = Version(created[row], values[row])
                found._by_entity[entity].setdefault(event[row], []).append(version)
        return found

    def of_entity(self, key: tuple[Any, ...]) -> OfEntity:
        """The versions of one entity's values."""
        return self._by_entity.get(key, {})


def cause_of(versions: OfEntity, logged: Side, joined: Side, at: int, received: int) -> Cause:
    """Return why the two sides of one row and view differ.

    Args:
        versions: what the offline table knows of the entity at both sides' event times.
        logged: what the model saw online.
        joined: what the join says.
        at: the row's moment, microseconds since 1970.
        received: when the request came in, the same.
    """
    if joined.event is not None and _known_too_late(versions, joined.event, at, received):
        return Cause.LATE_WRITE
    if logged.event is not None and joined.event is not None:
        return _both(versions, logged, joined, at)
    if logged.event is not None:
        return _only_online(versions, logged.event, joined.status, at)
    if joined.event is not None:
        return _only_joined(logged.status)
    return Cause.UNEXPLAINED


def same_float32(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Where two columns are the same number as float32, up to the last bit; NaN equals NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        a, b = np.asarray(one, np.float32), np.asarray(other, np.float32)
        near = np.abs(a - b) <= np.spacing(np.maximum(np.abs(a), np.abs(b)))
    return np.asarray((a == b) | near | (np.isnan(a) & np.isnan(b)))


def _known_too_late(versions: OfEntity, event: int, at: int, received: int) -> bool:
    """True if the value the join used was not known anywhere when the request came."""
    known = [v.known(event) for v in versions.get(event, []) if v.known(event) <= at]
    return bool(known) and max(known) > received


def _both(versions: OfEntity, logged: Side, joined: Side, at: int) -> Cause:
    used, wanted = logged.event, joined.event
    assert used is not None
    assert wanted is not None
    if used == wanted:
        return _same_event(versions.get(used, []), logged, at)
    if wanted - wanted % _SECOND == used and used not in versions:
        return Cause.CAST  # a store that keeps whole seconds
    if used < wanted:
        return Cause.STALE
    if used > at:
        return Cause.LATE_WRITE
    return _not_in_join(versions, used, at)


def _same_event(versions: list[Version], logged: Side, at: int) -> Cause:
    """Another version of the value, or the same one changed on the way."""
    known = [v for v in versions if v.created <= at]
    latest = max((v.created for v in known), default=None)
    alike = [v for v in versions if same_float32(v.values, logged.values).all()]
    if not alike:
        return Cause.CAST
    if all(v.created > at for v in alike):
        return Cause.LATE_WRITE
    if not any(v.created == latest for v in alike):
        return Cause.STALE
    tied = sum(v.created == latest for v in versions) > 1
    return Cause.TIE if tied else Cause.UNEXPLAINED


def _only_online(versions: OfEntity, used: int, reason: str | None, at: int) -> Cause:
    if used > at:
        return Cause.LATE_WRITE
    if reason == "expired":
        return Cause.EXPIRED
    return _not_in_join(versions, used, at)


def _not_in_join(versions: OfEntity, used: int, at: int) -> Cause:
    """The join passed over a value that online used, though it was true by then."""
    there = versions.get(used, [])
    if not there:
        return Cause.MISSING
    return Cause.LATE_WRITE if all(v.created > at for v in there) else Cause.UNEXPLAINED


def _only_joined(status: str | None) -> Cause:
    causes = {
        "expired": Cause.EXPIRED,
        "never_seen": Cause.MISSING,
        "future": Cause.OVERTAKEN,
        "unavailable": Cause.UNAVAILABLE,
    }
    return causes.get(status or "", Cause.UNEXPLAINED)


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return np.asarray(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
