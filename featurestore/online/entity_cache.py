"""Rows of hot entities, kept in this process for a bounded time.

What is kept is what the store said, event time included: a value is judged against its TTL at
every read, so a kept one never outlives it. What the cache can do is miss an update for as long as
``max_seconds``.
"""

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any


class EntityCache:
    """The latest rows read, by entity; safe to use from several threads."""

    def __init__(self, max_seconds: float, max_rows: int) -> None:
        """Keep nothing yet.

        Args:
            max_seconds: how old a row may become, by the monotonic clock; 0: keep nothing.
            max_rows: how many rows are kept; of more, the one kept longest goes.
        """
        self._max_seconds, self._max_rows = max_seconds, max_rows
        self._lock = threading.Lock()
        self._rows: dict[Any, tuple[float, list[Any]]] = {}
        self.hits = 0
        self.misses = 0

    @property
    def is_on(self) -> bool:
        """Whether it keeps anything at all."""
        return self._max_seconds > 0

    def find(self, entities: Iterable[Any]) -> dict[Any, list[Any]]:
        """The rows kept of ``entities``, by entity."""
        oldest = time.monotonic() - self._max_seconds
        found, asked = {}, 0
        with self._lock:
            for entity in entities:
                asked += 1
                kept = self._rows.get(entity)
                if kept is not None and kept[0] >= oldest:
                    found[entity] = kept[1]
            self.hits += len(found)
            self.misses += asked - len(found)
        return found

    def keep(self, entities: Sequence[Any], rows: Sequence[list[Any]], asked_at: float) -> None:
        """Keep rows as the store said them.

        Args:
            entities: whose rows they are.
            rows: one an entity.
            asked_at: when the store was asked, by the monotonic clock; ages count from then.
        """
        with self._lock:
            for entity, row in zip(entities, rows, strict=True):
                self._rows.pop(entity, None)  # to the end: the one kept longest stands first
                self._rows[entity] = (asked_at, row)
            while len(self._rows) > self._max_rows:
                del self._rows[next(iter(self._rows))]

    def clear(self) -> None:
        """Forget all rows."""
        with self._lock:
            self._rows.clear()
