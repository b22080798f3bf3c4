"""The values of a view, ordered once, so that any number of rows can ask what was known when.

An entity's values are kept in the order in which they became known. A row then needs one place in
that order: the last value known by its time; and from it the newest value until then. Rows and
values are brought together by merging two sorted runs of integers, in linear time.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

_MAX_BITS = 62
_ROWS_AT_ONCE = 1 << 19  # more would not fit the cache of a processor
_FEW_ROWS = 16  # from how many values a row on searching is cheaper than merging


@dataclass(frozen=True)
class History:
    """When the values of each entity became known, and which was the newest by then.

    A ``slot`` is an integer for an entity and a moment, ordered by entity and then by moment.
    """

    clock: "_Clock"
    slots: np.ndarray  # int64, sorted, shape (values,): entity and moment it became known
    newest: np.ndarray  # int64, shape (values,): position of the newest value known by the slot
    by_age: np.ndarray  # int64, shape (values,): positions by entity, then from old to new
    entity: np.ndarray  # int32, shape (all values,): -1 for a null key
    event: np.ndarray  # int64 microseconds, shape (all values,)
    known: np.ndarray  # the same, when each value could first be used

    @classmethod
    def of(cls, entity: np.ndarray, event: np.ndarray, created: np.ndarray | None) -> "History":
        """Order the values.

        Args:
            entity: int32, shape (values,): the number of each value's entity, -1 for a null key.
            event: int64, shape (values,): microseconds since 1970 at which a value is true.
            created: the same, when it was written; None: at its event time.
        """
        known = event if created is None else np.maximum(event, created)
        by_age = _oldest_first(entity, event, created)
        clock = _Clock.of(known, entities=int(entity.max(initial=0)) + 1)
        slots = clock.value_slots(entity[by_age], known[by_age])
        newest = by_age
        if not _ascends(slots):
            # Some value was written after a newer one of its entity. In order of becoming known,
            # the newest so far is a running maximum of the rank by age: ranks rise from entity to
            # entity, so the maximum starts afresh at each.
            by_known = np.argsort(slots, kind="stable")
            slots, newest = slots[by_known], by_age[np.maximum.accumulate(by_known)]
        return cls(clock, slots, newest, by_age, entity, event, known)

    def latest(self, entity: np.ndarray, at: np.ndarray) -> np.ndarray:
        """The position of the newest value known to each entity at each time, int64; -1: none.

        Args:
            entity: int32, shape (rows,); -1 for one without values.
            at: int64, shape (rows,): microseconds since 1970; fastest where it ascends.
        """
        found = np.full(len(at), -1, dtype=np.int64)
        if not len(self.slots):
            return found
        at_once = max(_ROWS_AT_ONCE, len(self.slots))
        for start in range(0, len(at), at_once):
            some = slice(start, start + at_once)
            found[some] = self._latest(entity[some], at[some])
        return found

    def _latest(self, entity: np.ndarray, at: np.ndarray) -> np.ndarray:
        nobody = self.clock.entities  # sorts last, and has no slots
        if entity.min(initial=0) < 0:
            entity = np.where(entity < 0, np.int32(nobody), entity)
        asked = self.clock.row_slots(entity, at)
        order = by_number(entity) if _ascends(at) else np.argsort(asked)
        asked = asked[order]
        slot = _count_below(self.slots, asked) - 1
        # Before an entity's first slot lies the last one of another, or nothing.
        hit = self.clock.same_entity(self.slots[slot], asked) & (slot >= 0)
        newest = self.newest[slot]
        newest[~hit] = -1
        found = np.empty(len(at), dtype=np.int64)
        found[order] = newest
        return found

    @property
    def last(self) -> np.ndarray:
        """The position of each entity's newest value, ascending."""
        ordered = self.entity[self.by_age]
        ends = np.append(ordered[1:] != ordered[:-1], True)[: len(ordered)]
        return np.sort(self.by_age[ends])

    @cached_property
    def firsts(self) -> tuple[np.ndarray, np.ndarray]:
        """The earliest event time of each entity, and when its first value became known."""
        ordered = self.entity[self.by_age]
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])
        if not len(starts):
            return self.event[:0], self.event[:0]
        return self.event[self.by_age[starts]], np.minimum.reduceat(self.known[self.by_age], starts)


