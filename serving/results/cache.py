"""Results that were computed before, in this process and, where told so, in Redis.

The keys of a batch are looked up together: first here, then what is missing in Redis, in one round
trip. Off by default: then there is no cache at all, and nothing is looked up.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from serving.results.shared import SharedResults

_ENTRY_BYTES = 330
"""What an entry takes beside its key and its record: the objects that hold them (measured)."""


@dataclass
class Counted:
    """How often results were found. Changed under the cache's lock alone."""

    hits: int = 0
    """Rows found in this process."""
    shared_hits: int = 0
    """Rows found in Redis."""
    misses: int = 0
    """Rows found nowhere."""

    @property
    def rate(self) -> float | None:
        """The share of rows that were found; None before the first was looked up."""
        found = self.hits + self.shared_hits
        asked = found + self.misses
        return found / asked if asked else None


class ResultCache:
    """Results by key; the least recently used leave first. Safe to use from several threads."""

    def __init__(
        self, capacity_bytes: int, seconds: float, shared: SharedResults | None = None
    ) -> None:
        """Keep nothing yet.

        Args:
            capacity_bytes: what keys, records and the objects that hold them may take.
            seconds: how long a result is used at most.
            shared: where several servers share what they computed.
        """
        self.capacity_bytes, self.seconds, self.shared = capacity_bytes, seconds, shared
        self.bytes = 0
        self.counted = Counted()
        self._kept: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def find(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the record of each key that is kept here and has not expired."""
        now, kept = time.monotonic(), self._kept
        found: list[bytes | None] = []
        with self._lock:
            for key in keys:
                entry = kept.get(key)
                if entry is None or entry[0] <= now:
                    found.append(None)
                else:
                    kept.move_to_end(key)
                    found.append(entry[1])
        return found

    def keep(
        self, keys: Sequence[bytes], records: Sequence[bytes], seconds: Sequence[float]
    ) -> None:
        """Keep records for some time each; those of 0 seconds are not kept."""
        now, kept = time.monotonic(), self._kept
        with self._lock:
            for key, record, left in zip(keys, records, seconds, strict=True):
                if left <= 0:
                    continue
                if (old := kept.pop(key, None)) is not None:
                    self.bytes -= _size(key, old[1])
                kept[key] = now + left, record
                self.bytes += _size(key, record)
            while self.bytes > self.capacity_bytes:
                key, (_, record) = kept.popitem(last=False)
                self.bytes -= _size(key, record)

    def count(self, *, hits: int = 0, shared_hits: int = 0, misses: int = 0) -> None:
        """Count what a batch found."""
        with self._lock:
            self.counted.hits += hits
            self.counted.shared_hits += shared_hits
            self.counted.misses += misses


def _size(key: bytes, record: bytes) -> int:
    return len(key) + len(record) + _ENTRY_BYTES
