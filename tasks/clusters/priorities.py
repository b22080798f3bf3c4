"""Which job goes first where several share a scheduler: urgent ones overtake, none starves.

A shard's rank is the moment until which it may wait: urgent ones may not wait at all, normal ones
ten minutes, low ones an hour. The scheduler gives work out in the order of these moments. So an
urgent shard goes before every normal one that came less than ten minutes ahead of it, and a low one
that has waited for an hour goes before every urgent shard that comes after: it has aged, although
nobody touches its rank again. Because only a few shards a worker are under way, an urgent job gets
the next free worker within a shard's time.

The order is that of "earliest deadline first" (Liu and Layland, 1973). Moments are on the
scheduler's own monotonic clock, so clients need no common time.
"""

import time
from collections.abc import Mapping
from typing import Literal

Priority = Literal["urgent", "normal", "low"]

PATIENCE_SECONDS: dict[Priority, float] = {"urgent": 0.0, "normal": 600.0, "low": 3600.0}
"""How long a shard of each kind may be overtaken."""


class Ranks:
    """Dask priorities for shards that are submitted now; Dask runs the highest first."""

    def __init__(
        self, scheduler_clock: float, patience: Mapping[Priority, float] = PATIENCE_SECONDS
    ) -> None:
        """``scheduler_clock`` is ``time.monotonic()`` on the scheduler, asked just now."""
        self._offset = scheduler_clock - time.monotonic()
        self._patience = patience

    def rank(self, priority: Priority) -> float:
        """The rank of a shard that is submitted now: higher is sooner."""
        return rank(time.monotonic() + self._offset, priority, self._patience)


def rank(
    now: float, priority: Priority, patience: Mapping[Priority, float] = PATIENCE_SECONDS
) -> float:
    """The rank of a shard submitted at ``now`` seconds.

    A low shard that came over an hour ago goes before an urgent one that comes now:

    >>> rank(0.0, "low") > rank(3601.0, "urgent")
    True

    Until then it is overtaken:

    >>> rank(0.0, "low") > rank(3599.0, "urgent")
    False
    """
    return -(now + patience[priority])
