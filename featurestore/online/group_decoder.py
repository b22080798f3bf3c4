"""From what a store said of a group's entities to rows that can be kept and judged.

A row is the packed rows of all views of the group, one after the other. Where the tag stands there
is the one of the layout if the values count, otherwise a ``ReadStatus`` that says why they do not.
"""

from collections.abc import Callable, Sequence
from itertools import chain, compress
from typing import Any

import numpy as np

from featurestore.errors import FeatureNotMaterialized, StoredValueBroken
from featurestore.freshness import ReadStatus
from featurestore.online.packed_cells import Cells, filled
from featurestore.online.read_layout import GroupLayout
from featurestore.online.source import (
    NOTHING,
    Group,
    Reply,
    Source,
    numbers_of,
    objects_of,
)
from featurestore.online.trips import Steps
from featurestore.online.wanted import EntityRows
from featurestore.stores.packed import HEADER_BYTES
from featurestore.wire.numbers import decode_numbers

_NUMBER = np.dtype("<f8")
_STAMP, _PACKED, _MESSAGE = 0, 1, 2
FeastRow = tuple[int, int, list[bytes]]
"""Event and created time, a message for each number feature."""
EntityKeyOf = Callable[[int], bytes]
"""The entity key of the entity at a place of a batch."""


class GroupDecoder:
    """Decodes the replies about entities of one group."""

    def __init__(self, group: Group, source: Source) -> None:
        """Prepare for replies as a source makes them for the group."""
        self._group, self._source = group, source
        kinds: list[int] = []  # of the parts of a reply, in their order
        for view in group.views:
            kinds += [_STAMP, _PACKED, *[_MESSAGE] * len(objects_of(view))]
        self._has_objects = _MESSAGE in kinds
        self.no_objects: Sequence[Any] = [None] * kinds.count(_MESSAGE)
        """The messages of an entity that has none."""
        self._parts = [[kind == wanted for kind in kinds] for wanted in range(3)]

    def decode(
        self,
        layout: GroupLayout,
        replies: Sequence[Reply],
        entity_key: EntityKeyOf,
        *,
        last_try: bool,
    ) -> Steps[EntityRows | None]:
        """Return the rows of entities.

        Args:
            layout: the views as the store has them.
            replies: one an entity.
            entity_key: needed where Feast's own rows must be read.
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
        said, packed, objects = self._apart(replies)
        shape = len(replies), len(self._group.views)
        stamps = self._source.stamps(said).reshape(shape)
        cells = self._cells(layout, packed, stamps)
        status = np.zeros(shape, np.uint8)
        if 0 not in cells.usable.tobytes() and layout.earlier is None:
            return _rows(cells.words, objects)
        if not last_try and (cells.current & ~cells.tagged).any():
            return None
        cells = cells._replace(words=cells.words.copy())
        yield from self._settle(cells, status, layout, entity_key)
        is_present = status == ReadStatus.PRESENT
        cells.words[:, layout.starts] = np.where(is_present, layout.tags, status)
        return _rows(cells.words, objects)

    def _apart(
        self, replies: Sequence[Reply]
    ) -> tuple[list[Any], list[bytes | None], list[list[Any]]]:
        """Stamps and packed rows by entity and view, and the messages by entity."""
        if not self._has_objects:
            flat = list(chain.from_iterable(replies))
            return flat[::2], flat[1::2], [[]] * len(replies)
        stamps, packed, messages = (
            [list(compress(reply, part)) for reply in replies] for part in self._parts
        )
        return list(chain.from_iterable(stamps)), list(chain.from_iterable(packed)), messages

    def _cells(self, layout: GroupLayout, packed: list[bytes | None], stamps: np.ndarray) -> Cells:
        rows = filled(layout, packed)
        cells = Cells.of(layout, rows, stamps, self._source)
        # A row of another length shifts what follows it: then look at each row by itself.
        if cells is None or (
            0 in cells.usable.tobytes() and list(map(len, rows)) != layout.lengths * len(stamps)
        ):
            rows = [self._checked(layout, place, row) for place, row in enumerate(rows)]
            cells = Cells.of(layout, rows, stamps, self._source)
        assert cells is not None
        return cells

    def _checked(self, layout: GroupLayout, place: int, row: bytes) -> bytes:
        """The packed row; one of another generation with the length of this one."""
        position = place % len(layout.blanks)
        blank = layout.blanks[position]
        if not isinstance(row, bytes):
            row = str(row).encode()
        if len(row) == len(blank):
            return row
        if len(row) < HEADER_BYTES or row[:8] == layout.tags[position].tobytes():
            what = f"a row of view {self._group.views[position].view}"
            raise StoredValueBroken(what, f"packed row of {len(blank)} bytes", row)
        return row[:HEADER_BYTES] + blank[HEADER_BYTES:]

    def _settle(
        self, cells: Cells, status: np.ndarray, layout: GroupLayout, entity_key: EntityKeyOf
    ) -> Steps[None]:
        """Say of each cell that is not usable as it is what it is, and read it anew if need be."""
        status[cells.stamps == NOTHING] = ReadStatus.NEVER_SEEN
        status[cells.current & ~cells.tagged] = ReadStatus.NEVER_SEEN  # of an earlier generation
        # A packed row without Feast's own, or with another time: another Feast client was here.
        anew = ~cells.current & ((cells.stamps != NOTHING) | cells.tagged)
        for view in np.flatnonzero(anew.any(axis=0)).tolist():
            places = np.flatnonzero(anew[:, view])
            keys = [entity_key(place) for place in places.tolist()]
            found = yield from self._source.messages(self._group.views[view], keys)
            there = np.array([row is not None for row in found])
            status[places, view] = np.where(there, ReadStatus.PRESENT, ReadStatus.NEVER_SEEN)
            rows = [row for row in found if row is not None]
            self._put_feasts(cells, view, layout, places=places[there], found=rows)
        for view in layout.loading:
            if (status[:, view] == ReadStatus.NEVER_SEEN).any():
                name = self._group.views[view].view
                what = f"all of feature view {name}, which is being written anew,"
                raise FeatureNotMaterialized(what, self._source.place)

    def _put_feasts(
        self,
        cells: Cells,
        position: int,
        layout: GroupLayout,
        *,
        places: np.ndarray,
        found: Sequence[FeastRow],
    ) -> None:
        """Put Feast's own rows of a view in the places of its packed ones."""
        view, start = self._group.views[position], int(layout.starts[position])
        cells.words[places, start + 1] = [row[0] for row in found]
        cells.words[places, start + 2] = [row[1] for row in found]
        dtypes = {feature.name: feature.dtype for feature in view.features}
        for number, name in enumerate(numbers_of(view)):
            messages = [row[2][number] for row in found]
            values = decode_numbers(messages, dtypes[name], f"{name} of view {view.view}")
            column = layout.columns[position][name]
            cells.words[places, column] = values.astype(_NUMBER, copy=False).view("<i8")


def _rows(words: np.ndarray, objects: list[list[Any]]) -> EntityRows:
    return EntityRows([row.tobytes() for row in words], objects)
