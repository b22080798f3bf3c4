"""Counts and logs what the data plane answers, a batch at a time; nothing here looks at rows."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from headrace.errors import SettingRefused
from monitoring.inference_log import InferenceLog, Inferences
from serving.inputs import Inputs
from serving.metrics import Metrics, ModelMetrics
from serving.outputs import Run
from serving.query import Answer, Computed, Query
from serving.settings import PREFIX, ServerSettings

if TYPE_CHECKING:
    from serving.tracing import Tracing


class Recorder:
    """What the data plane tells of its batches, to the metrics and to the inference log."""

    def __init__(
        self,
        metrics: Metrics,
        log: InferenceLog | None = None,
        tracing: "Tracing | None" = None,
    ) -> None:
        self._metrics, self._log, self._tracing = metrics, log, tracing

    def begun(self, batch: list[Query], alive: list[Query], late: int, now: float) -> None:
        """Take note of a batch that is taken off its queue.

        Args:
            batch: what was taken.
            alive: the queries of it that somebody still waits for, and in time.
            late: how many were too late.
            now: ``time.perf_counter()``.
        """
        counts = self._of(batch[0])
        if alive:
            counts.queue_seconds.add(now - alive[0].received)  # it has waited longest
        if late:
            counts.late.add(late)
        if cancelled := len(batch) - len(alive) - late:
            counts.cancelled.add(cancelled)

    def ran(self, query: Query, run: Run) -> None:
        """Take note of a call of the model for the batch of ``query``."""
        counts = self._of(query)
        counts.batch_rows.add(run.rows)
        counts.model_seconds.add(run.seconds)

    def shed(self, query: Query, reason: str) -> None:
        """Take note of a query that was refused because too much waits."""
        self._of(query).shed(reason).add(1)

    def answered(
        self, inputs: Inputs, batch: Computed, answered: list[bool], ran: Run | None
    ) -> None:
        """Take note of a batch whose queries were told.

        Args:
            inputs: what the model saw.
            batch: what it answered.
            answered: for each query whether somebody got its answer.
            ran: the call of the model; None for results that were kept.
        """
        now = time.perf_counter()
        if self._tracing is not None:
            self._tracing.batch(inputs, ran, now)
        counts, queries = self._of(inputs.queries[0]), inputs.queries
        every = all(answered)
        if not every:
            queries = [q for q, told in zip(queries, answered, strict=True) if told]
        self._count_edges(counts, inputs, batch, queries, now)
        if inputs.read:
            counts.read_seconds.add(inputs.read[1] - inputs.read[0])
        if batch.statuses:
            counts.count_reads(batch.statuses)
        if self._log is not None and queries:
            self._log.record(_inferences(inputs, batch, None if every else answered, now))

    def _count_edges(
        self,
        counts: ModelMetrics,
        inputs: Inputs,
        batch: Computed,
        queries: Sequence[Query],
        now: float,
    ) -> None:
        edges = [query.edge for query in queries]
        for edge in dict.fromkeys(edges):
            own = queries
            if edges.count(edge) < len(edges):
                own = [query for query in queries if query.edge == edge]
            edge_counts = counts.edge(edge)
            edge_counts.requests.add(len(own))
            edge_counts.rows.add(sum([query.rows for query in own]))
            edge_counts.seconds.add_all([now - query.received for query in own])
            if batch.degraded:
                edge_counts.degraded.add(_degraded(inputs, batch, set(own)))

    def _of(self, query: Query) -> ModelMetrics:
        return self._metrics.model(query.model.release.endpoint)


def _degraded(inputs: Inputs, batch: Computed, queries: set[Query]) -> int:
    """How many of ``queries`` have a value missing because the store could not be asked."""
    degraded, begin = 0, 0
    for query, count in zip(inputs.queries, inputs.counts, strict=True):
        if query in queries and Answer(query, batch, begin, begin + count).degraded:
            degraded += 1
        begin += count
    return degraded


def _inferences(
    inputs: Inputs, batch: Computed, answered: list[bool] | None, now: float
) -> Inferences:
    queries, rows = inputs.queries, inputs.rows
    model = queries[0].model
    inferences = Inferences(
        endpoint=model.release.endpoint,
        digest=model.predictor.digest,
        revision=model.release.revision,
        plan=model.predictor.plan,
        request_ids=[query.request_id for query in queries],
        edges=[query.edge for query in queries],
        counts=inputs.counts,
        received_at=[query.received for query in queries],
        clock=time.time() - now,
        answered_at=now,
        matrix=batch.matrix,
        predictions=batch.predictions,
        keys=rows.keys if rows else {},
        request=rows.request if rows else {},
        event_times=batch.event_times,
        statuses=batch.statuses,
    )
    if answered is not None or any(query.places is not None for query in queries):
        _leave_out(inferences, inputs, answered)
    return inferences


def _leave_out(inferences: Inferences, inputs: Inputs, answered: list[bool] | None) -> None:
    """Leave out queries that got no answer, and bad rows of partial ones."""
    numbers, wanted, begin = [], [], 0
    told = answered or [True] * len(inputs.queries)
    for query, count, is_told in zip(inputs.queries, inputs.counts, told, strict=True):
        own = np.arange(count)
        good = np.full(count, is_told)
        if (places := query.places) is not None:
            rows = np.flatnonzero(places >= 0)
            good[:] = False
            good[places[rows]] = is_told
            own[places[rows]] = rows
        numbers.append(own)
        wanted.append(np.flatnonzero(good) + begin)
        begin += count
    inferences.row_numbers = np.concatenate(numbers)
    inferences.wanted = np.concatenate(wanted)


def open_tracing(settings: ServerSettings) -> "Tracing | None":
    """What makes traces; None where the settings name no address for them.

    Raises:
        SettingRefused: if OpenTelemetry is not installed.
    """
    if not settings.traces:
        return None
    try:
        from serving.tracing import Tracing, otlp
    except ModuleNotFoundError as error:
        wanted = f"it needs {error.name}; run: pip install 'headrace[tracing]'"
        raise SettingRefused(f"{PREFIX}TRACES", settings.traces, wanted) from error
    return Tracing(otlp(settings.traces), share=settings.traces_share)
