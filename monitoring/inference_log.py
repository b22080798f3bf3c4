"""The inference log: what was asked and answered, for drift, performance, audit and erasure.

A server hands over each answered batch with ``record``, which only puts it on a bounded queue,
without looking at its rows; one thread turns the queue into Parquet files, one folder an hour:
``inference_log/<endpoint>/<YYYY-MM-DDTHH>/part-<id>.parquet``. A file is whole or absent. What does
not fit the queue is counted in ``dropped``, by reason, never silently lost.

Columns: ``request_id``, ``row``, ``received_at``, ``endpoint``, ``edge``, ``digest``, ``revision``,
``latency_seconds``, ``prediction``; each join key, the moment of prediction (the plan's
``event_timestamp``) and each request field; each model input as float32;
``event_time__<view>`` and ``status__<view>``. A request field that is a model input appears once,
as the model saw it. What a request did not carry, as keys in a request of raw features, is null.
"""

import logging
import random
import threading
import uuid
from collections import Counter, deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headrace import storage
from headrace.errors import StorageFailed
from headrace.names import checked_name
from monitoring.inferences import HOUR, Inferences, by_hour
from monitoring.log_table import BASE, TIMESTAMP, log_table

__all__ = ["InferenceLog", "Inferences", "read_log"]

_logger = logging.getLogger(__name__)

Reason = Literal["rows", "bytes", "closed", "unwritten", "broken"]
"""Why rows were dropped: too many rows wait, or too many bytes; they came after the end; they could
not be written by then; they do not fit the columns of the log."""


