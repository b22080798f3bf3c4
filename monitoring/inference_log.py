"""The inference log: what was asked and answered, for drift, performance, audit and erasure.

A server hands each answered request to ``record``, which only puts it on a bounded queue; one
thread turns the queue into Parquet files, one folder an hour:
``inference_log/<endpoint>/<YYYY-MM-DDTHH>/part-<id>.parquet``. A file is whole or absent. What does
not fit the queue is counted in ``dropped_rows``, never silently lost.

Columns: ``request_id``, ``row``, ``received_at``, ``endpoint``, ``edge``, ``digest``, ``revision``,
``latency_seconds``, ``prediction``; each join key, the moment of prediction (the plan's
``event_timestamp``) and each request field; each model input as float32;
``event_time__<view>`` and ``status__<view>``. A request field that is a model input appears once,
as the model saw it. What a request did not carry, as keys in a request of raw features, is null.
"""

import logging
import threading
import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace import storage
from headrace.errors import StorageFailed
from headrace.names import checked_name
from headrace.plan import FeaturePlan

HOUR = "%Y-%m-%dT%H"
TIMESTAMP = pa.timestamp("us", tz="UTC")
_BASE = {
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
_KEY_TYPES = {"STRING": pa.string(), "INT32": pa.int32(), "INT64": pa.int64()}
_FIELD_TYPES = {
    "float64": pa.float64(),
    "int64": pa.int64(),
    "string": pa.string(),
    "timestamp": TIMESTAMP,
}
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Inference:
    """One answered request of one or more rows."""

    request_id: str
    received_at: datetime
    edge: str
    """Which door it came through."""
    digest: str
    revision: int
    plan: FeaturePlan
    matrix: np.ndarray
    """What the model saw: float32, shape (rows, columns of the plan)."""
    predictions: np.ndarray
    """What it answered: float32, shape (rows,)."""
    latency_seconds: float
    keys: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    request: Mapping[str, np.ndarray] = field(default_factory=dict)
    event_times: Mapping[str, np.ndarray] = field(default_factory=dict)
    """When each view's values were true: datetime64[us], NaT where there are none."""
    statuses: Mapping[str, np.ndarray] = field(default_factory=dict)
    """How each view's read went: positions in the log's ``status_names``."""

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return len(self.predictions)


class InferenceLog:
    """Writes inferences off the hot path, in bounded memory."""

    def __init__(
        self,
        storage_uri: str,
        endpoint: str,
        *,
        status_names: Sequence[str],
        flush_rows: int = 2_000,
        flush_seconds: float = 5.0,
        capacity_rows: int = 20_000,
    ) -> None:
        """Start the writing thread.

        Args:
            storage_uri: the root of everything that commands and servers share.
            endpoint: whose log it is.
            status_names: the words for the codes in ``Inference.statuses``.
            flush_rows: write as soon as so many rows wait.
            flush_seconds: write at the latest after so many seconds.
            capacity_rows: rows that may wait; what comes while it is full is dropped and counted.
        """
        self._root = f"{storage_uri}/inference_log/{checked_name('endpoint', endpoint)}"
        self._endpoint, self._status_names = endpoint, pa.array(status_names, pa.string())
        self._flush_rows, self._flush_seconds = flush_rows, flush_seconds
        self._capacity_rows = capacity_rows
        self._waiting: deque[Inference] = deque()
        self._waiting_rows = 0
        self._closing = False
        self._changed = threading.Condition()
        self.dropped_rows = 0
        self.written_rows = 0
        self.failed_writes = 0
        self._thread = threading.Thread(target=self._run, name="inference-log", daemon=True)
        self._thread.start()

    def record(self, inference: Inference) -> bool:
        """Queue an inference and return True, or count its rows as dropped and return False."""
        with self._changed:
            if self._closing or self._waiting_rows + inference.rows > self._capacity_rows:
                self.dropped_rows += inference.rows
                return False
            self._waiting.append(inference)
            self._waiting_rows += inference.rows
            if self._waiting_rows >= self._flush_rows:
                self._changed.notify()
            return True

    def close(self) -> None:
        """Write what waits and end the thread; safe to call twice."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            with self._changed:
                self._changed.wait_for(self._is_due, self._flush_seconds)
                closing = self._closing
                taken = list(self._waiting)
            failed = self._write(taken)
            with self._changed:
                self._forget(taken, failed, closing=closing)

    def _is_due(self) -> bool:
        return self._closing or self._waiting_rows >= self._flush_rows

    def _forget(self, taken: list[Inference], failed: list[Inference], *, closing: bool) -> None:
        """Take off the queue what was written; what failed waits for the next turn, if any."""
        for _ in taken:
            self._waiting_rows -= self._waiting.popleft().rows
        rows = sum(inference.rows for inference in failed)
        self.written_rows += sum(inference.rows for inference in taken) - rows
        if closing:
            self.dropped_rows += rows
            return
        self._waiting.extendleft(reversed(failed))
        self._waiting_rows += rows
        if failed:  # a full queue is always due: without a pause a full disk would spin the thread
            self._changed.wait_for(lambda: self._closing, self._flush_seconds)

    def _write(self, taken: list[Inference]) -> list[Inference]:
        """Write one file for each bundle and hour, and return what could not be written."""
        failed: list[Inference] = []
        for (hour, _), group in groupby(sorted(taken, key=_file_key), key=_file_key):
            inferences = list(group)
            uri = f"{self._root}/{hour}/part-{uuid.uuid4().hex}.parquet"
            try:
                storage.write_atomic(uri, _parquet(self._table(inferences)))
            except StorageFailed as error:
                _logger.warning("inference log: %s", error)
                self.failed_writes += 1
                failed += inferences
        return failed

    def _table(self, inferences: list[Inference]) -> pa.Table:
        plan = inferences[0].plan
        rows = np.array([inference.rows for inference in inferences])
        columns: dict[str, pa.Array] = _base_columns(inferences, rows, self._endpoint)
        for key in {key.name: key for view in plan.views for key in view.join_keys}.values():
            kind = _KEY_TYPES[key.dtype]
            columns[key.name] = _gather([i.keys.get(key.name) for i in inferences], rows, kind)
        fields = {part.name: _FIELD_TYPES[part.dtype] for part in plan.request}
        for name, kind in ({plan.event_timestamp: TIMESTAMP} | fields).items():
            if name not in columns:
                columns[name] = _gather([i.request.get(name) for i in inferences], rows, kind)
        matrix = np.concatenate([inference.matrix for inference in inferences])
        for name, column in zip(plan.columns, np.ascontiguousarray(matrix.T), strict=True):
            columns[name] = pa.array(column)
        for view in plan.views:
            times = [i.event_times.get(view.view) for i in inferences]
            codes = [i.statuses.get(view.view) for i in inferences]
            columns[f"event_time__{view.view}"] = _gather(times, rows, TIMESTAMP)
            columns[f"status__{view.view}"] = self._status_names.take(
                _gather(codes, rows, pa.uint8())
            )
        return pa.table(columns)


def read_log(storage_uri: str, endpoint: str, *, since: datetime, until: datetime) -> pa.Table:
    """Return what an endpoint was asked and answered, ordered by arrival.

    Models of different columns share the log: a column that a row's model does not have is null.

    Args:
        storage_uri: the root of everything that commands and servers share.
        endpoint: whose log.
        since: first moment of arrival, timezone-aware.
        until: moment after the last one, timezone-aware.

    Raises:
        StorageFailed: for a file that cannot be read.
    """
    root = f"{storage_uri}/inference_log/{checked_name('endpoint', endpoint)}"
    first, last = since.astimezone(UTC), until.astimezone(UTC)
    hours = [
        hour for hour in storage.list_names(root) if f"{first:{HOUR}}" <= hour <= f"{last:{HOUR}}"
    ]
    uris = [
        f"{root}/{hour}/{name}" for hour in hours for name in storage.list_names(f"{root}/{hour}")
    ]
    tables = [_window(_read(uri), first, last) for uri in uris]
    merged = pa.concat_tables(
        [pa.schema(_BASE).empty_table(), *tables], promote_options="permissive"
    )
    return merged.sort_by([(name, "ascending") for name in ("received_at", "request_id", "row")])


def _file_key(inference: Inference) -> tuple[str, str]:
    return f"{inference.received_at.astimezone(UTC):{HOUR}}", inference.digest


def _base_columns(
    inferences: list[Inference], rows: np.ndarray, endpoint: str
) -> dict[str, pa.Array]:
    repeated = pa.array(np.repeat(np.arange(len(rows)), rows))
    per_request = {
        "request_id": [i.request_id for i in inferences],
        "received_at": [i.received_at for i in inferences],
        "endpoint": [endpoint] * len(inferences),
        "edge": [i.edge for i in inferences],
        "digest": [i.digest for i in inferences],
        "revision": [i.revision for i in inferences],
        "latency_seconds": [i.latency_seconds for i in inferences],
    }
    columns = {
        name: pa.array(values, _BASE[name]).take(repeated) for name, values in per_request.items()
    }
    columns["row"] = pa.array(np.concatenate([np.arange(n, dtype=np.int32) for n in rows]))
    columns["prediction"] = pa.array(np.concatenate([i.predictions for i in inferences]))
    return {name: columns[name] for name in _BASE}


def _gather(parts: Iterable[Any], rows: np.ndarray, kind: pa.DataType) -> pa.Array:
    """One column of several requests; null for those that did not carry it."""
    arrays = [
        pa.nulls(count, kind) if part is None else pa.array(part, kind)
        for part, count in zip(parts, rows, strict=True)
    ]
    return pa.concat_arrays(arrays)


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue())


def _read(uri: str) -> pa.Table:
    try:
        source = pa.BufferReader(storage.read_bytes(uri))
        return pq.read_table(source, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:  # Arrow tells broken pages as OSError
        raise StorageFailed("read", uri, f"it is no whole Parquet file ({error})") from error


def _window(table: pa.Table, since: datetime, until: datetime) -> pa.Table:
    import pyarrow.compute as pc

    at = table["received_at"]
    first, last = pa.scalar(since, TIMESTAMP), pa.scalar(until, TIMESTAMP)
    return table.filter(pc.and_(pc.greater_equal(at, first), pc.less(at, last)))
