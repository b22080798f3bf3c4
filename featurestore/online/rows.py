"""From what a store said of a micro-batch's entities to values, statuses and event times."""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from featurestore.errors import FeatureNotMaterialized, StoredValueBroken
from featurestore.freshness import ReadStatus, oldest_age
from featurestore.online.column_block import ColumnBlock
from featurestore.online.packed_cells import Cells, filled
from featurestore.online.read_layout import ReadLayout
from featurestore.online.source import (
    NOTHING,
    UNKNOWN,
    Group,
    Reply,
    Source,
    numbers_of,
    objects_of,
)
from featurestore.online.trips import Steps
from featurestore.stores.packed import HEADER_BYTES
from featurestore.wire.numbers import decode_numbers
from featurestore.wire.values import decode_object
from headrace.plan import FeaturePlan, ViewRead

_WORD, _NUMBER = np.dtype("<i8"), np.dtype("<f8")
_TIME = np.dtype("datetime64[us]")
_NO_TIME = np.datetime64("NaT", "us")
_PRESENT = int(ReadStatus.PRESENT)


class OnlineRows(NamedTuple):
    """What the online store holds for each row of a micro-batch."""

    columns: Mapping[str, np.ndarray]
    """``<view>__<feature>``: float64, shape (rows,), NaN where there is no value; Python objects,
    None where there is none, for features that are no numbers."""
    status: Mapping[str, np.ndarray]
    """By view: uint8, shape (rows,): ``ReadStatus``."""
    event_times: Mapping[str, np.ndarray]
    """By view: datetime64[us], shape (rows,): of the value used; NaT where there is none."""


