"""What waits for one model, and what its batches cost.

A batch is whatever arrived in one turn of the event loop, or while the batch before it was busy:
nothing waits for a timer, and the more there is to do, the larger the batches become.
"""

from serving.inputs import Inputs
from serving.query import Query

_WEIGHT = 0.1
"""How much the newest measurement counts in a moving average."""
_SIZES = 40
"""Kinds of batches, by the number of binary digits of their rows."""


class Cost:
    """What batches cost by their rows: moving averages, measured while serving.

    A call costs something and each row costs something, so a row in a large batch is cheaper than
    alone. Batches of about the same size (within a factor of two) are measured together.
    """

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds: list[float | None] = [None] * _SIZES  # a row's, by size

    def measured(self, rows: int, seconds: float) -> None:
        """Take in that a batch of ``rows`` rows took ``seconds``."""
        size, newest = rows.bit_length(), seconds / rows
        known = self._seconds[size]
        self._seconds[size] = newest if known is None else known + _WEIGHT * (newest - known)

    def seconds(self, rows: int) -> float:
        """How long a batch of ``rows`` rows takes at most; infinity where nothing is known.

        A size that was never seen is told by the next smaller one, whose rows cost more.
        """
        for size in range(rows.bit_length(), 0, -1):
            if (known := self._seconds[size]) is not None:
                return known * rows
        return float("inf")

    def most_rows(self, seconds: float, batch_rows: int) -> float:
        """How many rows surely take longer than ``seconds`` by what was measured; else infinity.

        Args:
            seconds: how long they may take.
            batch_rows: most rows in a batch.
        """
        largest = batch_rows.bit_length()
        bound = float("inf")
        for size in range(largest, 0, -1):
            known = self._seconds[size]
            if known is None:
                continue
            fitting = seconds / known
            if size == largest or fitting < 1 << size:
                bound = fitting
            if fitting >= 1 << (size - 1):
                return bound
        return bound


class Waiting:
    """Queries that wait, in order of arrival."""

    __slots__ = ("queries", "rows")

    def __init__(self) -> None:
        self.queries: list[Query] = []
        self.rows = 0

    def take(self, most_rows: int) -> list[Query]:
        """Take off what makes one batch: at most so many rows, but at least one query."""
        taken = self.queries
        if self.rows <= most_rows:
            self.queries, self.rows = [], 0
            return taken
        rows, count = taken[0].rows, 1
        while count < len(taken) and rows + taken[count].rows <= most_rows:
            rows += taken[count].rows
            count += 1
        self.queries, self.rows = taken[count:], self.rows - rows
        return taken[:count]


class ModelQueue:
    """The queries that wait for one model, and what is known of it.

    Holds no reference to the model but through them: an old model is freed with its last query.
    """

    __slots__ = ("busy_rows", "cost", "due", "keyed", "most_rows", "pace", "raw", "reads", "ready")

    def __init__(self) -> None:
        self.raw = Waiting()
        """Raw features, not begun."""
        self.keyed = Waiting()
        """Entity keys, not begun."""
        self.ready: list[Inputs] = []
        """Batches that wait for the model alone."""
        self.due = False
        """Whether a turn is scheduled."""
        self.reads = 0
        """Batches whose features are being read."""
        self.busy_rows = 0
        """Rows that a thread computes now."""
        self.cost = Cost()
        """Of the model's call: whether it may be made on the loop."""
        self.pace = Cost()
        """Of a batch from its beginning to its last answer: how long those behind it wait."""
        self.most_rows = float("inf")
        """More rows than these would wait for too long."""
