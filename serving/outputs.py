"""From what the model answered to what each caller gets: checked, and cut by query."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headrace.errors import HeadraceError
from serving.errors import NotFinite, OutOfRange, PlaneFailed
from serving.inputs import Inputs
from serving.query import Answer, Computed, Outcome, Query

if TYPE_CHECKING:
    from serving.served import ServedModel

RANGES: Mapping[str, tuple[float, float, str]] = {
    "binary": (0.0, 1.0, "probabilities from 0 to 1"),
}
"""By task, what its answers can be; the answers of every other task are any finite number."""
_logger = logging.getLogger(__name__)
_NONE = np.empty(0, np.float32)
_ANY = (float(np.finfo(np.float32).min), float(np.finfo(np.float32).max), "finite numbers")


@dataclass(slots=True, frozen=True)
class Run:
    """What a call of the model came to."""

    batches: Sequence[Computed]
    """In the order of the inputs."""
    rows: int
    begun: float
    """``time.perf_counter()``."""
    seconds: float


def run(model: "ServedModel", inputs: Sequence[Inputs]) -> Run:
    """Let the model answer several inputs in one call.

    Raises:
        HeadraceError: if it cannot.
    """
    begun = time.perf_counter()
    if len(inputs) == 1:
        matrix = inputs[0].matrix
    else:
        matrix = np.concatenate([some.matrix for some in inputs])
    predictions = model.predictor.predict(matrix) if len(matrix) else _NONE
    if len(predictions) != len(matrix):  # a row too few, and every caller would get another's
        raise PlaneFailed(f"compute: {len(predictions)} answers for {len(matrix)} rows")
    seconds = time.perf_counter() - begun
    batches, begin = [], 0
    for some in inputs:
        end = begin + len(some.matrix)
        part = predictions[begin:end]
        batches.append(Computed(some.matrix, part, some.statuses, some.event_times))
        begin = end
    return Run(batches, len(matrix), begun, seconds)


def answers(
    model: "ServedModel", inputs: Inputs, batch: Computed, *, null_not_finite: bool
) -> Iterator[tuple[Query, Outcome]]:
    """Give every query its own rows, or what is wrong with them."""
    wrong = _wrong_rows(model, batch.predictions)
    begin = 0
    for query, count in zip(inputs.queries, inputs.counts, strict=True):
        end = begin + count
        error = None
        if wrong is not None and wrong[begin:end].any():
            error = _fault(query, batch, range(begin, end), wrong, null_not_finite)
        yield query, Answer(query, batch, begin, end) if error is None else error
        begin = end


def tell(query: Query, outcome: Outcome) -> bool:
    """Tell who waits for a query, once and on the loop; False if nobody does."""
    done = query.done
    if done is None:
        return False
    query.done = None
    try:
        done(query, outcome)
    except Exception:
        # The neighbours of a query whose edge fails are told all the same.
        _logger.exception("edge=%s request_id=%s was not answered", query.edge, query.request_id)
    return True


def fail(queries: Sequence[Query], step: str, error: BaseException) -> None:
    """Tell queries why they are not answered."""
    if not isinstance(error, HeadraceError):
        _logger.error("the data plane could not %s", step, exc_info=error)
        error = PlaneFailed(step)
    for query in queries:
        tell(query, error)


def _wrong_rows(model: "ServedModel", predictions: np.ndarray) -> np.ndarray | None:
    """Which predictions are not finite or out of range: bool, shape (rows,); None: all are good."""
    low, high, _ = RANGES.get(model.predictor.bundle.manifest.task, _ANY)
    right = (predictions >= low) & (predictions <= high)  # NaN is in no range
    return None if right.all() else ~right


def _fault(
    query: Query,
    batch: Computed,
    span: range,
    wrong: np.ndarray,
    null_not_finite: bool,
) -> HeadraceError | None:
    """Put right what may be put right with a query's wrong rows; the error where it may not."""
    for place in (np.flatnonzero(wrong[span.start : span.stop]) + span.start).tolist():
        value = float(batch.predictions[place])
        if null_not_finite and not np.isfinite(value):
            batch.values[place] = None
            continue
        row = _row_of(query, place - span.start)
        error = _error(query.model, row, value)
        if not query.partial:
            return error
        _set_aside(query, row, error)
    return None


def _error(model: "ServedModel", row: int, value: float) -> HeadraceError:
    digest, task = model.predictor.digest, model.predictor.bundle.manifest.task
    if not np.isfinite(value):
        return NotFinite(digest, row, value)
    return OutOfRange(digest, row, value, task=task, expected=RANGES[task][2])


def _row_of(query: Query, place: int) -> int:
    """The row of the request that stands at ``place`` among the query's rows in the batch."""
    if query.places is None:
        return place
    return int(np.flatnonzero(query.places == place)[0])


def _set_aside(query: Query, row: int, error: HeadraceError) -> None:
    if query.places is None:
        query.places = np.arange(query.rows)
    query.places[row] = -1
    query.problems = {**(query.problems or {}), row: error}