class RowDecoder:
    """Decodes replies of one plan's views; everything that can be made ready once is made here."""

    def __init__(self, plan: FeaturePlan, groups: Sequence[Group], source: Source) -> None:
        """Prepare for replies of all groups, one after the other."""
        self._source = source
        self.views = tuple(view for group in groups for view in group.views)
        """In the order of the replies; a view's position is the one in here."""
        places = {view.view: position for position, view in enumerate(self.views)}
        self._by_view = {view.view: places[view.view] for view in plan.views}
        self._objects = _object_places(self.views)
        starts = _starts(self.views)
        self._stamps, self._packed = _picker(starts), _picker([start + 1 for start in starts])
        numbers = [(view.view, name) for view in plan.views for name in view.number_columns]
        self._columns = {name: position for position, (_, name) in enumerate(numbers)}
        self._view_of_number = np.array([self._by_view[view] for view, _ in numbers], np.int64)
        self._oldest_ages = [oldest_age(view) for view in self.views]
        self._oldest = np.array(self._oldest_ages, np.int64)

    def decode(
        self,
        layout: ReadLayout,
        replies: Sequence[Reply],
        moments: np.ndarray,
        entity_key: Callable[[int, int], bytes],
        *,
        last_try: bool,
    ) -> Steps[OnlineRows | None]:
        """Return the values of each row at its moment.

        Args:
            layout: the views as the store has them.
            replies: by row, those of all groups joined.
            moments: int64 microseconds, shape (rows,).
            entity_key: the entity's key, by row and position of the view.
            last_try: take rows of another generation of a view for rows that are not there.

        Returns:
            None if there are rows of another generation, and it is not the last try: the layout
            may be an old one.

        Raises:
            StoredValueBroken: if a packed row or a message is damaged.
            FeatureNotMaterialized: if Feast's own row lacks a feature, or a row is not there while
                its view is being written from the start.
            OnlineStoreFailed: if Feast's own rows are needed and cannot be read.
        """
        if len(replies) == 1 and not self._objects:
            rows = self._decode_one(layout, replies[0], int(moments[0]))
            if rows is not None:
                return rows
        shape = (len(replies), len(self.views))
        said = list(chain.from_iterable(replies))
        if self._objects:
            packed = list(chain.from_iterable(map(self._packed, replies)))
            said = list(chain.from_iterable(map(self._stamps, replies)))
        else:
            packed, said = said[1::2], said[::2]
        stamps = np.fromiter(map(self._source.stamp, said), _WORD, len(said)).reshape(shape)
        cells = self._cells(layout, packed, stamps)
        status = np.zeros(stamps.shape, dtype=np.uint8)
        if not _all(cells.usable):
            if not last_try and (cells.current & ~cells.tagged).any():
                return None
            yield from self._settle(cells, status, layout, entity_key)
        event, at = cells.event, moments[:, None]
        late = np.maximum(event, cells.created) > at
        unusable = (at - event > self._oldest) | late
        if _any(unusable):
            unusable &= status == _PRESENT
            status[unusable] = ReadStatus.EXPIRED
            status[unusable & late] = ReadStatus.FUTURE
        times = event.view(_TIME)
        if _any(status):
            absent = status != _PRESENT
            cells.values[absent[:, self._view_of_number]] = np.nan
            times[absent] = _NO_TIME
        return self._rows(cells.values, status, times, replies)

    def _decode_one(self, layout: ReadLayout, reply: Reply, at: int) -> OnlineRows | None:
        """The only row of a batch, where all its values are there and may be used; else None.

        The most frequent read. Plain integers cost a third of what arrays of one row do.
        """
        packed = reply[1::2]
        if not all(type(row) is bytes for row in packed):
            return None
        if [len(row) for row in packed] != layout.lengths:
            return None
        data = b"".join(packed)
        words = iter(layout.header.unpack(data))
        headers = zip(
            words, words, words, layout.tag_bytes, reply[::2], self._oldest_ages, strict=True
        )
        stamp, expected_stamp, times = self._source.stamp, self._source.expected_stamp, []
        for tag, event, created, wanted, said, oldest in headers:
            usable = event <= at and created <= at and at - event <= oldest
            if tag != wanted or not usable or stamp(said) != expected_stamp(event, created):
                return None
            times.append(event)
        return OnlineRows(
            ColumnBlock(self._columns, np.frombuffer(data, _NUMBER).take(layout.values)[None]),
            ColumnBlock(self._by_view, np.zeros((1, len(times)), np.uint8)),
            ColumnBlock(self._by_view, np.array([times], _WORD).view(_TIME)),
        )

    def unavailable(self, rows: int) -> OnlineRows:
        """The rows where the store could not be asked at all."""
        views = len(self.views)
        status = np.full((rows, views), ReadStatus.UNAVAILABLE, dtype=np.uint8)
        values = np.full((rows, len(self._columns)), np.nan)
        return self._rows(values, status, np.full((rows, views), _NO_TIME), [])

    def _cells(self, layout: ReadLayout, packed: list[bytes | None], stamps: np.ndarray) -> Cells:
        rows = filled(layout, packed)
        cells = Cells.of(layout, rows, stamps, self._source)
        # A row of another length shifts what follows it: then look at each row by itself.
        if cells is None or (
            not _all(cells.usable) and list(map(len, rows)) != layout.lengths * len(stamps)
        ):
            rows = [self._checked(layout, place, row) for place, row in enumerate(rows)]
            cells = Cells.of(layout, rows, stamps, self._source)
        assert cells is not None
        return cells

    def _checked(self, layout: ReadLayout, place: int, row: bytes) -> bytes:
        """The packed row; one of another generation with the length of this one."""
        position = place % len(layout.blanks)
        blank = layout.blanks[position]
        if not isinstance(row, bytes):
            row = str(row).encode()
        if len(row) == len(blank):
            return row
        if len(row) < HEADER_BYTES or row[:8] == layout.tags[position].tobytes():
            what = f"a row of view {self.views[position].view}"
            raise StoredValueBroken(what, f"packed row of {len(blank)} bytes", row)
        return row[:HEADER_BYTES] + blank[HEADER_BYTES:]

    def _rows(
        self, values: np.ndarray, status: np.ndarray, times: np.ndarray, replies: Sequence[Reply]
    ) -> OnlineRows:
        objects = {
            column: self._decode_objects(column, dtype, replies, place, status[:, view])
            for column, dtype, view, place in self._objects
        }
        return OnlineRows(
            ColumnBlock(self._columns, values, objects),
            ColumnBlock(self._by_view, status),
            ColumnBlock(self._by_view, times),
        )

    def _decode_objects(
        self, column: str, dtype: str, replies: Sequence[Reply], place: int, status: np.ndarray
    ) -> np.ndarray:
        found = np.full(len(status), None, dtype=object)
        for row in np.flatnonzero(status == ReadStatus.PRESENT).tolist():
            message = replies[row][place]
            if message is None:
                raise FeatureNotMaterialized(f"feature {column}", self._source.place)
            found[row] = decode_object(message, dtype, column)
        return found

    def _settle(
        self,
        cells: Cells,
        status: np.ndarray,
        layout: ReadLayout,
        entity_key: Callable[[int, int], bytes],
    ) -> Steps[None]:
        """Say of each cell that is not usable as it is what it is, and read it anew if need be."""
        status[cells.stamps == NOTHING] = ReadStatus.NEVER_SEEN
        status[cells.stamps == UNKNOWN] = ReadStatus.UNAVAILABLE
        status[cells.current & ~cells.tagged] = ReadStatus.NEVER_SEEN  # of an earlier generation
        unknown = status == ReadStatus.UNAVAILABLE
        # A packed row without Feast's own, or with another time: another Feast client was here.
        seen = (cells.stamps != NOTHING) | cells.tagged
        for view in np.flatnonzero((~cells.current & seen & ~unknown).any(axis=0)).tolist():
            rows = np.flatnonzero(~cells.current[:, view] & seen[:, view] & ~unknown[:, view])
            yield from self._read_feasts(cells, status, view, rows, entity_key)
        for view in layout.loading:
            if (status[:, view] == ReadStatus.NEVER_SEEN).any():
                what = f"all of feature view {self.views[view].view}, which is being written anew,"
                raise FeatureNotMaterialized(what, self._source.place)

    def _read_feasts(
        self,
        cells: Cells,
        status: np.ndarray,
        position: int,
        rows: np.ndarray,
        entity_key: Callable[[int, int], bytes],
    ) -> Steps[None]:
        view = self.views[position]
        keys = [entity_key(row, position) for row in rows.tolist()]
        found = yield from self._source.messages(view, keys)
        there = np.array([row is not None for row in found])
        status[rows[~there], position] = ReadStatus.NEVER_SEEN
        kept, rows = [row for row in found if row is not None], rows[there]
        status[rows, position] = ReadStatus.PRESENT
        cells.event[rows, position] = [row[0] for row in kept]
        cells.created[rows, position] = [row[1] for row in kept]
        dtypes = {feature.name: feature.dtype for feature in view.features}
        for number, name in enumerate(numbers_of(view)):
            column = f"{view.view}__{name}"
            messages = [row[2][number] for row in kept]
            values = decode_numbers(messages, dtypes[name], f"{name} of view {view.view}")
            cells.values[rows, self._columns[column]] = values


def _all(flags: np.ndarray) -> bool:
    """``flags.all()`` of a C-contiguous array, at a fifth of its cost for a small one."""
    return 0 not in flags.tobytes()


def _any(flags: np.ndarray) -> bool:
    return flags.tobytes().count(0) != flags.size


def _starts(views: Sequence[ViewRead]) -> list[int]:
    """Where in the joined replies each view begins."""
    sizes = [2 + len(objects_of(view)) for view in views]
    return [sum(sizes[:position]) for position in range(len(views))]


def _object_places(views: Sequence[ViewRead]) -> list[tuple[str, str, int, int]]:
    """Of each feature that is no number: column, type, position of its view, place in replies."""
    places = []
    for position, (view, start) in enumerate(zip(views, _starts(views), strict=True)):
        dtypes = {feature.name: str(feature.dtype) for feature in view.features}
        for number, name in enumerate(objects_of(view), start + 2):
            places.append((f"{view.view}__{name}", dtypes[name], position, number))
    return places


def _picker(places: Sequence[int]) -> Callable[[Reply], Sequence[Any]]:
    """A function that picks several places of a reply."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda reply: [reply[place] for place in places]
