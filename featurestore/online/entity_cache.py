"""Rows of hot entities, kept in this process for a bounded time.

What is kept is what the store said, event time included: a value is judged against its TTL at
every read, so a kept one never outlives it. What the cache can do is miss an update for as long as
``max_seconds``.
"""

import threading
import time
from collections.abc import Hashable, Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any

Entity = Hashable
"""What a row's join keys say: a value, or a tuple of values where there are several keys."""
_asked_at = itemgetter(0)


Kept = tuple[float, bytes, Sequence[Any]]
"""Of an entity: when the store was asked, by the monotonic clock; its row, as ``GroupDecoder``
makes it; the messages of all features that are no numbers."""


class EntityCache:
    """The latest rows read, by group and entity; safe to use from several threads.

    Rows are kept in two halves. New ones go into the younger half; when that is full, the older
    one is forgotten whole and the younger takes its place, so that forgetting costs nothing a row.
    """

    def __init__(self, max_seconds: float, max_rows: int) -> None:
        """Keep nothing yet.

        Args:
            max_seconds: how old a row may become, by the monotonic clock; 0: keep nothing.
            max_rows: how many rows are kept, of all groups together.
        """
        self._max_seconds, self._half = max_seconds, max(max_rows // 2, 1)
        self._lock = threading.Lock()
        self._identity: bytes | None = None
        self._younger: dict[int, dict[Entity, Kept]] = {}
        self._older: dict[int, dict[Entity, Kept]] = {}
        self._count = 0
        self.hits = 0
        """How many rows were found, each counted once a group."""
        self.misses = 0

    @property
    def is_on(self) -> bool:
        """Whether it keeps anything at all."""
        return self._max_seconds > 0

    def find(
        self, group: int, entities: Sequence[Entity], identity: bytes
    ) -> Sequence[Kept | None] | None:
        """What is kept of ``entities``, by row; None where it is nothing at all.

        Args:
            group: the position of their group.
            entities: by row, with duplicates.
            identity: of the layout that the rows must have.
        """
        oldest = time.monotonic() - self._max_seconds
        with self._lock:
            younger, older = self._younger.get(group, {}), self._older.get(group)
            found: list[Kept | None] = list(map(younger.get, entities))
            if older and None in found:
                pairs = zip(found, entities, strict=True)
                found = [older.get(entity) if kept is None else kept for kept, entity in pairs]
            if identity != self._identity:
                found = []
            elif None in found or min(map(_asked_at, found), default=oldest) < oldest:  # type: ignore[arg-type]
                found = [k if k is not None and k[0] >= oldest else None for k in found]
            missing = found.count(None) if found else len(entities)
            self.hits += len(entities) - missing
            self.misses += missing
        return found if missing < len(entities) else None

    def keep(
        self,
        group: int,
        entities: Sequence[Entity],
        rows: tuple[Sequence[bytes], Sequence[Sequence[Any]]],
        *,
        identity: bytes,
        asked_at: float,
    ) -> None:
        """Keep rows as the store said them.

        Args:
            group: the position of their group.
            entities: whose rows they are, each once.
            rows: one an entity, and the messages of each.
            identity: of the layout that the rows have; those of another one are forgotten.
            asked_at: when the store was asked, by the monotonic clock; ages count from then.
        """
        with self._lock:
            if identity != self._identity:
                self._younger, self._older, self._identity, self._count = {}, {}, identity, 0
            if self._count + len(entities) > self._half:
                self._older, self._younger, self._count = self._younger, {}, 0
            some = slice(0, self._half)
            kept = zip(repeat(asked_at), rows[0][some], rows[1][some], strict=False)
            self._younger.setdefault(group, {}).update(zip(entities[some], kept, strict=True))
            self._count += len(entities[some])

    def clear(self) -> None:
        """Forget all rows."""
        with self._lock:
            self._younger, self._older, self._count = {}, {}, 0
