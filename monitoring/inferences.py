"""What a server hands to the inference log: answered requests, a batch at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from headrace.plan import FeaturePlan

HOUR = "%Y-%m-%dT%H"
_REQUEST_BYTES, _KEY_BYTES = 150, 60
"""About what the texts of a request, and a key of a row, take in memory."""


@dataclass(slots=True, eq=False)
class Inferences:
    """Answered requests of one batch, whose rows stand one after the other."""

    endpoint: str
    digest: str
    revision: int
    plan: FeaturePlan
    request_ids: Sequence[str]
    edges: Sequence[str]
    """Which door each request came through."""
    counts: Sequence[int]
    """How many rows each request has."""
    received_at: Sequence[float]
    """Seconds since 1970 at which each request arrived, on a clock that is ``clock`` behind."""
    clock: float
    """What is to be added to ``received_at``."""
    answered_at: float
    """When they were answered, on the same clock."""
    matrix: np.ndarray
    """What the model saw: float32, shape (rows, columns of the plan)."""
    predictions: np.ndarray
    """What it answered: float32, shape (rows,)."""
    keys: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    request: Mapping[str, np.ndarray] = field(default_factory=dict)
    event_times: Mapping[str, np.ndarray] = field(default_factory=dict)
    """When each view's values were true: datetime64[us], NaT where there are none."""
    statuses: Mapping[str, np.ndarray] = field(default_factory=dict)
    """How each view's read went: positions in the log's ``status_names``."""
    wanted: np.ndarray | None = None
    """Which rows to write, where not all: int64, rising."""
    row_numbers: np.ndarray | None = None
    """The number of each row in its request, where they do not simply follow each other."""

    @property
    def rows(self) -> int:
        """How many rows are to be written."""
        return len(self.predictions) if self.wanted is None else len(self.wanted)

    @property
    def bytes(self) -> int:
        """About how much memory it takes."""
        rows, requests = len(self.predictions), len(self.request_ids)
        columns = sum(column.nbytes for column in self.request.values())
        views = 9 * rows * len(self.statuses)
        keys = _KEY_BYTES * rows * len(self.keys)
        return self.matrix.nbytes + columns + views + keys + _REQUEST_BYTES * requests


def by_hour(batch: Inferences) -> Iterator[tuple[str, Inferences]]:
    """The parts of a batch with the hours in which their requests arrived; mostly one."""
    seconds = [at + batch.clock for at in (min(batch.received_at), max(batch.received_at))]
    first, last = (f"{datetime.fromtimestamp(at, UTC):{HOUR}}" for at in seconds)
    if first == last:
        yield first, batch
        return
    texts = [f"{datetime.fromtimestamp(at + batch.clock, UTC):{HOUR}}" for at in batch.received_at]
    hours = np.repeat(texts, batch.counts)
    for hour in dict.fromkeys(texts):
        wanted = np.flatnonzero(hours == hour)
        if batch.wanted is not None:
            wanted = np.intersect1d(wanted, batch.wanted, assume_unique=True)
        yield hour, replace(batch, wanted=wanted)
