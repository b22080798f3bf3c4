"""What an edge asks of the data plane, and what it gets back; no HTTP, no arithmetic.

An edge makes a ``Query`` of a request, hands it to ``DataPlane.submit`` and gets an ``Answer`` or
an error. Both are made once for every request of the hot path, so they hold references and little
else: an answer points at the rows of its batch, and cuts them out only when it is asked for them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from featurestore.freshness import ReadStatus
from headrace.errors import HeadraceError

if TYPE_CHECKING:
    from serving.schema import Rows
    from serving.served import ServedModel

Overrides = Mapping[str, Mapping[int, float]]
"""By model column, or by column that is read: the value of each row that brings its own."""


@dataclass(slots=True, eq=False)
class Query:
    """One inference request, decoded. Holds exactly one of features, instances and given."""

    model: "ServedModel"
    """Taken from the repository once, so an answer never mixes two releases."""
    edge: str
    """Which door it came through: "plain", "v2", "grpc", "batch", "stream" or "job"."""
    rows: int
    request_id: str
    received: float
    """``time.perf_counter()`` when the request had arrived."""
    features: list[float | None] | np.ndarray | None = None
    """Raw features in the plan's order: flat and row-major, rows x columns numbers, None where one
    is missing; or float32, shape (rows, columns), NaN where one is missing."""
    instances: list[Any] | None = None
    """Keyed rows as decoded from JSON, not validated yet: the batch does it, columns at once."""
    given: "Rows | None" = None
    """Keyed rows that the edge has validated itself."""
    overrides: Overrides | None = None
    """Raw features beside keys: they win over what is read and computed; NaN is missing."""
    partial: bool = False
    """A bad row costs only itself; its error stands in ``Answer.problems``."""
    deadline: float | None = None
    """``time.perf_counter()`` from which on nobody waits for the answer."""
    traceparent: str | None = None
    """Where the request belongs in a trace: https://www.w3.org/TR/trace-context."""

    done: "Done | None" = None
    """Who is told; the data plane sets it, and takes it away once told."""
    problems: dict[int, HeadraceError] | None = None
    """What the data plane found wrong with rows of a partial query."""
    places: np.ndarray | None = None
    """Where in its batch each row of a partial query with bad ones stands, counted from its first;
    -1 for a bad one: int64, shape (rows,)."""

    def drop(self) -> None:
        """Forget it, on the loop's thread: nobody is told, and what has not begun is not computed.

        Safe to call at any time, also after it was answered.
        """
        self.done = None


class Computed:
    """What a batch came to: the rows of several queries, one after the other."""

    __slots__ = (
        "_reads",
        "cached",
        "degraded",
        "event_times",
        "matrix",
        "predictions",
        "statuses",
        "values",
    )

    def __init__(
        self,
        matrix: np.ndarray,
        predictions: np.ndarray,
        statuses: Mapping[str, np.ndarray],
        event_times: Mapping[str, np.ndarray],
    ) -> None:
        self.matrix, self.predictions = matrix, predictions
        self.values: list[float | None] = predictions.tolist()
        self.statuses, self.event_times = statuses, event_times
        self.degraded = is_degraded(statuses)
        self.cached = False
        """Whether it was computed for an earlier request, and kept."""
        self._reads: tuple[tuple[str, ...], bytes] | None = None

    @property
    def reads(self) -> tuple[tuple[str, ...], bytes]:
        """The views, and what became of their reads: row by row, a byte a view."""
        if self._reads is None:
            self._reads = tuple(self.statuses), _row_by_row(self.statuses)
        return self._reads


class Answer:
    """One query's rows of a batch; what is asked for is cut out of it."""

    __slots__ = ("_batch", "_begin", "_end", "query")

    def __init__(self, query: Query, batch: Computed, begin: int, end: int) -> None:
        """Answer ``query`` with rows ``begin`` until ``end`` of ``batch``."""
        self.query, self._batch, self._begin, self._end = query, batch, begin, end

    @property
    def model(self) -> "ServedModel":
        """The model that answered."""
        return self.query.model

    @property
    def values(self) -> list[float | None]:
        """One prediction a row; None where the row has none."""
        values = self._batch.values[self._begin : self._end]
        if (places := self.query.places) is None:
            return values
        return [None if place < 0 else values[place] for place in places.tolist()]

    @property
    def predictions(self) -> np.ndarray:
        """float32, shape (rows,); NaN where the row has none."""
        return self._rows(self._batch.predictions, np.nan)

    @property
    def matrix(self) -> np.ndarray:
        """What the model saw: float32, shape (rows, columns)."""
        return self._rows(self._batch.matrix, np.nan)

    @property
    def statuses(self) -> Mapping[str, np.ndarray]:
        """What became of each view's read: codes of ``ReadStatus``, uint8, shape (rows,).

        Empty for raw features, which are not read. A bad row of a partial query is UNAVAILABLE.
        """
        unread = ReadStatus.UNAVAILABLE
        return {view: self._rows(codes, unread) for view, codes in self._batch.statuses.items()}

    @property
    def reads(self) -> tuple[tuple[str, ...], list[bytes]]:
        """The same by row: the views, and for each row a byte a view.

        There are no views, and no bytes, for raw features.
        """
        views, codes = self._batch.reads
        width = len(views)
        begin, end = self._begin * width, self._end * width
        if self.query.places is not None:
            codes = _row_by_row(self.statuses)
            begin, end = 0, len(codes)
        if not width:
            return (), []
        if end - begin == width:  # one row, as most requests have
            return views, [codes[begin:end]]
        return views, [codes[at : at + width] for at in range(begin, end, width)]

    @property
    def event_times(self) -> Mapping[str, np.ndarray]:
        """When each view's values were true: datetime64[us], shape (rows,); NaT where unknown."""
        never = np.datetime64("NaT")
        return {view: self._rows(times, never) for view, times in self._batch.event_times.items()}

    @property
    def degraded(self) -> bool:
        """Whether a value is missing because the online store could not be asked."""
        if not self._batch.degraded:
            return False
        rows = slice(self._begin, self._end)
        return is_degraded({view: codes[rows] for view, codes in self._batch.statuses.items()})

    @property
    def cached(self) -> bool:
        """Whether its rows were computed for an earlier request, and kept."""
        return self._batch.cached

    @property
    def problems(self) -> Mapping[int, HeadraceError]:
        """By row, why a row of a partial query has no prediction."""
        return self.query.problems or {}

    def _rows(self, column: np.ndarray, nothing: Any) -> np.ndarray:
        column = column[self._begin : self._end]
        if (places := self.query.places) is None:
            return column
        found = np.full((len(places), *column.shape[1:]), nothing, column.dtype)
        good = places >= 0
        found[good] = column[places[good]]
        return found


Outcome = Answer | HeadraceError
Done = Callable[[Query, Outcome], None]
"""Who is told what became of a query; called on the loop, exactly once unless it was dropped."""


def _row_by_row(statuses: Mapping[str, np.ndarray]) -> bytes:
    columns = list(statuses.values())
    return np.stack(columns, axis=1).tobytes() if columns else b""


def is_degraded(statuses: Mapping[str, np.ndarray]) -> bool:
    """Whether any read of these could not be asked of the online store."""
    unavailable = int(ReadStatus.UNAVAILABLE)
    return any(unavailable in codes.tobytes() for codes in statuses.values())