class InferenceLog:
    """Writes inferences off the hot path, in bounded memory."""

    def __init__(
        self,
        storage_uri: str,
        *,
        status_names: Sequence[str],
        flush_rows: int = 20_000,
        flush_seconds: float = 5.0,
        capacity_rows: int = 100_000,
        capacity_bytes: int = 64_000_000,
        share: float = 1.0,
    ) -> None:
        """Start the writing thread.

        Args:
            storage_uri: the root of everything that commands and servers share.
            status_names: the words for the codes in ``Inferences.statuses``.
            flush_rows: write as soon as so many rows wait.
            flush_seconds: write at the latest after so many seconds.
            capacity_rows: rows that may wait; what comes while it is full is dropped and counted.
            capacity_bytes: about the memory that waiting rows may take; more is dropped.
            share: the share of requests that is logged, chosen at random.
        """
        self._root = f"{storage_uri}/inference_log"
        self._status_names = pa.array(status_names, pa.string())
        self._flush_rows, self._flush_seconds = flush_rows, flush_seconds
        self._capacity_rows, self._capacity_bytes = capacity_rows, capacity_bytes
        self._share = share
        self._endpoints: set[str] = set()
        self._waiting: deque[Inferences] = deque()
        self._waiting_rows = self._waiting_bytes = 0
        self._closing = False
        self._changed = threading.Condition()
        self.dropped: Counter[Reason] = Counter()
        """Rows that were not written, by reason."""
        self.skipped_rows = 0
        """Rows that the share leaves out."""
        self.written_rows = 0
        self.failed_writes = 0
        self._thread = threading.Thread(target=self._run, name="inference-log", daemon=True)
        self._thread.start()

    @property
    def dropped_rows(self) -> int:
        """How many rows were dropped, for whichever reason."""
        return self.dropped.total()

    @property
    def waiting_rows(self) -> int:
        """How many rows wait to be written."""
        return self._waiting_rows

    def record(self, batch: Inferences) -> bool:
        """Queue a batch and return True, or count its rows as dropped and return False.

        Raises:
            NameRefused: if its endpoint cannot be the name of a folder.
        """
        if self._share < 1.0 and not self._sampled(batch):
            return True
        if batch.endpoint not in self._endpoints:
            self._endpoints.add(checked_name("endpoint", batch.endpoint))
        rows, size = batch.rows, batch.bytes
        with self._changed:
            if reason := self._no_room(rows, size):
                self.dropped[reason] += rows
                return False
            self._waiting.append(batch)
            self._waiting_rows += rows
            self._waiting_bytes += size
            if self._waiting_rows >= self._flush_rows > self._waiting_rows - rows:
                self._changed.notify()
            return True

    def close(self) -> None:
        """Write what waits and end the thread; safe to call twice."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _no_room(self, rows: int, size: int) -> Reason | None:
        if self._closing:
            return "closed"
        if self._waiting_rows + rows > self._capacity_rows:
            return "rows"
        return "bytes" if self._waiting_bytes + size > self._capacity_bytes else None

    def _sampled(self, batch: Inferences) -> bool:
        """Leave out the requests that the share does; False where none is left."""
        share, draw = self._share, random.random
        chosen = np.repeat([draw() < share for _ in batch.counts], batch.counts)
        wanted = np.flatnonzero(chosen)
        if batch.wanted is not None:
            wanted = np.intersect1d(wanted, batch.wanted, assume_unique=True)
        before = batch.rows
        batch.wanted = wanted
        self.skipped_rows += before - len(wanted)
        return len(wanted) > 0

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

    def _forget(self, taken: list[Inferences], failed: list[Inferences], *, closing: bool) -> None:
        """Take off the queue what was written; what failed waits for the next turn, if any."""
        for _ in taken:
            gone = self._waiting.popleft()
            self._waiting_rows -= gone.rows
            self._waiting_bytes -= gone.bytes
        rows = sum(batch.rows for batch in failed)
        self.written_rows += sum(batch.rows for batch in taken) - rows
        if closing:
            self.dropped["unwritten"] += rows
            return
        self._waiting.extendleft(reversed(failed))
        self._waiting_rows += rows
        self._waiting_bytes += sum(batch.bytes for batch in failed)
        if failed:  # a full queue is always due: without a pause a full disk would spin the thread
            self._changed.wait_for(lambda: self._closing, self._flush_seconds)

    def _write(self, taken: list[Inferences]) -> list[Inferences]:
        """Write one file for each bundle and hour, and return what could not be written."""
        files: dict[tuple[str, str, str], list[Inferences]] = {}
        for batch in taken:
            for hour, part in by_hour(batch):
                files.setdefault((batch.endpoint, hour, batch.digest), []).append(part)
        failed: list[Inferences] = []
        for (endpoint, hour, _), batches in files.items():
            uri = f"{self._root}/{endpoint}/{hour}/part-{uuid.uuid4().hex}.parquet"
            try:
                storage.write_atomic(uri, _parquet(log_table(batches, self._status_names)))
            except StorageFailed as error:
                _logger.warning("inference log: %s", error)
                self.failed_writes += 1
                failed += batches
            except (pa.ArrowException, TypeError, ValueError) as error:
                self._give_up(batches, error)
        return failed

    def _give_up(self, batches: list[Inferences], error: Exception) -> None:
        """Drop what can never be written, and keep writing the rest."""
        rows = sum(batch.rows for batch in batches)
        _logger.error("inference log: %d rows of %s: %s", rows, batches[0].endpoint, error)
        self.dropped["broken"] += rows
        self.written_rows -= rows  # _forget counts all that did not fail


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
        [pa.schema(BASE).empty_table(), *tables], promote_options="permissive"
    )
    return merged.sort_by([(name, "ascending") for name in ("received_at", "request_id", "row")])


def _parquet(table: pa.Table) -> bytes:
    # Numbers are rarely the same, and neither are request ids: a dictionary of them only costs.
    # Measured with 20 inputs: 0.6 us a row, against 1.8 with Parquet's defaults.
    texts = [f.name for f in table.schema if pa.types.is_string(f.type) and f.name != "request_id"]
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=texts,
        write_page_checksum=True,
    )
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
