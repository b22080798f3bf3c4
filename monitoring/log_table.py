"""From answered batches to a table of the inference log: a column at a time, never a row.

The loop that answers requests waits while Python runs here, so what can be left to NumPy and Arrow
is: both let go of the interpreter for long work.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from monitoring.inferences import Inferences

TIMESTAMP = pa.timestamp("us", tz="UTC")
BASE = {
    "request_id": pa.string(),
    "row": pa.int32(),
    "received_at": TIMESTAMP,
    "endpoint": pa.string(),
    "edge": pa.string(),
    "digest": pa.string(),
    "revision": pa.int64(),
    "latency_seconds": pa.float64(),
    "prediction": pa.float32(),
}
"""The columns that every row has."""
_KEY_TYPES = {"STRING": pa.string(), "INT32": pa.int32(), "INT64": pa.int64()}
_FIELD_TYPES = {
    "float64": pa.float64(),
    "int64": pa.int64(),
    "string": pa.string(),
    "timestamp": TIMESTAMP,
}


def log_table(batches: "Sequence[Inferences]", status_names: pa.Array) -> pa.Table:
    """Return batches of one bundle as a table.

    Args:
        batches: in order.
        status_names: the words for the codes in ``Inferences.statuses``.
    """
    plan = batches[0].plan
    columns = _base_columns(batches)

    for key in {key.name: key for view in plan.views for key in view.join_keys}.values():
        keys = [batch.keys.get(key.name) for batch in batches]
        columns[key.name] = _gather(keys, batches, _KEY_TYPES[key.dtype])
    fields = {part.name: _FIELD_TYPES[part.dtype] for part in plan.request}
    for name, kind in ({plan.event_timestamp: TIMESTAMP} | fields).items():
        if name not in columns and name not in plan.columns:
            columns[name] = _gather([b.request.get(name) for b in batches], batches, kind)
    matrix = np.concatenate([batch.matrix for batch in batches])
    for name, column in zip(plan.columns, np.ascontiguousarray(matrix.T), strict=True):
        columns[name] = pa.array(column)
    for view in plan.views:
        name = view.view
        times = [batch.event_times.get(name) for batch in batches]
        columns[f"event_time__{name}"] = _gather(times, batches, TIMESTAMP)
        codes = _gather([batch.statuses.get(name) for batch in batches], batches, pa.uint8())
        columns[f"status__{name}"] = status_names.take(codes)
    return _wanted(pa.table(columns), batches)


def _base_columns(batches: "Sequence[Inferences]") -> dict[str, pa.Array]:
    """The columns that every row has."""
    counts = np.array(list(chain.from_iterable(batch.counts for batch in batches)))
    requests = np.array([len(batch.counts) for batch in batches])
    received = np.array(list(chain.from_iterable(batch.received_at for batch in batches)))
    clock = np.repeat([batch.clock for batch in batches], requests)
    answered = np.repeat([batch.answered_at for batch in batches], requests)
    microseconds = np.rint((received + clock) * 1e6).astype("datetime64[us]")
    first = batches[0]
    rows = int(counts.sum())
    revisions = np.repeat([batch.revision for batch in batches], requests)
    per_request = {
        "request_id": pa.array(
            list(chain.from_iterable(batch.request_ids for batch in batches)), pa.string()
        ),
        "received_at": pa.array(microseconds, TIMESTAMP),
        "edge": pa.array(list(chain.from_iterable(batch.edges for batch in batches)), pa.string()),
        "revision": pa.array(revisions, pa.int64()),
        "latency_seconds": pa.array(answered - received, pa.float64()),
    }
    if rows > len(counts):
        repeated = pa.array(np.repeat(np.arange(len(counts)), counts))
        per_request = {name: column.take(repeated) for name, column in per_request.items()}
    columns = per_request | {
        "row": pa.array(_row_numbers(batches, counts), pa.int32()),
        "endpoint": pa.repeat(first.endpoint, rows),
        "digest": pa.repeat(first.digest, rows),
        "prediction": pa.array(np.concatenate([batch.predictions for batch in batches])),
    }
    return {name: columns[name] for name in BASE}


def _row_numbers(batches: "Sequence[Inferences]", counts: np.ndarray) -> np.ndarray:
    """The number of each row in its request."""
    if len(counts) == counts.sum() and all(batch.row_numbers is None for batch in batches):
        return np.zeros(len(counts), np.int32)
    parts = []
    for batch in batches:
        if batch.row_numbers is not None:
            parts.append(batch.row_numbers)
        else:
            own = np.asarray(batch.counts)
            parts.append(np.arange(own.sum()) - np.repeat(np.cumsum(own) - own, own))
    return np.concatenate(parts).astype(np.int32)


def _gather(parts: Sequence[Any], batches: "Sequence[Inferences]", kind: pa.DataType) -> pa.Array:
    """One column from its part in each batch; null where a batch did not carry it."""
    if all(given is None for given in parts):
        return pa.nulls(sum(len(batch.predictions) for batch in batches), kind)
    if all(given is not None for given in parts):
        return _column(parts, kind)
    return pa.concat_arrays(
        [
            pa.nulls(len(batch.predictions), kind) if given is None else _column([given], kind)
            for given, batch in zip(parts, batches, strict=True)
        ]
    )


def _column(parts: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if all(isinstance(given, np.ndarray) for given in parts):
        return pa.array(np.concatenate(parts), kind)
    every: Iterable[Any] = chain.from_iterable(parts)
    return pa.array(list(every), kind)


def _wanted(table: pa.Table, batches: "Sequence[Inferences]") -> pa.Table:
    """The rows of ``table`` that are to be written."""
    if all(batch.wanted is None for batch in batches):
        return table
    begins = np.cumsum([0, *(len(batch.predictions) for batch in batches)]).tolist()
    places = [
        np.arange(len(batch.predictions)) + begin if batch.wanted is None else batch.wanted + begin
        for batch, begin in zip(batches, begins, strict=False)
    ]
    return table.take(pa.array(np.concatenate(places)))