@dataclass(frozen=True)
class _Clock:
    """Entities and moments as slots: the moment in the lower bits, the entity above.

    Moments are microseconds since the first, or, where these are too many, ranks.
    """

    entities: int
    first: int
    last: int
    bits: int
    moments: np.ndarray | None

    @classmethod
    def of(cls, known: np.ndarray, *, entities: int) -> "_Clock":
        first, last = (int(known.min()), int(known.max())) if len(known) else (0, 0)
        bits = (last - first + 1).bit_length()
        if bits + entities.bit_length() < _MAX_BITS:
            return cls(entities, first, last, bits, None)
        moments = np.unique(known)
        return cls(entities, first, last, len(moments).bit_length(), moments)

    def value_slots(self, entity: np.ndarray, known: np.ndarray) -> np.ndarray:
        """The slot of each value, int64, even; ``known`` is among the moments."""
        if self.moments is None:
            return self._slots(entity, known - (self.first - 1))
        return self._slots(entity, np.searchsorted(self.moments, known, side="right"))

    def row_slots(self, entity: np.ndarray, at: np.ndarray) -> np.ndarray:
        """The slot of each row, int64, odd: behind the values known at the same moment."""
        if self.moments is None:
            ticks = np.clip(at, self.first - 1, self.last) - (self.first - 1)
        else:
            ticks = np.searchsorted(self.moments, at, side="right")
        return self._slots(entity, ticks) + 1

    def same_entity(self, slots: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Whether two slots are of one entity."""
        return np.asarray((slots ^ others) < 1 << (self.bits + 1))

    def _slots(self, entity: np.ndarray, ticks: np.ndarray) -> np.ndarray:
        slots = entity.astype(np.int64)
        slots <<= self.bits
        slots += ticks
        slots <<= 1
        return slots


def by_number(numbers: np.ndarray) -> np.ndarray:
    """A stable order by numbers of int32, in linear time; -1 comes last.

    NumPy sorts integers of 8 and 16 bits by counting, so wider ones are sorted half by half.
    """
    largest = int(numbers.max(initial=0))
    if largest < 0xFF:
        return np.argsort(numbers.astype(np.uint8), kind="stable")
    order = np.argsort(numbers.astype(np.uint16), kind="stable")
    if largest >= 0xFFFF:
        high = (numbers >> 16).astype(np.uint16)
        order = order[np.argsort(high[order], kind="stable")]
    return order


def _oldest_first(entity: np.ndarray, event: np.ndarray, created: np.ndarray | None) -> np.ndarray:
    """Positions by entity, event, created and position; without those of null keys."""
    in_time = _ascends(event)
    if in_time:
        order = by_number(entity)
    else:
        by_event = np.argsort(event, kind="stable")
        order = by_event[by_number(entity[by_event])]
    order = order[: np.count_nonzero(entity >= 0)]
    if created is None or (in_time and _ascends(created)):
        return order
    if not _ties_ascend(entity[order], event[order], created[order]):
        order = order[np.lexsort((created[order], event[order], entity[order]))]
    return order


def _ties_ascend(entity: np.ndarray, event: np.ndarray, created: np.ndarray) -> bool:
    tie = (entity[1:] == entity[:-1]) & (event[1:] == event[:-1])
    return not np.any(tie & (created[1:] < created[:-1]))


def _ascends(numbers: np.ndarray) -> bool:
    return bool(np.all(numbers[1:] >= numbers[:-1]))


def _count_below(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """How many of the value slots lie before each of the row slots; both ascend."""
    if len(values) > _FEW_ROWS * len(rows):
        return np.searchsorted(values, rows)
    both = np.concatenate([values, rows])
    both.sort(kind="stable")  # two runs that ascend: this merges them
    places = np.flatnonzero(both & 1)
    places -= np.arange(len(rows))
    return places
