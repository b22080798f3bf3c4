"""From the rows of entities to values, statuses and event times at each row's moment."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from featurestore.errors import FeatureNotMaterialized
from featurestore.freshness import ReadStatus, has_value, oldest_age
from featurestore.online.column_block import ColumnBlock
from featurestore.online.read_layout import ReadLayout
from featurestore.online.source import Group, Source, objects_of
from featurestore.online.wanted import EntityRows
from featurestore.wire.values import decode_object
from headrace.plan import FeaturePlan

_WORD, _NUMBER = np.dtype("<i8"), np.dtype("<f8")
_TIME = np.dtype("datetime64[us]")
_NO_TIME = np.datetime64("NaT", "us")


class OnlineRows(NamedTuple):
    """What the online store holds for each row of a micro-batch."""

    columns: Mapping[str, np.ndarray]
    """``<view>__<feature>``: float64, shape (rows,), NaN where there is no value; Python objects,
    None where there is none, for features that are no numbers."""
    status: Mapping[str, np.ndarray]
    """By view: uint8, shape (rows,): ``ReadStatus``."""
    event_times: Mapping[str, np.ndarray]
    """By view: datetime64[us], shape (rows,): of the value used; NaT where there is none."""


class _Object(NamedTuple):
    """Where the messages of a feature that is no number are."""

    column: str
    dtype: str
    view: int  # its position among all views
    group: int
    place: int  # among the messages of an entity


class RowJudge:
    """Says which values the rows of one plan may use; what can be made ready once is made here."""

    def __init__(self, plan: FeaturePlan, groups: Sequence[Group], source: Source) -> None:
        """Prepare for rows of all groups, one after the other."""
        self._source = source
        views = [view for group in groups for view in group.views]
        places = {view.view: position for position, view in enumerate(views)}
        self._by_view = {view.view: places[view.view] for view in plan.views}
        self._objects = list(_objects(groups, places))
        numbers = [(view.view, name) for view in plan.views for name in view.number_columns]
        self._columns = {name: position for position, (_, name) in enumerate(numbers)}
        self._view_of_number = np.array([places[view] for view, _ in numbers], np.int64)
        self._oldest_ages = [oldest_age(view) for view in views]
        self._oldest = np.array(self._oldest_ages, np.int64)
        self._expired = np.array(
            [ReadStatus.LAST_KNOWN if v.last_known else ReadStatus.EXPIRED for v in views], np.uint8
        )

    def judge(
        self, layout: ReadLayout, groups: Sequence[EntityRows], moments: np.ndarray
    ) -> OnlineRows:
        """Return what each row may use at its moment.

        Args:
            layout: which the rows have.
            groups: by group the rows of entities, one a row of the batch.
            moments: int64 microseconds, shape (rows,).

        Raises:
            StoredValueBroken: if a message is damaged.
            FeatureNotMaterialized: if Feast's own row lacks a feature.
        """
        if not groups:
            return self.unavailable(len(moments))  # no views: nothing can be
        data = b"".join(chain.from_iterable(zip(*[group.rows for group in groups], strict=True)))
        if len(moments) == 1 and not self._objects:
            row = self._judge_one(layout, data, int(moments[0]))
            if row is not None:
                return row
        words = np.frombuffer(data, _WORD).reshape(len(moments), -1 if data else layout.words)
        marks, event, at = (
            words.take(layout.starts, 1),
            words.take(layout.events, 1),
            moments[:, None],
        )
        status = np.where(marks == layout.tags, 0, marks).astype(np.uint8)
        late = np.maximum(event, words.take(layout.created, 1)) > at
        unusable = (at - event > self._oldest) | late
        values = words.view(_NUMBER).take(layout.values, 1)
        if _any(unusable):
            unusable &= status == ReadStatus.PRESENT
            np.copyto(status, self._expired, where=unusable)
            status[unusable & late] = ReadStatus.FUTURE
        times = event.view(_TIME)
        if _any(status):
            absent = ~has_value(status)
            values[absent[:, self._view_of_number]] = np.nan
            times[absent] = _NO_TIME
        return self._rows(values, status, times, groups)

    def _judge_one(self, layout: ReadLayout, data: bytes, at: int) -> OnlineRows | None:
        """The only row of a batch, where all its values are there and may be used; else None.

        Plain integers cost a third of what arrays of one row do.
        """
        words, times = iter(layout.header.unpack(data)), []
        headers = zip(words, words, words, layout.tag_bytes, self._oldest_ages, strict=True)
        for tag, event, created, wanted, oldest in headers:
            if tag != wanted or event > at or created > at or at - event > oldest:
                return None
            times.append(event)
        return OnlineRows(
            ColumnBlock(self._columns, np.frombuffer(data, _NUMBER).take(layout.values)[None]),
            ColumnBlock(self._by_view, np.zeros((1, len(times)), np.uint8)),
            ColumnBlock(self._by_view, np.array([times], _WORD).view(_TIME)),
        )

    def unavailable(self, rows: int) -> OnlineRows:
        """The rows where the store could not be asked at all."""
        views = len(self._by_view)
        status = np.full((rows, views), ReadStatus.UNAVAILABLE, dtype=np.uint8)
        values = np.full((rows, len(self._columns)), np.nan)
        return self._rows(values, status, np.full((rows, views), _NO_TIME), ())

    def _rows(
        self,
        values: np.ndarray,
        status: np.ndarray,
        times: np.ndarray,
        groups: Sequence[EntityRows],
    ) -> OnlineRows:
        objects = {
            wanted.column: self._decode_objects(wanted, groups, status[:, wanted.view])
            for wanted in self._objects
        }
        return OnlineRows(
            ColumnBlock(self._columns, values, objects),
            ColumnBlock(self._by_view, status),
            ColumnBlock(self._by_view, times),
        )

    def _decode_objects(
        self, wanted: _Object, groups: Sequence[EntityRows], status: np.ndarray
    ) -> np.ndarray:
        found = np.full(len(status), None, dtype=object)
        for row in np.flatnonzero(has_value(status)).tolist():
            message = groups[wanted.group].objects[row][wanted.place]
            if message is None:
                raise FeatureNotMaterialized(f"feature {wanted.column}", self._source.place)
            found[row] = decode_object(message, wanted.dtype, wanted.column)
        return found


def _any(flags: np.ndarray) -> bool:
    """``flags.any()``, at a fifth of its cost for a small array."""
    return flags.tobytes().count(0) != flags.size


def _objects(groups: Sequence[Group], places: Mapping[str, int]) -> list[_Object]:
    found = []
    for number, group in enumerate(groups):
        place = 0
        for view in group.views:
            dtypes = {feature.name: str(feature.dtype) for feature in view.features}
            for name in objects_of(view):
                column = f"{view.view}__{name}"
                found.append(_Object(column, dtypes[name], places[view.view], number, place))
                place += 1
    return found
